//! The world of a plan, before anything has happened.

use std::collections::BTreeMap;

use flintmq_consensus::{ConfigRegister, GroupId, HardState, NodeId};

use crate::client::{Client, Slot, Use};
use crate::controller::ControllerOracle;
use crate::coverage::Coverage;
use crate::domains::SimDomain;
use crate::event::Event;
use crate::network::Net;
use crate::operators::Operators;
use crate::oracle::GroupOracle;
use crate::plan::{Plan, Profile};
use crate::random::{Purpose, Random, Trace};
use crate::settle::Settling;
use crate::world::World;

impl World {
    pub(crate) fn new(plan: &Plan) -> Self {
        let (seed, profile) = (plan.seed, plan.profile.clone());
        let domains = draw_domains(&profile);
        let slots = draw_slots(&profile, &domains);
        let groups = (1..=profile.groups).map(|id| (GroupId(id), GroupOracle::default()));
        let mut world = Self {
            seed,
            faults: plan.faults.clone(),
            now: 0,
            steps: 0,
            events: BTreeMap::new(),
            scheduled: 0,
            nodes: BTreeMap::new(),
            net: Net::new(&[]),
            net_random: Random::new(seed, Purpose::Network),
            disk_random: Random::new(seed, Purpose::Disks),
            host_random: Random::new(seed, Purpose::Hosts),
            admin_random: Random::new(seed, Purpose::Injection),
            operator_random: Random::new(seed, Purpose::Operators),
            clients: draw_clients(seed, &profile, slots.len()),
            slots,
            domains,
            sessions: BTreeMap::new(),
            openings: BTreeMap::new(),
            tickets: BTreeMap::new(),
            named: 0,
            groups: groups.collect(),
            controller: ControllerOracle::default(),
            published_to: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            pushed: BTreeMap::new(),
            pushed_upto: BTreeMap::new(),
            readers: BTreeMap::new(),
            got: BTreeMap::new(),
            operators: Operators::default(),
            settling: Settling::default(),
            coverage: Coverage::default(),
            trace: Trace::default(),
            verbose: false,
            profile,
        };
        let ids: Vec<NodeId> = (1..=world.profile.nodes).map(NodeId).collect();
        let config = ConfigRegister::of_voters(ids.iter().copied());
        let hard_state = HardState { config, ..HardState::default() };
        for id in &ids {
            let peers = ids.iter().copied().filter(|peer| peer != id).collect();
            world.make_node(*id, peers);
            world.create_groups(*id, &hard_state);
        }
        world.begin(&ids);
        world
    }

    pub(crate) fn begin(&mut self, ids: &[NodeId]) {
        self.set_clocks_right();
        for id in ids {
            let after = self.host_random.below(50_000);
            self.after(after, Event::Boot(*id));
        }
        for client in 0..self.clients.len() {
            let after = self.host_random.between(100_000, 700_000);
            self.after(after, Event::Act(client));
        }
        for number in 0..self.faults.len() {
            let at = self.faults[number].at;
            self.at(at, Event::Fault(number));
        }
        for domain in 0..self.domains.len() {
            self.after(50_000, Event::Define(domain));
        }
        self.after(1_000_000, Event::LookAfterNodes);
        self.after(300_000, Event::LookAtLeaders);
        let lasts = self.profile.lasts;
        self.at(lasts, Event::Settle);
    }
}

fn draw_clients(seed: u64, profile: &Profile, slots: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 0..profile.clients {
        let mut random = Random::numbered(seed, Purpose::Clients, u64::from(number));
        let mut uses = Vec::new();
        for turn in 0..random.between(1, 3) {
            let slot = random.below(slots as u64) as usize;
            // The first two clients see to it that something flows.
            let reads = match (number, turn) {
                (0, 0) => false,
                (1, 0) => true,
                _ => random.chance(500),
            };
            let slot = if number < 2 && turn == 0 { 0 } else { slot };
            uses.push(Use::new(slot, reads));
        }
        clients.push(Client {
            number: number + 1,
            random,
            uses,
            connection: None,
            retry_at: 0,
            unacknowledged: BTreeMap::new(),
            sent: 0,
            slow_until: None,
            settles: false,
        });
    }
    clients
}

/// Messages of the second domain live for a while only, if the profile says so.
fn draw_domains(profile: &Profile) -> Vec<SimDomain> {
    let ttl_s = profile.ttl_ms.div_ceil(1000);
    let count = if ttl_s > 0 { 2 } else { 1 };
    let lives = [None, Some(ttl_s)];
    // Some begin with room for one queue.
    let max_queues = u32::from(profile.lasts / 1_000_000 % 5 == 2);
    (0..count).map(|number| SimDomain::new(number, lives[number], max_queues)).collect()
}

fn draw_slots(profile: &Profile, domains: &[SimDomain]) -> Vec<Slot> {
    let count = (profile.groups * profile.queues) as usize;
    let slot = |number: usize| {
        let domain = number % domains.len();
        Slot { domain, uri: format!("bmq://{}/q{number}", domains[domain].name) }
    };
    (0..count).map(slot).collect()
}
