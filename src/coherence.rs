//! stub
/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// eos
    Stop,
    /// max_tokens
    Length,
    /// not finite
    Nonfinite,
}
