"""Runs headroom and its peers in turn and prints medians, spreads and ratios: see benches/compare.sh, which calls this.

  compare.py ROUNDS OURS CHECKPOINT GGUF GEMM CANDLE LLAMACPP PYTHON NOTEBOOK      `-` for a peer that is not there
"""
import statistics
import subprocess
import sys

IDS = [
    1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198,
    1, 4093, 198, 1780, 314, 216, 34, 27, 34, 47, 2, 198, 1, 520, 9531, 198,
]  # fmt: skip  # "What is 2+2?" in SmolLM2's chat template
SHAPES = ["49152x576x10", "49152x576x37", "49152x576x64", "8192x4096x64"]
PROMPTS = ["500", "1000", "2000", "4000", "8000"]
THREADS = "2"

rounds, ours, checkpoint, gguf, gemm, candle, llamacpp, python, notebook = sys.argv[1:]
seen = {}


def run(side, *command):
    """Figures that a command prints, one `name value` a line, added to what was seen of a side."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{side}: {' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        if name in ("text", "verdict", "kernel"):
            seen.setdefault((side, name), []).append(value)
        elif value:
            seen.setdefault((side, name), []).append(float(value))
    print(".", end="", flush=True, file=sys.stderr)


ids = [str(id) for id in IDS]
for _ in range(int(rounds)):
    run("headroom", ours, checkpoint)
    if llamacpp != "-":
        run("llama.cpp", "node", llamacpp, gguf, THREADS, *ids)
    if candle != "-":
        run("candle", candle, gguf, "64", *ids)
    for length in PROMPTS:
        run("headroom", ours, "prompts", checkpoint, length)
        if llamacpp != "-":
            run("llama.cpp", "node", llamacpp, gguf, THREADS, "prompts", length)
    for shape in SHAPES:
        run("headroom", ours, "products", shape)
        if gemm != "-":
            run("gemm", gemm, THREADS, shape)
if notebook != "-":
    # A minute long, and steady: once, between two of ours.
    run("notebook", python, notebook, checkpoint)
    run("headroom", ours, checkpoint)
print(file=sys.stderr)


def figure(side, name):
    """Median, least and most."""
    values = seen.get((side, name))
    return values and (statistics.median(values), min(values), max(values))


def show(figures, digits):
    median, least, most = figures
    return f"{median:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


def row(what, name, peer, peer_name, budget, faster_is_less, scale=1.0, digits=3):
    mine, theirs = figure("headroom", name), figure(peer, peer_name)
    if not mine:
        return
    mine = [value * scale for value in mine]
    if not theirs:
        print(f"| {what} | {show(mine, digits)} | {peer}: not run | | {budget} |")
        return
    theirs = [value * scale for value in theirs]
    ratio = theirs[0] / mine[0] if faster_is_less else mine[0] / theirs[0]
    print(f"| {what} | {show(mine, digits)} | {peer}: {show(theirs, digits)} | {ratio:.2f} | {budget} |")


print("| what | headroom: median (least to most) | peer | times as fast | budget |")
print("| --- | --- | --- | --- | --- |")
row("ladder of ten shifts, verdicts included, s", "ladder_s", "notebook", "ladder_s", "200", True)
row("the same beside ten greedy generations, s", "ladder_s", "llama.cpp", "ten_generations_s", "5", True)
for peer in ("llama.cpp", "candle"):
    row("greedy decoding, tokens/s", "decode_tokens_per_s", peer, "decode_tokens_per_s", "1.5", False, digits=1)
    row("prompt of 37 tokens, ms", "prefill_s", peer, "prefill_s", "", True, 1e3, 1)
for length in PROMPTS:
    row(f"prompt of {length} tokens, s", f"prompt_{length}", "llama.cpp", f"prompt_{length}", "1", True)
for shape in SHAPES:
    row(f"product {shape}, G multiply-adds/s", shape, "gemm", shape, "0.8", False, 1e-9, 1)
print()
for side in ("headroom", "llama.cpp", "candle", "notebook"):
    if texts := seen.get((side, "text")):
        print(f"{side}: {texts[0]}")
verdicts = seen[("headroom", "verdict")][:10]
print("verdicts:", " ".join(verdicts))
