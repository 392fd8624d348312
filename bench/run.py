#!/usr/bin/python3
"""./dev bench [WORKLOAD...]: what a request costs in ephor and in its peers, in one alternating run.

The proxies of a workload are all started, then measured in turn, round after round, so that a machine that is slower for a
while is slower for all. A proxy is alone on core 0; the load generator and the upstream share core 1. CPU per request is
what the kernel says that all threads of the proxy ran (/proc/PID/task/*/schedstat, in ns), over the requests that it
answered; it doesn't depend on who waits for whom. Latencies are taken at a fixed rate (h2load --rps) against the same
load without a proxy. A ratio is ephor's figure over a peer's in the same round: its median, with the least and greatest.

Results: bench/results/<date>.json with the machine, a Markdown table beside it, and a line in bench/history.jsonl.
"""
import argparse
import datetime
import fcntl
import glob
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import peers
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
import pki as keys  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PROXY_CORE, OTHER_CORE = ("0", "1") if (os.cpu_count() or 1) > 1 else ("0", "0")
PORT = 21000

AGENT_HEADERS = [
    "content-type: application/json", "accept: application/json, text/event-stream", "user-agent: agent/1.4 node/20",
    "mcp-session-id: 7f1d2c9e-52c1-4f0e-9a52-6d6f4d1f1c11", "mcp-protocol-version: 2025-11-25",
    "authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwbGFubmVyIn0.c2lnbmF0dXJl",
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate: vendor=abc",
    "x-request-id: 0d9c2f1e-8a1b-4b7d-9f1e-2a3b4c5d6e7f", "x-tenant: acme", "x-agent: planner",
    "accept-language: *", "accept-encoding: gzip, deflate", "cache-control: no-cache", "x-priority: 5",
]


def agent_body():
    call = {"method": "tools/call", "params": {"name": "search", "arguments": {"query": ""}}, "jsonrpc": "2.0", "id": 7}
    empty = len(json.dumps(call, separators=(",", ":")))
    call["params"]["arguments"]["query"] = ("where did the time go " * 100)[:2048 - empty]
    return json.dumps(call, separators=(",", ":"))


EVENTS = b"".join(b'data: {"id":"c1","object":"chat.completion.chunk","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"word %d "}}]}\n\n' % i
                  for i in range(1000))

# name: what, load (front protocol of the client), roles in order from the client, path, requests a round, clients, streams
WORKLOADS = {
    "h2c":      dict(title="h2c → h2c, small GET", roles=[dict(front="h2c", back="h2c")], n=200000, c=32, m=8),
    "agent":    dict(title="h2c → h2c, POST of a 2 KiB tools/call, 15 headers", roles=[dict(front="h2c", back="h2c")], n=30000,
                     c=32, m=8, agent=True),
    "tls":      dict(title="TLS h2 → h2c, small GET", roles=[dict(front="tls", back="h2c")], n=200000, c=32, m=8),
    "pair":     dict(title="pair: h1 → proxy → mTLS h2 → proxy → h1, the same POST",
                     roles=[dict(front="h1", back="mtls"), dict(front="mtls", back="h1")], n=15000, c=32, m=1, agent=True),
    "lua":      dict(title="h2c → h2c, small GET, a policy in Lua on", roles=[dict(front="h2c", back="h2c", lua=True)], n=200000,
                     c=32, m=8),
    "h1":       dict(title="h1 → h1, small GET", roles=[dict(front="h1", back="h1")], n=30000, c=32, m=1),
    "egress":   dict(title="TLS h2 → TLS h2 of the host, small GET (ephor intercepts; the others hold the host's certificate)",
                     roles=[dict(front="tls", back="tls")], n=100000, c=32, m=8, host="localhost"),
    "connect":  dict(title="new TLS connection for each request (per connection)", roles=[dict(front="tls", back="h2c")],
                     n=0, c=0, m=0, seconds=2),
    "events":   dict(title="h2c → h2c, 1,000 server-sent events (per stream)", roles=[dict(front="h2c", back="h2c")], n=400, c=4, m=1,
                     path="/stream.events", size=len(EVENTS)),
    "watched":  dict(title="the same, a policy in Lua looks at each event", roles=[dict(front="h2c", back="h2c", watch=True)], n=100,
                     c=4, m=1, path="/stream.events", size=len(EVENTS)),
    "download": dict(title="h2c → h2c, 16 MiB download (per MiB)", roles=[dict(front="h2c", back="h2c")], n=24, c=4, m=1,
                     path="/big", size=16 << 20, unit_requests=16),
}


def alone():
    """Two runs at once would measure each other (and share ports): the second waits. Kept until the process ends."""
    lock = open("/tmp/ephor-bench.lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another bench is running; waiting for it", file=sys.stderr)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def ended(process):
    return process.poll() is not None


def pin(core, argv, **options):
    return subprocess.Popen(["taskset", "-c", core, *map(str, argv)], stdin=subprocess.DEVNULL, **options)


def wait_port(port, process, log):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if ended(process):
            raise SystemExit(f"{process.args[3]} ended with {process.returncode}:\n{pathlib.Path(log).read_text()[-2000:]}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"{process.args[3]} does not listen on {port}:\n{pathlib.Path(log).read_text()[-2000:]}")


def cpu_ns(pid):
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        try:
            total += int(open(path).read().split()[0])
        except (OSError, ValueError):
            pass
    return total


def memory(pid):
    text = open(f"/proc/{pid}/status").read()
    return {name: int(re.search(rf"{name}:\s+(\d+)", text)[1]) * 1024 for name in ("VmRSS", "RssAnon")}


class Group:
    """What is started for a workload, and ended with it."""

    def __init__(self, home):
        self.home, self.processes = home, []

    def start(self, core, argv, port, name):
        log = self.home / f"{name}-{port}.log"
        with open(log, "wb") as out:
            process = pin(core, argv, stdout=out, stderr=subprocess.STDOUT, cwd=self.home)
        self.processes.append(process)
        wait_port(port, process, log)
        return process

    def end(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes = []


def start_upstreams(group, pki):
    """h2c, and tls (h2 under it): nghttpd, by far the cheapest there is (300,000 requests/s of one core here). h1: nginx with a constant answer."""
    root = group.home / "site"
    root.mkdir()
    (root / "small").write_text("0123456789")
    (root / "stream.events").write_bytes(EVENTS)
    types = group.home / "mime.types"
    types.write_text("text/event-stream events\n")
    with open(root / "big", "wb") as big:
        big.truncate(16 << 20)
    h2c, h1, tls = PORT, PORT + 1, PORT + 2
    nghttpd = [peers.program("nghttpd"), "-a", "127.0.0.1", "-d", root, "-m", "1000", "-w", "24", "-W", "30", f"--mime-types-file={types}"]
    group.start(OTHER_CORE, [*nghttpd, "--no-tls", h2c], h2c, "nghttpd")
    group.start(OTHER_CORE, [*nghttpd, tls, pki.key, pki.certificate], tls, "nghttpd")
    home = group.home / "upstream-nginx"
    home.mkdir()
    (home / "nginx.conf").write_text(f"""
daemon off; master_process off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/error.log crit;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000; client_body_temp_path {home}/b; client_body_buffer_size 64k; sendfile on;
    proxy_temp_path {home}/p; fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
    server {{ listen 127.0.0.1:{h1}; root {root}; location /small {{ return 200 "0123456789"; }} location /big {{ }} }}
}}
""")
    group.start(OTHER_CORE, [peers.program("nginx"), "-p", home, "-c", home / "nginx.conf"], h1, "nginx")
    return {"h2c": h2c, "h1": h1, "tls": tls}


def load_argv(work, port, n, extra=()):
    front = work["roles"][0]["front"]
    scheme = "https" if front == "tls" else "http"
    argv = ["h2load", "-n", n, "-c", min(work["c"], n), "-m", work["m"], "-t", 1, "-w", 24, "-W", 24]
    if front == "h1":
        argv.append("--h1")
    if work.get("agent"):
        argv += ["-d", work["body"]]
        for header in AGENT_HEADERS:
            argv += ["-H", header]
    if "host" in work:  # by its name, so that it is in the ClientHello
        argv += ["--connect-to", f"127.0.0.1:{port}"]
    return [*argv, *extra, f"{scheme}://{work.get('host', '127.0.0.1')}:{port}{work.get('path', '/small')}"]


def run_load(argv, size=10, timeout=120):
    done = subprocess.run(["taskset", "-c", OTHER_CORE, *map(str, argv)], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL)
    counts = re.search(r"requests: (\d+) total, \d+ started, (\d+) done, .* (\d+) errored, (\d+) timeout", done.stdout)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", done.stdout)
    data = re.search(r"\((\d+)\) data", done.stdout)
    seconds = re.search(r"finished in ([\d.]+)(us|ms|s)", done.stdout)
    good = counts and codes and data and counts[1] == counts[2] and counts[3] == counts[4] == "0"
    # h2load doesn't know "HTTP/1.1 200 " without a reason (haproxy, from h2) for a status: the bytes of the bodies decide then.
    if not good or sum(map(int, codes.groups()[1:])) or (codes[1] != counts[1] and int(data[1]) != size * int(counts[1])):
        raise SystemExit(f"the load failed: {' '.join(map(str, argv))}\n{done.stdout}{done.stderr}")
    return int(counts[1]), float(seconds[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1}[seconds[2]]


def run_connects(port, seconds):
    done = subprocess.run(["taskset", "-c", OTHER_CORE, "openssl", "s_time", "-new", "-connect", f"127.0.0.1:{port}", "-time",
                           str(seconds)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    found = re.search(r"(\d+) connections in (\d+) real seconds", done.stdout)
    if not found or int(found[1]) == 0:
        raise SystemExit(f"openssl s_time failed on {port}:\n{done.stdout}{done.stderr}")
    return int(found[1]), seconds


def latency(work, port, rate, seconds, home):
    """One connection of h2 (four of h1): h2load starts the requests of all its clients together, so more would queue in it."""
    log = home / "latency.log"
    log.unlink(missing_ok=True)
    clients = 4 if work["roles"][0]["front"] == "h1" else 1
    argv = load_argv({**work, "c": clients, "m": 1 if clients == 4 else 32}, port, int(rate * seconds),
                     ["--rps", rate // clients, "--log-file", log])
    run_load(argv)
    rows = sorted(int(line.split("\t")[2]) for line in open(log))
    return {"p50_us": rows[len(rows) // 2], "p99_us": rows[int(len(rows) * 0.99)]}


def latencies(work, contenders, direct_port, options, home):
    """Rounds of direct and then each proxy; what a proxy adds is the median of its differences within a round."""
    plain = {**work, "roles": [dict(front="h1" if work["roles"][0]["front"] == "h1" else "h2c", back="")]}
    rounds = []
    for _ in range(options.rounds):
        taken = {"direct": latency(plain, direct_port, options.rate, 1.5, home)}
        for contender in contenders:
            taken[contender.name] = latency(work, contender.port, options.rate, 1.5, home)
        rounds.append(taken)
        sys.stderr.write("l")
        sys.stderr.flush()
    for contender in contenders:
        contender.latency = {}
        for key in ("p50_us", "p99_us"):
            contender.latency[key] = statistics.median(taken[contender.name][key] for taken in rounds)
            contender.latency["added_" + key] = statistics.median(taken[contender.name][key] - taken["direct"][key]
                                                                  for taken in rounds)
    return {key: statistics.median(taken["direct"][key] for taken in rounds) for key in ("p50_us", "p99_us")}


class Contender:
    """A proxy (or, in a pair, two of them) in a workload."""

    def __init__(self, name, work, index, upstreams, pki, group):
        self.name, self.rounds, self.latency = name, [], None
        self.note = ""
        self.pids = []
        roles = [dict(role) for role in work["roles"]]
        if roles[-1]["back"] == "h2c" and not peers.speaks_h2_upstream(name):
            roles[-1]["back"] = "h1"
            self.note = "HTTP/1.1 upstream"
        base = PORT + 100 + index * 20
        self.port = base
        target = upstreams[roles[-1]["back"]]
        for number in reversed(range(len(roles))):
            port = base + number * 8
            home = group.home / f"{name}-{number}"
            home.mkdir()
            process = group.start(PROXY_CORE, peers.command(name, roles[number], port, target, pki, home), port, name)
            self.pids.append(process.pid)
            target = port
        self.idle = {key: sum(memory(pid)[key] for pid in self.pids) for key in ("VmRSS", "RssAnon")}

    def cpu(self):
        return sum(cpu_ns(pid) for pid in self.pids)

    def round(self, work, n):
        before = self.cpu()
        if work.get("seconds"):
            count, seconds = run_connects(self.port, work["seconds"])
        else:
            count, seconds = run_load(load_argv(work, self.port, n), work.get("size", 10))
        used = self.cpu() - before
        self.rounds.append({"cpu_us": used / 1000 / count / work.get("unit_requests", 1), "rps": count / seconds})

    def per_connection(self, work):
        """RSS of each of 500 idle connections that have served one request."""
        before = sum(memory(pid)["RssAnon"] for pid in self.pids)
        n = 500
        process = pin(OTHER_CORE, [sys.executable, ROOT / "bench" / "hold.py", self.port, n, work["roles"][0]["front"]],
                      stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        after = sum(memory(pid)["RssAnon"] for pid in self.pids)
        process.terminate()
        process.wait()
        return (after - before) / n


def measure(name, work, options, pki, out):
    home = pathlib.Path(tempfile.mkdtemp(prefix=f"ephor-bench-{name}-"))
    work["body"] = home / "body"
    work["body"].write_text(agent_body())
    group, contenders, cannot = Group(home), [], {}
    try:
        upstreams = start_upstreams(group, pki)
        for index, peer in enumerate(options.proxies):
            try:
                contenders.append(Contender(peer, work, index, upstreams, pki, group))
            except peers.Cannot as reason:
                cannot[peer] = str(reason)
        if name in ("h2c", "h1"):
            for contender in contenders:  # while they are fresh: later, memory of the load is used again
                contender.connection_bytes = contender.per_connection(work)
        for number in range(options.rounds + 1):
            for contender in contenders:
                contender.round(work, max(work["c"] * 4, work["n"] // 10) if number == 0 else work["n"])
            sys.stderr.write("." if number else f"{name:9s} ")
            sys.stderr.flush()
        for contender in contenders:
            contender.rounds.pop(0)  # the warm-up
        direct = None
        if options.latency and name in ("h2c", "agent", "tls", "pair", "h1", "lua"):
            direct = latencies(work, contenders, upstreams["h1" if work["roles"][0]["front"] == "h1" else "h2c"], options, home)
        sys.stderr.write("\n")
    finally:
        group.end()
        shutil.rmtree(home, ignore_errors=True)
    out[name] = summary(work, contenders, cannot, direct)


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values)}


def summary(work, contenders, cannot, direct):
    rows = {}
    for contender in contenders:
        row = {"cpu_us": spread([r["cpu_us"] for r in contender.rounds]), "rps": spread([r["rps"] for r in contender.rounds]),
               "idle": contender.idle, "rounds": contender.rounds}
        if contender.note:
            row["note"] = contender.note
        if contender.latency:
            row["latency"] = contender.latency
        if hasattr(contender, "connection_bytes"):
            row["connection_bytes"] = contender.connection_bytes
        rows[contender.name] = row
    ours = next((c for c in contenders if c.name == "ephor"), None)
    ratios = {}
    if ours:
        for contender in contenders:
            if contender is not ours:
                ratios[contender.name] = spread([a["cpu_us"] / b["cpu_us"] for a, b in zip(ours.rounds, contender.rounds)])
    return {"title": work["title"], "proxies": rows, "cannot": cannot, "direct": direct, "ratios": ratios}


# --- telling ------------------------------------------------------------------------------------------------------------
def machine():
    model = re.search(r"model name\s*:\s*(.*)", open("/proc/cpuinfo").read())
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {"cpu": model[1] if model else platform.processor(), "cores": os.cpu_count(), "kernel": platform.release(),
            "commit": commit, "load": os.getloadavg()[0],
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "versions": {name: peers.version(name) for name in peers.NAMES if peers.binary(name) and
                         os.path.exists(peers.binary(name))}}


def markdown(result):
    m = result["machine"]
    lines = [f"{m['cpu']}, {m['cores']} cores, Linux {m['kernel']}, {m['date'][:10]}, commit {m['commit']}. "
             + "; ".join(m["versions"].values()) + ".", ""]
    for work in result["workloads"].values():
        lines += [f"### {work['title']}", "",
                  "| proxy | CPU µs | ephor / it | requests/s | p50 added | p99 added | RSS idle | a connection |",
                  "|---|--:|--:|--:|--:|--:|--:|--:|"]
        for name, row in work["proxies"].items():
            ratio = work["ratios"].get(name)
            cell = f"{ratio['median']:.2f} ({ratio['least']:.2f}–{ratio['greatest']:.2f})" if ratio else ""
            late = row.get("latency")
            p50, p99 = (f"{late['added_' + q]:.0f} µs" if late else "" for q in ("p50_us", "p99_us"))
            cpu = row["cpu_us"]
            kept = f"{row['connection_bytes'] / 1024:.1f} KiB" if "connection_bytes" in row else ""
            label = f"{name} ({row['note']})" if "note" in row else name
            lines.append(f"| {label} | {cpu['median']:.2f} ({cpu['least']:.2f}–{cpu['greatest']:.2f}) | {cell} | "
                         f"{row['rps']['median']:.0f} | {p50} | {p99} | {row['idle']['VmRSS'] / 2**20:.1f} MiB | {kept} |")
        for name, why in work["cannot"].items():
            lines.append(f"| {name} | cannot: {why} | | | | | | |")
        if work["direct"]:
            lines += ["", f"Direct: p50 {work['direct']['p50_us']:.0f} µs, p99 {work['direct']['p99_us']:.0f} µs at "
                          f"{result['rate']} requests/s."]
        lines.append("")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=2000, help="requests/s at which latencies are taken")
    parser.add_argument("--no-latency", dest="latency", action="store_false")
    parser.add_argument("--proxies", default=",".join(peers.NAMES))
    parser.add_argument("--keep", action="store_true", help="write bench/results and the history (default when all workloads ran)")
    options = parser.parse_args()
    wrong = [name for name in options.workloads if name not in WORKLOADS]
    if wrong:
        parser.error(f"no workload {wrong[0]}: {', '.join(WORKLOADS)}")
    wanted = options.proxies.split(",")
    options.proxies = [name for name in wanted if peers.binary(name) and os.path.exists(peers.binary(name))]
    for name in set(wanted) - set(options.proxies):
        print(f"{name} is not here, and left out", file=sys.stderr)

    lock = alone()  # noqa: F841
    result = {"machine": machine(), "rate": options.rate, "workloads": {}}
    with tempfile.TemporaryDirectory(prefix="ephor-bench-keys-") as directory:
        pki = keys.make(pathlib.Path(directory))
        for name in options.workloads or WORKLOADS:
            measure(name, WORKLOADS[name], options, pki, result["workloads"])
    text = markdown(result)
    print(text)
    if options.keep or not options.workloads:
        RESULTS.mkdir(exist_ok=True)
        stamp = re.sub(r"[^0-9T]", "", result["machine"]["date"][:19])
        (RESULTS / f"{stamp}.json").write_text(json.dumps(result, indent=1) + "\n")
        (RESULTS / f"{stamp}.md").write_text(text + "\n")
        line = {"kind": "cpu", "date": result["machine"]["date"], "commit": result["machine"]["commit"],
                "cpu": result["machine"]["cpu"],
                "cpu_us": {name: {p: round(r["cpu_us"]["median"], 3) for p, r in w["proxies"].items()}
                           for name, w in result["workloads"].items()}}
        with open(ROOT / "bench" / "history.jsonl", "a") as history:
            history.write(json.dumps(line) + "\n")
        print(f"written: bench/results/{stamp}.json, .md, and a line in bench/history.jsonl", file=sys.stderr)


if __name__ == "__main__":
    main()
