//! What a release wrote into the output file of its slot.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::files::open_to_read;
use crate::model::{Release, parse_output_section};

/// The end of an output file that is read.
const OUTPUT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Lines of one release, the newest.
const LINES_MAX: usize = 10_000;

/// The newest lines that a release wrote into the output file of its slot. `None` if the file has none of
/// it, or cannot be read.
pub fn read_output_section(dir: &Path, release: &Release) -> Option<Vec<String>> {
    let path = output_path(dir, release);
    let text = read_end(&path).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut present = None;
    let mut is_known = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        match parse_output_section(line) {
            Some(number) => {
                present = Some(number);
                is_known |= number == release.number;
            }
            None if present == Some(release.number) => lines.push(line),
            None => (),
        }
    }
    // The beginning of a long output is cut off, with its section.
    if present.is_none() && !text.is_empty() {
        lines = text.lines().collect();
    } else if !is_known {
        return None;
    }
    let surplus = lines.len().saturating_sub(LINES_MAX);
    Some(lines.into_iter().skip(surplus).map(str::to_owned).collect())
}

/// Where `act::ProcessSpec::output_path` puts it.
fn output_path(dir: &Path, release: &Release) -> PathBuf {
    dir.join(format!("output-{}.log", release.slot))
}

fn read_end(path: &Path) -> io::Result<Vec<u8>> {
    let mut file: File = open_to_read(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(OUTPUT_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ReleaseNumber, Slot, output_section};

    fn release(number: u32) -> Release {
        Release {
            version: format!("v{number}"),
            number: ReleaseNumber(number),
            slot: Slot("blue".into()),
            artifact: None,
            digest: None,
            environment: Default::default(),
            same_version: false,
        }
    }

    #[test]
    fn each_release_has_the_lines_of_its_sections() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_output_section(dir.path(), &release(1)), None);
        let (one, two) = (output_section(&release(1)), output_section(&release(2)));
        let text = format!("old\n{one}\na\n{two}\nb\n{one}\nc\n");
        std::fs::write(dir.path().join("output-blue.log"), text).unwrap();
        assert_eq!(read_output_section(dir.path(), &release(1)).unwrap(), ["a", "c"]);
        assert_eq!(read_output_section(dir.path(), &release(2)).unwrap(), ["b"]);
        assert_eq!(read_output_section(dir.path(), &release(3)), None);
        let text = format!("{two}\nb\n{one}\n");
        std::fs::write(dir.path().join("output-blue.log"), text).unwrap();
        assert_eq!(read_output_section(dir.path(), &release(1)).unwrap(), Vec::<String>::new());
    }
}
