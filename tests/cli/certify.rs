//! `certify` from outside.

use super::*;

#[test]
fn a_certificate_has_the_keys_of_the_contract() {
    let certificate = run(&["certify", "--format", "json", "--within", "word", "--silence-eos", "--toward", "5"]);
    let object = certificate.exits(0).json();
    assert_eq!((&object["command"], &object["schema"]), (&json!("certify"), &json!(1)));
    let answer = &object["answers"][0];
    assert_eq!(answer["prompt"], "What is 2+2?");
    // What was certified for this model by trying, in the library's own tests.
    assert_eq!((&answer["finish"], &answer["least_flips"]), (&json!("stop"), &json!(2)));
    assert_eq!(answer["total_bits"], 1536 * 256 * 4);
    let positions = answer["positions"].as_array().expect("positions");
    assert_eq!(positions.len(), answer["tokens"].as_array().expect("tokens").len() + 1);
    for (index, at) in positions.iter().enumerate() {
        assert_eq!(at["index"], index);
        for key in ["token", "rival", "margin", "least_flips", "witness", "critical", "undecided"] {
            assert!(!at[key].is_null(), "{key} of {at}");
        }
        assert_eq!(at["witness_changes"], true, "{at}");
    }
    for key in ["critical_bits", "undecided_bits", "vulnerability", "by_bit_position", "protection", "weakest"] {
        assert!(!answer[key].is_null(), "{key}");
    }
    for part in ["scales", "biases"] {
        assert!(answer[part]["critical_bits"].as_u64() > Some(0) && answer[part]["total_bits"] == 1536 * 4 * 16);
    }
    let single = &answer["single_bits"];
    for part in ["scales", "biases"] {
        assert_eq!(single[part]["critical"], answer[part]["critical_bits"]);
    }
    assert_eq!(
        (&single["weight"]["critical"], &single["weight"]["total"]),
        (&answer["critical_bits"], &answer["total_bits"])
    );
    let sum = |key: &str| {
        ["weight", "scales", "biases"].iter().map(|part| single[part][key].as_u64().expect("a count")).sum::<u64>()
    };
    for key in ["critical", "undecided", "total"] {
        assert_eq!(single["all"][key], sum(key));
    }
    assert!(single["finding"].as_str().expect("a sentence").contains("scales and biases are"), "{single}");
    assert_eq!(answer["failures"], json!([]));
    assert!(object["suite"]["words"].is_array() && object["suite"]["protection"].is_array());
    assert_eq!((&answer["within"]["unit"], &answer["toward"]["token"]), (&json!("word"), &json!(5)));
    assert_eq!(answer["silence_eos"]["steps"], 10);
}

#[test]
fn lines_are_answers_and_then_what_they_have_in_common() {
    let lines = run(&["certify", "--format", "jsonl", "--prompt", "What is 2+2?", "--prompt", "What is 3+3?"]).exits(0);
    let lines: Vec<Value> = lines.stdout.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[0]["prompt"], &lines[1]["prompt"]), (&json!("What is 2+2?"), &json!("What is 3+3?")));
    assert_eq!(lines[2]["suite"]["answers"], 2);
}

#[test]
fn text_says_what_was_certified_and_what_happened() {
    let text = run(&["certify", "--within", "line", "--toward", "text:4"]).exits(0).stdout;
    for part in ["least flips   2: no single flip", "run, it says", "single flips", "one line", "make \"4\" the first"]
    {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert!(!text.contains("NOT"), "{text}");
    // All tensors side by side, before anything else is said of the answer.
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.contains("->")).skip(1).collect();
    for (line, part) in
        lines.iter().zip(["single bits   weight: ", "scales: ", "biases: ", "scales and biases are ", "least flips"])
    {
        assert!(line.trim_start().starts_with(part), "{part:?} is not where it should be in:\n{text}");
    }
}

#[test]
fn witnesses_are_kept_as_a_recipe_whose_edits_change_the_answer() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("recipe.json");
    let path = path.to_str().expect("UTF-8");
    run(&["certify", "--out", path, "--format", "json"]).exits(0);
    let recipe: Value = serde_json::from_slice(&fs::read(path).expect("a recipe")).expect("JSON");
    assert_eq!(recipe["schema"], 1);
    let first = &recipe["recipe"][0];
    assert_eq!(first["prompt"], "What is 2+2?");
    let edit = first["edit"].as_str().expect("an edit");
    let probe = run(&["probe", edit, "--threshold", "9", "--format", "json"]).exits(0).json();
    assert_ne!(probe["records"][0]["text"], "2 + 2 is 4.");
}

#[test]
fn a_search_for_collapse_stands_beside_random_flips() {
    let args = ["certify", "--collapse", "48", "--trials", "20", "--threshold", "9", "--format", "json"];
    let object = run(&args).exits(0).json();
    let collapse = &object["collapse"];
    assert!(!collapse["path"].as_array().expect("moves").is_empty());
    assert_eq!((&collapse["random"]["flips"], &collapse["random"]["trials"]), (&collapse["flips"], &json!(20)));
    assert_eq!(collapse["reached"], true, "{collapse}");
    assert!(["DEAD", "GONE"].contains(&collapse["median"].as_str().expect("a verdict")));
    let edit = collapse["edit"].as_str().expect("an edit");
    let probe = run(&["probe", edit, "--threshold", "9", "--format", "json"]).exits(0).json();
    assert_eq!(probe["records"][0]["verdict"], collapse["median"]);
}

#[test]
fn what_cannot_be_certified_is_refused_with_the_reason() {
    let folder = TempDir::new().expect("a folder");
    let tied = Fixture { tie_word_embeddings: Some(true), ..Fixture::default() };
    for (name, bytes) in tied.files() {
        fs::write(folder.path().join(name), &*bytes).expect("a file");
    }
    let model = folder.path().to_str().expect("UTF-8");
    let refused = run(&["certify", "--model", model, "--prompt-ids", "1,3", "--tied", "shared"]).exits(2);
    assert!(refused.stderr.contains("--tied separate"), "{}", refused.stderr);
    run(&["certify", "--model", model, "--prompt-ids", "1,3"]).exits(0);

    let beyond = run(&["certify", "--toward", "9999999"]).exits(2);
    assert!(beyond.stderr.contains("beyond the model's vocabulary"), "{}", beyond.stderr);
    let several = run(&["certify", "--toward", "several tokens at once"]).exits(2);
    assert!(several.stderr.contains("is not one token"), "{}", several.stderr);
}

#[test]
fn nothing_certified_is_said_with_an_exit_code_of_its_own() {
    let folder = TempDir::new().expect("a folder");
    let fixture = Fixture::default();
    let mut tensors = fixture.tensors();
    tensors.get_mut("lm_head.scales").expect("scales").data[..2].copy_from_slice(&0x7c00_u16.to_le_bytes());
    for (name, bytes) in lm_headroom::testing::fixture::files_of(&fixture.config(), &tensors, 1) {
        fs::write(folder.path().join(name), &*bytes).expect("a file");
    }
    let model = folder.path().to_str().expect("UTF-8");
    let none = run(&["certify", "--model", model, "--prompt-ids", "1,3", "--format", "json"]).exits(3);
    assert!(none.stderr.contains("not finite at step 0"), "{}", none.stderr);
    assert_eq!(none.json()["refused"].as_array().expect("prompts").len(), 1);
}
