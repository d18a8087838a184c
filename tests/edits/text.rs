//! Law 8 by example: what is printed parses to the same edit, and what does not parse is pointed at.

use std::cell::Cell;

use lm_headroom::{
    edit::{Edit, Family, ParseError},
    quant::FloatType,
    testing::{
        heads::affine,
        oracles::{self, text as oracle},
    },
};
use proptest::prelude::*;

use super::edit;

#[test]
fn every_way_to_be_malformed_is_pointed_at_with_what_was_expected_there() {
    const START: &str = "clean, shift:, flip:, set:, add:weight, xor:word or random:";
    const NEXT: &str = "`+` and another edit, or the end";
    const SHIFT: &str = "a shift, which is an integer of 64 bits";
    const TENSOR: &str = "`weight`, `scales` or `biases`";
    const WORD: &str = "a word of 32 bits, such as 0x80000000";
    const SEED: &str = "a seed, which is a natural number of 64 bits";
    let table = [
        ("", 0, START),
        ("+", 0, START),
        ("shift", 0, START),
        ("Shift:1", 0, START),
        (" shift:1", 0, START),
        ("1000001", 0, START),
        ("add:word[0,0]=1", 0, START),
        ("xor:weight[0,0]=1", 0, START),
        ("clean+", 6, START),
        ("shift:1+", 8, START),
        ("shift:1++shift:2", 8, START),
        ("clean ", 5, NEXT),
        ("clean:1", 5, NEXT),
        ("cleanshift:1", 5, NEXT),
        ("shift:1 +shift:2", 7, NEXT),
        ("shift:1.5", 7, NEXT),
        ("shift:1,000", 7, NEXT),
        ("shift:1-2", 7, NEXT),
        ("shift:0x10", 7, NEXT),
        ("shift:1é", 7, NEXT),
        ("shift:1\n", 7, NEXT),
        ("shift:", 6, SHIFT),
        ("shift:-", 6, SHIFT),
        ("shift:--1", 6, SHIFT),
        ("shift:+1", 6, SHIFT),
        ("shift: 1", 6, SHIFT),
        ("shift:١", 6, SHIFT),
        ("shift:9223372036854775808", 6, SHIFT),
        ("shift:-9223372036854775809", 6, SHIFT),
        ("clean+shift:18446744073709551616", 12, SHIFT),
        ("flip:", 5, TENSOR),
        ("flip:word[0,0].1", 5, TENSOR),
        ("flip:weight", 11, "`[`, then row and column"),
        ("flip:weights[0,0].1", 11, "`[`, then row and column"),
        ("flip:weight[-1,0].0", 12, "a row"),
        ("flip:weight[,0].0", 12, "a row"),
        ("flip:weight[99999999999999999999,0].0", 12, "a row"),
        ("flip:weight[1].0", 13, "`,`, then the column"),
        ("flip:weight[1,].0", 14, "a column, a group or a word"),
        ("flip:weight[1, 2].0", 14, "a column, a group or a word"),
        ("flip:weight[1,2.0", 15, "`]`"),
        ("flip:weight[1,2,3].0", 15, "`]`"),
        ("flip:weight[1,2]", 16, "`.`, then the bit"),
        ("flip:weight[1,2]=3", 16, "`.`, then the bit"),
        ("flip:weight[1,2].", 17, "a bit"),
        ("flip:weight[1,2].-3", 17, "a bit"),
        ("flip:weight[1,2].4294967296", 17, "a bit"),
        ("flip:weight[1,2].3.4", 18, NEXT),
        ("set:", 4, "`weight` or `word`"),
        ("set:scales[0,0]=1", 4, "`weight` or `word`"),
        ("set:weight[0,0]", 15, "`=`, then the code"),
        ("set:weight[0,0]=", 16, "a code"),
        ("set:weight[0,0]=-1", 16, "a code"),
        ("set:weight[0,0]=0x9", 17, NEXT),
        ("set:word[0,0]", 13, "`=`, then the word"),
        ("set:word[0,0]=", 14, WORD),
        ("set:word[0,0]=4294967296", 14, WORD),
        ("set:word[0,0]=x", 14, WORD),
        ("set:word[0,0]=0x", 16, WORD),
        ("set:word[0,0]=0xg", 16, WORD),
        ("set:word[0,0]=0x+1", 16, WORD),
        ("set:word[0,0]=0x100000000", 16, WORD),
        ("set:word[0,0]=0x1g", 17, NEXT),
        ("add:weight[0,0].1", 15, "`=`, then what is added"),
        ("add:weight[0,0]=", 16, "an integer of 64 bits"),
        ("add:weight[0,0]=9223372036854775808", 16, "an integer of 64 bits"),
        ("xor:word[0,0]", 13, "`=`, then the mask"),
        ("xor:word[0,0]=-1", 14, WORD),
        ("random:", 7, "`flips=` or `rate=`"),
        ("random:seed=3,flips=8", 7, "`flips=` or `rate=`"),
        ("random:flips=", 13, "a number of flips"),
        ("random:flips=-1,seed=3", 13, "a number of flips"),
        ("random:flips=18446744073709551616,seed=3", 13, "a number of flips"),
        ("random:flips=8", 14, "`,seed=`"),
        ("random:flips=1e6,seed=3", 14, "`,seed=`"),
        ("random:flips=8,seed=", 20, SEED),
        ("random:flips=8,seed=-1", 20, SEED),
        ("random:flips=8,seed=18446744073709551616", 20, SEED),
        ("random:flips=8,seed=3,", 21, NEXT),
        ("random:flips=8,seed=3,tensor=", 29, TENSOR),
        ("random:flips=8,seed=3,tensor=head", 29, TENSOR),
        ("random:flips=8,seed=3,tensor=scales,tensor=biases", 35, NEXT),
        ("random:rate=", 12, "a probability, such as 1e-6"),
        ("random:rate=nan,seed=3", 12, "a probability, such as 1e-6"),
        ("random:rate=inf,seed=3", 12, "a probability, such as 1e-6"),
        ("random:rate=1e,seed=3", 12, "a probability, such as 1e-6"),
        ("random:rate=1.5,seed=3", 12, "a probability, 0 to 1"),
        ("random:rate=-1e-9,seed=3", 12, "a probability, 0 to 1"),
        ("random:rate=1e999,seed=3", 12, "a probability, 0 to 1"),
    ];
    let mut reached = oracles::Reached::default();
    for (text, at, expected) in table {
        let error = text.parse::<Edit>().expect_err(text);
        assert_eq!(error, ParseError { text: text.to_owned(), at, expected });
        oracle::text(text, &mut reached).unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[test]
fn a_refusal_quotes_what_stands_at_the_place() {
    let message = |text: &str| text.parse::<Edit>().expect_err(text).to_string();
    assert_eq!(
        message("shift:1;shift:2"),
        "not an edit at position 7 (\";shift:2\"): expected `+` and another edit, or the end"
    );
    assert_eq!(
        message("shift:"),
        "not an edit at position 6 (the end): expected a shift, which is an integer of 64 bits"
    );
    // No more than 16 characters of it, whatever their length in bytes, and control characters escaped.
    let long = message(&format!("shift:1\n{}", "é".repeat(1000)));
    assert!(long.contains(&format!("(\"\\n{}\")", "é".repeat(15))), "{long}");
}

#[test]
fn texts_of_one_meaning_parse_to_one_edit() {
    let same = [
        ("clean+clean", "clean"),
        ("clean+shift:1", "shift:1"),
        ("shift:1+clean+shift:2+clean", "shift:1+shift:2"),
        ("shift:-0", "shift:0"),
        ("shift:0010", "shift:10"),
        ("set:word[0,0]=255", "set:word[0,0]=0xff"),
        ("xor:word[0,0]=0x00FF", "xor:word[0,0]=0xff"),
        ("random:rate=0.000001,seed=3", "random:rate=1e-6,seed=3"),
        ("random:rate=-0,seed=3", "random:rate=0e0,seed=3"),
        ("random:flips=8,seed=3,tensor=weight", "random:flips=8,seed=3"),
    ];
    for (text, printed) in same {
        assert_eq!(edit(text), edit(printed), "{text}");
        assert_eq!(edit(text).to_string(), printed);
    }
}

#[test]
fn the_texts_of_the_contract_are_printed_as_they_stand_there() {
    let texts = [
        "clean",
        "shift:1000001",
        "shift:-5",
        "shift:9223372036854775807",
        "shift:-9223372036854775808",
        "flip:weight[34,7].3",
        "flip:scales[34,0].15",
        "flip:biases[34,0].0",
        "set:weight[1,2]=9",
        "add:weight[1,2]=-1",
        "xor:word[1,2]=0x80000000",
        "set:word[1,2]=0x0",
        "random:flips=8,seed=3",
        "random:rate=1e-6,seed=3",
        "random:flips=8,seed=3,tensor=scales",
        "random:rate=1e-6,seed=3,tensor=biases",
        "flip:weight[34,7].3+shift:1",
    ];
    for text in texts {
        assert_eq!(edit(text).to_string(), text);
    }
}

#[test]
fn families_are_printed_as_they_parse() {
    let reached = Cell::new(0);
    let families = prop_oneof![
        Just(Family::Shift),
        (0..8_u32).prop_map(Family::Digit),
        any::<u64>().prop_map(Family::Flips),
        any::<u64>().prop_map(Family::Rate),
    ];
    proptest!(|(family in families)| {
        prop_assert_eq!(family.to_string().parse::<Family>(), Ok(family));
        reached.set(reached.get() + 1);
    });
    assert!(reached.get() > 0);
    for text in ["shift", "digit:0", "digit:7", "flips:18446744073709551615", "rate:0"] {
        assert_eq!(text.parse::<Family>().expect(text).to_string(), text);
    }
}

#[test]
fn a_text_that_is_no_family_is_refused_with_what_is_one() {
    for text in ["", "shift:1", "Shift", "digits:1", "digit", "flips", "rate", " shift", "shift "] {
        let error = text.parse::<Family>().expect_err(text);
        assert_eq!(error, format!("{text:?} is no family: shift, digit:K, flips:SEED or rate:SEED"));
    }
    for digit in ["8", "-1", "", "x", "4294967296"] {
        let error = format!("digit:{digit}").parse::<Family>().expect_err(digit);
        assert_eq!(error, format!("a packed word has the digits 0 to 7, not {digit:?}"));
    }
    for (text, seed) in [
        ("flips:", ""),
        ("flips:-1", "-1"),
        ("rate:1e-6", "1e-6"),
        ("rate:18446744073709551616", "18446744073709551616"),
    ] {
        assert_eq!(text.parse::<Family>().expect_err(text), format!("{seed:?} is no natural number of 64 bits"));
    }
    proptest!(|(text in any::<String>())| {
        let _ = text.parse::<Family>();
    });
}

#[test]
fn a_family_gives_its_edit_at_each_value_and_refuses_others() {
    let at = |family: &str, value| family.parse::<Family>().expect(family).edit(value);
    for value in [0, 1, -1, 1 << 32, i64::MIN, i64::MAX] {
        assert_eq!(at("shift", value), Ok(Edit::shift(value)));
    }
    for digit in 0..8 {
        for value in 0..16 {
            let shift = value * 16_i64.pow(digit);
            assert_eq!(Family::Digit(digit).edit(value), Ok(Edit::shift(shift)), "digit {digit} value {value}");
            assert!(u32::try_from(shift).is_ok(), "one hexadecimal digit of a word");
        }
        for value in [-1, 16, i64::MIN, i64::MAX] {
            assert!(Family::Digit(digit).edit(value).is_err(), "digit {digit} value {value}");
        }
    }
    assert_eq!(at("flips:3", 0), Ok(Edit::clean()));
    assert_eq!(at("flips:3", 8), Ok(edit("random:flips=8,seed=3")));
    assert_eq!(at("flips:3", -1), Err("-1 flips are fewer than none".to_owned()));
    assert_eq!(at("rate:3", 1), Err("a rate is no integer".to_owned()));
    assert_eq!(Family::Rate(3).edit_at_rate(1e-6), Ok(edit("random:rate=1e-6,seed=3")));
    for rate in [0.0, 1.0] {
        assert!(Family::Rate(3).edit_at_rate(rate).is_ok());
    }
    for rate in [-1e-9, 1.0 + 1e-9, f64::NAN, f64::INFINITY] {
        assert!(Family::Rate(3).edit_at_rate(rate).is_err(), "{rate}");
    }
    assert_eq!(Family::Shift.edit_at_rate(0.5), Err("shift takes integers".to_owned()));
}

#[test]
fn only_the_flips_of_one_order_are_nested_and_each_edit_holds_the_smaller_ones() {
    let nested = [Family::Shift, Family::Digit(0), Family::Flips(0), Family::Rate(0)].map(Family::nested);
    assert_eq!(nested, [false, false, true, false]);
    let layout = affine(7, 64, 4, 32, FloatType::F16);
    let reached = Cell::new(0);
    proptest!(|(seed in any::<u64>(), fewer in 0..=1792_i64, more in 0..=1792_i64)| {
        let expanded = |value| Family::Flips(seed).edit(value).unwrap().expand(&layout).unwrap();
        let (fewer, more) = (fewer.min(more), fewer.max(more));
        let (small, large) = (expanded(fewer), expanded(more));
        prop_assert_eq!((small.changes().len() as i64, large.changes().len() as i64), (fewer, more));
        prop_assert_eq!(small.changes(), &large.changes()[..fewer as usize]);
        reached.set(reached.get() + 1);
    });
    assert!(reached.get() > 0);
}

#[test]
fn the_shift_of_an_edit_is_that_of_one_shift_and_nothing_else() {
    for (text, shift) in [
        ("clean", None),
        ("shift:0", Some(0)),
        ("shift:-9223372036854775808", Some(i64::MIN)),
        ("shift:1+shift:2", None),
        ("set:word[0,0]=0x0", None),
    ] {
        assert_eq!(edit(text).shift_only(), shift, "{text}");
    }
}
