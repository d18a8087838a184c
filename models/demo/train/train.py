"""Trains the demo model on the CPU and writes a Hugging Face folder (float16, LlamaForCausalLM).

    python train.py HF_DIR [--steps N] [--qat N] [--seed N]

The last --qat steps see the weights as 4-bit quantization will leave them.
"""
import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

import data
import model
from make_tokenizer import ASSISTANT, END, SYSTEM, USER

ROW, ROWS = 64, 32            # a batch: 32 rows of 64 tokens, about 90 conversations
QUESTION_WEIGHT = 0.03        # a little, so that the model knows what questions look like


def conversations(tok, seed, chunk=4096):
    stream = data.sampler(seed)
    while True:
        part = [next(stream)[1:] for _ in range(chunk)]
        texts = [e.ids for e in tok.encode_batch([t or "" for c in part for t in c])]
        for system, q, a in zip(texts[0::3], texts[1::3], texts[2::3]):
            head = ([SYSTEM, *system, END] if system else []) + [USER, *q, END, ASSISTANT]
            ids = head + a + [END]
            yield ids, [QUESTION_WEIGHT] * (len(head) - 1) + [1.0] * (len(a) + 1)


def batches(tok, seed):
    """-> ids, pos, seg, target, weight, each [ROWS, ROW]; a conversation never straddles two rows."""
    stream = conversations(tok, seed)
    while True:
        out = np.zeros((5, ROWS, ROW), np.float32)
        fill, count = [0] * ROWS, [0] * ROWS
        misses = 0
        while misses < 8:
            ids, weight = next(stream)
            n = len(ids) - 1
            r = next((r for r in range(ROWS) if fill[r] + n <= ROW), None)
            if r is None:
                misses += 1
                continue
            s = slice(fill[r], fill[r] + n)
            count[r] += 1
            out[:, r, s] = ids[:-1], range(n), [count[r]] * n, ids[1:], weight
            fill[r] += n
        yield out[0].astype(np.int32), out[1].astype(np.int32), out[2].astype(np.int32), out[3].astype(np.int32), out[4]


def loss_fn(p, batch, qat, dtype):
    ids, pos, seg, target, weight = batch
    logits = model.forward(model.quantized(p) if qat else p, ids, pos, seg, dtype)
    picked = jnp.where(jnp.arange(logits.shape[-1]) == target[..., None], logits, 0).sum(-1)   # no gather: its gradient is slow
    nll = jax.nn.logsumexp(logits, -1) - picked
    answer = weight == 1.0
    return (nll * weight).sum() / weight.sum(), (nll * answer).sum() / answer.sum()


def orthogonal(g):
    """Muon's Newton-Schulz iteration: the nearest semi-orthogonal matrix, roughly."""
    flip = g.shape[0] > g.shape[1]
    x = (g.T if flip else g)
    x = (x / (jnp.linalg.norm(x) + 1e-7)).astype(jnp.bfloat16)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    x = x.astype(jnp.float32)
    return (x.T if flip else x) * max(1.0, g.shape[0] / g.shape[1]) ** 0.5


def is_muon(name):
    return "_proj" in name


def make_step(qat, dtype, muon_lr, adam_lr, decay):
    def step(p, m, v, t, lr, batch):
        (_, answer), g = jax.value_and_grad(loss_fn, has_aux=True)(p, batch, qat, dtype)
        norm = jnp.sqrt(sum((x * x).sum() for x in g.values()))
        clip = jnp.minimum(1.0, 1.0 / norm)
        np_, nm, nv = {}, {}, {}
        for k, w in p.items():
            gk = g[k] * clip
            if is_muon(k):
                nm[k], nv[k] = 0.95 * m[k] + gk, v[k]
                np_[k] = w * (1 - lr * muon_lr * decay) - lr * muon_lr * orthogonal(gk + 0.95 * nm[k])
            else:
                nm[k] = 0.9 * m[k] + 0.1 * gk
                nv[k] = 0.98 * v[k] + 0.02 * gk * gk
                u = (nm[k] / (1 - 0.9 ** t)) / (jnp.sqrt(nv[k] / (1 - 0.98 ** t)) + 1e-9)
                np_[k] = w - lr * adam_lr * (u + (decay * w if w.ndim == 2 else 0))
        return np_, nm, nv, answer
    return jax.jit(step, donate_argnums=(0, 1, 2))


def export(p, tok, out):
    save_file({k: np.asarray(v, np.float16) for k, v in p.items()}, f"{out}/model.safetensors", metadata={"format": "pt"})
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=model.HIDDEN, intermediate_size=model.INTER,
                  num_hidden_layers=model.LAYERS, num_attention_heads=model.HEADS, num_key_value_heads=model.KV, head_dim=model.HEAD,
                  rms_norm_eps=model.EPS, rope_theta=model.THETA, vocab_size=model.VOCAB, max_position_embeddings=256, tie_word_embeddings=False,
                  hidden_act="silu", attention_bias=False, mlp_bias=False, eos_token_id=END, pad_token_id=0, torch_dtype="float16")
    json.dump(config, open(f"{out}/config.json", "w"), indent=2)
    json.dump(dict(eos_token_id=END, pad_token_id=0), open(f"{out}/generation_config.json", "w"), indent=2)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("out")
    a.add_argument("--steps", type=int, default=4500)
    a.add_argument("--qat", type=int, default=1200)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--muon-lr", type=float, default=0.02)
    a.add_argument("--adam-lr", type=float, default=0.004)
    a.add_argument("--decay", type=float, default=0.05)
    a = a.parse_args()
    tok = Tokenizer.from_file(f"{a.out}/tokenizer.json")
    p = model.init(a.seed)
    m, v = ({k: jnp.zeros_like(w) for k, w in p.items()} for _ in range(2))
    print("parameters", sum(w.size for w in p.values()), flush=True)
    steps = {q: make_step(q, jnp.bfloat16, a.muon_lr, a.adam_lr, a.decay) for q in (False, True)}
    stream, start, seen, losses = batches(tok, a.seed), time.time(), 0, []
    for t in range(1, a.steps + 1):
        batch = next(stream)
        seen += int((batch[4] > 0).sum())
        left = (a.steps - t) / a.steps
        lr = min(1.0, t / 200) * min(1.0, left / 0.6 + 0.005)      # linear decay over the last 60 %
        p, m, v, loss = steps[t > a.steps - a.qat](p, m, v, float(t), lr, batch)
        losses.append(loss)
        if t % 100 == 0:
            print(f"step {t} answer loss {np.mean([float(x) for x in losses[-100:]]):.4f} tokens {seen} seconds {time.time() - start:.0f}", flush=True)
        if t % 1000 == 0 or t == a.steps:
            export(p, tok, a.out)


main()
