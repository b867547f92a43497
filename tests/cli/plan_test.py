#!/usr/bin/env python3
"""plan and recommend from outside: their JSON, and the planned memory against what the program really takes.

    python3 tests/cli/plan_test.py --nibble build/release/nibble [--only SUBSTRING]

NIBBLE_SLOW=1 adds a model of a billion parameters (2 GB of disk in TMPDIR).
"""

import json
import os
import random
import re
import struct
import sys

from harness import *

SLOW = os.environ.get("NIBBLE_SLOW") == "1"
REAL = Path(os.environ.get("NIBBLE_REAL_MODELS") or Path.home() / ".cache/nibble-real")
CLOSE = 0.10  # of the measured peak


def need(folder):
    if not (REAL / folder).exists(): raise Skip(f"{REAL / folder} is not there")
    return REAL / folder


def expect_close(planned, measured, what):
    error = planned / measured - 1
    print(f"  {what}: planned {planned / 1e6:.1f} MB, measured {measured / 1e6:.1f} MB, {100 * error:+.1f} %", flush=True)
    assert abs(error) <= CLOSE, what


def check_generate(t, model, context, kv_dtype="auto"):
    """The whole context is used: a prompt that leaves room for four tokens."""
    ids = ",".join(str(5 + i % 50) for i in range(context - 4))
    peak = t.json("generate", model, "--ids", ids, "-n", 4, "--context", context, "--kv-dtype", kv_dtype)["peak_rss_bytes"]
    planned = t.json("plan", model, "--context", context, "--kv-dtype", kv_dtype)["total_bytes"]
    expect_close(planned, peak, f"{Path(model).name}, context {context}, cache {kv_dtype}")


@case
def plan_knows_the_head(t):
    keep, nf4 = t.json("plan", TINY, "--format", "nf4"), t.json("plan", TINY, "--format", "nf4", "--head", "nf4")
    assert keep["head"] == "keep" and nf4["head"] == "nf4"
    assert nf4["resident_bytes"] > keep["resident_bytes"] and nf4["weights_bytes"] == keep["weights_bytes"]
    assert "the output head in memory in nf4" in t.run("plan", TINY, "--format", "nf4", "--head", "nf4").stdout
    t.fails(USAGE, "plan", TINY, "--head", "fp8", says="expected one of keep, nf4, int8")


@case
def bench_prints_a_row_per_format(t):
    report = t.folder / "bench.html"
    other = str(copy_of_tiny(t, "a-name-of-more-letters-than-a-plot-shows"))
    value = t.json("bench", TINY, "--formats", "stored,nf4", "--against", other, "--text", TINY / "heldout.txt",
                   "--max-tokens", 300, "--prompt-tokens", 16, "--gen-tokens", 3, "--repeat", 1, "--report", report)
    assert [row["format"] for row in value["rows"]] == ["stored", "nf4", other], value
    assert value["rows"][0]["kl_mean"] < 1e-9 < value["rows"][1]["kl_mean"], value
    assert value["rows"][1]["bytes"] < value["rows"][0]["bytes"]
    page = report.read_text().replace("<wbr>", "")
    assert "<svg" in page and "nf4" in page and "http-equiv" not in page
    tables = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", table.split("</tr>")[0]) for table in page.split("<table")[1:]]
    assert ["format", "perplexity", "KL (nats)", "top-1 agrees"] in tables, tables
    assert ["format", "decode tokens/s", "decode range"] in tables, tables
    assert all(other in table for table in page.split("<table")[1:]), "tables have whole names"
    t.fails(USAGE, "bench", TINY, "--formats", "nf5", says="nf4")
    (t.folder / "empty.txt").write_text("")
    t.fails(USAGE, "bench", TINY, "--text", t.folder / "empty.txt", says="empty.txt")


@case
def plan_has_the_promised_keys(t):
    keys = {"model", "seconds", "peak_rss_bytes", "architecture", "task", "format", "double_quant", "block", "head", "parameters",
            "context", "batch", "context_length", "weights_bytes", "weights", "file_bytes", "resident_bytes",
            "kv_dtype", "kv_cache_bytes", "prefill_bytes", "decode_bytes", "activation_bytes", "trainable_parameters", "lora_bytes",
            "gradient_bytes", "optimizer_bytes", "program_bytes", "total_bytes", "lengths", "fits",
            "largest_context_that_fits", "largest_batch_that_fits", "advice"}
    one = t.json("plan", "llama-2-70b", "--format", "nf4", "--memory", "48GB")
    assert set(one) == keys, set(one) ^ keys
    assert one["parameters"] == 68_976_648_192 and one["fits"] and sum(one["weights"].values()) == one["weights_bytes"]
    assert one["largest_context_that_fits"] == 4096
    all_formats = t.json("plan", TINY)
    assert set(all_formats) == keys | {"formats"} and all_formats["fits"] is None
    names = [row["name"] for row in t.json("formats")["formats"]]
    assert sorted({row["format"] for row in all_formats["formats"]}) == sorted(names)
    assert "llama-2-7b" in t.json("plan", "--names")["names"]


@case
def the_plan_of_a_config_is_the_size_of_the_files(t):
    config = t.write("config.json", (TINY / "config.json").read_text())
    for flags in [["--format", "nf4", "--double-quant"], ["--format", "int8"], ["--format", "int4", "--block", 32]]:
        out = t.folder / "-".join(map(str, flags))
        written = t.json("quantize", TINY, "-o", out, *flags)
        assert t.json("plan", config, *flags)["weights_bytes"] == written["bytes_after"], flags
        assert t.json("plan", TINY, *flags)["file_bytes"] == (out / "model.safetensors").stat().st_size, flags


@case
def text_output_says_whether_it_fits(t):
    text = t.run("plan", "llama-2-7b", "--format", "nf4", "--memory", "8GB", "--context", 2048).stdout
    assert "fits in 8.00 GB" in text and "block and row scales" in text and "404,750,336" in text, text
    text = t.run("plan", "llama-2-7b", "--format", "fp16", "--memory", "8GB").stdout
    assert "does not fit in 8.00 GB" in text and "--format nf4" in text, text
    table = t.run("plan", "llama-2-7b", "--memory", "8GB").stdout
    assert "nf4 + double quant" in table and "longest context" in table, table
    tuned = t.run("plan", "llama-2-7b", "--method", "qlora", "--context", 512, "--memory", "8GB").stdout
    assert "LoRA weights" in tuned and "by tokens per sequence" in tuned, tuned


@case
def plan_refuses_what_means_nothing(t):
    t.fails(USAGE, "plan", says="MODEL is required")
    t.fails(USAGE, "plan", "llama-2-7b", "--double-quant", says="--double-quant needs --format")
    t.fails(USAGE, "plan", "llama-2-7b", "--task", "training", says="expected one of inference, finetune")
    t.fails(USAGE, "plan", "llama-2-7b", "--memory", "much", says="--memory")
    for flags in (["--lora-r", 8], ["--optimizer", "sgd"], ["--gradient-checkpointing"], ["--target-modules", "q_proj"],
                  ["--method", "lora", "--task", "inference"]):
        t.fails(USAGE, "plan", "llama-2-7b", *flags, says=f"{flags[0]} is for --task finetune, not for inference")
    t.fails(BAD_INPUT, "plan", "lama-2-7b", says="did you mean 'llama-2-7b'?")
    t.fails(BAD_INPUT, "plan", t.write("config.json", '{"model_type": "llama"}'), says="vocab_size")
    t.fails(BAD_INPUT, "plan", t.write("list.json", "[]"), says="list.json")
    t.fails(UNSUPPORTED, "plan", t.write("other.json", '{"model_type": "mamba"}'), says="'mamba' is not supported")


@case
def recommend_has_the_promised_keys(t):
    r = t.json("recommend", "llama-2-7b", "--memory", "8GB", "--context", 2048)
    assert set(r) == {"model", "seconds", "peak_rss_bytes", "memory_bytes", "recommendation", "fits", "reasons",
                      "alternatives"}, set(r)
    choice = r["recommendation"]
    assert choice["format"] == "nf4" and choice["double_quant"] and choice["total_bytes"] <= 8e9
    assert "load_in_4bit=True" in choice["python"] and ".load_in_4bit = true" in choice["cpp"]
    assert all(row["remark"] for row in r["alternatives"]) and len(r["reasons"]) >= 3
    text = t.run("recommend", "llama-2-7b", "--memory", "8GB", "--task", "finetune", "--context", 512).stdout
    assert "--method qlora" in text and "why:" in text and "instead:" in text, text


@case
def recommend_measures(t):
    text = TINY / "heldout.txt"
    r = t.json("recommend", TINY, "--memory", "1GB", "--measure", "--text", text, "--max-tokens", 1024)
    choice = r["recommendation"]
    check = t.json("evaluate", TINY, "--reference", TINY, "--text", text, "--max-tokens", 1024, "--format",
                   choice["format"])
    assert abs(choice["measured"]["kl_mean"] - check["kl_mean"]) <= 1e-9, choice
    assert any("measured on your text" in reason for reason in r["reasons"])
    # The suggested flags are those of quantize.
    t.run("quantize", TINY, "-o", "q", *choice["flags"].split())


@case
def recommend_refuses_what_means_nothing(t):
    for wish in (".", "1e999"): t.fails(USAGE, "recommend", "llama-2-7b", "--memory", "8GB", "--accuracy", wish, says=wish)
    t.fails(USAGE, "recommend", TINY, "--measure", says="--measure and --text FILE go together")
    t.fails(USAGE, "recommend", TINY, "--device", "phone", says="expected one of server, edge, gpu")
    t.fails(USAGE, "recommend", TINY, "--accuracy", "0.1x", says="0.1x")
    t.fails(USAGE, "recommend", TINY, "--accuracy", "good", says="best, balanced, smallest")
    t.run("quantize", TINY, "-o", "q")
    t.fails(UNSUPPORTED, "recommend", "q", says="is quantized already")


@case
def minilm_takes_what_is_planned(t):
    t.need_plain_memory()
    model = need("minilm-l6")
    peak = t.json("embed", model, "--text", "word " * 250)["peak_rss_bytes"]
    expect_close(t.json("plan", model, "--context", 256)["total_bytes"], peak, "minilm-l6, 256 tokens")


@case
def smollm2_takes_what_is_planned(t):
    t.need_plain_memory()
    model = need("smollm2-135m")
    for context, kv_dtype in [(64, "auto"), (1024, "fp32"), (1024, "bf16"), (1024, "int8")]: check_generate(t, model, context, kv_dtype)
    for flags in [["--format", "nf4", "--double-quant"], ["--format", "int8"]]:
        out = t.folder / flags[1]
        t.run("quantize", model, "-o", out, *flags)
        check_generate(t, out, 512)


@case
def finetuning_smollm2_takes_what_is_planned(t):
    t.need_plain_memory()
    model = need("smollm2-135m")
    data = t.folder / "data.jsonl"
    data.write_text((json.dumps({"text": "the quick brown fox jumps over the lazy dog " * 80}) + "\n") * 3)
    for tokens, flags in [(512, ["--method", "qlora"]), (700, ["--method", "lora", "--gradient-checkpointing"])]:
        peak = t.json("finetune", model, "--data", data, "--max-length", tokens, "--steps", 3, "-o", t.folder / flags[1],
                      *flags)["peak_rss_bytes"]
        planned = t.json("plan", model, "--context", tokens, *flags)["total_bytes"]
        expect_close(planned, peak, " ".join(["smollm2-135m", *flags, str(tokens)]))


@case
def a_billion_parameters_take_what_is_planned(t):
    t.need_plain_memory()
    if not SLOW: raise Skip("needs 4 GB of disk and a minute; NIBBLE_SLOW=1 runs it")
    randoms = random.Random(6)
    values = [struct.pack("<f", randoms.gauss(0, 0.02))[2:] for _ in range(1 << 16)]  # bf16: the upper half
    model = write_llama(t.folder / "billion", 16, 2048, 8192, vocabulary=4096, fill=b"".join(values))
    check_generate(t, model, 128)
    for flags in [["--format", "nf4"], ["--format", "int8"]]:
        out = t.folder / flags[1]
        t.run("quantize", model, "-o", out, *flags)
        check_generate(t, out, 128)
        shutil.rmtree(out)


if __name__ == "__main__":
    sys.exit(main())
