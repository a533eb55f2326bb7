use serde_json::Value;

use crate::machine::{CommandOutput, Machine};
use crate::ports::free_port;
use crate::wait::{WAIT_MAX, wait_for, wait_until};

/// The settings of the service, besides its addresses.
const SETTINGS: &str = "deadline = \"10s\"\ndrain_timeout = \"5s\"\nburst = \"1s\"\n";

/// A host with the daemon installed, and one service: `weather`.
pub(crate) struct Host {
    pub(crate) machine: Machine,
    pub(crate) listen: u16,
    pub(crate) slots: [u16; 2],
}

impl Host {
    /// Boots a host with the lines of `drop_in` added to the unit, and starts the daemon. It runs
    /// releases itself.
    pub(crate) fn boot(drop_in: &str) -> Self {
        let host = Self::installed(Machine::boot());
        host.machine.write("etc/systemd/system/rollbackd.service.d/test.conf", drop_in);
        let command =
            "runtime = \"command\"\ncommand = [\"/usr/bin/rollbackd\", \"demo-server\"]\n";
        host.configure("", &format!("{command}{SETTINGS}"));
        host.run(&["systemctl", "daemon-reload"]).expect_success();
        host.run(&["systemctl", "start", "rollbackd"]).expect_success();
        host
    }

    /// The daemon is installed, and neither configured nor started.
    pub(crate) fn installed(machine: Machine) -> Self {
        let [listen, slots @ ..] = [free_port(), free_port(), free_port()];
        Self { machine, listen, slots }
    }

    /// Writes the configuration: the settings of the daemon and those of the service.
    pub(crate) fn configure(&self, daemon: &str, service: &str) {
        let (listen, [blue, green]) = (self.listen, self.slots);
        let config = format!(
            "[daemon]\n{daemon}\n[service.weather]\nlisten = \"127.0.0.1:{listen}\"\n\
             slots = {{ blue = \"127.0.0.1:{blue}\", green = \"127.0.0.1:{green}\" }}\n{service}\n"
        );
        self.machine.write("etc/rollbackd/config.toml", &config);
    }

    /// Runs a command on the host, to its end.
    pub(crate) fn run(&self, command: &[&str]) -> CommandOutput {
        self.machine.run(command)
    }

    /// Runs it as another user.
    pub(crate) fn run_as_user(&self, user: &str, command: &[&str]) -> CommandOutput {
        let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
        self.run(&[&["setpriv", &uid, &gid, "--init-groups", "--"], command].concat())
    }

    /// One property of the daemon's unit.
    pub(crate) fn property(&self, name: &str) -> String {
        self.property_of("rollbackd", name)
    }

    pub(crate) fn property_of(&self, unit: &str, name: &str) -> String {
        let shown = self.run(&["systemctl", "show", unit, "--value", "--property", name]);
        shown.expect_success().out
    }

    pub(crate) fn status(&self) -> Value {
        let said = self.run(&["rollbackd", "status", "weather", "--json"]);
        serde_json::from_str(&said.out).unwrap_or(Value::Null)
    }

    /// Waits until the releases have answered this many more requests.
    pub(crate) fn wait_for_requests(&self, count: u64) {
        let answered = || {
            let releases = self.status()["releases"].clone();
            let all = releases.as_array().into_iter().flatten();
            all.filter_map(|it| it["counts"]["ok"].as_u64()).sum::<u64>()
        };
        let until = answered() + count;
        wait_until("requests", || answered() >= until);
    }

    pub(crate) fn deploy(&self, version: &str, more: &[&str]) -> CommandOutput {
        self.run(&[&["rollbackd", "deploy", "weather", version], more].concat())
    }

    /// The timeline of the newest deploy, as text.
    pub(crate) fn timeline(&self) -> String {
        self.run(&["rollbackd", "timeline", "weather"]).out
    }

    /// When the newest entry of this kind was written, in ms since 1970.
    pub(crate) fn entry_ms(&self, kind: &str) -> u64 {
        let entries =
            self.run(&["rollbackd", "timeline", "weather", "--json"]).expect_success().out;
        let entries = entries.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let newest = entries.rev().find(|it| it["kind"] == kind);
        let at = newest.unwrap_or_else(|| panic!("no {kind}"))["at"].clone();
        self.machine.shell(&format!("date -d {} +%s%3N", at.as_str().unwrap())).parse().unwrap()
    }

    /// The entries of the journal that match.
    pub(crate) fn journal(&self, matches: &[&str]) -> Vec<Value> {
        let command = [&["journalctl", "-o", "json", "--no-pager"], matches].concat();
        let lines = self.run(&command).expect_success().out;
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The log of the daemon.
    pub(crate) fn log(&self) -> String {
        self.run(&["journalctl", "-u", "rollbackd", "-o", "cat", "--no-pager"]).out
    }

    /// Sends a signal to the daemon, and to nothing that it started.
    pub(crate) fn signal_daemon(&self, signal: &str) {
        let signal = format!("--signal={signal}");
        self.run(&["systemctl", "kill", "--kill-who=main", &signal, "rollbackd"]).expect_success();
    }

    /// Waits until the unit runs under another process than this one.
    pub(crate) fn wait_for_restart(&self, before: &str) {
        wait_until("the daemon is started again", || {
            self.property("ActiveState") == "active"
                && self.property("SubState") == "running"
                && self.property("MainPID") != before
        });
    }

    pub(crate) fn wait_for_phase(&self, phase: &str) {
        wait_until(&format!("phase {phase}"), || self.status()["phase"] == phase);
    }

    /// Waits until the timeline of the newest deploy contains this.
    #[track_caller]
    pub(crate) fn wait_for_timeline(&self, what: &str) -> String {
        wait_for(WAIT_MAX, what, || {
            let told = self.timeline();
            told.contains(what).then_some(told)
        })
    }

    /// Waits until the daemon's log contains this.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, what: &str) {
        wait_until(what, || self.log().contains(what));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.run(&["journalctl", "-u", "rollbackd", "-o", "short-precise"]);
            eprintln!("the daemon's log:\n{}\nthe timeline:\n{}", log.out, self.timeline());
        }
    }
}
