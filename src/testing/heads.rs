//! Heads as values, and what edits mean for them.
//!
//! A [`MatrixBuf`] is a head with its bytes; what is here draws one, edits it, and writes it as JSON and reads it back.
//! [`Plain`] is a head taken apart into numbers, on which each change is done as its contract states it and each weight
//! computed from its formula, with nothing shared with the code under test: the specification that the oracles hold
//! everything else against.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{
    checkpoint::{Bytes, Quantized},
    edit::{Change, Edit},
    head::Head,
    quant::{Codes, FloatType, Format, Layout, Matrix, MatrixBuf, MatrixRef, Tensor},
    team::Team,
};

/// The layout of a matrix in MLX's mode `affine`.
///
/// # Panics
/// If there is no such layout.
pub fn affine(rows: usize, cols: usize, bits: usize, group_size: usize, scale_type: FloatType) -> Layout {
    let format = Format::affine(bits, group_size).unwrap_or_else(|error| panic!("{error}"));
    Layout::new(rows, cols, format, scale_type).unwrap_or_else(|error| panic!("{error}"))
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
        FloatType::E8m0 | FloatType::E4m3 => vec![nearest(float_type, value)],
    }
}

/// The byte whose number is the finite one nearest to `value`, of those of its sign where the type has signs; of two as near the
/// lower byte.
fn nearest(float_type: FloatType, value: f32) -> u8 {
    let distance = |byte: &u8| {
        let number = float_type.get(&[*byte], 0);
        let away = (f64::from(number) - f64::from(value)).abs();
        let other_sign = float_type == FloatType::E4m3 && number.is_sign_negative() != value.is_sign_negative();
        if number.is_finite() && !other_sign { away } else { f64::INFINITY }
    };
    (0..=255).min_by(|a, b| distance(a).total_cmp(&distance(b))).expect("there are bytes")
}

impl MatrixBuf {
    /// A matrix whose bytes are all drawn from `seed`.
    pub fn random(layout: Layout, seed: u64) -> Self {
        let mut stream = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        let mut matrix = Self::zeros(layout);
        for &tensor in layout.format().tensors() {
            stream.fill(matrix.part_mut(tensor).expect("the format has it"));
        }
        matrix
    }

    /// As a checkpoint holds it.
    pub fn quantized(&self) -> Quantized {
        let bytes = |part: &Vec<u8>| Bytes::new(part.clone());
        Matrix::new(*self.layout(), bytes(self.weight()), bytes(self.scales()), self.biases().map(bytes))
            .expect("as long as these are")
    }

    /// A copy that edits are written into by one or two threads.
    pub fn head(&self, threads: usize) -> Head {
        Head::private(&self.quantized(), Arc::clone(team(threads))).expect("memory is always mapped")
    }

    /// What writing `edit` in place leaves.
    ///
    /// # Panics
    /// If `edit` does not fit.
    pub fn written(&self, edit: &Edit) -> Self {
        let mut head = self.head(1);
        head.apply(edit).expect("it fits").view().to_buf()
    }

    /// What the plan of `edit` stands for: rows that it replaces, and the others shifted.
    ///
    /// # Panics
    /// If `edit` does not fit.
    pub fn planned(&self, edit: &Edit) -> Self {
        let plan = edit.plan(&self.view()).expect("it fits");
        let mut matrix = self.clone();
        for word in matrix.part_mut(Tensor::Weight).expect("every format has a weight").chunks_exact_mut(4) {
            let shifted = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_sub(plan.shift);
            word.copy_from_slice(&shifted.to_le_bytes());
        }
        for (&row, patch) in &plan.rows {
            matrix.set_rows(row, &patch.view());
        }
        matrix
    }
}

/// A head in JSON: its rows in hexadecimal, as their bytes lie.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    cols: usize,
    bits: usize,
    group_size: usize,
    /// MLX's mode; `affine` is not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    scale_type: String,
    weight: Vec<String>,
    scales: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    biases: Option<Vec<String>>,
}

/// All types that scales have.
const SCALE_TYPES: [FloatType; 5] = [FloatType::F16, FloatType::Bf16, FloatType::F32, FloatType::E8m0, FloatType::E4m3];

impl Serialize for MatrixBuf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let layout = self.layout();
        let rows = |part: &Vec<u8>| part.chunks(part.len() / layout.rows()).map(hex).collect();
        let stored = Stored {
            cols: layout.cols(),
            bits: layout.bits(),
            group_size: layout.group_size(),
            mode: layout.format().codes().are_floats().then(|| layout.format().mode().to_owned()),
            scale_type: layout.scale_type().name().to_owned(),
            weight: rows(self.weight()),
            scales: rows(self.scales()),
            biases: self.biases().map(rows),
        };
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MatrixBuf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        let known = SCALE_TYPES.iter().find(|known| known.name() == stored.scale_type);
        let scale_type = known.ok_or_else(|| D::Error::custom(format!("no scale_type {:?}", stored.scale_type)))?;
        let format = match &stored.mode {
            None => Format::affine(stored.bits, stored.group_size).map_err(D::Error::custom)?,
            Some(mode) => {
                Format::of_mode(mode).ok_or_else(|| D::Error::custom(format!("{mode:?} is no mode of floats")))?
            }
        };
        if (format.width().bits(), format.group_size()) != (stored.bits, stored.group_size) {
            return Err(D::Error::custom(format!("{format} has other bits or groups")));
        }
        let layout = Layout::new(stored.weight.len(), stored.cols, format, *scale_type).map_err(D::Error::custom)?;
        let part = |rows: Vec<String>| -> Result<Vec<u8>, D::Error> {
            let rows: Result<Vec<_>, _> = rows.iter().map(|row| unhex(row)).collect();
            Ok(rows.map_err(D::Error::custom)?.concat())
        };
        let biases = stored.biases.map(part).transpose()?;
        Self::new(layout, part(stored.weight)?, part(stored.scales)?, biases).map_err(D::Error::custom)
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

/// One row taken apart: packed words, and the bits of scales and biases, of which a format may have none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PlainRow {
    words: Vec<u32>,
    scales: Vec<u32>,
    biases: Vec<u32>,
}

impl PlainRow {
    /// The place in a word of bit `bit` of the code at `column`, where codes of `bits` bits follow each other through
    /// the words, and bits are counted from the lowest.
    fn place(bits: usize, column: usize, bit: usize) -> (usize, usize) {
        let at = column * bits + bit;
        (at / 32, at % 32)
    }

    /// The code at `column`, bit by bit.
    fn code(&self, bits: usize, column: usize) -> u32 {
        let bit = |bit| {
            let (word, at) = Self::place(bits, column, bit);
            (self.words[word] >> at & 1) << bit
        };
        (0..bits).map(bit).sum()
    }

    /// Makes `code` the code at `column`, bit by bit.
    fn set_code(&mut self, bits: usize, column: usize, code: u32) {
        for bit in 0..bits {
            let (word, at) = Self::place(bits, column, bit);
            self.words[word] = self.words[word] & !(1 << at) | (code >> bit & 1) << at;
        }
    }
}

/// The number that a sign, `exponent` and `fraction` bits are, as IEEE 754 has it for other widths, but without infinities; of
/// eight bits the largest magnitude is NaN.
pub(super) fn small_float(bits: u32, exponent: u32, fraction: u32) -> f32 {
    let bias = (1 << (exponent - 1)) - 1;
    let (e, f) = (bits >> fraction & ((1 << exponent) - 1), bits & ((1 << fraction) - 1));
    let part = f as f32 / (1 << fraction) as f32;
    let magnitude = match e {
        0 => part * 2_f32.powi(1 - bias),
        _ if exponent + fraction == 7 && bits & 0x7f == 0x7f => f32::NAN,
        _ => (1.0 + part) * 2_f32.powi(e as i32 - bias),
    };
    if bits >> (exponent + fraction) & 1 == 1 { -magnitude } else { magnitude }
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
    pub(crate) fn of_rows(matrix: &MatrixRef<'_>, rows: impl IntoIterator<Item = usize>) -> Self {
        let layout = *matrix.layout();
        let numbers = |bytes: &[u8], size: usize| -> Vec<u32> {
            let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte));
            bytes.chunks(size).map(number).collect()
        };
        let size = layout.scale_type().size();
        let (words, scales) = (layout.weight_row_bytes(), layout.scale_row_bytes());
        let row = |row: usize| {
            let of_groups = |part: &[u8]| numbers(&part[row * scales..][..scales], size);
            let plain = PlainRow {
                words: numbers(&matrix.weight()[row * words..][..words], 4),
                scales: of_groups(matrix.scales()),
                biases: matrix.biases().map_or(Vec::new(), |biases| of_groups(biases)),
            };
            (row, plain)
        };
        Self { layout, rows: rows.into_iter().map(row).collect() }
    }

    /// All rows of `matrix`.
    pub fn of(matrix: &MatrixRef<'_>) -> Self {
        Self::of_rows(matrix, 0..matrix.layout().rows())
    }

    /// The rows that were taken, put together in order.
    ///
    /// # Panics
    /// If none were taken.
    pub fn matrix(&self) -> MatrixBuf {
        let bytes = |numbers: &dyn Fn(&PlainRow) -> Vec<u32>, size: usize| -> Vec<u8> {
            let numbers = self.rows.values().flat_map(numbers);
            numbers.flat_map(|number| number.to_le_bytes().into_iter().take(size)).collect()
        };
        let size = self.layout.scale_type().size();
        let biases = self.layout.format().has_biases().then(|| bytes(&|row| row.biases.clone(), size));
        let (words, scales) = (bytes(&|row| row.words.clone(), 4), bytes(&|row| row.scales.clone(), size));
        MatrixBuf::new(self.layout.with_rows(self.rows.len()), words, scales, biases).expect("whole rows")
    }

    /// Indices of the rows that were taken, in order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = usize> {
        self.rows.keys().copied()
    }

    /// The weight of each column of a row, rounded to `f32` once: `scales * code + biases`, or `scales * value` where codes
    /// are floats.
    ///
    /// # Panics
    /// If that row was not taken.
    pub(crate) fn weights(&self, row: usize) -> Vec<f32> {
        let row = &self.rows[&row];
        let (bits, scale_type) = (self.layout.bits(), self.layout.scale_type());
        let float = |bits: u32| match scale_type {
            FloatType::F16 => half::f16::from_bits(bits as u16).to_f32(),
            FloatType::Bf16 => half::bf16::from_bits(bits as u16).to_f32(),
            FloatType::F32 => f32::from_bits(bits),
            FloatType::E8m0 if bits == 255 => f32::INFINITY,
            FloatType::E8m0 => 2_f64.powi(bits as i32 - 127) as f32,
            FloatType::E4m3 => small_float(bits, 4, 3),
        };
        let weight = |column: usize| {
            let group = column / self.layout.group_size();
            let (scale, code) = (float(row.scales[group]), row.code(bits, column));
            match self.layout.format().codes() {
                Codes::Affine(_) => scale.mul_add(code as f32, float(row.biases[group])),
                Codes::E2m1 => (f64::from(scale) * f64::from(small_float(code, 2, 1))) as f32,
                Codes::E4m3 => (f64::from(scale) * f64::from(small_float(code, 4, 3))) as f32,
            }
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

    /// `change` of a code wraps within it.
    fn code(&mut self, row: usize, column: usize, change: impl Fn(i128) -> i128) {
        let bits = self.layout.bits();
        if let Some(row) = self.rows.get_mut(&row) {
            let new = change(i128::from(row.code(bits, column))).rem_euclid(1 << bits);
            row.set_code(bits, column, new as u32);
        }
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

    fn head() -> MatrixBuf {
        MatrixBuf::random(affine(2, 64, 4, 32, FloatType::Bf16), 7)
    }

    #[test]
    fn a_head_comes_back_from_json_as_it_was() {
        let text = serde_json::to_string(&head()).expect("JSON");
        assert_eq!(serde_json::from_str::<MatrixBuf>(&text).expect("a head"), head());
    }

    #[test]
    fn a_stored_head_that_is_none_is_refused_and_not_a_panic() {
        let good = serde_json::to_value(head()).expect("JSON");
        for (key, value) in [
            ("bits", serde_json::json!(3)),
            ("bits", serde_json::json!(7)),
            ("mode", serde_json::json!("mxfp4")),
            ("mode", serde_json::json!("fp4")),
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
            assert!(serde_json::from_value::<MatrixBuf>(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_taken_apart_is_put_together_again() {
        assert_eq!(Plain::of(&head().view()).matrix(), head());
        assert_eq!(Plain::of_rows(&head().view(), [1]).matrix(), head().view().row(1).to_buf());
    }

    #[test]
    fn a_weight_is_the_formula_on_the_numbers_of_the_example() {
        let weight = 0x7654_3210_u32.to_le_bytes().repeat(4);
        let (scales, biases) = (encode(FloatType::F16, 0.5), encode(FloatType::F16, -2.0));
        let layout = affine(1, 32, 4, 32, FloatType::F16);
        let head = MatrixBuf::new(layout, weight, scales, Some(biases)).expect("a matrix");
        let weights = Plain::of(&head.view()).weights(0);
        assert_eq!(weights[..9], [-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, -2.0]);
    }
}
