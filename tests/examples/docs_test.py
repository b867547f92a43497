#!/usr/bin/env python3
"""Holds the documentation to the program.

    docs_test.py --nibble build/release/nibble

Every block that begins with ```sh run is run by bash, in an empty folder per file where smollm2-135m is the bundled
tiny model and wiki.txt its held-out text. Links lead to files, the C++ of README.md and of
docs/finetuning-qat.md is that of examples/, docs/cli.md knows every command and option, docs/formats.md every format.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import marks

ROOT = Path(__file__).resolve().parent.parent.parent
TINY = ROOT / "tests/data/tiny-llama"
PAGES = [ROOT / "README.md", ROOT / "src/README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, info):
    return re.findall(rf"^```{re.escape(info)}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def run_commands(program, page):
    with tempfile.TemporaryDirectory(prefix="nibble-docs-") as folder:
        (Path(folder) / "smollm2-135m").symlink_to(TINY)
        (Path(folder) / "wiki.txt").symlink_to(TINY / "heldout.txt")
        environment = dict(os.environ, PATH=f"{Path(program).resolve().parent}:{os.environ['PATH']}")
        for script in blocks(page, "sh run"):
            result = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment,
                                    capture_output=True, text=True)
            assert result.returncode == 0, f"{script}\nstatus {result.returncode}\n{result.stdout}{result.stderr}"


def fences_are_closed(page):
    fences = [line for line in page.read_text().splitlines() if line.startswith("```")]
    for opening, closing in zip(fences[::2], fences[1::2] + [""]):
        assert closing == "```", f"{opening} is followed by {closing!r}"


def links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{target} does not exist"


def code_is_the_example(page, name):
    example = (ROOT / "examples" / name).read_text()
    snippets = blocks(ROOT / page, "cpp")
    assert snippets, f"{page} has no C++"
    for snippet in snippets:
        assert snippet in example, f"not in examples/{name}:\n{snippet}"


def output(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout


def cli_page_is_complete(program):
    page = (ROOT / "docs/cli.md").read_text()
    commands = re.findall(r"^  ([a-z]+) {2,}", output(program, "--help"), re.MULTILINE)
    assert commands
    for command in commands:
        assert f"`nibble {command}" in page, f"no `nibble {command} ...` in docs/cli.md"
        for option in re.findall(r"^  (?:-\w,)?(--[a-z0-9-]+)", output(program, command, "--help"), re.MULTILINE):
            assert f"`{option}" in page or f" {option}" in page, f"{command}: no {option} in docs/cli.md"
    known = set(re.findall(r"--[a-z0-9-]+", "".join(output(program, c, "--help") for c in commands))) | {"--version"}
    unknown = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", page)) - known
    assert not unknown, f"docs/cli.md has options that no command has: {sorted(unknown)}"


def formats_page_is_complete(program):
    page = (ROOT / "docs/formats.md").read_text()
    formats = json.loads(output(program, "formats", "--json"))
    names = [row["name"] for row in formats["formats"]] + formats["gguf_formats"]
    assert len(names) > 10
    for name in names: assert f"`{name}`" in page, f"no `{name}` in docs/formats.md"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nibble", required=True)
    program = parser.parse_args().nibble
    cases = [("Docs.cli_page_is_complete", partial(cli_page_is_complete, program)),
             ("Docs.formats_page_is_complete", partial(formats_page_is_complete, program)),
             ("Docs.readme_code_is_the_example", partial(code_is_the_example, "README.md", "quickstart.cc")),
             ("Docs.qat_code_is_the_example", partial(code_is_the_example, "docs/finetuning-qat.md", "qat.cc"))]
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        cases.append((f"Fences.{name}", partial(fences_are_closed, page)))
        cases.append((f"Links.{name}", partial(links_lead_somewhere, page)))
        if blocks(page, "sh run"): cases.append((f"Commands.{name}", partial(run_commands, program, page)))
    return marks.run(cases)


if __name__ == "__main__":
    sys.exit(main())
