//! Lists of values of a family, as `sweep --values` takes them.
//!
//! ```text
//! 0,1,5                one after the other
//! 1_000_000..1_000_010 every integer from one to the other, both included
//! 2^0..2^31            powers of one base, exponents running
//! 1..1000:log          doubling: 1, 2, 4, ... 512, and the end itself
//! 1e-6,1e-5            rates, which alone have a point or an exponent
//! 1e-6..1e-3:log       rates, doubling
//! @FILE                lists from a file, one or more a line; `#` begins a comment
//! ```
//!
//! Integers may be negative, hexadecimal (`0xff`) and have underscores. A value that occurs twice is kept once, where
//! it stands first.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::edit::Value;

/// Values that a list may have at most.
pub(super) const LIMIT: usize = 1_000_000;

/// Bytes of a file of values that are read at most.
const FILE_BYTES: u64 = 64 << 20;

/// A list that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ValuesError {
    /// One of its items is wrong.
    #[error("{place}{item:?} {problem}")]
    Item {
        /// File and line, or nothing.
        place: String,
        /// The item.
        item: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// A file that cannot be read.
    #[error("cannot read the values of {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is wrong with an item of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Problem {
    /// It is neither a value nor a range.
    #[error(
        "is no value: expected an integer of 64 bits, a rate such as 1e-6, a power such as 2^31, or a range such as \
         0..15, 2^0..2^31 or 1..1000:log"
    )]
    Value,
    /// It is no value, where one is asked for.
    #[error("is no value: expected an integer of 64 bits, a power such as 2^31 or a rate such as 1e-6")]
    Single,
    /// The end lies before the start.
    #[error("runs backwards; give the smaller end first")]
    Backwards,
    /// The ends do not belong together.
    #[error("needs two integers, two rates or two powers of one base as its ends")]
    Ends,
    /// A range of rates does not say how to step between its ends.
    #[error("is a range of rates, which run by doubling only; add :log")]
    Rates,
    /// Doubling that never leaves 0, or crosses it.
    #[error("doubles, so both its ends must be above 0, or both below; 0 may stand beside it, as in 0,1..8:log")]
    Doubling,
    /// The list has more values than `LIMIT`.
    #[error("brings the list to more than {LIMIT} values")]
    TooMany,
    /// It names a file inside of a file.
    #[error("stands in a file of values, which holds values, not files")]
    Nested,
}

/// Reads a list; see the module's documentation. An empty list is empty.
///
/// # Errors
/// [`ValuesError`].
pub(super) fn values(list: &str) -> Result<Vec<Value>, ValuesError> {
    let mut values = Values::default();
    for item in items(list) {
        match item.strip_prefix('@') {
            Some(path) => values.file(Path::new(path))?,
            None => values.item("", item)?,
        }
    }
    Ok(values.found)
}

/// Reads one value: an integer, a power or a rate.
///
/// # Errors
/// [`ValuesError::Item`].
pub(super) fn value(text: &str) -> Result<Value, ValuesError> {
    let wrong = || ValuesError::Item { place: String::new(), item: text.to_owned(), problem: Problem::Single };
    End::parse(text).and_then(End::value).ok_or_else(wrong)
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// One end of a range, or a value alone.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Integer(i64),
    Rate(f64),
    /// `sign * base^exponent`.
    Power {
        negative: bool,
        base: u32,
        exponent: u32,
    },
}

impl End {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        // A second sign is none of ours, though Rust's parsers would take it.
        if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return None;
        }
        let plain = digits.replace('_', "");
        if let Some((base, exponent)) = plain.split_once('^') {
            let end = Self::Power { negative, base: base.parse().ok()?, exponent: natural(exponent)? };
            return end.value().map(|_| end);
        }
        if let Some(hexadecimal) = plain.strip_prefix("0x") {
            // Without a sign of its own.
            hexadecimal.chars().next().filter(char::is_ascii_hexdigit)?;
            return signed(negative, u64::from_str_radix(hexadecimal, 16).ok()?).map(Self::Integer);
        }
        if plain.bytes().all(|c| c.is_ascii_digit()) {
            return signed(negative, plain.parse().ok()?).map(Self::Integer);
        }
        // Digits, a point and an exponent: no `inf`, no `nan`.
        let rate: f64 = plain
            .bytes()
            .all(|c| matches!(c, b'0'..=b'9' | b'.' | b'e' | b'E' | b'-' | b'+'))
            .then(|| plain.parse().ok())??;
        (rate.is_finite() && !(negative && rate > 0.0)).then_some(Self::Rate(rate))
    }

    fn value(self) -> Option<Value> {
        match self {
            Self::Integer(value) => Some(Value::Integer(value)),
            Self::Rate(rate) => Some(Value::Rate(rate)),
            Self::Power { negative, base, exponent } => {
                signed(negative, u64::from(base).checked_pow(exponent)?).map(Value::Integer)
            }
        }
    }
}

fn natural(text: &str) -> Option<u32> {
    text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok())?
}

fn signed(negative: bool, magnitude: u64) -> Option<i64> {
    if negative { 0_i64.checked_sub_unsigned(magnitude) } else { magnitude.try_into().ok() }
}

#[derive(Default)]
struct Values {
    found: Vec<Value>,
    seen: HashSet<(bool, u64)>,
}

impl Values {
    /// Adds a value to the list, unless the list has it already.
    fn push(&mut self, value: Value) -> Result<(), Problem> {
        let key = match value {
            Value::Integer(value) => (false, value as u64),
            Value::Rate(rate) => (true, rate.to_bits()),
        };
        if self.seen.contains(&key) {
            return Ok(());
        }
        if self.found.len() == LIMIT {
            return Err(Problem::TooMany);
        }
        self.seen.insert(key);
        self.found.push(value);
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), ValuesError> {
        let failed = |source| ValuesError::File { path: path.to_owned(), source };
        let mut text = String::new();
        // One byte more than allowed tells a file that is too long from one that is not.
        let read =
            File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_string(&mut text)).map_err(failed)?;
        if read as u64 > FILE_BYTES {
            return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 64 MiB")));
        }
        // The mark of UTF-8 that some editors begin a file with.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        for (number, line) in text.lines().enumerate() {
            let place = format!("{}, line {}: ", path.display(), number + 1);
            let line = line.split('#').next().unwrap_or_default();
            for item in line.split_whitespace().flat_map(items) {
                self.item(&place, item)?;
            }
        }
        Ok(())
    }

    fn item(&mut self, place: &str, item: &str) -> Result<(), ValuesError> {
        self.take(item).map_err(|problem| ValuesError::Item { place: place.to_owned(), item: item.to_owned(), problem })
    }

    fn take(&mut self, item: &str) -> Result<(), Problem> {
        if item.starts_with('@') {
            return Err(Problem::Nested);
        }
        let (range, log) = item.strip_suffix(":log").map_or((item, false), |range| (range, true));
        let Some((from, to)) = range.split_once("..") else {
            let value = End::parse(range).and_then(End::value).filter(|_| !log);
            return self.push_all([value.ok_or(Problem::Value)?]);
        };
        match (End::parse(from).ok_or(Problem::Value)?, End::parse(to).ok_or(Problem::Value)?) {
            (End::Integer(from), End::Integer(to)) if log => {
                if from == 0 || from.signum() != to.signum() {
                    return Err(Problem::Doubling);
                }
                if from.unsigned_abs() > to.unsigned_abs() {
                    return Err(Problem::Backwards);
                }
                let doubled = std::iter::successors(Some(from), |value| value.checked_mul(2));
                let before = doubled.take_while(|value| value.unsigned_abs() < to.unsigned_abs());
                self.push_all(before.chain([to]).map(Value::Integer))
            }
            (End::Integer(from), End::Integer(to)) if from <= to => self.push_all((from..=to).map(Value::Integer)),
            (End::Rate(from), End::Rate(to)) if from <= to => {
                if !log {
                    return Err(Problem::Rates);
                }
                if from == 0.0 {
                    return Err(Problem::Doubling);
                }
                let doubled = std::iter::successors(Some(from), |rate| Some(rate * 2.0));
                self.push_all(doubled.take_while(|&rate| rate < to).chain([to]).map(Value::Rate))
            }
            (
                End::Power { negative, base, exponent: from },
                End::Power { negative: as_negative, base: same, exponent: to },
            ) if (negative, base) == (as_negative, same) && from <= to => {
                // 0 and 1 have powers beyond every exponent, all the same.
                let to = if base < 2 { to.min(from.saturating_add(1)) } else { to };
                self.push_all((from..=to).filter_map(|exponent| End::Power { negative, base, exponent }.value()))
            }
            (End::Integer(_), End::Integer(_)) | (End::Rate(_), End::Rate(_)) => Err(Problem::Backwards),
            (End::Power { negative, base, .. }, End::Power { negative: as_negative, base: same, .. })
                if (negative, base) == (as_negative, same) =>
            {
                Err(Problem::Backwards)
            }
            _ => Err(Problem::Ends),
        }
    }

    fn push_all(&mut self, values: impl IntoIterator<Item = Value>) -> Result<(), Problem> {
        // Ends at the first value without room, however many the range has.
        values.into_iter().try_for_each(|value| self.push(value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn integers(list: &str) -> Vec<i64> {
        let integer = |value| match value {
            Value::Integer(value) => value,
            Value::Rate(rate) => panic!("{rate} is a rate"),
        };
        values(list).unwrap_or_else(|error| panic!("{error}")).into_iter().map(integer).collect()
    }

    fn rates(list: &str) -> Vec<f64> {
        let rate = |value| match value {
            Value::Rate(rate) => rate,
            Value::Integer(value) => panic!("{value} is an integer"),
        };
        values(list).unwrap_or_else(|error| panic!("{error}")).into_iter().map(rate).collect()
    }

    #[track_caller]
    fn problem(list: &str) -> Problem {
        match values(list) {
            Err(ValuesError::Item { problem, .. }) => problem,
            other => panic!("{list}: {other:?}"),
        }
    }

    #[test]
    fn integers_stand_alone_and_in_ranges_with_both_ends() {
        assert_eq!(integers("0,1,5"), [0, 1, 5]);
        assert_eq!(integers(" -5 ,, 1_000, 0xff,-0x10,"), [-5, 1000, 255, -16]);
        assert_eq!(integers("1000000..1000003"), [1_000_000, 1_000_001, 1_000_002, 1_000_003]);
        assert_eq!(integers("-2..2"), [-2, -1, 0, 1, 2]);
        assert_eq!(integers("7..7"), [7]);
        let top = integers("9223372036854775806..9223372036854775807,-9223372036854775808");
        assert_eq!(top, [i64::MAX - 1, i64::MAX, i64::MIN]);
        assert!(integers("").is_empty());
        assert!(integers(" , ").is_empty());
    }

    #[test]
    fn powers_run_by_their_exponents() {
        let powers: Vec<i64> = (0..=31).map(|exponent| 1 << exponent).collect();
        assert_eq!(integers("2^0..2^31"), powers);
        assert_eq!(integers("2^0..2^31:log"), powers);
        assert_eq!(integers("16^0..16^3,10^2"), [1, 16, 256, 4096, 100]);
        assert_eq!(integers("-2^0..-2^2,-2^63,2^62"), [-1, -2, -4, i64::MIN, 1 << 62]);
        assert_eq!(integers("1^0..1^4000000000,0^0..0^4294967295"), [1, 0]);
    }

    #[test]
    fn doubling_ends_at_its_end() {
        assert_eq!(integers("1..1000:log"), [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]);
        assert_eq!(integers("3..24:log"), [3, 6, 12, 24]);
        assert_eq!(integers("-1..-5:log"), [-1, -2, -4, -5]);
        assert_eq!(integers("5..5:log"), [5]);
        assert_eq!(integers("1..9223372036854775807:log").len(), 64);
        assert_eq!(integers("-1..-9223372036854775808:log").len(), 64);
        assert_eq!(rates("1e-6..5e-6:log"), [1e-6, 2e-6, 4e-6, 5e-6]);
    }

    #[test]
    fn rates_have_a_point_or_an_exponent() {
        assert_eq!(rates("1e-6,0.5,.25,1E-3,0.0,1.0"), [1e-6, 0.5, 0.25, 1e-3, 0.0, 1.0]);
        assert_eq!(values("0,1e-6").expect("both"), [Value::Integer(0), Value::Rate(1e-6)]);
    }

    #[test]
    fn a_value_is_kept_once_where_it_stands_first() {
        assert_eq!(integers("5,0..6,5,2^0..2^3"), [5, 0, 1, 2, 3, 4, 6, 8]);
    }

    #[test]
    fn what_is_no_value_is_refused_with_what_is_wrong() {
        for list in [
            "x",
            "1,two",
            "--1",
            "+1",
            "1..",
            "..1",
            "5:log",
            "2^64",
            "2^",
            "^3",
            "2^-1",
            "9223372036854775808",
            "0x",
            "0x+1",
            "0xg",
            "inf",
            "nan",
            "-1e-6",
            "1e999",
            "1..3:lin",
            "1 2",
            "-",
            "²",
            "1e",
            "@",
            "2^1..2^64",
        ] {
            let expected = if list == "@" { None } else { Some(Problem::Value) };
            match (values(list), expected) {
                (Err(ValuesError::Item { problem, .. }), Some(expected)) => assert_eq!(problem, expected, "{list}"),
                (Err(ValuesError::File { .. }), None) => {}
                (other, _) => panic!("{list}: {other:?}"),
            }
        }
        assert_eq!(problem("5..1"), Problem::Backwards);
        assert_eq!(problem("2^5..2^1"), Problem::Backwards);
        assert_eq!(problem("8..1:log"), Problem::Backwards);
        assert_eq!(problem("-8..-1:log"), Problem::Backwards);
        assert_eq!(problem("1e-3..1e-6:log"), Problem::Backwards);
        assert_eq!(problem("2^1..3^5"), Problem::Ends);
        assert_eq!(problem("1..2^5"), Problem::Ends);
        assert_eq!(problem("1...3"), Problem::Ends);
        assert_eq!(problem("0..1e-3:log"), Problem::Ends);
        assert_eq!(problem("1e-6..1e-3"), Problem::Rates);
        assert_eq!(problem("0..8:log"), Problem::Doubling);
        assert_eq!(problem("-8..8:log"), Problem::Doubling);
        assert_eq!(problem("0.0..1.0:log"), Problem::Doubling);
        let error = values("0,one").expect_err("no value").to_string();
        assert!(error.starts_with("\"one\" is no value: expected"), "{error}");
    }

    #[test]
    fn no_list_grows_beyond_its_limit() {
        assert_eq!(integers("1..1000000").len(), LIMIT);
        assert_eq!(problem("0..1000000"), Problem::TooMany);
        assert_eq!(problem("-9223372036854775808..9223372036854775807"), Problem::TooMany);
        assert_eq!(problem("1..1000000,5,0"), Problem::TooMany);
        assert_eq!(integers("1..1000000,5..20").len(), LIMIT);
    }

    #[test]
    fn a_file_holds_lists_and_comments_and_its_errors_name_the_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("values.txt");
        let list = format!("7,@{}", path.display());
        std::fs::write(&path, "# shifts\n0,1 5 # these\n\n2^4..2^6,\r\n-3..-2").expect("a file");
        assert_eq!(integers(&list), [7, 0, 1, 5, 16, 32, 64, -3, -2]);
        std::fs::write(&path, "1\n2,three").expect("a file");
        let error = values(&list).expect_err("no value").to_string();
        assert!(error.contains("values.txt, line 2: \"three\" is no value"), "{error}");
        std::fs::write(&path, format!("@{}", path.display())).expect("a file");
        assert_eq!(problem(&list), Problem::Nested);
        std::fs::write(&path, b"\xff").expect("a file");
        assert!(matches!(values(&list), Err(ValuesError::File { .. })));
        assert!(matches!(values("@/no/such/file"), Err(ValuesError::File { .. })));
    }

    proptest! {
        #[test]
        fn a_list_of_integers_is_those_integers(list in prop::collection::hash_set(any::<i64>(), 0..50)) {
            let list: Vec<i64> = list.into_iter().collect();
            let text = list.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
            prop_assert_eq!(integers(&text), list);
        }

        #[test]
        fn any_text_is_a_list_or_an_error(text in "[-0-9a-fx^._:,log# ]{0,24}") {
            // A file that happens to be there is none of this test's.
            if let Ok(found) = values(&text) {
                prop_assert!(found.len() <= LIMIT);
            }
        }
    }
}
