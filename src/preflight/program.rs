//! Whether a program can be run.

use std::path::Path;

use rustix::fs::{Access, access};

use crate::preflight::finding::Failure;

/// A program by its path, or by its name in PATH. `None`: it has a placeholder, which a deploy fills in.
pub(super) fn check(what: &str, name: &str) -> Option<Result<String, Failure>> {
    if name.contains('{') {
        return None;
    }
    Some(if name.contains('/') { at_path(what, name) } else { in_search_path(what, name) })
}

fn at_path(what: &str, name: &str) -> Result<String, Failure> {
    let path = Path::new(name);
    if is_executable(path) {
        return Ok(format!("{what}: {name} can be run"));
    }
    Err(if path.is_file() {
        Failure::new(format!("{what}: {name} is not executable"), format!("chmod +x {name}"))
    } else {
        Failure::new(format!("{what}: there is no file {name}"), "install it")
    })
}

fn in_search_path(what: &str, name: &str) -> Result<String, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).map(|it| it.join(name)).find(|it| is_executable(it)) {
        Some(found) => Ok(format!("{what}: {name} is {}", found.display())),
        None => Err(Failure::new(
            format!("{what}: no program {name} in PATH"),
            "install it, or write its whole path: the daemon's PATH may be shorter",
        )),
    }
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_placeholder_is_left_to_the_deploy() {
        assert!(check("command", "/opt/{version}/server").is_none());
        assert!(check("command", "sh").unwrap().is_ok());
        assert!(check("command", "/etc/passwd").unwrap().is_err());
        assert!(check("command", "no-such-program-here").unwrap().is_err());
    }
}
