//! What may be gone when a process starts again.

use super::{TraceChecker, Trouble, View};
use crate::protocol::{Action, Log, Message, Role};
use flintmq_consensus::Core;

impl TraceChecker {
    pub(super) fn restart(
        &mut self,
        number: u8,
        core: &Core,
        lost_power: bool,
    ) -> Result<(), Trouble> {
        if core.hard_state().void {
            return Err(Trouble::Over("a replica gave its past up for a later history"));
        }
        let view = self.view(number, core)?;
        if self.state.dead & (1 << number) != 0 {
            return Err(Trouble::Over("a node is back that was off for good"));
        }
        let logs = self.reach_saved(number, &view)?;
        let node = self.state.node_mut(number);
        let (kept, versions) = (node.log, node.versions.clone());
        // Of what was still to be written, anything may be.
        node.versions.extend(&logs);
        if view.recovering && (lost_power || !node.recovering) {
            self.lose(number, core, &view)?;
        } else {
            self.crash(number, core, &view, kept)?;
        }
        let other = logs.into_iter().filter(|log| log.contradicts(&view.log));
        self.state.node_mut(number).versions = versions.into_iter().chain(other).collect();
        let replica = &mut self.replicas[usize::from(number)];
        if replica.epoch != core.recovering() {
            replica.epoch = core.recovering();
            replica.grants.clear();
            replica.grants_cut = false;
        } else if view.recovering && replica.grants_cut {
            return Err(Trouble::Over("an old target"));
        }
        replica.last = Some(view);
        let node = self.state.node(number);
        if node.recovering {
            // What was granted for this loss still is.
            let fresh = |message: &&Message| {
                matches!(message, Message::Grant { term, .. }
                    if *term >= node.term)
            };
            let grants: Vec<Message> = replica.grants.iter().filter(fresh).copied().collect();
            self.state.messages.extend(grants);
        }
        Ok(())
    }

    /// Lets the model follow the replica up to the hard state that it has now; what came later was
    /// not saved. Returns the logs that it had in all that time.
    fn reach_saved(&mut self, number: u8, view: &View) -> Result<Vec<Log>, Trouble> {
        let saved = |checker: &Self| {
            let node = checker.state.node(number);
            let replica = &checker.replicas[usize::from(number)];
            let vote = replica.votes.get(&node.term).copied().flatten();
            (node.term, vote, node.config, replica.history) == view.hard()
        };
        let replica = &self.replicas[usize::from(number)];
        let mut logs: Vec<Log> = replica.pending.iter().map(|view| view.log).collect();
        logs.push(self.state.node(number).log);
        while !saved(self) {
            if !self.advance(number)? {
                return Err(Trouble::Wrong("it has a hard state that it did not save last".into()));
            }
        }
        let replica = &mut self.replicas[usize::from(number)];
        replica.order = None;
        replica.pending.clear();
        logs.append(&mut replica.installed);
        Ok(logs)
    }

    /// The log is back at an earlier state, and known to be.
    fn lose(&mut self, number: u8, core: &Core, view: &View) -> Result<(), Trouble> {
        let leaders = self.state.nodes.iter().enumerate();
        let leaders = leaders.filter(|(_, node)| node.role == Role::Leader);
        let at_loss = leaders.map(|(at, node)| (at as u8, (node.term, node.log.len()))).collect();
        let action = Action::Lose(number, view.log, view.term);
        let mut enabled = Vec::new();
        self.losing.actions_of(&self.state, number, &mut enabled);
        if !enabled.contains(&action) {
            return Err(Trouble::Wrong(format!("its log never was {:?}", view.log.terms())));
        }
        self.state = self.losing.take(&self.state, &action);
        self.count("Lose");
        let replica = &mut self.replicas[usize::from(number)];
        // Otherwise it only forgot that it had made the loss good.
        if replica.epoch != core.recovering() {
            replica.at_loss = at_loss;
        }
        Ok(())
    }

    /// Only what was not written yet is gone.
    fn crash(&mut self, number: u8, core: &Core, view: &View, kept: Log) -> Result<(), Trouble> {
        let node = self.state.node(number);
        let replica = &self.replicas[usize::from(number)];
        let foreign = node.config.all() & (1 << number) == 0;
        let wiped = foreign && core.last().index == 0;
        let short = core.last().index < self.base;
        if !wiped {
            let mut known = node.versions.iter().chain([&kept]);
            if !known.any(|log| log.prefix(view.log.len()) == view.log) {
                return Err(Trouble::Wrong(format!("its log never was {:?}", view.log.terms())));
            }
            let decided = self.state.committed.iter();
            let mut lost = decided
                .filter(|e| replica.acked.contains(&(e.index, e.term)) && !view.log.holds(e));
            if !view.recovering && (lost.next().is_some() || short && replica.acked_base) {
                return Err(Trouble::Wrong("it acknowledged what it no longer has".into()));
            }
        } else {
            let replica = &mut self.replicas[usize::from(number)];
            replica.acked.clear();
            replica.acked_base = false;
        }
        let node = self.state.node_mut(number);
        (node.role, node.log, node.order) = (Role::Follower, view.log, 0);
        node.recovering = view.recovering;
        self.count("crash");
        Ok(())
    }
}
