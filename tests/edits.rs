//! What edits do: laws 1 and 5, and the half of law 3 that needs no arithmetic: a plan holds the very bytes
//! that writing the edit leaves. What their text means, law 8, is in `edits/text.rs`; each kind by example, and
//! what is refused, in `edits/examples.rs`.
//!
//! The oracle is [`Plain`], a matrix taken apart, on which each change is done as the contract states it, with
//! nothing shared with the code under test.

use std::{cell::Cell, sync::Arc};

use lm_headroom::{
    checkpoint::{Part, Quantized, bytes::Bytes},
    edit::{Amount, Change, Edit, MatrixMut, Random, Tensor, shift_word},
    head::Head,
    quant::{Bits, FloatType, Layout, MatrixRef, packed},
    team::Team,
};
use proptest::{prelude::*, sample::select};

#[path = "edits/examples.rs"]
mod examples;
#[path = "edits/text.rs"]
mod text;

/// Weight, scales and biases.
type Parts = [Vec<u8>; 3];

/// A matrix with its bytes.
#[derive(Clone, Debug)]
struct Matrix {
    layout: Layout,
    parts: Parts,
}

impl Matrix {
    /// Bytes that are all `fill`, or drawn from `seed`.
    fn new(layout: Layout, fill: Option<u8>, seed: u64) -> Self {
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

    fn view(&self) -> MatrixRef<'_> {
        let [weight, scales, biases] = &self.parts;
        MatrixRef::new(self.layout, weight, scales, biases).expect("a matrix")
    }

    fn head(&self, threads: usize) -> Head {
        let [weight, scales, biases] = self.parts.clone().map(|bytes| Part { bytes: Bytes::new(bytes), origin: None });
        let head = Quantized::new(self.layout, weight, scales, biases).expect("a head");
        Head::private(&head, Arc::new(Team::new(threads))).expect("a private copy")
    }

    /// The bytes after writing `edit` in place.
    fn written(&self, edit: &Edit) -> Parts {
        let mut head = self.head(1);
        parts_of(&head.apply(edit).expect("it fits").view())
    }

    /// The bytes that the plan of `edit` stands for: rows that it replaces, the others shifted.
    fn planned(&self, edit: &Edit) -> Parts {
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

fn parts_of(matrix: &MatrixRef<'_>) -> Parts {
    [matrix.weight(), matrix.scales(), matrix.biases()].map(<[u8]>::to_vec)
}

/// A matrix taken apart: packed words, and the bits of scales and biases, by row.
struct Plain {
    layout: Layout,
    words: Vec<Vec<u32>>,
    scales: Vec<Vec<u32>>,
    biases: Vec<Vec<u32>>,
}

impl Plain {
    fn of(matrix: &Matrix) -> Self {
        let layout = matrix.layout;
        let rows = |part: &[u8], row_bytes: usize, size: usize| -> Vec<Vec<u32>> {
            let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte));
            part.chunks(row_bytes).map(|row| row.chunks(size).map(number).collect()).collect()
        };
        let size = layout.scale_type().size();
        let [weight, scales, biases] = &matrix.parts;
        Self {
            layout,
            words: rows(weight, layout.weight_row_bytes(), 4),
            scales: rows(scales, layout.scale_row_bytes(), size),
            biases: rows(biases, layout.scale_row_bytes(), size),
        }
    }

    fn parts(&self) -> Parts {
        let bytes = |rows: &[Vec<u32>], size: usize| -> Vec<u8> {
            rows.iter().flatten().flat_map(|number| number.to_le_bytes().into_iter().take(size)).collect()
        };
        let size = self.layout.scale_type().size();
        [bytes(&self.words, 4), bytes(&self.scales, size), bytes(&self.biases, size)]
    }

    fn apply(&mut self, change: &Change) {
        match *change {
            Change::Shift(shift) => {
                for word in self.words.iter_mut().flatten() {
                    *word = (i128::from(*word) - i128::from(shift)).rem_euclid(1 << 32) as u32;
                }
            }
            Change::Flip { tensor: Tensor::Weight, row, column, bit } => {
                self.code(row, column, |code| if code >> bit & 1 == 1 { code - (1 << bit) } else { code + (1 << bit) });
            }
            Change::Flip { tensor: Tensor::Scales, row, column, bit } => self.scales[row][column] ^= 1 << bit,
            Change::Flip { tensor: Tensor::Biases, row, column, bit } => self.biases[row][column] ^= 1 << bit,
            Change::SetCode { row, column, value } => self.code(row, column, |_| i128::from(value)),
            Change::AddCode { row, column, amount } => self.code(row, column, |code| code + i128::from(amount)),
            Change::XorWord { row, word, mask } => self.words[row][word] ^= mask,
            Change::SetWord { row, word, value } => self.words[row][word] = value,
            Change::Random(random) => {
                random.expand(&self.layout).expect("it fits").iter().for_each(|flip| self.apply(flip));
            }
        }
    }

    /// Codes are digits of the word, the first the lowest; `change` of one wraps within it.
    fn code(&mut self, row: usize, column: usize, change: impl Fn(i128) -> i128) {
        let bits = self.layout.bits().get();
        let (base, per_word) = (1_i128 << bits, 32 / bits);
        let place = base.pow((column % per_word) as u32);
        let word = &mut self.words[row][column / per_word];
        let old = i128::from(*word) / place % base;
        *word = (i128::from(*word) + (change(old).rem_euclid(base) - old) * place) as u32;
    }
}

const EXTREME_SHIFTS: [i64; 15] = [
    0,
    1,
    -1,
    (1 << 31) - 1,
    1 << 31,
    -(1 << 31),
    (1 << 32) - 1,
    1 << 32,
    (1 << 32) + 1,
    -(1 << 32) - 1,
    -(1 << 32) + 1,
    i64::MIN,
    i64::MIN + 1,
    i64::MAX - 1,
    i64::MAX,
];

const EXTREME_WORDS: [u32; 10] =
    [0, 1, 0xf, 0x10, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, 0xffff_fff0, u32::MAX - 1, u32::MAX];

fn shifts() -> impl Strategy<Value = i64> {
    prop_oneof![2 => select(EXTREME_SHIFTS.as_slice()), 1 => any::<i64>(), 1 => -20_000_000..20_000_000_i64]
}

fn tensors() -> impl Strategy<Value = Tensor> {
    select([Tensor::Weight, Tensor::Scales, Tensor::Biases].as_slice())
}

/// Layouts of every format; one row and one group are as likely as all other numbers together.
fn layouts() -> impl Strategy<Value = Layout> {
    (
        prop_oneof![Just(1), 2..24_usize],
        prop_oneof![Just(1), 2..4_usize],
        select([Bits::Four, Bits::Eight].as_slice()),
        select([32, 64, 128_usize].as_slice()),
        select([FloatType::F16, FloatType::Bf16, FloatType::F32].as_slice()),
    )
        .prop_map(|(rows, groups, bits, group_size, scale_type)| {
            Layout::new(rows, groups * group_size, bits, group_size, scale_type).expect("a layout")
        })
}

fn matrices() -> impl Strategy<Value = Matrix> {
    let fill = prop_oneof![1 => Just(Some(0)), 1 => Just(Some(0xff)), 4 => Just(None)];
    (layouts(), fill, any::<u64>()).prop_map(|(layout, fill, seed)| Matrix::new(layout, fill, seed))
}

/// Changes that fit `layout`. The first two rows are hit often, so that changes meet.
fn changes(layout: Layout) -> impl Strategy<Value = Change> {
    let rows = move || prop_oneof![2 => 0..layout.rows().min(2), 1 => 0..layout.rows()];
    let (columns, words, groups) = (0..layout.cols(), 0..layout.words_per_row(), 0..layout.groups_per_row());
    let (bits, scale_bits) = (layout.bits().get() as u32, 8 * layout.scale_type().size() as u32);
    let scale_or_bias = select([Tensor::Scales, Tensor::Biases].as_slice());
    let amounts = prop_oneof![shifts(), -20..20_i64];
    // The smallest tensor is one scale of 16 bits.
    let random = prop_oneof![(0..=16_u64).prop_map(Amount::Flips), (0.0..0.02).prop_map(Amount::Rate)];
    prop_oneof![
        4 => shifts().prop_map(Change::Shift),
        2 => (rows(), columns.clone(), 0..bits)
            .prop_map(|(row, column, bit)| Change::Flip { tensor: Tensor::Weight, row, column, bit }),
        2 => (scale_or_bias, rows(), groups, 0..scale_bits)
            .prop_map(|(tensor, row, column, bit)| Change::Flip { tensor, row, column, bit }),
        2 => (rows(), columns.clone(), 0..=layout.bits().mask())
            .prop_map(|(row, column, value)| Change::SetCode { row, column, value }),
        2 => (rows(), columns, amounts).prop_map(|(row, column, amount)| Change::AddCode { row, column, amount }),
        2 => (rows(), words.clone(), any::<u32>()).prop_map(|(row, word, mask)| Change::XorWord { row, word, mask }),
        2 => (rows(), words, any::<u32>()).prop_map(|(row, word, value)| Change::SetWord { row, word, value }),
        1 => (tensors(), random, any::<u64>())
            .prop_map(|(tensor, amount, seed)| Change::Random(Random { tensor, amount, seed })),
    ]
}

fn matrices_and_edits() -> impl Strategy<Value = (Matrix, Edit)> {
    matrices().prop_flat_map(|matrix| {
        let edits = prop::collection::vec(changes(matrix.layout), 0..9).prop_map(Edit::new);
        (Just(matrix), edits)
    })
}

fn edit(text: &str) -> Edit {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Counts the cases that reached an assertion: a property that reaches none shows nothing.
#[derive(Default)]
struct Reached(Cell<usize>);

impl Reached {
    fn one(&self) {
        self.0.set(self.0.get() + 1);
    }
    #[track_caller]
    fn at_least(&self, count: usize) {
        assert!(self.0.get() >= count, "only {} cases got there", self.0.get());
    }
}

// Law 1: shifts.

#[test]
fn a_shifted_word_is_the_low_half_of_the_wrapping_i64_difference_at_every_extreme() {
    let mut extremes = 0;
    for word in EXTREME_WORDS {
        for shift in EXTREME_SHIFTS {
            assert_eq!(shift_word(word, shift), i64::from(word).wrapping_sub(shift) as u32, "{word} {shift}");
            extremes += 1;
        }
    }
    assert_eq!(extremes, 150);
    let reached = Reached::default();
    proptest!(|(word in any::<u32>(), shift in prop_oneof![shifts(), any::<i64>()])| {
        prop_assert_eq!(shift_word(word, shift), i64::from(word).wrapping_sub(shift) as u32);
        let exact = (i128::from(word) - i128::from(shift)).rem_euclid(1 << 32);
        prop_assert_eq!(i128::from(shift_word(word, shift)), exact);
        prop_assert_eq!(shift_word(shift_word(word, shift), shift.wrapping_neg()), word);
        reached.one();
    });
    reached.at_least(1);
}

#[test]
fn a_shift_and_its_negative_leave_every_bit() {
    let (reached, moved) = (Reached::default(), Reached::default());
    proptest!(|(matrix in matrices(), shift in shifts())| {
        let there = Edit::shift(shift);
        let back = there.clone().then(&Edit::shift(shift.wrapping_neg()));
        prop_assert_eq!(&matrix.written(&back), &matrix.parts);
        prop_assert_eq!(&matrix.planned(&back), &matrix.parts);
        let [weight, scales, biases] = matrix.written(&there);
        prop_assert_eq!(weight != matrix.parts[0], shift as u32 != 0, "unless it is a multiple of 2^32 it moves");
        prop_assert!(scales == matrix.parts[1] && biases == matrix.parts[2], "scales and biases have no words");
        if shift as u32 != 0 {
            moved.one();
        }
        reached.one();
    });
    reached.at_least(1);
    moved.at_least(1);
}

#[test]
fn two_shifts_are_the_shift_by_their_wrapping_sum() {
    let (reached, wrapped) = (Reached::default(), Reached::default());
    proptest!(|(matrix in matrices(), a in shifts(), b in shifts())| {
        let (both, sum) = (Edit::shift(a).then(&Edit::shift(b)), Edit::shift(a.wrapping_add(b)));
        prop_assert_eq!(matrix.written(&both), matrix.written(&sum));
        let (both, sum) = (both.plan(&matrix.view()).unwrap(), sum.plan(&matrix.view()).unwrap());
        prop_assert_eq!(both, sum);
        if a.checked_add(b).is_none() {
            wrapped.one();
        }
        reached.one();
    });
    reached.at_least(1);
    wrapped.at_least(1);
}

#[test]
fn shifts_that_differ_by_a_multiple_of_2_to_the_32_are_two_texts_with_one_effect() {
    let reached = Reached::default();
    proptest!(|(matrix in matrices(), shift in shifts(), turns in prop_oneof![Just(1), Just(-1), any::<i64>()])| {
        let near = Edit::shift(shift);
        let far = Edit::shift(shift.wrapping_add(turns.wrapping_shl(32)));
        prop_assert_eq!(near.to_string() == far.to_string(), near == far);
        prop_assert_eq!(near.plan(&matrix.view()).unwrap(), far.plan(&matrix.view()).unwrap());
        prop_assert_eq!(matrix.written(&near), matrix.written(&far));
        if near != far {
            reached.one();
        }
    });
    reached.at_least(1);
}

// Law 5: packing.

#[test]
fn packing_and_unpacking_are_inverse_for_both_widths() {
    let reached = Reached::default();
    let words = prop::collection::vec(prop_oneof![select(EXTREME_WORDS.as_slice()), any::<u32>()], 0..40);
    proptest!(|(words in words, bits in select([Bits::Four, Bits::Eight].as_slice()), cut in 0..8_usize)| {
        let codes = packed::unpack(&words, bits);
        prop_assert_eq!(codes.len(), words.len() * bits.per_word());
        prop_assert!(codes.iter().all(|&code| code <= bits.mask()));
        prop_assert_eq!(&packed::pack(&codes, bits), &words);
        // The first code is the lowest digit.
        for (word, codes) in words.iter().zip(codes.chunks(bits.per_word())) {
            let number = codes.iter().rev().fold(0_u64, |number, &code| (number << bits.get()) + u64::from(code));
            prop_assert_eq!(number, u64::from(*word));
        }
        // A last word that is not full is filled up with zeros.
        let part = &codes[..codes.len().saturating_sub(cut)];
        let again = packed::unpack(&packed::pack(part, bits), bits);
        prop_assert_eq!(&again[..part.len()], part);
        prop_assert!(again.len() < part.len() + bits.per_word() && again[part.len()..].iter().all(|&code| code == 0));
        reached.one();
    });
    reached.at_least(1);
}

#[test]
fn a_matrix_of_any_layout_holds_the_codes_that_were_packed_row_by_row() {
    let reached = Reached::default();
    proptest!(|(matrix in matrices())| {
        let layout = matrix.layout;
        let view = matrix.view();
        for row in 0..layout.rows() {
            let codes: Vec<u32> = (0..layout.cols()).map(|column| view.code(row, column)).collect();
            let words: Vec<u32> = (0..layout.words_per_row()).map(|word| view.word(row, word)).collect();
            prop_assert_eq!(packed::pack(&codes, layout.bits()), words);
            reached.one();
        }
    });
    reached.at_least(1);
}

#[test]
fn replacing_a_code_leaves_the_others_and_takes_only_the_low_bits() {
    let reached = Reached::default();
    proptest!(|(
        word in any::<u32>(), value in any::<u32>(), i in 0..8_usize, bits in select([Bits::Four, Bits::Eight].as_slice())
    )| {
        let i = i % bits.per_word();
        let mut codes = packed::unpack(&[word], bits);
        codes[i] = value & bits.mask();
        prop_assert_eq!(packed::unpack(&[packed::with_code(word, i, value, bits)], bits), codes);
        reached.one();
    });
    reached.at_least(1);
}

// Law 3, without arithmetic: planned = written = what the contract says.

#[test]
fn a_plan_holds_the_bytes_that_writing_leaves_for_any_changes_in_any_order() {
    let (reached, replaced, shifted, both, random) =
        (Reached::default(), Reached::default(), Reached::default(), Reached::default(), Reached::default());
    proptest!(|((matrix, edit) in matrices_and_edits())| {
        let mut expected = Plain::of(&matrix);
        edit.changes().iter().for_each(|change| expected.apply(change));
        let expected = expected.parts();
        prop_assert!(matrix.written(&edit) == expected, "written: {}", edit);
        prop_assert!(matrix.planned(&edit) == expected, "planned: {}", edit);
        let plan = edit.plan(&matrix.view()).unwrap();
        for (row, patch) in &plan.rows {
            prop_assert_eq!(*patch.view(&matrix.layout).layout(), matrix.layout.with_rows(1), "row {}", row);
        }
        reached.one();
        if !plan.rows.is_empty() {
            replaced.one();
        }
        if plan.shift != 0 && plan.rows.len() < matrix.layout.rows() {
            shifted.one();
        }
        if plan.shift != 0 && !plan.rows.is_empty() {
            both.one();
        }
        if edit.changes().iter().any(|change| matches!(change, Change::Random(_))) {
            random.one();
        }
    });
    for count in [reached, replaced, shifted, both, random] {
        count.at_least(1);
    }
}

#[test]
fn each_change_is_taken_back_by_what_writing_it_gave() {
    let reached = Reached::default();
    proptest!(|((mut matrix, edit) in matrices_and_edits())| {
        let edit = edit.expand(&matrix.layout).unwrap();
        let before = matrix.parts.clone();
        let [weight, scales, biases] = &mut matrix.parts;
        let mut writable = MatrixMut::new(matrix.layout, weight, scales, biases).unwrap();
        let row = |change: &Change| match *change {
            Change::Flip { row, .. } | Change::SetCode { row, .. } | Change::AddCode { row, .. } => row,
            Change::XorWord { row, .. } | Change::SetWord { row, .. } => row,
            Change::Shift(_) | Change::Random(_) => 0,
        };
        let undo: Vec<_> = edit.changes().iter().map(|change| writable.write(change, row(change))).collect();
        undo.iter().rev().for_each(|undo| writable.undo(undo));
        prop_assert_eq!(&matrix.parts, &before);
        if !edit.changes().is_empty() {
            reached.one();
        }
    });
    reached.at_least(1);
}

#[test]
fn an_edit_measures_the_same_after_it_was_expanded_printed_and_parsed() {
    let (reached, expanded) = (Reached::default(), Reached::default());
    proptest!(|((matrix, edit) in matrices_and_edits())| {
        let plan = edit.plan(&matrix.view()).unwrap();
        let stored = edit.expand(&matrix.layout).unwrap();
        prop_assert!(!stored.changes().iter().any(|change| matches!(change, Change::Random(_))));
        prop_assert_eq!(&stored.expand(&matrix.layout).unwrap(), &stored);
        let stored: Edit = stored.to_string().parse().unwrap();
        prop_assert_eq!(&stored.plan(&matrix.view()).unwrap(), &plan);
        let written = matrix.written(&edit);
        for count in [0, 1, 5, 1000] {
            let words: Vec<u32> = written[0]
                .chunks(4)
                .take(count.min(matrix.layout.words_per_row()))
                .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
                .collect();
            prop_assert_eq!(plan.first_words(&matrix.view(), count), words);
        }
        reached.one();
        if stored != edit {
            expanded.one();
        }
    });
    reached.at_least(1);
    expanded.at_least(1);
}
