//! Four tests of one model. `MODEL=./my-4bit cargo test` tests yours; `cargo insta review` accepts its answers.

use lm_headroom::testing::harness;

harness!(model = std::env::var("MODEL").unwrap_or_else(|_| "demo".to_owned()), prompts = ["What is 2+2?"]);
