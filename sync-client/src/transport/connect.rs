//! Connecting sockets.

#[cfg(any(feature = "websocket", feature = "tcp"))]
use std::{future::Future, io, net::SocketAddr, time::Duration};

use sync_core::BoxError;
use sync_core::transport::DialError;

/// A TCP connection to this host, at the first of its addresses that answers ("happy eyeballs", RFC 8305).
#[cfg(any(feature = "websocket", feature = "tcp"))]
pub(super) async fn connect(host: &str, port: u16) -> Result<tokio::net::TcpStream, DialError> {
    let addresses = tokio::net::lookup_host((host, port))
        .await
        .map_err(unreachable)?;
    let attempts = alternating(addresses)
        .into_iter()
        .map(tokio::net::TcpStream::connect);
    let stream = first_of(attempts).await.map_err(unreachable)?;
    // Our frames are written when they should leave.
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok(stream)
}

pub(super) fn unreachable(error: impl Into<BoxError>) -> DialError {
    DialError::Unreachable(error.into())
}

/// The addresses, the families by turns, so that one which leads nowhere costs one head start (RFC 8305 section 4).
#[cfg(any(feature = "websocket", feature = "tcp"))]
fn alternating(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses = addresses.peekable();
    let is_first_v6 = addresses.peek().is_some_and(SocketAddr::is_ipv6);
    let (first, other): (Vec<_>, Vec<_>) =
        addresses.partition(|address| address.is_ipv6() == is_first_v6);
    let mut other = other.into_iter();
    let mut by_turns: Vec<_> = first
        .into_iter()
        .flat_map(|address| std::iter::once(address).chain(other.next()))
        .collect();
    by_turns.extend(other);
    by_turns
}

/// What succeeds first of attempts that begin a head start after each other, or when the one before has failed; the others are
/// given up.
#[cfg(any(feature = "websocket", feature = "tcp"))]
async fn first_of<T, F>(attempts: impl IntoIterator<Item = F>) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    use futures_util::{StreamExt, stream::FuturesUnordered};
    let mut attempts = attempts.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    loop {
        let mut has_more = false;
        if let Some(attempt) = attempts.next() {
            under_way.push(attempt);
            has_more = true;
        }
        let head_start = async {
            match has_more {
                true => tokio::time::sleep(HEAD_START).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            done = under_way.next() => match done {
                Some(Ok(made)) => return Ok(made),
                Some(Err(failed)) => error = failed,
                None => return Err(error),
            },
            () = head_start => {}
        }
    }
}

/// RFC 8305 section 5, "Connection Attempt Delay".
#[cfg(any(feature = "websocket", feature = "tcp"))]
const HEAD_START: Duration = Duration::from_millis(250);

#[cfg(all(test, any(feature = "websocket", feature = "tcp")))]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    /// An attempt that takes so long, in ms.
    async fn attempt(ms: u64, result: Result<u8, &'static str>) -> io::Result<u8> {
        sleep(Duration::from_millis(ms)).await;
        result.map_err(io::Error::other)
    }

    async fn timed<T>(future: impl Future<Output = T>) -> (T, u128) {
        let started = Instant::now();
        let result = future.await;
        (result, started.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_leads_nowhere_costs_one_head_start() {
        let attempts = [
            attempt(60_000, Err("nobody")),
            attempt(20, Ok(2)),
            attempt(0, Ok(3)),
        ];
        let (made, ms) = timed(first_of(attempts)).await;
        assert_eq!((made.unwrap(), ms), (2, 270));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_costs_nothing_and_a_slow_one_may_still_win() {
        let attempts = [
            attempt(300, Ok(1)),
            attempt(10, Err("refused")),
            attempt(10, Err("refused")),
        ];
        let (made, ms) = timed(first_of(attempts)).await;
        assert_eq!((made.unwrap(), ms), (1, 300));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_error_is_told_once_all_have_failed() {
        let attempts = [
            attempt(10, Err("first")),
            attempt(500, Err("last")),
            attempt(10, Err("in between")),
        ];
        let (made, ms) = timed(first_of(attempts)).await;
        assert_eq!((made.unwrap_err().to_string().as_str(), ms), ("last", 510));
        assert!(
            first_of(Vec::<std::future::Ready<io::Result<()>>>::new())
                .await
                .is_err()
        );
    }

    #[test]
    fn families_take_turns_from_the_one_that_is_preferred() {
        let parse = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let [a, b, c, d] = ["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1"].map(parse);
        assert_eq!(alternating([a, b, c, d].into_iter()), [a, d, b, c]);
        assert_eq!(alternating([d, a, b, c].into_iter()), [d, a, b, c]);
        assert_eq!(alternating([].into_iter()), []);
    }
}
