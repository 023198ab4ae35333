//! `flintmq admin domain`: list, show, create, update, delete, apply.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use super::http::{AdminClient, Refusal, path_part};
use crate::show::Show;

#[derive(Subcommand, Debug)]
pub(crate) enum DomainVerb {
    /// All domains
    List,
    /// One domain's definition
    Show {
        /// The domain's name
        name: String,
    },
    /// Define a new domain: persistent, priority mode, strong consistency, unless told otherwise
    #[command(after_help = EXAMPLES)]
    Create {
        /// The domain's name
        name: String,
        #[command(flatten)]
        change: Change,
    },
    /// Change a domain that exists
    #[command(after_help = EXAMPLES)]
    Update {
        /// The domain's name
        name: String,
        #[command(flatten)]
        change: Change,
    },
    /// Remove a domain and everything in its queues
    Delete {
        /// The domain's name
        name: String,
    },
    /// Create or update each domain as its file says (BlazingMQ's domain files fit)
    Apply {
        /// JSON files, `-` for standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

const EXAMPLES: &str = "Examples:
  flintmq admin domain create orders --set messageTtl=86400 --set maxConsumers=8
  flintmq admin domain create orders --file orders.json
  flintmq admin domain update orders --set maxDeliveryAttempts=5";

/// A definition, or changes to one.
#[derive(clap::Args, Debug)]
pub(crate) struct Change {
    /// JSON file with the whole definition, `-` for standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Set one field, e.g. `messageTtl=3600` or `storage.queueLimits.messages=1000` (repeatable)
    #[arg(long = "set", value_name = "FIELD=VALUE", value_parser = parse_assignment)]
    set: Vec<(String, Value)>,
}

/// Runs one verb.
pub(crate) fn run(client: &AdminClient, show: Show, verb: &DomainVerb) -> Result<()> {
    match verb {
        DomainVerb::List => show.value(&client.get("domains")?),
        DomainVerb::Show { name } => show.value(&client.get(&domain_path(name))?),
        DomainVerb::Create { name, change } => {
            let base = match &change.file {
                Some(file) => read_document(file)?,
                None => new_domain(name),
            };
            let document = with_name(changed(base, change)?, name)?;
            show.done(&client.post("domains", &document)?, &format!("domain {name} created"))
        }
        DomainVerb::Update { name, change } => {
            if change.file.is_none() && change.set.is_empty() {
                bail!("name what to change with --set FIELD=VALUE or --file FILE");
            }
            let base = match &change.file {
                Some(file) => read_document(file)?,
                None => definition_of(client.get(&domain_path(name))?),
            };
            let document = with_name(changed(base, change)?, name)?;
            let answer = client.put(&domain_path(name), &document)?;
            show.done(&answer, &format!("domain {name} updated"))
        }
        DomainVerb::Delete { name } => {
            show.done(&client.delete(&domain_path(name))?, &format!("domain {name} deleted"))
        }
        DomainVerb::Apply { files } => apply(client, show, files),
    }
}

fn apply(client: &AdminClient, show: Show, files: &[PathBuf]) -> Result<()> {
    // Everything is read before anything is changed, so that a typing error changes nothing.
    let mut documents = Vec::new();
    for file in files {
        let document = read_document(file)?;
        let name =
            parameters(&document)["name"].as_str().map(str::to_owned).with_context(|| {
                format!("the document has no \"name\": add it file={}", file.display())
            })?;
        documents.push((name, document));
    }
    for (name, document) in documents {
        let (answer, done) = match client.put(&domain_path(&name), &document) {
            Err(error) if is_unknown(&error) => (client.post("domains", &document)?, "created"),
            answer => (answer?, "updated"),
        };
        show.done(&answer, &format!("domain {name} {done}"))?;
    }
    Ok(())
}

fn is_unknown(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.status == 404)
}

fn domain_path(name: &str) -> String {
    format!("domains/{}", path_part(name))
}

/// What a domain is without further wishes: the same as the template for domains that nobody
/// defined.
fn new_domain(name: &str) -> Value {
    json!({
        "name": name,
        "mode": {"priority": {}},
        "storage": {
            "config": {"fileBacked": {}},
            "domainLimits": {"messages": 50_000_000, "bytes": 50_u64 << 30},
            "queueLimits": {"messages": 10_000_000, "bytes": 10_u64 << 30},
        },
        "messageTtl": 604_800,
        "consistency": {"strong": {}},
    })
}

/// A domain as the node shows it, without what is not part of its definition.
fn definition_of(mut shown: Value) -> Value {
    if let Some(fields) = shown.as_object_mut() {
        fields.remove("queues");
    }
    shown
}

/// Where the fields of a domain are: in the document itself, or in BlazingMQ's wrapper.
fn parameters(document: &Value) -> &Value {
    document.pointer("/definition/parameters").unwrap_or(document)
}

fn with_name(mut document: Value, name: &str) -> Result<Value> {
    let wrapped = document.pointer("/definition/parameters").is_some();
    let fields = if wrapped { &mut document["definition"]["parameters"] } else { &mut document };
    let Some(fields) = fields.as_object_mut() else {
        bail!("a domain's definition is a JSON object");
    };
    match fields.get("name").and_then(Value::as_str) {
        Some(other) if other != name => {
            bail!(
                "the document defines another domain: rename one named={name:?} document={other:?}"
            )
        }
        _ => fields.insert("name".to_owned(), Value::from(name)),
    };
    Ok(document)
}

fn changed(mut document: Value, change: &Change) -> Result<Value> {
    for (path, value) in &change.set {
        let wrapped = document.pointer("/definition/parameters").is_some();
        let mut place =
            if wrapped { &mut document["definition"]["parameters"] } else { &mut document };
        for key in path.split('.') {
            if place.is_null() {
                *place = json!({});
            }
            let Some(fields) = place.as_object_mut() else {
                bail!("a part of the field's path holds no object field={path:?} part={key:?}");
            };
            place = fields.entry(key).or_insert(Value::Null);
        }
        *place = value.clone();
    }
    Ok(document)
}

fn read_document(file: &Path) -> Result<Value> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    } else {
        text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the domain file={}", file.display()))?;
    }
    serde_json::from_str(&text).with_context(|| format!("not JSON file={}", file.display()))
}

/// `a.b=5` gives a number, `a.b=text` a string: whatever is JSON is taken as JSON.
fn parse_assignment(text: &str) -> Result<(String, Value), String> {
    let (path, value) = text.split_once('=').ok_or("write FIELD=VALUE, e.g. messageTtl=3600")?;
    if path.is_empty() || path.split('.').any(str::is_empty) {
        return Err("write FIELD=VALUE, parts of FIELD separated by single dots".to_owned());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((path.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(assignments: &[&str]) -> Change {
        let set = assignments.iter().map(|text| parse_assignment(text).unwrap()).collect();
        Change { file: None, set }
    }

    #[test]
    fn fields_are_set_by_path_also_in_the_wrapper() {
        let change =
            set(&["messageTtl=60", "storage.queueLimits.messages=7", "mode={\"fanout\":{}}"]);
        let plain = changed(new_domain("d"), &change).unwrap();
        assert_eq!(plain["messageTtl"], 60);
        assert_eq!(plain["storage"]["queueLimits"]["messages"], 7);
        assert_eq!(plain["storage"]["domainLimits"]["messages"], 50_000_000);
        assert_eq!(plain["storage"]["config"], json!({"fileBacked": {}}));
        assert_eq!(plain["mode"], json!({"fanout": {}}));

        let wrapped = json!({"definition": {"location": "c", "parameters": {"name": "d"}}});
        let wrapped = changed(wrapped, &set(&["messageTtl=60"])).unwrap();
        assert_eq!(wrapped["definition"]["parameters"]["messageTtl"], 60);
        assert_eq!(with_name(wrapped.clone(), "d").unwrap(), wrapped);
    }

    #[test]
    fn impossible_changes_are_refused() {
        assert!(changed(json!({"messageTtl": 5}), &set(&["messageTtl.x=1"])).is_err());
        assert!(with_name(json!({"name": "other"}), "d").is_err());
        assert!(with_name(json!([1]), "d").is_err());
        assert!(parse_assignment("messageTtl").is_err());
        assert!(parse_assignment("a..b=1").is_err());
    }
}
