//! headroom: how much headroom does a quantized `lm_head` have?
pub mod checkpoint;
pub mod edit;
pub mod quant;
pub mod testing;
