"""The life of a policy: watched, checked off the data path, swapped, refused, on trial, rolled back, kept over restarts.

EPHOR_RELOADS sets how many versions the test under load takes up (100; 1,000 is the long one)."""
import json
import os
import pathlib
import shutil
import subprocess
import threading

import pytest
import wire1
from harness import SANITIZED, config, h2load, nghttpd, until

RELOADS = int(os.environ.get("EPHOR_RELOADS", "20" if SANITIZED else "100"))


def policy(name, body, more=""):
    return f'local policy = require "ephor.policy"\nreturn policy {{ name = "{name}", {more} call = function(c) {body} end }}\n'


def gate(path, more=""):
    """Refuses one path."""
    return policy("gate", f'if c.path:find("^/{path}") then return c:deny("not {path}") end', more)


class Life:
    def __init__(self, ephor, proxy, directory, state):
        self.ephor, self.proxy, self.directory, self.state = ephor, proxy, directory, state

    def write(self, text, name="gate.lua"):
        """As an editor does: beside, and renamed."""
        temporary = self.directory / f".{name}.new"
        temporary.write_text(text)
        os.replace(temporary, self.directory / name)

    def status(self, path):
        return wire1.get(self.proxy.port, path).status

    def enforces(self, path):
        until(lambda: self.status(f"/{path}") == 403, f"/{path} to be refused")

    def policies(self):
        status, text = self.proxy.admin("/policies")
        assert status == 200, text
        return json.loads(text)

    def policy(self, name="gate"):
        return next(p for p in self.policies()["workers"][0]["policies"] if p["name"] == name)

    def refused(self, *words):
        until(lambda: "refused" in self.policies(), "the refusal")
        error = self.policies()["refused"]["error"]
        for word in words:
            assert word in error, error
        assert self.proxy.metric("ephor_policies_refused") == 1
        return error

    def good_again(self):
        until(lambda: "refused" not in self.policies(), "nothing to be refused")
        assert self.proxy.metric("ephor_policies_refused") == 0

    def restart(self):
        """The same configuration, directories and ports in a new process."""
        before = self.proxy
        before.stop()
        self.proxy = self.ephor(before.path.read_text(), ready=False)
        self.proxy.admin_port, self.proxy.metrics_port, self.proxy.ports = before.admin_port, before.metrics_port, before.ports
        self.proxy.wait_ready()

    def command(self, *arguments):
        """`ephor policies`"""
        return subprocess.run([self.proxy.binary, "policies", *arguments, "--admin", f"127.0.0.1:{self.proxy.admin_port}"],
                              capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)

    def counted(self, result, n=1):
        until(lambda: self.proxy.metric("ephor_policy_reload_total", result=result) >= n, f"{n} {result}")


@pytest.fixture
def life(ephor, h1_server, tmp_path):
    """life(): a proxy with one policy, which refuses /a."""
    def start(text=None, settings=None, state=True, directory=None, **top):
        folder = directory or tmp_path / "policies"
        folder.mkdir(exist_ok=True)
        if text is not False:
            (folder / "gate.lua").write_text(text or gate("a"))
        kept = tmp_path / "state"
        more = {"state": str(kept)} if state else {}
        proxy = ephor(config(h1_server().port, cluster={"protocol": "http/1.1"},
                             policies={"directory": str(folder), **(settings or {})}, **more, **top))
        return Life(ephor, proxy, folder, kept)
    return start


# --- taking up, refusing ------------------------------------------------------------------------------------------------
def test_a_changed_file_is_taken_up_and_told(life):
    it = life()
    assert it.status("/a") == 403
    before = it.policies()["version"]
    it.write(gate("b"))
    it.enforces("b")
    assert it.status("/a") == 200
    now = it.policies()
    assert now["version"] != before and now["rolled_back"] is False
    assert [v["digest"] for v in now["versions"]] == [now["version"], before]


def test_a_mounted_configmap_is_swapped(life, tmp_path):
    mount = tmp_path / "mount"
    mount.mkdir()

    def version(number, text):
        folder = mount / f"..{number}"
        folder.mkdir()
        (folder / "gate.lua").write_text(text)
        (mount / "..tmp").symlink_to(folder.name)
        os.replace(mount / "..tmp", mount / "..data")
    version(1, gate("a"))
    (mount / "gate.lua").symlink_to("..data/gate.lua")
    it = life(False, directory=mount)
    assert it.status("/a") == 403
    for number in range(2, 6):
        version(number, gate(f"v{number}"))
        it.enforces(f"v{number}")
        shutil.rmtree(mount / f"..{number - 1}")


def test_a_version_that_is_no_good_is_refused_and_told_and_the_old_one_stays(life):
    it = life()
    it.write("this is no Lua (")
    error = it.refused("gate.lua:1:", "syntax error")
    since = it.policies()["refused"]["since"]
    assert it.status("/a") == 403
    assert it.proxy.metric("ephor_policy_reload_total", result="rejected") == 1
    assert error in it.proxy.log
    shown = it.command()
    assert shown.returncode == 0 and f"was refused, and the version before it stays: {it.policies()['refused']['error']}" in shown.stdout
    it.write("this is no Lua at all (")
    until(lambda: it.proxy.metric("ephor_policy_reload_total", result="rejected") >= 2, "the second refusal")
    assert it.policies()["refused"]["since"] >= since
    it.write(gate("a"))
    it.good_again()
    assert it.status("/a") == 403


def test_the_old_text_stays_when_the_configuration_is_another_meanwhile(life, h1_server):
    it = life()
    it.write("return 1")
    it.refused("must return policy")
    other = h1_server()
    again = config(other.port, cluster={"protocol": "http/1.1"}, policies={"directory": str(it.directory)}, state=str(it.state))
    it.proxy.reload(again)
    assert it.status("/b") == 200 and other.requests, "the new configuration is in force"
    assert it.status("/a") == 403, "with the old policies"
    it.refused("must return policy")


def test_a_policy_that_a_listener_can_not_have_is_refused_by_its_workers(life, h1_server):
    it = life()
    narrow = config(h1_server().port, {"filters": ["policies"]}, policies={"directory": str(it.directory)}, state=str(it.state))
    it.proxy.reload(narrow)
    it.write(policy("gate", 'return c:deny("x")', 'match = { tool = "shell" },'))
    it.refused("agent")
    assert it.status("/a") == 403


def case(path, verdict):
    return f"""local t = require "ephor.test"
t.case("{path}", function() t.{verdict}(t.call {{ path = "/{path}" }}) end)
"""


def test_a_version_whose_tests_fail_is_refused_while_requests_go_on(life, tmp_path):
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "gate_test.lua").write_text(case("a", "denied"))
    it = life(settings={"require_tests": True})
    it.write(gate("b"))
    it.refused("1 of 1 tests fail", "gate_test.lua")
    assert it.status("/a") == 403
    it.write(case("b", "denied"), "gate_test.lua")
    it.enforces("b")
    it.good_again()
    it.write('local t = require "ephor.test"\nt.case("slow", function() while true do end end)\n', "slow_test.lua")
    until(lambda: it.policies()["checking"] or "refused" in it.policies(), "the check to begin")
    assert it.status("/b") == 403 and it.proxy.admin("/live")[0] == 200
    it.refused("slow_test.lua")


def test_two_changes_in_one_burst_end_with_the_second(life):
    it = life()
    for number in range(20):
        it.write(gate(f"n{number}"))
        it.write("broken (")
        it.write(gate(f"m{number}"))
    it.enforces("m19")
    until(lambda: not it.policies()["checking"] and "refused" not in it.policies(), "peace")
    assert it.status("/n19") == 200 and it.status("/a") == 200


# --- directories that are odd -------------------------------------------------------------------------------------------
def test_a_directory_that_vanishes_changes_nothing_and_is_watched_when_it_is_back(life):
    it = life()
    moved = it.directory.with_name("elsewhere")
    os.replace(it.directory, moved)
    it.refused("No such file")
    assert it.status("/a") == 403
    os.replace(moved, it.directory)
    it.good_again()
    it.write(gate("b"))
    it.enforces("b")
    shutil.rmtree(it.directory)
    it.refused("No such file")
    it.directory.mkdir()
    (it.directory / "gate.lua").write_text(gate("c"))
    it.enforces("c")


def loop(directory):
    (directory / "x.lua").symlink_to("y.lua")
    (directory / "y.lua").symlink_to("x.lua")


def ten_thousand(directory):
    for number in range(10_000):
        (directory / f"p{number}.lua").write_text("return nil\n")


ODD = {
    "a loop of links": (loop, ["symbolic links"]),
    "a link to nothing": (lambda d: (d / "x.lua").symlink_to("nothing"), ["x.lua", "No such file"]),
    "a folder of that name": (lambda d: (d / "x.lua").mkdir(), ["x.lua", "not a regular file"]),
    "a FIFO": (lambda d: os.mkfifo(d / "x.lua"), ["x.lua", "not a regular file"]),
    "10 MiB": (lambda d: (d / "x.lua").write_text("--" + "x" * (10 << 20)), ["x.lua", "larger than 1024 KiB"]),
    "10,000 files": (ten_thousand, ["more than 1024 files"]),
    "a name with a newline": (lambda d: (d / "x\ny.lua").write_text(""), ["control characters"]),
    "bytecode": (lambda d: (d / "x.lua").write_bytes(b"\x1bLua"), ["x.lua", "binary chunk"]),
    "endless": (lambda d: (d / "x.lua").write_text("while true do end"), ["x.lua", "budget"]),
    "the same name twice": (lambda d: (d / "x.lua").write_text(gate("x")), ["'gate' is taken by gate.lua"]),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_directory_is_refused_and_the_old_one_stays(life, name):
    make, words = ODD[name]
    it = life()
    make(it.directory)
    (it.directory / "last.lua").write_text(policy("last", ""))  # a folder or a link alone is told by no event
    it.refused(*words)
    assert it.status("/a") == 403 and it.status("/b") == 200


def test_folders_and_links_to_them_do_no_harm(life):
    it = life()
    (it.directory / "sub").mkdir()
    (it.directory / "sub" / "words.lua").write_text('return { "b" }\n')
    (it.directory / "sub" / "up").symlink_to("..")
    it.write(policy("gate", 'if c.path == "/" .. require("sub.words")[1] then return c:deny("b") end'))
    it.enforces("b")
    shutil.rmtree(it.directory / "sub")
    assert it.status("/b") == 403, "what runs reads no file"


# --- versions and going back --------------------------------------------------------------------------------------------
def test_rollback_goes_back_until_the_directory_changes_and_survives_a_restart(life, tmp_path):
    audit = tmp_path / "audit"
    it = life(audit={"directory": str(audit)})
    for name in ("b", "c"):
        it.write(gate(name))
        it.enforces(name)
    status, text = it.proxy.admin("/policies/rollback?steps=2", "POST")
    assert status == 200, text
    assert it.status("/a") == 403 and it.status("/c") == 200
    told = it.policies()
    assert told["rolled_back"] is True and [v["in_force"] for v in told["versions"]] == [False, False, True]
    assert it.proxy.metric("ephor_policy_rollbacks_total", reason="asked") == 1
    it.proxy.reload()
    assert it.status("/a") == 403, "a reload of the configuration doesn't end it"

    it.restart()
    assert it.status("/a") == 403 and it.policies()["rolled_back"] is True
    it.write(gate("d"))
    it.enforces("d")
    assert it.policies()["rolled_back"] is False
    records = [json.loads(line) for path in sorted(audit.glob("*.jsonl")) for line in path.read_text().splitlines()]
    mine = [r for r in records if r["event"] == "policies"]
    assert [r["result"] for r in mine] == ["accepted", "accepted", "accepted", "rollback", "kept", "accepted"]
    assert mine[3]["by"].startswith("admin 127.0.0.1:") and mine[3]["reason"] == "asked"


def test_rollback_says_what_it_can_not_do(life):
    it = life(state=False)
    assert it.proxy.admin("/policies/rollback", "POST")[0] == 409
    it.write(gate("b"))
    it.enforces("b")
    assert it.proxy.admin("/policies/rollback?steps=0", "POST")[0] == 400
    assert it.proxy.admin("/policies/rollback?steps=2", "POST")[0] == 409
    assert it.proxy.admin("/policies/rollback?steps=1", "POST", headers={"authorization": "Bearer wrong"})[0] == 401
    assert it.proxy.admin("/policies/rollback?steps=1", "POST")[0] == 200
    assert it.status("/a") == 403, "in memory too"


def test_the_command_line_goes_back(life):
    it = life()
    it.write(gate("b"))
    it.enforces("b")
    done = it.command("rollback")
    assert done.returncode == 1 and "token" in done.stderr
    done = it.command("rollback", "--token", it.proxy.token)
    assert done.returncode == 0, done.stderr
    assert it.status("/a") == 403
    done = it.command("rollback", "3", "--token", it.proxy.token)
    assert done.returncode == 1 and "no version before" in done.stderr
    assert it.command("rollback", "x").returncode == 2 and it.command("roll").returncode == 2
    assert it.command("digest").returncode == 2 and it.command("digest", it.directory / "nowhere").returncode == 3
    assert it.command("digest", it.directory).stdout.strip() == it.policies()["versions"][0]["digest"]


def test_ten_versions_are_kept(life):
    it = life()
    for number in range(12):
        it.write(gate(f"n{number}_"))
        it.enforces(f"n{number}_")
    assert len(it.policies()["versions"]) == 10
    kept = [p for p in (it.state / "policies").iterdir() if p.name[0] == "0"]
    assert len(kept) == 10
    assert it.proxy.admin("/policies/rollback?steps=9", "POST")[0] == 200
    assert it.status("/n2_") == 403


def test_a_restart_over_a_broken_directory_runs_what_was_in_force(life):
    it = life()
    it.proxy.kill()
    it.write("broken (")
    it.restart()
    assert it.status("/a") == 403
    it.refused("gate.lua:1:")


@pytest.mark.limit(120)
def test_kill_9_in_the_middle_of_swaps_leaves_a_state_that_starts(life):
    it = life()
    for round_ in range(8):
        for number in range(30):
            it.write(gate(f"r{round_}_{number}_"))
            it.status("/")
        for _ in range(10 * round_):  # so that it ends now here, now there
            it.policies()
        it.proxy.kill()
        it.restart()
        assert it.status(f"/r{round_}_29_") == 403, "a start runs what the directory has"
        assert "damaged" not in it.proxy.log
        assert 1 <= len(it.policies()["versions"]) <= 10


# --- by itself ----------------------------------------------------------------------------------------------------------
def drive(it, path, n):
    for _ in range(n):
        it.status(path)


@pytest.mark.parametrize("kind", ["denials", "errors"])
def test_a_version_that_does_worse_is_taken_back(life, kind):
    it = life(settings={"rollback": {"errors": "5%", "denials": "20%", "window": "20s", "minimum": 20}})
    drive(it, "/good", 30)
    it.write(policy("gate", 'return c:deny("all")' if kind == "denials" else 'error("oops")'))
    until(lambda: it.status("/good") != 200, "the new version")
    until(lambda: it.status("/good") == 200, "the version before")
    assert it.status("/a") == 403
    told = it.policies()
    assert told["rolled_back"] is True and told["compared"] is False
    assert it.proxy.metric("ephor_policy_rollbacks_total", reason=kind) == 1
    worse = next(v for v in told["versions"] if not v["in_force"])
    assert worse["denied" if kind == "denials" else "failed"] >= 20
    it.write(gate("b"))
    it.enforces("b")


def test_a_version_that_does_as_well_stays(life):
    it = life(settings={"rollback": {"window": "1s", "minimum": 10}})
    for _ in range(20):
        it.status("/good")
        it.status("/a")
    it.write(gate("b"))
    it.enforces("b")
    for _ in range(20):
        it.status("/good")
        it.status("/b")

    def compared():
        it.status("/good")
        it.status("/b")
        return it.policies()["compared"]
    until(lambda: not compared(), "the end of the window")
    drive(it, "/b", 40)
    assert it.status("/b") == 403 and it.policies()["rolled_back"] is False
    assert it.proxy.metric("ephor_policy_rollbacks_total") == 0


# --- in shadow ----------------------------------------------------------------------------------------------------------
def test_a_new_policy_is_a_shadow_for_its_time_and_then_enforces_by_itself(life, tmp_path):
    audit = tmp_path / "audit"
    it = life(settings={"shadow_for": "3s"}, audit={"directory": str(audit)})
    told = it.policy()
    assert told["mode"] == "shadow" and "enforces_at" in told
    assert it.proxy.metric("ephor_policies", state="trial") == 1
    assert it.status("/a") == 200
    until(lambda: it.policy()["shadow_deny"] == 1, "the shadow to be counted")
    assert it.policy()["would_deny_percent"] == 100
    told = it.command().stdout
    assert "! gate is a shadow, and would have denied 100% of what it matched" in told and "! gate is a shadow until 2" in told
    it.enforces("a")
    assert "enforces_at" not in it.policy() and it.policy()["mode"] == "enforce"
    assert it.proxy.metric("ephor_policies", state="enforced") == 1
    assert any(json.loads(line).get("result") == "enforced" for path in audit.glob("*.jsonl")
               for line in path.read_text().splitlines())


def test_the_time_in_shadow_goes_on_over_a_restart(life):
    it = life(settings={"shadow_for": "1h"})
    at = it.policy()["enforces_at"]
    it.restart()
    assert it.policy()["enforces_at"] == at
    it.proxy.kill()
    seen = it.state / "policies" / "seen"
    seconds, rest = seen.read_text().split(" ", 1)
    seen.write_text(f"{int(seconds) - 3600} {rest}")
    it.restart()
    assert it.status("/a") == 403


@pytest.mark.parametrize("changes", [True, False])
def test_a_changed_policy_is_new_or_not(life, h1_server, changes):
    it = life()  # known before shadow_for was
    trial = config(h1_server().port, policies={"directory": str(it.directory), "shadow_for": "1h", "shadow_changes": changes},
                   state=str(it.state))
    it.proxy.reload(trial)
    assert it.status("/a") == 403
    it.write(gate("b"))
    it.counted("accepted", 2)
    assert it.status("/b") == (200 if changes else 403)
    it.write(policy("other", 'return c:deny("all")'), "other.lua")
    it.counted("accepted", 3)
    assert it.status("/c") == 200, "a new name is new in any case"


def test_a_share_of_the_callers_is_enforced_and_always_the_same(life):
    it = life(policy("gate", 'return c:deny("no")', "enforce_percent = 30,"))
    wire = [f"Traceparent: 00-{number:032x}-00f067aa0ba902b7-01\r\n" for number in range(1, 201)]
    once = [wire1.get(it.proxy.port, "/x", header).status for header in wire]
    again = [wire1.get(it.proxy.port, "/x", header).status for header in wire]
    assert once == again
    assert 30 <= once.count(403) <= 90 and once.count(403) + once.count(200) == 200
    until(lambda: it.policy()["deny"] + it.policy()["shadow_deny"] == 400, "all to be counted")
    assert it.policy()["deny"] == 2 * once.count(403) and it.policy()["enforce_percent"] == 30


def test_the_configuration_enforces_a_share_too(life, h1_server):
    it = life(policy("gate", 'return c:deny("no")'), settings={"enforce": "50%"})
    shares = [wire1.get(it.proxy.port, "/x", f"Traceparent: 00-{n:032x}-00f067aa0ba902b7-01\r\n").status for n in range(1, 101)]
    assert 25 <= shares.count(403) <= 75
    it.proxy.reload(config(h1_server().port, policies={"directory": str(it.directory)}, state=str(it.state)))
    assert it.status("/x") == 403


# --- the configuration --------------------------------------------------------------------------------------------------
CHECKS = {
    "shadow_for without state": ({"shadow_for": "7d"}, ["shadow_for", "state"]),
    "a share of nothing": ({"enforce": "0%"}, ["enforce"]),
    "a slip": ({"rollback": {"denial": "5%"}}, ["denial", "denials"]),
    "a window too short": ({"rollback": {"window": "1ms"}}, ["window"]),
}


@pytest.mark.parametrize("name", CHECKS)
def test_check_says_what_is_wrong(tmp_path, name):
    settings, words = CHECKS[name]
    path = tmp_path / "ephor.yaml"
    path.write_text(json.dumps(config(8080, {"bind": "127.0.0.1:8443"}, policies={"directory": "/tmp", **settings})))
    binary = os.environ.get("EPHOR_BIN", str(pathlib.Path(__file__).resolve().parents[2] / "build/release/ephor"))
    done = subprocess.run([binary, "check", path], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)
    assert done.returncode == 1
    for word in words:
        assert word in done.stderr, done.stderr


# --- under load ---------------------------------------------------------------------------------------------------------
@pytest.mark.limit(1800)
@pytest.mark.workers
def test_reloads_under_load_fail_nothing_and_leave_nothing(ephor, process, tmp_path, site):
    _, port = process(nghttpd(tmp_path, site))
    directory = tmp_path / "policies"
    directory.mkdir()

    def write(number):
        """Twenty policies, of which one is new."""
        (directory / ".new").write_text(gate(f"n{number}_", 'match = { path = "/*" },'))
        os.replace(directory / ".new", directory / "gate.lua")
    for number in range(19):
        (directory / f"rule{number}.lua").write_text(policy(f"rule{number}", f'if c.headers["x-{number}"] then c:tag("a", 1) end'))
    write(0)
    proxy = ephor({**config(port, cluster={"protocol": "h2"}), "workers": 2, "state": str(tmp_path / "state"),
                   "policies": {"directory": str(directory), "budget": {"time": "1s"}}})  # a busy machine interrupts for more than 5 ms
    stop, results = threading.Event(), []

    def load():
        while not stop.is_set():
            results.append(h2load(proxy.port, "-n", "3000", "-c", "8", "-m", "10", path="/small", check=False))

    def swap(first, count):
        for number in range(first, first + count):
            write(number)
            until(lambda: proxy.metric("ephor_policy_reload_total", result="accepted") > number, f"version {number}", 30)
    thread = threading.Thread(target=load)
    thread.start()
    try:
        swap(1, RELOADS // 4)  # what is kept for later is there by now: ten versions, both states
        rss, lua = proxy.rss("RssAnon"), proxy.metric("ephor_lua_memory_bytes")
        swap(1 + RELOADS // 4, RELOADS - RELOADS // 4)
        after, lua_after = proxy.rss("RssAnon"), proxy.metric("ephor_lua_memory_bytes")
    finally:
        stop.set()
        thread.join()
    total = sum(r["total"] for r in results)
    print(f"\n{RELOADS} reloads, {total} requests; RssAnon {rss >> 10} -> {after >> 10} KiB, Lua {lua / 1024:.0f} -> "
          f"{lua_after / 1024:.0f} KiB")
    assert total > 0
    for r in results:
        assert r["succeeded"] == r["total"] == r["2xx"], r["text"]
    until(proxy.idle, "no stream left")
    assert wire1.get(proxy.port, f"/n{RELOADS}_").status == 403, "the last one is in force"
    assert lua_after < lua * 1.3 + (1 << 20)
    if not SANITIZED:
        assert after <= rss + (2 << 20), (rss, after)
