//! Who may change something: whoever has the token; on a loopback address without one, anybody but
//! a web page.

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::answer::Failure;
use super::{AdminError, AdminState};
use crate::config::AdminSection;
use crate::operations::peer_calls::HandedOn;

/// The rule for changing requests.
#[derive(Debug)]
pub(super) enum Access {
    /// The token must be there.
    Token(Vec<u8>),
    /// Loopback only: no token needed.
    Loopback,
    /// Nobody may change anything.
    Closed,
}

impl Access {
    /// Reads the token where one is configured.
    pub(super) fn load(section: &AdminSection) -> Result<Self, AdminError> {
        let Some(file) = &section.token_file else {
            let loopback = section.listen.ip().is_loopback();
            return Ok(if loopback { Self::Loopback } else { Self::Closed });
        };
        let failed =
            |reason: String| AdminError::Token { file: file.display().to_string(), reason };
        let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
        let token = text.lines().next().unwrap_or_default().trim();
        if token.is_empty() {
            return Err(failed("its first line is empty: put the token there".to_owned()));
        }
        Ok(Self::Token(token.as_bytes().to_vec()))
    }

    fn allows(&self, request: &Request) -> Result<(), Failure> {
        match self {
            Self::Token(token) => {
                let given = request
                    .headers()
                    .get(header::AUTHORIZATION)
                    .and_then(|value| value.to_str().ok())
                    .and_then(|value| value.strip_prefix("Bearer "))
                    .unwrap_or_default();
                if same(token, given.trim().as_bytes()) {
                    return Ok(());
                }
                Err(Failure::new(
                    StatusCode::UNAUTHORIZED,
                    "this request changes something and needs the token",
                    "send `Authorization: Bearer TOKEN`; the node's admin.token_file has it",
                ))
            }
            // A browser names the page that a request comes from: a page elsewhere must not reach
            // in through it.
            Self::Loopback if request.headers().contains_key(header::ORIGIN) => Err(Failure::new(
                StatusCode::FORBIDDEN,
                "web pages may not change anything without a token",
                "set admin.token_file and send the token",
            )),
            Self::Loopback => Ok(()),
            Self::Closed => Err(Failure::new(
                StatusCode::FORBIDDEN,
                "changes need a token on an address that others can reach, and none is configured",
                "set admin.token_file, or listen on a loopback address",
            )),
        }
    }
}

/// Lets looking pass and checks everything else.
pub(super) async fn guard(
    State(state): State<AdminState>,
    request: Request,
    next: Next,
) -> Response {
    // Whoever handed it on has checked it, and no client can mark a request like that.
    let checked = request.extensions().get::<HandedOn>().is_some();
    let looks = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !looks
        && !checked
        && let Err(failure) = state.access.allows(&request)
    {
        return failure.into_response();
    }
    next.run(request).await
}

/// Compares without telling by its duration where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use axum::body::Body;

    use super::*;

    fn section(
        listen: &str,
        token: Option<&str>,
    ) -> (AdminSection, Option<tempfile::NamedTempFile>) {
        let file = token.map(|token| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            writeln!(file, "{token}").unwrap();
            file
        });
        let token_file = file.as_ref().map(|file| file.path().to_owned());
        (AdminSection { listen: listen.parse().unwrap(), token_file }, file)
    }

    fn request(name: &str, value: &str) -> Request {
        Request::builder().header(name, value).body(Body::empty()).unwrap()
    }

    #[test]
    fn a_token_opens_and_nothing_else_does() {
        let (section, _file) = section("0.0.0.0:1", Some("sesame"));
        let access = Access::load(&section).unwrap();
        assert!(access.allows(&request("authorization", "Bearer sesame")).is_ok());
        for wrong in ["Bearer sesam", "Bearer sesame2", "sesame", "Basic sesame"] {
            assert!(access.allows(&request("authorization", wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn without_a_token_only_loopback_is_open_and_not_to_web_pages() {
        let (local, _) = section("127.0.0.1:1", None);
        let access = Access::load(&local).unwrap();
        assert!(access.allows(&request("x", "y")).is_ok());
        assert!(access.allows(&request("origin", "http://evil.example")).is_err());
        let (open, _) = section("0.0.0.0:1", None);
        assert!(Access::load(&open).unwrap().allows(&request("x", "y")).is_err());
    }

    #[test]
    fn an_empty_token_is_a_mistake() {
        let (section, _file) = section("127.0.0.1:1", Some(""));
        assert!(Access::load(&section).is_err());
    }
}
