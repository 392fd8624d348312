"""The audit: what a client was told is on record, whatever happens to the process or its disk, and nothing can be changed unseen."""
import contextlib
import csv
import io
import json
import os
import subprocess
import threading

import pytest
import wire1
from harness import config, run, until

pytestmark = pytest.mark.workers

DENIALS = int(os.environ.get("EPHOR_DENIALS", "2000"))

GATE = '''
local policy = require "ephor.policy"
return policy { name = "gate", principle = "P3", call = function(c)
  if c.path:find("^/deny") then return c:deny("not through here") end
end }'''
WATCH = '''
local policy = require "ephor.policy"
return policy { name = "watch", mode = "shadow", call = function(c)
  if c.path:find("^/shadow") then return c:deny("one day") end
end }'''


@pytest.fixture
def audited(ephor, h1_server, policies, tmp_path):
    def start(listener=None, directory=None, ready=True, **audit):
        directory = directory or tmp_path / "audit"
        listener = {"tenant": {"header": "X-Tenant-ID"}, **(listener or {})}
        folder = policies(gate=GATE, watch=WATCH)
        proxy = ephor(config(h1_server().port, listener, cluster={"protocol": "http/1.1"}, workers=2,
                             audit={"directory": str(directory), **audit}, policies=folder), ready=ready)
        proxy.audit, proxy.policies = directory, folder
        return proxy
    return start


def records(directory):
    return [json.loads(line) for path in sorted(directory.glob("audit-*.jsonl")) for line in path.read_text().splitlines()]


def verify(proxy, *arguments, check=True):
    return run(proxy.binary, "audit", "verify", *arguments, proxy.audit, check=check)


def deny_until_it_dies(port, seen, count):
    with contextlib.suppress(OSError, wire1.Closed):
        with wire1.connect(port) as wire:
            for _ in range(count):
                r = wire.send("GET /deny HTTP/1.1\r\nHost: t\r\n\r\n").response()
                assert r.status == 403
                seen.append(r.get("x-ephor-decision"))


@pytest.mark.limit(300)
@pytest.mark.parametrize("sync", ["100ms", "always"])
def test_killed_in_the_middle_every_denial_that_was_seen_is_on_record(audited, sync):
    proxy = audited(sync=sync)
    seen = [[] for _ in range(8)]
    clients = [threading.Thread(target=deny_until_it_dies, args=(proxy.port, ids, DENIALS // 8)) for ids in seen]
    for client in clients:
        client.start()
    until(lambda: sum(map(len, seen)) >= DENIALS // 2, "half of the denials", 200)
    proxy.kill()
    for client in clients:
        client.join(60)
    told = {i for ids in seen for i in ids}
    assert DENIALS // 2 <= len(told) <= DENIALS
    again = verify(proxy, check=False)
    if again.returncode == 1:  # the record that was being written: the next start cuts it off and says so
        assert "the record is cut off" in again.stderr
    after = audited(directory=proxy.audit)
    assert wire1.get(after.port, "/deny").status == 403
    assert "the chain is whole" in verify(after).stdout
    assert told <= {r.get("decision_id") for r in records(proxy.audit)}


def test_always_answers_when_the_disk_has_it_and_holds_what_passes_too(audited):
    proxy = audited(sync="always")
    with wire1.connect(proxy.port) as wire:
        for path, status in [("/deny", 403), ("/shadow", 200), ("/public", 200)] * 20:
            assert wire.send(f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n").response().status == status
    until(lambda: proxy.metric("ephor_audit_unsynced_records") == 0, "the gauge")
    decisions = [r["decision"] for r in records(proxy.audit) if r["event"] == "decision"]
    assert decisions.count("deny") == 20 and decisions.count("shadow_deny") == 20


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB of its own: (its directory, fill(), free())."""
    directory = tmp_path / "disk"
    directory.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", directory], check=False).returncode:
        pytest.skip("mounting takes root")

    def fill():
        with open(directory / "filler", "ab", buffering=0) as f, contextlib.suppress(OSError):
            while True:
                f.write(b"x" * 512)

    yield directory, fill, (directory / "filler").unlink
    subprocess.run(["umount", "--lazy", directory], check=True)  # the proxy that writes there is ended after this


def until_full(proxy):
    """Denies until a record could not be written: the file's last page had room left."""
    def failed():
        wire1.get(proxy.port, "/deny")
        return proxy.metric("ephor_audit_records_total", result="failed") > 0
    until(failed, "a full disk")


def test_on_a_full_disk_required_refuses_what_it_cannot_record(audited, small_disk, ephor):
    disk, fill, free = small_disk
    proxy = audited(directory=disk / "audit", required=True)
    assert wire1.get(proxy.port, "/deny").status == 403 and wire1.get(proxy.port, "/shadow").status == 200
    fill()
    until_full(proxy)
    for path in ("/deny", "/shadow"):
        r = wire1.get(proxy.port, path, "Accept: application/json\r\n")
        assert r.status == 503 and json.loads(r.body)["code"] == "audit.unavailable"
    assert wire1.get(proxy.port, "/public").status == 200, "what needs no record passes"
    assert proxy.metric("ephor_refusals_total", code="audit.unavailable", by="audit") >= 2
    until(lambda: proxy.metric("ephor_audit_available") == 0, "the gauge")
    changed = proxy.fill(config(1, access_log={"enabled": False}, audit={"directory": str(proxy.audit), "required": True}))
    proxy.reload(changed, "rejected")
    assert "can't be recorded" in proxy.admin("/config")[1], "nor is a change of ephor that can't be recorded made"
    free()
    r = wire1.get(proxy.port, "/deny")
    assert r.status == 403, "it comes back by itself"
    until(lambda: proxy.metric("ephor_audit_available") == 1, "the gauge")
    assert sum(int(r["records"]) for r in records(proxy.audit) if r["event"] == "lost") >= 3
    proxy.stop()
    assert "the chain is whole" in verify(proxy).stdout


def test_on_a_full_disk_the_others_go_on_and_count(audited, small_disk):
    disk, fill, free = small_disk
    proxy = audited(directory=disk / "audit")
    fill()
    until_full(proxy)
    for _ in range(50):
        assert wire1.get(proxy.port, "/deny").status == 403 and wire1.get(proxy.port, "/shadow").status == 200
    assert proxy.metric("ephor_audit_records_total", result="failed") >= 100
    complaints = [line for line in proxy.log.splitlines() if "can't be written" in line]
    assert 1 <= len(complaints) <= 3, "the log isn't flooded"
    proxy.kill()
    after = audited(directory=proxy.audit)
    assert wire1.get(after.port, "/deny").status == 403, "it starts on a full disk too"
    free()
    assert wire1.get(after.port, "/deny").status == 403
    after.stop()
    assert "the chain is whole" in verify(after).stdout
    assert "lost" in [r["event"] for r in records(proxy.audit)]


CALL = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "shell", "arguments": {}}}


def test_one_id_everywhere_and_a_denial_under_a_200_is_a_denial(audited):
    proxy = audited()
    r = wire1.get(proxy.port, "/deny?token=secret", "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
                  "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nX-Tenant-ID: acme\r\n",
                  method="POST", body=json.dumps(CALL).encode())
    answer = json.loads(r.body)
    assert r.status == 200 and answer["result"]["isError"]
    decision = r.get("x-ephor-decision")
    assert answer["result"]["_meta"]["ephor.dev/refusal"]["decision"] == decision
    proxy.counted(1, "ephor_requests_total", protocol="mcp", code="4xx")
    assert proxy.metric("ephor_requests_total", protocol="mcp", code="2xx") == 0
    until(lambda: decision in proxy.log, "the access log")
    record, = [r for r in records(proxy.audit) if r.get("decision_id") == decision]
    assert record["decision"] == "deny" and record["principle"] == "P3" and record["tool"] == "shell"
    assert record["trace_id"] == "0af7651916cd43dd8448eb211c80319c" and record["tenant_id"] == "acme"
    assert record["metadata"]["path"] == "/deny" and record["metadata"]["direction"] == "inbound"
    assert "secret" not in json.dumps(record)
    assert record["policy_version"] == run(proxy.binary, "policies", "digest", proxy.policies).stdout.strip(), "which text it was"
    shown = run(proxy.binary, "audit", "show", "--json", "--decision-id", decision, proxy.audit)
    assert json.loads(shown.stdout) == record


def test_what_changes_ephor_itself_is_on_record(audited):
    proxy = audited()
    configuration, policies = records(proxy.audit)
    assert configuration["result"] == "accepted" and configuration["generation"] == "1"
    assert policies["by"] == "start" and policies["policy_version"] == json.loads(proxy.admin("/policies")[1])["version"]
    shown = run(proxy.binary, "audit", "show", "--event", "policies", proxy.audit).stdout.splitlines()
    assert shown[1].endswith("accepted by start")
    exported = run(proxy.binary, "audit", "export", "--format", "csv", proxy.audit).stdout
    assert [(r["event"], r["result"], r["by"]) for r in csv.DictReader(io.StringIO(exported))] == [
        ("configuration", "accepted", ""), ("policies", "accepted", "start")]


def test_show_and_export_find_by_what_is_asked(audited):
    proxy = audited()
    for tenant, path in (("acme", "/deny"), ("umbrella", "/deny"), ("acme", "/shadow"), ("=1+1", "/deny")):
        wire1.get(proxy.port, path, f"X-Tenant-ID: {tenant}\r\n")

    def show(*arguments):
        return [json.loads(line) for line in run(proxy.binary, "audit", "show", "--json", *arguments, proxy.audit).stdout.splitlines()]
    assert len(show("--decision", "deny")) == 3
    assert [r["tenant_id"] for r in show("--decision", "*deny", "--tenant", "ac*")] == ["acme", "acme"]
    assert [r["policy"] for r in show("--principle", "P3", "--last", "1")] == ["gate"]
    assert len(show("--policy", "gate", "--since", "1h")) == 3 and not show("--until", "2001-01-01")
    assert not show("--since", "2999")
    table = run(proxy.binary, "audit", "show", "--decision", "shadow_deny", proxy.audit).stdout.splitlines()
    assert len(table) == 2 and "REASON" in table[0] and "watch" in table[1] and "one day" in table[1]
    rows = list(csv.DictReader(io.StringIO(run(proxy.binary, "audit", "export", "--format", "csv", "--event", "decision",
                                               proxy.audit).stdout)))
    assert [r["policy"] for r in rows] == ["gate", "gate", "watch", "gate"]
    assert json.loads(rows[0]["metadata"])["listener"] == "inbound"
    assert rows[3]["tenant_id"] == "'=1+1", "spreadsheets run what begins like that"
    assert run(proxy.binary, "audit", "show", "--since", "soon", proxy.audit, check=False).returncode == 2
    assert run(proxy.binary, "audit", "show", proxy.audit / "nowhere", check=False).returncode == 3


def test_what_was_changed_is_found_by_line_and_never_written_over(audited):
    proxy = audited()
    for _ in range(5):
        wire1.get(proxy.port, "/deny")
    proxy.stop()
    log, = proxy.audit.glob("audit-*.jsonl")
    text = log.read_text()
    log.write_text(text.replace("not through here", "come on through ", 2).replace("come on through ", "not through here", 1))
    failed = verify(proxy, check=False)
    assert failed.returncode == 1 and f"{log}:4: the record was changed" in failed.stderr
    shown = run(proxy.binary, "audit", "show", proxy.audit, check=False)
    assert shown.returncode == 1 and f"{log}:4:" in shown.stderr and "come on through" in shown.stdout
    log.write_text("".join(text.splitlines(True)[:-2]))
    assert "records 6 to 7 are missing behind it, at the end" in verify(proxy, check=False).stderr
    assert run(proxy.binary, "run", "-c", proxy.path, check=False, timeout=20).returncode == 3, "evidence isn't built upon"
    log.write_text(text)
    assert "7 records" in verify(proxy).stdout
    assert "Not a directory" in run(proxy.binary, "audit", "verify", log, check=False).stderr
    for path in proxy.audit.iterdir():
        path.unlink()
    failed = verify(proxy, check=False)
    assert failed.returncode == 1 and "there is no record" in failed.stderr


def test_the_head_is_signed_and_the_key_tells(audited, tmp_path):
    key = tmp_path / "audit.pem"
    run("openssl", "genpkey", "-algorithm", "ed25519", "-out", key)
    proxy = audited(sign=str(key))
    public = run(proxy.binary, "constitution", "keygen", "--public", key).stdout.strip()
    assert wire1.get(proxy.port, "/deny").status == 403
    proxy.stop()
    assert "its head is signed" in verify(proxy, "--key", public).stdout
    other = run(proxy.binary, "constitution", "keygen", tmp_path / "other.pem").stdout.strip()
    assert "not of this key" in verify(proxy, "--key", other, check=False).stderr
