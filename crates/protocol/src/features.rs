//! The features string of negotiation: `NAME:value,value;NAME:value`.

use crate::control::Encoding;

/// What this broker can do. The Java client looks for `MPS:MESSAGE_PROPERTIES_EX`, so that value
/// leads its field.
pub const BROKER_FEATURES: &str =
    "PROTOCOL_ENCODING:BER,JSON;MPS:MESSAGE_PROPERTIES_EX;SUBSCRIPTIONS:CONFIGURE_STREAM";

/// What this client can do.
pub const CLIENT_FEATURES: &str = "PROTOCOL_ENCODING:BER,JSON;MPS:MESSAGE_PROPERTIES_EX";

/// Reads a peer's features string. Unknown names and values have no effect.
///
/// ```
/// use flintmq_protocol::control::Encoding;
/// use flintmq_protocol::features::Features;
///
/// let java = Features::new("PROTOCOL_ENCODING:JSON;MPS:MESSAGE_PROPERTIES_EX");
/// assert_eq!(java.encoding(), Encoding::Json);
/// assert!(java.extended_properties());
/// assert!(!java.configure_stream());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features<'a> {
    text: &'a str,
}

impl<'a> Features<'a> {
    /// Reads `text`, which needs no checking: whatever is not a feature counts as absent.
    #[must_use]
    pub const fn new(text: &'a str) -> Self {
        Self { text }
    }

    /// Whether field `name` lists `value`.
    #[must_use]
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.text
            .split(';')
            .filter_map(|field| field.split_once(':'))
            .filter(|(field, _)| *field == name)
            .any(|(_, values)| values.split(',').any(|listed| listed == value))
    }

    /// The encoding to use towards this peer: BER if it lists BER or nothing, JSON if it lists only
    /// that.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        let lists = |value| self.has("PROTOCOL_ENCODING", value);
        if !lists("BER") && lists("JSON") { Encoding::Json } else { Encoding::Ber }
    }

    /// Whether the peer reads extended (new-style) message properties.
    #[must_use]
    pub fn extended_properties(&self) -> bool {
        self.has("MPS", "MESSAGE_PROPERTIES_EX")
    }

    /// Whether the broker takes `configureStream`; if not, use `configureQueueStream`.
    #[must_use]
    pub fn configure_stream(&self) -> bool {
        self.has("SUBSCRIPTIONS", "CONFIGURE_STREAM")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_follow_the_rule() {
        for (text, encoding) in [
            ("", Encoding::Ber),
            ("PROTOCOL_ENCODING", Encoding::Ber),
            ("PROTOCOL_ENCODING:XML", Encoding::Ber),
            ("PROTOCOL_ENCODING:BER,JSON", Encoding::Ber),
            ("PROTOCOL_ENCODING:JSON,BER", Encoding::Ber),
            ("MPS:X;PROTOCOL_ENCODING:JSON", Encoding::Json),
        ] {
            assert_eq!(Features::new(text).encoding(), encoding, "{text}");
        }
    }

    #[test]
    fn own_features_are_read_back() {
        let broker = Features::new(BROKER_FEATURES);
        assert!(broker.extended_properties() && broker.configure_stream());
        assert!(BROKER_FEATURES.contains("MPS:MESSAGE_PROPERTIES_EX"));
        let client = Features::new(CLIENT_FEATURES);
        assert!(client.extended_properties() && !client.configure_stream());
    }

    #[test]
    fn values_must_match_in_full() {
        let features = Features::new("MPS:MESSAGE_PROPERTIES_EX2;;X:;:y;HA:A,B");
        assert!(!features.extended_properties());
        assert!(features.has("HA", "B") && features.has("X", "") && features.has("", "y"));
        assert!(!features.has("HA", "A,B"));
    }
}
