"""Writes tests/fixtures/published.jsonl: configurations and tensors of small checkpoints as mlx-lm writes them.

usage: python tools/goldens/published.py KIT

KIT is a folder of checkpoints, and the Python one that has mlx-lm. A checkpoint gives a line: its `config.json` without what
says how it is quantized alone, its tensors by name with their element types and shapes (a `#` stands for every layer, where all
layers are alike), and for each configuration in it the keys that mlx-lm reads, with the values that it takes where they are
absent; a key that must be there has none. Checkpoints whose configurations differ in nothing but the quantization count once.
"""

import dataclasses
import json
import pathlib
import re
import struct
import sys

from mlx_lm.utils import _get_classes

FIXTURE = pathlib.Path(__file__).parents[2] / "tests" / "fixtures" / "published.jsonl"
FAMILIES = pathlib.Path(__file__).parents[2] / "src" / "checkpoint" / "family"
UNREAD = {"quantization", "quantization_config", "torch_dtype", "dtype", "architectures", "transformers_version"}


def tensors(folder):
    """How many layers there are, and name to element type and shape, layers that are alike taken together."""
    found = {}
    for file in sorted(folder.glob("model*.safetensors")):
        with file.open("rb") as f:
            header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        found |= {name: [x["dtype"], *x["shape"]] for name, x in header.items() if name != "__metadata__"}
    number = re.compile(r"(?<=\.)\d+(?=\.)")
    layers = {int(number.search(name)[0]) for name in found if number.search(name)}
    short = {}
    for name, what in found.items():
        alike = [number.sub(str(i), name, count=1) for i in layers] if number.search(name) else []
        if alike and all(found.get(other) == what for other in alike):
            name = number.sub("#", name, count=1)
        short[name] = what
    return len(layers), dict(sorted(short.items()))


def defaults(model):
    """The keys that the model's arguments read, and what each is where it is absent."""
    keys = {}
    for field in dataclasses.fields(model.args):
        if field.default is not dataclasses.MISSING:
            keys[field.name] = [field.default]
        elif field.default_factory is not dataclasses.MISSING:
            keys[field.name] = [field.default_factory()]
        else:
            keys[field.name] = []
    return keys


def line(folder):
    config = json.loads((folder / "config.json").read_text())
    kinds, arguments = _get_classes(config)
    model = kinds(arguments.from_dict(config))
    inner = getattr(model, "language_model", None)
    layers, found = tensors(folder)
    return {
        "name": folder.name,
        "config": {key: value for key, value in config.items() if key not in UNREAD - {"quantization"}},
        "keys": defaults(model),
        "text_keys": defaults(inner) if hasattr(inner, "args") else None,
        "layers": layers,
        "tensors": found,
    }


def main():
    native = set(re.findall(r'model_type: "([^"]+)"', "".join(file.read_text() for file in FAMILIES.glob("*.rs"))))
    lines, seen = [], set()
    for folder in sorted(pathlib.Path(sys.argv[1]).glob("*@*")):
        config = json.loads((folder / "config.json").read_text())
        alike = json.dumps({key: value for key, value in config.items() if key not in UNREAD}, sort_keys=True)
        if config["model_type"] in native and alike not in seen:
            seen.add(alike)
            lines.append(json.dumps(line(folder), separators=(",", ":")) + "\n")
    FIXTURE.write_text("".join(lines))


if __name__ == "__main__":
    main()
