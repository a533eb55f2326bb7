//! The outbox: notices on their way to channels, in `outbox.jsonl` of the state directory.
//!
//! One line a fact: a notice was queued for channels, a channel is done with one, notices are known. A
//! notice is on disk (fdatasync) when [`Outbox::queue`] returns. That a channel is done is only written:
//! it survives a kill, and after a power loss the notice is delivered twice, under the same id.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files::{open_private, open_to_read, set_aside, write_atomically};
use crate::incident::{Notice, NoticeKind};
use crate::model::Moment;
use crate::record::outbox_state::{OutboxLine, OutboxState, WAITING_MAX, push_line};

/// Of these, the last are for pages.
const RESERVED_FOR_PAGES: usize = 1_000;
/// Largest file. The whole of it is read at a start.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The file is written again when it has this size and at least half of it is done.
const COMPACT_BYTES: u64 = 1024 * 1024;
const FILE: &str = "outbox.jsonl";

/// The outbox of a daemon.
#[derive(Debug)]
pub struct Outbox {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    state: OutboxState,
    error: Option<String>,
    lost: u64,
}

/// What became of a notice that was to be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// It waits, on disk.
    Waits,
    /// It waits in memory: the file cannot be written. A restart loses it.
    InMemory,
    /// It was queued before, or no channel takes it.
    NotNeeded,
    /// The outbox is full.
    Full,
}

impl Outbox {
    /// Opens the outbox of a state directory. It begins `now` if there is none. The second value says
    /// what could not be read, and what became of it.
    pub fn open(state_dir: &Path, now: Moment) -> (Self, Option<String>) {
        let path = state_dir.join(FILE);
        let (state, damage) = match read(&path) {
            Ok(Some(bytes)) => OutboxState::parse(&bytes),
            Ok(None) => (OutboxState { since: now, ..OutboxState::default() }, None),
            Err(error) => {
                let moved = set_aside(&path);
                let moved = moved.map_or_else(|it| it.to_string(), |it| it.display().to_string());
                let damage = format!("{error}; it is {moved} now");
                (OutboxState { since: now, ..OutboxState::default() }, Some(damage))
            }
        };
        let damage = damage.map(|it| format!("{}: {it}", path.display()));
        let mut outbox = Self { path, file: None, bytes: 0, state, error: None, lost: 0 };
        // Also where it cannot be written: what is in memory is sent.
        let _ = outbox.compact();
        (outbox, damage)
    }

    /// Queues a notice for channels.
    pub fn queue(&mut self, notice: &Notice, channels: Vec<String>) -> Queued {
        if self.state.known.contains(&notice.id) {
            return Queued::NotNeeded;
        }
        if channels.is_empty() {
            let line = OutboxLine::Known { id: notice.id.clone(), moment: notice.moment };
            let _ = self.append(&line, false);
            self.state.apply(line);
            return Queued::NotNeeded;
        }
        let reserved = if notice.kind == NoticeKind::Page { 0 } else { RESERVED_FOR_PAGES };
        if self.state.waiting.len() + reserved >= WAITING_MAX {
            self.lost += 1;
            return Queued::Full;
        }
        let (number, copy) = (self.state.next, Box::new(notice.clone()));
        let line = OutboxLine::Queued { number, channels, notice: copy };
        let written = self.append(&line, true);
        self.state.apply(line);
        if written.is_ok() { Queued::Waits } else { Queued::InMemory }
    }

    /// A channel delivered a notice, or gave up.
    pub fn done(&mut self, number: u64, channel: &str) {
        let line = OutboxLine::Done { number, channel: channel.to_owned() };
        // A line that is lost means a second delivery, under the same id.
        let _ = self.append(&line, false);
        self.state.apply(line);
    }

    /// The next notice of a channel: its number, and the notice.
    pub fn next(&self, channel: &str) -> Option<(u64, Arc<Notice>)> {
        let number = self.state.queues.get(channel)?.front()?;
        let waiting = self.state.waiting.get(number)?;
        Some((*number, Arc::clone(&waiting.notice)))
    }

    /// How many notices wait for each channel. Channels for which none waits are left out.
    pub fn waiting(&self) -> BTreeMap<String, usize> {
        let queues = self.state.queues.iter().filter(|(_, queue)| !queue.is_empty());
        queues.map(|(channel, queue)| (channel.clone(), queue.len())).collect()
    }

    /// Drops what waits for channels that do not exist any more. Returns how many notices.
    pub fn retain_channels(&mut self, exists: impl Fn(&str) -> bool) -> usize {
        let gone = self.state.queues.iter().filter(|(channel, _)| !exists(channel));
        let gone: Vec<_> = gone
            .flat_map(|(channel, queue)| queue.iter().map(|number| (*number, channel.clone())))
            .collect();
        gone.iter().for_each(|(number, channel)| self.done(*number, channel));
        gone.len()
    }

    /// Events before this moment make no notice.
    pub fn since(&self) -> Moment {
        self.state.since
    }

    /// Why the file cannot be written, if so.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Notices that were lost, because too many waited.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn append(&mut self, line: &OutboxLine, sync: bool) -> io::Result<()> {
        let written = self.try_append(line, sync);
        self.error = written.as_ref().err().map(|error| {
            format!("cannot write {}: {error}; a restart loses notices", self.path.display())
        });
        written
    }

    fn try_append(&mut self, line: &OutboxLine, sync: bool) -> io::Result<()> {
        if self.file.is_none() || self.is_mostly_done() {
            self.compact()?;
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let mut bytes = Vec::new();
        push_line(&mut bytes, line)?;
        let length = bytes.len() as u64;
        if self.bytes + length > BYTES_MAX {
            return Err(io::Error::other(format!("it has {BYTES_MAX} bytes and takes no more")));
        }
        let written = file.write_all(&bytes);
        if let Err(error) = written.and_then(|()| if sync { file.sync_data() } else { Ok(()) }) {
            // The next append writes the file again, without a part of a line.
            self.file = None;
            return Err(error);
        }
        self.bytes += length;
        Ok(())
    }

    fn is_mostly_done(&self) -> bool {
        let live = self.state.waiting.len() as u64 * 1_000 + self.state.known.len() as u64 * 80;
        self.bytes > COMPACT_BYTES && self.bytes > 2 * live
    }

    /// Writes the file again, without what is done.
    fn compact(&mut self) -> io::Result<()> {
        let lines = self.state.lines()?;
        write_atomically(&self.path, &lines)?;
        let mut file = open_private(&self.path)?;
        self.bytes = file.seek(SeekFrom::End(0))?;
        self.file = Some(file);
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match open_to_read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {BYTES_MAX} bytes")));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ReleaseNumber;

    fn notice(number: u32) -> Notice {
        let event = number.to_string();
        Notice::new(NoticeKind::Warn, "weather", ReleaseNumber(number), &event)
            .at("2026-11-27T10:00:00Z", Moment(u64::from(number)))
    }

    fn channels() -> Vec<String> {
        vec!["chat".to_owned(), "pager".to_owned()]
    }

    fn ids(outbox: &Outbox, channel: &str) -> Vec<String> {
        let Some(queue) = outbox.state.queues.get(channel) else { return Vec::new() };
        queue.iter().map(|it| outbox.state.waiting[it].notice.id.clone()).collect()
    }

    #[test]
    fn a_notice_waits_for_each_channel_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let (mut outbox, damage) = Outbox::open(dir.path(), Moment(7));
        assert_eq!((damage, outbox.since()), (None, Moment(7)));
        assert_eq!(outbox.queue(&notice(1), channels()), Queued::Waits);
        assert_eq!(outbox.queue(&notice(2), channels()), Queued::Waits);
        assert_eq!(outbox.queue(&notice(1), channels()), Queued::NotNeeded);
        assert_eq!(outbox.queue(&notice(3), Vec::new()), Queued::NotNeeded);
        let (number, first) = outbox.next("chat").unwrap();
        assert_eq!(first.id, "weather/1/1");
        outbox.done(number, "chat");
        for _ in 0..2 {
            let (mut outbox, _) = Outbox::open(dir.path(), Moment(99));
            assert_eq!(outbox.since(), Moment(7));
            assert_eq!(ids(&outbox, "chat"), ["weather/2/2"]);
            assert_eq!(ids(&outbox, "pager"), ["weather/1/1", "weather/2/2"]);
            assert_eq!(outbox.queue(&notice(3), channels()), Queued::NotNeeded);
        }
        let (mut outbox, _) = Outbox::open(dir.path(), Moment(99));
        assert_eq!(outbox.retain_channels(|it| it == "chat"), 2);
        assert_eq!(outbox.waiting(), [("chat".to_owned(), 1)].into());
    }

    #[test]
    fn a_file_cut_at_any_byte_loses_only_its_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let (mut outbox, _) = Outbox::open(dir.path(), Moment(0));
        for number in 1..=3 {
            outbox.queue(&notice(number), channels());
        }
        let bytes = std::fs::read(dir.path().join(FILE)).unwrap();
        for end in 0..bytes.len() {
            let (state, damage) = OutboxState::parse(&bytes[..end]);
            let lines = bytes[..end].iter().filter(|it| **it == b'\n').count();
            assert_eq!((state.waiting.len(), damage), (lines.saturating_sub(1), None), "{end}");
        }
        let damaged = [b"{\"queued\":7}\n\xff\n".as_slice(), &bytes].concat();
        let (state, damage) = OutboxState::parse(&damaged);
        assert_eq!(damage.as_deref(), Some("2 lines cannot be read"));
        assert_eq!(state, outbox.state);
    }

    #[test]
    fn the_file_stays_small_and_the_queue_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let (mut outbox, _) = Outbox::open(dir.path(), Moment(0));
        for number in 0..1_500 {
            let long = Notice { text: "x".repeat(3_000), ..notice(number) };
            let queued = outbox.queue(&long, vec!["chat".to_owned()]);
            assert_ne!(queued, Queued::Full, "{number}");
            let (number, _) = outbox.next("chat").unwrap();
            outbox.done(number, "chat");
        }
        assert!(outbox.bytes < 2 * COMPACT_BYTES, "{} bytes", outbox.bytes);
        let full = WAITING_MAX - RESERVED_FOR_PAGES;
        outbox.state.since = Moment(0);
        for number in 0..full {
            let line = OutboxLine::Queued {
                number: outbox.state.next,
                channels: vec!["chat".to_owned()],
                notice: Box::new(notice(100_000 + number as u32)),
            };
            outbox.state.apply(line);
        }
        assert_eq!(outbox.queue(&notice(900_000), channels()), Queued::Full);
        let page = Notice { kind: NoticeKind::Page, ..notice(900_001) };
        assert_eq!(outbox.queue(&page, channels()), Queued::Waits);
        assert_eq!(outbox.lost(), 1);
    }

    #[test]
    fn a_full_disk_loses_nothing_before_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (mut outbox, _) = Outbox::open(dir.path(), Moment(0));
        let full = File::options().write(true).open("/dev/full").unwrap();
        outbox.file = Some(full);
        assert_eq!(outbox.queue(&notice(1), channels()), Queued::InMemory);
        assert!(outbox.error().is_some());
        assert_eq!(ids(&outbox, "chat"), ["weather/1/1"]);
        // There is space again: the next line brings the earlier one.
        assert_eq!(outbox.queue(&notice(2), channels()), Queued::Waits);
        assert_eq!(outbox.error(), None);
        let (outbox, _) = Outbox::open(dir.path(), Moment(0));
        assert_eq!(ids(&outbox, "pager"), ["weather/1/1", "weather/2/2"]);
    }
}
