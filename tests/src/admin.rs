//! The administration's HTTP, asked without an HTTP library: one request per connection.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use serde_json::Value;

use crate::wait::LIMIT;

/// Asks one broker's admin address.
#[derive(Clone, Copy, Debug)]
pub struct Admin {
    port: u16,
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.body))
    }
}

impl Admin {
    /// The admin address on this port of 127.0.0.1.
    pub fn on_port(port: u16) -> Self {
        Self { port }
    }

    /// `GET path`; `None` when nobody answers.
    pub fn try_get(&self, path: &str) -> Option<Answer> {
        self.request("GET", path, "").ok()
    }

    /// `GET path`.
    ///
    /// # Panics
    /// When nobody answers.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "").unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// `GET path` that must succeed, as JSON.
    ///
    /// # Panics
    /// When the answer is not 200 with JSON.
    #[track_caller]
    pub fn get_json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.body);
        answer.json()
    }

    /// A request with a JSON body (or an empty one).
    ///
    /// # Panics
    /// When nobody answers.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        self.request(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// A request with a JSON body; `None` when there was no answer.
    pub fn try_send(&self, method: &str, path: &str, body: &str) -> Option<Answer> {
        self.request(method, path, body).ok()
    }

    /// A request that must succeed with a 2xx status.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn must(&self, method: &str, path: &str, body: &str) -> Answer {
        let answer = self.send(method, path, body);
        assert!(
            (200..300).contains(&answer.status),
            "{method} {path}: status={} {}",
            answer.status,
            answer.body
        );
        answer
    }

    /// Defines a domain.
    ///
    /// # Panics
    /// When the broker refuses it.
    #[track_caller]
    pub fn define_domain(&self, definition: &Value) {
        self.must("POST", "/api/v1/domains", &definition.to_string());
    }

    /// What the broker says about a queue; `queue` is `domain/queue`. `None` when it does not know
    /// the queue.
    ///
    /// # Panics
    /// When the answer is anything else.
    #[track_caller]
    pub fn queue(&self, queue: &str) -> Option<Value> {
        let answer = self.get(&format!("/api/v1/queues/{queue}"));
        match answer.status {
            200 => Some(answer.json()),
            404 => None,
            _ => panic!("queue {queue}: status={} {}", answer.status, answer.body),
        }
    }

    /// Messages that wait in a queue, confirmed ones not counted; 0 for an unknown queue.
    #[track_caller]
    pub fn backlog(&self, queue: &str) -> u64 {
        self.queue(queue).map_or(0, |shown| {
            shown["backlog_messages"].as_u64().unwrap_or_else(|| panic!("no backlog: {shown}"))
        })
    }

    /// A number that one app of a queue shows, `consumers` for example.
    #[track_caller]
    pub fn app_number(&self, queue: &str, name: &str) -> u64 {
        self.queue(queue).map_or(0, |shown| {
            shown["apps"][0][name].as_u64().unwrap_or_else(|| panic!("no {name}: {shown}"))
        })
    }

    fn request(&self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let length = body.len();
        // A server may answer, and close, before it has read a body that is too large for it: then
        // the answer counts, not the failed write or the reset behind it.
        let _ = write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{kind}\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let mut bytes = Vec::new();
        if let Err(error) = stream.read_to_end(&mut bytes)
            && bytes.is_empty()
        {
            return Err(error);
        }
        parse(&bytes).ok_or_else(|| {
            let text = String::from_utf8_lossy(&bytes);
            std::io::Error::other(format!("not an HTTP answer: {text:?}"))
        })
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { join_chunks(body)? } else { body.to_owned() };
    Some(Answer { status, body })
}

fn join_chunks(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_plain_and_chunked_answers() {
        let plain = parse(b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\nno").expect("parsed");
        assert_eq!((plain.status, plain.body.as_str()), (503, "no"));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                        3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).expect("parsed").body, "abcde");
        assert!(parse(b"garbage").is_none());
    }
}
