//! Heads as values, and what edits mean for them.
//!
//! [`SmallHead`] is a head with its bytes, which goes into JSON and back. [`Plain`] is a head taken apart into
//! numbers, on which each change is done as its contract states it and each weight computed from its formula, with
//! nothing shared with the code under test: the specification that the oracles hold everything else against.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::{Bytes, Part, Quantized},
    edit::{Change, Edit, Tensor},
    head::Head,
    quant::{Bits, FloatType, Layout, MatrixRef},
    team::Team,
};

/// Weight, scales and biases, as they lie in a checkpoint.
pub type Parts = [Vec<u8>; 3];

/// The three parts of a matrix, copied.
pub fn parts_of(matrix: &MatrixRef<'_>) -> Parts {
    [matrix.weight(), matrix.scales(), matrix.biases()].map(<[u8]>::to_vec)
}

/// A team of one or two threads that all oracles share: starting one costs more than most of their cases.
pub(super) fn team(threads: usize) -> &'static Arc<Team> {
    static TEAMS: [OnceLock<Arc<Team>>; 2] = [OnceLock::new(), OnceLock::new()];
    let threads = threads.clamp(1, TEAMS.len());
    TEAMS[threads - 1].get_or_init(|| Arc::new(Team::new(threads)))
}

/// `value`, rounded to `float_type`, little-endian.
pub fn encode(float_type: FloatType, value: f32) -> Vec<u8> {
    match float_type {
        FloatType::F16 => half::f16::from_f32(value).to_le_bytes().to_vec(),
        FloatType::Bf16 => half::bf16::from_f32(value).to_le_bytes().to_vec(),
        FloatType::F32 => value.to_le_bytes().to_vec(),
    }
}

/// A head with its bytes. In JSON the rows are in hexadecimal, as their bytes lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct SmallHead {
    /// Shape and format.
    pub layout: Layout,
    /// As many bytes as the layout asks for.
    pub parts: Parts,
}

impl SmallHead {
    /// Bytes that are all `fill`, or drawn from `seed`.
    pub fn new(layout: Layout, fill: Option<u8>, seed: u64) -> Self {
        let mut stream = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        let mut part = |row_bytes: usize| {
            let mut bytes = vec![fill.unwrap_or(0); layout.rows() * row_bytes];
            if fill.is_none() {
                stream.fill(&mut bytes);
            }
            bytes
        };
        let parts = [layout.weight_row_bytes(), layout.scale_row_bytes(), layout.scale_row_bytes()].map(&mut part);
        Self { layout, parts }
    }

    /// As kernels and edits see it.
    ///
    /// # Panics
    /// If a part is not as long as the layout asks for.
    pub fn view(&self) -> MatrixRef<'_> {
        let [weight, scales, biases] = &self.parts;
        MatrixRef::new(self.layout, weight, scales, biases).expect("parts as long as the layout asks for")
    }

    /// As a checkpoint holds it.
    ///
    /// # Panics
    /// If a part is not as long as the layout asks for.
    pub fn quantized(&self) -> Quantized {
        let [weight, scales, biases] = self.parts.clone().map(|bytes| Part { bytes: Bytes::new(bytes), origin: None });
        Quantized::new(self.layout, weight, scales, biases).expect("parts as long as the layout asks for")
    }

    /// A copy that can be written, by one or two threads.
    ///
    /// # Panics
    /// If a part is not as long as the layout asks for.
    pub fn head(&self, threads: usize) -> Head {
        Head::private(&self.quantized(), Arc::clone(team(threads))).expect("memory is always mapped")
    }

    /// The bytes after writing `edit` in place.
    ///
    /// # Panics
    /// If `edit` does not fit.
    pub fn written(&self, edit: &Edit) -> Parts {
        let mut head = self.head(1);
        parts_of(&head.apply(edit).expect("it fits").view())
    }

    /// The bytes that the plan of `edit` stands for: rows that it replaces, the others shifted.
    ///
    /// # Panics
    /// If `edit` does not fit.
    pub fn planned(&self, edit: &Edit) -> Parts {
        let plan = edit.plan(&self.view()).expect("it fits");
        let mut parts = Parts::default();
        for row in 0..self.layout.rows() {
            let of_row = match plan.rows.get(&row) {
                Some(patch) => parts_of(&patch.view(&self.layout)),
                None => {
                    let clean = self.view().row(row);
                    let word = |word| clean.word(0, word).wrapping_sub(plan.shift).to_le_bytes();
                    let weight = (0..self.layout.words_per_row()).flat_map(word).collect();
                    [weight, clean.scales().to_vec(), clean.biases().to_vec()]
                }
            };
            for (part, row) in parts.iter_mut().zip(of_row) {
                part.extend(row);
            }
        }
        parts
    }
}

/// A [`SmallHead`] in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    cols: usize,
    bits: u64,
    group_size: usize,
    scale_type: String,
    weight: Vec<String>,
    scales: Vec<String>,
    biases: Vec<String>,
}

const SCALE_TYPES: [(&str, FloatType); 3] =
    [("float16", FloatType::F16), ("bfloat16", FloatType::Bf16), ("float32", FloatType::F32)];

impl From<SmallHead> for Stored {
    fn from(head: SmallHead) -> Self {
        let layout = &head.layout;
        let rows = |part: usize, row_bytes: usize| head.parts[part].chunks(row_bytes).map(hex).collect();
        let name = SCALE_TYPES.iter().find(|(_, known)| *known == layout.scale_type()).expect("all are listed").0;
        Self {
            cols: layout.cols(),
            bits: layout.bits().get() as u64,
            group_size: layout.group_size(),
            scale_type: name.to_owned(),
            weight: rows(0, layout.weight_row_bytes()),
            scales: rows(1, layout.scale_row_bytes()),
            biases: rows(2, layout.scale_row_bytes()),
        }
    }
}

impl TryFrom<Stored> for SmallHead {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        let bits = Bits::new(stored.bits).ok_or_else(|| format!("no codes of {} bits", stored.bits))?;
        let known = SCALE_TYPES.iter().find(|(name, _)| *name == stored.scale_type);
        let (_, scale_type) = known.ok_or_else(|| format!("no scale_type {:?}", stored.scale_type))?;
        let layout = Layout::new(stored.weight.len(), stored.cols, bits, stored.group_size, *scale_type)
            .map_err(|error| error.to_string())?;
        let part = |rows: Vec<String>| -> Result<Vec<u8>, String> {
            rows.iter().map(|row| unhex(row)).collect::<Result<Vec<_>, _>>().map(|rows| rows.concat())
        };
        let parts = [part(stored.weight)?, part(stored.scales)?, part(stored.biases)?];
        let [weight, scales, biases] = &parts;
        MatrixRef::new(layout, weight, scales, biases).map_err(|error| error.to_string())?;
        Ok(Self { layout, parts })
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("{text:?} is not bytes in hexadecimal");
    if !text.len().is_multiple_of(2) || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).map_err(|_| wrong())).collect()
}

/// One row taken apart: packed words, and the bits of scales and biases.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PlainRow {
    words: Vec<u32>,
    scales: Vec<u32>,
    biases: Vec<u32>,
}

/// Rows of a matrix, taken apart.
#[derive(Clone, Debug)]
pub struct Plain {
    layout: Layout,
    rows: BTreeMap<usize, PlainRow>,
}

impl Plain {
    /// Some rows of `matrix`; changes of others are not seen.
    ///
    /// # Panics
    /// If the matrix has no such row.
    pub fn of_rows(matrix: &MatrixRef<'_>, rows: impl IntoIterator<Item = usize>) -> Self {
        let layout = *matrix.layout();
        let numbers = |bytes: &[u8], size: usize| -> Vec<u32> {
            let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte));
            bytes.chunks(size).map(number).collect()
        };
        let size = layout.scale_type().size();
        let (words, scales) = (layout.weight_row_bytes(), layout.scale_row_bytes());
        let row = |row: usize| {
            let plain = PlainRow {
                words: numbers(&matrix.weight()[row * words..][..words], 4),
                scales: numbers(&matrix.scales()[row * scales..][..scales], size),
                biases: numbers(&matrix.biases()[row * scales..][..scales], size),
            };
            (row, plain)
        };
        Self { layout, rows: rows.into_iter().map(row).collect() }
    }

    /// All rows of `matrix`.
    pub fn of(matrix: &MatrixRef<'_>) -> Self {
        Self::of_rows(matrix, 0..matrix.layout().rows())
    }

    /// The bytes of the rows that were taken, in order.
    pub fn parts(&self) -> Parts {
        let bytes = |numbers: &dyn Fn(&PlainRow) -> Vec<u32>, size: usize| -> Vec<u8> {
            let numbers = self.rows.values().flat_map(numbers);
            numbers.flat_map(|number| number.to_le_bytes().into_iter().take(size)).collect()
        };
        let size = self.layout.scale_type().size();
        [
            bytes(&|row| row.words.clone(), 4),
            bytes(&|row| row.scales.clone(), size),
            bytes(&|row| row.biases.clone(), size),
        ]
    }

    /// Indices of the rows that were taken, in order.
    pub fn rows(&self) -> impl Iterator<Item = usize> {
        self.rows.keys().copied()
    }

    /// `scales * code + biases` of each column of a row, rounded to `f32` once.
    ///
    /// # Panics
    /// If that row was not taken.
    pub fn weights(&self, row: usize) -> Vec<f32> {
        let row = &self.rows[&row];
        let (bits, scale_type) = (self.layout.bits().get(), self.layout.scale_type());
        let float = |bits: u32| match scale_type {
            FloatType::F16 => half::f16::from_bits(bits as u16).to_f32(),
            FloatType::Bf16 => half::bf16::from_bits(bits as u16).to_f32(),
            FloatType::F32 => f32::from_bits(bits),
        };
        let (base, per_word) = (1_u64 << bits, 32 / bits);
        let weight = |column: usize| {
            let code = u64::from(row.words[column / per_word]) / base.pow((column % per_word) as u32) % base;
            let group = column / self.layout.group_size();
            float(row.scales[group]).mul_add(code as f32, float(row.biases[group]))
        };
        (0..self.layout.cols()).map(weight).collect()
    }

    /// Does all changes of `edit`, left to right.
    ///
    /// # Panics
    /// If `edit` does not fit.
    pub fn apply(&mut self, edit: &Edit) {
        edit.changes().iter().for_each(|change| self.change(change));
    }

    fn change(&mut self, change: &Change) {
        match *change {
            Change::Shift(shift) => {
                for word in self.rows.values_mut().flat_map(|row| &mut row.words) {
                    *word = (i128::from(*word) - i128::from(shift)).rem_euclid(1 << 32) as u32;
                }
            }
            Change::Flip { tensor: Tensor::Weight, row, column, bit } => {
                self.code(row, column, |code| if code >> bit & 1 == 1 { code - (1 << bit) } else { code + (1 << bit) });
            }
            Change::Flip { tensor, row, column, bit } => {
                if let Some(row) = self.rows.get_mut(&row) {
                    let part = if tensor == Tensor::Scales { &mut row.scales } else { &mut row.biases };
                    part[column] ^= 1 << bit;
                }
            }
            Change::SetCode { row, column, value } => self.code(row, column, |_| i128::from(value)),
            Change::AddCode { row, column, amount } => self.code(row, column, |code| code + i128::from(amount)),
            Change::XorWord { row, word, mask } => self.word(row, word, |old| old ^ mask),
            Change::SetWord { row, word, value } => self.word(row, word, |_| value),
            Change::Random(random) => {
                random.expand(&self.layout).expect("it fits").iter().for_each(|flip| self.change(flip));
            }
        }
    }

    /// Codes are digits of the word, the first the lowest; `change` of one wraps within it.
    fn code(&mut self, row: usize, column: usize, change: impl Fn(i128) -> i128) {
        let bits = self.layout.bits().get();
        let (base, per_word) = (1_i128 << bits, 32 / bits);
        let place = base.pow((column % per_word) as u32);
        self.word(row, column / per_word, |word| {
            let old = i128::from(word) / place % base;
            (i128::from(word) + (change(old).rem_euclid(base) - old) * place) as u32
        });
    }

    fn word(&mut self, row: usize, word: usize, change: impl Fn(u32) -> u32) {
        if let Some(row) = self.rows.get_mut(&row) {
            row.words[word] = change(row.words[word]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> SmallHead {
        SmallHead::new(Layout::new(2, 64, Bits::Four, 32, FloatType::Bf16).expect("a layout"), None, 7)
    }

    #[test]
    fn a_head_comes_back_from_json_as_it_was() {
        let text = serde_json::to_string(&head()).expect("JSON");
        assert_eq!(serde_json::from_str::<SmallHead>(&text).expect("a head"), head());
    }

    #[test]
    fn a_stored_head_that_is_none_is_refused_and_not_a_panic() {
        let good = serde_json::to_value(head()).expect("JSON");
        for (key, value) in [
            ("bits", serde_json::json!(3)),
            ("group_size", serde_json::json!(7)),
            ("scale_type", serde_json::json!("float8")),
            ("weight", serde_json::json!(["00"])),
            ("weight", serde_json::json!([])),
            ("scales", serde_json::json!(["é0"])),
            ("biases", serde_json::json!(["0"])),
            ("another", serde_json::json!(1)),
        ] {
            let mut bad = good.clone();
            bad[key] = value;
            assert!(serde_json::from_value::<SmallHead>(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_taken_apart_is_put_together_again() {
        assert_eq!(Plain::of(&head().view()).parts(), head().parts);
        assert_eq!(Plain::of_rows(&head().view(), [1]).parts(), parts_of(&head().view().row(1)));
    }

    #[test]
    fn a_weight_is_the_formula_on_the_numbers_of_the_example() {
        let layout = Layout::new(1, 32, Bits::Four, 32, FloatType::F16).expect("a layout");
        let weight = 0x7654_3210_u32.to_le_bytes().repeat(4);
        let parts = [weight, encode(FloatType::F16, 0.5), encode(FloatType::F16, -2.0)];
        let head = SmallHead { layout, parts };
        let weights = Plain::of(&head.view()).weights(0);
        assert_eq!(weights[..9], [-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, -2.0]);
    }
}
