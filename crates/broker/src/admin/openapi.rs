//! `GET /api/v1/openapi.json`: the paths of this interface, for people and for generators.

use axum::Json;
use serde_json::{Value, json};

/// The document.
pub(super) async fn document() -> Json<Value> {
    Json(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "FlintMQ administration",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Looking is free; changes need `Authorization: Bearer TOKEN` where admin.token_file is set. Failures answer {\"error\", \"hint\"}.",
        },
        "servers": [{ "url": "/api/v1" }],
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": { "Failure": {
                "type": "object",
                "required": ["error", "hint"],
                "properties": { "error": { "type": "string" }, "hint": { "type": "string" } },
            }},
        },
        "paths": paths(),
    }))
}

fn paths() -> Value {
    json!({
        "/status": { "get": look("The node, its disk and its groups") },
        "/groups": { "get": look("All groups with leader, term and indexes, as their leaders see them; ?here=true this node's replicas") },
        "/groups/{id}": { "get": look_with("One group", &["id"]) },
        "/groups/{id}/transfer": {
            "post": change("Hand a group's lead to another node: {\"to\": NODE, \"force\": false}", &["id"], "200"),
        },
        "/groups/{id}/recover": {
            "post": change("Go on without lost voters: {\"lost\": [NODE], \"accept_loss\": true}", &["id"], "200"),
        },
        "/nodes": {
            "get": look("The cluster's nodes: what each is to the cluster, and how many groups it leads and holds"),
            "post": change("Let one more node come: {\"id\": NODE, \"peers\": \"HOST:PORT\"}", &[], "200"),
        },
        "/nodes/{id}": {
            "delete": change("Move everything away from a node and forget it; ?force=true although few are left", &["id"], "200"),
        },
        "/nodes/{id}/drain": {
            "post": change("Have a node lead nothing, or take that back: {\"undo\": false}", &["id"], "200"),
        },
        "/nodes/{id}/replace": {
            "post": change("Let a new node take the place of this one: {\"with\": NODE, \"peers\": \"HOST:PORT\"}", &["id"], "200"),
        },
        "/domains": {
            "get": look("All domains with their definitions"),
            "post": change("Define a domain", &[], "201"),
        },
        "/domains/{name}": {
            "get": look_with("A domain's definition", &["name"]),
            "put": change("Replace a domain's definition", &["name"], "200"),
            "delete": change("Delete a domain with its queues, none of which is open", &["name"], "200"),
        },
        "/sessions": {
            "get": look("The clients connected to all nodes, by node and number; ?node=NODE those of one node; ?count=N, at most 1000"),
        },
        "/queues": { "get": look("All queues; ?domain=NAME those of one domain") },
        "/queues/{domain}/{queue}": {
            "get": look_with("One queue with its apps, as its leader sees it; ?here=true this node's replica", &["domain", "queue"]),
            "delete": change("Delete a queue that no client has open", &["domain", "queue"], "200"),
        },
        "/queues/{domain}/{queue}/purge": {
            "post": change("Drop all messages of a queue", &["domain", "queue"], "200"),
        },
        "/queues/{domain}/{queue}/messages": {
            "get": look_with("The oldest messages, left where they are; ?count=N", &["domain", "queue"]),
        },
    })
}

fn look(summary: &str) -> Value {
    look_with(summary, &[])
}

fn look_with(summary: &str, parameters: &[&str]) -> Value {
    operation(summary, parameters, "200")
}

fn change(summary: &str, parameters: &[&str], success: &str) -> Value {
    let mut operation = operation(summary, parameters, success);
    operation["security"] = json!([{ "token": [] }]);
    operation
}

fn operation(summary: &str, parameters: &[&str], success: &str) -> Value {
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    let failure = json!({ "description": "Why not, and what to do", "content": { "application/json": {
        "schema": { "$ref": "#/components/schemas/Failure" } } } });
    json!({
        "summary": summary,
        "parameters": parameters,
        "responses": {
            success: { "description": "Done", "content": { "application/json": {} } },
            "default": failure,
        },
    })
}
