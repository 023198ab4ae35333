//! A UDP relay between two nodes, which can drop what passes, each direction for itself.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::ports;

/// How often a quiet relay looks whether it is over.
const LOOK: Duration = Duration::from_millis(100);

/// More than any UDP packet has.
const PACKET: usize = 1 << 16;

/// Which directions are cut; shared by all relays of a cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    cut: Mutex<BTreeSet<(usize, usize)>>,
    dropped: AtomicU64,
}

impl Rules {
    /// Drops what `from` sends to `to` from now on.
    pub(super) fn cut(&self, from: usize, to: usize) {
        self.lock().insert((from, to));
    }

    /// Lets everything through again.
    pub(super) fn heal(&self) {
        self.lock().clear();
    }

    /// How many packets were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }

    fn let_through(&self, from: usize, to: usize) -> bool {
        let cut = self.lock().contains(&(from, to));
        if cut {
            self.state.dropped.fetch_add(1, Ordering::Relaxed);
        }
        !cut
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<(usize, usize)>> {
        self.state.cut.lock().unwrap_or_else(PoisonError::into_inner)
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
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(LOOK)).expect("a timeout is set");
        }
        let sockets = Arc::new(Sockets { near, far, sender: Mutex::new(None) });
        let over = Arc::new(AtomicBool::new(false));
        let there = {
            let (sockets, over, rules) = (Arc::clone(&sockets), Arc::clone(&over), rules.clone());
            thread::spawn(move || {
                let mut packet = vec![0; PACKET];
                while !over.load(Ordering::Relaxed) {
                    // A timeout, or the echo of a packet that nobody took.
                    let Ok((size, sender)) = sockets.near.recv_from(&mut packet) else { continue };
                    *sockets.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
                    if rules.let_through(from, to) {
                        // Nobody may listen there: that is a lost packet, too.
                        let _lost = sockets.far.send(&packet[..size]);
                    }
                }
            })
        };
        let back = {
            let (over, rules) = (Arc::clone(&over), rules.clone());
            thread::spawn(move || {
                let mut packet = vec![0; PACKET];
                while !over.load(Ordering::Relaxed) {
                    let Ok(size) = sockets.far.recv(&mut packet) else { continue };
                    let sender = *sockets.sender.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(sender) = sender
                        && rules.let_through(to, from)
                    {
                        let _lost = sockets.near.send_to(&packet[..size], sender);
                    }
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket of 127.0.0.1 that waits no longer than a few looks.
    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket.set_read_timeout(Some(LOOK * 3)).expect("set");
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
}
