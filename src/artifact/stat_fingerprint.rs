//! A hash over the metadata of an artifact, which tells without a read whether it changed.

use sha2::{Digest as _, Sha256};

use crate::artifact::error::printable_path;
use crate::artifact::walk::{Entry, Timestamp, Visitor, WalkError};

/// The metadata of all entries of an artifact. While it is the same, so is the content.
#[derive(Debug, Clone)]
pub(super) struct StatFingerprint {
    hash: [u8; 32],
    newest_change: NewestChange,
}

/// The file that changed last.
#[derive(Debug, Clone, Default)]
struct NewestChange {
    changed: Timestamp,
    path: Vec<u8>,
}

/// Builds a fingerprint during a walk.
#[derive(Default)]
pub(super) struct FingerprintBuilder {
    hash: Sha256,
    newest_change: NewestChange,
}

impl Visitor for FingerprintBuilder {
    fn visit(&mut self, entry: &Entry<'_>) -> Result<(), WalkError> {
        let meta = &entry.meta;
        let times = [meta.modified, meta.changed];
        let times = times.map(|it| [it.seconds.to_le_bytes(), it.nanoseconds.to_le_bytes()]);
        // A path contains no zero byte, and the other fields have a fixed length.
        self.hash.update(entry.path);
        self.hash.update([0]);
        self.hash.update(meta.mode.to_le_bytes());
        for number in [meta.device, meta.inode, meta.size] {
            self.hash.update(number.to_le_bytes());
        }
        self.hash.update(times.as_flattened().as_flattened());
        // A directory changes with its entries, which say more.
        let is_directory = entry.path.is_empty() || entry.path.ends_with(b"/");
        if !is_directory && self.newest_change.changed < meta.changed {
            self.newest_change = NewestChange { changed: meta.changed, path: entry.path.to_vec() };
        }
        Ok(())
    }
}

impl FingerprintBuilder {
    pub(super) fn finish(self) -> StatFingerprint {
        StatFingerprint { hash: self.hash.finalize().into(), newest_change: self.newest_change }
    }
}

impl StatFingerprint {
    /// The file below the artifact that changed last, if there is one.
    pub(super) fn newest_file(&self) -> Option<String> {
        let path = &self.newest_change.path;
        (!path.is_empty()).then(|| printable_path(path))
    }
}

impl PartialEq for StatFingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}
