//! Decodes one body, with a limit on what it may become.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use async_compression::tokio::bufread::{
    BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder,
};
use async_compression::zstd::DParameter;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use http_body::Body;
use http_body_util::BodyDataStream;
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use tokio_util::io::{StreamReader, poll_read_buf};

use super::coding::Coding;

/// Decoded bytes that are passed on at once.
const PIECE: usize = 16 * 1024;
/// A body of at most this many decoded bytes may have any ratio.
const FREE_BYTES: u64 = 16 << 20;
/// Decoded bytes for each coded one, beyond [`FREE_BYTES`]. Deflate reaches 1,032.
const RATIO_MAX: u64 = 1_100;
/// Decoded bytes of a body that is no stream of events.
const BYTES_MAX: u64 = 1 << 30;
/// The logarithm of the largest window of zstd: 8 MiB (RFC 9659).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A body that is decoded as it arrives.
pub(crate) struct DecodedBody {
    /// `None` at the end, and after an error.
    reader: Option<Pin<Box<dyn AsyncRead + Send>>>,
    buffer: BytesMut,
    coded: Arc<AtomicU64>,
    decoded: u64,
    is_endless: bool,
}

/// A body that becomes too long.
#[derive(Debug, thiserror::Error)]
#[error("the body is too long when it is decoded: {coded} bytes become more than {decoded}")]
struct OverLimit {
    coded: u64,
    decoded: u64,
}

/// Whether a body could not be decoded because it becomes too long.
pub(crate) fn is_over_limit(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<OverLimit>())
}

impl DecodedBody {
    /// Decodes `body`. `is_endless`: it is a stream, whose length has no limit.
    pub(super) fn new<B>(coding: Coding, body: B, is_endless: bool) -> Self
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let coded = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&coded);
        let count = move |data: &Bytes| {
            let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
            counter.fetch_add(size, Ordering::Relaxed);
        };
        let input = BodyDataStream::new(body).inspect_ok(count).map_err(io::Error::other);
        let reader = Some(reader_of(coding, StreamReader::new(input)));
        Self { reader, buffer: BytesMut::new(), coded, decoded: 0, is_endless }
    }

    /// The next decoded bytes. What the server has flushed is there at once.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Some(reader) = &mut self.reader else { return Poll::Ready(None) };
        self.buffer.reserve(PIECE);
        let read = ready!(poll_read_buf(reader.as_mut(), cx, &mut self.buffer));
        let end = match read.and_then(|size| self.count(size)) {
            Ok(0) => None,
            Ok(_) => return Poll::Ready(Some(Ok(self.buffer.split().freeze()))),
            // A body without any byte: some servers name a coding all the same.
            Err(_) if self.coded.load(Ordering::Relaxed) == 0 && self.decoded == 0 => None,
            Err(error) => Some(Err(error)),
        };
        self.reader = None;
        Poll::Ready(end)
    }

    fn count(&mut self, size: usize) -> io::Result<usize> {
        self.decoded = self.decoded.saturating_add(u64::try_from(size).unwrap_or(u64::MAX));
        let (coded, decoded) = (self.coded.load(Ordering::Relaxed), self.decoded);
        let is_dense = decoded > FREE_BYTES && decoded > coded.saturating_mul(RATIO_MAX);
        if is_dense || (decoded > BYTES_MAX && !self.is_endless) {
            return Err(io::Error::other(OverLimit { coded, decoded }));
        }
        Ok(size)
    }
}

fn reader_of<R>(coding: Coding, input: R) -> Pin<Box<dyn AsyncRead + Send>>
where
    R: AsyncBufRead + Send + Unpin + 'static,
{
    match coding {
        Coding::Gzip => {
            let mut decoder = GzipDecoder::new(input);
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
        Coding::Deflate => Box::pin(DeflateReader::Unknown(Some(input))),
        Coding::Brotli => Box::pin(BrotliDecoder::new(input)),
        Coding::Zstd => {
            let window = DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX);
            let mut decoder = ZstdDecoder::with_params(input, &[window]);
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
    }
}

/// The two formats that servers send as `deflate`.
enum DeflateReader<R> {
    /// Until the first byte; `None` only while it becomes another.
    Unknown(Option<R>),
    Zlib(ZlibDecoder<R>),
    Bare(DeflateDecoder<R>),
}

impl<R: AsyncBufRead + Unpin> AsyncRead for DeflateReader<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Self::Unknown(input) = this
            && let Some(reader) = input
        {
            // The method of zlib is always 8 (RFC 1950). No encoder begins a bare stream so: it would
            // be a stored block with a bit set in its padding.
            let first = ready!(Pin::new(reader).poll_fill_buf(cx))?.first().copied();
            let is_zlib = first.is_some_and(|first| first & 0x0F == 8);
            if let Some(input) = input.take() {
                *this = match is_zlib {
                    true => Self::Zlib(ZlibDecoder::new(input)),
                    false => Self::Bare(DeflateDecoder::new(input)),
                };
            }
        }
        match this {
            Self::Unknown(_) => Poll::Ready(Ok(())),
            Self::Zlib(decoder) => Pin::new(decoder).poll_read(cx, buf),
            Self::Bare(decoder) => Pin::new(decoder).poll_read(cx, buf),
        }
    }
}

impl fmt::Debug for DecodedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { coded, decoded, .. } = self;
        f.debug_struct("DecodedBody").field("coded", coded).field("decoded", decoded).finish()
    }
}
