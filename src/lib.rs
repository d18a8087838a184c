//! **headroom** treats the quantized `lm_head` of a language model as the system under test: how far can its
//! packed weights be disturbed before the answers fall apart, and is every experiment undone to the bit?
//!
//! # The flow
//!
//! ```text
//! checkpoint/  a folder, a hub id or the model inside -> checked tensors, memory-mapped
//! tokenizer/   text -> ids -> text, in this process or, for files of strangers, in a child/ with limits
//! subject      checkpoint + tokenizer -> prompts as ids
//! edit/        one line of text -> what to change; planned (not written) or written under head's guard
//! trial        (prompts x edits) -> trajectories: each distinct prefix through model/'s body once, in waves
//! coherence    trajectory + clean surprise -> a verdict
//! search/      a session: jobs in batches, judged by a calibrated threshold; ladder, bisect, ... -> record/
//! certificate/ the fewest flips that change an answer, exactly
//! report/      what stored runs and certificates say, for people
//! ```
//!
//! `kernels/` multiplies packed rows by vectors with one reduction order on every instruction set, for any
//! number of threads and any batch, so that all of the above gives the same bits wherever it runs. With the feature
//! `mlx`, body and head can run on Apple's MLX instead: `model::mlx` says what holds there.
//!
//! # Example
//!
//! ```
//! use lm_headroom::{
//!     search::{Session, Settings, keep, ladder},
//!     seed::SHIFTS,
//!     subject::Subject,
//! };
//!
//! let model = Subject::open("demo")?; // or a folder, or `org/name` of the Hugging Face hub
//! let prompts = [model.prompt("What is 2+2?")?];
//! let mut records = Vec::new();
//! let restored = ladder(&mut Session::new(&model, &prompts, Settings::default()), &SHIFTS, keep(&mut records))?;
//! assert!(records[0].text.contains('4') && !records[9].text.contains('4'));
//! assert!(restored.identical && restored.same_as_clean);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! `cli` (the program, which implies the next two), `hub` (downloads) and `report` are on by default. `testing` is the
//! harness, best taken with `default-features = false`; `mlx` is a backend.
//!
//! # Unsafe code
//!
//! It lies in six places, each with its reason: [`kernels`] (intrinsics of an instruction set that this processor was
//! seen to have, and pointers into slices whose lengths were checked), [`team`] (a loop's body lent to threads that end
//! it before the loop returns; disjoint chunks of a slice), the two memory maps: `checkpoint/folder.rs` (read-only)
//! and [`head`] (private, copy-on-write), [`child`] (an allocator that counts and passes on, and calls by which a
//! process limits itself), and, with the feature `mlx`, `model/mlx/modes.rs` (three calls of MLX's C interface). Each `unsafe` block says what is asked of it and why that holds.

// Some items serve the program alone. A build without it has them all the same, since a condition at each would say no more.
#![cfg_attr(not(feature = "cli"), expect(dead_code, unused_imports, reason = "the program uses it"))]

mod cache;
pub mod certificate;
pub mod checkpoint;
pub mod child;
#[cfg(feature = "cli")]
pub mod cli;
pub mod coherence;
pub mod edit;
mod exact;
pub mod head;
pub mod kernels;
pub mod model;
mod numbers;
pub mod quant;
pub mod random;
pub mod record;
#[cfg(feature = "report")]
pub mod report;
pub mod search;
pub mod seed;
mod stats;
pub mod subject;
pub mod team;
mod temporary;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tokenizer;
pub mod trial;
