//! What an expression for Prometheus asks for: the series with their labels, and by which labels it
//! groups. Not a parser: whether the expression is right in all else is for `promtool` to say.

use std::collections::BTreeSet;

/// What was found in an expression.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Expression {
    pub(crate) selectors: Vec<Selector>,
    /// Labels of `by (…)`.
    pub(crate) grouping: BTreeSet<String>,
    /// Whether anything is grouped or summed over all.
    pub(crate) aggregates: bool,
}

/// `name{label="value"}[range]`
#[derive(Debug, PartialEq)]
pub(crate) struct Selector {
    pub(crate) series: String,
    /// Label, operator, value.
    pub(crate) matchers: Vec<(String, String, String)>,
    /// The function that it is the argument of.
    pub(crate) function: String,
    pub(crate) has_range: bool,
}

const FUNCTIONS: [&str; 10] = [
    "avg_over_time",
    "rate",
    "increase",
    "deriv",
    "changes",
    "predict_linear",
    "max_over_time",
    "min_over_time",
    "histogram_quantile",
    "vector",
];
const AGGREGATIONS: [&str; 5] = ["sum", "max", "min", "count", "topk"];
const WORDS: [&str; 5] = ["and", "or", "unless", "offset", "time"];

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Number,
    Sign(char),
    /// `=`, `=~`, `!=`, `!~`, `==`, `>` and so on.
    Operator(String),
}

/// Looks through an expression, with Grafana's `$__rate_interval` taken for five minutes.
pub(crate) fn read(expression: &str) -> Result<Expression, String> {
    let tokens = tokens(&expression.replace("$__rate_interval", "5m"))?;
    let mut found = Expression::default();
    // For each open parenthesis the name before it.
    let mut open: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            Token::Sign('(') => open.push(name_before(&tokens, at - 1)),
            Token::Sign(')') => drop(open.pop().ok_or("a ) too many")?),
            Token::Name(name) if name == "by" => {
                let end = end_of(&tokens, at, ')')?;
                found.grouping.extend(tokens[at..end].iter().filter_map(name_of));
                at = end + 1;
            }
            Token::Name(name) if AGGREGATIONS.contains(&name.as_str()) => found.aggregates = true,
            Token::Name(name) if WORDS.contains(&name.as_str()) => {}
            Token::Name(name) if FUNCTIONS.contains(&name.as_str()) => {}
            Token::Name(name) => {
                let function = open.last().cloned().unwrap_or_default();
                let mut matchers = Vec::new();
                if tokens.get(at) == Some(&Token::Sign('{')) {
                    let end = end_of(&tokens, at, '}')?;
                    matchers = matchers_in(&tokens[at + 1..end])?;
                    at = end + 1;
                }
                let has_range = tokens.get(at) == Some(&Token::Sign('['));
                if has_range {
                    at = end_of(&tokens, at, ']')? + 1;
                }
                let series = name.clone();
                found.selectors.push(Selector { series, matchers, function, has_range });
            }
            // A subquery: the range of what is in parentheses.
            Token::Sign('[') if at > 1 && tokens[at - 2] == Token::Sign(')') => {
                at = end_of(&tokens, at, ']')? + 1;
            }
            Token::Sign('{' | '}' | '[' | ']') => return Err(format!("{token:?} after no name")),
            Token::Text(_) | Token::Number | Token::Sign(_) | Token::Operator(_) => {}
        }
    }
    match open.is_empty() {
        true => Ok(found),
        false => Err("a ( is not closed".to_owned()),
    }
}

/// The function or aggregation whose arguments begin at this parenthesis, also behind `by (…)`.
fn name_before(tokens: &[Token], parenthesis: usize) -> String {
    let mut before = tokens[..parenthesis].iter().rev();
    match before.next() {
        Some(Token::Name(name)) => name.clone(),
        Some(Token::Sign(')')) => {
            let mut before = before.skip_while(|token| **token != Token::Sign('('));
            match (before.nth(1), before.next()) {
                (Some(Token::Name(by)), Some(Token::Name(name))) if by == "by" => name.clone(),
                _ => String::new(),
            }
        }
        _ => String::new(),
    }
}

fn matchers_in(tokens: &[Token]) -> Result<Vec<(String, String, String)>, String> {
    tokens
        .split(|token| *token == Token::Sign(','))
        .map(|matcher| match matcher {
            [Token::Name(label), Token::Operator(operator), Token::Text(value)] => {
                Ok((label.clone(), operator.clone(), value.clone()))
            }
            other => Err(format!("no matcher: {other:?}")),
        })
        .collect()
}

fn end_of(tokens: &[Token], from: usize, sign: char) -> Result<usize, String> {
    let end = tokens.iter().skip(from).position(|token| *token == Token::Sign(sign));
    end.map(|end| from + end).ok_or_else(|| format!("{sign} is missing"))
}

fn name_of(token: &Token) -> Option<String> {
    match token {
        Token::Name(name) => Some(name.clone()),
        _ => None,
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => rest[1..].find('"').ok_or("a text is not closed")? + 2,
            'a'..='z' | 'A'..='Z' | '_' => length_of(rest, |c| c.is_alphanumeric() || c == '_'),
            // Durations are numbers with a unit.
            '0'..='9' => length_of(rest, |c| c.is_alphanumeric() || c == '.'),
            '=' | '!' | '<' | '>' => length_of(rest, |c| "=!<>~".contains(c)),
            '(' | ')' | '{' | '}' | '[' | ']' | ',' | ':' | '+' | '-' | '*' | '/' => 1,
            other => return Err(format!("{other:?} is not expected here: {rest}")),
        };
        let (token, behind) = rest.split_at(length);
        tokens.push(match first {
            '"' => Token::Text(token.trim_matches('"').to_owned()),
            'a'..='z' | 'A'..='Z' | '_' => Token::Name(token.to_owned()),
            '0'..='9' => Token::Number,
            '=' | '!' | '<' | '>' => Token::Operator(token.to_owned()),
            sign => Token::Sign(sign),
        });
        rest = behind.trim_start();
    }
    Ok(tokens)
}

fn length_of(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

#[test]
fn series_labels_and_grouping_are_found() {
    let text = "histogram_quantile(0.99, sum by (job, le) (rate(a_bucket{job=~\"x|y\"}[5m]))) > 0.2 or max(b)";
    let found = read(text).expect("understood");
    assert_eq!(found.grouping, ["job", "le"].map(str::to_owned).into());
    let [a, b] = found.selectors.as_slice() else { panic!("{found:?}") };
    assert_eq!((a.series.as_str(), a.function.as_str(), a.has_range), ("a_bucket", "rate", true));
    let matcher = ("job".to_owned(), "=~".to_owned(), "x|y".to_owned());
    assert_eq!(a.matchers, [matcher]);
    assert_eq!((b.series.as_str(), b.function.as_str(), b.has_range), ("b", "max", false));
    let subquery = read("avg_over_time((max by (x) (c))[15m:5s])").expect("understood");
    assert_eq!((subquery.selectors.len(), subquery.selectors[0].function.as_str()), (1, "max"));
    let grouped = read("sum by (x) (c)").expect("understood");
    assert_eq!(grouped.selectors[0].function, "sum");
    for wrong in [
        "sum(a",
        "a)",
        "a{b}",
        "a{b=\"c\"",
        "{a=\"b\"}",
        "a[5m",
        "(a)[5m",
        "(a) 5m]",
        "\"a",
        "a ? b",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
