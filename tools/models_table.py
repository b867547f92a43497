#!/usr/bin/env python3
"""Writes the table of docs/models.md from the results of the last test run in a build folder.

    make test && tools/models_table.py build/release           rewrite the table
    tools/models_table.py build/release --check                exit with 1 when the table would change; says so and exits
                                                               with 0 when reference models are missing

A cell is the number of passed test cases that are about this family and this way of reading it. It needs a run in which
none of them was skipped: with the reference models and the Python environment that tests/README.md names.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from run_tests import Counts, add_test

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs/models.md"
BEGIN, END = "<!-- table: tools/models_table.py -->\n", "<!-- end of table -->\n"

# The names of models in tests that stand for another family than their own; "-" and "_" end a family's name.
SAME_FAMILY = {"gemma3": "gemma3_text"}

# column: what the names of its test cases look like; (\w+) is the family, or a model's name that begins with it
COLUMNS = {
    "against transformers, fp32": r"(?:Families/FamilyGolden|Families/EncoderGolden)\.\w+/(\w+)",
    "bitsandbytes checkpoints": r"(?:Folders/BnbGolden|Folders/EncoderBnbGolden)\.\w+/(\w+)"
                                r"|ReadsBitsandbytes\.([\w-]+)",
    "our folders in transformers": r"(?:Quantized|Classifier|Dequantized)\.([\w-]+)(?:/[\w-]+)?",
    "GGUF": r"Gguf\.(\w+)",
}
# Cases that compare stored bits only, because the real library computes wrongly on some processors.
THEIR_DEFECT = "bitsandbytes decodes"
FORMATS = r"\w+/EveryCell\.\w+/(\w+)__(\w+)"


def family_of(model, families):
    """The longest family whose name begins the model's."""
    model = model.replace("-", "_")
    fitting = [f for f in families if model == f or model.startswith(f + "_")]
    family = max(fitting, key=len, default=None)
    return SAME_FAMILY.get(family, family)


def passed_cases(build):
    report, counts = build / "ctest.xml", Counts()
    if not report.exists(): sys.exit(f"{report} is absent; run: make test")
    for case in ElementTree.parse(report).getroot().iter("testcase"): add_test(case, counts)
    compared = counts.passed + [name for name, reason in counts.skipped if THEIR_DEFECT in reason]
    missing = [name for name, reason in counts.skipped
               if THEIR_DEFECT not in reason and any(re.search(p, name) for p in [*COLUMNS.values(), FORMATS])]
    if missing and "--check" in sys.argv:
        print(f"not checked: {len(missing)} cases were skipped, such as {missing[0]}")
        sys.exit(0)
    if missing or counts.failed: sys.exit(f"these cases did not pass: {', '.join(missing + counts.failed)}")
    return [name.split(": ", 1)[1] for name in compared if ": " in name]


def table(build):
    cases = passed_cases(build)
    formats = {}
    for family, name in (m.groups() for m in map(re.compile(FORMATS).fullmatch, cases) if m):
        formats.setdefault(family, []).append(name)
    counts = {}
    for column, pattern in COLUMNS.items():
        for match in filter(None, map(re.compile(pattern).fullmatch, cases)):
            family = family_of(next(filter(None, match.groups())), formats)
            counts[family, column] = counts.get((family, column), 0) + 1
    every = max((len(names) for names in formats.values()), default=0)
    lines = ["| `model_type` | " + " | ".join(COLUMNS) + " | formats |", "|---|" + "---|" * (len(COLUMNS) + 1)]
    for family in sorted(formats):
        cells = [str(counts.get((family, column), "-")) for column in COLUMNS]
        shown = f"all {every}" if len(formats[family]) == every else ", ".join(formats[family])
        lines.append(f"| {family} | " + " | ".join(cells) + f" | {shown} |")
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) < 2: sys.exit(__doc__.strip())
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    new = before + BEGIN + table(Path(sys.argv[1])) + END + after
    if "--check" in sys.argv: sys.exit(0 if new == text else f"{DOCUMENT} differs from the tests; run tools/models_table.py")
    DOCUMENT.write_text(new)


if __name__ == "__main__":
    main()
