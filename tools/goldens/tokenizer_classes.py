"""Writes tests/fixtures/tokenizer_classes.json: which class transformers chooses for a checkpoint, and the ids that each gives.

usage: python tools/goldens/tokenizer_classes.py [--check]

The Python needs mlx-lm and what comes with it. Some classes of transformers take vocabulary and merges from tokenizer.json, and
build everything around them themselves. Each of them is given files of several kinds, its own and others', and asked by mlx-lm
for random texts. A second part asks for the class alone, for many model types and names of classes.
"""

import json
import logging
import pathlib
import pkgutil
import random
import sys
import tempfile
import warnings

import mlx_lm.models
import tokenizers_of_many_kinds as kinds
from mlx_lm.utils import MODEL_REMAPPING, load_tokenizer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer
from transformers.models.auto import tokenization_auto

FIXTURE = pathlib.Path(__file__).parents[2] / "tests" / "fixtures" / "tokenizer_classes.json"
QWEN3_5 = Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPM = {"specials": ("<unk>", "<s>", "</s>"), "byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
FIRST = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
SPACES = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


def numbers_and_bytes():
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])


def with_holes():
    """Added tokens at the end whose ids are not consecutive, one of them with flags, and one that is plain text."""
    file = json.loads(kinds.added(kinds.bpe(kinds.GPT2)).to_str())
    file["added_tokens"] = [token for token in file["added_tokens"] if token["content"] != "<right>"]
    return Tokenizer.from_str(json.dumps(file)), file


def files():
    """Names of tokenizers, and tokenizer.json."""
    def told(tokenizer):
        return json.loads(tokenizer.to_str())
    yield "GPT-2", told(kinds.bpe(kinds.GPT2))
    yield "digits and a bos", told(kinds.bpe(numbers_and_bytes(), post=kinds.template("<s> $A")))
    yield "Llama 3", told(kinds.bpe(kinds.split(kinds.LLAMA3), post=kinds.template("<s> $A"), ignore_merges=True))
    yield "Qwen", told(kinds.bpe(kinds.split(kinds.QWEN), normalizer=normalizers.NFC()))
    yield "Qwen 3.5", told(kinds.bpe(kinds.split(QWEN3_5), normalizer=normalizers.NFC()))
    yield "GPT-NeoX", told(kinds.bpe(kinds.GPT2, normalizer=normalizers.NFC()))
    yield "Command R", told(kinds.bpe(numbers_and_bytes(), normalizer=normalizers.NFC()))
    yield "SentencePiece, first", told(kinds.bpe(FIRST, post=kinds.template("<s> $A"), decoder=SPACES, **SPM))
    yield "SentencePiece by normalizers", told(kinds.bpe(pre_tokenizers.Split("\n", "isolated"), normalizer=kinds.SPM, post=kinds.template("<s> $A </s>"), decoder=SPACES, **SPM))
    yield "Gemma", told(kinds.bpe(pre_tokenizers.Split(" ", "merged_with_previous"), normalizer=normalizers.Replace(" ", "▁"), post=kinds.template("<s> $A"), decoder=SPACES, **SPM))
    yield "holes", with_holes()[1]
    merges = told(kinds.bpe(kinds.GPT2))
    merges["model"]["merges"] = [" ".join(merge) for merge in merges["model"]["merges"]]
    yield "merges as texts", merges
    yield "Unigram", told(kinds.unigram())
    yield "WordPiece", told(kinds.wordpiece())


CLASSES = ["LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "Qwen2Tokenizer", "Qwen3_5Tokenizer", "GPT2Tokenizer", "CodeGenTokenizer", "CohereTokenizer", "GPTNeoXTokenizer"]
OWN = {"CohereTokenizer": "Command R", "GPT2Tokenizer": "GPT-2", "CodeGenTokenizer": "GPT-2", "GPTNeoXTokenizer": "GPT-NeoX", "Qwen2Tokenizer": "Qwen", "Qwen3_5Tokenizer": "Qwen 3.5", "GemmaTokenizer": "Gemma",
       "LlamaTokenizer": "SentencePiece, first", "CodeLlamaTokenizer": "SentencePiece, first"}
OPTIONS = [
    {"add_prefix_space": True}, {"add_prefix_space": False}, {"add_prefix_space": None}, {"add_prefix_space": True, "legacy": True}, {"legacy": None},
    {"add_bos_token": True, "add_eos_token": True}, {"bos_token": None, "eos_token": None, "unk_token": None}, {"unk_token": "<unk>", "pad_token": "the"},
    {"added_tokens_decoder": {"1": {"content": "<s>", "lstrip": True, "rstrip": True, "special": True, "normalized": False, "single_word": False},
                              "700": {"content": "fox", "special": False, "single_word": True, "lstrip": False, "rstrip": False, "normalized": True},
                              "650": {"content": "<new>", "special": True, "single_word": False, "lstrip": False, "rstrip": True, "normalized": True}}},
    {"additional_special_tokens": ["<new>", "the"], "image_token": "<img>"}, {"split_special_tokens": True},
    {"bos_token": {"content": "<left>", "lstrip": False, "rstrip": True, "normalized": False, "single_word": False, "__type": "AddedToken"}},
]
ROLES = {"bos_token": "<s>", "eos_token": "</s>"}
TEXTS = ["", " ", "  ", "The quick", " The 12 345", "a  12  b", "don't 3.14 DON'T", "e\u0301\u0327 é", "▁the▁fox", "<s>the <left> word</s> ", "fox <new>fox\n\nfoxes", "the<|endoftext|> <mask><MASK_TOKEN>", "नमस्ते 你好", "👩‍👩‍👧\x00\x1c\u200b",
         "<bos> <unk> <both> <right> the", "<s> the </s>"]


def entries():
    for name in CLASSES:
        for file, _ in files():
            yield file, {**ROLES, "tokenizer_class": name}
        yield OWN[name], {"tokenizer_class": name + "Fast"}
        for number, options in enumerate(OPTIONS):
            for file in (OWN[name], "holes", "digits and a bos"):
                if file == OWN[name] or (number + len(name)) % 3 == 0:
                    yield file, {**ROLES, "tokenizer_class": name, **options}
    # The file decides; what is declared beside it has other flags than in it.
    for options in OPTIONS:
        yield "holes", {**ROLES, "tokenizer_class": "TokenizersBackend", **options}
    yield "holes", {"bos_token": "<left>", "eos_token": "word", "additional_special_tokens": ["<both>", "ÀÉ"], "tokenizer_class": "PreTrainedTokenizerFast"}


FILLING = 100_100


def mended():
    """Vocabularies that are large enough for a pattern to be mended."""
    asked = {**ROLES, "tokenizer_class": "PreTrainedTokenizerFast", "fix_mistral_regex": True}
    for file in ("Llama 3", "GPT-2", "SentencePiece, first"):
        yield file, asked, {"model_type": "mistral", "transformers_version": "4.57.1"}
    yield "Llama 3", asked, {"model_type": "mistral3"}
    yield "Llama 3", asked, {"model_type": "mistral", "transformers_version": "5.0.0"}
    yield "Llama 3", asked, {"model_type": "llama", "transformers_version": "4.57.1"}
    yield "Llama 3", {**asked, "fix_mistral_regex": False}, {"model_type": "mistral"}


def filled(file, filling):
    """A file with tokens at the end of its vocabulary that no text has."""
    file = json.loads(json.dumps(file))
    vocabulary = file["model"]["vocab"]
    first = len(vocabulary)
    vocabulary.update({f"filling {number}": number for number in range(first, first + filling)})
    return file


def texts(rng):
    yield from TEXTS
    for _ in range(10):
        yield "".join(rng.choice(kinds.PIECES) for _ in range(rng.randrange(2, 9)))
    # The last one, since Code Llama's class is another one after it.
    yield "x <FILL_ME> y"


def written(folder, tokenizer, config, model):
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps(model))


def loaded(tokenizer, config, model):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        written(folder, tokenizer, config, model)
        return load_tokenizer(folder, {"trust_remote_code": False})


def entry(tokenizers, number, file, config, model=None, filling=0):
    model = model or {"model_type": "llama"}
    found = {"tokenizer": file, "filling": filling, "config": config, "model": model}
    try:
        tokenizer = loaded(filled(tokenizers[file], filling) if filling else tokenizers[file], config, model)
    except Exception as error:
        # mlx-lm encodes a text when it loads a tokenizer, on which some fail; where they load there is nothing to be refused.
        return None if "Unk token" in str(error) else {**found, "class": None}
    cases = []
    for text in texts(random.Random(number)):
        special = tokenizer.bos_token is None or not text.startswith(tokenizer.bos_token)
        try:
            ids = tokenizer.encode(text, add_special_tokens=False)
            cases.append([text, tokenizer.encode(text, add_special_tokens=special), ids, tokenizer.decode(ids)])
        except Exception:
            cases.append([text, None, None, None])
    named = {name: str(token) for name, token in tokenizer._tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return {**found, "class": type(tokenizer._tokenizer).__name__, "named": named, "eos": sorted(tokenizer.eos_token_ids), "cases": cases}


def choices(tokenizers):
    """Model type, class in tokenizer_config.json, class in config.json, auto_map, tokenizer; and the class that is chosen, or none."""
    types = sorted({module.name for module in pkgutil.iter_modules(mlx_lm.models.__path__)} | set(MODEL_REMAPPING))
    names = sorted({name for name in tokenization_auto.TOKENIZER_MAPPING_NAMES.values() if name})
    def ask(model_type, declared, configured, auto_map, file):
        config = {key: value for key, value in (("tokenizer_class", declared), ("auto_map", auto_map)) if value}
        model = {key: value for key, value in (("model_type", model_type), ("tokenizer_class", configured)) if value}
        with tempfile.TemporaryDirectory() as folder:
            written(pathlib.Path(folder), tokenizers[file], config, model)
            try:
                found = type(AutoTokenizer.from_pretrained(folder, trust_remote_code=False)).__name__
            except Exception:
                found = None
        return [model_type, declared, configured, bool(auto_map), file, found]
    for model_type in types:
        for declared in (None, "LlamaTokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "SomebodysTokenizer"):
            yield ask(model_type, declared, None, None, "GPT-2")
    for name in [*names, "BloomTokenizerFast", "CodeGenTokenizerFast", "PreTrainedTokenizer", "NewlineTokenizer", "MistralCommonTokenizer", "Nobody"]:
        yield ask("llama", name, None, None, "SentencePiece, first")
        yield ask("granite", name, None, None, "SentencePiece, first")
        yield ask("qwen3", None, name, None, "GPT-2")
    for model_type in ("llama", "internlm2", "qwen3", "phi3", "gemma2"):
        for declared in (None, "LlamaTokenizerFast", "GPT2Tokenizer", "SomebodysTokenizer"):
            for file in ("GPT-2", "Gemma"):
                yield ask(model_type, declared, None, {"AutoTokenizer": ["code.SomebodysTokenizer", None]}, file)
                yield ask(model_type, declared, "LlamaTokenizer", None, file)


def main():
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    tokenizers = dict(files())
    found = [entry(tokenizers, number, *rest) for number, rest in enumerate(entries())]
    found += [entry(tokenizers, number, *rest, FILLING) for number, rest in enumerate(mended())]
    found = [entry for entry in found if entry]
    def line(value):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    def lines(values):
        return ",\n".join(line(value) for value in values)
    text = '{"tokenizers": {\n' + ",\n".join(f"{line(name)}: {line(file)}" for name, file in tokenizers.items())
    text += '},\n"entries": [\n' + lines(found) + '],\n"choices": [\n' + lines(choices(tokenizers)) + "]}\n"
    if "--check" in sys.argv[1:]:
        sys.exit(0 if FIXTURE.read_text() == text else "tests/fixtures/tokenizer_classes.json is not what mlx-lm gives")
    FIXTURE.write_text(text)
    print(f"{len(found)} tokenizers, {sum(len(entry.get('cases', [])) for entry in found)} texts")


if __name__ == "__main__":
    main()
