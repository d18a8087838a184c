//! The same question gives the same bytes, whatever computes the answer.

use lm_headroom::{kernels::Kernel, quant::FloatType, testing::fixture::Fixture};

use super::{folder, path, run};

/// Lines of `--format jsonl` up to `ms`, which is the last key, and with the kernel's name taken out.
fn lines(args: &[&str], kernel: &str) -> Vec<String> {
    let run = run(&[args, &["--format", "jsonl"]].concat()).exits(0);
    let name = format!("\"kernel\":\"{kernel}\"");
    let line = |line: &str| {
        let (line, ms) = line.rsplit_once(",\"ms\":").expect("the last key");
        assert!(ms.trim_end_matches('}').parse::<f64>().is_ok(), "{ms}");
        assert!(line.contains(&name), "{line}");
        line.replace(&name, "")
    };
    run.stdout.lines().map(line).collect()
}

/// Holds one run against those with other kernels and numbers of threads, and against itself; the number of runs.
fn every_way_gives_the_same(args: &[&str]) -> usize {
    let best = Kernel::best().name();
    let first = lines(args, best);
    assert!(!first.is_empty());
    assert_eq!(lines(args, best), first, "run twice");
    let mut runs = 2;
    for kernel in Kernel::available() {
        for threads in ["1", "2", "5"] {
            let way = ["--kernel", &kernel.to_string(), "--threads", threads];
            assert_eq!(lines(&[args, &way].concat(), kernel.name()), first, "{way:?}");
            runs += 1;
        }
    }
    runs
}

const EDITS: [&str; 4] =
    ["shift:1000004", "random:flips=40,seed=2", "flip:scales[3,0].13+shift:-7", "set:word[0,0]=0x0+clean"];

#[test]
fn neither_threads_nor_kernels_change_a_byte_on_the_demo_model() {
    let prompts = ["--max-tokens", "4", "--prompt", "What is 2+2?", "--prompt", "Hello!"];
    let runs = every_way_gives_the_same(&[&["probe"], &EDITS[..], &prompts].concat());
    assert_eq!(runs, 2 + 3 * Kernel::available().len());
}

#[test]
fn neither_threads_nor_kernels_change_a_byte_on_other_layouts() {
    for (bits, scale_type, tied, embedding) in
        [(8, FloatType::Bf16, Some(false), "separate"), (4, FloatType::F32, None, "shared")]
    {
        let fixture = Fixture {
            vocab_size: 93,
            hidden_size: 96,
            num_attention_heads: 6,
            num_key_value_heads: 3,
            bits,
            scale_type,
            tie_word_embeddings: tied,
            ..Fixture::default()
        };
        let folder = folder(&fixture.files());
        let model = ["--model", path(&folder), "--tied", embedding, "--prompt-ids", "4,92,0,17,17"];
        every_way_gives_the_same(&[&["probe"], &EDITS[..], &model].concat());
    }
}
