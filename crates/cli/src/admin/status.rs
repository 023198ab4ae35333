//! `flintmq admin status`

use anyhow::Result;

use super::http::AdminClient;
use crate::show::Show;

/// Shows the node's state and one row per group.
pub(crate) fn run(client: &AdminClient, show: Show) -> Result<()> {
    show.value(&client.get("status")?)
}
