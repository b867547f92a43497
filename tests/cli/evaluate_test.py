#!/usr/bin/env python3
"""evaluate: conventions, saved references, questions, layers, the page, and what it refuses.

    evaluate_test.py --nibble build/release/nibble
"""

import json
import re
import sys
from html.parser import HTMLParser

from harness import BAD_INPUT, GATE, TINY, USAGE, case, copy_of_tiny, main, names_in

TEXT = TINY / "heldout.txt"
SMALL = ["--text", TEXT, "--context", 64, "--max-tokens", 640]
QUESTIONS = [{"query": "It is a truth", "choices": ["universally acknowledged", "of no use"], "gold": 0},
             {"query": "Question: Who was there?\n", "choices": ["Captain Wentworth", "a dog", "no"], "gold": 0}] * 6
WORDS = [{"context": "She could not", "continuation": "be"}, {"context": "It was", "continuation": "zebra"}] * 3


def jsonl(t, name, rows):
    return t.write(name, "".join(json.dumps(row) + "\n" for row in rows))


@case
def figures_have_intervals_and_a_verdict(t):
    value = t.json("evaluate", TINY, "--format", "fp4", "--reference", TINY, *SMALL)
    assert value["convention"] == "chunks" and value["context"] == 64 and value["interval_blocks"] == 10
    for name, (low, high) in value["intervals"].items(): assert low <= value[name] <= high, name
    for name in ("perplexity", "reference_perplexity", "perplexity_increase", "kl_mean", "kl_p50", "kl_p99",
                 "top1_agreement", "delta_p_mean", "delta_p_rms", "delta_p_p1", "delta_p_p99_9"):
        assert name in value["intervals"], name
    assert "kl_max" not in value["intervals"] and "delta_p_min" not in value["intervals"]
    assert value["delta_p_min"] <= value["delta_p_p0_1"] <= value["delta_p_p50"] <= value["delta_p_max"]
    assert abs(value["perplexity"] / value["reference_perplexity"] - 1 - value["perplexity_increase"]) < 1e-9
    assert value["verdict"].startswith("measurably worse: perplexity changes by +")
    assert len(value["by_position"]) == 32 and value["by_position"][-1]["last"] == 63
    printed = t.run("evaluate", TINY, "--format", "fp4", "--reference", TINY, *SMALL).stdout
    assert value["verdict"] in printed and "95 % interval" in printed and f"{value['kl_mean']:.5f}" in printed
    again = t.json("evaluate", TINY, "--format", "fp4", "--reference", TINY, *SMALL, "--seed", 1)
    assert again["kl_mean"] == value["kl_mean"] and again["intervals"] != value["intervals"]
    alone = t.json("evaluate", TINY, *SMALL)
    assert "verdict" not in alone and "kl_mean" not in alone and list(alone["intervals"]) == ["perplexity"]


@case
def the_head_has_a_cost_of_its_own(t):
    options = [TINY, "--format", "nf4", "--head", "nf4", *SMALL]
    alone, compared = t.json("evaluate", *options), t.json("evaluate", *options, "--reference", TINY)
    for name in ("head_perplexity_increase", "head_kl_mean", "head_top1_agreement"):
        low, high = alone["intervals"][name]
        assert low <= alone[name] <= high and alone[name] == compared[name], name
    assert 0 < compared["head_kl_mean"] < compared["kl_mean"]
    printed = t.run("evaluate", *options, "--report", t.folder / "head.html").stdout
    assert "--head against the head kept" in printed and f"{alone['head_kl_mean']:.5f}" in printed
    assert "What the head costs" in (t.folder / "head.html").read_text()
    assert "head_kl_mean" not in t.json("evaluate", TINY, "--format", "nf4", *SMALL)


@case
def the_cache_may_be_as_generate_has_it(t):
    quantized = [TINY, "--format", "nf4", *SMALL]
    auto, half, single = (t.json("evaluate", *quantized, "--kv-dtype", dtype) for dtype in ("auto", "fp16", "fp32"))
    assert auto["perplexity"] == half["perplexity"] != single["perplexity"]
    assert t.json("evaluate", TINY, *SMALL, "--kv-dtype", "auto")["perplexity"] == \
        t.json("evaluate", TINY, *SMALL)["perplexity"]
    t.fails(USAGE, "evaluate", TINY, *SMALL, "--kv-dtype", "int4", says="expected auto, fp32, fp16, bf16 or int8")


@case
def conventions_are_named(t):
    chunks = t.json("evaluate", TINY, *SMALL)
    sliding = t.json("evaluate", TINY, *SMALL, "--stride", 16)
    half = t.json("evaluate", TINY, *SMALL, "--second-half")
    assert sliding["convention"] == "stride 16" and half["convention"] == "second half"
    assert sliding["tokens"] == 639 and half["tokens"] == 10 * 31 and chunks["tokens"] == 10 * 63
    assert sliding["perplexity"] < chunks["perplexity"] and half["perplexity"] < chunks["perplexity"]
    assert "of 64 ids (stride 16)," in t.run("evaluate", TINY, *SMALL, "--stride", 16).stdout
    t.fails(USAGE, "evaluate", TINY, *SMALL, "--stride", 65, says="stride: found 65")
    t.fails(USAGE, "evaluate", TINY, *SMALL, "--stride", 8, "--second-half", says="choose one")
    listed = t.write("chunks.json", "[[1, 2, 3], [4, 5, 6]]")
    t.fails(USAGE, "evaluate", TINY, "--ids-file", listed, "--stride", 2, says=["chunks.json", "flat list"])


@case
def references_can_be_saved(t):
    direct = t.json("evaluate", TINY, "--format", "nf4", "--reference", TINY, *SMALL)
    alone = t.json("evaluate", TINY, *SMALL, "--save-reference", "tiny.ref")
    assert alone["perplexity"] == direct["reference_perplexity"] and names_in(t.folder) == ["tiny.ref"]
    loaded = t.json("evaluate", TINY, "--format", "nf4", *SMALL, "--load-reference", "tiny.ref", "--max-kl", 1)
    skip = ("seconds", "peak_rss_bytes", "tokens_per_second", "reference", "gate")
    assert {k: v for k, v in loaded.items() if k not in skip} == {k: v for k, v in direct.items() if k not in skip}
    assert loaded["reference"] == "tiny.ref" and loaded["gate"]["passed"]
    load = ["--load-reference", "tiny.ref"]
    t.fails(USAGE, "evaluate", TINY, *SMALL, *load, "--stride", 8, says="another way of cutting the text")
    t.fails(USAGE, "evaluate", TINY, "--text", TEXT, "--context", 64, *load, says="another text")
    t.fails(USAGE, "evaluate", TINY, *SMALL, *load, "--reference", TINY, says="--load-reference")
    t.fails(USAGE, "evaluate", TINY, *SMALL, *load, "--layers", says="--layers needs --reference")
    t.fails(USAGE, "evaluate", TINY, "--tasks", jsonl(t, "q.jsonl", QUESTIONS), *load, says="--load-reference")
    t.fails(BAD_INPUT, "evaluate", TINY, *SMALL, "--load-reference", TINY / "model.safetensors", says="--save-reference")
    t.fails(BAD_INPUT, "evaluate", TINY, *SMALL, "--load-reference", "none.ref", says="none.ref")
    t.write("cut.ref", (t.folder / "tiny.ref").read_bytes()[:-100])
    t.fails(BAD_INPUT, "evaluate", TINY, *SMALL, "--load-reference", "cut.ref", says="cut.ref")


@case
def questions_are_answered(t):
    quiz, words = jsonl(t, "quiz.jsonl", QUESTIONS), jsonl(t, "words.jsonl", WORDS)
    value = t.json("evaluate", TINY, "--format", "fp4", "--reference", TINY, "--tasks", quiz, "--tasks", words)
    assert [task["task"] for task in value["tasks"]] == ["quiz", "words"] and "perplexity" not in value
    first, second = value["tasks"]
    assert first["questions"] == 12 and second["questions"] == 6 and first["truncated"] == 0
    for key in ("accuracy", "accuracy_norm", "reference_accuracy", "accuracy_drop", "flips", "verdict", "intervals"):
        assert key in first, key
    assert second["perplexity"] > 1 and second["accuracy"] <= 0.5  # a zebra is never the likeliest
    assert t.json("evaluate", TINY, "--tasks", quiz, "--max-questions", 5)["tasks"][0]["questions"] == 5
    both = t.json("evaluate", TINY, "--tasks", quiz, *SMALL)
    assert both["perplexity"] > 1 and len(both["tasks"]) == 1
    same = t.json("evaluate", TINY, "--reference", TINY, "--tasks", quiz, "--max-accuracy-drop", 0)
    assert same["gate"]["passed"] and same["tasks"][0]["flips"] == 0
    assert "reference" not in t.run("evaluate", TINY, "--tasks", quiz).stdout
    printed = t.run("evaluate", TINY, "--reference", TINY, "--tasks", quiz, "--tasks", words).stdout
    for text in ("accuracy by length", "quiz: indistinguishable at this sample size", "other answers"):
        assert text in printed, text


@case
def gates_hold_for_questions(t):
    quiz = jsonl(t, "quiz.jsonl", [{"query": f"{i} and", "choices": ["so on", "a ship", "her"], "gold": i % 3}
                                   for i in range(30)])
    gate = ["evaluate", TINY, "--format", "int4", "--block", 4096, "--reference", TINY, "--tasks", quiz]
    drop = t.json(*gate)["tasks"][0]["accuracy_drop"]
    failed = t.json(*gate, "--max-accuracy-drop", drop - 0.01, status=GATE)
    assert "quiz: accuracy fell by" in failed["gate"]["failed"][0]
    assert t.json(*gate, "--max-accuracy-drop", max(drop, 0) + 0.01)["gate"]["passed"]


@case
def layers_are_compared(t):
    t.run("quantize", TINY, "-o", "q", "--format", "nf4")
    value = t.json("evaluate", "q", "--reference", TINY, *SMALL, "--layers")["layers"]
    assert value["tokens"] == 64 and len(value["layers"]) == 22 and len(value["blocks"]) == 4
    for layer in value["layers"][:-1]:
        assert layer["format"] == "nf4" and 0.08 < layer["weight_error"] < 0.11 and 20 < layer["weight_sqnr_db"] < 22
        assert 0 < layer["output_error"] < 0.2
    head = value["layers"][-1]
    assert head["name"] == "lm_head" and head["output_error"] == 0 and head["weight_sqnr_db"] is None
    assert all(block["kl"] > 0 for block in value["blocks"][:3]) and value["blocks"][3]["kl"] == 0
    printed = t.run("evaluate", "q", "--reference", TINY, *SMALL, "--layers").stdout
    assert "KL alone" in printed and "output error" in printed
    t.fails(USAGE, "evaluate", "q", *SMALL, "--layers", says="--layers needs --reference")


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.titles, self.data, self.inside, self.outside = [], "", "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.inside = "data" if ("id", "data") in attributes else tag
        self.outside += [name for name, _ in attributes if name in ("src", "href")]

    def handle_data(self, data):
        if self.inside == "h2" and data.strip(): self.titles.append(data)
        if self.inside == "data": self.data += data

    def handle_endtag(self, tag):
        self.inside = ""


@case
def the_page_holds_everything(t):
    quiz = jsonl(t, "quiz.jsonl", QUESTIONS)
    value = t.json("evaluate", TINY, "--format", "nf4", "--reference", TINY, *SMALL, "--layers", "--tasks", quiz,
                   "--report", "r.html")
    text = (t.folder / "r.html").read_text()
    page = Page(text)
    assert json.loads(page.data) == value and page.outside == []
    for title in ("What was lost", "KL by position", "KL by layer", "SQNR of the weights by layer", "Questions",
                  "Size and perplexity"):
        assert title in page.titles, title
    assert value["verdict"] in text.replace("&gt;", ">")
    assert text.count("<rect") >= 4 + 21 + 22 and not re.search(r"https?:", text)
    t.run("evaluate", TINY, *SMALL, "--report", "alone.html")
    assert "What was lost" not in (t.folder / "alone.html").read_text()


@case
def bad_data_is_one_clear_error(t):
    t.fails(BAD_INPUT, "evaluate", TINY, "--text", t.write("empty.txt", ""), says="empty.txt: is empty")
    t.fails(BAD_INPUT, "evaluate", TINY, "--tasks", t.write("empty.jsonl", ""), says="empty.jsonl: is empty")
    t.fails(BAD_INPUT, "evaluate", TINY, "--ids-file", t.write("empty.json", "[]"), says="empty.json: is empty")
    short = t.write("short.txt", "It is a truth.")
    t.fails(USAGE, "evaluate", TINY, "--text", short, "--context", 128, says=["short.txt", "fewer than the --context"])
    assert t.json("evaluate", TINY, "--text", short)["chunks"] == 1
    t.fails(USAGE, "evaluate", TINY, "--text", short, "--second-half", says="fewer than the context of 512")
    t.fails(BAD_INPUT, "evaluate", TINY, "--tasks", t.write("x.jsonl", '{"query": "a"}'), says="x.jsonl: line 1")
    t.fails(USAGE, "evaluate", TINY, says="--tasks")
    t.fails(USAGE, "evaluate", TINY, "--tasks", "x.jsonl", "--reference", TINY, "--max-kl", 1, says="--max-accuracy-drop")
    t.fails(USAGE, "evaluate", TINY, "--tasks", "x.jsonl", "--file", "y.tsv", says="--file")
    t.fails(USAGE, "evaluate", TINY, "--tasks", "x.jsonl", "--save-reference", "r", says="--save-reference")


@case
def nan_names_its_layer(t):
    model = copy_of_tiny(t, without=["model.safetensors"])
    bytes_ = bytearray((TINY / "model.safetensors").read_bytes())
    size = int.from_bytes(bytes_[:8], "little")
    begin = json.loads(bytes_[8:8 + size])["model.layers.1.mlp.gate_proj.weight"]["data_offsets"][0]
    bytes_[8 + size + begin:8 + size + begin + 2] = b"\xc0\x7f"  # bf16
    (model / "model.safetensors").write_bytes(bytes_)
    says = ["not finite", "in the output of model.layers.1.mlp.gate_proj"]
    t.fails(BAD_INPUT, "evaluate", model, *SMALL, says=[str(model), *says])
    t.fails(BAD_INPUT, "evaluate", TINY, "--reference", model, *SMALL, says=says)
    t.fails(BAD_INPUT, "evaluate", model, "--tasks", jsonl(t, "q.jsonl", QUESTIONS), says=["q: question 1", *says])


if __name__ == "__main__":
    sys.exit(main())
