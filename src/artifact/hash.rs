//! Hashes the content of an artifact, and rejects one that changes meanwhile.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FileType, OFlags, fstat, readlinkat};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::digest::{Digest, to_hex};
use super::walk::{Entry, EntryMetadata, Visitor, WalkError, open_unchanged, walk};
use crate::artifact::error::ArtifactError;
use crate::artifact::stat_fingerprint::{FingerprintBuilder, StatFingerprint};

/// Bytes of all files of an artifact together.
const ARTIFACT_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Bytes of one read. Between two reads the hash may be cancelled.
const CHUNK_BYTES: usize = 128 * 1024;
/// Limit of a fingerprint, and of a hash with its wait for a permit. 64 GiB take 2 to 5 minutes.
const HASH_TIMEOUT: Duration = Duration::from_mins(10);
/// Two writes within one tick of the kernel's clock give a file the same time. A tick is at most
/// 10 ms: a write this long after a fingerprint has a later time than all times in it.
const TIMESTAMP_GRANULARITY: Duration = Duration::from_millis(20);
/// The mode bit that lets the owner execute a file.
const OWNER_EXECUTE_BIT: u32 = 0o100;

/// The digest of an artifact, and its fingerprint at that time.
#[derive(Debug)]
pub(super) struct HashedArtifact {
    pub(super) digest: Digest,
    pub(super) fingerprint: StatFingerprint,
}

/// Reads the whole artifact when it has a permit. A drop of the future cancels the read.
pub(super) async fn hash_artifact(
    path: &Path,
    permit: &Semaphore,
) -> Result<HashedArtifact, ArtifactError> {
    let hashing = async {
        // The semaphore is never closed.
        let _permit = permit.acquire().await;
        let before = fingerprint(path).await?;
        tokio::time::sleep(TIMESTAMP_GRANULARITY).await;
        let digest = run_blocking(path, hash_contents).await?;
        let after = fingerprint(path).await?;
        if before != after {
            let newest = after.newest_file().map(|path| format!(" (newest file: {path})"));
            let what =
                format!("{} {}{}", path.display(), WalkError::Modified, newest.unwrap_or_default());
            return Err(ArtifactError::Unreadable(what));
        }
        Ok(HashedArtifact { digest, fingerprint: after })
    };
    tokio::time::timeout(HASH_TIMEOUT, hashing).await.unwrap_or_else(|_| {
        Err(ArtifactError::Unreadable(format!(
            "{} could not be read within {} minutes; deploy less, or from a faster disk",
            path.display(),
            HASH_TIMEOUT.as_secs() / 60
        )))
    })
}

/// The metadata of all files of the artifact. Takes milliseconds for thousands of files.
pub(super) async fn fingerprint(path: &Path) -> Result<StatFingerprint, ArtifactError> {
    let walking = run_blocking(path, |path, stop| {
        let mut stats = FingerprintBuilder::default();
        walk(path, &mut stats, stop)?;
        Ok(stats.finish())
    });
    tokio::time::timeout(HASH_TIMEOUT, walking).await.unwrap_or_else(|_| {
        Err(ArtifactError::Unreadable(format!("{}: its disk does not answer", path.display())))
    })
}

/// Runs a read of an artifact on a thread that may block. A drop of the future cancels it.
pub(super) async fn run_blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path, &CancellationToken) -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    let (shown, path): (_, PathBuf) = (path, path.to_owned());
    let stop = CancellationToken::new();
    let _cancelled_on_drop = stop.clone().drop_guard();
    let done = tokio::task::spawn_blocking(move || work(&path, &stop)).await;
    done.unwrap_or_else(|error| {
        Err(ArtifactError::Unreadable(format!("{}: the read failed: {error}", shown.display())))
    })
}

fn hash_contents(path: &Path, stop: &CancellationToken) -> Result<Digest, ArtifactError> {
    let mut hasher = ContentHasher {
        stop,
        tree_hash: Sha256::new(),
        file_hash: [0; 32],
        bytes: 0,
        buffer: vec![0; CHUNK_BYTES],
    };
    let root = walk(path, &mut hasher, stop)?;
    Ok(match root.kind {
        FileType::Directory => Digest::of_tree(hasher.tree_hash.finalize().into()),
        _ => Digest::of_bytes(hasher.file_hash),
    })
}

struct ContentHasher<'a> {
    stop: &'a CancellationToken,
    /// The hash of the records of all entries.
    tree_hash: Sha256,
    /// The hash of the last file.
    file_hash: [u8; 32],
    bytes: u64,
    buffer: Vec<u8>,
}

impl Visitor for ContentHasher<'_> {
    fn visit(&mut self, entry: &Entry<'_>) -> Result<(), WalkError> {
        let (kind, hash) = match entry.meta.kind {
            FileType::Directory if entry.path.is_empty() => return Ok(()),
            FileType::Directory => (b'd', "-".to_owned()),
            FileType::RegularFile => {
                self.file_hash = self.hash_file(entry)?;
                let executable = entry.meta.mode & OWNER_EXECUTE_BIT != 0;
                (if executable { b'x' } else { b'f' }, to_hex(&self.file_hash))
            }
            // The path was canonical, so a link replaced the artifact just now.
            FileType::Symlink if entry.path.is_empty() => return Err(WalkError::Modified),
            FileType::Symlink => {
                let target = readlinkat(entry.dir, entry.name, Vec::new())?;
                (b'l', to_hex(&Sha256::digest(target.as_bytes()).into()))
            }
            _ => {
                let what = "is a socket, a pipe or a device, which has no content to compare; \
                            deploy a directory without it";
                return Err(WalkError::Unsupported(what.to_owned()));
            }
        };
        self.tree_hash.update([kind, b' ']);
        self.tree_hash.update(hash);
        self.tree_hash.update(b" ");
        self.tree_hash.update(entry.path);
        self.tree_hash.update([0]);
        Ok(())
    }
}

impl ContentHasher<'_> {
    fn hash_file(&mut self, entry: &Entry<'_>) -> Result<[u8; 32], WalkError> {
        self.bytes = self.bytes.saturating_add(entry.meta.size);
        if ARTIFACT_BYTES_MAX < self.bytes {
            let what =
                format!("exceeds the limit of {} GiB; deploy less", ARTIFACT_BYTES_MAX >> 30);
            return Err(WalkError::Unsupported(what));
        }
        let mut file = std::fs::File::from(open_unchanged(
            entry.dir,
            entry.name,
            OFlags::empty(),
            &entry.meta,
        )?);
        let mut hash = Sha256::new();
        let mut length = 0;
        while length <= entry.meta.size {
            if self.stop.is_cancelled() {
                return Err(WalkError::Cancelled);
            }
            let count = file.read(&mut self.buffer).map_err(walk_error)?;
            if count == 0 {
                break;
            }
            length += count as u64;
            hash.update(self.buffer.get(..count).unwrap_or_default());
        }
        // The file must be unchanged until here.
        if EntryMetadata::of(&fstat(&file)?) != entry.meta || length != entry.meta.size {
            return Err(WalkError::Modified);
        }
        Ok(hash.finalize().into())
    }
}

fn walk_error(error: std::io::Error) -> WalkError {
    error.raw_os_error().map_or_else(
        || WalkError::Unsupported(format!("cannot be read: {error}")),
        |code| WalkError::System(rustix::io::Errno::from_raw_os_error(code)),
    )
}
