//! `flintmq admin status`

use anyhow::Result;
use serde_json::Value;

use super::group;
use super::http::AdminClient;
use crate::show::{Show, print, render};

/// Shows the cluster's state, its nodes and one row per group.
pub(crate) fn run(client: &AdminClient, show: Show) -> Result<()> {
    let mut status = client.get("status")?;
    if show.json {
        return show.value(&status);
    }
    let groups = status.as_object_mut().and_then(|fields| fields.remove("groups"));
    let facts = render(&status);
    print(&format!(
        "{}\n\ngroups\n{}",
        facts.trim_end(),
        group::list(&groups.unwrap_or(Value::Null))
    ))
}
