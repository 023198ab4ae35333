//! Whether a peer can be reached: one sign of life per pair of nodes stands for all their groups.

use std::cmp::Ordering;
use std::time::Duration;

use crate::mutants::node_broken;
use crate::{NodeSettings, Packet, Time, UnfitReasons};

/// How regularly packets arrive: the patience with a peer follows what it did before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rhythm {
    mean: Duration,
    deviation: Duration,
}

impl Rhythm {
    fn new(beat_interval: Duration) -> Self {
        Self { mean: beat_interval, deviation: beat_interval / 4 }
    }

    /// Weighs the newest gap like a round-trip estimate of TCP: an eighth for the mean, a quarter
    /// for the deviation (RFC 6298).
    fn note(&mut self, gap: Duration) {
        self.deviation = (self.deviation * 3 + self.mean.abs_diff(gap)) / 4;
        self.mean = (self.mean * 7 + gap) / 8;
    }

    /// Two beats may be lost in a row, and the next be late.
    fn patience(&self) -> Duration {
        self.mean * 3 + self.deviation * 4
    }
}

/// What became of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It cannot be reached any more.
    Down(Cause),
    /// It can be reached, in both directions.
    Up {
        /// It is not the process that was there before.
        restarted: bool,
    },
}

/// Why a peer counts as down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Nothing was heard for too long.
    Silent,
    /// It is heard, but does not hear this node.
    OneWay,
    /// The connection was lost.
    Disconnected,
    /// Another process is there now.
    Restarted,
    /// The host says so.
    Told,
}

/// What a packet told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It came from a process that is no more.
    Outlived,
    /// It came from a process that this node was not told of.
    Early,
    /// It is meant for another process of this node: its messages are void.
    ForAnother,
    /// Its messages count.
    Messages,
}

/// The contact with one peer.
///
/// A peer is up when it was heard lately, and said that it hears this node, and repeated the
/// present contact number. That number is raised whenever the peer goes down, so that only a packet
/// sent in answer to one from after that brings it up again; packets that were long under way do
/// not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contact {
    pub(super) up: bool,
    /// The peer's process; zero before it was heard.
    pub(super) incarnation: u64,
    /// When it was heard last, unless it was silent for too long since.
    pub(super) heard: Option<Time>,
    /// Why it should not lead, as it said last.
    pub(super) unfit: UnfitReasons,
    /// It is not the process that the groups were told of.
    restarted: bool,
    /// It hears this node, in the present contact.
    hears_us: bool,
    contact: u64,
    their_contact: u64,
    /// Number of the newest packet heard.
    newest: u64,
    /// Number of the last packet sent.
    sent: u64,
    rhythm: Rhythm,
    /// It should hear from this node at once.
    pub(super) greet: bool,
    /// Packets that a newer one had overtaken.
    pub(super) overtaken: u64,
}

impl Contact {
    pub(super) fn new(now: Time, settings: &NodeSettings) -> Self {
        Self {
            up: false,
            incarnation: 0,
            heard: None,
            unfit: UnfitReasons::NONE,
            restarted: false,
            hears_us: false,
            contact: now.0.max(1),
            their_contact: 0,
            newest: 0,
            sent: 0,
            rhythm: Rhythm::new(settings.beat_interval),
            greet: true,
            overtaken: 0,
        }
    }

    /// Takes a packet of this peer, and tells what became of the peer.
    pub(super) fn on_packet(
        &mut self,
        now: Time,
        settings: &NodeSettings,
        packet: &Packet,
        changes: &mut Vec<Change>,
    ) -> Heard {
        if packet.from_incarnation < self.incarnation || packet.from_incarnation == 0 {
            return Heard::Outlived;
        }
        if packet.from_incarnation > self.incarnation {
            // A process that was not told of the present contact cannot repeat its number.
            if self.up {
                changes.extend(self.take_down(now, Cause::Restarted));
            }
            self.restarted |= self.incarnation > 0;
            self.incarnation = packet.from_incarnation;
            self.heard = None;
            self.hears_us = false;
            self.their_contact = 0;
            self.newest = 0;
            self.rhythm = Rhythm::new(settings.beat_interval);
            self.greet = true;
        }
        let for_us = packet.to_incarnation == settings.incarnation;
        if packet.number > self.newest {
            self.newest = packet.number;
            self.on_newest(now, settings, packet, for_us, changes);
        } else {
            self.overtaken += 1;
        }
        if for_us { Heard::Messages } else { Heard::ForAnother }
    }

    fn on_newest(
        &mut self,
        now: Time,
        settings: &NodeSettings,
        packet: &Packet,
        for_us: bool,
        changes: &mut Vec<Change>,
    ) {
        // Gaps within traffic say nothing of how late a beat may be.
        if let Some(gap) = self.heard.map(|heard| now.since(heard))
            && gap >= settings.beat_interval / 2
        {
            self.rhythm.note(gap.min(settings.suspicion_max));
        }
        // Whatever we would tell it anew is told at once.
        self.greet |= self.heard.is_none() || self.their_contact != packet.contact || !for_us;
        self.heard = Some(now);
        self.their_contact = packet.contact;
        self.unfit = packet.unfit;
        self.hears_us = for_us && packet.hears_you && packet.heard_contact == self.contact;
        if self.up && !self.hears_us {
            changes.extend(self.take_down(now, Cause::OneWay));
        } else if !self.up && self.hears_us {
            self.up = true;
            self.greet = true;
            changes.push(Change::Up { restarted: std::mem::take(&mut self.restarted) });
        }
    }

    /// The connection is lost: whatever arrives late says nothing.
    pub(super) fn on_disconnected(&mut self, now: Time) -> Option<Change> {
        let change = self.take_down(now, Cause::Disconnected);
        self.heard = None;
        change
    }

    /// Looks whether the peer was silent for too long.
    pub(super) fn on_time(&mut self, now: Time, settings: &NodeSettings) -> Option<Change> {
        if self.deadline(settings).is_none_or(|deadline| now < deadline) {
            return None;
        }
        self.heard = None;
        let change = self.take_down(now, Cause::Silent);
        self.greet = true;
        change
    }

    /// When the peer was silent for too long, unless it is heard before.
    pub(super) fn deadline(&self, settings: &NodeSettings) -> Option<Time> {
        let (min, max) =
            (settings.suspicion_min, settings.suspicion_max.max(settings.suspicion_min));
        self.heard.map(|heard| heard + self.rhythm.patience().clamp(min, max))
    }

    /// This node was not run for so long: that is no silence of the peer.
    pub(super) fn excuse(&mut self, slept: Duration) {
        if let Some(heard) = &mut self.heard {
            *heard = *heard + slept;
        }
    }

    /// Takes a packet of a peer about which the node is told: it is no sign of life.
    pub(super) fn judge(&self, settings: &NodeSettings, packet: &Packet) -> Heard {
        match packet.from_incarnation.cmp(&self.incarnation) {
            Ordering::Less => Heard::Outlived,
            Ordering::Greater if node_broken!(settings, N03EarlyMessagesCount) => Heard::Messages,
            Ordering::Greater => Heard::Early,
            Ordering::Equal if packet.from_incarnation == 0 => Heard::Outlived,
            Ordering::Equal if packet.to_incarnation == settings.incarnation => Heard::Messages,
            Ordering::Equal => Heard::ForAnother,
        }
    }

    /// The host says that this process of the peer can be reached.
    pub(super) fn on_told_up(&mut self, incarnation: u64, restarted: bool) -> Vec<Change> {
        let mut changes = Vec::new();
        if incarnation < self.incarnation || incarnation == 0 {
            return changes;
        }
        let first = self.incarnation == 0;
        // Of the process that is known already the groups may have heard, and follow it.
        let restarted = if first { restarted } else { incarnation > self.incarnation };
        self.incarnation = incarnation;
        if restarted && std::mem::take(&mut self.up) {
            changes.push(Change::Down(Cause::Restarted));
        }
        self.restarted |= restarted;
        if !self.up {
            self.up = true;
            changes.push(Change::Up { restarted: std::mem::take(&mut self.restarted) });
        }
        changes
    }

    /// The host says that the peer cannot be reached.
    pub(super) fn on_told_down(&mut self) -> Option<Change> {
        std::mem::take(&mut self.up).then_some(Change::Down(Cause::Told))
    }

    fn take_down(&mut self, now: Time, cause: Cause) -> Option<Change> {
        self.contact = now.0.max(self.contact + 1);
        self.hears_us = false;
        std::mem::take(&mut self.up).then_some(Change::Down(cause))
    }

    /// Stamps a packet for this peer, with everything but its ends and messages.
    pub(super) fn stamp(&mut self, now: Time, packet: &mut Packet) {
        // Greater than those that were sent before a removal of the peer.
        self.sent = now.0.max(self.sent + 1);
        packet.to_incarnation = self.incarnation;
        packet.number = self.sent;
        packet.contact = self.contact;
        packet.heard_contact = self.their_contact;
        packet.hears_you = self.heard.is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeId, UnfitReasons};

    const MILLI: Duration = Duration::from_millis(1);

    struct End {
        settings: NodeSettings,
        contact: Contact,
    }

    impl End {
        fn new(node: u32, incarnation: u64) -> Self {
            let settings = NodeSettings::new(NodeId(node), incarnation, [NodeId(3 - node)]);
            let contact = Contact::new(Time(0), &settings);
            Self { settings, contact }
        }

        fn packet(&mut self, now: Time) -> Packet {
            let mut packet = Packet {
                from: self.settings.node,
                to: NodeId(3 - self.settings.node.0),
                from_incarnation: self.settings.incarnation,
                to_incarnation: 0,
                number: 0,
                contact: 0,
                heard_contact: 0,
                hears_you: false,
                clocks: None,
                unfit: UnfitReasons::NONE,
                messages: Vec::new(),
            };
            self.contact.stamp(now, &mut packet);
            packet
        }

        fn hear(&mut self, now: Time, packet: &Packet) -> Vec<Change> {
            let mut changes = Vec::new();
            self.contact.on_packet(now, &self.settings, packet, &mut changes);
            changes
        }

        fn time(&mut self, now: Time) -> Option<Change> {
            self.contact.on_time(now, &self.settings)
        }
    }

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    /// Two ends that have met.
    fn met() -> (End, End) {
        let (mut one, mut two) = (End::new(1, 10), End::new(2, 20));
        for round in 0..2 {
            let hello = one.packet(at(round));
            two.hear(at(round), &hello);
            let answer = two.packet(at(round));
            one.hear(at(round), &answer);
        }
        assert!(one.contact.up && two.contact.up);
        (one, two)
    }

    #[test]
    fn peers_meet_within_one_round_trip_and_a_half() {
        let (mut one, mut two) = (End::new(1, 10), End::new(2, 20));
        let hello = one.packet(at(0));
        assert_eq!(two.hear(at(1), &hello), []);
        assert!(two.contact.greet);
        let answer = two.packet(at(1));
        assert_eq!(one.hear(at(2), &answer), [Change::Up { restarted: false }]);
        assert!(one.contact.greet);
        let third = one.packet(at(2));
        assert_eq!(two.hear(at(3), &third), [Change::Up { restarted: false }]);
    }

    #[test]
    fn silence_takes_a_peer_down_after_the_least_patience_when_it_was_regular() {
        let (mut one, mut two) = met();
        for beat in 1..50 {
            let packet = two.packet(at(100 * beat));
            assert_eq!(one.hear(at(100 * beat), &packet), []);
        }
        let last = 4900;
        assert_eq!(one.time(at(last + 499)), None);
        assert_eq!(one.time(at(last + 500)), Some(Change::Down(Cause::Silent)));
        assert_eq!(one.time(at(last + 9000)), None, "told once");
    }

    #[test]
    fn unsteady_beats_earn_patience_up_to_the_greatest() {
        let (mut one, mut two) = met();
        let mut now = 1;
        for gap in [250, 350].repeat(8) {
            now += gap;
            let packet = two.packet(at(now));
            assert_eq!(one.hear(at(now), &packet), []);
        }
        assert_eq!(one.time(at(now + 900)), None);
        assert_eq!(one.time(at(now + 1000)), Some(Change::Down(Cause::Silent)));
    }

    #[test]
    fn a_link_that_works_in_one_direction_is_down_on_both_sides_until_it_works_again() {
        let (mut one, mut two) = met();
        // What two says does not arrive.
        assert_eq!(one.time(at(600)), Some(Change::Down(Cause::Silent)));
        let complaint = one.packet(at(600));
        assert_eq!(two.hear(at(601), &complaint), [Change::Down(Cause::OneWay)]);
        for round in 7..20 {
            let packet = one.packet(at(100 * round));
            assert_eq!(two.hear(at(100 * round), &packet), [], "still one way");
        }
        // Both ways again.
        let answer = two.packet(at(2000));
        assert_eq!(one.hear(at(2001), &answer), [Change::Up { restarted: false }]);
        let packet = one.packet(at(2001));
        assert_eq!(two.hear(at(2002), &packet), [Change::Up { restarted: false }]);
    }

    #[test]
    fn packets_from_before_a_lost_connection_do_not_end_it() {
        let (mut one, mut two) = met();
        let late = two.packet(at(10));
        assert_eq!(one.contact.on_disconnected(at(11)), Some(Change::Down(Cause::Disconnected)));
        assert_eq!(one.hear(at(12), &late), []);
        assert!(!one.contact.up);
        let greeting = one.packet(at(20));
        two.hear(at(21), &greeting);
        let answer = two.packet(at(22));
        assert_eq!(one.hear(at(23), &answer), [Change::Up { restarted: false }]);
    }

    #[test]
    fn a_new_process_is_told_as_restarted_and_the_old_one_is_not_heard_any_more() {
        let (mut one, mut two) = met();
        let late = two.packet(at(10));
        let mut reborn = End::new(2, 21);
        let hello = reborn.packet(at(11));
        assert_eq!(one.hear(at(12), &hello), [Change::Down(Cause::Restarted)]);
        assert_eq!(one.hear(at(13), &late), []);
        let greeting = one.packet(at(13));
        assert_eq!(reborn.hear(at(14), &greeting), [Change::Up { restarted: false }]);
        let answer = reborn.packet(at(14));
        assert_eq!(one.hear(at(15), &answer), [Change::Up { restarted: true }]);
        let mut changes = Vec::new();
        let heard = one.contact.on_packet(at(16), &one.settings, &late, &mut changes);
        assert_eq!((heard, changes), (Heard::Outlived, vec![]));
    }

    #[test]
    fn messages_for_an_earlier_process_are_void() {
        let (mut one, mut two) = met();
        let packet = two.packet(at(10));
        let mut reborn = End::new(1, 11);
        let mut changes = Vec::new();
        let heard = reborn.contact.on_packet(at(11), &reborn.settings, &packet, &mut changes);
        assert_eq!((heard, changes), (Heard::ForAnother, vec![]));
        assert!(reborn.contact.greet, "the peer learns of it at once");
        let mut changes = Vec::new();
        let heard = one.contact.on_packet(at(11), &one.settings, &packet, &mut changes);
        assert_eq!(heard, Heard::Messages);
    }

    #[test]
    fn doubled_and_overtaken_packets_are_no_signs_of_life() {
        let (mut one, mut two) = met();
        let (older, newer) = (two.packet(at(10)), two.packet(at(11)));
        one.hear(at(12), &newer);
        assert_eq!(one.hear(at(400), &older), []);
        assert_eq!(one.hear(at(400), &newer), []);
        assert_eq!(one.contact.overtaken, 2);
        assert_eq!(one.time(at(512)), Some(Change::Down(Cause::Silent)));
    }

    #[test]
    fn the_own_sleep_is_excused() {
        let (mut one, _two) = met();
        one.contact.excuse(5000 * MILLI);
        assert_eq!(one.time(at(5400)), None);
        assert_eq!(one.time(at(5600)), Some(Change::Down(Cause::Silent)));
    }
}
