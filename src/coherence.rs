//! From a trajectory to a verdict: pure functions of what was measured.
//!
//! # The rule
//!
//! `T` steps were generated, the eos step included. Step `i` (from 0) has surprise `s_i = -ln p` under the
//! *clean* model given the edited model's own prefix, and is *surprising* if not `s_i <= theta`. With `loop` the
//! number of steps up to the end of the first repetition, where the answer falls into a loop and the clean answer falls
//! into none (else `T`):
//!
//! ```text
//! c = min(loop, first i with not (s_i <= theta), T)
//! ```
//!
//! is the *coherent prefix*. A loop is a block of `n` tokens, 1 <= n <= 8, that stands at least three times in a row; of
//! several, the one whose first repetition ends first counts.
//!
//! A wrong word need not be the end: "Greece is the opposite of early." An answer *recovers* if it is in no loop, at
//! least half of its steps are not surprising, and what follows the last surprising one has a mean surprise not above
//! the ordinary, `mu`.
//!
//! With `D` the mean divergence over the clean trajectory, in nats, the first line that holds is the verdict:
//!
//! ```text
//! GONE        T = 0, or a logit that is not finite at the first step
//! HEALTHY     tokens and finish as clean; or c = T and D < 0.01
//! WOBBLING    c = T
//! DYING       2 c >= T; or it recovers
//! COLLAPSING  c > 2
//! DEAD        c >= 1
//! GONE        otherwise
//! ```
//!
//! An answer that a non-finite logit cut short counts that step as one more, which is surprising.
//! `theta` and `mu` belong to a model and a length of answers: [`crate::search::calibrate`] takes them from the clean
//! model's own answers. Where a threshold was given instead, there is no `mu`, and nothing recovers.
//! (0.01 nats is less than going from 6 to 5 bits costs on llama.cpp's scale of divergences.)

use serde::{Deserialize, Serialize};

/// How well an answer holds together; the better of two verdicts is the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// The answer is the clean one, or as good as it.
    Healthy,
    /// The answer is another one, and coherent to its end.
    Wobbling,
    /// The answer is coherent for at least half of its steps, or recovers.
    Dying,
    /// The answer is coherent for three steps or more, but for less than half.
    Collapsing,
    /// The answer is coherent for one or two steps.
    Dead,
    /// The answer is not coherent even at the first step, or a logit is not finite.
    Gone,
}

impl Verdict {
    /// All verdicts, the best first.
    pub const ALL: [Self; 6] = [Self::Healthy, Self::Wobbling, Self::Dying, Self::Collapsing, Self::Dead, Self::Gone];

    /// The name in capitals.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::Wobbling => "WOBBLING",
            Self::Dying => "DYING",
            Self::Collapsing => "COLLAPSING",
            Self::Dead => "DEAD",
            Self::Gone => "GONE",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Verdict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|verdict| verdict.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{text:?} is no verdict: {names}")
        })
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model chose an eos.
    Stop,
    /// The answer has as many tokens as were asked for.
    Length,
    /// A logit was not finite.
    Nonfinite,
}

/// A property of an answer that its verdict does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Tag {
    /// The answer repeats itself where the clean answer does not.
    Loop,
    /// The answer is surprising early on, but recovers before its end.
    Recovers,
    /// The clean answer ends in an eos, and this answer does not.
    NeverEnds,
    /// The answer is coherent to its end, but it is not what was expected.
    WrongButFluent,
    /// The answer has letters of a script that neither the prompt nor the clean answer has.
    ScriptSwitch,
    /// A logit was not finite.
    Nonfinite,
}

/// Divergence in nats below which a coherent answer counts as healthy.
pub(crate) const HEALTHY_DIVERGENCE: f64 = 0.01;

/// Longest block of tokens whose repetition is looked for.
const LONGEST_BLOCK: usize = 8;

/// What was measured of one answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence<'a> {
    /// Generated tokens, without the eos.
    pub tokens: &'a [u32],
    /// Why it ended.
    pub finish: Finish,
    /// The clean model's tokens.
    pub clean_tokens: &'a [u32],
    /// Why the clean answer ended.
    pub clean_finish: Finish,
    /// Surprise of each step under the clean model, in nats, the eos step included.
    pub surprise: &'a [f64],
    /// Mean divergence over the clean trajectory, in nats; `None` or NaN where it is not finite.
    pub divergence: Option<f64>,
    /// The threshold `theta`, in nats.
    pub threshold: f64,
    /// The ordinary surprise `mu`, in nats; `None` where no answer can recover.
    pub ordinary: Option<f64>,
    /// The prompt.
    pub prompt: &'a str,
    /// The response.
    pub text: &'a str,
    /// The clean response.
    pub clean_text: &'a str,
    /// Whether the response holds what was expected, where something was.
    pub right: Option<bool>,
}

/// A verdict and what it came from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Judgement {
    /// The label.
    pub verdict: Verdict,
    /// Length of the coherent prefix, in steps.
    pub coherent_steps: usize,
    /// What the label does not say.
    pub tags: Vec<Tag>,
}

/// Judges one answer by the rule above.
pub(crate) fn judge(evidence: &Evidence<'_>) -> Judgement {
    let cut_short = evidence.finish == Finish::Nonfinite;
    let steps = evidence.surprise.len() + usize::from(cut_short);
    let surprised = evidence.surprise.iter().position(|&surprise| !within(surprise, evidence.threshold));
    let looped = first_loop(evidence.tokens, evidence.clean_tokens);
    let recovers = looped.is_none() && !cut_short && recovers(evidence);
    let coherent = surprised.unwrap_or(evidence.surprise.len()).min(looped.unwrap_or(usize::MAX));

    let as_clean = (evidence.tokens, evidence.finish) == (evidence.clean_tokens, evidence.clean_finish);
    let close = evidence.divergence.is_some_and(|divergence| divergence < HEALTHY_DIVERGENCE);
    let verdict = if evidence.surprise.is_empty() {
        Verdict::Gone
    } else if as_clean || (coherent == steps && close) {
        Verdict::Healthy
    } else if coherent == steps {
        Verdict::Wobbling
    } else if 2 * coherent >= steps || recovers {
        Verdict::Dying
    } else if coherent > 2 {
        Verdict::Collapsing
    } else if coherent >= 1 {
        Verdict::Dead
    } else {
        Verdict::Gone
    };

    let fluent = coherent == steps && steps > 0;
    let tags = [
        (Tag::Loop, looped.is_some()),
        (Tag::Recovers, verdict == Verdict::Dying && 2 * coherent < steps),
        (Tag::NeverEnds, evidence.clean_finish == Finish::Stop && evidence.finish == Finish::Length),
        (Tag::WrongButFluent, fluent && evidence.right == Some(false)),
        (Tag::ScriptSwitch, switches_script(evidence.text, [evidence.prompt, evidence.clean_text])),
        (Tag::Nonfinite, cut_short),
    ];
    let tags = tags.into_iter().filter_map(|(tag, holds)| holds.then_some(tag)).collect();
    Judgement { verdict, coherent_steps: coherent, tags }
}

/// Whether a surprise does not exceed a threshold; one that is not a number exceeds every one.
fn within(surprise: f64, threshold: f64) -> bool {
    surprise <= threshold
}

/// Whether an answer recovers after its surprising steps.
fn recovers(evidence: &Evidence<'_>) -> bool {
    let Some(ordinary) = evidence.ordinary else { return false };
    let surprising = |surprise: &f64| !within(*surprise, evidence.threshold);
    let Some(last) = evidence.surprise.iter().rposition(surprising) else { return false };
    let (count, after) = (evidence.surprise.iter().filter(|s| surprising(s)).count(), &evidence.surprise[last + 1..]);
    2 * (evidence.surprise.len() - count) >= evidence.surprise.len()
        && !after.is_empty()
        && within(after.iter().sum::<f64>() / after.len() as f64, ordinary)
}

/// Steps up to the end of the first repetition of a loop in `tokens`, if it has one and `clean` has none.
fn first_loop(tokens: &[u32], clean: &[u32]) -> Option<usize> {
    let first = |tokens: &[u32]| {
        let repeats = |&(_, start, n): &(usize, usize, usize)| {
            tokens.get(start..start + 3 * n).is_some_and(|run| run[..2 * n] == run[n..])
        };
        let blocks = (1..=LONGEST_BLOCK).flat_map(|n| (0..tokens.len()).map(move |start| (start + 2 * n, start, n)));
        blocks.filter(repeats).map(|(end, ..)| end).min()
    };
    first(tokens).filter(|_| first(clean).is_none())
}

/// Writing systems, told apart coarsely: well enough to see that an answer leaves the one of its prompt.
fn script(c: char) -> Option<u8> {
    if !c.is_alphabetic() {
        return None;
    }
    Some(match c as u32 {
        0..=0x024f | 0x1e00..=0x1eff | 0x2c60..=0x2c7f | 0xa720..=0xa7ff | 0xff21..=0xff5a => 0, // Latin
        0x0370..=0x03ff | 0x1f00..=0x1fff => 1,                                                  // Greek
        0x0400..=0x052f | 0x1c80..=0x1c8f | 0x2de0..=0x2dff => 2,                                // Cyrillic
        0x0590..=0x05ff => 3,                                                                    // Hebrew
        0x0600..=0x06ff | 0x0750..=0x077f | 0x08a0..=0x08ff => 4,                                // Arabic
        0x0900..=0x097f => 5,                                                                    // Devanagari
        0x0e00..=0x0e7f => 6,                                                                    // Thai
        0x3040..=0x30ff | 0x31f0..=0x31ff => 7,                                                  // Kana
        0x1100..=0x11ff | 0x3130..=0x318f | 0xac00..=0xd7af => 8,                                // Hangul
        0x2e80..=0x2fdf | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff => 9, // Han
        _ => 10,
    })
}

fn switches_script(text: &str, known: [&str; 2]) -> bool {
    let known: Vec<u8> = known.iter().flat_map(|text| text.chars()).filter_map(script).collect();
    text.chars().filter_map(script).any(|script| !known.contains(&script))
}

/// Whether one of `expected` occurs in `text`, case folded; `None` if nothing was expected.
pub fn right(text: &str, expected: &[String]) -> Option<bool> {
    let text = text.to_lowercase();
    (!expected.is_empty()).then(|| expected.iter().any(|expected| text.contains(&expected.to_lowercase())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: [u32; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

    /// Ten tokens of which the first `coherent` are not surprising.
    fn evidence(surprise: &[f64]) -> Evidence<'_> {
        const OTHER: [u32; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11];
        Evidence {
            tokens: &OTHER[..surprise.len()],
            finish: Finish::Length,
            clean_tokens: &CLEAN,
            clean_finish: Finish::Length,
            surprise,
            divergence: Some(0.5),
            threshold: 9.0,
            ordinary: None,
            prompt: "What?",
            text: "That.",
            clean_text: "This.",
            right: None,
        }
    }

    fn verdict_at(coherent: usize) -> Verdict {
        let mut surprise = [1.0; 10];
        surprise[coherent..].fill(12.0);
        judge(&evidence(&surprise)).verdict
    }

    #[test]
    fn the_coherent_prefix_decides_the_verdict() {
        use Verdict::{Collapsing, Dead, Dying, Gone, Wobbling};
        let verdicts: Vec<Verdict> = (0..=10).map(verdict_at).collect();
        let expected = [Gone, Dead, Dead, Collapsing, Collapsing, Dying, Dying, Dying, Dying, Dying, Wobbling];
        assert_eq!(verdicts, expected);
    }

    #[test]
    fn an_answer_as_the_clean_one_is_healthy_however_surprising() {
        let surprise = [20.0; 10];
        let same = Evidence { tokens: &CLEAN, ..evidence(&surprise) };
        assert_eq!(judge(&same).verdict, Verdict::Healthy);
        // The same tokens, but it did not end where the clean one ended.
        assert_ne!(judge(&Evidence { clean_finish: Finish::Stop, ..same }).verdict, Verdict::Healthy);
    }

    #[test]
    fn a_coherent_answer_is_healthy_only_below_the_divergence_of_rounding() {
        let surprise = [1.0; 10];
        let at = |divergence| judge(&Evidence { divergence, ..evidence(&surprise) }).verdict;
        assert_eq!(at(Some(0.0099)), Verdict::Healthy);
        assert_eq!(at(Some(0.01)), Verdict::Wobbling);
        assert_eq!(at(Some(f64::NAN)), Verdict::Wobbling);
        assert_eq!(at(None), Verdict::Wobbling);
    }

    #[test]
    fn the_threshold_itself_is_coherent_and_no_number_is_not() {
        assert_eq!(judge(&evidence(&[9.0; 10])).coherent_steps, 10);
        assert_eq!(judge(&evidence(&[9.000_001; 10])).coherent_steps, 0);
        assert_eq!(judge(&evidence(&[f64::NAN; 10])).coherent_steps, 0);
        assert_eq!(judge(&evidence(&[f64::INFINITY; 10])).verdict, Verdict::Gone);
    }

    #[test]
    fn nothing_generated_is_gone() {
        let none = Evidence { tokens: &[], finish: Finish::Nonfinite, ..evidence(&[]) };
        assert_eq!(judge(&none).verdict, Verdict::Gone);
        assert_eq!(judge(&none).tags, [Tag::Nonfinite]);
        // Not even where the clean model says nothing, either.
        let both = Evidence { clean_tokens: &[], clean_finish: Finish::Nonfinite, ..none };
        assert_eq!(judge(&both).verdict, Verdict::Gone);
        // No step is no fluent one.
        let silent = Evidence { tokens: &[], right: Some(false), ..evidence(&[]) };
        assert_eq!((judge(&silent).verdict, judge(&silent).tags), (Verdict::Gone, vec![]));
    }

    #[test]
    fn an_answer_that_is_cut_short_is_not_coherent_to_its_end() {
        let cut = Evidence { finish: Finish::Nonfinite, ..evidence(&[1.0; 4]) };
        assert_eq!((judge(&cut).coherent_steps, judge(&cut).verdict), (4, Verdict::Dying));
    }

    #[test]
    fn an_eos_alone_is_judged_by_its_surprise() {
        let stop = Evidence { tokens: &[], finish: Finish::Stop, ..evidence(&[1.0]) };
        assert_eq!(judge(&stop).verdict, Verdict::Wobbling);
        let stop = Evidence { tokens: &[], finish: Finish::Stop, ..evidence(&[30.0]) };
        assert_eq!(judge(&stop).verdict, Verdict::Gone);
    }

    #[test]
    fn a_loop_ends_the_coherent_prefix_where_its_first_repetition_ends() {
        let none = [0; 0];
        assert_eq!(first_loop(&[1, 2, 7, 7, 7, 7], &none), Some(4));
        assert_eq!(first_loop(&[1, 7, 8, 7, 8, 7, 8], &none), Some(5));
        assert_eq!(first_loop(&[7, 7, 1, 7, 7], &none), None);
        assert_eq!(first_loop(&[1, 2, 3, 1, 2, 3, 1, 2], &none), None);
        let eight: Vec<u32> = (0..24).map(|i| i % 8).collect();
        assert_eq!(first_loop(&eight, &none), Some(16));
        let nine: Vec<u32> = (0..27).map(|i| i % 9).collect();
        assert_eq!(first_loop(&nine, &none), None);
        assert_eq!(judge(&Evidence { tokens: &[7; 10], ..evidence(&[1.0; 10]) }).coherent_steps, 2);
    }

    #[test]
    fn a_loop_is_no_fault_where_the_clean_answer_loops_too() {
        assert_eq!(first_loop(&[1, 7, 7, 7], &[7, 7, 7]), None);
        assert_eq!(first_loop(&[9, 9, 9], &[7, 8, 7, 8, 7, 8]), None);
        assert_eq!(first_loop(&[7, 7, 7], &[7, 7, 1]), Some(2));
    }

    #[test]
    fn an_answer_that_finds_back_is_not_worse_than_dying() {
        let judged = |surprise: &[f64], ordinary| judge(&Evidence { ordinary, ..evidence(surprise) });
        let back = [12.0, 12.0, 0.5, 0.5, 0.5, 0.5];
        let found = judged(&back, Some(0.5));
        assert_eq!((found.verdict, found.coherent_steps, found.tags), (Verdict::Dying, 0, vec![Tag::Recovers]));
        // Not where nothing is known to be ordinary, nor where the rest is less ordinary than that.
        assert_eq!(judged(&back, None).verdict, Verdict::Gone);
        assert_eq!(judged(&back, Some(0.499)).verdict, Verdict::Gone);
        // At least half of the steps, and not at the last one.
        assert_eq!(judged(&[12.0, 12.0, 0.0, 0.0], Some(1.0)).verdict, Verdict::Dying);
        assert_eq!(judged(&[12.0, 12.0, 12.0, 0.0, 0.0], Some(1.0)).verdict, Verdict::Gone);
        assert_eq!(judged(&[12.0, 12.0, 0.0], Some(1.0)).verdict, Verdict::Gone);
        assert_eq!(judged(&[0.0, 12.0, 0.0, 12.0, 0.0, 0.0], Some(1.0)).verdict, Verdict::Dying);
        assert_eq!(judged(&[12.0, 0.0, 0.0, 12.0, 0.0], Some(1.0)).verdict, Verdict::Dying);
        assert_eq!(judged(&[12.0, 0.0, 0.0, 0.0, 12.0], Some(1.0)).verdict, Verdict::Gone);
        // Nor out of a loop, nor before a logit that is not finite.
        let looping = Evidence { tokens: &[1, 2, 2, 2, 2, 2], ordinary: Some(1.0), ..evidence(&back) };
        assert_eq!(judge(&looping).verdict, Verdict::Gone);
        let cut = Evidence { finish: Finish::Nonfinite, ordinary: Some(1.0), ..evidence(&back) };
        assert_eq!(judge(&cut).verdict, Verdict::Gone);
        // What is coherent for half of its steps anyway has no need of it.
        assert_eq!(judged(&[0.0, 0.0, 12.0, 0.0, 0.0], Some(1.0)).tags, [Tag::Recovers]);
        assert_eq!(judged(&[0.0, 0.0, 0.0, 12.0, 0.0, 0.0], Some(1.0)).tags, []);
    }

    #[test]
    fn tags_say_what_the_verdict_does_not() {
        let surprise = [1.0; 10];
        let tags = |evidence: Evidence<'_>| judge(&evidence).tags;
        assert_eq!(tags(evidence(&surprise)), []);
        assert_eq!(tags(Evidence { right: Some(false), ..evidence(&surprise) }), [Tag::WrongButFluent]);
        assert_eq!(tags(Evidence { right: Some(true), ..evidence(&surprise) }), []);
        assert_eq!(tags(Evidence { clean_finish: Finish::Stop, ..evidence(&surprise) }), [Tag::NeverEnds]);
        assert_eq!(tags(Evidence { text: "это", ..evidence(&surprise) }), [Tag::ScriptSwitch]);
        assert_eq!(tags(Evidence { text: "это", clean_text: "да", ..evidence(&surprise) }), []);
        assert_eq!(tags(Evidence { text: "2 + 2 = 4 ✓", ..evidence(&surprise) }), []);
        let gibberish = [12.0; 10];
        assert_eq!(tags(Evidence { right: Some(false), ..evidence(&gibberish) }), []);
    }

    #[test]
    fn writing_systems_are_told_apart() {
        let letters = ["AzéƏĀḀⱠꜢＡｚ", "αΩἀ", "яЖԯᲀⷠ", "את", "عݐࢠ", "अह", "กฮ", "あアㇰ", "한ᄀㄱ", "中㐀豈𠀀", "ԱႠ"];
        for (i, script) in letters.iter().enumerate() {
            for (j, other) in letters.iter().enumerate() {
                for letter in script.chars() {
                    assert_eq!(
                        switches_script(letter.encode_utf8(&mut [0; 4]), [other, "1+"]),
                        i != j,
                        "{letter} in {other}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_expected_text_is_found_whatever_its_case() {
        let expected = ["four".to_owned(), "4".to_owned()];
        assert_eq!(right("It is FOUR.", &expected), Some(true));
        assert_eq!(right("It is five.", &expected), Some(false));
        assert_eq!(right("It is five.", &[]), None);
    }

    #[test]
    fn verdicts_are_ordered_and_read_back() {
        assert!(Verdict::ALL.is_sorted());
        for verdict in Verdict::ALL {
            assert_eq!(verdict.to_string().parse(), Ok(verdict));
            assert_eq!(serde_json::to_string(&verdict).expect("text"), format!("{:?}", verdict.name()));
        }
        assert!("FINE".parse::<Verdict>().is_err());
    }
}
