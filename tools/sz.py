#!/usr/bin/env python3
"""The size budget: lines per file and function, parameters, nesting. Prints totals and the worst of each kind.

    tools/sz.py [--all] [FILE...]        default: every .h and .cc of the repository

Beyond a wanted size is printed, beyond a hard limit is an error (exit status 1). --all prints everything beyond
the wanted sizes. The scanner reads braces, which is enough for code that clang-format has seen.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ["include", "src", "tests", "bench", "fuzz", "examples"]
WANTED = {"file": 350, "kernel file": 350, "header": 200, "function": 40, "parameters": 6, "nesting": 3}
HARD = {"file": 500, "kernel file": 600, "header": 200, "function": 60, "parameters": 6, "nesting": 4}
KERNEL_PARAMETERS = 7  # kernels take their operands one by one, as raw pointers

CONTROL = re.compile(r"(else\s+)?(if|for|while|switch)\b|(else|do|try|catch)\b")
NOT_A_FUNCTION = re.compile(r"(namespace|extern\s*\"|struct|class|union|enum"
                            r"|template\s*<[^{}]*>\s*(struct|class|union))\b")
LAMBDA_START = re.compile(r"(^|[=(,\s?:{]|return)\s*\[[^\[\]]*\]\s*(\(|mutable|noexcept|->|$)")
LAMBDA_END = re.compile(r"\[[^\[\]]*\]\s*(\([^{}]*\))?\s*(mutable|noexcept|->[^{}()]*|\s)*$")
NOT_A_NAME = {"decltype", "alignas", "noexcept", "requires", "__attribute__", "target", "explicit", "if", "sizeof"}


def blank(match):
    """Keeps the lines, and a placeholder so that a literal still counts as something."""
    return ('""' if match.group(0)[0] in "\"'R" else " ") + "\n" * match.group(0).count("\n")


def strip(text):
    """Without comments, literals and preprocessor lines, line for line."""
    text = re.sub(r'R"([^(\s]*)\(.*?\)\1"|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"'
                  r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'", blank, text, flags=re.S)
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: "\n" * m.group(0).count("\n"), text, flags=re.M)


class Scope:
    def __init__(self, kind, name="", line=0, parameters=0):
        self.kind, self.name, self.line, self.parameters = kind, name, line, parameters
        self.deepest = 0  # control statements and lambdas inside each other, of a function
        self.head, self.head_line = "", 0  # the statement it stands in


def functions(text):
    """Yields (name, first line, lines, parameters, nesting) for each function with a body."""
    scopes, head, head_line, line, parens = [], "", 1, 1, [0]
    for c in strip(text):
        if c == "\n": line += 1
        if c == "{":
            scopes.append(classify(head, head_line, scopes, parens[-1]))
            scopes[-1].head, scopes[-1].head_line = head, head_line
            enter(scopes)
            parens.append(0)
            head = ""
        elif c == "}" and scopes:
            scope = scopes.pop()
            parens.pop()
            if scope.kind == "function":
                yield scope.name, scope.line, line - scope.line + 1, scope.parameters, scope.deepest
            # What follows an initializer or a lambda belongs to the same statement.
            goes_on = scope.kind in ("initializer", "lambda")
            head, head_line = (scope.head + "{}", scope.head_line) if goes_on else ("", line)
        elif c == ";" and parens[-1] == 0:
            head = ""
        else:
            if c == "(": parens[-1] += 1
            if c == ")": parens[-1] -= 1
            if not head.strip(): head, head_line = "", line
            head += c
            if head in ("public:", "private:", "protected:"): head = ""


def enter(scopes):
    """Counts depth inside the function that is open, if any."""
    inside = [i for i, scope in enumerate(scopes) if scope.kind == "function"]
    if inside:
        depth = sum(scope.kind in ("control", "lambda") for scope in scopes[inside[0]:])
        scopes[inside[0]].deepest = max(scopes[inside[0]].deepest, depth)


def classify(head, line, scopes, open_parens):
    head = head.strip()
    if LAMBDA_END.search(head) and LAMBDA_START.search(head) and not head.endswith("]]"):
        in_function = any(scope.kind == "function" for scope in scopes)
        return Scope("lambda") if in_function else Scope("function", "lambda", line)
    if any(scope.kind == "function" for scope in scopes):
        if open_parens == 0 and (head == "" or CONTROL.match(head) or head.endswith(":")):
            return Scope("control" if head and not head.endswith(":") else "block")
        return Scope("initializer")
    if NOT_A_FUNCTION.match(re.sub(r"^\s*(static|inline|typedef|constexpr|const)\s+", "", head)):
        return Scope("type")
    parameters = function_head(head)
    if parameters is None or open_parens:
        return Scope("initializer")
    return Scope("function", *parameters[:1], line, parameters[1])


def function_head(head):
    """(name, parameters) when this is the head of a function definition; None for an initializer."""
    for match in re.finditer(r"(operator\s*(?:\(\)|[^\s\w(]+|\s\w+)|~?[A-Za-z_]\w*)\s*\(", head):
        name = match.group(1)
        if name in NOT_A_NAME:
            continue
        if "=" in re.sub(r"operator\s*\S+|<[^<>]*>", "", head[:match.start()]):
            return None
        inner, rest = parameter_list(head[match.end():])
        tail = re.sub(r"\b(const|noexcept|override|final)\b|&&?", "", rest).strip()
        if tail and not tail.startswith(("->", ":", "requires", "(", "__attribute__")):
            return None
        if tail.startswith(":") and re.search(r"\w$", tail) and not re.search(r"\)$", tail):
            return None  # a brace of the constructor's initializer list, a_{x}
        return name, inner
    return None


def parameter_list(text):
    """Counts up to the closing parenthesis; returns (count, what follows)."""
    depth, commas, empty = 0, 0, True
    for i, c in enumerate(text):
        if c in "(<[{": depth += 1
        if c == ")" and depth == 0:
            return (0 if empty or text[:i].strip() == "void" else commas + 1), text[i + 1:]
        if c in ")>]}": depth -= 1
        if c == "," and depth == 0: commas += 1
        if not c.isspace(): empty = False
    return commas + 1, ""


def measure(path):
    """Yields (what, value, place) for one file."""
    text = path.read_text()
    name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
    header = path.suffix == ".h" and not path.name.endswith("-inl.h") and not name.startswith("tests/")
    kind = "header" if header else "kernel file" if name.startswith("src/kernels/") else "file"
    yield kind, text.count("\n"), name
    for function, line, lines, parameters, nesting in functions(text):
        place = f"{name}:{line} {function}"
        yield "function", lines, place
        yield "nesting", nesting, place
        if not function.isupper():  # TEST(Suite, Name) and its like have none
            yield "parameters", parameters, place


def main():
    arguments = [a for a in sys.argv[1:] if a != "--all"]
    paths = [Path(a).resolve() for a in arguments] or sorted(
        p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.suffix in (".h", ".cc"))
    found = [m for path in paths for m in measure(path)]
    beyond, failures = [], 0
    for what, value, place in found:
        if value > WANTED[what]:
            kernel = what == "parameters" and place.startswith("src/kernels/")
            hard = value > (KERNEL_PARAMETERS if kernel else HARD[what])
            failures += hard
            beyond.append((hard, what, value, place))
    beyond.sort(key=lambda b: (not b[0], b[1], -b[2]))
    shown = beyond if "--all" in sys.argv else [b for b in beyond if b[0]] + [b for b in beyond if not b[0]][:10]
    for hard, what, value, place in shown:
        print(f"{'TOO BIG' if hard else 'large'}: {place}: {what} {value} (wanted {WANTED[what]}, limit {HARD[what]})")
    for what in WANTED:
        values = [(value, place) for kind, value, place in found if kind == what]
        if values:
            largest = max(values)
            print(f"{what}: {len(values)}, largest {largest[0]} ({largest[1]})")
    print(f"size: {sum(v for kind, v, _ in found if kind in ('file', 'kernel file', 'header'))} lines, "
          f"{len(beyond) - failures} beyond the wanted size, {failures} beyond the limit")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
