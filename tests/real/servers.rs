//! Servers that we did not write, each in two versions. tests/run installs them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The same tool goes by another name in each version, which tells them apart.
pub(crate) const OLD_SLOW: &str = "longRunningOperation";
pub(crate) const NEW_SLOW: &str = "trigger-long-running-operation";

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerKind {
    /// Of the TypeScript SDK; with sessions only.
    Everything,
    /// The same with the HTTP+SSE transport.
    EverythingSse,
    /// Of the Python SDK; with sessions and without.
    Python,
    /// Of the Rust SDK; with sessions and without.
    Rust,
    /// Of the Python SDK, with what the conformance suite asks for. There is one version.
    Fixtures,
}

impl ServerKind {
    /// The command that runs a release, as the configuration has it.
    pub(crate) fn command(self) -> Vec<String> {
        let owned = |it: &[&str]| it.iter().map(|&it| it.to_owned()).collect();
        match self {
            Self::Everything | Self::EverythingSse => {
                let script = "{artifact}/dist/index.js";
                let transport = if self == Self::Everything { "streamableHttp" } else { "sse" };
                owned(&["node", "--import", "./lo.mjs", script, transport])
            }
            // Nothing is to be written next to the sources.
            Self::Python | Self::Fixtures => {
                owned(&[&python_interpreter("2").display().to_string(), "-B", "{artifact}"])
            }
            Self::Rust => owned(&["{artifact}"]),
        }
    }

    /// What the release with the old tools runs from.
    pub(crate) fn old_release(self) -> PathBuf {
        match self {
            Self::Everything | Self::EverythingSse => npm_package("everything-old"),
            Self::Python => tests_dir().join("python/old.py"),
            Self::Rust => rust_server("old"),
            Self::Fixtures => tests_dir().join("python/fixtures.py"),
        }
    }

    /// A copy of the release with the old tools, whose echo fails; made in `dir` where it is one of node.
    pub(crate) fn broken_release(self, dir: &Path) -> PathBuf {
        if self == Self::Python {
            return tests_dir().join("python/broken.py");
        }
        let copy = copy_npm_package("everything-old", dir, "everything-broken");
        let program = copy.join("dist/everything.js");
        let source = fs::read_to_string(&program).unwrap();
        let broken = source.replace("${validatedArgs.message}", "${validatedArgs.text.trim()}");
        assert_ne!(source, broken, "the echo has changed");
        fs::write(program, broken).unwrap();
        copy
    }

    /// What the release with the new tools runs from.
    pub(crate) fn new_release(self) -> PathBuf {
        match self {
            Self::Everything | Self::EverythingSse => npm_package("everything-new"),
            Self::Python => tests_dir().join("python/new.py"),
            Self::Rust => rust_server("new"),
            Self::Fixtures => tests_dir().join("python/fixtures.py"),
        }
    }
}

/// The folder of clients and servers.
pub(crate) fn tests_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real")
}

/// A package for node.
pub(crate) fn npm_package(name: &str) -> PathBuf {
    require_installed(tests_dir().join("node_modules").join(name))
}

/// A copy of a package, among links to all others: a test may change it.
pub(crate) fn copy_npm_package(package: &str, dir: &Path, name: &str) -> PathBuf {
    let package = npm_package(package);
    let modules = dir.join("node_modules");
    fs::create_dir(&modules).unwrap();
    for entry in fs::read_dir(package.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        symlink(entry.path(), modules.join(entry.file_name())).unwrap();
    }
    let copy = modules.join(name);
    let copied = Command::new("cp").arg("-r").arg(package).arg(&copy).status();
    assert!(copied.unwrap().success());
    copy
}

/// Python with one of the SDKs.
pub(crate) fn python_interpreter(version: &str) -> PathBuf {
    require_installed(rmcp_dir().join(format!("python{version}/bin/python")))
}

/// A program of the crate next to this file.
pub(crate) fn rust_server(name: &str) -> PathBuf {
    require_installed(rmcp_dir().join("rmcp/debug").join(name))
}

fn rmcp_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/real")
}

fn require_installed(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing; run tests/run, which sees to it", path.display());
    path
}
