#!/usr/bin/env python3
"""Runs the examples on the bundled model and checks what they print.

    examples_test.py --quickstart build/release/examples/quickstart --qat build/release/examples/qat
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import marks

TINY = Path(__file__).resolve().parent.parent / "data/tiny-llama"
NUMBER = r"([0-9.]+(?:e-[0-9]+)?)"


def quickstart(program):
    result = subprocess.run([program, TINY, TINY / "heldout.txt"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = re.fullmatch(rf"bytes {NUMBER} -> {NUMBER}\nperplexity {NUMBER} -> {NUMBER}\n"
                         rf"KL {NUMBER} nats, same likeliest token {NUMBER} %\n(.*)\n", result.stdout, re.DOTALL)
    assert found, result.stdout
    before, after, reference, perplexity, kl, top1 = map(float, found.groups()[:6])
    # 435,072 weights in bf16. Quantized: 368,640 of them in 4 bits, one byte per 64, 1,024 bytes of nested scales and
    # maps per matrix of which there are 21, and small change.
    assert before == 2 * 435072 and 341000 < after < 350000, (before, after)
    # The first 1,024 ids in chunks of 512. torch has 10.98 on all of the text; its beginning is harder.
    assert 13.3 < reference < 13.5 and 1.0 < perplexity / reference < 1.06, (reference, perplexity)
    assert 0.02 < kl < 0.08 and 80 < top1 < 95, (kl, top1)
    prompt = "The captain of the ship said that"
    assert found[7].startswith(prompt) and len(found[7]) > len(prompt) + 24, found[7]


def quickstart_without_model(program):
    result = subprocess.run([program, "no/such/folder", "x"], capture_output=True, text=True)
    assert result.returncode == 1 and "no/such/folder" in result.stderr, result


def qat(program):
    with tempfile.TemporaryDirectory(prefix="nibble-examples-") as folder:
        result = subprocess.run([program, TINY, TINY / "heldout.txt", Path(folder) / "out"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    losses = [float(loss) for loss in re.findall(rf"^step \d+, loss {NUMBER}$", result.stdout, re.MULTILINE)]
    assert len(losses) == 20 and losses[-1] < 0.8 * losses[0], losses
    assert result.stdout.endswith("\n21 layers in int4, the same bits\n"), result.stdout


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quickstart", required=True)
    parser.add_argument("--qat", required=True)
    args = parser.parse_args()
    return marks.run([("Quickstart.quantizes_evaluates_generates", lambda: quickstart(args.quickstart)),
                      ("Quickstart.says_what_is_missing", lambda: quickstart_without_model(args.quickstart)),
                      ("Qat.trains_what_it_writes", lambda: qat(args.qat))])


if __name__ == "__main__":
    sys.exit(main())
