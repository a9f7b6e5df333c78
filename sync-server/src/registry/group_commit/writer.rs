//! The thread that writes.

use std::time::{Duration, Instant};

use super::queue::{Pace, Reply, Work};
use super::{Answer, BlockingRegistry, Shared};
use crate::registry::{Outcome, RegistryError};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Time after which a batch is committed although more is queued.
const STAGING_MAX: Duration = Duration::from_millis(5);

/// An answer that waits for the commit.
enum Staged {
    Append(
        oneshot::Sender<Result<Vec<Outcome>, RegistryError>>,
        Result<Vec<Outcome>, RegistryError>,
        OwnedSemaphorePermit,
    ),
    Call(Reply),
}

/// The thread's life. The engine is dropped, and what it has open with it, before anybody hears that it has ended.
pub(super) fn run<B: BlockingRegistry>(shared: &Shared<B>, engine: B) {
    let ending = Ending(shared);
    write(shared, engine);
    drop(ending);
}

/// Nobody waits for a writer that is gone, also when it panicked.
struct Ending<'a, B: BlockingRegistry>(&'a Shared<B>);

impl<B: BlockingRegistry> Drop for Ending<'_, B> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("its writer panicked".to_owned());
        }
        self.0.queue.clear();
        self.0.answers.stop();
    }
}

fn write<B: BlockingRegistry>(shared: &Shared<B>, mut engine: B) {
    let mut pace: Option<Pace> = None;
    while let Some((mut batch, mut room)) = shared.queue.take(pace) {
        let is_chore = room.is_none();
        while !batch.is_empty() {
            let began = Instant::now();
            let mut staged = Vec::with_capacity(batch.len());
            while let Some(work) = batch.pop_front() {
                staged.push(stage(shared, &mut engine, work));
                if staged.len() % 64 == 0 && began.elapsed() >= STAGING_MAX {
                    break;
                }
                if batch.is_empty()
                    && let Some(room) = &mut room
                {
                    batch = shared.queue.take_more(room);
                }
            }
            let calls = staged.len();
            let committing = Instant::now();
            let committed = commit(shared, &mut engine);
            let ended = Instant::now();
            pace = match pace {
                Some(pace) if is_chore => Some(Pace {
                    was_chore: true,
                    ..pace
                }),
                _ => Some(Pace {
                    began,
                    took: ended.duration_since(committing),
                    ended,
                    calls,
                    was_chore: is_chore,
                }),
            };
            // All at once: nobody is told of a part of it.
            let mut rooms: Option<OwnedSemaphorePermit> = None;
            let mut answers = Vec::with_capacity(calls);
            for staged in staged {
                let (answer, room) = answer(staged, &committed);
                answers.push(answer);
                match (&mut rooms, room) {
                    (Some(rooms), Some(room)) => rooms.merge(room),
                    (rooms @ None, room) => *rooms = room,
                    (Some(_), None) => {}
                }
            }
            drop(rooms);
            shared.answers.post(answers);
            shared.upkeep.note(engine.is_untidy());
        }
    }
}

fn stage<B: BlockingRegistry>(shared: &Shared<B>, engine: &mut B, work: Work<B>) -> Staged {
    match work {
        Work::Append {
            document,
            epoch,
            expect,
            changes,
            answer,
            _room: room,
            ..
        } => {
            let result = match shared.check() {
                Ok(()) => engine.append(&document, epoch, expect, changes),
                Err(error) => Err(error),
            };
            Staged::Append(answer, result, room)
        }
        Work::Call(operation) => Staged::Call(operation(shared.check().map(|()| engine))),
    }
}

/// How the commit went: an error that everybody whose answer depended on it is told.
fn commit<B: BlockingRegistry>(shared: &Shared<B>, engine: &mut B) -> Result<(), (bool, String)> {
    if let Some(why) = shared.failed.get() {
        return Err((true, why.clone()));
    }
    engine.commit().map_err(|error| {
        let nothing_done = matches!(error, RegistryError::Unavailable { .. });
        let mut why = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            why = format!("{why}: {source}");
        }
        if !engine.is_usable() {
            shared.fail(why.clone());
        }
        (nothing_done, why)
    })
}

fn answer(
    staged: Staged,
    committed: &Result<(), (bool, String)>,
) -> (Answer, Option<OwnedSemaphorePermit>) {
    let committed = committed.as_ref().copied().map_err(|(nothing_done, why)| {
        let source = Some(why.clone().into());
        if *nothing_done {
            RegistryError::Unavailable {
                retry_after: None,
                source,
            }
        } else {
            RegistryError::Unknown { source }
        }
    });
    match staged {
        // What was found out before a failed commit may have built on what it lost.
        Staged::Append(to, result, room) => (Answer::Append(to, committed.and(result)), Some(room)),
        Staged::Call(reply) => (reply(committed), None),
    }
}
