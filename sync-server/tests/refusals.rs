//! Changes that the server will never take: who gets them back, and what goes on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod e2e;
mod registries;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use e2e::{content, get, push, set, text, until, within};
use sync_client::yrs::{GetString, ReadTxn, Text, WriteTxn};
use sync_client::{DocumentEvent, ErrorCode, LwwMap, RefusedReason, SaveError, Typed, Yrs};
#[cfg(feature = "automerge")]
use sync_core::automerge::{ROOT, ReadDoc, transaction::Transactable};
use sync_core::engine::{Engine, EngineError, ValidateLimits, Validator};
use sync_core::ids::EngineId;
use sync_core::wire::Message;
use sync_server::InProcess;
use sync_sim::world::{CALM, ROUGH, Weather, World, id};

const DOC: &str = "doc";
const OTHER: &str = "other";

/// What the server of these tests never takes.
const FORBIDDEN: &str = "#forbidden";

/// Checks as the engine does, and refuses what is forbidden.
struct Censor<E>(E);

impl<E: Validator> Validator for Censor<E> {
    fn engine(&self) -> EngineId {
        self.0.engine()
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        if contains(change, FORBIDDEN) {
            return Err(EngineError::Unsupported {
                what: "such a word",
            });
        }
        self.0.validate(change, limits)
    }
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|at| at == word.as_bytes())
}

/// Documents that hold words, in any engine.
trait Words: Engine + Validator {
    /// Whether what was made after a refused change is made again without it.
    const REPLAYS: bool;

    fn new() -> Self;

    fn add(into: &mut Self::Edit<'_>, word: &str);

    fn words(from: &Self::Read<'_>) -> BTreeSet<String>;
}

type Map = Typed<LwwMap<String, u8>>;

impl Words for Map {
    const REPLAYS: bool = true;

    fn new() -> Self {
        Self::new()
    }

    fn add(map: &mut LwwMap<String, u8>, word: &str) {
        map.insert(word.to_owned(), 0).unwrap();
    }

    fn words(map: &LwwMap<String, u8>) -> BTreeSet<String> {
        map.iter().map(|(word, _)| word.clone()).collect()
    }
}

impl Words for Yrs {
    const REPLAYS: bool = false;

    fn new() -> Self {
        Self::new()
    }

    fn add(txn: &mut Self::Edit<'_>, word: &str) {
        let body = txn.get_or_insert_text("body");
        body.push(txn, &format!("{word} "));
    }

    fn words(txn: &Self::Read<'_>) -> BTreeSet<String> {
        let Some(body) = txn.get_text("body") else {
            return BTreeSet::new();
        };
        let words = body.get_string(txn);
        words.split_whitespace().map(str::to_owned).collect()
    }
}

#[cfg(feature = "loro")]
impl Words for sync_core::engine::loro::Loro {
    const REPLAYS: bool = true;

    fn new() -> Self {
        Self::new()
    }

    fn add(doc: &mut Self::Edit<'_>, word: &str) {
        doc.get_text("body").push_str(&format!("{word} ")).unwrap();
    }

    fn words(doc: &Self::Read<'_>) -> BTreeSet<String> {
        let words = doc.get_text("body").to_string();
        words.split_whitespace().map(str::to_owned).collect()
    }
}

#[cfg(feature = "automerge")]
impl Words for sync_core::engine::automerge::Automerge {
    const REPLAYS: bool = false;

    fn new() -> Self {
        Self::new()
    }

    fn add(doc: &mut Self::Edit<'_>, word: &str) {
        doc.put(ROOT, word, true).unwrap();
    }

    fn words(doc: &Self::Read<'_>) -> BTreeSet<String> {
        doc.keys(ROOT).collect()
    }
}

fn world<E: Words>(seed: u64, clients: usize, weather: Weather) -> World<E> {
    let mut world = World::on(registries::simulated(), seed, E::new(), weather);
    world.validator = Some(Arc::new(Censor(E::new())));
    for client in 0..clients {
        world.add_client();
        world.open(client, DOC);
    }
    world
}

fn add<E: Words>(world: &mut World<E>, client: usize, document: &str, word: &str) {
    assert!(world.edit(client, document, |edit| E::add(edit, word)));
}

fn words<E: Words>(world: &World<E>, client: usize) -> BTreeSet<String> {
    world.read(client, DOC, E::words)
}

/// The reasons why words of this client were handed back.
fn handed_back<E: Words>(world: &World<E>, client: usize, word: &str) -> Vec<RefusedReason> {
    let refused = world.refused(client, DOC).into_iter();
    refused
        .filter(|change| contains(&change.bytes, word))
        .map(|change| change.reason)
        .collect()
}

fn times_in_log<E: Words>(world: &World<E>, word: &str) -> usize {
    let log = world.log(DOC);
    log.iter().filter(|c| contains(&c.bytes, word)).count()
}

fn opens<E: Words>(world: &World<E>, client: usize, document: &str) -> usize {
    let up = &world.traffic[client].up;
    up.iter()
        .filter(|message| matches!(message, Message::Open(open) if open.document == id(document)))
        .count()
}

fn sessions<E: Words>(world: &World<E>, client: usize) -> usize {
    let down = &world.traffic[client].down;
    down.iter()
        .filter(|message| matches!(message, Message::Welcome(_)))
        .count()
}

fn set_of(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

const FORBIDDEN_REASON: RefusedReason = RefusedReason::Code(ErrorCode::InvalidChange);

/// Each scenario with an engine that can replay and one that cannot.
macro_rules! engines {
    ($($(#[$doc:meta])* $name:ident => $scenario:ident;)*) => {
        $(mod $name {
            $(#[$doc])*
            #[test]
            fn of_a_map() {
                super::$scenario::<super::Map>();
            }

            $(#[$doc])*
            #[test]
            fn of_a_text() {
                super::$scenario::<super::Yrs>();
            }

            $(#[$doc])*
            #[cfg(feature = "loro")]
            #[test]
            fn of_a_loro_document() {
                super::$scenario::<sync_core::engine::loro::Loro>();
            }

            $(#[$doc])*
            #[cfg(feature = "automerge")]
            #[test]
            fn of_an_automerge_document() {
                super::$scenario::<sync_core::engine::automerge::Automerge>();
            }
        })*
    };
}

engines! {
    /// Scenarios 46 and 79.
    a_bad_change_is_handed_back_and_the_rest_goes_on => bad_change;
    /// Scenario 46: bytes that are not the engine's at all.
    bytes_that_no_engine_made_are_handed_back => not_of_the_engine;
    /// Scenario 79.
    what_depends_on_a_refused_change_of_another_origin_is_not_acknowledged => of_another_origin;
    /// Scenarios 36, 46 and 79.
    every_change_is_in_the_log_once_or_handed_back_once => accounted_for;
    /// Scenario 79: what came back is not offered again.
    a_change_that_was_handed_back_never_travels_again => never_again;
}

fn bad_change<E: Words>() {
    for offline in [false, true] {
        let mut world = world::<E>(1, 2, CALM);
        world.open(0, OTHER);
        add(&mut world, 1, DOC, "first");
        add(&mut world, 0, OTHER, "elsewhere");
        world.settle(DOC);
        let sessions_before = sessions(&world, 0);

        world.set_online(0, !offline);
        add(&mut world, 0, DOC, "good");
        add(&mut world, 0, DOC, FORBIDDEN);
        add(&mut world, 0, DOC, "behind");
        add(&mut world, 0, OTHER, "meanwhile");
        world.set_online(0, true);
        world.settle(DOC);
        world.settle(OTHER);
        world.assert_converged(DOC);

        let mut everywhere = set_of(&["first", "good"]);
        assert_eq!(handed_back(&world, 0, FORBIDDEN), [FORBIDDEN_REASON]);
        let refused = world.refused(0, DOC);
        assert!(refused[0].message.contains("such a word"), "{refused:?}");
        if E::REPLAYS {
            everywhere.insert("behind".to_owned());
            assert_eq!(refused.len(), 1);
        } else {
            assert_eq!(handed_back(&world, 0, "behind"), [RefusedReason::Behind]);
            assert_eq!(refused.len(), 2);
        }
        for client in 0..2 {
            assert_eq!(words(&world, client), everywhere);
        }
        assert_eq!(world.refused(1, DOC), []);
        assert_eq!(world.log(DOC).len(), everywhere.len());

        // The session goes on, and so do its other documents.
        let reconnected = usize::from(offline);
        assert_eq!(sessions(&world, 0), sessions_before + reconnected);
        assert_eq!(opens(&world, 0, OTHER), 1 + reconnected);
        assert_eq!(opens(&world, 0, DOC), 2 + reconnected);
        assert_eq!(
            world.read(0, OTHER, E::words),
            set_of(&["elsewhere", "meanwhile"])
        );

        // And what is written from here on is taken.
        add(&mut world, 0, DOC, "after");
        world.settle(DOC);
        world.assert_converged(DOC);
        assert!(words(&world, 1).contains("after"));
    }
}

fn not_of_the_engine<E: Words>() {
    let mut world = world::<E>(2, 2, CALM);
    add(&mut world, 0, DOC, "good");
    let garbage = Bytes::from_static(&[0xff; 40]);
    world.inject(0, DOC, garbage.clone());
    world.settle(DOC);
    add(&mut world, 0, DOC, "after");
    world.settle(DOC);
    world.assert_converged(DOC);
    let refused = world.refused(0, DOC);
    assert_eq!(refused.len(), 1);
    assert_eq!(
        (&refused[0].bytes, refused[0].reason),
        (&garbage, FORBIDDEN_REASON)
    );
    assert_eq!(words(&world, 1), set_of(&["good", "after"]));
}

/// What reconciliation pushes has an origin of its own, and everything pending stands behind it.
fn of_another_origin<E: Words>() {
    let mut world = world::<E>(3, 2, CALM);
    world.validator = None;
    add(&mut world, 0, DOC, FORBIDDEN);
    world.settle(DOC);
    world.set_online(1, false);
    // The server lost it, and would not take it now.
    world.validator = Some(Arc::new(Censor(E::new())));
    world.set_online(0, false);
    world.lose_everything();
    add(&mut world, 0, DOC, "behind");
    add(&mut world, 0, DOC, "and this");
    world.set_online(0, true);
    world.settle(DOC);
    world.assert_converged(DOC);

    assert_eq!(times_in_log(&world, FORBIDDEN), 0);
    let refused = world.refused(0, DOC);
    assert_eq!(refused[0].reason, FORBIDDEN_REASON);
    let logged = usize::from(E::REPLAYS);
    for word in ["behind", "and this"] {
        assert_eq!(times_in_log(&world, word), logged, "{word}");
    }
    let behind: Vec<_> = refused[1..].iter().map(|change| change.reason).collect();
    if E::REPLAYS {
        assert_eq!(behind, []);
    } else {
        assert_eq!(behind, [RefusedReason::Behind; 2]);
        assert_ne!(refused[0].id.origin, refused[1].id.origin);
    }
}

fn accounted_for<E: Words>() {
    for seed in 0..60 {
        let mut world = world::<E>(seed, 3, ROUGH);
        let mut made: Vec<(usize, String)> = Vec::new();
        for n in 0..24 {
            let client = usize::try_from(world.below(3)).unwrap();
            let word = match world.below(5) {
                0 => format!("<{n}>{FORBIDDEN}"),
                _ => format!("<{n}>"),
            };
            add(&mut world, client, DOC, &word);
            made.push((client, word));
            match world.below(8) {
                0 => world.cut(client),
                1 | 2 => {}
                _ => {
                    let pause = Duration::from_millis(world.below(900));
                    world.run_for(pause);
                }
            }
        }
        world.settle(DOC);
        world.assert_converged(DOC);
        let mut taken = BTreeSet::new();
        for (client, word) in &made {
            let mark = word.split_inclusive('>').next().unwrap();
            let in_log = times_in_log(&world, mark);
            let back = handed_back(&world, *client, mark);
            assert_eq!(
                in_log + back.len(),
                1,
                "seed {seed}: {word} of client {client}: {in_log} times in the log, back as {back:?}"
            );
            if word.contains(FORBIDDEN) {
                assert!(
                    matches!(back[0], FORBIDDEN_REASON | RefusedReason::Behind),
                    "seed {seed}: {word}: {back:?}"
                );
            }
            if in_log == 1 {
                taken.insert(word.clone());
            }
        }
        for client in 0..3 {
            assert_eq!(words(&world, client), taken, "seed {seed}");
        }
    }
}

fn never_again<E: Words>() {
    let mut world = world::<E>(4, 1, CALM);
    add(&mut world, 0, DOC, FORBIDDEN);
    world.settle(DOC);
    for _ in 0..3 {
        world.cut(0);
        world.settle(DOC);
    }
    world.kill_server();
    world.start_server();
    world.settle(DOC);
    let pushed: usize = world.traffic[0]
        .up
        .iter()
        .map(|message| match message {
            Message::Push(push) => push.changes.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(pushed, 1);
    assert_eq!(world.refused(0, DOC).len(), 1);
}

// ---- through the public API

async fn strict() -> e2e::World {
    let censored = |builder: sync_server::ServerBuilder| {
        builder.engines(
            InProcess::default()
                .engine(Censor(Yrs::new()))
                .engine(Censor(Map::new())),
        )
    };
    e2e::World::with(e2e::Over::Memory, censored).await
}

registries! {
    /// Scenarios 46 and 79.
    the_author_of_a_refused_text_learns_of_it_and_gets_everything_behind_it_back => refused_text
}

async fn refused_text() {
    let world = strict().await;
    let (ann, bob) = (world.client(), world.client());
    let (a, b) = (text(&ann, DOC).await, text(&bob, DOC).await);
    let other = text(&ann, OTHER).await;
    push(&a, "good ");
    within("saved", a.saved()).await.unwrap();
    let mut events = a.events();

    push(&a, FORBIDDEN);
    let saved = a.saved();
    push(&a, "behind");
    let saved_behind = a.saved();
    let Err(SaveError::Refused(first)) = within("an answer", saved).await else {
        panic!("the change was taken");
    };
    let Err(SaveError::Refused(both)) = within("an answer", saved_behind).await else {
        panic!("what depends on the change was taken");
    };
    assert_eq!((first.len(), both.len()), (1, 2));
    assert_eq!(first[0], both[0]);

    let refused = a.refused();
    let ids: Vec<_> = refused.iter().map(|change| change.id).collect();
    assert_eq!(ids, both);
    assert_eq!(refused[0].reason, FORBIDDEN_REASON);
    assert_eq!(refused[1].reason, RefusedReason::Behind);
    until(&a, "ready again", |_, state| {
        state.is_caught_up() && state.is_saved()
    })
    .await;
    assert_eq!(
        (content(&a), a.sync_state().get().refused),
        ("good ".to_owned(), 2)
    );
    let mut told = (0, 0);
    while let Some(event) = events.try_next() {
        match event {
            DocumentEvent::Refused { count } => told.0 += count,
            DocumentEvent::Replaced => told.1 += 1,
            _ => {}
        }
    }
    assert_eq!(told, (2, 1), "changes refused, replacements");

    // Everything else goes on, also on this document.
    push(&other, "elsewhere");
    within("saved", other.saved()).await.unwrap();
    push(&a, "after");
    until(&a, "saved", |_, state| state.is_saved()).await;
    until(&b, "bob has it", |b, _| content(b) == "good after").await;
    assert_eq!((world.network.dials(), b.refused()), (2, vec![]));

    assert!(a.drop_refused(ids[0]));
    assert!(!a.drop_refused(ids[0]));
    assert_eq!((a.refused().len(), a.refused()[0].id), (1, ids[1]));
    assert_eq!(a.sync_state().get().refused, 1);
    assert!(a.drop_refused(ids[1]));
    within("saved", a.saved()).await.unwrap();
}

registries! {
    /// Scenarios 46 and 79: where the engine can, what was behind is made again without the refused change.
    what_stood_behind_a_refused_entry_of_a_map_is_saved_all_the_same => refused_entry
}

async fn refused_entry() {
    let world = strict().await;
    let (ann, bob) = (world.client(), world.client());
    let (a, b) = (e2e::map(&ann, DOC).await, e2e::map(&bob, DOC).await);
    set(&a, "title", FORBIDDEN);
    let saved = a.saved();
    set(&a, "body", "behind");
    // Resolves for what existed at the call: one of them was refused.
    let saved_all = a.saved();
    assert!(
        matches!(within("an answer", saved).await, Err(SaveError::Refused(ids)) if ids.len() == 1)
    );
    assert!(
        matches!(within("an answer", saved_all).await, Err(SaveError::Refused(ids)) if ids.len() == 1)
    );
    until(&a, "saved", |_, state| state.is_saved()).await;
    until(&b, "bob has it", |b, _| get(b, "body").is_some()).await;
    for document in [&a, &b] {
        assert_eq!(get(document, "title"), None);
        assert_eq!(get(document, "body").unwrap(), "behind");
    }
    assert_eq!(a.refused().len(), 1);
}

registries! {
    /// Scenarios 46 and 79, offline: refused after the connection is made.
    whoever_waits_offline_for_a_change_that_will_be_refused_is_told_after_the_connection_is_made => refused_later
}

async fn refused_later() {
    let world = strict().await;
    world.network.set_online(false);
    let ann = world.client();
    let a = text(&ann, DOC).await;
    push(&a, FORBIDDEN);
    let saved = a.saved();
    let state = a.sync_state().get();
    assert_eq!((state.unsaved, state.refused), (1, 0));
    world.network.set_online(true);
    ann.on_network_change();
    assert!(matches!(
        within("an answer", saved).await,
        Err(SaveError::Refused(_))
    ));
    until(&a, "empty again", |a, state| {
        content(a).is_empty() && state.is_saved()
    })
    .await;
    within(
        "nothing unsaved",
        ann.unsaved().wait_for(|it| it.is_empty()),
    )
    .await
    .unwrap();
}
