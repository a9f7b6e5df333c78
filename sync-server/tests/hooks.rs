//! Hooks: what they are told, what they may refuse, and what becomes of it when they fail.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod e2e;
mod registries;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use e2e::{Over, World, content, push, text, until, until_status, within};
use sync_client::{
    Broadcast, Client, ClientEvent, DocumentHandle, ErrorCode, RefusedReason, SaveError, Status,
    SyncPhase, Yrs,
};
use sync_server::hooks::{
    BroadcastContext, ChangeContext, CloseContext, ConnectContext, HookFailure, OpenContext,
};
use sync_server::{ServerEvent, ServerHooks, User, Verdict};
use tokio::sync::Semaphore;
use tokio::time::Instant;

const DOC: &str = "doc";
const CHAT: &str = "chat";

/// What is typed. Long enough that no random number looks like it.
const WORDS: [&str; 8] = [
    "alpha", "beta", "gamma", "noway", "never", "first", "third", "other",
];

/// What a hook does when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Accept,
    Veto,
    Later,
    Hang,
    Panic,
    /// Until there is a permit.
    Wait,
}

/// Writes down what it is asked, with its name, and answers as told.
#[derive(Clone)]
struct Desk(Arc<Office>);

struct Office {
    name: &'static str,
    seen: Mutex<Vec<String>>,
    /// By method; and whom it is about, if not everybody.
    moods: Mutex<Vec<(&'static str, Mood)>>,
    permits: Semaphore,
}

impl Desk {
    fn new() -> Self {
        Self::named("desk")
    }

    fn named(name: &'static str) -> Self {
        Self(Arc::new(Office {
            name,
            seen: Mutex::default(),
            moods: Mutex::default(),
            permits: Semaphore::new(0),
        }))
    }

    /// From here on, what contains this is answered like that.
    fn set(&self, what: &'static str, mood: Mood) {
        self.0.moods.lock().unwrap().insert(0, (what, mood));
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.seen.lock().unwrap())
    }

    async fn answer(&self, what: String) -> Verdict {
        let mood = {
            let moods = self.0.moods.lock().unwrap();
            let found = moods.iter().find(|(part, _)| what.contains(part));
            found.map_or(Mood::Accept, |(_, mood)| *mood)
        };
        self.0.seen.lock().unwrap().push(what.clone());
        match mood {
            Mood::Accept => Verdict::Accept,
            Mood::Veto => Verdict::veto(format!("{} said no", self.0.name)),
            Mood::Later => Verdict::Unavailable {
                retry_after: Some(Duration::from_secs(7)),
            },
            Mood::Hang => std::future::pending().await,
            Mood::Panic => panic!("a fault of the hook at {what}"),
            Mood::Wait => {
                self.0.permits.acquire().await.unwrap().forget();
                Verdict::Accept
            }
        }
    }
}

#[async_trait]
impl ServerHooks for Desk {
    async fn connect(&self, connect: &ConnectContext<'_>) -> Verdict {
        self.answer(format!("connect {}", connect.user.id)).await
    }

    async fn open(&self, open: &OpenContext<'_>) -> Verdict {
        let what = format!("open {} {} {:?}", open.user.id, open.document, open.access);
        self.answer(what).await
    }

    async fn change(&self, change: &ChangeContext<'_>) -> Verdict {
        // What was typed is in the bytes of a yrs change as it is.
        let bytes = String::from_utf8_lossy(change.bytes);
        let typed = WORDS.into_iter().filter(|word| bytes.contains(word));
        let text = typed.collect::<String>();
        let (user, number) = (&change.user.id, change.id.number);
        self.answer(format!("change {user} {} {number} {text}", change.document))
            .await
    }

    async fn broadcast(&self, broadcast: &BroadcastContext<'_>) -> Verdict {
        let text = String::from_utf8_lossy(broadcast.bytes);
        let (user, topic) = (&broadcast.user.id, broadcast.topic);
        self.answer(format!(
            "broadcast {user} {} {topic} {text}",
            broadcast.document
        ))
        .await
    }

    async fn close(&self, close: &CloseContext<'_>) {
        let what = close.document.map(|document| format!(" {document}"));
        let user = &close.user.id;
        self.answer(format!("close {user}{}", what.unwrap_or_default()))
            .await;
    }
}

async fn hooked(over: Over, desk: &Desk) -> World {
    let desk = desk.clone();
    World::with(over, |builder| builder.hooks(desk)).await
}

/// A client of this user, in process.
fn user(world: &World, name: &str) -> Client {
    world.server.client(User::new(name)).unwrap()
}

async fn saved(document: &DocumentHandle<Yrs>) {
    within("saved", document.saved()).await.unwrap();
}

async fn caught_up(document: &DocumentHandle<Yrs>) {
    within("caught up", document.caught_up()).await.unwrap();
}

async fn until_seen(desk: &Desk, what: &str) {
    let waiting = async {
        while !desk.0.seen.lock().unwrap().iter().any(|seen| seen == what) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(what, waiting).await;
}

async fn everything(over: Over) {
    let desk = Desk::new();
    let world = hooked(over, &desk).await;
    let client = world.client();
    let document = text(&client, DOC).await;
    caught_up(&document).await;
    push(&document, "alpha");
    push(&document, "beta");
    document.broadcast(CHAT, "hello").unwrap();
    saved(&document).await;
    until_seen(&desk, "broadcast anonymous doc chat hello").await;
    drop(document);
    until_seen(&desk, "close anonymous doc").await;
    let again = text(&client, DOC).await;
    caught_up(&again).await;
    client.disconnect();
    until_seen(&desk, "close anonymous").await;
    let mut seen = desk.seen();
    // Broadcasts have a line of their own.
    seen.retain(|what| !what.starts_with("broadcast"));
    assert_eq!(
        seen,
        [
            "connect anonymous",
            "open anonymous doc Write",
            "change anonymous doc 1 alpha",
            "change anonymous doc 2 beta",
            "close anonymous doc",
            "open anonymous doc Write",
            "close anonymous doc",
            "close anonymous",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn hooks_are_told_of_everything_once_and_in_order() {
    everything(Over::Memory).await;
}

#[tokio::test]
async fn hooks_are_told_of_everything_over_websockets() {
    everything(Over::WebSocket).await;
}

both! {
    /// Scenario 71.
    hooks_are_asked_in_their_order_until_one_says_no => in_order(std::future::ready)
}

async fn in_order(over: Over) {
    let (first, second) = (Desk::named("first"), Desk::named("second"));
    let (a, b) = (first.clone(), second.clone());
    let world = World::with(over, |builder| builder.hooks(a).hooks(b)).await;
    let ann = world.client();
    let document = text(&ann, DOC).await;
    caught_up(&document).await;
    let started = ["connect anonymous", "open anonymous doc Write"];
    assert_eq!(
        (first.seen(), second.seen()),
        (
            started.map(Into::into).into(),
            started.map(Into::into).into()
        )
    );
    first.set("noway", Mood::Veto);
    second.set("never", Mood::Veto);
    for (typed, reached) in [("noway", 0), ("never", 1)] {
        push(&document, typed);
        assert!(matches!(
            within("an answer", document.saved()).await,
            Err(SaveError::Refused(_))
        ));
        let refused = document.refused().pop().unwrap();
        let who = if reached == 0 { "first" } else { "second" };
        assert_eq!(&*refused.message, format!("{who} said no"));
        document.drop_refused(refused.id);
        let is_change = |what: &&String| what.starts_with("change");
        assert_eq!(first.seen().iter().filter(is_change).count(), 1);
        assert_eq!(second.seen().iter().filter(is_change).count(), reached);
        caught_up(&document).await;
        let _ = (first.seen(), second.seen());
    }
}

/// Scenario 79, a veto: with dependents behind it.
#[tokio::test(start_paused = true)]
async fn a_vetoed_change_comes_back_to_its_author_and_nothing_that_builds_on_it_is_committed() {
    let desk = Desk::new();
    let world = hooked(Over::Memory, &desk).await;
    let (ann, bob) = (user(&world, "ann"), user(&world, "bob"));
    let (a, b) = (text(&ann, DOC).await, text(&bob, DOC).await);
    caught_up(&a).await;
    caught_up(&b).await;
    desk.set("noway", Mood::Veto);
    push(&a, "first");
    push(&a, "noway");
    push(&a, "third");
    let Err(SaveError::Refused(ids)) = within("an answer", a.saved()).await else {
        panic!("it is refused");
    };
    let refused = a.refused();
    assert_eq!(refused[0].reason, RefusedReason::Code(ErrorCode::Vetoed));
    assert!(ids.contains(&refused[0].id));
    push(&b, "other");
    saved(&b).await;
    until(&a, "all that was accepted", |a, state| {
        let text = content(a);
        state.is_caught_up()
            && text.contains("first")
            && text.contains("other")
            && !text.contains("noway")
    })
    .await;
    until(&b, "the same", |b, _| content(b) == content(&a)).await;
    let logged = world.log(DOC).await;
    assert!(logged.iter().all(|change| change.id != refused[0].id));
}

/// A hook that hangs on one session's change holds up nobody else, and its session gets through when it has recovered.
#[tokio::test(start_paused = true)]
async fn a_hook_that_hangs_or_panics_on_a_change_costs_only_its_session() {
    for mood in [Mood::Hang, Mood::Panic, Mood::Later] {
        let desk = Desk::new();
        let world = hooked(Over::Memory, &desk).await;
        let mut server = world.server.events();
        let (ann, bob) = (user(&world, "ann"), user(&world, "bob"));
        let (a, b) = (text(&ann, DOC).await, text(&bob, DOC).await);
        caught_up(&a).await;
        caught_up(&b).await;
        desk.set("change ann", mood);
        push(&a, "alpha");
        until_seen(&desk, "change ann doc 1 alpha").await;
        let started = Instant::now();
        for _ in 0..20 {
            push(&b, "beta");
            saved(&b).await;
        }
        assert!(
            started.elapsed() < Duration::from_secs(1),
            "{mood:?}: bob waits"
        );
        assert_eq!(a.sync_state().get().unsaved, 1);
        assert!(a.refused().is_empty(), "it is never a no");
        desk.set("change ann", Mood::Accept);
        saved(&a).await;
        caught_up(&a).await;
        until(&a, "everything", |a, _| content(a).len() == 5 + 20 * 4).await;
        let expected = match mood {
            Mood::Hang => Some(HookFailure::TimedOut),
            Mood::Panic => Some(HookFailure::Panicked),
            _ => None,
        };
        let mut failures = Vec::new();
        while let Some(event) = server.try_next() {
            if let ServerEvent::HookFailed { call, failure } = event {
                assert_eq!(call, "change");
                failures.push(failure);
            }
        }
        assert_eq!(failures.first().copied(), expected, "{mood:?}");
    }
}

/// The order of an author's changes is kept over hooks that take their time.
#[tokio::test(start_paused = true)]
async fn changes_of_one_session_are_asked_about_one_after_the_other() {
    let desk = Desk::new();
    let world = hooked(Over::Memory, &desk).await;
    let ann = user(&world, "ann");
    let a = text(&ann, DOC).await;
    caught_up(&a).await;
    desk.set("change", Mood::Wait);
    for typed in ["alpha", "beta", "gamma"] {
        push(&a, typed);
    }
    until_seen(&desk, "change ann doc 1 alpha").await;
    assert_eq!(desk.seen().len(), 3, "connect, open and the first change");
    assert!(world.log(DOC).await.is_empty());
    desk.0.permits.add_permits(1);
    until_seen(&desk, "change ann doc 2 beta").await;
    desk.0.permits.add_permits(2);
    saved(&a).await;
    assert_eq!(content(&a), "alphabetagamma");
    let numbers: Vec<_> = world
        .log(DOC)
        .await
        .iter()
        .map(|row| row.id.number)
        .collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_vetoed_connection_is_not_tried_again_and_one_that_cannot_be_judged_is() {
    let desk = Desk::new();
    let world = hooked(Over::Memory, &desk).await;
    desk.set("connect", Mood::Veto);
    let client = world.client();
    until_status(&client, "a no", |status| {
        matches!(status, Status::Failed(reason) if reason.to_string().contains("desk said no"))
    })
    .await;
    assert_eq!(
        desk.seen(),
        ["connect anonymous"],
        "nothing else, close neither"
    );
    for mood in [Mood::Panic, Mood::Hang, Mood::Later] {
        desk.set("connect", mood);
        client.connect();
        until_status(&client, "it waits", |status| {
            matches!(status, Status::Reconnecting { attempt: 1, next_in } if *next_in > Duration::ZERO)
        })
        .await;
        desk.set("connect", Mood::Accept);
        until_status(&client, "connected", Status::is_connected).await;
        client.disconnect();
    }
}

#[tokio::test(start_paused = true)]
async fn a_vetoed_open_is_final_and_one_that_cannot_be_judged_is_tried_again() {
    let desk = Desk::new();
    let world = hooked(Over::Memory, &desk).await;
    let client = world.client();
    desk.set("open anonymous secret", Mood::Veto);
    let secret = text(&client, "secret").await;
    until(&secret, "a no", |_, state| {
        state.phase == SyncPhase::Refused(ErrorCode::Vetoed)
    })
    .await;
    for mood in [Mood::Panic, Mood::Hang, Mood::Later] {
        desk.set("open anonymous doc", mood);
        let mut events = client.events();
        let document = text(&client, DOC).await;
        let code = loop {
            if let Some(ClientEvent::DocumentError { error, .. }) =
                within("an error", events.next()).await
            {
                break error.code;
            }
        };
        assert_eq!(code, ErrorCode::HookUnavailable);
        desk.set("open anonymous doc", Mood::Accept);
        caught_up(&document).await;
    }
    assert!(!desk.seen().contains(&"close anonymous secret".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_that_is_not_accepted_is_dropped_and_the_next_is_sent() {
    let desk = Desk::new();
    let world = hooked(Over::Memory, &desk).await;
    let (ann, bob) = (user(&world, "ann"), user(&world, "bob"));
    let (a, b) = (text(&ann, DOC).await, text(&bob, DOC).await);
    caught_up(&a).await;
    caught_up(&b).await;
    let mut hears = b.broadcasts(CHAT);
    let mut events = ann.events();
    for (mood, expected) in [
        (Mood::Veto, ErrorCode::BroadcastRefused),
        (Mood::Later, ErrorCode::BroadcastUnavailable),
        (Mood::Panic, ErrorCode::BroadcastUnavailable),
        (Mood::Hang, ErrorCode::BroadcastUnavailable),
    ] {
        desk.set("chat rude", mood);
        a.broadcast(CHAT, "rude").unwrap();
        a.broadcast(CHAT, "polite").unwrap();
        // What others say does not wait.
        b.broadcast(CHAT, "meanwhile").unwrap();
        let code = loop {
            if let Some(ClientEvent::DocumentError { error, .. }) =
                within("an error", events.next()).await
            {
                break error.code;
            }
        };
        assert_eq!(code, expected);
        let heard = within("the polite one", hears.next()).await;
        assert!(
            matches!(&heard, Some(Broadcast::Received { bytes, .. }) if &**bytes == b"polite"),
            "{heard:?}"
        );
    }
    assert!(a.sync_state().get().is_caught_up());
}

/// A close that hangs does not keep those behind it.
#[tokio::test(start_paused = true)]
async fn a_session_that_breaks_off_is_told_of_as_closed() {
    let desk = Desk::new();
    let world = hooked(Over::Memory, &desk).await;
    let client = world.client();
    let (one, two) = (text(&client, "one").await, text(&client, "two").await);
    caught_up(&one).await;
    caught_up(&two).await;
    desk.set("close anonymous one", Mood::Hang);
    desk.seen();
    world.network.set_refusing(true);
    world.network.cut();
    until_seen(&desk, "close anonymous").await;
    assert_eq!(
        desk.seen(),
        [
            "close anonymous one",
            "close anonymous two",
            "close anonymous"
        ]
    );
}
