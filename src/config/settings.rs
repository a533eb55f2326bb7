//! What the rest of the daemon works with: checked, complete, nothing optional that has a default.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::selector::Selector;
use crate::model::Slot;
use crate::{artifact, decide, judge};

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where timelines, locks, keys and captured output lie.
    pub state_dir: PathBuf,
    /// The socket for the verbs.
    pub control_socket: PathBuf,
    /// Where the daemon's own metrics are served, on loopback; nowhere by default.
    pub metrics: Option<SocketAddr>,
    /// The API socket of the podman that images are asked of.
    pub podman: PathBuf,
    /// The services, by name.
    pub services: BTreeMap<String, Service>,
}

/// One logical MCP server.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its name, as in `[service.NAME]`.
    pub name: String,
    /// Its public address.
    pub listen: SocketAddr,
    /// The path of its MCP endpoint, such as `/mcp`.
    pub path: String,
    /// Values of `DaemonHarness` that are served, without port; `*` serves all.
    pub hosts: BTreeSet<String>,
    /// Values of `StartMode` that are served besides requests without one; `*` serves all.
    pub origins: BTreeSet<String>,
    /// How its releases run.
    pub runtime: Runtime,
    /// What its artifacts are.
    pub artifact: artifact::ArtifactKind,
    /// Of so many of its latest releases the artifacts are kept.
    pub keep_artifacts: u32,
    /// Where they run. At least two.
    pub slots: BTreeMap<Slot, Address>,
    /// How they are probed.
    pub probe: ProbeSettings,
    /// Where their own counters are read, if they are.
    pub scrape: Option<ScrapeSettings>,
    /// What the judge holds them to.
    pub slo: judge::SloSettings,
    /// How the daemon decides.
    pub policy: decide::Policy,
    /// Whether its sessions can be made anew.
    pub session_state: SessionState,
    /// Whether sessions also move to a new release, once it is accepted.
    pub migrate_on_accept: bool,
    /// What the proxy allows.
    pub limits: ProxyLimits,
}

/// What a session of a server carries besides what the protocol shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Nothing: a session is moved, and nothing is lost.
    None,
    /// Little: a session is moved, and the timeline says that state may be lost.
    Soft,
    /// What can not be made anew: a session stays with its release and ends with it.
    Hard,
}

/// How a release runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Runtime {
    /// The daemon starts it, watches it, starts it again and stops it.
    Command(CommandRuntime),
    /// systemd does, as an instance of a template for each slot; the daemon tells it to.
    Systemd(UnitTemplate),
    /// Somebody else runs it; it is only watched and switched.
    External,
}

/// A command of which `{version}`, `{artifact}`, `{slot}` and `{port}` are filled in at the start.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandRuntime {
    /// The program and its arguments; never empty.
    pub argv: Vec<String>,
    /// Its environment, besides the daemon's `PATH` and what the deploy sets.
    pub env: BTreeMap<String, String>,
    /// Its working directory.
    pub working_dir: Option<PathBuf>,
    /// How long it may take to end after SIGTERM, before SIGKILL.
    pub stop_timeout: Duration,
}

/// A template of systemd units, one instance of it for each slot.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitTemplate {
    /// Its name, such as `mcp-weather@.service`.
    pub unit: String,
    /// What its instances get in their environment files, besides what the deploy sets.
    pub env: BTreeMap<String, String>,
    /// How long the daemon waits for one to stop; systemd goes on stopping it after that.
    pub stop_timeout: Duration,
    /// CPUWeight= and IOWeight= of a warm release that serves nobody.
    pub warm_weight: u64,
}

impl UnitTemplate {
    /// The unit of a slot, such as `mcp-weather@blue.service`.
    pub fn unit_of(&self, slot: &Slot) -> String {
        self.unit.replacen('@', &format!("@{slot}"), 1)
    }
}

/// Where a slot listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// How a release is probed.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeSettings {
    /// What is asked.
    pub kind: ProbeKind,
    /// How often, while all is well.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Good answers in a row before a new release is ready.
    pub ready_after: u32,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq)]
pub enum ProbeKind {
    /// `server/discover`, or `initialize` and `tools/list`: whichever the server speaks.
    Mcp,
    /// A GET request.
    Http {
        /// Its path.
        path: String,
        /// The status it must have.
        status: u16,
        /// A field of the JSON answer, as a pointer such as `/status`, and its value as text.
        field: Option<(String, String)>,
    },
    /// A connection.
    Tcp,
    /// A command that exits with 0; `{port}`, `{slot}` and `{version}` are filled in.
    Command(Vec<String>),
}

/// How a release's own counters are read.
#[derive(Debug, Clone, PartialEq)]
pub struct ScrapeSettings {
    /// Where they are.
    pub target: ScrapeTarget,
    /// All requests.
    pub total: Selector,
    /// The bad ones among them.
    pub bad: Selector,
    /// How often.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// Where counters are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScrapeTarget {
    /// A path at the address of the release's slot.
    Path(String),
    /// A URL of which `{port}`, `{slot}` and `{version}` are filled in.
    Url(String),
}

/// What the proxy allows.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyLimits {
    /// A request without its answer counts as bad after this.
    pub deadline: Duration,
    /// A request counts as slow after this: the threshold of the latency objective, or the time
    /// that a probe may take.
    pub slow_after: Duration,
    /// A client may take this long for the head of a request, and stay idle between requests.
    pub header_timeout: Duration,
    /// Connections at once.
    pub connections_max: usize,
    /// Bytes of a request's body.
    pub body_max: u64,
    /// Sessions at once.
    pub sessions_max: usize,
    /// A session that is silent for this long is forgotten.
    pub session_idle: Duration,
    /// Moving a session to another release may take this long; its requests wait meanwhile.
    pub migration_timeout: Duration,
    /// Requests that failed on the release on trial and are repeated on the warm one, a second at
    /// most; 0 is off.
    pub shadow_calls_per_second: u32,
    /// Tools that may be repeated besides those that the warm release annotates as read-only.
    pub repeatable_tools: BTreeSet<String>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
