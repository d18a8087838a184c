//! headroom: how much headroom does a quantized `lm_head` have?
pub mod checkpoint;
pub mod cli;
pub mod coherence;
pub mod edit;
pub mod head;
pub mod kernels;
pub mod model;
pub mod quant;
pub mod record;
pub mod search;
pub mod seed;
pub mod subject;
pub mod team;
pub mod testing;
pub mod tokenizer;
pub mod trial;
