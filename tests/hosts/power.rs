//! The power is cut at any moment of a deploy, and the next boot goes on where the disk ends.
//!
//! `POWER_CUTS=50 cargo test --test hosts power -- --nocapture` does it fifty times. `POWER_SEED` replays.
//!
//! What it shows: no process has a chance to tidy up, and the daemon's folder goes back to what had
//! reached its disk, so what was written and not synced is lost. What it can not show: a disk that
//! acknowledges what it only holds in its own memory, or tears a block; and other files of the host
//! keep what was not synced, since this machine's kernel lives on.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rollbackd::model::Number;
use rollbackd::record;

use crate::dice::Dice;
use crate::host::Host;
use crate::machine::Machine;
use crate::slow_call;
use crate::template::{BLUE, DEMO, GREEN, SETTINGS};
use crate::time::{epoch_ms, pause, soon, until};
use crate::web::{Load, ask};

const CUTS: u64 = 5;
/// From the power to a good answer: the boot of the host and the start of a release.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// The longest of the scenarios, and when a bad release goes wrong in it.
const WHOLE_MS: u64 = 5_500;
const WRONG_MS: u64 = 1_500;

#[test]
fn after_a_power_cut_a_healthy_release_answers_and_the_deploy_ends_by_itself() {
    let number = |name: &str| std::env::var(name).ok().map(|it| it.parse::<u64>().unwrap());
    let (cuts, seed) = (number("POWER_CUTS").unwrap_or(CUTS), number("POWER_SEED"));
    let seed = seed.unwrap_or_else(epoch_ms);
    let mut dice = Dice(seed);
    let settings = SETTINGS.replace("10m", "4s");
    let mut host = Host::units_on(Machine::boot_with_disk(64), DEMO, &settings);
    host.run(&["systemctl", "enable", "--now", "rollbackd"]).good();
    host.deploy("v1", &["--wait"]).good();
    let mut waits = Vec::new();
    for round in 0..cuts {
        println!("POWER_SEED={seed}, cut {} of {cuts}", round + 1);
        waits.push(cut(&mut host, &mut dice, &format!("v{}", round + 2)));
    }
    waits.sort_unstable();
    let (median, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!("{cuts} cuts; power to a good answer: median {median} ms, longest {longest} ms");
}

/// One deploy with its power cut; how long after it clients had a good answer.
fn cut(host: &mut Host, dice: &mut Dice, version: &str) -> u64 {
    let load = Load::start(host.listen);
    let before = host.status()["active"].as_str().unwrap().to_owned();
    let (scenario, whole) = scenario(dice, version);
    let port = host.listen;
    let slow = std::thread::spawn(move || slow_call(port, 4_000));
    host.machine.write("root/scenario", &scenario);
    host.machine.sh("sh /root/scenario >/root/said 2>&1 &");
    let at = dice.below(whole);
    pause(Duration::from_millis(at));
    let (seen, phase) = (timelines(host), host.status()["phase"].clone());
    host.machine.cut();
    let kept = timelines(host);
    nothing_is_lost(&seen, &kept);
    let begun = epoch_ms();
    host.machine.power_on();
    let healthy = until(ANSWER_MAX, "an answer", || ask(port).ok());
    let wait = epoch_ms() - begun;
    soon("the deploy ends by itself", || {
        let status = host.status();
        status["phase"] == "steady" && status["active"].is_string()
    });
    let active = host.status()["active"].as_str().unwrap().to_owned();
    let newest = host.status()["deploy"].as_u64().unwrap();
    let kinds = whole_timeline(host, u32::try_from(newest).unwrap());
    println!(
        "  {}\n  cut after {at} of {whole} ms, in {phase}, {before} was active; power to a good answer, \
         from {healthy}: {wait} ms; then {}; {active} is active",
        scenario.trim().replace('\n', "; "),
        kinds.join(" ")
    );
    assert!(!scenario.contains("DEMO_FAULT") || active == before, "{active} is bad");
    (0..5).for_each(|_| assert_eq!(ask(port), Ok(active.clone())));
    for (name, text) in &kept {
        assert!(timelines(host)[name].starts_with(text.as_str()), "{name} was changed");
    }
    what_runs_is_what_is_said(host);
    let _ = (load.stop(), slow.join());
    wait
}

/// What a person does, and how long it goes on.
fn scenario(dice: &mut Dice, version: &str) -> (String, u64) {
    let deploy = format!("rollbackd deploy weather {version}");
    let back = format!(
        "{deploy}\nuntil rollbackd status weather --json | grep -q '\"baking\"'; do sleep 0.02; done\n\
         rollbackd rollback weather --because 'a power cut'"
    );
    match dice.below(4) {
        0 => (deploy, WHOLE_MS),
        1 => {
            let faults = ["total", "crash-loop", "errors=60%"];
            let fault = faults[usize::try_from(dice.below(3)).unwrap()];
            let at = epoch_ms() + WRONG_MS;
            let set = format!("--set DEMO_FAULT={fault} --set DEMO_FAULT_AT={at}");
            (format!("{deploy} {set}"), WHOLE_MS)
        }
        2 => (back, 4_000),
        _ => (format!("{back} --cut"), 3_000),
    }
}

/// The files of the timelines.
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
fn nothing_is_lost(seen: &BTreeMap<String, String>, kept: &BTreeMap<String, String>) {
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
fn whole_timeline(host: &Host, deploy: u32) -> Vec<&'static str> {
    let folder = host.machine.root().join("var/lib/rollbackd/weather");
    let entries = record::read(&folder, Some(Number(deploy))).unwrap();
    let kinds: Vec<_> = entries.iter().map(|entry| entry.fact.kind()).collect();
    let gapless = entries.iter().zip(1..).all(|(entry, seq)| entry.seq == seq);
    assert!(gapless && kinds[0] == "deployed", "{entries:#?}");
    let last = kinds.iter().rev().find(|it| !matches!(**it, "restored" | "noted")).unwrap();
    assert!(["accepted", "recovered", "unrecovered", "failed"].contains(last), "{entries:#?}");
    kinds
}

fn what_runs_is_what_is_said(host: &Host) {
    soon("what runs is what the daemon says, and nothing else", || {
        let status = host.status();
        let releases = status["releases"].as_array().unwrap();
        let servers = host.machine.sh("grep -sl demo-serve[r] /proc/[0-9]*/cmdline | wc -l");
        let in_slot = |slot: &str| releases.iter().any(|it| it["slot"] == slot);
        servers == releases.len().to_string()
            && host.is_up(BLUE) == in_slot("blue")
            && host.is_up(GREEN) == in_slot("green")
    });
}
