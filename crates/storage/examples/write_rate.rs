//! Measures the log writer: entries and bytes per second of wall clock and of CPU, the largest size
//! of the directory, and memory.
//!
//! ```text
//! cargo run --release -p flintmq-storage --example write_rate -- --entry-bytes 65536 --total-mib 4096
//! ```
//!
//! Every `--checkpoint-mib` a checkpoint kills all entries but those of the last `--lag-mib`, as if
//! consumers were that far behind; `--backlog` kills none; `--keep-first` keeps the first one
//! alive, `--keep-every` every n-th; `--rate-mib` limits the bytes per second; `--drain` kills
//! everything in the end and waits until the space is given back.

use bytes::Bytes;
use flintmq_consensus::{Entry, EntryKind, GroupId, HardState, LogPosition, NodeId};
use flintmq_storage::{
    AppendBatch, CheckpointBatch, LogStore, NodeIdentity, RefusedReason, Report, Store,
    StoreOptions,
};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

struct Arguments {
    dir: String,
    entry_bytes: usize,
    total_mib: u64,
    groups: u32,
    checkpoint_mib: u64,
    lag_mib: u64,
    backlog: bool,
    keep_every: u64,
    rate_mib: u64,
    keep_first: bool,
    drain: bool,
    options: StoreOptions,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    // What exists belongs to somebody: a fresh directory only.
    fs::create_dir(&arguments.dir)?;
    let result = measure(&arguments);
    fs::remove_dir_all(&arguments.dir)?;
    result
}

fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let store = Store::open(arguments.options.clone())?.store;
    let (sender, reports) = mpsc::channel();
    let mut logs = Vec::new();
    for id in 1..=arguments.groups {
        let sender = sender.clone();
        let sink = move |report| drop(sender.send((id, report)));
        store.register(GroupId(id), Box::new(sink));
        store.create_group(GroupId(id), HardState::default())?;
        while !matches!(reports.recv()?, (of, Report::Created) if of == id) {}
        logs.push(Log { id: GroupId(id), last: 0, written: 0, checked: 0, alive: 1 });
    }
    // Random enough that nobody can compress it, and shared: the generator costs nothing.
    let mut seed = 1_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    };
    let payload: Vec<u8> = (0..arguments.entry_bytes).map(|_| random()).collect();
    let payload = Bytes::from(payload);
    let total = (arguments.total_mib << 20) / arguments.entry_bytes as u64;
    let per_checkpoint = (arguments.checkpoint_mib << 20)
        / arguments.entry_bytes as u64
        / u64::from(arguments.groups);
    let lag =
        (arguments.lag_mib << 20) / arguments.entry_bytes as u64 / u64::from(arguments.groups);
    let (began, cpu) = (Instant::now(), cpu_seconds()?);
    let (mut largest, mut largest_rss, mut next_look) = (0, 0, Instant::now());
    for number in 0..total {
        let place = (number % u64::from(arguments.groups)) as usize;
        if arguments.rate_mib > 0 {
            let due =
                number as f64 * arguments.entry_bytes as f64 / (arguments.rate_mib << 20) as f64;
            let early = due - began.elapsed().as_secs_f64();
            if early > 0.001 {
                std::thread::sleep(Duration::from_secs_f64(early));
            }
        }
        let Some(log) = logs.get_mut(place) else { continue };
        log.last += 1;
        let entry = Entry {
            index: log.last,
            term: 1,
            history: 0,
            kind: EntryKind::Commands,
            payload: payload.clone(),
        };
        let batch = AppendBatch { entries: vec![entry], ..AppendBatch::default() };
        append(&store, log.id, batch, &reports, &mut logs)?;
        while let Ok(report) = reports.try_recv() {
            take_in(report, &mut logs)?;
        }
        let Some(log) = logs.get_mut(place) else { continue };
        if !arguments.backlog && log.last - log.checked >= per_checkpoint.max(1) {
            log.checkpoint(&store, lag, arguments)?;
        }
        if Instant::now() >= next_look {
            largest = largest.max(directory_bytes(Path::new(&arguments.dir))?);
            largest_rss = largest_rss.max(rss_mib()?);
            next_look = Instant::now() + Duration::from_millis(100);
        }
    }
    while logs.iter().any(|log| log.written < log.last) {
        take_in(reports.recv()?, &mut logs)?;
    }
    let (took, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    if arguments.drain {
        drain(&store, &mut logs, arguments)?;
    }
    let stats = store.stats();
    let gib = (total * arguments.entry_bytes as u64) as f64 / f64::from(1 << 30);
    println!(
        "entry_bytes={} entries={total} wall_s={took:.2} cpu_s={cpu:.2} gib_s={:.3} gib_cpu_s={:.3} entries_s={:.0} max_dir_mib={} end_dir_mib={} max_rss_mib={largest_rss}",
        arguments.entry_bytes,
        gib / took,
        gib / cpu,
        total as f64 / took,
        largest >> 20,
        directory_bytes(Path::new(&arguments.dir))? >> 20,
    );
    println!(
        "  writes={} entries_per_write={:.1} write_max_ms={:.1} fsyncs={} fsync_max_ms={:.1} flushes={} compactions={} reclaims={} slowdowns={} stops={} wal_mib={} table_mib={} garbage_mib={} refused={}",
        stats.log_write.count(),
        stats.log_write_entries as f64 / stats.log_write.count() as f64,
        stats.log_write.max_seconds * 1e3,
        stats.flush.count(),
        stats.flush.max_seconds * 1e3,
        stats.memtable_flushes,
        stats.compactions,
        stats.space_reclaims,
        stats.write_slowdowns,
        stats.write_stops,
        stats.wal_bytes >> 20,
        stats.table_bytes >> 20,
        stats.blob_garbage_bytes >> 20,
        stats.refused_full,
    );
    store.close()?;
    Ok(())
}

struct Log {
    id: GroupId,
    last: u64,
    written: u64,
    /// The last entry when the last checkpoint was made.
    checked: u64,
    /// The first entry that is not dead yet.
    alive: u64,
}

impl Log {
    fn checkpoint(
        &mut self,
        store: &Store,
        lag: u64,
        arguments: &Arguments,
    ) -> Result<(), Box<dyn Error>> {
        self.checked = self.last;
        let until = self.last.saturating_sub(lag).max(self.alive - 1);
        let keep = |index: u64| {
            (arguments.keep_first && index == 1)
                || (arguments.keep_every > 0 && index.is_multiple_of(arguments.keep_every))
        };
        let dead_entries = (self.alive..=until).filter(|index| !keep(*index)).collect();
        self.alive = until + 1;
        let applied = LogPosition { term: 1, index: until };
        let puts = vec![(b"state".to_vec(), vec![0; 4096])];
        let mut batch =
            CheckpointBatch { applied, dead_entries, puts, ..CheckpointBatch::default() };
        // Busy waiting: there is nothing else to do, and it is rare.
        while let Err(refused) = store.try_checkpoint(self.id, batch) {
            if refused.reason != RefusedReason::Full {
                return Err(refused.reason.into());
            }
            batch = refused.returned;
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// Kills everything in small steps and waits until the directory stops shrinking.
fn drain(store: &Store, logs: &mut [Log], arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    for log in logs {
        while log.alive <= log.last {
            let lag = log.last.saturating_sub(log.alive + 255);
            log.checkpoint(store, lag, arguments)?;
        }
    }
    let dir = Path::new(&arguments.dir);
    let (mut size, mut since) = (directory_bytes(dir)?, Instant::now());
    while since.elapsed() < Duration::from_secs(3) {
        let now = directory_bytes(dir)?;
        if now < size {
            (size, since) = (now, Instant::now());
        }
        std::thread::yield_now();
    }
    Ok(())
}

fn append(
    store: &Store,
    group: GroupId,
    mut batch: AppendBatch,
    reports: &mpsc::Receiver<(u32, Report)>,
    logs: &mut [Log],
) -> Result<(), Box<dyn Error>> {
    while let Err(refused) = store.try_append(group, batch) {
        if refused.reason != RefusedReason::Full {
            return Err(refused.reason.into());
        }
        batch = refused.returned;
        loop {
            let report = reports.recv()?;
            let room = matches!(report, (id, Report::Room) if id == group.0);
            take_in(report, logs)?;
            if room {
                break;
            }
        }
    }
    Ok(())
}

fn take_in((id, report): (u32, Report), logs: &mut [Log]) -> Result<(), Box<dyn Error>> {
    match (report, logs.get_mut(id as usize - 1)) {
        (Report::Appended { upto, .. }, Some(log)) => log.written = upto.index,
        (Report::Failed(error), _) => return Err(error.into()),
        _ => {}
    }
    Ok(())
}

fn directory_bytes(dir: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for file in fs::read_dir(dir)?.flatten() {
        // Files come and go meanwhile.
        let Ok(found) = file.metadata() else { continue };
        bytes += if found.is_dir() { directory_bytes(&file.path())? } else { found.blocks() * 512 };
    }
    Ok(bytes)
}

fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

fn rss_mib() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    // Without the page cache that is mapped.
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).unwrap_or("0");
    Ok(kib.parse::<u64>()? >> 10)
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut given = std::env::args().skip(1);
    let identity = NodeIdentity { cluster: "bench".to_owned(), node: NodeId(1) };
    let mut options = StoreOptions::new("", identity);
    options.disk_reserve = 0;
    let mut found = Arguments {
        dir: format!("write-rate-{}", std::process::id()),
        entry_bytes: 64 << 10,
        total_mib: 2048,
        groups: 4,
        checkpoint_mib: 16,
        lag_mib: 4,
        backlog: false,
        keep_every: 0,
        rate_mib: 0,
        keep_first: false,
        drain: false,
        options,
    };
    while let Some(name) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("{name} needs a value"));
        let tuning = &mut found.options.tuning;
        match name.as_str() {
            "--dir" => found.dir = value()?,
            "--entry-bytes" => found.entry_bytes = value()?.parse()?,
            "--total-mib" => found.total_mib = value()?.parse()?,
            "--groups" => found.groups = value()?.parse()?,
            "--checkpoint-mib" => found.checkpoint_mib = value()?.parse()?,
            "--lag-mib" => found.lag_mib = value()?.parse()?,
            "--backlog" => found.backlog = true,
            "--keep-first" => found.keep_first = true,
            "--keep-every" => found.keep_every = value()?.parse()?,
            "--rate-mib" => found.rate_mib = value()?.parse()?,
            "--drain" => found.drain = true,
            "--blob-bytes" => tuning.min_blob_bytes = Some(value()?.parse()?),
            "--no-blob" => tuning.min_blob_bytes = None,
            "--memtable-mib" => tuning.memtable_bytes = value()?.parse::<usize>()? << 20,
            "--memtables" => tuning.memtables = value()?.parse()?,
            "--merge" => tuning.memtables_per_flush = value()?.parse()?,
            "--wal-mib" => tuning.wal_bytes = value()?.parse::<u64>()? << 20,
            "--write-kib" => found.options.write_bytes = value()?.parse::<usize>()? << 10,
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    found.options.dir = Path::new(&found.dir).join("data");
    Ok(found)
}
