use std::collections::BTreeMap;

use zbus::{OwnedObjectPath, OwnedVariant, Variant};

use super::{Bus, PROPERTIES, SYSTEMD, trouble};

const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
/// What systemd says where a weight is not set.
const UNSET: u64 = u64::MAX;

/// How a service unit stands, in systemd's own words; `systemctl show` explains them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// LoadState: "loaded", "not-found", "masked", "bad-setting".
    pub load: String,
    /// ActiveState: "active", "activating", "deactivating", "inactive", "failed", "reloading".
    pub active: String,
    /// SubState, such as "running", "auto-restart", "dead".
    pub sub: String,
    /// Whether somebody, or a dependency, has it started, stopped or restarted at the moment: it has a
    /// Job.
    pub job: bool,
    /// Result of its last run, such as "success", "exit-code", "oom-kill", "watchdog".
    pub result: String,
    /// NRestarts: how often systemd started it again by itself since somebody last started it.
    pub restarts: u32,
    /// InvocationID: another one for each run; empty where it never ran.
    pub invocation: String,
    /// ExecMainCode (1: exited, 2: killed, 3: dumped core) and ExecMainStatus of its last run.
    pub exit: (i32, i32),
    /// When its main process was last started, in microseconds since 1970.
    pub started: u64,
    /// The program of ExecStart= with its arguments, before variables are filled in.
    pub program: Vec<String>,
    /// The files of EnvironmentFile=.
    pub reads: Vec<String>,
    /// What it gets of processor and disk beside others.
    pub weights: Weights,
}

/// CPUWeight= and IOWeight=; `None`: not set, as 100.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weights {
    /// Of the processor, 1 to 10000.
    pub cpu: Option<u64>,
    /// Of the disks, 1 to 10000.
    pub io: Option<u64>,
}

impl State {
    /// Whether its main process runs, or is about to.
    pub fn is_up(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading") || self.is_rising()
    }

    /// Whether systemd starts it at the moment. Between two runs of a crash loop it does not.
    pub fn is_rising(&self) -> bool {
        self.active == "activating" && self.sub != "auto-restart"
    }

    /// Whether nothing runs, and systemd will not start it by itself.
    pub fn is_down(&self) -> bool {
        matches!(self.active.as_str(), "inactive" | "failed")
    }
}

impl Bus {
    /// How a unit stands. A unit that nobody knows has the load state "not-found".
    ///
    /// # Errors
    /// D-Bus or systemd does not answer.
    pub async fn state(&self, unit: &str) -> Result<State, String> {
        let read = async {
            let path = self.path(unit).await?;
            let mut all = self.properties(&path, UNIT).await?;
            all.extend(self.properties(&path, SERVICE).await?);
            Ok(State::of(&all))
        };
        read.await.map_err(|error| trouble::words("be told about", unit, &error))
    }

    /// Sets the weights of a unit until the next boot, running or not.
    ///
    /// # Errors
    /// D-Bus or systemd does not answer, or does not let us.
    pub async fn weigh(&self, unit: &str, weights: Weights) -> Result<(), String> {
        let value = |weight: Option<u64>| Variant::U64(weight.unwrap_or(UNSET));
        let all = vec![("CPUWeight", value(weights.cpu)), ("IOWeight", value(weights.io))];
        let set = self.manager("SetUnitProperties", &(unit, true, all)).await;
        set.map(drop).map_err(|error| trouble::words("set the weight of", unit, &error))
    }

    /// Where a unit is found; systemd reads its file if need be.
    pub(super) async fn path(&self, unit: &str) -> zbus::Result<OwnedObjectPath> {
        self.manager("LoadUnit", &unit).await?.body().deserialize()
    }

    async fn properties(
        &self,
        path: &OwnedObjectPath,
        interface: &str,
    ) -> zbus::Result<BTreeMap<String, OwnedVariant>> {
        let connection = self.connection().await?;
        let get = connection
            .call_method(Some(SYSTEMD), path, Some(PROPERTIES), "GetAll", &interface)
            .await?;
        get.body().deserialize()
    }
}

impl State {
    fn of(all: &BTreeMap<String, OwnedVariant>) -> Self {
        let value = |name: &str| all.get(name).map(|it| &**it);
        let string = |name: &str| text(value(name)).unwrap_or_default();
        let whole = |name: &str| value(name).and_then(|it| i32::try_from(it).ok()).unwrap_or(0);
        let large = |name: &str| value(name).and_then(|it| u64::try_from(it).ok());
        let weight = |name: &str| large(name).filter(|it| *it != UNSET);
        Self {
            load: string("LoadState"),
            active: string("ActiveState"),
            sub: string("SubState"),
            job: fields(value("Job")).first().and_then(|it| u32::try_from(it).ok()) > Some(0),
            result: string("Result"),
            restarts: value("NRestarts").and_then(|it| u32::try_from(it).ok()).unwrap_or(0),
            invocation: hex(value("InvocationID")),
            exit: (whole("ExecMainCode"), whole("ExecMainStatus")),
            started: large("ExecMainStartTimestamp").unwrap_or(0),
            program: program(value("ExecStart")),
            reads: files(value("EnvironmentFiles")),
            weights: Weights { cpu: weight("CPUWeight"), io: weight("IOWeight") },
        }
    }
}

fn text(value: Option<&Variant<'_>>) -> Option<String> {
    value.and_then(|it| <&str>::try_from(it).ok()).map(str::to_owned)
}

fn items<'a>(value: Option<&'a Variant<'a>>) -> &'a [Variant<'a>] {
    match value {
        Some(Variant::Array(items)) => items,
        _ => &[],
    }
}

fn fields<'a>(value: Option<&'a Variant<'a>>) -> &'a [Variant<'a>] {
    match value {
        Some(Variant::Structure(it)) => it.fields(),
        _ => &[],
    }
}

fn hex(value: Option<&Variant<'_>>) -> String {
    let byte =
        |it: &Variant<'_>| u8::try_from(it).map(|it| format!("{it:02x}")).unwrap_or_default();
    items(value).iter().map(byte).collect()
}

/// `a(sasbttttuii)`: of the first command, its arguments; the rest is about its last run.
fn program(value: Option<&Variant<'_>>) -> Vec<String> {
    let command = fields(items(value).first());
    items(command.get(1)).iter().filter_map(|it| text(Some(it))).collect()
}

/// `a(sb)`: paths, and whether each may be missing.
fn files(value: Option<&Variant<'_>>) -> Vec<String> {
    items(value).iter().filter_map(|it| text(fields(Some(it)).first())).collect()
}
