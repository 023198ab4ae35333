//! The commands that a script may give.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::{
    ConfigRegister, EntryKind, HardState, Input, LogPosition, MemberChange, NodeId, RecoveryPolicy,
};

use super::{Cluster, Host, telling};

/// A command's words behind its name.
struct Words<'a>(VecDeque<&'a str>);

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<&'a str, String> {
        self.0.pop_front().ok_or_else(|| "a word is missing".to_owned())
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, String> {
        let word = self.next()?;
        word.parse().map_err(|_| format!("{word:?} is no number"))
    }

    fn node(&mut self) -> Result<NodeId, String> {
        self.number().map(NodeId)
    }

    /// The rest, as `1,2,3`.
    fn nodes(word: &str) -> Result<Vec<NodeId>, String> {
        let list = word.split(',').filter(|part| !part.is_empty());
        list.map(|part| part.parse().map(NodeId).map_err(|_| format!("{part:?} is no node")))
            .collect()
    }

    /// True when the next word is this one, which is then taken.
    fn flag(&mut self, word: &str) -> bool {
        let is = self.0.front() == Some(&word);
        if is {
            self.0.pop_front();
        }
        is
    }

    /// The value of `key=value`, if that is next.
    fn value(&mut self, key: &str) -> Option<&'a str> {
        let value = self.0.front()?.strip_prefix(key)?.strip_prefix('=')?;
        self.0.pop_front();
        Some(value)
    }
}

impl Cluster {
    /// Carries out one line of a script.
    pub(crate) fn command(&mut self, line: &str) -> Result<(), String> {
        let mut words = Words(line.split_whitespace().collect());
        match words.next()? {
            "nodes" => self.nodes(&mut words)?,
            "policy" => {
                self.settings.recovery = match words.next()? {
                    "strict" => RecoveryPolicy::Strict,
                    _ => RecoveryPolicy::AllReported,
                };
            }
            "run" => self.run()?,
            "deliver" => self.deliver_some(&mut words)?,
            "drop" => {
                for message in std::mem::take(&mut self.network) {
                    self.trace.push(telling::message(&message, false));
                }
            }
            "advance" => {
                let until = self.now + Duration::from_millis(words.number()?);
                self.advance(until)?;
            }
            "stand" => {
                let node = words.node()?;
                let scout = !words.flag("unasked");
                self.input(node, Input::Stand { scout })?;
            }
            "propose" => self.propose(&mut words)?,
            "read" => {
                let node = words.node()?;
                self.input(node, Input::Read { read: words.number()? })?;
            }
            "transfer" => {
                let (node, to) = (words.node()?, words.node()?);
                let force = words.flag("force");
                self.input(node, Input::Transfer { to, force })?;
            }
            "cede" => {
                let node = words.node()?;
                self.input(node, Input::Cede)?;
            }
            "change" => self.change(&mut words)?,
            "force-recover" => {
                let node = words.node()?;
                let dead = Words::nodes(words.value("dead").unwrap_or(""))?;
                let expect_history = words.value("history").unwrap_or("0").parse().unwrap_or(0);
                let dead = dead.into_iter().collect();
                let number = words.value("number").unwrap_or("1").parse().unwrap_or(1);
                let left = self.hosts.values().filter_map(|host| host.core.as_ref());
                let configs = left.map(flintmq_consensus::Core::config);
                let newest = configs.max_by_key(|config| config.stamp).cloned();
                let newest = newest.unwrap_or_default();
                let order = Input::ForceRecover { dead, expect_history, newest, number };
                self.input(node, order)?;
            }
            "compact" => self.compact(&mut words)?,
            "disk" => self.disk(&mut words)?,
            "snapshots" => {
                let node = words.node()?;
                let bad_piece = words.value("bad-piece").map(str::parse).transpose();
                let host = self.host(node)?;
                host.bad_piece = bad_piece.map_err(|_| "no number of a piece".to_owned())?;
                host.refuses = words.flag("refuse");
                host.refuses_piece = words.flag("refuse-piece");
            }
            "crash" => self.crash(&mut words, false)?,
            "power-loss" => self.crash(&mut words, true)?,
            "start" => {
                let node = words.node()?;
                self.start(node)?;
            }
            "unreachable" => self.reach(&mut words, false)?,
            "reachable" => self.reach(&mut words, true)?,
            "cut" => {
                let (a, b) = (words.node()?, words.node()?);
                self.cut.insert((a, b));
                if !words.flag("one-way") {
                    self.cut.insert((b, a));
                }
            }
            "heal" => self.cut.clear(),
            "status" => self.status(),
            other => return Err(format!("no command is called {other:?}")),
        }
        match words.0.front() {
            Some(rest) => Err(format!("{rest:?} was not expected")),
            None => Ok(()),
        }
    }

    fn nodes(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let all = Words::nodes(words.next()?)?;
        let voters = words.value("voters").map_or_else(|| Ok(all.clone()), Words::nodes)?;
        // Delays that a reader can follow: the lower a node's number, the sooner it stands.
        for node in all {
            let mut host = Host::default();
            if voters.contains(&node) {
                let config = ConfigRegister::of_voters(voters.clone());
                host.disk.hard_state = HardState { config, ..HardState::default() };
            }
            self.hosts.insert(node, host);
            self.start(node)?;
        }
        Ok(())
    }

    fn deliver_some(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let from = words.value("from").map(Words::nodes).transpose()?;
        let to = words.value("to").map(Words::nodes).transpose()?;
        let now = std::mem::take(&mut self.network);
        let (wanted, rest) = now.into_iter().partition::<VecDeque<_>, _>(|message| {
            from.as_ref().is_none_or(|from| from.contains(&message.from))
                && to.as_ref().is_none_or(|to| to.contains(&message.to))
        });
        self.network = rest;
        wanted.into_iter().try_for_each(|message| self.deliver(message))
    }

    fn propose(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let node = words.node()?;
        let now = self.now;
        for payload in std::mem::take(&mut words.0) {
            let mut effects = Vec::new();
            let Some(core) = self.host(node)?.core.as_mut() else { continue };
            let payload = Bytes::copy_from_slice(payload.as_bytes());
            match core.propose(now, EntryKind::Commands, payload, &mut effects) {
                Ok(_) => self.carry_out(node, effects)?,
                Err(error) => self.trace.push(format!("{node}: {error}")),
            }
        }
        Ok(())
    }

    fn change(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let node = words.node()?;
        let change = match words.next()? {
            "add-learner" => MemberChange::AddLearner(words.node()?),
            "remove-learner" => MemberChange::RemoveLearner(words.node()?),
            "promote" => MemberChange::Promote(words.node()?),
            "remove" => MemberChange::RemoveVoter(words.node()?),
            "voters" => {
                let voters = Words::nodes(words.next()?)?;
                MemberChange::Joint { voters, learners: Vec::new() }
            }
            other => return Err(format!("{other:?} is no change")),
        };
        let now = self.now;
        let mut effects = Vec::new();
        let Some(core) = self.host(node)?.core.as_mut() else { return Ok(()) };
        match core.change_members(now, &change, &mut effects) {
            Ok(_) => self.carry_out(node, effects),
            Err(error) => {
                self.trace.push(format!("{node}: {error}"));
                Ok(())
            }
        }
    }

    fn compact(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let (node, index) = (words.node()?, words.number()?);
        let disk = &mut self.host(node)?.disk;
        let entry = disk.log.iter().find(|entry| entry.index == index);
        let upto = entry.ok_or("that entry is not in the log")?.position();
        disk.log.retain(|entry| entry.index > index);
        disk.floor = upto;
        self.input(node, Input::Compacted { upto })
    }

    fn disk(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let node = words.node()?;
        let pace = words.next()?;
        let host = self.host(node)?;
        // With "once", what it then asks for waits again.
        host.slow = pace != "works";
        if pace != "waits" {
            for effect in std::mem::take(&mut host.waiting) {
                if let Some(answer) = self.finish(node, effect)? {
                    self.input(node, answer)?;
                }
            }
        }
        Ok(())
    }

    /// The process ends; with a power loss, the log ends where `keep` says.
    fn crash(&mut self, words: &mut Words<'_>, power: bool) -> Result<(), String> {
        let node = words.node()?;
        let keep: u64 = words.value("keep").unwrap_or("0").parse().unwrap_or(0);
        let host = self.host(node)?;
        host.core = None;
        host.waiting.clear();
        if power {
            let disk = &mut host.disk;
            disk.truncate_from(keep + 1);
            disk.machine.retain(|(index, _)| *index <= keep);
            disk.applied = disk.applied.min(keep);
            disk.loss_epoch += 1;
            disk.rejoined_epoch = disk.rejoined_epoch.min(disk.loss_epoch - 1);
        }
        self.network.retain(|message| message.from != node && message.to != node);
        Ok(())
    }

    fn reach(&mut self, words: &mut Words<'_>, up: bool) -> Result<(), String> {
        let peer = words.node()?;
        let by = words.value("by").map(Words::nodes).transpose()?;
        let restarted = words.flag("restarted");
        let all: Vec<NodeId> = self.hosts.keys().copied().filter(|node| *node != peer).collect();
        for node in by.unwrap_or(all) {
            let input =
                if up { Input::PeerUp { peer, restarted } } else { Input::PeerDown { peer } };
            self.input(node, input)?;
        }
        Ok(())
    }

    fn status(&mut self) {
        let mut lines = Vec::new();
        for (node, host) in &self.hosts {
            let log: Vec<String> = host.disk.log.iter().map(telling::entry).collect();
            let log = log.join(", ");
            let floor = match host.disk.floor {
                LogPosition { index: 0, .. } => String::new(),
                floor => format!("(up to {}) ", floor.index),
            };
            let Some(core) = &host.core else {
                lines.push(format!("{node}: off, log {floor}[{log}]"));
                continue;
            };
            let serving = if core.is_serving() { ", serves" } else { "" };
            let rests = if core.is_quiesced() { ", rests" } else { "" };
            let recovering = if core.recovering().is_some() { ", recovering" } else { "" };
            lines.push(format!(
                "{node}: {:?} t{}{serving}{recovering}{rests}, log {floor}[{log}], decided {}, members {}",
                core.role(),
                telling::term(core.term()),
                core.commit_index(),
                telling::config(core.config()),
            ));
        }
        self.trace.extend(lines);
    }
}
