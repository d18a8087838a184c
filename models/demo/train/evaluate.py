"""What the converted checkpoint really says, by mlx-lm in float32, greedy.

    python evaluate.py MODEL_DIR heldout     exact answers on ../heldout.jsonl, kind by kind (exit 1 below 95 %)
    python evaluate.py MODEL_DIR suite       ../suite.jsonl: all right within 16 tokens (exit 1 otherwise)
    python evaluate.py MODEL_DIR reference   rewrites ../reference.jsonl
"""
import json
import pathlib
import sys

import mlx.core as mx
from mlx_lm import load
from mlx_lm.models.cache import make_prompt_cache

HERE = pathlib.Path(__file__).resolve().parent.parent
SHIFTS = [0, 1, 1_000_000, 1_000_001, 1_000_003, 1_000_004, 1_000_005, 1_000_010, 10_000_000, 100_000_000]


class Demo:
    def __init__(self, path):
        self.model, self.tok = load(path)
        self.model.set_dtype(mx.float32)
        self.clean = self.model.lm_head.weight
        self.eos = set(self.tok.eos_token_ids)

    def shift(self, s):
        self.model.lm_head.weight = (self.clean.astype(mx.int64) - s).astype(mx.uint32)

    def ids(self, prompt):
        return [int(i) for i in self.tok.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)]

    def say(self, prompt, limit, top=0):
        """-> ids of the prompt, tokens without the eos, finish, the best logits of each step."""
        ids = self.ids(prompt)
        cache, x, tokens, tops, finish = make_prompt_cache(self.model), mx.array([ids]), [], [], "length"
        for _ in range(limit):
            logits = self.model(x, cache=cache)[0, -1, :]
            if top:
                tops.append([[j, float(logits[j])] for j in mx.argsort(-logits)[:top].tolist()])
            t = int(mx.argmax(logits))
            if t in self.eos:
                finish = "stop"
                break
            tokens.append(t)
            x = mx.array([[t]])
        return ids, tokens, finish, tops


def lines(name):
    return [json.loads(line) for line in open(HERE / name, encoding="utf-8")]


def heldout(demo):
    right, total, wrong = {}, {}, []
    for case in lines("heldout.jsonl"):
        _, tokens, finish, _ = demo.say(case["prompt"], 48)
        text = demo.tok.decode(tokens)
        ok = finish == "stop" and text == case["answer"]
        total[case["kind"]] = total.get(case["kind"], 0) + 1
        right[case["kind"]] = right.get(case["kind"], 0) + ok
        if not ok:
            wrong.append((case["kind"], case["prompt"], case["answer"], text))
    for w in wrong:
        print("wrong:", *w, sep=" | ")
    print("| kind | held-out questions | exact |\n| --- | --- | --- |")
    for k, n in total.items():
        print(f"| {k} | {n} | {100 * right[k] / n:.1f} % |")
    print(f"| all | {sum(total.values())} | {100 * sum(right.values()) / sum(total.values()):.1f} % |")
    return all(right[k] >= 0.95 * n for k, n in total.items())


def suite(demo):
    good = True
    for case in lines("suite.jsonl"):
        _, tokens, finish, _ = demo.say(case["prompt"], 16)
        text = demo.tok.decode(tokens)
        ok = any(e.casefold() in text.casefold() for e in case["expected"])
        good &= ok
        print("ok   " if ok else "WRONG", finish, len(tokens), case["prompt"], "->", text)
    return good


def reference(demo):
    close = steps = 0
    with open(HERE / "reference.jsonl", "w", encoding="utf-8") as out:
        for n, case in enumerate(lines("suite.jsonl")):
            for s in SHIFTS if n < 6 else [0]:
                demo.shift(s)
                ids, tokens, finish, top = demo.say(case["prompt"], 24, top=5)
                first = demo.model.lm_head.weight.reshape(-1)[:5].tolist()
                text = demo.tok.decode(tokens)
                out.write(json.dumps(dict(prompt=case["prompt"], shift=s, prompt_ids=ids, tokens=tokens, text=text, finish=finish, first_words=first, top5=top), ensure_ascii=False) + "\n")
                steps += len(top)
                close += sum(t[0][1] - t[1][1] < 1e-3 for t in top)
                if n < 6:
                    print(case["prompt"], s, repr(text), finish)
    print(f"{steps} steps, the two best logits within 1e-3 in {close}")
    return True


if __name__ == "__main__":
    ok = {"heldout": heldout, "suite": suite, "reference": reference}[sys.argv[2]](Demo(sys.argv[1]))
    sys.exit(0 if ok else 1)
