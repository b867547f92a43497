"""The cases of run.py. Each prints GoogleTest's marks, so that tools/run_tests.py counts them one by one."""

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import bitsandbytes
import numpy as np
import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import (AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer,
                          BitsAndBytesConfig)

from gguf_models import write_gguf

ROOT = Path(__file__).resolve().parent.parent.parent
SHARED = Path(os.environ.get("NIBBLE_SHARED") or ROOT.parent / "shared")
TINY = ROOT / "tests/data/tiny-llama"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")

# Relative to the largest logit: the same numbers in float32, summed in another order.
TOLERANCE = 2e-4
# An activation on the edge between two steps of int8 rounds either way; one that does moves the logits by about 4e-3.
TOLERANCE_INT8 = 1e-2

IDS = [5, 17, 99, 3, 64, 101, 12, 80, 33, 7, 119, 55]
TEXTS = ["Hello, world!", "  two  spaces\n\n\tand a tab ", "It's 1234567 o'clock; we'll see.", "naïve café — “quoted”",
         "日本語のテキスト", "emoji 👩‍👩‍👧 and ñ", "<|im_start|>user\nHi<|im_end|>\n", "", "x" * 70, "e\u0301 \u00e9 ﬁ Å"]
FORMATS = {
    "nf4": (["--format", "nf4"], dict(bnb_4bit_quant_type="nf4")),
    "nf4-double-quant": (["--format", "nf4", "--double-quant"],
                         dict(bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)),
    "fp4": (["--format", "fp4"], dict(bnb_4bit_quant_type="fp4")),
    "int8": (["--format", "int8"], None),
}
FAMILIES = ["mistral", "qwen2", "qwen3", "smollm3", "gemma2", "gemma3", "phi3", "olmo2", "gpt2"]
MERGED = {"llama-qv": "llama", "llama-dora": "llama", "gpt2-conv1d": "gpt2", "qwen2-lora-only-bias": "qwen2"}
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

    def label_logits(self, model, ids):
        file = self.folder / "logits.npy"
        self("classify", model, "--ids", ",".join(map(str, ids)), "--npy", file)
        return np.load(file)[0]

    def quantize(self, model, out, *options):
        self("quantize", model, "-o", self.folder / out, "--overwrite", *options)
        return self.folder / out

    def tokenize(self, model, text):
        return json.loads(self("tokenize", model, text, "--json"))["ids"]


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


def case_quantized_folder(nibble, source, name):
    """Our folder loads in stock transformers, holds what bitsandbytes would have stored, and predicts the same."""
    options, bnb = FORMATS[name]
    if name != "int8": options = options + ["--compute-dtype", "fp32"]
    folder = nibble.quantize(need(source), "quantized", *options)
    theirs, model = transformers_logits(folder, IDS)
    config = BitsAndBytesConfig(load_in_8bit=True) if bnb is None else BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32, **bnb)
    _, reference = transformers_logits(source, IDS, quantization_config=config)
    compare_stored(model.state_dict(), reference.state_dict())
    if not decodes_rightly(model):
        raise Skip("stored bits agree; logits not compared: on this processor (AVX-512) bitsandbytes decodes rows "
                   "wrongly that are no multiple of the block")
    expect_close(nibble.logits(folder, IDS), theirs, tolerance(name == "int8"), f"{source.name} {name}")


def case_quantized_classifier(nibble, source, name):
    """The same for a classifier, whose head stays as it is: adapters are trained together with it."""
    options, bnb = FORMATS[name]
    if name != "int8": options = options + ["--compute-dtype", "fp32"]
    folder = nibble.quantize(need(source), "quantized", *options)
    auto, skip = AutoModelForSequenceClassification, dict(llm_int8_skip_modules=["classifier"])
    theirs, model = transformers_logits(folder, IDS, auto)
    config = BitsAndBytesConfig(load_in_8bit=True, **skip) if bnb is None else BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32, **bnb, **skip)
    _, reference = transformers_logits(source, IDS, auto, quantization_config=config)
    compare_stored(model.state_dict(), reference.state_dict())
    if not decodes_rightly(model):
        raise Skip("stored bits agree; logits not compared: bitsandbytes decodes wrongly on this processor")
    expect_close(nibble.label_logits(folder, IDS), theirs, tolerance(name == "int8"), f"{source.name} {name}")


def case_skipped_layers(nibble, source, layer, name):
    """A list of skipped modules takes the place of transformers' own, which spares a tied head."""
    options, _ = FORMATS[name]
    folder = nibble.quantize(need(source), "quantized", *options, "--skip", layer)
    theirs, model = transformers_logits(folder, IDS)
    dense = [module for path, module in model.named_modules() if path.endswith(layer) or path == "lm_head"]
    assert dense and all(type(m).__name__ in ("Linear", "Conv1D") for m in dense), dense
    if not decodes_rightly(model):
        raise Skip("logits not compared: bitsandbytes decodes wrongly on this processor")
    expect_close(nibble.logits(folder, IDS), theirs, tolerance(name == "int8"), f"{source.name} without {layer} {name}")


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


def compare_stored(ours, theirs):
    """Codes and scales are the same bits; double-quantized scales hang on a mean whose summation order is free."""
    assert ours.keys() == theirs.keys(), f"keys differ: {sorted(ours.keys() ^ theirs.keys())[:5]}"
    for key, expected in theirs.items():
        found = ours[key]
        if expected.dtype == torch.uint8 and "bitsandbytes__" in key or expected.dtype == torch.float64:
            continue  # the state as JSON text
        if key.endswith("nested_absmax"):
            assert torch.allclose(found, expected, rtol=1e-5), key
        elif key.endswith("absmax") and expected.dtype == torch.uint8:
            assert (found.int() - expected.int()).abs().max() <= 1, key
        else:
            assert torch.equal(found, expected), f"{key}: {int((found != expected).sum())} of {expected.numel()} differ"


def case_bitsandbytes_folder(nibble, folder):
    """We read a folder that transformers saved, and predict what it predicts here and what it predicted then."""
    need(folder)
    info = json.loads((folder / "golden.json").read_text())
    int8 = "load_in_8bit" in info["config"]
    with safe_open(folder / "golden.safetensors", "numpy") as golden:
        sequences = [key for key in golden.keys() if key.startswith("input_ids.")]
        assert sequences, "no token ids in golden.safetensors"
        for key in sequences:
            ids, stored = golden.get_tensor(key).tolist(), golden.get_tensor(key.replace("input_ids", "logits"))
            ours = nibble.logits(folder, ids)
            theirs, model = transformers_logits(folder, ids)
            if decodes_rightly(model):
                expect_close(ours, theirs, tolerance(int8), f"{key} here")
            if info["dtype"] == "float32":
                expect_close(ours, stored, tolerance(int8), f"{key} as stored")


def case_dequantized_folder(nibble, source):
    """The dense model that a quantized one stands for loads without bitsandbytes and predicts the same."""
    folder = nibble.quantize(need(source), "quantized", "--format", "nf4", "--compute-dtype", "fp32")
    nibble("dequantize", folder, "-o", nibble.folder / "dense", "--dtype", "fp32", "--overwrite")
    config = json.loads((nibble.folder / "dense/config.json").read_text())
    assert "quantization_config" not in config
    theirs, _ = transformers_logits(nibble.folder / "dense", IDS)
    expect_close(nibble.logits(folder, IDS), theirs, TOLERANCE, f"{source.name} dequantized")


def case_merged_folder(nibble, source, adapter, target):
    """What we merge loads in stock transformers and predicts what PEFT's own merge of the two does."""
    import peft

    folder = nibble.folder / "merged"
    nibble("merge", need(source), "--adapter", need(adapter), "-o", folder, "--to", target, "--overwrite")
    theirs, model = transformers_logits(folder, IDS)
    if not decodes_rightly(model):
        raise Skip("loads; logits not compared: on this processor (AVX-512) bitsandbytes decodes rows wrongly that are "
                   "no multiple of the block")
    expect_close(nibble.logits(folder, IDS), theirs, TOLERANCE, f"{adapter.name} to {target}: nibble, transformers")
    if target != "fp32": return
    base = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    merged = peft.PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().eval()
    with torch.no_grad():
        expect_close(theirs, merged(torch.tensor([IDS])).logits[0].numpy(), TOLERANCE, f"{adapter.name}: PEFT's merge")


# What is trained of which model, and with which options.
TRAINED = {"llama/lora": ["--target-modules", "all-linear"], "llama/dora": ["--target-modules", "q_proj", "--dora"],
           "llama/rslora-bias": ["--target-modules", "q_proj", "down_proj", "--rslora", "--bias", "lora_only"],
           "qwen2/bias": ["--target-modules", ".*_proj", "--bias", "all"],
           "gpt2/lora": ["--target-modules", "c_attn", "c_proj"], "gpt2/bias": ["--bias", "lora_only"], "gemma2/saved-norm": ["--modules-to-save", "model.norm"],
           "llama/pissa": ["--target-modules", "all-linear", "--init", "pissa"],
           "gpt2/pissa-rslora": ["--target-modules", "c_attn", "c_fc", "--init", "pissa_niter_8", "--rslora"],
           "llama-tied/saved-table": ["--target-modules", "q_proj", "--modules-to-save", "embed_tokens"],
           "llama-tied/saved-both": ["--target-modules", "q_proj", "--modules-to-save", "lm_head", "embed_tokens"],
           "llama/embedding": ["--target-modules", "q_proj", "embed_tokens"],
           "bert/embedding": ["--target-modules", "word_embeddings", "position_embeddings", "query"],
           "bert/lora": ["--target-modules", "query", "value"], "roberta/lora": [], "distilbert/lora": []}


def case_trained_adapter(nibble, source, options):
    """An adapter that we trained loads in PEFT without a missing or unexpected tensor, and predicts the same."""
    import peft

    encoder = source.name in ENCODERS
    data = nibble.folder / "data.jsonl"
    data.write_text("".join(json.dumps({"input_ids": IDS[i:], "labels": i % 2 if encoder else IDS[i:]}) + "\n"
                            for i in range(4)))
    folder = nibble.folder / "adapter"
    nibble("finetune", need(source), "-o", folder, "--data", data, "--steps", 3, "--learning-rate", 0.02, "--lora-r", 4,
           "--overwrite", *options)
    kind = AutoModelForSequenceClassification if encoder else AutoModelForCausalLM
    base = kind.from_pretrained(source, dtype=torch.float32)
    before = base.eval()(torch.tensor([IDS])).logits[0].detach().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT warns of adapter keys that are missing
        warnings.filterwarnings("ignore", message=".*tie")  # and of tied matrices, of which it copies one
        model = peft.PeftModel.from_pretrained(base, str(folder)).eval()
    with safe_open(folder / "adapter_model.safetensors", "pt") as stored:
        ours = set(stored.keys())
    # With an adapter of the embedding PEFT also stores the embedding itself, which belongs to the base.
    theirs = set(peft.get_peft_model_state_dict(model, save_embedding_layers=False).keys())
    assert ours == theirs, f"only in one of the two: {sorted(ours ^ theirs)[:6]}"
    with torch.no_grad():
        after = model(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(after - before).max() > 1e-2, "the adapter changes nothing"
    file = nibble.folder / "logits.npy"
    nibble("classify" if encoder else "logits", source, "--adapter", folder, "--ids", ",".join(map(str, IDS)), "--npy", file)
    mine = np.load(file)[0] if encoder else np.load(file)
    expect_close(mine, after, TOLERANCE, f"{source.name}: nibble, PEFT")


# Adapters of PEFT whose configurations are easily read wrongly; all parameters get random values.
READ = {"llama/biases": {"target_modules": ["q_proj"], "lora_bias": True, "bias": "all"},
        "llama/saved-biases": {"target_modules": ["q_proj"], "modules_to_save": ["down_proj"], "bias": "all"},
        "bert/saved-biases": {"target_modules": ["query", "value"], "bias": "all"},
        "gpt2/alphas": {"target_modules": ["c_attn"], "fan_in_fan_out": True,
                        "alpha_pattern": {"transformer.h.0.attn.c_attn": 40, r"^transformer\.h\.1.*": 1}}}


def without_prefix(source, folder):
    """GPT-2 with the names of OpenAI's file."""
    from safetensors.torch import load_file, save_file

    folder.mkdir(exist_ok=True)
    tensors = load_file(source / "model.safetensors")
    save_file({name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    return folder


def case_adapter_of_peft(nibble, source, options):
    """An adapter that PEFT has written gives the same here, over files with the names of the class and with others."""
    import peft

    encoder = source.name in ENCODERS
    kind = AutoModelForSequenceClassification if encoder else AutoModelForCausalLM
    base = kind.from_pretrained(need(source), dtype=torch.float32)
    config = peft.LoraConfig(r=4, lora_alpha=6, init_lora_weights=False, task_type="SEQ_CLS" if encoder else "CAUSAL_LM",
                             **options)
    model = peft.get_peft_model(base, config).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad: parameter.add_(torch.randn_like(parameter) * 0.1)
        expected = model(torch.tensor([IDS])).logits[0].numpy()
    model.save_pretrained(nibble.folder / "adapter")
    folders = [source] + ([without_prefix(source, nibble.folder / "raw")] if source.name == "gpt2" else [])
    for folder in folders:
        file = nibble.folder / "logits.npy"
        nibble("classify" if encoder else "logits", folder, "--adapter", nibble.folder / "adapter", "--ids",
               ",".join(map(str, IDS)), "--npy", file)
        mine = np.load(file)[0] if encoder else np.load(file)
        expect_close(mine, expected, TOLERANCE, f"{folder.name}: nibble, PEFT")


def case_pissa_start(nibble, source):
    """What is subtracted from the weights is the adapter that PEFT begins with, up to the signs of singular vectors."""
    import peft

    data = nibble.folder / "data.jsonl"
    data.write_text(json.dumps({"input_ids": IDS}) + "\n")
    nibble("finetune", need(source), "-o", nibble.folder / "adapter", "--data", data, "--steps", 1, "--lora-r", 4,
           "--lora-alpha", 6, "--target-modules", "all-linear", "--init", "pissa", "--overwrite")
    base = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", init_lora_weights="pissa")
    theirs = peft.get_peft_model_state_dict(peft.get_peft_model(base, config))
    worst = lengths = 0.0
    with safe_open(nibble.folder / "adapter/adapter_model.safetensors", "pt") as stored:
        for key in [key for key in theirs if "lora_A" in key]:
            a, b = stored.get_tensor(key)[4:], -stored.get_tensor(key.replace("lora_A", "lora_B"))[:, 4:]
            expected = theirs[key.replace("lora_A", "lora_B")] @ theirs[key]
            worst = max(worst, float((b @ a - expected).norm() / expected.norm()))
            lengths = max(lengths, float((a.norm(dim=1) / theirs[key].norm(dim=1) - 1).abs().max()))
    print(f"{source.name}: largest relative difference of B A {worst:.1e}, of the lengths of A's rows {lengths:.1e}")
    # Passes end when no singular value moves by more than 1e-6 of the first (ops/svd.h). Vectors that are off by an angle
    # move a singular value by its square and B A by the angle itself: 1e-3 for the last pass, and what the passes that are
    # left out would have done comes on top, most where singular values lie close to each other, as in these models of
    # random weights. 1.3e-3 (llama) and 1.7e-3 (gpt2) were measured; the bound is three times that.
    assert worst < 5e-3, worst
    assert lengths < 25e-6, lengths  # its square


def case_loftq_adapter(nibble, source):
    """An adapter that makes up for nf4 loads in PEFT over bitsandbytes' nf4 of the same model, and predicts the same."""
    import peft

    data = nibble.folder / "data.jsonl"
    data.write_text(json.dumps({"input_ids": IDS}) + "\n")
    folder = nibble.folder / "adapter"
    nibble("finetune", need(source), "-o", folder, "--data", data, "--steps", 2, "--lora-r", 16, "--method", "qlora",
           "--target-modules", "all-linear", "--init", "loftq", "--learning-rate", "1e-3", "--overwrite")
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32, bnb_4bit_quant_type="nf4")
    _, base = transformers_logits(source, IDS, quantization_config=config)
    if not decodes_rightly(base):
        raise Skip("bitsandbytes decodes wrongly on this processor")
    model = peft.PeftModel.from_pretrained(base, str(folder)).eval()
    with torch.no_grad():
        theirs = model(torch.tensor([IDS])).logits[0].float().numpy()
    file = nibble.folder / "logits.npy"
    nibble("logits", source, "--format", "nf4", "--activations", "fp32", "--adapter", folder, "--ids",
           ",".join(map(str, IDS)), "--npy", file)
    expect_close(np.load(file), theirs, TOLERANCE, f"{source.name}: nibble, PEFT over bitsandbytes")


def case_longrope(nibble, source):
    """Sequences within and beyond the context that the model was trained on, half of each head rotated."""
    folder = nibble.folder / "longrope"
    shutil.copytree(need(source), folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config["original_max_position_embeddings"] = 8
    config["rope_parameters"] = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
                                 "original_max_position_embeddings": 8, "short_factor": [1.0, 1.2, 1.5, 2.0],
                                 "long_factor": [1.0, 2.0, 4.0, 8.0]}
    (folder / "config.json").write_text(json.dumps(config))
    for count in [8, len(IDS)]:
        theirs, _ = transformers_logits(folder, IDS[:count])
        expect_close(nibble.logits(folder, IDS[:count]), theirs, TOLERANCE, f"{count} positions")


# What GGUF has no keys for, so that files of these families stand for models with the usual values.
NOT_IN_GGUF = {"mistral": {"sliding_window": None},
               "gemma2": {"query_pre_attn_scalar": 16, "layer_types": ["sliding_attention", "full_attention"]},
               "gemma3": {"layer_types": ["sliding_attention"] * 3},
               "smollm3": {"no_rope_layers": [1, 1, 1], "layer_types": None}}


def case_gguf_model(nibble, source, name):
    """A GGUF file made of a folder predicts what transformers predicts from the folder."""
    folder = nibble.folder / f"gguf-{name}"
    shutil.copytree(need(source), folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text()) | NOT_IN_GGUF.get(name, {})
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, "pt") as stored:
            tensors |= {key: stored.get_tensor(key).float().numpy() for key in stored.keys()}
    write_gguf(folder / "model.gguf", config, tensors)
    theirs, _ = transformers_logits(folder, IDS)
    expect_close(nibble.logits(folder / "model.gguf", IDS), theirs, TOLERANCE, f"{name} from GGUF")


def case_tokenizer_from_gguf(nibble, file):
    """The tokenizer.json that is written for a GGUF model gives the same ids everywhere."""
    folder = nibble.quantize(need(file), "from-gguf", "--format", "nf4")
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    auto = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ours = nibble.tokenize(file, text)
        for name, theirs in [("tokenizers", plain.encode(text).ids), ("AutoTokenizer", auto(text)["input_ids"]),
                             ("nibble on the folder", nibble.tokenize(folder, text))]:
            assert ours == theirs, f"{name}: {text!r} gives {theirs}, nibble {ours}"


def case_bundled_tokenizer(nibble):
    plain = Tokenizer.from_file(str(need(TINY / "tokenizer.json")))
    for text in TEXTS:
        assert nibble.tokenize(TINY, text) == plain.encode(text).ids, repr(text)


def cases():
    for source in [SHARED / "goldens/models/llama", SHARED / "goldens/models/llama-tied", TINY]:
        for name in FORMATS:
            yield f"Quantized.{source.name}/{name}", case_quantized_folder, (source, name)
        yield f"Dequantized.{source.name}", case_dequantized_folder, (source,)
    for family in FAMILIES:
        source = SHARED / "goldens/models" / family
        for name in ["nf4", "int8"]:
            yield f"Quantized.{family}/{name}", case_quantized_folder, (source, name)
        yield f"Dequantized.{family}", case_dequantized_folder, (source,)
    for family in ["llama", *FAMILIES]:
        yield f"Gguf.{family}", case_gguf_model, (SHARED / "goldens/models" / family, family)
    for family in ENCODERS:
        for name in ["nf4", "nf4-double-quant", "int8"]:
            yield f"Classifier.{family}/{name}", case_quantized_classifier, (SHARED / "goldens/models" / family, name)
    for name in ["nf4", "int8"]:
        yield f"Skipped.tiny-llama/{name}", case_skipped_layers, (TINY, "down_proj", name)
        yield f"Skipped.gpt2/{name}", case_skipped_layers, (SHARED / "goldens/models/gpt2", "mlp.c_proj", name)
    yield "Quantized.gpt2/nf4-double-quant", case_quantized_folder, (SHARED / "goldens/models/gpt2", "nf4-double-quant")
    for adapter, source in MERGED.items():
        for target in ["fp32", "nf4"]:
            yield f"Merged.{adapter}/{target}", case_merged_folder, (
                SHARED / "goldens/models" / source, SHARED / "goldens/peft" / adapter, target)
    for name, options in TRAINED.items():
        yield f"Trained.{name}", case_trained_adapter, (SHARED / "goldens/models" / name.split("/")[0], options)
    for name, options in READ.items():
        yield f"Read.{name}", case_adapter_of_peft, (SHARED / "goldens/models" / name.split("/")[0], options)
    for family in ["llama", "gpt2"]:
        yield f"Pissa.{family}", case_pissa_start, (SHARED / "goldens/models" / family,)
        yield f"Loftq.{family}", case_loftq_adapter, (SHARED / "goldens/models" / family,)
    yield "Longrope.phi3", case_longrope, (SHARED / "goldens/models/phi3",)
    bnb = [folder for family in ["llama", "gpt2"] for folder in sorted((SHARED / "goldens/bnb").glob(f"{family}*"))]
    bnb = bnb or [SHARED / "goldens/bnb"]
    for folder in bnb:
        yield f"ReadsBitsandbytes.{folder.name}", case_bitsandbytes_folder, (folder,)
    yield "Tokenizer.smollm2-gguf", case_tokenizer_from_gguf, (
        CACHE / "nibble/SmolLM2-135M-Instruct.Q4_1.gguf",)
    yield "Tokenizer.tiny-llama", case_bundled_tokenizer, ()


def run_case(name, function, arguments, nibble):
    """Returns "OK", "FAILED" or "SKIPPED"."""
    print(f"[ RUN      ] {name}", flush=True)
    began, mark = time.time(), "OK"
    try:
        function(nibble, *arguments)
    except Skip as skip:
        print(skip)
        mark = "SKIPPED"
    except Exception:
        traceback.print_exc(file=sys.stdout)
        mark = "FAILED"
    frame = {"OK": "[       OK ]", "FAILED": "[  FAILED  ]", "SKIPPED": "[  SKIPPED ]"}[mark]
    print(f"{frame} {name} ({(time.time() - began) * 1000:.0f} ms)", flush=True)
    return mark


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nibble", default=os.environ.get("NIBBLE", ROOT / "build/release/nibble"))
    parser.add_argument("--only", default="", help="cases whose name holds this")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="nibble-interop-") as folder:
        nibble = Nibble(args.nibble, folder)
        marks = [run_case(name, function, arguments, nibble) for name, function, arguments in cases()
                 if args.only in name]
    if not marks:
        print(f"no case has {args.only!r} in its name")
    return 1 if "FAILED" in marks or not marks else 0


if __name__ == "__main__":
    sys.exit(main())
