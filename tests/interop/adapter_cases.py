"""The cases of interop that are about adapters, beside PEFT."""

import json
import warnings

import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig

from support import (ENCODERS, IDS, SHARED, TOLERANCE, Skip, decodes_rightly, expect_close, golden_model, need,
                     transformers_logits)

MERGED = {"llama-qv": "llama", "llama-dora": "llama", "gpt2-conv1d": "gpt2", "qwen2-lora-only-bias": "qwen2"}


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


# Adapters of a head or of embeddings that share one matrix.
UNTIED = {"llama-tied/head": {"target_modules": ["lm_head", "q_proj"]},
          "llama-tied/embedding": {"target_modules": ["embed_tokens"]},
          "llama-tied/saved-table": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
          "llama-tied/saved-head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
          "llama-tied/saved-both": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
          "gpt2/head": {"target_modules": ["lm_head"]}, "gpt2/embedding": {"target_modules": ["wte"]},
          "gpt2/saved-both": {"target_modules": ["c_attn"], "fan_in_fan_out": True, "modules_to_save": ["lm_head", "wte"]},
          "gemma3/both": {"target_modules": ["lm_head", "embed_tokens"]}, "qwen2/head": {"target_modules": ["lm_head"]}}


def case_untied(nibble, source, options):
    """What we merge has two matrices for stock transformers, and predicts what base and adapter do in PEFT."""
    expected = adapter_with_values(need(source), options, nibble.folder / "adapter")
    folders = [source] + ([without_prefix(source, nibble.folder / "raw")] if source.name == "gpt2" else [])
    for folder in folders:
        merged = nibble.folder / "merged"
        nibble("merge", folder, "--adapter", nibble.folder / "adapter", "-o", merged, "--to", "fp32", "--overwrite")
        theirs, model = transformers_logits(merged, IDS)
        assert model.config.tie_word_embeddings is False
        expect_close(theirs, expected, TOLERANCE, f"{folder.name}: transformers, PEFT")
        expect_close(nibble.logits(merged, IDS), expected, TOLERANCE, f"{folder.name}: nibble, PEFT")


# What is trained of which model, and with which options.
TRAINED = {"llama/lora": ["--target-modules", "all-linear"], "llama/dora": ["--target-modules", "q_proj", "--dora"],
           "llama/rslora-bias": ["--target-modules", "q_proj", "down_proj", "--rslora", "--bias", "lora_only"],
           "qwen2/bias": ["--target-modules", ".*_proj", "--bias", "all"],
           "gpt2/lora": ["--target-modules", "c_attn", "c_proj"], "gpt2/bias": ["--bias", "lora_only"],
           "gemma2/saved-norm": ["--modules-to-save", "model.norm"],
           "llama/pissa": ["--target-modules", "all-linear", "--init", "pissa"],
           "gpt2/pissa-rslora": ["--target-modules", "c_attn", "c_fc", "--init", "pissa_niter_8", "--rslora"],
           "llama-tied/saved-table": ["--target-modules", "q_proj", "--modules-to-save", "embed_tokens"],
           "llama-tied/saved-both": ["--target-modules", "q_proj", "--modules-to-save", "lm_head", "embed_tokens"],
           "llama/embedding": ["--target-modules", "q_proj", "embed_tokens"],
           "bert/embedding": ["--target-modules", "word_embeddings", "position_embeddings", "query"],
           "llama/layers": ["--target-modules", "q_proj", "v_proj", "down_proj", "--exclude-modules", "down_proj",
                            "--layers-to-transform", 1, "--layers-pattern", "layers", "--rank-pattern", "q_proj=2",
                            r"layers\.1\..*v_proj=6", "--alpha-pattern", "v_proj=3"],
           "gpt2/excluded": ["--exclude-modules", r".*\.mlp\..*", "--layers-to-transform", 0, "--alpha-pattern", "c_attn=3"],
           "bert/layers": ["--target-modules", "query", "value", "--layers-to-transform", 0, "--rank-pattern", "query=2"],
                      "bert/lora": ["--target-modules", "query", "value"], "roberta/lora": [], "distilbert/lora": [],
           "opt/lora": [], "opt-projected/lora": ["--target-modules", "all-linear"],
           "opt/saved-table": ["--target-modules", "q_proj", "--modules-to-save", "embed_tokens"]}


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
        "llama/layers": {"target_modules": ["q_proj", "v_proj", "o_proj"], "exclude_modules": ["o_proj"],
                         "layers_to_transform": [1], "layers_pattern": "layers", "rank_pattern": {"q_proj": 2}},
        "bert/layers": {"target_modules": ["query", "dense"], "layers_to_transform": 0, "layers_pattern": ["layer"],
                        "exclude_modules": r".*intermediate.*"},
        "opt/biases": {"target_modules": "all-linear", "bias": "all"},
        "opt-projected/saved-norm": {"target_modules": ["project_in"], "modules_to_save": ["final_layer_norm"]},
        "gpt2/alphas": {"target_modules": ["c_attn"], "fan_in_fan_out": True,
                        "alpha_pattern": {"transformer.h.0.attn.c_attn": 40, r"^transformer\.h\.1.*": 1}}}


# What files of a model without its head lack in front of the names: OpenAI's of GPT-2, old ones of OPT.
PREFIXES = {"gpt2": "transformer.", "opt": "model.", "opt-projected": "model."}


def without_prefix(source, folder):
    from safetensors.torch import load_file, save_file

    folder.mkdir(exist_ok=True)
    tensors, prefix = load_file(source / "model.safetensors"), PREFIXES[source.name]
    save_file({name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    return folder


def adapter_with_values(source, options, folder):
    """Writes an adapter of random values with PEFT. Returns what the model predicts with it."""
    import peft

    encoder = source.name in ENCODERS
    kind = AutoModelForSequenceClassification if encoder else AutoModelForCausalLM
    base = kind.from_pretrained(source, dtype=torch.float32)
    config = peft.LoraConfig(r=4, lora_alpha=6, init_lora_weights=False, task_type="SEQ_CLS" if encoder else "CAUSAL_LM",
                             **options)
    model = peft.get_peft_model(base, config).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad: parameter.add_(torch.randn_like(parameter) * 0.1)
        expected = model(torch.tensor([IDS])).logits[0].numpy()
    model.save_pretrained(folder)
    return expected


def case_adapter_of_peft(nibble, source, options):
    """An adapter that PEFT has written gives the same here, over files with the names of the class and with others."""
    encoder = source.name in ENCODERS
    expected = adapter_with_values(need(source), options, nibble.folder / "adapter")
    folders = [source] + ([without_prefix(source, nibble.folder / "raw")] if source.name in PREFIXES else [])
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


def adapter_cases():
    for adapter, source in MERGED.items():
        for target in ["fp32", "nf4"]:
            yield f"Merged.{adapter}/{target}", case_merged_folder, (
                SHARED / "goldens/models" / source, SHARED / "goldens/peft" / adapter, target)
    for name, options in TRAINED.items():
        yield f"Trained.{name}", case_trained_adapter, (golden_model(name.split("/")[0]), options)
    for name, options in UNTIED.items():
        yield f"Untied.{name}", case_untied, (SHARED / "goldens/models" / name.split("/")[0], options)
    for name, options in READ.items():
        yield f"Read.{name}", case_adapter_of_peft, (golden_model(name.split("/")[0]), options)
    for family in ["llama", "gpt2"]:
        yield f"Pissa.{family}", case_pissa_start, (SHARED / "goldens/models" / family,)
        yield f"Loftq.{family}", case_loftq_adapter, (SHARED / "goldens/models" / family,)
