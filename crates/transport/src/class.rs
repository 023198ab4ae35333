//! Classes of traffic, and the lanes that they travel on.

use std::fmt;

use crate::Settings;

/// How a frame is treated. Each class has streams, queues and bounds of its own, so that none waits
/// behind another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Heartbeats and votes: first on the wire. The newest matter most: when the queue is full, the
    /// oldest frame in it is dropped.
    Urgent,
    /// Log entries and their acknowledgements. When the queue is full, the frame is refused, and
    /// [`crate::Transport::room`] tells when to go on.
    Append,
    /// Traffic of clients whose queue is led by another node. Refused when full, as
    /// [`Class::Append`].
    Gateway,
    /// Snapshots: last on the wire, and no faster than [`Settings::bulk_bytes_per_second`]. Refused
    /// when full, as [`Class::Append`].
    Bulk,
}

impl Class {
    /// All classes, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Urgent, Self::Append, Self::Gateway, Self::Bulk];

    /// The class's name in metrics and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::Append => "append",
            Self::Gateway => "gateway",
            Self::Bulk => "bulk",
        }
    }

    /// What a stream of this class begins with.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Urgent => 1,
            Self::Append => 2,
            Self::Gateway => 3,
            Self::Bulk => 4,
        }
    }

    pub(crate) fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.code() == code)
    }

    /// Which class's data leaves first. Appends and gateway traffic share what there is.
    pub(crate) fn priority(self) -> i32 {
        match self {
            Self::Urgent => 2,
            Self::Append | Self::Gateway => 1,
            Self::Bulk => 0,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<flintmq_consensus::Class> for Class {
    fn from(class: flintmq_consensus::Class) -> Self {
        match class {
            flintmq_consensus::Class::Urgent => Self::Urgent,
            flintmq_consensus::Class::Append => Self::Append,
            flintmq_consensus::Class::Bulk => Self::Bulk,
        }
    }
}

/// One stream of a class. Frames of one lane keep their order; those of two lanes never wait for
/// each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The class.
    pub class: Class,
    /// Which stream of the class. Taken modulo the number of streams that the class has
    /// ([`Settings::append_shards`], [`Settings::gateway_shards`]; the other classes have one), so
    /// a group's or a queue's number may stand here.
    pub shard: u32,
}

impl Lane {
    /// The lane of heartbeats and votes.
    pub const URGENT: Self = Self { class: Class::Urgent, shard: 0 };
    /// The lane of snapshots.
    pub const BULK: Self = Self { class: Class::Bulk, shard: 0 };

    /// A lane of entries and acknowledgements.
    #[must_use]
    pub fn append(shard: u32) -> Self {
        Self { class: Class::Append, shard }
    }

    /// A lane of gateway traffic.
    #[must_use]
    pub fn gateway(shard: u32) -> Self {
        Self { class: Class::Gateway, shard }
    }
}

/// All lanes of a connection, numbered.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    append: u32,
    gateway: u32,
}

impl Lanes {
    pub(crate) fn of(settings: &Settings) -> Self {
        let at_least_one = |shards: u16| u32::from(shards).max(1);
        Self {
            append: at_least_one(settings.append_shards),
            gateway: at_least_one(settings.gateway_shards),
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Lane> {
        std::iter::once(Lane::URGENT)
            .chain((0..self.append).map(Lane::append))
            .chain((0..self.gateway).map(Lane::gateway))
            .chain(std::iter::once(Lane::BULK))
    }

    /// Where the lane stands in [`Self::all`].
    pub(crate) fn place(&self, lane: Lane) -> usize {
        let place = match lane.class {
            Class::Urgent => 0,
            Class::Append => 1 + lane.shard % self.append,
            Class::Gateway => 1 + self.append + lane.shard % self.gateway,
            Class::Bulk => 1 + self.append + self.gateway,
        };
        place as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_numbered_in_the_order_in_which_they_are_listed() {
        let lanes = Lanes { append: 3, gateway: 2 };
        let places: Vec<usize> = lanes.all().map(|lane| lanes.place(lane)).collect();
        assert_eq!(places, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(lanes.place(Lane::append(7)), lanes.place(Lane::append(1)));
        assert_eq!(lanes.place(Lane::gateway(7)), lanes.place(Lane::gateway(1)));
    }

    #[test]
    fn classes_keep_their_codes() {
        for class in Class::ALL {
            assert_eq!(Class::of_code(class.code()), Some(class));
        }
        assert_eq!(Class::of_code(0), None);
    }
}
