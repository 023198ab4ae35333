//! Going on without members that are lost for good: `/api/v1/groups/{id}/recover`.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::AdminState;
use super::answer::{Answer, Failure};
use crate::operations::recovery::{self, RecoverHere};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecoverRequest {
    /// Voters that never come back.
    lost: BTreeSet<u32>,
    #[serde(default)]
    accept_loss: bool,
}

/// `POST /api/v1/groups/{id}/recover`
pub(super) async fn recover(
    State(state): State<AdminState>,
    Path(group): Path<u32>,
    body: String,
) -> Answer {
    let form = "send {\"lost\": [NODE, …], \"accept_loss\": true}";
    let request: RecoverRequest = serde_json::from_str(&body).map_err(|error| {
        let error = format!("the request cannot be read: {error}");
        Failure::new(StatusCode::BAD_REQUEST, error, form)
    })?;
    let node = state.node()?;
    node.replica(group)?;
    if !request.accept_loss {
        let error = "acknowledged messages may be lost by this, and the request does not accept it";
        return Err(Failure::new(StatusCode::BAD_REQUEST, error, form));
    }
    Ok(Json(json!(recovery::recover(node, group, request.lost).await?)))
}

/// `GET /nodes/v1/groups/{id}/standing`
pub(super) async fn standing(State(state): State<AdminState>, Path(group): Path<u32>) -> Answer {
    Ok(Json(json!(recovery::standing(state.node()?, group).await?)))
}

/// `POST /nodes/v1/groups/{id}/recover`
pub(super) async fn recover_here(
    State(state): State<AdminState>,
    Path(group): Path<u32>,
    Json(order): Json<RecoverHere>,
) -> Answer {
    recovery::recover_here(state.node()?, group, order).await?;
    Ok(Json(Value::Null))
}
