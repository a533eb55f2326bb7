use std::fs;
use std::path::Path;

use crate::host::Host;
use crate::machine::Machine;
use crate::wait::epoch_ms;

/// The units of the two slots.
pub(crate) const BLUE_UNIT: &str = "mcp-weather@blue.service";
pub(crate) const GREEN_UNIT: &str = "mcp-weather@green.service";

/// A template whose instances are the demo's server, which fails on command.
pub(crate) const DEMO_SERVICE: &str = "ExecStart=/usr/bin/rollbackd demo-server\n";
/// One whose instances are the program of a sealed folder.
pub(crate) const ARTIFACT_SERVICE: &str = "ExecStart=/usr/bin/env ${ROLLBACKD_ARTIFACT}/server\n";

/// The settings of the service in most tests.
pub(crate) const SETTINGS: &str = "bake = \"10m\"\ndeadline = \"2s\"\nburst = \"1s\"\n\
    drain_timeout = \"2s\"\nstop_timeout = \"2s\"\nstart_timeout = \"10s\"\nrollbacks_per_day = 100\n\
    probe = { every = \"300ms\", timeout = \"1s\" }\n";

impl Host {
    /// A host whose daemon runs releases as instances of a template with such a `[Service]` section.
    pub(crate) fn with_units(service: &str, settings: &str) -> Self {
        let host = Self::installed_with_units(Machine::boot(), service, settings);
        host.run(&["systemctl", "enable", "--now", "rollbackd"]).expect_success();
        host
    }

    /// The same on a given machine, with a daemon that is not started yet.
    pub(crate) fn installed_with_units(machine: Machine, service: &str, settings: &str) -> Self {
        let host = Self::installed(machine);
        host.write_template(service);
        let runtime = "runtime = \"systemd\"\nunit = \"mcp-weather@.service\"\n";
        host.configure("", &format!("{runtime}{settings}"));
        host
    }

    /// Writes the unit template again.
    pub(crate) fn write_template(&self, service: &str) {
        let text = format!(
            "[Unit]\nDescription=weather in slot %i\n[Service]\nDynamicUser=yes\n\
             EnvironmentFile=/var/lib/rollbackd/weather/%i.env\n{service}"
        );
        self.machine.write("etc/systemd/system/mcp-weather@.service", &text);
        self.run(&["systemctl", "daemon-reload"]).expect_success();
    }

    /// Installs a real server as `version`. Returns its folder, which is the artifact.
    pub(crate) fn install_artifact(&self, version: &str) -> String {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut program = fs::read(project.join("target/real/rmcp/debug/weather"))
            .expect("the server of the Rust SDK is not built; run tests/run, which does it");
        // Bytes after the end of a program change nothing but its hash.
        program.extend_from_slice(version.as_bytes());
        let folder = format!("/opt/weather/{version}");
        let file = self.machine.root().join(format!("opt/weather/{version}/server"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, program).unwrap();
        self.machine.shell(&format!("chmod -R a+rX {folder} && chmod 755 {folder}/server"));
        folder
    }

    /// Deploys a demo server that fails from `ms` milliseconds on.
    pub(crate) fn deploy_faulty(&self, version: &str, fault: &str, ms: u64) {
        let fault = format!("DEMO_FAULT={fault}");
        let at = format!("DEMO_FAULT_AT={}", epoch_ms() + ms);
        self.deploy(version, &["--set", &fault, "--set", &at]).expect_success();
    }

    /// The invocation ID of a unit: another one at each start.
    pub(crate) fn invocation(&self, unit: &str) -> String {
        self.property_of(unit, "InvocationID")
    }

    pub(crate) fn is_active(&self, unit: &str) -> bool {
        self.property_of(unit, "ActiveState") == "active"
    }

    pub(crate) fn rollback(&self, more: &[&str]) {
        let order = ["rollbackd", "rollback", "weather", "--because", "a test"];
        self.run(&[&order, more].concat()).expect_success();
    }
}
