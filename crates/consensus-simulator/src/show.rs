//! Runs as text: every step, or the state at the end.

use std::fmt::Write as _;

use flintmq_consensus::{GroupId, NodeEffect, NodeId};

use crate::event::Event;
use crate::world::World;

impl World {
    pub(crate) fn tell(&self, event: &Event) {
        let (now, step) = (self.schedule.now, self.steps);
        match event {
            Event::Deliver { packet, .. } if packet.messages.is_empty() => {}
            Event::Deliver { packet, .. } => {
                for message in &packet.messages {
                    println!(
                        "{now:>10} #{step} {}→{} group {} t{} {:?}",
                        packet.from, packet.to, message.group, message.term, message.body
                    );
                }
            }
            Event::Timer { .. } | Event::Flush { .. } | Event::Watch | Event::Operator => {}
            event => println!("{now:>10} #{step} {event:?}"),
        }
    }

    pub(crate) fn tell_effect(&self, id: NodeId, effect: &NodeEffect) {
        let (now, step) = (self.schedule.now, self.steps);
        match effect {
            NodeEffect::Send { packet, .. } => {
                for message in &packet.messages {
                    println!(
                        "{now:>10} #{step}   {id} says to {} group {} t{} {:?}",
                        packet.to, message.group, message.term, message.body
                    );
                }
            }
            NodeEffect::Group { group, effect } => {
                println!("{now:>10} #{step}   {id} group {group} {effect:?}");
            }
            effect => println!("{now:>10} #{step}   {id} {effect:?}"),
        }
    }

    /// Every node's state.
    pub(crate) fn show(&self) -> String {
        let mut text = String::new();
        let now = self.schedule.now;
        let _ = writeln!(text, "step {} at {now} µs", self.steps);
        for node in self.nodes.values() {
            let state = match &node.process {
                _ if node.dead => "lost for good".to_owned(),
                None => "down".to_owned(),
                Some(process) => format!("run {}", process.run),
            };
            let _ = writeln!(
                text,
                "node {}: {state}, loss epoch {}, clock {}, suspended until {}, {} writes queued",
                node.id,
                node.disk.loss_epoch,
                node.local(now).0,
                node.suspended_until,
                node.disk.queued()
            );
            for number in 0..self.profile.groups.len() {
                let group = GroupId(u32::try_from(number).unwrap_or(0));
                let Some(replica) = node.disk.replica(group) else { continue };
                let _ = writeln!(
                    text,
                    "  group {group} on disk: log {:?}..{:?}, applied {:?}, rejoined {}, {:?}",
                    replica.log.floor,
                    replica.log.last(),
                    replica.machine.applied,
                    replica.rejoined,
                    node.disk.hard_state(group)
                );
                if let Some(core) = self.core(node.id, group) {
                    let _ = writeln!(
                        text,
                        "    {:?} t{} leader {:?} log {:?}..{:?} commit {} verified {} recovering \
                         {:?} quiesced {} serving {} deadline {:?}\n    {:?}",
                        core.role(),
                        core.term(),
                        core.leader(),
                        core.log().floor(),
                        core.last(),
                        core.commit_index(),
                        core.verified_index(),
                        core.recovering(),
                        core.is_quiesced(),
                        core.is_serving(),
                        core.next_deadline(),
                        core.config()
                    );
                    for peer in core.progress() {
                        let _ = writeln!(text, "      {peer:?}");
                    }
                }
            }
        }
        for (number, ghost) in self.ghosts.iter().enumerate() {
            let _ = writeln!(text, "group {number}: {} entries acknowledged", ghost.acked());
        }
        text
    }
}
