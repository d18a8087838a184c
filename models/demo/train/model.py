"""The Llama architecture in JAX, and mlx's affine quantizer as a fake quantization with straight-through gradients.

Weights are [out, in], as in a checkpoint, so groups run along the last axis and export needs no transposition.
"""
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

VOCAB, HIDDEN, INTER, LAYERS, HEADS, KV, HEAD = 1536, 256, 512, 4, 8, 2, 32
THETA, EPS = 10000.0, 1e-5
BITS, GROUP = 4, 64

SHAPES = {"self_attn.q_proj": (HEADS * HEAD, HIDDEN), "self_attn.k_proj": (KV * HEAD, HIDDEN), "self_attn.v_proj": (KV * HEAD, HIDDEN),
          "self_attn.o_proj": (HIDDEN, HEADS * HEAD), "mlp.gate_proj": (INTER, HIDDEN), "mlp.up_proj": (INTER, HIDDEN), "mlp.down_proj": (HIDDEN, INTER)}


def init(seed):
    rng = np.random.default_rng(seed)
    p = {"model.embed_tokens.weight": rng.normal(0, 0.5, (VOCAB, HIDDEN)), "lm_head.weight": rng.normal(0, 0.02, (VOCAB, HIDDEN)),
         "model.norm.weight": np.ones(HIDDEN)}
    for layer in range(LAYERS):
        for name, (o, i) in SHAPES.items():
            std = i ** -0.5 * (0.3 if name.endswith(("o_proj", "down_proj")) else 1.0)
            p[f"model.layers.{layer}.{name}.weight"] = rng.normal(0, std, (o, i))
        for name in ("input_layernorm", "post_attention_layernorm"):
            p[f"model.layers.{layer}.{name}.weight"] = np.ones(HIDDEN)
    return {k: jnp.asarray(v, jnp.float32) for k, v in p.items()}


def quantize(w):
    """[out, in] -> codes, scales, biases, as mlx.core.quantize: the end of the range that is larger in size is hit exactly."""
    g = w.reshape(w.shape[0], -1, GROUP)
    lo, hi = g.min(-1), g.max(-1)
    low = jnp.abs(lo) > jnp.abs(hi)
    scale = jnp.maximum((hi - lo) / (2 ** BITS - 1), 1e-7)
    scale = jnp.where(low, scale, -scale)
    edge = jnp.where(low, lo, hi)
    q0 = jnp.round(edge / scale)
    scale = jnp.where(q0 != 0, edge / jnp.where(q0 == 0, 1, q0), scale)
    bias = jnp.where(q0 == 0, 0, edge)
    codes = jnp.clip(jnp.round((g - bias[..., None]) / scale[..., None]), 0, 2 ** BITS - 1)
    return codes, scale, bias


def fake(w):
    """The weight that the checkpoint will hold (scales and biases are stored in float16), gradient straight through."""
    codes, scale, bias = quantize(w)
    half = lambda x: x.astype(jnp.float16).astype(jnp.float32)
    q = (codes * half(scale)[..., None] + half(bias)[..., None]).reshape(w.shape)
    return w + jax.lax.stop_gradient(q - w)


def quantized(p):
    return {k: fake(v) if v.ndim == 2 else v for k, v in p.items()}


def rms(x, w):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + EPS) * w


def rope(x, pos):
    """x [B, S, heads, HEAD]; the two halves of a head rotate against each other, as in Hugging Face's Llama."""
    half = HEAD // 2
    f = pos[..., None].astype(jnp.float32) * THETA ** (-jnp.arange(half) / half)
    c, s = jnp.cos(f)[:, :, None], jnp.sin(f)[:, :, None]
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * c - b * s, b * c + a * s], -1)


def product(a, b, contract, dtype):
    return jax.lax.dot_general(a.astype(dtype), b.astype(dtype), ((contract[:1], contract[1:]), ((), ())), preferred_element_type=jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def linear(x, w, dtype):
    """x [N, in], w [out, in] -> [N, out], accumulated in f32; the gradients' products run in dtype too."""
    return product(x, w, (1, 1), dtype)


def linear_back(dtype, res, g):
    x, w = res
    return product(g, w, (1, 0), dtype), product(g, x, (0, 0), dtype)


linear.defvjp(lambda x, w, dtype: (product(x, w, (1, 1), dtype), (x, w)), linear_back)


@jax.custom_vjp
def embed(table, ids):
    return table[ids]


def embed_back(res, g):
    # A scatter-add is slow on a CPU; one matrix product is not.
    ids, rows = res
    hot = jax.nn.one_hot(ids.reshape(-1), rows, dtype=jnp.bfloat16, axis=0)
    return jax.lax.dot(hot, g.reshape(-1, g.shape[-1]).astype(jnp.bfloat16), preferred_element_type=jnp.float32), None


embed.defvjp(lambda table, ids: (table[ids], (ids, table.shape[0])), embed_back)


def forward(p, ids, pos, seg, dtype=jnp.float32):
    """ids, pos, seg [B, S]; rows may hold several conversations, numbered in seg -> logits [B, S, VOCAB]."""
    B, S = ids.shape
    lin = lambda x, name: linear(x.reshape(-1, x.shape[-1]), p[name + ".weight"], dtype).reshape(*x.shape[:-1], -1)
    mask = (seg[:, :, None] == seg[:, None, :]) & (jnp.arange(S)[:, None] >= jnp.arange(S)[None])
    x = embed(p["model.embed_tokens.weight"], ids)
    for layer in range(LAYERS):
        n = f"model.layers.{layer}."
        h = rms(x, p[n + "input_layernorm.weight"])
        q = rope(lin(h, n + "self_attn.q_proj").reshape(B, S, HEADS, HEAD), pos)
        k = rope(lin(h, n + "self_attn.k_proj").reshape(B, S, KV, HEAD), pos)
        v = lin(h, n + "self_attn.v_proj").reshape(B, S, KV, HEAD)
        q = q.reshape(B, S, KV, HEADS // KV, HEAD)
        a = jnp.einsum("bsgrd,btgd->bgrst", q, k) * HEAD ** -0.5
        a = jax.nn.softmax(jnp.where(mask[:, None, None], a, -1e9), -1)
        o = jnp.einsum("bgrst,btgd->bsgrd", a, v).reshape(B, S, HEADS * HEAD)
        x = x + lin(o, n + "self_attn.o_proj")
        h = rms(x, p[n + "post_attention_layernorm.weight"])
        x = x + lin(jax.nn.silu(lin(h, n + "mlp.gate_proj")) * lin(h, n + "mlp.up_proj"), n + "mlp.down_proj")
    return lin(rms(x, p["model.norm.weight"]), "lm_head")
