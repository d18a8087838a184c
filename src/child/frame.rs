//! Frames: eight bytes of length, little-endian, then that many bytes.

use std::io::{self, ErrorKind, Read, Write};

/// Up to this length a frame is copied behind its length, so that one call writes both.
const SHORT: usize = 1 << 16;

/// Writes one frame, and flushes.
///
/// # Errors
/// What `to` says.
pub(crate) fn write(to: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let length = (frame.len() as u64).to_le_bytes();
    if frame.len() <= SHORT {
        to.write_all(&[&length[..], frame].concat())?;
    } else {
        to.write_all(&length)?;
        to.write_all(frame)?;
    }
    to.flush()
}

/// Reads one frame of at most `longest` bytes; none where `from` ends before another begins.
///
/// # Errors
/// What `from` says; [`ErrorKind::UnexpectedEof`], where it ends within a frame; [`TooLong`], within an error of
/// [`ErrorKind::InvalidData`], where a longer frame is announced, of which nothing is then read.
pub(crate) fn read(from: &mut impl Read, longest: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 8];
    let mut had = 0;
    while had < length.len() {
        match from.read(&mut length[had..]) {
            Ok(0) if had == 0 => return Ok(None),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => had += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let len = u64::from_le_bytes(length);
    if len > longest as u64 {
        return Err(io::Error::new(ErrorKind::InvalidData, TooLong { len, limit: longest }));
    }
    let mut frame = Vec::with_capacity(len as usize);
    from.take(len).read_to_end(&mut frame)?;
    if frame.len() as u64 == len { Ok(Some(frame)) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// A frame that is longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {len} bytes, more than the {limit} that it may have")]
pub(crate) struct TooLong {
    /// Bytes announced.
    pub len: u64,
    /// Bytes allowed.
    pub limit: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_a_torn_or_long_one_is_an_error() {
        let frames = [vec![], vec![7], vec![1; SHORT], vec![2; SHORT + 1]];
        let mut stream = Vec::new();
        frames.iter().for_each(|frame| write(&mut stream, frame).expect("memory"));
        let mut rest = &stream[..];
        for frame in &frames {
            assert_eq!(read(&mut rest, SHORT + 1).expect("whole").as_ref(), Some(frame));
        }
        assert_eq!(read(&mut rest, 0).expect("the end"), None);
        for cut in [1, 7, 9, 16] {
            let mut torn = &stream[stream.len() - SHORT - 9..][..cut];
            assert_eq!(read(&mut torn, usize::MAX).expect_err("torn").kind(), ErrorKind::UnexpectedEof, "{cut}");
        }
        let error = read(&mut &u64::MAX.to_le_bytes()[..], 10).expect_err("long");
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TooLong>());
        assert_eq!(inner, Some(&TooLong { len: u64::MAX, limit: 10 }));
    }
}
