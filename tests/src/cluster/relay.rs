//! A UDP relay between two nodes, which can drop, thin out or delay what passes, each direction for
//! itself.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::ports;

/// How often a quiet relay looks whether it is over.
const LOOK: Duration = Duration::from_millis(100);

/// More than any UDP packet has.
const PACKET: usize = 1 << 16;

/// Packets that may wait for their time in one direction; beyond that they are lost.
const WAITING: usize = 10_000;

/// What happens to packets, for each direction; shared by all relays of a cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    directions: Mutex<BTreeMap<(usize, usize), Fate>>,
    dropped: AtomicU64,
}

/// What happens to the packets of one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    /// Of a hundred packets so many are dropped.
    lost: u8,
    late: Duration,
}

impl Rules {
    /// Drops what `from` sends to `to` from now on.
    pub(super) fn cut(&self, from: usize, to: usize) {
        self.lose(from, to, 100);
    }

    /// Drops so many of a hundred packets that `from` sends to `to`, from now on.
    pub(super) fn lose(&self, from: usize, to: usize, of_hundred: u8) {
        self.lock().entry((from, to)).or_default().lost = of_hundred;
    }

    /// Lets what `from` sends to `to` arrive so much later, from now on.
    pub(super) fn delay(&self, from: usize, to: usize, by: Duration) {
        self.lock().entry((from, to)).or_default().late = by;
    }

    /// Lets everything through again.
    pub(super) fn heal(&self) {
        self.lock().clear();
    }

    /// How many packets were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }

    fn of(&self, from: usize, to: usize) -> Fate {
        self.lock().get(&(from, to)).copied().unwrap_or_default()
    }

    fn count_dropped(&self) {
        self.state.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(usize, usize), Fate>> {
        self.state.directions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries what node `from` sends to node `to`, and the answers. Ends when dropped.
#[derive(Debug)]
pub(super) struct Relay {
    from: usize,
    to: usize,
    port: u16,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// One relay's sockets.
struct Sockets {
    /// Where `from` sends to.
    near: UdpSocket,
    /// Connected to `to`.
    far: UdpSocket,
    /// Where `from` sent from last: a restarted process may do so from another port.
    sender: Mutex<Option<SocketAddr>>,
}

impl Relay {
    /// Opens a port for `from` to send to; `listen` is where `to` listens.
    pub(super) fn start(from: usize, to: usize, listen: u16, rules: &Rules) -> Self {
        let port = ports::free();
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
        let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        far.connect((Ipv4Addr::LOCALHOST, listen)).expect("a local address");
        let sockets = Arc::new(Sockets { near, far, sender: Mutex::new(None) });
        let over = Arc::new(AtomicBool::new(false));
        let there = {
            let (sockets, over, rules) = (Arc::clone(&sockets), Arc::clone(&over), rules.clone());
            let receive = {
                let sockets = Arc::clone(&sockets);
                move |packet: &mut [u8], limit| sockets.receive_near(packet, limit)
            };
            thread::spawn(move || {
                // Nobody may listen there: that is a lost packet, too.
                let send = |packet: &[u8]| drop(sockets.far.send(packet));
                carry(&over, || rules.of(from, to), || rules.count_dropped(), receive, send);
            })
        };
        let back = {
            let (over, rules) = (Arc::clone(&over), rules.clone());
            thread::spawn(move || {
                let receive = |packet: &mut [u8], limit| sockets.receive_far(packet, limit);
                let send = |packet: &[u8]| sockets.send_near(packet);
                carry(&over, || rules.of(to, from), || rules.count_dropped(), receive, send);
            })
        };
        Self { from, to, port, over, threads: vec![there, back] }
    }

    /// Whether it carries what `from` sends to `to`.
    pub(super) fn joins(&self, from: usize, to: usize) -> bool {
        (self.from, self.to) == (from, to)
    }

    /// The port for `from` to send to.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic in it was printed; there is nothing more to say.
            let _panicked = thread.join();
        }
    }
}

impl Sockets {
    fn receive_near(&self, packet: &mut [u8], limit: Duration) -> io::Result<usize> {
        self.near.set_read_timeout(Some(limit))?;
        let (size, sender) = self.near.recv_from(packet)?;
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        Ok(size)
    }

    fn receive_far(&self, packet: &mut [u8], limit: Duration) -> io::Result<usize> {
        self.far.set_read_timeout(Some(limit))?;
        self.far.recv(packet)
    }

    fn send_near(&self, packet: &[u8]) {
        let sender = *self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sender {
            let _lost = self.near.send_to(packet, sender);
        }
    }
}

/// Carries one direction until it is over.
fn carry(
    over: &AtomicBool,
    fate: impl Fn() -> Fate,
    count_dropped: impl Fn(),
    receive: impl Fn(&mut [u8], Duration) -> io::Result<usize>,
    send: impl Fn(&[u8]),
) {
    let mut packet = vec![0; PACKET];
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut dice = Dice(DICE);
    while !over.load(Ordering::Relaxed) {
        let now = Instant::now();
        while waiting.front().is_some_and(|(due, _)| *due <= now)
            && let Some((_, packet)) = waiting.pop_front()
        {
            send(&packet);
        }
        let next = waiting.front().map_or(LOOK, |(due, _)| due.saturating_duration_since(now));
        // An error is a timeout, or the echo of a packet that nobody took.
        let limit = next.clamp(Duration::from_millis(1), LOOK);
        let Ok(size) = receive(&mut packet, limit) else { continue };
        let Fate { lost, late } = fate();
        if dice.throw() < lost || waiting.len() >= WAITING {
            count_dropped();
        } else if late.is_zero() && waiting.is_empty() {
            send(&packet[..size]);
        } else {
            waiting.push_back((Instant::now() + late, packet[..size].to_vec()));
        }
    }
}

/// Where all dice begin: a run that fails is to fail again.
const DICE: u64 = 0x9E37_79B9_7F4A_7C15;

/// Which packets are lost when some are (xorshift).
struct Dice(u64);

impl Dice {
    /// 0 to 99.
    fn throw(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % 100) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket of 127.0.0.1 that waits no longer than a few looks.
    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket.set_read_timeout(Some(LOOK * 10)).expect("set");
        socket
    }

    #[test]
    fn each_direction_is_cut_for_itself() {
        let (near, far) = (socket(), socket());
        let rules = Rules::default();
        let listen = far.local_addr().expect("bound").port();
        let relay = Relay::start(1, 2, listen, &rules);
        let mut bytes = [0; 16];
        near.send_to(b"one", (Ipv4Addr::LOCALHOST, relay.port())).expect("sent");
        let (size, back) = far.recv_from(&mut bytes).expect("carried");
        assert_eq!(&bytes[..size], b"one");

        rules.cut(2, 1);
        far.send_to(b"two", back).expect("sent");
        assert!(near.recv(&mut bytes).is_err(), "cut");
        near.send_to(b"three", (Ipv4Addr::LOCALHOST, relay.port())).expect("sent");
        assert_eq!(far.recv(&mut bytes).expect("the other direction stays"), 5);
        assert_eq!(rules.dropped(), 1);

        rules.heal();
        far.send_to(b"four", back).expect("sent");
        assert_eq!(near.recv(&mut bytes).expect("carried again"), 4);
    }

    #[test]
    fn so_many_of_a_hundred_are_lost() {
        let mut dice = Dice(DICE);
        let lost = (0..10_000).filter(|_| dice.throw() < 20).count();
        assert!((1_800..2_200).contains(&lost), "{lost}");
        assert!((0..10_000).all(|_| dice.throw() < 100), "all of a hundred");
    }

    #[test]
    fn a_delayed_packet_comes_late_and_in_its_place() {
        let (near, far) = (socket(), socket());
        let rules = Rules::default();
        let relay = Relay::start(1, 2, far.local_addr().expect("bound").port(), &rules);
        rules.delay(1, 2, LOOK);
        let sent = Instant::now();
        near.send_to(b"first", (Ipv4Addr::LOCALHOST, relay.port())).expect("sent");
        let mut bytes = [0; 16];
        assert_eq!(far.recv(&mut bytes).expect("carried"), 5);
        assert!(sent.elapsed() >= LOOK, "{:?}", sent.elapsed());
        near.send_to(b"second", (Ipv4Addr::LOCALHOST, relay.port())).expect("sent");
        rules.heal();
        near.send_to(b"3", (Ipv4Addr::LOCALHOST, relay.port())).expect("sent");
        let sizes = [(); 2].map(|()| far.recv(&mut bytes).expect("carried"));
        assert!(sizes == [6, 1], "{sizes:?}");
    }
}
