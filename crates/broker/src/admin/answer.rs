//! The shape of answers: JSON, and for failures `{"error": …, "hint": …}` with the status that
//! tells what to do.

use std::borrow::Cow;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use flintmq_controller::Refusal;
use flintmq_partition::AdminRefusal;
use serde_json::{Value, json};

use super::peers::{NoReply, Reply};
use super::{AdminState, Node};
use crate::controller::ControllerError;
use crate::domain::DomainError;
use crate::queue_removal::RemovalError;

/// A failed request.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    error: String,
    hint: Cow<'static, str>,
}

/// What handlers return.
pub(super) type Answer = Result<Json<Value>, Failure>;

impl Failure {
    pub(super) fn new(
        status: StatusCode,
        error: impl Into<String>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, error: error.into(), hint: hint.into() }
    }

    /// Whether it says that another node leads.
    pub(super) fn is_moved(&self) -> bool {
        self.status == StatusCode::MISDIRECTED_REQUEST
    }

    /// What another node answered, in its words.
    pub(super) fn of_reply(reply: &Reply) -> Self {
        let said = |field: &str| reply.body[field].as_str().unwrap_or_default().to_owned();
        let error = match said("error") {
            none if none.is_empty() => "the node that leads gave no reason: see its log".to_owned(),
            error => error,
        };
        Self::new(reply.status, error, said("hint"))
    }

    /// What the path names is not there.
    pub(super) fn not_found(error: impl Into<String>, hint: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, error, hint)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.error, "hint": self.hint }))).into_response()
    }
}

impl From<ControllerError> for Failure {
    fn from(error: ControllerError) -> Self {
        let status = match error {
            ControllerError::Refused(Refusal::UnknownDomain { .. }) => StatusCode::NOT_FOUND,
            ControllerError::Refused(Refusal::DomainUpdate { .. })
            | ControllerError::Definition(_) => StatusCode::BAD_REQUEST,
            ControllerError::Refused(_) => StatusCode::CONFLICT,
            ControllerError::NotReady(_) | ControllerError::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self::new(status, error.to_string(), "")
    }
}

impl From<DomainError> for Failure {
    fn from(error: DomainError) -> Self {
        let hint = "docs/domains.md describes every field";
        Self::new(StatusCode::BAD_REQUEST, error.to_string(), hint)
    }
}

impl From<AdminRefusal> for Failure {
    fn from(refusal: AdminRefusal) -> Self {
        let status = match refusal {
            AdminRefusal::NoSuchQueue => StatusCode::NOT_FOUND,
            AdminRefusal::InUse { .. } | AdminRefusal::Used => StatusCode::CONFLICT,
            AdminRefusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, refusal.to_string(), "")
    }
}

impl From<RemovalError> for Failure {
    fn from(error: RemovalError) -> Self {
        match error {
            RemovalError::Refused(refusal) => refusal.into(),
            RemovalError::Controller(error) => error.into(),
            RemovalError::Stopping => stopping(error),
        }
    }
}

impl From<NoReply> for Failure {
    fn from(error: NoReply) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), "`flintmq admin node list`")
    }
}

impl AdminState {
    /// The node, once it is up.
    pub(super) fn node(&self) -> Result<&Node, Failure> {
        self.node.get().ok_or_else(|| {
            Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the node is starting",
                "ask again when /readyz answers 200",
            )
        })
    }
}

/// A path that does not exist.
pub(super) async fn unknown_path() -> Failure {
    Failure::not_found("there is nothing at this path", "GET /api/v1/openapi.json lists the paths")
}

/// A path that exists, asked in a way that it does not answer.
pub(super) async fn wrong_method() -> Failure {
    Failure::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not answer this method",
        "GET /api/v1/openapi.json lists the methods of each path",
    )
}

/// The answer of a node that is stopping.
pub(super) fn stopping<E>(_: E) -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping", "ask another node")
}
