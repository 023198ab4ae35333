//! A message to publish, and how it is packed.

use bytes::{Bytes, BytesMut};
use flintmq_protocol::compression::{Compression, Deflater};
use flintmq_protocol::crc::app_data_crc;
use flintmq_protocol::flags::PutFlags;
use flintmq_protocol::guid::MessageGuid;
use flintmq_protocol::malformed::MAX_APP_DATA_SIZE;
use flintmq_protocol::properties::{Properties, PropertiesError, PropertyStyle, PropertyValue};
use flintmq_protocol::put::PutMessage;

use crate::error::PublishError;

/// A payload, and properties if wanted. Anything that is bytes becomes one without properties.
///
/// ```
/// use flintmq_client::OutgoingMessage;
///
/// let plain: OutgoingMessage = "hello".into();
/// let described = OutgoingMessage::new("hello").with_property("region", "eu".to_owned())?;
/// assert_eq!(plain.payload(), described.payload());
/// # Ok::<(), flintmq_client::PropertiesError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct OutgoingMessage {
    payload: Bytes,
    properties: Properties,
}

impl OutgoingMessage {
    /// A message without properties. The payload is not copied before it goes to the socket.
    #[must_use]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: payload.into(), properties: Properties::new() }
    }

    /// The message with these properties in place of its own.
    #[must_use]
    pub fn with_properties(mut self, properties: Properties) -> Self {
        self.properties = properties;
        self
    }

    /// The message with one more property.
    ///
    /// # Errors
    /// The name is empty or too long, or there are 255 others.
    pub fn with_property(
        mut self,
        name: impl Into<String>,
        value: impl Into<PropertyValue>,
    ) -> Result<Self, PropertiesError> {
        self.properties.insert(name, value)?;
        Ok(self)
    }

    /// The payload.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The properties.
    #[must_use]
    pub const fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Lays the message out as it travels. `extended` is asked only when there are properties:
    /// whether the broker reads the extended style, in which the properties are never
    /// compressed.
    pub(crate) fn prepare(
        self,
        deflater: Option<&mut Deflater>,
        extended: impl FnOnce() -> bool,
    ) -> Result<Prepared, PublishError> {
        if self.payload.is_empty() {
            return Err(PublishError::EmptyPayload);
        }
        let mut flags = PutFlags::ACK_REQUESTED;
        let mut schema_wire_id = 0;
        let mut compression = Compression::None;
        let app_data = if self.properties.is_empty() {
            match deflater.and_then(|deflater| deflater.deflate_if_smaller(&[&self.payload])) {
                Some(smaller) => {
                    compression = Compression::Zlib;
                    smaller
                }
                None => self.payload,
            }
        } else {
            let style = if extended() { PropertyStyle::Extended } else { PropertyStyle::Old };
            flags = flags | PutFlags::MESSAGE_PROPERTIES;
            schema_wire_id = style.schema_wire_id();
            let mut data = BytesMut::new();
            self.properties.append_area(style, &mut data)?;
            let compressed = deflater.and_then(|deflater| match style {
                PropertyStyle::Extended => deflater.deflate_if_smaller(&[&self.payload]),
                PropertyStyle::Old => deflater.deflate_if_smaller(&[&data, &self.payload]),
            });
            if compressed.is_some() {
                compression = Compression::Zlib;
                if style == PropertyStyle::Old {
                    data.clear();
                }
            }
            data.extend_from_slice(compressed.as_ref().unwrap_or(&self.payload));
            data.freeze()
        };
        if app_data.len() > MAX_APP_DATA_SIZE {
            return Err(PublishError::TooLarge { bytes: app_data.len(), most: MAX_APP_DATA_SIZE });
        }
        let crc32c = app_data_crc(&app_data);
        Ok(Prepared { flags, compression, schema_wire_id, crc32c, app_data })
    }
}

impl<T: Into<Bytes>> From<T> for OutgoingMessage {
    fn from(payload: T) -> Self {
        Self::new(payload)
    }
}

/// A message laid out, without its identity.
#[derive(Debug)]
pub(crate) struct Prepared {
    flags: PutFlags,
    compression: Compression,
    schema_wire_id: u16,
    crc32c: u32,
    pub(crate) app_data: Bytes,
}

impl Prepared {
    /// The message for a queue, still without GUID.
    pub(crate) fn into_put(self, queue_id: u32) -> PutMessage {
        PutMessage {
            flags: self.flags,
            queue_id,
            guid: MessageGuid::UNSET,
            compression: self.compression,
            schema_wire_id: self.schema_wire_id,
            crc32c: self.crc32c,
            options: Bytes::new(),
            app_data: self.app_data,
        }
    }
}
