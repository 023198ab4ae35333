//! Domains: `/api/v1/domains`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::answer::{Answer, Failure};
use super::{AdminState, Node, fresh};
use crate::controller::{DomainRecord, Metadata};
use crate::domain::DomainDefinition;
use crate::domain_settings::send_domain_settings;

/// `GET /api/v1/domains`
pub(super) async fn list(State(state): State<AdminState>) -> Answer {
    let node = state.node()?;
    // Without it what this node knows is shown.
    fresh::fresh_if_led(node).await;
    let metadata = node.controller.metadata();
    let domains = metadata.domains().map(|record| shown(record, &metadata));
    Ok(Json(domains.collect()))
}

/// `GET /api/v1/domains/{name}`
pub(super) async fn show(State(state): State<AdminState>, Path(name): Path<String>) -> Answer {
    let node = state.node()?;
    let look = |node: &Node| {
        let metadata = node.controller.metadata();
        metadata.domain(&name).map(|record| shown(record, &metadata))
    };
    fresh::find(node, look).await?.map(Json).ok_or_else(|| unknown(&name))
}

/// `POST /api/v1/domains`
pub(super) async fn create(
    State(state): State<AdminState>,
    body: String,
) -> Result<Response, Failure> {
    let definition = DomainDefinition::from_json(&body)?;
    let node = state.node()?;
    let name = definition.name.clone();
    fresh::fresh_metadata(node).await?;
    node.controller.create_domain(definition).await?;
    tracing::info!(domain = name, "domain created");
    Ok((StatusCode::CREATED, Json(json!({ "name": name }))).into_response())
}

/// `PUT /api/v1/domains/{name}`: replaces a definition; queues that are open go on under the new
/// one.
pub(super) async fn update(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    body: String,
) -> Answer {
    let definition = DomainDefinition::from_json_named(&name, &body)?;
    let node = state.node()?;
    fresh::fresh_metadata(node).await?;
    node.controller.update_domain(definition).await?;
    send_domain_settings(&node.controller, &node.partitions, Some(&name)).await;
    tracing::info!(domain = name, "domain updated");
    Ok(Json(json!({ "name": name })))
}

/// `DELETE /api/v1/domains/{name}`: with its queues, unless a client has one of them open.
pub(super) async fn remove(State(state): State<AdminState>, Path(name): Path<String>) -> Answer {
    let node = state.node()?;
    fresh::fresh_metadata(node).await?;
    if node.controller.metadata().domain(&name).is_none() {
        return Err(unknown(&name));
    }
    let queues: Vec<String> = {
        let metadata = node.controller.metadata();
        metadata.queues_in(&name).map(|(uri, _)| uri.to_owned()).collect()
    };
    for uri in &queues {
        super::queues::check_unused(node, uri).await?;
    }
    for uri in &queues {
        super::queues::remove_queue(node, uri).await?;
    }
    node.controller.remove_domain(&name).await?;
    tracing::info!(domain = name, queues = queues.len(), "domain deleted");
    Ok(Json(json!({ "name": name, "queues_deleted": queues.len() })))
}

fn shown(record: &DomainRecord, metadata: &Metadata) -> Value {
    let mut value = serde_json::to_value(&record.definition).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.insert("queues".to_owned(), json!(metadata.queues_of(&record.definition.name)));
    }
    value
}

fn unknown(name: &str) -> Failure {
    Failure::not_found(
        format!("the domain is not defined, name={name}"),
        "`flintmq admin domain list`",
    )
}
