//! The symbolic links of an artifact that lead out of it.
//!
//! A digest covers the text of a link, and not what is there. Where others may change that, they change
//! what the release runs without a trace, so such a link is refused.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Stat, lstat, readlink, readlinkat};
use tokio_util::sync::CancellationToken;

use crate::artifact::error::{ArtifactError, printable_path, shorten};
use crate::artifact::trusted_owners::TrustedOwners;
use crate::artifact::walk::{Entry, Visitor, WalkError, walk};
use crate::model::{OutsideLink, OutsideLinks};

/// Links on the path of one link, as in the kernel.
const FOLLOWED_MAX: u32 = 40;
/// The mode bits that let every user, or those of the group, write. With an access control list, the
/// second stands for all users and groups that it names.
const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITES: u32 = 0o020;
/// The mode bit of a directory that lets only its owner replace an entry.
const STICKY: u32 = 0o1000;

/// The links that lead out of an artifact.
///
/// # Errors
/// A link leads to where another user or group than root's and the daemon's may write, or the artifact
/// cannot be read.
pub(super) fn outside_links(
    artifact: &Path,
    stop: &CancellationToken,
) -> Result<OutsideLinks, ArtifactError> {
    let trusted = TrustedOwners::of_this_process();
    let mut links = LinkVisitor { artifact, trusted, found: OutsideLinks::default() };
    walk(artifact, &mut links, stop)?;
    Ok(links.found)
}

struct LinkVisitor<'a> {
    artifact: &'a Path,
    trusted: TrustedOwners,
    found: OutsideLinks,
}

impl Visitor for LinkVisitor<'_> {
    fn visit(&mut self, entry: &Entry<'_>) -> Result<(), WalkError> {
        if entry.meta.kind != FileType::Symlink {
            return Ok(());
        }
        let target = readlinkat(entry.dir, entry.name, Vec::new())?;
        let link = Path::new(OsStr::from_bytes(entry.path));
        let mut link_path = LinkPath::new(self.artifact, &self.trusted, link);
        link_path.follow(OsStr::from_bytes(target.as_bytes()));
        if link_path.stays_inside() {
            return Ok(());
        }
        let shown = printable_path(target.as_bytes());
        if let Some(why) = link_path.unsafe_place() {
            let what = format!(
                "leads to {}, and {why}: others could change what the release runs; deploy a copy \
                 of it instead of the link, or give it to root and let only root write",
                shorten(&shown)
            );
            return Err(WalkError::Unsupported(what));
        }
        let path = shorten(&printable_path(entry.path));
        self.found.add(OutsideLink { path, target: shorten(&shown) });
        Ok(())
    }
}

/// The path from a link to where it leads, one component after the other.
struct LinkPath<'a> {
    artifact: &'a Path,
    /// Those that may change what is on the path.
    trusted: &'a TrustedOwners,
    /// Reached so far; no component of it is a link.
    at: PathBuf,
    /// What is still to be followed, the next component last.
    ahead: Vec<OsString>,
    /// Whether a link outside the artifact is on the path.
    left: bool,
    /// The first place on the path that others may change.
    writable: Option<String>,
    /// The last directory, if others may add entries to it.
    open_directory: Option<String>,
}

impl<'a> LinkPath<'a> {
    fn new(artifact: &'a Path, trusted: &'a TrustedOwners, link: &Path) -> Self {
        let link = artifact.join(link);
        let at = link.parent().unwrap_or(artifact).to_owned();
        Self {
            artifact,
            trusted,
            at,
            ahead: Vec::new(),
            left: false,
            writable: None,
            open_directory: None,
        }
    }

    fn follow(&mut self, target: &OsStr) {
        self.prepend(Path::new(target));
        let mut followed = 1;
        while let Some(part) = self.ahead.pop() {
            if part == "/" {
                self.at = PathBuf::from("/");
                self.open_directory = None;
                continue;
            }
            if part == ".." {
                self.at.pop();
                self.open_directory = None;
                continue;
            }
            let next = self.at.join(&part);
            let is_outside = !next.starts_with(self.artifact);
            if is_outside {
                self.check_directories();
            }
            let Ok(stat) = lstat(&next) else {
                // Others may create it where they may add entries; the rest of the path is unknown.
                self.at = next;
                break;
            };
            let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
            self.open_directory = None;
            if is_outside {
                self.left |= is_link;
                self.check(&next, &stat);
            }
            match readlink(&next, Vec::new()) {
                Ok(target) if is_link && followed < FOLLOWED_MAX => {
                    followed += 1;
                    self.prepend(Path::new(OsStr::from_bytes(target.as_bytes())));
                }
                _ => self.at = next,
            }
        }
    }

    fn prepend(&mut self, target: &Path) {
        let parts = target.components().filter(|part| *part != Component::CurDir);
        let parts: Vec<_> = parts.map(|part| part.as_os_str().to_owned()).collect();
        self.ahead.extend(parts.into_iter().rev());
    }

    /// Checks the directories that were reached, from the root on.
    fn check_directories(&mut self) {
        let reached: Vec<_> = self.at.ancestors().map(Path::to_owned).collect();
        let artifact = self.artifact;
        for directory in reached.iter().rev().filter(|it| !it.starts_with(artifact)) {
            self.open_directory = None;
            if let Ok(stat) = lstat(directory) {
                self.check(directory, &stat);
            }
        }
    }

    /// Notes a place that others may change.
    fn check(&mut self, path: &Path, stat: &Stat) {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let writable = self.writable_for(stat);
        let why = match (kind, writable) {
            _ if !self.trusted.has_user(stat.st_uid) => {
                format!("belongs to the user with the uid {}", stat.st_uid)
            }
            // Its entries belong to who made them, and those are checked.
            (FileType::Directory, Some(why)) if stat.st_mode & STICKY != 0 => {
                self.open_directory = Some(place(path, &why));
                return;
            }
            (FileType::Directory | FileType::RegularFile, Some(why)) => why,
            _ => return,
        };
        self.writable.get_or_insert_with(|| place(path, &why));
    }

    fn writable_for(&self, stat: &Stat) -> Option<String> {
        if stat.st_mode & OTHERS_WRITE != 0 {
            return Some("is writable for every user".to_owned());
        }
        let of_group = stat.st_mode & GROUP_WRITES != 0 && !self.trusted.has_group(stat.st_gid);
        of_group.then(|| format!("is writable for the group with the gid {}", stat.st_gid))
    }

    fn stays_inside(&self) -> bool {
        !self.left && self.at.starts_with(self.artifact)
    }

    fn unsafe_place(&self) -> Option<String> {
        self.writable.clone().or_else(|| self.open_directory.clone())
    }
}

fn place(path: &Path, why: &str) -> String {
    format!("{} {why}", shorten(&printable_path(path.as_os_str().as_bytes())))
}
