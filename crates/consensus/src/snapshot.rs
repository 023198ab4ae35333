//! Snapshots for replicas whose next entry is compacted: offered, taken piece by piece, checked,
//! and switched to at once (docs/internals/consensus.md#snapshots).

use std::sync::Arc;

use bytes::Bytes;

use crate::core::{Core, Turn};
use crate::durability::After;
use crate::progress::Flow;
use crate::replication::backed_off;
use crate::{
    Body, ConfigRegister, ConfigStamp, Effect, History, LogPosition, LogTerms, NodeId, Role,
    SnapshotId, Term, Time,
};

/// A snapshot on its way to a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sending {
    pub(crate) to: NodeId,
    /// None until the host opened it.
    pub(crate) id: Option<SnapshotId>,
    /// The piece that the host is reading.
    reading: Option<Bytes>,
    /// Times in a row that the host could not open or read it.
    failures: u32,
    /// When it is opened again, after a failure; nothing is open or asked for until then.
    retry_at: Option<Time>,
}

impl Sending {
    fn new(to: NodeId) -> Self {
        Self { to, id: None, reading: None, failures: 0, retry_at: None }
    }
}

/// A snapshot on its way here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Receiving {
    id: SnapshotId,
    from: NodeId,
    history: History,
    /// The piece wanted next.
    cursor: Bytes,
    /// The piece being staged, and where the one after it begins.
    staging: Option<(Bytes, Option<Bytes>)>,
    pub(crate) installing: bool,
    /// Something arrived since a syncing leader last looked.
    pub(crate) advanced: bool,
}

/// One piece, as it arrived.
pub(crate) struct Piece {
    pub(crate) cursor: Bytes,
    pub(crate) data: Bytes,
    pub(crate) crc: u32,
    pub(crate) next: Option<Bytes>,
}

fn checksum(cursor: &[u8], data: &[u8], next: Option<&Bytes>) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(cursor), data);
    match next {
        Some(next) => crc32c::crc32c_append(crc ^ 1, next),
        None => crc,
    }
}

impl Core {
    /// Begins to send a snapshot, or goes on.
    pub(crate) fn start_snapshot(&mut self, turn: &mut Turn<'_>, to: NodeId) {
        let retry_at = turn.now + self.settings.append_retry;
        if let Some(peer) = self.leading.as_mut().and_then(|leading| leading.progress_mut(to)) {
            peer.await_snapshot();
            peer.retry_at = Some(retry_at);
        }
        match self.sending.iter().find(|sending| sending.to == to) {
            Some(Sending { id: Some(id), .. }) if id.position.index >= self.log.floor().index => {
                let id = *id;
                self.offer(turn, to, id);
            }
            Some(Sending { id: None, .. }) => {}
            _ => {
                self.stop_sending_snapshot(turn, to);
                self.sending.push(Sending::new(to));
                turn.effects.push(Effect::SnapshotOpen { to });
            }
        }
    }

    fn offer(&mut self, turn: &mut Turn<'_>, to: NodeId, id: SnapshotId) {
        let history = self.hard.history;
        let stamp = self.hard.config.stamp;
        let config = self.leading.is_some().then_some(stamp);
        let older = self
            .leading
            .as_ref()
            .and_then(|leading| leading.progress(to))
            .is_some_and(|peer| peer.config < stamp);
        let newer = older.then(|| Arc::new(self.hard.config.clone()));
        let body = Body::SnapshotOffer { id, history, config, newer };
        self.send(turn, to, body, After::HardState);
    }

    pub(crate) fn on_snapshot_opened(&mut self, turn: &mut Turn<'_>, to: NodeId, id: SnapshotId) {
        let sending = self.sending.iter_mut().find(|sending| sending.to == to);
        match sending {
            Some(sending) if sending.id.is_none() && sending.retry_at.is_none() => {
                sending.id = Some(id);
                self.offer(turn, to, id);
            }
            _ => turn.effects.push(Effect::SnapshotClose { to, id }),
        }
    }

    /// True while a snapshot for this peer is open, or the host was asked to open it. One that
    /// failed is neither until it is tried again.
    pub(crate) fn sends_snapshot_to(&self, to: NodeId) -> bool {
        self.sending.iter().any(|sending| sending.to == to && sending.retry_at.is_none())
    }

    /// The host could not open the snapshot, or not read a piece of it: it is closed, and a new one
    /// is opened after a while, longer with each failure in a row.
    pub(crate) fn on_snapshot_failed(&mut self, turn: &mut Turn<'_>, to: NodeId) {
        let retry = self.settings.append_retry;
        let Some(sending) =
            self.sending.iter_mut().find(|sending| sending.to == to && sending.retry_at.is_none())
        else {
            return;
        };
        sending.retry_at = Some(turn.now + backed_off(retry, sending.failures));
        sending.failures = sending.failures.saturating_add(1);
        sending.reading = None;
        if let Some(id) = sending.id.take() {
            turn.effects.push(Effect::SnapshotClose { to, id });
        }
    }

    /// When a snapshot that failed is tried again.
    pub(crate) fn next_snapshot_retry(&self) -> Option<Time> {
        self.sending.iter().filter_map(|sending| sending.retry_at).min()
    }

    /// Opens snapshots again that failed, for those who still need them.
    pub(crate) fn on_snapshot_tick(&mut self, turn: &mut Turn<'_>) {
        let (leads, follows) = (self.role == Role::Ready, self.role == Role::Follower);
        let (leading, leader, down) = (&self.leading, self.leader, &self.down);
        let needs = |to: NodeId| {
            let progress = leading.as_ref().and_then(|leading| leading.progress(to));
            let lags = progress.is_some_and(|peer| peer.flow == Flow::Snapshot);
            !down.contains(&to) && (leads && lags || follows && leader == Some(to))
        };
        self.sending.retain_mut(|sending| {
            if sending.retry_at.is_none_or(|at| at > turn.now) {
                return true;
            }
            sending.retry_at = None;
            let to = sending.to;
            let needed = needs(to);
            if needed {
                turn.effects.push(Effect::SnapshotOpen { to });
            }
            needed
        });
    }

    /// True while a snapshot takes the place of the log: nothing may be written to it.
    pub(crate) fn is_installing(&self) -> bool {
        self.receiving.as_ref().is_some_and(|receiving| receiving.installing)
    }

    /// Closes what was being sent to this peer.
    pub(crate) fn stop_sending_snapshot(&mut self, turn: &mut Turn<'_>, to: NodeId) {
        self.sending.retain(|sending| {
            if sending.to != to {
                return true;
            }
            if let Some(id) = sending.id {
                turn.effects.push(Effect::SnapshotClose { to, id });
            }
            false
        });
    }

    /// A follower sends snapshots only to the syncing leader that it follows: what was meant for
    /// another is closed.
    pub(crate) fn close_snapshots_of_the_past(&mut self, turn: &mut Turn<'_>) {
        if self.sending.is_empty() || self.leading.is_some() {
            return;
        }
        let followed = self.leader.filter(|_| self.role == Role::Follower);
        let past = self.sending.iter().map(|sending| sending.to);
        let past: Vec<NodeId> = past.filter(|to| Some(*to) != followed).collect();
        for to in past {
            self.stop_sending_snapshot(turn, to);
        }
    }

    /// The receiver is silent: the offer is repeated, and with it the question where to go on.
    pub(crate) fn retry_snapshot(&mut self, turn: &mut Turn<'_>, to: NodeId) {
        let retry = self.settings.append_retry;
        if let Some(peer) = self.leading.as_mut().and_then(|leading| leading.progress_mut(to)) {
            peer.retry_at = Some(turn.now + backed_off(retry, peer.retries));
        }
        if let Some(sending) = self.sending.iter_mut().find(|sending| sending.to == to) {
            sending.reading = None;
            if let Some(id) = sending.id {
                self.offer(turn, to, id);
            }
        } else {
            self.start_snapshot(turn, to);
        }
    }

    pub(crate) fn on_snapshot_wanted(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        term: Term,
        id: SnapshotId,
        cursor: Bytes,
    ) {
        if term > self.hard.term {
            self.adopt_term(turn, term, None);
            return;
        }
        if term < self.hard.term {
            return;
        }
        let retry = self.settings.append_retry;
        if let Some(peer) = self.leading.as_mut().and_then(|leading| leading.progress_mut(from)) {
            peer.retries = 0;
            if peer.flow == Flow::Snapshot {
                peer.retry_at = Some(turn.now + retry);
            }
        }
        let max_bytes = self.settings.snapshot_chunk_bytes;
        let Some(sending) = self.sending.iter_mut().find(|sending| sending.to == from) else {
            return;
        };
        // The same piece asked for twice is read once.
        if sending.id == Some(id) && sending.reading.as_ref() != Some(&cursor) {
            sending.reading = Some(cursor.clone());
            turn.effects.push(Effect::SnapshotRead { to: from, id, cursor, max_bytes });
        }
    }

    pub(crate) fn on_snapshot_read(
        &mut self,
        turn: &mut Turn<'_>,
        to: NodeId,
        id: SnapshotId,
        cursor: Bytes,
        data: Bytes,
        next: Option<Bytes>,
    ) {
        let Some(sending) = self.sending.iter_mut().find(|sending| sending.to == to) else {
            return;
        };
        if sending.id != Some(id) || sending.reading.as_ref() != Some(&cursor) {
            return;
        }
        sending.reading = None;
        sending.failures = 0;
        let crc = checksum(&cursor, &data, next.as_ref());
        self.send(turn, to, Body::SnapshotChunk { id, cursor, data, crc, next }, After::HardState);
    }

    /// Whether this peer may send snapshots here now: the leader that is followed, or the source
    /// that a syncing leader fetches from.
    fn takes_snapshot_from(&mut self, turn: &mut Turn<'_>, from: NodeId, term: Term) -> bool {
        if term < self.hard.term {
            self.send(turn, from, Body::Refused { newer: None }, After::HardState);
            return false;
        }
        if term > self.hard.term {
            return false;
        }
        match self.role {
            Role::Follower => self.leader == Some(from),
            Role::Syncing => self
                .leading
                .as_ref()
                .and_then(|leading| leading.sync.fetching.as_ref())
                .is_some_and(|fetching| fetching.source == from),
            Role::Scout | Role::Candidate | Role::Ready | Role::Failed => false,
        }
    }

    #[allow(clippy::too_many_arguments)] // the fields of one message
    pub(crate) fn on_snapshot_offer(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        term: Term,
        id: SnapshotId,
        history: History,
        config: Option<ConfigStamp>,
        newer: Option<&ConfigRegister>,
    ) {
        let welcome = match config {
            Some(config) => self.follow(turn, from, term, config, newer),
            None => self.takes_snapshot_from(turn, from, term),
        };
        if !welcome {
            return;
        }
        if self.is_replacing_log() {
            return;
        }
        let decided = id.position.index <= self.commit && history <= self.hard.history;
        if decided || self.log.contains(id.position) {
            self.receiving = None;
            self.have_snapshot(turn, from, id.position);
            return;
        }
        match &mut self.receiving {
            Some(receiving) if receiving.id == id => receiving.from = from,
            receiving => {
                *receiving = Some(Box::new(Receiving {
                    id,
                    from,
                    history,
                    cursor: Bytes::new(),
                    staging: None,
                    installing: false,
                    advanced: true,
                }));
            }
        }
        self.want_next(turn);
    }

    fn want_next(&mut self, turn: &mut Turn<'_>) {
        if let Some(receiving) = self.receiving.as_ref().filter(|r| r.staging.is_none()) {
            let (to, id, cursor) = (receiving.from, receiving.id, receiving.cursor.clone());
            self.send(turn, to, Body::SnapshotWanted { id, cursor }, After::HardState);
        }
    }

    pub(crate) fn on_snapshot_chunk(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        term: Term,
        id: SnapshotId,
        piece: Piece,
    ) {
        if !self.takes_snapshot_from(turn, from, term) {
            return;
        }
        let Piece { cursor, data, crc, next } = piece;
        let Some(receiving) = self.receiving.as_mut().filter(|receiving| {
            receiving.id == id
                && receiving.cursor == cursor
                && receiving.staging.is_none()
                && !receiving.installing
        }) else {
            return;
        };
        if checksum(&cursor, &data, next.as_ref()) != crc {
            self.want_next(turn);
            return;
        }
        receiving.advanced = true;
        receiving.staging = Some((cursor.clone(), next));
        turn.effects.push(Effect::SnapshotStage { id, cursor, data });
    }

    pub(crate) fn on_snapshot_staged(
        &mut self,
        turn: &mut Turn<'_>,
        id: SnapshotId,
        cursor: &Bytes,
    ) {
        let Some(receiving) = self.receiving.as_mut().filter(|receiving| {
            receiving.id == id
                && receiving.staging.as_ref().is_some_and(|(staged, _)| staged == cursor)
        }) else {
            return;
        };
        match receiving.staging.take() {
            Some((_, Some(next))) => {
                receiving.cursor = next;
                self.want_next(turn);
            }
            _ if id.position.index <= self.commit && receiving.history <= self.hard.history => {
                // Entries brought this replica further meanwhile.
                self.receiving = None;
            }
            _ => {
                receiving.installing = true;
                let keep_log_after = self.log.contains(id.position);
                let effect = Effect::SnapshotInstall { id, keep_log_after };
                self.hold(turn, effect, After::Writes);
            }
        }
    }

    pub(crate) fn on_snapshot_installed(&mut self, turn: &mut Turn<'_>, id: SnapshotId) {
        let Some(receiving) = self.receiving.take_if(|r| r.id == id && r.installing) else {
            return;
        };
        if self.log.contains(id.position) {
            self.log.compact(id.position);
            self.commit = self.commit.max(id.position.index);
        } else {
            self.log = LogTerms::new(id.position);
            self.synced = 0;
            // Of a later history, it may stand for less than was decided here before.
            self.commit = id.position.index;
        }
        self.durability.replaced(self.log.last().index);
        if receiving.history > self.hard.history {
            self.hard.history = receiving.history;
            self.save(turn);
        }
        self.have_snapshot(turn, receiving.from, id.position);
        self.try_rejoin(turn);
    }

    /// What came in of a snapshot cannot be used: whoever sends it offers it again.
    pub(crate) fn on_snapshot_refused(&mut self, id: SnapshotId) {
        self.receiving.take_if(|receiving| receiving.id == id);
    }

    /// The log has the snapshot's position: replication goes on from there.
    fn have_snapshot(&mut self, turn: &mut Turn<'_>, from: NodeId, position: LogPosition) {
        match self.role {
            Role::Follower if self.leader == Some(from) => {
                self.verified = self.verified.max(position.index);
                self.send_ack(turn, from, Ok(position.index));
            }
            Role::Syncing => {
                if let Some(leading) = &mut self.leading {
                    leading.sync.fetching = None;
                }
                self.go_on_syncing(turn);
            }
            _ => {}
        }
    }

    pub(crate) fn on_compacted(&mut self, upto: LogPosition) {
        if upto.index <= self.commit {
            self.log.compact(upto);
        }
    }
}
