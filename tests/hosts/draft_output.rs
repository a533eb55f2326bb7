//! The output of a unit in the draft of a post-mortem: the daemon reads the journal with its rights.

use serde_json::{Value, json};

use crate::host::Host;
use crate::traffic::VersionPoller;
use crate::unit_template::SETTINGS;
use crate::wait::wait_until;

/// A server that prints an error, with a secret, when it crashes.
const SERVER: &str = "#!/bin/sh\n\
    echo \"serving $ROLLBACKD_VERSION\"\n\
    /usr/bin/rollbackd demo-server\n\
    code=$?\n\
    echo \"RegionError: token=Zx81kkQpLm2 is not known\"\n\
    exit $code\n";

/// Deploys a version that crashes, and returns the draft of its incident.
fn crash(host: &Host, version: &str, incident: u64) -> Value {
    let traffic = VersionPoller::start(host.listen);
    host.deploy_faulty(version, "crash-loop", 3_000);
    host.wait_for_timeline("recovered");
    traffic.stop();
    let rows = || host.run(&["rollbackd", "incidents", "weather", "--json"]).out;
    wait_until("the draft", || {
        let row = rows().lines().next().and_then(|it| serde_json::from_str::<Value>(it).ok());
        row.is_some_and(|row| row["state"] == "draft" && row["incident"] == incident)
    });
    let shown = host.run(&["rollbackd", "postmortem", "weather", "--json"]).expect_success().out;
    serde_json::from_str(&shown).unwrap()
}

#[test]
fn draft_shows_the_output_of_a_unit_if_the_daemon_may_read_the_journal() {
    let host = Host::with_units("ExecStart=/usr/local/bin/weather\n", SETTINGS);
    host.machine.write("usr/local/bin/weather", SERVER);
    host.machine.shell("chmod 755 /usr/local/bin/weather");
    host.deploy("v1", &["--wait"]).expect_success();
    // The unit of the package does not let it.
    let draft = crash(&host, "v2", 2);
    assert_eq!(draft["output"], json!([]), "{draft}");
    let why = draft["output_unknown"].as_str().unwrap();
    assert!(why.contains("SupplementaryGroups=systemd-journal"), "{why}");
    let drop_in = "[Service]\nSupplementaryGroups=systemd-journal\n";
    host.machine.write("etc/systemd/system/rollbackd.service.d/journal.conf", drop_in);
    host.run(&["systemctl", "daemon-reload"]).expect_success();
    host.run(&["systemctl", "restart", "rollbackd"]).expect_success();
    host.wait_for_phase("steady");
    let draft = crash(&host, "v3", 3);
    let first = &draft["output"][0];
    assert_eq!(first["example"], "RegionError: token=[masked] is not known", "{draft}");
    assert_eq!(first["is_new"], true, "{draft}");
    let old = draft["output"].as_array().unwrap().iter().find(|it| it["is_new"] == false);
    assert!(old.is_some_and(|it| it["template"] == "serving <*>"), "{draft}");
    let files = "cat /var/lib/rollbackd/weather/incidents/000003.*";
    assert!(!host.machine.shell(files).contains("Zx81kkQpLm2"));
}
