//! The completions of the package in the shells themselves: what Tab makes of a line.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rollbackd::cli::completion_script;
use serde_json::json;

use crate::support::{DaemonHarness, SERVICE};

#[test]
fn bash_completes() {
    let host = DaemonHarness::with_v1("");
    let folder = host.state().join("../bash");
    install("bash", &folder.join("rollbackd"));
    let rc = "source \"$FOLDER/rollbackd\"\nPS1='READY> '\n\
              bind -x '\"\\C-t\": printf %s \"$READLINE_LINE\" >\"$DUMP.new\"; mv \"$DUMP.new\" \"$DUMP\"'\n";
    fs::write(folder.join("rc"), rc).unwrap();
    let rc = folder.join("rc");
    check(&host, &folder, &["bash", "--noprofile", "--rcfile", rc.to_str().unwrap(), "-i"]);
}

#[test]
fn zsh_completes() {
    let host = DaemonHarness::with_v1("");
    let folder = host.state().join("../zsh");
    install("zsh", &folder.join("functions/_rollbackd"));
    let rc = "fpath=(\"$FOLDER/functions\" $fpath)\nautoload -U compinit\ncompinit -u -D\n\
              setopt no_beep\nunsetopt zle_bracketed_paste prompt_cr prompt_sp 2>/dev/null\nPS1='READY> '\n\
              dump() { print -rn -- \"$BUFFER\" >\"$DUMP.new\"; mv \"$DUMP.new\" \"$DUMP\" }\n\
              zle -N dump\nbindkey -e\nbindkey '^T' dump\n";
    fs::write(folder.join(".zshrc"), rc).unwrap();
    check(&host, &folder, &["zsh", "-i"]);
}

#[test]
fn fish_completes() {
    let host = DaemonHarness::with_v1("");
    let folder = host.state().join("../fish");
    install("fish", &folder.join("fish/vendor_completions.d/rollbackd.fish"));
    let init = "function fish_prompt; echo -n 'READY> '; end; function fish_greeting; end; \
                bind \\ct 'commandline >$DUMP.new; mv $DUMP.new $DUMP'";
    check(&host, &folder, &["fish", "-i", "-C", init]);
}

/// Writes the script of the package.
fn install(shell: &str, path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, completion_script(shell).unwrap()).unwrap();
}

fn check(host: &DaemonHarness, folder: &Path, shell: &[&str]) {
    let lines = [
        ("rollbackd dep", "rollbackd deploy ".to_owned()),
        ("rollbackd status wea", format!("rollbackd status {SERVICE} ")),
        ("rollbackd deploy weather v", "rollbackd deploy weather v1 ".to_owned()),
        (
            "rollbackd timeline weather --deploy ",
            "rollbackd timeline weather --deploy 1 ".to_owned(),
        ),
        ("rollbackd demo --fault sh", "rollbackd demo --fault shared-outage ".to_owned()),
    ];
    let lists = [("rollbackd demo --fault ", ["crash-loop", "one-tool", "tool-errors"])];
    let cases = json!({ "lines": lines, "lists": lists });
    let program = Path::new(env!("CARGO_BIN_EXE_rollbackd")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut driver = Command::new("python3");
    driver
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/daemon/shell_completion.py"))
        .args(shell)
        .env("PATH", path)
        .env("TERM", "xterm")
        .env("HOME", folder)
        .env("ZDOTDIR", folder)
        .env("FOLDER", folder)
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .env("XDG_DATA_HOME", folder.join("data"))
        .env("XDG_DATA_DIRS", format!("{}:/usr/share", folder.display()))
        .env("DUMP", folder.join("line"))
        .env("ROLLBACKD_CONFIG", host.config())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = driver.spawn().unwrap();
    serde_json::to_writer(child.stdin.take().unwrap(), &cases).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
