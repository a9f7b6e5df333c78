//! Many sessions in one document that say something of themselves all the time, and what that costs the server.
//!
//!     just bench-presence                                   # 100, 300 and 1,000 sessions
//!     just bench-presence --sessions 2000 --rate 5 --seconds 10
//!
//! The server is a process of its own, this program with `--serve`, so that its processor time can be told apart. The
//! sessions are connections over loopback WebSockets that only count what they are sent, without gzip; one more is a
//! client of the library, which must see in the end what each of them said last, or the program fails.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::collections::BTreeMap;
use std::error::Error;
use std::future::poll_fn;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sync_client::transport::{Dialer, Transport, WebSocketDialer};
use sync_client::{AccessLevel, Client, DocumentId, EngineId, OriginId, SessionId, Yrs};
use sync_core::ids::{Channel, RequestId};
use sync_core::wire::{
    Compression, Hello, Message, Open, PROTOCOL_VERSIONS, Presence, PresenceDelta, decode_frame,
    encode_frame,
};
use sync_examples::random::SplitMix;
use sync_examples::server_process::ServerProcess;
use sync_server::{Anonymous, MemoryRegistry, Server};
use tokio::io::{AsyncReadExt, stdin};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval_at, sleep, timeout};

type Failure = Box<dyn Error + Send + Sync>;

const DOCUMENT: &str = "presence";
const TICK: Duration = Duration::from_millis(50);
const WARM_UP: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);
const FRAME_BYTES_MAX: usize = 1 << 20;

/// What sessions say of themselves: where they are.
type Place = (u32, u32);

#[derive(Debug, Clone)]
struct Options {
    sessions: Vec<u32>,
    /// Updates of each session in a second.
    rate: u32,
    /// How long is measured.
    seconds: u32,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let mut options = Options {
        sessions: vec![100, 300, 1_000],
        rate: 10,
        seconds: 5,
    };
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        if flag == "--serve" {
            return serve().await;
        }
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--sessions" => {
                options.sessions = value.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            "--rate" => options.rate = value.parse()?,
            "--seconds" => options.seconds = value.parse()?,
            _ => return Err(format!("unknown flag {flag}").into()),
        }
    }
    println!(
        "| sessions | said, each in a second | server CPU, each in a second | one delivered update | bytes of it | down, each in a second | frames of each in a tick |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for sessions in &options.sessions {
        println!("{}", measure(*sessions, &options).await?);
    }
    Ok(ExitCode::SUCCESS)
}

/// The server's process: tells its address, and serves until nobody holds its standard input any more.
async fn serve() -> Result<ExitCode, Failure> {
    let server = Server::builder(MemoryRegistry::new(), Anonymous::read_write()).build()?;
    let listener = server.listen_websocket("127.0.0.1:0").await?;
    println!("ws://{}", listener.local_addr().ok_or("no address")?);
    stdin().read_to_end(&mut Vec::new()).await?;
    println!("served");
    Ok(ExitCode::SUCCESS)
}

/// What all sessions together were sent while it was counted.
#[derive(Debug, Default)]
struct Counters {
    is_counting: AtomicBool,
    said: AtomicU64,
    frames: AtomicU64,
    bytes: AtomicU64,
    /// Of one session, whose frames are read: to read those of all takes more than to serve them.
    sampled_frames: AtomicU64,
    sampled_updates: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Saying,
    /// Each says something for the last time.
    Ending,
}

/// Runs so many sessions on a server of their own, and says in a line what that cost.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "numbers for people to read"
)]
async fn measure(n: u32, options: &Options) -> Result<String, Failure> {
    let server = ServerProcess::start().await?;
    let counters = Arc::new(Counters::default());
    let (phase, phases) = watch::channel(Phase::Waiting);
    let mut members = JoinSet::new();
    for member in 0..n {
        let connection = Connection::open(server.address(), member).await?;
        let every = Duration::from_secs(1) / options.rate.max(1);
        members.spawn(connection.run(member, every, counters.clone(), phases.clone()));
    }
    let client = Client::builder(server.address()).start()?;
    let document = client.open(DOCUMENT, Yrs::new()).await?;
    let mut roster = document.presence::<Place>().roster();

    phase.send(Phase::Saying)?;
    sleep(WARM_UP).await;
    let cpu = server.cpu_time().unwrap_or_default();
    let begun = Instant::now();
    counters.is_counting.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(options.seconds.into())).await;
    counters.is_counting.store(false, Ordering::Relaxed);
    let took = begun.elapsed();
    let cpu = server.cpu_time().unwrap_or_default().saturating_sub(cpu);
    phase.send(Phase::Ending)?;

    let wanted: BTreeMap<u32, u32> = (0..n).map(|member| (member, u32::MAX)).collect();
    let all = roster.wait_for(|peers| {
        let said = peers.iter().filter_map(|peer| peer.state);
        said.collect::<BTreeMap<_, _>>() == wanted
    });
    timeout(PATIENCE, all)
        .await
        .map_err(|_| "not everybody is seen with what they said last")??;
    drop(phase);
    while let Some(ended) = members.join_next().await {
        ended??;
    }
    server.stop().await?;

    let each = f64::from(n) * took.as_secs_f64();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let in_a_frame = count(&counters.sampled_updates) / count(&counters.sampled_frames).max(1.0);
    let updates = (count(&counters.frames) * in_a_frame).max(1.0);
    Ok(format!(
        "| {n} | {:.1} | {:.2} ms | {:.0} ns | {:.1} | {:.1} kB | {:.2} |",
        count(&counters.said) / each,
        cpu.as_secs_f64() * 1e3 / each,
        cpu.as_secs_f64() * 1e9 / updates,
        count(&counters.bytes) / updates,
        count(&counters.bytes) / 1e3 / each,
        count(&counters.frames) / each * TICK.as_secs_f64(),
    ))
}

/// A session that has opened the document.
struct Connection {
    transport: Box<dyn Transport>,
    session: SessionId,
    channel: Channel,
}

impl Connection {
    async fn open(address: &str, member: u32) -> Result<Self, Failure> {
        let transport = WebSocketDialer::new(address)?.dial().await?;
        let mut connection = Self {
            transport,
            session: SessionId(0),
            channel: Channel(0),
        };
        connection
            .send(&Message::Hello(Hello {
                versions: PROTOCOL_VERSIONS,
                software: "presence_load".to_owned(),
                origin: OriginId(u128::from(member) + 1),
                connection: 1,
                credentials: None,
                compression: Vec::new(),
                resume: None,
            }))
            .await?;
        let Message::Welcome(welcome) = connection.next().await? else {
            return Err("not welcome".into());
        };
        connection.session = welcome.session;
        connection
            .send(&Message::Open(Open {
                request: RequestId(1),
                document: DocumentId::new(DOCUMENT)?,
                engine: EngineId::YRS,
                cursor: None,
                origins: Vec::new(),
                access: AccessLevel::Write,
                create: true,
                partial: None,
            }))
            .await?;
        let Message::Opened(opened) = connection.next().await? else {
            return Err("not opened".into());
        };
        connection.channel = opened.channel;
        Ok(connection)
    }

    /// Says where it is, again and again, and counts what it is sent, until nobody holds the other end of `phases`.
    async fn run(
        mut self,
        member: u32,
        every: Duration,
        counters: Arc<Counters>,
        mut phases: watch::Receiver<Phase>,
    ) -> Result<(), Failure> {
        let mut random = SplitMix(member.into());
        let spread = usize::try_from(every.as_micros())?;
        let offset = Duration::from_micros(u64::try_from(random.below(spread.max(1)))?);
        let mut ticks = interval_at(tokio::time::Instant::now() + offset, every);
        let mut phase = Phase::Waiting;
        loop {
            tokio::select! {
                changed = phases.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    phase = *phases.borrow();
                    if phase == Phase::Ending {
                        self.say((member, u32::MAX)).await?;
                    }
                }
                frame = receive(&mut *self.transport) => {
                    if counters.is_counting.load(Ordering::Relaxed) {
                        count(&counters, &frame?, member == 0)?;
                    }
                }
                _ = ticks.tick(), if phase == Phase::Saying => {
                    let place = u32::try_from(random.below(10_000))?;
                    self.say((member, place)).await?;
                    if counters.is_counting.load(Ordering::Relaxed) {
                        counters.said.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    async fn say(&mut self, (member, place): Place) -> Result<(), Failure> {
        // An array of two numbers of four bytes.
        let mut state = vec![0x92, 0xce];
        state.extend(member.to_be_bytes());
        state.push(0xce);
        state.extend(place.to_be_bytes());
        let message = Message::Presence(Presence {
            channel: self.channel,
            deltas: vec![PresenceDelta {
                session: self.session,
                user: String::new(),
                state: Some(state.into()),
            }],
            table_version: 0,
        });
        self.send(&message).await
    }

    async fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let transport = &mut *self.transport;
        poll_fn(|cx| transport.poll_ready(cx)).await?;
        transport.start_send(encode_frame(message, Compression::None))?;
        Ok(poll_fn(|cx| transport.poll_flush(cx)).await?)
    }

    /// The next message that is not about who is there.
    async fn next(&mut self) -> Result<Message, Failure> {
        loop {
            let frame = receive(&mut *self.transport).await?;
            match decode_frame(frame, FRAME_BYTES_MAX)? {
                Message::Presence(_) => {}
                message => return Ok(message),
            }
        }
    }
}

async fn receive(transport: &mut dyn Transport) -> Result<Bytes, Failure> {
    poll_fn(|cx| match transport.poll_receive(cx) {
        Poll::Ready(None) => Poll::Ready(Err("the server closed the connection".into())),
        Poll::Ready(Some(frame)) => Poll::Ready(frame.map_err(Into::into)),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Counts a frame, with the header of its WebSocket frame, if it says who is there.
fn count(counters: &Counters, frame: &Bytes, is_sampled: bool) -> Result<(), Failure> {
    // Plain, an array of four, of type 12.
    if !frame.starts_with(&[0, 0x94, 12]) {
        return Ok(());
    }
    let length = frame.len();
    let header = match length {
        0..126 => 2,
        126..65_536 => 4,
        _ => 10,
    };
    counters.frames.fetch_add(1, Ordering::Relaxed);
    let bytes = u64::try_from(length + header)?;
    counters.bytes.fetch_add(bytes, Ordering::Relaxed);
    if is_sampled && let Message::Presence(presence) = decode_frame(frame.clone(), FRAME_BYTES_MAX)?
    {
        counters.sampled_frames.fetch_add(1, Ordering::Relaxed);
        let updates = u64::try_from(presence.deltas.len())?;
        counters
            .sampled_updates
            .fetch_add(updates, Ordering::Relaxed);
    }
    Ok(())
}
