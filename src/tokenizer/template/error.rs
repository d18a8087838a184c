//! Why a template gave no text.

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The template called `raise_exception`.
    Raised,
    /// jinja2 fails, too.
    Fails,
    /// jinja2 renders it, or may; this renderer does not vouch for the same text.
    Refused,
}

/// A failure and the line of the template where it came up.
#[derive(Debug)]
pub(super) struct Error(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: Kind,
    message: String,
    line: Option<usize>,
}

/// What each step gives.
pub(super) type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Parts { kind, message: message.into(), line: None }))
    }

    pub(super) fn raised(message: impl Into<String>) -> Self {
        Self::new(Kind::Raised, message)
    }

    pub(super) fn fails(message: impl Into<String>) -> Self {
        Self::new(Kind::Fails, message)
    }

    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, message)
    }

    /// The error with a line, unless it has one.
    pub(super) fn at(mut self, line: usize) -> Self {
        self.0.line.get_or_insert(line);
        self
    }

    pub(super) fn kind(&self) -> Kind {
        self.0.kind
    }

    pub(super) fn line(&self) -> Option<usize> {
        self.0.line
    }

    pub(super) fn message(&self) -> &str {
        &self.0.message
    }
}
