//! A data directory of which a part is missing, or is another one's, or of before.

use super::*;

const OWN: NodeId = NodeId(2);

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(
        &self,
        store: &str,
        runs: (u64, u64),
        is_new: bool,
    ) -> Result<Formation, FormationError> {
        let directory = Directory { path: self.0.path(), store, runs, is_new };
        Formation::open(OWN, &directory)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join(FILE)
    }

    /// A founder that has served.
    fn formed() -> Self {
        let place = Self::new();
        let mut formation = place.open("s", (0, 10), true).unwrap();
        formation.founders = BTreeMap::from([(1, 7), (OWN.0, formation.number)]);
        save(&formation).unwrap();
        place
    }
}

#[test]
fn a_whole_directory_is_taken_again() {
    let place = Place::new();
    let first = place.open("s", (0, 10), true).unwrap();
    assert!(!first.is_formed(OWN) && first.number != 0);
    let second = place.open("s", (10, 20), true).unwrap();
    assert_eq!((first.number, second.run), (second.number, 20));
    let place = Place::formed();
    for (runs, is_new) in [((10, 20), true), ((20, 30), false), ((40, 50), false)] {
        let formation = place.open("s", runs, is_new).unwrap();
        assert!(formation.is_formed(OWN));
        assert_eq!(formation.first_members(), [NodeId(1), OWN]);
    }
}

#[test]
fn a_store_that_was_lost_or_exchanged_is_refused() {
    let place = Place::formed();
    for is_new in [true, false] {
        let refused = place.open("t", (0, 11), is_new);
        assert!(matches!(refused, Err(FormationError::OtherStore(_))), "{refused:?}");
    }
    let never_formed = Place::new();
    never_formed.open("s", (0, 10), true).unwrap();
    let refused = never_formed.open("t", (0, 11), true);
    assert!(matches!(refused, Err(FormationError::OtherStore(_))), "its promises count");
}

#[test]
fn a_store_of_before_is_refused() {
    let place = Place::formed();
    place.open("s", (10, 20), false).unwrap();
    for is_new in [true, false] {
        let refused = place.open("s", (10, 30), is_new);
        assert!(matches!(refused, Err(FormationError::OlderStore(_))), "{refused:?}");
    }
    place.open("s", (20, 30), false).unwrap();
}

#[test]
fn a_lost_or_earlier_record_is_refused() {
    let place = Place::new();
    place.open("s", (0, 10), true).unwrap();
    let before = std::fs::read(place.file()).unwrap();
    let place = Place::formed();
    for content in [None, Some(before)] {
        match content {
            None => std::fs::remove_file(place.file()).unwrap(),
            Some(content) => std::fs::write(place.file(), content).unwrap(),
        }
        let refused = place.open("s", (10, 20), false);
        assert!(matches!(refused, Err(FormationError::NotFormed(_))), "{refused:?}");
    }
    std::fs::write(place.file(), b"{").unwrap();
    let refused = place.open("s", (10, 20), false);
    assert!(matches!(refused, Err(FormationError::File { .. })), "{refused:?}");
}

#[test]
fn records_of_earlier_versions_are_read() {
    let place = Place::new();
    std::fs::write(place.file(), br#"{"number":5,"members":{"1":7,"3":9}}"#).unwrap();
    let refused = place.open("s", (0, 10), true);
    assert!(matches!(refused, Err(FormationError::OtherStore(_))), "it has lost its groups");
    let formation = place.open("s", (0, 10), false).unwrap();
    assert_eq!(formation.founders, BTreeMap::from([(1, 7), (2, 5), (3, 9)]));
    assert_eq!(place.open("s", (10, 20), false).unwrap().founders, formation.founders);
    let joined = br#"{"number":5,"members":{"1":7},"joined":4,"nodes":{"1":"h:1"}}"#;
    std::fs::write(place.file(), joined).unwrap();
    let formation = place.open("s", (0, 10), false).unwrap();
    assert_eq!((formation.joined(), formation.first_members()), (Some(4), Vec::new()));
    assert_eq!((formation.name(), formation.directory(NodeId(1))), (0, None));
}

#[test]
fn every_set_of_founders_has_a_name_of_its_own() {
    let sets = [
        BTreeMap::from([(1, 7), (2, 8)]),
        BTreeMap::from([(1, 7), (2, 9)]),
        BTreeMap::from([(1, 7), (3, 8)]),
        BTreeMap::from([(1, 7)]),
    ];
    let names: std::collections::BTreeSet<u64> = sets.iter().map(name).collect();
    assert!(names.len() == sets.len() && !names.contains(&0));
    assert_eq!(name(&BTreeMap::new()), 0);
}
