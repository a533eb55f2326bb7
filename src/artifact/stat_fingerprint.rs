use sha2::{Digest as _, Sha256};

use crate::artifact::error::printable_path;
use crate::artifact::walk::{Entry, Visitor, WalkError};

/// What the file system says about all of an artifact without anything being read. As long as it is
/// the same, so is the content.
#[derive(Debug, Clone)]
pub(super) struct StatFingerprint {
    hash: [u8; 32],
    /// What changed last, and when, in seconds and nanoseconds.
    newest_change: ((i64, i64), Vec<u8>),
}

/// Takes a fingerprint.
#[derive(Default)]
pub(super) struct FingerprintBuilder {
    hash: Sha256,
    newest_change: ((i64, i64), Vec<u8>),
}

impl Visitor for FingerprintBuilder {
    fn visit(&mut self, entry: &Entry<'_>) -> Result<(), WalkError> {
        let meta = &entry.meta;
        let times = [meta.modified, meta.changed];
        let times = times.map(|(seconds, nanos)| [seconds.to_le_bytes(), nanos.to_le_bytes()]);
        // A path has no zero byte, and all else has the same length each time.
        self.hash.update(entry.path);
        self.hash.update([0]);
        self.hash.update(meta.mode.to_le_bytes());
        for number in [meta.device, meta.inode, meta.size] {
            self.hash.update(number.to_le_bytes());
        }
        self.hash.update(times.as_flattened().as_flattened());
        // A folder changes with what is put into it, which tells more.
        let is_folder = entry.path.is_empty() || entry.path.ends_with(b"/");
        if !is_folder && self.newest_change.0 < meta.changed {
            self.newest_change = (meta.changed, entry.path.to_vec());
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
        (!self.newest_change.1.is_empty()).then(|| printable_path(&self.newest_change.1))
    }
}

impl PartialEq for StatFingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}
