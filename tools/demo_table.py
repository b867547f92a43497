#!/usr/bin/env python3
"""Prints the table at the end of `make demo` from the JSON that the commands wrote.

    tools/demo_table.py FOLDER
"""

import json
import sys
from pathlib import Path

ROWS = [("original", "original (fp16)"), ("nf4", "nf4 + double quant"), ("int8", "int8")]
HEADER = ["format", "size", "bits/weight", "perplexity", "KL (nats)", "top-1 agrees", "tokens/s"]


def load(folder, label, command):
    return json.loads((folder / f"{label}.{command}.json").read_text())


def original_bits(folder):
    """Of the matrices that quantize changes, so that the rows of the table speak of the same weights."""
    quantized = {t["name"] for t in load(folder, "nf4", "quantize")["tensors"]}
    bits = weights = 0
    for tensor in load(folder, "original", "inspect")["tensors"]:
        if tensor["name"] in quantized:
            count = 1
            for size in tensor["shape"]: count *= size
            weights += count
            bits += 8 * tensor["bytes"]
    return bits / weights


def row(folder, label, title):
    speed = load(folder, label, "generate")["decode_tokens_per_second"]
    if label == "original":
        size = load(folder, "nf4", "quantize")["bytes_before"]
        perplexity = load(folder, "nf4", "evaluate")["reference_perplexity"]
        return [title, mib(size), f"{original_bits(folder):.3f}", f"{perplexity:.2f}", "", "", f"{speed:.0f}"]
    quantized, evaluated = load(folder, label, "quantize"), load(folder, label, "evaluate")
    return [title, mib(quantized["bytes_after"]), f"{quantized['linear_bits_per_weight']:.3f}",
            f"{evaluated['perplexity']:.2f}", f"{evaluated['kl_mean']:.4f}",
            f"{100 * evaluated['top1_agreement']:.1f} %", f"{speed:.0f}"]


def mib(size):
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"


def main():
    folder = Path(sys.argv[1])
    table = [HEADER] + [row(folder, label, title) for label, title in ROWS]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEADER))]
    for line in table:
        cells = [line[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]
        print("  " + "  ".join(cells))


if __name__ == "__main__":
    main()
