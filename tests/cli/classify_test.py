#!/usr/bin/env python3
"""classify, embed and the labelled side of evaluate.

    python3 tests/cli/classify_test.py --nibble build/release/nibble [--only SUBSTRING]
"""

import array
import math
import random

from harness import *

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "is", "was", "good", "bad", "not", "so", "very"]
HIDDEN, INNER, POSITIONS = 8, 16, 10
TEXTS = ["the film is good", "bad", "not so very bad", "so good so good", "the film was not good"]


def encoder_tensors(labels):
    shapes = {"embeddings.word_embeddings": [len(WORDS), HIDDEN], "embeddings.position_embeddings": [POSITIONS, HIDDEN],
              "embeddings.token_type_embeddings": [2, HIDDEN]}
    linears = {"pooler.dense": (HIDDEN, HIDDEN)}
    block = "encoder.layer.0."
    for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
        linears[block + name] = (HIDDEN, HIDDEN)
    linears[block + "intermediate.dense"] = (INNER, HIDDEN)
    linears[block + "output.dense"] = (HIDDEN, INNER)
    tensors = {f"bert.{name}.weight": shape for name, shape in shapes.items()}
    for name, (out, width) in linears.items():
        tensors[f"bert.{name}.weight"], tensors[f"bert.{name}.bias"] = [out, width], [out]
    for name in ("embeddings.LayerNorm", block + "attention.output.LayerNorm", block + "output.LayerNorm"):
        tensors[f"bert.{name}.weight"] = tensors[f"bert.{name}.bias"] = [HIDDEN]
    tensors["classifier.weight"], tensors["classifier.bias"] = [labels, HIDDEN], [labels]
    return tensors


def write_bert(folder, labels=("no", "yes"), seed=1):
    """A classifier with random weights."""
    folder.mkdir()
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": len(WORDS),
              "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": 1, "num_attention_heads": 2,
              "max_position_embeddings": POSITIONS, "id2label": {str(i): name for i, name in enumerate(labels)}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    rng, header, data = random.Random(seed), {}, array.array("f")
    for name, shape in encoder_tensors(len(labels)).items():
        begin = 4 * len(data)
        data.extend(rng.gauss(0, 1) for _ in range(math.prod(shape)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, 4 * len(data)]}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data.tobytes())
    return folder


def write_tsv(t, labels, name="data.tsv"):
    return t.write(name, "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in zip(TEXTS, labels)))


def read_npy(path):
    raw = path.read_bytes()
    size = 10 + raw[8] + 256 * raw[9]
    return raw[10:size].decode(), array.array("f", raw[size:]).tolist()


def labels_of(t, model):
    """What the model itself says of TEXTS."""
    return [p["label"] for p in t.json("classify", model, *flags())["predictions"]]


def flags():
    return [part for text in TEXTS for part in ("--text", text)]


@case
def classify_gives_labels_scores_and_logits(t):
    model = write_bert(t.folder / "model")
    value = t.json("classify", model, *flags(), "--npy", "logits.npy")
    assert value["model"] == str(model) and value["seconds"] >= 0 and value["peak_rss_bytes"] > 0
    assert set(value) == {"model", "predictions", "seconds", "peak_rss_bytes"}, sorted(value)
    assert len(value["predictions"]) == len(TEXTS)
    for p in value["predictions"]:
        assert set(p) == {"label", "label_id", "score", "logits"}
        best = max(range(2), key=lambda i: p["logits"][i])
        assert p["label_id"] == best and p["label"] == ["no", "yes"][best]
        odds = [math.exp(x) for x in p["logits"]]
        assert abs(p["score"] - odds[best] / sum(odds)) < 1e-6
    head, values = read_npy(t.folder / "logits.npy")
    assert "(5, 2,)" in head and values == [x for p in value["predictions"] for x in p["logits"]]
    table = t.run("classify", model, *flags()).stdout.splitlines()
    assert len(table) == 1 + len(TEXTS) and table[2].split()[0] == value["predictions"][1]["label"]


@case
def classify_takes_ids_and_pairs(t):
    model = write_bert(t.folder / "model")
    logits = lambda *arguments: t.json("classify", model, *arguments)["predictions"][0]["logits"]
    assert logits("--ids", "2,5,6,7,9,3") == logits("--text", TEXTS[0])
    pair = logits("--text", "so good", "--text-pair", "not bad")
    assert pair == logits("--ids", "2,12,9,3,11,10,3", "--token-type-ids", "0,0,0,0,1,1,1")
    assert pair != logits("--ids", "2,12,9,3,11,10,3")


@case
def classify_scores_a_labelled_file(t):
    model = write_bert(t.folder / "model")
    labels = labels_of(t, model)
    right = t.json("classify", model, "--file", write_tsv(t, labels))
    assert right["accuracy"] == 1.0 and len(right["predictions"]) == len(TEXTS)
    other = {"no": "1", "yes": "0"}  # numbers are labels too
    wrong = t.json("classify", model, "--file", write_tsv(t, [other[labels[0]]] + labels[1:]))
    assert wrong["accuracy"] == 0.8 and 0 <= wrong["f1"] < 1
    assert "accuracy 80.00 %" in t.run("classify", model, "--file", "data.tsv").stdout
    unlabelled = t.json("classify", model, "--file", t.write("plain.csv", "sentence\n\"so, good\"\n"))
    assert "accuracy" not in unlabelled and len(unlabelled["predictions"]) == 1
    columns = t.write("c.tsv", "a\tb\tc\n" + "".join(f"{label}\tx\t{text}\n" for label, text in zip(labels, TEXTS)))
    assert t.json("classify", model, "--file", columns, "--text-column", "c", "--label-column", 0)["accuracy"] == 1.0


@case
def classify_names_what_is_wrong(t):
    model = write_bert(t.folder / "model")
    t.fails(USAGE, "classify", model, says="one of --text, --file and --ids")
    t.fails(USAGE, "classify", model, "--text", "a", "--ids", "2,3", says="one of --text, --file and --ids")
    t.fails(USAGE, "classify", model, "--text", "a", "--token-type-ids", "0", says="--token-type-ids needs --ids")
    t.fails(USAGE, "classify", model, "--ids", "2,99,3", says="token id 99 is outside the vocabulary of 14")
    t.fails(USAGE, "classify", model, "--ids", "2,5,3", "--token-type-ids", "0,2,0", says="token type id 2")
    t.fails(USAGE, "classify", model, "--text", "so " * 20, says=["has 22 tokens", "positions for 10", "truncate"])
    assert len(t.json("classify", model, "--text", "so " * 20, "--truncate")["predictions"]) == 1
    t.fails(USAGE, "classify", model, "--file", write_tsv(t, labels_of(t, model)), "--label-column", "gold",
            says="has no column 'gold' (columns: text, label)")
    t.fails(BAD_INPUT, "classify", model, "--file", write_tsv(t, ["maybe"] * 5),
            says="no label 'maybe' (it has no, yes")
    t.fails(BAD_INPUT, "classify", model, "--file", t.write("e.tsv", ""), says="e.tsv: has no rows")
    t.fails(UNSUPPORTED, "classify", TINY, "--text", "a", says="llama without a classifier")
    t.fails(UNSUPPORTED, "generate", model, "-p", "a", says="is an encoder")
    config = json.loads((model / "config.json").read_text())
    config["id2label"]["2"] = "maybe"
    (model / "config.json").write_text(json.dumps(config))
    t.fails(BAD_INPUT, "classify", model, "--text", "a", says="classifier.weight: found [2, 8], expected [3, 8]")


@case
def quantized_classifiers_classify(t):
    model = write_bert(t.folder / "model")
    for format in ("nf4", "int8", "int8-dynamic"):
        value = t.json("quantize", model, "-o", f"q-{format}", "--format", format)
        assert value["skipped"] == ["classifier"]
        stored = t.json("classify", f"q-{format}", *flags())["predictions"]
        assert stored == t.json("classify", model, "--format", format, *flags())["predictions"], format
    dynamic = [model, "--format", "int8-dynamic", *flags()]
    plain = t.json("classify", *dynamic)["predictions"]
    for option in (["--activation-range", "tensor"], ["--reduce-range"], ["--granularity", "tensor"], ["--quantize-head"]):
        assert t.json("classify", *dynamic, *option)["predictions"] != plain, option


@case
def evaluate_compares_with_a_reference(t):
    model, other = write_bert(t.folder / "model"), write_bert(t.folder / "other", seed=2)
    labels, others = labels_of(t, model), labels_of(t, other)
    flips = sum(a != b for a, b in zip(labels, others))
    assert 0 < flips, "the two models agree: choose another seed"
    file = write_tsv(t, labels)
    alone = t.json("evaluate", other, "--file", file)
    rows = [(line.split("\t")) for line in file.read_text().splitlines()[1:]]
    assert len(rows) == 5 and all(len(row) == 2 for row in rows)
    quoted = t.write("dev.csv", "sentence,label\n" + "".join('"{}",{}\n'.format(*row) for row in rows))
    listed = t.write("dev.jsonl", "".join(json.dumps(dict(zip(("sentence", "label"), row))) + "\n" for row in rows))
    for other_file in (quoted, listed):
        assert t.json("evaluate", other, "--file", other_file)["accuracy"] == alone["accuracy"], other_file
    assert alone["intervals"]["accuracy"][0] <= alone["accuracy"] <= alone["intervals"]["accuracy"][1]
    assert alone["accuracy"] == 1 - flips / 5 and alone["texts"] == 5 and alone["gate"] is None
    assert "flips" not in alone and alone["bytes"] > 0 and alone["tokens_per_second"] > 0
    gate = ["evaluate", other, "--reference", model, "--file", file, "--max-accuracy-drop"]
    failed = t.json(*gate, 0.01, status=GATE)
    assert failed["reference_accuracy"] == 1.0 and failed["flips"] == flips and failed["reference_bytes"] > 0
    assert failed["gate"]["passed"] is False and "accuracy fell by" in failed["gate"]["failed"][0]
    assert t.json(*gate, 1.0)["gate"] == {"passed": True, "failed": []}
    assert f"{flips} texts get another label" in t.run(*gate, 1.0).stdout


@case
def evaluate_refuses_gates_that_do_not_fit(t):
    model = write_bert(t.folder / "model")
    file = write_tsv(t, labels_of(t, model))
    t.fails(USAGE, "evaluate", model, "--file", file, "--max-accuracy-drop", 0.1, says="need --reference")
    t.fails(USAGE, "evaluate", model, "--file", file, "--reference", model, "--max-kl", 0.1, says="--max-accuracy-drop")
    t.fails(USAGE, "evaluate", TINY, "--text", file, "--reference", TINY, "--max-accuracy-drop", 0.1, says="--file")
    nan = ["evaluate", TINY, "--text", file, "--reference", TINY, "--max-kl", "nan"]
    t.fails(USAGE, *nan, says="--max-kl: found 'nan', expected a finite number")
    t.fails(USAGE, "evaluate", model, "--file", file, "--text", file, says="one of --text, --ids-file and --file")
    three = write_bert(t.folder / "three", labels=("no", "yes", "maybe"))
    t.fails(USAGE, "evaluate", model, "--file", file, "--reference", three, says="different labels")


@case
def embed_gives_normalised_vectors(t):
    model = write_bert(t.folder / "model")
    value = t.json("embed", model, *flags(), "--npy", "v.npy")
    vectors = value["embeddings"]
    assert len(vectors) == len(TEXTS) and all(len(v) == HIDDEN for v in vectors)
    assert all(abs(math.hypot(*v) - 1) < 1e-5 for v in vectors)
    assert t.json("embed", model, "--file", t.write("s.txt", "\r\n".join(TEXTS)))["embeddings"] == vectors
    head, values = read_npy(t.folder / "v.npy")
    assert "(5, 8,)" in head and values == [x for v in vectors for x in v]
    assert len(t.run("embed", model, *flags()).stdout.splitlines()) == len(TEXTS)
    t.fails(USAGE, "embed", model, says="either --text or --file")
    t.fails(USAGE, "embed", model, "--text", "a", "--file", "s.txt", says="either --text or --file")
    t.fails(BAD_INPUT, "embed", model, "--file", t.write("e.txt", ""), says="e.txt: is empty")
    t.fails(UNSUPPORTED, "embed", TINY, "--text", "a", says="llama is no encoder")


MODULES = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize")]


def write_sentence_encoder(folder, modules=MODULES):
    """An encoder whose vectors are those of the first token: what nothing but its modules says."""
    write_bert(folder)
    entries = [{"idx": i, "name": str(i), "path": path, "type": "sentence_transformers.models." + kind}
               for i, (path, kind) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(entries))
    for name, content in (("1_Pooling/config.json", b'{"pooling_mode_cls_token": true}'), ("2_Dense/config.json", b"{}"),
                          ("2_Dense/model.safetensors", b"weights that stay as they are")):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@case
def quantized_sentence_encoders_keep_their_pooling(t):
    model = write_sentence_encoder(t.folder / "model", [m for m in MODULES if m[1] != "Dense"])
    mean = write_bert(t.folder / "mean")
    for format in ("int8", "nf4", "int8-dynamic"):
        t.run("quantize", model, "-o", f"q-{format}", "--format", format)
        expected = t.json("embed", model, *flags(), "--format", format)["embeddings"]
        assert expected != t.json("embed", mean, *flags(), "--format", format)["embeddings"], "the pooling shows"
        assert t.json("embed", f"q-{format}", *flags())["embeddings"] == expected, format


@case
def every_command_that_writes_a_model_carries_its_modules(t):
    model = write_sentence_encoder(t.folder / "model")
    train = ("--data", write_tsv(t, ["yes", "no", "no", "yes", "no"]), "--steps", 1, "--batch", 2)
    t.run("finetune", model, "-o", "adapter", *train)
    for out, command in {"quantized": ("quantize", model, "--format", "nf4"), "dense": ("dequantize", "quantized"),
                         "merged": ("merge", model, "--adapter", "adapter"),
                         "full": ("finetune", model, "--method", "full", *train),
                         "full again": ("finetune", model, "--method", "full", "--overwrite", *train),
                         "qat": ("finetune", model, "--method", "qat", "--format", "int4", *train)}.items():
        folder = out.split()[0]
        t.run(*command, "-o", folder)
        for name in ("modules.json", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"):
            assert (t.folder / folder / name).read_bytes() == (model / name).read_bytes(), f"{out}: {name}"
        assert not (t.folder / folder / "3_Normalize").exists()


@case
def modules_outside_the_folder_are_refused(t):
    for i, path in enumerate(("../secret", "..", t.folder / "secret")):
        model = write_sentence_encoder(t.folder / f"model{i}", [*MODULES[:1], (str(path), "Pooling")])
        for command in (["quantize", model, "--format", "nf4", "-o", "out"], ["embed", model, "--text", "a"]):
            t.fails(BAD_INPUT, *command, says=["modules.json: module 1: path: ", f"'{path}' is not a plain file name"])
    t.write("secret/config.json", "{}")
    model = write_sentence_encoder(t.folder / "linked")
    shutil.rmtree(model / "1_Pooling")
    (model / "1_Pooling").symlink_to(t.folder / "secret")
    t.fails(BAD_INPUT, "quantize", model, "--format", "nf4", "-o", "out", says=["1_Pooling is a link to", "outside"])
    assert not (t.folder / "out").exists()


if __name__ == "__main__":
    sys.exit(main())
