//! Any stream and sink of frames as a transport.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::Sink;

use super::{Transport, TransportError, owned};
use crate::maybe_send::{BoxError, MaybeSend};

/// Makes a [`Transport`] of anything that is a stream and a sink of whole frames, such as a length-delimited
/// TCP socket.
///
/// It has no close codes: closing ends the stream, the other side sees that end, and ends its own.
pub struct FramedTransport<S, I = Bytes> {
    inner: S,
    item: PhantomData<fn() -> I>,
}

impl<S, I, E> FramedTransport<S, I>
where
    S: Stream<Item = Result<I, E>> + Sink<Bytes, Error = E> + Unpin + MaybeSend + 'static,
    I: Into<Bytes> + 'static,
    E: Into<BoxError>,
{
    /// Wraps a connection that is ready for frames. An [`io::Error`] of kind `InvalidData`, which is what decoders say of
    /// bytes that are no frame, counts as [`TransportError::WrongProtocol`]; every other error as a lost connection.
    #[must_use]
    pub const fn new(inner: S) -> Self {
        Self {
            inner,
            item: PhantomData,
        }
    }
}

impl<S, I, E> Transport for FramedTransport<S, I>
where
    S: Stream<Item = Result<I, E>> + Sink<Bytes, Error = E> + Unpin + MaybeSend + 'static,
    I: Into<Bytes> + 'static,
    E: Into<BoxError>,
{
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, TransportError>>> {
        Pin::new(&mut self.inner).poll_next(cx).map(|item| {
            item.map(|item| {
                item.map(|frame| owned(frame.into()))
                    .map_err(transport_error)
            })
        })
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Pin::new(&mut self.inner)
            .poll_ready(cx)
            .map_err(transport_error)
    }

    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        Pin::new(&mut self.inner)
            .start_send(frame)
            .map_err(transport_error)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Pin::new(&mut self.inner)
            .poll_flush(cx)
            .map_err(transport_error)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, _code: u16) -> Poll<()> {
        // An error means that it is closed already.
        if ready!(Pin::new(&mut self.inner).poll_close(cx)).is_err() {
            return Poll::Ready(());
        }
        // A socket dropped with unread bytes is reset, and the reset can overtake what was sent: so read until the
        // other side has seen the end.
        while let Some(Ok(_)) = ready!(Pin::new(&mut self.inner).poll_next(cx)) {}
        Poll::Ready(())
    }
}

impl<S: fmt::Debug, I> fmt::Debug for FramedTransport<S, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FramedTransport").field(&self.inner).finish()
    }
}

fn transport_error(error: impl Into<BoxError>) -> TransportError {
    let error = error.into();
    match error.downcast_ref::<io::Error>() {
        Some(invalid) if invalid.kind() == io::ErrorKind::InvalidData => {
            TransportError::WrongProtocol(invalid.to_string())
        }
        _ => TransportError::Lost(Some(error)),
    }
}

#[cfg(test)]
mod tests {
    use futures_executor::LocalPool;

    use super::*;
    use crate::transport::memory::{MemoryTransport, pair};
    use crate::transport::suite::Suite;

    /// A stream and sink of frames that is not ours.
    struct Foreign(MemoryTransport);

    impl Stream for Foreign {
        type Item = Result<Bytes, TransportError>;
        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            self.0.poll_receive(cx)
        }
    }

    impl Sink<Bytes> for Foreign {
        type Error = TransportError;
        fn poll_ready(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Result<(), TransportError>> {
            self.0.poll_ready(cx)
        }
        fn start_send(mut self: Pin<&mut Self>, frame: Bytes) -> Result<(), TransportError> {
            self.0.start_send(frame)
        }
        fn poll_flush(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Result<(), TransportError>> {
            self.0.poll_flush(cx)
        }
        fn poll_close(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Result<(), TransportError>> {
            self.0.poll_close(cx, 1000).map(Ok)
        }
    }

    /// Scenario 75.
    #[test]
    fn any_stream_and_sink_of_frames_passes_the_transport_suite() {
        let connect = || async {
            let (first, second) = pair(64 * 1024);
            (
                FramedTransport::new(Foreign(first)),
                FramedTransport::new(Foreign(second)),
            )
        };
        LocalPool::new().run_until(Suite::new(connect).without_close_codes().run());
    }
}
