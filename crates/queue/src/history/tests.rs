use super::*;
use proptest::prelude::*;

fn guid(client: u8, timer: u64) -> Guid {
    Guid::from_parts([client; 6], Stamp { timer, head: 0x40_0000 })
}

/// Copies a history through its changes, as a checkpoint does.
#[derive(Default)]
struct Store {
    blocks: BTreeMap<BlockKey, Vec<u8>>,
    strays: BTreeMap<Guid, Vec<u8>>,
}

impl Store {
    fn save(&mut self, history: &mut History) {
        let changes = history.take_changes();
        changes.blocks_removed.iter().for_each(|key| assert!(self.blocks.remove(key).is_some()));
        changes.strays_removed.iter().for_each(|key| assert!(self.strays.remove(key).is_some()));
        for key in changes.blocks {
            let mut value = Vec::new();
            history.encode_block(key, &mut value);
            self.blocks.insert(key, value);
        }
        for key in changes.strays {
            let mut value = Vec::new();
            history.encode_stray(key, &mut value);
            self.strays.insert(key, value);
        }
    }

    fn load(&self) -> History {
        let mut history = History::default();
        for (&key, value) in &self.blocks {
            history.restore_block(key, value).unwrap();
        }
        for (&key, value) in &self.strays {
            history.restore_stray(key, value).unwrap();
        }
        history.restored();
        history
    }
}

proptest! {
    /// Against a map of everything: what is inside the window is known, at its position; nothing
    /// that was never inserted is known; a restored history answers the same.
    #[test]
    fn exact_within_the_window(
        steps in prop::collection::vec((0u8..5, 0u8..3, 0u64..2000, 1u64..400), 1..40),
    ) {
        const WINDOW: u64 = 1000;
        let (mut history, mut model) = (History::default(), BTreeMap::new());
        let (mut store, mut clock, mut position) = (Store::default(), 0, 0);
        for (kind, client, at, count) in steps {
            match kind {
                0..3 => {
                    // Runs in ascending order that may fall behind earlier ones.
                    for timer in (0..count).map(|n| at * 37 + n * 11) {
                        let guid = guid(client, timer);
                        let known = history.position(guid);
                        match model.get(&guid) {
                            Some(&(expected, seen_at)) if clock - seen_at <= WINDOW => {
                                prop_assert_eq!(known, Some(expected));
                            }
                            Some(&(expected, _)) => {
                                prop_assert!(known.is_none_or(|known| known == expected));
                            }
                            None => prop_assert_eq!(known, None),
                        }
                        if known.is_none() {
                            history.insert(guid, position, clock);
                            model.insert(guid, (position, clock));
                            position += 1;
                        }
                    }
                }
                3 => {
                    clock += at;
                    history.sweep(clock, WINDOW);
                }
                _ => {
                    store.save(&mut history);
                    history = store.load();
                }
            }
        }
        let live = model.iter().filter(|(_, (_, seen_at))| clock - seen_at <= WINDOW);
        for (&guid, &(expected, _)) in live {
            prop_assert_eq!(history.position(guid), Some(expected));
        }
    }

    #[test]
    fn no_bytes_panic_the_record_readers(value: Vec<u8>) {
        let mut history = History::default();
        let _ = history.restore_block(([1; 6], 3), &value);
        let _ = history.restore_stray(Guid([1; 16]), &value);
    }
}

#[test]
fn everything_is_forgotten_in_the_end_also_in_the_store() {
    let (mut history, mut store) = (History::default(), Store::default());
    for timer in 0..1000 {
        history.insert(guid(1, 1000 + timer), timer, timer);
    }
    history.insert(guid(1, 5), 1000, 1000);
    store.save(&mut history);
    assert!(!store.blocks.is_empty() && !store.strays.is_empty());
    history.sweep(5000, 1000);
    assert_eq!(history.guids(), 0);
    store.save(&mut history);
    assert!(store.blocks.is_empty() && store.strays.is_empty());
    assert_eq!(history.memory(), 0);
}

#[test]
fn strays_are_bounded_and_the_oldest_goes_first() {
    let mut history = History::default();
    for timer in 0..BLOCK as u64 {
        history.insert(guid(1, u64::from(u32::MAX) + timer), timer, 0);
    }
    for timer in 0..=MAX_STRAYS as u64 {
        history.insert(guid(1, timer), 1000 + timer, 0);
    }
    assert_eq!(history.strays.len(), MAX_STRAYS);
    assert_eq!(history.position(guid(1, 0)), None);
    assert_eq!(history.position(guid(1, 1)), Some(1001));
}

#[test]
fn more_clients_than_the_limit_become_strays() {
    let mut history = History::default();
    let guid = |n: u64| {
        let mut client = [0; 6];
        client.copy_from_slice(&n.to_be_bytes()[2..]);
        Guid::from_parts(client, Stamp { timer: 1, head: 1 })
    };
    let count = MAX_CLIENTS as u64 + 10;
    (0..count).for_each(|n| history.insert(guid(n), n, 0));
    assert_eq!(history.clients.len(), MAX_CLIENTS);
    (0..count).for_each(|n| assert_eq!(history.position(guid(n)), Some(n)));
}
