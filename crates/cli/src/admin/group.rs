//! `flintmq admin group`: list, show, recover.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use super::http::AdminClient;
use crate::show::{Show, print, render};

#[derive(Subcommand, Debug)]
pub(crate) enum GroupVerb {
    /// All groups: leader, term, indexes, and how far each member is
    List,
    /// One group with its members
    Show {
        /// Number of the group; 0 is the controller
        #[arg(value_name = "ID")]
        group: u32,
    },
    /// Go on without voters that are lost for good, after a majority lost its power or its disks
    ///
    /// Acknowledged messages that only the lost nodes had are gone by this. All members that are
    /// not named with --lost have to be up. Without this command the group waits for everybody.
    Recover {
        /// Number of the group; 0 is the controller
        #[arg(value_name = "ID")]
        group: u32,
        /// A node that never comes back (repeatable)
        #[arg(long, value_name = "NODE", required = true)]
        lost: Vec<u32>,
        /// Yes, messages may be lost
        #[arg(long, required = true)]
        accept_loss: bool,
    },
}

/// Runs one verb.
pub(crate) fn run(client: &AdminClient, show: Show, verb: &GroupVerb) -> Result<()> {
    match verb {
        GroupVerb::List => {
            let groups = client.get("groups")?;
            if show.json { show.value(&groups) } else { print(&list(&groups)) }
        }
        GroupVerb::Show { group } => show.value(&client.get(&format!("groups/{group}"))?),
        GroupVerb::Recover { group, lost, accept_loss } => {
            let asked = json!({ "lost": lost, "accept_loss": accept_loss });
            show.done(&client.post(&format!("groups/{group}/recover"), &asked)?, "recovered")
        }
    }
}

/// One row per group: members in a word each.
pub(super) fn list(groups: &Value) -> String {
    let rows = groups.as_array().map_or(&[][..], Vec::as_slice).iter().map(|group| {
        let mut row = group.clone();
        if let Some(fields) = row.as_object_mut() {
            let members = fields.get("members").and_then(Value::as_array).cloned();
            let members: Vec<String> = members.unwrap_or_default().iter().map(member).collect();
            fields.insert("members".to_owned(), members.join(" ").into());
        }
        row
    });
    render(&rows.collect()).trim_end().to_owned()
}

/// `2:1042` is node 2 with everything up to index 1042; a state other than normal follows.
fn member(member: &Value) -> String {
    let index =
        member["match_index"].as_u64().map_or_else(|| "-".to_owned(), |index| index.to_string());
    let mut text = format!("{}:{index}", member["node"]);
    let role = member["role"].as_str().filter(|role| *role != "voter");
    let state = member["state"].as_str().filter(|state| *state != "normal");
    for word in [role, state].into_iter().flatten() {
        text.push(',');
        text.push_str(word);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_told_in_a_word_each() {
        let text = list(&json!([{ "id": 3, "leader": 1, "members": [
            { "node": 1, "role": "voter", "state": "normal", "match_index": 7 },
            { "node": 2, "role": "learner", "state": "snapshot", "match_index": 0 },
            { "node": 4, "role": "voter", "state": "unreachable", "match_index": null },
        ]}]));
        assert!(text.contains("1:7 2:0,learner,snapshot 4:-,unreachable"), "{text}");
        assert_eq!(list(&json!([])), "none");
    }
}
