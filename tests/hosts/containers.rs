//! Releases that are containers: a template unit that runs an image by its digest, with podman.
//!
//! These hosts share this machine's kernel, where no group can be made for a container: so crun, which
//! can do without. Pins and prunes are tested in tests/artifact, with a podman of this machine.

use crate::crowd::Crowd;
use crate::host::Host;
use crate::machine::Machine;
use crate::template::{BLUE, GREEN, SETTINGS};
use crate::time::soon;

const SOCKET: &str = "/run/weather-podman.sock";
const STORAGE: &str = "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/containers/storage\"\n\
    graphroot = \"/var/lib/containers/storage\"\n";
const CONTAINERS: &str = "[containers]\ncgroups = \"disabled\"\nnetns = \"host\"\nkeyring = false\n\
    default_ulimits = [\"nofile=1024:4096\", \"nproc=1000:1000\"]\n[engine]\nruntime = \"crun\"\n\
    cgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
const RUNS: &str = "DynamicUser=no\nExecStart=/usr/bin/podman run --rm --replace --name=weather-%i \
    --pull=never --env=PORT ${ROLLBACKD_ARTIFACT}\nExecStop=/usr/bin/podman stop --ignore --time=1 weather-%i\n";

/// A host with podman, and an image of each version of a real server; their names by digest.
fn with_images() -> (Host, [String; 2]) {
    let host = Host::units_on(Machine::boot(), RUNS, SETTINGS);
    let machine = &host.machine;
    machine.write("etc/containers/storage.conf", STORAGE);
    machine.write("etc/containers/containers.conf", CONTAINERS);
    // Root's podman listens where only root may go.
    let socket = format!("[Socket]\nListenStream=\nListenStream={SOCKET}\nSocketGroup=rollbackd\n");
    machine.write("etc/systemd/system/podman.socket.d/rollbackd.conf", &socket);
    let settings = format!("runtime = \"systemd\"\nunit = \"mcp-weather@.service\"\n{SETTINGS}");
    host.configure(&format!("podman = \"{SOCKET}\"\n"), &settings);
    host.run(&["systemctl", "daemon-reload"]).good();
    host.run(&["systemctl", "enable", "--now", "podman.socket", "rollbackd"]).good();
    let image = |version: &str| {
        let folder = host.unpack(version);
        machine.sh(&format!(
            "cd {folder} && for file in $(ldd server | grep -o '/[^ ]*'); do \
             mkdir -p .$(dirname $file) && cp -L $file .$file || exit; done && mkdir -p tmp && \
             tar -c . | podman import --quiet --change 'ENTRYPOINT [\"/server\"]' - localhost/weather:{version}"
        ));
        let digest = ["podman", "image", "inspect", "--format", "{{.Digest}}"];
        let name = format!("localhost/weather:{version}");
        format!("localhost/weather@{}", host.run(&[&digest[..], &[&name]].concat()).good().out)
    };
    let images = [image("v1"), image("v2")];
    (host, images)
}

fn containers(host: &Host) -> String {
    host.machine.sh("podman ps --format '{{.Names}} {{.Image}}' | sort")
}

#[test]
fn a_container_is_rolled_back_to_the_image_that_was_deployed() {
    let (host, [v1, v2]) = with_images();
    let deploy =
        |version: &str, image: &str| host.deploy(version, &["--artifact", image, "--wait"]);
    let refused = deploy("v1", "localhost/weather:v1");
    println!("{refused:?}");
    assert_ne!(refused.code, 0);
    refused.says(&format!("localhost/weather:v1 is a tag, which can move; deploy {v1} instead"));
    deploy("v1", &v1).good();
    host.deploy("v2", &["--artifact", &v2]).good();
    host.wait_for_phase("baking");
    assert_eq!(containers(&host), format!("weather-blue {v1}\nweather-green {v2}"));
    let crowd = Crowd::start(host.listen, 5, 100);
    host.roll_back(&[]);
    println!("{}", host.tells("recovered"));
    soon("v2 is stopped", || containers(&host) == format!("weather-blue {v1}"));
    let seen = crowd.stop();
    println!("{seen}");
    assert_eq!(seen["failures"], serde_json::json!([]), "{seen:#}");
    // The tag moves on; what was deployed is still the same.
    host.run(&["podman", "tag", "localhost/weather:v2", "localhost/weather:v1"]).good();
    host.run(&["systemctl", "restart", BLUE]).good();
    soon("it is started again", || containers(&host) == format!("weather-blue {v1}"));
    let told = host.timeline();
    assert!(!told.contains("changed since"), "{told}");
}

#[test]
fn an_image_that_is_gone_is_said_and_not_gone_back_to() {
    let (host, [v1, v2]) = with_images();
    host.deploy("v1", &["--artifact", &v1, "--wait"]).good();
    host.deploy("v2", &["--artifact", &v2]).good();
    host.wait_for_phase("baking");
    // With every name that it has, and the container that runs it.
    host.machine
        .sh(&format!("podman rmi --force $(podman image inspect --format '{{{{.Id}}}}' {v1})"));
    host.tells(&format!("it was not started: {v1} is gone: it was sha256:"));
    let order = ["rollbackd", "rollback", "weather", "--because", "a test"];
    let refused = host.run(&order);
    println!("{refused:?}\n{}", host.timeline());
    refused.ends(11).says("is gone: it was sha256:");
    assert!(host.is_up(GREEN) && host.status()["active"] == "v2");
    assert!(containers(&host).ends_with(&v2));
}
