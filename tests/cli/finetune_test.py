#!/usr/bin/env python3
"""finetune and --adapter from outside.

    python3 tests/cli/finetune_test.py --nibble build/release/nibble [--only SUBSTRING]
"""

import re
import signal
import sys
import time

from harness import *

LINES = "".join(json.dumps({"prompt": f"Question {i}: what is {i} and {i}?", "completion": f" It is {2 * i}."}) + "\n"
                for i in range(12))


def train(t, out, *options, **more):
    data = t.folder / "data.jsonl"
    if not data.exists(): t.write("data.jsonl", LINES)
    rank = [] if "full" in options else ["--lora-r", 4]
    return t.json("finetune", TINY, "-o", out, "--data", data, *rank, *options, **more)


def shapes_in(path):
    """Of the tensors of a safetensors file, by name."""
    data = path.read_bytes()
    header = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@case
def trains_and_uses_an_adapter(t):
    result = train(t, "out", "--steps", 4, "--batch", 3, "--learning-rate", 1e-2)
    lines = log(t.folder / "out")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for key in ["loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second"]:
        assert all(isinstance(line[key], (int, float)) for line in lines), key
    assert result["steps"] == 4 and result["final_loss"] == lines[-1]["loss"] and result["eval_loss"] is None
    assert result["output"] == "out" and result["peak_rss_bytes"] > 0
    assert names_in(t.folder / "out") == ["adapter_config.json", "adapter_model.safetensors", "log.jsonl"]
    assert names_in(t.folder) == ["data.jsonl", "out"]
    plain = t.json("logits", TINY, "--ids", "5,17,9")
    adapted = t.json("logits", TINY, "--ids", "5,17,9", "--adapter", "out")
    assert plain["positions"] != adapted["positions"]
    t.run("generate", TINY, "--adapter", "out", "-p", "Question", "-n", 4)
    t.json("evaluate", TINY, "--adapter", "out", "--reference", TINY, "--text", TINY / "heldout.txt", "--max-tokens", 256)
    again = t.json("logits", TINY, "--ids", "5,17,9", "--adapter", "out", "--adapter", "out")
    assert again["positions"] != adapted["positions"], "a second adapter adds its change"


@case
def threads_do_not_matter(t):
    for n in (1, 2): train(t, f"out{n}", "--steps", 2, "--threads", n, "--method", "qlora", "--lora-dropout", 0.1)
    one, two = (files_of(t.folder / f"out{n}")["adapter_model.safetensors"] for n in (1, 2))
    assert one == two


@case
def the_data_doctor_reports_and_stops(t):
    data = t.write("data.jsonl", LINES)
    report = t.json("finetune", TINY, "--data", data, "--check-data")
    assert report["samples"] == 12 and 0 < report["trained_tokens"] < report["tokens"] and report["warnings"] == []
    trained = "".join(piece["text"] for piece in report["preview"] if piece["trained"])
    assert trained == " It is 0.<|endoftext|>", trained
    shown = t.run("finetune", TINY, "--data", data, "--check-data").stdout
    assert ">> It is 0.<|endoftext|><<" in shown, shown
    cut = t.run("finetune", TINY, "--data", data, "--check-data", "--max-length", 24).stderr
    assert "of 12 samples are longer than 24 tokens" in cut, cut
    assert names_in(t.folder) == ["data.jsonl"]


@case
def the_data_doctor_looks_at_options_and_evaluation_data_too(t):
    data = t.write("data.jsonl", LINES)
    check = ["finetune", TINY, "--data", data, "--check-data"]
    t.fails(USAGE, *check, "--method", "foo", says="method: found 'foo'")
    t.fails(USAGE, *check, "--optimizer", "foo", says="optimizer: found 'foo'")
    t.fails(USAGE, *check, "--method", "qat", "--format", "bf16", says="'bf16' is not a quantized one")
    t.fails(USAGE, *check, "--method", "qlora", "--block", 33, says="block 33")
    t.fails(USAGE, *check, "--merge-aware", "nf5", says="nf5")
    t.fails(BAD_INPUT, *check, "--eval-data", "absent.jsonl", says="absent.jsonl")
    held = t.write("held.jsonl", "".join(LINES.splitlines(keepends=True)[:2]) + '{"input_ids": [5, 6]}\n')
    report = t.json(*check, "--eval-data", held)
    assert report["samples"] == 12 and report["eval_data"]["samples"] == 3
    assert report["eval_data"]["missing_eos"] == 1 and t.json(*check)["eval_data"] is None
    shown = t.run(*check, "--eval-data", held)
    assert "eval data: 3 samples" in shown.stdout and "warning: eval data: 1 of 3 samples" in shown.stderr, shown
    long = t.write("long.jsonl", json.dumps({"prompt": "very long " * 40, "completion": "x"}) + "\n")
    t.fails(BAD_INPUT, *check, "--eval-data", long, "--max-length", 24, says="long.jsonl: has nothing to train on")
    result = train(t, "out", "--steps", 1, "--eval-data", held)
    assert result["data"]["samples"] == 12 and result["eval_data"]["samples"] == 3


@case
def the_data_doctor_asks_the_model_too(t):
    t.run("quantize", TINY, "-o", "nf4", "--format", "nf4")
    t.write("data.jsonl", LINES)
    rows = [(TINY, USAGE, ["--target-modules", "nope"], "target_modules: no Linear layer of"),
            (TINY, UNSUPPORTED, ["--method", "qlora", "--init", "pissa"], "q_proj is stored as nf4; take loftq"),
            ("nf4", UNSUPPORTED, ["--method", "full"], "is stored as nf4, only dense weights can be trained")]
    for model, status, options, says in rows:
        check = t.fails(status, "finetune", model, "--data", "data.jsonl", "--check-data", *options, says=says)
        run = t.fails(status, "finetune", model, "--data", "data.jsonl", "-o", "out", *options, says=says)
        assert check == run, (check, run)
    assert names_in(t.folder) == ["data.jsonl", "nf4"]


@case
def names_that_mean_nothing_are_warned_of(t):
    data = t.write("data.jsonl", LINES)
    names = ["--target-modules", "q_proj", "nope", "--modules-to-save", "nil", "--rank-pattern", "none=2"]
    warnings = ["target_modules: no module is called nope", "rank_pattern: no module is called none",
                "modules_to_save: no module is called nil"]
    for more in (["--check-data"], ["-o", "out", "--steps", 1]):
        said = t.run("finetune", TINY, "--data", data, *names, *more).stderr
        for warning in warnings: assert f"nibble: warning: {warning}\n" in said, said
    assert t.json("finetune", TINY, "--data", data, *names, "--check-data")["warnings"] == warnings
    assert train(t, "json", "--steps", 1, *names)["warnings"] == warnings
    assert train(t, "none", "--steps", 1)["warnings"] == []


@case
def layers_ranks_and_alphas_can_be_chosen(t):
    train(t, "out", "--steps", 1, "--target-modules", "q_proj", "v_proj", "o_proj", "--exclude-modules", "o_proj",
          "--layers-to-transform", 0, 2, "--layers-pattern", "layers", "--rank-pattern", "q_proj=2",
          r"layers\.2\.self_attn\.v_proj=3", "--alpha-pattern", "v_proj=6.5", "q_proj=8")
    config = json.loads((t.folder / "out/adapter_config.json").read_text())
    # As PEFT writes them.
    expected = {"r": 4, "target_modules": ["q_proj", "v_proj"], "exclude_modules": ["o_proj"], "layers_to_transform": [0, 2],
                "layers_pattern": ["layers"], "rank_pattern": {"q_proj": 2, r"layers\.2\.self_attn\.v_proj": 3},
                "alpha_pattern": {"v_proj": 6.5, "q_proj": 8}}
    assert expected.items() <= config.items(), config
    tensors = {x: shape for x, shape in shapes_in(t.folder / "out/adapter_model.safetensors").items() if "lora_A" in x}
    at = "base_model.model.model.layers.{}.self_attn.{}_proj.lora_A.weight"
    assert tensors == {at.format(0, "q"): [2, 128], at.format(0, "v"): [4, 128], at.format(2, "q"): [2, 128],
                       at.format(2, "v"): [3, 128]}, tensors
    t.json("logits", TINY, "--ids", "5", "--adapter", "out")
    t.write("run.yaml", "lora_target_modules: [q_proj, v_proj, o_proj]\nexclude_modules: [o_proj]\n"
            "peft_layers_to_transform: [0, 2]\npeft_layers_pattern: layers\n"
            "rank_pattern:\n  q_proj: 2\n  layers\\.2\\.self_attn\\.v_proj: 3\n"
            "alpha_pattern: {v_proj: 6.5, q_proj: 8}\n")
    train(t, "from-yaml", "--steps", 1, "--config", "run.yaml")
    assert files_of(t.folder / "out")["adapter_model.safetensors"] == files_of(t.folder / "from-yaml")["adapter_model.safetensors"]
    assert files_of(t.folder / "out")["adapter_config.json"] == files_of(t.folder / "from-yaml")["adapter_config.json"]
    start = ["finetune", TINY, "--data", "data.jsonl", "-o", "x"]
    t.fails(USAGE, *start, "--rank-pattern", "q_proj", says="--rank-pattern: found 'q_proj', expected REGEX=VALUE")
    t.fails(USAGE, *start, "--rank-pattern", "q_proj=2.5", says="--rank-pattern: found '2.5', expected an integer")
    t.fails(USAGE, *start, "--alpha-pattern", "q_proj=nan", says="--alpha-pattern: found 'nan', expected a finite number")
    t.fails(USAGE, *start, "--layers-to-transform", "first", says="--layers-to-transform: found 'first', expected an integer")
    t.fails(USAGE, *start, "--layers-pattern", "h", says="layers_pattern: needs layers_to_transform")
    t.fails(USAGE, *start, "--method", "full", "--rank-pattern", "q=2", says="rank_pattern: method full trains no adapter")


@case
def an_adapter_that_is_not_what_it_says_is_refused(t):
    train(t, "out", "--steps", 1, "--target-modules", "q_proj", "v_proj")
    path = t.folder / "out/adapter_config.json"
    config = json.loads(path.read_text())

    def refused(says, **members):
        path.write_text(json.dumps({**config, **members}))
        t.fails(BAD_INPUT, "logits", TINY, "--ids", "5", "--adapter", "out", says=says)
        t.fails(BAD_INPUT, "merge", TINY, "--adapter", "out", "-o", "merged", says=says)

    beyond = ["adapter_model.safetensors: has tensors of modules that adapter_config.json does not mean",
              "layers.0.self_attn.v_proj"]
    refused([*beyond, 'target_modules: ["q_proj"]'], target_modules=["q_proj"])
    refused([*beyond, 'exclude_modules: ["v_proj"]'], exclude_modules=["v_proj"])
    refused("layers_to_transform: [0]", layers_to_transform=[0])
    refused("has no tensor for model.norm.weight, which modules_to_save names", modules_to_save=["model.norm"])
    refused("lora_alpha: found null, expected a number", lora_alpha=None)
    path.write_text(json.dumps({**config, "modules_to_save": ["classifier", "score"], "target_modules": ".*[.][qv]_proj"}))
    t.json("logits", TINY, "--ids", "5", "--adapter", "out")


@case
def options_without_effect_are_refused(t):
    data = t.write("data.jsonl", LINES)
    start = ["finetune", TINY, "-o", "out", "--data", data]
    t.fails(USAGE, *start, "--momentum", 0.9, says="momentum: goes with optimizer sgd")
    t.fails(USAGE, *start, "--optimizer", "sgd", "--beta1", 0.8, says="beta1: goes with optimizers adamw and adamw8bit")
    t.fails(USAGE, *start, "--optimizer", "sgd", "--beta2", 0.8, says="beta2: goes with optimizers adamw and adamw8bit")
    t.fails(USAGE, *start, "--eval-every", 2, says="eval_every: needs eval_data")
    t.fails(USAGE, *start, "--save-limit", 2, says="save_limit: needs save_every")
    t.write("run.yaml", "base_model: some/model\n")
    t.fails(USAGE, *start, "--config", "run.yaml", says="base_model: found 'some/model', but the model is")
    t.write("run.yaml", f"base_model: {TINY}/../tiny-llama\n")
    t.run(*start, "--config", "run.yaml", "--steps", 1)


@case
def a_quantized_head_says_what_to_do(t):
    base = SHARED / "goldens/bnb/bert-nf4"
    if not base.exists(): raise Skip(f"{base} is not here")
    data = t.write("data.jsonl", json.dumps({"input_ids": [5, 17, 9], "labels": 1}) + "\n")
    for more in (["-o", "out"], ["--check-data"]):
        t.fails(UNSUPPORTED, "finetune", base, "--data", data, "--method", "qlora", *more,
                says=["classifier.weight: is stored as nf4", "head of a classifier has to be trained as it is",
                      "nibble quantize --skip classifier", "llm_int8_skip_modules"])
    assert names_in(t.folder) == ["data.jsonl"]


@case
def ctrl_c_saves_a_checkpoint_and_resume_goes_on(t):
    train(t, "whole", "--steps", 120, "--batch", 4)
    command = ["finetune", TINY, "-o", "stopped", "--data", t.folder / "data.jsonl", "--lora-r", 4, "--steps", 120,
               "--batch", 4]
    process = t.start(*command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    lines = t.folder / "stopped/log.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (lines.exists() and lines.read_text().count("\n") >= 3): time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    if process.returncode == DONE: raise Skip("the run was over before the signal")
    assert process.returncode == INTERRUPTED and "--resume continues" in error, error
    assert len([n for n in names_in(t.folder / "stopped") if n.startswith("checkpoint-")]) == 1
    t.fails(EXISTS, *command, says="--resume")
    t.run(*command, "--resume")
    whole, stopped = (files_of(t.folder / name)["adapter_model.safetensors"] for name in ("whole", "stopped"))
    assert whole == stopped
    assert len(log(t.folder / "stopped")) == 120


@case
def a_page_shows_the_whole_run(t):
    options = ["--eval-data", "data.jsonl", "--eval-every", 2, "--save-every", 2, "--report", "run.html"]
    t.write("data.jsonl", LINES)
    train(t, "out", "--steps", 2, *options)
    result = train(t, "out", "--steps", 4, "--schedule", "linear", *options, "--resume")
    page = (t.folder / "run.html").read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert [step["step"] for step in data["log"]] == [1, 2, 3, 4]
    assert data["log"] == log(t.folder / "out") and data["final_loss"] == result["final_loss"]
    settings = data["settings"]
    assert settings["lora"]["r"] == 4 and settings["method"] == "lora" and settings["use_lora"] is True
    # What --resume compares is there, as a checkpoint has it, but for what the data and the model say.
    state = json.loads((t.folder / "out/checkpoint-2/trainer_state.json").read_text())
    compared = {key: value for key, value in state["settings"].items() if key not in ("model_type", "samples", "data_tokens", "data_checksum", "base_checksum")}
    assert compared.items() <= settings.items(), {k: (v, settings.get(k)) for k, v in compared.items() if settings.get(k) != v}
    assert settings["learning_rate"] == 2e-4 and settings["eval_data"] == "data.jsonl" and settings["compute_dtype"] is None
    assert page.count("<svg") == 4 and "held out" in page and "nibble finetune" in page
    start = ["finetune", TINY, "-o", "x", "--data", "data.jsonl", "--report"]
    t.fails(BAD_INPUT, *start, "no/where.html", says="there is no folder")
    t.fails(BAD_INPUT, *start, "out", says="out: is a folder")
    assert "x" not in names_in(t.folder)


def rows_of(page, title):
    """First to second column of a table."""
    table = page.replace("<wbr>", "").split(f"<h2>{title}</h2>")[1].split("</table>")[0]
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in table.split("<tr>")[1:]]
    return {row[0]: row[1] for row in cells}


@case
def a_page_says_what_the_run_was(t):
    t.write("data.jsonl", LINES)
    start = ["finetune", TINY, "--data", "data.jsonl", "--steps", 1, "--report", "run.html", "--overwrite", "-o", "out"]

    def settings(*options):
        t.run(*start, *options)
        return rows_of((t.folder / "run.html").read_text(), "Settings")

    plain = settings("--lora-r", 4)
    assert plain["rank, alpha"] == "4, 32" and "format of the base" not in plain, plain
    full = settings("--method", "full")
    assert "rank, alpha" not in full and full["learning rate"].startswith("2e-05"), full
    qat = settings("--method", "qat", "--format", "int4", "--block", 32)
    assert "rank, alpha" not in qat and qat["format of the result"] == "int4, blocks of 32", qat
    both = settings("--method", "qat", "--format", "int8-dynamic", "--granularity", "tensor", "--lora-r", 4)
    assert both["rank, alpha"] == "4, 32" and both["format of the result"] == "int8-dynamic, one scale per tensor", both
    merged = settings("--method", "qlora", "--double-quant", "--lora-r", 4, "--merge-aware", "nf4")
    assert merged["format of the base"] == "nf4, double quantization", merged
    assert merged["trained for a merge into"] == "nf4", merged


@case
def a_run_that_stops_early_says_so_and_where_its_best_is(t):
    t.write("data.jsonl", LINES)
    run = ["finetune", TINY, "--data", "data.jsonl", "--lora-r", 4, "--eval-data", "data.jsonl", "--eval-every", 1]
    stops = [*run, "--steps", 40, "--learning-rate", 0.2, "--schedule", "constant", "--early-stopping", 2]
    result = t.json(*stops, "-o", "json")
    losses = [step["eval_loss"] for step in log(t.folder / "json")]
    assert result["stopped_early"] and result["steps"] == len(losses) < 40
    assert losses.index(min(losses)) == len(losses) - 3 and result["best_eval_loss"] == min(losses)
    said = t.run(*stops, "-o", "out").stdout
    assert "stopped early" in said and f"{min(losses):.4f}, of out/best" in said, said
    said = t.run(*run, "--steps", 1, "-o", "one").stdout
    assert "early" not in said and "best" not in said, said


@case
def a_page_of_a_run_that_skipped_steps_has_no_nan(t):
    """The first step makes such large weights that the others are not finite."""
    t.write("data.jsonl", LINES)
    t.run("finetune", TINY, "-o", "skips", "--data", "data.jsonl", "--lora-r", 4, "--steps", 3, "--on-nonfinite", "skip",
          "--eval-data", "data.jsonl", "--report", "run.html", "--learning-rate", 1e36, "--warmup", 0, "--max-grad-norm", 0)
    page = (t.folder / "run.html").read_text()
    shown = page.split("<script")[0]
    assert "2 steps were skipped" in shown and "nan" not in re.sub(r"<style>.*?</style>", "", shown, flags=re.S).lower(), shown
    assert rows_of(page, "Result")["held-out loss, last"] == "not finite"


@case
def adapters_begin_with_pissa_and_loftq(t):
    data = t.write("data.jsonl", LINES)
    train(t, "principal", "--init", "pissa", "--steps", 2)
    config = json.loads((t.folder / "principal/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 64, True)
    t.json("logits", TINY, "--ids", "5,17,9", "--adapter", "principal")
    done = t.run("finetune", TINY, "-o", "makes-up", "--data", data, "--lora-r", 4, "--steps", 2, "--method", "qlora",
                 "--double-quant", "--init", "loftq")
    assert "--format nf4 --double-quant --adapter makes-up" in done.stdout, done.stdout
    done = t.run("finetune", TINY, "-o", "one-scale", "--data", data, "--lora-r", 4, "--steps", 1, "--method", "qlora",
                 "--format", "int8-dynamic", "--granularity", "tensor", "--skip", "down_proj", "model.layers.0", "--init", "loftq")
    words = "--format int8-dynamic --granularity tensor --skip down_proj model.layers.0 --adapter one-scale"
    assert words in done.stdout, done.stdout
    t.fails(USAGE, "finetune", TINY, "-o", "x", "--data", data, "--init", "loftq", says="take method qlora")
    t.fails(USAGE, "finetune", TINY, "-o", "x", "--data", data, "--init", "pissa", "--merge-aware", "nf4",
            says="pissa does not go with merge_aware")
    t.fails(UNSUPPORTED, "finetune", TINY, "-o", "x", "--data", data, "--init", "magic",
            says="init_lora_weights: found 'magic'")


@case
def a_checkpoint_can_be_named(t):
    train(t, "one", "--steps", 4, "--save-every", 2)
    train(t, "two", "--steps", 4, "--resume", "one/checkpoint-2")
    assert files_of(t.folder / "one")["adapter_model.safetensors"] == files_of(t.folder / "two")["adapter_model.safetensors"]
    t.json("logits", TINY, "--ids", "5", "--adapter", "one/checkpoint-2")


@case
def a_file_describes_a_run_and_flags_win(t):
    t.write("run.yaml", "adapter: qlora\nmicro_batch_size: 2\nmax_steps: 3\nlora_r: 2\nlearning_rate: 0.001\n")
    result = train(t, "out", "--config", "run.yaml", "--steps", 2)
    assert result["method"] == "qlora" and result["steps"] == 2
    config = json.loads((t.folder / "out/adapter_config.json").read_text())
    assert config["r"] == 4 and config["lora_alpha"] == 32  # --lora-r is given by train()
    t.write("bad.yaml", "micro_batch: 2\n")
    t.fails(BAD_INPUT, "finetune", TINY, "-o", "x", "--data", "data.jsonl", "--config", "bad.yaml",
            says=["bad.yaml: 'micro_batch' is not known", "did you mean"])


@case
def every_option_is_a_key_of_the_file(t):
    options = set(re.findall(r"--([a-z][a-z0-9-]+)", t.run("finetune", "--help").stdout.split("Examples:")[0]))
    # What is written where, and how the program talks.
    keys = options - {"help", "out", "config", "check-data", "json", "quiet"}
    assert {"lora-r", "no-shuffle", "report", "threads", "learning-rate"} <= keys, keys
    t.write("all.yaml", "".join(f"{key.replace('-', '_')}:\n" for key in keys))
    data = t.write("data.jsonl", LINES)
    t.run("finetune", TINY, "--config", "all.yaml", "--data", data, "--check-data")
    t.write("page.yaml", "report: run.html\nthreads: 1\nsteps: 9\n")
    result = train(t, "out", "--config", "page.yaml", "--epochs", 1, "--batch", 6)
    assert result["steps"] == 2 and "run.html" in names_in(t.folder)
    t.fails(USAGE, "finetune", TINY, "-o", "x", "--data", data, "--method", "full", "--dora",
            says="dora: method full trains no adapter")


@case
def full_training_writes_a_model(t):
    train(t, "model", "--method", "full", "--steps", 2, "--learning-rate", 1e-3)
    before, after = t.json("inspect", TINY, "--tensors"), t.json("inspect", "model", "--tensors")
    shapes = [{x["name"]: (x["dtype"], x["shape"]) for x in model["tensors"]} for model in (before, after)]
    assert shapes[0] == shapes[1]
    t.run("generate", "model", "-p", "Question", "-n", 4)


@case
def qat_writes_a_quantized_model(t):
    options = ["--method", "qat", "--format", "int8-dynamic", "--qat-activations", "observed", "--granularity", "tensor",
               "--skip", "down_proj", "--learning-rate", 1e-3, "--steps", 4]
    t.write("data.jsonl", LINES)
    result = t.json("finetune", TINY, "-o", "model", "--data", "data.jsonl", *options, "--save-every", 2)
    assert result["method"] == "qat" and result["steps"] == 4
    formats = {x["name"]: x["dtype"] for x in t.json("inspect", "model", "--tensors")["tensors"]}
    assert formats["model.layers.0.mlp.up_proj.weight"] == "int8-dynamic", formats
    assert formats["model.layers.0.mlp.down_proj.weight"] == "fp32", formats
    t.run("finetune", TINY, "-o", "again", "--data", "data.jsonl", *options, "--resume", "model/checkpoint-2",
          "--threads", 1)
    one, two = (files_of(t.folder / name)["model.safetensors"] for name in ("model", "again"))
    assert one == two
    t.run("generate", "model", "-p", "Question", "-n", 4)
    shown = t.run("finetune", TINY, "-o", "merged", "--data", "data.jsonl", "--method", "qat", "--format", "int4",
                  "--block", 32, "--lora-r", 4, "--steps", 1).stdout
    assert "next: nibble generate merged -p TEXT" in shown, shown
    t.run("generate", "merged", "-p", "Question", "-n", 4)


@case
def a_merge_aware_adapter_is_merged_as_trained(t):
    t.run("quantize", TINY, "-o", "base", "--format", "nf4")
    t.write("data.jsonl", LINES)
    t.run("finetune", "base", "-o", "adapter", "--data", "data.jsonl", "--lora-r", 4, "--steps", 2, "--merge-aware", "nf4")
    assert names_in(t.folder / "adapter") == ["adapter_config.json", "adapter_model.safetensors", "log.jsonl",
                                              "merge_aware.json"]
    # Two steps change little: without the record the merge would be refused.
    value = t.json("merge", "base", "--adapter", "adapter", "-o", "merged", "--to", "nf4")
    assert value["trained_for"] == {"format": "nf4", "block": 64, "double_quant": False, "dither": True,
                                    "base": "nf4"}
    assert value["as_trained"] is True and value["dithered"] is True, value
    text = t.run("merge", "base", "--adapter", "adapter", "-o", "merged", "--to", "nf4", "--overwrite").stdout
    assert "the result is what training saw" in text, text
    said = t.run("merge", "base", "--adapter", "adapter", "-o", "other", "--to", "bf16").stderr
    assert "trained to be merged into nf4 with block 64 (dithered), over a base in nf4" in said, said
    t.run("generate", "base", "--adapter", "adapter", "-p", "Question", "-n", 4)


@case
def wrong_use_is_refused(t):
    data = t.write("data.jsonl", LINES)
    start = ["finetune", TINY, "-o", "out", "--data", data]
    t.fails(USAGE, "finetune", TINY, "--data", data, says="--out")
    t.fails(USAGE, "finetune", TINY, "-o", "out", says="data: is missing")
    t.fails(USAGE, *start, "--method", "magic", says=["method", "qlora"])
    t.fails(USAGE, *start, "--method", "qat", "--format", "bf16", says="not a quantized one")
    t.fails(USAGE, *start, "--method", "full", "--merge-aware", "nf4", says="merge_aware")
    t.fails(USAGE, *start, "--lora-rank", 4, says="--lora-")
    t.fails(USAGE, *start, "--target-modules", "query", says="no Linear layer")
    t.fails(BAD_INPUT, "finetune", TINY, "-o", "out", "--data", "absent.jsonl", says="absent.jsonl")
    t.write("bad.jsonl", LINES + '{"prompt": "x"}\n')
    t.fails(BAD_INPUT, "finetune", TINY, "-o", "out", "--data", "bad.jsonl", says="bad.jsonl:13: completion: is missing")
    t.fails(UNSUPPORTED, *start, "--task", "seq_cls", says="causal_lm")
    t.fails(BAD_INPUT, *start, "--resume", says="no checkpoint")
    assert not (t.folder / "out").exists()
    t.fails(BAD_INPUT, "logits", TINY, "--ids", "5", "--adapter", t.folder, says="adapter_config.json")


@case
def a_full_disk_leaves_the_checkpoint_before(t):
    """A limit on the size of files stands for a full disk: state.safetensors of the run with more values exceeds it."""
    train(t, "out", "--steps", 2, "--save-every", 2)
    before = files_of(t.folder / "out/checkpoint-2")
    largest = max(map(len, before.values()))
    limit = f"ulimit -f {(largest - 1) // 1024}; exec \"$0\" \"$@\""
    command = ["bash", "-c", limit, t.program, "finetune", str(TINY), "-o", "out", "--data", "data.jsonl", "--lora-r", "4",
               "--steps", "4", "--save-every", "2", "--resume"]
    result = subprocess.run(command, cwd=t.folder, capture_output=True, text=True, timeout=60)
    assert result.returncode == RESOURCES, (result.returncode, result.stderr)
    assert files_of(t.folder / "out/checkpoint-2") == before
    assert "checkpoint-4" not in names_in(t.folder / "out")
    train(t, "out", "--steps", 4, "--save-every", 2, "--resume")
    assert "checkpoint-4" in names_in(t.folder / "out")


if __name__ == "__main__":
    sys.exit(main())
