"""The cases of run.py. Each prints GoogleTest's marks, so that tools/run_tests.py counts them one by one."""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback

import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig

from adapter_cases import adapter_cases
from gguf_models import write_gguf
from support import (CACHE, ENCODERS, IDS, ROOT, SHARED, TINY, TOLERANCE, Nibble, Skip, decodes_rightly, expect_close,
                     golden_model, need, tolerance, transformers_logits)

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
WITHOUT_GGUF = ["opt", "opt-projected"]


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


def case_decoder_classifier(nibble, source):
    """A decoder whose last token is classified: as it is, with an adapter of PEFT that brings a head of its own, and with
    one that we trained."""
    import peft

    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_pretrained(need(source), num_labels=3, dtype=torch.float32).eval()
    folder, adapter = nibble.folder / "classifier", nibble.folder / "adapter"
    for old in [folder, adapter]: shutil.rmtree(old, ignore_errors=True)
    with torch.no_grad():
        model.score.weight.normal_(std=0.3)
        model.save_pretrained(folder)
        theirs = model(torch.tensor([IDS])).logits[0].numpy()
        expect_close(nibble.label_logits(folder, IDS), theirs, TOLERANCE, source.name)
        config = peft.LoraConfig(r=4, init_lora_weights=False, task_type="SEQ_CLS", target_modules="all-linear")
        model = peft.get_peft_model(model, config).eval()
        for name, values in model.named_parameters():
            if "modules_to_save" in name: values.normal_(std=0.3)
        model.save_pretrained(adapter)
        theirs = model(torch.tensor([IDS])).logits[0].numpy()
    expect_close(nibble.label_logits(folder, IDS, "--adapter", adapter), theirs, TOLERANCE, f"{source.name} with adapter")
    data = nibble.folder / "data.jsonl"
    data.write_text("".join(json.dumps({"input_ids": IDS[i:], "labels": i % 3}) + "\n" for i in range(6)))
    nibble("finetune", folder, "-o", adapter, "--data", data, "--steps", 3, "--learning-rate", 0.02, "--lora-r", 4,
           "--target-modules", "all-linear", "--overwrite")
    base = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        theirs = peft.PeftModel.from_pretrained(base, str(adapter)).eval()(torch.tensor([IDS])).logits[0].numpy()
    expect_close(nibble.label_logits(folder, IDS, "--adapter", adapter), theirs, TOLERANCE, f"{source.name} trained")


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


def case_saved_now(nibble, source, name):
    """The same of a folder that transformers saves in this run."""
    _, bnb = FORMATS[name]
    config = BitsAndBytesConfig(load_in_8bit=True) if bnb is None else BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32, **bnb)
    theirs, model = transformers_logits(need(source), IDS, quantization_config=config)
    folder = nibble.folder / "saved"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    ours = nibble.logits(folder, IDS)
    if not decodes_rightly(model):
        raise Skip("is read; logits not compared: bitsandbytes decodes wrongly on this processor")
    expect_close(ours, theirs, tolerance(name == "int8"), f"{source.name} {name}")


def case_dequantized_folder(nibble, source):
    """The dense model that a quantized one stands for loads without bitsandbytes and predicts the same."""
    folder = nibble.quantize(need(source), "quantized", "--format", "nf4", "--compute-dtype", "fp32")
    nibble("dequantize", folder, "-o", nibble.folder / "dense", "--dtype", "fp32", "--overwrite")
    config = json.loads((nibble.folder / "dense/config.json").read_text())
    assert "quantization_config" not in config
    theirs, _ = transformers_logits(nibble.folder / "dense", IDS)
    expect_close(nibble.logits(folder, IDS), theirs, TOLERANCE, f"{source.name} dequantized")


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
    for family in FAMILIES + WITHOUT_GGUF:
        source = golden_model(family)
        for name in ["nf4", "int8"]:
            yield f"Quantized.{family}/{name}", case_quantized_folder, (source, name)
        yield f"Dequantized.{family}", case_dequantized_folder, (source,)
    for family in ["llama", *FAMILIES]:
        yield f"Gguf.{family}", case_gguf_model, (SHARED / "goldens/models" / family, family)
    for family in ["llama", *FAMILIES, *WITHOUT_GGUF]:
        yield f"DecoderClassifier.{family}", case_decoder_classifier, (golden_model(family),)
    for family in ENCODERS:
        for name in ["nf4", "nf4-double-quant", "int8"]:
            yield f"Classifier.{family}/{name}", case_quantized_classifier, (SHARED / "goldens/models" / family, name)
    for name in ["nf4", "int8"]:
        yield f"Skipped.tiny-llama/{name}", case_skipped_layers, (TINY, "down_proj", name)
        yield f"Skipped.gpt2/{name}", case_skipped_layers, (SHARED / "goldens/models/gpt2", "mlp.c_proj", name)
    yield "Quantized.gpt2/nf4-double-quant", case_quantized_folder, (SHARED / "goldens/models/gpt2", "nf4-double-quant")
    yield from adapter_cases()
    yield "Longrope.phi3", case_longrope, (SHARED / "goldens/models/phi3",)
    bnb = [folder for family in ["llama", "gpt2"] for folder in sorted((SHARED / "goldens/bnb").glob(f"{family}*"))]
    bnb = bnb or [SHARED / "goldens/bnb"]
    for folder in bnb:
        yield f"ReadsBitsandbytes.{folder.name}", case_bitsandbytes_folder, (folder,)
    for family, names in {"opt": FORMATS, "opt-projected": ["int8"]}.items():
        for name in names:
            yield f"ReadsBitsandbytes.{family}-{name}", case_saved_now, (golden_model(family), name)
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
