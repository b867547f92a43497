#!/usr/bin/env python3
"""The commands that run or write a model: their numbers and texts, options that change them, options that must not.

    python3 tests/cli/models_test.py --nibble build/release/nibble [--only SUBSTRING]
"""

import array
import math
import os
import select
import signal
import sys
import time

from harness import *

EXPECTED = json.loads((TINY / "expected.json").read_text())
WORDS = EXPECTED["greedy"]["prompt"]
QUESTION = EXPECTED["chat"]["messages"][0]["content"]
FORMATS = ["fp32", "fp16", "bf16", "int8", "int8-dynamic", "nf4", "fp4", "int4"]


def generate(t, *arguments, **options):
    return t.json("generate", *arguments, **options)


@case
def generate_says_the_same_in_both_outputs(t):
    value = generate(t, TINY, "-p", WORDS, "-n", 24)
    assert value["prompt_ids"] == EXPECTED["greedy"]["ids"] and value["ids"] == EXPECTED["greedy"]["generated"]
    assert value["text"] == EXPECTED["greedy"]["text"] and value["finish_reason"] == "length"
    assert value["prefill_tokens_per_second"] > 0 and value["decode_tokens_per_second"] > 0
    result = t.run("generate", TINY, "--prompt", WORDS, "--max-tokens", 24)
    assert result.stdout == value["text"] + "\n" and "tokens/s" in result.stderr
    quiet = t.run("generate", TINY, "-p", WORDS, "-n", 24, "--quiet")
    assert quiet.stdout == result.stdout and quiet.stderr == ""
    assert generate(t, TINY, "--prompt-file", t.write("p.txt", WORDS), "-n", 24)["text"] == value["text"]


@case
def generate_stops_at_stop_strings(t):
    for stops, text in ((["then"], " in the country, and "), (["y, a", "never"], " in the countr")):
        flags = [part for stop in stops for part in ("--stop", stop)]
        value = generate(t, *flags, TINY, "-p", WORDS, "-n", 24)  # MODEL after --stop is not another stop string
        assert value["text"] == text and value["finish_reason"] == "stop", value
        assert t.run("generate", TINY, "-p", WORDS, "-n", 24, *flags).stdout == text + "\n"


@case
def layers_beyond_the_memory_limit_stay_in_their_file(t):
    usual = t.run("generate", TINY, "-p", WORDS, "-n", 8)
    assert "disk" not in usual.stderr
    limited = t.run("generate", TINY, "-p", WORDS, "-n", 8, "--max-memory", "cpu=200KB")
    assert limited.stdout == usual.stdout
    assert "cpu " in limited.stderr and "disk " in limited.stderr and "slow" in limited.stderr, limited.stderr
    asked = t.run("generate", TINY, "-p", WORDS, "-n", 8, "--device-map", "auto")
    assert asked.stdout == usual.stdout and asked.stderr.startswith("cpu "), asked.stderr
    t.fails(USAGE, "generate", TINY, "-p", WORDS, "--max-memory", "gpu=1GB", says=["gpu=1GB", "cpu=6GB"])
    t.fails(USAGE, "generate", TINY, "-p", WORDS, "--device-map", "gpu", says="auto, cpu or disk")
    t.fails(RESOURCES, "generate", TINY, "-p", WORDS, "--format", "nf4", "--max-memory", "cpu=1KB", says="quantize")


@case
def a_wrong_skip_is_refused_before_loading(t):
    t.fails(USAGE, "generate", TINY, "-p", WORDS, "--format", "nf4", "--skip", "q_prj", says=["q_prj", "q_proj"])


@case
def generate_samples_by_seed(t):
    hot = [TINY, "-p", WORDS, "-n", 30, "--temperature", 1]
    first = generate(t, *hot, "--seed", 1)["ids"]
    assert generate(t, *hot, "--seed", 1)["ids"] == first
    assert generate(t, *hot, "--seed", 2)["ids"] != first
    greedy = generate(t, TINY, "-p", WORDS, "-n", 30)["ids"]
    assert first != greedy
    for filter in (["--top-k", 1], ["--top-p", 1e-6], ["--min-p", 0.9999999]):
        assert generate(t, *hot, *filter)["ids"] == greedy, filter
    # The greedy text repeats ", and then"; a penalty this high lets no id come twice.
    penalized = generate(t, TINY, "-p", WORDS, "-n", 12, "--repeat-penalty", 1e6)
    assert len(set(penalized["prompt_ids"] + penalized["ids"])) == len(set(penalized["prompt_ids"])) + 12


@case
def generate_keeps_within_the_context(t):
    assert len(generate(t, TINY, "-p", WORDS, "-n", 24, "--context", 14)["ids"]) == 4
    many = ",".join(["35"] * 513)
    t.fails(USAGE, "generate", TINY, "--ids", many, says=["513", "512"])


@case
def generate_from_ids_without_a_tokenizer(t):
    bare = copy_of_tiny(t, "bare", without=("tokenizer.json", "tokenizer_config.json"))
    ids = ",".join(map(str, EXPECTED["greedy"]["ids"]))
    value = generate(t, bare, "--ids", ids, "-n", 24)
    assert value["ids"] == EXPECTED["greedy"]["generated"] and value["text"] == ""
    assert t.run("generate", bare, "--ids", ids, "-n", 24).stdout.split() == list(map(str, value["ids"]))
    t.fails(USAGE, "generate", bare, "-p", WORDS, says=["bare", "--ids"])
    t.fails(BAD_INPUT, "tokenize", bare, WORDS, says=["bare", "tokenizer"])
    t.fails(USAGE, "evaluate", bare, "--text", TINY / "heldout.txt", says="bare")
    assert len(t.json("logits", bare, "--ids", ids)["positions"]) == 11
    report = t.json("quantize", bare, "-o", "q", "--format", "int8")
    assert len(report["tensors"]) == 21 and len(generate(t, "q", "--ids", ids, "-n", 3)["ids"]) == 3


@case
def generate_chat_uses_the_template(t):
    value = generate(t, TINY, "--chat", "-p", QUESTION, "-n", 24)
    assert value["prompt_ids"] == EXPECTED["chat"]["ids"] and value["text"] == EXPECTED["chat"]["reply"]
    with_system = generate(t, TINY, "--chat", "-p", QUESTION, "-n", 24, "--system", "Answer in one word.")
    assert len(with_system["prompt_ids"]) > len(value["prompt_ids"])


@case
def chat_keeps_the_conversation(t):
    hot = ["-n", 16, "--temperature", 3, "--seed", 3]  # greedily the small model says the same to everything
    chat = ["chat", TINY, *hot]
    def say(text, *flags): return generate(t, TINY, "--chat", "-p", text, *hot, *flags)["text"] + "\n"
    alone, system = say("Good morning."), say("Good morning.", "--system", "You are a captain.")
    assert alone != system
    assert t.run(*chat, stdin="Good morning.\n").stdout == alone
    # Only the second answer knows of the first.
    two = t.run(*chat, stdin=f"{QUESTION}\nGood morning.\n").stdout
    assert two.startswith(say(QUESTION)) and two != say(QUESTION) + alone
    assert t.run(*chat, stdin=f"{QUESTION}\n/reset\nGood morning.\n").stdout == say(QUESTION) + alone
    changed = t.run(*chat, stdin=f"{QUESTION}\n/system You are a captain.\nGood morning.\n").stdout
    assert changed == say(QUESTION) + system
    assert t.run(*chat, "--system", "You are a captain.", stdin="\nGood morning.\n/exit\nnever read\n").stdout == system
    help = t.run(*chat, stdin="/what\nGood morning.")
    assert help.stdout == alone and "/reset" in help.stderr


@case
def chat_survives_interrupts(t):
    process = t.start("chat", TINY, "-n", 12, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    def line():
        text = b""
        while not text.endswith(b"\n"):
            assert select.select([process.stdout], [], [], 20)[0], "no answer"
            part = os.read(process.stdout.fileno(), 4096)
            assert part, f"ended with status {process.wait()}"
            text += part
        return text.decode()
    answers = []
    for _ in range(3):
        process.stdin.write(b"/reset\nGood morning.\n")
        process.stdin.flush()
        answers.append(line())
        process.send_signal(signal.SIGINT)  # between answers there is nothing to stop
        time.sleep(0.05)
    process.stdin.close()
    assert process.wait(20) == DONE, process.stderr.read()
    assert answers[0] == answers[1] == answers[2] != "\n"


@case
def logits_are_those_of_transformers(t):
    want = EXPECTED["logits"]
    value = t.json("logits", TINY, "-p", want["prompt"], "--top", 5, "--npy", "x.npy")
    assert value["ids"] == want["ids"] and len(value["positions"]) == len(want["ids"])
    top = value["positions"][-1]["top"]
    assert [row["id"] for row in top] == want["top_ids"]
    for row, logit in zip(top, want["top_logits"]): assert abs(row["logit"] - logit) < 1e-3, row
    assert top[0]["text"] == t.run("tokenize", TINY, "--decode", top[0]["id"]).stdout[:-1]
    shape, values = read_npy(t.folder / "x.npy")
    assert shape == (len(want["ids"]), 512)
    last = values[-512:]
    for got, expected in zip(last[::want["every"]], want["last_position"]): assert abs(got - expected) < 1e-3
    for position, row in enumerate(value["positions"]):
        logits = values[position * 512:(position + 1) * 512]
        assert sorted(logits, reverse=True)[:5] == [p["logit"] for p in row["top"]]
        total = math.log(sum(math.exp(x - logits[0]) for x in logits)) + logits[0]
        for p in row["top"]:
            assert logits[p["id"]] == p["logit"] and abs(p["logprob"] - (p["logit"] - total)) < 1e-5
    table = t.run("logits", TINY, "-p", want["prompt"], "--top", 2).stdout.splitlines()
    assert len(table) == 1 + 2 * len(want["ids"])


@case
def logits_come_in_portions_and_keep_within_the_context(t):
    ids = [5 + i % 300 for i in range(200)]
    whole, cut = (t.json("logits", TINY, "--ids", ",".join(map(str, ids[:n])), "--top", 2, "--npy", f"{n}.npy")
                  for n in (200, 70))
    assert len(whole["positions"]) == 200 and len(cut["positions"]) == 70
    shape, values = read_npy(t.folder / "200.npy")
    assert shape == (200, 512)
    for got, want in zip(values, read_npy(t.folder / "70.npy")[1]): assert got == want
    for position, row in enumerate(whole["positions"]):
        assert max(values[position * 512:(position + 1) * 512]) == row["top"][0]["logit"]
    t.fails(USAGE, "logits", TINY, "--ids", ",".join(["35"] * 513), "--npy", "long.npy",
            says="the prompt has 513 tokens, the context 512")
    assert not list(t.folder.glob("*long*"))


def read_npy(path):
    """numpy's format, version 1.0 (NEP 1)."""
    data = path.read_bytes()
    assert data[:8] == b"\x93NUMPY\x01\x00"
    (length,) = struct.unpack("<H", data[8:10])
    header = eval(data[10:10 + length].decode(), {"__builtins__": {}})
    assert (10 + length) % 64 == 0 and header["descr"] == "<f4" and header["fortran_order"] is False
    return header["shape"], array.array("f", data[10 + length:]).tolist()


@case
def tokenize_goes_both_ways(t):
    for row in EXPECTED["tokenize"]:
        if not row["text"]: continue
        value = t.json("tokenize", TINY, row["text"])
        assert value["ids"] == row["ids"] and len(value["pieces"]) == len(row["ids"])
        back = t.json("tokenize", TINY, "--decode", ",".join(map(str, row["ids"])))
        assert back["text"] == row["text"] and back["pieces"] == value["pieces"]
    assert t.json("tokenize", TINY, "")["ids"] == []
    plain = t.run("tokenize", TINY, "Anne was").stdout
    assert [line.split()[0] for line in plain.splitlines()] == ["35", "80", "418", "307"] and '"A"' in plain
    assert t.run("tokenize", TINY, "--decode", "1,35,2").stdout == "<|im_start|>A<|im_end|>\n"
    assert t.run("tokenize", TINY, "--decode", "1,35,2", "--no-special").stdout == "A\n"
    only = t.folder / "only"
    only.mkdir()
    shutil.copy(TINY / "tokenizer.json", only)
    assert t.json("tokenize", only, "Anne was")["ids"] == [35, 80, 418, 307]


@case
def evaluate_takes_text_and_ids(t):
    want = EXPECTED["perplexity"][0]
    text = t.json("evaluate", TINY, "--text", TINY / "heldout.txt", "--context", want["context"])
    assert text["tokens"] == want["tokens"] and abs(text["perplexity"] / want["perplexity"] - 1) < 1e-4
    ids = t.json("tokenize", TINY, (TINY / "heldout.txt").read_text())["ids"]
    flat = t.json("evaluate", TINY, "--ids-file", t.write("flat.json", json.dumps(ids)), "--context", 128)
    chunks = [ids[i:i + 128] for i in range(0, len(ids) - 127, 128)]
    listed = t.json("evaluate", TINY, "--ids-file", t.write("chunks.json", json.dumps(chunks)))
    for value in (flat, listed):
        assert value["perplexity"] == text["perplexity"] and value["chunks"] == len(chunks) == text["chunks"]
    part = t.json("evaluate", TINY, "--ids-file", "flat.json", "--context", 128, "--max-tokens", 256)
    assert part["tokens"] == 2 * 127 and part["perplexity"] != text["perplexity"]
    t.fails(USAGE, "evaluate", TINY, "--text", TINY / "heldout.txt", "--ids-file", "flat.json", says="--text")
    t.fails(USAGE, "evaluate", TINY, "--ids-file", t.write("one.json", "[5]"), says="nothing to score")
    t.fails(USAGE, "evaluate", TINY, "--ids-file", t.write("far.json", "[5, 512]"), says="512")


@case
def evaluate_measures_what_was_lost(t):
    against = ["--reference", TINY, "--text", TINY / "heldout.txt", "--context", 128, "--max-tokens", 1024]
    same = t.json("evaluate", TINY, *against)
    assert same["kl_mean"] == same["kl_max"] == 0 and same["top1_agreement"] == 1
    t.run("quantize", TINY, "-o", "q", "--format", "nf4")
    stored, loaded = t.json("evaluate", "q", *against), t.json("evaluate", TINY, "--format", "nf4", *against)
    for key in ("perplexity", "kl_mean", "kl_p99", "top1_agreement"): assert stored[key] == loaded[key], key
    assert 0 < stored["kl_p50"] < stored["kl_p90"] < stored["kl_p99"] < stored["kl_max"]
    assert stored["reference_perplexity"] == same["perplexity"] and stored["bytes"] < same["bytes"] / 2
    table = t.run("evaluate", "q", *against).stdout
    assert f"{stored['perplexity']:.4f}" in table and "KL" in table and "%" in table


@case
def threads_change_nothing(t):
    for format in FORMATS:
        for threads in (1, 2):
            t.run("quantize", TINY, "-o", f"{format}-{threads}", "--format", format, "--threads", threads)
        one = f"{format}-1"
        assert files_of(t.folder / one) == files_of(t.folder / f"{format}-2"), format
        texts, logits = set(), set()
        for threads in (1, 2):
            count = ["--threads", threads]
            texts.add(t.run("generate", one, "-p", WORDS, "-n", 40, "--temperature", 1, "--seed", 3, *count).stdout)
            t.run("logits", one, "-p", WORDS, "--npy", "x.npy", *count)
            logits.add((t.folder / "x.npy").read_bytes())
        assert len(texts) == len(logits) == 1, format


@case
def presets_and_flags(t):
    rows = [(["--preset", "inference"], "nf4", True, "bfloat16"),
            (["--preset", "finetune"], "nf4", False, "bfloat16"),
            (["--preset", "accuracy"], "int8", False, None),
            (["--preset", "edge"], "int4", True, "float16"),
            (["--preset", "inference", "--compute-dtype", "fp16"], "nf4", True, "float16"),
            (["--preset", "finetune", "--double-quant"], "nf4", True, "bfloat16"),
            (["--preset", "inference", "--format", "int8"], "int8", False, None),
            (["--preset", "inference", "--format", "fp4", "--block", "128"], "fp4", True, "bfloat16"),
            (["--recipe", t.write("r.json", '{"format": "fp4", "double_quant": true}')], "fp4", True, "float32"),
            (["--recipe", "r.json", "--format", "nf4"], "nf4", True, "float32"),
            (["--preset", "edge", "--recipe", "r.json"], "fp4", True, "float16")]
    for flags, format, double_quant, compute_dtype in rows:
        report = t.json("quantize", TINY, "-o", "q", "--overwrite", *flags)
        assert report["format"] == format, flags
        model = t.json("inspect", "q")
        assert model["quantization"] == format + (" + double quantization" if double_quant else ""), (flags, model)
        stated = json.loads((t.folder / "q/config.json").read_text())["quantization_config"]
        dtype = stated.get("bnb_4bit_compute_dtype", stated.get("compute_dtype"))
        assert compute_dtype in (None, dtype), (flags, stated)


@case
def shards_are_cut_where_asked(t):
    t.run("quantize", TINY, "-o", "q", "--format", "int8", "--max-shard-size", "200KB")
    files = [name for name in names_in(t.folder / "q") if name.endswith(".safetensors")]
    index = json.loads((t.folder / "q/model.safetensors.index.json").read_text())
    assert len(files) >= 3 and sorted(set(index["weight_map"].values())) == files
    t.run("quantize", TINY, "-o", "whole", "--format", "int8")
    assert generate(t, "q", "-p", WORDS)["ids"] == generate(t, "whole", "-p", WORDS)["ids"]
    t.run("dequantize", "q", "-o", "d", "--dtype", "bf16", "--max-shard-size", "0.5MiB")
    assert t.json("inspect", "d")["bytes"] == 870144


@case
def values_that_are_not_finite_are_reported(t):
    model = copy_of_tiny(t)
    data = bytearray((model / "model.safetensors").read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    name = "model.layers.1.mlp.up_proj.weight"
    begin = 8 + length + json.loads(data[8:8 + length])[name]["data_offsets"][0]
    data[begin + 2 * 77:begin + 2 * 77 + 2] = b"\xc0\x7f"  # bf16 NaN
    (model / "model.safetensors").write_bytes(data)
    result = t.run("quantize", model, "-o", "q", "--format", "int8", "--json")
    row = next(r for r in one_object(result.stdout)["tensors"] if r["name"] == name)
    assert (row["nan_count"], row["inf_count"], row["first_nonfinite"]) == (1, 0, 77), row
    assert name in result.stderr and "77" in result.stderr
    t.fails(BAD_INPUT, "generate", model, "-p", WORDS, says="NaN")


if __name__ == "__main__":
    sys.exit(main())
