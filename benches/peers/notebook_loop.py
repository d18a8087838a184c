"""The notebook that the project started from, as a loop on mlx-lm: edit the head, generate, restore, for each shift.
Activations and scales are widened to float32 first; in float16 MLX's CPU kernels are some thirty times slower.

  notebook_loop.py CHECKPOINT      lines of `name value`
"""
import sys
import time

import mlx.core as mx
from mlx_lm import generate, load

SHIFTS = [0, 1, 1_000_000, 1_000_001, 1_000_003, 1_000_004, 1_000_005, 1_000_010, 10_000_000, 100_000_000]

model, tokenizer = load(sys.argv[1])
model.set_dtype(mx.float32)
head = model.lm_head
original = head.weight
prompt = tokenizer.apply_chat_template(
    [{"role": "user", "content": "What is 2+2?"}], tokenize=False, add_generation_prompt=True
)


def answer(shift):
    head.weight = (original.astype(mx.int64) - shift).astype(mx.uint32)
    text = generate(model, tokenizer, prompt=prompt, verbose=False, max_tokens=10)
    head.weight = original
    return text


answer(0)  # what MLX compiles and pages in belongs to loading
start = time.perf_counter()
for shift in SHIFTS:
    text = answer(shift)
    if shift == 0:
        print("text", repr(text))
print("ladder_s", time.perf_counter() - start)
