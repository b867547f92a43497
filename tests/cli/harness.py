"""What the tests of the program share: cases that print GoogleTest's marks (so that tools/run_tests.py counts them one
by one), running the program, and model folders made on the fly."""

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TINY = ROOT / "tests/data/tiny-llama"
SHARED = Path(os.environ.get("NIBBLE_SHARED") or ROOT.parent / "shared")

# Exit statuses, docs/cli.md.
DONE, FAILED, USAGE, BAD_INPUT, UNSUPPORTED, RESOURCES, EXISTS, GATE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 7, 130


class Skip(Exception):
    """Raised by a case that cannot run here; the message says why."""


CASES = []


def case(function):
    """Marks a function(t) as a case; t is an Environment with a folder of its own."""
    CASES.append(function)
    return function


class Environment:
    def __init__(self, program, folder, sanitizer=""):
        self.program, self.folder, self.sanitizer = program, Path(folder), sanitizer

    def need_plain_memory(self):
        if "address" in self.sanitizer or "thread" in self.sanitizer:
            raise Skip(f"the {self.sanitizer} sanitizer takes memory of its own")

    def start(self, *arguments, env=None, **options):
        command = [self.program, *map(str, arguments)]
        return subprocess.Popen(command, env={**os.environ, **(env or {})}, cwd=self.folder, **options)

    def run(self, *arguments, status=DONE, stdin="", **options):
        """Runs to the end and checks the exit status. The result has stdout and stderr as text."""
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process = self.start(*arguments, **{**pipes, **options})
        stdout, stderr = process.communicate(stdin if process.stdin else None, timeout=120)
        command = "nibble " + " ".join(map(str, arguments))
        assert process.returncode == status, f"{command}: status {process.returncode}, not {status}: {stderr}"
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    def json(self, *arguments, status=DONE, **options):
        """The one JSON object that the command prints with --json."""
        return one_object(self.run(*arguments, "--json", status=status, **options).stdout)

    def fails(self, status, *arguments, says=(), **options):
        """Expects this exit status and one line on stderr that holds all of `says`; returns it."""
        result = self.run(*arguments, status=status, **options)
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1, f"{result.args}: expected one line on stderr: {result.stderr!r}"
        assert lines[0].startswith("nibble: error: "), lines[0]
        for text in [says] if isinstance(says, str) else says:
            assert text in lines[0], f"{result.args}: {text!r} is not in: {lines[0]}"
        return lines[0]

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


def one_object(text):
    value = json.loads(text)
    assert isinstance(value, dict) and text.count("\n") == 1 and text.endswith("\n"), f"not one object: {text[:200]!r}"
    return value


def files_of(folder):
    """Relative path -> bytes, of everything in a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def names_in(folder):
    return sorted(p.name for p in Path(folder).iterdir())


def copy_of_tiny(t, name="model", without=()):
    folder = t.folder / name
    folder.mkdir()
    for path in TINY.iterdir():
        if path.name not in without: shutil.copy(path, folder / path.name)
    return folder


def write_llama(folder, layers, hidden, feed_forward, vocabulary=64, fill=None):
    """A Llama folder in bf16 without tokenizer. Its weights are a hole in the file (zeros that take no disk space), or
    `fill` (bytes) repeated."""
    folder.mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden,
              "intermediate_size": feed_forward, "num_hidden_layers": layers, "num_attention_heads": 4,
              "num_key_value_heads": 4, "vocab_size": vocabulary, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
              "rope_theta": 10000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "hidden_act": "silu"}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens.weight": [vocabulary, hidden], "model.norm.weight": [hidden]}
    for i in range(layers):
        p = f"model.layers.{i}."
        for name in "qkvo": shapes[f"{p}self_attn.{name}_proj.weight"] = [hidden, hidden]
        for name in ("gate", "up"): shapes[f"{p}mlp.{name}_proj.weight"] = [feed_forward, hidden]
        shapes[p + "mlp.down_proj.weight"] = [hidden, feed_forward]
        for name in ("input", "post_attention"): shapes[f"{p}{name}_layernorm.weight"] = [hidden]
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        start = file.tell()
        while fill and file.tell() < start + end: file.write(fill[:start + end - file.tell()])
        file.truncate(start + end)
    return folder


def run_case(function, program, sanitizer):
    name = function.__name__
    print(f"[ RUN      ] {name}", flush=True)
    begin = time.monotonic()
    mark = "OK"
    with tempfile.TemporaryDirectory(prefix="nibble-cli-") as folder:
        try:
            function(Environment(program, folder, sanitizer))
        except Skip as reason:
            mark = "SKIPPED"
            print(reason)
        except Exception:
            mark = "FAILED"
            traceback.print_exc(file=sys.stdout)
    print(f"[ {mark:>8} ] {name} ({1000 * (time.monotonic() - begin):.0f} ms)", flush=True)
    return mark


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nibble", required=True, help="the program")
    parser.add_argument("--sanitizer", default="", help="the one it was built with")
    parser.add_argument("--only", default="", help="cases whose names hold this")
    arguments = parser.parse_args()
    program = str(Path(arguments.nibble).resolve())
    marks = [run_case(function, program, arguments.sanitizer) for function in CASES
             if arguments.only in function.__name__]
    if not marks: print(f"no case has '{arguments.only}' in its name")
    return 1 if "FAILED" in marks or not marks else 0
