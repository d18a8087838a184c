//! Law 9 for a tokenizer and a chat template: any bytes are an error or they work, and they end nothing but the child that
//! reads them; where they do not even end that, this process gives the same.

use std::{cell::RefCell, sync::OnceLock, thread};

use arbitrary::{Arbitrary, Result, Unstructured};
use serde::{Deserialize, Serialize};

use super::{Case, LawResult, Reached, Violation, claim};
use crate::{
    checkpoint::Bytes,
    child::{ChildError, Program},
    testing::strategies::{damage::Hex, tokenizers},
    tokenizer::{Apart, Encoding, Tokenizer, TokenizerError, TokenizerFiles},
};

const LAW: u8 = 9;
/// Stack for what is done in this process, of which a sanitizer takes more.
const STACK: usize = 64 << 20;
/// Longest message, in bytes.
const LONGEST_MESSAGE: usize = 4000;

static PROGRAM: OnceLock<Program> = OnceLock::new();

/// Says which program is the child: one whose `main` begins with
/// [`serve_if_asked`](crate::tokenizer::serve_if_asked). Without this call it is the running one, as in a fuzzer; the first
/// call counts.
pub fn children_are(program: Program) {
    drop(PROGRAM.set(program));
}

thread_local! {
    /// The child of this thread's cases, until one of them ends it.
    static CHILD: RefCell<Option<Apart>> = const { RefCell::new(None) };
}

/// A `tokenizer.json`, and what it is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokenizing {
    /// The file.
    file: Hex,
    /// A text to be encoded.
    text: String,
    /// Ids to be decoded.
    tokens: Vec<u32>,
}

impl<'a> Arbitrary<'a> for Tokenizing {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let text = u.choose(&["ab a é\n", "", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", "<s>b \u{1f600}\0"])?;
        let all: [&[u32]; 4] = [&[0, 1, 2, 3], &[], &[95, 95, 0, 4_294_967_295], &[3; 40]];
        let tokens = u.choose(&all)?;
        let (text, tokens) = ((*text).to_owned(), tokens.to_vec());
        Ok(Self { file: Hex(tokenizers::tokenizer(u)?), text, tokens })
    }
}

impl Case for Tokenizing {
    const NAME: &'static str = "tokenizer";
    const CLASSES: &'static [&'static str] = &["refused", "ended the child", "ids", "text", "the same here"];
    const ENTROPY: usize = 96;

    fn check(&self, reached: &mut Reached) -> LawResult {
        let files = TokenizerFiles { tokenizer: Some(Bytes::new(self.file.0.clone())), ..TokenizerFiles::default() };
        let ask = |tokenizer: &Tokenizer| {
            vec![
                tokenizer.encode_raw(&self.text).map(|ids| format!("ids {ids:?}")),
                tokenizer.decode(&self.tokens).map(|text| format!("text {text:?}")),
            ]
        };
        // A model that drops merges at random agrees with nobody; and of two tokens with one id, which is decoded differs from
        // process to process.
        let random = self.file.0.windows(7).any(|part| part == b"dropout");
        holds(&files, ask, if random { Compared::Nothing } else { Compared::Outcomes }, reached)
    }
}

/// A chat template, and what it is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Templating {
    /// The template.
    pub template: String,
    /// The user's message.
    pub user: String,
}

impl<'a> Arbitrary<'a> for Templating {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let user = u.choose(&["What is 2+2?", "", "{{ x }}\n{%"])?;
        let user = (*user).to_owned();
        Ok(Self { template: tokenizers::template(u)?, user })
    }
}

impl Case for Templating {
    const NAME: &'static str = "template";
    const CLASSES: &'static [&'static str] = &["template", "ids", "the same here"];
    const ENTROPY: usize = 128;

    fn check(&self, reached: &mut Reached) -> LawResult {
        let bytes = |text: &str| Some(Bytes::new(text.as_bytes().to_vec()));
        let files = TokenizerFiles {
            tokenizer: bytes(&tokenizers::small().to_string()),
            config: bytes(r#"{"bos_token": "!"}"#),
            template: bytes(&self.template),
            ..TokenizerFiles::default()
        };
        // One moment for both.
        let encoding = Encoding { system: Some("Be brief.".to_owned()), ..Encoding::default() };
        let ask = |tokenizer: &Tokenizer| {
            let chats = tokenizer.encode_chats(&encoding, &[&self.user, &self.user]);
            chats.into_iter().map(|encoded| encoded.map(|encoded| format!("ids {:?}", encoded.ids))).collect()
        };
        holds(&files, ask, Compared::Values, reached)
    }
}

/// What a child and this process are compared by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compared {
    Nothing,
    /// Which answers there are, and which errors.
    Outcomes,
    /// All that the answers and the errors say.
    Values,
}

impl Compared {
    fn of(self, answers: &Answers) -> String {
        let one = |answer: &std::result::Result<String, TokenizerError>| {
            let text = format!("{answer:?}");
            match (self, answer) {
                (Self::Values, _) => text,
                (_, Ok(_)) => "Ok".to_owned(),
                // `Err(Variant`, without the values.
                (_, Err(_)) => text.split([' ', '{', '"']).next().unwrap_or_default().to_owned(),
            }
        };
        answers.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

type Answers = Vec<std::result::Result<String, TokenizerError>>;

/// Asks a child, and then, unless that ended it, this process.
fn holds(
    files: &TokenizerFiles,
    ask: impl Fn(&Tokenizer) -> Answers + Send + Sync + Copy,
    compared: Compared,
    reached: &mut Reached,
) -> LawResult {
    let apart = CHILD.with_borrow_mut(|kept| -> std::result::Result<Answers, TokenizerError> {
        let child = match kept.take() {
            Some(child) => child,
            None => Apart::start(PROGRAM.get_or_init(|| Program::this().expect("a running program has a file")))?,
        };
        let answers = answers(Tokenizer::apart(child.clone(), files.clone()), ask);
        if !answers.iter().any(|answer| matches!(answer, Err(TokenizerError::Child { .. }))) {
            *kept = Some(child);
        }
        Ok(answers)
    });
    let apart = apart.map_err(|error| violated("a child starts", &error))?;
    let mut ended = false;
    for answer in &apart {
        match answer {
            Ok(text) => reached.one(text.split(' ').next().unwrap_or_default()),
            Err(error) => {
                let message = error.to_string();
                claim!(
                    LAW,
                    !message.is_empty() && message.len() < LONGEST_MESSAGE,
                    "an error can be shown",
                    "{message:?}"
                );
                match error {
                    TokenizerError::Child { error, .. } => {
                        ended = true;
                        reached.one("ended the child");
                        allowed(error)?;
                    }
                    TokenizerError::Template(_) => reached.one("template"),
                    _ => reached.one("refused"),
                }
            }
        }
    }
    if ended || compared == Compared::Nothing {
        return Ok(());
    }
    // On a stack as large as the child's at least, so that what did not overflow there does not here.
    let here = thread::scope(|scope| {
        let work = || answers(Tokenizer::from_files(files.clone()), ask);
        let worker = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        worker.expect("a thread").join()
    });
    let Ok(here) = here else {
        return Err(violated("what does not end the child does not panic here", &format!("{apart:?}")));
    };
    let (apart, here) = (compared.of(&apart), compared.of(&here));
    claim!(LAW, apart == here, "a child gives what this process gives", "{apart} and {here}");
    reached.one("the same here");
    Ok(())
}

fn answers(tokenizer: std::result::Result<Tokenizer, TokenizerError>, ask: impl Fn(&Tokenizer) -> Answers) -> Answers {
    match tokenizer {
        Ok(tokenizer) => ask(&tokenizer),
        Err(error) => vec![Err(error)],
    }
}

/// What may end a child. That it says nothing for a minute, or what is no answer, may not be.
fn allowed(error: &ChildError) -> LawResult {
    let fine = match error {
        ChildError::Stack
        | ChildError::Memory { .. }
        | ChildError::Processor { .. }
        | ChildError::Panicked(_)
        | ChildError::Signal { .. } => true,
        // A sanitizer has words of its own for an overflow of the stack.
        ChildError::Exit { .. } => cfg!(fuzzing),
        _ => false,
    };
    if fine { Ok(()) } else { Err(violated("a child ends by one of its limits", error)) }
}

fn violated(claim: &'static str, seen: &impl ToString) -> Violation {
    Violation { law: LAW, claim, seen: seen.to_string() }
}
