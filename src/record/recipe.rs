//! Recipes: edits worth keeping, as values that are run again, not as seeds to be searched anew.
//!
//! ```json
//! {"schema":1,"recipe":[{"edit":"flip:weight[1,2].3","prompt":"What is 2+2?","note":"least flips at position 0"}]}
//! ```

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use super::SCHEMA;
use crate::edit::{Edit, ParseError};

/// Edits in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The edits.
    pub recipe: Vec<Step>,
}

/// One edit of a recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The edit in its text form.
    pub edit: String,
    /// The prompt that the edit is meant for; without one, any prompt will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// A note that says what the edit does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The text is not JSON, or has keys that a recipe does not have.
    #[error("not a recipe: {0}")]
    Json(serde_json::Error),
    /// It was written by a later version.
    #[error("the recipe has schema {0}, this program knows {SCHEMA}; use a newer program")]
    Schema(u32),
    /// The edit of an entry does not parse.
    #[error("entry {entry} of the recipe: {source}")]
    Edit {
        /// Its number, from 1.
        entry: usize,
        /// What is wrong.
        source: ParseError,
    },
}

impl Recipe {
    /// A recipe of this version.
    pub const fn new(recipe: Vec<Step>) -> Self {
        Self { schema: SCHEMA, recipe }
    }

    /// Reads the text of a recipe. Every edit in it parses.
    ///
    /// # Errors
    /// [`RecipeError`], naming the line or the entry.
    pub fn parse(text: &[u8]) -> Result<Self, RecipeError> {
        let recipe: Self = serde_json::from_slice(text).map_err(RecipeError::Json)?;
        if recipe.schema != SCHEMA {
            return Err(RecipeError::Schema(recipe.schema));
        }
        recipe.edits()?;
        Ok(recipe)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`RecipeError`].
    pub fn load(path: &Path) -> Result<Self, RecipeError> {
        Self::parse(&super::Stored::open(path)?.whole()?)
    }

    /// The text of the file, one entry a line.
    pub(crate) fn text(&self) -> String {
        let entries: Vec<String> =
            self.recipe.iter().map(|step| serde_json::to_string(step).expect("strings are JSON")).collect();
        format!("{{\"schema\":{},\"recipe\":[\n{}\n]}}\n", self.schema, entries.join(",\n"))
    }

    /// The edits, parsed.
    ///
    /// # Errors
    /// [`RecipeError::Edit`], naming the entry.
    pub fn edits(&self) -> Result<Vec<Edit>, RecipeError> {
        let parse =
            |(i, step): (usize, &Step)| step.edit.parse().map_err(|source| RecipeError::Edit { entry: i + 1, source });
        self.recipe.iter().enumerate().map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(edit: &str) -> Step {
        Step { edit: edit.to_owned(), prompt: Some("What is \"2+2\"?".to_owned()), note: None }
    }

    #[test]
    fn a_recipe_is_read_as_it_was_written() {
        let recipe = Recipe::new(vec![step("flip:weight[1,2].3"), step("shift:1+flip:scales[0,0].15")]);
        assert_eq!(Recipe::parse(recipe.text().as_bytes()).expect("a recipe"), recipe);
        assert_eq!(recipe.text().lines().count(), 4);
        let none = Recipe::new(Vec::new());
        assert_eq!(Recipe::parse(none.text().as_bytes()).expect("a recipe"), none);
        assert_eq!(recipe.edits().expect("edits").len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_place() {
        let error = |text: &str| Recipe::parse(text.as_bytes()).expect_err("no recipe").to_string();
        let wrong = r#"{"schema":1,"recipe":[{"edit":"shift:1"},{"edit":"flop:1"}]}"#;
        assert!(error(wrong).starts_with("entry 2 of the recipe: not an edit at position 0"), "{}", error(wrong));
        assert!(error("{\"schema\":1,\n\"recipe\":[{\"edits\":\"shift:1\"}]}").contains("at line 2 column"));
        assert!(error(r#"{"schema":2,"recipe":[]}"#).contains("schema 2"));
        assert!(error("shift:1\n").contains("line 1"));
    }
}
