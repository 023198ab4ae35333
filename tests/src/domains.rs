//! Domain definitions for tests, with BlazingMQ's field names.

use serde_json::{Value, json};

/// A priority domain with limits that no test reaches by accident.
pub fn priority(name: &str) -> Value {
    json!({
        "name": name,
        "mode": {"priority": {}},
        "storage": {
            "config": {"fileBacked": {}},
            "domainLimits": {"messages": 100_000_000, "bytes": 100_000_000_000u64},
            "queueLimits": {"messages": 10_000_000, "bytes": 10_000_000_000u64}
        },
        "messageTtl": 86_400,
        "maxConsumers": 0,
        "maxProducers": 0,
        "maxQueues": 0,
        "maxDeliveryAttempts": 0,
        "deduplicationTimeMs": 300_000,
        "consistency": {"strong": {}}
    })
}

/// [`priority`] with one value changed; `path` is a JSON pointer (`/storage/queueLimits/messages`).
///
/// # Panics
/// When there is nothing at `path`.
#[track_caller]
pub fn priority_with(name: &str, path: &str, value: Value) -> Value {
    let mut definition = priority(name);
    *definition.pointer_mut(path).unwrap_or_else(|| panic!("nothing at {path}")) = value;
    definition
}
