//! A message as a consumer gets it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use flintmq_protocol::compression::{Compression, Inflater, MAX_INFLATED_SIZE};
use flintmq_protocol::flags::PushFlags;
use flintmq_protocol::guid::MessageGuid;
use flintmq_protocol::properties::{Properties, PropertyStyle, area_size};
use flintmq_protocol::push::PushMessage;

use crate::consumer::Confirmer;
use crate::error::{ConfirmError, ContentError};
use crate::session::inbox::Delivery;

/// A message from a queue. It must be [confirmed](Self::confirm) when it is done with.
///
/// Payload and properties are unpacked when they are asked for. An uncompressed payload shares the
/// buffer that it was received in, which has 256 KiB and more: copy it (`payload.to_vec()`) to keep
/// small messages for long.
pub struct Message {
    delivery: Delivery,
    confirmer: Arc<Confirmer>,
}

impl Message {
    /// The message's identity: the same as the producer's acknowledgement names.
    #[must_use]
    pub const fn guid(&self) -> MessageGuid {
        self.delivery.push.guid
    }

    /// The payload, unpacked if it was compressed: at most 512 MiB.
    ///
    /// # Errors
    /// [`ContentError`]: the message is damaged.
    pub fn payload(&self) -> Result<Bytes, ContentError> {
        Ok(self.content()?.payload)
    }

    /// The properties; empty when the message has none.
    ///
    /// # Errors
    /// [`ContentError`]: the message is damaged.
    pub fn properties(&self) -> Result<Properties, ContentError> {
        let Some(style) = self.delivery.push.property_style() else {
            return Ok(Properties::new());
        };
        Properties::parse(&self.content()?.properties, style).map_err(|error| {
            ContentError::Properties { guid: self.guid(), reason: error.to_string() }
        })
    }

    /// Whether the broker says that it has delivered this message before, to this or another
    /// consumer.
    #[must_use]
    pub const fn redelivered(&self) -> bool {
        self.delivery.push.flags.contains(PushFlags::OUT_OF_ORDER)
    }

    /// Bytes that the message takes of the consumer's limit: properties and payload as they
    /// travelled.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        self.delivery.push.app_data.len()
    }

    /// Tells the broker that the message is done with; it is not delivered again, unless the
    /// connection breaks before the broker has read this. Many confirmations leave in one
    /// write. Confirming twice does no harm.
    ///
    /// # Errors
    /// The confirmation cannot be sent any more; the message will be delivered again.
    pub fn confirm(&self) -> Result<(), ConfirmError> {
        self.confirmer.confirm(self.guid(), self.delivery.epoch)
    }

    pub(crate) const fn new(delivery: Delivery, confirmer: Arc<Confirmer>) -> Self {
        Self { delivery, confirmer }
    }

    fn content(&self) -> Result<Content, ContentError> {
        let push = &self.delivery.push;
        split(push, |data| self.confirmer.inflate(data, MAX_INFLATED_SIZE))
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("guid", &self.guid())
            .field("wire_bytes", &self.wire_bytes())
            .field("redelivered", &self.redelivered())
            .finish_non_exhaustive()
    }
}

/// An inflater kept from one message to the next, to save its set-up.
#[derive(Debug, Default)]
pub(crate) struct SharedInflater(std::sync::Mutex<Option<Inflater>>);

impl SharedInflater {
    pub(crate) fn inflate(&self, data: &[u8], most: usize) -> Result<Bytes, String> {
        let lock = || self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut inflater = lock().take().unwrap_or_default();
        let inflated = inflater.inflate(data, most).map_err(|error| error.to_string());
        *lock() = Some(inflater);
        inflated
    }
}

struct Content {
    properties: Bytes,
    payload: Bytes,
}

/// Old-style properties are compressed together with the payload, extended ones never.
fn split(
    push: &PushMessage,
    inflate: impl Fn(&[u8]) -> Result<Bytes, String>,
) -> Result<Content, ContentError> {
    let guid = push.guid;
    let compressed = push.compression == Compression::Zlib;
    let unpack =
        |data: &Bytes| inflate(data).map_err(|reason| ContentError::Payload { guid, reason });
    let style = push.property_style();
    let whole = if compressed && style != Some(PropertyStyle::Extended) {
        unpack(&push.app_data)?
    } else {
        push.app_data.clone()
    };
    if style.is_none() {
        return Ok(Content { properties: Bytes::new(), payload: whole });
    }
    let size = area_size(&whole)
        .map_err(|error| ContentError::Properties { guid, reason: error.to_string() })?;
    let (properties, payload) = (whole.slice(..size), whole.slice(size..));
    if compressed && style == Some(PropertyStyle::Extended) {
        return Ok(Content { properties, payload: unpack(&payload)? });
    }
    Ok(Content { properties, payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outgoing::OutgoingMessage;
    use flintmq_protocol::compression::Deflater;

    /// What a consumer sees of a published message, after the broker passed it on unchanged.
    fn passed_on(
        message: OutgoingMessage,
        compress: bool,
        extended: bool,
    ) -> (PushMessage, Content) {
        let mut deflater = compress.then(Deflater::default);
        let put = message.prepare(deflater.as_mut(), || extended).unwrap().into_put(0);
        let flags = if put.property_style().is_some() {
            PushFlags::MESSAGE_PROPERTIES
        } else {
            PushFlags::NONE
        };
        let push = PushMessage {
            flags,
            queue_id: 0,
            guid: put.guid,
            compression: put.compression,
            schema_wire_id: put.schema_wire_id,
            options: Bytes::new(),
            app_data: put.app_data,
        };
        let inflater = SharedInflater::default();
        let content = split(&push, |data| inflater.inflate(data, 1 << 20)).unwrap();
        (push, content)
    }

    #[test]
    fn every_layout_comes_back_as_it_was_published() {
        for size in [1, 1023, 1024, 100_000] {
            for (compress, extended) in [(false, false), (false, true), (true, false), (true, true)]
            {
                let plain = OutgoingMessage::new(vec![b'a'; size]);
                let (push, content) = passed_on(plain.clone(), compress, extended);
                assert_eq!(&content.payload, plain.payload());
                assert_eq!(push.compression == Compression::Zlib, compress && size >= 1024);

                let described = plain.with_property("n", 7i32).unwrap();
                let (push, content) = passed_on(described.clone(), compress, extended);
                assert_eq!(&content.payload, described.payload());
                let style = push.property_style().unwrap();
                let read = Properties::parse(&content.properties, style).unwrap();
                assert_eq!(&read, described.properties());
            }
        }
    }

    #[test]
    fn damaged_content_is_an_error() {
        let (mut push, _) = passed_on(OutgoingMessage::new(vec![b'a'; 5000]), true, true);
        let inflater = SharedInflater::default();
        let inflate = |data: &[u8]| inflater.inflate(data, 4000);
        assert!(matches!(split(&push, inflate), Err(ContentError::Payload { .. })), "too large");
        push.app_data = push.app_data.slice(..5);
        assert!(matches!(split(&push, inflate), Err(ContentError::Payload { .. })), "truncated");
        push.compression = Compression::None;
        push.flags = PushFlags::MESSAGE_PROPERTIES;
        assert!(matches!(split(&push, inflate), Err(ContentError::Properties { .. })));
    }
}
