//! `flintmq admin queue`: list, show, purge, delete, peek.

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::json;

use super::http::{AdminClient, path_part};
use crate::show::Show;

#[derive(Subcommand, Debug)]
pub(crate) enum QueueVerb {
    /// All queues, or those of one domain
    List {
        /// Only this domain's queues
        #[arg(long)]
        domain: Option<String>,
    },
    /// One queue: backlog, oldest message, consumers and unconfirmed messages per app
    Show {
        /// bmq://domain/queue
        #[arg(value_name = "URI", value_parser = parse_queue)]
        queue: QueueName,
    },
    /// Drop everything that waits in the queue
    Purge {
        /// bmq://domain/queue, with ?id=app for one app alone
        #[arg(value_name = "URI", value_parser = parse_queue)]
        queue: QueueName,
    },
    /// Remove a queue that nobody has open, and everything in it
    Delete {
        /// bmq://domain/queue
        #[arg(value_name = "URI", value_parser = parse_queue)]
        queue: QueueName,
    },
    /// Look at the oldest messages without taking them
    Peek {
        /// bmq://domain/queue
        #[arg(value_name = "URI", value_parser = parse_queue)]
        queue: QueueName,
        /// How many messages
        #[arg(long, default_value_t = 10)]
        count: u32,
    },
}

/// A queue's address in the parts that a path needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueName {
    domain: String,
    queue: String,
    app: Option<String>,
}

/// Runs one verb.
pub(crate) fn run(client: &AdminClient, show: Show, verb: &QueueVerb) -> Result<()> {
    match verb {
        QueueVerb::List { domain: None } => show.value(&client.get("queues")?),
        QueueVerb::List { domain: Some(domain) } => {
            show.value(&client.get(&format!("queues?domain={}", path_part(domain)))?)
        }
        QueueVerb::Show { queue } => show.value(&client.get(&path_of(queue)?)?),
        QueueVerb::Purge { queue } => {
            let app = queue.app.as_deref();
            let query = app.map(|app| format!("?app={}", path_part(app))).unwrap_or_default();
            let path = format!("{}/purge{query}", place_of(queue));
            show.done(&client.post(&path, &json!({}))?, "purged")
        }
        QueueVerb::Delete { queue } => show.done(&client.delete(&path_of(queue)?)?, "deleted"),
        QueueVerb::Peek { queue, count } => {
            let path = format!("{}/messages?count={count}", path_of(queue)?);
            show.value(&client.get(&path)?)
        }
    }
}

fn path_of(queue: &QueueName) -> Result<String> {
    if let Some(app) = &queue.app {
        bail!("name the queue without ?id={app}: this concerns the whole queue");
    }
    Ok(place_of(queue))
}

fn place_of(queue: &QueueName) -> String {
    format!("queues/{}/{}", path_part(&queue.domain), path_part(&queue.queue))
}

fn parse_queue(text: &str) -> Result<QueueName, String> {
    let form = "write bmq://domain/queue";
    let rest = text.strip_prefix("bmq://").ok_or(form)?;
    let (domain, rest) = rest.split_once('/').ok_or(form)?;
    let (queue, app) = match rest.split_once("?id=") {
        Some((queue, app)) => (queue, Some(app)),
        None => (rest, None),
    };
    let valid = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        !part.is_empty() && part.chars().all(known)
    };
    if !valid(domain) || !valid(queue) || !app.is_none_or(valid) {
        return Err(form.to_owned());
    }
    Ok(QueueName {
        domain: domain.to_owned(),
        queue: queue.to_owned(),
        app: app.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_paths() {
        let queue = parse_queue("bmq://my.dom.~dev/q_1").unwrap();
        assert_eq!(path_of(&queue).unwrap(), "queues/my.dom.~dev/q_1");
        let app = parse_queue("bmq://d/q?id=audit").unwrap();
        assert_eq!(app.app.as_deref(), Some("audit"));
        assert!(path_of(&app).is_err());
        for bad in ["d/q", "bmq://d", "bmq:///q", "bmq://d/", "bmq://d/q?id=", "bmq://d/q?x=1"] {
            assert!(parse_queue(bad).is_err(), "{bad}");
        }
    }
}
