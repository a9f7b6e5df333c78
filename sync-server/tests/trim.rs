//! Trims: documents that go on without the history that nobody needs any more, as a new history of mode rebase.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    reason = "scenarios are plain async functions"
)]

mod common;
mod e2e;
mod registries;

use std::sync::Arc;
use std::time::Duration;

use common::{document, event};
use e2e::{Over, World, content, map, push, set, text, until, within};
use sync_client::{
    Client, ClientStore, Dictionary, DocumentEvent, DocumentHandle, LwwMap, MemoryStore,
    RefusedReason, Register, Sequence, Typed,
};
use sync_core::engine::Folder;
use sync_core::events::Events;
use sync_core::history::EpochMode;
use sync_core::mergeable::MergeableValidator;
use sync_server::registry::{
    DocumentMeta, Epoch, FaultyRegistry, HoldPoint, Seq, ServerRegistry, Tail,
};
use sync_server::{
    Anonymous, EngineError, Horizon, InProcess, Server, ServerEvent, TrimError, Trimmed,
};

const DOC: &str = "board";

/// Cards, each with a title and a text: a removal wins over edits of what is removed.
type Cards = Dictionary<u32, (Register<String>, Sequence<char>)>;
type Board = DocumentHandle<Typed<Cards>>;

async fn board(client: &Client) -> Board {
    client.open(DOC, Typed::<Cards>::new()).await.unwrap()
}

fn write(board: &Board, card: u32, title: &str) {
    let written = board.edit(|cards| {
        let (name, text) = cards.entry(card)?;
        name.set(title.to_owned())?;
        text.insert_str(0, title)
    });
    written.unwrap().unwrap();
}

fn remove(board: &Board, card: u32) {
    assert!(board.edit(|cards| cards.remove(&card)).unwrap());
}

fn cards(board: &Board) -> Vec<u32> {
    board.read(|cards| cards.iter().map(|(card, _)| *card).collect())
}

fn title(board: &Board, card: u32) -> Option<String> {
    board.read(|cards| cards.get(&card)?.0.get().cloned())
}

async fn saved(board: &Board) {
    within("saved", board.saved()).await.unwrap();
}

/// Everybody sees these cards, and has everything.
async fn all_see(boards: &[&Board], expected: &[u32]) {
    for board in boards {
        until(*board, "the cards", |board, state| {
            cards(board) == expected && state.is_caught_up() && state.is_saved()
        })
        .await;
    }
}

async fn meta(world: &World) -> DocumentMeta {
    world.registry.meta(&document(DOC)).await.unwrap()
}

async fn trim(world: &World, horizon: Horizon) -> Trimmed {
    let document = document(DOC);
    let trimmed = world.server.trim(&document, horizon);
    within("trimmed", trimmed).await.unwrap()
}

/// Everybody goes on from the new history.
async fn all_replaced(documents: impl IntoIterator<Item = Events<DocumentEvent>>) {
    for mut events in documents {
        let replaced =
            async { while !matches!(events.next().await, Some(DocumentEvent::Replaced)) {} };
        within("replaced", replaced).await;
    }
}

async fn left(events: &mut Events<ServerEvent>) {
    let left = event(events, |event| {
        matches!(event, ServerEvent::DocumentClosed { .. }).then_some(())
    });
    within("it has left", left).await;
}

/// Forty cards, all but the first ten of which are removed again.
async fn forty_cards(board: &Board) {
    for card in 0..40 {
        write(board, card, &format!("card {card}"));
    }
    (10..40).for_each(|card| remove(board, card));
    saved(board).await;
}

registries! {
    /// Scenario 68.
    tombstones_are_reclaimed_and_nothing_deleted_comes_back => reclaimed
}

async fn reclaimed() {
    let mut world = World::memory().await;
    let mut events = world.server.events();
    let (ada, bob) = (world.client(), world.client());
    let (ours, theirs) = (board(&ada).await, board(&bob).await);
    for card in 0..200 {
        write(&ours, card, &format!("card {card}"));
    }
    saved(&ours).await;

    // One has a device that is switched off with edits that nobody has seen, of cards that others remove meanwhile.
    let device = MemoryStore::new();
    let carol = world.builder().store(device.clone()).start().unwrap();
    let stale = board(&carol).await;
    all_see(&[&ours, &theirs, &stale], &(0..200).collect::<Vec<_>>()).await;
    carol.disconnect();
    left(&mut events).await;
    write(&stale, 30, "edited offline");
    write(&stale, 99, "written offline");
    stale.saved_locally().await.unwrap();
    drop((stale, carol));

    (10..200).for_each(|card| remove(&ours, card));
    saved(&ours).await;
    let kept: Vec<u32> = (0..10).collect();
    all_see(&[&ours, &theirs], &kept).await;
    // Another holds everything, and has more to say.
    bob.disconnect();
    left(&mut events).await;
    write(&theirs, 3, "pending");
    write(&theirs, 77, "pending too");

    let before = fold(&world, &MergeableValidator::new()).await;
    let replaced = [ours.events(), theirs.events()];
    let trimmed = trim(&world, Horizon::Head).await;
    assert!(
        trimmed.bytes * 4 < before,
        "{} of {before} bytes are left",
        trimmed.bytes
    );
    let found = meta(&world).await;
    assert_eq!(
        (found.epoch, found.mode),
        (trimmed.epoch, EpochMode::Rebase)
    );
    assert_eq!((found.head, found.log_start), (trimmed.seq, trimmed.seq));

    bob.connect();
    all_replaced(replaced).await;
    let mut expected = kept.clone();
    expected.push(77);
    all_see(&[&ours, &theirs], &expected).await;
    assert_eq!(title(&ours, 3).as_deref(), Some("pending"));
    assert_eq!(theirs.refused(), []);

    // The next process of the device that was switched off.
    let carol = world.builder().store(device.clone()).start().unwrap();
    let stale = board(&carol).await;
    all_see(&[&ours, &theirs, &stale], &expected).await;
    let back = stale.refused();
    let reasons: Vec<_> = back.iter().map(|change| change.reason).collect();
    assert_eq!(reasons, [RefusedReason::HistoryReset; 2]);
    // They are kept until the application says that it has seen them.
    let stored = device.load(&document(DOC)).await.unwrap().unwrap();
    assert_eq!(stored.refused.len(), 2);

    // Nor does anything come back by what follows: other folds, restarts, newcomers.
    write(&stale, 30, "a new card");
    expected.insert(10, 30);
    all_see(&[&ours, &theirs, &stale], &expected).await;
    world.restart().await;
    for client in [&ada, &bob, &carol] {
        client.on_network_change();
    }
    remove(&theirs, 77);
    expected.pop();
    let erin = world.client();
    let fresh = board(&erin).await;
    all_see(&[&ours, &theirs, &stale, &fresh], &expected).await;
    assert_eq!(title(&fresh, 30).as_deref(), Some("a new card"));
    assert_eq!(ours.refused(), []);
}

/// Bytes of the document as a snapshot with all of its history.
async fn fold(world: &World, folder: &dyn Folder) -> usize {
    // The server may compact in between.
    let (snapshot, rows) = loop {
        let snapshot = world.registry.snapshot(&document(DOC)).await.unwrap();
        let after = snapshot.as_ref().map_or(Seq::ZERO, |snapshot| snapshot.seq);
        let tail = world.registry.tail(&document(DOC), after, usize::MAX).await;
        if let Tail::Changes { changes, .. } = tail.unwrap() {
            break (snapshot, changes);
        }
    };
    let rows: Vec<_> = rows.into_iter().map(|row| row.bytes).collect();
    let snapshot = snapshot.as_ref().map(|snapshot| &snapshot.bytes[..]);
    folder.fold(snapshot, &rows).unwrap().len()
}

registries! {
    /// Scenario 68: whoever is past the horizon loses nothing.
    who_held_all_before_the_horizon_goes_on_with_what_it_has_pending => past_the_horizon
}

async fn past_the_horizon() {
    let world = World::memory().await;
    let mut events = world.server.events();
    let (ada, bob) = (world.client(), world.client());
    let (ours, theirs) = (board(&ada).await, board(&bob).await);
    forty_cards(&ours).await;
    let kept: Vec<u32> = (0..10).collect();
    all_see(&[&ours, &theirs], &kept).await;
    let horizon = Horizon::Through(meta(&world).await.head);
    bob.disconnect();
    left(&mut events).await;
    // Of these one is removed by somebody else, who has not seen the edit.
    write(&theirs, 8, "edited offline");
    write(&theirs, 9, "edited offline");
    remove(&ours, 9);
    saved(&ours).await;
    let replaced = [ours.events(), theirs.events()];
    trim(&world, horizon).await;
    bob.connect();
    all_replaced(replaced).await;
    all_see(&[&ours, &theirs], &kept[..9]).await;
    assert_eq!(title(&ours, 8).as_deref(), Some("edited offline"));
    assert_eq!(theirs.refused(), []);

    // What there was is forgotten.
    let document = document(DOC);
    let again = world.server.trim(&document, Horizon::Through(Seq(1))).await;
    assert!(
        matches!(again, Err(TrimError::HorizonUnknown { .. })),
        "{again:?}"
    );
}

/// Scenarios 64, 65 and 67, around a trim: folds before and after it.
#[tokio::test(start_paused = true)]
async fn what_was_written_and_removed_by_whomever_stays_so_around_a_trim() {
    let world = World::with(Over::Memory, |builder| {
        builder
            .fold_after(8, usize::MAX)
            .keep_log(0, Duration::ZERO)
    })
    .await;
    let mut events = world.server.events();
    let (ada, bob) = (world.client(), world.client());
    let (ours, theirs) = (map(&ada, DOC).await, map(&bob, DOC).await);
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        set(&ours, key, "old");
        within("saved", ours.saved()).await.unwrap();
    }
    within("caught up", theirs.caught_up()).await.unwrap();
    let folded = event(&mut events, |event| {
        matches!(event, ServerEvent::Folded { .. }).then_some(())
    });
    within("folded", folded).await;
    bob.disconnect();
    left(&mut events).await;
    set(&theirs, "both", "older");
    set(&theirs, "bob's", "kept");
    tokio::time::advance(Duration::from_secs(60)).await;
    // By default what was folded away with its rows is forgotten, and he was there then.
    ours.edit(|map| map.remove(&"a".to_owned()))
        .unwrap()
        .unwrap();
    set(&ours, "both", "newer");
    within("saved", ours.saved()).await.unwrap();
    trim(&world, Horizon::default()).await;
    let fresh = world.client();
    let fresh = map(&fresh, DOC).await;
    within("caught up", fresh.caught_up()).await.unwrap();
    fresh
        .edit(|map| map.remove(&"b".to_owned()))
        .unwrap()
        .unwrap();
    bob.connect();
    for n in 0..10 {
        set(&ours, "n", &n.to_string());
        within("saved", ours.saved()).await.unwrap();
    }
    let keys = |map: &LwwMap<String, String>| {
        let keys: Vec<_> = map.iter().map(|(key, _)| key.clone()).collect();
        keys.concat()
    };
    let late = world.client();
    let late = map(&late, DOC).await;
    for document in [&ours, &theirs, &fresh, &late] {
        until(document, "converged", |document, state| {
            state.is_caught_up()
                && document.read(keys) == "bob'sbothcdefghn"
                && e2e::get(document, "both").as_deref() == Some("newer")
        })
        .await;
        assert_eq!(document.refused(), []);
    }
}

registries! {
    /// Scenario 68, with texts of Loro.
    texts_of_loro_are_trimmed_and_what_was_pending_is_handed_back => loro_texts
}

async fn loro_texts() {
    use sync_client::Loro;
    use sync_client::loro::LoroDoc;

    let world = World::with(Over::Memory, |builder| {
        builder
            .engines(InProcess::default().engine(Loro::new()))
            .fold_after(30, usize::MAX)
            .keep_log(0, Duration::ZERO)
    })
    .await;
    let mut events = world.server.events();
    let body = |doc: &LoroDoc| doc.get_text("body").to_string();
    let type_in = |handle: &DocumentHandle<Loro>, at: usize, what: &str| {
        let typed = handle.edit(|doc| doc.get_text("body").insert(at, what));
        typed.unwrap().unwrap();
    };
    let [ada, bob, carol] = [(); 3].map(|()| world.client());
    let mut handles = Vec::new();
    for client in [&ada, &bob, &carol] {
        handles.push(client.open(DOC, Loro::new()).await.unwrap());
    }
    let [ours, theirs, stale] = &handles[..] else {
        unreachable!()
    };
    for n in 0..100 {
        type_in(ours, 0, &format!("line {n}\n"));
        let cut = ours.edit(|doc| doc.get_text("body").delete(0, 5));
        cut.unwrap().unwrap();
    }
    within("saved", ours.saved()).await.unwrap();
    let text = ours.read(body);
    until(stale, "the text", |stale, _| stale.read(body) == text).await;
    carol.disconnect();
    left(&mut events).await;
    type_in(stale, 0, "offline");
    // Both write without having seen the other.
    type_in(ours, 0, "<");
    type_in(theirs, 0, ">");
    for handle in [ours, theirs] {
        within("saved", handle.saved()).await.unwrap();
    }
    let was = fold(&world, &Loro::new()).await;
    let replaced: Vec<_> = handles.iter().map(DocumentHandle::events).collect();
    let trimmed = trim(&world, Horizon::Head).await;
    assert!(
        trimmed.bytes * 4 < was * 3,
        "{} of {was} bytes",
        trimmed.bytes
    );
    carol.connect();
    all_replaced(replaced).await;
    let text = format!("{}{text}", &ours.read(body)[..2]);
    for handle in [ours, theirs, stale] {
        until(handle, "the text", |handle, state| {
            handle.read(body) == text && state.is_caught_up() && state.is_saved()
        })
        .await;
    }
    let back = stale.refused();
    let reasons: Vec<_> = back.iter().map(|change| change.reason).collect();
    assert_eq!(reasons, [RefusedReason::HistoryReset]);
    assert!(stale.drop_refused(back[0].id));
    assert_eq!((ours.refused(), theirs.refused()), (vec![], vec![]));

    // Life goes on: logs are folded, and newcomers are served.
    for n in 0..40 {
        type_in([ours, theirs, stale][n % 3], 0, "x");
    }
    for handle in [ours, theirs, stale] {
        within("saved", handle.saved()).await.unwrap();
    }
    let folded = event(&mut events, |event| match event {
        ServerEvent::Folded { seq, .. } => (seq > trimmed.seq).then_some(()),
        ServerEvent::FoldFailed { error, .. } => panic!("{error:?}"),
        _ => None,
    });
    within("folded", folded).await;
    let late = world.client();
    let late = late.open(DOC, Loro::new()).await.unwrap();
    let text = format!("{}{text}", "x".repeat(40));
    for handle in [ours, theirs, stale, &late] {
        until(handle, "the text", |handle, state| {
            handle.read(body) == text && state.is_caught_up()
        })
        .await;
    }
}

/// Whoever types while a text of Loro is trimmed behind it loses nothing: what it types on is still there.
#[tokio::test(start_paused = true)]
async fn what_is_typed_into_a_text_of_loro_during_a_trim_is_typed_again() {
    use sync_client::Loro;
    use sync_client::loro::LoroDoc;

    let world = World::with(Over::Memory, |builder| {
        builder
            .engines(InProcess::default().engine(Loro::new()))
            .fold_after(10, usize::MAX)
    })
    .await;
    let mut events = world.server.events();
    let (ada, bob) = (world.client(), world.client());
    let ours = ada.open(DOC, Loro::new()).await.unwrap();
    let theirs = bob.open(DOC, Loro::new()).await.unwrap();
    let type_in = |handle: &DocumentHandle<Loro>, what: &str| {
        let push = |doc: &mut LoroDoc| doc.get_text("body").push_str(what);
        handle.edit(push).unwrap().unwrap();
    };
    for n in 0..10 {
        type_in(&ours, &n.to_string());
        within("saved", ours.saved()).await.unwrap();
    }
    let folded = event(&mut events, |event| {
        matches!(event, ServerEvent::Folded { .. }).then_some(())
    });
    within("folded", folded).await;
    within("caught up", theirs.caught_up()).await.unwrap();
    bob.disconnect();
    left(&mut events).await;
    let replaced = [ours.events(), theirs.events()];
    type_in(&theirs, "b");
    let trimmed = trim(&world, Horizon::Snapshot).await;
    type_in(&ours, "a");
    bob.connect();
    all_replaced(replaced).await;
    for handle in [&ours, &theirs] {
        until(handle, "both", |handle, state| {
            let text = handle.read(|doc| doc.get_text("body").to_string());
            text.len() == 12 && state.is_caught_up() && state.is_saved()
        })
        .await;
        assert_eq!(handle.refused(), []);
    }
    assert_eq!(meta(&world).await.epoch, trimmed.epoch);
}

/// Yrs keeps what merging needs for ever.
#[tokio::test(start_paused = true)]
async fn engines_that_forget_nothing_say_so_and_the_document_stays_as_it_is() {
    let world = World::memory().await;
    let ada = world.client();
    let ours = text(&ada, DOC).await;
    push(&ours, "text");
    within("saved", ours.saved()).await.unwrap();
    let before = meta(&world).await;
    let trimmed = world.server.trim(&document(DOC), Horizon::Head).await;
    assert!(
        matches!(
            trimmed,
            Err(TrimError::Engine(EngineError::Unsupported { .. }))
        ),
        "{trimmed:?}"
    );
    assert_eq!(meta(&world).await, before);
    let missing = world.server.trim(&document("missing"), Horizon::Head).await;
    assert!(matches!(missing, Err(TrimError::NotFound)), "{missing:?}");
    let kept = world.server.trim(&document(DOC), Horizon::Snapshot).await;
    assert!(matches!(kept, Err(TrimError::Nothing)), "{kept:?}");
    push(&ours, ", more");
    within("saved", ours.saved()).await.unwrap();
    assert_eq!(content(&ours), "text, more");
}

/// Live sessions are told to open the document again, without anybody writing anything.
#[tokio::test(start_paused = true)]
async fn live_sessions_go_over_to_the_new_history_at_once() {
    let world = World::memory().await;
    let (ada, bob) = (world.client(), world.client());
    let (ours, theirs) = (board(&ada).await, board(&bob).await);
    forty_cards(&ours).await;
    let kept: Vec<u32> = (0..10).collect();
    all_see(&[&ours, &theirs], &kept).await;
    let events = [ours.events(), theirs.events()];
    let trimmed = trim(&world, Horizon::Head).await;
    all_replaced(events).await;
    all_see(&[&ours, &theirs], &kept).await;
    write(&theirs, 5, "after");
    saved(&theirs).await;
    let found = meta(&world).await;
    assert_eq!(found.epoch, trimmed.epoch);
    assert_eq!(found.head, trimmed.seq.next());
    // What is of the old history is fenced.
    let document = document(DOC);
    let append = world.registry.append(&document, Epoch(1), None, vec![]);
    assert!(append.await.is_err());
}

/// However much goes on meanwhile: what is pushed waits for a moment.
#[tokio::test(start_paused = true)]
async fn a_document_is_trimmed_while_others_write_and_nothing_of_that_is_lost() {
    let world = World::memory().await;
    let (ada, bob) = (world.client(), world.client());
    let (ours, theirs) = (board(&ada).await, board(&bob).await);
    forty_cards(&ours).await;
    let mut expected: Vec<u32> = (0..10).collect();
    all_see(&[&ours, &theirs], &expected).await;
    world.faults.hold_compactions();
    let server = world.server.clone();
    let trimming =
        tokio::spawn(async move { server.trim(&document(DOC), Horizon::Head).await.unwrap() });
    within("on its way", world.faults.held_compactions(1)).await;
    // The head moves on under it.
    for card in 100..110 {
        write(&theirs, card, "meanwhile");
        expected.push(card);
    }
    saved(&theirs).await;
    world.faults.release_compactions();
    for card in 200..210 {
        write(&ours, card, "meanwhile");
        expected.push(card);
    }
    let trimmed = within("trimmed", trimming).await.unwrap();
    all_see(&[&ours, &theirs], &expected).await;
    assert_eq!((ours.refused(), theirs.refused()), (vec![], vec![]));
    assert_eq!(meta(&world).await.epoch, trimmed.epoch);
}

registries! {
    /// A crash in the middle of a trim leaves the document as it was before, or as it is after.
    a_crash_in_the_middle_of_a_trim_is_before_it_or_after_it => crashes
}

async fn crashes() {
    for point in [HoldPoint::BeforeCommit, HoldPoint::AfterCommit] {
        let mut world = World::memory().await;
        let (ada, bob) = (world.client(), world.client());
        let (ours, theirs) = (board(&ada).await, board(&bob).await);
        forty_cards(&ours).await;
        let mut expected: Vec<u32> = (0..10).collect();
        all_see(&[&ours, &theirs], &expected).await;
        let before = meta(&world).await;
        world.faults.crash_at(1, point);
        let trimmed = world.server.trim(&document(DOC), Horizon::Head).await;
        assert!(
            matches!(trimmed, Err(TrimError::Registry(_))),
            "{point:?}: {trimmed:?}"
        );
        write(&theirs, 50, "meanwhile");
        world.stop().await;
        world.faults.reopen();
        let found = meta(&world).await;
        match point {
            HoldPoint::BeforeCommit => assert_eq!(found, before),
            HoldPoint::AfterCommit => assert_eq!(
                (found.mode, found.head, found.log_start),
                (EpochMode::Rebase, before.head, before.head)
            ),
        }
        world.start().await;
        for client in [&ada, &bob] {
            client.on_network_change();
        }
        expected.push(50);
        all_see(&[&ours, &theirs], &expected).await;
        assert_eq!((ours.refused(), theirs.refused()), (vec![], vec![]));
        trim(&world, Horizon::Head).await;
        all_see(&[&ours, &theirs], &expected).await;
        world.stop().await;
    }
}

/// A timeout in the commit: asked again, the registry says that it has been done.
#[tokio::test(start_paused = true)]
async fn a_trim_whose_answer_is_lost_is_not_done_twice() {
    let world = World::memory().await;
    let ada = world.client();
    let ours = board(&ada).await;
    forty_cards(&ours).await;
    let twice = Arc::new(FaultyRegistry::new(world.registry.clone()));
    let server = Server::builder(twice.clone(), Anonymous::read_write())
        .build()
        .unwrap();
    twice.lose_trims(1);
    let trimmed = server.trim(&document(DOC), Horizon::Head).await.unwrap();
    assert_eq!(meta(&world).await.epoch, trimmed.epoch);
}
