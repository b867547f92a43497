"""What the cases of interop share: nibble as a program, stock transformers, and how near two results have to be."""

import json
import logging
import os
import subprocess
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import bitsandbytes
import numpy as np
import torch
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parent.parent.parent
SHARED = Path(os.environ.get("NIBBLE_SHARED") or ROOT.parent / "shared")
TINY = ROOT / "tests/data/tiny-llama"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")

# Relative to the largest logit: the same numbers in float32, summed in another order.
TOLERANCE = 2e-4
# An activation on the edge between two steps of int8 rounds either way; one that does moves the logits by about 4e-3.
TOLERANCE_INT8 = 1e-2

IDS = [5, 17, 99, 3, 64, 101, 12, 80, 33, 7, 119, 55]
ENCODERS = ["bert", "distilbert", "roberta"]


class Skip(Exception):
    pass


class Nibble:
    def __init__(self, program, folder):
        self.program, self.folder = program, Path(folder)

    def __call__(self, *arguments):
        result = subprocess.run([self.program, *map(str, arguments)], capture_output=True, text=True)
        assert result.returncode == 0, f"nibble {' '.join(map(str, arguments))}: {result.stderr.strip()}"
        return result.stdout

    def logits(self, model, ids):
        file = self.folder / "logits.npy"
        self("logits", model, "--ids", ",".join(map(str, ids)), "--npy", file)
        return np.load(file)

    def label_logits(self, model, ids, *options):
        file = self.folder / "logits.npy"
        self("classify", model, "--ids", ",".join(map(str, ids)), "--npy", file, *options)
        return np.load(file)[0]

    def quantize(self, model, out, *options):
        self("quantize", model, "-o", self.folder / out, "--overwrite", *options)
        return self.folder / out

    def tokenize(self, model, text):
        return json.loads(self("tokenize", model, text, "--json"))["ids"]


def golden_model(name):
    """The folder of a tiny random model: bundled with the tests, or among the shared reference results."""
    bundled = ROOT / "tests/data" / name
    return bundled if bundled.exists() else SHARED / "goldens/models" / name


def need(path):
    if not path.exists():
        raise Skip(f"{path} is absent")
    return path


def transformers_logits(folder, ids, auto=AutoModelForCausalLM, **options):
    """Everything in float32: a checkpoint that is quantized already keeps its stored dtype otherwise, and on processors
    with AVX512-BF16 bitsandbytes multiplies 4-bit weights in bfloat16."""
    model = auto.from_pretrained(folder, dtype=torch.float32, **options).eval()
    for parameter in model.parameters():
        if parameter.is_floating_point() and not isinstance(parameter, bitsandbytes.nn.Params4bit):
            parameter.data = parameter.data.float()
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"): module.support_avx512bf16_for_cpu = False
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy(), model


def tolerance(int8):
    return TOLERANCE_INT8 if int8 else TOLERANCE


def expect_close(ours, theirs, limit, what):
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, expected {theirs.shape}"
    off = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    print(f"{what}: largest difference {off:.1e} of the largest logit")
    assert off <= limit, f"{what}: {off:.2e} is beyond {limit}"


def decodes_rightly(model):
    """Compares bitsandbytes' own decoding of its 4-bit layers with the definition."""
    for module in model.modules():
        if not isinstance(module, bitsandbytes.nn.Linear4bit): continue
        state = module.weight.quant_state
        decoded = bitsandbytes.functional.dequantize_4bit(module.weight, state).flatten().float()
        scales = state.absmax
        if state.nested:
            scales = bitsandbytes.functional.dequantize_blockwise(scales, state.state2) + state.offset
        packed = module.weight.flatten().view(torch.uint8)
        codes = torch.stack([packed >> 4, packed & 15], 1).flatten().long()
        expected = (state.code[codes] * scales.float().repeat_interleave(state.blocksize)[:len(codes)])[:len(decoded)]
        if (decoded - expected).abs().max() > 0.01 * expected.abs().max(): return False
    return True
