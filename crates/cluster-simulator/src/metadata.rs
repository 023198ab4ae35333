//! Carries out what controllers ask for, as the host of a node does.

use flintmq_consensus::{GroupId, NodeId};
use flintmq_controller::Effect;
use flintmq_partition::Ticket;
use flintmq_shard::ShardInput;

use crate::event::{Errand, Waits};
use crate::oracle::{Violation, violation};
use crate::world::World;

impl World {
    pub(crate) fn carry_out_controller(
        &mut self,
        id: NodeId,
        incarnation: u64,
        effect: Effect,
    ) -> Result<(), Violation> {
        match effect {
            Effect::MetadataChanged(metadata) => {
                let node = self.nodes.get_mut(&id);
                if let Some(process) = node.and_then(|node| node.process.as_mut()) {
                    process.metadata = metadata;
                }
                self.follow_domains(id);
            }
            Effect::MembershipChanged(membership) => {
                let assignment = std::sync::Arc::new(flintmq_node::assignment(&membership));
                self.tell_now(id, incarnation, ShardInput::Assignment(assignment));
                self.follow_membership(id, &membership);
            }
            Effect::Changed { ticket, result } => {
                self.say(|| format!("node {} change {ticket}: {result:?}", id.0));
                let errand = self.errand(id, ticket)?;
                self.changed(id, errand, result)?;
            }
            Effect::CaughtUp { ticket, result } => {
                let errand = self.errand(id, ticket)?;
                self.caught_up(id, errand, result);
            }
        }
        Ok(())
    }

    fn errand(&mut self, id: NodeId, ticket: u64) -> Result<Errand, Violation> {
        match self.tickets.remove(&Ticket(ticket)) {
            Some((_, _, Waits::Controller(errand))) => Ok(errand),
            other => violation("AnsweredOnce", format!("node {}: {ticket} {other:?}", id.0)),
        }
    }

    /// Who leads a group has changed, as this node sees it.
    pub(crate) fn status_changed(&mut self, id: NodeId, incarnation: u64, group: GroupId) {
        if group != GroupId::CONTROLLER {
            return self.follow_domains(id);
        }
        let process = self.nodes.get(&id).and_then(|node| node.process.as_ref());
        let status = process.and_then(|process| process.shard.status(group));
        let led = status.is_some_and(|status| status.led);
        self.tell_now(id, incarnation, ShardInput::ControllerLed { led });
    }
}
