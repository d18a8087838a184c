//! The program `headroom`: see `headroom --help`.
fn main() {}
