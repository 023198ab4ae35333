//! The real core within small bounds, and every broken rule caught.

use flintmq_consensus::{MemberChange, Message, Mutant, NodeId, Role};
use flintmq_consensus_model::harness::{Action, Harness, Reach, State};
use flintmq_consensus_model::search::{Effort, search, violated, walk_once};

fn holds(reach: Reach) {
    let found = search(Harness::new(reach), Effort::default());
    assert!(found.violated.is_none(), "{reach:?}: {found}\n{:?}", found.violated);
    assert!(found.exhaustive, "{reach:?}: {found}");
}

/// The seed of the first walk that stumbles, among this many.
fn stumbles(harness: &Harness, walks: u64) -> Option<(u64, &'static str)> {
    (1..=walks).find_map(|seed| {
        let found = walk_once(harness, seed, 150, Action::weight, |_| ());
        found.map(|(property, _)| (seed, property))
    })
}

fn walks_hold(reach: Reach, walks: u64) {
    let found = stumbles(&Harness::new(reach), walks);
    assert!(found.is_none(), "{reach:?} (property and seed): {found:?}");
}

fn caught(reach: Reach, mutant: Mutant) {
    let found = stumbles(&Harness::broken(reach, mutant), 20_000);
    assert!(found.is_some(), "{mutant:?} is not caught by walks, {reach:?}");
}

/// Three voters that crash and lose power.
fn three() -> Reach {
    Reach { terms: 5, len: 4, crashes: 2, losses: 2, ..Reach::default() }
}

/// Five nodes, three of them voters at first, and changes of members.
fn five() -> Reach {
    Reach { nodes: 5, candidates: 5, terms: 6, len: 6, changes: 4, ..Reach::default() }
}

#[test]
fn the_core_holds_in_all_interleavings() {
    holds(Reach { losses: 0, ..Reach::default() });
    holds(Reach { losses: 0, crashes: 1, len: 1, candidates: 2, ..Reach::default() });
}

#[test]
fn the_core_holds_in_walks() {
    walks_hold(three(), 500);
    walks_hold(Reach { slow_disks: true, ..three() }, 500);
    walks_hold(Reach { all_reported: true, losses: 3, slow_disks: true, ..three() }, 400);
    walks_hold(five(), 150);
    walks_hold(Reach { scouting: true, dead: 1, ..three() }, 300);
    let five_voters = Reach { voters: 5, changes: 0, losses: 2, ..five() };
    walks_hold(Reach { scouting: true, dead: 2, slow_disks: true, ..five_voters }, 150);
}

#[test]
fn broken_rules_of_recovery_are_caught() {
    caught(three(), Mutant::W01LossUndetected);
    caught(three(), Mutant::W02RecoveringCountsInSync);
    caught(three(), Mutant::W03GrantWithoutEpoch);
    caught(three(), Mutant::W08RejoinOnContact);
    caught(three(), Mutant::W08RejoinWithoutLog);
    caught(Reach { scouting: true, ..three() }, Mutant::W09RejoinFromAnyPeer);
    caught(three(), Mutant::W10GrantWhileSyncing);
}

#[test]
fn broken_rules_of_election_and_replication_are_caught() {
    caught(Reach { slow_disks: true, ..three() }, Mutant::W04TermNotDurable);
    caught(three(), Mutant::W07ServeWithoutSync);
    caught(three(), Mutant::W11AckUnverified);
    caught(three(), Mutant::W13ChooseLongestLog);
    caught(three(), Mutant::W18ResumeLeadership);
}

#[test]
fn broken_rules_of_membership_are_caught() {
    caught(five(), Mutant::W14VoteForAnyConfig);
    caught(five(), Mutant::W16ChangeBeforeConfigIsHeld);
    caught(five(), Mutant::W17ChangeBeforeLogIsHeld);
}

/// A cluster that is led through a story.
struct Story {
    harness: Harness,
    state: State,
    violated: Option<&'static str>,
}

impl Story {
    fn of(harness: Harness) -> Self {
        let state = harness.first_state();
        Self { harness, state, violated: None }
    }

    fn act(&mut self, action: &Action) {
        if let Some(state) = self.harness.take(&self.state, action) {
            self.state = state;
            self.violated = self.violated.or_else(|| violated(&self.harness, &self.state));
        }
    }

    /// All messages between these nodes arrive, until nothing is new.
    fn talk(&mut self, nodes: &[u32]) {
        let among = |node: NodeId| nodes.contains(&node.0);
        loop {
            let before = self.state.clone();
            let messages: Vec<_> = before.network.iter().cloned().collect();
            for message in messages.into_iter().filter(|m| among(m.from) && among(m.to)) {
                self.act(&Action::Deliver(message));
            }
            if self.state == before {
                return;
            }
        }
    }

    /// Stands until elected with the votes of these.
    fn lead(&mut self, node: u32, voters: &[u32]) {
        for _ in 0..3 {
            if self.role(node) != Role::Ready {
                self.act(&Action::Stand(NodeId(node)));
                self.talk(voters);
            }
        }
    }

    /// What this node has sent to that one so far arrives; answers are under way.
    fn pass(&mut self, from: u32, to: u32) {
        loop {
            let before = self.state.clone();
            let messages: Vec<_> = before.network.iter().cloned().collect();
            let passes = |m: &Message| (m.from, m.to) == (NodeId(from), NodeId(to));
            for message in messages.into_iter().filter(|message| passes(message)) {
                self.act(&Action::Deliver(message));
            }
            if self.state == before {
                return;
            }
        }
    }

    fn propose(&mut self, node: u32) {
        let before = self.state.clone();
        self.act(&Action::Propose(NodeId(node)));
        assert_ne!(self.state, before, "the leader takes a proposal");
    }

    fn last(&self, node: u32) -> (u64, u64) {
        let last = self.state.replicas[&NodeId(node)].core.last();
        (last.term, last.index)
    }

    fn role(&self, node: u32) -> Role {
        self.state.replicas[&NodeId(node)].core.role()
    }

    fn change(&mut self, node: u32, change: MemberChange) {
        let before = self.state.clone();
        self.act(&Action::Change(NodeId(node), change));
        assert_ne!(self.state, before, "the leader may change its members");
    }
}

/// Ongaro's counterexample to changes of single members (W15): node 1 adds 5, of which nobody else
/// hears; 2 removes 1 meanwhile and commits with 3; then 1 stands with 4 and 5.
fn deposed_change(harness: Harness) -> Story {
    let mut story = Story::of(harness);
    story.lead(1, &[1, 3, 4]);
    story.change(1, MemberChange::AddLearner(NodeId(5)));
    story.talk(&[1, 3, 4, 5]);
    story.change(1, MemberChange::Promote(NodeId(5)));
    story.lead(2, &[2, 3, 4]);
    assert_eq!(story.role(2), Role::Ready);
    story.change(2, MemberChange::RemoveVoter(NodeId(1)));
    story.talk(&[2, 3]);
    story.act(&Action::Propose(NodeId(2)));
    story.talk(&[2, 3]);
    // It never heard of its deposition.
    story.act(&Action::Crash(NodeId(1), false));
    story.lead(1, &[1, 4, 5]);
    story
}

/// W12: what node 2 acknowledged in term 1 was cut off in term 2, and 1 leads again in term 3. If
/// the acknowledgement of before arrives now and counts, two copies of five pass for three.
fn late_acknowledgement(harness: Harness) -> Story {
    let mut story = Story::of(harness);
    story.lead(1, &[1, 2, 3]);
    for _ in 0..3 {
        story.propose(1);
    }
    story.pass(1, 2);
    assert_eq!(story.last(2), (1, 4), "acknowledged, but the word is still under way");
    // Elected by 3, 4 and 5, of whom only 3 has the first entry.
    story.act(&Action::Stand(NodeId(3)));
    for voter in [4, 5] {
        story.pass(3, voter);
        story.pass(voter, 3);
    }
    assert_eq!(story.role(3), Role::Ready);
    // Node 1 probes where the logs meet, is told, and cuts its own; so does 2. Nobody else hears.
    for follower in [1, 2] {
        for _ in 0..3 {
            story.pass(3, follower);
            if story.last(follower) != (2, 2) {
                story.pass(follower, 3);
            }
        }
        assert_eq!(story.last(follower), (2, 2));
    }
    story.act(&Action::Stand(NodeId(1)));
    for voter in [4, 5] {
        for _ in 0..2 {
            story.pass(1, voter);
            story.pass(voter, 1);
        }
    }
    assert_eq!(story.role(1), Role::Ready);
    story.propose(1);
    assert_eq!(story.last(1), (3, 4));
    for _ in 0..3 {
        story.pass(1, 4);
        story.pass(4, 1);
    }
    assert_eq!(story.last(4), (3, 4));
    story.pass(2, 1);
    story.lead(2, &[2, 3, 5]);
    story
}

#[test]
fn an_acknowledgement_of_an_older_term_does_not_count() {
    let reach = Reach { voters: 5, changes: 0, losses: 0, terms: 6, len: 9, ..five() };
    let right = late_acknowledgement(Harness::new(reach));
    assert_eq!(right.violated, None);
    assert_eq!(right.role(2), Role::Ready);
    let wrong = late_acknowledgement(Harness::broken(reach, Mutant::W12CountAcksOfOlderTerms));
    assert!(wrong.violated.is_some(), "W12 loses what 1 and 4 hold");
}

#[test]
fn a_deposed_leaders_change_leads_nowhere() {
    let reach = Reach { voters: 4, losses: 0, len: 9, ..five() };
    let right = deposed_change(Harness::new(reach));
    assert_eq!(right.violated, None);
    assert_ne!(right.role(1), Role::Ready);
    let wrong = deposed_change(Harness::broken(reach, Mutant::W15NoRestamp));
    assert!(wrong.violated.is_some(), "W15 loses what 2 and 3 committed");
}

/// Five voters: an entry is acknowledged by 1, 4 and 5; 4 and 5 are gone for good, and 1 lost power
/// but still has the entry. The operator's order keeps it, and in the end leaves 1, 2 and 3.
#[test]
fn an_operators_order_keeps_what_survived() {
    let reach = Reach { voters: 5, scouting: true, dead: 2, len: 9, ..five() };
    let mut story = Story::of(Harness::new(reach));
    story.lead(1, &[1, 4, 5]);
    story.act(&Action::Propose(NodeId(1)));
    story.talk(&[1, 4, 5]);
    story.act(&Action::PowerLoss(NodeId(1), 0));
    story.act(&Action::Order(NodeId(1), [NodeId(4), NodeId(5)].into()));
    story.talk(&[1, 2, 3]);
    assert_eq!((story.violated, story.role(1)), (None, Role::Ready));
    let core = |node: u32| &story.state.replicas[&NodeId(node)].core;
    for node in 1..=3 {
        assert_eq!(core(node).config().voters, [NodeId(1), NodeId(2), NodeId(3)]);
        assert!(core(node).last().index >= 3, "barrier, entry, barrier");
    }
}
