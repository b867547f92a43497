#!/usr/bin/env python3
"""Puts a new classifier on a BERT encoder, so that `nibble finetune` can train it.

    tools/new_classifier.py ENCODER OUT LABEL...

ENCODER is a folder with the tensors of a BertModel in one safetensors file. Its tensors stay as they are, under "bert.";
the classifier has normal values of width 0.02 (seed 0) and no bias yet.
"""

import json
import random
import shutil
import struct
import sys
from pathlib import Path


def read_tensors(path):
    """Name -> (dtype, shape, bytes)."""
    file = path.read_bytes()
    begin = 8 + struct.unpack("<Q", file[:8])[0]
    header = json.loads(file[8:begin])
    header.pop("__metadata__", None)
    return {name: (e["dtype"], e["shape"], file[begin + e["data_offsets"][0]:begin + e["data_offsets"][1]])
            for name, e in header.items()}


def write_tensors(path, tensors):
    header, end = {}, 0
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(values)]}
        end += len(values)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(b"".join([struct.pack("<Q", len(text)), text, *(values for _, _, values in tensors.values())]))


def main(encoder, out, labels):
    out.mkdir()
    for name in ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]:
        if (encoder / name).exists(): shutil.copy(encoder / name, out / name)
    config = json.loads((encoder / "config.json").read_text())
    tensors = {f"bert.{name}": tensor for name, tensor in read_tensors(encoder / "model.safetensors").items()
               if not name.endswith("position_ids")}
    count, width = len(labels), config["hidden_size"]
    values = random.Random(0)
    weights = struct.pack(f"<{count * width}f", *(values.gauss(0, 0.02) for _ in range(count * width)))
    tensors["classifier.weight"] = ("F32", [count, width], weights)
    tensors["classifier.bias"] = ("F32", [count], struct.pack(f"<{count}f", *[0.0] * count))
    write_tensors(out / "model.safetensors", tensors)
    config |= {"architectures": ["BertForSequenceClassification"], "id2label": {str(i): x for i, x in enumerate(labels)},
               "label2id": {x: i for i, x in enumerate(labels)}}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 4: sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
