//! Prompts become the ids that transformers gives them, on the tokenizers of real models.

#![expect(clippy::print_stdout, reason = "a test says what it looked at")]

use std::collections::BTreeMap;

use lm_headroom::{
    checkpoint::Bytes,
    testing::skipped,
    tokenizer::{Encoding, Tokenizer, TokenizerError, TokenizerFiles, check_ids},
};
use serde_json::Value;

fn read(folder: &std::path::Path, name: &str) -> Option<Bytes> {
    std::fs::read(folder.join(name)).ok().map(Bytes::new)
}

fn tokenizer(folder: &std::path::Path) -> Tokenizer {
    let [tokenizer, config, template] =
        ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"].map(|name| read(folder, name));
    let files = TokenizerFiles { tokenizer, config, template, ..TokenizerFiles::default() };
    Tokenizer::from_files(files).expect("a tokenizer")
}

#[test]
fn llama_3_asks_what_is_2_plus_2_in_seventeen_tokens() {
    let Some(folder) = std::env::var_os("HEADROOM_LLAMA3_TOKENIZER") else {
        skipped("the tokenizer of Llama 3", "HEADROOM_LLAMA3_TOKENIZER names no folder that holds it");
        return;
    };
    let tokenizer = tokenizer(folder.as_ref());
    let ids = tokenizer.encode_chat(None, "What is 2+2?").expect("ids");
    let expected =
        [128_000, 128_006, 882, 128_007, 271, 3923, 374, 220, 17, 10, 17, 30, 128_009, 128_006, 78191, 128_007, 271];
    assert_eq!(ids, expected);
    // As it is. This tokenizer.json has no post-processor that would add a bos.
    assert_eq!(tokenizer.encode_raw("What is").expect("ids"), [3923, 374]);
    assert_eq!(tokenizer.encode_raw("<|begin_of_text|>What is").expect("ids"), [128_000, 3923, 374]);
    assert_eq!(tokenizer.decode(&expected[3..8]).expect("text"), "<|end_header_id|>\n\nWhat is ");
    assert_eq!(tokenizer.eos(&[128_009], 128_256), [128_001, 128_009]);
}

#[test]
fn smollm2_prompts_become_the_ids_that_mlx_lm_gives_them() {
    let Some(models) = std::env::var_os("HEADROOM_MODELS") else {
        skipped("the tokenizer of SmolLM2", "HEADROOM_MODELS names no folder with smollm2-g64");
        return;
    };
    let tokenizer = tokenizer(&std::path::Path::new(&models).join("smollm2-g64"));
    let mut compared = 0;
    for line in include_str!("fixtures/reference/smollm2-g64.jsonl").lines() {
        let reference: Value = serde_json::from_str(line).expect("a reference");
        let ids = |key: &str| -> Vec<u32> { serde_json::from_value(reference[key].clone()).expect("ids") };
        let prompt = reference["prompt"].as_str().expect("a prompt");
        assert_eq!(tokenizer.encode_chat(None, prompt).expect("ids"), ids("prompt_ids"), "{prompt}");
        assert_eq!(tokenizer.decode(&ids("tokens")).expect("text"), reference["text"].as_str().expect("text"));
        compared += 1;
    }
    assert_eq!(compared, 60);
}

/// Bytes as tokens, one merge, two special tokens.
fn small() -> String {
    let bytes: Vec<char> = (b'!'..=b'~').map(char::from).chain(['Ġ', 'Ċ']).collect();
    let mut vocab: serde_json::Map<String, Value> =
        bytes.iter().enumerate().map(|(id, c)| (c.to_string(), Value::from(id))).collect();
    vocab.insert("Hi".to_owned(), Value::from(96));
    let special = |id: u32, content: &str| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [special(97, "<|start|>"), special(98, "<|end|>")],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": [["H", "i"]]},
    })
    .to_string()
}

fn with(config: &str, template: Option<&str>) -> Result<Tokenizer, TokenizerError> {
    let bytes = |text: &str| Bytes::new(text.as_bytes().to_vec());
    Tokenizer::from_files(TokenizerFiles {
        tokenizer: Some(bytes(&small())),
        config: Some(bytes(config)),
        template: template.map(bytes),
        ..TokenizerFiles::default()
    })
}

const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}";

#[test]
fn the_template_is_found_in_both_its_homes_and_the_file_wins() {
    let plain = serde_json::json!({"bos_token": "<|start|>", "chat_template": TEMPLATE}).to_string();
    let named = serde_json::json!({"bos_token": {"content": "<|start|>"}, "chat_template": [
        {"name": "tool_use", "template": "no"}, {"name": "default", "template": TEMPLATE}]})
    .to_string();
    for config in [&plain, &named] {
        assert_eq!(with(config, None).expect("a tokenizer").encode_chat(None, "Hi").expect("ids"), [97, 96]);
        let file = with(config, Some("{{ messages[0].content }}{{ messages[0].content }}")).expect("a tokenizer");
        assert_eq!(file.encode_chat(None, "Hi").expect("ids"), [96, 96]);
        let system = with(config, None).expect("a tokenizer").encode_chat(Some("Hi"), "!").expect("ids");
        assert_eq!(system, [97, 96, 0]);
    }
}

#[test]
fn a_template_for_tools_is_chosen_where_there_are_tools() {
    let config = serde_json::json!({"chat_template": [
        {"name": "tool_use", "template": "Hi"}, {"name": "default", "template": "!"}]});
    let tokenizer = with(&config.to_string(), None).expect("a tokenizer");
    let ids = |name: &str, value: Value| {
        let encoding = Encoding {
            variables: vec![(name.to_owned(), serde_json::from_value(value).expect("JSON"))],
            ..Encoding::default()
        };
        tokenizer.encode_chats(&encoding, &["x"]).swap_remove(0).expect("ids").ids
    };
    assert_eq!(ids("tools", serde_json::json!([{}])), [96]);
    assert_eq!(ids("tools", Value::Null), [0]);
    assert_eq!(ids("documents", serde_json::json!([{}])), [0]);
}

#[test]
fn an_answer_ends_at_tokens_of_the_vocabulary_alone() {
    let tokenizer = with(r#"{"eos_token": "<|end|>"}"#, None).expect("a tokenizer");
    assert_eq!(tokenizer.eos(&[99, 3, 98], 99), [3, 98]);
    assert_eq!(tokenizer.eos(&[3], 98), [3]);
}

#[test]
fn what_is_missing_or_broken_is_said_when_it_is_needed() {
    let none = with("{}", None).expect("a tokenizer");
    assert_eq!(none.encode_raw("Hi").expect("ids"), [96]);
    let error = none.encode_chat(None, "Hi").expect_err("there is no template").to_string();
    assert!(error.contains("--raw"), "{error}");
    let raises = with("{}", Some("{{ raise_exception('only system messages') }}")).expect("a tokenizer");
    let error = raises.encode_chat(None, "Hi").expect_err("it raises").to_string();
    assert!(error.contains("only system messages"), "{error}");
    let broken = with("{}", Some("\n{% for %}")).expect("a tokenizer");
    let error = broken.encode_chat(None, "Hi").expect_err("it does not parse").to_string();
    assert!(error.contains("line 2"), "{error}");
    assert!(matches!(with("{", None), Err(TokenizerError::File { file: "tokenizer_config.json", .. })));
    assert!(matches!(Tokenizer::from_files(TokenizerFiles::default()), Err(TokenizerError::Missing(_))));
    for bytes in [&b""[..], b"{}", b"null", &[0xff; 64]].map(<[u8]>::to_vec) {
        let files = TokenizerFiles { tokenizer: Some(Bytes::new(bytes)), ..TokenizerFiles::default() };
        assert!(matches!(Tokenizer::from_files(files), Err(TokenizerError::File { .. })));
    }
}

#[test]
fn truncation_and_padding_left_in_the_file_are_dropped_as_transformers_drops_them() {
    let mut json: Value = serde_json::from_str(&small()).expect("JSON");
    json["truncation"] =
        serde_json::json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = serde_json::json!({"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "!"});
    let tokenizer = Some(Bytes::new(json.to_string()));
    let files = TokenizerFiles { tokenizer, ..TokenizerFiles::default() };
    let ids = Tokenizer::from_files(files).expect("a tokenizer").encode_raw("HiHiHiHi").expect("ids");
    assert_eq!(ids, [96; 4]);
}

#[test]
fn ids_beyond_the_vocabulary_and_empty_prompts_are_refused() {
    assert!(check_ids(&[0, 9], 10).is_ok());
    assert!(matches!(check_ids(&[], 10), Err(TokenizerError::Empty)));
    assert!(matches!(check_ids(&[0, 10], 10), Err(TokenizerError::Id { id: 10, position: 1, vocab_size: 10 })));
}

/// Small tokenizers of many kinds, and what mlx-lm makes of texts with them; `tools/goldens/tokenizers_of_many_kinds.py`
/// writes the fixture.
#[test]
fn tokenizers_of_many_kinds_give_the_ids_that_mlx_lm_gives() {
    #[derive(serde::Deserialize)]
    struct Kind {
        name: String,
        tokenizer: Value,
        config: Value,
        map: Option<Value>,
        /// A text, its ids with special tokens where mlx-lm adds them, and its ids without.
        cases: Vec<(String, Vec<u32>, Vec<u32>)>,
    }
    let kinds: Vec<Kind> = serde_json::from_str(include_str!("fixtures/tokenizers.json")).expect("a fixture");
    let (mut equal, mut different) = (0, Vec::new());
    for Kind { name, tokenizer, config, map, cases } in &kinds {
        let bytes = |value: &Value| Bytes::new(value.to_string());
        let tokenizer = Tokenizer::from_files(TokenizerFiles {
            tokenizer: Some(bytes(tokenizer)),
            config: Some(bytes(config)),
            special_tokens: map.as_ref().map(bytes),
            template: Some(Bytes::new("{{ messages[0].content }}")),
            ..TokenizerFiles::default()
        })
        .expect(name);
        let texts: Vec<&str> = cases.iter().map(|(text, ..)| text.as_str()).collect();
        let raw = tokenizer.encode_raws(&texts);
        let chats = tokenizer.encode_chats(&Encoding::default(), &texts);
        for (((text, with, without), raw), chat) in cases.iter().zip(raw).zip(chats) {
            for (expected, ids) in [(with, raw.expect(name)), (without, chat.expect(name).ids)] {
                if ids == *expected {
                    equal += 1;
                } else {
                    different.push(format!("{name}: {text:?} is {expected:?}, here {ids:?}"));
                }
            }
        }
    }
    println!("{} tokenizers, {equal} encodings equal, {} different", kinds.len(), different.len());
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(kinds.len() >= 12 && equal > 4000);
}

/// What `tools/goldens/tokenizer_classes.py` asked transformers for.
#[derive(serde::Deserialize)]
struct Classes {
    tokenizers: BTreeMap<String, Value>,
    entries: Vec<Entry>,
}

/// A tokenizer with the files beside it.
#[derive(serde::Deserialize)]
struct Entry {
    tokenizer: String,
    /// Tokens at the end of its vocabulary that no text has.
    filling: usize,
    config: Value,
    model: Value,
    /// The class that is chosen, if mlx-lm loads it.
    class: Option<String>,
    #[serde(default)]
    named: BTreeMap<String, String>,
    #[serde(default)]
    eos: Vec<u32>,
    #[serde(default)]
    cases: Vec<Case>,
}

/// A text, its ids with special tokens where mlx-lm adds them, its ids without, and what those decode to; none where mlx-lm
/// fails.
type Case = (String, Option<Vec<u32>>, Option<Vec<u32>>, Option<String>);

fn classes() -> Classes {
    serde_json::from_str(include_str!("fixtures/tokenizer_classes.json")).expect("a fixture")
}

fn opened(tokenizer: &Value, config: &Value, model: &Value, template: &str) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_files(TokenizerFiles {
        tokenizer: Some(Bytes::new(tokenizer.to_string())),
        config: Some(Bytes::new(config.to_string())),
        model: Some(Bytes::new(model.to_string())),
        template: Some(Bytes::new(template.to_owned())),
        ..TokenizerFiles::default()
    })
}

fn filled(file: &Value, filling: usize) -> Value {
    let mut file = file.clone();
    if filling > 0 {
        let vocabulary = file["model"]["vocab"].as_object_mut().expect("an object");
        let first = vocabulary.len();
        let tokens = (first..first + filling).map(|id| (format!("filling {id}"), Value::from(id)));
        vocabulary.extend(tokens);
    }
    file
}

#[test]
fn classes_that_build_their_own_tokenizer_give_the_ids_that_mlx_lm_gives() {
    let Classes { tokenizers, entries, .. } = classes();
    let (mut equal, mut neither, mut refused, mut rebuilt, mut different) = (0, 0, 0, 0, Vec::new());
    for Entry { tokenizer: file, filling, config, model, class, named, eos, cases } in &entries {
        let name = format!("{file}, {config}, {class:?}");
        let json = &filled(&tokenizers[file], *filling);
        let tokenizer = match opened(json, config, model, "{{ messages[0].content }}") {
            Ok(tokenizer) => tokenizer,
            Err(error) if class.is_none() => {
                assert!(matches!(error, TokenizerError::File { .. }), "{name}: {error}");
                neither += 1;
                continue;
            }
            Err(error) => panic!("{name}: {error}"),
        };
        let Some(class) = class else {
            assert!(matches!(tokenizer.encode_raw("The"), Err(TokenizerError::Class(_))), "{name}");
            neither += 1;
            continue;
        };
        rebuilt += usize::from(class != "TokenizersBackend");
        assert_eq!(tokenizer.eos(&[], usize::MAX), *eos, "{name}");
        let texts: Vec<&str> = cases.iter().map(|(text, ..)| text.as_str()).collect();
        let raw = tokenizer.encode_raws(&texts);
        let chats = tokenizer.encode_chats(&Encoding::default(), &texts);
        for (((text, with, without, decoded), raw), chat) in cases.iter().zip(raw).zip(chats) {
            for (expected, ids) in [(with, raw.ok()), (without, chat.ok().map(|chat| chat.ids))] {
                match (expected, ids) {
                    (Some(expected), Some(ids)) if ids == *expected => equal += 1,
                    (None, None) => neither += 1,
                    // A gap to be filled, of which Code Llama's class makes a prompt of its own.
                    (Some(_), None) if text.contains("<FILL_ME>") => refused += 1,
                    (expected, ids) => different.push(format!("{name}: {text:?} is {expected:?}, here {ids:?}")),
                }
            }
            if let (Some(without), Some(decoded)) = (without, decoded) {
                let text = tokenizer.decode(without).expect("a text");
                if text != *decoded {
                    different.push(format!("{name}: {without:?} decode to {decoded:?}, here to {text:?}"));
                }
            }
        }
        // A template that names all tokens gives what their texts give.
        let variables: String = named.keys().map(|name| format!("{{{{ {name} }}}}")).collect();
        let texts: String = named.values().map(String::as_str).collect();
        let ids = |template| opened(json, config, model, template).expect(&name).encode_chat(None, &texts).ok();
        assert_eq!(ids(&variables), ids("{{ messages[0].content }}"), "{name}");
    }
    println!(
        "{} tokenizers, {rebuilt} of them built by their class; {equal} encodings equal, {neither} on which mlx-lm fails, too, \
         {refused} refused, {} different",
        entries.len(),
        different.len()
    );
    let first = &different[..different.len().min(20)];
    assert!(different.is_empty(), "{}", first.join("\n"));
    assert!(rebuilt > 200 && equal > 8000);
}
