//! The header of one safetensors file: eight bytes of length, that much JSON, then the data.
//!
//! The rules are those of the `safetensors` crate, and a test holds both against each other. They
//! are checked here because that crate keeps the last of two tensors of one name, does not say which
//! tensor has the wrong size, and buffers a hostile header some sixteen times over.

use std::{fmt, ops::Range};

use safetensors::Dtype;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{json::shortened, tensors::MOST_TENSORS};

/// Longest header that the format allows.
const LONGEST: u64 = 100_000_000;
/// More dimensions than any tensor of a checkpoint has. A bound, so that a shape costs no memory.
const MOST_DIMENSIONS: usize = 8;

/// A rule of the safetensors format that a file breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer than the eight bytes that state the header's length.
    #[error("has {len} bytes, too few for a safetensors file; fetch it again")]
    TooShort {
        /// Bytes of the file.
        len: usize,
    },
    /// The header would reach beyond the file.
    #[error("states a header of {length} bytes, but {left} follow; fetch it again if it was cut short")]
    Length {
        /// Bytes of the header, as stated.
        length: u64,
        /// Bytes there are.
        left: usize,
    },
    /// The header is longer than the format allows.
    #[error("states a header of {length} bytes, more than the {LONGEST} that the format allows")]
    TooLong {
        /// Bytes of the header, as stated.
        length: u64,
    },
    /// The header is not an object of JSON.
    #[error("has a header that cannot be read: {0}")]
    Json(String),
    /// More tensors than any model has.
    #[error("has a header of more than {MOST_TENSORS} tensors; no model has so many")]
    Many,
    /// A tensor's entry in the header is not one.
    #[error("has a header that cannot be read at tensor `{tensor}`: {message}")]
    Entry {
        /// The tensor.
        tensor: String,
        /// What is wrong and where.
        message: String,
    },
    /// A name that occurs twice.
    #[error("holds tensor `{tensor}` twice")]
    Duplicate {
        /// The tensor.
        tensor: String,
    },
    /// A tensor's data are not as long as its shape asks for.
    #[error("gives tensor `{tensor}` the bytes {begin}..{end}, which do not hold {dtype} {shape:?}")]
    Extent {
        /// The tensor.
        tensor: String,
        /// Its element type, as the format writes it.
        dtype: String,
        /// Its shape.
        shape: Vec<u64>,
        /// First byte, from the start of the data.
        begin: u64,
        /// Byte after the last.
        end: u64,
    },
    /// Two tensors share bytes.
    #[error("lets the data of tensor `{tensor}` overlap those of `{other}`")]
    Overlap {
        /// The tensor that begins later.
        tensor: String,
        /// The one that it begins in.
        other: String,
    },
    /// Bytes that belong to no tensor.
    #[error("has {bytes} bytes before tensor `{tensor}` that belong to no tensor")]
    Gap {
        /// The tensor after the gap.
        tensor: String,
        /// Length of the gap.
        bytes: u64,
    },
    /// The file ends before its data do.
    #[error("ends within tensor `{tensor}`: {missing} bytes are missing; fetch it again")]
    Truncated {
        /// The first tensor that is not there in full.
        tensor: String,
        /// Bytes missing up to the end of all data.
        missing: u64,
    },
    /// The file goes on after its data.
    #[error("has {bytes} bytes after the last tensor")]
    Trailing {
        /// Bytes too many.
        bytes: u64,
    },
}

/// One tensor of a file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    /// Where the data lie in the file.
    pub(super) range: Range<usize>,
}

/// The tensors of a safetensors file, in the order of their data. Reads the header only.
pub(super) fn read(file: &[u8]) -> Result<Vec<Entry>, HeaderError> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(HeaderError::TooShort { len: file.len() });
    };
    let length = u64::from_le_bytes(*length);
    if length > rest.len() as u64 {
        return Err(HeaderError::Length { length, left: rest.len() });
    }
    if length > LONGEST {
        return Err(HeaderError::TooLong { length });
    }
    let (header, data) = rest.split_at(length as usize);
    let mut raw = parse(header)?;

    if let Some((tensor, entry)) = raw.iter().find(|(_, entry)| !entry.fits_its_shape()) {
        return Err(HeaderError::Extent {
            tensor: shortened(tensor),
            dtype: entry.dtype.to_string(),
            shape: entry.shape.clone(),
            begin: entry.data_offsets.0,
            end: entry.data_offsets.1,
        });
    }
    raw.sort_by(|(a_name, a), (b_name, b)| (a.data_offsets, a_name).cmp(&(b.data_offsets, b_name)));
    let end = check_adjacent(&raw)?;
    let stored = data.len() as u64;
    if end > stored {
        let first = raw.iter().find(|(_, entry)| entry.data_offsets.1 > stored);
        let tensor = first.map_or_else(String::new, |(name, _)| shortened(name));
        return Err(HeaderError::Truncated { tensor, missing: end - stored });
    }
    if end < stored {
        return Err(HeaderError::Trailing { bytes: stored - end });
    }
    let start = file.len() - data.len();
    let in_file = |(name, RawEntry { dtype, shape, data_offsets: (begin, end) }): (String, RawEntry)| Entry {
        name,
        dtype,
        shape,
        range: start + begin as usize..start + end as usize,
    };
    Ok(raw.into_iter().map(in_file).collect())
}

/// Checks that sorted entries follow each other without gap or overlap; gives the end of the last.
fn check_adjacent(raw: &[(String, RawEntry)]) -> Result<u64, HeaderError> {
    let (mut reached, mut previous) = (0, "");
    for (name, RawEntry { data_offsets: (begin, end), .. }) in raw {
        if *begin < reached {
            return Err(HeaderError::Overlap { tensor: shortened(name), other: shortened(previous) });
        }
        if *begin > reached {
            return Err(HeaderError::Gap { tensor: shortened(name), bytes: begin - reached });
        }
        (reached, previous) = (*end, name);
    }
    Ok(reached)
}

fn parse(header: &[u8]) -> Result<Vec<(String, RawEntry)>, HeaderError> {
    let text = std::str::from_utf8(header).map_err(|error| HeaderError::Json(shortened(&error.to_string())))?;
    let mut json = serde_json::Deserializer::from_str(text);
    let mut entries = Entries::default();
    let read = json.deserialize_map(&mut entries).and_then(|()| json.end());
    if entries.read.len() > MOST_TENSORS {
        return Err(HeaderError::Many);
    }
    if let Err(error) = read {
        let message = shortened(&error.to_string());
        return Err(match entries.reading {
            Some(tensor) => HeaderError::Entry { tensor: shortened(&tensor), message },
            None => HeaderError::Json(message),
        });
    }
    let mut names: Vec<&str> = entries.read.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(HeaderError::Duplicate { tensor: shortened(twice[0]) });
    }
    Ok(entries.read)
}

#[derive(Debug, serde::Deserialize)]
struct RawEntry {
    dtype: Dtype,
    #[serde(deserialize_with = "shape")]
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl RawEntry {
    fn fits_its_shape(&self) -> bool {
        let elements = self.shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n));
        let bits = elements.and_then(|n| n.checked_mul(self.dtype.bitsize() as u64));
        let bytes = self.data_offsets.1.checked_sub(self.data_offsets.0);
        bytes.is_some() && bits == bytes.and_then(|n| n.checked_mul(8))
    }
}

fn shape<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    struct Shape;
    impl<'de> Visitor<'de> for Shape {
        type Value = Vec<u64>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MOST_DIMENSIONS} sizes")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u64>, A::Error> {
            let mut shape = Vec::new();
            while let Some(size) = seq.next_element()? {
                if shape.len() == MOST_DIMENSIONS {
                    return Err(A::Error::invalid_length(MOST_DIMENSIONS + 1, &self));
                }
                shape.push(size);
            }
            Ok(shape)
        }
    }
    deserializer.deserialize_seq(Shape)
}

/// The entries read so far, and the one being read: what an error happened in.
#[derive(Debug, Default)]
struct Entries {
    read: Vec<(String, RawEntry)>,
    reading: Option<String>,
}

impl<'de> Visitor<'de> for &mut Entries {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                if has_metadata {
                    return Err(A::Error::duplicate_field("__metadata__"));
                }
                has_metadata = true;
                // Texts by name; nothing in it changes the model.
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            self.reading = Some(name);
            let entry = map.next_value()?;
            self.read.extend(self.reading.take().map(|name| (name, entry)));
            if self.read.len() > MOST_TENSORS {
                return Err(A::Error::custom("too many tensors"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::BTreeMap};

    use proptest::{prelude::*, test_runner::TestRunner};
    use safetensors::SafeTensors;

    use super::*;
    use crate::testing::fixture::raw_safetensors;

    /// Entries that mostly lie one after the other, with a false step here and there; and how many
    /// bytes of data are too few or too many.
    fn files() -> impl Strategy<Value = Vec<u8>> {
        let dtype = prop::sample::select(vec![("F16", 2u64), ("U32", 4), ("I64", 8), ("BOOL", 1), ("F32", 4)]);
        let step = prop_oneof![12 => Just(0i64), 1 => -4i64..4];
        let entry = (dtype, prop::collection::vec(0u64..4, 0..4), step.clone(), step.clone());
        (prop::collection::vec(entry, 0..5).prop_shuffle(), step, any::<bool>()).prop_map(
            |(entries, extra, reverse)| {
                let mut end = 0u64;
                let mut texts = Vec::new();
                for (i, ((dtype, size), shape, gap, stretch)) in entries.into_iter().enumerate() {
                    let begin = end.saturating_add_signed(gap);
                    end = (begin + size * shape.iter().product::<u64>()).saturating_add_signed(stretch);
                    texts.push(format!(
                        r#""{i}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
                    ));
                }
                if reverse {
                    texts.reverse();
                }
                let data = vec![0; end.saturating_add_signed(extra) as usize];
                raw_safetensors(&format!("{{{}}}", texts.join(",")), &data)
            },
        )
    }

    #[test]
    fn exactly_the_files_that_the_safetensors_crate_accepts_are_accepted_and_read_alike() {
        let (accepted, refused) = (Cell::new(0), Cell::new(0));
        let cases = 4000;
        let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
        let run = TestRunner::new(config).run(&files(), |file| {
            match (read(&file), SafeTensors::deserialize(&file)) {
                (Ok(ours), Ok(theirs)) => {
                    accepted.set(accepted.get() + 1);
                    prop_assert_eq!(ours.len(), theirs.len());
                    let theirs: BTreeMap<&str, _> = theirs.iter().collect();
                    for Entry { name, dtype, shape, range } in ours {
                        let their = &theirs[name.as_str()];
                        prop_assert_eq!(dtype, their.dtype());
                        prop_assert!(shape.iter().map(|&n| n as usize).eq(their.shape().iter().copied()));
                        prop_assert_eq!(range.start, their.data().as_ptr() as usize - file.as_ptr() as usize);
                        prop_assert_eq!(range.len(), their.data().len());
                    }
                }
                (Err(_), Err(_)) => refused.set(refused.get() + 1),
                (ours, theirs) => prop_assert!(false, "we say {:?}, the crate says {:?}", ours, theirs.map(|_| ())),
            }
            Ok(())
        });
        run.unwrap();
        assert!(accepted.get() > cases / 10 && refused.get() > cases / 10, "{accepted:?} and {refused:?}");
    }
}
