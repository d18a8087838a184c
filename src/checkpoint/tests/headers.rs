//! Rules of the safetensors format: one test a rule, each with the file that breaks it.

use crate::{
    checkpoint::{CheckpointError, HeaderError, TensorError},
    testing::fixture::{Fixture, raw_safetensors},
};

use super::{refused, with_file};

/// What is wrong with `file` as `model.safetensors`.
#[track_caller]
fn broken(file: Vec<u8>, mentions: &[&str]) -> HeaderError {
    let error = refused(with_file(Fixture::default().files(), "model.safetensors", file), mentions);
    match error {
        CheckpointError::Tensors(TensorError::Header { file, error }) if file == "model.safetensors" => error,
        other => panic!("another error: {other}"),
    }
}

fn entry(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

fn header(entries: &[String]) -> String {
    format!("{{{}}}", entries.join(","))
}

#[test]
fn a_file_of_fewer_than_eight_bytes_is_too_short() {
    for len in 0..8 {
        assert_eq!(broken(vec![0; len], &["model.safetensors"]), HeaderError::TooShort { len });
    }
}

#[test]
fn a_header_that_reaches_beyond_the_file_is_refused_without_allocating_it() {
    for length in [1u64 << 60, u64::MAX, 1 << 32, 3] {
        let file = [&length.to_le_bytes()[..], b"{}"].concat();
        assert_eq!(broken(file, &["header"]), HeaderError::Length { length, left: 2 });
    }
}

#[test]
fn a_header_longer_than_the_format_allows_is_refused() {
    let length = 100_000_001u64;
    // Zeros that nobody reads take no memory.
    let mut file = vec![0; 8 + length as usize];
    file[..8].copy_from_slice(&length.to_le_bytes());
    assert_eq!(broken(file, &["100000001"]), HeaderError::TooLong { length });
}

#[test]
fn a_header_that_is_not_an_object_of_json_is_refused() {
    let deep = format!(r#"{{"__metadata__":{}"#, "[".repeat(100_000));
    let twice = r#"{"__metadata__":{},"__metadata__":{}}"#;
    for text in ["", "[]", "null", "{", "{}{}", &deep, twice] {
        let error = broken(raw_safetensors(text, b""), &["header"]);
        assert!(matches!(error, HeaderError::Json(_)), "{text:.20}: {error}");
    }
    broken(raw_safetensors("[]", b""), &["expected an object of tensors"]);
    broken(raw_safetensors(&header(&[entry("a", "F16", "7", 0, 2)]), b"ab"), &["expected a list of at most"]);
    let shape = format!("[{}]", ["1"; 9].join(","));
    broken(
        raw_safetensors(&header(&[entry("a", "F16", &shape, 0, 2)]), b"ab"),
        &["invalid length 9, expected a list of at most 8"],
    );
    let not_utf8 = [&3u64.to_le_bytes()[..], b"{\xff}"].concat();
    assert!(matches!(broken(not_utf8, &["header"]), HeaderError::Json(_)));
}

#[test]
fn an_entry_that_is_not_one_is_refused_by_its_name() {
    for value in [
        "3",
        "null",
        r#"{"dtype":"F16","shape":[1]}"#,
        r#"{"dtype":"F17","shape":[1],"data_offsets":[0,2]}"#,
        r#"{"dtype":"F16","shape":[-1],"data_offsets":[0,2]}"#,
        r#"{"dtype":"F16","shape":[1.0],"data_offsets":[0,2]}"#,
        r#"{"dtype":"F16","shape":[99999999999999999999],"data_offsets":[0,2]}"#,
        r#"{"dtype":"F16","shape":[1],"data_offsets":[0]}"#,
        r#"{"dtype":"F16","shape":[1],"data_offsets":[0,2,4]}"#,
        r#"{"dtype":"F16","dtype":"F16","shape":[1],"data_offsets":[0,2]}"#,
        r#"{"dtype":"F16","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,2]}"#,
    ] {
        let error = broken(raw_safetensors(&format!(r#"{{"some.weight":{value}}}"#), &[0; 2]), &["`some.weight`"]);
        assert!(matches!(error, HeaderError::Entry { .. }), "{value}: {error}");
    }
}

#[test]
fn a_tensor_that_occurs_twice_in_a_header_is_refused() {
    // Both entries are right and name the same bytes: a parser that keeps the last sees nothing.
    let once = entry("a", "F16", "[2]", 0, 4);
    let error = broken(raw_safetensors(&header(&[once.clone(), once]), &[0; 4]), &["`a`", "twice"]);
    assert_eq!(error, HeaderError::Duplicate { tensor: "a".to_owned() });
}

#[test]
fn data_that_do_not_hold_their_shape_are_refused() {
    for (dtype, shape, begin, end) in [
        ("F16", "[2]", 0, 3),
        ("F16", "[2]", 0, 8),
        ("U32", "[1,2]", 0, 4),
        ("F16", "[2]", 4, 0),
        ("F32", "[4294967296,4294967296]", 0, 0),
        ("F32", "[4611686018427387904]", 0, 0),
        ("F4", "[1]", 0, 1),
    ] {
        let error = broken(raw_safetensors(&header(&[entry("a", dtype, shape, begin, end)]), &[0; 8]), &["`a`", dtype]);
        assert!(matches!(error, HeaderError::Extent { .. }), "{dtype} {shape}: {error}");
    }
}

#[test]
fn tensors_that_overlap_are_refused_by_both_names() {
    let entries = [entry("a", "F16", "[2]", 0, 4), entry("b", "F16", "[2]", 2, 6)];
    let error = broken(raw_safetensors(&header(&entries), &[0; 6]), &["`a`", "`b`"]);
    assert_eq!(error, HeaderError::Overlap { tensor: "b".to_owned(), other: "a".to_owned() });
    let same = [entry("a", "F16", "[2]", 0, 4), entry("b", "F16", "[2]", 0, 4)];
    assert!(matches!(broken(raw_safetensors(&header(&same), &[0; 4]), &[]), HeaderError::Overlap { .. }));
}

#[test]
fn bytes_that_belong_to_no_tensor_are_refused() {
    let between = [entry("a", "F16", "[2]", 0, 4), entry("b", "F16", "[2]", 6, 10)];
    let error = broken(raw_safetensors(&header(&between), &[0; 10]), &["`b`", "2 bytes"]);
    assert_eq!(error, HeaderError::Gap { tensor: "b".to_owned(), bytes: 2 });
    let before = [entry("a", "F16", "[2]", 2, 6)];
    assert!(matches!(broken(raw_safetensors(&header(&before), &[0; 6]), &[]), HeaderError::Gap { bytes: 2, .. }));
    let after = [entry("a", "F16", "[2]", 0, 4)];
    assert_eq!(broken(raw_safetensors(&header(&after), &[0; 7]), &[]), HeaderError::Trailing { bytes: 3 });
    assert_eq!(broken(raw_safetensors("{}", &[0; 7]), &[]), HeaderError::Trailing { bytes: 7 });
}

#[test]
fn a_truncated_file_is_refused_with_the_tensor_that_is_cut() {
    let entries = [entry("a", "F16", "[2]", 0, 4), entry("b", "F16", "[2]", 4, 8), entry("c", "F16", "[2]", 8, 12)];
    let error = broken(raw_safetensors(&header(&entries), &[0; 7]), &["`b`", "5 bytes"]);
    assert_eq!(error, HeaderError::Truncated { tensor: "b".to_owned(), missing: 5 });
    // Offsets near the end of what a number holds.
    let huge = [entry("a", "U8", "[18446744073709551615]", 0, u64::MAX)];
    let error = broken(raw_safetensors(&header(&huge), &[0; 4]), &["`a`"]);
    assert!(matches!(error, HeaderError::Truncated { .. } | HeaderError::Extent { .. }));
}
