"""Writes tests/fixtures/tokenizers.json: small tokenizers of many kinds, and the ids that mlx-lm's tokenizer gives.

usage: python tools/goldens/tokenizers_of_many_kinds.py [--check]

The Python needs mlx-lm and what comes with it. Each tokenizer is trained on a few sentences, written into a folder as a
checkpoint has it, loaded by mlx-lm, and asked for random texts: with special tokens where mlx-lm adds them, and without.
"""

import json
import pathlib
import random
import sys
import tempfile

from mlx_lm.utils import load_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

FIXTURE = pathlib.Path(__file__).parents[2] / "tests" / "fixtures" / "tokenizers.json"
CORPUS = [
    "The quick brown fox jumps over the lazy dog, and it's 12345 o'clock in Zürich.", "What is 2+2? It is 4.",
    "def main():\n    return {'a': [1, 2.5]}\n\n\n", "Привет, мир! 你好，世界。 こんにちは 안녕하세요 مرحبا नमस्ते",
    "naïve café résumé ÀÉÎ ﬁ ½ ① ™ 🙂🎉👩‍👩‍👧", "the the there then they them theme \t tabs   and  spaces",
] * 3
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
LLAMA3 = Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def bpe(pre, normalizer=None, post=None, specials=("<s>", "</s>"), decoder=None, **options):
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre
    if normalizer:
        tokenizer.normalizer = normalizer
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)] if options.get("byte_fallback") else []
    trainer = trainers.BpeTrainer(vocab_size=420 + len(alphabet), show_progress=False, special_tokens=[*specials, *alphabet],
                                  initial_alphabet=[] if alphabet else pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.decoder = decoder or decoders.ByteLevel()
    if post:
        tokenizer.post_processor = post(tokenizer)
    return tokenizer


def template(single):
    def made(tokenizer):
        specials = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>") if name in single]
        return processors.TemplateProcessing(single=single, pair=single + " $B:1", special_tokens=specials)
    return made


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def added(tokenizer):
    tokenizer.add_tokens([AddedToken("<left>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True), AddedToken("word", single_word=True),
                          AddedToken("ÀÉ", normalized=True), AddedToken("<both>", lstrip=True, rstrip=True, special=True)])
    return tokenizer


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=220, show_progress=False, unk_token="<unk>", special_tokens=["<unk>", "<s>", "</s>"]))
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = template("$A </s>")(tokenizer)
    return tokenizer


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=260, show_progress=False, special_tokens=["[UNK]", "[CLS]", "[SEP]"]))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", tokenizer.token_to_id("[SEP]")), ("[CLS]", tokenizer.token_to_id("[CLS]")))
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def wordlevel():
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)])
    tokenizer.train_from_iterator(CORPUS, trainers.WordLevelTrainer(vocab_size=150, show_progress=False, special_tokens=["<unk>", "<s>"]))
    return tokenizer


SPM = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
ROLES = {"bos_token": "<s>", "eos_token": "</s>"}


def kinds():
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    yield "byte-level BPE, GPT-2's pattern", bpe(GPT2), ROLES, None
    yield "byte-level BPE, Llama 3's pattern and a bos", bpe(split(LLAMA3), post=template("<s> $A")), ROLES, None
    yield "byte-level BPE, Qwen's pattern and NFC", bpe(split(QWEN), normalizer=normalizers.NFC()), {"eos_token": "</s>"}, None
    yield "byte-level BPE that ignores merges of whole words", bpe(split(LLAMA3), ignore_merges=True), ROLES, None
    yield "byte-level BPE of single digits with a prefix space", bpe(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)])), ROLES, None
    yield "BPE with byte fallback, as SentencePiece", bpe(metaspace, specials=("<unk>", "<s>", "</s>"), post=template("<s> $A"), decoder=decoders.ByteFallback(), byte_fallback=True, unk_token="<unk>", fuse_unk=True), {**ROLES, "unk_token": "<unk>"}, None
    yield "BPE with byte fallback by normalizers alone", bpe(pre_tokenizers.Split(" ", "merged_with_previous"), normalizer=SPM, specials=("<unk>", "<s>", "</s>"), decoder=decoders.ByteFallback(), byte_fallback=True, unk_token="<unk>"), ROLES, None
    yield "Unigram", unigram(), {**ROLES, "unk_token": "<unk>"}, None
    yield "WordPiece", wordpiece(), {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}, None
    yield "WordLevel without accents and capitals", wordlevel(), {"bos_token": "<s>", "unk_token": "<unk>"}, None
    yield "added tokens with every flag", added(bpe(GPT2, normalizer=normalizers.Lowercase())), ROLES, None
    yield "a bos and an eos around", bpe(GPT2, post=template("<s> $A </s>")), ROLES, None
    bare = json.loads(bpe(GPT2).to_str())
    bare["added_tokens"] = []
    bare = Tokenizer.from_str(json.dumps(bare))
    yield "declared in tokenizer_config.json alone", bare, {**ROLES, "additional_special_tokens": ["<new>", "the"]}, None
    yield "declared in special_tokens_map.json alone", bare, {}, {"bos_token": {"content": "<s>", "lstrip": False, "rstrip": True, "normalized": False, "single_word": False}, "eos_token": "</s>"}
    yield "declared in added_tokens_decoder", bare, {**ROLES, "added_tokens_decoder": {"0": {"content": "<s>", "lstrip": True, "rstrip": True, "special": True, "normalized": False, "single_word": False}, "9000": {"content": "fox", "special": False, "single_word": True, "lstrip": False, "rstrip": False, "normalized": True}}}, None
    yield "named extra tokens", bare, {**ROLES, "extra_special_tokens": {"image_token": "<img>"}, "video_token": "<vid>"}, None
    yield "special tokens that are split", bpe(GPT2), {**ROLES, "split_special_tokens": True}, None


PIECES = ["The", " the", "quick", " fox", "word", "words", "<s>", "</s>", "<left>", " <right> ", "<both>", "<new>", "<img>", "<vid>", "ÀÉ", "àé", "àé", "ﬁ", "½",
          " ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u200b", "\u3000", "\x00", "\x1c", "\x7f", "\ufeff", "\ufffd", "12345", "3.14", "'s", "'S", "don't", "👩‍👩‍👧", "🙂", "🏳️‍🌈", "你好", "世界。", "Привет", "مرحبا", "नमस्ते", "안녕",
          "é", "é", "Ǆ", "ß", "İ", "Σς", "{}[]()", "\\n", "\\ud83d", "<0x41>", "▁", "▁the", "Ġ", "##ing", "[CLS]", "a" * 30, "!?…", "\U0010ffff", "e\u0301\u0327"]


def texts(rng):
    yield ""
    yield from PIECES
    for _ in range(60):
        yield "".join(rng.choice(PIECES) for _ in range(rng.randrange(2, 9)))


def main():
    entries = []
    for name, tokenizer, config, tokens in kinds():
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "tokenizer.json").write_text(tokenizer.to_str())
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
            (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
            if tokens:
                (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
            loaded = load_tokenizer(folder)
            cases = []
            for text in texts(random.Random(26)):
                special = loaded.bos_token is None or not text.startswith(loaded.bos_token)
                cases.append([text, loaded.encode(text, add_special_tokens=special), loaded.encode(text, add_special_tokens=False)])
        entries.append({"name": name, "tokenizer": json.loads(tokenizer.to_str()), "config": config, "map": tokens, "cases": cases})
    text = "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in entries) + "]\n"
    if "--check" in sys.argv[1:]:
        sys.exit(0 if FIXTURE.read_text() == text else "tests/fixtures/tokenizers.json is not what mlx-lm gives")
    FIXTURE.write_text(text)
    print(f"{len(entries)} tokenizers, {sum(len(entry['cases']) for entry in entries)} texts")


if __name__ == "__main__":
    main()
