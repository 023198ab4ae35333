//! Application data: the properties area and the payload of a message, and what is compressed of
//! them.
//!
//! | properties | what is compressed |
//! | --- | --- |
//! | none | the payload |
//! | old style | properties and payload together, as one stream |
//! | extended style | the payload only |
//!
//! A broker passes application data on as it came, with two exceptions that live here: old-style
//! compressed messages are stored inflated ([`inflate_old_style`]), and extended properties are
//! rewritten for consumers that do not know them ([`rewrite_for_old_consumer`]).

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::compression::{Compression, Deflater, InflateError, Inflater};
use crate::crc::app_data_crc;
use crate::flags::PutFlags;
use crate::properties::{
    MalformedProperties, Properties, PropertiesError, PropertiesView, PropertyStyle, area_size,
    rewrite_as_old_style,
};
use crate::put::PutMessage;

/// Properties area and payload of one message, uncompressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageParts {
    /// The properties area with its padding and its style, if the message has properties.
    pub properties: Option<(Bytes, PropertyStyle)>,
    /// The payload.
    pub payload: Bytes,
}

impl MessageParts {
    /// The properties, checked and readable in place; `None` if the message has none.
    ///
    /// # Errors
    /// The area is malformed.
    pub fn properties(&self) -> Result<Option<PropertiesView<'_>>, MalformedProperties> {
        let Some((area, style)) = &self.properties else { return Ok(None) };
        PropertiesView::parse(area, *style).map(Some)
    }
}

/// Separates a message's properties from its payload and inflates what is compressed, to at most
/// `limit` bytes.
///
/// `style` comes from [`PutMessage::property_style`] or
/// [`PushMessage::property_style`](crate::push::PushMessage::property_style). Uncompressed parts
/// are slices of `app_data`.
///
/// # Errors
/// The compressed stream is damaged or too large, or the properties area does not fit. The area's
/// content is not looked at; [`MessageParts::properties`] does that.
pub fn split(
    app_data: &Bytes,
    style: Option<PropertyStyle>,
    compression: Compression,
    inflater: &mut Inflater,
    limit: usize,
) -> Result<MessageParts, AppDataError> {
    let mut inflate = |data: Bytes| match compression {
        Compression::None => Ok(data),
        Compression::Zlib => inflater.inflate(&data, limit),
    };
    let parts = match style {
        None => MessageParts { properties: None, payload: inflate(app_data.clone())? },
        Some(style @ PropertyStyle::Old) => {
            let data = inflate(app_data.clone())?;
            let size = area_size(&data)?;
            MessageParts {
                properties: Some((data.slice(..size), style)),
                payload: data.slice(size..),
            }
        }
        Some(style @ PropertyStyle::Extended) => {
            let size = area_size(app_data)?;
            MessageParts {
                properties: Some((app_data.slice(..size), style)),
                payload: inflate(app_data.slice(size..))?,
            }
        }
    };
    Ok(parts)
}

/// Gives a received PUT the form in which it is stored: an old-style compressed message is inflated
/// and gets a new CRC, any other stays as it is.
///
/// Consumers of every kind can then read the properties. On an error answer the PUT with a negative
/// ACK.
///
/// # Errors
/// The compressed stream is damaged or yields more than `limit` bytes, or does not begin with a
/// properties area.
pub fn inflate_old_style(
    message: PutMessage,
    inflater: &mut Inflater,
    limit: usize,
) -> Result<PutMessage, AppDataError> {
    let is_old = message.property_style() == Some(PropertyStyle::Old);
    if !is_old || message.compression == Compression::None {
        return Ok(message);
    }
    let app_data = inflater.inflate(&message.app_data, limit)?;
    area_size(&app_data)?;
    let crc32c = app_data_crc(&app_data);
    Ok(PutMessage { compression: Compression::None, crc32c, app_data, ..message })
}

/// Rewrites application data with extended properties for a consumer that does not list
/// [`extended_properties`](crate::features::Features::extended_properties): uncompressed, with
/// old-style properties. Send it with compression none and schema id 0.
///
/// # Errors
/// The compressed stream is damaged or yields more than `limit` bytes, or the properties are
/// malformed.
pub fn rewrite_for_old_consumer(
    app_data: &Bytes,
    compression: Compression,
    inflater: &mut Inflater,
    limit: usize,
) -> Result<Bytes, AppDataError> {
    let area = area_size(app_data)?;
    let old = rewrite_as_old_style(&app_data[..area])?;
    let payload = match compression {
        Compression::None => app_data.slice(area..),
        Compression::Zlib => inflater.inflate(&app_data[area..], limit)?,
    };
    let mut rewritten = BytesMut::with_capacity(old.len() + payload.len());
    rewritten.extend_from_slice(&old);
    rewritten.extend_from_slice(&payload);
    Ok(rewritten.freeze())
}

/// Application data ready for a PUT, with the header fields that describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComposedData {
    /// MESSAGE_PROPERTIES if there are properties; combine with ACK_REQUESTED as needed.
    pub flags: PutFlags,
    /// What was done, which may be none even if compression was asked for.
    pub compression: Compression,
    /// 0 or 1, by the style of the properties.
    pub schema_wire_id: u16,
    /// What goes before `payload`: the properties area, unless it is compressed together with the
    /// payload.
    pub properties: Bytes,
    /// The payload, or everything in one compressed stream.
    pub payload: Bytes,
}

/// Puts a message together as clients do: properties in `style`, compressed if a `deflater` is
/// given and it is worth it.
///
/// # Errors
/// The properties are too large.
pub fn compose(
    properties: &Properties,
    style: PropertyStyle,
    payload: Bytes,
    deflater: Option<&mut Deflater>,
) -> Result<ComposedData, PropertiesError> {
    let mut area = BytesMut::new();
    properties.append_area(style, &mut area)?;
    let has_properties = !area.is_empty();
    let mut composed = ComposedData {
        flags: if has_properties { PutFlags::MESSAGE_PROPERTIES } else { PutFlags::NONE },
        compression: Compression::None,
        schema_wire_id: if has_properties { style.schema_wire_id() } else { 0 },
        properties: area.freeze(),
        payload,
    };
    let Some(deflater) = deflater else { return Ok(composed) };
    let together = has_properties && style == PropertyStyle::Old;
    let compressed = if together {
        deflater.deflate_if_smaller(&[&composed.properties, &composed.payload])
    } else {
        deflater.deflate_if_smaller(&[&composed.payload])
    };
    if let Some(compressed) = compressed {
        composed.compression = Compression::Zlib;
        composed.payload = compressed;
        if together {
            composed.properties = Bytes::new();
        }
    }
    Ok(composed)
}

/// Why application data cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AppDataError {
    /// The compressed stream cannot be inflated.
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// The properties area is malformed.
    #[error(transparent)]
    Properties(#[from] MalformedProperties),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties() -> Properties {
        let mut properties = Properties::new();
        properties.insert("region", "eu").unwrap();
        properties
    }

    fn composed(style: PropertyStyle, payload: usize) -> ComposedData {
        let payload = Bytes::from(vec![b'x'; payload]);
        compose(&properties(), style, payload, Some(&mut Deflater::default())).unwrap()
    }

    #[test]
    fn the_threshold_counts_properties_only_in_the_old_style() {
        let old = composed(PropertyStyle::Old, 1020);
        assert_eq!((old.compression, old.properties.len()), (Compression::Zlib, 0));
        let extended = composed(PropertyStyle::Extended, 1020);
        assert_eq!(extended.compression, Compression::None);
        let extended = composed(PropertyStyle::Extended, 1024);
        assert_eq!(extended.compression, Compression::Zlib);
        assert_eq!(area_size(&extended.properties).unwrap(), extended.properties.len());
    }

    #[test]
    fn a_bomb_is_refused_wherever_it_is_inflated() {
        let limit = 100_000;
        let mut inflater = Inflater::default();
        let extended = composed(PropertyStyle::Extended, limit + 1);
        let data = Bytes::from([&extended.properties[..], &extended.payload].concat());
        let too_large = AppDataError::Inflate(InflateError::TooLarge { limit });
        let style = Some(PropertyStyle::Extended);
        let result = split(&data, style, Compression::Zlib, &mut inflater, limit);
        assert_eq!(result, Err(too_large));
        let result = rewrite_for_old_consumer(&data, Compression::Zlib, &mut inflater, limit);
        assert_eq!(result, Err(too_large));
        let put = PutMessage {
            flags: PutFlags::MESSAGE_PROPERTIES,
            queue_id: 0,
            guid: Default::default(),
            compression: Compression::Zlib,
            schema_wire_id: 0,
            crc32c: 0,
            options: Bytes::new(),
            app_data: composed(PropertyStyle::Old, limit + 1).payload,
        };
        assert_eq!(inflate_old_style(put, &mut inflater, limit), Err(too_large));
    }
}
