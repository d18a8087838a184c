//! Each kind of edit by example, and every place that a head does not have.

use std::cell::Cell;

use lm_headroom::{
    edit::{Amount, Change, Edit, EditError, Random},
    head::HeadError,
    quant::{FloatType, Layout, MatrixBuf, Tensor},
    testing::heads::affine,
};
use proptest::prelude::*;

use super::{edit, layouts};

/// 40 x 64 in 4 bits, groups of 32, float16: eight words and two groups a row, every word `0x76543210`, every
/// scale 1.0 and every bias -2.0.
fn matrix() -> MatrixBuf {
    let layout = affine(40, 64, 4, 32, FloatType::F16);
    let weight = 0x7654_3210_u32.to_le_bytes().repeat(40 * 8);
    let floats = |value: f32| half::f16::from_f32(value).to_le_bytes().repeat(40 * 2);
    MatrixBuf::new(layout, weight, floats(1.0), Some(floats(-2.0))).expect("a matrix")
}

/// `matrix` after `text`, written in place, which the plan agrees with.
fn after(matrix: &MatrixBuf, text: &str) -> MatrixBuf {
    let edit = edit(text);
    let written = matrix.written(&edit);
    assert!(matrix.planned(&edit) == written, "{text}");
    written
}

/// Scales and biases.
fn numbers(matrix: &MatrixBuf) -> [&Vec<u8>; 2] {
    [matrix.scales(), matrix.biases().expect("it has some")]
}

/// The words that differ, with their new values.
fn changed_words(before: &MatrixBuf, after: &MatrixBuf) -> Vec<(usize, usize, u32)> {
    let (rows, words) = (before.layout().rows(), before.layout().words_per_row());
    let places = (0..rows).flat_map(|row| (0..words).map(move |word| (row, word)));
    let word = |(row, word)| (row, word, after.view().word(row, word));
    places.filter(|&(row, word)| before.view().word(row, word) != after.view().word(row, word)).map(word).collect()
}

#[test]
fn clean_changes_nothing() {
    assert_eq!(edit("clean"), Edit::clean());
    assert_eq!(after(&matrix(), "clean"), matrix());
    assert_eq!(edit("clean").plan(&matrix().view()), Ok(lm_headroom::edit::Plan::default()));
}

#[test]
fn a_shift_borrows_from_code_to_code_and_around_the_word() {
    for (text, word) in [
        ("shift:1", 0x7654_320f),
        ("shift:-5", 0x7654_3215),
        ("shift:16", 0x7654_3200),
        ("shift:32", 0x7654_31f0),
        ("shift:1985229328", 0),
        ("shift:1985229329", u32::MAX),
        ("shift:4294967297", 0x7654_320f),
        ("shift:-9223372036854775808", 0x7654_3210),
        ("shift:9223372036854775807", 0x7654_3211),
    ] {
        let shifted = after(&matrix(), text);
        assert!((0..40).all(|row| (0..8).all(|at| shifted.view().word(row, at) == word)), "{text}");
        assert_eq!(numbers(&shifted), numbers(&matrix()), "{text}");
    }
}

#[test]
fn each_kind_changes_the_one_word_that_it_names() {
    for (text, row, word, value) in [
        ("flip:weight[34,7].3", 34, 0, 0xf654_3210),
        ("flip:weight[34,7].0", 34, 0, 0x6654_3210),
        ("flip:weight[0,8].0", 0, 1, 0x7654_3211),
        ("set:weight[1,9]=9", 1, 1, 0x7654_3290),
        ("set:weight[1,63]=0", 1, 7, 0x0654_3210),
        ("add:weight[0,0]=-1", 0, 0, 0x7654_321f),
        ("add:weight[0,7]=10", 0, 0, 0x1654_3210),
        ("add:weight[0,1]=9223372036854775807", 0, 0, 0x7654_3200),
        ("add:weight[0,1]=17", 0, 0, 0x7654_3220),
        ("xor:word[2,3]=0x80000000", 2, 3, 0xf654_3210),
        ("xor:word[2,3]=0xffffffff", 2, 3, 0x89ab_cdef),
        ("set:word[39,7]=0x0", 39, 7, 0),
        ("set:word[39,7]=0xDEADBEEF", 39, 7, 0xdead_beef),
    ] {
        let edited = after(&matrix(), text);
        assert_eq!(changed_words(&matrix(), &edited), [(row, word, value)], "{text}");
        assert_eq!(numbers(&edited), numbers(&matrix()), "{text}");
    }
}

#[test]
fn what_sets_what_is_there_changes_nothing() {
    for text in [
        "set:weight[5,9]=1",
        "add:weight[5,9]=16",
        "add:weight[5,9]=-9223372036854775808",
        "xor:word[5,1]=0x0",
        "set:word[5,1]=0x76543210",
        "flip:weight[5,9].2+flip:weight[5,9].2",
        "shift:4294967296",
    ] {
        assert_eq!(after(&matrix(), text), matrix(), "{text}");
    }
}

#[test]
fn codes_of_8_bits_are_four_a_word() {
    let layout = affine(2, 32, 8, 32, FloatType::F16);
    let mut matrix = MatrixBuf::zeros(layout);
    matrix.part_mut(Tensor::Weight).expect("it has one").fill(0xfe);
    for (text, word, value) in [
        ("flip:weight[1,7].7", 1, 0x7efe_fefe),
        ("set:weight[1,0]=255", 0, 0xfefe_feff),
        ("add:weight[1,1]=2", 0, 0xfefe_00fe),
        ("add:weight[1,2]=-255", 0, 0xfeff_fefe),
    ] {
        assert_eq!(changed_words(&matrix, &after(&matrix, text)), [(1, word, value)], "{text}");
    }
}

#[test]
fn a_flip_of_a_scale_or_bias_is_of_the_bits_of_its_type() {
    let after_flip = after(&matrix(), "flip:scales[3,1].15");
    assert_eq!((after_flip.view().scale(3, 0), after_flip.view().scale(3, 1)), (1.0, -1.0), "the sign");
    assert_eq!(after_flip.biases(), matrix().biases());
    let after_flip = after(&matrix(), "flip:biases[3,0].10");
    assert_eq!((after_flip.view().bias(3, 0), after_flip.view().bias(3, 1)), (-4.0, -2.0), "the exponent's last bit");
    assert_eq!((after_flip.weight(), after_flip.scales()), (matrix().weight(), matrix().scales()));

    for (scale_type, one) in [(FloatType::Bf16, vec![0x80, 0x3f]), (FloatType::F32, vec![0, 0, 0x80, 0x3f])] {
        let layout = affine(2, 64, 4, 32, scale_type);
        let matrix = MatrixBuf::new(layout, vec![0; 64], one.repeat(4), Some(one.repeat(4))).expect("a matrix");
        let top = 8 * scale_type.size() - 1;
        let negated = after(&matrix, &format!("flip:scales[1,0].{top}"));
        assert_eq!((negated.view().scale(1, 0), negated.view().scale(1, 1)), (-1.0, 1.0));
        let infinite = after(&matrix, &format!("flip:biases[1,1].{}", top - 1));
        assert_eq!((infinite.view().bias(1, 0), infinite.view().bias(1, 1)), (1.0, f32::INFINITY));
    }
}

#[test]
fn changes_are_applied_left_to_right() {
    let word = |text: &str| after(&matrix(), text).view().word(0, 0);
    assert_eq!(word("shift:1+set:word[0,0]=0x0"), 0);
    assert_eq!(word("set:word[0,0]=0x0+shift:1"), u32::MAX);
    assert_eq!(word("set:weight[0,0]=15+add:weight[0,0]=1"), 0x7654_3210);
    assert_eq!(word("add:weight[0,0]=1+set:weight[0,0]=15"), 0x7654_321f);
    assert_eq!(word("shift:1+flip:weight[0,0].0+shift:-1"), 0x7654_320f, "a flip between two shifts stays");
    assert_eq!(edit("shift:1").then(&edit("set:word[0,0]=0x0")), edit("shift:1+set:word[0,0]=0x0"));
}

#[test]
fn random_flips_are_as_many_bits_as_they_say_all_in_their_tensor() {
    let reached = Cell::new(0);
    let tensors = [Tensor::Weight, Tensor::Scales, Tensor::Biases];
    proptest!(|(layout in layouts(), which in 0..3_usize, flips in 0..=16_u64, seed in any::<u64>())| {
        // A small head of floats may have no biases, and fewer bits than that in its scales.
        let matrix = MatrixBuf::random(layout, seed);
        let part = matrix.parts().find(|(tensor, _)| *tensor == tensors[which]);
        let flips = flips.min(part.map_or(0, |(_, bytes)| 8 * bytes.len() as u64));
        if part.is_none() {
            return Ok(());
        }
        let random = Random { tensor: tensors[which], amount: Amount::Flips(flips), seed };
        let written = matrix.written(&Edit::new(vec![Change::Random(random)]));
        for ((tensor, before), (_, after)) in matrix.parts().zip(written.parts()) {
            let flipped: u32 = before.iter().zip(after).map(|(a, b)| (a ^ b).count_ones()).sum();
            prop_assert_eq!(u64::from(flipped), if tensor == tensors[which] { flips } else { 0 });
        }
        reached.set(reached.get() + 1);
    });
    assert!(reached.get() > 0);
}

/// Every way to be out of place in a head of `layout`, with the change at the last place that is not.
fn out_of_place(layout: &Layout) -> Vec<(Change, &'static str, usize, Change)> {
    let (rows, columns) = (layout.rows(), layout.cols());
    let (groups, words, bits) = (layout.groups_per_row(), layout.words_per_row(), layout.bits());
    let scale_bits = 8 * layout.scale_type().size();
    let mut all = Vec::new();
    let mut add = |what, limit: usize, change: &dyn Fn(usize) -> Change| {
        for beyond in [limit, limit + 1, u32::MAX as usize] {
            all.push((change(beyond), what, beyond, change(limit - 1)));
        }
    };
    for (tensor, what, columns, bits) in [
        (Tensor::Weight, "column", columns, bits),
        (Tensor::Scales, "group", groups, scale_bits),
        (Tensor::Biases, "group", groups, scale_bits),
    ] {
        if !layout.format().tensors().contains(&tensor) {
            continue;
        }
        add("row", rows, &|row| Change::Flip { tensor, row, column: 0, bit: 0 });
        add(what, columns, &|column| Change::Flip { tensor, row: 0, column, bit: 0 });
        add("bit", bits, &|bit| Change::Flip { tensor, row: 0, column: 0, bit: bit as u32 });
    }
    add("row", rows, &|row| Change::SetCode { row, column: 0, value: 0 });
    add("column", columns, &|column| Change::SetCode { row: 0, column, value: 0 });
    add("row", rows, &|row| Change::AddCode { row, column: 0, amount: 1 });
    add("column", columns, &|column| Change::AddCode { row: 0, column, amount: 1 });
    add("row", rows, &|row| Change::XorWord { row, word: 0, mask: 1 });
    add("word", words, &|word| Change::XorWord { row: 0, word, mask: 1 });
    add("row", rows, &|row| Change::SetWord { row, word: 0, value: 0 });
    add("word", words, &|word| Change::SetWord { row: 0, word, value: 0 });
    all
}

/// What `edit` is refused with, which checking, planning and writing agree on, the last without a byte written.
fn refusal(matrix: &MatrixBuf, edit: &Edit) -> EditError {
    let error = edit.plan(&matrix.view()).expect_err("it does not fit");
    assert_eq!(edit.check(matrix.layout()), Err(error.clone()), "{edit}");
    let mut head = matrix.head(1);
    match head.apply(edit) {
        Err(HeadError::Edit(written)) => assert_eq!(written, error),
        other => panic!("{edit}: {other:?}"),
    }
    assert!(head.view() == matrix.view(), "{edit}");
    error
}

#[test]
fn every_place_that_a_head_does_not_have_is_named_and_the_last_that_it_has_is_taken() {
    let reached = Cell::new(0);
    proptest!(|(layout in layouts())| {
        let matrix = MatrixBuf::random(layout, 1);
        for (change, what, found, last) in out_of_place(&layout) {
            let text = Edit::new(vec![change.clone()]).to_string();
            // The second of two changes, so that the message has to say which.
            let edit = Edit::new(vec![Change::Shift(1), change]);
            let error = refusal(&matrix, &edit);
            let EditError::Range { edit, what: named, found: at, limit } = error else {
                return Err(TestCaseError::fail(format!("{error}")));
            };
            prop_assert_eq!((edit, named, at), (text, what, found));
            let last = Edit::new(vec![last]);
            prop_assert_eq!(last.check(&layout), Ok(()), "{} with the limit {}", last, limit);
            reached.set(reached.get() + 1);
        }
    });
    assert!(reached.get() > 0);
}

#[test]
fn a_refusal_says_which_change_what_of_it_and_what_the_head_has() {
    let four = matrix();
    let eight = MatrixBuf::random(affine(2, 128, 8, 128, FloatType::F32), 0);
    let refused = |matrix: &MatrixBuf, text: &str| refusal(matrix, &edit(text)).to_string();
    for (matrix, text, message) in [
        (&four, "flip:weight[40,0].0", "flip:weight[40,0].0: row 40 is out of range, there are 40 (0 to 39)"),
        (&four, "flip:weight[0,64].0", "flip:weight[0,64].0: column 64 is out of range, there are 64 (0 to 63)"),
        (&four, "flip:weight[0,0].4", "flip:weight[0,0].4: bit 4 is out of range, there are 4 (0 to 3)"),
        (&eight, "flip:weight[0,0].8", "flip:weight[0,0].8: bit 8 is out of range, there are 8 (0 to 7)"),
        (&four, "flip:scales[0,2].0", "flip:scales[0,2].0: group 2 is out of range, there are 2 (0 to 1)"),
        (&four, "flip:biases[0,0].16", "flip:biases[0,0].16: bit 16 is out of range, there are 16 (0 to 15)"),
        (&eight, "flip:scales[0,0].32", "flip:scales[0,0].32: bit 32 is out of range, there are 32 (0 to 31)"),
        (&eight, "flip:scales[0,1].0", "flip:scales[0,1].0: group 1 is out of range, there are 1 (0 to 0)"),
        (&four, "xor:word[0,8]=0x1", "xor:word[0,8]=0x1: word 8 is out of range, there are 8 (0 to 7)"),
        (&eight, "set:word[0,32]=0x1", "set:word[0,32]=0x1: word 32 is out of range, there are 32 (0 to 31)"),
        (&four, "set:weight[0,0]=16", "set:weight[0,0]=16: 16 is no code of 4 bits"),
        (&eight, "set:weight[0,0]=256", "set:weight[0,0]=256: 256 is no code of 8 bits"),
        (
            &four,
            "clean+shift:1+add:weight[99,0]=1",
            "add:weight[99,0]=1: row 99 is out of range, there are 40 (0 to 39)",
        ),
        (
            &four,
            "random:flips=10241,seed=0",
            "random:flips=10241,seed=0: 10241 flips are more than the 10240 bits of that tensor",
        ),
        (
            &four,
            "random:flips=10241,seed=0+flip:weight[40,0].0",
            "random:flips=10241,seed=0: 10241 flips are more than the 10240 bits of that tensor",
        ),
        (
            &four,
            "flip:weight[40,0].0+random:flips=10241,seed=0",
            "flip:weight[40,0].0: row 40 is out of range, there are 40 (0 to 39)",
        ),
        (
            &eight,
            "random:flips=18446744073709551615,seed=0,tensor=biases",
            "random:flips=18446744073709551615,seed=0,tensor=biases: 18446744073709551615 flips are more than the 64 \
             bits of that tensor",
        ),
    ] {
        assert_eq!(refused(matrix, text), message);
    }
    for text in ["set:weight[0,0]=15", "random:flips=10240,seed=0", "flip:biases[39,1].15"] {
        assert_eq!(edit(text).plan(&four.view()).err(), None, "{text}");
    }
}

#[test]
fn a_rate_that_is_no_probability_is_refused() {
    // Texts have no such rate, callers of the library may.
    for (rate, printed) in [(1.5, "1.5e0"), (-1e-9, "-1e-9"), (f64::INFINITY, "inf"), (f64::NAN, "NaN")] {
        let random = Random { tensor: Tensor::Weight, amount: Amount::Rate(rate), seed: 3 };
        let error = refusal(&matrix(), &Edit::new(vec![Change::Shift(1), Change::Random(random)]));
        assert_eq!(error.to_string(), format!("random:rate={printed},seed=3: the rate is no probability (0 to 1)"));
    }
}
