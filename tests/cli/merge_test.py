#!/usr/bin/env python3
"""merge from outside: its table and JSON, the refusal of a merge that destroys, the memory it takes.

    python3 tests/cli/merge_test.py --nibble build/release/nibble [--only SUBSTRING]
"""

import random
import struct
import sys

from harness import *

KEYS = {"model", "seconds", "peak_rss_bytes", "output", "format", "bytes_before", "bytes_after", "total", "layers", "replaced",
        "trained_for", "as_trained", "dithered"}
LOSS = {"delta_norm_ratio", "delta_retained", "rounding_ratio"}
MODULE = "model.layers.0.self_attn.q_proj"


def write_adapter(folder, out, into, scale, module=MODULE):
    """Rank 2; every value of A and B is +scale or -scale."""
    randoms = random.Random(3)
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    header, data = {}, b""
    for part, shape in [("A", [2, into]), ("B", [out, 2])]:
        values = b"".join(struct.pack("<f", randoms.choice([scale, -scale])) for _ in range(shape[0] * shape[1]))
        header[f"base_model.model.{module}.lora_{part}.weight"] = {
            "dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


def tiny_adapter(t, scale):
    return write_adapter(t.folder / f"adapter-{scale}", 128, 128, scale)


@case
def json_has_the_promised_keys(t):
    value = t.json("merge", TINY, "--adapter", tiny_adapter(t, 0.1), "-o", t.folder / "out")
    assert set(value) == KEYS, set(value) ^ KEYS
    assert value["format"] == "bf16" and value["replaced"] == []
    assert set(value["total"]) == LOSS
    (layer,) = value["layers"]
    assert set(layer) == LOSS | {"name", "shape", "format"}, layer
    assert layer["name"] == MODULE and layer["shape"] == [128, 128]
    assert 0.99 < layer["delta_retained"] < 1.01
    assert value["trained_for"] is None and value["as_trained"] is False
    t.run("generate", t.folder / "out", "-p", "It was", "-n", 2)


@case
def table_names_the_layers(t):
    text = t.run("merge", TINY, "--adapter", tiny_adapter(t, 0.1), "-o", t.folder / "out", "--to", "int8").stdout
    assert MODULE in text and "retained" in text and "int8" in text, text


@case
def a_destructive_merge_is_refused_unless_forced(t):
    base, out, adapter = t.folder / "base", t.folder / "out", tiny_adapter(t, 0.01)
    t.run("quantize", TINY, "-o", base, "--format", "nf4")
    arguments = ["merge", base, "--adapter", adapter, "-o", out, "--to", "nf4"]
    message = t.fails(UNSUPPORTED, *arguments, says=["would keep", "--dither", "--force"])
    assert not out.exists()
    shown = t.run(*arguments, status=UNSUPPORTED).stdout
    assert MODULE in shown and "retained" in shown, shown
    refused = t.json(*arguments, status=UNSUPPORTED)
    assert set(refused) == KEYS | {"error"}, set(refused) ^ KEYS
    assert refused["error"]["code"] == "unsupported" and refused["error"]["message"] in message, refused["error"]
    forced = t.json(*arguments, "--force")
    assert refused["layers"] == forced["layers"] and refused["total"] == forced["total"]
    assert forced["total"]["delta_retained"] < 0.5 and forced["dithered"] is False
    assert out.exists()
    dithered = t.json(*arguments, "--dither", "--overwrite")
    assert dithered["total"]["delta_retained"] > 0.5 and dithered["dithered"] is True, dithered["total"]


@case
def several_adapters_add_up(t):
    first, second = tiny_adapter(t, 0.1), write_adapter(t.folder / "second", 128, 128, 0.2)
    t.run("merge", TINY, "--adapter", first, "--adapter", second, "-o", t.folder / "both", "--to", "fp32")
    t.run("merge", TINY, "--adapter", first, "-o", t.folder / "one", "--to", "fp32")
    t.run("merge", t.folder / "one", "--adapter", second, "-o", t.folder / "then", "--to", "fp32")
    files = [files_of(t.folder / name) for name in ("both", "then", "one")]
    assert files[0] == files[1] and files[0] != files[2]


@case
def what_the_head_shares_is_untied(t):
    vocabulary = json.loads((TINY / "config.json").read_text())["vocab_size"]
    adapter = write_adapter(t.folder / "head", vocabulary, 128, 0.1, "lm_head")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["lm_head"]}))
    value = t.json("merge", TINY, "--adapter", adapter, "-o", t.folder / "out", "--to", "nf4")
    assert [layer["name"] for layer in value["layers"]] == ["lm_head"] and value["layers"][0]["format"] == "bf16"
    written = json.loads((t.folder / "out/config.json").read_text())
    assert written["tie_word_embeddings"] is False
    assert "lm_head" in written["quantization_config"]["llm_int8_skip_modules"], written
    t.run("generate", t.folder / "out", "-p", "It was", "-n", 2)


@case
def what_cannot_be_is_named(t):
    adapter = tiny_adapter(t, 0.1)
    out = ["-o", t.folder / "out"]
    t.fails(USAGE, "merge", TINY, "--adapter", adapter, *out, "--to", "nf5", says="nf4")
    t.fails(USAGE, "merge", TINY, "--adapter", adapter, *out, "--to", "bf16", "--double-quant", says="double_quant")
    t.fails(USAGE, "merge", TINY, *out, says="--adapter")
    t.fails(BAD_INPUT, "merge", TINY, "--adapter", TINY, *out, says="adapter_config.json")
    other = write_adapter(t.folder / "other", 96, 128, 0.1)
    t.fails(BAD_INPUT, "merge", TINY, "--adapter", other, *out, says=[MODULE, "[96, 128]", "[128, 128]"])
    (t.folder / "out").mkdir()
    t.fails(EXISTS, "merge", TINY, "--adapter", adapter, *out)
    t.run("merge", TINY, "--adapter", adapter, *out, "--overwrite")


@case
def memory_is_that_of_a_few_tensors(t):
    t.need_plain_memory()
    randoms = random.Random(6)
    fill = b"".join(struct.pack("<f", randoms.gauss(0, 0.02))[2:] for _ in range(1 << 16))  # bf16: the upper half
    model = write_llama(t.folder / "large", 6, 1024, 4096, fill=fill)  # 201 MB; the largest tensor has 8 MB
    adapter = write_adapter(t.folder / "adapter", 1024, 1024, 0.1)
    for target in ["bf16", "nf4"]:
        peak = t.json("merge", model, "--adapter", adapter, "-o", t.folder / target, "--to", target)["peak_rss_bytes"]
        print(f"  {target}: {peak / 1e6:.0f} MB", flush=True)
        assert peak < 100e6, peak


if __name__ == "__main__":
    sys.exit(main())
