//! Requests to a node's admin address: JSON both ways, errors told in the node's own words.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

/// Where the admin address is and who asks.
#[derive(Args, Debug)]
pub(crate) struct AdminAddress {
    /// The node's admin address
    #[arg(
        long,
        global = true,
        env = "FLINTMQ_ADMIN_URL",
        default_value = "http://127.0.0.1:8114",
        value_name = "URL"
    )]
    url: String,
    /// Token for calls that change something (prefer --token-file: arguments show up in process
    /// lists)
    #[arg(
        long,
        global = true,
        env = "FLINTMQ_ADMIN_TOKEN",
        hide_env_values = true,
        conflicts_with = "token_file",
        value_name = "TOKEN"
    )]
    token: Option<String>,
    /// File with the token
    #[arg(long, global = true, env = "FLINTMQ_ADMIN_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A node's `/api/v1`.
pub(crate) struct AdminClient {
    agent: ureq::Agent,
    base: String,
    token: Option<String>,
}

impl AdminClient {
    /// Reads the token file, contacts nobody.
    pub(crate) fn new(address: &AdminAddress) -> Result<Self> {
        if !address.url.starts_with("http://") {
            bail!("the admin address starts with http:// url={:?}", address.url);
        }
        let token = match &address.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read the token file={}", file.display()))?;
                Some(text.trim().to_owned())
            }
            None => address.token.clone(),
        };
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(Duration::from_secs(120)))
            .user_agent(concat!("flintmq-admin/", env!("CARGO_PKG_VERSION")));
        if is_this_machine(&address.url) {
            // A proxy of the environment would look for the node on its own machine.
            config = config.proxy(None);
        }
        let agent = config.build().new_agent();
        Ok(Self { agent, base: address.url.trim_end_matches('/').to_owned(), token })
    }

    /// `GET /api/v1/{path}`
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let url = self.url(path);
        let mut request = self.agent.get(&url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        self.answer(&url, request.call())
    }

    /// `POST /api/v1/{path}`
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let url = self.url(path);
        self.send(&url, self.agent.post(&url), body)
    }

    /// `PUT /api/v1/{path}`
    pub(crate) fn put(&self, path: &str, body: &Value) -> Result<Value> {
        let url = self.url(path);
        self.send(&url, self.agent.put(&url), body)
    }

    /// `DELETE /api/v1/{path}`
    pub(crate) fn delete(&self, path: &str) -> Result<Value> {
        let url = self.url(path);
        let mut request = self.agent.delete(&url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        self.answer(&url, request.call())
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.base)
    }

    fn send(
        &self,
        url: &str,
        mut request: ureq::RequestBuilder<ureq::typestate::WithBody>,
        body: &Value,
    ) -> Result<Value> {
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        self.answer(url, request.send_json(body))
    }

    fn answer(
        &self,
        url: &str,
        result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value> {
        let mut response = result.with_context(|| {
            format!("no answer from the admin address: is the node running there? url={url}")
        })?;
        let status = response.status().as_u16();
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER_BYTES)
            .read_to_string()
            .with_context(|| format!("the answer broke off url={url}"))?;
        if (200..300).contains(&status) {
            if text.trim().is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_str(&text).with_context(|| {
                format!("the answer is not JSON: is this a FlintMQ admin address? url={url}")
            });
        }
        Err(Refusal { status, said: refusal(status, url, &text) }.into())
    }
}

/// Whether a URL names the machine that the program runs on.
fn is_this_machine(url: &str) -> bool {
    let Ok(uri) = url.parse::<ureq::http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// The node answered that it has not done what was asked.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: u16,
    said: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.said)
    }
}

impl std::error::Error for Refusal {}

/// The largest answer that is read: a peek at many large messages.
const MAX_ANSWER_BYTES: u64 = 256 << 20;

/// What the node says about a request that it did not do.
fn refusal(status: u16, url: &str, text: &str) -> String {
    let body: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let mut said = match body["error"].as_str() {
        Some(error) => format!("{error} status={status}"),
        None => format!("the node refused the request status={status} url={url}"),
    };
    if let Some(hint) = body["hint"].as_str().filter(|hint| !hint.is_empty()) {
        said.push_str("\nhint: ");
        said.push_str(hint);
    } else if matches!(status, 401 | 403) {
        said.push_str("\nhint: pass the node's admin token with --token-file");
    }
    said
}

/// One part of a path, with everything escaped that a URL cannot carry there.
pub(crate) fn path_part(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_node_said() {
        let said = refusal(409, "http://h", r#"{"error":"the domain exists","hint":"use update"}"#);
        assert_eq!(said, "the domain exists status=409\nhint: use update");
        assert!(refusal(401, "http://h", "").contains("--token-file"));
        assert!(refusal(502, "http://h", "<html>").contains("url=http://h"));
    }

    /// A node that answers one request; gives what it was asked.
    fn node(answer: &'static str) -> (AdminClient, std::thread::JoinHandle<String>) {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..read]).to_ascii_lowercase()
        });
        let address = AdminAddress { url, token: Some("secret".to_owned()), token_file: None };
        (AdminClient::new(&address).unwrap(), asked)
    }

    #[test]
    fn requests_carry_the_token_and_answers_are_read() {
        let (client, asked) =
            node("HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\n{\"a\": 1}");
        assert_eq!(client.get("status").unwrap()["a"], 1);
        let asked = asked.join().unwrap();
        assert!(asked.starts_with("get /api/v1/status http/1.1"), "{asked}");
        assert!(asked.contains("authorization: bearer secret"), "{asked}");

        let (client, asked) = node("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        assert!(client.delete("domains/d").unwrap().is_null());
        assert!(asked.join().unwrap().starts_with("delete /api/v1/domains/d "));

        let (client, _) = node(
            "HTTP/1.1 404 Not Found\r\nContent-Length: 20\r\nConnection: close\r\n\r\n{\"error\": \"unknown\"}",
        );
        let refused = client.get("queues/d/q").unwrap_err().downcast::<Refusal>().unwrap();
        assert_eq!(refused.status, 404);
        assert_eq!(refused.to_string(), "unknown status=404");

        let (client, _) =
            node("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>");
        let odd = client.get("status").unwrap_err().to_string();
        assert!(odd.contains("not JSON"), "{odd}");
    }

    #[test]
    fn a_missing_token_file_and_a_wrong_address_are_told() {
        let address = |url: &str, file: Option<&str>| AdminAddress {
            url: url.to_owned(),
            token: None,
            token_file: file.map(PathBuf::from),
        };
        assert!(AdminClient::new(&address("ftp://h", None)).is_err());
        assert!(AdminClient::new(&address("http://h", Some("/nonexistent/token"))).is_err());
    }

    #[test]
    fn no_proxy_is_asked_for_a_node_on_this_machine() {
        for url in
            ["http://127.0.0.1:8114", "http://[::1]:8114/", "http://LOCALHOST", "http://127.9.9.9"]
        {
            assert!(is_this_machine(url), "{url}");
        }
        for url in
            ["http://10.0.0.1:8114", "http://localhost.example", "http://[fe80::1]:1", "http://"]
        {
            assert!(!is_this_machine(url), "{url}");
        }
    }

    #[test]
    fn path_parts_are_escaped() {
        assert_eq!(path_part("a.b-c_d~1"), "a.b-c_d~1");
        assert_eq!(path_part("a/b?c#d e"), "a%2Fb%3Fc%23d%20e");
    }
}
