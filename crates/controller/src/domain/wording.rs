//! The deserializer's messages in an operator's words; shared by `node.toml` and domain
//! definitions.

/// Rewords `message`; `noun` is what a name in the document is called, "key" or "field".
pub fn reworded(message: &str, noun: &str) -> String {
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
    for (rust, plain) in TYPES {
        if let Some(start) = text.strip_suffix(rust) {
            text = format!("{start}{plain}");
            break;
        }
    }
    text
}

/// Ends of messages that name a type of the program, and what to say instead.
const TYPES: [(&str, &str); 11] = [
    ("expected a duration", "expected a duration such as \"200ms\" or \"10s\""),
    ("expected parsable string", SIZE),
    ("expected an integer or string", SIZE),
    ("expected integer overflow", SIZE),
    ("invalid socket address syntax", ADDRESS),
    ("expected socket address", ADDRESS),
    ("expected a sequence", "expected a list such as [\"one\", \"two\"]"),
    ("expected u16", "expected a whole number from 0 to 65535"),
    ("expected u32", "expected a whole number from 0 to 4294967295"),
    ("expected u64", "expected a whole number, 0 or more"),
    ("expected f64", "expected a number"),
];
const SIZE: &str = "expected a size such as \"64MiB\" or a number of bytes";
const ADDRESS: &str = "expected an IP address and a port such as \"127.0.0.1:8114\"";

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
