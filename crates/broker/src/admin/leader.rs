//! Handing leaderships over: `/api/v1/groups/{id}/transfer`.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::json;

use super::AdminState;
use super::answer::{Answer, Failure};
use crate::operations::leadership::{self, Keep, Transfer};
use crate::operations::peer_calls::HandedOn;

/// Whether a request came from another node.
pub(super) type Handed = Option<Extension<HandedOn>>;

/// `POST /api/v1/groups/{id}/transfer`: transfers the leadership, and answers when the next leader
/// serves.
pub(super) async fn transfer(
    State(state): State<AdminState>,
    Path(group): Path<u32>,
    handed: Handed,
    body: String,
) -> Answer {
    let order: Transfer = serde_json::from_str(&body).map_err(|error| {
        let error = format!("the request cannot be read: {error}");
        Failure::new(StatusCode::BAD_REQUEST, error, "send {\"to\": NODE, \"force\": false}")
    })?;
    let node = state.node()?;
    Ok(Json(json!(leadership::transfer(node, group, handed.is_some(), order).await?)))
}

/// `POST /nodes/v1/groups/{id}/keep`: answers when this node leads the group and serves, and keeps
/// it leading although another node usually does.
pub(super) async fn keep(
    State(state): State<AdminState>,
    Path(group): Path<u32>,
    Json(order): Json<Keep>,
) -> Answer {
    Ok(Json(json!(leadership::keep(state.node()?, group, order).await?)))
}
