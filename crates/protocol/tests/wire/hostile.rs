//! Captured messages with damage, and plain noise: nothing panics, hangs or grows.

use bytes::Bytes;
use flintmq_protocol::control::Encoding;
use flintmq_protocol::event::Frame;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::checks;
use crate::vectors::vectors;

/// What to do to a captured message.
#[derive(Debug, Clone)]
enum Damage {
    Replace(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    let telling = prop_oneof![Just(0), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    prop_oneof![
        (at(), telling).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (at(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (at(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (at(), 1..9u8).prop_map(|(at, count)| Damage::Remove(at, count)),
        at().prop_map(Damage::Truncate),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Replace(at, byte) => *at.get_mut(bytes) = *byte,
            Self::Flip(at, bit) => *at.get_mut(bytes) ^= 1 << bit,
            Self::Insert(at, inserted) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, inserted.iter().copied());
            }
            Self::Remove(at, count) => {
                let from = at.index(bytes.len());
                let to = (from + usize::from(*count)).min(bytes.len());
                bytes.drain(from..to);
            }
            Self::Truncate(at) => bytes.truncate(at.index(bytes.len())),
        }
    }
}

/// Runs every reader over `bytes`.
fn read_everything(bytes: &[u8]) {
    checks::event_stream(bytes);
    checks::control_bodies(bytes, Encoding::Ber);
    checks::control_bodies(bytes, Encoding::Json);
    let body = Bytes::copy_from_slice(bytes);
    checks::put(&body);
    checks::push(&body);
    checks::ack(bytes);
    checks::confirm(bytes);
    checks::options(bytes);
    checks::properties(bytes);
    checks::uri(bytes);
    checks::inflate(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn noise_is_survived(bytes in vec(any::<u8>(), 0..600)) {
        read_everything(&bytes);
    }

    /// The event's frame is kept intact so that the damage reaches the readers behind it.
    #[test]
    fn damaged_messages_are_survived(
        which in any::<prop::sample::Index>(),
        damages in vec(damage(), 1..5),
    ) {
        let vectors = vectors_once();
        let vector = which.get(vectors);
        let mut body = vector[8..].to_vec();
        for damage in &damages {
            damage.apply(&mut body);
        }
        let mut event = vector[..8].to_vec();
        event[..4].copy_from_slice(&(8 + body.len() as u32).to_be_bytes());
        event.extend_from_slice(&body);
        checks::whole_event(Frame::new(Bytes::from(event)).unwrap());
    }
}

#[test]
fn every_message_cut_short_anywhere_is_survived() {
    for vector in vectors_once().iter().filter(|vector| vector.len() < 700) {
        for end in 8..vector.len() {
            let mut event = vector[..end].to_vec();
            event[..4].copy_from_slice(&(end as u32).to_be_bytes());
            checks::whole_event(Frame::new(Bytes::from(event)).unwrap());
        }
    }
}

fn vectors_once() -> &'static [Vec<u8>] {
    static VECTORS: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    VECTORS.get_or_init(|| vectors().into_iter().map(|vector| vector.bytes).collect())
}
