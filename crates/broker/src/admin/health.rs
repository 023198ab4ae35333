//! What probes and Prometheus ask.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{AdminState, unserved};

/// 200 while the process works.
pub(super) async fn healthz(State(state): State<AdminState>) -> Response {
    match state.node.get().and_then(|node| node.fatal.reason()) {
        None => Json(json!({ "status": "ok" })).into_response(),
        Some(reason) => {
            let body = Json(json!({ "status": "failed", "reasons": [reason] }));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

/// 200 when every group with a replica here has a leader that serves, and this node's clock is
/// right; else 503 with the reasons.
pub(super) async fn readyz(State(state): State<AdminState>) -> Response {
    let reasons = reasons(&state);
    if reasons.is_empty() {
        let warnings = state.node.get().map(|node| node.fitness.warnings()).unwrap_or_default();
        if warnings.is_empty() {
            return Json(json!({ "status": "ready" })).into_response();
        }
        return Json(json!({ "status": "ready", "warnings": warnings })).into_response();
    }
    let body = Json(json!({ "status": "not ready", "reasons": reasons }));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

/// The text that Prometheus scrapes.
pub(super) async fn metrics(State(state): State<AdminState>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, state.metrics.render()).into_response()
}

fn reasons(state: &AdminState) -> Vec<String> {
    let Some(node) = state.node.get() else {
        return vec![state.starting.borrow().clone()];
    };
    let failure = node.fatal.reason().map(str::to_owned).into_iter();
    failure.chain(node.fitness.not_ready()).chain(unserved::reasons(node)).collect()
}
