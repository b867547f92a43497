#!/usr/bin/env python3
"""Checks the direction of dependencies by reading the #include lines of src/ and include/.

    cli -> tasks -> train -> models, text, io -> ops -> quant -> kernels -> core

Prints one line per include that is not allowed; exit status 1 when there are any.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What each folder of src/ may include besides itself.
ALLOWED = {
    "core": [],
    "kernels": [],  # and core/dtype.h
    "quant": ["kernels", "core"],
    "ops": ["quant", "kernels", "core"],
    "io": ["quant", "core"],
    "text": ["core"],
    "models": ["ops", "quant", "core"],
    "train": ["models", "ops", "quant", "kernels", "core"],
    "tasks": ["train", "models", "text", "io", "ops", "quant", "kernels", "core"],
    "cli": ["tasks", "train", "models", "text", "io", "ops", "quant", "kernels", "core"],
}
ALLOWED_FILES = {"kernels": ["core/dtype.h"]}

# Public headers that every layer shares; the others describe tasks and models.
SHARED_PUBLIC = ["nibble/error.h", "nibble/dtype.h", "nibble/progress.h", "nibble/lora_config.h",
                 "nibble/qat_config.h"]
PUBLIC_USERS = ["tasks", "cli", "models"]

# Tasks stand beside each other: what a task offers is its public header nibble/TASK.h, and only these use another's.
# Files named after it (quantize_recipe.cc) are its parts; the headers of src/tasks/ are what tasks share.
TASKS_THAT_MAY_USE = {
    "dequantize": ["quantize"],  # one public header for the two
    "sampler": ["generate"],     # a part of it
    "evaluate": ["generate", "classify"],
    "recommend_measure": ["evaluate"],
    "bench": ["evaluate", "generate", "inspect", "system"],
    "meters": ["system"],
    "finetune_classified": ["classify"],
}

# Where a library may be seen: by the beginning of its include, the only files.
LIBRARIES = {
    "simdjson": r"core/json_text\.cc",
    "nlohmann/": r"core/json_write\.cc",
    "fmt/": r".*\.cc",
    "CLI/": r"cli/args\.cc",
    "malloc.h": r"tasks/meters\.cc",
    "yaml-cpp/": r"tasks/finetune_yaml\.cc",
    "pcre2": r"text/regex\.cc",
    "utf8proc": r"text/unicode\.cc",
    "immintrin.h": r"kernels/x86/.*",
    "cpuid.h": r"kernels/.*\.cc",
    "arm_neon.h": r"kernels/arm/.*",
}
# Headers of C and POSIX; those of C++ have neither a dot nor a slash in their name.
SYSTEM = re.compile(r"(sys|linux)/.*|(unistd|fcntl|sched|pthread|signal|errno|dirent|time|termios|stdlib|string)\.h")


def includes(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if match:
            yield number, match.group(1), match.group(2)


def problem(file, quote, name):
    """file is relative to src/ or include/. Returns what is wrong with this include, or None."""
    layer = file.split("/")[0]
    if quote == "<":
        return library_problem(file, name)
    if name.startswith("nibble/"):
        if layer == "tasks": return task_problem(file, name)
        public = layer == "nibble" or layer in PUBLIC_USERS or name in SHARED_PUBLIC
        return None if public else f"{layer} sees only {', '.join(SHARED_PUBLIC)} of the public headers"
    if layer == "nibble":
        return "a public header includes only public headers"
    target = name.split("/")[0]
    if target not in ALLOWED:
        return f"'{target}' is not a folder of src/"
    if target == layer or target in ALLOWED[layer] or name in ALLOWED_FILES.get(layer, []):
        return None
    return f"{layer} may include {', '.join(ALLOWED[layer] + ALLOWED_FILES.get(layer, [])) or 'nothing'} besides itself"


def library_problem(file, name):
    for prefix, where in LIBRARIES.items():
        if name.startswith(prefix):
            if file.endswith(".h") and not file.startswith("kernels/"):
                return "no library is included by a header"
            return None if re.fullmatch(where, file) else f"confined to files matching {where}"
    if "." not in name and "/" not in name or SYSTEM.fullmatch(name):
        return None
    return "unknown library; add it to LIBRARIES in tools/check_layers.py with the file it is confined to"


def task_problem(file, name):
    user, used = Path(file).stem, Path(name).stem
    is_task = (ROOT / "src/tasks" / f"{used}.cc").exists()
    if not is_task or used == user or user.startswith(used + "_") or used in TASKS_THAT_MAY_USE.get(user, []):
        return None
    return f"the task {user} does not build on the task {used}"


def main():
    count, problems = 0, []
    for base in (ROOT / "src", ROOT / "include"):
        for path in sorted(p for p in base.rglob("*") if p.suffix in (".h", ".cc")):
            for number, quote, name in includes(path):
                count += 1
                what = problem(str(path.relative_to(base)), quote, name)
                if what:
                    problems.append(f"{path.relative_to(ROOT)}:{number}: {name}: {what}")
    print("\n".join(problems + [f"layers: {count} includes, {len(problems)} not allowed"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
