//! Model families as data: how each writes its configuration and names its tensors.
//!
//! A family is an entry of [`NATIVE`] and nothing else: no code is a family's own. `config` reads `config.json` by the
//! entry's [`ConfigRules`], which gives an [`Architecture`](super::Architecture); `assemble` finds the weights of that value by
//! the entry's [`TensorNames`]. So a family that computes what another does costs a few lines here, and one that computes
//! something new also costs a field of `Architecture` and what interprets it.
//!
//! An entry is written as what differs from another: `Family { model_type: "mistral", ..LLAMA }`. Where families differ in
//! something that is fixed today (the name of a key, where it lies, a fused projection), a field is added to the rules or
//! names, with today's value in [`LLAMA`].
//!
//! What mlx-lm 0.32.2 computes is the specification of each entry.

mod llama;

pub use llama::{LLAMA, MISTRAL};

/// The families whose bodies this program computes. Tests, oracles and messages go through this list.
pub const NATIVE: [&Family; 2] = [&LLAMA, &MISTRAL];

/// What distinguishes the checkpoints of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// Models that it is known by, for messages.
    pub models: &'static str,
    /// How its `config.json` is read.
    pub config: ConfigRules,
    /// How its tensors are named.
    pub tensors: TensorNames,
}

/// How a `config.json` is read.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigRules {
    /// Base of the rotary frequencies where no key gives one.
    pub rope_theta: f64,
    /// Whether the head is the embedding where `tie_word_embeddings` is absent.
    pub tied: bool,
}

/// How tensors are named. A module's tensors are `MODULE.weight`, `MODULE.scales`, `MODULE.biases` and `MODULE.bias`.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorNames {
    /// The embedding, which is also a tied head.
    pub embed_tokens: &'static str,
    /// What stands before the number of a layer, from 0.
    pub layers: &'static str,
    /// Norm of the last layer's output.
    pub norm: &'static str,
    /// The head where it is not tied.
    pub lm_head: &'static str,
    /// Within a layer: norm of the attention's input.
    pub attention_norm: &'static str,
    /// Within a layer: projection to queries.
    pub q_proj: &'static str,
    /// Within a layer: projection to keys.
    pub k_proj: &'static str,
    /// Within a layer: projection to values.
    pub v_proj: &'static str,
    /// Within a layer: projection of the heads' outputs.
    pub o_proj: &'static str,
    /// Within a layer: norm of the MLP's input.
    pub mlp_norm: &'static str,
    /// Within a layer: projection that the activation follows.
    pub gate_proj: &'static str,
    /// Within a layer: projection that the activation multiplies.
    pub up_proj: &'static str,
    /// Within a layer: projection of the product.
    pub down_proj: &'static str,
    /// How the names of tensors end that mlx-lm drops: what they hold is computed.
    pub dropped: &'static [&'static str],
}

impl TensorNames {
    /// The name of `module` in layer `layer`.
    pub fn in_layer(&self, layer: usize, module: &str) -> String {
        format!("{}.{layer}.{module}", self.layers)
    }

    /// The module that is the head.
    pub const fn head(&self, tied: bool) -> &'static str {
        if tied { self.embed_tokens } else { self.lm_head }
    }
}

/// The family of a `model_type`.
pub fn of_model_type(model_type: &str) -> Option<&'static Family> {
    NATIVE.into_iter().find(|family| family.model_type == model_type)
}

/// Every native `model_type` with the models that it is known by, for messages.
pub(super) fn native() -> String {
    NATIVE.map(|family| format!("`{}` ({})", family.model_type, family.models)).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_native_family_is_found_by_its_model_type_and_told_of() {
        for family in NATIVE {
            assert_eq!(of_model_type(family.model_type), Some(family));
            assert!(native().contains(&format!("`{}` ({})", family.model_type, family.models)));
        }
        assert_eq!(of_model_type("Llama"), None);
    }
}
