#!/usr/bin/python3
"""./dev bench instructions: how many instructions a request takes in user space, counted by callgrind.

Seven scenarios, each always the same load: 64 requests in flight (8 connections of 8 streams; 16 connections of HTTP/1.1), a
warm-up, then 2,000 counted requests. Under callgrind the proxy is the slow part, so its turns are always full and the count
repeats within a percent. The count depends on the libraries and on the processor's features, so a figure is compared
only with the last line of bench/history.jsonl of the same environment.

  --gate             fail when a scenario takes 5 % more than the history says; writes nothing
  --accept "why"     record an increase with its reason
  (neither)          measure, tell, and record unless it is an increase of 5 %
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import peers
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
import pki as keys  # noqa: E402
import run

ROOT = pathlib.Path(__file__).resolve().parent.parent
HISTORY = ROOT / "bench" / "history.jsonl"
LIMIT = 1.05
# What a policy in Lua may add to a request: DESIGN.md section 18 says 2,500, and counts of one build differ by 50 (docs/performance.md).
LUA_LIMIT = 2550
COUNTED, WARM = 2000, 500

SCENARIOS = {
    "h2c":       dict(roles=[dict(front="h2c", back="h2c")], c=8, m=8),
    "agent":     dict(roles=[dict(front="h2c", back="h2c")], c=8, m=8, agent=True),
    "tls":       dict(roles=[dict(front="tls", back="h2c")], c=8, m=8),
    "lua":       dict(roles=[dict(front="h2c", back="h2c", lua=True)], c=8, m=8),
    "limit":     dict(roles=[dict(front="h2c", back="h2c", limit=True)], c=8, m=8),
    "h1":        dict(roles=[dict(front="h1", back="h1")], c=16, m=1),
    "h1 to h2c": dict(roles=[dict(front="h1", back="h2c")], c=16, m=1, agent=True),
}


def environment():
    flags = re.search(r"flags\s*:\s*(.*)", open("/proc/cpuinfo").read())[1].split()
    features = [f for f in ("aes", "avx2", "bmi2", "erms", "sha_ni") if f in flags]
    version = subprocess.run(["dpkg-query", "-W", "-f", "${Version} ", "libc6", "libnghttp2-14", "liblua5.4-0", "valgrind"],
                             capture_output=True, text=True).stdout.split()
    compiler = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True).stdout.strip()
    linked = subprocess.run(["ldd", peers.binary("ephor")], capture_output=True, text=True).stdout
    nghttp2 = "nghttp2-library" if "libnghttp2" in linked else "nghttp2-compiled-in"
    return " ".join([*features, *version, f"gcc-{compiler}", nghttp2])


def control(*arguments, pid):
    subprocess.run(["callgrind_control", *arguments, str(pid)], check=True, capture_output=True, text=True, timeout=60)


def wait_answer(pid):
    """callgrind_control talks to the running process through its pipes; it may take a moment after the start."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return control("-i", "off", pid=pid)
        except subprocess.CalledProcessError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def count(proxy, name, work, pki):
    home = pathlib.Path(tempfile.mkdtemp(prefix="ephor-instructions-"))
    group = run.Group(home)
    work = {**work, "body": home / "body", "n": COUNTED}
    work["body"].write_text(run.agent_body())
    out = home / "callgrind.out"
    try:
        role = dict(work["roles"][0])
        if role["back"] == "h2c" and not peers.speaks_h2_upstream(proxy):
            role["back"] = "h1"
        target = run.start_upstreams(group, pki)[role["back"]]
        port = run.PORT + 100
        folder = home / proxy
        folder.mkdir()
        argv = peers.command(proxy, role, port, target, pki, folder)
        process = group.start(run.PROXY_CORE, ["valgrind", "--tool=callgrind", "--instr-atstart=no", "-q",
                                               f"--callgrind-out-file={out}", *argv], port, proxy)
        wait_answer(process.pid)
        run.run_load(run.load_argv(work, port, WARM))
        control("-i", "on", pid=process.pid)
        run.run_load(run.load_argv(work, port, COUNTED))
        control("-i", "off", pid=process.pid)
        control("--dump", pid=process.pid)
        totals = [int(line.split()[1]) for path in home.glob("callgrind.out*") for line in open(path)
                  if line.startswith(("summary:", "totals:"))]
        assert totals, f"callgrind wrote nothing: {list(home.iterdir())}"
        assert max(totals) > 0, "nothing was counted: did another program answer on our port?"
        return round(max(totals) / COUNTED)
    finally:
        group.end()
        shutil.rmtree(home, ignore_errors=True)


def least(proxy, name, work, pki, times):
    """On a busy machine fewer events come in one turn, and a request costs some ten more."""
    return min(count(proxy, name, work, pki) for _ in range(times))


def last_of(environment_now):
    known = {}
    if HISTORY.exists():
        for line in HISTORY.read_text().splitlines():
            row = json.loads(line)
            if row.get("kind") == "instructions" and row["environment"] == environment_now:
                known.update(row["instructions"])
    return known


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gate", action="store_true")
    parser.add_argument("--accept", metavar="WHY")
    parser.add_argument("--proxy", default="ephor", choices=peers.NAMES, help="count a peer instead; nothing is recorded")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    options = parser.parse_args()
    lock = run.alone()  # noqa: F841
    here = environment()
    before, now, worse = last_of(here), {}, []
    with tempfile.TemporaryDirectory(prefix="ephor-instructions-keys-") as directory:
        pki = keys.make(directory)
        for name in options.scenarios or SCENARIOS:
            try:
                now[name] = count(options.proxy, name, SCENARIOS[name], pki)
            except peers.Cannot as reason:
                print(f"{name:10s} cannot: {reason}")
                continue
            if name in before and now[name] > before[name] * LIMIT:
                now[name] = min(now[name], least(options.proxy, name, SCENARIOS[name], pki, 2))
            change = now[name] / before[name] - 1 if name in before and options.proxy == "ephor" else None
            print(f"{name:10s} {now[name]:8d} instructions a request" +
                  (f"  {change:+.1%} against {before[name]}" if change is not None else ""), flush=True)
            if change is not None and now[name] > before[name] * LIMIT:
                worse.append(name)
        if now.get("lua", 0) - now.get("h2c", 0) > LUA_LIMIT and "h2c" in now:
            for name in ("h2c", "lua"):
                now[name] = min(now[name], least(options.proxy, name, SCENARIOS[name], pki, 2))
    if options.proxy != "ephor":
        return 0
    if "lua" in now and "h2c" in now:
        added = now["lua"] - now["h2c"]
        print(f"a policy in Lua adds {added} instructions a request; it may add {LUA_LIMIT}")
        if added > LUA_LIMIT:
            return 1
    if worse and not options.accept:
        print(f"more than 5 % above the history: {', '.join(worse)}; mend it, or record why: "
              f"./dev bench instructions --accept \"why\"")
        return 1
    if options.gate:
        if not before:
            print(f"no line in the history for this environment ({here}): nothing to compare with")
        return 0
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    row = {"kind": "instructions", "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
           "commit": commit, "environment": here, "instructions": now}
    if options.accept:
        row["why"] = options.accept
    with open(HISTORY, "a") as history:
        history.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
