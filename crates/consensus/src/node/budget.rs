//! Bytes on the way to a peer, shared by all groups that have entries for it.
//!
//! Every leader here is told that it may send nothing, and asks by having something to send. Each
//! grant lets it send one message. Groups take turns: a turn is worth a quantum, and whoever sent
//! more than its turns were worth waits until they are (surplus round robin, which has deficit
//! round robin's fairness and need not know a message's size in advance). What is on the way is
//! not counted here but read off the groups, which forget it when they send anew: so nothing is
//! held up for ever by an acknowledgement that was lost.

use std::collections::VecDeque;

use crate::{Core, GroupId, NodeId, Progress, Role, Settings};

/// Live entries may take this many bytes for each byte of older ones, while both wait.
const LIVE_SHARE: u64 = 3;

/// What a group that leads has on the way to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) peer: NodeId,
    in_flight: u64,
    /// Part of it: expected of entries that are being read back.
    reserved: u64,
    /// What its turns were worth, less what it sent.
    balance: i64,
    /// It waits for its turn.
    pub(super) queued: bool,
}

impl Account {
    pub(super) fn new(peer: NodeId) -> Self {
        Self { peer, in_flight: 0, reserved: 0, balance: 0, queued: false }
    }

    /// What it has on the way.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Its turn has come. False when it has sent so much that it must let others go first.
    pub(super) fn begin_turn(&mut self, quantum: u64) -> bool {
        if self.balance <= 0 {
            self.balance += i64::try_from(quantum.max(1)).unwrap_or(i64::MAX);
        }
        self.balance > 0
    }

    /// False when its turn is over.
    pub(super) fn may_go_on(&self) -> bool {
        self.balance > 0
    }

    /// It has nothing to send any more: turns are not saved up, debts are kept.
    pub(super) fn leave(&mut self) {
        self.queued = false;
        self.balance = self.balance.min(0);
    }
}

/// Expected of the first entries that are read back.
const FIRST_READ_BYTES: u64 = 64 << 10;

/// What is on the way to one peer, and who waits to send more.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    in_flight: u64,
    /// Groups with entries that wait for this peer's acknowledgement.
    live: VecDeque<GroupId>,
    /// Groups with entries that are decided without it.
    catch_up: VecDeque<GroupId>,
    /// Bytes that those who catch up may send although live entries wait.
    credit: u64,
    /// Bytes that come of reading entries back for one message: the newest experience where it is
    /// more, else all of it, the newest weighing most.
    read_bytes: u64,
}

impl Default for Pair {
    fn default() -> Self {
        Self {
            in_flight: 0,
            live: VecDeque::new(),
            catch_up: VecDeque::new(),
            credit: 0,
            read_bytes: FIRST_READ_BYTES,
        }
    }
}

/// Which of the two queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Live,
    CatchUp,
}

impl Pair {
    /// Takes over what a group has on the way now.
    pub(super) fn note(&mut self, account: &mut Account, in_flight: u64) {
        let more = i128::from(in_flight) - i128::from(account.in_flight);
        self.in_flight = self.in_flight.saturating_sub(account.in_flight) + in_flight;
        account.in_flight = in_flight;
        if more > 0 {
            let more = i64::try_from(more).unwrap_or(i64::MAX);
            account.balance = account.balance.saturating_sub(more);
        }
    }

    /// Entries that are being read back for a group are as good as sent: tells what to expect of
    /// them, and learns from what came. `sent` is what the group has really sent.
    pub(super) fn reserve(&mut self, account: &mut Account, reading: bool, sent: u64) -> u64 {
        match account.reserved {
            0 if reading => account.reserved = self.read_bytes.max(1),
            1.. if !reading => {
                let before = account.in_flight.saturating_sub(account.reserved);
                let came = sent.saturating_sub(before);
                let unused = account.reserved.saturating_sub(came);
                account.balance += i64::try_from(unused).unwrap_or(0);
                account.reserved = 0;
                self.read_bytes = came.max((self.read_bytes * 7 + came) / 8);
            }
            _ => {}
        }
        account.reserved
    }

    /// Bytes on the way.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// The groups that wait for their turn.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> impl Iterator<Item = &GroupId> {
        self.live.iter().chain(&self.catch_up)
    }

    /// True when some group waits for its turn.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.live.is_empty() || !self.catch_up.is_empty()
    }

    /// Lets a group wait for its turn.
    pub(super) fn enqueue(&mut self, group: GroupId, account: &mut Account, lane: Lane) {
        if !std::mem::replace(&mut account.queued, true) {
            self.queue(lane).push_back(group);
        }
    }

    /// A group whose turn is over for now.
    pub(super) fn requeue(&mut self, group: GroupId, lane: Lane) {
        self.queue(lane).push_back(group);
    }

    /// A group that could go on if there were room.
    pub(super) fn put_back(&mut self, group: GroupId, lane: Lane) {
        self.queue(lane).push_front(group);
    }

    fn queue(&mut self, lane: Lane) -> &mut VecDeque<GroupId> {
        match lane {
            Lane::Live => &mut self.live,
            Lane::CatchUp => &mut self.catch_up,
        }
    }

    /// True when one more message may leave. Those who catch up leave half of the window to the
    /// others, except for what they have credit for.
    pub(super) fn has_room(&self, lane: Lane, window: u64, quantum: u64) -> bool {
        match lane {
            Lane::CatchUp if !self.is_due(quantum) => self.in_flight < window.div_ceil(2),
            Lane::Live | Lane::CatchUp => self.in_flight < window,
        }
    }

    /// True when those who catch up have credit for a turn.
    fn is_due(&self, quantum: u64) -> bool {
        self.credit >= quantum.max(1)
    }

    /// Whose turn it is.
    pub(super) fn next_turn(&mut self, window: u64, quantum: u64) -> Option<(GroupId, Lane)> {
        let due = self.is_due(quantum) && !self.catch_up.is_empty();
        let lane = if self.live.is_empty() || due { Lane::CatchUp } else { Lane::Live };
        if !self.has_room(lane, window, quantum) {
            return None;
        }
        self.queue(lane).pop_front().map(|group| (group, lane))
    }

    /// So much was sent in this lane.
    pub(super) fn spend(&mut self, lane: Lane, bytes: u64) {
        match lane {
            Lane::CatchUp => self.credit = self.credit.saturating_sub(bytes),
            Lane::Live if self.catch_up.is_empty() => self.credit = 0,
            Lane::Live => self.credit += bytes.div_ceil(LIVE_SHARE),
        }
    }
}

/// Whether this leader has something to send to the member, and only wants a grant.
pub(super) fn is_hungry(core: &Core, progress: &Progress, settings: &Settings) -> bool {
    core.role() == Role::Ready
        && progress.allowance == Some(0)
        && progress.reading.is_none()
        && progress.next <= core.last().index
        && progress.may_send(settings.window_entries, settings.window_bytes)
        && core.is_up(progress.node)
}

/// Which lane a member's entries belong in: what is decided does not wait for it.
pub(super) fn lane(core: &Core, progress: &Progress) -> Lane {
    if progress.next > core.commit_index() { Lane::Live } else { Lane::CatchUp }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 1000;
    const QUANTUM: u64 = 100;
    const PEER: NodeId = NodeId(2);

    /// Groups that always want to send messages of these sizes; tells who sent how much within one
    /// window.
    fn share(sizes: &[(u64, Lane)], window: u64) -> Vec<u64> {
        let mut pair = Pair::default();
        let mut accounts: Vec<Account> = sizes.iter().map(|_| Account::new(PEER)).collect();
        for (at, (_, lane)) in sizes.iter().enumerate() {
            pair.enqueue(GroupId(at as u32), &mut accounts[at], *lane);
        }
        while let Some((group, lane)) = pair.next_turn(window, QUANTUM) {
            let at = group.0 as usize;
            accounts[at].begin_turn(QUANTUM);
            while accounts[at].may_go_on() && pair.has_room(lane, window, QUANTUM) {
                let in_flight = accounts[at].in_flight + sizes[at].0;
                pair.note(&mut accounts[at], in_flight);
                pair.spend(lane, sizes[at].0);
            }
            pair.requeue(group, lane);
        }
        accounts.iter().map(|account| account.in_flight).collect()
    }

    #[test]
    fn groups_share_by_bytes_whatever_their_messages_sizes() {
        let sent = share(&[(400, Lane::Live), (30, Lane::Live), (1, Lane::Live)], 100_000);
        let (least, most) = (sent.iter().min(), sent.iter().max());
        assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 800), "{sent:?}");
    }

    #[test]
    fn what_is_on_the_way_is_bounded_but_for_one_message() {
        let sent: u64 = share(&[(300, Lane::Live), (70, Lane::Live)], WINDOW).iter().sum();
        assert!((WINDOW..WINDOW + 300).contains(&sent), "{sent}");
    }

    #[test]
    fn those_who_catch_up_take_a_share_and_leave_room() {
        let sent = share(&[(10, Lane::Live), (10, Lane::CatchUp)], 100_000);
        assert!(sent[1] * 5 > sent[0] && sent[1] * 2 < sent[0], "{sent:?}");
        let alone = share(&[(10, Lane::CatchUp)], WINDOW);
        assert_eq!(alone, [500]);
    }

    #[test]
    fn what_is_read_back_is_reserved_by_experience() {
        let mut pair = Pair::default();
        let mut account = Account::new(PEER);
        let first = pair.reserve(&mut account, true, 0);
        assert_eq!(first, FIRST_READ_BYTES);
        pair.note(&mut account, first);
        assert_eq!(pair.reserve(&mut account, false, 1 << 20), 0);
        pair.note(&mut account, 1 << 20);
        assert_eq!(pair.in_flight(), 1 << 20);
        assert_eq!(pair.reserve(&mut account, true, 0), 1 << 20, "the largest counts at once");
        pair.note(&mut account, 1 << 20);
        pair.reserve(&mut account, false, 0);
        assert_eq!(pair.reserve(&mut account, true, 0), (7 << 20) / 8);
    }

    #[test]
    fn room_returns_with_what_arrived_or_was_given_up() {
        let mut pair = Pair::default();
        let mut account = Account::new(PEER);
        pair.note(&mut account, 2000);
        assert!(!pair.has_room(Lane::Live, WINDOW, QUANTUM));
        pair.note(&mut account, 0);
        assert_eq!(pair.in_flight(), 0);
        assert!(pair.has_room(Lane::Live, WINDOW, QUANTUM));
    }

    #[test]
    fn debts_outlive_the_queue_and_savings_do_not() {
        let mut pair = Pair::default();
        let mut account = Account::new(PEER);
        assert!(account.begin_turn(QUANTUM));
        account.leave();
        assert!(!account.may_go_on(), "nothing is saved up");
        account.begin_turn(QUANTUM);
        pair.note(&mut account, 350);
        account.leave();
        assert!(!account.begin_turn(QUANTUM));
        assert!(!account.begin_turn(QUANTUM));
        assert!(account.begin_turn(QUANTUM));
    }
}
