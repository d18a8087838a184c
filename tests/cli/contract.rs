//! JSON and exit codes that scripts rely on.

use lm_headroom::{coherence::Verdict, seed, testing::fixture::Fixture};
use serde_json::{Value, json};

use super::{Object, Run, file, folder, path, records, records_of, run, unsigned, without};

/// Every key of a record, in the order in which they are written.
const KEYS: [&str; 33] = [
    "schema",
    "trial",
    "model",
    "revision",
    "model_digest",
    "head_digest",
    "backend",
    "kernel",
    "prompt",
    "prompt_ids",
    "edit",
    "shift",
    "family",
    "value",
    "first_words",
    "tokens",
    "text",
    "finish",
    "verdict",
    "tags",
    "coherent_tokens",
    "threshold",
    "surprise",
    "margin",
    "kl_mean",
    "kl_p99",
    "agreement",
    "expected",
    "expected_texts",
    "documented",
    "clean",
    "run",
    "ms",
];

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).expect("finite numbers")
}

/// The clean head's first words.
fn stored_words() -> Vec<u32> {
    unsigned(&run(&["inspect", "--format", "json"]).exits(0).json()["first_words"])
}

#[test]
fn no_arguments_mean_the_seeds_ladder_on_the_demo_model() {
    let bare = run(&[]).exits(0);
    assert!(bare.stdout.contains("restored bit-identical"), "{}", bare.stdout);
    for shift in ["1,000,003", "100,000,000"] {
        assert!(bare.stdout.contains(shift), "{}", bare.stdout);
    }
    assert_eq!(bare.stdout, run(&["ladder", "--model", "demo", "--prompt", "What is 2+2?"]).exits(0).stdout);
    let records = records_of(&[]);
    let shifts: Vec<i64> = records.iter().map(|record| record["shift"].as_i64().expect("a shift")).collect();
    assert_eq!(shifts, seed::SHIFTS);
}

#[test]
fn a_record_has_every_key_of_the_contract_with_its_meaning() {
    let run = run(&["--format", "jsonl"]).exits(0);
    let words = stored_words();
    let records = run.records();
    assert_eq!(records.len(), 10);
    for (i, (record, line)) in records.iter().zip(run.stdout.lines()).enumerate() {
        let mut keys: Vec<&str> = KEYS.to_vec();
        keys.sort_by_key(|key| line.find(&format!("\"{key}\":")));
        assert_eq!(keys, KEYS, "the order in {line}");
        assert_eq!(record.len(), KEYS.len(), "{line}");

        assert_eq!((&record["schema"], &record["trial"]), (&json!(1), &json!(i)));
        assert_eq!((&record["model"], &record["revision"]), (&json!("demo"), &Value::Null));
        for digest in ["model_digest", "head_digest"] {
            let digest = record[digest].as_str().expect("a text");
            assert!(digest.len() == 64 && digest.bytes().all(|c| c.is_ascii_hexdigit()), "{digest}");
        }
        assert_eq!((&record["backend"], &record["prompt"]), (&json!("cpu"), &json!(seed::PROMPT)));
        let shift = seed::SHIFTS[i];
        assert_eq!((&record["shift"], &record["edit"]), (&json!(shift), &json!(format!("shift:{shift}"))));
        let shifted: Vec<u32> = words[..5].iter().map(|&word| (i64::from(word) - shift) as u32).collect();
        assert_eq!(unsigned(&record["first_words"]), shifted);

        let tokens = unsigned(&record["tokens"]);
        let steps = match record["finish"].as_str() {
            Some("stop") => tokens.len() + 1,
            Some("length") => 10,
            other => panic!("finish {other:?}"),
        };
        for each_step in ["surprise", "margin"] {
            let values = numbers(&record[each_step]);
            assert!(values.len() == steps && values.iter().all(|&x| x >= 0.0), "{each_step} {values:?}");
        }
        assert!(record["coherent_tokens"].as_u64().expect("a number") <= steps as u64);
        assert_eq!(tokens.is_empty(), record["text"].as_str().expect("a text").is_empty());
        record["verdict"].as_str().expect("a text").parse::<Verdict>().expect("a verdict");
        assert!(record["tags"].is_array());
        assert!(record["threshold"].as_f64().expect("a number") > 0.0);
        for measured in ["kl_mean", "kl_p99"] {
            assert!(record[measured].as_f64().expect("a number") >= 0.0);
        }
        assert!((0.0..=1.0).contains(&record["agreement"].as_f64().expect("a number")));
        assert_eq!(record["expected"], Value::Null);
        assert!(record["ms"].as_f64().expect("a number") > 0.0);
    }
}

#[test]
fn the_object_of_json_holds_the_lines_of_jsonl() {
    for args in [&["ladder", "--max-tokens", "3"][..], &["probe", "shift:1000005", "flip:scales[1,0].15"]] {
        let [object, lines] = ["json", "jsonl"].map(|format| run(&[args, &["--format", format]].concat()).exits(0));
        let object = object.json();
        assert_eq!((&object["command"], &object["schema"]), (&json!(args[0]), &json!(1)));
        let held: Vec<Object> = serde_json::from_value(object["records"].clone()).expect("records");
        let strip = |records: &[Object]| records.iter().map(|record| without(record, &[])).collect::<Vec<_>>();
        assert_eq!(strip(&held), strip(&lines.records()));
        assert!(!held.is_empty());
    }
}

#[test]
fn a_ladder_proves_that_the_head_is_restored() {
    let object = run(&["ladder", "--format", "json"]).exits(0).json();
    let digests = run(&["inspect", "--digests", "--format", "json"]).exits(0).json();
    let clean = &object["records"][0];
    let restored = json!({
        "head_digest_before": digests["head_digest"],
        "head_digest_after": digests["head_digest"],
        "identical": true,
        "text": clean["text"],
        "same_as_clean": true,
    });
    assert_eq!(object["restored"], restored);
    assert_eq!((&clean["head_digest"], &clean["model_digest"]), (&digests["head_digest"], &digests["model_digest"]));
    let keys: Vec<&String> = object.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["command", "records", "restored", "schema", "summary"]);
}

#[test]
fn documented_is_the_seeds_word_on_its_own_prompt_and_shifts_only() {
    let documented = |record: &Object| record["documented"].clone();
    let seeds: Vec<Value> = records_of(&["--max-tokens", "1"]).iter().map(documented).collect();
    let stated = seed::SHIFTS.map(|shift| json!(seed::documented(seed::PROMPT, shift).expect("a statement").name()));
    assert_eq!(seeds, stated);
    let others = records_of(&["--max-tokens", "1", "--shifts", "2,1000002,-1", "--prompt", "What is 2+2?"]);
    let elsewhere = records_of(&["--max-tokens", "1", "--shifts", "0,1,1000005", "--prompt", "What is 2 + 2?"]);
    let joined = records_of(&["probe", "clean", "shift:1+shift:0", "flip:weight[0,0].0", "--max-tokens", "1"]);
    for record in others.iter().chain(&elsewhere).chain(&joined) {
        assert_eq!(documented(record), Value::Null, "{record:?}");
    }
    assert_eq!(documented(&records_of(&["probe", "shift:1000003", "--max-tokens", "1"])[0]), json!("DYING"));
}

#[test]
fn only_a_lone_shift_is_recorded_as_one() {
    let edits = ["shift:-5", "clean", "shift:1+shift:2", "set:word[0,1]=0x0", "shift:3+add:weight[0,0]=-1"];
    let args: Vec<&str> = ["probe"].into_iter().chain(edits).chain(["--max-tokens", "1"]).collect();
    let records = records_of(&args);
    assert_eq!(records.iter().map(|record| record["edit"].clone()).collect::<Vec<_>>(), edits);
    assert_eq!(records[0]["shift"], json!(-5));
    assert!(records[1..].iter().all(|record| record["shift"].is_null()));
    assert_eq!(unsigned(&records[3]["first_words"])[1], 0);
}

#[test]
fn random_edits_are_recorded_as_the_flips_that_they_stand_for() {
    for (random, flips) in
        [("random:flips=3,seed=1", 3), ("random:flips=2,seed=9,tensor=scales", 2), ("random:flips=0,seed=1", 0)]
    {
        let record = &records_of(&["probe", random])[0];
        let expanded = record["edit"].as_str().expect("a text");
        assert_eq!(expanded.matches("flip:").count(), flips, "{expanded}");
        assert!(!expanded.contains("random"), "{expanded}");
        // And it replays without the generator.
        let again = &records_of(&["probe", expanded])[0];
        assert_eq!(without(record, &[]), without(again, &[]));
    }
}

#[test]
fn a_shift_and_the_same_one_plus_2_to_the_32_are_two_texts_with_one_effect() {
    for shift in [7, -5, 1_000_002] {
        let far = shift + (1_i64 << 32);
        let records = records_of(&["--shifts", &format!("{shift},{far},{}", shift - (1 << 32))]);
        let effect = |record: &Object| without(record, &["trial", "edit", "shift"]);
        assert!(records[1..].iter().all(|other| effect(other) == effect(&records[0])), "{shift}");
        assert_eq!(records[1]["edit"], json!(format!("shift:{far}")));
        assert_eq!(records[1]["shift"], json!(far));
    }
}

#[test]
fn shifts_reach_from_one_end_of_i64_to_the_other() {
    let list = format!("{},{},-1,0", i64::MIN, i64::MAX);
    let records = records_of(&["--shifts", &list]);
    let words: Vec<Vec<u32>> = records.iter().map(|record| unsigned(&record["first_words"])).collect();
    assert_eq!(records[0]["shift"], json!(i64::MIN));
    assert_eq!(records[1]["edit"], json!(format!("shift:{}", i64::MAX)));
    // Their low halves are 0 and 2^32 - 1.
    assert_eq!(words[0], words[3]);
    assert_eq!(words[1], words[2]);
    assert_eq!(words[2], words[3].iter().map(|word| word.wrapping_add(1)).collect::<Vec<_>>());
    assert_eq!(records[0]["verdict"], json!("HEALTHY"));
    let spaced = records_of(&["--shifts", " -1_000 ,, 5,", "--max-tokens", "1"]);
    assert_eq!(spaced.iter().map(|record| record["shift"].clone()).collect::<Vec<_>>(), [json!(-1000), json!(5)]);
}

#[test]
fn a_bound_that_does_not_hold_is_exit_code_1_with_the_records_all_the_same() {
    let clean = ["--shifts", "0", "--format", "jsonl"];
    let broken = ["--shifts", "0,10000000", "--format", "jsonl"];
    for (args, bounds, code) in [
        (clean, &["--at-least", "HEALTHY"][..], 0),
        (clean, &["--kl", "0"], 0),
        (clean, &["--kl", "0", "--at-least", "healthy"], 0),
        // A verdict of GONE without a bound is a finding.
        (broken, &[], 0),
        (broken, &["--at-least", "GONE"], 0),
        (broken, &["--at-least", "DEAD"], 1),
        (broken, &["--kl", "0.5"], 1),
        (broken, &["--kl", "inf"], 0),
        (broken, &["--kl", "0.5", "--at-least", "GONE"], 1),
    ] {
        let run = run(&[&args[..], bounds].concat()).exits(code);
        assert_eq!(run.records().len(), args[1].split(',').count());
    }
    let probe = run(&["probe", "shift:10000000", "--at-least", "WOBBLING"]).exits(1);
    assert!(probe.stdout.contains("GONE"), "{}", probe.stdout);
}

#[test]
fn a_trial_without_a_finite_divergence_meets_no_bound() {
    // A scale whose exponent is all ones: infinite, or not a number.
    let edit = "flip:scales[1,0].10+flip:scales[1,0].11+flip:scales[1,0].12+flip:scales[1,0].13+flip:scales[1,0].14";
    let zero = records_of(&["probe", "set:word[1,0]=0x0"]);
    assert_eq!(zero.len(), 1);
    for scale in ["flip:scales[1,0].14", edit] {
        let run = run(&["probe", scale, "--format", "jsonl", "--kl", "1e300"]);
        let record = &run.records()[0];
        assert_eq!(run.code, Some(i32::from(record["kl_mean"].is_null())), "{record:?}");
        if record["finish"] == json!("nonfinite") {
            assert!(record["tags"].as_array().expect("tags").contains(&json!("NONFINITE")));
        }
    }
}

#[test]
fn no_shift_at_all_is_exit_code_3() {
    for list in [",", "", " , ,"] {
        let run = run(&["ladder", "--shifts", list]).exits(3);
        assert_eq!(run.stdout, "");
        assert_eq!(run.stderr, "headroom: --shifts names no shift, so nothing was checked\n");
    }
}

#[test]
fn what_out_keeps_is_what_jsonl_prints() {
    let (_folder, kept) = file("records.jsonl", "something old, to be replaced\n");
    let run = run(&["--format", "jsonl", "--max-tokens", "2", "--out", &kept, "--force"]).exits(0);
    assert_eq!(std::fs::read_to_string(&kept).expect("a file"), run.stdout);
    for format in ["text", "json"] {
        super::run(&["probe", "shift:1", "clean", "--max-tokens", "2", "--format", format, "--out", &kept]).exits(0);
        let kept = records(&std::fs::read_to_string(&kept).expect("a file"));
        let printed = records_of(&["probe", "shift:1", "clean", "--max-tokens", "2"]);
        let strip = |records: &[Object]| records.iter().map(|record| without(record, &[])).collect::<Vec<_>>();
        assert_eq!(strip(&kept), strip(&printed));
    }
}

#[test]
fn inspect_tells_what_the_checkpoint_holds() {
    let object = run(&["inspect", "--format", "json"]).exits(0).json();
    assert_eq!((&object["command"], &object["model_type"]), (&json!("inspect"), &json!("llama")));
    assert_eq!((&object["tied"], &object["head"]), (&json!(false), &json!("lm_head")));
    assert_eq!(object["quantization"], json!({"group_size": 64, "bits": 4, "mode": "affine"}));
    assert_eq!(unsigned(&object["first_words"]).len(), 10);
    assert_eq!((&object["model_digest"], &object["head_digest"]), (&Value::Null, &Value::Null));
    let tensors = object["tensors"].as_array().expect("a list");
    let head = tensors.iter().find(|tensor| tensor["name"] == json!("lm_head.weight")).expect("the head");
    assert_eq!((&head["dtype"], &head["shape"]), (&json!("uint32"), &json!([1536, 32])));

    let fixture = Fixture { tie_word_embeddings: None, shards: 2, ..Fixture::default() };
    let folder = folder(&fixture.files());
    let tied = run(&["inspect", "--digests", "--model", path(&folder), "--format", "json"]).exits(0).json();
    assert_eq!((&tied["tied"], &tied["head"]), (&json!(true), &json!("model.embed_tokens")));
    assert_eq!(tied["model_digest"].as_str().expect("a digest").len(), 64);
    // Shorter rows than ten words are given whole.
    assert_eq!(unsigned(&tied["first_words"]).len(), 8);
    assert_eq!(tied["tensors"].as_array().expect("a list").len(), fixture.tensors().len());
}

/// The checks of `verify --format json`, all of which must hold.
fn verified(run: &Run) -> Vec<Value> {
    let object = run.json();
    assert_eq!((&object["command"], &object["holds"]), (&json!("verify"), &json!(true)));
    let checks = object["checks"].as_array().expect("a list").clone();
    for check in &checks {
        assert_eq!((&check["holds"], &check["detail"]), (&json!(true), &Value::Null), "{check}");
        assert!(check["claim"].is_string() && check["cases"].as_u64().expect("a number") > 0, "{check}");
    }
    checks
}

#[test]
fn every_way_of_restoring_holds_on_every_layout_of_a_head() {
    let checks = verified(&run(&["verify", "--format", "json"]).exits(0));
    assert!(checks.len() >= 9, "{checks:?}");
    let lines = run(&["verify", "--format", "jsonl"]).exits(0).records();
    assert_eq!(lines.iter().cloned().map(Value::Object).collect::<Vec<_>>(), checks);
    let text = run(&["verify", "--seed", "7"]).exits(0).stdout;
    assert!(text.lines().count() == checks.len() && text.lines().all(|line| line.starts_with("ok ")), "{text}");

    use lm_headroom::quant::FloatType;
    for (bits, group_size, scale_type, tied) in
        [(8, 32, FloatType::Bf16, Some(false)), (4, 64, FloatType::F32, None), (8, 64, FloatType::F16, Some(true))]
    {
        let fixture =
            Fixture { bits, group_size, scale_type, tie_word_embeddings: tied, shards: 2, ..Fixture::default() };
        let folder = folder(&fixture.files());
        for tied in ["separate", "shared"] {
            let model = ["--model", path(&folder), "--tied", tied, "--prompt-ids", "3,5,7"];
            verified(&run(&[&["verify", "--format", "json"], &model[..]].concat()).exits(0));
            let object = run(&[&["ladder", "--format", "json"], &model[..]].concat()).exits(0).json();
            assert_eq!(object["restored"]["identical"], json!(true));
            assert_eq!(object["restored"]["same_as_clean"], json!(true));
        }
    }
}
