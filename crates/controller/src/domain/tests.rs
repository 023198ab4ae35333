//! Documents of BlazingMQ, refusals by path, and the rules for changes.

use super::*;
use std::collections::BTreeMap;

/// A domain file as BlazingMQ's own examples write them.
const BLAZINGMQ_FILE: &str = r#"{
    "definition": {
        "location": "local",
        "parameters": {
            "name": "bmq.test.mmap.priority",
            "mode": {"priority": {}},
            "storage": {
                "config": {"fileBacked": {}},
                "domainLimits": {"messages": 20000, "bytes": 2097152,
                    "messagesWatermarkRatio": 0.7, "bytesWatermarkRatio": 0.9},
                "queueLimits": {"messages": 2000, "bytes": 1048576}
            },
            "messageTtl": 300,
            "maxConsumers": 1, "maxProducers": 2, "maxQueues": 3, "maxIdleTime": 4,
            "maxDeliveryAttempts": 5,
            "deduplicationTimeMs": 6000,
            "msgGroupIdConfig": {"rebalance": false, "maxGroups": 2147483647, "ttlSeconds": 0},
            "consistency": {"eventual": {}}
        }
    }
}"#;

/// The smallest document there is.
const SMALLEST: &str = r#"{"name": "d", "mode": {"priority": {}}, "messageTtl": 60, "storage": {
    "config": {"fileBacked": {}}, "domainLimits": {"messages": 1, "bytes": 1},
    "queueLimits": {"messages": 1, "bytes": 1}}}"#;

fn template() -> DomainDefinition {
    DomainDefinition::default_template("shop.orders").unwrap()
}

/// The refusal of `SMALLEST` with one text replaced.
#[track_caller]
fn refused(from: &str, to: &str, expected: &str) {
    assert!(SMALLEST.contains(from), "{from}");
    let error = DomainDefinition::from_json(&SMALLEST.replacen(from, to, 1)).unwrap_err();
    assert_eq!(error.to_string(), expected, "{from} -> {to}");
}

/// Replaces `"messageTtl": 60` by itself and more fields.
#[track_caller]
fn refused_with(fields: &str, expected: &str) {
    refused(r#""messageTtl": 60"#, &format!(r#""messageTtl": 60, {fields}"#), expected);
}

#[test]
fn a_blazingmq_file_is_read_whole() {
    let domain = DomainDefinition::from_json(BLAZINGMQ_FILE).unwrap();
    assert_eq!(domain.name, "bmq.test.mmap.priority");
    assert_eq!(domain.mode, Mode::Priority);
    assert_eq!(domain.storage.config, StorageKind::FileBacked);
    let limits = domain.storage.domain_limits;
    assert_eq!((limits.messages, limits.bytes), (20_000, 2_097_152));
    assert_eq!((limits.messages_watermark_ratio, limits.bytes_watermark_ratio), (0.7, 0.9));
    assert_eq!(domain.storage.queue_limits, Limits::new(2_000, 1_048_576));
    assert_eq!(domain.message_ttl, 300);
    let counts = [domain.max_consumers, domain.max_producers, domain.max_queues];
    assert_eq!(counts, [1, 2, 3]);
    assert_eq!(domain.max_idle_time, 4);
    assert_eq!(domain.max_delivery_attempts, 5);
    assert_eq!(domain.deduplication_time_ms, 6_000);
    assert_eq!(domain.consistency, Consistency::Eventual);
    domain.check_supported().unwrap();
}

#[test]
fn what_is_absent_is_as_in_blazingmq() {
    let domain = DomainDefinition::from_json(SMALLEST).unwrap();
    let counts = [domain.max_consumers, domain.max_producers, domain.max_queues];
    assert_eq!(counts, [0, 0, 0]);
    assert_eq!((domain.max_idle_time, domain.max_delivery_attempts), (0, 0));
    assert_eq!(domain.deduplication_time_ms, 300_000);
    assert_eq!(domain.consistency, Consistency::Strong);
    assert!(domain.subscriptions.is_empty());
}

#[test]
fn the_template_is_valid_served_and_survives_its_own_text() {
    let domain = template();
    domain.check_supported().unwrap();
    assert_eq!(DomainDefinition::from_json(&domain.to_json()).unwrap(), domain);
    assert!(DomainDefinition::default_template("a b").is_err());
}

#[test]
fn every_form_of_a_choice_survives_its_own_text() {
    let mut domain = template();
    domain.mode = Mode::Fanout { app_ids: vec!["audit".to_owned()], publish_app_id_metrics: false };
    domain.storage.config = StorageKind::InMemory;
    domain.consistency = Consistency::Eventual;
    domain.subscriptions = vec![Subscription {
        app_id: "audit".to_owned(),
        expression: SubscriptionExpression {
            version: "E_VERSION_1".to_owned(),
            text: "price > 5".to_owned(),
        },
    }];
    assert_eq!(DomainDefinition::from_json(&domain.to_json()).unwrap(), domain);
    domain.subscriptions.clear();
    domain.mode = Mode::Broadcast;
    assert_eq!(DomainDefinition::from_json(&domain.to_json()).unwrap(), domain);
}

#[test]
fn a_strong_broadcast_is_corrected_to_eventual() {
    let text = SMALLEST.replace("priority", "broadcast");
    let domain = DomainDefinition::from_json(&text).unwrap();
    assert_eq!(domain.consistency, Consistency::Eventual);
}

#[test]
fn unknown_fields_are_refused_with_their_path() {
    refused_with(
        r#""colour": 1"#,
        "colour: unknown field `colour`; allowed here: `name`, `mode`, `storage`, `maxConsumers`, \
         `maxProducers`, `maxQueues`, `maxIdleTime`, `messageTtl`, `maxDeliveryAttempts`, \
         `deduplicationTimeMs`, `consistency`, `subscriptions`, `msgGroupIdConfig`",
    );
    refused(
        r#""queueLimits": {"messages": 1"#,
        r#""queueLimits": {"mesages": 1"#,
        "storage.queueLimits.mesages: unknown field `mesages`; allowed here: `messages`, `bytes`, \
         `messagesWatermarkRatio`, `bytesWatermarkRatio`",
    );
    let text = BLAZINGMQ_FILE.replace("\"domainLimits\": {", "\"domainLimits\": {\"x\": 0, ");
    let error = DomainDefinition::from_json(&text).unwrap_err().to_string();
    assert!(
        error.starts_with("definition.parameters.storage.domainLimits.x: unknown field `x`;"),
        "{error}"
    );
    let text = BLAZINGMQ_FILE.replace("\"location\"", "\"locaton\"");
    assert_eq!(
        DomainDefinition::from_json(&text).unwrap_err().to_string(),
        "definition.locaton: unknown field `locaton`; allowed here: `location` or `parameters`"
    );
}

#[test]
fn wrong_shapes_are_refused_with_their_path() {
    refused(r#""messageTtl": 60, "#, "", "document: field `messageTtl` is missing here");
    refused(
        r#""messageTtl": 60"#,
        r#""messageTtl": -1"#,
        "messageTtl: invalid value: integer `-1`, expected a whole number, 0 or more",
    );
    refused(
        r#"{"priority": {}}"#,
        r#"{"prority": {}}"#,
        "mode: unknown value `prority`; allowed: `priority`, `fanout`, `broadcast`",
    );
    refused(
        r#"{"priority": {}}"#,
        r#"{"priority": {}, "broadcast": {}}"#,
        "mode: exactly one choice is allowed here",
    );
    refused(r#"{"priority": {}}"#, "{}", "mode: exactly one choice is allowed here");
    refused(
        r#"{"priority": {}}"#,
        r#"{"fanout": {}}"#,
        "mode.fanout: field `appIDs` is missing here",
    );
}

#[test]
fn what_is_no_document_is_refused() {
    let refusal = |text: &str| DomainDefinition::from_json(text).unwrap_err().to_string();
    assert_eq!(refusal("[]"), "document: a domain definition is a JSON object");
    assert_eq!(refusal("{\n x"), "not a JSON document: key must be a string at line 2 column 2");
    assert_eq!(
        refusal(r#"{"redirect": "other"}"#),
        "redirect: domains that redirect to another are not served yet; define the domain itself \
         to=\"other\""
    );
    let long = " ".repeat(MAX_DOCUMENT_BYTES + 1);
    assert_eq!(
        refusal(&long),
        "a domain definition has at most 1048576 bytes; this is another kind of file bytes=1048577"
    );
    let deep = "[".repeat(100_000);
    assert!(refusal(&deep).starts_with("not a JSON document: recursion limit exceeded"));
}

#[test]
fn impossible_values_are_refused_all_at_once() {
    let text = BLAZINGMQ_FILE
        .replace("bmq.test.mmap.priority", "a/b")
        .replace("\"messageTtl\": 300", "\"messageTtl\": 0")
        .replace("\"maxDeliveryAttempts\": 5", "\"maxDeliveryAttempts\": 64")
        .replace("\"deduplicationTimeMs\": 6000", "\"deduplicationTimeMs\": 3600001")
        .replace("\"messages\": 20000", "\"messages\": 0")
        .replace("\"bytes\": 1048576", "\"bytes\": 9223372036854775808")
        .replace("0.7", "1.1");
    assert_eq!(
        DomainDefinition::from_json(&text).unwrap_err().to_string(),
        "name: a name has only letters, digits, '-', '_' and '.' value=\"a/b\"\n\
         messageTtl: allowed is 1 to 3153600000 seconds value=0\n\
         maxDeliveryAttempts: allowed is 1 to 63, or 0 for any number value=64\n\
         deduplicationTimeMs: allowed is 0 to 3600000 milliseconds value=3600001\n\
         storage.domainLimits.messages: allowed is 1 to 9223372036854775807 value=0\n\
         storage.domainLimits.messagesWatermarkRatio: allowed is 0 to 1 value=1.1\n\
         storage.queueLimits.bytes: allowed is 1 to 9223372036854775807 value=9223372036854775808"
    );
}

#[test]
fn apps_and_subscriptions_belong_together() {
    refused(
        r#"{"priority": {}}"#,
        r#"{"fanout": {"appIDs": ["a", "b?", "a", "__default"]}}"#,
        "mode.fanout.appIDs[1]: a name has only letters, digits, '-', '_' and '.' value=\"b?\"\n\
         mode.fanout.appIDs[2]: this app is in the list already value=\"a\"\n\
         mode.fanout.appIDs[3]: this app id is the broker's own; choose another \
         value=\"__default\"",
    );
    let of = |app: &str, version: &str, text: &str| {
        format!(
            r#"{{"appId": "{app}", "expression": {{"version": "{version}", "text": "{text}"}}}}"#
        )
    };
    let good = of("", "E_VERSION_1", "x > 1");
    refused_with(
        &format!(r#""subscriptions": [{good}, {good}]"#),
        "subscriptions[1].appId: this app has a subscription already; join the two with || \
         value=\"\"",
    );
    refused_with(
        &format!(r#""subscriptions": [{}]"#, of("a", "E_VERSION_2", &"x".repeat(129))),
        "subscriptions[0].appId: only fanout domains have apps; leave it empty value=\"a\"\n\
         subscriptions[0].expression.version: allowed is \"E_VERSION_1\" value=\"E_VERSION_2\"\n\
         subscriptions[0].expression.text: allowed are 1 to 128 bytes length=129",
    );
    let fanout =
        SMALLEST.replace(r#"{"priority": {}}"#, r#"{"fanout": {"appIDs": ["a"]}}"#).replacen(
            '{',
            &format!(r#"{{"subscriptions": [{}], "#, of("b", "E_VERSION_1", "x > 1")),
            1,
        );
    assert_eq!(
        DomainDefinition::from_json(&fanout).unwrap_err().to_string(),
        "subscriptions[0].appId: name one of mode.fanout.appIDs value=\"b\""
    );
}

#[test]
fn the_place_of_a_document_may_name_the_domain() {
    let nameless = SMALLEST.replace(r#""name": "d", "#, "");
    assert_eq!(DomainDefinition::from_json_named("e", &nameless).unwrap().name, "e");
    assert_eq!(DomainDefinition::from_json_named("d", SMALLEST).unwrap().name, "d");
    assert_eq!(
        DomainDefinition::from_json_named("e", SMALLEST).unwrap_err().to_string(),
        "name: the document is for another domain; correct one of the two value=\"d\" \
         expected=\"e\""
    );
    let error = DomainDefinition::from_json(&nameless).unwrap_err().to_string();
    assert_eq!(error, "document: field `name` is missing here");
}

#[test]
fn what_is_not_served_yet_says_what_to_use_instead() {
    let refusal = |change: &dyn Fn(&mut DomainDefinition)| {
        let mut domain = template();
        change(&mut domain);
        domain.validate().unwrap();
        domain.check_supported().unwrap_err().to_string()
    };
    assert_eq!(
        refusal(&|d| d.mode = Mode::Fanout { app_ids: vec![], publish_app_id_metrics: true }),
        "mode: fanout is not served yet; use {\"priority\": {}} domain=\"shop.orders\""
    );
    assert_eq!(
        refusal(&|d| d.mode = Mode::Broadcast),
        "mode: broadcast is not served yet; use {\"priority\": {}} domain=\"shop.orders\""
    );
    assert_eq!(
        refusal(&|d| d.storage.config = StorageKind::InMemory),
        "storage.config: inMemory storage is not served yet; use {\"fileBacked\": {}} \
         domain=\"shop.orders\""
    );
    assert_eq!(
        refusal(&|d| {
            let expression = SubscriptionExpression {
                version: "E_VERSION_1".to_owned(),
                text: "x > 1".to_owned(),
            };
            d.subscriptions = vec![Subscription { app_id: String::new(), expression }];
        }),
        "subscriptions: filtering by application is not served yet; remove the field \
         domain=\"shop.orders\""
    );
}

#[test]
fn a_living_domain_keeps_name_mode_and_storage() {
    let now = template();
    let refusal = |change: &dyn Fn(&mut DomainDefinition)| {
        let mut next = now.clone();
        change(&mut next);
        now.check_update(&next).map_err(|error| error.to_string())
    };
    refusal(&|d| {
        d.message_ttl = 5;
        d.storage.queue_limits = Limits::new(1, 1);
        d.consistency = Consistency::Eventual;
    })
    .unwrap();
    assert_eq!(
        refusal(&|d| d.mode = Mode::Broadcast).unwrap_err(),
        "mode: cannot change while the domain exists; delete and create it, or keep the value \
         is=priority wanted=broadcast"
    );
    assert_eq!(
        refusal(&|d| d.storage.config = StorageKind::InMemory).unwrap_err(),
        "storage.config: cannot change while the domain exists; delete and create it, or keep the \
         value is=fileBacked wanted=inMemory"
    );
    assert!(
        refusal(&|d| d.name = "other".to_owned()).unwrap_err().starts_with("name: cannot change")
    );

    let fanout = |ids: &[&str]| DomainDefinition {
        mode: Mode::Fanout {
            app_ids: ids.iter().map(|&id| id.to_owned()).collect(),
            publish_app_id_metrics: true,
        },
        ..template()
    };
    fanout(&["a"]).check_update(&fanout(&["a", "b"])).unwrap();
}

#[test]
fn names_are_those_of_queue_uris() {
    for name in ["a", "bmq.test.mmap.priority", "my_domain-2", "my.dom.~dev", "a.~x-1"] {
        check_domain_name(name).unwrap();
    }
    let refusal = |name: &str| check_domain_name(name).unwrap_err();
    assert_eq!(refusal(""), NameError::Empty);
    assert_eq!(refusal(".~dev"), NameError::Empty);
    assert_eq!(refusal(&"x".repeat(251)), NameError::TooLong(251));
    for name in ["a/b", "a b", "a~b", "é", "a?", "(other)"] {
        assert_eq!(refusal(name), NameError::Characters(name.to_owned()));
    }
    assert_eq!(refusal("a.~"), NameError::Tier(String::new()));
    assert_eq!(refusal("a.~b.c"), NameError::Tier("b.c".to_owned()));
    assert_eq!(refusal("a.~b.~c"), NameError::Tier("b.~c".to_owned()));
    check_app_id("audit_2").unwrap();
    assert_eq!(check_app_id("__default"), Err(NameError::Reserved("__default".to_owned())));
    assert!(check_app_id("").is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(
        text in "(\\{|\\}|\\[|\\]|\"|:|,|name|mode|priority|storage|[0-9]){0,60}",
    ) {
        let _ = DomainDefinition::from_json(&text);
    }
}

#[test]
fn the_domains_page_has_every_field_with_its_default_and_the_template() {
    let page = include_str!("../../../../docs/domains.md");
    let fields = page.split("## Fields").nth(1).unwrap().split("\n## ").next().unwrap();
    let cell = |text: &str| text.trim().trim_matches('`').to_owned();
    let documented: BTreeMap<String, (String, String)> = fields
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<_> = line.trim_start_matches("| ").split(" | ").map(cell).collect();
            (cells[0].clone(), (cells[1].clone(), cells[2].clone()))
        })
        .collect();

    let fixed = |default: &str, template: &str| (default.to_owned(), template.to_owned());
    let mut expected = BTreeMap::from([
        ("name".to_owned(), fixed("required", "the domain's")),
        ("subscriptions".to_owned(), fixed("[]", "[]")),
        ("msgGroupIdConfig".to_owned(), fixed("ignored", "ignored")),
    ]);
    let smallest = DomainDefinition::from_json(SMALLEST).unwrap().to_json();
    let defaults = leaves(&serde_json::from_str(&smallest).unwrap());
    let given = leaves(&serde_json::from_str(SMALLEST).unwrap());
    for (path, template) in leaves(&serde_json::from_str(&template().to_json()).unwrap()) {
        let default = if given.contains_key(&path) { "required" } else { &defaults[&path] };
        expected.entry(path).or_insert_with(|| (default.to_owned(), template));
    }
    assert_eq!(documented, expected, "left: docs/domains.md, right: the code");
}

/// Every field of a document by its path; a choice counts as a value.
fn leaves(document: &serde_json::Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, value) in document.as_object().unwrap() {
        match value {
            serde_json::Value::Object(_) if name == "storage" || name.ends_with("Limits") => {
                for (inner, text) in leaves(value) {
                    found.insert(format!("{name}.{inner}"), text);
                }
            }
            value => _ = found.insert(name.clone(), value.to_string()),
        }
    }
    found
}
