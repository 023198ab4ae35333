//! Replays the fuzz targets' seeds, among them every input that ever found a fault.

use bytes::Bytes;
use flintmq_protocol::control::Encoding;

use crate::checks;

type Check = fn(&[u8]);

#[test]
fn every_seed_holds() {
    let targets: [(&str, Check); 9] = [
        ("event_stream", checks::event_stream),
        ("ber", |data| checks::control_bodies(data, Encoding::Ber)),
        ("json", |data| checks::control_bodies(data, Encoding::Json)),
        ("put", |data| checks::put(&Bytes::copy_from_slice(data))),
        ("push", |data| checks::push(&Bytes::copy_from_slice(data))),
        ("properties", checks::properties),
        ("options", checks::options),
        ("uri", checks::uri),
        ("inflate", checks::inflate),
    ];
    for (target, check) in targets {
        let seeds = seeds(target);
        assert!(seeds.len() >= 3, "{target} has seeds");
        for seed in seeds {
            check(&seed);
        }
    }
}

#[allow(clippy::disallowed_methods)]
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{folder}: {error}"))
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect()
}
