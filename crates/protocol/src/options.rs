//! Options: what may stand between the header of a PUT or PUSH message and its application data.
//!
//! In practice there is one: the subscription ids in a PUSH. Released clients put none into a PUT.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::padding::{WORD, unpadded_len};

/// The most words that one option may have.
pub const MAX_OPTION_WORDS: usize = (1 << 21) - 1;

/// How many more times a broker may deliver a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RemainingDeliveryAttempts(pub u8);

impl RemainingDeliveryAttempts {
    /// As often as needed.
    pub const UNLIMITED: Self = Self(0x80);
    /// The largest limit that can be told.
    pub const MAX_ATTEMPTS: u8 = 0x3f;

    /// `attempts` more times, at most [`MAX_ATTEMPTS`](Self::MAX_ATTEMPTS).
    #[must_use]
    pub const fn limited(attempts: u8) -> Self {
        Self(if attempts > Self::MAX_ATTEMPTS { Self::MAX_ATTEMPTS } else { attempts })
    }

    /// The attempts left, or `None` when there is no limit.
    #[must_use]
    pub const fn attempts_left(self) -> Option<u8> {
        if self.0 & 0x80 == 0 { Some(self.0 & Self::MAX_ATTEMPTS) } else { None }
    }

    /// Whether the message is suspected of killing its consumers.
    #[must_use]
    pub const fn is_potentially_poisonous(self) -> bool {
        self.0 & 0x40 != 0
    }
}

/// One option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageOption<'a> {
    /// Subscription ids (or, for consumers of the older configuration, sub-queue ids).
    SubQueueIds(SubQueueIds<'a>),
    /// The group that a message belongs to. No released client uses it; pass it through.
    MessageGroupId(&'a [u8]),
    /// Subscription ids with their remaining delivery attempts.
    SubQueueInfos(SubQueueInfos<'a>),
    /// The packed form: the default subscription, id 0, with its remaining delivery attempts.
    DefaultSubQueueInfo(RemainingDeliveryAttempts),
    /// An option of a later revision.
    Unknown {
        /// Its type.
        option_type: u8,
    },
}

/// The ids in an option of type 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubQueueIds<'a>(&'a [u8]);

impl<'a> SubQueueIds<'a> {
    /// The ids in their order.
    pub fn iter(self) -> impl Iterator<Item = u32> + 'a {
        self.0.chunks_exact(WORD).map(first_word)
    }
}

/// The ids in an option of type 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubQueueInfos<'a> {
    items: &'a [u8],
    item_size: usize,
}

impl<'a> SubQueueInfos<'a> {
    /// The ids with their remaining delivery attempts, in their order.
    pub fn iter(self) -> impl Iterator<Item = (u32, RemainingDeliveryAttempts)> + 'a {
        self.items
            .chunks_exact(self.item_size)
            .map(|item| (first_word(item), RemainingDeliveryAttempts(item[WORD])))
    }
}

/// A checked options area.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Options<'a> {
    /// Checks the whole area, so that walking over it cannot fail.
    ///
    /// # Errors
    /// An option has an impossible size or type, or stands there twice.
    pub fn parse(area: &'a [u8]) -> Result<Self, OptionsError> {
        let mut seen = 0u64;
        let mut offset = 0;
        while offset < area.len() {
            let fail = |fault| OptionsError { offset, fault };
            let (_, size) = read_option(&area[offset..]).map_err(fail)?;
            let bit = 1u64 << (area[offset] >> 2);
            if seen & bit != 0 {
                return Err(fail(OptionFault::Repeated));
            }
            seen |= bit;
            offset += size;
        }
        Ok(Self { rest: area })
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = MessageOption<'a>;

    fn next(&mut self) -> Option<MessageOption<'a>> {
        let (option, size) = read_option(self.rest).ok()?;
        self.rest = &self.rest[size..];
        Some(option)
    }
}

/// Why an options area cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{fault} offset={offset}")]
pub struct OptionsError {
    /// Where the option begins, in bytes from the start of the options area.
    pub offset: usize,
    /// What is wrong with it.
    #[source]
    pub fault: OptionFault,
}

/// What is wrong with an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OptionFault {
    /// The area is not a whole number of words.
    #[error("the options end inside an option header")]
    Truncated,
    /// Type 0.
    #[error("the option has no type")]
    Undefined,
    /// No words at all, or more than the area has.
    #[error("the option has an impossible size")]
    Size,
    /// The content does not fit the type.
    #[error("the option's content is not valid for its type")]
    Content,
    /// Each type may stand there once.
    #[error("the option stands there twice")]
    Repeated,
}

/// The option that a broker sends in a PUSH for one subscription, ready to be written.
///
/// ```
/// assert_eq!(flintmq_protocol::options::sub_queue_id_option(1), [4, 0, 0, 2, 0, 0, 0, 1]);
/// ```
#[must_use]
pub const fn sub_queue_id_option(id: u32) -> [u8; 8] {
    let [a, b, c, d] = id.to_be_bytes();
    [TYPE_SUB_QUEUE_IDS << 2, 0, 0, 2, a, b, c, d]
}

/// Appends an option with several subscription ids; ids beyond what an option can hold are left
/// out.
pub fn append_sub_queue_ids(out: &mut BytesMut, ids: &[u32]) {
    let ids = &ids[..ids.len().min(MAX_OPTION_WORDS - 1)];
    out.put_u32(u32::from(TYPE_SUB_QUEUE_IDS) << 26 | (1 + ids.len()) as u32);
    for id in ids {
        out.put_u32(*id);
    }
}

/// Appends an option with subscription ids and remaining delivery attempts; what an option cannot
/// hold is left out.
pub fn append_sub_queue_infos(out: &mut BytesMut, infos: &[(u32, RemainingDeliveryAttempts)]) {
    let infos = &infos[..infos.len().min((MAX_OPTION_WORDS - 1) / 2)];
    let words = (1 + 2 * infos.len()) as u32;
    out.put_u32(u32::from(TYPE_SUB_QUEUE_INFOS) << 26 | 2 << 21 | words);
    for (id, attempts) in infos {
        out.put_u32(*id);
        out.put_slice(&[attempts.0, 0, 0, 0]);
    }
}

/// The packed option for the default subscription.
#[must_use]
pub const fn default_sub_queue_info_option(attempts: RemainingDeliveryAttempts) -> [u8; 4] {
    [TYPE_SUB_QUEUE_INFOS << 2 | PACKED, 0, 0, attempts.0]
}

/// The subscription ids in a checked options area: those of the first option that has any, else the
/// default id 0.
pub(crate) fn subscription_ids(area: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let mut ids = None;
    let mut infos = None;
    for option in (Options { rest: area }) {
        match option {
            MessageOption::SubQueueIds(list) if ids.is_none() => ids = Some(list),
            MessageOption::SubQueueInfos(list) if infos.is_none() => infos = Some(list),
            _ => {}
        }
    }
    if ids.is_some() {
        infos = None;
    }
    let default = (ids.is_none() && infos.is_none()).then_some(0);
    let ids = ids.into_iter().flat_map(SubQueueIds::iter);
    let infos = infos.into_iter().flat_map(SubQueueInfos::iter).map(|(id, _)| id);
    ids.chain(infos).chain(default)
}

/// The options between two offsets of an event's body, checked. The usual "none" costs no reference
/// count.
pub(crate) fn checked_area(body: &Bytes, from: usize, to: usize) -> Result<Bytes, OptionsError> {
    if from == to {
        return Ok(Bytes::new());
    }
    Options::parse(&body[from..to])?;
    Ok(body.slice(from..to))
}

const TYPE_SUB_QUEUE_IDS: u8 = 1;
const TYPE_MESSAGE_GROUP_ID: u8 = 2;
const TYPE_SUB_QUEUE_INFOS: u8 = 3;
const PACKED: u8 = 2;

fn first_word(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |word| u32::from_be_bytes(*word))
}

fn read_option(bytes: &[u8]) -> Result<(MessageOption<'_>, usize), OptionFault> {
    let header: &[u8; WORD] = bytes.first_chunk().ok_or(OptionFault::Truncated)?;
    let word = u32::from_be_bytes(*header);
    let option_type = header[0] >> 2;
    let packed = header[0] & PACKED != 0;
    let item_size = (word >> 21 & 0x0f) as usize * WORD;
    let value = word & MAX_OPTION_WORDS as u32;
    let size = if packed { WORD } else { value as usize * WORD };
    if size < WORD || size > bytes.len() {
        return Err(OptionFault::Size);
    }
    let content = &bytes[WORD..size];
    let option = match option_type {
        0 => return Err(OptionFault::Undefined),
        TYPE_SUB_QUEUE_IDS if !packed && !content.is_empty() => {
            MessageOption::SubQueueIds(SubQueueIds(content))
        }
        TYPE_MESSAGE_GROUP_ID if !packed => {
            let length = unpadded_len(content).ok_or(OptionFault::Content)?;
            if length == 0 {
                return Err(OptionFault::Content);
            }
            MessageOption::MessageGroupId(&content[..length])
        }
        TYPE_SUB_QUEUE_INFOS if packed => {
            let attempts = u8::try_from(value).map_err(|_| OptionFault::Content)?;
            MessageOption::DefaultSubQueueInfo(RemainingDeliveryAttempts(attempts))
        }
        TYPE_SUB_QUEUE_INFOS => {
            if item_size < 2 * WORD
                || content.is_empty()
                || !content.len().is_multiple_of(item_size)
            {
                return Err(OptionFault::Content);
            }
            MessageOption::SubQueueInfos(SubQueueInfos { items: content, item_size })
        }
        TYPE_SUB_QUEUE_IDS | TYPE_MESSAGE_GROUP_ID => return Err(OptionFault::Content),
        _ => MessageOption::Unknown { option_type },
    };
    Ok((option, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(area: &[u8]) -> (usize, OptionFault) {
        let error = Options::parse(area).unwrap_err();
        (error.offset, error.fault)
    }

    fn ids(area: &[u8]) -> Vec<u32> {
        Options::parse(area).unwrap();
        subscription_ids(area).collect()
    }

    #[test]
    fn options_have_the_documented_bytes() {
        let mut out = BytesMut::new();
        append_sub_queue_ids(&mut out, &[1, 2]);
        assert_eq!(out[..], [4, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2]);
        out.clear();
        append_sub_queue_infos(&mut out, &[(1, RemainingDeliveryAttempts::UNLIMITED)]);
        assert_eq!(out[..], [0x0c, 0x40, 0, 3, 0, 0, 0, 1, 0x80, 0, 0, 0]);
        let packed = default_sub_queue_info_option(RemainingDeliveryAttempts::UNLIMITED);
        assert_eq!(packed, [0x0e, 0, 0, 0x80]);
    }

    #[test]
    fn what_an_option_cannot_hold_is_left_out() {
        let mut out = BytesMut::new();
        append_sub_queue_ids(&mut out, &vec![7; MAX_OPTION_WORDS + 5]);
        assert_eq!(ids(&out).len(), MAX_OPTION_WORDS - 1);
        out.clear();
        let info = (7, RemainingDeliveryAttempts::UNLIMITED);
        append_sub_queue_infos(&mut out, &vec![info; MAX_OPTION_WORDS]);
        assert_eq!(ids(&out).len(), (MAX_OPTION_WORDS - 1) / 2);
    }

    #[test]
    fn subscription_ids_come_from_whichever_option_has_them() {
        assert_eq!(ids(&[]), [0]);
        assert_eq!(ids(&sub_queue_id_option(9)), [9]);
        assert_eq!(ids(&default_sub_queue_info_option(RemainingDeliveryAttempts(3))), [0]);
        let mut both = BytesMut::new();
        append_sub_queue_infos(&mut both, &[(4, RemainingDeliveryAttempts(3))]);
        assert_eq!(ids(&both), [4]);
        append_sub_queue_ids(&mut both, &[5, 6]);
        assert_eq!(ids(&both), [5, 6]);
    }

    #[test]
    fn unknown_and_group_options_are_passed_over() {
        let mut area = BytesMut::from(&[0x7c, 0, 0, 2, 1, 2, 3, 4][..]);
        area.put_slice(&[8, 0, 0, 2, b'g', 3, 3, 3]);
        append_sub_queue_infos(&mut area, &[(8, RemainingDeliveryAttempts::limited(1))]);
        area.put_slice(&sub_queue_id_option(7));
        let options: Vec<_> = Options::parse(&area).unwrap().collect();
        assert_eq!(options[0], MessageOption::Unknown { option_type: 31 });
        assert_eq!(options[1], MessageOption::MessageGroupId(b"g"));
        assert_eq!(ids(&area), [7]);
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(fault(&[4, 0, 0]), (0, OptionFault::Truncated));
        assert_eq!(fault(&[0, 0, 0, 1]), (0, OptionFault::Undefined));
        assert_eq!(fault(&[4, 0, 0, 0]), (0, OptionFault::Size));
        assert_eq!(fault(&[4, 0, 0, 3, 0, 0, 0, 1]), (0, OptionFault::Size));
        assert_eq!(fault(&[4, 0, 0, 1]), (0, OptionFault::Content));
        assert_eq!(fault(&[6, 0, 0, 1]), (0, OptionFault::Content));
        assert_eq!(fault(&[8, 0, 0, 2, 4, 4, 4, 4]), (0, OptionFault::Content));
        assert_eq!(fault(&[0x0c, 0x40, 0, 2, 0, 0, 0, 1]), (0, OptionFault::Content));
        assert_eq!(fault(&[0x0c, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0]), (0, OptionFault::Content));
        assert_eq!(fault(&[0x0c, 0x20, 0, 2, 0, 0, 0, 1]), (0, OptionFault::Content));
        assert_eq!(fault(&[0x0c, 0x40, 0, 1]), (0, OptionFault::Content));
        assert_eq!(fault(&[0x0e, 0, 1, 0]), (0, OptionFault::Content));
        let twice = [sub_queue_id_option(1), sub_queue_id_option(2)].concat();
        assert_eq!(fault(&twice), (8, OptionFault::Repeated));
    }

    #[test]
    fn delivery_attempts_are_told_apart() {
        assert_eq!(RemainingDeliveryAttempts::UNLIMITED.attempts_left(), None);
        assert_eq!(RemainingDeliveryAttempts::limited(200).attempts_left(), Some(63));
        assert!(RemainingDeliveryAttempts(0x41).is_potentially_poisonous());
        assert!(!RemainingDeliveryAttempts::limited(1).is_potentially_poisonous());
    }
}
