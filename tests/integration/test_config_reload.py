"""Configuration: what `ephor check` says, and files that change while requests run."""
import os
import signal
import subprocess
import threading

import harness
import pytest
import wire1
import yaml
from harness import Ephor, config, free_port, h2load, nghttpd, until

pytestmark = pytest.mark.workers

GOOD = """\
listeners:
  - {name: inbound, bind: 127.0.0.1:8443, cluster: app}
clusters:
  - {name: app, endpoints: [127.0.0.1:8080]}
"""


def check(tmp_path, *texts):
    paths = []
    for number, text in enumerate(texts):
        path = tmp_path / f"file{number}.yaml"
        path.write_text(text)
        paths.append(path)
    binary = os.environ.get("EPHOR_BIN", str(harness.ROOT / "build/release/ephor"))
    return subprocess.run([binary, "check", *paths], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)


def test_a_good_file_is_good_and_is_printed_whole(tmp_path):
    done = check(tmp_path, GOOD)
    assert done.returncode == 0, done.stderr
    printed = yaml.safe_load(done.stdout)
    assert printed["clusters"][0]["name"] == "app" and printed["listeners"][0]["tls"] == "off"
    again = check(tmp_path, done.stdout)
    assert again.returncode == 0 and yaml.safe_load(again.stdout) == printed, "what is printed is a configuration itself"


# name: the file, line of the error, what must be in the message
BROKEN = {
    "not YAML": ("listeners: [\n", 1, []),
    "unknown key": (GOOD.replace("cluster: app", "clustr: app"), 2, ["clustr", "cluster"]),
    "unknown section": (GOOD + "listener: []\n", 5, ["listener", "listeners"]),
    "wrong type": (GOOD.replace("endpoints: [127.0.0.1:8080]", "endpoints: 3"), 4, ["endpoints"]),
    "dangling cluster": (GOOD.replace("cluster: app", "cluster: aqp"), 2, ["aqp", "app"]),
    "unknown value": (GOOD.replace("cluster: app}", "cluster: app, tls: strikt}"), 2, ["strikt", "strict"]),
    "bad duration": (GOOD.replace("cluster: app}", "cluster: app, idle_timeout: 5 lightyears}"), 2, ["idle_timeout"]),
    "bad address": (GOOD.replace("127.0.0.1:8443", "127.0.0.1:99999"), 2, ["99999"]),
    "out of range": (GOOD.replace("8080]}", "8080], limits: {connections: -5}}"), 4, ["connections"]),
    "no name": (GOOD.replace("name: app, ", ""), 4, ["name"]),
    "two of one name": (GOOD + "  - {name: app, endpoints: [127.0.0.1:8081]}\n", 5, ["app"]),
    "key given twice": (GOOD + "clusters: []\n", 5, ["clusters"]),
    "strict without identity": (GOOD.replace("cluster: app}", "cluster: app, tls: strict}"), 2, ["identity"]),
    "unknown filter": (GOOD.replace("cluster: app}", "cluster: app, filters: [agnet]}"), 2, ["agnet", "agent"]),
}


def test_scripts_are_loaded_and_told_by_line(tmp_path):
    def with_script(lua, route=""):
        return check(tmp_path, GOOD.replace("cluster: app}", f"cluster: app, filters: [{{lua: {lua}}}]{route}}}"))
    script = tmp_path / "a.lua"
    script.write_text("function envoy_on_request(handle)\nend\n")
    good = with_script(f"{{file: {script}}}")
    assert good.returncode == 0 and '"topic"' not in good.stderr, good.stderr
    script.write_text("function envoy_on_request(\n")
    broken = with_script(f"{{file: {script}}}")
    assert broken.returncode == 1 and "file0.yaml:2:" in broken.stderr and "a.lua:2: " in broken.stderr
    assert "1 error" in broken.stderr and broken.stdout == ""
    absent = with_script(f"{{file: {tmp_path}/nowhere.lua}}")
    assert absent.returncode == 0 and "nowhere.lua here, so this script was not looked at" in absent.stderr
    route = ", routes: [{cluster: app, scripts: {lua: strict}}]"
    other = with_script(f"{{inline: x = 1, sources: {{mild: y = 1}}}}", route)
    assert other.returncode == 1 and "strict" in other.stderr and "file0.yaml:2:" in other.stderr


@pytest.mark.parametrize("row", BROKEN)
def test_a_broken_file_is_told_by_line_and_meaning(tmp_path, row):
    text, line, words = BROKEN[row]
    done = check(tmp_path, text)
    told = done.stdout + done.stderr
    assert done.returncode == 1, told
    assert f"file0.yaml:{line}:" in told, told
    for word in words:
        assert word in told, told


def test_all_errors_are_told_at_once(tmp_path):
    text = GOOD.replace("cluster: app}", "clustr: app, tls: strikt}").replace("8080]", "99999]")
    done = check(tmp_path, text)
    told = done.stdout + done.stderr
    assert "clustr" in told and "strikt" in told and "99999" in told


def test_the_environment_is_expanded(tmp_path, ephor, h1_server):
    server = h1_server()
    proxy = ephor(config("${UPSTREAM}"), env={"UPSTREAM": f"127.0.0.1:{server.port}"})
    assert wire1.get(proxy.port).status == 200


def test_run_refuses_a_broken_file_with_1(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text(GOOD.replace("cluster: app", "clustr: app"))
    binary = os.environ.get("EPHOR_BIN", str(harness.ROOT / "build/release/ephor"))
    done = subprocess.run([binary, "run", "-c", path], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and "clustr" in done.stdout + done.stderr


# --- reload -------------------------------------------------------------------------------------------------------------
def test_a_changed_file_is_taken_up_by_itself(ephor, h1_server):
    one, two = h1_server(), h1_server()
    proxy = ephor(config(one.port))
    assert wire1.get(proxy.port).status == 200 and one.requests
    proxy.write(config(two.port))
    until(lambda: wire1.get(proxy.port).status == 200 and two.requests, "the new upstream")


def test_a_broken_file_keeps_the_old_one_and_says_so(ephor, h1_server):
    proxy = ephor(config(h1_server().port))
    proxy.write("listeners: [\n")
    until(lambda: proxy.metric("ephor_config_reload_total", result="rejected") >= 1, "the rejection")
    assert wire1.get(proxy.port).status == 200
    assert "ephor.yaml:" in proxy.admin("/config")[1], "/config shows the error"


def test_listeners_come_and_go(ephor, h1_server):
    server = h1_server()
    proxy = ephor(config(server.port))
    more = config(server.port)
    extra = free_port()
    more["listeners"].append({"name": "second", "bind": f"127.0.0.1:{extra}", "cluster": "app"})
    proxy.reload(more)
    until(lambda: harness.accepts(extra), "the second listener")
    assert wire1.get(extra).status == 200 and wire1.get(proxy.port).status == 200
    proxy.reload(config(server.port))
    until(lambda: not harness.accepts(extra), "the second listener to be gone")
    assert wire1.get(proxy.port).status == 200


def test_a_stream_ends_under_the_configuration_that_it_began_with(ephor, h1_server):
    go = threading.Event()

    def slow(wire, request):
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        go.wait(20)
        wire.send("3\r\ntwo\r\n0\r\n\r\n")
    old, new = h1_server(slow), h1_server()
    proxy = ephor(config(old.port, cluster={"protocol": "http/1.1"}))
    with wire1.connect(proxy.port) as wire:
        wire.send("GET /long HTTP/1.1\r\nHost: t\r\n\r\n").head()
        chunks = wire.chunks()
        assert next(chunks) == b"one"
        proxy.reload(config(new.port, cluster={"protocol": "http/1.1"}))
        assert wire1.get(proxy.port).get("x-method") == "GET", "new requests go the new way"
        go.set()
        assert next(chunks) == b"two"


class Mounted(Ephor):
    """Its file lies in a folder as the kubelet mounts a ConfigMap: ephor.yaml → ..data/ephor.yaml, ..data → ..N; a new
    version is a new folder, and ..data renamed over the old link."""
    versions = 0

    def write(self, configuration):
        mount = self.directory / "mount"
        self.versions += 1
        version = mount / f"..{self.versions}"
        version.mkdir(parents=True)
        (version / "ephor.yaml").write_text(yaml.safe_dump(self.fill(configuration)))
        (mount / "..tmp").symlink_to(version.name)
        os.replace(mount / "..tmp", mount / "..data")
        self.path = mount / "ephor.yaml"
        if not self.path.is_symlink():
            self.path.symlink_to("..data/ephor.yaml")


def test_a_mounted_configmap_is_watched(tmp_path, h1_server):
    one, two = h1_server(), h1_server()
    proxy = Mounted(config(one.port), tmp_path / "mounted")
    try:
        assert wire1.get(proxy.port).status == 200 and one.requests
        proxy.write(config(two.port))
        until(lambda: wire1.get(proxy.port).status == 200 and two.requests, "the swapped configuration")
    finally:
        proxy.stop()


def test_a_file_that_is_gone_is_told(ephor, h1_server):
    proxy = ephor(config(h1_server().port))
    text = proxy.path.read_text()
    proxy.path.unlink()
    until(lambda: f"{proxy.path}: No such file or directory; generation 1 stays" in proxy.log, "the warning")
    assert wire1.get(proxy.port).status == 200
    proxy.path.write_text(text)
    until(lambda: proxy.metric("ephor_config_reload_total", result="unchanged") == 1, "the same file seen again")


@pytest.mark.limit(150)
def test_a_hundred_reloads_under_load_fail_nothing(ephor, process, tmp_path, site):
    _, port = process(nghttpd(tmp_path, site))
    variants = [config(port, cluster={"protocol": "h2", "balance": balance}) for balance in ("round_robin", "least_request")]
    for variant in variants:
        variant["workers"] = 2
    proxy = ephor(variants[0])
    stop = threading.Event()
    results = []

    def load():
        while not stop.is_set():
            results.append(h2load(proxy.port, "-n", "5000", "-c", "8", "-m", "10", path="/small", check=False))
    thread = threading.Thread(target=load)
    thread.start()
    try:
        for number in range(100):
            proxy.reload(variants[(number + 1) % 2])
    finally:
        stop.set()
        thread.join()
    assert sum(r["total"] for r in results) > 0
    for r in results:
        assert r["succeeded"] == r["total"] == r["2xx"], r["text"]
    until(proxy.idle, "no stream left")


def test_sighup_reads_the_file_again(ephor, h1_server):
    proxy = ephor(config(h1_server().port))
    before = proxy.metric("ephor_config_reload_total")
    proxy.process.popen.send_signal(signal.SIGHUP)
    until(lambda: proxy.metric("ephor_config_reload_total") > before, "a reload to be counted")
