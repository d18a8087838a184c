//! The laws as properties, on inputs as wide as the contract: `PROPTEST_CASES=10000 cargo test --test laws` for more
//! of them. What once broke a law lies in `tests/regressions/` and is replayed first.

#![expect(clippy::print_stdout, reason = "a test says what it looked at")]

use lm_headroom::{
    child::Program,
    testing::{
        model::with_demo,
        oracles::{
            self, Case, Reached,
            certificate::Certified,
            checkpoint::Damaged,
            guard::Guards,
            journal::{Torn, lengths},
            kernel::Products,
            measure::Measurement,
            packing::Packing,
            parts::Joining,
            perturb::Perturbations,
            results::Stored,
            shift::Shifts,
            text::Texts,
            tokenizer::{Templating, Tokenizing, children_are},
            trie::Waves,
        },
        property::property,
        strategies::edits::SHIFTS,
        strategies::heads::WORDS,
    },
};

fn holds<C: Case>(cases: u32) {
    println!("{}: {}", C::NAME, property::<C>(cases));
}

#[test]
fn law_1_shifts_are_undone_and_add_up_and_wrap_as_the_cast_of_64_bits_does() {
    holds::<Shifts>(256);
}

#[test]
fn law_1_every_extreme_word_under_every_extreme_shift() {
    let mut reached = Reached::default();
    for word in WORDS {
        for shift in SHIFTS {
            oracles::shift::word(word, shift, &mut reached).unwrap_or_else(|violation| panic!("{violation}"));
        }
    }
    assert_eq!(reached.count("word"), 190);
}

#[test]
fn law_1_on_the_real_head_of_the_model_inside() {
    let head = with_demo(|model| {
        let view = model.subject.head().view();
        view.to_buf()
    });
    let mut reached = Reached::default();
    // Each edge with the next, and the first of all with the last.
    for (i, &a) in SHIFTS.iter().enumerate() {
        let b = SHIFTS[(i + 1) % SHIFTS.len()];
        oracles::shift::head(&head, a, b, a, &mut reached).unwrap_or_else(|violation| panic!("{violation}"));
        for word in head.weight().chunks_exact(4).take(4096).map(|word| [word[0], word[1], word[2], word[3]]) {
            oracles::shift::word(u32::from_le_bytes(word), a, &mut reached).unwrap_or_else(|v| panic!("{v}"));
        }
    }
    println!("{reached}");
    reached.require(&["word", "moved every word", "moved none", "sum wrapped", "two texts"]).expect("all of them");
}

#[test]
fn law_2_guards_restore_to_the_bit_however_they_end() {
    holds::<Guards>(256);
}

#[test]
fn law_3_measured_without_writing_is_measured_after_writing() {
    holds::<Measurement>(192);
}

#[test]
fn laws_2_and_3_on_the_whole_model_inside() {
    holds::<Perturbations>(64);
}

#[test]
fn law_4_every_kernel_gives_the_bits_of_the_specification() {
    holds::<Products>(192);
}

#[test]
fn law_5_packing_and_unpacking_are_inverse() {
    holds::<Packing>(256);
}

#[test]
fn law_6_trials_in_waves_are_trials_alone_are_the_prefill_of_the_whole_text() {
    holds::<Waves>(500);
}

#[test]
fn law_7_certificates_are_what_trying_every_set_of_flips_finds() {
    // Of thirty heads one has integers and an answer that takes four flips, and one floats and such an answer: so many that
    // they are never all missed.
    holds::<Certified>(480);
}

#[test]
fn law_8_what_is_printed_parses_and_what_does_not_parse_is_pointed_at() {
    holds::<Texts>(256);
}

#[test]
fn law_9_any_bytes_as_a_checkpoint_are_an_error_or_a_model() {
    holds::<Damaged>(6000);
}

#[test]
fn law_9_any_results_are_shown_or_refused() {
    holds::<Stored>(512);
}

#[test]
fn law_9_any_tokenizer_and_any_template_end_nothing_but_the_child_that_reads_them() {
    children_are(Program::at(env!("CARGO_BIN_EXE_headroom")));
    holds::<Tokenizing>(400);
    holds::<Templating>(400);
}

#[test]
fn law_10_a_journal_cut_at_any_byte_resumes_to_the_same_result() {
    holds::<Torn>(200);
    // And at every byte there is.
    for (length, compressed) in lengths().into_iter().zip([false, true]) {
        let (length, mut reached) = (u16::try_from(length).expect("a small journal"), Reached::default());
        for left in 0..=length {
            Torn::cut(left, compressed).check(&mut reached).unwrap_or_else(|violation| panic!("{violation}"));
        }
        println!("a journal of {length} bytes cut at each of them: {reached}");
        assert_eq!(reached.total(), u64::from(length) + 1);
    }
}

#[test]
fn law_10_any_parts_of_a_run_are_joined_in_any_order_and_what_is_missing_is_said() {
    holds::<Joining>(1000);
}
