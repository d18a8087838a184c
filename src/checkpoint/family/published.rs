//! What each key of a configuration does, for configurations as mlx-lm writes them.
//!
//! `tests/fixtures/published.jsonl` has the configurations, and for each key that mlx-lm reads what it takes where the key is absent.
//! `tests/fixtures/published_keys.txt` has what a change of each key does: for each of some other values, and last for no value at
//! all, whether the same is computed (`=`), something else (`~`), or the configuration is refused (`!`). It is written anew with
//! `HEADROOM_WRITE_FAMILIES=1`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
};

use serde_json::{Map, Value, json};

use crate::checkpoint::config::Config;

const PUBLISHED: &str = include_str!("../../../tests/fixtures/published.jsonl");
const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/published_keys.txt");

/// Name, configuration, and the keys that mlx-lm reads in it and in its `text_config`: none, or what each is where it is absent.
fn published() -> Vec<(String, Value, [Map<String, Value>; 2])> {
    let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let name = line["name"].as_str().expect("a name").to_owned();
        (name, line["config"].clone(), [object(&line["keys"]), object(&line["text_keys"])])
    };
    PUBLISHED.lines().map(line).collect()
}

/// All that a configuration asks for, or why it is refused.
fn read(config: &Value) -> Result<String, String> {
    let parsed = Config::parse(config.to_string().as_bytes()).map_err(|error| error.to_string())?;
    Ok(format!("{:?} {:?} {:?}", parsed.family.name, parsed.architecture, parsed.eos_token_ids))
}

/// `config` with the value at `place`, a JSON pointer, replaced, or taken out.
fn with(config: &Value, place: &str, value: Option<Value>) -> Value {
    let mut config = config.clone();
    let (object, key) = place.rsplit_once('/').expect("a pointer");
    // A list is changed as a whole.
    let object = config.pointer_mut(object).and_then(Value::as_object_mut);
    match value {
        Some(value) => object.and_then(|object| object.insert(key.to_owned(), value)),
        None => object.and_then(|object| object.remove(key)),
    };
    config
}

/// Keys of which mlx-lm takes another value than the default of its class where they are absent, and why this is so.
const NOT_THE_DEFAULT: &[(&str, &str, &str)] = &[
    ("gemma3", "/vocab_size", "the size in `text_config` serves where there is none beside it"),
    ("gemma3", "/text_config/num_attention_heads", "the outer class puts 8 there"),
    ("gemma3", "/text_config/num_key_value_heads", "the outer class puts 4 there"),
    ("gemma4", "/vocab_size", "the size in `text_config` serves where there is none beside it"),
    ("mistral3", "/text_config/tie_word_embeddings", "the outer class puts false there"),
    ("mellum", "/rope_parameters", "the default has no layer type, with which mlx-lm fails"),
];

#[test]
fn a_key_that_is_absent_is_what_mlx_lm_takes_it_for() {
    let (mut compared, mut excepted) = (0, BTreeSet::new());
    for (name, config, keys) in published() {
        for (object, keys) in ["", "/text_config"].into_iter().zip(keys) {
            for (key, default) in keys {
                let place = format!("{object}/{key}");
                // Where mlx-lm asks for a key there is nothing to compare.
                let Some(default) = default.as_array().expect("none or one").first() else { continue };
                let absent = read(&with(&config, &place, None));
                let there = read(&with(&config, &place, Some(default.clone())));
                // A key may be asked for here that has a default there, and a default may be one that does not fit the rest.
                if let (Ok(absent), Ok(there)) = (absent, there) {
                    let family = config["model_type"].as_str().expect("a family");
                    if NOT_THE_DEFAULT.iter().any(|&(of, at, _)| (of, at) == (family, &*place)) {
                        assert_ne!(absent, there, "{name}: {place} is no exception");
                        excepted.insert((family.to_owned(), place));
                    } else {
                        assert_eq!(absent, there, "{name}: {place}");
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(compared > 600 && excepted.len() == NOT_THE_DEFAULT.len(), "{compared} {excepted:?}");
}

/// Every place of a configuration that is no object, with its value.
fn places(value: &Value, place: &str, found: &mut Vec<(String, Value)>) {
    match value.as_object() {
        Some(object) => object.iter().for_each(|(key, value)| places(value, &format!("{place}/{key}"), found)),
        None => found.push((place.to_owned(), value.clone())),
    }
}

/// Other values of the same kind.
fn others(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => vec![json!(1), json!(true)],
        Value::Bool(value) => vec![json!(!value)],
        Value::Number(number) => match number.as_u64() {
            Some(number) => vec![json!(2 * number + 2), json!(number / 2)],
            None => vec![json!(1.5 * number.as_f64().expect("a number"))],
        },
        Value::String(text) => vec![json!(format!("{text}_")), json!("gelu"), json!("sigmoid")],
        Value::Array(list) => vec![list.iter().skip(1).cloned().collect(), list.iter().rev().cloned().collect()],
        Value::Object(_) => Vec::new(),
    }
}

#[test]
fn each_key_does_what_it_did() {
    let mut text = String::new();
    for (name, config, keys) in published() {
        let plain = read(&config).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut all = Vec::new();
        places(&config, "", &mut all);
        for (object, keys) in ["", "/text_config"].into_iter().zip(keys) {
            for (key, default) in keys {
                let place = format!("{object}/{key}");
                if config.pointer(&place).is_none() && default != json!([]) {
                    all.push((place, default[0].clone()));
                }
            }
        }
        let mut by_outcome = BTreeMap::<_, Vec<String>>::new();
        for (place, value) in all {
            let outcome = |value| match read(&with(&config, &place, value)) {
                Ok(read) if read == plain => '=',
                Ok(_) => '~',
                Err(_) => '!',
            };
            let changed = others(&value).into_iter().map(Some).chain([None]).map(outcome).collect::<String>();
            by_outcome.entry(changed).or_default().push(place);
        }
        text += &format!("{name}\n");
        for (outcome, places) in by_outcome {
            text += &format!("  {outcome} {}\n", places.join(" "));
        }
    }
    if env::var_os("HEADROOM_WRITE_FAMILIES").is_some() {
        fs::write(KEYS, &text).expect("the file of outcomes");
    }
    let stored = fs::read_to_string(KEYS).expect("the file of outcomes");
    for (then, now) in stored.lines().zip(text.lines()) {
        assert_eq!(then, now, "was, is");
    }
    assert_eq!(stored.len(), text.len());
}
