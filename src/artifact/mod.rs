//! What a release runs from, and whether it is still the same: an artifact that changed never starts
//! by accident.
//!
//! At a deploy, [`resolve`] finds the artifact and computes its [`Digest`]. Before each later start, a
//! [`Verifier`] compares the content with that digest. [`Podman::pin`] tags an image so that a prune
//! keeps it.
//!
//! # What a digest covers
//!
//! - **An image**: podman's digest of its manifest, which covers all its content.
//! - **A file**: SHA-256 of its bytes, as `sha256sum` prints it.
//! - **A directory**: SHA-256 of one record per entry below it, sorted by the bytes of their paths:
//!
//!   ```text
//!   KIND SPACE HASH SPACE PATH NUL
//!   ```
//!
//!   `PATH` is the bytes of the entry's path below the directory; the path of a directory ends
//!   with `/`. `KIND` is `f` for a file, `x` for a file that its owner may execute, `l` for a symbolic
//!   link, `d` for a directory. `HASH` is the SHA-256 of a file's bytes or of a link's target, in
//!   64 lower-case hexadecimal digits, and `-` for a directory. Links are not followed. Owners, times,
//!   other mode bits, attributes and hard links do not count, so that a copy has the same digest on
//!   every machine. Empty directories count. As a script:
//!
//!   ```bash
//!   cd DIRECTORY && find . -mindepth 1 \( -type d -printf '%P/\0' -o -printf '%P\0' \) | LC_ALL=C sort -z |
//!   while IFS= read -r -d '' path; do
//!     if [ -L "$path" ]; then kind=l hash=$(readlink -n -- "$path" | sha256sum)
//!     elif [ -d "$path" ]; then kind=d hash=-
//!     else kind=f hash=$(sha256sum <"$path"); case $(stat -c %A -- "$path") in ???[xs]*) kind=x; esac
//!     fi
//!     printf '%s %s %s\0' "$kind" "${hash%% *}" "$path"
//!   done | sha256sum
//!   ```
//!
//! # What a digest does not cover
//!
//! What a symbolic link leads to out of the artifact; a deploy lists such links, and refuses one where
//! others may write. What a release reads from elsewhere: the interpreter, the system's libraries, the network.

mod canonical_path;
mod compare;
mod digest;
mod error;
mod hash;
mod image_contents;
mod image_pin;
mod outside_links;
mod podman;
mod reference;
mod resolve;
mod stat_fingerprint;
mod trusted_owners;
mod verifier;
mod walk;

pub use digest::Digest;
pub use podman::Podman;

pub use crate::artifact::compare::{FileChange, compare};
pub use crate::artifact::image_contents::{ImageContents, ImageDiff, ImageLayer};
pub use crate::artifact::resolve::{ArtifactKind, ResolvedArtifact, resolve};
pub use crate::artifact::verifier::{Verifier, VerifyError};
