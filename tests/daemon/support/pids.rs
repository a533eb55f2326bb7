use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// Whether the process exists; a zombie does not count.
pub(crate) fn exists(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // The process may have exited.
        let _: Result<(), _> = kill_process(pid, signal);
    }
}

/// Memory in KiB, by a name of /proc/PID/status.
pub(crate) fn memory_kib(pid: i32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// How many files a process has open.
pub(crate) fn open_files(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// The processes that run the daemon with this configuration.
pub(crate) fn daemons_of(config: &Path) -> Vec<i32> {
    let config = config.display().to_string();
    let all = fs::read_dir("/proc").unwrap();
    let all = all.filter_map(|found| found.ok()?.file_name().to_str()?.parse().ok());
    let ours = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        words.split('\0').nth(1) == Some("run") && words.split('\0').any(|it| it == config)
    };
    all.filter(ours).filter(|pid| exists(*pid)).collect()
}
