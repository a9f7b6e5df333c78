//! The clients, and what is done to them.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::try_join_all;
use sync_client::transport::{DialError, Dialer, Transport, WebSocketDialer};
use sync_client::{Client, DocumentHandle, Opaque};
use sync_server::registry::{EmbeddedRegistry, ServerRegistry, Tail};
use sync_server::{DocumentId, Seq};

use super::board::Board;
use super::report::{Report, Round};
use super::server::{Home, Process, accept_failures, resident_bytes};
use super::{CLIENTS_PER_DOCUMENT, PATIENCE, Plan};
use crate::link::{LinkDialer, Links};

/// One client with its document.
struct Guest {
    client: Client,
    document: DocumentHandle<Opaque>,
    edits: AtomicUsize,
}

/// Notes when it dials.
struct Timed {
    dialer: LinkDialer,
    dialed: Arc<Mutex<Option<Instant>>>,
    board: Arc<Board>,
}

#[async_trait]
impl Dialer for Timed {
    async fn dial(&self) -> Result<Box<dyn Transport>, DialError> {
        *self.dialed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let dialed = self.dialer.dial().await;
        if let Err(error) = &dialed {
            self.board.note_dial(error);
        }
        dialed
    }
}

pub(super) async fn run(plan: &Plan) -> Result<Report, Box<dyn Error>> {
    let home = Home::new()?;
    let mut server = Process::start(plan, &home, "127.0.0.1:0")?;
    let address = server.address().to_owned();
    let (board, links) = (Arc::new(Board::new()), Links::new());
    let failures_before = accept_failures();

    let mut guests = Vec::new();
    for number in 0..plan.clients {
        guests.push(Arc::new(guest(number, &address, &links, &board).await?));
    }
    all_back(&board, plan).await?;
    let came = board.begin();
    let memory = (
        resident_bytes(server.id()),
        resident_bytes(std::process::id()),
    );

    let n_cut = links.cut_all();
    all_back(&board, plan).await?;
    let cut = Round::new(&board.begin(), accept_failures() - failures_before);

    let is_over = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(edit(guests.clone(), plan.edits, Arc::clone(&is_over)));
    // Some changes are under way at any time from here on.
    tokio::time::sleep(Duration::from_secs(1)).await;
    board.begin();
    let failures_before = accept_failures();
    server.terminate()?;
    let drained_in = server.ended().await?;
    server = Process::start(plan, &home, &address)?;
    all_back(&board, plan).await?;
    is_over.store(true, Ordering::Relaxed);
    writing.await??;
    let saved = try_join_all(guests.iter().map(|guest| guest.document.saved()));
    tokio::time::timeout(PATIENCE, saved)
        .await
        .map_err(|_| "changes were not acknowledged in time")??;
    let drain = Round::new(&board.begin(), accept_failures() - failures_before);

    let expected: BTreeMap<String, usize> = guests
        .iter()
        .enumerate()
        .flat_map(|(number, guest)| {
            let edits = guest.edits.load(Ordering::Relaxed);
            (0..edits).map(move |n| (format!("{number}/{n}"), 1))
        })
        .collect();
    for guest in &guests {
        guest.client.disconnect();
    }
    server.terminate()?;
    server.ended().await?;
    let found = changes(&home, plan).await?;
    Ok(Report {
        clients: plan.clients,
        n_cut,
        came: came.since_dialed(),
        cut,
        drain,
        drained_in,
        server_bytes: memory.0,
        load_bytes: memory.1,
        n_changes: expected.len(),
        missing: expected
            .keys()
            .filter(|key| !found.contains_key(*key))
            .count(),
        doubled: found.values().filter(|n| **n > 1).count(),
    })
}

fn document_of(number: usize) -> String {
    format!("storm/{}", number / CLIENTS_PER_DOCUMENT)
}

async fn guest(
    number: usize,
    address: &str,
    links: &Links,
    board: &Arc<Board>,
) -> Result<Guest, Box<dyn Error>> {
    let dialed: Arc<Mutex<Option<Instant>>> = Arc::default();
    let dialer = Timed {
        dialer: links.dialer(WebSocketDialer::new(&format!("ws://{address}"))?),
        dialed: Arc::clone(&dialed),
        board: Arc::clone(board),
    };
    let client = Client::with_dialer(dialer).start()?;
    let mut events = client.events();
    let board = Arc::clone(board);
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let dialed = *dialed.lock().unwrap_or_else(PoisonError::into_inner);
            board.note(number, dialed, &event);
        }
    });
    let document = client.open(document_of(number), Opaque::new()).await?;
    Ok(Guest {
        client,
        document,
        edits: AtomicUsize::new(0),
    })
}

async fn all_back(board: &Board, plan: &Plan) -> Result<(), Box<dyn Error>> {
    match board.back(plan.clients).await {
        true => Ok(()),
        false => Err(format!("not everybody was there in time: {:?}", board.begin()).into()),
    }
}

/// Has the clients edit by turns, until it is over.
async fn edit(
    guests: Vec<Arc<Guest>>,
    per_second: usize,
    is_over: Arc<AtomicBool>,
) -> Result<(), sync_client::EditError> {
    const TURN: Duration = Duration::from_millis(20);
    let mut turns = tokio::time::interval(TURN);
    let mut by_turns = guests.iter().enumerate().cycle();
    let mut due = 0;
    while !is_over.load(Ordering::Relaxed) {
        turns.tick().await;
        due += per_second;
        let turns_per_second = 50;
        for (number, guest) in by_turns.by_ref().take(due / turns_per_second) {
            let n = guest.edits.fetch_add(1, Ordering::Relaxed);
            guest
                .document
                .edit(|log| log.push(format!("{number}/{n}")))?;
        }
        due %= turns_per_second;
    }
    Ok(())
}

/// What stands in the log of the server, which has ended, and how often.
async fn changes(home: &Home, plan: &Plan) -> Result<BTreeMap<String, usize>, Box<dyn Error>> {
    let registry = EmbeddedRegistry::open(home.data())?;
    let mut found = BTreeMap::new();
    for number in (0..plan.clients).step_by(CLIENTS_PER_DOCUMENT) {
        let document = DocumentId::new(document_of(number))?;
        let mut after = Seq::ZERO;
        while let Tail::Changes { changes, .. } = registry.tail(&document, after, 1 << 20).await? {
            let Some(last) = changes.last() else { break };
            after = last.seq;
            let pushed = changes
                .iter()
                .filter_map(|change| Opaque::pushed(&change.bytes));
            for bytes in pushed.flatten() {
                *found
                    .entry(String::from_utf8_lossy(&bytes).into_owned())
                    .or_default() += 1;
            }
        }
    }
    registry.close().await?;
    Ok(found)
}
