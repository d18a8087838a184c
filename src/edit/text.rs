//! The one-line text form of edits: what is printed parses back to the same edit.

use std::{fmt, str::FromStr};

use super::{Amount, Change, Edit, Family, Random};
use crate::quant::Tensor;

/// A text that is no edit, with the place of the error and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an edit at position {at} ({}): expected {expected}", found(.text, *.at))]
pub struct ParseError {
    /// The whole text.
    pub text: String,
    /// Byte position of what was not understood.
    pub at: usize,
    /// What could have stood there.
    pub expected: &'static str,
}

/// What stands at `at`, for a message.
fn found(text: &str, at: usize) -> String {
    match text.get(at..).unwrap_or("").chars().take(16).collect::<String>() {
        rest if rest.is_empty() => "the end".to_owned(),
        rest => format!("{rest:?}"),
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            return f.write_str("clean");
        }
        for (i, change) in self.changes.iter().enumerate() {
            if i > 0 {
                f.write_str("+")?;
            }
            match *change {
                Change::Shift(shift) => write!(f, "shift:{shift}")?,
                Change::Flip { tensor, row, column, bit } => {
                    write!(f, "flip:{}[{row},{column}].{bit}", tensor.name())?;
                }
                Change::SetCode { row, column, value } => write!(f, "set:weight[{row},{column}]={value}")?,
                Change::AddCode { row, column, amount } => write!(f, "add:weight[{row},{column}]={amount}")?,
                Change::XorWord { row, word, mask } => write!(f, "xor:word[{row},{word}]={mask:#x}")?,
                Change::SetWord { row, word, value } => write!(f, "set:word[{row},{word}]={value:#x}")?,
                Change::Random(Random { tensor, amount, seed }) => {
                    match amount {
                        Amount::Flips(flips) => write!(f, "random:flips={flips}")?,
                        Amount::Rate(rate) => write!(f, "random:rate={rate:e}")?,
                    }
                    write!(f, ",seed={seed}")?;
                    if tensor != Tensor::Weight {
                        write!(f, ",tensor={}", tensor.name())?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Edit {
    /// BLAKE3 of the text form, without making it.
    pub(crate) fn digest(&self) -> blake3::Hash {
        struct Digest(blake3::Hasher);

        impl fmt::Write for Digest {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.update(text.as_bytes());
                Ok(())
            }
        }

        let mut digest = Digest(blake3::Hasher::new());
        fmt::Write::write_fmt(&mut digest, format_args!("{self}")).expect("a digest takes any text");
        digest.0.finalize()
    }
}

impl FromStr for Edit {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut cursor = Cursor { text, at: 0 };
        let mut changes = Vec::new();
        loop {
            if !cursor.take("clean") {
                changes.push(cursor.change()?);
            }
            if cursor.at == text.len() {
                return Ok(Self::new(changes));
            }
            cursor.expect("+", "`+` and another edit, or the end")?;
        }
    }
}

/// A place in a text.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error<T>(&self, expected: &'static str) -> Result<T, ParseError> {
        Err(ParseError { text: self.text.to_owned(), at: self.at, expected })
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn expect(&mut self, word: &str, expected: &'static str) -> Result<(), ParseError> {
        if self.take(word) { Ok(()) } else { self.error(expected) }
    }

    /// The longest run of characters that `wanted` accepts, parsed; the place stays where it fails.
    fn parse<T: FromStr>(
        &mut self,
        wanted: impl Fn(usize, char) -> bool,
        expected: &'static str,
    ) -> Result<T, ParseError> {
        let rest = self.rest();
        let end = rest.char_indices().find(|&(i, c)| !wanted(i, c)).map_or(rest.len(), |(i, _)| i);
        match rest[..end].parse() {
            Ok(value) => {
                self.at += end;
                Ok(value)
            }
            Err(_) => self.error(expected),
        }
    }

    fn natural<T: FromStr>(&mut self, expected: &'static str) -> Result<T, ParseError> {
        self.parse(|_, c| c.is_ascii_digit(), expected)
    }

    fn integer(&mut self, expected: &'static str) -> Result<i64, ParseError> {
        self.parse(|i, c| c.is_ascii_digit() || (i == 0 && c == '-'), expected)
    }

    /// A word in hexadecimal with `0x`, or in decimal.
    fn word(&mut self) -> Result<u32, ParseError> {
        const EXPECTED: &str = "a word of 32 bits, such as 0x80000000";
        if !self.take("0x") {
            return self.natural(EXPECTED);
        }
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        match u32::from_str_radix(&rest[..end], 16) {
            Ok(word) => {
                self.at += end;
                Ok(word)
            }
            Err(_) => self.error(EXPECTED),
        }
    }

    fn tensor(&mut self) -> Option<Tensor> {
        [Tensor::Weight, Tensor::Scales, Tensor::Biases].into_iter().find(|tensor| self.take(tensor.name()))
    }

    /// `[row,column]`.
    fn place(&mut self) -> Result<(usize, usize), ParseError> {
        self.expect("[", "`[`, then row and column")?;
        let row = self.natural("a row")?;
        self.expect(",", "`,`, then the column")?;
        let column = self.natural("a column, a group or a word")?;
        self.expect("]", "`]`")?;
        Ok((row, column))
    }

    fn change(&mut self) -> Result<Change, ParseError> {
        if self.take("shift:") {
            return Ok(Change::Shift(self.integer("a shift, which is an integer of 64 bits")?));
        }
        if self.take("flip:") {
            let Some(tensor) = self.tensor() else { return self.error("`weight`, `scales` or `biases`") };
            let (row, column) = self.place()?;
            self.expect(".", "`.`, then the bit")?;
            return Ok(Change::Flip { tensor, row, column, bit: self.natural("a bit")? });
        }
        if self.take("set:") {
            if self.take("word") {
                let (row, word) = self.place()?;
                self.expect("=", "`=`, then the word")?;
                return Ok(Change::SetWord { row, word, value: self.word()? });
            }
            self.expect("weight", "`weight` or `word`")?;
            let (row, column) = self.place()?;
            self.expect("=", "`=`, then the code")?;
            return Ok(Change::SetCode { row, column, value: self.natural("a code")? });
        }
        if self.take("add:weight") {
            let (row, column) = self.place()?;
            self.expect("=", "`=`, then what is added")?;
            return Ok(Change::AddCode { row, column, amount: self.integer("an integer of 64 bits")? });
        }
        if self.take("xor:word") {
            let (row, word) = self.place()?;
            self.expect("=", "`=`, then the mask")?;
            return Ok(Change::XorWord { row, word, mask: self.word()? });
        }
        if self.take("random:") {
            return self.random();
        }
        self.error("clean, shift:, flip:, set:, add:weight, xor:word or random:")
    }

    fn random(&mut self) -> Result<Change, ParseError> {
        let amount = if self.take("flips=") {
            Amount::Flips(self.natural("a number of flips")?)
        } else {
            self.expect("rate=", "`flips=` or `rate=`")?;
            let start = self.at;
            let rate: f64 =
                self.parse(|_, c| c.is_ascii_digit() || matches!(c, '.' | 'e' | '-'), "a probability, such as 1e-6")?;
            if !(0.0..=1.0).contains(&rate) {
                self.at = start;
                return self.error("a probability, 0 to 1");
            }
            // Minus zero would print as another text than zero.
            Amount::Rate(rate.abs())
        };
        self.expect(",seed=", "`,seed=`")?;
        let seed = self.natural("a seed, which is a natural number of 64 bits")?;
        let mut tensor = Tensor::Weight;
        if self.take(",tensor=") {
            match self.tensor() {
                Some(found) => tensor = found,
                None => return self.error("`weight`, `scales` or `biases`"),
            }
        }
        Ok(Change::Random(Random { tensor, amount, seed }))
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shift => f.write_str("shift"),
            Self::Digit(digit) => write!(f, "digit:{digit}"),
            Self::Flips(seed) => write!(f, "flips:{seed}"),
            Self::Rate(seed) => write!(f, "rate:{seed}"),
        }
    }
}

impl FromStr for Family {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no natural number of 64 bits"));
        match text.split_once(':') {
            None if text == "shift" => Ok(Self::Shift),
            Some(("digit", digit)) => match digit.parse() {
                Ok(digit @ 0..=7) => Ok(Self::Digit(digit)),
                _ => Err(format!("a packed word has the digits 0 to 7, not {digit:?}")),
            },
            Some(("flips", seed)) => Ok(Self::Flips(number(seed)?)),
            Some(("rate", seed)) => Ok(Self::Rate(number(seed)?)),
            _ => Err(format!("{text:?} is no family: shift, digit:K, flips:SEED or rate:SEED")),
        }
    }
}
