//! A core as the model sees it.

use super::{Index, TraceChecker, Trouble, names};
use crate::protocol::{Config, Log, MAX_LEN, Message, Role as ModelRole, State};
use flintmq_consensus::{ConfigRegister, ConfigStamp, Core, History, Role, Term};

/// How far a replica is on its way to lead. One that does not lead any more may stand for any role
/// of the model: there it simply does nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Idle,
    Candidate,
    Elected,
    Finishing,
    Leader,
}

/// What the model knows of a replica, and a little more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) term: u8,
    /// Elections of this term are by the operator's order.
    pub(super) ordered: bool,
    pub(super) vote: Option<u8>,
    pub(super) log: Log,
    pub(super) recovering: bool,
    pub(super) config: Config,
    pub(super) history: History,
    pub(super) standing: Standing,
}

impl View {
    /// What a crash leaves, as far as it was saved.
    pub(super) fn hard(&self) -> (u8, Option<u8>, Config, History) {
        (self.term, self.vote, self.config, self.history)
    }

    /// 0 when the model's replica is as seen; else greater the more is missing.
    pub(super) fn distance(&self, state: &State, number: u8) -> u32 {
        let node = state.node(number);
        let log = if node.log == self.log {
            0
        } else if node.log == self.log.prefix(node.log.len()) && node.log.len() < self.log.len() {
            1 + u32::from(self.log.len() - node.log.len())
        } else {
            20
        };
        let role = match self.standing {
            Standing::Idle => true,
            Standing::Candidate => node.role == ModelRole::Candidate,
            Standing::Elected => node.role == ModelRole::Candidate && state.is_elected(number),
            Standing::Finishing => node.role == ModelRole::Finishing,
            Standing::Leader => node.role == ModelRole::Leader,
        };
        log + u32::from(node.term != self.term)
            + u32::from(node.recovering != self.recovering)
            + u32::from(node.config != self.config)
            + u32::from(!role)
    }
}

impl TraceChecker {
    /// The core as the model would have it.
    pub(super) fn view(&mut self, number: u8, core: &Core) -> Result<View, Trouble> {
        self.names.meet(core.term(), self.highest_term());
        let term = self.term(core.term())?;
        let config = self.config(core.config())?;
        let standing = match core.role() {
            Role::Follower | Role::Scout | Role::Failed => Standing::Idle,
            Role::Candidate => Standing::Candidate,
            Role::Syncing if config.term == term => Standing::Finishing,
            Role::Syncing => Standing::Elected,
            Role::Ready => Standing::Leader,
        };
        let vote = match core.hard_state().voted_for {
            None => None,
            Some(node) => Some(self.names.node(node).ok_or(Trouble::Over("a foreign node"))?),
        };
        let leads = matches!(standing, Standing::Finishing | Standing::Leader);
        self.check_base(core, leads && term == self.highest_term())?;
        Ok(View {
            term,
            ordered: self.replicas[usize::from(number)].order.is_some_and(|order| {
                order.expect_history == core.history()
                    && u64::from(order.number) == names::order_of(core.term())
            }),
            vote,
            log: self.log(number, core)?,
            recovering: core.recovering().is_some(),
            config,
            history: core.history(),
            standing,
        })
    }

    /// What is cut off must be in the log of whoever leads now, and nobody may have decided on
    /// anything else. Who followed an earlier leader meanwhile, or is that leader, may have other
    /// entries there, for which the model has no room.
    fn check_base(&self, core: &Core, leads: bool) -> Result<(), Trouble> {
        let short = core.last().index < self.base;
        let own = core.log().term_at(self.base).map(|term| self.names.term(term));
        let other = self.base > 0 && own.is_some_and(|term| term != Some(self.base_term));
        let trouble = match (leads, core.commit_index() >= self.base) {
            (true, _) if short => "it leads without entries that all had",
            (true, _) if other => "it leads with other entries than were decided",
            (_, true) if other => "it decided on another entry than others did",
            (false, _) if other => {
                return Err(Trouble::Over("an earlier leader went on while others decided"));
            }
            _ => return Ok(()),
        };
        if core.history() > 0 {
            return Err(Trouble::Over("a forced recovery gave up decided entries"));
        }
        Err(Trouble::Wrong(trouble.into()))
    }

    /// The greatest term that anybody is in, or is about to be in.
    fn highest_term(&self) -> u8 {
        let nodes = self.state.nodes.iter().map(|node| node.term);
        let pending = self.replicas.iter().flat_map(|replica| &replica.pending);
        nodes.chain(pending.map(|view| view.term)).max().unwrap_or(0)
    }

    pub(super) fn term(&self, term: Term) -> Result<u8, Trouble> {
        self.names.term(term).ok_or(Trouble::Over("too many terms"))
    }

    pub(super) fn stamp(&self, stamp: ConfigStamp) -> Result<(u8, u8), Trouble> {
        let version = u8::try_from(stamp.version).map_err(|_| Trouble::Over("many changes"))?;
        Ok((self.term(stamp.term)?, version))
    }

    pub(super) fn config(&self, register: &ConfigRegister) -> Result<Config, Trouble> {
        if register.voters.is_empty() {
            // A member to be: whatever it is told of is newer.
            return Ok(self.first_config);
        }
        let (term, version) = self.stamp(register.stamp)?;
        let set = |nodes| self.names.set(nodes).ok_or(Trouble::Over("a foreign node"));
        Ok(Config {
            term,
            version,
            voters: set(&register.voters)?,
            outgoing: set(&register.outgoing)?,
        })
    }

    /// The terms of the log. What is only in a snapshot is taken from a log that was seen before.
    fn log(&self, number: u8, core: &Core) -> Result<Log, Trouble> {
        let shape = core.log();
        let (floor, last) = (shape.floor(), shape.last().index);
        if last.saturating_sub(self.base) >= MAX_LEN as Index {
            return Err(Trouble::Over("a long log"));
        }
        let Some(below) = self.place(floor.index) else { return Ok(Log::default()) };
        let mut log = self
            .known_log(number, below, self.term(floor.term)?)
            .ok_or_else(|| Trouble::Wrong(format!("nobody ever had {floor:?}")))?;
        for index in floor.index.max(self.base) + 1..=last {
            let term = shape.term_at(index).unwrap_or(0);
            log = log.push(self.term(term)?);
        }
        Ok(log)
    }

    /// Where the model has this index: 0 for all that was cut off.
    pub(super) fn place(&self, index: Index) -> Option<u8> {
        u8::try_from(index.saturating_sub(self.base)).ok()
    }

    /// The log that ends with this entry.
    pub(super) fn known_log(&self, number: u8, index: u8, term: u8) -> Option<Log> {
        if index == 0 {
            return Some(Log::default());
        }
        let own = self.replicas[usize::from(number)].last.iter().map(|view| view.log);
        let nodes = self.state.nodes.iter();
        let logs = nodes.flat_map(|node| node.versions.iter().chain([&node.log]).copied());
        let sent = self.state.messages.iter().filter_map(|message| match message {
            Message::Append { log, .. } | Message::Reply { log, .. } => Some(*log),
            _ => None,
        });
        own.chain(logs).chain(sent).find(|log| log.at(index) == term).map(|log| log.prefix(index))
    }
}
