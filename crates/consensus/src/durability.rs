//! What waits for the disk: effects that depend on a write are held here until it is reported.

use std::collections::VecDeque;

use crate::core::{Core, Turn};
use crate::mutants::broken;
use crate::recovery::void_epoch;
use crate::{Body, Effect, Entry, HardState, History, Index, LogTerms, Message, NodeId, Term};

/// Counts of saves and writes, and what they hold back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Durability {
    pub(crate) saves_issued: u64,
    pub(crate) saves_synced: u64,
    pub(crate) writes_issued: u64,
    pub(crate) writes_done: u64,
    /// Writes under way.
    pub(crate) under_way: VecDeque<UnderWay>,
    /// Last index of the log as it is written.
    written: Index,
    pub(crate) held: VecDeque<Held>,
}

/// A write of the log that is not reported yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UnderWay {
    pub(crate) number: u64,
    /// The last index that the log has after it.
    last: Index,
    /// Up to where it leaves alone what is on the disk.
    keeps: Index,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub(crate) save: u64,
    pub(crate) write: u64,
    effect: Effect,
}

/// What an effect depends on, besides the hard state, on which everything depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing else.
    HardState,
    /// All log writes so far.
    Writes,
}

impl Durability {
    pub(crate) fn restored(last: Index) -> Self {
        Self { written: last, ..Self::default() }
    }

    /// True when no hard state is on its way to the disk.
    pub(crate) fn is_hard_state_synced(&self) -> bool {
        self.saves_issued == self.saves_synced
    }

    /// The last save asked for.
    pub(crate) fn last_save(&self) -> u64 {
        self.saves_issued
    }

    /// True when this save is on the disk.
    pub(crate) fn is_saved(&self, save: u64) -> bool {
        self.saves_synced >= save
    }

    /// The last write asked for.
    pub(crate) fn last_write(&self) -> u64 {
        self.writes_issued
    }

    /// True when this write, and all before it, returned.
    pub(crate) fn is_written(&self, write: u64) -> bool {
        self.writes_done >= write
    }

    /// True when no write is under way.
    pub(crate) fn is_all_written(&self) -> bool {
        self.writes_done >= self.writes_issued
    }

    /// Last index of the log as far as its writes returned.
    pub(crate) fn written(&self) -> Index {
        self.written
    }

    /// Nothing is going on: no memory is kept for what may come.
    pub(crate) fn shrink(&mut self) {
        self.held.shrink_to_fit();
        self.under_way.shrink_to_fit();
    }

    /// How far a report about the disk can be about the log of now: a report that was on its way
    /// before the log was cut may tell of entries that are no more.
    pub(crate) fn written_for_good(&self) -> Index {
        self.under_way.iter().map(|write| write.keeps).min().unwrap_or(Index::MAX).min(self.written)
    }

    /// A snapshot replaced what was written.
    pub(crate) fn replaced(&mut self, last: Index) {
        self.under_way.clear();
        self.writes_done = self.writes_issued;
        self.written = last;
    }

    fn release(&mut self, effects: &mut Vec<Effect>) {
        let (synced, done) = (self.saves_synced, self.writes_done);
        // Nearly always all of it, or a first part, may go.
        while let Some(held) = self.held.front() {
            if held.save > synced || held.write > done {
                break;
            }
            effects.extend(self.held.pop_front().map(|held| held.effect));
        }
        if self.held.iter().any(|held| held.save <= synced && held.write <= done) {
            let (free, held) = std::mem::take(&mut self.held)
                .into_iter()
                .partition::<VecDeque<_>, _>(|held| held.save <= synced && held.write <= done);
            self.held = held;
            effects.extend(free.into_iter().map(|held| held.effect));
        }
    }
}

impl Core {
    /// Sends as soon as all that the message depends on is on the disk.
    pub(crate) fn send(&mut self, turn: &mut Turn<'_>, to: NodeId, body: Body, after: After) {
        let message = Message {
            group: self.group,
            creation: self.creation,
            from: self.node,
            to,
            term: self.hard.term,
            body,
        };
        self.hold(turn, Effect::Send(message), after);
    }

    /// Lets the effect leave once the hard state, and with [`After::Writes`] the log, is written.
    pub(crate) fn hold(&mut self, turn: &mut Turn<'_>, effect: Effect, after: After) {
        let hasty = broken!(self, W04TermNotDurable);
        let disk = &mut self.durability;
        let save = if hasty { 0 } else { disk.saves_issued };
        let write = match after {
            After::HardState => 0,
            After::Writes => disk.writes_issued,
        };
        if save <= disk.saves_synced && write <= disk.writes_done {
            turn.effects.push(effect);
        } else {
            disk.held.push_back(Held { save, write, effect });
        }
    }

    /// Messages of a term that is over need not leave any more.
    pub(crate) fn drop_held_before(&mut self, term: Term) {
        self.durability
            .held
            .retain(|held| !matches!(&held.effect, Effect::Send(message) if message.term < term));
    }

    /// Asks for the present hard state to be fsynced.
    pub(crate) fn save(&mut self, turn: &mut Turn<'_>) {
        let state: HardState = self.hard.clone();
        // A save that the host has not seen yet is simply made newer.
        let unseen = turn.effects.iter_mut().rev().find_map(|effect| match effect {
            Effect::SaveHardState { save, state } if *save == self.durability.saves_issued => {
                Some(state)
            }
            _ => None,
        });
        if let Some(pending) = unseen {
            *pending = state;
            return;
        }
        self.durability.saves_issued += 1;
        let save = self.durability.saves_issued;
        turn.effects.push(Effect::SaveHardState { save, state });
    }

    pub(crate) fn on_hard_state_synced(&mut self, turn: &mut Turn<'_>, save: u64) {
        let disk = &mut self.durability;
        disk.saves_synced = disk.saves_synced.max(save.min(disk.saves_issued));
        disk.release(turn.effects);
        self.after_hard_state(turn);
    }

    /// Changes the log and asks for the same change on the disk.
    pub(crate) fn write(
        &mut self,
        turn: &mut Turn<'_>,
        truncate_from: Option<Index>,
        entries: Vec<Entry>,
    ) {
        if let Some(index) = truncate_from {
            self.log.truncate_from(index);
            self.synced = self.synced.min(self.log.last().index);
        }
        for entry in &entries {
            self.log.push(entry.position());
        }
        let last = self.log.last().index;
        let disk = &mut self.durability;
        if truncate_from.is_none()
            && let Some(Effect::Append { write, entries: pending, .. }) = turn.effects.last_mut()
            && *write == disk.writes_issued
        {
            pending.extend(entries);
            if let Some(under_way) = disk.under_way.back_mut() {
                under_way.last = last;
            }
            return;
        }
        disk.writes_issued += 1;
        let keeps = truncate_from.map_or(Index::MAX, |index| index - 1);
        disk.under_way.push_back(UnderWay { number: disk.writes_issued, last, keeps });
        turn.effects.push(Effect::Append { write: disk.writes_issued, truncate_from, entries });
    }

    /// Gives way to a later history: neither the log nor what was applied of it counts any more.
    /// That is made durable first, for a log of the old past at the new history's number would be
    /// taken for the group's. What was acknowledged of the part that both have in common is gone
    /// too, so the replica counts again only once a leader's grant is met.
    pub(crate) fn reset(&mut self, turn: &mut Turn<'_>, history: History) {
        self.hard.history = history;
        self.hard.void = true;
        self.save(turn);
        self.recovering = self.recovering.or_else(|| Some(void_epoch(history)));
        self.grant = None;
        self.log = LogTerms::default();
        self.commit = 0;
        self.verified = 0;
        self.synced = 0;
        self.receiving = None;
        self.fetch_read = None;
        self.drop_held_of_log();
        self.reset_disk(turn);
    }

    /// Asks for the log on the disk to go. Nothing is written before that is done.
    pub(crate) fn reset_disk(&mut self, turn: &mut Turn<'_>) {
        let disk = &mut self.durability;
        disk.writes_issued += 1;
        let write = disk.writes_issued;
        disk.under_way.push_back(UnderWay { number: write, last: 0, keeps: 0 });
        self.resetting = Some(write);
        self.hold(turn, Effect::Reset { write }, After::HardState);
    }

    /// True while the log on the disk is being replaced by none or by a snapshot: nothing may be
    /// written to it.
    pub(crate) fn is_replacing_log(&self) -> bool {
        self.resetting.is_some() || self.is_installing()
    }

    /// What was to be told of a log that is no more.
    fn drop_held_of_log(&mut self) {
        self.durability.held.retain(|held| match &held.effect {
            Effect::Send(message) => {
                !matches!(message.body, Body::Ack { .. } | Body::FetchReply { .. })
            }
            Effect::ReadLog { .. } | Effect::SnapshotInstall { .. } => false,
            _ => true,
        });
    }

    pub(crate) fn on_appended(&mut self, turn: &mut Turn<'_>, write: u64) {
        let disk = &mut self.durability;
        while let Some(UnderWay { number, last, .. }) = disk.under_way.front().copied() {
            if number > write {
                break;
            }
            disk.written = last;
            disk.writes_done = number;
            disk.under_way.pop_front();
        }
        disk.release(turn.effects);
        if self.resetting.is_some_and(|reset| self.durability.is_written(reset)) {
            self.resetting = None;
        }
        self.after_write(turn);
    }
}
