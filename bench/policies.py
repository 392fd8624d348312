#!/usr/bin/python3
"""./dev bench policies: what it costs to know a call and to decide, in nanoseconds and in instructions (counted by callgrind).

bench/agent.c and bench/policies.c have the rows: a filter called with a made-up stream, without a network. Nanoseconds are
the best of nine runs; instructions repeat. Writes bench/results/<time>-policies.json and .md, and prints the table.
"""
import datetime
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = [ROOT / "build" / "release" / name for name in ("bench_agent", "bench_policies")]
RUNS, TIMED, COUNTED = 9, 20000, 2000


def nanoseconds(tool, row):
    return min(float(subprocess.run([tool, row, str(TIMED)], capture_output=True, text=True, check=True).stdout)
               for _ in range(RUNS))


def instructions(tool, row):
    """Of `measured`, less what it was called for to warm up (100 times)."""
    with tempfile.TemporaryDirectory(prefix="ephor-bench-") as home:
        out = pathlib.Path(home) / "out"
        subprocess.run(["valgrind", "-q", "--tool=callgrind", "--toggle-collect=measured*", f"--callgrind-out-file={out}",
                        tool, row, str(COUNTED)], capture_output=True, text=True, check=True)
        total = int(re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.M)[1])
        return total / (COUNTED + 100)


def main():
    result = {}
    for tool in TOOLS:
        for row in subprocess.run([tool, "list"], capture_output=True, text=True, check=True).stdout.split("\n")[:-1]:
            result[row] = {"ns": nanoseconds(tool, row), "instructions": round(instructions(tool, row))}
    table = ["| what | ns | instructions |", "|---|--:|--:|"]
    table += [f"| {row} | {r['ns']:.0f} | {r['instructions']} |" for row, r in result.items()]
    print("\n".join(table))
    name = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S-policies")
    results = ROOT / "bench" / "results"
    (results / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (results / f"{name}.md").write_text("\n".join(table) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
