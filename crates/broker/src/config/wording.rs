//! The deserializer's messages in an operator's words; shared by `node.toml` and domain definitions.

/// Rewords `message`; `noun` is what a name in the document is called, "key" or "field".
pub(crate) fn reworded(message: &str, noun: &str) -> String {
    let choices = |rest: &str| {
        let (given, allowed) = rest.split_once(", expected ")?;
        Some((given.to_owned(), allowed.strip_prefix("one of ").unwrap_or(allowed).to_owned()))
    };
    if let Some((name, allowed)) = message.strip_prefix("unknown field ").and_then(choices) {
        return format!("unknown {noun} {name}; allowed here: {allowed}");
    }
    if let Some((value, allowed)) = message.strip_prefix("unknown variant ").and_then(choices) {
        return format!("unknown value {value}; allowed: {allowed}");
    }
    if let Some(name) = message.strip_prefix("missing field ") {
        return format!("{noun} {name} is missing here");
    }
    // Some of the parsers' messages have a second line of detail.
    let mut text = message.trim().replace('\n', "; ");
    for (rust, plain) in NUMBERS {
        if let Some(start) = text.strip_suffix(rust) {
            text = format!("{start}{plain}");
            break;
        }
    }
    text
}

/// Rust's names of number types at the end of a message, and what to say instead.
const NUMBERS: [(&str, &str); 4] = [
    ("expected u16", "expected a whole number from 0 to 65535"),
    ("expected u32", "expected a whole number from 0 to 4294967295"),
    ("expected u64", "expected a whole number, 0 or more"),
    ("expected f64", "expected a number"),
];

#[cfg(test)]
mod tests {
    use super::reworded;

    #[test]
    fn frequent_mistakes_read_as_instructions() {
        let cases = [
            (
                "unknown field `a`, expected one of `b`, `c`",
                "unknown key `a`; allowed here: `b`, `c`",
            ),
            ("unknown field `a`, expected `b`", "unknown key `a`; allowed here: `b`"),
            ("unknown variant `a`, expected `b` or `c`", "unknown value `a`; allowed: `b` or `c`"),
            ("missing field `a`", "key `a` is missing here"),
            (
                "invalid value: integer `-1`, expected u32",
                "invalid value: integer `-1`, expected a whole number from 0 to 4294967295",
            ),
            ("duplicate key\nin table\n", "duplicate key; in table"),
        ];
        for (given, expected) in cases {
            assert_eq!(reworded(given, "key"), expected);
        }
    }
}
