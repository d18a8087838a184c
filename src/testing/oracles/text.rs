//! Law 8: what is printed parses to the same edit, and any text either parses or is refused at a place within it, up
//! to which it is understood.

use arbitrary::{Arbitrary, Result, Unstructured};
use serde::{Deserialize, Serialize};

use super::{Case, LawResult, Reached, claim};
use crate::{
    edit::Edit,
    testing::strategies::{self, edits::any_edit},
};

const LAW: u8 = 8;

/// Any text. Its bytes are the text, as far as they are UTF-8.
#[derive(Clone, Debug, Arbitrary, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// The text.
    pub text: String,
}

impl Case for Text {
    const NAME: &'static str = "edit_text";
    const CLASSES: &'static [&'static str] = &[];
    const ENTROPY: usize = 64;

    fn check(&self, reached: &mut Reached) -> LawResult {
        text(&self.text, reached)
    }
}

/// A text that may be an edit, and an edit.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Texts {
    /// An edit, nearly one, or none.
    pub text: String,
    /// An edit of any places and numbers.
    pub edit: Edit,
}

impl<'a> Arbitrary<'a> for Texts {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self { text: strategies::text::text(u)?, edit: any_edit(u)? })
    }
}

impl Case for Texts {
    const NAME: &'static str = "text";
    const CLASSES: &'static [&'static str] = &[
        "accepted",
        "refused",
        "printed",
        "clean",
        "shift",
        "flip:weight",
        "flip:scales",
        "flip:biases",
        "set:weight",
        "set:word",
        "add:weight",
        "xor:word",
        "random:flips",
        "random:rate",
    ];
    const ENTROPY: usize = 192;

    fn check(&self, reached: &mut Reached) -> LawResult {
        printed(&self.edit, reached)?;
        text(&self.text, reached)?;
        // Cut anywhere, too.
        let whole = self.edit.to_string();
        (0..whole.len()).try_for_each(|end| text(&whole[..end], reached))
    }
}

/// Any text parses to an edit that has a text of its own, or fails at a place up to which it is understood.
///
/// # Errors
/// The violation.
pub fn text(text: &str, reached: &mut Reached) -> LawResult {
    match text.parse::<Edit>() {
        Ok(edit) => {
            let printed = edit.to_string();
            let again = printed.parse::<Edit>();
            claim!(
                LAW,
                again.as_ref().is_ok_and(|again| *again == edit && again.to_string() == printed),
                "what parses has a text that parses to the same",
                "{text:?} became {printed:?}, which became {again:?}"
            );
            reached.one("accepted");
        }
        Err(error) => {
            let at = error.at;
            claim!(
                LAW,
                error.text == text && at <= text.len() && text.is_char_boundary(at) && !error.expected.is_empty(),
                "a refusal points at a place within the text and says what was expected there",
                "{text:?}: {error:?}"
            );
            claim!(
                LAW,
                error.to_string().contains(&format!("position {at} ")),
                "the message names the place",
                "{text:?} at {at}: {error}"
            );
            // What comes before the place is not what is wrong: alone it is an edit, or ends too early.
            let earlier = text[..at].parse::<Edit>().err();
            claim!(
                LAW,
                earlier.as_ref().is_none_or(|earlier| earlier.at == at),
                "a text is understood up to the place of its refusal",
                "{text:?} is refused at {at}, but up to there at {earlier:?}"
            );
            reached.one("refused");
        }
    }
    Ok(())
}

/// What is printed is one line of ASCII and parses to the same edit.
///
/// # Errors
/// The violation.
pub(crate) fn printed(edit: &Edit, reached: &mut Reached) -> LawResult {
    let text = edit.to_string();
    claim!(LAW, text.is_ascii() && !text.contains('\n'), "an edit's text is one line of ASCII", "{text:?}");
    let parsed = text.parse::<Edit>();
    claim!(
        LAW,
        parsed.as_ref() == Ok(edit),
        "what is printed parses to the same edit",
        "{text:?} of {edit:?} became {parsed:?}"
    );
    reached.one("printed");
    for change in text.split('+') {
        // Every kind has its name at the start; a shift's number and a place follow it.
        if let Some(kind) = Texts::CLASSES.iter().find(|kind| change.starts_with(**kind)) {
            reached.one(kind);
        }
    }
    Ok(())
}
