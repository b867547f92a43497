#!/usr/bin/env python3
"""Counts the instructions of the main kernels and compares them with the stored counts.

    bench/instruction_counts.py [--build build/dev]      exit status 1 when one takes 2 % more than stored
    bench/instruction_counts.py --update                 store what was counted

Times on a shared machine say little; the number of instructions of a kernel on fixed data is always the same for one
compiler and build type. Counted by valgrind, which knows AVX2 and nothing above it. With another compiler or build type
(that of preset dev is stored) the counts are printed and not judged.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STORED = ROOT / "bench/results/instruction_counts.json"
TOLERANCE = 0.02
VALGRIND = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=count_this"]


def output_of(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode: sys.exit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout, done.stderr


def count(program, kernel):
    found = re.search(r"Collected *: *(\d+)", output_of([*VALGRIND, program, kernel])[1])
    if not found or int(found[1]) == 0: sys.exit(f"{kernel}: nothing was counted")
    return int(found[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/dev")
    parser.add_argument("--update", action="store_true")
    args = parser.parse_args()
    program = args.build / "bench/count_kernels"
    compiler, isa = output_of([*VALGRIND[:3], program, "--build"])[0].splitlines()
    if isa != "avx2": sys.exit(f"this processor has no AVX2: the kernels would be {isa}")
    counts = {kernel: count(program, kernel) for kernel in output_of([program])[0].splitlines()}
    stored = json.loads(STORED.read_text()) if STORED.exists() else {"compiler": compiler, "counts": {}}
    worse = []
    for kernel, instructions in counts.items():
        before = stored["counts"].get(kernel)
        change = f"{instructions / before - 1:+.1%}" if before else "new"
        if before and instructions > before * (1 + TOLERANCE): worse.append(kernel)
        print(f"{kernel:28} {instructions:10,} {change:>8}")
    if args.update:
        STORED.write_text(json.dumps({"compiler": compiler, "isa": isa, "counts": counts}, indent=1) + "\n")
    elif stored["compiler"] != compiler:
        print(f"not judged: counts are stored for {stored['compiler']}; this is {compiler}")
    elif worse:
        sys.exit(f"more instructions than stored: {', '.join(worse)}; when that is meant: --update")


if __name__ == "__main__":
    main()
