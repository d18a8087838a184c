//! Chat templates by name, their variables, the date that they ask for, and the tokens that files declare.

use serde_json::{Value, json};

use super::{Files, Object, folder, path, program, records_of, run, speaking, unsigned, write};
use lm_headroom::checkpoint::Bytes;

const DATED: &str = "{{ strftime_now('%d %b %Y') }} {{ messages[0].content }}";

fn with(template: Option<&str>, files: &[(&str, Value)]) -> Files {
    let mut all = speaking(template).files();
    for (name, contents) in files {
        let text = contents.as_str().map_or_else(|| contents.to_string(), str::to_owned);
        all.insert((*name).to_owned(), Bytes::new(text.into_bytes()));
    }
    all
}

fn probe(args: &[&str]) -> Vec<Object> {
    records_of(&[&["probe", "clean", "--max-tokens", "2", "--prompt", "Hi", "--threshold", "9"], args].concat())
}

/// The text that ids of the fixture's tokenizer stand for.
fn text(ids: &Value) -> String {
    let letter = |id: u32| match id {
        94 => ' ',
        95 => '\n',
        id => char::from(b'!' + id as u8),
    };
    unsigned(ids).into_iter().map(letter).collect()
}

#[test]
fn a_template_is_chosen_by_name_and_the_names_are_told_where_none_is() {
    let named = json!({"chat_template": [
        {"name": "rag", "template": "rag {{ messages[0].content }}"}, {"name": "tool_use", "template": "tools"}]});
    let model = folder(&with(None, &[("tokenizer_config.json", named)]));
    let model = ["--model", path(&model)];
    let error = run(&[&["probe", "clean"], &model[..]].concat()).exits(2).stderr;
    assert!(error.contains("--template") && error.contains("rag, tool_use"), "{error}");
    let records = probe(&[&model[..], &["--template", "rag"]].concat());
    assert_eq!(text(&records[0]["prompt_ids"]), "rag Hi");
    let error = run(&[&["probe", "clean", "--template", "nothing"], &model[..]].concat()).exits(2).stderr;
    assert!(error.contains("\"nothing\"") && error.contains("rag, tool_use"), "{error}");
}

#[test]
fn templates_in_a_folder_of_their_own_are_named_by_their_files() {
    let model = folder(&with(Some("default {{ messages[0].content }}"), &[]));
    let more = model.path().join("additional_chat_templates");
    std::fs::create_dir(&more).expect("a folder");
    std::fs::write(more.join("rag.jinja"), "rag {{ messages[0].content }}").expect("a template");
    let model = ["--model", path(&model)];
    assert_eq!(text(&probe(&model)[0]["prompt_ids"]), "default Hi");
    assert_eq!(text(&probe(&[&model[..], &["--template", "rag"]].concat())[0]["prompt_ids"]), "rag Hi");
}

#[test]
fn template_variables_are_json_or_text_and_enable_thinking_follows_the_vocabulary() {
    let template = "{{ enable_thinking }} {{ mode | default('none') }} {{ n | tojson }}";
    let plain = folder(&with(Some(template), &[]));
    let model = ["--model", path(&plain), "--template-arg", "n={\"b\": 1, \"a\": [2]}"];
    let shown = |args: &[&str]| text(&probe(&[&model[..], args].concat())[0]["prompt_ids"]);
    assert_eq!(shown(&[]), r#"False none {"b": 1, "a": [2]}"#);
    assert_eq!(shown(&["--template-arg", "mode=fast mode"]), r#"False fast mode {"b": 1, "a": [2]}"#);
    assert_eq!(shown(&["--template-arg", "enable_thinking=true"]), r#"True none {"b": 1, "a": [2]}"#);
    for (argument, said) in [("mode", "NAME=VALUE"), ("1x=2", "no name"), ("messages=[]", "--prompt")] {
        let error = run(&["probe", "clean", "--template-arg", argument]).exits(2).stderr;
        assert!(error.contains(said), "{error}");
    }
    let mut files = speaking(Some("{{ enable_thinking }}")).files();
    let mut tokenizer: Value = serde_json::from_slice(&files["tokenizer.json"]).expect("JSON");
    // Two letters of the vocabulary become the marks.
    let vocab = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
    for (mark, letter) in [("<think>", "|"), ("</think>", "~")] {
        let id = vocab.remove(letter).expect("a letter");
        vocab.insert(mark.to_owned(), id);
    }
    files.insert("tokenizer.json".to_owned(), Bytes::new(tokenizer.to_string().into_bytes()));
    let thinking = folder(&files);
    assert_eq!(text(&probe(&["--model", path(&thinking)])[0]["prompt_ids"]), "True");
    let off = ["--model", path(&thinking), "--template-arg", "enable_thinking=false"];
    assert_eq!(text(&probe(&off)[0]["prompt_ids"]), "False");
}

#[test]
fn the_date_is_an_input_that_a_run_records_and_takes_up_again() {
    let model = folder(&with(Some(DATED), &[]));
    let model = ["--model", path(&model)];
    let dated = |args: &[&str]| probe(&[&model[..], args].concat())[0].clone();
    let record = dated(&["--date", "2024-07-26"]);
    assert_eq!(text(&record["prompt_ids"]), "26 Jul 2024 Hi");
    assert_eq!(record["run"]["date"], "2024-07-26");
    // What asks for no date records none.
    assert_eq!(records_of(&["probe", "clean", "--max-tokens", "1", "--threshold", "9"])[0]["run"].get("date"), None);

    let probe = ["probe", "clean", "shift:1", "--max-tokens", "2", "--prompt", "Hi", "--threshold", "9"];
    let at = |date: &str, args: &[&str]| {
        let all = [&probe[..], &model[..], args].concat();
        let output = program(&all).env("SOURCE_DATE_EPOCH", date).output().expect("it starts");
        super::finished(&all, output)
    };
    let journals = tempfile::TempDir::new().expect("a folder");
    let journal = |name: &str| journals.path().join(name).to_str().expect("Unicode").to_owned();
    let (first, second) = (journal("a.jsonl"), journal("b.jsonl"));
    // 2001-09-09 in UTC.
    at("1000000000", &["--out", &first]).exits(0);
    let whole = std::fs::read_to_string(&first).expect("a journal");
    assert!(whole.contains("09 Sep 2001") || whole.contains("\"date\":\"2001-09-09\""), "{whole}");
    // Cut after the first record, and continued on another day.
    let line = whole.lines().next().expect("a record");
    std::fs::write(&first, format!("{line}\n")).expect("a journal");
    at("1700000000", &["--out", &first, "--resume"]).exits(0);
    assert_eq!(std::fs::read_to_string(&first).expect("a journal").lines().count(), 2);
    // Another date that is asked for is another run, and both dates are named.
    let error =
        run(&[&probe[..], &model[..], &["--out", &first, "--resume", "--date", "2024-07-26"]].concat()).exits(2);
    assert!(error.stderr.contains("2001-09-09") && error.stderr.contains("2024-07-26"), "{}", error.stderr);

    at("1700000000", &["--out", &second]).exits(0);
    let error = run(&["merge", &first, &second]).exits(2).stderr;
    assert!(error.contains("2001-09-09") && error.contains("2023-11-14"), "{error}");
    let compared = run(&["compare", &first, &second]).stdout;
    assert!(compared.contains("date") && compared.contains("2001-09-09 -> 2023-11-14"), "{compared}");
    // A replay has the date of the journal, also on a model that the journal's ids are not of.
    let other = folder(&with(Some(&format!("{DATED}!")), &[]));
    let replayed = records_of(&["replay", &first, "--model", path(&other), "--max-tokens", "2", "--threshold", "9"]);
    assert_eq!(text(&replayed[0]["prompt_ids"]), "09 Sep 2001 Hi!");
    assert_eq!(replayed[0]["run"]["date"], "2001-09-09");
    for (date, said) in [("yesterday", "yesterday"), ("2024-13-01", "2024-13-01")] {
        assert!(run(&["probe", "clean", "--date", date]).exits(2).stderr.contains(said));
    }
    let error = at("soon", &[]).exits(2).stderr;
    assert!(error.contains("SOURCE_DATE_EPOCH"), "{error}");
}

#[test]
fn tokens_that_files_declare_are_tokens_and_variables_wherever_they_are_declared() {
    // `<` and `>` around a letter would be three tokens.
    let template = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}";
    let vocabulary = |files: &mut Files| {
        let mut tokenizer: Value = serde_json::from_slice(&files["tokenizer.json"]).expect("JSON");
        let vocab = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
        for (token, letter) in [("<s>", "|"), ("</s>", "~")] {
            let id = vocab.remove(letter).expect("a letter");
            vocab.insert(token.to_owned(), id);
        }
        files.insert("tokenizer.json".to_owned(), Bytes::new(tokenizer.to_string().into_bytes()));
    };
    let (bos, eos) = (u32::from(b'|' - b'!'), u32::from(b'~' - b'!'));
    let expected = [bos, u32::from(b'H' - b'!'), u32::from(b'i' - b'!'), eos];
    let token = |content: &str| json!({"content": content, "special": true});
    for (name, contents) in [
        ("tokenizer_config.json", json!({"bos_token": "<s>", "eos_token": "</s>"})),
        ("tokenizer_config.json", json!({"bos_token": token("<s>"), "eos_token": token("</s>")})),
        ("special_tokens_map.json", json!({"bos_token": "<s>", "eos_token": token("</s>")})),
        (
            "tokenizer_config.json",
            json!({"bos_token": "<s>", "eos_token": "</s>",
            "added_tokens_decoder": {bos.to_string(): token("<s>"), eos.to_string(): token("</s>")}}),
        ),
    ] {
        let mut files = with(Some(template), &[(name, contents.clone())]);
        vocabulary(&mut files);
        let model = folder(&files);
        let records = probe(&["--model", path(&model)]);
        assert_eq!(unsigned(&records[0]["prompt_ids"]), expected, "{name}: {contents}");
    }
    // Extra tokens of a model's own, in a list or with a name.
    for contents in [json!({"extra_special_tokens": {"mark_token": "<s>"}}), json!({"mark_token": "<s>"})] {
        let mut files = with(Some("{{ mark_token }}{{ messages[0].content }}"), &[("tokenizer_config.json", contents)]);
        vocabulary(&mut files);
        let model = folder(&files);
        assert_eq!(unsigned(&probe(&["--model", path(&model)])[0]["prompt_ids"]), expected[..3]);
    }
    let mut files = with(
        Some("<s>{{ messages[0].content }}"),
        &[("tokenizer_config.json", json!({"additional_special_tokens": ["<s>"]}))],
    );
    vocabulary(&mut files);
    let model = folder(&files);
    assert_eq!(unsigned(&probe(&["--model", path(&model)])[0]["prompt_ids"]), expected[..3]);
    // One that the vocabulary does not have never becomes other ids.
    let files = with(
        Some("<new>{{ messages[0].content }}"),
        &[("tokenizer_config.json", json!({"additional_special_tokens": ["<new>"]}))],
    );
    let error = run(&["probe", "clean", "--model", path(&folder(&files))]).exits(2).stderr;
    assert!(error.contains("beyond the model's vocabulary"), "{error}");
}

#[test]
fn line_ends_of_other_systems_are_line_ends_in_either_home_of_a_template() {
    let template = "{{ messages[0].content }}\r\nx\r\n{%- if tools is iterable and tools | length > 0 %}T{% endif %}";
    let model = folder(&with(Some(template), &[]));
    assert_eq!(text(&probe(&["--model", path(&model)])[0]["prompt_ids"]), "Hi\nx");
    let model = folder(&with(None, &[("tokenizer_config.json", json!({"chat_template": template}))]));
    assert_eq!(text(&probe(&["--model", path(&model)])[0]["prompt_ids"]), "Hi\nx");
    // The same files written over one another: nothing is left of a template that was there.
    write(model.path(), &with(Some("y"), &[]));
    assert_eq!(text(&probe(&["--model", path(&model)])[0]["prompt_ids"]), "y");
}
