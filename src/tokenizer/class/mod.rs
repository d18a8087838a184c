//! Classes of transformers that take vocabulary and merges from `tokenizer.json`, and build all around them themselves.
//!
//! mlx-lm loads a tokenizer by `AutoTokenizer`, which chooses a class by what `tokenizer_config.json` and `config.json` name
//! ([`mod@choose`]). Most take `tokenizer.json` as it is. Some have a normalizer, a pre-tokenizer, a decoder and options of the
//! model of their own, whatever the file says, so that ids differ from what the file gives. A class is data here: an entry of
//! [`CLASSES`]. What transformers does is stated in its `tokenization_*.py`.

mod choose;
pub(super) mod mistral;
mod names;

use serde::{Deserialize, Serialize};

pub(super) use self::choose::{Chosen, ModelConfig, choose};
use super::special_tokens::AddedToken;

/// A class that builds a tokenizer around a vocabulary. Parts are written as in `tokenizer.json`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Class {
    /// Its name, without `Fast`.
    name: &'static str,
    /// The normalizer.
    pub(super) normalizer: &'static str,
    /// The pre-tokenizer; [`PREFIX`] in it is for `add_prefix_space`.
    pre_tokenizer: &'static str,
    /// What `add_prefix_space` stands for.
    prefix: Prefix,
    /// The decoder.
    decoder: &'static str,
    /// What is added to the decoder where words get a space before them.
    strip: &'static str,
    /// Whether the model fuses what it does not know, and falls back to bytes.
    pub(super) falls_back: bool,
    /// Whether the model has the token that `unk_token` names.
    pub(super) unknown: bool,
    /// Tokens that it names where the files do not.
    tokens: &'static [(&'static str, &'static str)],
    /// What is added to a text.
    pub(super) around: Around,
    /// With which properties named tokens are added once more.
    pub(super) again: Again,
    /// The named token at which a text is taken apart into a beginning and an end.
    fill: Option<&'static str>,
}

/// What stands in a pre-tokenizer for what `add_prefix_space` says.
const PREFIX: &str = "$prefix";

/// What a class makes of `add_prefix_space`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    /// It does not know it.
    Unknown,
    /// It is false where it is absent; whether it may be null.
    False { null: bool },
    /// It is true where it is absent or null, and says where a space is put: at the beginning, or, with `legacy`, before each
    /// part between added tokens.
    Place { legacy: bool },
}

/// Which special tokens are added around a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Around {
    /// Those of the post-processor in `tokenizer.json`.
    AsInFile,
    /// None.
    Nothing,
    /// `bos_token`, where there is one.
    Bos,
}

/// How named and extra tokens are added once more at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// Not at all.
    No,
    /// As special tokens.
    Special,
    /// As special tokens without other properties.
    Plain,
}

const BYTES: &str = r#"{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}"#;
const NFC: &str = r#"{"type":"NFC"}"#;
/// The spaces of SentencePiece, its bytes, and one word: without the end of the list, which [`Class::strip`] may continue.
const SPACES: &str = r#"{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"}"#;
const STRIP: &str = r#",{"type":"Strip","content":" ","start":1,"stop":0}"#;
const METASPACE: &str = r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"$prefix","split":false}"#;
const END: &str = "<|endoftext|>";

/// All classes that are known. One that differs little from another is written as what differs.
static CLASSES: [Class; 9] = [GPT2, CODEGEN, GPT_NEOX, COHERE, QWEN2, QWEN3_5, LLAMA, CODE_LLAMA, GEMMA];

const GPT2: Class = Class {
    name: "GPT2Tokenizer",
    normalizer: "null",
    pre_tokenizer: r#"{"type":"ByteLevel","add_prefix_space":$prefix,"trim_offsets":true,"use_regex":true}"#,
    prefix: Prefix::False { null: false },
    decoder: BYTES,
    strip: "",
    falls_back: false,
    unknown: false,
    tokens: &[("unk_token", END), ("bos_token", END), ("eos_token", END)],
    around: Around::AsInFile,
    again: Again::No,
    fill: None,
};

const CODEGEN: Class = Class { name: "CodeGenTokenizer", ..GPT2 };

const GPT_NEOX: Class = Class {
    name: "GPTNeoXTokenizer",
    normalizer: NFC,
    tokens: &[("unk_token", END), ("bos_token", END), ("eos_token", END), ("pad_token", "<|padding|>")],
    around: Around::Nothing,
    ..GPT2
};

const COHERE: Class = Class {
    name: "CohereTokenizer",
    normalizer: NFC,
    pre_tokenizer: r#"{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},{"type":"ByteLevel","add_prefix_space":$prefix,"trim_offsets":true,"use_regex":true}]}"#,
    tokens: &[
        ("unk_token", "<UNK>"),
        ("bos_token", "<BOS_TOKEN>"),
        ("eos_token", "<|END_OF_TURN_TOKEN|>"),
        ("pad_token", "<PAD>"),
        ("cls_token", "<CLS>"),
        ("sep_token", "<SEP>"),
        ("mask_token", "<MASK_TOKEN>"),
    ],
    again: Again::Special,
    ..GPT2
};

const QWEN2: Class = Class {
    name: "Qwen2Tokenizer",
    normalizer: NFC,
    pre_tokenizer: r#"{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":$prefix,"trim_offsets":true,"use_regex":false}]}"#,
    prefix: Prefix::False { null: true },
    tokens: &[("unk_token", END), ("eos_token", END), ("pad_token", END)],
    again: Again::Plain,
    ..GPT2
};

const QWEN3_5: Class = Class {
    name: "Qwen3_5Tokenizer",
    pre_tokenizer: r#"{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":$prefix,"trim_offsets":true,"use_regex":false}]}"#,
    again: Again::No,
    ..QWEN2
};

const LLAMA: Class = Class {
    name: "LlamaTokenizer",
    normalizer: "null",
    pre_tokenizer: METASPACE,
    prefix: Prefix::Place { legacy: true },
    decoder: SPACES,
    strip: STRIP,
    falls_back: true,
    unknown: false,
    tokens: &[("unk_token", "<unk>"), ("bos_token", "<s>"), ("eos_token", "</s>")],
    around: Around::AsInFile,
    again: Again::No,
    fill: None,
};

const CODE_LLAMA: Class = Class {
    name: "CodeLlamaTokenizer",
    prefix: Prefix::Place { legacy: false },
    unknown: true,
    tokens: &[
        ("unk_token", "<unk>"),
        ("bos_token", "<s>"),
        ("eos_token", "</s>"),
        ("prefix_token", "▁<PRE>"),
        ("middle_token", "▁<MID>"),
        ("suffix_token", "▁<SUF>"),
        ("eot_token", "▁<EOT>"),
        ("fill_token", "<FILL_ME>"),
    ],
    around: Around::Bos,
    fill: Some("fill_token"),
    ..LLAMA
};

const GEMMA: Class = Class {
    name: "GemmaTokenizer",
    normalizer: r#"{"type":"Replace","pattern":{"String":" "},"content":"▁"}"#,
    pre_tokenizer: r#"{"type":"Split","pattern":{"String":" "},"behavior":"MergedWithPrevious","invert":false}"#,
    prefix: Prefix::Unknown,
    strip: "",
    unknown: true,
    tokens: &[
        ("unk_token", "<unk>"),
        ("bos_token", "<bos>"),
        ("eos_token", "<eos>"),
        ("pad_token", "<pad>"),
        ("mask_token", "<mask>"),
    ],
    ..LLAMA
};

/// What `tokenizer_config.json` may say to a class besides its tokens. Absent, null, or a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Options {
    /// `add_prefix_space`.
    pub(super) add_prefix_space: Setting,
    /// `legacy`.
    pub(super) legacy: Setting,
    /// `fix_mistral_regex`.
    pub(super) fix_mistral_regex: Setting,
}

/// A key whose value should be true or false.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Setting {
    /// The key is not there.
    #[default]
    Absent,
    /// It is null.
    Null,
    /// It is true or false.
    Is(bool),
    /// It is something else.
    Other,
}

/// A class with what it was told, as it is sent to where tokenizers are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Built {
    /// Name of the class.
    name: String,
    /// What takes the place of [`PREFIX`].
    prefix: String,
    /// Whether words get a space before them.
    spaced: bool,
}

impl Built {
    /// A class that is told `options`, or what it would fail on.
    pub(super) fn new(class: &'static Class, options: Options) -> Result<Self, String> {
        let wrong = |key: &str| format!("{key} is neither true nor false, which {} needs", class.name);
        let spaced = match (options.add_prefix_space, class.prefix) {
            (_, Prefix::Unknown) => false,
            (Setting::Is(given), _) => given,
            (Setting::Absent | Setting::Null, Prefix::Place { .. }) => true,
            (Setting::Absent, Prefix::False { .. }) | (Setting::Null, Prefix::False { null: true }) => false,
            (Setting::Null | Setting::Other, _) => return Err(wrong("add_prefix_space")),
        };
        let everywhere = match (options.legacy, class.prefix) {
            (Setting::Is(legacy), Prefix::Place { legacy: true }) => legacy,
            (Setting::Other, Prefix::Place { legacy: true }) => return Err(wrong("legacy")),
            _ => false,
        };
        let prefix = match class.prefix {
            Prefix::Place { .. } if !spaced => "never",
            Prefix::Place { .. } if everywhere => "always",
            Prefix::Place { .. } => "first",
            _ if spaced => "true",
            _ => "false",
        };
        // Code Llama's decoder takes a space away even where none was put.
        let spaced = spaced || class.fill.is_some();
        Ok(Self { name: class.name.to_owned(), prefix: prefix.to_owned(), spaced })
    }

    /// The class. None where the other side of a child knows others.
    pub(super) fn class(&self) -> Option<&'static Class> {
        known(&self.name)
    }

    /// The pre-tokenizer, as `tokenizer.json` would have it.
    pub(super) fn pre_tokenizer(&self, class: &Class) -> String {
        class.pre_tokenizer.replace(PREFIX, &self.prefix)
    }

    /// The decoder, as `tokenizer.json` would have it.
    pub(super) fn decoder(&self, class: &Class) -> String {
        if class.decoder != SPACES {
            return class.decoder.to_owned();
        }
        let strip = if self.spaced { class.strip } else { "" };
        format!("{}{strip}]}}", class.decoder)
    }
}

impl Class {
    /// Tokens that it names where no file names one of their role, or says that there is none.
    pub(super) fn named(&self, has: impl Fn(&str) -> bool) -> Vec<(String, AddedToken)> {
        let missing = self.tokens.iter().filter(|(name, _)| !has(name));
        missing.map(|&(name, token)| (name.to_owned(), AddedToken::plain(token.to_owned()))).collect()
    }

    /// The place of a name among those that it knows.
    pub(super) fn rank(&self, name: &str) -> Option<usize> {
        self.tokens.iter().position(|(known, _)| *known == name)
    }

    /// The name of the token at which a text is taken apart.
    pub(super) fn fill(&self) -> Option<&'static str> {
        self.fill
    }
}

/// The class of a name without `Fast`.
fn known(name: &str) -> Option<&'static Class> {
    CLASSES.iter().find(|class| class.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_states_parts_that_the_library_reads() {
        for class in &CLASSES {
            let built = Built::new(class, Options::default()).expect(class.name);
            assert_eq!(built.class(), Some(class));
            let parts = [class.normalizer.to_owned(), built.pre_tokenizer(class), built.decoder(class)];
            assert!(serde_json::from_str::<Option<tokenizers::NormalizerWrapper>>(&parts[0]).is_ok(), "{}", parts[0]);
            assert!(serde_json::from_str::<tokenizers::PreTokenizerWrapper>(&parts[1]).is_ok(), "{}", parts[1]);
            assert!(serde_json::from_str::<tokenizers::DecoderWrapper>(&parts[2]).is_ok(), "{}", parts[2]);
        }
    }

    #[test]
    fn a_prefix_is_put_where_the_class_puts_it() {
        let prefix = |class, add_prefix_space, legacy| {
            Built::new(class, Options { add_prefix_space, legacy, ..Options::default() }).map(|built| built.prefix)
        };
        let said = |text: &str| Ok(text.to_owned());
        let (absent, null, other) = (Setting::Absent, Setting::Null, Setting::Other);
        for setting in [absent, null, Setting::Is(true)] {
            assert_eq!(prefix(&LLAMA, setting, absent), said("first"));
            assert_eq!(prefix(&LLAMA, setting, Setting::Is(true)), said("always"));
            assert_eq!(prefix(&CODE_LLAMA, setting, Setting::Is(true)), said("first"));
        }
        assert_eq!(prefix(&LLAMA, Setting::Is(false), Setting::Is(true)), said("never"));
        assert_eq!(prefix(&QWEN2, null, other), said("false"));
        assert_eq!(prefix(&GPT2, Setting::Is(true), other), said("true"));
        assert_eq!(prefix(&GEMMA, other, other), said("false"));
        for (class, add_prefix_space, legacy) in
            [(&GPT2, null, absent), (&QWEN2, other, absent), (&LLAMA, other, absent), (&LLAMA, absent, other)]
        {
            let error = prefix(class, add_prefix_space, legacy).expect_err("it is wrong");
            assert!(error.contains("neither true nor false") && error.contains(class.name), "{error}");
        }
    }
}
