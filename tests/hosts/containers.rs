//! Releases that are containers: a template unit that runs an image by its digest, with podman.
//!
//! These hosts share this machine's kernel, where no group can be made for a container: so crun, which
//! can do without. Pins and prunes are tested in tests/artifact, with a podman of this machine.

use crate::host::Host;
use crate::load_clients::LoadClients;
use crate::machine::Machine;
use crate::unit_template::{BLUE_UNIT, GREEN_UNIT, SETTINGS};
use crate::wait::wait_until;

const PODMAN_SOCKET: &str = "/run/weather-podman.sock";
const STORAGE_CONF: &str = "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/containers/storage\"\n\
    graphroot = \"/var/lib/containers/storage\"\n";
const CONTAINERS_CONF: &str = "[containers]\ncgroups = \"disabled\"\nnetns = \"host\"\nkeyring = false\n\
    default_ulimits = [\"nofile=1024:4096\", \"nproc=1000:1000\"]\n[engine]\nruntime = \"crun\"\n\
    cgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
const UNIT_SERVICE: &str = "DynamicUser=no\nExecStart=/usr/bin/podman run --rm --replace --name=weather-%i \
    --pull=never --env=PORT ${ROLLBACKD_ARTIFACT}\nExecStop=/usr/bin/podman stop --ignore --time=1 weather-%i\n";

/// A host with podman, and an image of each version of a real server; their names by digest.
fn host_with_images() -> (Host, [String; 2]) {
    let host = Host::installed_with_units(Machine::boot(), UNIT_SERVICE, SETTINGS);
    let machine = &host.machine;
    machine.write("etc/containers/storage.conf", STORAGE_CONF);
    machine.write("etc/containers/containers.conf", CONTAINERS_CONF);
    // Root's podman listens where only root may go.
    let socket =
        format!("[Socket]\nListenStream=\nListenStream={PODMAN_SOCKET}\nSocketGroup=rollbackd\n");
    machine.write("etc/systemd/system/podman.socket.d/rollbackd.conf", &socket);
    let settings = format!("runtime = \"systemd\"\nunit = \"mcp-weather@.service\"\n{SETTINGS}");
    host.configure(&format!("podman = \"{PODMAN_SOCKET}\"\n"), &settings);
    host.run(&["systemctl", "daemon-reload"]).expect_success();
    host.run(&["systemctl", "enable", "--now", "podman.socket", "rollbackd"]).expect_success();
    let image = |version: &str| {
        let folder = host.install_artifact(version);
        machine.shell(&format!(
            "cd {folder} && for file in $(ldd server | grep -o '/[^ ]*'); do \
             mkdir -p .$(dirname $file) && cp -L $file .$file || exit; done && mkdir -p tmp && \
             tar -c . | podman import --quiet --change 'ENTRYPOINT [\"/server\"]' - localhost/weather:{version}"
        ));
        let digest = ["podman", "image", "inspect", "--format", "{{.Digest}}"];
        let name = format!("localhost/weather:{version}");
        format!(
            "localhost/weather@{}",
            host.run(&[&digest[..], &[&name]].concat()).expect_success().out
        )
    };
    let images = [image("v1"), image("v2")];
    (host, images)
}

fn running_containers(host: &Host) -> String {
    host.machine.shell("podman ps --format '{{.Names}} {{.Image}}' | sort")
}

#[test]
fn container_rolls_back_to_the_deployed_image() {
    let (host, [v1, v2]) = host_with_images();
    let deploy =
        |version: &str, image: &str| host.deploy(version, &["--artifact", image, "--wait"]);
    let refused = deploy("v1", "localhost/weather:v1");
    println!("{refused:?}");
    assert_ne!(refused.code, 0);
    refused.expect_text(&format!(
        "localhost/weather:v1 is a tag, which can move; deploy {v1} instead"
    ));
    deploy("v1", &v1).expect_success();
    host.deploy("v2", &["--artifact", &v2]).expect_success();
    host.wait_for_phase("baking");
    assert_eq!(running_containers(&host), format!("weather-blue {v1}\nweather-green {v2}"));
    let crowd = LoadClients::start(host.listen, 5, 100);
    host.rollback(&[]);
    println!("{}", host.wait_for_timeline("recovered"));
    wait_until("v2 is stopped", || running_containers(&host) == format!("weather-blue {v1}"));
    let seen = crowd.stop();
    println!("{seen}");
    assert_eq!(seen["failures"], serde_json::json!([]), "{seen:#}");
    // The tag moves to another image; the deployed one stays the same.
    host.run(&["podman", "tag", "localhost/weather:v2", "localhost/weather:v1"]).expect_success();
    host.run(&["systemctl", "restart", BLUE_UNIT]).expect_success();
    wait_until("it is started again", || running_containers(&host) == format!("weather-blue {v1}"));
    let told = host.timeline();
    assert!(!told.contains("changed since"), "{told}");
}

#[test]
fn missing_image_is_reported_and_blocks_rollback() {
    let (host, [v1, v2]) = host_with_images();
    host.deploy("v1", &["--artifact", &v1, "--wait"]).expect_success();
    host.deploy("v2", &["--artifact", &v2]).expect_success();
    host.wait_for_phase("baking");
    // With every name that it has, and the container that runs it.
    host.machine
        .shell(&format!("podman rmi --force $(podman image inspect --format '{{{{.Id}}}}' {v1})"));
    host.wait_for_timeline(&format!(
        "it was not started: {v1} is missing; the deploy recorded sha256:"
    ));
    let order = ["rollbackd", "rollback", "weather", "--because", "a test"];
    let refused = host.run(&order);
    println!("{refused:?}\n{}", host.timeline());
    refused.expect_code(11).expect_text("is missing; the deploy recorded sha256:");
    assert!(host.is_active(GREEN_UNIT) && host.status()["active"] == "v2");
    assert!(running_containers(&host).ends_with(&v2));
}
