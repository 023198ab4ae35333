//! What a domain's policy says about its queues, as far as the state machine and delivery need it.

use crate::codec::{Malformed, Reader, malformed, put_str, put_varint};
use crate::ids::DomainId;

/// A domain as partitions know it: the unit in which settings travel from the controller's metadata
/// to the partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Which domain.
    pub id: DomainId,
    /// How new the settings are.
    pub version: DomainVersion,
    /// The policy that all its queues share.
    pub settings: DomainSettings,
}

/// When the settings of a domain were changed last; greater means newer. The same version of a
/// domain has the same settings everywhere, except [`DomainVersion::UNKNOWN`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainVersion {
    /// Term of the controller's entry that changed it.
    pub term: u64,
    /// Index of that entry.
    pub index: u64,
}

/// The policy of one domain. It is replicated in the commands that create queues and change
/// domains, so every replica decides alike. A partition holds it once, whatever the number of
/// queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSettings {
    /// Who gets a message.
    pub mode: Mode,
    /// Milliseconds after arrival when a message may be dropped; 0 = never.
    pub message_ttl_ms: u64,
    /// For how many milliseconds after arrival the GUID of a message is remembered at least.
    pub dedup_window_ms: u64,
    /// How many consumer sessions may die holding a message before it is removed; 0 = any number.
    pub max_delivery_attempts: u8,
    /// Limits of each queue.
    pub queue_limits: Limits,
    /// Limits of all queues of the domain together, metered per partition.
    pub domain_limits: Limits,
    /// Readers of one app that may have the queue open at once; 0 = any number.
    pub max_consumers: u32,
    /// Writers that may have the queue open at once; 0 = any number.
    pub max_producers: u32,
    /// When a message counts as stored. Not used by this crate; carried for the host.
    pub consistency: Consistency,
}

/// Who gets a message of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// One consumer among those of the highest priority.
    Priority,
    /// One consumer of each of these apps, by the same rule as `Priority` within the app.
    Fanout {
        /// The registered app ids. Order does not matter; a name given twice counts once.
        apps: Vec<String>,
    },
    /// Everybody who is there at that moment. Not available yet: creating such a queue is refused.
    Broadcast,
}

/// When a message counts as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// After the leader's own write.
    Eventual,
    /// After a majority has written it.
    Strong,
}

/// Upper bounds of what may wait. A message is admitted while the current value is at most the
/// limit, so a limit of 10 messages holds 11 (semantics: quotas, section 8: clients rely on it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Waiting messages.
    pub messages: u64,
    /// Waiting application data in bytes, as stored.
    pub bytes: u64,
}

impl Limits {
    /// No limit at all.
    pub const UNLIMITED: Self = Self { messages: u64::MAX, bytes: u64::MAX };
}

impl DomainVersion {
    /// Of settings that a version of this program without such numbers wrote: older than all
    /// others. The later of two such changes counts.
    pub const UNKNOWN: Self = Self { term: 0, index: 0 };

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        put_varint(out, self.term);
        put_varint(out, self.index);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        const WHAT: &str = "domain version";
        Ok(Self { term: reader.varint(WHAT)?, index: reader.varint(WHAT)? })
    }
}

impl Domain {
    /// The domain as bytes, for another node.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// A domain from the bytes of [`Self::to_bytes`].
    ///
    /// # Errors
    /// They are no domain, or one of a newer version of this program.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let domain = Self::decode(&mut reader)?;
        reader.finish("domain")?;
        Ok(domain)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.id.0));
        self.version.encode(out);
        self.settings.encode(out);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: DomainId(reader.varint_u32("domain id")?),
            version: DomainVersion::decode(reader)?,
            settings: DomainSettings::decode(reader)?,
        })
    }

    /// A domain as version 1 wrote it into commands and records of queues: without a version.
    pub(crate) fn decode_unversioned(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let id = DomainId(reader.varint_u32("domain id")?);
        let settings = DomainSettings::decode(reader)?;
        Ok(Self { id, version: DomainVersion::UNKNOWN, settings })
    }
}

impl DomainSettings {
    /// Priority queues without limits, without TTL and with a history of five minutes.
    pub fn priority() -> Self {
        Self {
            mode: Mode::Priority,
            message_ttl_ms: 0,
            dedup_window_ms: 300_000,
            max_delivery_attempts: 0,
            queue_limits: Limits::UNLIMITED,
            domain_limits: Limits::UNLIMITED,
            max_consumers: 0,
            max_producers: 0,
            consistency: Consistency::Strong,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match &self.mode {
            Mode::Priority => out.push(0),
            Mode::Fanout { apps } => {
                out.push(1);
                put_varint(out, apps.len() as u64);
                apps.iter().for_each(|app| put_str(out, app));
            }
            Mode::Broadcast => out.push(2),
        }
        put_varint(out, self.message_ttl_ms);
        put_varint(out, self.dedup_window_ms);
        out.push(self.max_delivery_attempts);
        for limits in [&self.queue_limits, &self.domain_limits] {
            put_varint(out, limits.messages);
            put_varint(out, limits.bytes);
        }
        put_varint(out, u64::from(self.max_consumers));
        put_varint(out, u64::from(self.max_producers));
        out.push(match self.consistency {
            Consistency::Eventual => 0,
            Consistency::Strong => 1,
        });
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mode = match reader.u8("queue mode")? {
            0 => Mode::Priority,
            1 => {
                let count = reader.count(1, "app count")?;
                let mut apps = Vec::with_capacity(count);
                for _ in 0..count {
                    apps.push(reader.str("app id")?.to_owned());
                }
                Mode::Fanout { apps }
            }
            2 => Mode::Broadcast,
            _ => return malformed("queue mode"),
        };
        let message_ttl_ms = reader.varint("message ttl")?;
        let dedup_window_ms = reader.varint("dedup window")?;
        let max_delivery_attempts = reader.u8("delivery attempts")?;
        let mut limits = || -> Result<Limits, Malformed> {
            Ok(Limits {
                messages: reader.varint("message limit")?,
                bytes: reader.varint("byte limit")?,
            })
        };
        let queue_limits = limits()?;
        let domain_limits = limits()?;
        Ok(Self {
            mode,
            message_ttl_ms,
            dedup_window_ms,
            max_delivery_attempts,
            queue_limits,
            domain_limits,
            max_consumers: reader.varint_u32("consumer limit")?,
            max_producers: reader.varint_u32("producer limit")?,
            consistency: match reader.u8("consistency")? {
                0 => Consistency::Eventual,
                1 => Consistency::Strong,
                _ => return malformed("consistency"),
            },
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_domain() -> impl Strategy<Value = Domain> {
        let mode = prop_oneof![
            Just(Mode::Priority),
            prop::collection::vec("[a-z]{0,9}", 0..4).prop_map(|apps| Mode::Fanout { apps }),
            Just(Mode::Broadcast),
        ];
        let limits = || (any::<u64>(), any::<u64>());
        (mode, any::<(u32, u64, u64, u8)>(), limits(), limits(), any::<(u32, u32, bool)>())
            .prop_map(
                |(mode, (id, ttl, window, attempts), queue, all, (readers, writers, strong))| {
                    let settings = DomainSettings {
                        mode,
                        message_ttl_ms: ttl,
                        dedup_window_ms: window,
                        max_delivery_attempts: attempts,
                        queue_limits: Limits { messages: queue.0, bytes: queue.1 },
                        domain_limits: Limits { messages: all.0, bytes: all.1 },
                        max_consumers: readers,
                        max_producers: writers,
                        consistency: if strong {
                            Consistency::Strong
                        } else {
                            Consistency::Eventual
                        },
                    };
                    let version = DomainVersion { term: ttl, index: window };
                    Domain { id: DomainId(id), version, settings }
                },
            )
    }

    proptest! {
        #[test]
        fn a_domain_comes_back_from_its_bytes(domain in any_domain()) {
            let mut bytes = domain.to_bytes();
            prop_assert_eq!(&Domain::from_bytes(&bytes).unwrap(), &domain);
            bytes.push(0);
            prop_assert!(Domain::from_bytes(&bytes).is_err(), "it has an end");
        }

        #[test]
        fn no_bytes_panic_the_reader(bytes: Vec<u8>) {
            let _ = Domain::from_bytes(&bytes);
        }
    }
}
