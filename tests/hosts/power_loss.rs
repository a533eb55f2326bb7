//! The power fails at a random moment of a deploy, and the next boot continues from the disk.
//!
//! `POWER_CUTS=50 cargo test --test hosts power -- --nocapture` does it fifty times. `POWER_SEED` replays.
//!
//! What it shows: no process has a chance to tidy up, and the daemon's folder goes back to what had
//! reached its disk, so what was written and not synced is lost. What it cannot show: a disk that
//! acknowledges what it only holds in its own memory, or tears a block; and other files of the host
//! keep what was not synced, since this machine's kernel lives on.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rollbackd::model::ReleaseNumber;
use rollbackd::record;

use crate::host::Host;
use crate::machine::Machine;
use crate::rng::Rng;
use crate::slow_call;
use crate::traffic::{VersionPoller, serving_version};
use crate::unit_template::{BLUE_UNIT, DEMO_SERVICE, GREEN_UNIT, SETTINGS};
use crate::wait::{epoch_ms, sleep, wait_for, wait_until};

const POWER_LOSSES: u64 = 5;
/// From the power to a good answer: the boot of the host and the start of a release.
const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// The longest of the scenarios, and when a bad release goes wrong in it.
const SCENARIO_MS: u64 = 5_500;
const FAULT_AFTER_MS: u64 = 1_500;

#[test]
fn healthy_release_serves_and_the_deploy_finishes_after_power_loss() {
    let number = |name: &str| std::env::var(name).ok().map(|it| it.parse::<u64>().unwrap());
    let (cuts, seed) = (number("POWER_CUTS").unwrap_or(POWER_LOSSES), number("POWER_SEED"));
    let seed = seed.unwrap_or_else(epoch_ms);
    let mut dice = Rng(seed);
    let settings = SETTINGS.replace("10m", "4s");
    let mut host = Host::installed_with_units(Machine::boot_with_disk(64), DEMO_SERVICE, &settings);
    host.run(&["systemctl", "enable", "--now", "rollbackd"]).expect_success();
    host.deploy("v1", &["--wait"]).expect_success();
    let mut waits = Vec::new();
    for round in 0..cuts {
        println!("POWER_SEED={seed}, cut {} of {cuts}", round + 1);
        waits.push(cut_power(&mut host, &mut dice, &format!("v{}", round + 2)));
    }
    waits.sort_unstable();
    let (median, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!("{cuts} cuts; power to a good answer: median {median} ms, longest {longest} ms");
}

/// One deploy with a power cut. Returns the time until clients had a good answer.
fn cut_power(host: &mut Host, dice: &mut Rng, version: &str) -> u64 {
    let load = VersionPoller::start(host.listen);
    let before = host.status()["active"].as_str().unwrap().to_owned();
    let (scenario, whole) = random_scenario(dice, version);
    let port = host.listen;
    let slow = std::thread::spawn(move || slow_call(port, 4_000));
    host.machine.write("root/scenario", &scenario);
    host.machine.shell("sh /root/scenario >/root/said 2>&1 &");
    let at = dice.below(whole);
    // The power fails at a random moment.
    sleep(Duration::from_millis(at));
    let (seen, phase) = (timelines(host), host.status()["phase"].clone());
    host.machine.power_off();
    let kept = timelines(host);
    assert_nothing_lost(&seen, &kept);
    let begun = epoch_ms();
    host.machine.power_on();
    let healthy = wait_for(RECOVERY_MAX, "an answer", || serving_version(port).ok());
    let wait = epoch_ms() - begun;
    wait_until("the deploy ends by itself", || {
        let status = host.status();
        status["phase"] == "steady" && status["active"].is_string()
    });
    let active = host.status()["active"].as_str().unwrap().to_owned();
    let newest = host.status()["deploy"].as_u64().unwrap();
    let kinds = assert_timeline_is_complete(host, u32::try_from(newest).unwrap());
    println!(
        "  {}\n  cut after {at} of {whole} ms, in {phase}, {before} was active; power to a good answer, \
         from {healthy}: {wait} ms; then {}; {active} is active",
        scenario.trim().replace('\n', "; "),
        kinds.join(" ")
    );
    assert!(!scenario.contains("DEMO_FAULT") || active == before, "{active} is bad");
    (0..5).for_each(|_| assert_eq!(serving_version(port), Ok(active.clone())));
    for (name, text) in &kept {
        assert!(timelines(host)[name].starts_with(text.as_str()), "{name} was changed");
    }
    assert_status_matches_processes(host);
    let _ = (load.stop(), slow.join());
    wait
}

/// What the operator does, and how long it takes.
fn random_scenario(dice: &mut Rng, version: &str) -> (String, u64) {
    let deploy = format!("rollbackd deploy weather {version}");
    let back = format!(
        "{deploy}\nuntil rollbackd status weather --json | grep -q '\"baking\"'; do sleep 0.02; done\n\
         rollbackd rollback weather --because 'a power cut'"
    );
    match dice.below(4) {
        0 => (deploy, SCENARIO_MS),
        1 => {
            let faults = ["total", "crash-loop", "errors=60%"];
            let fault = faults[usize::try_from(dice.below(3)).unwrap()];
            let at = epoch_ms() + FAULT_AFTER_MS;
            let set = format!("--set DEMO_FAULT={fault} --set DEMO_FAULT_AT={at}");
            (format!("{deploy} {set}"), SCENARIO_MS)
        }
        2 => (back, 4_000),
        _ => (format!("{back} --cut"), 3_000),
    }
}

/// The timeline files.
fn timelines(host: &Host) -> BTreeMap<String, String> {
    let folder = host.machine.root().join("var/lib/rollbackd/weather");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|it| it == "jsonl"));
    let files = files.filter(|path| !path.ends_with("sessions.jsonl"));
    let named = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned())
    };
    files.map(named).collect()
}

/// All that was there is on the disk, but for a last line that was still on its way there.
fn assert_nothing_lost(seen: &BTreeMap<String, String>, kept: &BTreeMap<String, String>) {
    let newest = seen.keys().next_back();
    for (name, text) in seen {
        let on_disk = kept.get(name).map(String::as_str).unwrap_or_default();
        let mut lines: Vec<_> = text.split_inclusive('\n').collect();
        if Some(name) == newest && !on_disk.starts_with(text.as_str()) {
            println!("  on its way to the disk: {}", lines.pop().unwrap_or_default().trim());
        }
        assert!(on_disk.starts_with(&lines.concat()), "{name} was\n{text}\nand is\n{on_disk}");
    }
}

/// What the timeline of a deploy tells, which has no gaps, and an end.
fn assert_timeline_is_complete(host: &Host, deploy: u32) -> Vec<&'static str> {
    let folder = host.machine.root().join("var/lib/rollbackd/weather");
    let entries = record::read_deploy(&folder, Some(ReleaseNumber(deploy))).unwrap();
    let kinds: Vec<_> = entries.iter().map(|entry| entry.event.kind()).collect();
    let gapless = entries.iter().zip(1..).all(|(entry, seq)| entry.seq == seq);
    assert!(gapless && kinds[0] == "deployed", "{entries:#?}");
    let last = kinds.iter().rev().find(|it| !matches!(**it, "restored" | "noted")).unwrap();
    assert!(["accepted", "recovered", "unrecovered", "failed"].contains(last), "{entries:#?}");
    kinds
}

fn assert_status_matches_processes(host: &Host) {
    wait_until("the processes are those in the status", || {
        let status = host.status();
        let releases = status["releases"].as_array().unwrap();
        let servers = host.machine.shell("grep -sl demo-serve[r] /proc/[0-9]*/cmdline | wc -l");
        let in_slot = |slot: &str| releases.iter().any(|it| it["slot"] == slot);
        servers == releases.len().to_string()
            && host.is_active(BLUE_UNIT) == in_slot("blue")
            && host.is_active(GREEN_UNIT) == in_slot("green")
    });
}
