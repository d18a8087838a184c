//! Llama, and what mlx-lm runs by the same class (`models/llama.py`).

use super::{ConfigRules, Family, TensorNames};

/// Llama: the entry that others differ from.
pub const LLAMA: Family = Family {
    model_type: "llama",
    models: "Llama 2 and 3, SmolLM2, TinyLlama",
    config: ConfigRules { rope_theta: 10_000.0, tied: true },
    tensors: TensorNames {
        embed_tokens: "model.embed_tokens",
        layers: "model.layers",
        norm: "model.norm",
        lm_head: "lm_head",
        attention_norm: "input_layernorm",
        q_proj: "self_attn.q_proj",
        k_proj: "self_attn.k_proj",
        v_proj: "self_attn.v_proj",
        o_proj: "self_attn.o_proj",
        mlp_norm: "post_attention_layernorm",
        gate_proj: "mlp.gate_proj",
        up_proj: "mlp.up_proj",
        down_proj: "mlp.down_proj",
        dropped: &[".self_attn.rotary_emb.inv_freq"],
    },
};

/// Mistral 7B and Nemo, a Llama under another name. Its `sliding_window` alone changes nothing in mlx-lm, nor here: every layer
/// attends to all positions.
pub const MISTRAL: Family = Family { model_type: "mistral", models: "Mistral 7B, Mistral Nemo", ..LLAMA };
