#!/usr/bin/env python3
"""The contract of docs/cli.md that holds for every command: help, JSON, exit statuses, messages, outputs.

    python3 tests/cli/cli_test.py --nibble build/release/nibble [--only SUBSTRING]
"""

import os
import re
import resource
import signal
import sys
import time

from harness import *

COMMON_KEYS = {"seconds", "peak_rss_bytes"}
WORDS = "Captain Wentworth was"


def commands(t):
    """As the program lists them."""
    return re.findall(r"^  ([a-z]+) ", t.run("--help").stdout, re.MULTILINE)


@case
def every_command_explains_itself(t):
    listed = commands(t)
    for name in ("formats", "info", "inspect", "quantize", "dequantize", "generate", "chat", "logits", "tokenize",
                 "evaluate"):
        assert name in listed, name
    for name in listed:
        result = t.run(name, "--help")
        assert "Examples:" in result.stdout and f"nibble {name}" in result.stdout, result.stdout
        assert "--json" in result.stdout and result.stderr == "", name
        assert t.run(name, "-h").stdout == t.run("help", name).stdout == result.stdout
    t.fails(USAGE, "help", "quantise", says="did you mean 'quantize'")


@case
def help_and_version_of_the_program(t):
    assert re.fullmatch(r"nibble \d+\.\d+\.\d+\n", t.run("--version").stdout)
    assert t.run("-h").stdout == t.run("help").stdout == t.run("--help").stdout
    assert "usage: nibble COMMAND" in t.run(status=USAGE).stdout


@case
def json_has_the_promised_keys(t):
    text = TINY / "heldout.txt"
    rows = [
        (["formats"], {"formats"}),
        (["info"], {"isa", "isa_available", "cores", "memory_bytes"}),
        (["inspect", TINY], {"model", "architecture", "parameters", "bytes", "quantization", "tensors"}),
        (["quantize", TINY, "-o", "q"], {"model", "output", "format", "bytes_before", "bytes_after",
                                         "linear_bits_per_weight", "tensors", "skipped"}),
        (["dequantize", "q", "-o", "d"], {"model", "output", "bytes_after"}),
        (["generate", TINY, "-p", WORDS, "-n", 4], {"model", "prompt_ids", "ids", "text", "finish_reason",
                                                    "prefill_tokens_per_second", "decode_tokens_per_second",
                                                    "drafted", "accepted", "tokens_per_forward"}),
        (["logits", TINY, "-p", WORDS], {"model", "ids", "positions"}),
        (["tokenize", TINY, WORDS], {"model", "ids", "pieces"}),
        (["evaluate", "q", "--reference", TINY, "--text", text, "--context", 64, "--max-tokens", 256],
         {"model", "tokens", "perplexity", "reference_perplexity", "kl_mean", "kl_p50", "kl_p90", "kl_p99", "kl_max",
          "top1_agreement", "bytes", "tokens_per_second", "gate"}),
    ]
    for arguments, keys in rows:
        value = t.json(*arguments)
        missing = (keys | COMMON_KEYS) - value.keys()
        assert not missing, f"{arguments[0]}: no {missing}"
        assert value["seconds"] > 0 and 2**20 < value["peak_rss_bytes"] < 2**31, arguments
        if "model" in keys: assert value["model"] == str(arguments[1])


@case
def json_members_are_what_they_say(t):
    formats = {row["name"]: row for row in t.json("formats")["formats"]}
    assert set(formats) >= {"fp32", "fp16", "bf16", "int8", "int8-dynamic", "nf4", "fp4", "int4"}
    assert formats["nf4"]["bits_per_weight"] == 4.5 and formats["nf4"]["block"] == 64
    assert abs(formats["nf4"]["bits_per_weight_double_quant"] - (4 + 8 / 64 + 32 / (64 * 256))) < 1e-3
    assert "bitsandbytes" in formats["nf4"]["readable_by"]
    model = t.json("inspect", TINY)
    assert model["architecture"] == "LlamaForCausalLM" and model["parameters"] == 435072
    assert model["bytes"] == 870144 and model["quantization"] == "none" and len(model["tensors"]) == 29
    embedding = {"name": "model.embed_tokens.weight", "dtype": "bf16", "shape": [512, 128], "bytes": 131072}
    assert embedding in model["tensors"]
    report = t.json("quantize", TINY, "-o", "q", "--format", "nf4", "--skip", "o_proj")
    assert len(report["tensors"]) == 18 and len(report["skipped"]) == 3
    for row in report["tensors"]:
        assert row["format"] == "nf4" and 0.05 < row["relative_error"] < 0.15 and row["max_abs_error"] > 0, row
        assert len(row["shape"]) == 2 and 15 < row["sqnr_db"] < 25, row
    assert t.json("inspect", "q")["quantization"] == "nf4"
    assert t.json("inspect", "q")["bytes"] == report["bytes_after"]


@case
def peak_memory_is_the_programs_own(t):
    t.need_plain_memory()
    ours = b"x" * (256 << 20)  # of this process; a child starts out with it
    peak = t.json("inspect", TINY)["peak_rss_bytes"]
    assert peak < len(ours) // 4, peak


@case
def plain_output_is_for_people(t):
    assert re.search(r"^ *nf4 +4\.5 +4\.127 +64", t.run("formats").stdout, re.MULTILINE)
    assert "123 209 217" in t.run("formats", "--example").stdout
    assert "instruction sets" in t.run("info").stdout
    assert "435,072" in t.run("inspect", TINY).stdout
    assert "model.layers.2.mlp.up_proj.weight" in t.run("inspect", TINY, "--tensors").stdout
    result = t.run("quantize", TINY, "-o", "q", "--double-quant")
    for text in ("double quantization", "wrote q (", "next: nibble evaluate q"): assert text in result.stdout, text
    assert result.stderr == "", "no progress where stderr is no terminal"
    assert "wrote d (" in t.run("dequantize", "q", "-o", "d").stdout
    evaluate = ["evaluate", TINY, "--text", TINY / "heldout.txt", "--max-tokens", 256]
    assert "reference" not in t.run(*evaluate).stdout
    assert "reference" in t.run(*evaluate, "--reference", TINY).stdout


@case
def wrong_usage_is_2_and_names_the_nearest(t):
    rows = [
        (["quantise"], "did you mean 'quantize'"),
        (["quant"], "did you mean 'quantize'"),
        (["serve"], "unknown command 'serve' (see"),
        (["zzzzzzzzzzz"], "unknown command 'zzzzzzzzzzz'"),
        (["quantize", TINY, "-o", "q", "--fromat", "nf4"], "did you mean '--format'"),
        (["quantize", TINY, "-o", "q", "--double-quants"], "did you mean '--double-quant'"),
        (["quantize", TINY, "--ouput", "q"], "unexpected argument '--ouput', did you mean '--out'"),
        (["quantize", TINY, "--output", "q", "--block", "many"], "did you mean '--out'"),
        (["inspect", "-dash"], "unexpected argument '-dash'"),
        (["inspect", "--", TINY, "--tensors"], "unexpected argument '--tensors' (see"),
        (["quantize", TINY, "-o", "q", "--format", "nf5"], "did you mean 'nf4'"),
        (["quantize", TINY, "-o", "q", "--format", "int8-dynamo"], "did you mean 'int8-dynamic'"),
        (["quantize", TINY, "-o", "q", "--preset", "infrence"], "inference, finetune, accuracy, edge"),
        (["quantize", TINY, "-o", "q", "--skip", "down_prj"], "the nearest is 'down_proj'"),
        (["quantize", TINY, "-o", "q", "--block", "63"], "block 63"),
        (["quantize", TINY, "-o", "q", "--block", "many"], "--block"),
        (["quantize", TINY, "-o", "q", "--format", "int8", "--double-quant"], "double_quant"),
        (["quantize", TINY, "-o", "q", "--granularity", "row"], "channel or tensor"),
        (["quantize", TINY, "-o", "q", "--compute-dtype", "fp8"], "fp8"),
        (["quantize", TINY, "-o", "q", "--compute-dtype", "int8"], "compute_dtype"),
        (["quantize", TINY, "-o", "q", "--format", "int8", "--compute-dtype", "bf16"], "--compute-dtype has no meaning"),
        (["quantize", TINY, "-o", "q", "--int8-threshold", "3"], "--int8-threshold has no meaning for format 'nf4'"),
        (["quantize", TINY, "-o", "q", "--max-shard-size", "big"], "--max-shard-size"),
        (["quantize", TINY, "-o", "."], "output '.'"),
        (["quantize", TINY], "--out"),
        (["quantize"], "MODEL"),
        (["dequantize", TINY, "-o", "d", "--dtype", "int8"], "fp32, fp16 or bf16"),
        (["info", "--threads", "-1"], "--threads"),
        (["info", "--threads", "two"], "--threads"),
        (["info", "extra"], "extra"),
        (["generate", TINY], "--prompt"),
        (["generate", TINY, "-p", "a", "--ids", "1"], "--ids"),
        (["generate", TINY, "-p", "a", "--prompt-file", "b"], "--prompt"),
        (["generate", TINY, "--ids", "1,x"], "'1,x' is not a list of ids"),
        *[(["generate", TINY, "--ids", ids], f"'{ids}' is not a list of ids") for ids in ("1,,2", ",1", "1,", "1-2")],
        (["generate", TINY, "--ids", "512"], "512"),
        (["generate", TINY, "--ids", ""], "empty"),
        (["generate", TINY, "-p", "a", "--temperature", "-1"], "temperature"),
        (["generate", TINY, "-p", "a", "--top-p", "2"], "top_p"),
        *[(["generate", TINY, "-p", "a", "-n", n], f"--max-tokens: found '{n}', expected an integer")
          for n in ("1e3", "0x10", "12abc", "")],
        *[(["generate", TINY, "-p", "a", option, 2**64], f"{option}: {2**64} is out of range")
          for option in ("--seed", "--max-tokens", "--top-k", "--block")],
        (["generate", TINY, "-p", "a", "--temperature", "inf"], "--temperature: found 'inf', expected a finite number"),
        (["generate", TINY, "-p", "a", "--min-p", "1e99"], "--min-p: 1e99 is out of range"),
        (["evaluate", TINY, "--text", "a", "--seed", "-1"], "--seed: found '-1', expected an integer >= 0"),
        (["generate", TINY, "-p", "a", "--context", "513"], "513"),
        (["generate", TINY, "-p", "a", "--kv-dtype", "int32"], "kv_dtype"),
        (["generate", TINY, "-p", "a", "--kv-dtype", "int4"], "expected auto, fp32, fp16, bf16 or int8"),
        (["generate", TINY, "-p", "a", "--prompt-lookup", "2000"], "prompt_lookup"),
        (["generate", TINY, "-p", "a", "--head", "int4"], "head"),
        *[(["generate", TINY, "-p", "a", *of, *option.split()], f"{option.split()[0]} has no meaning for {TINY}")
          for of in ([], ["--format", "int8"]) for option in
          ("--activations int8", "--activations fp32", "--activation-range token", "--reduce-range", "--compute-dtype bf16")],
        (["logits", TINY, "--ids", "1", "--format", "nf4", "--reduce-range"], "it is for int8-dynamic"),
        (["evaluate", TINY, "--text", "a", "--format", "int8-dynamic", "--activations", "int8"],
         "it is for 4-bit formats and GGUF's block types"),
        (["generate", TINY, "-p", "a", "--system", "b"], "--chat"),
        (["generate", TINY, "-p", "a", "--block", "32"], "--format"),
        (["chat", TINY, "--json"], "--json"),
        (["logits", TINY, "--ids", "1", "--top", "-1"], "--top"),
        (["tokenize", TINY, "a", "--decode", "1"], "--decode"),
        (["tokenize", TINY], "something to tokenize is needed: TEXT or --decode"),
        (["evaluate", TINY], "--text"),
        (["evaluate", TINY, "--text", "a", "--max-kl", "1"], "--reference"),
        (["evaluate", TINY, "--text", "a", "--reference", TINY, "--max-kl", "-1"], "--max-kl: found -1"),
        (["evaluate", TINY, "--text", "a", "--reference", TINY, "--min-top1", "2"], "expected 0 to 1"),
        (["evaluate", TINY, "--text", "a", "--context", "1"], "--context"),
    ]
    for arguments, says in rows: t.fails(USAGE, *arguments, says=says)
    assert names_in(t.folder) == [], "wrong usage leaves nothing"


@case
def bad_input_is_3_and_names_the_file(t):
    t.fails(BAD_INPUT, "inspect", "nowhere", says="nowhere")
    t.fails(BAD_INPUT, "inspect", "org/name", says="hf download org/name")
    (t.folder / "locked").mkdir(mode=0)
    nobody = {"preexec_fn": lambda: os.setuid(65534)} if os.getuid() == 0 else {}
    t.fails(BAD_INPUT, "inspect", "locked/model", says="locked/model: cannot be opened: Permission denied", **nobody)
    t.fails(BAD_INPUT, "inspect", "locked", says="cannot be opened: Permission denied", **nobody)
    t.fails(BAD_INPUT, "inspect", t.write("x.gguf", b"GGUX" + bytes(60)), says="x.gguf")
    t.fails(BAD_INPUT, "quantize", TINY, "-o", "q", "--recipe", "none.json", says="none.json")
    recipe = t.write("recipe.json", '{"fromat": "nf4"}')
    t.fails(BAD_INPUT, "quantize", TINY, "-o", "q", "--recipe", recipe, says=["recipe.json", "'fromat'", "'format'"])
    t.fails(BAD_INPUT, "generate", TINY, "--prompt-file", "none.txt", says="none.txt")
    t.fails(BAD_INPUT, "evaluate", TINY, "--text", "none.txt", says="none.txt")
    latin = t.write("latin.txt", WORDS.encode() + b" n\xe9e")
    for arguments in (["evaluate", TINY, "--text"], ["bench", TINY, "--formats", "fp32", "--text"],
                      ["recommend", TINY, "--measure", "--text"], ["generate", TINY, "--prompt-file"],
                      ["embed", TINY, "--file"]):
        t.fails(BAD_INPUT, *arguments, latin, says=f"latin.txt:1: byte {len(WORDS) + 3} of the line is not UTF-8")
    t.fails(BAD_INPUT, "evaluate", TINY, "--ids-file", t.write("ids.json", "[1, 2, -3]"), says=["ids.json", "-3"])
    t.fails(BAD_INPUT, "evaluate", TINY, "--ids-file", t.write("ids.json", '{"a": 1}'), says="ids.json")
    weights = (TINY / "model.safetensors").read_bytes()
    broken = [("config.json", '{"model_type": "llama", "hidden_size": }', "config.json"),
              ("config.json", (TINY / "config.json").read_text().replace("128", "160", 1), "expected [512, 160]"),
              ("config.json", (TINY / "config.json").read_text().replace("192", "256", 1), "expected [256, 128]"),
              ("model.safetensors", weights[:-100], "model.safetensors"),
              ("model.safetensors", weights.replace(b"BF16", b"BF17", 1), "BF17"),
              ("tokenizer.json", "[]", "tokenizer.json")]
    for i, (name, content, says) in enumerate(broken):
        folder = copy_of_tiny(t, f"model{i}")
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        t.fails(BAD_INPUT, "generate", folder, "-p", "a", says=[f"model{i}", says])
    assert not (t.folder / "q").exists()


@case
def unsupported_is_4(t):
    folder = copy_of_tiny(t)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mamba9"}))
    t.fails(UNSUPPORTED, "generate", folder, "--ids", "1", says=["mamba9", "llama"])
    assert t.json("inspect", folder)["supported"] is False
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    t.fails(UNSUPPORTED, "inspect", folder, says="gptq")
    t.run("quantize", TINY, "-o", "q")
    t.fails(UNSUPPORTED, "quantize", "q", "-o", "again", says=["quantized already", "nf4"])
    t.fails(UNSUPPORTED, "generate", "q", "--ids", "1", "--format", "int8", says="nf4")


@case
def other_failures_are_1(t):
    t.fails(FAILED, "quantize", TINY, "-o", "/proc/nibble/out", says="/proc/nibble")
    t.fails(FAILED, "logits", TINY, "--ids", "1", "--npy", "none/x.npy", says="x.npy")
    with open("/dev/full", "w") as full:
        result = t.run("formats", status=FAILED, stdout=full)
    assert "standard output" in result.stderr


@case
def too_little_memory_is_5(t):
    t.need_plain_memory()
    big = write_llama(t.folder / "big", layers=1, hidden=4096, feed_forward=4096)
    limit = 128 << 20  # the seven matrices take 470 MB in fp32
    t.fails(RESOURCES, "generate", big, "--ids", "1", "--format", "fp32", says="memory",
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))


@case
def an_existing_output_is_6(t):
    for command, source in (("quantize", TINY), ("dequantize", TINY)):
        t.write(f"{command}/keep.txt", "mine")
        t.fails(EXISTS, command, source, "-o", command, says=[command, "--overwrite"])
        assert names_in(t.folder / command) == ["keep.txt"]
        t.run(command, source, "--out", command, "--overwrite")
        assert "keep.txt" not in names_in(t.folder / command)
        assert "model.safetensors" in names_in(t.folder / command)
    t.write("file", "mine")
    t.fails(EXISTS, "quantize", TINY, "-o", "file", says="file")
    assert names_in(t.folder) == ["dequantize", "file", "quantize"]


@case
def a_failed_gate_is_7(t):
    evaluate = ["evaluate", TINY, "--format", "nf4", "--reference", TINY, "--text", TINY / "heldout.txt", "--context",
                128, "--max-tokens", 512]
    for gate, limit, name in (("--max-kl", 1e-6, "kl_mean"), ("--max-perplexity-increase", 1e-6, "perplexity"),
                              ("--min-top1", 0.9999, "top1_agreement")):
        result = t.run(*evaluate, gate, limit, status=GATE)
        assert f"gate failed: {name}" in result.stderr and "perplexity" in result.stdout
        value = t.json(*evaluate, gate, limit, status=GATE)
        assert value["gate"]["passed"] is False and name in value["gate"]["failed"][0]
    value = t.json(*evaluate, "--max-kl", 1, "--max-perplexity-increase", 1, "--min-top1", 0.1)
    assert value["gate"] == {"passed": True, "failed": []}
    assert t.json(*evaluate)["gate"] is None


@case
def interrupted_is_130(t):
    for number in (signal.SIGINT, signal.SIGTERM):
        model = write_llama(t.folder / f"model{number}", layers=40, hidden=1024, feed_forward=1024)
        process = t.start("quantize", model, "-o", "out", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True)
        deadline = time.monotonic() + 20
        while not (t.folder / ".out.nibble-tmp/model.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(number)
        begin = time.monotonic()
        stdout, stderr = process.communicate(timeout=20)
        assert process.returncode == INTERRUPTED, (process.returncode, stderr)
        assert time.monotonic() - begin < 2
        assert one_object(stdout)["error"]["code"] == "interrupted" and "nothing was written" in stderr
        shutil.rmtree(model)
        assert names_in(t.folder) == []


@case
def errors_are_json_too(t):
    rows = [(USAGE, "invalid_argument", ["quantize", TINY, "-o", "q", "--format", "nf5"]),
            (USAGE, "invalid_argument", ["generate", "--prmpt"]),
            (BAD_INPUT, "io", ["inspect", "nowhere"]),
            (BAD_INPUT, "format", ["evaluate", TINY, "--ids-file", t.write("ids.json", "{")]),
            (EXISTS, "exists", ["quantize", TINY, "-o", "."+"/ids.json"])]
    for status, code, arguments in rows:
        result = t.run(*arguments, "--json", status=status)
        error = one_object(result.stdout)
        assert list(error) == ["error"] and error["error"]["code"] == code, error
        assert result.stderr == f"nibble: error: {error['error']['message']}\n"


@case
def an_unknown_instruction_set_stops_every_command(t):
    available = t.json("info")["isa_available"]
    assert "scalar" in available
    for arguments in (["info"], ["formats"], ["inspect", TINY]):
        t.fails(USAGE, *arguments, env={"NIBBLE_ISA": "mmx"}, says=["NIBBLE_ISA=mmx", ", ".join(available)])
    for isa in available:
        assert t.json("info", env={"NIBBLE_ISA": isa})["isa"] == isa


if __name__ == "__main__":
    sys.exit(main())
