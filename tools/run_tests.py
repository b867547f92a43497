#!/usr/bin/env python3
"""Runs ctest in a build folder and counts single cases, not programs.

    tools/run_tests.py build/release [more arguments for ctest]

The last line is "N passed, N failed" (and ", N skipped" when there are any); before it, what failed and what was
skipped and why. A case is what a GoogleTest program, or a script that prints the same marks, reports as
"[       OK ] name"; a test without such marks is one case. The exit status is ctest's.
"""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

MARK = re.compile(r"^\[ *(RUN|OK|FAILED|SKIPPED) *\] (\S+?)(?:, where .*)?(?: \(\d+ ms\))?$")
# ctest keeps only the beginning of long outputs unless told otherwise.
KEEP_OUTPUT = ["--test-output-size-passed", "50000000", "--test-output-size-failed", "50000000"]


class Counts:
    def __init__(self):
        self.passed, self.failed, self.skipped = [], [], []


def add_marked_cases(test, output, counts):
    """Returns False when the output has no marks. A case that began and never ended has crashed."""
    results, since_run = {}, []
    for line in output.splitlines():
        match = MARK.match(line.rstrip())
        if not match:
            since_run.append(line.strip())
            continue
        mark, name = match.groups()
        if mark == "RUN":
            since_run = []
        if results.get(name, "RUN") == "RUN":  # GoogleTest lists failed and skipped cases once more at the end
            results[name] = mark
            if mark == "SKIPPED": counts.skipped.append((f"{test}: {name}", skip_reason(since_run)))
    counts.passed += [f"{test}: {name}" for name, mark in results.items() if mark == "OK"]
    counts.failed += [f"{test}: {name}" for name, mark in results.items() if mark in ("FAILED", "RUN")]
    return bool(results)


def skip_reason(lines):
    """GoogleTest prints "FILE:LINE: Skipped" and then the message."""
    kept = [line for line in lines if line and not line.endswith(": Skipped")]
    return kept[0] if kept else "no reason given"


def add_test(case, counts):
    """status is "run", "fail", or "notrun": told to be skipped, or its program is not there."""
    test, status = case.get("name"), case.get("status")
    output = case.findtext("system-out") or ""
    failed_before = len(counts.failed)
    marked = add_marked_cases(test, output, counts)
    failed_now = len(counts.failed) > failed_before
    message = next((e.get("message") for e in case if e.tag in ("failure", "skipped") and e.get("message")), "failed")
    if status == "notrun" and message.startswith("SKIP_"):
        counts.skipped.append((test, skip_reason(output.splitlines())))
    elif status != "run" and not failed_now:  # crashed at its start or end, ran too long, or has no marks
        counts.failed.append(f"{test}: {message}")
    elif status == "run" and not marked:
        counts.passed.append(test)


def main():
    if len(sys.argv) < 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    build = Path(sys.argv[1])
    report = build.resolve() / "ctest.xml"
    report.unlink(missing_ok=True)
    command = ["ctest", "--test-dir", str(build), "--output-on-failure", "-j2", "--no-tests=error", "--output-junit",
               str(report)] + KEEP_OUTPUT + sys.argv[2:]
    status = subprocess.run(command).returncode
    counts = Counts()
    if report.exists():
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            add_test(case, counts)
    print()
    for name, reason in counts.skipped: print(f"skipped {name}: {reason}")
    for name in counts.failed: print(f"FAILED {name}")
    if status != 0 and not counts.failed: print(f"ctest failed with status {status}")
    line = f"{len(counts.passed)} passed, {len(counts.failed)} failed"
    print(line + (f", {len(counts.skipped)} skipped" if counts.skipped else ""))
    return status if status != 0 or not counts.failed else 1


if __name__ == "__main__":
    sys.exit(main())
