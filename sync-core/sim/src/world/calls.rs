//! Calls that take time: of the registry, of the application's permissions and hooks, of engines. Each is carried out some
//! time after it was asked for, and answered some time after that.

use std::time::Duration;

use sync_core::engine::{Engine, Validator};
use sync_core::error::PeerError;
use sync_core::history::Cursor;
use sync_core::ids::{DocumentId, RequestId, SessionId, User};
use sync_core::registry::{Outcome, RegistryError, RegistryEvent};
use sync_core::server::{
    AskRequest, CheckRequest, FoldError, FoldRequest, FoldedLog, Grant, RegistryAnswer,
    RegistryRequest, RequestNumber, Room, Verdict,
};
use sync_core::time::Time;

use super::faults::Fate;
use super::{Target, World, wait};

/// A call, and who made it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) caller: Caller,
    pub(super) step: Step,
}

/// A process of a node: another one does not get the answer.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) node: usize,
    pub(super) process: u64,
    /// What it is about; `None` if that is no document.
    pub(super) document: Option<DocumentId>,
}

/// What is next: first it is asked, then it is said.
#[derive(Debug)]
pub(super) enum Step {
    Execute(RequestNumber, RegistryRequest),
    Answer(RequestNumber, RegistryAnswer),
    /// What a user may do.
    Ask(RequestNumber, User),
    Said(RequestNumber, Result<Grant, PeerError>),
    /// The same for an open; with what the node's doubts were when it was asked.
    AskOpen(SessionId, RequestId, u64, User),
    SaidOpen(SessionId, RequestId, u64, Result<Grant, PeerError>),
    /// Who a client is, and for how long that is known.
    Identify(SessionId, Result<(User, Duration), PeerError>),
    /// What hooks say of changes.
    Vet(RequestNumber, AskRequest),
    Vetted(RequestNumber, usize, Option<PeerError>),
    Check(RequestNumber, CheckRequest),
    Checked(RequestNumber, Vec<Verdict>),
    Fold(FoldRequest),
    Folded(Result<FoldedLog, FoldError>),
    Heads(RequestNumber, Vec<DocumentId>),
    SaidHeads(RequestNumber, Result<Vec<Option<Cursor>>, RegistryError>),
    Hint(RegistryEvent),
}

impl<E: Engine + Validator> World<E> {
    /// A call about a document.
    pub(super) fn call_of(&mut self, node: usize, document: &DocumentId, step: Step) {
        let process = self.nodes[node].process;
        let caller = Caller {
            node,
            process,
            document: Some(document.clone()),
        };
        self.call(caller, step);
    }

    /// A call about no document.
    pub(super) fn call_for(&mut self, node: usize, step: Step) {
        let process = self.nodes[node].process;
        let caller = Caller {
            node,
            process,
            document: None,
        };
        self.call(caller, step);
    }

    fn call(&mut self, caller: Caller, step: Step) {
        let max = self.delay_max(&step);
        let at = self.soon(max);
        let number = self.fresh_id();
        self.calls.insert(number, Call { caller, step });
        self.schedule(Some(at), Target::Call(number));
    }

    fn delay_max(&mut self, step: &Step) -> Duration {
        match step {
            Step::Hint(_) => self.weather.hints.delay_max,
            Step::Execute(_, request) => self.registry_delay_max(request),
            Step::Answer(..) if self.happens(self.faults.slow) => {
                self.count("fault", "slow call");
                self.faults.slow_max
            }
            _ => self.weather.registry_delay_max,
        }
    }

    pub(super) fn run_call(&mut self, Call { caller, step }: Call) {
        let is_there = self.nodes[caller.node].process == caller.process;
        let next = match step {
            // Nobody can call back what is on its way to the registry.
            Step::Execute(number, request) => self
                .execute_or_fail(&caller, request)
                .map(|answer| Step::Answer(number, answer)),
            step if is_there => self.take_step(&caller, step),
            _ => None,
        };
        if let Some(next) = next {
            self.call(caller, next);
        }
    }

    fn take_step(&mut self, caller: &Caller, step: Step) -> Option<Step> {
        let now = self.now;
        Some(match step {
            Step::Ask(number, user) => Step::Said(number, self.answer_question(&user)),
            Step::AskOpen(session, request, asked, user) => {
                Step::SaidOpen(session, request, asked, self.answer_question(&user))
            }
            Step::Vet(number, request) => {
                let (accepted, error) = self.vet(&request);
                Step::Vetted(number, accepted, error)
            }
            Step::Check(number, request) => Step::Checked(number, self.check(caller, &request)),
            Step::Fold(request) => Step::Folded(self.fold_or_fail(caller, &request)),
            Step::Heads(number, documents) => Step::SaidHeads(number, self.ask_heads(&documents)),
            step => {
                self.say(caller, now, step);
                return None;
            }
        })
    }

    fn say(&mut self, caller: &Caller, now: Time, step: Step) {
        match step {
            Step::Answer(number, answer) => self.tell_room(caller, |room| {
                room.handle_registry(now, number, answer);
            }),
            Step::Said(number, answer) => self.tell_room(caller, |room| {
                room.handle_authorized(now, number, answer);
            }),
            Step::Vetted(number, accepted, error) => self.tell_room(caller, |room| {
                room.handle_asked(now, number, accepted, error);
            }),
            Step::Checked(number, verdicts) => self.tell_room(caller, |room| {
                room.handle_checked(now, number, verdicts);
            }),
            Step::Folded(result) => {
                self.tell_room(caller, |room| room.handle_folded(now, result));
            }
            Step::SaidHeads(number, heads) => self.heard_heads(caller.node, number, heads),
            Step::Hint(event) => self.heard(caller.node, event),
            Step::SaidOpen(session, request, asked, answer) => {
                if let Some(link) = self.links.get_mut(&session) {
                    link.asked_at = asked;
                    link.session.handle_authorized(now, request, answer);
                    self.perform_session(session);
                }
            }
            Step::Identify(session, answer) => {
                if let Some(link) = self.links.get_mut(&session) {
                    let (user, valid_for) = match answer {
                        Ok((user, valid_for)) => (Ok(user), Some(valid_for)),
                        Err(error) => (Err(error), None),
                    };
                    let is_known = user.is_ok();
                    link.session.handle_authenticated(now, user);
                    if is_known {
                        link.session.handle_validity(now, valid_for);
                    }
                    self.perform_session(session);
                }
            }
            _ => {}
        }
    }

    fn tell_room(&mut self, caller: &Caller, f: impl FnOnce(&mut Room)) {
        if let Some(document) = &caller.document
            && let Some(room) = self.nodes[caller.node].rooms.get_mut(document)
        {
            f(room);
            self.perform_room(caller.node, document);
        }
    }

    /// `None` if there is nobody left to answer.
    fn execute_or_fail(
        &mut self,
        caller: &Caller,
        request: RegistryRequest,
    ) -> Option<RegistryAnswer> {
        let document = caller.document.clone()?;
        let (call, fate) = (name_of(&request), self.fate_of(caller, &request));
        if fate.is_carried_out() {
            let answer = self.carry_out(caller.node, &document, request);
            match fate {
                Fate::Answered => return Some(answer),
                Fate::Reported(error) => return Some(failed(call, error)),
                _ => {}
            }
        } else if let Fate::Failed(error) = fate {
            return Some(failed(call, error));
        }
        // The process that asked has died of it.
        self.kill_node(caller.node);
        None
    }

    fn carry_out(
        &mut self,
        node: usize,
        document: &DocumentId,
        request: RegistryRequest,
    ) -> RegistryAnswer {
        if let RegistryRequest::Compact {
            epoch, snapshot, ..
        } = &request
        {
            self.check_snapshot(document, *epoch, snapshot);
        }
        let appended = match &request {
            RegistryRequest::Append { changes, .. } => changes.clone(),
            _ => Vec::new(),
        };
        let answer = self.execute(document, request);
        if let RegistryAnswer::Append(Ok(outcomes)) = &answer {
            let mut head = None;
            for (change, outcome) in appended.into_iter().zip(outcomes) {
                if let Outcome::At(seq) = outcome {
                    self.note_commit(document, *seq, change.bytes);
                    head = Some(*seq);
                }
            }
            if let Some(head) = head {
                let document = document.clone();
                self.hint(node, &RegistryEvent::Appended { document, head });
            }
        }
        answer
    }

    fn execute(&self, document: &DocumentId, request: RegistryRequest) -> RegistryAnswer {
        let registry = &self.registry;
        let call = async {
            match request {
                RegistryRequest::Create(new) => RegistryAnswer::Create(registry.create(new).await),
                RegistryRequest::Meta => RegistryAnswer::Meta(registry.meta(document).await),
                RegistryRequest::Size => RegistryAnswer::Size(registry.size(document).await),
                RegistryRequest::Append {
                    epoch,
                    expect,
                    changes,
                } => {
                    let appended = registry.append(document, epoch, expect, changes);
                    RegistryAnswer::Append(appended.await)
                }
                RegistryRequest::Tail { after, max_bytes } => {
                    RegistryAnswer::Tail(registry.tail(document, after, max_bytes).await)
                }
                RegistryRequest::Compact {
                    epoch,
                    snapshot,
                    keep_after,
                } => {
                    let compacted = registry.compact(document, epoch, snapshot, keep_after);
                    RegistryAnswer::Compact(compacted.await)
                }
                RegistryRequest::Snapshot => {
                    RegistryAnswer::Snapshot(registry.snapshot(document).await)
                }
                RegistryRequest::Origins(origins) => {
                    RegistryAnswer::Origins(registry.origins(document, &origins).await)
                }
                other => panic!("{other:?}"),
            }
        };
        wait(call)
    }
}

/// Name of a call.
pub(super) fn name_of(request: &RegistryRequest) -> &'static str {
    match request {
        RegistryRequest::Create(_) => "create",
        RegistryRequest::Meta => "meta",
        RegistryRequest::Size => "size",
        RegistryRequest::Append { .. } => "append",
        RegistryRequest::Tail { .. } => "tail",
        RegistryRequest::Snapshot => "snapshot",
        RegistryRequest::Origins(_) => "origins",
        RegistryRequest::Compact { .. } => "compact",
        other => panic!("{other:?}"),
    }
}

/// The answer that a call of this name failed.
fn failed(call: &'static str, error: RegistryError) -> RegistryAnswer {
    match call {
        "create" => RegistryAnswer::Create(Err(error)),
        "meta" => RegistryAnswer::Meta(Err(error)),
        "size" => RegistryAnswer::Size(Err(error)),
        "append" => RegistryAnswer::Append(Err(error)),
        "tail" => RegistryAnswer::Tail(Err(error)),
        "snapshot" => RegistryAnswer::Snapshot(Err(error)),
        "origins" => RegistryAnswer::Origins(Err(error)),
        _ => RegistryAnswer::Compact(Err(error)),
    }
}
