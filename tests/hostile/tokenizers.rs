//! `tokenizer.json`: regular expressions, normalizers, decoders and tables of a stranger.

use serde_json::{Value, json};

use super::{Input, all_are_refused, tokenizer};

const FILE: &str = "tokenizer.json";

/// A tokenizer that differs from an honest one in the value of one key.
fn with(what: impl Into<String>, key: &str, value: &Value) -> Input {
    Input::new(what).file(FILE, tokenizer(|json| json[key] = value.clone()))
}

/// A tokenizer whose model differs from an honest one in some keys.
fn with_model(what: impl Into<String>, change: impl FnOnce(&mut Value)) -> Input {
    Input::new(what).file(FILE, tokenizer(|json| change(&mut json["model"])))
}

fn sequence(parts: &str, list: &[Value]) -> Value {
    json!({"type": "Sequence", parts: list})
}

fn replace(pattern: &Value, content: &str) -> Value {
    json!({"type": "Replace", "pattern": pattern, "content": content})
}

fn added(id: u64, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
           "special": true})
}

/// Bytes as base 64.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let bits = part.iter().enumerate().fold(0u32, |bits, (i, &byte)| bits | u32::from(byte) << (16 - 8 * i));
        for i in 0..4 {
            let digit = char::from(DIGITS[(bits >> (18 - 6 * i)) as usize & 63]);
            text.push(if i <= part.len() { digit } else { '=' });
        }
    }
    text
}

#[test]
fn text_that_is_no_tokenizer_is_refused() {
    let n = 100_000;
    let honest = String::from_utf8(tokenizer(|_| {})).expect("JSON");
    let texts: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("null", b"null".to_vec()),
        ("an empty object", b"{}".to_vec()),
        ("a number", b"1e999".to_vec()),
        ("a list", b"[]".to_vec()),
        ("zeros", vec![0; 4096]),
        ("no UTF-8", vec![0xff; 4096]),
        ("UTF-16", honest.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("a mark of the order of bytes", [b"\xef\xbb\xbf", honest.as_bytes()].concat()),
        ("half of itself", honest.as_bytes()[..honest.len() / 2].to_vec()),
        ("itself twice", honest.repeat(2).into_bytes()),
        ("100,000 brackets", "[".repeat(n).into_bytes()),
        ("100,000 objects in objects", "{\"a\":".repeat(n).into_bytes()),
        ("a megabyte of digits", format!("{{\"version\":{}}}", "9".repeat(1 << 20)).into_bytes()),
        ("a version that does not exist", honest.replace("\"1.0\"", "\"9.0\"").into_bytes()),
        ("escape sequences", b"{\"version\":\"\\u001b[2J\\u202e\\r\\nheadroom: error: forged\"}".to_vec()),
        ("a key with escape sequences", b"{\"\\u001b[2J\\u202e\\r\\n\":1}".to_vec()),
    ];
    let input =
        |(what, text): (&str, Vec<u8>)| Input::new(format!("{what} as a tokenizer")).file(FILE, text).says(&[FILE]);
    type Made = fn() -> Vec<u8>;
    let large: [(&str, Made); 4] = [
        ("a text", || format!("{{\"version\":\"{}\"}}", "x".repeat(30_000_000)).into_bytes()),
        ("a list", || format!("{{\"added_tokens\":[{}0]}}", "0,".repeat(5_000_000)).into_bytes()),
        ("lists", || format!("{{\"model\":[{}0]}}", "[],".repeat(3_000_000)).into_bytes()),
        ("spaces", || [" ".repeat(30_000_000).as_bytes(), b"{"].concat()),
    ];
    let large = large
        .map(|(what, make)| Input::new(format!("megabytes of {what} as a tokenizer")).large(FILE, make).says(&[FILE]));
    all_are_refused(texts.into_iter().map(input).chain(large).collect());
}

#[test]
fn normalizers_end_nothing_but_the_child() {
    let mut inputs = Vec::new();
    // A precompiled map has the length of a trie, the trie, and texts that it points into.
    let trie = |units: &[u32], texts: &[u8]| {
        let units: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        base64(&[&(units.len() as u32).to_le_bytes()[..], &units, texts].concat())
    };
    let all_over: Vec<u32> = (0..1024u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
    for (what, map) in [
        ("empty", String::new()),
        ("of three bytes", base64(&[1, 2, 3])),
        ("longer than it is", base64(&u32::MAX.to_le_bytes())),
        ("of an odd length", base64(&[5, 0, 0, 0, 1, 2, 3, 4, 5])),
        ("without a trie", trie(&[], b"x\0")),
        ("of one unit", trie(&[0], b"")),
        ("of units that lead nowhere", trie(&[u32::MAX; 256], b"x\0")),
        ("of units all over", trie(&all_over, b"x\0")),
        ("that leads to itself", trie(&[1 << 10; 1024], b"")),
        ("of leaves beyond its texts", trie(&[0x8000_0100; 1024], b"x\0")),
        ("of texts that are not UTF-8", trie(&[0x8000_0000; 512], &[0xff; 64])),
        ("of texts that do not end", trie(&[0x8000_0001; 512], b"xxxx")),
        ("that is no base 64", "%%%".to_owned()),
    ] {
        let map = json!({"type": "Precompiled", "precompiled_charsmap": map});
        inputs.push(with(format!("a precompiled map {what}"), "normalizer", &map).says(&[FILE]).may_run());
    }
    let (a, ten) = (json!({"String": "a"}), "a".repeat(10));
    let prepend = json!({"type": "Prepend", "prepend": "aaaaaaaaaa"});
    let growing = |n| sequence("normalizers", &[&[prepend.clone()][..], &vec![replace(&a, &ten); n]].concat());
    for n in [8, 12, 40] {
        inputs.push(with(format!("{n} replacements of one by ten"), "normalizer", &growing(n)).says(&[FILE]));
    }
    let empty = |content: &str| replace(&json!({"String": ""}), content);
    inputs.push(with("nothing replaced by something", "normalizer", &empty("xx")).says(&[FILE]).may_run());
    inputs.push(
        with("nothing replaced by a megabyte", "normalizer", &empty(&"x".repeat(1 << 20))).says(&[FILE]).may_run(),
    );
    let prepends = vec![json!({"type": "Prepend", "prepend": "x".repeat(1000)}); 100_000];
    inputs.push(with("100,000 times prepended", "normalizer", &sequence("normalizers", &prepends)).says(&[FILE]));
    let slow = replace(&json!({"Regex": "(x+x+)+y|(.*)*$|([a-zA-Z?+ ]+)*="}), "z");
    inputs.push(with("a normalizer that backtracks", "normalizer", &slow).says(&[FILE]).may_run());
    let long =
        ["ladder", "--model", "{folder}", "--raw", "--shifts", "0", "--threshold", "9", "--prompt", &"x".repeat(60)];
    let slow = replace(&json!({"Regex": "(?:x|xx)+y"}), "z");
    inputs.push(with("a normalizer that backtracks on a long text", "normalizer", &slow).args(&long).says(&[FILE]));
    let slow = json!({"type": "Split", "pattern": {"Regex": "(?:x|xx)+y"}, "behavior": "Isolated", "invert": false});
    inputs.push(with("a split that backtracks on a long text", "pre_tokenizer", &slow).args(&long).says(&[FILE]));
    let many = vec![json!({"type": "NFKD"}); 200_000];
    inputs.push(with("200,000 normalizers", "normalizer", &sequence("normalizers", &many)).says(&[FILE]).may_run());
    for depth in [30, 60, 120] {
        let nested = (0..depth).fold(json!({"type": "NFC"}), |inner, _| sequence("normalizers", &[inner]));
        inputs.push(with(format!("a normalizer {depth} deep"), "normalizer", &nested).says(&[FILE]).may_run());
    }
    for pattern in [
        "(",
        "[",
        "a{99999}{99999}{99999}",
        "(?<n>a|b\\g<n>c)*",
        "\\p{No}\\p{Such}",
        "(?i)ß{1,99999}",
        "\\1\\2\\99",
        "(?<=a*)b",
    ] {
        let input =
            with(format!("the regular expression {pattern}"), "normalizer", &replace(&json!({"Regex": pattern}), ""));
        inputs.push(input.says(&[FILE]).may_run());
    }
    let deep = format!("{}a{}", "(".repeat(50_000), ")".repeat(50_000));
    inputs.push(with("50,000 groups", "normalizer", &replace(&json!({"Regex": deep}), "")).says(&[FILE]).may_run());
    let unknown = json!({"type": "NoSuch"});
    inputs.push(with("a normalizer that does not exist", "normalizer", &unknown).says(&[FILE]));
    all_are_refused(inputs);
}

#[test]
fn pre_tokenizers_and_post_processors_end_nothing_but_the_child() {
    let mut inputs = Vec::new();
    let split = |pattern: &str, behavior: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": false});
    for (what, pre) in [
        ("pieces of a fixed length of 0", json!({"type": "FixedLength", "length": 0})),
        ("pieces of a fixed length of 2^63", json!({"type": "FixedLength", "length": 9_223_372_036_854_775_807_u64})),
        ("a split that backtracks", split("(x+x+)+y|(.*)*$|([^=]+)*=", "Isolated")),
        ("a split that backtracks by looking behind", split("(?:(?:[^=]*)*)*(?=[^ ]{200})=", "Removed")),
        ("a split at nothing", split("", "MergedWithNext")),
        ("a split at every place", split("(?=.)|(?<=.)|$|^", "Isolated")),
        (
            "a metaspace of nothing",
            json!({"type": "Metaspace", "replacement": "", "prepend_scheme": "always", "split": true}),
        ),
        (
            "a metaspace of many",
            json!({"type": "Metaspace", "replacement": "\u{1f468}\u{200d}\u{1f469}", "prepend_scheme": "first", "split": true}),
        ),
        ("a delimiter of nothing", json!({"type": "CharDelimiterSplit", "delimiter": ""})),
        ("a behavior that does not exist", split("a", "Exploded")),
        ("100,000 pre-tokenizers", sequence("pretokenizers", &vec![split("\\s|(?=.)", "Isolated"); 100_000])),
    ] {
        inputs.push(with(what, "pre_tokenizer", &pre).says(&[FILE]).may_run());
    }
    let template = |single: &[Value], special: &Value| json!({"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special});
    let token = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    let of = |ids: &[u64], tokens: &[&str]| json!({"<s>": {"id": "<s>", "ids": ids, "tokens": tokens}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    for (what, post) in [
        ("a special token that is not there", template(&[token("<s>"), text.clone()], &json!({}))),
        ("special tokens in a cycle", template(&[token("<s>"), token("<s>"), text.clone()], &of(&[1, 2], &["a"]))),
        ("special tokens with more ids than names", template(&[token("<s>"), text.clone()], &of(&[1, 2, 3], &[]))),
        (
            "special tokens beyond the vocabulary",
            template(&[token("<s>"), text.clone()], &of(&[4_294_967_295], &["x"])),
        ),
        ("the second text alone", template(&[json!({"Sequence": {"id": "B", "type_id": 0}})], &json!({}))),
        ("the text twice", template(&[text.clone(), text.clone(), token("<s>")], &of(&[1], &["x"]))),
        ("no text", template(&[], &json!({}))),
        ("the text 10,000 times", template(&vec![text; 10_000], &json!({}))),
        (
            "a post-processor of BERT",
            json!({"type": "BertProcessing", "sep": ["no", 4_294_967_295_u64], "cls": ["no", 4_294_967_294_u64]}),
        ),
        (
            "a post-processor of RoBERTa",
            json!({"type": "RobertaProcessing", "sep": ["", 4_294_967_295_u64], "cls": ["", 0], "trim_offsets": true, "add_prefix_space": true}),
        ),
        (
            "a post-processor with an id of 2^64",
            json!({"type": "BertProcessing", "sep": ["no", 1e20], "cls": ["no", 0]}),
        ),
    ] {
        let input = with(format!("a post-processor with {what}"), "post_processor", &post).says(&["token"]).may_run();
        // Special tokens are added to raw text alone.
        inputs.push(input.args(&["ladder", "--model", "{folder}", "--raw", "--shifts", "0", "--threshold", "9"]));
    }
    all_are_refused(inputs);
}

#[test]
fn decoders_that_fire_during_a_run_end_nothing_but_the_child() {
    let mut inputs = Vec::new();
    let grow = |n: usize| {
        let all = replace(&json!({"Regex": "."}), &"a".repeat(100));
        sequence("decoders", &vec![all; n])
    };
    for n in [5, 20] {
        inputs.push(
            with(format!("a decoder that grows a hundred times, {n} times"), "decoder", &grow(n))
                .says(&[FILE, "decoding"]),
        );
    }
    let strip = |start: u64, stop: u64, content: &str| json!({"type": "Strip", "content": content, "start": start, "stop": stop});
    for (what, decoder) in [
        ("strips more than there is", strip(1_000_000, 1_000_000, "!")),
        ("strips from both ends", strip(3, 3, "a")),
        ("strips 2^63", strip(9_223_372_036_854_775_807, 9_223_372_036_854_775_807, "x")),
        ("strips a letter of four bytes", strip(1, 1, "\u{1f600}")),
        ("backtracks", replace(&json!({"Regex": "(([^=]*)*)*=|(x+x+)+y"}), "z")),
        ("replaces nothing by a megabyte", replace(&json!({"String": ""}), &"x".repeat(1 << 20))),
        ("of CTC without a pad", json!({"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": true})),
        ("of WordPiece without a prefix", json!({"type": "WordPiece", "prefix": "", "cleanup": true})),
        ("of BPE without a suffix", json!({"type": "BPEDecoder", "suffix": ""})),
        (
            "of a metaspace of nothing",
            json!({"type": "Metaspace", "replacement": "", "prepend_scheme": "always", "split": true}),
        ),
        ("falls back to bytes", json!({"type": "ByteFallback"})),
        ("is 200,000 decoders", sequence("decoders", &vec![json!({"type": "Fuse"}); 200_000])),
        ("does not exist", json!({"type": "NoSuch"})),
    ] {
        inputs.push(with(format!("a decoder that {what}"), "decoder", &decoder).says(&[FILE]).may_run());
    }
    // Fires on an answer, or on a prompt as ids, which is decoded, too.
    let slow = replace(&json!({"Regex": "(?:[^=]|[^=][^=])+="}), "z");
    let ids = vec!["64"; 60].join(",");
    fn run<'a>(args: &[&'a str]) -> Vec<&'a str> {
        [&["ladder", "--model", "{folder}", "--threshold", "9", "--shifts", "0"], args].concat()
    }
    for (when, args) in
        [("a long answer", run(&["--max-tokens", "60"])), ("a prompt as ids", run(&["--prompt-ids", &ids]))]
    {
        let input = with(format!("a decoder that backtracks on {when}"), "decoder", &slow).args(&args);
        inputs.push(input.says(&[FILE]).may_run());
    }
    let input =
        with("a decoder that grows on a prompt as ids", "decoder", &grow(20)).args(&run(&["--prompt-ids", &ids]));
    inputs.push(input.says(&[FILE, "decoding"]));
    // What an answer's tokens are is known: the fixture's tokens are single bytes.
    let first = strip(2, 2, "!");
    inputs.push(with("a strip decoder on single letters", "decoder", &first).says(&[FILE]).may_run());
    for depth in [30, 120] {
        let nested = (0..depth).fold(json!({"type": "Fuse"}), |inner, _| sequence("decoders", &[inner]));
        inputs.push(with(format!("a decoder {depth} deep"), "decoder", &nested).says(&[FILE]).may_run());
    }
    all_are_refused(inputs);
}

#[test]
fn models_and_added_tokens_end_nothing_but_the_child() {
    let mut inputs = Vec::new();
    let set = |key: &'static str, value: Value| move |model: &mut Value| model[key] = value;
    let suffixed = |key: &'static str, value: &'static str| {
        move |model: &mut Value| {
            model[key] = json!(value);
            model["merges"] = json!([["a", "b"], ["é", "a"], ["a", "é"]]);
            for (id, piece) in ["ab", "é", "éa", "aé", "a", "b"].into_iter().enumerate() {
                model["vocab"][piece] = json!(id);
            }
        }
    };
    for (what, input) in [
        ("a BPE prefix of two letters", with_model("", suffixed("continuing_subword_prefix", "##"))),
        ("a BPE prefix of one letter of two bytes", with_model("", suffixed("continuing_subword_prefix", "é"))),
        ("a BPE prefix longer than its pieces", with_model("", suffixed("continuing_subword_prefix", "abcdefghijk"))),
        ("a BPE suffix", with_model("", suffixed("end_of_word_suffix", "</w>"))),
        ("merges of what is not there", with_model("", set("merges", json!([["no", "such"]])))),
        ("merges of one part", with_model("", set("merges", json!([["a"]])))),
        ("merges of three parts", with_model("", set("merges", json!(["a b c"])))),
        ("merges that are numbers", with_model("", set("merges", json!([1, 2, 3])))),
        ("a dropout of 2", with_model("", set("dropout", json!(2.0)))),
        ("a dropout that is negative", with_model("", set("dropout", json!(-1.0)))),
        ("a dropout of almost all", with_model("", set("dropout", json!(0.999_999)))),
        ("an unknown token that is not there", with_model("", set("unk_token", json!("<no such>")))),
        ("ids beyond 32 bits", with_model("", set("vocab", json!({"a": 4_294_967_296_u64})))),
        ("ids up to 32 bits", with_model("", set("vocab", json!({"a": 4_294_967_295_u64, "b": 4_294_967_295_u64})))),
        ("ids that are negative", with_model("", set("vocab", json!({"a": -1})))),
        ("ids that all are one", with_model("", set("vocab", json!({"a": 0, "b": 0, "c": 0})))),
        ("no vocabulary", with_model("", set("vocab", json!({})))),
        ("a model that does not exist", with_model("", set("type", json!("GPT")))),
    ] {
        let named = Input { name: what.to_owned(), ..input };
        inputs.push(named.says(&["token"]).may_run());
    }
    let huge = "1".repeat(400);
    let models = [
        ("a unigram model without pieces", json!({"type": "Unigram", "unk_id": null, "vocab": []})),
        (
            "a unigram model whose unknown piece is not there",
            json!({"type": "Unigram", "unk_id": 7, "vocab": [["a", -1.0]]}),
        ),
        (
            "a unigram model without an unknown piece",
            json!({"type": "Unigram", "unk_id": null, "vocab": [["a", -1.0]]}),
        ),
        ("a unigram model of empty pieces", json!({"type": "Unigram", "unk_id": 0, "vocab": [["", 0.0], ["", 0.0]]})),
        (
            "a unigram model with huge scores",
            json!({"type": "Unigram", "unk_id": 0, "vocab": [["a", 1e308], ["W", -1e308], ["h", 1e308]]}),
        ),
        (
            "a unigram model with bytes",
            json!({"type": "Unigram", "unk_id": 0, "vocab": [["<0x00>", 0.0]], "byte_fallback": true}),
        ),
        (
            "a WordPiece model without words",
            json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": {}}),
        ),
        (
            "a WordPiece model with endless words",
            json!({"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "", "max_input_chars_per_word": 18_446_744_073_709_551_615_u64, "vocab": {"a": 0}}),
        ),
        (
            "a WordPiece model with a prefix of a megabyte",
            json!({"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "x".repeat(1 << 20), "max_input_chars_per_word": 100, "vocab": {"a": 0, "W": 1}}),
        ),
        (
            "a WordLevel model without its unknown word",
            json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "<no such>"}),
        ),
        (
            "a WordLevel model of ids that are far apart",
            json!({"type": "WordLevel", "vocab": {"a": 0, "<unk>": 4_294_967_295_u64}, "unk_token": "<unk>"}),
        ),
        ("a WordLevel model with a word of digits", json!({"type": "WordLevel", "vocab": {huge: 1}, "unk_token": "a"})),
    ];
    for (what, model) in models {
        inputs.push(with(what, "model", &model).says(&["token"]).may_run());
    }
    let token = |change: &dyn Fn(&mut Value)| {
        let mut token = added(1, "What");
        change(&mut token);
        token
    };
    for (what, tokens) in [
        ("an added token of nothing", json!([added(1, "")])),
        ("an added token of an id of 2^32 - 1", json!([added(4_294_967_295, "What")])),
        ("an added token of an id of 2^32", json!([added(4_294_967_296, "What")])),
        ("two added tokens of one id", json!([added(1, "What"), added(1, "is")])),
        ("an added token of a megabyte", json!([added(1, &"x".repeat(1 << 20))])),
        ("an added token of escape sequences", json!([added(1, "\u{1b}[2J\u{202e}")])),
        ("an added token without flags", json!([{"id": 1, "content": "What"}])),
        ("an added token of a single word", json!([token(&|token| token["single_word"] = json!(true))])),
        (
            "an added token with spaces",
            json!([token(&|token| {
                token["lstrip"] = json!(true);
                token["rstrip"] = json!(true);
            })]),
        ),
        ("an added token that is normalized", json!([token(&|token| token["normalized"] = json!(true))])),
        ("100,000 added tokens", (0..100_000).map(|id| added(id, &format!("<{id}>"))).collect()),
        ("100,000 added tokens that begin alike", (0..3000).map(|id| added(id, &"a".repeat(id as usize))).collect()),
    ] {
        inputs.push(with(what, "added_tokens", &tokens).says(&["token"]).may_run());
    }
    for (what, key, value) in [
        (
            "a truncation to nothing",
            "truncation",
            json!({"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 9}),
        ),
        (
            "a padding to 2^62",
            "padding",
            json!({"strategy": {"Fixed": 1_u64 << 62}, "direction": "Right", "pad_to_multiple_of": 0, "pad_id": 0, "pad_type_id": 0, "pad_token": "!"}),
        ),
    ] {
        inputs.push(with(what, key, &value).says(&[FILE]).may_run());
    }
    // An honest tokenizer, asked for a text that no prompt is.
    let long = "x".repeat(100_000);
    let args = ["ladder", "--model", "{folder}", "--raw", "--shifts", "0", "--threshold", "9", "--prompt", &long];
    let slow = with("a prompt of 100,000 letters through a model that merges all", "pre_tokenizer", &Value::Null);
    inputs.push(slow.args(&args[..6]).may_run());
    all_are_refused(inputs);
}
