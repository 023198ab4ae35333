//! CRC-32C over application data, as every PUT carries it.

/// The CRC of application data as transmitted: properties with their padding, then payload,
/// compressed where compressed, without the message's own padding.
///
/// ```
/// assert_eq!(flintmq_protocol::crc::app_data_crc(b"123456789"), 0xe306_9283);
/// ```
#[must_use]
pub fn app_data_crc(app_data: &[u8]) -> u32 {
    crc32c::crc32c(app_data)
}

/// The CRC of application data that lies in several pieces.
#[must_use]
pub fn app_data_crc_of_parts(parts: &[&[u8]]) -> u32 {
    parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_give_the_crc_of_the_whole() {
        assert_eq!(app_data_crc_of_parts(&[b"1234", b"", b"56789"]), 0xe306_9283);
        assert_eq!(app_data_crc_of_parts(&[]), app_data_crc(b""));
    }
}
