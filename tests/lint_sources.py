#!/usr/bin/python3
"""What no compiler checks: which way the includes point, how long a file is, and which calls are never made.

The table is DESIGN.md section 2 as the code keeps it: a module may include itself and what stands in its row. A module's
name is its folder: proxy/<module>/, and filters/ for every filter.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LENGTH_MAX = 650

BELOW = ["base", "observe", "net", "http", "filter", "upstream", "filters", "config", "admin"]
MAY_INCLUDE = {
    "base":     [],
    "observe":  ["base"],
    "net":      ["base"],
    "http":     ["net", "base"],
    "filter":   ["http", "net", "observe", "base"],
    "upstream": ["http", "net", "observe", "base"],
    "filters":  ["filter", "upstream", "http", "net", "observe", "base"],
    "config":   BELOW[:7],
    "admin":    BELOW[:8],
    "kube":     ["config", "net", "base"],
    "cli":      BELOW + ["kube"],
}

# Unbounded or unsafe in C, or a thread that sleeps where events should wake it.
FORBIDDEN = re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|gets|alloca|strtok|sleep|usleep|nanosleep|system|popen|atoi)\s*\(")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.S)


def module_of(path):
    parts = path.relative_to(ROOT).parts
    return "filters" if parts[0] == "filters" else parts[1]


def module_of_include(target):
    first = target.split("/")[0]
    if first in MAY_INCLUDE:
        return first
    if (ROOT / "filters" / target).exists():
        return "filters"
    return None  # beside the file itself


def blank(match):
    return re.sub(r"[^\n]", " ", match.group(0))


def check(path, problems):
    text = path.read_text()
    where = path.relative_to(ROOT)
    lines = text.count("\n")
    if lines > LENGTH_MAX:
        problems.append(f"{where}:{lines}: more than {LENGTH_MAX} lines: split it")
    for number, line in enumerate(text.split("\n"), 1):
        if UNFINISHED.search(line):
            problems.append(f"{where}:{number}: finish it or leave it out: {line.strip()}")
    module = module_of(path)
    for match in re.finditer(r'^#include "([^"]+)"', text, re.M):
        target = module_of_include(match.group(1))
        if target is None or target == module or target in MAY_INCLUDE[module]:
            continue
        number = text.count("\n", 0, match.start()) + 1
        problems.append(f"{where}:{number}: {module} may not include {target} ({match.group(1)}): the arrow points up")
    code = COMMENT_OR_STRING.sub(blank, text)
    for match in FORBIDDEN.finditer(code):
        number = code.count("\n", 0, match.start()) + 1
        problems.append(f"{where}:{number}: {match.group(1)}() is not used here")


def sources():
    for folder in ("proxy", "filters"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".c", ".h", ".cpp"):
                yield path


def main():
    problems = []
    for path in sources():
        check(path, problems)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
