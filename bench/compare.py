#!/usr/bin/env python3
"""Measures nibble beside the libraries that its users know, and prints ratios with their spread.

    bench/compare.py smollm2-135m                                    nibble, transformers, bitsandbytes, torch
    bench/compare.py smollm2-135m --gguf smollm2.Q4_0.gguf           llama.cpp too
    bench/compare.py minilm --encode 8x128 --encode 1x16             one forward pass of an encoder
    bench/compare.py smollm2-135m --train 512 --nibble "nf4 fp32"    a step of LoRA, beside PEFT

Every contender is a process that holds its model. In each round each of them is measured once, one after the other, the
others stopped meanwhile; so drift of the machine hits all alike, and what counts is the ratio within a round. Needs the
benchmarks built (make bench) and, for the others, a Python environment with their libraries ($NIBBLE_PEERS or
~/.cache/nibble-peers; llama.cpp: the package llama-cpp-python in it, or in the interpreter of --llama-python). A
contender that cannot start is named and left out.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = Path(os.environ.get("NIBBLE_PEERS") or Path.home() / ".cache/nibble-peers")
TORCH_LIBRARIES = ["transformers-fp32", "transformers-bf16", "bitsandbytes-nf4", "bitsandbytes-nf4-bf16", "bitsandbytes-int8",
                   "torch-int8-onednn", "torch-int8-fbgemm"]
# The beginning of a contender's name, and the packages whose versions say what was run.
PACKAGES = {"transformers": ["torch", "transformers"], "torch": ["torch", "transformers"],
            "bitsandbytes": ["torch", "transformers", "bitsandbytes"], "llama.cpp": ["llama_cpp_python"]}


class Contender:
    def __init__(self, name, command, environment):
        self.name = name
        self.errors = tempfile.TemporaryFile("w+")  # a pipe that nobody reads would stop it when full
        self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors, text=True, env=environment)
        if self.process.stdout.readline().strip() != "ready":
            self.end()
            raise RuntimeError(self.last_error())
        self.process.send_signal(signal.SIGSTOP)

    def ask(self, *request):
        self.process.send_signal(signal.SIGCONT)
        print(*request, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().split()
        if not answer: raise RuntimeError(f"{self.name} ended: {self.last_error()}")
        self.process.send_signal(signal.SIGSTOP)
        return [float(number) for number in answer]

    def last_error(self):
        self.errors.seek(0)
        return (self.errors.read().strip().splitlines() or ["without a message"])[-1]

    def end(self):
        self.process.kill()
        self.process.wait()


def contenders(args):
    worker = args.build / "bench/model_worker"
    environment = dict(os.environ, OMP_NUM_THREADS=str(args.threads), HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    rows = []
    for choice in args.nibble:
        rows.append((f"nibble {choice}".strip(), [worker, args.model, args.threads, *choice.split()]))
    for library in args.rivals:
        rows.append((library, [PEERS / "bin/python", ROOT / "bench/rival_worker.py", library, args.model, args.threads]))
    for file in args.gguf:
        rows.append((f"llama.cpp {Path(file).stem}",
                     [args.llama_python, ROOT / "bench/rival_worker.py", "llama.cpp", file, args.threads]))
    started = []
    for name, command in rows:
        try:
            started.append(Contender(name, command, environment))
        except (OSError, RuntimeError) as error:
            print(f"left out: {name}: {error}", file=sys.stderr)
    return started


def measure(args, started):
    """name -> figure -> one number per round, larger = better."""
    results = {c.name: {} for c in started}
    for round_number in range(args.rounds + 1):  # the first is for warming up
        for c in started:
            figures = {}
            if args.encode:
                for batch, tokens in args.encode:
                    figures[f"encode {batch}x{tokens}, sequences/s"] = batch / c.ask("encode", batch, tokens)[0]
            elif args.train:
                seconds, memory = c.ask("train", args.train)
                figures[f"train on {args.train}, tokens/s"] = args.train / seconds
                figures["peak memory, 1/GB"] = 1e9 / memory
            else:
                prefill, decode = c.ask("generate", args.prompt, args.new)
                figures[f"prefill {args.prompt}, tokens/s"] = args.prompt / prefill
                figures["decode, tokens/s"] = (args.new - 1) / decode
                if c.name.startswith("nibble"):
                    seconds, size = c.ask("read")
                    figures["decode, share of the raw read"] = figures["decode, tokens/s"] * seconds
                    figures["raw read, GB/s"] = size / seconds / 1e9
                    one, four = c.ask("continue", args.prompt)
                    figures["a pass of 1 token in one of 4"] = one / four
            for figure, value in figures.items():
                if round_number: results[c.name].setdefault(figure, []).append(value)
        print(f"round {round_number} of {args.rounds}", file=sys.stderr, end="\r" if sys.stderr.isatty() else "\n")
    return results


def quartiles(values):
    if len(values) < 2: return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def report(results, baseline):
    figures = list(dict.fromkeys(figure for row in results.values() for figure in row))
    for figure in figures:
        print(f"\n{figure}: median [quartiles]; ratio to {baseline}: median of the rounds [quartiles]")
        for name, row in results.items():
            if figure not in row: continue
            low, high = quartiles(row[figure])
            line = f"  {name:34} {statistics.median(row[figure]):9.2f} [{low:.2f}, {high:.2f}]"
            if figure in results[baseline] and name != baseline and "read" not in figure:
                ratios = [a / b for a, b in zip(results[baseline][figure], row[figure])]
                low, high = quartiles(ratios)
                line += f"   {baseline} is {statistics.median(ratios):.2f}x [{low:.2f}, {high:.2f}]"
            print(line)


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"): return line.partition(":")[2].strip()
    return platform.machine()


def huge_pages():
    """always, madvise or never; None where the kernel has no such setting."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.read_text().partition("[")[2].partition("]")[0] if setting.exists() else None


def machine(build, threads):
    info = json.loads(subprocess.run([build / "nibble", "info", "--json"], capture_output=True, text=True,
                                     check=True).stdout)
    return {"processor": processor(), "isa": info["isa"], "cores": info["cores"], "threads": threads,
            "huge_pages": huge_pages(), "load": os.getloadavg(), "kernel": platform.release(), "nibble": info["version"]}


def versions(args, names):
    """Of the libraries behind the contenders of these names."""
    wanted = {}  # package -> the interpreter that has it
    for name in names:
        for start, packages in PACKAGES.items():
            if name.startswith(start):
                for package in packages: wanted[package] = args.llama_python if start == "llama.cpp" else PEERS / "bin/python"
    if args.train and "torch" in wanted: wanted["peft"] = PEERS / "bin/python"
    ask = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    return {package: subprocess.run([python, "-c", ask, package], capture_output=True, text=True).stdout.strip() or None
            for package, python in wanted.items()}


def write(path, results):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


def whole(least):
    """An argument that is a whole number of at least `least`."""
    def parse_number(text):
        if text.isdecimal() and int(text) >= least: return int(text)
        raise argparse.ArgumentTypeError(f"found '{text}', expected an integer >= {least}")
    return parse_number


def encode_shape(text):
    batch, cross, tokens = text.partition("x")
    if not cross: raise argparse.ArgumentTypeError(f"found '{text}', expected BATCHxTOKENS such as 8x128")
    return whole(1)(batch), whole(1)(tokens)


def need_programs(parser, build, *names):
    for name in names:
        if not (build / name).is_file(): parser.error(f"{build / name} is not there: build it with 'make bench', or give --build")


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--nibble", action="append", metavar="'FORMAT [ACTIVATIONS [HEAD]]'",
                        help="how nibble loads it; may be repeated; default: 'nf4 int8' and 'nf4 int16'")
    parser.add_argument("--rivals", nargs="*", default=TORCH_LIBRARIES, choices=TORCH_LIBRARIES)
    parser.add_argument("--gguf", action="append", default=[], metavar="FILE", help="for llama.cpp; may be repeated")
    parser.add_argument("--llama-python", type=Path, default=PEERS / "bin/python")
    parser.add_argument("--encode", action="append", metavar="BATCHxTOKENS", type=encode_shape)
    parser.add_argument("--train", type=whole(1), metavar="TOKENS", help="steps on one sequence, adapters of rank 16")
    parser.add_argument("--prompt", type=whole(1), default=512)
    parser.add_argument("--new", type=whole(2), default=64)
    parser.add_argument("--rounds", type=whole(1), default=5)
    parser.add_argument("--threads", type=whole(1), default=len(os.sched_getaffinity(0)))
    parser.add_argument("--build", type=Path, default=ROOT / "build/dev")
    parser.add_argument("-o", "--out", type=Path, help="write the results as JSON")
    args = parser.parse_args(arguments)
    usual = ["int8-dynamic"] if args.encode else ["nf4 fp32"] if args.train else ["nf4 int8", "nf4 int16"]
    args.nibble = args.nibble or usual
    need_programs(parser, args.build, "nibble", "bench/model_worker")
    return parser, args


def main():
    parser, args = parse(sys.argv[1:])
    before = machine(args.build, args.threads)
    started = contenders(args)
    if not started: parser.error("nothing to measure")
    try:
        results = measure(args, started)
    except RuntimeError as error:
        parser.error(str(error) + ("; give --encode" if "encoder" in str(error) else ""))
    finally:
        for contender in started: contender.end()
    print(f"{before['isa']}, {args.threads} threads, load before {before['load'][0]:.1f}, after {os.getloadavg()[0]:.1f}")
    report(results, started[0].name)
    if args.out:
        before["peers"] = versions(args, results)
        write(args.out, {"machine": before, "model": Path(args.model).name, "rounds": args.rounds, "results": results})


if __name__ == "__main__":
    main()
