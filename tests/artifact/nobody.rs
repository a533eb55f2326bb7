use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rollbackd::artifact::{Doubt, Kind, Podman, Seal, find};

use super::refused;

/// The folder that was prepared, where this program runs as nobody.
const PREPARED: &str = "ROLLBACKD_TEST_PREPARED";
const NOBODY: u32 = 65_534;

/// Root may read everything, so root runs this again as nobody.
#[tokio::test]
async fn what_the_daemon_may_not_read_is_told_apart_from_what_changed() {
    if let Some(home) = env::var_os(PREPARED) {
        return ask(Path::new(&home)).await;
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
        return ask(home.path()).await;
    }
    // Where this program lies, nobody may not be let in.
    let program = home.path().join("program");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    let name = std::thread::current().name().unwrap().to_owned();
    let done = Command::new(&program)
        .args(["--exact", &name])
        .env(PREPARED, home.path().canonicalize().unwrap())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{done:?}");
}

async fn ask(home: &Path) {
    let root = home.join("v1");
    let text = root.to_str().unwrap();
    let digest = format!("tree-sha256:{}", "0".repeat(64)).parse().unwrap();
    let advice = "can not be read: Permission denied (os error 13); let the daemon's user read all \
                  of the artifact";
    let said = refused(Kind::Path, text).await;
    assert_eq!(said, format!("{text}/private/ {advice}"));
    let said = refused(Kind::Path, &format!("{text}/secret")).await;
    assert_eq!(said, format!("{text}/secret {advice}"));
    let said = refused(Kind::Path, &format!("{text}/private/below")).await;
    assert!(said.contains("private/below can not be reached: Permission denied"), "{said}");
    let doubt = Seal::new(text, digest, None).check().await.unwrap_err();
    assert!(matches!(doubt, Doubt::Unreadable { .. }), "{doubt}");

    let socket = home.join("podman.sock");
    let podman = Podman::new(&socket).unwrap();
    let image = format!("localhost/weather@sha256:{}", "0".repeat(64));
    let said = find(Kind::Image, &image, Some(&podman)).await.unwrap_err();
    let start = format!("the daemon's user may not reach {};", socket.display());
    assert!(said.starts_with(&start), "{said}");
}
