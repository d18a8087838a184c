"""The body of a language model, computed by mlx-lm for the program headroom, which starts this file as a child.

headroom edits a model's quantized head and measures what the model then says. The body, everything before the head, never
changes under such an edit, so whoever computes it does not matter. Here mlx-lm does: this file loads a model, finds the
module that is its head, records what arrives there, and answers with that, the hidden states. It knows nothing of edits,
but for one kind: where the head is also the embedding and headroom edits both, it is sent the edited rows, as they are stored.

Frames, in both directions: the length of what follows as a little-endian u64, the length of the JSON as a u32, one JSON
object, then bytes that belong to it. They go through standard input and a copy of standard output. Standard output
itself leads to standard error, so that whatever a library prints does no harm.

    from here                                           what it is
    {"alive": true}                                     a sign of life, once a second
    {"protocol": 1, "python", "mlx_lm", "mlx"}          the first frame; versions are null where a package is missing
    {"opened": {...}}                                   the answer to "open"
    {"after": true} + logits                            the answer to "after"
    {"logits": true} + hidden state + logits            the answer to "logits"
    {"layers": count} + states                          the answer to "layers"; null where blocks give something else
    {"extended": true, "digest"} + states               the answer to "extend"
    {"error": {"kind", "message"}}                      the answer to any of them

    from headroom
    {"do": "open", "model", "dtype", "trust_remote_code", "cache_bytes"}
    {"do": "after"} + f32 values, [rows of the head]    what the model makes of these values as the head's product
    {"do": "logits", "tokens"}                          what the head is sent at the end of a prompt, and mlx-lm's logits there
    {"do": "layers", "tokens"}                          what each block gives for the last token of a prompt
    {"do": "extend", "release", "chunks": [{"id", "parent", "tokens", "rows"}]} + edited rows

A chunk is a stretch of tokens that goes through the model in one call, as a prompt does in mlx-lm, or a single token. Its
answer is the hidden state of its last token, in float32. The caches of chunks are kept up to `cache_bytes`; one that was
dropped is computed again, chunk by chunk in the same order, which gives the same bits.

This file depends on mlx-lm, on what mlx-lm depends on, and on Python's own library.
"""

import sys

# With `python -c` the first entry is the working folder, where a file may lie that is called like a module.
sys.path[:] = [entry for entry in sys.path if entry not in ("", ".")]

import copy
import hashlib
import json
import os
import platform
import queue
import signal
import struct
import threading
import time
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

PROTOCOL = 1
HEARTBEAT_SECONDS = 1.0
# Positions of a prompt that go through the model in one call, as in mlx-lm.
STRETCH = 2048
# Longest frame that is taken: a request of this many bytes is none.
LONGEST_FRAME = 1 << 30


# ---------------------------------------------------------------- frames


class Frames:
    """Standard input and output as headroom uses them."""

    def __init__(self):
        self.output = os.dup(1)
        os.dup2(2, 1)
        self.input = os.fdopen(os.dup(0), "rb")
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        self.lock = threading.Lock()
        self.requests = queue.Queue()

    def start(self):
        for work in (self.read, self.beat):
            threading.Thread(target=work, daemon=True).start()

    def send(self, message, payload=b""):
        text = json.dumps(message).encode()
        frame = memoryview(struct.pack("<QI", 4 + len(text) + len(payload), len(text)) + text + payload)
        with self.lock:
            while frame:
                frame = frame[os.write(self.output, frame) :]

    def read(self):
        """Takes requests as they come. When headroom ends, however that happens, so does its end of the pipe, and this."""
        try:
            while True:
                length, of_text = struct.unpack("<QI", self.exactly(12))
                if length > LONGEST_FRAME or of_text + 4 > length:
                    raise ValueError(f"a frame of {length} bytes with {of_text} of JSON")
                text = self.exactly(of_text)
                self.requests.put((json.loads(text), self.exactly(length - 4 - of_text)))
        except EOFError:
            os._exit(0)
        except BaseException as error:
            print(f"headroom's request cannot be read: {error}", file=sys.stderr, flush=True)
            os._exit(1)

    def exactly(self, count):
        data = self.input.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def beat(self):
        while True:
            time.sleep(HEARTBEAT_SECONDS)
            try:
                self.send({"alive": True})
            except OSError:
                os._exit(0)


def version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


# ---------------------------------------------------------------- the head


class Recorder:
    """Stands in the place of the head: keeps what arrives, and goes on as the head does, or with given values."""

    def __init__(self, head, method):
        self.hidden = None
        self.instead = None
        kind = type(head)
        product = getattr(kind, method)

        def recorded(module, x):
            self.hidden = x
            return product(module, x) if self.instead is None else self.instead

        # A class of its own for this one module: its tensors and its place in the model stay.
        head.__class__ = type("Recorded" + kind.__name__, (kind,), {method: recorded})


@contextmanager
def products(nn):
    """A list of all products with a matrix while this is open: module, method, output."""
    calls, originals = [], []
    for kind, method in (
        (nn.Linear, "__call__"),
        (nn.QuantizedLinear, "__call__"),
        (nn.Embedding, "as_linear"),
        (nn.QuantizedEmbedding, "as_linear"),
    ):
        original = getattr(kind, method)

        def traced(module, x, original=original, method=method):
            y = original(module, x)
            calls.append((module, method, y))
            return y

        originals.append((kind, method, original))
        setattr(kind, method, traced)
    try:
        yield calls
    finally:
        for kind, method, original in originals:
            setattr(kind, method, original)


def find_head(model, nn, logits_of):
    """The path, the module and the method of the head: the last product that is as wide as the logits."""
    with products(nn) as calls:
        width = logits_of().shape[-1]
    paths = {id(module): path for path, module in model.named_modules()}
    for module, method, y in reversed(calls):
        if y.shape[-1] == width and id(module) in paths:
            return paths[id(module)], module, method
    raise LookupError(f"no linear module and no embedding gives its {width} logits")


# ---------------------------------------------------------------- caches


class Chunk:
    """Tokens that went through the model in one call, and the cache after them while it is kept."""

    def __init__(self, parent, tokens, rows):
        self.parent, self.tokens, self.rows = parent, tokens, rows
        self.children = 0
        self.cache, self.bytes, self.used = None, 0, 0


def arrays(of, mx):
    """Every array that a cache holds, whatever its class."""
    if isinstance(of, mx.array):
        yield of
    elif isinstance(of, dict):
        for value in of.values():
            yield from arrays(value, mx)
    elif isinstance(of, (list, tuple)):
        for value in of:
            yield from arrays(value, mx)
    elif hasattr(of, "__dict__"):
        yield from arrays(vars(of), mx)


class Caches:
    """Caches of chunks in bounded memory. Where there is no room, those that others have been computed from go first, the
    one that was used longest ago before the others; prompts, which cost most to compute again, stay while they can."""

    def __init__(self, limit):
        self.limit, self.total, self.clock = limit, 0, 0
        self.kept = set()

    def use(self, chunk):
        self.clock += 1
        chunk.used = self.clock
        return copy.deepcopy(chunk.cache)

    def keep(self, chunk, cache, size):
        while self.total + size > self.limit:
            inner = [other for other in self.kept if other.children and other.parent is not None]
            others = inner or ([] if chunk.parent is not None else self.kept)
            if not others:
                return
            self.drop(min(others, key=lambda other: other.used))
        self.clock += 1
        chunk.cache, chunk.bytes, chunk.used = cache, size, self.clock
        self.total += size
        self.kept.add(chunk)

    def drop(self, chunk):
        if chunk in self.kept:
            self.kept.remove(chunk)
            self.total -= chunk.bytes
            chunk.cache, chunk.bytes = None, 0


# ---------------------------------------------------------------- the model


class Model:
    def __init__(self, request):
        import mlx.core as mx
        import mlx.nn as nn
        from mlx_lm.models.cache import make_prompt_cache
        from mlx_lm.utils import load_model

        self.mx, self.nn, self.make_prompt_cache = mx, nn, make_prompt_cache
        self.model, self.config = load_model(Path(request["model"]), trust_remote_code=request["trust_remote_code"])
        self.path, self.head, method = find_head(self.model, nn, lambda: self.model(mx.array([[1]])))
        self.stored = {name: self.head[name].dtype for name in ("weight", "scales", "biases") if name in self.head}
        if request["dtype"] == "float32":
            self.model.set_dtype(mx.float32)
            mx.eval(self.model.parameters())
        self.tied = method == "as_linear"
        self.recorder = Recorder(self.head, method)
        self.chunks = {}
        self.caches = Caches(request["cache_bytes"])

    def facts(self):
        self.model(self.mx.array([[1]]))
        hidden = self.recorder.hidden
        name = lambda dtype: str(dtype).rsplit(".", 1)[-1]
        device = "cpu" if self.mx.default_device() == self.mx.Device(self.mx.cpu) else "gpu"
        facts = {
            "model_type": self.config.get("model_type"),
            "module": self.path,
            "tied": self.tied,
            "kind": type(self.head).__mro__[1].__name__,
            "rows": self.head.weight.shape[0],
            "cols": hidden.shape[-1],
            "bits": getattr(self.head, "bits", None),
            "group_size": getattr(self.head, "group_size", None),
            "mode": getattr(self.head, "mode", None),
            "quantized": "scales" in self.head,
            "global_scale": "global_scale" in self.head,
            "bias": "bias" in self.head,
            "layers": len(self.model.layers),
            "dtype": name(hidden.dtype),
            "device": device,
            "digest": self.digest_of_head() if self.tied and "scales" in self.head else None,
        }
        return facts

    def after(self, payload):
        """What the model makes of a product of its head, `[rows]` in float32."""
        mx = self.mx
        product = mx.array(memoryview(payload).cast("f")).reshape(1, 1, -1)
        self.recorder.instead = product
        try:
            logits = self.model(mx.array([[1]])).astype(mx.float32)
        finally:
            self.recorder.instead = None
        mx.eval(logits)
        return bytes(memoryview(logits.reshape(-1)))

    def logits(self, tokens):
        mx = self.mx
        logits = self.model(mx.array([tokens]), cache=self.make_prompt_cache(self.model))[0, -1].astype(mx.float32)
        hidden = self.recorder.hidden[0, -1].astype(mx.float32)
        mx.eval(hidden, logits)
        return bytes(memoryview(hidden)) + bytes(memoryview(logits))

    def layers(self, tokens):
        """What each block gives for the last of these tokens; None where one gives something else than a state for each."""
        mx, blocks, given = self.mx, list(self.model.layers), {}
        kinds = [type(block) for block in blocks]

        def recording(number, kind):
            def recorded(module, *args, **kwargs):
                out = kind.__call__(module, *args, **kwargs)
                given[number] = out[0] if isinstance(out, (tuple, list)) else out
                return out

            return type("Recorded" + kind.__name__, (kind,), {"__call__": recorded})

        try:
            for number, (block, kind) in enumerate(zip(blocks, kinds)):
                block.__class__ = recording(number, kind)
            self.run(Chunk(None, tokens, {}), self.make_prompt_cache(self.model))
        finally:
            for block, kind in zip(blocks, kinds):
                block.__class__ = kind
        states, shape = [given.get(number) for number in range(len(blocks))], self.recorder.hidden.shape
        if any(not isinstance(state, mx.array) or state.shape != shape for state in states):
            return {"layers": None}, b""
        states = [state[0, -1].astype(mx.float32) for state in states]
        mx.eval(states)
        return {"layers": len(states)}, b"".join(bytes(memoryview(state)) for state in states)

    def extend(self, request, payload):
        for number in request["release"]:
            self.release(number)
        payload, edited, states = memoryview(payload), False, []
        for chunk in request["chunks"]:
            rows = {}
            for token in chunk["rows"]:
                rows[token], payload = self.row(payload)
            edited |= bool(rows)
            parent = None if chunk["parent"] is None else self.chunks[chunk["parent"]]
            new = Chunk(parent, chunk["tokens"], rows)
            cache = self.cache_after(parent)
            hidden = self.run(new, cache)
            states.append(bytes(memoryview(hidden)))
            if parent is not None:
                parent.children += 1
            self.chunks[chunk["id"]] = new
            self.caches.keep(new, cache, sum(array.nbytes for array in arrays(cache, self.mx)))
        return {"extended": True, "digest": self.digest_of_head() if edited else None}, b"".join(states)

    def release(self, number):
        chunk = self.chunks.pop(number, None)
        if chunk is None:
            # headroom forgets what was never computed, too, where a request has failed.
            return
        self.caches.drop(chunk)
        if chunk.parent is not None:
            chunk.parent.children -= 1

    def cache_after(self, chunk):
        """A cache of one's own that stands after `chunk`."""
        again = []
        while chunk is not None and chunk.cache is None:
            again.append(chunk)
            chunk = chunk.parent
        cache = self.make_prompt_cache(self.model) if chunk is None else self.caches.use(chunk)
        for one in reversed(again):
            self.run(one, cache)
        return cache

    def run(self, chunk, cache):
        """Sends a chunk through the model, and gives the hidden state of its last token."""
        mx = self.mx
        with self.embedding(chunk.rows):
            for start in range(0, len(chunk.tokens), STRETCH):
                self.model(mx.array([chunk.tokens[start : start + STRETCH]]), cache=cache)
                hidden = self.recorder.hidden[0, -1].astype(mx.float32)
                mx.eval(hidden, list(arrays(cache, mx)))
        return hidden

    # Edits of a matrix that is embedding and head.

    def row(self, payload):
        """A row as it is stored: packed words, scales, biases; and the bytes after it."""
        mx, parts = self.mx, []
        for name, dtype in self.stored.items():
            count = self.head[name].shape[1] * dtype.size
            raw, payload = payload[:count], payload[count:]
            parts.append(mx.array(raw).view(dtype).astype(self.head[name].dtype))
        return parts, payload

    @contextmanager
    def embedding(self, rows):
        """The head's matrix with these rows in place of its own while this is open."""
        if not rows:
            yield
            return
        names, originals = list(self.stored), [self.head[name] for name in self.stored]
        at = self.mx.array(list(rows))
        try:
            for part, (name, original) in enumerate(zip(names, originals)):
                edited = self.mx.array(original)
                edited[at] = self.mx.stack([row[part] for row in rows.values()])
                self.head[name] = edited
            yield
        finally:
            for name, original in zip(names, originals):
                self.head[name] = original

    def digest_of_head(self):
        """SHA-256 of the head's tensors as they are held."""
        digest = hashlib.sha256()
        for name in self.stored:
            digest.update(memoryview(self.head[name].reshape(-1).view(self.mx.uint8)))
        return digest.hexdigest()


# ---------------------------------------------------------------- requests


def serve(frames):
    model = None
    while True:
        request, payload = frames.requests.get()
        try:
            what = request["do"]
            if what == "open":
                model = Model(request)
                frames.send({"opened": model.facts()})
            elif what == "after":
                frames.send({"after": True}, model.after(payload))
            elif what == "logits":
                frames.send({"logits": True}, model.logits(request["tokens"]))
            elif what == "layers":
                frames.send(*model.layers(request["tokens"]))
            elif what == "extend":
                frames.send(*model.extend(request, payload))
            else:
                raise ValueError(f"there is no request {what!r}")
        except Exception as error:
            import traceback

            traceback.print_exc()
            frames.send({"error": {"kind": type(error).__name__, "message": str(error)}})


def main():
    # Signals of the terminal and of schedulers are headroom's to answer. This process ends when headroom does.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    frames = Frames()
    frames.start()
    frames.send(
        {
            "protocol": PROTOCOL,
            "python": platform.python_version(),
            "mlx_lm": version("mlx-lm"),
            "mlx": version("mlx"),
        }
    )
    serve(frames)


main()
