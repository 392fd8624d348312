#!/usr/bin/python3
"""./dev demo: agent → ephor → mTLS → ephor → tool server, all real, and a table of where the time went.

Starts the servers, runs the agent, reads what both ephors measured, checks that everything shown is so, and ends what it
started. The exit status is 1 when anything isn't as claimed.
"""
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
HERE = ROOT / "demo"
sys.path.insert(0, str(ROOT / "tests"))
import pki  # noqa: E402

EPHOR = os.environ.get("EPHOR_BIN", str(ROOT / "build" / "release" / "ephor"))
BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
STAGES = ["decode", "filter", "queue", "upstream", "body", "write", "self", "total"]


def say(text):
    print(f"{BOLD}›{PLAIN} {text}", flush=True)


class Wrong(Exception):
    pass


def claim(true, text):
    if not true:
        raise Wrong(text)


def free_ports(*names):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: str(s.getsockname()[1]) for name, s in zip(names, held)}
    for s in held:
        s.close()
    return ports


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Stage:
    """The processes of the demo and their logs."""

    def __init__(self, home):
        self.home, self.processes = home, []

    def start(self, name, argv, env, ready):
        with open(self.home / f"{name}.log", "wb") as log:
            process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                       env={**os.environ, **env}, cwd=HERE)
        self.processes.append((name, process))
        deadline = time.monotonic() + 30
        while True:
            claim(process.poll() is None, f"{name} ended with {process.returncode}:\n{self.log(name)}")
            try:
                if ready():
                    return process
            except (OSError, http.client.HTTPException):
                pass
            claim(time.monotonic() < deadline, f"{name} was not ready in 30 s:\n{self.log(name)}")
            time.sleep(0.02)

    def log(self, name):
        return (self.home / f"{name}.log").read_text(errors="replace")[-3000:]

    def end(self):
        codes = {}
        for name, process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for name, process in reversed(self.processes):
            try:
                codes[name] = process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = process.wait()
        self.processes = []
        return codes


def metric(text, name, **labels):
    total = 0.0
    for line in text.splitlines():
        match = re.match(rf"{name}\{{(.*)\}} (\S+)", line)
        if match and all(f'{k}="{v}"' in match[1] for k, v in labels.items()):
            total += float(match[2])
    return total


def duration(ns):
    us = ns / 1000
    return f"{us:.0f} µs" if us < 1000 else f"{us / 1000:.1f} ms"


def rows_of(port):
    status, text = get(port, "/hops")
    claim(status == 200, f"/hops answered {status}: {text}")
    rows = json.loads(text)
    return rows["rows"] if isinstance(rows, dict) else rows


def table(ports):
    say("where the time went, hop by hop (GET /hops of both)")
    print(f"  {'hop':40s} {'stage':9s} {'count':>6s} {'p50':>9s} {'p99':>9s}")
    for side in ("OUTBOUND", "INBOUND"):
        rows = [row for row in rows_of(ports[f"{side}_ADMIN"]) if row.get("count")]
        claim(rows, f"{side.lower()}: no hop was measured")
        order = {stage: number for number, stage in enumerate(STAGES)}
        rows.sort(key=lambda r: (r["source"], r["destination"], r["protocol"], order.get(r["stage"], 99)))
        last = None
        for row in rows:
            hop = f"{row['source']} → {row['destination']} {row['protocol']} ({row['direction']})"
            mark = BOLD if row["stage"] in ("self", "total") else ""
            print(f"  {hop if hop != last else '':40s} {mark}{row['stage']:9s}{PLAIN} {row['count']:6d} "
                  f"{duration(row['p50_ns']):>9s} {duration(row['p99_ns']):>9s}")
            last = hop
        claim({"total", "self"} <= {row["stage"] for row in rows}, f"{side.lower()}: a stage is missing")


def decisions(ports, expected_refusals):
    inbound, outbound = (get(ports[f"{side}_METRICS"], "/metrics")[1] for side in ("INBOUND", "OUTBOUND"))
    say("decisions by policy (ephor_policy_decisions_total of the inbound side)")
    for line in inbound.splitlines():
        match = re.match(r'ephor_policy_decisions_total\{(.*)\} (\S+)', line)
        if match and float(match[2]):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match[1]))
            print(f"  {labels.get('policy', '?'):40s} {labels.get('decision', '?'):9s} {float(match[2]):6.0f}")
    denied = metric(inbound, "ephor_policy_decisions_total", decision="deny")
    claim(denied == expected_refusals, f"{expected_refusals} call was refused, and the metrics say {denied:.0f}")
    faults = metric(outbound, "ephor_chaos_injections_total")
    claim(faults == 1, f"one call was slowed, and the metrics say {faults:.0f}")
    handshakes = metric(inbound, "ephor_tls_handshakes_total", side="server")
    claim(handshakes >= 1, "no TLS handshake was counted")
    matched = metric(inbound, "ephor_constitution_checks_total", result="match")
    claim(matched > 0, "no constitution hash was checked")
    print(f"  chaos: {faults:.0f} call slowed · constitution: {matched:.0f} hashes matched · mTLS handshakes: {handshakes:.0f}")


def plain_text_is_refused(ports):
    """The inbound side takes mTLS only: whoever comes without a certificate gets nothing."""
    try:
        status, _ = get(ports["INBOUND"], "/mcp")
    except (OSError, http.client.HTTPException):
        return
    claim(status == 0, f"plain text was answered with {status} by a strict listener")


def play(home, ports):
    say("keys of two workloads, under a trust domain of this demo alone")
    keys = pki.make(home / "keys")
    for name in ("planner", "tools"):
        pki.leaf(keys.directory, name, f"spiffe://cluster.local/ns/agents/sa/{name}")
    env = {**ports, "KEYS": str(keys.directory), "POLICIES": str(HERE / "policies"), "LOGS": str(home)}
    stage = Stage(home)
    try:
        say(f"the official MCP server, on port {ports['SERVER']}")
        server = HERE / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
        stage.start("server", [shutil.which("node"), server, "streamableHttp"], {"PORT": ports["SERVER"]},
                    lambda: socket.create_connection(("127.0.0.1", int(ports["SERVER"])), 1).close() or True)
        for side in ("inbound", "outbound"):
            say(f"ephor {side}, on port {ports[side.upper()]}")
            stage.start(side, [EPHOR, "run", "-c", HERE / f"{side}.yaml"], env,
                        lambda: get(ports[f"{side.upper()}_ADMIN"], "/ready")[0] == 200)
        plain_text_is_refused(ports)
        say("the agent, written with the official SDK")
        agent = subprocess.run([shutil.which("node"), HERE / "client.mjs", f"http://127.0.0.1:{ports['OUTBOUND']}/mcp"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=90)
        print("".join(f"  {line}\n" for line in agent.stdout.splitlines()), end="")
        if agent.returncode != 0:
            raise Wrong(f"the agent ended with {agent.returncode}\n--- outbound\n{stage.log('outbound')}"
                        f"\n--- inbound\n{stage.log('inbound')}")
        table(ports)
        decisions(ports, expected_refusals=1)
        say("to look further, while it runs (./dev demo --stay)")
        print(f"  curl -s http://127.0.0.1:{ports['INBOUND_METRICS']}/metrics | grep ephor_hop_duration_seconds\n"
              f"  curl -s http://127.0.0.1:{ports['OUTBOUND_ADMIN']}/hops\n"
              f"  curl -s http://127.0.0.1:{ports['INBOUND_ADMIN']}/policies")
        if "--stay" in sys.argv:
            say("Ctrl-C ends it")
            signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        codes = stage.end()
    for side in ("inbound", "outbound"):
        claim(codes.get(side) == 0, f"ephor {side} ended with {codes.get(side)} after SIGTERM:\n{stage.log(side)}")
    say("all of it was so; everything started here has ended")


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    ports = free_ports("SERVER", "INBOUND", "INBOUND_ADMIN", "INBOUND_METRICS", "OUTBOUND", "OUTBOUND_ADMIN",
                       "OUTBOUND_METRICS")
    with tempfile.TemporaryDirectory(prefix="ephor-demo-") as home:
        try:
            play(pathlib.Path(home), ports)
        except Wrong as wrong:
            print(f"demo: not as claimed: {wrong}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
