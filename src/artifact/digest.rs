use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Prefix of the digest of a directory.
const TREE_PREFIX: &str = "tree-sha256:";
/// Prefix of the digest of a file or an image.
const PLAIN_PREFIX: &str = "sha256:";

/// The digest of an artifact's content: `sha256:` or, for a directory, `tree-sha256:`, and 64
/// lower-case hexadecimal digits. The timeline stores this text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    tree: bool,
    hash: [u8; 32],
}

impl Digest {
    pub(super) fn of_bytes(hash: [u8; 32]) -> Self {
        Self { tree: false, hash }
    }

    pub(super) fn of_tree(hash: [u8; 32]) -> Self {
        Self { tree: true, hash }
    }

    pub(super) fn is_tree(&self) -> bool {
        self.tree
    }
}

/// 64 lower-case hexadecimal digits.
pub(super) fn to_hex(sum: &[u8; 32]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    sum.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn parse_hex(hex: &str) -> Option<[u8; 32]> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut sum = [0; 32];
    for (byte, [high, low]) in sum.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(sum)
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tree, hex) = text.strip_prefix(TREE_PREFIX).map_or_else(
            || (false, text.strip_prefix(PLAIN_PREFIX).unwrap_or_default()),
            |hex| (true, hex),
        );
        let sum = parse_hex(hex).ok_or(
            "a digest is \"sha256:\" or \"tree-sha256:\" and 64 of the digits 0-9 and a-f, in \
             lower case",
        )?;
        Ok(Self { tree, hash: sum })
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tree { TREE_PREFIX } else { PLAIN_PREFIX })?;
        f.write_str(&to_hex(&self.hash))
    }
}
