use std::collections::BTreeMap;

use zbus::{OwnedObjectPath, OwnedVariant, Variant};

use crate::systemd::error_help;
use crate::systemd::manager::{PROPERTIES_INTERFACE, SYSTEMD_BUS_NAME, SystemdManager};

pub(super) const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";
const SERVICE_INTERFACE: &str = "org.freedesktop.systemd1.Service";
/// The value of a weight that is not set.
const WEIGHT_UNSET: u64 = u64::MAX;

/// The state of a service unit, in systemd's terms; `systemctl show` prints the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitState {
    /// LoadState: "loaded", "not-found", "masked", "bad-setting".
    pub load_state: String,
    /// ActiveState: "active", "activating", "deactivating", "inactive", "failed", "reloading".
    pub active_state: String,
    /// SubState, such as "running", "auto-restart", "dead".
    pub sub_state: String,
    /// Whether a job starts, stops or restarts the unit at the moment.
    pub has_job: bool,
    /// Result of its last run, such as "success", "exit-code", "oom-kill", "watchdog".
    pub result: String,
    /// NRestarts: automatic restarts since the last start by a job.
    pub restarts: u32,
    /// InvocationID: a new one for each run; empty if the unit never ran.
    pub invocation_id: String,
    /// How the main process of the last run ended.
    pub main_exit: MainExit,
    /// When the main process was last started, in microseconds since 1970.
    pub started_at_us: u64,
    /// The same on the kernel's monotonic clock, in microseconds; 0 if it never was.
    pub started_monotonic_us: u64,
    /// The program of ExecStart= with its arguments, before variables are filled in.
    pub exec_start: Vec<String>,
    /// The files of EnvironmentFile=.
    pub environment_files: Vec<String>,
    /// The unit's share of processor and disk.
    pub weights: ResourceWeights,
}

/// ExecMainCode and ExecMainStatus: how the main process of a unit ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MainExit {
    /// There was no main process, or it has not ended.
    #[default]
    None,
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Killed(i32),
    /// This signal ended it, with a core dump.
    Dumped(i32),
}

/// CPUWeight= and IOWeight=; `None`: not set, as 100.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResourceWeights {
    /// The processor's, 1 to 10000.
    pub cpu: Option<u64>,
    /// The disks', 1 to 10000.
    pub io: Option<u64>,
}

impl UnitState {
    /// Whether the main process runs or starts.
    pub fn is_up(&self) -> bool {
        matches!(self.active_state.as_str(), "active" | "reloading") || self.is_starting()
    }

    /// Whether systemd starts the unit at the moment; false between two runs of a crash loop.
    pub fn is_starting(&self) -> bool {
        self.active_state == "activating" && self.sub_state != "auto-restart"
    }

    /// Whether nothing runs, and systemd does not restart the unit by itself.
    pub fn is_down(&self) -> bool {
        matches!(self.active_state.as_str(), "inactive" | "failed")
    }
}

impl SystemdManager {
    /// The state of a unit. A unit without a unit file has the load state "not-found".
    ///
    /// # Errors
    /// D-Bus or systemd does not answer.
    pub async fn unit_state(&self, unit: &str) -> Result<UnitState, String> {
        let read = async {
            let path = self.unit_path(unit).await?;
            let mut all = self.get_properties(&path, UNIT_INTERFACE).await?;
            all.extend(self.get_properties(&path, SERVICE_INTERFACE).await?);
            Ok(UnitState::from_properties(&all))
        };
        read.await.map_err(|error| error_help::describe_failure("read the state of", unit, &error))
    }

    /// Sets the weights of a unit until the next boot, whether it runs or not.
    ///
    /// # Errors
    /// D-Bus or systemd does not answer, or denies the call.
    pub async fn set_weights(&self, unit: &str, weights: ResourceWeights) -> Result<(), String> {
        let value = |weight: Option<u64>| Variant::U64(weight.unwrap_or(WEIGHT_UNSET));
        let all = vec![("CPUWeight", value(weights.cpu)), ("IOWeight", value(weights.io))];
        let set = self.call_manager("SetUnitProperties", &(unit, true, all)).await;
        set.map(drop)
            .map_err(|error| error_help::describe_failure("set the weight of", unit, &error))
    }

    /// The object path of a unit; systemd loads the unit file if it is not loaded.
    pub(crate) async fn unit_path(&self, unit: &str) -> zbus::Result<OwnedObjectPath> {
        self.call_manager("LoadUnit", &unit).await?.body().deserialize()
    }

    pub(super) async fn get_properties(
        &self,
        path: &OwnedObjectPath,
        interface: &str,
    ) -> zbus::Result<BTreeMap<String, OwnedVariant>> {
        let connection = self.connection().await?;
        let get = connection
            .call_method(
                Some(SYSTEMD_BUS_NAME),
                path,
                Some(PROPERTIES_INTERFACE),
                "GetAll",
                &interface,
            )
            .await?;
        get.body().deserialize()
    }
}

impl UnitState {
    fn from_properties(all: &BTreeMap<String, OwnedVariant>) -> Self {
        let value = |name: &str| all.get(name).map(|it| &**it);
        let string = |name: &str| as_string(value(name)).unwrap_or_default();
        let whole = |name: &str| value(name).and_then(|it| i32::try_from(it).ok()).unwrap_or(0);
        let large = |name: &str| value(name).and_then(|it| u64::try_from(it).ok());
        let weight = |name: &str| large(name).filter(|it| *it != WEIGHT_UNSET);
        Self {
            load_state: string("LoadState"),
            active_state: string("ActiveState"),
            sub_state: string("SubState"),
            has_job: struct_fields(value("Job")).first().and_then(|it| u32::try_from(it).ok())
                > Some(0),
            result: string("Result"),
            restarts: value("NRestarts").and_then(|it| u32::try_from(it).ok()).unwrap_or(0),
            invocation_id: bytes_to_hex(value("InvocationID")),
            main_exit: MainExit::new(whole("ExecMainCode"), whole("ExecMainStatus")),
            started_at_us: large("ExecMainStartTimestamp").unwrap_or(0),
            started_monotonic_us: large("ExecMainStartTimestampMonotonic").unwrap_or(0),
            exec_start: exec_start_argv(value("ExecStart")),
            environment_files: environment_file_paths(value("EnvironmentFiles")),
            weights: ResourceWeights { cpu: weight("CPUWeight"), io: weight("IOWeight") },
        }
    }
}

impl MainExit {
    /// `code` is one of the CLD_ constants of waitid(2).
    fn new(code: i32, status: i32) -> Self {
        match code {
            1 => Self::Exited(status),
            2 => Self::Killed(status),
            3 => Self::Dumped(status),
            _ => Self::None,
        }
    }
}

pub(super) fn as_string(value: Option<&Variant<'_>>) -> Option<String> {
    value.and_then(|it| <&str>::try_from(it).ok()).map(str::to_owned)
}

pub(super) fn array_items<'a>(value: Option<&'a Variant<'a>>) -> &'a [Variant<'a>] {
    match value {
        Some(Variant::Array(items)) => items,
        _ => &[],
    }
}

pub(super) fn struct_fields<'a>(value: Option<&'a Variant<'a>>) -> &'a [Variant<'a>] {
    match value {
        Some(Variant::Structure(it)) => it.fields(),
        _ => &[],
    }
}

fn bytes_to_hex(value: Option<&Variant<'_>>) -> String {
    let byte =
        |it: &Variant<'_>| u8::try_from(it).map(|it| format!("{it:02x}")).unwrap_or_default();
    array_items(value).iter().map(byte).collect()
}

/// The arguments of the first command in `a(sasbttttuii)`.
fn exec_start_argv(value: Option<&Variant<'_>>) -> Vec<String> {
    let command = struct_fields(array_items(value).first());
    array_items(command.get(1)).iter().filter_map(|it| as_string(Some(it))).collect()
}

/// The paths in `a(sb)`; the flag tells whether the file may be missing.
fn environment_file_paths(value: Option<&Variant<'_>>) -> Vec<String> {
    array_items(value).iter().filter_map(|it| as_string(struct_fields(Some(it)).first())).collect()
}
