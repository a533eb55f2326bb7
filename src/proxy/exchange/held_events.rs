//! The bytes of events that wait in the proxy: for their end, or for a client that does not read.
//!
//! Each stream may hold one event of 16 MiB. All streams of a service together have a bound: over it,
//! the stream that holds most ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use crate::mutex::lock;

use bytes::Bytes;
use futures_util::task::AtomicWaker;

/// What all streams of a service may hold, in MiB and in bytes: as much as four of the largest events.
pub(in crate::proxy) const SUM_MAX_MIB: usize = 64;
const SUM_MAX: usize = SUM_MAX_MIB * 1024 * 1024;
/// A stream that holds less does not count.
const COUNTED_MIN: usize = 64 * 1024;
/// The largest piece that a client's connection gets at once: what it has got cannot be freed.
const PIECE_MAX: usize = 32 * 1024;

/// What all streams of a service hold.
#[derive(Debug)]
pub(in crate::proxy) struct HeldEvents {
    service: String,
    max: usize,
    streams: Mutex<BTreeMap<u64, (usize, Arc<Shared>)>>,
    next: std::sync::atomic::AtomicU64,
}

/// What one stream holds.
#[derive(Debug)]
pub(in crate::proxy) struct HeldByStream {
    of: Arc<HeldEvents>,
    key: u64,
    shared: Arc<Shared>,
    /// Bytes that wait for the end of their event.
    incomplete: usize,
    /// Whether it ever held enough to count.
    has_counted: bool,
    /// Whether events wait for the client, unless the stream was ended. Each poll of the stream asks.
    has_whole: bool,
}

#[derive(Debug, Default)]
struct Shared {
    /// Events that wait for the client.
    whole: Mutex<VecDeque<Bytes>>,
    ended: AtomicBool,
    waker: AtomicWaker,
}

impl HeldEvents {
    /// Those of this service.
    pub(in crate::proxy) fn new(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            max: SUM_MAX,
            streams: Mutex::default(),
            next: 0.into(),
        }
    }

    /// Starts to track a stream.
    pub(in crate::proxy) fn stream(self: &Arc<Self>) -> HeldByStream {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let (of, shared) = (Arc::clone(self), Arc::default());
        HeldByStream { of, key, shared, incomplete: 0, has_counted: false, has_whole: false }
    }

    /// Bytes in use, and how many there may be.
    pub(in crate::proxy) fn usage(&self) -> (usize, usize) {
        (lock(&self.streams).values().map(|(size, _)| size).sum(), self.max)
    }

    /// Records what a stream holds, and ends those that hold most until the sum fits.
    fn set(&self, key: u64, size: usize, shared: &Arc<Shared>) {
        let mut streams = lock(&self.streams);
        if size < COUNTED_MIN {
            streams.remove(&key);
            return;
        }
        streams.insert(key, (size, Arc::clone(shared)));
        let mut sum: usize = streams.values().map(|(size, _)| size).sum();
        while sum > self.max {
            let largest = streams.iter().max_by_key(|(_, (size, _))| *size).map(|(key, _)| *key);
            let Some((size, shared)) = largest.and_then(|key| streams.remove(&key)) else { return };
            sum -= size;
            shared.end();
        }
    }
}

impl Shared {
    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        // A client that does not read does not poll its stream either.
        lock(&self.whole).clear();
        self.waker.wake();
    }
}

impl HeldByStream {
    /// The service.
    pub(in crate::proxy) fn service(&self) -> &str {
        &self.of.service
    }

    /// Takes bytes for the client. Returns the piece that it gets first.
    pub(in crate::proxy) fn put(&mut self, data: Bytes) -> Bytes {
        if data.len() <= PIECE_MAX {
            return data;
        }
        lock(&self.shared.whole).push_back(data);
        self.has_whole = true;
        self.update();
        self.next_piece().unwrap_or_default()
    }

    /// The next piece for the client.
    pub(in crate::proxy) fn next_piece(&mut self) -> Option<Bytes> {
        if !self.has_whole {
            return None;
        }
        let mut whole = lock(&self.shared.whole);
        let first = whole.front_mut()?;
        // A copy, since a part of the event would keep all of it in memory.
        let piece = Bytes::copy_from_slice(first.get(..PIECE_MAX).unwrap_or(first));
        let _ = first.split_to(piece.len());
        if first.is_empty() {
            whole.pop_front();
        }
        self.has_whole = !whole.is_empty();
        drop(whole);
        self.update();
        Some(piece)
    }

    /// Takes the number of bytes that wait for the end of their event.
    pub(in crate::proxy) fn set_incomplete(&mut self, size: usize) {
        let counts = size >= COUNTED_MIN || self.incomplete >= COUNTED_MIN;
        self.incomplete = size;
        if counts {
            self.update();
        }
    }

    /// Whether nothing waits for the client.
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        !self.has_whole || lock(&self.shared.whole).is_empty()
    }

    /// Whether it held most when the streams held too much together: it must end. If not, it wakes
    /// this task when that happens.
    pub(in crate::proxy) fn has_ended(&self, waker: &Waker) -> bool {
        if self.incomplete >= COUNTED_MIN {
            self.shared.waker.register(waker);
        }
        self.shared.ended.load(Ordering::Relaxed)
    }

    fn update(&mut self) {
        self.has_counted = true;
        if self.shared.ended.load(Ordering::Relaxed) {
            return;
        }
        let whole: usize = lock(&self.shared.whole).iter().map(Bytes::len).sum();
        self.of.set(self.key, whole + self.incomplete, &self.shared);
    }
}

impl Drop for HeldByStream {
    fn drop(&mut self) {
        if self.has_counted {
            lock(&self.of.streams).remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn bounded(max: usize) -> Arc<HeldEvents> {
        Arc::new(HeldEvents { max, ..HeldEvents::new("weather") })
    }

    #[test]
    fn the_stream_that_holds_most_ends_first() {
        let all = bounded(10 * MIB);
        let [mut small, mut large, mut third] = [all.stream(), all.stream(), all.stream()];
        small.put(vec![0; 2 * MIB].into());
        large.put(vec![0; 7 * MIB].into());
        third.set_incomplete(3 * MIB);
        let ended = |it: &HeldByStream| it.has_ended(Waker::noop());
        assert_eq!([&small, &large, &third].map(ended), [false, true, false]);
        assert!(large.is_empty() && !small.is_empty());
        let (used, max) = all.usage();
        assert!(used <= 5 * MIB && max == 10 * MIB, "{used}");
        drop((small, large, third));
        assert_eq!(all.usage().0, 0);
    }

    #[test]
    fn all_bytes_come_in_order_and_in_pieces() {
        let all = bounded(10 * MIB);
        let mut stream = all.stream();
        let data: Vec<u8> = (0..100_000_u32).map(|it| it.to_le_bytes()[0]).collect();
        let mut got = stream.put(data.clone().into()).to_vec();
        while let Some(piece) = stream.next_piece() {
            assert!(piece.len() <= PIECE_MAX);
            got.extend(piece);
        }
        assert_eq!(got, data);
        assert_eq!(all.usage().0, 0);
    }

    #[test]
    fn small_events_do_not_wait() {
        let all = bounded(0);
        let mut stream = all.stream();
        assert_eq!(stream.put(Bytes::from_static(b"data: 1\n\n")).len(), 9);
        stream.set_incomplete(COUNTED_MIN - 1);
        assert!(!stream.has_ended(Waker::noop()));
    }
}
