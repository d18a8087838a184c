//! A crate that ships or uses a quantized model: its tests hold the model to headroom's invariants and to its own
//! answers. See `tests/model.rs`, which is all there is to it.
