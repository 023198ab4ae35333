//! Domains: `/api/v1/domains`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::answer::{Answer, Failure, stopping};
use super::{AdminState, Node};
use crate::controller::DomainRecord;
use crate::domain::DomainDefinition;
use crate::partition::{Request, partition_of, queue_settings};
use tokio::sync::oneshot;

/// `GET /api/v1/domains`
pub(super) async fn list(State(state): State<AdminState>) -> Answer {
    let node = state.node()?;
    let metadata = node.controller.metadata();
    let domains = metadata.domains().map(|record| shown(node, record, &metadata));
    Ok(Json(domains.collect()))
}

/// `GET /api/v1/domains/{name}`
pub(super) async fn show(State(state): State<AdminState>, Path(name): Path<String>) -> Answer {
    let node = state.node()?;
    let metadata = node.controller.metadata();
    let record = metadata.domain(&name).ok_or_else(|| unknown(&name))?;
    Ok(Json(shown(node, record, &metadata)))
}

/// `POST /api/v1/domains`
pub(super) async fn create(
    State(state): State<AdminState>,
    body: String,
) -> Result<Response, Failure> {
    let definition = DomainDefinition::from_json(&body)?;
    let node = state.node()?;
    let name = definition.name.clone();
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
    node.controller.update_domain(definition).await?;
    apply_to_queues(node, &name).await;
    tracing::info!(domain = name, "domain updated");
    Ok(Json(json!({ "name": name })))
}

/// `DELETE /api/v1/domains/{name}`: with its queues, unless a client has one of them open.
pub(super) async fn remove(State(state): State<AdminState>, Path(name): Path<String>) -> Answer {
    let node = state.node()?;
    if node.controller.metadata().domain(&name).is_none() {
        return Err(unknown(&name));
    }
    let queues: Vec<String> = {
        let metadata = node.controller.metadata();
        let of_domain = metadata.queues().filter(|(_, place)| place.domain == name);
        of_domain.map(|(uri, _)| uri.to_owned()).collect()
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

/// Tells the partitions what the domain's queues inherit from now on.
async fn apply_to_queues(node: &Node, name: &str) {
    let (settings, places) = {
        let metadata = node.controller.metadata();
        let Some(record) = metadata.domain(name) else { return };
        let places: Vec<_> = metadata
            .queues()
            .filter(|(_, place)| place.domain == name)
            .map(|(_, place)| (place.partition, place.id()))
            .collect();
        (queue_settings(record), places)
    };
    for (partition, queue) in places {
        if let Some(handle) = partition_of(&node.partitions, partition) {
            let settings = Box::new(settings.clone());
            handle.send(Request::UpdateQueue { queue, settings }).await;
        }
    }
    // Answered behind the updates, so that the caller finds them in force.
    for handle in &node.partitions {
        let (done, answer) = oneshot::channel();
        if handle.send(Request::ViewAll { done }).await {
            let _stopping = answer.await.map_err(stopping);
        }
    }
}

fn shown(_node: &Node, record: &DomainRecord, metadata: &crate::controller::Metadata) -> Value {
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
