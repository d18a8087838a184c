//! Compressed journals: frames of Zstandard, one for each hand-over, behind a frame that says whose they are.
//!
//! ```text
//! skippable frame   "headroom journal 1 " and the run's id       0x184D2A5D, length, text
//! frame             the lines of a hand-over, with a checksum
//! frame             ...
//! ```
//!
//! A frame is written in one piece and is never touched again, so a process that is killed leaves at most one frame without
//! its end, the last one. Where that begins is found without decompressing anything: a frame's header and those of its
//! blocks say how long they are. `zstd -d` gives the journal as it would be without compression.
//!
//! What others compressed is read as well. It is bounded in every way: a window of at most [`WINDOW`], blocks of at most
//! 128 KiB, and in all no more than [`RATIO`] times what is read, which no journal comes near to.

use std::io::{self, BufRead, Read};

use ruzstd::{
    decoding::{BlockDecodingStrategy, FrameDecoder},
    encoding::{CompressionLevel, compress_to_vec},
};

/// How a name ends whose journal is compressed.
const SUFFIX: &str = ".zst";
/// How a frame begins that holds something.
const FRAME: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
/// How our first frame begins; a frame that begins so is skipped by every program.
const OURS: [u8; 4] = 0x184d_2a5d_u32.to_le_bytes();
/// What our first frame holds, before the run's id.
const TITLE: &[u8] = b"headroom journal 1 ";
/// Characters of a run's id.
const ID: usize = 32;
/// Bytes that decompression may look back at: what `zstd` uses up to level 19, and twice that.
const WINDOW: u64 = 16 << 20;
/// Bytes that a block becomes at most, by the format.
const BLOCK: u32 = 128 << 10;
/// Bytes that a byte of the frames that hold something may become, on the average. Records differ in some twenty bytes out of a
/// thousand at the least, so that theirs are fifty.
const RATIO: u64 = 250;
/// Bytes that may be given in any case.
const FREE: u64 = 64 << 20;

/// Whether a journal of this name is compressed, if it is a new one.
pub(super) fn is_meant(path: &std::path::Path) -> bool {
    path.as_os_str().to_string_lossy().ends_with(SUFFIX)
}

/// Whether a file that begins so is compressed, whoever did it.
pub(super) fn is_compressed(first: &[u8]) -> bool {
    first.starts_with(&FRAME) || is_skippable(first)
}

fn is_skippable(first: &[u8]) -> bool {
    first.len() >= 4 && first[0] & 0xf0 == 0x50 && first[1..4] == OURS[1..]
}

/// The first frame of a journal of ours.
pub(crate) fn title(run: &str) -> Vec<u8> {
    let length = (TITLE.len() + ID) as u32;
    let id: Vec<u8> = run.bytes().chain(std::iter::repeat(b' ')).take(ID).collect();
    [&OURS[..], &length.to_le_bytes(), TITLE, &id].concat()
}

/// Bytes of the first frame of a journal of ours.
pub(super) const TITLE_BYTES: usize = 8 + TITLE.len() + ID;

/// Whether a file that begins so is a journal of ours, or was cut within its first bytes.
pub(crate) fn is_ours(first: &[u8]) -> bool {
    let fixed = title("");
    let most = first.len().min(TITLE_BYTES - ID);
    !first.is_empty() && first[..most] == fixed[..most]
}

/// The id of the run whose journal begins so; `None` where it is cut short.
pub(super) fn run_of(first: &[u8]) -> Option<String> {
    let id = first.get(TITLE_BYTES - ID..TITLE_BYTES).filter(|_| is_ours(first))?;
    Some(String::from_utf8_lossy(id).trim_end().to_owned())
}

/// Lines as a frame.
pub(crate) fn frame(lines: &[u8]) -> Vec<u8> {
    compress_to_vec(lines, CompressionLevel::Fastest)
}

/// Bytes of lines that a frame may hold, so that whoever reads it need not hold more.
pub(super) const LONGEST_FRAME: usize = 1 << 20;

/// What a compressed file is not.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("byte {0} of it is not where a frame of Zstandard begins, or its frame is damaged")]
    Damaged(u64),
    #[error("it was compressed with a dictionary, which is not at hand; decompress it first")]
    Dictionary,
    #[error("it asks for a window of {0} bytes, more than {WINDOW}; decompress it first")]
    Window(u64),
    #[error("it would become more than {RATIO} times as long, which no journal does")]
    Bomb,
    #[error("a frame of it is damaged: {0}")]
    Content(String),
}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Bytes of the frames that are whole, from the first one on. What follows them was cut short.
///
/// # Errors
/// What the system says; [`FrameError`] in an [`io::Error`].
pub(super) fn whole(reader: impl BufRead) -> io::Result<u64> {
    let mut walk = Walk { reader, at: 0 };
    let mut whole = 0;
    while walk.frame()? {
        whole = walk.at;
    }
    Ok(whole)
}

/// A walk over frames, by what their headers say.
struct Walk<R> {
    reader: R,
    at: u64,
}

impl<R: BufRead> Walk<R> {
    /// Goes behind the next frame; not where it is cut short, or where there is none.
    fn frame(&mut self) -> io::Result<bool> {
        let begins = self.at;
        let damaged = || FrameError::Damaged(begins);
        let mut magic = [0; 4];
        let got = self.some(&mut magic)?;
        if got < 4 {
            let can_be = |whole: &[u8; 4]| magic[..got] == whole[..got];
            return if can_be(&FRAME) || can_be(&OURS) { Ok(false) } else { Err(damaged().into()) };
        }
        if is_skippable(&magic) {
            let Some(length) = self.bytes::<4>()? else { return Ok(false) };
            return self.skip(u64::from(u32::from_le_bytes(length)));
        }
        if magic != FRAME {
            return Err(damaged().into());
        }
        // RFC 8878, 3.1.1.1: sizes of what is left of the header follow from its first byte.
        let Some([descriptor]) = self.bytes::<1>()? else { return Ok(false) };
        let (single, checksum) = (descriptor >> 5 & 1 == 1, descriptor >> 2 & 1 == 1);
        if descriptor & 3 != 0 {
            return Err(FrameError::Dictionary.into());
        }
        if descriptor >> 3 & 1 == 1 {
            return Err(damaged().into());
        }
        let mut window = None;
        if !single {
            let Some([byte]) = self.bytes::<1>()? else { return Ok(false) };
            let base = 1_u64 << (10 + u32::from(byte >> 3));
            window = Some(base + base / 8 * u64::from(byte & 7));
        }
        let sizes = if single { [1, 2, 4, 8] } else { [0, 2, 4, 8] };
        let mut size = [0; 8];
        let count = sizes[usize::from(descriptor >> 6)];
        if self.some(&mut size[..count])? < count {
            return Ok(false);
        }
        let size = u64::from_le_bytes(size) + if count == 2 { 256 } else { 0 };
        let window = window.unwrap_or(size);
        if window > WINDOW {
            return Err(FrameError::Window(window).into());
        }
        loop {
            let Some([a, b, c]) = self.bytes::<3>()? else { return Ok(false) };
            let header = u32::from_le_bytes([a, b, c, 0]);
            let (last, kind, size) = (header & 1 == 1, header >> 1 & 3, header >> 3);
            if kind == 3 || size > BLOCK {
                return Err(damaged().into());
            }
            // A block of one byte that is repeated holds that byte alone.
            if !self.skip(if kind == 1 { 1 } else { u64::from(size) })? {
                return Ok(false);
            }
            if last {
                return self.skip(if checksum { 4 } else { 0 });
            }
        }
    }

    /// As many bytes as there are, up to those asked for.
    fn some(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        while got < bytes.len() {
            match self.reader.read(&mut bytes[got..])? {
                0 => break,
                count => got += count,
            }
        }
        self.at += got as u64;
        Ok(got)
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        Ok((self.some(&mut bytes)? == N).then_some(bytes))
    }

    /// Whether there are so many bytes, which are passed over.
    fn skip(&mut self, count: u64) -> io::Result<bool> {
        let mut left = count;
        while left > 0 {
            let there = self.reader.fill_buf()?.len() as u64;
            if there == 0 {
                return Ok(false);
            }
            let some = there.min(left);
            self.reader.consume(some as usize);
            self.at += some;
            left -= some;
        }
        Ok(true)
    }
}

/// What whole frames hold.
pub(super) struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    /// Whether a frame has begun that is not at its end.
    within: bool,
    /// Bytes that may still be given.
    left: u64,
}

impl<R: BufRead> Frames<R> {
    /// Of a source that has `length` bytes, all of which [`whole`] has found to be frames.
    pub(super) fn new(source: R, length: u64) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW);
        Self { source, decoder, within: false, left: FREE.saturating_add(length.saturating_mul(RATIO)) }
    }

    /// Begins the next frame that holds something; not where there is none.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            let mut magic = [0; 4];
            self.source.read_exact(&mut magic)?;
            if is_skippable(&magic) {
                let mut length = [0; 4];
                self.source.read_exact(&mut length)?;
                let length = u32::from_le_bytes(length).into();
                io::copy(&mut (&mut self.source).take(length), &mut io::sink())?;
                // What nobody reads buys nothing.
                self.left = self.left.saturating_sub(length * RATIO);
                continue;
            }
            self.decoder.reset((&magic[..]).chain(&mut self.source)).map_err(content)?;
            self.within = true;
            return Ok(true);
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.within && !self.begin()? {
                return Ok(0);
            }
            if self.decoder.can_collect() > 0 {
                let got = self.decoder.read(bytes)?;
                self.left = self.left.checked_sub(got as u64).ok_or(FrameError::Bomb)?;
                return Ok(got);
            }
            if !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, one).map_err(content)?;
                continue;
            }
            self.within = false;
            let (said, found) = (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
            if said.is_some() && said != found {
                return Err(FrameError::Content("its checksum is another one".to_owned()).into());
            }
        }
    }
}

fn content(error: impl std::fmt::Display) -> io::Error {
    FrameError::Content(error.to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    fn text(lines: usize) -> Vec<u8> {
        let mut generator = SplitMix64(5);
        let line = |i| format!("{{\"schema\":1,\"trial\":{i},\"surprise\":{}}}\n", generator.positive_unit());
        (0..lines).map(line).collect::<String>().into_bytes()
    }

    fn decompressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let whole = whole(bytes)?;
        let mut text = Vec::new();
        Frames::new(&bytes[..whole as usize], whole).read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn frames_give_what_was_put_into_them_and_a_cut_one_gives_nothing() {
        let parts = [text(1), text(300), Vec::new(), text(9_000)];
        let (mut bytes, mut ends) = (title("ab"), vec![(TITLE_BYTES, 0)]);
        let mut all: Vec<u8> = Vec::new();
        for part in &parts {
            bytes.extend(frame(part));
            all.extend(part);
            ends.push((bytes.len(), all.len()));
        }
        assert_eq!(decompressed(&bytes).expect("frames"), all);
        // Cut anywhere in the first frames, and here and there in the last.
        let cuts = (0..ends[2].0 + 50).chain((ends[2].0 + 50..bytes.len()).step_by(997));
        for cut in cuts {
            let (end, length) = ends.iter().rev().find(|(end, _)| *end <= cut).copied().unwrap_or((0, 0));
            assert_eq!(whole(&bytes[..cut]).expect("frames"), end as u64, "cut at {cut}");
            assert_eq!(decompressed(&bytes[..cut]).expect("frames"), all[..length], "cut at {cut}");
        }
    }

    #[test]
    fn the_first_frame_says_whose_it_is_however_little_of_it_is_there() {
        let id = "dd7a1d98026f25a363391b389011ac3f";
        let ours = title(id);
        assert_eq!((ours.len(), run_of(&ours).as_deref()), (TITLE_BYTES, Some(id)));
        for cut in 1..ours.len() {
            assert!(is_ours(&ours[..cut]) && run_of(&ours[..cut]).is_none());
        }
        assert!(!is_ours(b"") && !is_ours(b"{") && !is_ours(&FRAME) && !is_ours(b"\x50\x2a\x4d\x18"));
        assert!(is_compressed(&ours) && is_compressed(&FRAME) && !is_compressed(b"\x1f\x8b\x08\x00"));
    }

    #[test]
    fn a_byte_that_is_changed_is_noticed() {
        let bytes = [title("ab"), frame(&text(40))].concat();
        let expected = decompressed(&bytes).expect("frames");
        let mut noticed = 0;
        for at in TITLE_BYTES..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x55;
            match decompressed(&changed) {
                // A length that has grown leads behind the end: that frame counts as cut.
                Ok(text) => assert!(text.is_empty() || text == expected, "byte {at}"),
                Err(_) => noticed += 1,
            }
        }
        assert!(noticed > bytes.len() / 2, "{noticed} of {}", bytes.len());
    }

    /// A frame of so many blocks of a repeated byte.
    fn repeated(blocks: usize, window: u8) -> Vec<u8> {
        let mut bytes = [&FRAME[..], &[0, window]].concat();
        for block in 1..=blocks {
            let header = u32::from(block == blocks) | 1 << 1 | BLOCK << 3;
            bytes.extend(&header.to_le_bytes()[..3]);
            bytes.push(b' ');
        }
        bytes
    }

    #[test]
    fn a_bomb_is_met_at_the_door() {
        let error = |bytes: &[u8]| decompressed(bytes).expect_err("a bomb").to_string();
        // 4 bytes become 128 KiB.
        assert_eq!(decompressed(&repeated(8, 0x38)).expect("a frame").len(), 8 * BLOCK as usize);
        assert!(error(&repeated(1_000, 0x38)).contains("250 times"));
        // A window of 2^41 bytes.
        assert!(error(&repeated(1, 0xf8)).contains("window of 2199023255552 bytes"));
        let single = [&FRAME[..], &[0xe0], &u64::MAX.to_le_bytes()[..], &[0, 0, 0]].concat();
        assert!(error(&single).contains("window of"));
        let dictionary = [&FRAME[..], &[1, 0x38, 7]].concat();
        assert!(error(&dictionary).contains("dictionary"));
        for foreign in [&b"my notes"[..], b"\x1f\x8b\x08\x00\x00", b"x"] {
            assert!(error(foreign).contains("byte 0"), "{foreign:?}");
        }
        let behind = [frame(&text(2)), b"and more".to_vec()].concat();
        assert!(error(&behind).contains(&format!("byte {}", frame(&text(2)).len())));
    }
}
