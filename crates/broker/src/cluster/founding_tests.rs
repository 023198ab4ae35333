//! The agreement under losses, restarts and cuts: every history is random, and repeats by its seed.

use super::*;

/// Nodes with disks, and messages on their way.
struct World {
    random: u64,
    now: u64,
    nodes: Vec<Option<Founding>>,
    disks: Vec<Disk>,
    under_way: Vec<(u32, u32, u64, Showing)>,
    /// Every set that any node ever found chosen.
    chosen: BTreeSet<Founders>,
}

#[derive(Clone)]
struct Disk {
    number: u64,
    position: Position,
}

impl World {
    fn new(seed: u64, nodes: u32) -> Self {
        let disk =
            |node: u32| Disk { number: 100 + u64::from(node), position: Position::default() };
        Self {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            now: 0,
            nodes: (0..nodes).map(|_| None).collect(),
            disks: (1..=nodes).map(disk).collect(),
            under_way: Vec::new(),
            chosen: BTreeSet::new(),
        }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % below
    }

    fn start(&mut self, node: u32) {
        let Disk { number, position } = self.disks[node as usize - 1].clone();
        let nodes = (1..=self.disks.len() as u32).collect();
        self.nodes[node as usize - 1] = Some(Founding::new(node, number, nodes, position));
    }

    /// Saves, looks for the founders, and shows the position to all.
    fn after(&mut self, node: u32) {
        let Some(founding) = &self.nodes[node as usize - 1] else { return };
        self.disks[node as usize - 1].position = founding.position().clone();
        self.chosen.extend(founding.chosen().cloned());
        let (showing, number) = (founding.showing(), founding.number);
        for to in 1..=self.disks.len() as u32 {
            self.under_way.push((node, to, number, showing.clone()));
        }
    }

    fn deliver(&mut self, at: usize) {
        let (from, to, number, showing) = self.under_way.swap_remove(at);
        let now = self.now;
        let Some(founding) = &mut self.nodes[to as usize - 1] else { return };
        let changed = founding.hear(from, number, showing, now);
        self.chosen.extend(founding.chosen().cloned());
        if changed {
            self.after(to);
        }
    }

    fn tick(&mut self, node: u32) {
        let now = self.now;
        if let Some(founding) = &mut self.nodes[node as usize - 1] {
            founding.tick(now);
            self.after(node);
        }
    }

    fn attempt(&mut self, node: u32) {
        let now = self.now;
        if let Some(founding) = &mut self.nodes[node as usize - 1] {
            founding.attempt(now);
            self.after(node);
        }
    }

    fn any_node(&mut self) -> u32 {
        self.draw(self.disks.len()) as u32 + 1
    }

    /// Some random events; nodes in `away` never run.
    fn storm(&mut self, steps: usize, away: &[u32]) {
        for _ in 0..steps {
            let node = self.any_node();
            match self.draw(32) {
                0 | 1 if !away.contains(&node) => self.start(node),
                2 if self.draw(4) == 0 => self.nodes[node as usize - 1] = None,
                3 => self.now += self.draw(700) as u64,
                4..=6 if !self.under_way.is_empty() => {
                    let lost = self.draw(self.under_way.len());
                    self.under_way.swap_remove(lost);
                }
                7 | 8 if !self.under_way.is_empty() => {
                    let doubled = self.draw(self.under_way.len());
                    self.under_way.push(self.under_way[doubled].clone());
                }
                9 | 10 => self.tick(node),
                // At any time: safety must not need that nodes wait for their turn.
                11 | 12 => self.attempt(node),
                _ if !self.under_way.is_empty() => {
                    let any = self.draw(self.under_way.len());
                    self.deliver(any);
                }
                _ => {}
            }
        }
    }

    /// From here on nothing is lost, and all nodes but these run.
    fn calm(&mut self, away: &[u32]) {
        self.under_way.clear();
        let here: Vec<u32> =
            (1..=self.disks.len() as u32).filter(|node| !away.contains(node)).collect();
        here.iter().for_each(|node| self.start(*node));
        for _ in 0..300 {
            self.now += 100;
            here.iter().for_each(|node| self.tick(*node));
            while !self.under_way.is_empty() {
                self.deliver(0);
            }
        }
    }

    fn all_know(&self, away: &[u32]) -> bool {
        let here = (1_u32..).zip(&self.nodes).filter(|(node, _)| !away.contains(node));
        here.into_iter().all(|(_, node)| node.as_ref().is_some_and(|n| n.chosen().is_some()))
    }
}

#[test]
fn all_agree_on_one_set_whatever_happens() {
    let mut chosen_in_storm = 0;
    for seed in 0..200 {
        let nodes = 2 + (seed % 4) as u32;
        let mut world = World::new(seed, nodes);
        world.storm(400, &[]);
        chosen_in_storm += world.chosen.len();
        world.calm(&[]);
        assert!(world.all_know(&[]), "seed {seed}: it never ends");
        assert_eq!(world.chosen.len(), 1, "seed {seed}: {:?}", world.chosen);
        let founders = world.chosen.first().unwrap();
        assert!(founders.len() > nodes as usize / 2, "seed {seed}: {founders:?}");
        assert!(founders.iter().all(|(node, number)| *number == 100 + u64::from(*node)));
    }
    assert!(chosen_in_storm > 30, "the storms must reach a choice: {chosen_in_storm}");
}

#[test]
fn a_majority_is_enough_and_a_node_that_comes_later_learns_of_it() {
    for seed in 0..30 {
        let mut world = World::new(seed, 5);
        world.storm(300, &[2, 5]);
        world.calm(&[2, 5]);
        assert!(world.all_know(&[2, 5]), "seed {seed}");
        let founders = world.chosen.first().unwrap().clone();
        assert_eq!(founders.keys().copied().collect::<Vec<_>>(), [1, 3, 4], "seed {seed}");
        world.calm(&[1]);
        assert!(world.all_know(&[1]), "seed {seed}");
        assert_eq!(world.chosen.len(), 1, "seed {seed}");
    }
}

#[test]
fn less_than_a_majority_decides_nothing() {
    let mut world = World::new(1, 4);
    world.calm(&[3, 4]);
    assert!(world.chosen.is_empty());
    assert_eq!(world.nodes[0].as_ref().unwrap().missing(world.now), [3, 4]);
}

#[test]
fn a_new_directory_is_never_chosen_beside_an_old_one_that_is_remembered() {
    for seed in 0..30 {
        let mut world = World::new(seed, 3);
        world.calm(&[3]);
        assert_eq!(world.chosen.len(), 1);
        // Node 1 comes with a new directory, and meets node 3, which has heard of the founders.
        world.calm(&[1]);
        world.disks[0] = Disk { number: 999, position: Position::default() };
        world.nodes[0] = None;
        world.storm(300, &[2]);
        world.calm(&[2]);
        assert_eq!(world.chosen.len(), 1, "seed {seed}: {:?}", world.chosen);
        assert_eq!(world.chosen.first().unwrap().get(&1), Some(&101), "seed {seed}");
    }
}

#[test]
fn nodes_with_other_lists_do_not_count() {
    let mut founding = Founding::new(1, 7, (1..=3).collect(), Position::default());
    let other = Showing { nodes: (1..=5).collect(), position: Position::default() };
    assert!(!founding.hear(2, 8, other, 0) && !founding.tick(60_000));
    let same = Showing { nodes: (1..=3).collect(), position: Position::default() };
    assert!(!founding.hear(2, 8, same.clone(), 60_000));
    assert!(!founding.tick(60_000), "the third may come");
    founding.hear(2, 8, same, 60_000 + GRACE_MS);
    assert!(founding.tick(60_000 + GRACE_MS));
}

#[test]
fn a_promise_outlives_an_attempt_of_before() {
    let nodes: BTreeSet<u32> = (1..=3).collect();
    let new =
        |node: u32| Founding::new(node, 100 + u64::from(node), nodes.clone(), Position::default());
    let (mut one, mut two, mut three) = (new(1), new(2), new(3));
    one.attempt(0);
    two.hear(1, 101, one.showing(), 0);
    one.hear(2, 102, two.showing(), 0);
    assert_eq!(one.position().founders, Founders::from([(1, 101), (2, 102)]));
    // Before node 2 hears of it, it promises a later attempt.
    three.attempt(0);
    three.attempt(0);
    two.hear(3, 103, three.showing(), 0);
    assert!(!two.hear(1, 101, one.showing(), 0) && two.position().founders.is_empty());
    one.hear(2, 102, two.showing(), 0);
    assert_eq!((one.chosen(), two.chosen()), (None, None));
    three.hear(2, 102, two.showing(), 0);
    two.hear(3, 103, three.showing(), 0);
    assert_eq!(two.chosen(), Some(&Founders::from([(2, 102), (3, 103)])));
}
