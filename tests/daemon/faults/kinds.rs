//! The faults, what they lead to, and what a client may see of each.

/// What happens to the processes and their host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Nothing,
    DaemonKilled,
    DaemonPaused,
    Handover,
    DiskFull,
    FewFiles,
    /// The release that has the traffic.
    ActiveKilled,
    ActivePaused,
    /// The one to go back to.
    WarmKilled,
    WarmPaused,
    /// The host loses all processes, and starts the daemon.
    Boot,
    /// What is sent to the release with the traffic, or to the warm one, and what it sends, is lost.
    ActiveCutOff,
    WarmCutOff,
    /// The same for the new one, until it was rolled back.
    NewCutOff,
    /// Both releases stand still at the same time.
    BothPaused,
    /// A scanner sends requests that are no MCP.
    Scanned,
    /// The daemon stands still for longer than clients wait.
    DaemonPausedLong,
}

/// Which release has the traffic in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The one that had it, or the one that was deployed.
    Stays,
    /// The one before the deploy.
    Back,
    /// A release that hangs for seconds may be rolled back, or not.
    Either,
}

/// A fault: a deploy, a trouble, or one in the other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// What the new release does wrong, in the words of `DEMO_FAULT`.
    pub(super) deploy: Option<&'static str>,
    pub(super) trouble: Trouble,
    pub(super) end: End,
    /// What may be wrong with a response: how the reasons begin.
    pub(super) allowed: &'static [&'static str],
}

/// A kill of the daemon cuts what is open, and until the next start there is no listener.
const CUT: &[&str] = &["connection ", "subscription: connection broken"];
/// What is open at a release that dies or that is left. A `subscriptions/listen` ends with its result.
const INTERRUPTED: &[&str] = &["JSON-RPC error -32603"];
/// Both of these, and sessions that no release knows any more.
const BOOT: &[&str] = &["connection ", "subscription: ", "JSON-RPC error", "no response within"];
/// What the faults of the demo server do, and a rollback that interrupts.
const FAILS: &[&str] =
    &["HTTP 500", "JSON-RPC error", "the result has isError", "no response within"];
const FAILS_AND_CUT: &[&str] = &[
    "HTTP 500",
    "JSON-RPC error",
    "the result has isError",
    "no response within",
    "connection ",
    "subscription: connection broken",
];
const HANGS: &[&str] = &["no response within", "no stream within", "JSON-RPC error -32603"];

const fn trouble(name: &'static str, trouble: Trouble, allowed: &'static [&'static str]) -> Fault {
    Fault { name, deploy: None, trouble, end: End::Stays, allowed }
}

const fn healthy(
    name: &'static str,
    trouble: Trouble,
    end: End,
    allowed: &'static [&'static str],
) -> Fault {
    Fault { name, deploy: Some("none"), trouble, end, allowed }
}

const fn faulty(
    name: &'static str,
    fault: &'static str,
    trouble: Trouble,
    allowed: &'static [&'static str],
) -> Fault {
    Fault { name, deploy: Some(fault), trouble, end: End::Back, allowed }
}

pub(super) const ALL: &[Fault] = &[
    trouble("daemon-killed", Trouble::DaemonKilled, CUT),
    // Clients wait five seconds, a pause takes less.
    trouble("daemon-paused", Trouble::DaemonPaused, &[]),
    trouble("handover", Trouble::Handover, &[]),
    trouble("disk-full", Trouble::DiskFull, &[]),
    trouble("few-files", Trouble::FewFiles, HANGS),
    trouble("release-killed", Trouble::ActiveKilled, INTERRUPTED),
    trouble("release-paused", Trouble::ActivePaused, HANGS),
    healthy("healthy", Trouble::Nothing, End::Stays, &[]),
    healthy("healthy, daemon-killed", Trouble::DaemonKilled, End::Stays, CUT),
    healthy("healthy, daemon-paused", Trouble::DaemonPaused, End::Stays, &[]),
    healthy("healthy, handover", Trouble::Handover, End::Stays, &[]),
    healthy("healthy, disk-full", Trouble::DiskFull, End::Stays, &[]),
    healthy("healthy, few-files", Trouble::FewFiles, End::Stays, HANGS),
    // Sessions that were open before the deploy are still there.
    healthy("healthy, warm-killed", Trouble::WarmKilled, End::Stays, INTERRUPTED),
    healthy("healthy, warm-paused", Trouble::WarmPaused, End::Stays, &[]),
    // One crash that is restarted is in the record, not a verdict.
    healthy("healthy, killed", Trouble::ActiveKilled, End::Stays, INTERRUPTED),
    healthy("healthy, paused", Trouble::ActivePaused, End::Either, HANGS),
    trouble("boot", Trouble::Boot, BOOT),
    trouble("both-paused", Trouble::BothPaused, HANGS),
    trouble("scanned", Trouble::Scanned, &[]),
    trouble("daemon-paused-long", Trouble::DaemonPausedLong, HANGS),
    trouble("release-cut-off", Trouble::ActiveCutOff, HANGS),
    healthy("healthy, warm-cut-off", Trouble::WarmCutOff, End::Stays, HANGS),
    healthy("new-cut-off", Trouble::NewCutOff, End::Back, HANGS),
    healthy("healthy, boot", Trouble::Boot, End::Stays, BOOT),
    healthy("healthy, both-paused", Trouble::BothPaused, End::Stays, HANGS),
    healthy("healthy, scanned", Trouble::Scanned, End::Stays, &[]),
    healthy("healthy, daemon-paused-long", Trouble::DaemonPausedLong, End::Stays, HANGS),
    faulty("total", "total", Trouble::Nothing, FAILS),
    faulty("errors", "errors=20%", Trouble::Nothing, FAILS),
    faulty("one-tool", "one-tool", Trouble::Nothing, FAILS),
    faulty("slow", "slow", Trouble::Nothing, FAILS),
    faulty("hang", "hang", Trouble::Nothing, FAILS),
    faulty("crash-loop", "crash-loop", Trouble::Nothing, FAILS),
    faulty("total, daemon-killed", "total", Trouble::DaemonKilled, FAILS_AND_CUT),
    faulty("errors, daemon-killed", "errors=20%", Trouble::DaemonKilled, FAILS_AND_CUT),
    faulty("errors, daemon-paused", "errors=20%", Trouble::DaemonPaused, FAILS),
    faulty("errors, handover", "errors=20%", Trouble::Handover, FAILS),
    faulty("total, disk-full", "total", Trouble::DiskFull, FAILS),
    faulty("total, few-files", "total", Trouble::FewFiles, FAILS),
    faulty("total, warm-killed", "total", Trouble::WarmKilled, FAILS),
];

/// Trouble around a healthy release, which is nothing that it did: `FAULTS_ONLY=nulls`.
pub(super) fn nulls() -> Vec<&'static Fault> {
    let is_null = |it: &&Fault| it.deploy == Some("none") && it.end == End::Stays;
    ALL.iter().filter(is_null).collect()
}

/// Those of each run of the tests.
pub(super) const SHORT: &[&str] = &[
    "daemon-killed",
    "daemon-paused",
    "disk-full",
    "few-files",
    "release-killed",
    "errors, handover",
    "total, daemon-killed",
    "new-cut-off",
];

impl Fault {
    /// The fault of this name; in `FAULTS_ONLY`, `+` stands for `, `.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|it| it.name == name.replace('+', ", "))
    }

    pub(super) fn of_name(name: &&str) -> &'static Self {
        Self::named(name).unwrap()
    }

    /// Whether a client may see this while the fault is there.
    pub(super) fn allows(&self, reason: &str) -> bool {
        self.allowed.iter().any(|start| reason.starts_with(start))
    }
}
