//! Changes that fit and that do not, checkpoints, and directories of earlier versions.

use std::collections::BTreeMap;

use super::*;
use crate::command::{ChangeId, LoggedChange, MetadataCommand, PutCondition, encode_entry};
use crate::domain::DomainDefinition;
use crate::membership::ReplicaAssignment;
use crate::membership::{MembershipCommand, MembershipRefusal, NodeRecord, NodeState};
use crate::refusal::Refusal;

/// A state machine with a log of one term.
#[derive(Default)]
struct Applying {
    state: MetadataState,
    index: u64,
}

impl Applying {
    fn apply(&mut self, commands: &[MetadataCommand]) -> Result<(), Refusal> {
        let change = LoggedChange { id: None, oldest: 0, commands: commands.to_vec() };
        self.apply_logged(&[change]).remove(0)
    }

    fn apply_logged(&mut self, changes: &[LoggedChange]) -> Vec<Result<(), Refusal>> {
        self.index += 1;
        let position = LogPosition { term: 1, index: self.index };
        let applied = self.state.apply(position, &encode_entry(changes).unwrap()).unwrap();
        let outcome = |applied: AppliedChange| match applied.outcome {
            Seen::Applied(outcome) => outcome,
            other => panic!("{other:?}"),
        };
        applied.into_iter().map(outcome).collect()
    }

    fn metadata(&self) -> &Metadata {
        self.state.metadata()
    }
}

fn assign(uri: &str, partition: u32) -> MetadataCommand {
    MetadataCommand::AssignQueue {
        uri: uri.into(),
        domain: "d".into(),
        partition,
        max_queues: None,
    }
}

fn unassign(uri: &str, queue: u32) -> MetadataCommand {
    MetadataCommand::UnassignQueue { uri: uri.into(), queue }
}

fn put(name: &str, when: PutCondition) -> MetadataCommand {
    let definition = Box::new(DomainDefinition::default_template(name).unwrap());
    MetadataCommand::PutDomain { definition, when }
}

#[test]
fn a_queue_keeps_its_first_place_and_ids_are_never_used_again() {
    let mut applying = Applying::default();
    applying.apply(&[assign("bmq://d/a", 2), assign("bmq://d/a", 3)]).unwrap();
    assert_eq!(applying.metadata().queue("bmq://d/a").unwrap().partition, 2);
    let gone = unassign("bmq://d/a", 1);
    applying.apply(&[gone.clone(), assign("bmq://d/a", 3), gone]).unwrap();
    let queue = applying.metadata().queue("bmq://d/a").unwrap().queue;
    assert_eq!(queue, 2, "an old deletion does not hit the new queue");
}

#[test]
fn queues_go_where_the_fewest_are() {
    let mut applying = Applying::default();
    assert_eq!(applying.metadata().emptiest_partition(3), 1);
    applying.apply(&[assign("bmq://d/a", 1), assign("bmq://d/b", 2)]).unwrap();
    assert_eq!(applying.metadata().emptiest_partition(3), 3);
    applying.apply(&[assign("bmq://d/c", 3)]).unwrap();
    assert_eq!(applying.metadata().emptiest_partition(3), 1);
    applying.apply(&[unassign("bmq://d/b", 2)]).unwrap();
    assert_eq!(applying.metadata().emptiest_partition(3), 2);
    assert_eq!((applying.metadata().queues_of("d"), applying.metadata().queue_count()), (2, 2));
}

#[test]
fn what_does_not_fit_says_so_and_ends_the_change() {
    let mut applying = Applying::default();
    let d = || "d".to_owned();
    let unknown = Err(Refusal::UnknownDomain { domain: d() });
    assert_eq!(applying.apply(&[put("d", PutCondition::Update)]), unknown);
    let remove = MetadataCommand::RemoveDomain { name: d(), only_unused: true };
    assert_eq!(applying.apply(&[remove.clone(), put("e", PutCondition::New)]), unknown);
    assert!(applying.metadata().domain("e").is_none(), "what comes behind is not made");
    applying.apply(&[put("d", PutCondition::New)]).unwrap();
    let exists = Err(Refusal::DomainExists { domain: d() });
    assert_eq!(applying.apply(&[put("d", PutCondition::New)]), exists);
    let mut other = DomainDefinition::default_template("d").unwrap();
    other.max_queues = 1;
    let when = PutCondition::IfMissing;
    let definition = Box::new(other.clone());
    applying.apply(&[MetadataCommand::PutDomain { definition, when }]).unwrap();
    assert_eq!(applying.metadata().domain("d").unwrap().definition.max_queues, 10_000);
    let definition = Box::new(other.clone());
    let when = PutCondition::Update;
    applying.apply(&[MetadataCommand::PutDomain { definition, when }]).unwrap();
    other.mode = crate::domain::Mode::Broadcast;
    let definition = Box::new(other);
    let refused = applying.apply(&[MetadataCommand::PutDomain { definition, when }]);
    assert!(matches!(refused, Err(Refusal::DomainUpdate { .. })), "{refused:?}");
    applying.apply(&[assign("bmq://d/a", 1)]).unwrap();
    let in_use = Err(Refusal::DomainInUse { domain: d(), queues: 1 });
    assert_eq!(applying.apply(&[remove]), in_use);
}

#[test]
fn limits_of_queues_hold_where_changes_meet() {
    let mut applying = Applying::default();
    let mut definition = DomainDefinition::default_template("d").unwrap();
    definition.max_queues = 1;
    let (definition, when) = (Box::new(definition), PutCondition::New);
    applying.apply(&[MetadataCommand::PutDomain { definition, when }]).unwrap();
    let checked = |uri: &str, domain: &str, limit: u32| MetadataCommand::AssignQueue {
        uri: uri.into(),
        domain: domain.into(),
        partition: 1,
        max_queues: Some(limit),
    };
    // Both looked when there was none.
    applying.apply(&[checked("bmq://d/a", "d", 9)]).unwrap();
    let full = Err(Refusal::TooManyQueues { domain: "d".into(), limit: 1 });
    assert_eq!(applying.apply(&[checked("bmq://d/b", "d", 9)]), full);
    applying.apply(&[checked("bmq://d/a", "d", 9)]).expect("it has its place");
    let in_all = Err(Refusal::TooManyQueuesInAll { limit: 1 });
    let create = put("e", PutCondition::IfMissing);
    assert_eq!(applying.apply(&[create, checked("bmq://e/a", "e", 1)]), in_all);
    let unknown = Err(Refusal::UnknownDomain { domain: "f".into() });
    assert_eq!(applying.apply(&[checked("bmq://f/a", "f", 9)]), unknown);
}

#[test]
fn a_change_that_comes_again_is_not_made_again() {
    let mut applying = Applying::default();
    let id = |number| Some(ChangeId { node: 2, process: 7, number });
    let logged = |number, commands| LoggedChange { id: id(number), oldest: 1, commands };
    let first = logged(1, vec![assign("bmq://d/a", 1)]);
    let second = logged(2, vec![put("d", PutCondition::New)]);
    let gone = logged(3, vec![unassign("bmq://d/a", 1)]);
    let outcomes = applying.apply_logged(&[first.clone(), second.clone(), gone, first.clone()]);
    assert_eq!(outcomes, vec![Ok(()); 4]);
    assert!(applying.metadata().queue("bmq://d/a").is_none(), "it was not assigned again");
    assert_eq!(applying.apply_logged(&[second]), [Ok(())], "the first outcome, not DomainExists");
    // The memory survives a restart.
    let (puts, _) = applying.state.take_changes();
    let mut restored = MetadataState::restore(puts).unwrap();
    let position = LogPosition { term: 2, index: 9 };
    let again = restored.apply(position, &encode_entry(&[first]).unwrap()).unwrap();
    assert!(again[0].repeated && restored.metadata().queue("bmq://d/a").is_none());
}

#[test]
fn changed_domains_are_found_by_version() {
    let mut applying = Applying::default();
    let names = |metadata: &Metadata, since| -> Vec<String> {
        metadata.domains_changed_since(since).map(|d| d.definition.name.clone()).collect()
    };
    applying.apply(&[put("a", PutCondition::New), put("b", PutCondition::New)]).unwrap();
    let first = applying.metadata().domain_version();
    assert_eq!(names(applying.metadata(), DomainVersion::default()), ["a", "b"]);
    assert_eq!(names(applying.metadata(), first), [""; 0]);
    applying.apply(&[put("c", PutCondition::New)]).unwrap();
    applying.apply(&[put("a", PutCondition::Update)]).unwrap();
    assert_eq!(names(applying.metadata(), first), ["c", "a"]);
    let remove = MetadataCommand::RemoveDomain { name: "c".into(), only_unused: true };
    applying.apply(&[remove]).unwrap();
    assert_eq!(names(applying.metadata(), first), ["a"]);
    let (puts, _) = applying.state.take_changes();
    let restored = MetadataState::restore(puts).unwrap();
    assert_eq!(names(restored.metadata(), first), ["a"]);
    assert_eq!(restored.metadata().domain_version(), DomainVersion { term: 1, index: 3 });
}

#[test]
fn the_queues_of_a_domain_are_found_by_its_name() {
    let mut applying = Applying::default();
    for uri in ["bmq://c/z", "bmq://d/a", "bmq://d/b", "bmq://d.e/a", "bmq://da/a"] {
        applying.apply(&[assign(uri, 1)]).unwrap();
    }
    let uris: Vec<&str> = applying.metadata().queues_in("d").map(|(uri, _)| uri).collect();
    assert_eq!(uris, ["bmq://d/a", "bmq://d/b"]);
    assert_eq!(applying.metadata().queues_in("x").count(), 0);
}

#[test]
fn a_copy_does_not_change() {
    let mut applying = Applying::default();
    applying.apply(&[assign("bmq://d/a", 1), put("d", PutCondition::New)]).unwrap();
    let copy = applying.metadata().clone();
    applying.apply(&[unassign("bmq://d/a", 1), assign("bmq://d/b", 1)]).unwrap();
    let uris = |metadata: &Metadata| -> Vec<String> {
        metadata.queues().map(|(uri, _)| uri.to_owned()).collect()
    };
    assert_eq!(uris(&copy), ["bmq://d/a"]);
    assert_eq!(uris(applying.metadata()), ["bmq://d/b"]);
    assert_eq!((copy.applied().index, applying.metadata().applied().index), (1, 2));
}

#[test]
fn a_checkpoint_brings_everything_back() {
    let mut applying = Applying::default();
    let gone = unassign("bmq://d/a", 1);
    let commands =
        [put("d", PutCondition::New), assign("bmq://d/a", 1), assign("bmq://d/b", 2), gone];
    applying.apply(&commands).unwrap();
    let (puts, deletes) = applying.state.take_changes();
    assert_eq!(deletes, vec![b"qbmq://d/a".to_vec()]);
    let restored = MetadataState::restore(puts).unwrap();
    let (restored, metadata) = (restored.metadata(), applying.metadata());
    assert_eq!(restored.domain("d"), metadata.domain("d"));
    assert_eq!(restored.queue("bmq://d/b"), metadata.queue("bmq://d/b"));
    assert!(restored.queue("bmq://d/a").is_none());
    assert_eq!((restored.next_queue, restored.next_domain), (2, 1));
    assert_eq!(restored.emptiest_partition(2), 1);
}

#[test]
fn changes_that_were_put_back_are_written_as_they_are_by_then() {
    let mut applying = Applying::default();
    applying.apply(&[assign("bmq://d/a", 1), assign("bmq://d/b", 1)]).unwrap();
    let (puts, deletes) = applying.state.take_changes();
    applying.apply(&[unassign("bmq://d/a", 1)]).unwrap();
    applying.state.put_back(&puts, &deletes);
    let (puts, deletes) = applying.state.take_changes();
    assert_eq!(deletes, vec![b"qbmq://d/a".to_vec()]);
    let keys: Vec<_> = puts.iter().map(|(key, _)| key.as_slice()).collect();
    assert_eq!(keys, [&b"qbmq://d/b"[..], b"nq"]);
    assert_eq!(applying.state.take_changes(), (vec![], vec![]));
}

#[test]
fn a_checkpoint_brings_the_nodes_back() {
    let mut applying = Applying::default();
    let command = |change| MetadataCommand::Membership { change };
    let node = |id: u32| NodeRecord {
        id,
        peers: format!("10.0.0.{id}:7114"),
        state: NodeState::Active,
        directory: Some(u64::MAX - u64::from(id)),
        founder: true,
        replaces: None,
    };
    let seed = MembershipCommand::Seed { nodes: vec![node(1), node(2)], replicas: Some(2) };
    let add = |id| MembershipCommand::Add { id, peers: "h:1".into(), replaces: None };
    let voters = ReplicaAssignment { voters: vec![1, 2], ..ReplicaAssignment::default() };
    let places = BTreeMap::from([(0, voters)]);
    applying.apply(&[command(seed.clone())]).unwrap();
    let again = applying.apply(&[command(seed)]);
    assert_eq!(again, Err(Refusal::Membership(MembershipRefusal::Already)));
    let commands = [
        command(add(3)),
        command(add(4)),
        command(MembershipCommand::Remove { id: 4 }),
        command(MembershipCommand::Place { version: 4, places }),
    ];
    applying.apply(&commands).unwrap();
    let membership = applying.metadata().membership();
    assert_eq!((membership.version(), membership.nodes().count()), (5, 3));
    let (puts, deletes) = applying.state.take_changes();
    assert_eq!(deletes, vec![b"m4".to_vec()]);
    let restored = MetadataState::restore(puts).unwrap();
    assert_eq!(restored.metadata().membership(), applying.metadata().membership());
}

#[test]
fn a_directory_of_an_earlier_version_opens() {
    let template = DomainDefinition::default_template("d").unwrap();
    let definition = serde_json::to_string(&template).unwrap();
    let record = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    let records = [
        record("dd", &format!("{{\"id\":1,\"definition\":{definition}}}")),
        record("qbmq://d/a", "{\"queue\":1,\"partition\":2,\"domain\":\"d\"}"),
        record("m1", "{\"id\":1,\"peers\":\"h:1\",\"state\":\"active\",\"founder\":true}"),
        record("p2", "{\"voters\":[1],\"leader\":1}"),
        record("nr", "{\"version\":3}"),
        record("nq", "1"),
        record("nd", "1"),
    ];
    let mut state = MetadataState::restore(records).unwrap();
    assert_eq!(state.metadata().domain("d").unwrap().version, DomainVersion::default());
    assert_eq!(state.metadata().queue("bmq://d/a").unwrap().partition, 2);
    assert_eq!(state.metadata().membership().version(), 3);
    let old = format!("[{{\"put_domain\":{{\"definition\":{definition}}}}}]");
    let position = LogPosition { term: 4, index: 30 };
    let applied = state.apply(position, old.as_bytes()).unwrap();
    assert_eq!(applied[0].outcome, Seen::Applied(Ok(())), "it replaces, as it did");
    let changed = state.metadata().domains_changed_since(DomainVersion::default());
    assert_eq!(changed.count(), 1);
}

#[test]
fn what_cannot_be_read_is_an_error() {
    assert!(MetadataState::restore([(b"x1".to_vec(), b"{}".to_vec())]).is_err());
    assert!(MetadataState::restore([(b"qbmq://d/a".to_vec(), b"{".to_vec())]).is_err());
    assert!(MetadataState::default().apply(LogPosition::default(), b"not json").is_err());
}
