//! The signals that the daemon handles, and who sent them.

use std::io;
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Origin, Process};
use signal_hook_tokio::SignalsInfo;

/// A stream of signals, each with its sender.
pub(super) type Signals = SignalsInfo<WithOrigin>;

/// Handles the signals of the daemon from now on.
pub(super) fn listen() -> io::Result<Signals> {
    // A file at its size limit is an error of that write, not the end of the daemon.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    Signals::with_exfiltrator([SIGTERM, SIGINT, SIGHUP, SIGUSR2], WithOrigin::default())
}

/// The sender of a signal, such as "pid 812 (systemctl), uid 0".
pub(super) fn describe_sender(origin: &Origin) -> String {
    let Some(Process { pid, uid, .. }) = &origin.process else {
        return "the kernel".to_owned();
    };
    // The sender may have ended already.
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("pid {pid} ({}), uid {uid}", name.trim_end()),
        Err(_) => format!("pid {pid}, uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::SIGURG;
    use signal_hook::iterator::SignalsInfo as BlockingSignals;

    use super::*;

    #[test]
    fn sender_has_pid_name_and_uid() {
        let signals = BlockingSignals::<WithOrigin>::new([SIGURG]);
        let mut signals = signals.unwrap();
        signal_hook::low_level::raise(SIGURG).unwrap();
        let origin = signals.wait().next().unwrap();
        let text = describe_sender(&origin);
        let (pid, uid) = (std::process::id(), rustix::process::getuid().as_raw());
        assert!(text.starts_with(&format!("pid {pid} (")), "{text}");
        assert!(text.ends_with(&format!("), uid {uid}")), "{text}");
    }
}
