//! What it costs to hash a release like a `node_modules` folder, and to see that nothing happened to it,
//! beside the usual commands.
//!
//! `cargo bench --bench artifact`. All of it is in the page cache; compare rows of one run.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark times, prints and may panic"
)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rollbackd::artifact::{ArtifactKind, Verifier, resolve};

const PACKAGES: usize = 500;
const FILES: usize = 40;
/// Bytes of a file; 300 MB together.
const SIZE: usize = 15_000;
const ROUNDS: usize = 7;

#[tokio::main]
async fn main() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().canonicalize().unwrap();
    write_tree(&root);
    let text = root.to_str().unwrap();
    println!(
        "{} files, {} MB; median of {ROUNDS}, ms",
        PACKAGES * FILES,
        PACKAGES * FILES * SIZE / 1_000_000
    );

    let found = resolve(ArtifactKind::Path, text, None).await.unwrap();
    let digest = found.digest().unwrap();
    measure("find: all is read", async || {
        _ = resolve(ArtifactKind::Path, text, None).await.unwrap()
    })
    .await;
    measure("a seal's first check: all is read", async || {
        Verifier::new(text, digest.clone(), None).verify().await.unwrap();
    })
    .await;
    let seal = found.verifier.as_ref().unwrap();
    measure("a seal's later check: nothing is read", async || seal.verify().await.unwrap()).await;
    for (name, script) in [
        ("peer: tar | sha256sum", "tar -C \"$0\" --sort=name -c . | sha256sum"),
        (
            "peer: find | sort | xargs sha256sum",
            "find \"$0\" -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum",
        ),
        (
            "peer: find -printf, nothing is read",
            "find \"$0\" -printf '%p %i %s %T@ %C@ %m\\n' | sha256sum",
        ),
    ] {
        measure(name, async || {
            let done = Command::new("sh").args(["-c", script, text]).output().unwrap();
            assert!(done.status.success());
        })
        .await;
    }
}

fn write_tree(root: &Path) {
    for package in 0..PACKAGES {
        let folder = root.join(format!("node_modules/package-{package}/dist"));
        fs::create_dir_all(&folder).unwrap();
        for file in 0..FILES {
            let mut content = vec![b'x'; SIZE];
            content.extend_from_slice(format!("{package} {file}").as_bytes());
            fs::write(folder.join(format!("module-{file}.js")), content).unwrap();
        }
    }
}

async fn measure(name: &str, mut work: impl AsyncFnMut()) {
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        work().await;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let median = took.get(ROUNDS / 2).copied().unwrap_or(Duration::ZERO);
    println!("{name:<44} {:>9.1}", median.as_secs_f64() * 1_000.0);
}
