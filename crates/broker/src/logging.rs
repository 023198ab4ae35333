//! The log of the process: readable lines for people, JSON lines for machines, on standard error.
//!
//! ```
//! use flintmq_broker::config::LogSection;
//!
//! flintmq_broker::logging::init(&LogSection::default())?;
//! # Ok::<(), flintmq_broker::logging::LoggingError>(())
//! ```

use crate::config::{LogFormat, LogSection};
use std::io::IsTerminal;
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// The environment variable that command lines take a level filter from.
pub const LEVEL_VARIABLE: &str = "FLINTMQ_LOG";

/// Why the process cannot log as asked.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The filter is not understood.
    #[error(
        "not a log level; write error, warn, info, debug or trace, or per part of the broker \
         \"info,flintmq_storage=debug\" value={filter:?}: {reason}"
    )]
    Filter {
        /// The text given.
        filter: String,
        /// What the parser said.
        reason: String,
    },
    /// A log is set up already.
    #[error("this process has a log already; set it up once per process: {0}")]
    Installed(#[from] TryInitError),
}

/// Starts logging to standard error; colour only where that is a terminal and `NO_COLOR` is not
/// set.
///
/// # Errors
/// [`LoggingError`] for a filter that is not understood, or at the second call in a process.
pub fn init(section: &LogSection) -> Result<(), LoggingError> {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = std::io::stderr().is_terminal() && !no_colour;
    subscriber(section, colour, std::io::stderr)?.try_init()?;
    Ok(())
}

/// Checks a level filter without setting anything up.
///
/// # Errors
/// [`LoggingError::Filter`] says what is allowed.
pub fn check_filter(filter: &str) -> Result<(), LoggingError> {
    parse_filter(filter).map(|_| ())
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LoggingError> {
    let wrong = |reason: String| LoggingError::Filter { filter: filter.to_owned(), reason };
    if let Some(unknown) = filter.split(',').find(|directive| is_unknown_level(directive)) {
        // The parser would take it for the name of a module, and log nothing at all.
        return Err(wrong(format!("{:?} is no level", unknown.trim())));
    }
    EnvFilter::try_new(filter).map_err(|error| wrong(error.to_string()))
}

fn is_unknown_level(directive: &str) -> bool {
    let directive = directive.trim();
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let names_a_part = directive.contains(['=', '[', ':']) || directive.starts_with("flintmq");
    !names_a_part && !levels.iter().any(|level| directive.eq_ignore_ascii_case(level))
}

type BoxedSubscriber = Box<dyn tracing::Subscriber + Send + Sync>;

fn subscriber<W>(
    section: &LogSection,
    colour: bool,
    writer: W,
) -> Result<BoxedSubscriber, LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = parse_filter(&section.level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(match section.format {
        LogFormat::Text => Box::new(builder.with_ansi(colour).finish()),
        LogFormat::Json => Box::new(
            builder
                .json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false)
                .finish(),
        ),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: &str, colour: bool) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let section = LogSection { format, level: level.to_owned() };
        let subscriber = subscriber(&section, colour, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(queue = "bmq://shop.orders/new", backlog = 3, "queue opened");
            tracing::debug!("hidden at info");
        });
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_is_one_plain_line_per_event_and_honours_the_level() {
        let text = logged(LogFormat::Text, "info", false);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(" INFO "), "{text}");
        assert!(text.contains("queue opened queue=\"bmq://shop.orders/new\" backlog=3"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert_eq!(logged(LogFormat::Text, "debug", false).lines().count(), 2);
        assert_eq!(logged(LogFormat::Text, "error", false), "");
    }

    #[test]
    fn text_is_coloured_where_asked() {
        assert!(logged(LogFormat::Text, "info", true).contains('\u{1b}'));
    }

    #[test]
    fn json_is_one_object_per_line_with_fields_at_the_top() {
        let text = logged(LogFormat::Json, "info", true);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "queue opened");
        assert_eq!(line["backlog"], 3);
    }

    #[test]
    fn a_filter_names_levels_or_parts() {
        for filter in ["info", "WARN", "info,flintmq_storage=debug", "off", "flintmq_broker"] {
            check_filter(filter).unwrap();
        }
        let error = check_filter("loud").unwrap_err().to_string();
        assert_eq!(
            error,
            "not a log level; write error, warn, info, debug or trace, or per part of the broker \
             \"info,flintmq_storage=debug\" value=\"loud\": \"loud\" is no level"
        );
        assert!(check_filter("info,flintmq_storage=loud").is_err());
    }
}
