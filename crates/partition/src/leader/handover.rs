//! When the leadership goes, and to whom.

use std::time::Duration;

use flintmq_shard::Group;

use super::Leader;
use crate::context::Context;
use crate::effect::Answer;
use crate::request::Ticket;

/// How long a stopping node tries to hand a leadership over.
const HAND_OVER: Duration = Duration::from_secs(5);

/// How long a leader serves before it makes room for the one that should lead: failures come in
/// rows.
const SETTLED: Duration = Duration::from_secs(5);

impl Leader {
    /// The node is stopping. With others in the cluster, one of them leads on; alone, nothing more
    /// is delivered.
    pub(crate) fn on_stop_delivery(&mut self, cx: &mut Context, group: &dyn Group, ticket: Ticket) {
        cx.stopping = true;
        if group.is_clustered() && group.successor().is_some() {
            self.handing_over = Some((group.now(), ticket));
        } else {
            self.draining = Some(ticket);
        }
    }

    /// Hands the leadership over while the node stops, and tells when that is done or cannot be.
    pub(super) fn go_on_stopping(&mut self, cx: &mut Context, group: &mut dyn Group) {
        if let Some((since, ticket)) = self.handing_over.take() {
            if group.now().since(since) > HAND_OVER {
                cx.answer(ticket, Answer::Idle(Vec::new()));
                return;
            }
            if !group.is_transferring()
                && let Some(successor) = group.successor()
            {
                group.transfer(successor);
            }
            self.handing_over = Some((since, ticket));
        }
        if self.draining.is_none() || !self.is_settled(group) {
            return;
        }
        let views = cx.queues.ids().into_iter().filter_map(|queue| cx.machine.view(queue));
        let unconfirmed: u64 = views.flat_map(|view| view.apps).map(|app| app.unconfirmed).sum();
        if unconfirmed == 0
            && let Some(ticket) = self.draining.take()
        {
            cx.answer(ticket, Answer::Idle(Vec::new()));
            // Nothing more is delivered either.
            self.drained = true;
        }
    }

    /// Makes room for the node that should lead, once the leadership is settled.
    pub(super) fn give_leadership_back(&mut self, group: &mut dyn Group) {
        if group.now().since(self.since) >= SETTLED
            && self.handing_over.is_none()
            && !group.is_transferring()
            && let Some(preferred) = group.preferred_leader()
        {
            tracing::info!(group = group.id().0, to = preferred.0, "gives the leadership back");
            group.transfer(preferred);
        }
    }
}
