//! Links that lead out of an artifact: listed, and refused where others may write.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rollbackd::artifact::{ArtifactKind, resolve};
use rollbackd::model::OutsideLinks;
use tempfile::TempDir;

/// The user `nobody` of every Linux.
const OTHER_USER: u32 = 65_534;

/// An artifact, and beside it a directory with a file that is not part of it.
fn artifact() -> (TempDir, PathBuf, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().canonicalize().unwrap();
    let (artifact, beside) = (root.join("v1"), root.join("beside"));
    fs::create_dir_all(artifact.join("lib/deep")).unwrap();
    fs::create_dir_all(beside.join("deep")).unwrap();
    fs::write(artifact.join("lib/own"), "x").unwrap();
    fs::write(beside.join("deep/file"), "x").unwrap();
    (home, artifact, beside)
}

async fn links(artifact: &Path) -> Result<OutsideLinks, String> {
    let found = resolve(ArtifactKind::Path, artifact.to_str().unwrap(), None).await?;
    Ok(found.outside_links)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn links_that_stay_inside_are_not_listed() {
    let (_home, artifact, _) = artifact();
    symlink("lib/own", artifact.join("a")).unwrap();
    symlink("../own", artifact.join("lib/deep/b")).unwrap();
    symlink("../v1/lib", artifact.join("c")).unwrap();
    symlink(artifact.join("lib"), artifact.join("d")).unwrap();
    symlink("missing", artifact.join("e")).unwrap();
    symlink("f", artifact.join("f")).unwrap();
    assert_eq!(links(&artifact).await.unwrap(), OutsideLinks::default());
}

#[tokio::test]
async fn links_that_lead_out_are_listed_and_bounded() {
    let (_home, artifact, beside) = artifact();
    symlink("../beside/deep", artifact.join("a")).unwrap();
    symlink("a/file", artifact.join("b")).unwrap();
    symlink("/usr/bin/env", artifact.join("lib/c")).unwrap();
    symlink("/dev/null", artifact.join("lib/d")).unwrap();
    symlink("/nowhere/\u{1b}[31m", artifact.join("lib/e")).unwrap();
    let found = links(&artifact).await.unwrap();
    let listed: Vec<_> = found.listed.iter().map(ToString::to_string).collect();
    assert_eq!(
        listed,
        [
            "a -> ../beside/deep",
            "b -> a/file",
            "lib/c -> /usr/bin/env",
            "lib/d -> /dev/null",
            "lib/e -> /nowhere/\u{fffd}[31m",
        ]
    );
    assert_eq!(
        found.to_string(),
        "5 links lead out of the artifact: a -> ../beside/deep, b -> a/file, lib/c -> /usr/bin/env, \
         and 2 more"
    );
    for n in 0..100 {
        symlink(&beside, artifact.join(format!("z{n}"))).unwrap();
    }
    let found = links(&artifact).await.unwrap();
    assert_eq!((found.count, found.listed.len()), (105, OutsideLinks::LISTED_MAX));
}

#[tokio::test]
async fn a_link_to_where_all_may_write_is_refused() {
    let (_home, artifact, beside) = artifact();
    symlink("../../beside/deep/file", artifact.join("lib/out")).unwrap();
    links(&artifact).await.unwrap();
    // Any component of the way counts.
    for (place, mode) in [("deep/file", 0o666), ("deep", 0o777), ("", 0o777)] {
        let (place, before) = (beside.join(place), fs::metadata(beside.join(place)).unwrap());
        set_mode(&place, mode);
        let place_text = place.components().collect::<PathBuf>();
        assert_eq!(
            links(&artifact).await.unwrap_err(),
            format!(
                "{}/lib/out leads to ../../beside/deep/file, and {} is writable for every user: others \
                 could change what the release runs; deploy a copy of it instead of the link, or \
                 give it to root and let only root write",
                artifact.display(),
                place_text.display()
            )
        );
        fs::set_permissions(&place, before.permissions()).unwrap();
    }
    links(&artifact).await.unwrap();
}

#[tokio::test]
async fn a_link_to_where_a_group_may_write_is_refused_unless_the_group_is_root() {
    if !is_root() {
        return println!("only root can give files away");
    }
    let (_home, artifact, beside) = artifact();
    symlink("../beside/deep/file", artifact.join("out")).unwrap();
    for (place, mode) in [("deep/file", 0o664), ("deep", 0o2775), ("", 0o770)] {
        let (place, before) = (beside.join(place), fs::metadata(beside.join(place)).unwrap());
        set_mode(&place, mode);
        assert_eq!(links(&artifact).await.unwrap().count, 1, "{}", place.display());
        chown(&place, None, Some(OTHER_USER)).unwrap();
        set_mode(&place, mode);
        let error = links(&artifact).await.unwrap_err();
        let place_text = place.components().collect::<PathBuf>();
        let why = format!("{} is writable for the group with the gid 65534", place_text.display());
        assert!(error.contains(&why), "{error}");
        fs::set_permissions(&place, before.permissions()).unwrap();
        // A group that may only read is no danger.
        links(&artifact).await.unwrap();
        chown(&place, None, Some(0)).unwrap();
    }
}

#[tokio::test]
async fn in_a_sticky_directory_what_is_there_is_safe_and_what_is_not_is_not() {
    let (_home, artifact, beside) = artifact();
    set_mode(&beside, 0o1777);
    let link = artifact.join("out");
    symlink("../beside/deep/file", &link).unwrap();
    assert_eq!(links(&artifact).await.unwrap().count, 1);
    // Others may create what is missing, and add entries to the directory itself.
    for target in ["../beside/missing", "../beside", "../beside/missing/file"] {
        fs::remove_file(&link).unwrap();
        symlink(target, &link).unwrap();
        let error = links(&artifact).await.unwrap_err();
        assert!(error.contains("beside is writable for every user"), "{error}");
    }
}

#[tokio::test]
async fn a_link_to_what_belongs_to_another_user_is_refused() {
    if !is_root() {
        return println!("only root can give files away");
    }
    let (_home, artifact, beside) = artifact();
    symlink("../beside/deep/file", artifact.join("out")).unwrap();
    for place in ["deep/file", "deep", ""] {
        let place = beside.join(place);
        chown(&place, Some(OTHER_USER), None).unwrap();
        let error = links(&artifact).await.unwrap_err();
        assert!(error.contains("belongs to the user with the uid 65534"), "{error}");
        chown(&place, Some(0), None).unwrap();
    }
    links(&artifact).await.unwrap();
    // A link of another user that leads back today leads elsewhere tomorrow.
    let back = beside.join("back");
    symlink(artifact.join("lib"), &back).unwrap();
    symlink(&back, artifact.join("around")).unwrap();
    assert_eq!(links(&artifact).await.unwrap().count, 2);
    std::os::unix::fs::lchown(&back, Some(OTHER_USER), None).unwrap();
    let error = links(&artifact).await.unwrap_err();
    assert!(error.contains("around leads to"), "{error}");
}
