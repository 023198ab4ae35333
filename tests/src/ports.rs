//! Free ports, of TCP and UDP alike, that stay free while a broker is down.
//!
//! They are taken below the range that the kernel gives to outgoing connections: a client that
//! keeps trying a port of that range while nobody listens can end up connected to itself.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process;
use std::sync::Mutex;

const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port of 127.0.0.1 that nobody listens on and that this process has not given out before.
///
/// # Panics
/// When all are in use.
pub fn free() -> u16 {
    let mut given = GIVEN.lock().expect("no test panics while it takes a port");
    // Test programs that run at the same time start their search in different places.
    let offset = u16::try_from(process::id() % u32::from(COUNT) * 37 % u32::from(COUNT))
        .expect("smaller than the count");
    let free = (0..COUNT)
        .map(|step| FIRST + (offset % COUNT + step) % COUNT)
        .find(|port| {
            !given.contains(port)
                && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
                && UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
        })
        .expect("a free port");
    given.insert(free);
    free
}
