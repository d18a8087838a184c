//! Sweeps, bisections, maps, campaigns, replays and comparisons, on the model inside.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Object, Run, file, records, records_of, run, without};

/// What keeps runs short: a threshold that needs no calibration, and few tokens.
const SHORT: [&str; 4] = ["--threshold", "9", "--max-tokens", "4"];

#[track_caller]
fn short(args: &[&str]) -> Run {
    run(&[args, &SHORT].concat())
}

#[track_caller]
fn json_of(args: &[&str]) -> Value {
    short(&[args, &["--format", "json"]].concat()).exits(0).json()
}

#[track_caller]
fn lines_of(args: &[&str]) -> Vec<Object> {
    records_of(&[args, &SHORT].concat())
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

const TWO_PROMPTS: [&str; 4] = ["--prompt", "What is 2+2?", "--prompt", "Hello!"];

#[test]
fn a_sweep_runs_every_value_on_every_prompt() {
    let args = ["sweep", "--family", "shift", "--values", "5,-1..1,2^30"];
    let lines = lines_of(&[&args[..], &TWO_PROMPTS].concat());
    let seen: Vec<(Value, Value, Value)> =
        lines.iter().map(|line| (line["prompt"].clone(), line["shift"].clone(), line["value"].clone())).collect();
    let expected = ["What is 2+2?", "Hello!"]
        .iter()
        .flat_map(|prompt| [5, -1, 0, 1, 1 << 30].map(|shift: i64| (json!(prompt), json!(shift), json!(shift))));
    assert_eq!(seen, expected.collect::<Vec<_>>());
    assert!(lines.iter().all(|line| line["family"] == json!("shift") && line["run"]["command"] == json!("sweep")));
    // And what probe says of the same shifts.
    let probed = lines_of(&["probe", "shift:5", "shift:-1"]);
    let measured = |record: &Object| [&record["tokens"], &record["kl_mean"], &record["verdict"]].map(Value::clone);
    assert_eq!([measured(&lines[0]), measured(&lines[1])], [measured(&probed[0]), measured(&probed[1])]);
}

#[test]
fn edits_over_several_prompts_have_a_summary() {
    let args = [&["sweep", "--family", "digit:5", "--values", "0,8"][..], &TWO_PROMPTS].concat();
    let object = json_of(&args);
    assert_eq!((&object["command"], &object["schema"]), (&json!("sweep"), &json!(1)));
    let records = list(&object["records"]);
    let summary = list(&object["summary"]);
    assert_eq!((records.len(), summary.len()), (4, 2));
    for (i, of_edit) in summary.iter().enumerate() {
        let kl = |record: &Value| record["kl_mean"].as_f64().expect("a number");
        assert_eq!(of_edit["kl_mean"], json!((kl(&records[i]) + kl(&records[i + 2])) / 2.0));
        assert_eq!((&of_edit["edit"], &of_edit["trials"]), (&records[i]["edit"], &json!(2)));
        let worst = [&records[i]["verdict"], &records[i + 2]["verdict"]];
        assert!(worst.contains(&&of_edit["median"]));
    }
    assert_eq!(summary[0]["verdicts"], json!({"HEALTHY": 2}));
    let text = short(&args).exits(0).stdout;
    assert!(text.contains("over 2 prompts") && text.contains("0/2  HEALTHY 2"), "{text}");
    // A summary over one prompt would say everything twice.
    assert!(!short(&args[..5]).exits(0).stdout.contains("over "));
}

#[test]
fn expected_answers_are_counted() {
    let lines =
        "{\"prompt\": \"What is 2+2?\", \"expected\": [\"4\"]}\n{\"prompt\": \"Hello!\", \"expected\": [\"moo\"]}\n";
    let (_folder, suite) = file("suite.jsonl", lines);
    let args = ["probe", "clean", "--threshold", "9", "--prompts", &suite];
    let object = run(&[&args[..], &["--format", "json"]].concat()).exits(0).json();
    let counts = ["right", "wrong", "wrong_but_fluent"].map(|key| object["summary"][0][key].clone());
    assert_eq!(counts, [1, 1, 1].map(|count| json!(count)));
    let text = run(&args).exits(0).stdout;
    assert!(text.contains("HEALTHY 2; 1 right, 1 wrong (1 of them fluent)"), "{text}");
}

#[test]
fn a_bisection_ends_at_neighbours_that_were_both_run() {
    let (_folder, kept) = file("run.jsonl", "");
    let args = ["bisect", "--family", "shift", "--from", "2^20", "--to", "0", "--at-least", "healthy", "--out", &kept];
    let object = json_of(&args);
    let keys = ["command", "family", "predicate", "nested", "monotone", "points", "crossings"];
    assert!(keys.iter().all(|key| object.get(key).is_some()), "{object}");
    assert_eq!((&object["family"], &object["predicate"]), (&json!("shift"), &json!("at-least HEALTHY")));
    assert_eq!((&object["nested"], &object["complete"]), (&json!(false), &json!(true)));
    let (points, crossings) = (list(&object["points"]), list(&object["crossings"]));
    let value = |point: &Value| point["value"].as_i64().expect("an integer");
    assert_eq!((value(&points[0]), value(&points[points.len() - 1])), (0, 1 << 20));
    assert!(points.is_sorted_by_key(value) && points.len() >= 18);
    assert!(!crossings.is_empty(), "nothing to look at: {object}");
    for crossing in crossings {
        let (lo, hi) = (&crossing["lo"], &crossing["hi"]);
        assert_eq!(hi.as_i64(), lo.as_i64().map(|lo| lo + 1));
        let at = |end: &Value| points.iter().find(|point| &point["value"] == end).expect("a point");
        assert_ne!(at(lo)["holds"], at(hi)["holds"]);
        assert_eq!((&at(lo)["verdict"], &at(hi)["verdict"]), (&crossing["lo_verdict"], &crossing["hi_verdict"]));
    }
    // Every point is in the journal, with what the search was for.
    let kept = records(&std::fs::read_to_string(&kept).expect("a journal"));
    let run: BTreeSet<i64> = kept.iter().map(|record| record["value"].as_i64().expect("an integer")).collect();
    assert_eq!(run, points.iter().map(value).collect());
    assert!(kept.iter().all(|record| record["run"]["predicate"] == json!("at-least HEALTHY")));
    let text = short(&args[..9]).exits(0).stdout;
    for expected in ["shift: at-least HEALTHY", "crossing", "not nested", "none of them is the threshold"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_bisection_of_nested_flips_may_ask_for_a_divergence() {
    let object = json_of(&["bisect", "--family", "flips:3", "--from", "0", "--to", "300000", "--kl", "0.25"]);
    assert_eq!((&object["nested"], &object["predicate"]), (&json!(true), &json!("kl 0.25")));
    for point in list(&object["points"]) {
        let kl = point["kl_mean"].as_f64();
        assert_eq!(point["holds"], json!(kl.is_some_and(|kl| kl <= 0.25)), "{point}");
    }
    assert!(!list(&object["crossings"]).is_empty(), "{object}");
}

#[test]
fn a_bisection_that_is_resumed_finds_the_same() {
    let (_folder, kept) = file("run.jsonl", "");
    let args = ["bisect", "--family", "digit:5", "--from", "0", "--to", "15", "--out", &kept];
    let whole = json_of(&args);
    assert_eq!(list(&whole["points"]).len(), 16);
    let text = std::fs::read_to_string(&kept).expect("a journal");
    std::fs::write(&kept, &text[..text.len() / 2]).expect("a writable file");
    let resumed = short(&[&args[..], &["--resume", "--format", "json"]].concat()).exits(0);
    assert!(resumed.stderr.contains("resuming: "), "{}", resumed.stderr);
    assert_eq!(resumed.json(), whole);
}

#[test]
fn a_map_is_eight_digits_of_sixteen_values() {
    let object = json_of(&[&["map"][..], &TWO_PROMPTS].concat());
    let cells = list(&object["cells"]);
    assert_eq!(cells.len(), 128);
    for (i, cell) in cells.iter().enumerate() {
        let (digit, value) = (i / 16, i % 16);
        assert_eq!((&cell["digit"], &cell["value"]), (&json!(digit), &json!(value)));
        assert_eq!(cell["shift"], json!((value as i64) << (4 * digit)));
        let counted: u64 = cell["verdicts"].as_object().expect("counts").values().filter_map(Value::as_u64).sum();
        assert_eq!(json!(counted), json!(2));
        assert!(cell["median"].is_string() && cell["agreement"].is_number());
        if value == 0 {
            assert_eq!((&cell["kl_mean"], &cell["median"]), (&json!(0.0), &json!("HEALTHY")));
        }
    }
    let text = short(&["map"]).exits(0).stdout;
    assert!(text.contains("median verdict over one prompt") && text.contains(" 7 (16^7)  H"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colors where there is no terminal");
}

#[test]
fn a_campaign_counts_answers_that_changed() {
    let args = ["campaign", "--flips", "0,2", "--rate", "1e-5", "--tensor", "scales", "--trials", "40"];
    let args = [&args[..], &TWO_PROMPTS].concat();
    let object = json_of(&args);
    let rows = list(&object["rows"]);
    let heads: Vec<_> =
        rows.iter().map(|row| (row["flips"].clone(), row["rate"].clone(), row["trials"].clone())).collect();
    assert_eq!(
        heads,
        [(json!(0), json!(null), json!(40)), (json!(2), json!(null), json!(40)), (json!(null), json!(1e-5), json!(40))]
    );
    assert_eq!((&rows[0]["changed"], &rows[0]["verdicts"]), (&json!(0), &json!({"HEALTHY": 40})));
    assert_eq!((&rows[0]["changed_wilson"][0], &rows[0]["stopped_early"]), (&json!(0.0), &json!(false)));
    let lines = lines_of(&args);
    for (row, of_row) in rows.iter().zip(lines.chunks(40)) {
        let changed = of_row.iter().filter(|line| line["tokens"] != line["clean"]["tokens"]).count();
        assert!(row["changed"].as_u64().expect("a count") >= changed as u64);
        // Prompts take turns.
        let prompts: Vec<&str> = of_row.iter().filter_map(|line| line["prompt"].as_str()).collect();
        assert!(prompts.chunks(2).all(|pair| pair == ["What is 2+2?", "Hello!"]));
    }
    let drawn: BTreeSet<&str> = lines[40..80].iter().filter_map(|line| line["edit"].as_str()).collect();
    assert_eq!(drawn.len(), 40, "each trial draws its own flips");
    assert!(drawn.iter().all(|edit| edit.matches("flip:scales[").count() == 2));
    // Another seed draws others; the same seed the same.
    let again = lines_of(&args);
    assert_eq!(without(&again[41], &[]), without(&lines[41], &[]));
    let other = lines_of(&[&args[..], &["--seed", "1"]].concat());
    assert_ne!(other[41]["edit"], lines[41]["edit"]);
}

#[test]
fn a_row_ends_early_once_its_interval_is_narrow() {
    let args = ["campaign", "--flips", "1", "--trials", "1000", "--half-width", "0.05"];
    let object = json_of(&args);
    let row = &object["rows"][0];
    assert_eq!((&row["trials"], &row["stopped_early"], &row["nominal"]), (&json!(100), &json!(true), &json!(true)));
    let text = short(&args).exits(0).stdout;
    assert!(text.contains("(ended early)") && text.contains("nominal"), "{text}");
    let sharded = short(&[&args[..], &["--shard", "1/2"]].concat()).exits(2);
    assert!(sharded.stderr.contains("--shard") && sharded.stderr.contains("--half-width"), "{}", sharded.stderr);
}

#[test]
fn the_parts_of_a_campaign_are_the_whole_one() {
    let (folder, whole) = file("whole.jsonl", "");
    let args = ["campaign", "--flips", "3,9", "--trials", "10"];
    short(&[&args[..], &["--out", &whole]].concat()).exits(0);
    let parts = ["1/2", "2/2"].map(|shard| {
        let part = folder.path().join(shard.replace('/', "-")).to_str().expect("Unicode").to_owned();
        short(&[&args[..], &["--shard", shard, "--out", &part]].concat()).exits(0);
        part
    });
    let merged = run(&["merge", &parts[0], &parts[1]]).exits(0).records();
    let whole = records(&std::fs::read_to_string(&whole).expect("a journal"));
    assert_eq!(whole.len(), 20);
    let strip = |records: &[Object]| records.iter().map(|record| without(record, &[])).collect::<Vec<_>>();
    assert_eq!(strip(&merged), strip(&whole));
}

#[test]
fn a_journal_is_replayed_and_compared() {
    let (folder, old) = file("old.jsonl", "");
    let new = folder.path().join("new.jsonl").to_str().expect("Unicode").to_owned();
    let system = ["--system", "Be brief.", "--prompt", "What is 2+2?", "--prompt", "Hello!"];
    let edits = ["probe", "shift:1000003", "random:flips=5,seed=2", "clean"];
    short(&[&edits[..], &system, &["--out", &old]].concat()).exits(0);
    // The prompts' ids are the journal's, system message and all.
    short(&["replay", &old, "--out", &new]).exits(0);
    let read = |path: &str| records(&std::fs::read_to_string(path).expect("a journal"));
    let strip = |records: Vec<Object>| records.iter().map(|record| without(record, &["run"])).collect::<Vec<_>>();
    assert_eq!(strip(read(&old)), strip(read(&new)));

    let same = run(&["compare", &old, &new, "--format", "json"]).exits(0).json();
    assert_eq!((&same["command"], &same["same"]), (&json!("compare"), &json!(6)));
    for none in ["changed", "only_a", "only_b"] {
        assert_eq!(same[none], json!([]));
    }
    // Given prompts take the place of the journal's; each edit is run once on each.
    let elsewhere = lines_of(&["replay", &old, "--prompt", "Hi"]);
    assert_eq!(elsewhere.len(), 3);
    let longer = run(&["replay", &old, "--threshold", "9", "--prompt", "Hi", "--max-tokens", "5"]).exits(0);
    assert!(longer.stderr.contains("--max-tokens 4 makes them alike"), "{}", longer.stderr);
    assert!(elsewhere.iter().all(|record| record["prompt"] == json!("Hi")));
}

#[test]
fn a_verdict_that_got_worse_is_exit_code_1() {
    let (folder, a) = file("a.jsonl", "");
    let b = folder.path().join("b.jsonl").to_str().expect("Unicode").to_owned();
    short(&["probe", "shift:10000000", "shift:5", "clean", "--out", &a]).exits(0);
    // A stricter rule condemns what a laxer one lets pass.
    run(&["relabel", &a, "--threshold", "0", "--out", &b]).exits(0);
    let worse = run(&["compare", &a, &b]).exits(1).stdout;
    assert!(worse.contains("threshold") && worse.contains("worse"), "{worse}");
    let better = run(&["compare", &b, &a, "--format", "json"]).exits(0).json();
    let changed = list(&better["changed"]);
    assert!(!changed.is_empty());
    for trial in changed {
        assert_eq!((&trial["a"]["edit"], &trial["b"]["edit"]), (&trial["edit"], &trial["edit"]));
        assert_eq!(trial["worse"], json!(false));
        assert_ne!(trial["a"]["coherent_tokens"], trial["b"]["coherent_tokens"]);
    }
    let lines = run(&["compare", &b, &a, "--format", "jsonl"]).exits(0).records();
    assert_eq!(lines.len(), changed.len());

    let c = folder.path().join("c.jsonl").to_str().expect("Unicode").to_owned();
    short(&["probe", "shift:2", "--out", &c]).exits(0);
    let nothing = run(&["compare", &a, &c, "--format", "json"]).exits(3);
    assert!(nothing.stderr.contains("no trial in common"), "{}", nothing.stderr);
    let object = nothing.json();
    assert_eq!((list(&object["only_a"]).len(), &object["only_b"][0]["edit"]), (3, &json!("shift:2")));
}

#[test]
fn a_recipe_is_replayed_on_the_prompts_that_it_names() {
    let recipe = json!({"schema": 1, "recipe": [
        {"edit": "shift:1", "prompt": "Hello!", "note": "hardly anything"},
        {"edit": "flip:weight[3,4].3"},
        {"edit": "shift:2", "prompt": "Hello!"},
    ]});
    let (folder, path) = file("recipe.json", recipe.to_string());
    let seen: Vec<(Value, Value)> =
        lines_of(&["replay", &path]).iter().map(|line| (line["prompt"].clone(), line["edit"].clone())).collect();
    let expected = [("Hello!", "shift:1"), ("Hello!", "shift:2"), ("What is 2+2?", "flip:weight[3,4].3")];
    assert_eq!(seen, expected.map(|(prompt, edit)| (json!(prompt), json!(edit))));
    let write = |text: &str| std::fs::write(folder.path().join("recipe.json"), text).expect("a writable file");
    write(r#"{"schema":1,"recipe":[]}"#);
    assert!(short(&["replay", &path]).exits(3).stderr.contains("holds no edit"));
    for (text, expected) in [
        (r#"{"schema":1,"recipe":[{"edit":"shift:x"}]}"#, "entry 1 of the recipe"),
        (r#"{"schema":9,"recipe":[]}"#, "schema 9"),
        (r#"{"schema":1,"recipe":[{"edit":"flip:weight[99999,0].0"}]}"#, "row 99999 is out of range"),
        ("shift:1\n", "not a recipe"),
        ("{\"trial\":1}\n", "line 1: not a record"),
    ] {
        write(text);
        let refused = short(&["replay", &path]).exits(2);
        assert!(refused.stderr.contains(expected) && refused.stdout.is_empty(), "{text}: {}", refused.stderr);
    }
}

#[test]
fn what_cannot_be_searched_is_refused_before_anything_is_run() {
    let bisect = ["bisect", "--family", "shift", "--from", "0", "--to"];
    for (args, expected) in [
        (&["sweep", "--family", "shift", "--values", "0,x"][..], "--values: \"x\" is no value"),
        (&["sweep", "--family", "shift", "--values", "1e-6"], "takes integers"),
        (&["sweep", "--family", "digit:2", "--values", "16"], "16 is no hexadecimal digit"),
        (&["sweep", "--family", "digit:9", "--values", "1"], "digits 0 to 7"),
        (&["sweep", "--family", "shift", "--values", "0..9999999"], "more than 1000000 values"),
        (&["sweep", "--family", "flips:1", "--values", "9999999"], "more than the 1572864 bits"),
        (&["sweep", "--family", "shift", "--values", "@/no/such/file"], "cannot read the values of /no/such/file"),
        (&[&bisect[..], &["0.5"]].concat(), "takes integers"),
        (&[&bisect[..], &["1,2"]].concat(), "--to: \"1,2\" is no value"),
        (&[&bisect[..], &["9", "--shard", "1/2"]].concat(), "cannot be run in parts"),
        (&[&bisect[..], &["9", "--kl", "1", "--at-least", "DEAD"]].concat(), "cannot be used with '--at-least"),
        (&["bisect", "--family", "rate:1", "--from", "0", "--to", "1.5"], "no bisection of rate:1 from 1.5"),
        (&["campaign", "--trials", "5"], "--flips <LIST>"),
        (&["campaign", "--flips", "-1"], "no number of flips"),
        (&["campaign", "--flips", "1", "--trials", "0"], "--trials"),
        (&["campaign", "--rate", "2"], "--rate: 2 is no probability"),
        (&["campaign", "--flips", "1", "--half-width", "0"], "half the width"),
        (&["compare", "/no/such/a", "/no/such/b"], "/no/such/a"),
    ] {
        let refused = if args[0] == "compare" { run(args) } else { short(args) }.exits(2);
        assert!(refused.stderr.contains(expected), "{args:?}: {}", refused.stderr);
        assert_eq!(refused.stdout, "", "{args:?}");
    }
    for empty in [&["sweep", "--family", "shift", "--values", ","][..], &["campaign", "--flips", ","]] {
        assert!(short(empty).exits(3).stderr.contains("nothing was checked"));
    }
}

#[test]
fn bounds_hold_for_every_trial_of_a_sweep_a_map_and_a_campaign() {
    short(&["sweep", "--family", "shift", "--values", "0,10000000", "--at-least", "WOBBLING"]).exits(1);
    short(&["sweep", "--family", "shift", "--values", "0", "--kl", "0"]).exits(0);
    short(&["map", "--kl", "1e-9"]).exits(1);
    short(&["campaign", "--flips", "0", "--trials", "3", "--at-least", "HEALTHY"]).exits(0);
}
