//! The protocol within small bounds, every wrong shortcut refuted.

use flintmq_consensus_model::protocol::{
    Bounds, Options, Protocol, ScriptEnd, Shortcut, Walked, deposed_change, failed_order, walk,
};
use flintmq_consensus_model::search::{Effort, search};

/// Three nodes, all of them voters.
fn three() -> Bounds {
    Bounds { len: 2, losses: 1, ..Bounds::default() }
}

/// Three nodes, not all of them voters at first, with changes of members.
fn growing(voters: u8) -> Bounds {
    Bounds { voters, changes: 2, ..three() }
}

/// Five nodes, too many for a search: for walks.
fn five(voters: u8) -> Bounds {
    Bounds { nodes: 5, voters, terms: 6, len: 6, losses: 2, changes: 6, ..Bounds::default() }
}

fn holds(bounds: Bounds, options: Options, goals: &[&str]) {
    let model = Protocol {
        options: Options { symmetry: true, goals: true, ..options },
        ..Protocol::new(bounds)
    };
    let found = search(model, Effort::default());
    assert!(found.violated.is_none(), "{bounds:?} {options:?}: {found}\n{:?}", found.violated);
    assert!(found.exhaustive, "{bounds:?} {options:?}: {found}");
    for goal in goals {
        assert!(found.reached.contains(goal), "{bounds:?} {options:?} never: {goal}");
    }
}

fn refuted(bounds: Bounds, shortcut: Shortcut) {
    let found = search(Protocol::broken(bounds, shortcut), Effort::default());
    assert!(found.violated.is_some(), "{shortcut:?} {bounds:?} is not refuted: {found}");
}

fn refuted_by_walks(bounds: Bounds, joint: bool, shortcut: Shortcut) {
    let mut model = Protocol::broken(bounds, shortcut);
    model.options = Options { joint, ..Options::default() };
    let mut walked = Walked::default();
    let violated = (1..40_000).find(|seed| {
        walk(&model, *seed, 150, &mut walked);
        walked.violated.is_some()
    });
    assert!(violated.is_some(), "{shortcut:?} {bounds:?} is not refuted by walks");
}

#[test]
fn the_protocol_holds() {
    let plain = Options::default();
    holds(Bounds { losses: 2, ..three() }, Options { versions: true, partial: true, ..plain }, &[]);
    holds(Bounds { losses: 2, ..three() }, Options { ignore_recovering: true, ..plain }, &[]);
    holds(Bounds { losses: 3, forks: 1, ..three() }, plain, &[]);
}

#[test]
fn members_change_safely() {
    let one = Bounds { changes: 1, ..growing(2) };
    holds(one, Options::default(), &["a recovering learner is promoted"]);
    let options = Options { joint: true, ..Options::default() };
    holds(Bounds { len: 1, ..growing(1) }, options, &["a joint change is completed"]);
}

#[test]
fn the_operators_order_is_safe() {
    let goals = ["the dead are removed", "an entry is committed after a fork"];
    holds(Bounds { forks: 1, dead: 1, ..three() }, Options::default(), &goals);
    assert_eq!(failed_order(None), ScriptEnd::Refused { step: 18 });
}

#[test]
fn wrong_shortcuts_are_refuted() {
    refuted(three(), Shortcut::LossUndetected);
    refuted(three(), Shortcut::RecoveringInSync);
    refuted(Bounds { losses: 2, ..three() }, Shortcut::GrantWithoutEpoch);
    refuted(Bounds { len: 1, ..three() }, Shortcut::VolatileTerm);
    refuted(Bounds { terms: 3, ..three() }, Shortcut::GrantOfOlderTerm);
    refuted(Bounds { terms: 4, losses: 0, ..three() }, Shortcut::CommitOldTerms);
    refuted(Bounds { losses: 0, ..three() }, Shortcut::NoSync);
    refuted(three(), Shortcut::RejoinOnContact);
    refuted(three(), Shortcut::RejoinWithoutLog);
    refuted(three(), Shortcut::RejoinFromPeer);
    refuted(Bounds { terms: 3, ..three() }, Shortcut::GrantWhileSyncing);
    refuted(Bounds { terms: 3, len: 3, losses: 0, ..three() }, Shortcut::AckUnverified);
    refuted(Bounds { losses: 0, ..three() }, Shortcut::WitnessAcks);
    refuted(Bounds { forks: 1, dead: 2, ..three() }, Shortcut::ForceInNextTerm);
}

#[test]
fn wrong_shortcuts_with_many_nodes_are_refuted() {
    let no_changes = Bounds { losses: 0, changes: 0, ..five(5) };
    refuted_by_walks(no_changes, false, Shortcut::CountOldAcks);
    let long = Bounds { terms: 6, len: 5, losses: 0, ..three() };
    refuted_by_walks(long, false, Shortcut::ChooseLongest);
    refuted_by_walks(five(3), false, Shortcut::VoteForAnyConfig);
    refuted_by_walks(five(3), false, Shortcut::ChangeBeforeConfig);
    refuted_by_walks(five(3), false, Shortcut::ChangeBeforeLog);
    refuted_by_walks(five(3), true, Shortcut::ChangeBeforeConfig);
    refuted_by_walks(five(3), true, Shortcut::ChangeWithoutJoint);
    let ordered = Bounds { losses: 3, changes: 0, forks: 2, dead: 2, ..five(5) };
    refuted_by_walks(ordered, false, Shortcut::DeadGoOn);
}

#[test]
fn deep_counterexamples_run_only_without_the_rule() {
    assert_eq!(deposed_change(None), ScriptEnd::Refused { step: 29 });
    let lost = deposed_change(Some(Shortcut::NoRestamp));
    assert!(matches!(lost, ScriptEnd::Violated { step: 31, .. }), "{lost:?}");
    let lost = failed_order(Some(Shortcut::ForceDropsFirst));
    assert!(matches!(lost, ScriptEnd::Violated { step: 19, .. }), "{lost:?}");
}

/// A new shortcut must get its refutation above.
#[test]
fn every_shortcut_has_a_name_and_a_refutation() {
    let source = include_str!("protocol.rs");
    for shortcut in Shortcut::ALL {
        assert_eq!(Shortcut::named(shortcut.name()), Some(*shortcut));
        assert!(source.contains(&format!("Shortcut::{shortcut:?})")), "{shortcut:?}");
    }
}
