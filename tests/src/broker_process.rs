//! A broker as a process of its own: `flintmq serve` with a folder and ports that no other test
//! uses, killed when the test is over.

use std::fs::{self, File, OpenOptions};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::admin::Admin;
use crate::wait::{LIMIT, until, until_within};
use crate::{ports, programs};

/// How a broker is to be started.
#[derive(Debug)]
pub struct BrokerBuilder {
    lines: Vec<String>,
    tls: bool,
}

/// A running (or killed) broker.
#[derive(Debug)]
pub struct Broker {
    folder: TempDir,
    port: u16,
    tls_port: Option<u16>,
    admin_port: u16,
    /// Variables of the environment of its process.
    variables: Vec<(&'static str, String)>,
    process: Option<Child>,
}

impl BrokerBuilder {
    /// One line of `node.toml`, as a dotted key: `limits.max_connections = 5`.
    #[must_use]
    pub fn setting(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// Adds a `tls://` listener with a certificate from `flintmq cert init`.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Makes the folder and the configuration, without starting anything.
    ///
    /// # Panics
    /// When the folder cannot be made.
    #[track_caller]
    pub fn prepare(self) -> Broker {
        let folder = tempfile::Builder::new().prefix("flintmq-test").tempdir().expect("a folder");
        let port = ports::free();
        let tls_port = self.tls.then(ports::free);
        let admin_port = ports::free();
        let mut listen = vec![format!("\"tcp://127.0.0.1:{port}\"")];
        let mut lines = self.lines;
        if let Some(tls_port) = tls_port {
            let certificates = folder.path().join("certificates");
            make_certificates(&certificates);
            listen.push(format!("\"tls://127.0.0.1:{tls_port}\""));
            let file = |name: &str| certificates.join(name).display().to_string();
            lines.push(format!("clients.certificate = \"{}\"", file("localhost.pem")));
            lines.push(format!("clients.key = \"{}\"", file("localhost.key")));
        }
        lines.push(format!("clients.listen = [{}]", listen.join(", ")));
        lines.push(format!("admin.listen = \"127.0.0.1:{admin_port}\""));
        lines.push(format!("node.data_dir = \"{}\"", folder.path().join("data").display()));
        // A build machine's disk may be fuller than an operator would allow.
        if !lines.iter().any(|line| line.starts_with("node.disk_reserve")) {
            lines.push("node.disk_reserve = \"64MiB\"".to_owned());
        }
        fs::write(folder.path().join("node.toml"), lines.join("\n") + "\n")
            .expect("the configuration is written");
        Broker { folder, port, tls_port, admin_port, variables: Vec::new(), process: None }
    }

    /// Starts the broker and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    #[track_caller]
    pub fn start(self) -> Broker {
        let mut broker = self.prepare();
        broker.restart();
        broker
    }
}

impl Broker {
    /// A broker with the defaults, ready for clients.
    ///
    /// # Panics
    /// When it does not become ready.
    #[track_caller]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A broker with settings of its own.
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder { lines: Vec::new(), tls: false }
    }

    /// Starts the process again on the same folder and ports, and waits until it is ready.
    ///
    /// # Panics
    /// When it runs already, or exits, or does not become ready.
    #[track_caller]
    pub fn restart(&mut self) {
        self.launch();
        self.wait_until_ready();
    }

    /// Waits until it says that all its groups have leaders that serve.
    ///
    /// # Panics
    /// When it ends instead, or is not ready in time.
    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        let admin = self.admin();
        until("the broker to be ready", || {
            self.assert_running();
            admin.try_get("/readyz").filter(|answer| answer.status == 200)
        });
    }

    /// Moves the wall clock that its process sees, from its next start on; `by` as `faketime` takes
    /// it (`+8d`). Its monotonic clock stays right.
    ///
    /// # Panics
    /// When libfaketime is not installed; the text says how to.
    #[track_caller]
    pub fn move_clock(&mut self, by: &str) {
        let library = programs::libfaketime().display().to_string();
        let moved = [("LD_PRELOAD", library), ("FAKETIME", by.to_owned())];
        self.variables.extend(moved);
        self.variables.push(("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()));
        self.variables.push(("DONT_FAKE_MONOTONIC", "1".to_owned()));
    }

    /// Starts the process and does not wait for it.
    ///
    /// # Panics
    /// When it runs already or cannot be started.
    #[track_caller]
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "the broker runs already");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("the log file opens");
        let child = Command::new(programs::flintmq())
            .args(["serve", "--config"])
            .arg(self.config_file())
            .current_dir(self.folder.path())
            .env_remove("FLINTMQ_LOG")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file is duplicated"))
            .stderr(log)
            .spawn()
            .expect("the broker starts");
        self.process = Some(child);
    }

    /// `kill -9`, and waits until the process is gone.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut child = self.process.take().expect("the broker runs");
        child.kill().expect("the broker is killed");
        child.wait().expect("the broker is gone");
    }

    /// Sends SIGTERM and returns at once.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn terminate(&self) {
        kill_process(self.process_id(), Signal::TERM).expect("the signal is sent");
    }

    /// Stops the process where it is (SIGSTOP): it keeps its connections and says nothing.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn pause(&self) {
        kill_process(self.process_id(), Signal::STOP).expect("the signal is sent");
    }

    /// Lets a paused process go on (SIGCONT).
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn resume(&self) {
        kill_process(self.process_id(), Signal::CONT).expect("the signal is sent");
    }

    /// Whether it was started and neither killed nor waited for since.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Waits until the process has ended by itself, and returns how.
    ///
    /// # Panics
    /// When it has not ended after `limit`.
    #[track_caller]
    pub fn wait_for_exit(&mut self, limit: Duration) -> ExitStatus {
        let mut child = self.process.take().expect("the broker runs");
        let status =
            until_within(limit, "the broker to end", || child.try_wait().expect("a child"));
        child.wait().expect("the broker is gone");
        status
    }

    /// Asks the process to stop, waits, and requires that it did so properly.
    ///
    /// # Panics
    /// When it exits with anything but 0, or not at all.
    #[track_caller]
    pub fn stop(&mut self) {
        self.terminate();
        let status = self.wait_for_exit(LIMIT);
        assert!(status.success(), "the broker stopped with {status}\n{}", self.log());
    }

    /// Fails the test when the process is not running any more.
    ///
    /// # Panics
    /// Then, with the end of its log.
    #[track_caller]
    pub fn assert_running(&mut self) {
        let child = self.process.as_mut().expect("the broker was started");
        if let Some(status) = child.try_wait().expect("a child") {
            panic!("the broker ended with {status}; its log ends with:\n{}", self.log_end());
        }
    }

    /// `tcp://…` for clients.
    pub fn url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    /// `tls://…` for clients, of a broker with such a listener. The certificate is for `localhost`.
    ///
    /// # Panics
    /// When it has none.
    #[track_caller]
    pub fn tls_url(&self) -> String {
        format!("tls://localhost:{}", self.tls_port())
    }

    /// Port of the `tls://` listener.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn tls_port(&self) -> u16 {
        self.tls_port.expect("a broker built with tls()")
    }

    /// Port of the `tcp://` listener.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Port of the admin listener.
    pub fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// Its administration.
    pub fn admin(&self) -> Admin {
        Admin::on_port(self.admin_port)
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The folder that holds its data, its log and its configuration.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its `node.toml`.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("node.toml")
    }

    /// The folder with the authority's certificate `ca.pem`, of a broker with a `tls://` listener.
    pub fn certificates(&self) -> PathBuf {
        self.folder.path().join("certificates")
    }

    /// Everything that all its processes have logged so far.
    pub fn log(&self) -> String {
        fs::read(self.log_file())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits until a line with all of `words` has been logged, and returns it.
    ///
    /// # Panics
    /// When no such line comes.
    #[track_caller]
    pub fn wait_for_log(&self, words: &[&str]) -> String {
        until(&format!("a log line with {words:?}"), || {
            self.log()
                .lines()
                .find(|line| words.iter().all(|word| line.contains(word)))
                .map(str::to_owned)
        })
    }

    /// Opens a plain connection to the client port.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).expect("the broker accepts connections")
    }

    /// Id of the process.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn process_id(&self) -> Pid {
        Pid::from_child(self.process.as_ref().expect("the broker runs"))
    }

    /// Resident memory of the process, in bytes.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn resident_bytes(&self) -> u64 {
        self.status_number("VmRSS:") * 1024
    }

    /// The most that [`resident_bytes`](Self::resident_bytes) has been since the process started.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn peak_resident_bytes(&self) -> u64 {
        self.status_number("VmHWM:") * 1024
    }

    /// Processor time that the process has used since it started, in user and system.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn processor_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.process_id().as_raw_nonzero());
        let stat = fs::read_to_string(path).expect("a running process has a stat");
        // Fields 14 and 15; the name in field 2 is in brackets.
        let (_, behind_name) = stat.rsplit_once(')').expect("a name in brackets");
        let fields = behind_name.split_ascii_whitespace().skip(11).take(2);
        let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Bytes of disk that the data directory takes.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn disk_bytes(&self) -> u64 {
        disk_bytes(&self.data_dir())
    }

    fn status_number(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process_id().as_raw_nonzero());
        let status = fs::read_to_string(path).expect("a running process has a status");
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .expect("the status has the number")
    }

    /// Replaces one line of the configuration (or adds it), for the next start.
    ///
    /// # Panics
    /// When the configuration cannot be read or written.
    #[track_caller]
    pub fn change_setting(&self, line: &str) {
        let key = line.split('=').next().unwrap_or(line);
        let old = fs::read_to_string(self.config_file()).expect("the configuration is read");
        let others = old.lines().filter(|old| old.split('=').next() != Some(key));
        let lines: Vec<&str> = others.chain([line]).collect();
        fs::write(self.config_file(), lines.join("\n") + "\n")
            .expect("the configuration is written");
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("broker.log")
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            // It may have ended by itself; either way nothing is left behind.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() || std::env::var_os("FLINTMQ_TEST_LOGS").is_some() {
            let port = self.port;
            let kept = std::env::temp_dir().join(format!("flintmq-test-{port}.log"));
            let all = match fs::copy(self.log_file(), &kept) {
                Ok(_) => format!("all of it in {}", kept.display()),
                Err(error) => format!("not kept: {error}"),
            };
            eprintln!("log of the broker on port {port} ({all}):\n{}", self.log_end());
        }
    }
}

fn make_certificates(folder: &Path) {
    let output = Command::new(programs::flintmq())
        .args(["cert", "init", "--node", "localhost", "--dir"])
        .arg(folder)
        .output()
        .expect("flintmq runs");
    assert!(
        output.status.success(),
        "flintmq cert init failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn disk_bytes(folder: &Path) -> u64 {
    let mut total = 0;
    // Files come and go while they are counted.
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let Ok(kind) = entry.metadata() else { continue };
        if kind.is_dir() {
            total += disk_bytes(&entry.path());
        } else {
            use std::os::unix::fs::MetadataExt as _;
            total += kind.blocks() * 512;
        }
    }
    total
}

/// Runs `flintmq` with `arguments` to its end; returns exit code, standard output and error.
///
/// # Panics
/// When it cannot be started.
#[track_caller]
pub fn run_flintmq(folder: &Path, arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let input_file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(input_file.path(), input).expect("the input is written");
    let output = Command::new(programs::flintmq())
        .args(arguments)
        .current_dir(folder)
        .stdin(File::open(input_file.path()).expect("the input opens"))
        .output()
        .expect("flintmq runs");
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}
