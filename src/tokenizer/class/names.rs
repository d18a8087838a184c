//! Names that transformers knows: of classes, and of the class that goes with a `model_type`. `tools/goldens/tokenizer_classes.py`
//! asks transformers for all of them.

/// Names of the class that takes `tokenizer.json` as it is.
pub(super) const AS_IT_IS: [&str; 4] =
    ["TokenizersBackend", "PreTrainedTokenizerFast", "PreTrainedTokenizer", "BloomTokenizer"];

/// Model types of mlx-lm, and the class that transformers' table has for them.
const OF_MODEL_TYPE: [(&str, &[&str]); 7] = [
    ("CohereTokenizer", &["cohere", "cohere2"]),
    ("GPT2Tokenizer", &["dbrx", "gpt2", "gptj", "phi", "starcoder2"]),
    ("GPTNeoXTokenizer", &["falcon_mamba", "gpt_neox", "mamba", "mamba2", "olmo", "olmoe"]),
    ("GemmaTokenizer", &["gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "recurrent_gemma"]),
    (
        "Qwen2Tokenizer",
        &[
            "qwen2",
            "qwen2_5_vl",
            "qwen2_moe",
            "qwen2_vl",
            "qwen3",
            "qwen3_moe",
            "qwen3_next",
            "qwen3_vl",
            "qwen3_vl_moe",
        ],
    ),
    ("Qwen3_5Tokenizer", &["qwen3_5", "qwen3_5_moe"]),
    (
        "TokenizersBackend",
        &[
            "ernie4_5",
            "ernie4_5_moe",
            "glm",
            "glm4",
            "glm4_moe",
            "glm4_moe_lite",
            "gpt_bigcode",
            "granite",
            "granitemoe",
            "granitemoehybrid",
            "internlm2",
            "internlm3",
            "iquestcoder",
            "jamba",
            "kimi_k25",
            "kimi_linear",
            "llava",
            "mimo_v2_flash",
            "minicpm3",
            "minimax_m2",
            "ministral3",
            "mistral",
            "mistral3",
            "mixtral",
            "nemotron",
            "olmo2",
            "olmo3",
            "olmo_hybrid",
            "phi3",
            "phimoe",
            "pixtral",
            "stablelm",
        ],
    ),
];

/// Model types whose published checkpoints name a class that transformers takes for a mistake.
pub(super) const NAME_ANOTHER: [&str; 15] = [
    "ernie4_5",
    "ernie4_5_moe",
    "internlm2",
    "internlm3",
    "iquestcoder",
    "jamba",
    "llava",
    "minicpm3",
    "minimax_m2",
    "nemotron",
    "phi3",
    "phimoe",
    "qwen2",
    "qwen3_5",
    "qwen3_5_moe",
];

/// Classes that build a tokenizer in ways that are not known here: of encoders, of speech, of translation, in Python. A name
/// that is neither here nor known is one that transformers does not have, for which it takes `tokenizer.json` as it is.
pub(super) const NOT_KNOWN: &str = "Albert Bart Barthez Bartpho Basic BertGeneration BertJapanese Bert Bertweet BigBird BioGpt \
    BlenderbotSmall Blenderbot ByT5 CLIP CTRL Camembert Canine Character Clvp ConvBert CpmAnt Cpm DPRContextEncoder \
    DPRQuestionEncoder DPRReader Deberta DebertaV2 Dia DistilBert Esm Esmc FNet FSMT FastSpeech2Conformer Flaubert Funnel \
    GPTNeoXJapanese GPTSw3 Herbert LED Lasr LayoutLMv2 LayoutLMv3 LayoutXLM Luke Lxmert M2M100 MBart50 MBart MLuke MPNet \
    Marian MarkupLM Mecab Mgpstr MobileBert Mvp MyT5 Newline Nllb Nougat OpenAIGPT PLBart Parakeet Pegasus \
    Perceiver Phobert Pop2Piano ProphetNet Rag Reformer RemBert RoCBert RoFormer Roberta SeamlessM4T Siglip2 Siglip \
    Speech2Text SpeechT5 Splinter SqueezeBert T5 Tapas Tipsv2 Udop VideoPrism Vits Wav2Vec2CTC Wav2Vec2PhonemeCTC Whisper \
    Wordpiece XGLM XLMRoberta XLM XLNet";

/// The class that goes with a model type.
pub(super) fn of_model_type(model_type: &str) -> Option<&'static str> {
    OF_MODEL_TYPE.iter().find(|(_, types)| types.contains(&model_type)).map(|&(class, _)| class)
}
