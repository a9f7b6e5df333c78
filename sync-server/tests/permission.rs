//! What users may do while they have documents open: asked again, changed, and taken away at once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod e2e;
mod registries;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use e2e::{Over, World, content, push, text, until, within};
use sync_client::{
    AccessLevel, Client, DocumentEvent, DocumentHandle, EditError, Engine, ErrorCode,
    RefusedReason, SaveError, SyncPhase,
};
use sync_server::registry::HoldPoint;
use sync_server::{
    Access, Auth, AuthError, Authenticator, Authorizer, ConnectRequest, DocumentId, Identity,
    ServerEvent, User,
};
use tokio::sync::watch;

const DOC: &str = "doc";
const DENIED: RefusedReason = RefusedReason::Code(ErrorCode::AccessDenied);

/// What the application behind the server says just now; the user is the token up to a `-`.
#[derive(Clone)]
struct Office(Arc<Desk>);

struct Desk {
    /// By user and document; who is not listed may write.
    rules: Mutex<BTreeMap<(&'static str, &'static str), Access>>,
    asked: Mutex<Vec<String>>,
    /// Whether nobody can say who somebody is.
    is_nobody_known: AtomicBool,
    /// Whether questions are answered: with an error, not at all, or as they are.
    mood: watch::Sender<Mood>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Away,
    Silent,
}

impl Office {
    fn new() -> Self {
        Self(Arc::new(Desk {
            rules: Mutex::default(),
            asked: Mutex::default(),
            is_nobody_known: AtomicBool::new(false),
            mood: watch::Sender::new(Mood::Well),
        }))
    }

    fn allow(&self, user: &'static str, document: &'static str, access: Access) {
        self.0
            .rules
            .lock()
            .unwrap()
            .insert((user, document), access);
    }

    fn is(&self, mood: Mood) {
        self.0.mood.send_replace(mood);
    }

    fn asked(&self) -> usize {
        self.0.asked.lock().unwrap().len()
    }
}

/// What a token says beyond the name.
struct Badge(String);

#[async_trait]
impl Authenticator for Office {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        if self.0.is_nobody_known.load(Ordering::Relaxed) {
            return Err(AuthError::unavailable("the directory is away"));
        }
        let token = String::from_utf8(request.credentials.clone().unwrap().to_vec()).unwrap();
        Ok(match token.split_once('-') {
            Some((user, badge)) => Identity::new(User::new(user).with_claims(Badge(badge.into())))
                .valid_for(Duration::from_secs(100)),
            None => User::new(token).into(),
        })
    }
}

#[async_trait]
impl Authorizer for Office {
    async fn authorize(&self, user: &User, document: &DocumentId) -> Result<Access, AuthError> {
        let what = format!("{} {document}", user.id);
        self.0.asked.lock().unwrap().push(what);
        let mood = *self
            .0
            .mood
            .subscribe()
            .wait_for(|mood| *mood != Mood::Silent)
            .await
            .unwrap();
        if mood == Mood::Away {
            return Err(AuthError::unavailable("the database is away"));
        }
        if let Some(badge) = user.claims::<Badge>() {
            return Ok(match badge.0.as_str() {
                "guest" => Access::read(),
                _ => Access::write(),
            });
        }
        let rules = self.0.rules.lock().unwrap();
        let found = rules
            .iter()
            .find(|((who, what), _)| **who == *user.id && *what == document.as_str());
        Ok(found.map_or(Access::write(), |(_, access)| *access))
    }
}

async fn world_over(over: Over) -> (World, Office) {
    let office = Office::new();
    let auth = Auth::new(office.clone(), office.clone());
    (World::assemble(over, auth, |builder| builder).await, office)
}

async fn world() -> (World, Office) {
    world_over(Over::Memory).await
}

fn client(world: &World, user: &'static str) -> Client {
    world.builder().token(user).start().unwrap()
}

async fn saved<E: Engine>(document: &DocumentHandle<E>) {
    within("saved", document.saved()).await.unwrap();
}

async fn caught_up<E: Engine>(document: &DocumentHandle<E>) {
    within("caught up", document.caught_up()).await.unwrap();
}

/// Through all that is under way, and not for long.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

both! {
    /// Scenarios 56 and 87.
    who_loses_access_is_sent_nothing_later_and_goes_on_where_it_may => loses_access(super::world_over)
}

async fn loses_access((world, office): (World, Office)) {
    let (ann, bob) = (client(&world, "ann"), client(&world, "bob"));
    let (a, b) = (text(&ann, DOC).await, text(&bob, DOC).await);
    let other = text(&bob, "other").await;
    let mut events = b.events();
    push(&a, "one ");
    saved(&a).await;
    until(&b, "bob reads", |b, _| content(b) == "one ").await;

    // Nobody has answered yet, and already nothing reaches him.
    office.is(Mood::Silent);
    office.allow("bob", DOC, Access::none());
    world.server.revoke("bob").await;
    push(&a, "secret ");
    saved(&a).await;
    if world.is_virtual() {
        // On its way when the answer comes: then it is refused for good.
        push(&b, "mine ");
        a_moment().await;
    }
    office.is(Mood::Well);
    let denied = SyncPhase::Refused(ErrorCode::AccessDenied);
    until(&b, "told", |_, state| state.phase == denied).await;
    assert_eq!(b.sync_state().get().access, AccessLevel::None);
    assert_eq!(b.edit(|_| ()), Err(EditError::ReadOnly));
    assert!(!content(&b).contains("secret"));
    let reasons: Vec<_> = b.refused().iter().map(|change| change.reason).collect();
    let expected: &[_] = if world.is_virtual() { &[DENIED] } else { &[] };
    assert_eq!(reasons, expected);
    for change in b.refused() {
        assert!(b.drop_refused(change.id));
    }
    push(&other, "still mine");
    saved(&other).await;
    assert_eq!(world.log(DOC).await.len(), 2);

    office.allow("bob", DOC, Access::write());
    let again = text(&bob, DOC).await;
    until(&again, "all of it", |again, state| {
        content(again) == "one secret " && state.access == AccessLevel::Write
    })
    .await;
    push(&again, "back");
    saved(&again).await;
    let mut told = Vec::new();
    while let Some(event) = events.try_next() {
        if let DocumentEvent::AccessChanged(access) = event {
            told.push(access);
        }
    }
    assert_eq!(told, [AccessLevel::None, AccessLevel::Write]);
}

both! {
    /// Scenarios 54 and 56.
    writers_become_readers_and_writers_again_on_the_same_connection => readers_and_back(super::world_over)
}

async fn readers_and_back((world, office): (World, Office)) {
    let mut events = world.server.events();
    let (ann, bob) = (client(&world, "ann"), client(&world, "bob"));
    let (a, b) = (text(&ann, DOC).await, text(&bob, DOC).await);
    push(&b, "one ");
    saved(&b).await;
    caught_up(&a).await;
    office.allow("bob", DOC, Access::read());
    world
        .server
        .reauthorize(&DocumentId::new(DOC).unwrap())
        .await;
    until(&b, "told", |_, state| state.access == AccessLevel::Read).await;
    assert_eq!(b.edit(|_| ()), Err(EditError::ReadOnly));
    push(&a, "two ");
    until(&b, "reads", |b, _| content(b) == "one two ").await;
    office.allow("bob", DOC, Access::write());
    world.server.revoke("bob").await;
    until(&b, "told", |_, state| state.access == AccessLevel::Write).await;
    push(&b, "three");
    saved(&b).await;
    until(&a, "everybody", |a, _| content(a) == "one two three").await;
    let (mut n_sessions, mut told) = (0, Vec::new());
    while let Some(event) = events.try_next() {
        match event {
            ServerEvent::SessionOpened { .. } => n_sessions += 1,
            ServerEvent::AccessChanged { access, .. } => told.push(access),
            _ => {}
        }
    }
    assert_eq!(n_sessions, 2);
    assert_eq!(told, [AccessLevel::Read, AccessLevel::Write]);
}

/// Scenario 56: committed before, or refused, and never anything else.
#[tokio::test(start_paused = true)]
async fn a_change_that_is_being_committed_is_committed_and_one_behind_it_refused() {
    for hold in [HoldPoint::BeforeCommit, HoldPoint::AfterCommit] {
        for after in [Access::read(), Access::none()] {
            let (world, office) = world().await;
            let ann = client(&world, "ann");
            let a = text(&ann, DOC).await;
            push(&a, "one ");
            saved(&a).await;
            world.faults.hold_appends(hold);
            push(&a, "two ");
            a_moment().await;
            push(&a, "three ");
            let all = a.saved();
            a_moment().await;
            office.allow("ann", DOC, after);
            world.server.revoke("ann").await;
            a_moment().await;
            world.faults.release_appends();
            let answer = within("an answer", all).await;
            assert!(matches!(answer, Err(SaveError::Refused(_))), "{answer:?}");
            assert_eq!(world.log(DOC).await.len(), 2, "{hold:?} {after:?}");
            let reasons: Vec<_> = a.refused().iter().map(|change| change.reason).collect();
            assert_eq!(reasons, [DENIED], "{hold:?} {after:?}");
            assert_eq!(a.sync_state().get().unsaved, 0, "{hold:?} {after:?}");
            if after.level == AccessLevel::Read {
                until(&a, "without it", |a, _| content(a) == "one two ").await;
            }
        }
    }
}

/// What other nodes, or other programs, do to permissions is noticed in time.
#[tokio::test(start_paused = true)]
async fn a_no_that_nobody_tells_the_server_of_is_noticed_within_its_time() {
    let (world, office) = world().await;
    let short = Duration::from_secs(20);
    office.allow("ann", DOC, Access::write().valid_for(short));
    let ann = client(&world, "ann");
    let a = text(&ann, DOC).await;
    push(&a, "one ");
    saved(&a).await;
    let asked = office.asked();
    office.allow("ann", DOC, Access::read().valid_for(Duration::MAX));
    tokio::time::sleep(short).await;
    assert_eq!(office.asked(), asked + 1);
    assert_eq!(a.edit(|_| ()), Err(EditError::ReadOnly));
    // What is for ever is not asked again.
    tokio::time::sleep(short * 1_000).await;
    assert_eq!(office.asked(), asked + 1);
}

/// Scenario 83: nobody can tell, for long, while a document is open.
#[tokio::test(start_paused = true)]
async fn an_authorizer_that_is_away_holds_things_up_and_decides_nothing() {
    for mood in [Mood::Away, Mood::Silent] {
        let (world, office) = world().await;
        let (ann, bob) = (client(&world, "ann"), client(&world, "bob"));
        office.allow("bob", DOC, Access::write().valid_for(Duration::MAX));
        let (a, b) = (text(&ann, DOC).await, text(&bob, DOC).await);
        push(&a, "one ");
        saved(&a).await;
        office.is(mood);
        // What was said last is still good.
        tokio::time::sleep(Duration::from_secs(50)).await;
        push(&a, "two ");
        saved(&a).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        push(&a, "three ");
        push(&b, "four ");
        saved(&b).await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        let state = a.sync_state().get();
        assert_eq!((state.unsaved, state.refused), (1, 0), "{mood:?}");
        assert_eq!(state.access, AccessLevel::Write);
        assert!(!state.is_caught_up(), "{mood:?}: there is more");
        assert_eq!(content(&a), "one two three ");
        assert_eq!(world.log(DOC).await.len(), 3);
        office.is(Mood::Well);
        saved(&a).await;
        caught_up(&a).await;
        assert_eq!(world.log(DOC).await.len(), 4);
        assert_eq!(a.refused().len(), 0);
        assert!(content(&a).contains("four "));
    }
}

/// Scenario 25.
#[tokio::test(start_paused = true)]
async fn who_may_not_create_is_told_that_there_is_no_such_document() {
    let (world, office) = world().await;
    office.allow("bob", DOC, Access::write().create(false));
    let (ann, bob) = (client(&world, "ann"), client(&world, "bob"));
    let b = text(&bob, DOC).await;
    push(&b, "mine");
    let missing = Err(SaveError::Denied(ErrorCode::NotFound));
    assert_eq!(within("an answer", b.saved()).await, missing);
    assert_eq!(b.sync_state().get().unsaved, 1);
    caught_up(&text(&ann, DOC).await).await;
    let b = text(&bob, DOC).await;
    saved(&b).await;
}

/// Fresh credentials may say something else of the same user.
#[tokio::test(start_paused = true)]
async fn claims_reach_the_authorizer_and_fresh_ones_count_at_once() {
    let (world, office) = world().await;
    let next = Mutex::new(["ann-guest", "ann-editor", "ann-guest"].into_iter());
    let ask = move || {
        let token = next.lock().unwrap().next();
        async move { token.ok_or("no more") }
    };
    let b = text(&client(&world, "bob"), DOC).await;
    caught_up(&b).await;
    let ann = world.builder().credentials(ask).start().unwrap();
    let a = text(&ann, DOC).await;
    until(&a, "a guest", |_, state| state.access == AccessLevel::Read).await;
    tokio::time::sleep(Duration::from_secs(75)).await;
    assert_eq!(a.sync_state().get().access, AccessLevel::Write);
    push(&a, "edited");
    saved(&a).await;
    tokio::time::sleep(Duration::from_secs(75)).await;
    assert_eq!(a.sync_state().get().access, AccessLevel::Read);
    assert_eq!(world.network.dials(), 2);
    assert!(office.asked() > 3);
}

/// An answer that was on its way when the permission went is not believed.
#[tokio::test(start_paused = true)]
async fn an_open_that_was_allowed_before_a_revocation_is_asked_about_again() {
    let (world, office) = world().await;
    let (ann, bob) = (client(&world, "ann"), client(&world, "bob"));
    let a = text(&ann, DOC).await;
    push(&a, "secret");
    saved(&a).await;
    // The first answer is written and not yet sent when the second one is made.
    office.is(Mood::Silent);
    let asked = office.asked();
    let b = text(&bob, DOC).await;
    while office.asked() == asked {
        a_moment().await;
    }
    world.server.revoke("bob").await;
    office.allow("bob", "nothing", Access::none());
    office.is(Mood::Well);
    // It is opened by what was said first, and shows nothing before it has been asked again.
    until(&b, "asked again", |_, _| office.asked() >= asked + 2).await;
    caught_up(&b).await;
    assert_eq!(
        (content(&b).as_str(), office.asked()),
        ("secret", asked + 2)
    );
}

/// Scenario 83: whatever it is that cannot be had, and whether the client is connected when it begins or comes back into it.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_or_done_now_takes_nothing_from_an_outbox() {
    type Fault = (&'static str, fn(&World, &Office), fn(&World, &Office));
    let faults: [Fault; 5] = [
        (
            "authentication",
            |_, office| office.0.is_nobody_known.store(true, Ordering::Relaxed),
            |_, office| office.0.is_nobody_known.store(false, Ordering::Relaxed),
        ),
        (
            "authorization fails",
            |_, office| office.is(Mood::Away),
            |_, office| office.is(Mood::Well),
        ),
        (
            "authorization hangs",
            |_, office| office.is(Mood::Silent),
            |_, office| office.is(Mood::Well),
        ),
        (
            "storage fails",
            |world, _| {
                world.faults.fail_appends(3);
                world.faults.fail_reads(3);
            },
            |_, _| {},
        ),
        (
            "storage hangs",
            |world, _| world.faults.hold_appends(HoldPoint::BeforeCommit),
            |world, _| world.faults.release_appends(),
        ),
    ];
    for (what, begin, end) in faults {
        for is_cut in [false, true] {
            let (world, office) = world().await;
            office.allow(
                "ann",
                DOC,
                Access::write().valid_for(Duration::from_secs(2)),
            );
            let ann = client(&world, "ann");
            let a = text(&ann, DOC).await;
            push(&a, "0");
            saved(&a).await;
            begin(&world, &office);
            if is_cut {
                world.network.cut();
            }
            for n in 1..=5 {
                tokio::time::sleep(Duration::from_secs(3)).await;
                push(&a, &n.to_string());
                let state = a.sync_state().get();
                assert_eq!(state.refused, 0, "{what}, cut: {is_cut}");
                assert_eq!(
                    content(&a),
                    "012345".split_at(n + 1).0,
                    "{what}, cut: {is_cut}"
                );
            }
            end(&world, &office);
            saved(&a).await;
            assert_eq!(
                world.log(DOC).await.len(),
                6,
                "{what}, cut: {is_cut}: once each"
            );
            assert_eq!(a.refused().len(), 0, "{what}, cut: {is_cut}");
        }
    }
}
