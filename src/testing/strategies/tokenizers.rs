//! Files of a tokenizer and chat templates, put together from what their formats offer.

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Value, json};

use super::{choose, damage::Damage, one_in, some};

/// A tokenizer with a token for each of 96 bytes, in the order of ASCII from `!`, then space and newline.
pub(crate) fn small() -> Value {
    let bytes = (b'!'..=b'~').map(char::from).chain(['Ġ', 'Ċ']);
    let vocab: Map<String, Value> = bytes.enumerate().map(|(id, c)| (c.to_string(), json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
}

/// Texts within a tokenizer: simple ones, and those at which something ends.
const TEXTS: [&str; 24] = [
    "a",
    "",
    "b",
    "ab",
    " ",
    "##",
    "é",
    "▁",
    "\u{1f600}",
    "\u{0}",
    "aaaaaaaaaaaaaaaa",
    "<s>",
    ".",
    "\\s+",
    "(a|a)*b",
    "(x+x+)+y",
    "[^a]",
    "(?=.)",
    "$",
    "\\b",
    "AAAA",
    "BAAAAAAAAAE=",
    "AAAAAA==",
    "</w>",
];
const NUMBERS: [&str; 12] =
    ["0", "1", "2", "3", "7", "96", "255", "4294967295", "4294967296", "9223372036854775807", "-1", "0.5"];

/// Parts of a tokenizer. `$s` is one of [`TEXTS`], `$n` one of [`NUMBERS`], `$b` a truth.
const NORMALIZERS: [&str; 14] = [
    "null",
    r#"{"type":"Lowercase"}"#,
    r#"{"type":"NFKD"}"#,
    r#"{"type":"Replace","pattern":{"String":$s},"content":$s}"#,
    r#"{"type":"Replace","pattern":{"Regex":$s},"content":$s}"#,
    r#"{"type":"Prepend","prepend":$s}"#,
    r#"{"type":"Strip","strip_left":$b,"strip_right":$b}"#,
    r#"{"type":"StripAccents"}"#,
    r#"{"type":"BertNormalizer","clean_text":$b,"handle_chinese_chars":$b,"strip_accents":$b,"lowercase":$b}"#,
    r#"{"type":"Precompiled","precompiled_charsmap":$s}"#,
    r#"{"type":"Nmt"}"#,
    r#"{"type":"ByteLevel"}"#,
    r#"{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":$s},{"type":"Replace","pattern":{"String":$s},"content":$s}]}"#,
    r#"{"type":"Sequence","normalizers":[]}"#,
];
const PRE_TOKENIZERS: [&str; 13] = [
    r#"{"type":"ByteLevel","add_prefix_space":$b,"trim_offsets":$b,"use_regex":$b}"#,
    "null",
    r#"{"type":"Whitespace"}"#,
    r#"{"type":"WhitespaceSplit"}"#,
    r#"{"type":"BertPreTokenizer"}"#,
    r#"{"type":"Metaspace","replacement":$s,"prepend_scheme":"always","split":$b}"#,
    r#"{"type":"CharDelimiterSplit","delimiter":$s}"#,
    r#"{"type":"Split","pattern":{"String":$s},"behavior":"Isolated","invert":$b}"#,
    r#"{"type":"Split","pattern":{"Regex":$s},"behavior":"MergedWithPrevious","invert":$b}"#,
    r#"{"type":"Punctuation","behavior":"Contiguous"}"#,
    r#"{"type":"Digits","individual_digits":$b}"#,
    r#"{"type":"UnicodeScripts"}"#,
    r#"{"type":"FixedLength","length":$n}"#,
];
const POST_PROCESSORS: [&str; 6] = [
    "null",
    r#"{"type":"BertProcessing","sep":[$s,$n],"cls":[$s,$n]}"#,
    r#"{"type":"RobertaProcessing","sep":[$s,$n],"cls":[$s,$n],"trim_offsets":$b,"add_prefix_space":$b}"#,
    r#"{"type":"ByteLevel","add_prefix_space":$b,"trim_offsets":$b,"use_regex":$b}"#,
    r#"{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":$s,"type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"<s>":{"id":"<s>","ids":[$n],"tokens":[$s]}}}"#,
    r#"{"type":"TemplateProcessing","single":[{"Sequence":{"id":"B","type_id":0}}],"pair":[],"special_tokens":{}}"#,
];
const DECODERS: [&str; 11] = [
    r#"{"type":"ByteLevel","add_prefix_space":$b,"trim_offsets":$b,"use_regex":$b}"#,
    "null",
    r#"{"type":"Fuse"}"#,
    r#"{"type":"ByteFallback"}"#,
    r#"{"type":"Strip","content":$s,"start":$n,"stop":$n}"#,
    r#"{"type":"Replace","pattern":{"String":$s},"content":$s}"#,
    r#"{"type":"Replace","pattern":{"Regex":$s},"content":$s}"#,
    r#"{"type":"WordPiece","prefix":$s,"cleanup":$b}"#,
    r#"{"type":"BPEDecoder","suffix":$s}"#,
    r#"{"type":"CTC","pad_token":$s,"word_delimiter_token":$s,"cleanup":$b}"#,
    r#"{"type":"Sequence","decoders":[{"type":"Metaspace","replacement":$s,"prepend_scheme":"first","split":$b},{"type":"Fuse"}]}"#,
];
const MODELS: [&str; 6] = [
    r#"{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"é":3,$s:$n},"merges":[["a","b"]],"byte_fallback":$b,"fuse_unk":$b}"#,
    r#"{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,$s:3},"merges":[["a",$s]],"continuing_subword_prefix":$s,"unk_token":$s}"#,
    r#"{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,$s:3},"merges":[[$s,"b"]],"end_of_word_suffix":$s,"ignore_merges":$b}"#,
    r#"{"type":"Unigram","unk_id":$n,"vocab":[["a",-1.0],[$s,$n],["b",-2.0]],"byte_fallback":$b}"#,
    r###"{"type":"WordPiece","unk_token":$s,"continuing_subword_prefix":$s,"max_input_chars_per_word":$n,"vocab":{"a":0,"##b":1,$s:2}}"###,
    r#"{"type":"WordLevel","vocab":{"a":0,"b":1,$s:$n},"unk_token":$s}"#,
];

/// One of `parts`, with what it leaves open.
fn part(u: &mut Unstructured<'_>, parts: &[&str]) -> Result<String> {
    let mut rest = choose(u, parts)?;
    let mut text = String::new();
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        match &rest[at..at + 2] {
            "$s" => text.push_str(&Value::from(choose(u, &TEXTS)?).to_string()),
            "$n" => text.push_str(choose(u, &NUMBERS)?),
            _ => text.push_str(choose(u, &["false", "true"])?),
        }
        rest = &rest[at + 2..];
    }
    Ok(text + rest)
}

/// The bytes of a `tokenizer.json`: put together from parts, some of them damaged, or any.
///
/// # Errors
/// There are none: where the bytes end, they go on as zeros.
pub(crate) fn tokenizer(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut json = small();
    let mut file = match u.int_in_range(0..=9_u8)? {
        // All that is left, so that a fuzzer's dictionary is written into the file itself.
        9 => return Ok(u.bytes(u.len())?.to_vec()),
        0 => json.to_string(),
        _ => {
            let kinds: [(&str, &[&str]); 5] = [
                ("normalizer", &NORMALIZERS),
                ("pre_tokenizer", &PRE_TOKENIZERS),
                ("post_processor", &POST_PROCESSORS),
                ("decoder", &DECODERS),
                ("model", &MODELS),
            ];
            for (key, parts) in kinds {
                if one_in(u, 2)? {
                    let text = part(u, parts)?;
                    // Numbers beyond JSON's are the only text here that is none.
                    json[key] = serde_json::from_str(&text).unwrap_or(Value::Null);
                }
            }
            if one_in(u, 3)? {
                let added =
                    r#"{"id":$n,"content":$s,"single_word":$b,"lstrip":$b,"rstrip":$b,"normalized":$b,"special":$b}"#;
                let tokens = some(u, 1, 3, |u| part(u, &[added]))?;
                let tokens = tokens.iter().filter_map(|token| serde_json::from_str::<Value>(token).ok());
                json["added_tokens"] = tokens.collect();
            }
            json.to_string()
        }
    }
    .into_bytes();
    if one_in(u, 4)? {
        some(u, 1, 2, |u| u.arbitrary::<Damage>())?.iter().for_each(|damage| damage.apply(&mut file, usize::MAX));
    }
    Ok(file)
}

/// Statements and expressions of chat templates; `$e` is an expression, `$t` more of them.
const STATEMENTS: [&str; 16] = [
    "{{ $e }}",
    "text ",
    "{% for m in messages %}$t{% endfor %}",
    "{% if $e %}$t{% elif $e %}$t{% else %}$t{% endif %}",
    "{% for x in $e %}$t{% endfor %}",
    "{% set x = $e %}",
    "{% set ns = namespace(x=$e) %}{% set ns.x = [ns.x, ns] %}",
    "{% macro f(a) %}$t{% endmacro %}{{ f($e) }}",
    "{%- generation -%}$t{%- endgeneration -%}",
    "{% for i in range(30) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}",
    "{% filter upper %}$t{% endfilter %}",
    "{{ raise_exception($e) }}",
    "{% for x in [1, [2]] recursive %}{{ loop($e) }}{% endfor %}",
    "{% with x=$e %}$t{% endwith %}",
    "{% call f($e) %}$t{% endcall %}",
    "{%",
];
const EXPRESSIONS: [&str; 32] = [
    "messages",
    "m.content",
    "m['role']",
    "x",
    "ns.x",
    "ns",
    "bos_token",
    "'a'",
    "''",
    "0",
    "9223372036854775807",
    "1.5",
    "none",
    "[$e, $e]",
    "{'a': $e}",
    "$e + $e",
    "$e ~ $e",
    "$e * $e",
    "$e % $e",
    "$e // $e",
    "$e == $e",
    "$e in $e",
    "not $e",
    "$e[$e:$e:$e]",
    "$e | tojson",
    "$e | tojson(indent=2)",
    "$e | sort | join($e)",
    "$e | string | replace($e, $e)",
    "$e.split($e)",
    "loop.cycle($e)",
    "loop.cycle()",
    "range($e)",
];

/// A chat template: put together from statements, some of them cut, or any text.
///
/// # Errors
/// As [`tokenizer`].
pub(crate) fn template(u: &mut Unstructured<'_>) -> Result<String> {
    if one_in(u, 8)? {
        return Ok(String::from_utf8_lossy(u.bytes(u.len())?).into_owned());
    }
    let mut text = String::new();
    let mut left = 40;
    let count = u.int_in_range(1..=6_u8)?;
    for _ in 0..count {
        let form = choose(u, &STATEMENTS)?;
        expand(u, form, &mut left, &mut text)?;
    }
    if one_in(u, 8)? {
        let cut = u.int_in_range(0..=text.len())?;
        text.truncate((cut..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(0));
    }
    Ok(text)
}

/// Appends `form` with what it leaves open; where nothing is `left` to be spent, with the simplest.
fn expand(u: &mut Unstructured<'_>, form: &str, left: &mut u32, text: &mut String) -> Result<()> {
    let mut rest = form;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        let forms: &[&str] = if &rest[at..at + 2] == "$e" { &EXPRESSIONS } else { &STATEMENTS };
        let simple: &[&str] = if &rest[at..at + 2] == "$e" { &["x"] } else { &["t"] };
        *left = left.saturating_sub(1);
        let form = choose(u, if *left > 0 { forms } else { simple })?;
        expand(u, form, left, text)?;
        rest = &rest[at + 2..];
    }
    text.push_str(rest);
    Ok(())
}
