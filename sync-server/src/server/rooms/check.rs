//! Checks that a room asks for: answered in its turn, or beside it.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sync_core::history::Epoch;
use sync_core::server::{CheckRequest, RequestNumber, RoomEvent};
use sync_core::time::Time;

use super::super::budget::{Payer, Shares};
use super::super::committed::Wanted;
use super::{Answer, Request, RoomHandle, RoomState};
use crate::engine_host::{CheckJob, Checks, Hot, Meter, timed};
use crate::event::ServerEvent;

impl RoomHandle {
    /// Answers a check at once if that can be done, and has the task do it otherwise.
    pub(super) fn check(
        &self,
        state: &mut RoomState,
        now: Time,
        number: RequestNumber,
        request: CheckRequest,
    ) {
        let kept = state.hot.take();
        let mut hot = kept
            .filter(|(epoch, _)| *epoch == request.epoch)
            .map(|(_, hot)| hot);
        let mut payers = Shares::default();
        for change in &request.changes {
            let member = state.members.get(&change.session);
            match member.and_then(|member| member.budget()) {
                Some(budget) => payers.add(budget, change.bytes.len()),
                // Who has left by now pays all the same.
                None => {
                    let payer = Payer::User(change.user.clone());
                    payers.add(&self.server.budgets.of(now, payer), change.bytes.len());
                }
            }
        }
        let (checked, took) = timed(|| self.server.host.check_now(&mut hot, &request));
        if let Some(verdicts) = checked {
            payers.spend(now, took);
            state.hot = hot.map(|hot| (request.epoch, hot));
            state.room.handle_checked(now, number, verdicts);
        } else {
            state
                .requests
                .push(Request::Check(number, request, hot, payers));
        }
    }

    pub(super) fn checked(
        &self,
        state: &mut RoomState,
        now: Time,
        number: RequestNumber,
        epoch: Epoch,
        checks: Checks,
    ) {
        for change in checks.panicked {
            self.tell(RoomEvent::ValidatorPanicked { change });
        }
        for what in checks.deaths {
            let document = self.document.clone();
            tracing::warn!(%document, what, "a worker died");
            self.server
                .events
                .send(ServerEvent::WorkerDied { document, what });
        }
        if let Some(what) = checks.relayed {
            let document = self.document.clone();
            tracing::error!(%document, what, "the document cannot be loaded, and is relayed");
            state.kept.relayed = Some((epoch, what.clone()));
            self.server
                .events
                .send(ServerEvent::DocumentRelayed { document, what });
        }
        state.hot = checks.hot.map(|hot| (epoch, hot));
        state.room.handle_checked(now, number, checks.verdicts);
    }
}

/// Has the engine host check a batch.
pub(super) fn check(
    room: &RoomHandle,
    number: RequestNumber,
    request: CheckRequest,
    hot: Option<Hot>,
    payers: Shares,
) -> BoxFuture<'static, Answer> {
    let server = Arc::clone(&room.server);
    let (loader, document) = (Arc::clone(&room.server), room.document.clone());
    let epoch = request.epoch;
    let meter = Meter::default();
    let wanted = Wanted {
        epoch,
        through: request.at,
        snapshot_max: request.at,
        weighs_all: false,
        keeps_rows: true,
    };
    let load = Box::new(move || {
        let (loader, document) = (Arc::clone(&loader), document.clone());
        async move { loader.load(&document, wanted).await }.boxed()
    });
    let job = CheckJob {
        room: room.channel.0,
        request,
        hot,
        load,
        meter: meter.clone(),
    };
    async move {
        let checks = server.host.check(job).await;
        payers.spend(server.clock.now(), meter.spent());
        Answer::Check(number, epoch, checks)
    }
    .boxed()
}
