//! What must be so: in every state, and when everything has come to rest.

use sync_core::server::RoomPhase;

use super::visitor::id;
use super::{Life, State};

impl Life {
    pub(super) fn check(&self, state: &State) -> Result<(), String> {
        let is_live = |phase| phase != RoomPhase::Unloaded;
        let live = state.all.values().filter(|live| is_live(live.room.phase()));
        if live.count() > 1 {
            return Err("two rooms of one document are live".into());
        }
        for (channel, live) in &state.all {
            if is_live(live.room.phase()) {
                if state.rooms.get(&self.document) != Some(channel) {
                    return Err(format!("{channel:?} is live and forgotten"));
                }
                continue;
            }
            if live.room.n_members() > 0 {
                return Err(format!(
                    "somebody was left in {channel:?}, which is unloaded"
                ));
            }
            if !live.requests.is_empty() || !live.calls.is_empty() {
                return Err(format!(
                    "{channel:?} is unloaded and has calls under way: {:?} {:?}",
                    live.requests, live.calls
                ));
            }
        }
        for (index, visitor) in state.visitors.iter().enumerate() {
            let mut rooms = visitor.rooms.iter();
            if let Some(channel) =
                rooms.find(|channel| state.all[*channel].room.phase() == RoomPhase::Unloaded)
            {
                return Err(format!("visitor {index} thinks it is in {channel:?}"));
            }
        }
        Ok(())
    }

    pub(super) fn check_settled(&self, state: &State) -> Result<(), String> {
        for (channel, live) in &state.all {
            let is_unloaded = live.room.phase() == RoomPhase::Unloaded;
            if is_unloaded && (!live.is_over || live.forgets) {
                return Err(format!("the task of {channel:?} does not end"));
            }
            if !is_unloaded && live.room.n_members() == 0 {
                return Err(format!("{channel:?} stays, and nobody is there"));
            }
        }
        let found = state.rooms.get(&self.document);
        if found.is_some_and(|found| state.all[found].room.phase() == RoomPhase::Unloaded) {
            return Err(format!("{found:?} is unloaded and not forgotten"));
        }
        for (index, visitor) in state.visitors.iter().enumerate() {
            if visitor.pushed_charge != visitor.settled_charge {
                return Err(format!(
                    "visitor {index} pushed {}, of which {} was settled",
                    visitor.pushed_charge, visitor.settled_charge
                ));
            }
            if !visitor.is_gone && (visitor.asked.is_some() || visitor.join.is_some()) {
                return Err(format!("visitor {index} has no answer to its open"));
            }
            if !visitor.unanswered.is_empty() {
                let numbers = &visitor.unanswered;
                return Err(format!("visitor {index} has no answer to {numbers:?}"));
            }
            // Whoever leaves has what it pushed before appended all the same.
            let mut numbers = 1..=u64::from(visitor.pushes);
            let log = state.registry.log();
            let is_logged = |number| log.iter().any(|row| row.id == id(index, number));
            if let Some(number) = numbers.find(|number| !is_logged(*number))
                && !state.has_failed
            {
                return Err(format!("change {number} of visitor {index} is in no log"));
            }
        }
        Ok(())
    }
}
