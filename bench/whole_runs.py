#!/usr/bin/env python3
"""Measures whole runs of nibble beside what limits them, and prints ratios with their spread.

    bench/whole_runs.py quantize smollm2-135m --format nf4     beside a copy of the model's files, synced as the output is
    bench/whole_runs.py first-token smollm2-nf4                'generate -n 1' beside reading the weights from the page cache
    bench/whole_runs.py contention smollm2-nf4 --competitors 2 one thread and all of them beside endless loops

In each round each contender runs once, one after the other; what counts is the ratio within a round. A first round, which
is not counted, brings the files into the page cache.
"""

import argparse
import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare import ROOT, machine, need_programs, quartiles, whole, write


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def nibble(args, *arguments):
    done = subprocess.run([str(a) for a in (args.build / "nibble", *arguments)], capture_output=True, text=True)
    if done.returncode: raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return done.stdout


def generate(args, threads, ids, count):
    return nibble(args, "generate", args.model, "--ids", ids, "-n", count, "--threads", threads, "--json", *args.options.split())


def model_files(model):
    return sorted(f for f in model.iterdir() if f.is_file()) if model.is_dir() else [model]


def sync(path):
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def copy(files, folder):
    folder.mkdir()
    for file in files: sync(shutil.copyfile(file, folder / file.name))
    sync(folder)


def read(files, advice):
    """Into fresh memory, by one thread."""
    for file in files:
        room, done = mmap.mmap(-1, file.stat().st_size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), 0
        room.madvise(advice)
        with memoryview(room) as view, open(file, "rb", buffering=0) as source:
            while count := source.readinto(view[done:]): done += count
        room.close()


def quantize_round(args, folder):
    files = model_files(args.model)
    own = seconds(nibble, args, "quantize", args.model, "-o", folder / "q", "--format", args.format, "--threads",
                  args.threads, "--quiet")
    results = {f"quantize to {args.format}": own, "copy and sync": seconds(copy, files, folder / "copy")}
    for made in ("q", "copy"): shutil.rmtree(folder / made)
    return results


def first_token_round(args, _):
    files = [f for f in model_files(args.model) if f.suffix in (".safetensors", ".gguf")]
    if not files: raise RuntimeError(f"{args.model}: has no weights")
    own = seconds(generate, args, args.threads, "5", 1)
    return {"load and first token": own, "read, ordinary pages": seconds(read, files, mmap.MADV_NOHUGEPAGE),
            "read, huge pages": seconds(read, files, mmap.MADV_HUGEPAGE)}


def contention_round(args, _):
    results = {}
    for threads in (args.threads, 1):
        answer = generate(args, threads, "5,6,7,8", args.new)
        results[f"{threads} thread{'s' * (threads > 1)}"] = json.loads(answer)["decode_tokens_per_second"]
    return results


MODES = {"quantize": (quantize_round, "seconds"), "first-token": (first_token_round, "seconds"),
         "contention": (contention_round, "decode, tokens/s")}  # and what a round measures


def measure(args):
    results, (round_of, figure) = {}, MODES[args.mode]
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(args.competitors)]
    try:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            for number in range(args.rounds + 1):  # the first is for warming up
                for name, value in round_of(args, Path(folder)).items():
                    if number: results.setdefault(name, {}).setdefault(figure, []).append(value)
    finally:
        for loop in loops: loop.kill(), loop.wait()
    return results


def report(results, figure):
    own = next(iter(results))
    for name, row in results.items():
        low, high = quartiles(row[figure])
        ratios = [a / b for a, b in zip(results[own][figure], row[figure])]
        least, most = quartiles(ratios)
        print(f"{figure}: {name:22} {statistics.median(row[figure]):9.3f} [{low:.3f}, {high:.3f}]",
              "" if name == own else f"  {own}: {statistics.median(ratios):.2f}x [{least:.2f}, {most:.2f}]")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("model", type=Path)
    parser.add_argument("--format", default="nf4", help="quantize: to what")
    parser.add_argument("--folder", type=Path, help="quantize: on which disk; default TMPDIR")
    parser.add_argument("--options", default="", help="first-token, contention: options of generate, such as '--format nf4'")
    parser.add_argument("--competitors", type=whole(0), default=0, help="endless loops that run meanwhile, in any mode")
    parser.add_argument("--new", type=whole(2), default=64, help="contention: tokens to generate at most")
    parser.add_argument("--rounds", type=whole(1), default=7)
    parser.add_argument("--threads", type=whole(1), default=len(os.sched_getaffinity(0)))
    parser.add_argument("--build", type=Path, default=ROOT / "build/dev")
    parser.add_argument("-o", "--out", type=Path, help="write the results as JSON, as compare.py does")
    args = parser.parse_args()
    need_programs(parser, args.build, "nibble")
    if not args.model.exists(): parser.error(f"{args.model} is not there")
    if args.mode == "contention" and args.threads == 1: parser.error("contention compares with more than one of --threads")
    before = machine(args.build, args.threads)
    try:
        results = measure(args)
    except (OSError, RuntimeError) as error:
        parser.error(str(error))
    print(f"{before['isa']}, {args.threads} threads, {args.competitors} competitors, load before {before['load'][0]:.1f}")
    report(results, MODES[args.mode][1])
    about = {"mode": args.mode, "competitors": args.competitors, "model": args.model.name, "rounds": args.rounds}
    if args.out: write(args.out, {"machine": before, **about, "results": results})


if __name__ == "__main__":
    main()
