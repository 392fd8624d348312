"""Starts ephor and the peers that the tests play with, and waits for what they say.

Nothing here sleeps for a time and hopes: `until` asks again until a condition holds or its deadline has passed, and every
process is told apart by its own ports, which no other test run on this machine gets (`free_port`). `Ephor.stop` is part of
each test: it asserts that the proxy ends by itself, with 0, after SIGTERM, and that no sanitizer had anything to say.
"""
import collections
import contextlib
import http.client
import itertools
import json
import os
import pathlib
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import time

import yaml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SANITIZED = os.environ.get("EPHOR_SANITIZED", "")
SLOW = 5 if SANITIZED else 1
HASH = "cdd01ef066bc6cf2"


def until(condition, what="a condition", timeout=10.0):
    """The first true answer of `condition`, asked again and again until the deadline."""
    deadline = time.monotonic() + timeout * SLOW
    pause = 0.002
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout * SLOW:.0f} s in vain for {what}")
        select.select([], [], [], pause)
        pause = min(pause * 1.5, 0.05)


# Below the ports that the kernel gives to connections (32768 on), and above the fixed ones that tests use in their own networks.
PORTS = range(16000, 32768)
reserved = collections.deque(maxlen=256)  # the sockets that keep the latest ports ours, until what is started has bound them
next_port = itertools.count(random.randrange(len(PORTS)))


def free_port():
    """A port that nobody has and that no other test run on this machine is given before it is bound.

    It is kept by a socket of the same number at another loopback address, which two processes can't both have, and which is
    in nobody's way. The port itself can't be held: what the test starts is to bind it.
    """
    for at in itertools.islice(next_port, len(PORTS)):
        port = PORTS[at % len(PORTS)]
        keeper = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            keeper.bind(("127.255.255.254", port))
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as s:
                    s.bind(("127.0.0.1", port))
        except OSError:
            keeper.close()
            continue
        reserved.append(keeper)
        return port
    raise AssertionError(f"no free port in {PORTS}")


def accepts(port, host="127.0.0.1"):
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def program(name):
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    assert found, f"{name} is not installed: ./dev setup"
    return found


class Process:
    """A program with its output in a file, ended when the test ends."""

    def __init__(self, name, argv, directory, env=None):
        self.name = name
        self.log_path = pathlib.Path(directory) / f"{name}.log"
        self.log_file = open(self.log_path, "ab")
        self.popen = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=self.log_file,
                                      stderr=subprocess.STDOUT, cwd=directory, env={**os.environ, **(env or {})})

    @property
    def pid(self):
        return self.popen.pid

    @property
    def log(self):
        return self.log_path.read_text(errors="replace")

    def alive(self):
        return self.popen.poll() is None

    def wait_port(self, port):
        def ready():
            assert self.alive(), f"{self.name} ended with {self.popen.returncode}:\n{self.log}"
            return accepts(port)
        until(ready, f"{self.name} on port {port}", 20)
        return self

    def end(self, how=signal.SIGTERM, timeout=10):
        if self.alive():
            self.popen.send_signal(how)
            try:
                self.popen.wait(timeout * SLOW)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        self.log_file.close()
        return self.popen.returncode


# --- configuration ------------------------------------------------------------------------------------------------------
WORKERS = int(os.environ.get("EPHOR_WORKERS", "1"))


def config(upstream, listener=None, cluster=None, **top):
    """The smallest file: a listener `inbound` and a cluster `app` at `upstream` (a port, an address or a list of them)."""
    upstreams = upstream if isinstance(upstream, (list, tuple)) else [upstream]
    endpoints = [f"127.0.0.1:{u}" if isinstance(u, int) else u for u in upstreams]
    app = {"name": "app", "endpoints": endpoints, **(cluster or {})}
    if "dns" in app or "original_destination" in app:
        app.pop("endpoints")
    return {"workers": WORKERS, "listeners": [{"name": "inbound", "bind": "127.0.0.1:0", "cluster": "app", **(listener or {})}],
            "clusters": [app], **top}


class Metrics:
    """An exposition, as {(name, frozenset of labels): value}."""

    LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
    LABEL = re.compile(r'(\w+)="((?:\\.|[^"\\])*)"')

    def __init__(self, text):
        self.text = text
        self.rows = []
        for line in text.splitlines():
            match = self.LINE.match(line)
            if match:
                self.rows.append((match[1], dict(self.LABEL.findall(match[2] or "")), float(match[3])))

    def sum(self, name, **labels):
        return sum(value for row, has, value in self.rows
                   if row == name and all(has.get(k) == v for k, v in labels.items()))

    def names(self):
        return {row for row, _, _ in self.rows}


class Ephor:
    """The proxy under test. `configuration` is a dict (ports 0 are filled in) or the text of a file."""

    def __init__(self, configuration, directory, env=None, ready=True, drain=True):
        binary = os.environ.get("EPHOR_BIN", str(ROOT / "build" / "release" / "ephor"))
        assert os.path.exists(binary), f"{binary} is not built: ./dev build"
        self.binary = binary
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path = self.directory / "ephor.yaml"
        self.admin_port, self.metrics_port = free_port(), free_port()
        self.ports = {}
        self.stopped = False
        self.token = "test-token"
        self.write(configuration)
        self.process = Process("ephor", [binary, "run", "-c", self.path], directory, env)
        if ready:
            self.wait_ready()

    def fill(self, configuration):
        filled = json.loads(json.dumps(configuration))
        admin = filled.setdefault("admin", {})
        admin.setdefault("bind", f"127.0.0.1:{self.admin_port}")
        admin.setdefault("metrics", f"127.0.0.1:{self.metrics_port}")
        admin.setdefault("token", self.token)
        filled.setdefault("drain", {}).setdefault("accept", "0s")
        for listener in filled.get("listeners", []):
            bind = listener.get("bind", "")
            if bind.endswith(":0"):
                port = self.ports.get(listener["name"]) or free_port()
                listener["bind"] = bind[:-1] + str(port)
            if not bind.startswith("unix:"):
                self.ports[listener["name"]] = int(listener["bind"].rsplit(":", 1)[1])
        return filled

    def write(self, configuration):
        text = configuration if isinstance(configuration, str) else yaml.safe_dump(self.fill(configuration), sort_keys=False)
        temporary = self.path.with_suffix(".new")
        temporary.write_text(text)
        os.replace(temporary, self.path)

    def wait_ready(self):
        def ready():
            assert self.process.alive(), f"ephor ended with {self.process.popen.returncode}:\n{self.log}"
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self.admin("/ready")[0] == 200
        until(ready, "ephor's /ready", 10)
        return self

    @property
    def port(self):
        return self.ports["inbound"] if "inbound" in self.ports else next(iter(self.ports.values()))

    @property
    def log(self):
        return self.process.log

    @property
    def pid(self):
        return self.process.pid

    def access_log(self):
        rows = []
        for line in self.log.splitlines():
            if line.startswith("{"):
                with contextlib.suppress(ValueError):
                    row = json.loads(line)
                    if "status" in row or "duration" in row or "total_ns" in row:
                        rows.append(row)
        return rows

    def admin(self, path, method="GET", body=None, headers=None, port=None):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.admin_port, timeout=5 * SLOW)
        try:
            sent = dict(headers or {})
            if method != "GET":
                sent.setdefault("authorization", f"Bearer {self.token}")
            connection.request(method, path, body=body, headers=sent)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def metrics(self):
        status, text = self.admin("/metrics", port=self.metrics_port)
        assert status == 200, text
        return Metrics(text)

    def metric(self, name, **labels):
        return self.metrics().sum(name, **labels)

    def counted(self, wanted, name, **labels):
        """Waits until a metric is `wanted`: a request is counted when it has ended, a moment after its last byte arrived."""
        until(lambda: self.metric(name, **labels) == wanted, f"{name}{labels} to be {wanted}: it is {self.metric(name, **labels)}")
        return True

    def hops(self):
        status, text = self.admin("/hops")
        assert status == 200, text
        rows = json.loads(text)
        return rows["rows"] if isinstance(rows, dict) else rows

    def reload(self, configuration=None, expect="accepted"):
        """Writes a file (or touches the old one) and waits until ephor has said what it thinks of it."""
        before = self.metric("ephor_config_reload_total", result=expect)
        if configuration is not None:
            self.write(configuration)
        self.process.popen.send_signal(signal.SIGHUP)
        until(lambda: self.metric("ephor_config_reload_total", result=expect) > before, f"a reload that is {expect}")

    def rss(self, field="VmRSS"):
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.M)[1]) * 1024

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def idle(self):
        """True when nothing is left of any request."""
        metrics = self.metrics()
        return metrics.sum("ephor_streams_active") == 0 and metrics.sum("ephor_upstream_requests_active") == 0

    def kill(self):
        self.stopped = True
        self.process.end(signal.SIGKILL)

    def stop(self):
        if self.stopped:
            return
        self.stopped = True
        died_before = not self.process.alive()
        code = self.process.end(signal.SIGTERM, 40)
        log = self.log
        report = re.search(r"(ERROR: \w+Sanitizer|runtime error:|WARNING: ThreadSanitizer|Assertion .* failed)", log)
        assert not report, f"{report[0]}\n{log[max(0, report.start() - 500):report.start() + 6000]}"
        assert not died_before, f"ephor died during the test ({code}):\n{log[-4000:]}"
        assert code == 0, f"ephor ended with {code} after SIGTERM:\n{log[-4000:]}"


# --- peers that others wrote --------------------------------------------------------------------------------------------
def nghttpd(directory, document_root, *flags, tls=None):
    port = free_port()
    security = ["--no-tls", str(port)] if tls is None else [str(port), tls.key, tls.certificate]
    name = f"nghttpd-{port}"
    return Process(name, [program("nghttpd"), "-a", "127.0.0.1", "-d", document_root, *flags, *security],
                   directory).wait_port(port), port


NGINX = """
daemon off; master_process off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off; default_type text/plain; keepalive_requests 1000000; client_body_temp_path {dir}/b;
    proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
    server {{ listen 127.0.0.1:{port}; root {root}; {body} }}
}}
"""


def nginx(directory, root, body=""):
    port = free_port()
    home = pathlib.Path(directory) / f"nginx-{port}"
    home.mkdir()
    (home / "nginx.conf").write_text(NGINX.format(dir=home, port=port, root=root, body=body.replace("PORT", str(port))))
    return Process("nginx", [program("nginx"), "-p", home, "-c", home / "nginx.conf"], home).wait_port(port), port


def node(directory, script, *arguments, port=None, modules="tests"):
    """Runs a script beside the tests with the packages of `tests/` or `demo/`."""
    process = Process(f"node-{pathlib.Path(script).stem}", [program("node"), HERE / "node" / script, *arguments], directory,
                      {"EPHOR_MODULES": str(ROOT / modules / "package.json")})
    return process.wait_port(port) if port else process


def node_client(script, *arguments, modules="tests"):
    """Runs a script that tells what it saw in a line of JSON."""
    done = run(program("node"), HERE / "node" / script, *arguments,
               env={**os.environ, "EPHOR_MODULES": str(ROOT / modules / "package.json")})
    return json.loads(done.stdout)


def run(*argv, timeout=60, check=True, **more):
    """A client that runs to its end; its output."""
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, errors="replace", timeout=timeout * SLOW,
                          stdin=subprocess.DEVNULL, **more)
    assert not check or done.returncode == 0, f"{argv} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def curl(*arguments, **more):
    return run(program("curl"), "-sS", "--max-time", str(20 * SLOW), *arguments, **more)


def h2load(port, *arguments, path="/", scheme="http", check=True, timeout=120):
    """Runs h2load and reads its summary: {total, succeeded, failed, errored, timeout, status2xx…}."""
    done = run(program("h2load"), *arguments, f"{scheme}://127.0.0.1:{port}{path}", timeout=timeout)
    text = done.stdout
    counts = re.search(r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, "
                       r"(\d+) timeout", text)
    assert counts, text + done.stderr
    result = dict(zip(("total", "started", "done", "succeeded", "failed", "errored", "timeout"), map(int, counts.groups())))
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    result.update(zip(("2xx", "3xx", "4xx", "5xx"), map(int, codes.groups())))
    result["text"] = text
    if check:
        assert result["failed"] == result["errored"] == result["timeout"] == 0, text
        assert result["succeeded"] == result["total"] == result["2xx"], text
    return result
