use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rollbackd::artifact::{ArtifactKind, Digest, ResolvedArtifact, Verifier, VerifyError, resolve};
use tempfile::TempDir;

use super::resolve_error;

/// A folder with one of everything in it, at the path of its release.
fn release_dir() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().canonicalize().unwrap().join("v1");
    for folder in ["a/deep/er", "empty"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    // Between "a" and "a/" in some orders, behind it in others.
    for name in ["a-b", "a.b", "a/b", "a0", "line\nbreak", "-rf", "a/deep/er/file"] {
        fs::write(root.join(name), name).unwrap();
    }
    fs::write(root.join(OsStr::from_bytes(b"not \xff UTF-8")), "").unwrap();
    fs::write(root.join("large"), vec![7; 300_000]).unwrap();
    set_mode(&root.join("run"), 0o744);
    symlink("a/deep", root.join("folder-link")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    (home, root)
}

fn set_mode(path: &Path, mode: u32) {
    if !path.exists() {
        fs::write(path, "#!/bin/sh\n").unwrap();
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

async fn resolve_path(path: &Path) -> ResolvedArtifact {
    resolve(ArtifactKind::Auto, path.to_str().unwrap(), None).await.unwrap()
}

async fn digest(path: &Path) -> Digest {
    resolve_path(path).await.digest().unwrap().clone()
}

fn command_output(command: &mut Command) -> String {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

#[tokio::test]
async fn file_digest_matches_sha256sum() {
    let (_home, root) = release_dir();
    for name in ["large", "run", "a/b"] {
        let path = root.join(name);
        let printed = command_output(Command::new("sha256sum").arg(&path));
        let hex = printed.split(' ').next().unwrap();
        assert_eq!(digest(&path).await.to_string(), format!("sha256:{hex}"));
    }
}

#[tokio::test]
async fn directory_digest_matches_the_documented_script() {
    let (_home, root) = release_dir();
    let text = fs::read_to_string("src/artifact/mod.rs").unwrap();
    let script = text.split("```bash\n").nth(1).unwrap().split("//!   ```").next().unwrap();
    let script = script.replace("//!", "").replace("DIRECTORY", root.to_str().unwrap());
    let printed = command_output(Command::new("bash").args(["-euo", "pipefail", "-c", &script]));
    let hex = printed.split(' ').next().unwrap();
    assert_eq!(digest(&root).await.to_string(), format!("tree-sha256:{hex}"));
}

#[tokio::test]
async fn copy_has_the_same_digest_and_changed_content_does_not() {
    let (home, root) = release_dir();
    let first = digest(&root).await;
    let copy = home.path().canonicalize().unwrap().join("copy");
    command_output(
        Command::new("cp").args(["-r", "--no-preserve=timestamps"]).args([&root, &copy]),
    );
    assert_eq!(digest(&copy).await, first);
    // Others may read it, a name more for the same file, another time: the same content.
    set_mode(&copy.join("run"), 0o755);
    fs::hard_link(copy.join("a0"), home.path().join("elsewhere")).unwrap();
    command_output(Command::new("touch").arg(copy.join("a-b")));
    assert_eq!(digest(&copy).await, first);
    let changes: [&dyn Fn(); 8] = [
        &|| fs::write(copy.join("a/deep/er/file"), "other").unwrap(),
        &|| fs::rename(copy.join("a0"), copy.join("a1")).unwrap(),
        &|| set_mode(&copy.join("run"), 0o644),
        &|| fs::remove_file(copy.join("dangling")).unwrap(),
        &|| symlink("somewhere", copy.join("dangling")).unwrap(),
        &|| fs::create_dir(copy.join("empty/too")).unwrap(),
        &|| fs::remove_file(copy.join("folder-link")).unwrap(),
        &|| fs::create_dir(copy.join("folder-link")).unwrap(),
    ];
    let mut seen = vec![first];
    for change in changes {
        change();
        let now = digest(&copy).await;
        assert!(!seen.contains(&now));
        seen.push(now);
    }
}

#[tokio::test]
async fn path_through_a_writable_symlink_is_rejected() {
    let (home, root) = release_dir();
    let home = home.path().canonicalize().unwrap();
    symlink("v1", home.join("current")).unwrap();
    for below in ["", "/a/b"] {
        let text = format!("{}/current{below}", home.display());
        let said = resolve_error(ArtifactKind::Auto, &text).await;
        let instead = format!("; deploy {}{below} instead", root.display());
        assert!(said.starts_with(&text) && said.ends_with(&instead), "{said}");
    }
    let said = resolve_error(ArtifactKind::Path, "dist/index.js").await;
    assert!(said.starts_with("dist/index.js is a relative path"), "{said}");
    let said = resolve_error(ArtifactKind::Auto, &format!("{}/../v1", root.display())).await;
    assert!(said.ends_with("contains \"..\"; write the path without it"), "{said}");
    let said = resolve_error(ArtifactKind::Auto, "/nowhere/v1").await;
    assert!(said.starts_with("/nowhere/v1 does not exist"), "{said}");
    let untidy = format!("{}/.//a/", root.display());
    let found = resolve(ArtifactKind::Auto, &untidy, None).await.unwrap();
    assert_eq!(Path::new(&found.artifact), root.join("a"));
    assert!(!found.artifact.ends_with('/'));
}

#[tokio::test]
async fn empty_artifact_is_rejected() {
    let (_home, root) = release_dir();
    let socket = root.join("a/socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let said = resolve_error(ArtifactKind::Path, root.to_str().unwrap()).await;
    let start = format!("{} is a socket, a pipe or a device", socket.display());
    assert!(said.starts_with(&start), "{said}");
    fs::remove_file(&socket).unwrap();
    command_output(Command::new("mkfifo").arg(root.join("pipe")));
    let said = resolve_error(ArtifactKind::Path, root.to_str().unwrap()).await;
    assert!(said.contains("/pipe is a socket, a pipe or a device"), "{said}");
    let said = resolve_error(ArtifactKind::Path, "/dev/zero").await;
    assert!(said.starts_with("/dev/zero is a socket, a pipe or a device"), "{said}");
}

#[tokio::test]
async fn too_deep_or_too_large_tree_is_rejected() {
    let (_home, root) = release_dir();
    let deep = root.join("d/".repeat(127));
    fs::create_dir_all(&deep).unwrap();
    digest(&root).await;
    fs::create_dir(deep.join("d")).unwrap();
    let said = resolve_error(ArtifactKind::Path, root.to_str().unwrap()).await;
    assert!(said.contains("is more than 128 directories deep"), "{said}");
    fs::remove_dir_all(root.join("d")).unwrap();
    // Sparse, so it takes no room.
    fs::File::create(root.join("sparse")).unwrap().set_len(65 << 30).unwrap();
    let said = resolve_error(ArtifactKind::Path, root.to_str().unwrap()).await;
    assert!(said.contains("/sparse exceeds the limit of 64 GiB"), "{said}");
}

#[tokio::test]
async fn file_changed_while_hashing_is_rejected() {
    let (_home, root) = release_dir();
    let mut file = fs::File::options().append(true).open(root.join("a/b")).unwrap();
    let writes = async {
        loop {
            file.write_all(b"x").unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        said = resolve_error(ArtifactKind::Path, root.to_str().unwrap()) => {
            assert!(said.contains("changed while it was read"), "{said}");
        }
        () = writes => {}
    }
}

#[tokio::test]
async fn verifier_reports_expected_and_actual_digest() {
    let (_home, root) = release_dir();
    let found = resolve_path(&root).await;
    let (seal, was) = (found.verifier.clone().unwrap(), found.digest().unwrap().clone());
    let later = Verifier::new(&found.artifact, was.clone(), None);
    for seal in [&seal, &later] {
        seal.verify().await.unwrap();
        seal.verify().await.unwrap();
    }
    // As long as before, and dated back: only the time of the change tells.
    let file = root.join("a/deep/er/file");
    command_output(Command::new("cp").arg("-p").arg(&file).arg(root.with_file_name("saved")));
    fs::write(&file, "A/DEEP/ER/FILE").unwrap();
    command_output(Command::new("touch").arg("-r").arg(root.with_file_name("saved")).arg(&file));
    for seal in [&seal, &later] {
        let doubt = seal.verify().await.unwrap_err();
        let VerifyError::Changed { actual, .. } = &doubt else { panic!("{doubt}") };
        assert_eq!(
            doubt.to_string(),
            format!(
                "{} changed since the deploy: recorded {was}, now {actual} (newest file in it: \
                 a/deep/er/file)",
                root.display()
            )
        );
    }
    fs::write(&file, "a/deep/er/file").unwrap();
    seal.verify().await.unwrap();
    fs::remove_dir_all(&root).unwrap();
    let doubt = seal.verify().await.unwrap_err();
    assert_eq!(
        doubt.to_string(),
        format!("{} is missing; the deploy recorded {was}", root.display())
    );
    fs::write(&root, "a file now").unwrap();
    let doubt = seal.verify().await.unwrap_err();
    assert!(matches!(&doubt, VerifyError::Changed { newest: None, .. }), "{doubt}");
    fs::remove_file(&root).unwrap();
    symlink("/usr/bin", &root).unwrap();
    let doubt = seal.verify().await.unwrap_err();
    assert!(matches!(&doubt, VerifyError::Unreadable { .. }), "{doubt}");
}

#[tokio::test]
async fn verifier_detects_a_rebuilt_file() {
    let (_home, root) = release_dir();
    let path = root.join("run");
    let seal = resolve_path(&path).await.verifier.unwrap();
    fs::remove_file(&path).unwrap();
    set_mode(&path, 0o755);
    seal.verify().await.unwrap();
    fs::write(&path, "#!/bin/bash\n").unwrap();
    let doubt = seal.verify().await.unwrap_err();
    assert!(matches!(&doubt, VerifyError::Changed { newest: None, .. }), "{doubt}");
}

#[tokio::test]
async fn concurrent_verifications_survive_cancelled_callers() {
    let (_home, root) = release_dir();
    let found = resolve_path(&root).await;
    let seal = Verifier::new(&found.artifact, found.digest().unwrap().clone(), None);
    let left = tokio::time::timeout(Duration::from_millis(1), seal.verify()).await;
    assert!(left.is_err());
    let asked: Vec<_> = (0..8)
        .map(|_| seal.clone())
        .map(|seal| tokio::spawn(async move { seal.verify().await }))
        .collect();
    for asked in asked {
        asked.await.unwrap().unwrap();
    }
}
