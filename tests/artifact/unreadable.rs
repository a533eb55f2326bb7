use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rollbackd::artifact::{ArtifactKind, Podman, Verifier, VerifyError, resolve};

use super::resolve_error;

/// The folder that was prepared, where this program runs as nobody.
const PREPARED_DIR_VAR: &str = "ROLLBACKD_TEST_PREPARED";
const NOBODY_UID: u32 = 65_534;

/// Root may read everything, so root runs this again as nobody.
#[tokio::test]
async fn unreadable_artifact_is_distinguished_from_changed() {
    if let Some(home) = env::var_os(PREPARED_DIR_VAR) {
        return verify_as_nobody(Path::new(&home)).await;
    }
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("v1");
    fs::create_dir_all(root.join("private/below")).unwrap();
    fs::write(root.join("secret"), "key").unwrap();
    let _listener = UnixListener::bind(home.path().join("podman.sock")).unwrap();
    for (path, mode) in
        [("podman.sock", 0o000), ("v1/secret", 0o000), ("v1/private", 0o000), ("", 0o755)]
    {
        fs::set_permissions(home.path().join(path), Permissions::from_mode(mode)).unwrap();
    }
    if !rustix::process::getuid().is_root() {
        return verify_as_nobody(home.path()).await;
    }
    // Where this program lies, nobody may not be let in.
    let program = home.path().join("program");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    let name = std::thread::current().name().unwrap().to_owned();
    let done = Command::new(&program)
        .args(["--exact", &name])
        .env(PREPARED_DIR_VAR, home.path().canonicalize().unwrap())
        .uid(NOBODY_UID)
        .gid(NOBODY_UID)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{done:?}");
}

async fn verify_as_nobody(home: &Path) {
    let root = home.join("v1");
    let text = root.to_str().unwrap();
    let digest = format!("tree-sha256:{}", "0".repeat(64)).parse().unwrap();
    let advice = "cannot be read: Permission denied (os error 13); let the daemon's user read all \
                  of the artifact";
    let said = resolve_error(ArtifactKind::Path, text).await;
    assert_eq!(said, format!("{text}/private/ {advice}"));
    let said = resolve_error(ArtifactKind::Path, &format!("{text}/secret")).await;
    assert_eq!(said, format!("{text}/secret {advice}"));
    let said = resolve_error(ArtifactKind::Path, &format!("{text}/private/below")).await;
    assert!(said.contains("private/below cannot be reached: Permission denied"), "{said}");
    let doubt = Verifier::new(text, digest, None).verify().await.unwrap_err();
    assert!(matches!(doubt, VerifyError::Unreadable { .. }), "{doubt}");

    let socket = home.join("podman.sock");
    let podman = Podman::new(&socket).unwrap();
    let image = format!("localhost/weather@sha256:{}", "0".repeat(64));
    let said = resolve(ArtifactKind::Image, &image, Some(&podman)).await.unwrap_err();
    let start = format!("the daemon's user may not reach {};", socket.display());
    assert!(said.starts_with(&start), "{said}");
}
