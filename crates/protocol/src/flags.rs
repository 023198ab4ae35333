//! The bit sets of the protocol: how a queue is opened, how it routes, and what a PUT or PUSH
//! carries.

use serde::{Deserialize, Serialize};

/// Declares a bit set over one integer; unknown bits are kept.
macro_rules! bit_set {
    (
        $(#[$doc:meta])*
        $name:ident($int:ty) { $($(#[$flag_doc:meta])* $flag:ident = $value:expr,)* }
    ) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize,
            Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl $name {
            /// No bit set.
            pub const NONE: Self = Self(0);
            $($(#[$flag_doc])* pub const $flag: Self = Self($value);)*

            /// Whether every bit of `other` is set here.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// The bits set in either.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// The bits set here and not in `other`.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                self.with(other)
            }
        }
    };
}

bit_set! {
    /// What a client opens a queue for. READ and WRITE together are allowed.
    QueueFlags(u64) {
        /// Administration; no client uses it.
        ADMIN = 1,
        /// Consume.
        READ = 2,
        /// Produce.
        WRITE = 4,
        /// The producer wants acknowledgements by default. The Java client sends it, others do not;
        /// what counts is the flag of each PUT.
        ACK = 8,
    }
}

bit_set! {
    /// How messages of a queue are routed, as told in the answer to an open.
    RoutingFlags(u64) {
        /// Messages are not stored and never delivered twice.
        AT_MOST_ONCE = 1,
        /// Only the consumers of the highest priority get messages.
        DELIVER_CONSUMER_PRIORITY = 2,
        /// Every consumer gets every message.
        DELIVER_ALL = 4,
        /// The queue has several apps.
        HAS_MULTIPLE_SUB_STREAMS = 8,
        /// What to answer for a priority queue.
        PRIORITY_QUEUE = 2,
        /// What to answer for a fanout queue.
        FANOUT_QUEUE = 10,
        /// What to answer for a broadcast queue.
        BROADCAST_QUEUE = 7,
    }
}

bit_set! {
    /// The four flag bits of a PUT.
    PutFlags(u8) {
        /// The producer waits for an ACK. A success must be acknowledged exactly once if this is
        /// set and never if it is not.
        ACK_REQUESTED = 1,
        /// The application data begins with message properties.
        MESSAGE_PROPERTIES = 2,
    }
}

bit_set! {
    /// The four flag bits of a PUSH.
    PushFlags(u8) {
        /// No application data: the receiver has it already. Between BlazingMQ brokers only, never
        /// to a client.
        IMPLICIT_PAYLOAD = 1,
        /// The application data begins with message properties.
        MESSAGE_PROPERTIES = 2,
        /// The message was delivered before; harmless to clients.
        OUT_OF_ORDER = 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_combine() {
        let flags = QueueFlags::READ | QueueFlags::WRITE;
        assert_eq!(flags, QueueFlags(6));
        assert!(flags.contains(QueueFlags::READ));
        assert!(!flags.contains(QueueFlags::READ | QueueFlags::ACK));
        assert_eq!(flags.without(QueueFlags::READ), QueueFlags::WRITE);
    }

    #[test]
    fn routing_values_are_the_documented_sums() {
        let r = RoutingFlags::DELIVER_CONSUMER_PRIORITY;
        assert_eq!(RoutingFlags::PRIORITY_QUEUE, r);
        assert_eq!(RoutingFlags::FANOUT_QUEUE, r | RoutingFlags::HAS_MULTIPLE_SUB_STREAMS);
        let broadcast = r | RoutingFlags::AT_MOST_ONCE | RoutingFlags::DELIVER_ALL;
        assert_eq!(RoutingFlags::BROADCAST_QUEUE, broadcast);
    }
}
