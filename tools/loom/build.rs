//! Has `team.rs` take loom's primitives.

fn main() {
    println!("cargo::rustc-cfg=loom");
}
