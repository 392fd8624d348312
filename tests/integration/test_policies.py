"""Policies from a directory and the constitution: allow, deny, shadow, errors, budgets, reload."""
import json
import os

import pytest
import wire1
from harness import HASH, config, until


def policy(name, body, more=""):
    return f'local policy = require "ephor.policy"\nreturn policy {{ name = "{name}", {more} call = function(c) {body} end }}\n'


@pytest.fixture
def guarded(ephor, h1_server, policies):
    def start(listener=None, **scripts):
        server = h1_server()
        proxy = ephor(config(server.port, listener, cluster={"protocol": "http/1.1"}, policies=policies(**scripts)))
        proxy.server = server
        return proxy
    return start


def test_a_policy_denies_by_path_and_the_refusal_says_why(guarded):
    proxy = guarded(no_admin=policy("no-admin", 'if c.path:find("^/admin") then return c:deny("not for you") end'))
    assert wire1.get(proxy.port, "/public").status == 200
    r = wire1.get(proxy.port, "/admin/x", "Accept: application/json\r\n")
    assert r.status == 403 and "problem+json" in r.get("content-type") and b"not for you" in r.body
    assert [q.path for q in proxy.server.requests] == ["/public"]
    proxy.counted(1, "ephor_policy_decisions_total", policy="no-admin", decision="deny")
    proxy.counted(1, "ephor_policy_decisions_total", policy="no-admin", decision="allow")


def test_a_policy_sets_a_header_for_the_upstream(guarded):
    proxy = guarded(stamp=policy("stamp", 'c:header("x-checked-by", "stamp")'))
    assert wire1.get(proxy.port).get("x-got-x-checked-by") == "stamp"


def test_a_policy_sees_headers_and_the_peer(guarded):
    proxy = guarded(tenants=policy("tenants", 'if c.headers["x-tenant"] ~= "acme" or c.peer.id ~= "" then return c:deny("who?") end'))
    assert wire1.get(proxy.port, headers="X-Tenant: acme\r\n").status == 200
    assert wire1.get(proxy.port, headers="X-Tenant: other\r\n").status == 403
    assert wire1.get(proxy.port).status == 403


def test_policies_run_in_order_of_name_and_the_first_denial_counts(guarded):
    proxy = guarded(a_first=policy("a-first", 'return c:deny("first")'), b_second=policy("b-second", 'return c:deny("second")'))
    assert b"first" in wire1.get(proxy.port).body


def test_shadow_decides_counts_and_lets_pass(guarded):
    proxy = guarded(shy=policy("shy", 'return c:deny("no")', 'mode = "shadow",'))
    assert wire1.get(proxy.port).status == 200
    proxy.counted(1, "ephor_policy_decisions_total", policy="shy", decision="shadow_deny")


@pytest.mark.parametrize("body", ["error('oops')", "local x = nil; x.y = 1", "while true do end",
                                  "local t = {}; for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end"],
                         ids=["error", "nil", "endless", "memory"])
def test_a_policy_that_fails_denies_and_the_proxy_goes_on(guarded, body):
    proxy = guarded(broken=policy("broken", f'if c.path == "/bad" then {body} end'))
    assert 400 <= wire1.get(proxy.port, "/bad").status < 600
    assert wire1.get(proxy.port, "/good").status == 200
    assert proxy.metric("ephor_policy_decisions_total", policy="broken", decision="error") + \
        proxy.metric("ephor_policy_decisions_total", policy="broken", decision="overrun") == 1
    assert [q.path for q in proxy.server.requests] == ["/good"]


@pytest.mark.parametrize("name", ["os.execute('true')", "io.open('/etc/passwd')", "debug.getregistry()", "load('return 1')()",
                                  "package.loadlib('x', 'y')", "string.dump(print)", "dofile('/etc/passwd')"])
def test_the_sandbox_has_no_way_out(guarded, name):
    proxy = guarded(escape=policy("escape", f'local ok = pcall(function() return {name} end) '
                                            'if ok then return c:deny("got out") end'))
    assert wire1.get(proxy.port).status == 200


def test_a_new_policy_is_taken_up_and_a_broken_one_is_not(guarded):
    proxy = guarded(gate=policy("gate", 'if c.path == "/a" then return c:deny("a") end'))
    directory = proxy.directory.parent / "policies"
    assert wire1.get(proxy.port, "/a").status == 403 and wire1.get(proxy.port, "/b").status == 200
    (directory / "gate.lua").write_text(policy("gate", 'if c.path == "/b" then return c:deny("b") end'))
    until(lambda: wire1.get(proxy.port, "/b").status == 403, "the new policy")
    assert wire1.get(proxy.port, "/a").status == 200
    (directory / "gate.lua").write_text("this is no Lua (")
    until(lambda: proxy.metric("ephor_policy_reload_total", result="rejected") >= 1, "the rejection")
    assert wire1.get(proxy.port, "/b").status == 403, "the last good one still decides"


def test_the_admin_page_tells_what_each_policy_decided(guarded):
    proxy = guarded(gate=policy("gate", 'if c.path == "/a" then return c:deny("a") end'))
    wire1.get(proxy.port, "/a")
    status, text = proxy.admin("/policies")
    assert status == 200 and "gate" in text
    json.loads(text)


# --- the constitution ---------------------------------------------------------------------------------------------------
@pytest.fixture
def constitutional(ephor, h1_server):
    def start(direction="inbound", **constitution):
        server = h1_server()
        proxy = ephor(config(server.port, {"direction": direction}, cluster={"protocol": "http/1.1"},
                             constitution={"hash": HASH, **constitution}))
        proxy.server = server
        return proxy
    return start


def test_the_right_hash_passes_and_the_wrong_one_does_not(constitutional):
    proxy = constitutional()
    assert wire1.get(proxy.port, headers=f"X-Constitutional-Hash: {HASH}\r\n").status == 200
    r = wire1.get(proxy.port, headers="X-Constitutional-Hash: 0123456789abcdef\r\n")
    assert r.status == 403 and HASH.encode() not in r.raw + r.body
    proxy.counted(1, "ephor_constitution_checks_total", result="match")
    proxy.counted(1, "ephor_constitution_checks_total", result="mismatch")


@pytest.mark.parametrize("strict", [False, True])
def test_absence_is_refused_in_strict_mode_only(constitutional, strict):
    assert wire1.get(constitutional(strict=strict).port).status == (403 if strict else 200)


def test_a_hash_that_rolls_out_is_accepted_beside_the_old_one(constitutional):
    proxy = constitutional(accept=["feedfacefeedface"])
    assert wire1.get(proxy.port, headers="X-Constitutional-Hash: feedfacefeedface\r\n").status == 200


def test_outbound_the_hash_is_stamped(constitutional):
    assert wire1.get(constitutional("outbound").port).get("x-got-x-constitutional-hash") == HASH


def test_a_denial_is_in_the_audit_before_it_is_answered(ephor, h1_server, policies, tmp_path):
    audit = tmp_path / "audit"
    audit.mkdir()
    proxy = ephor(config(h1_server().port, cluster={"protocol": "http/1.1"}, audit={"directory": str(audit)},
                         policies=policies(gate=policy("gate", 'return c:deny("never")'))))
    for _ in range(3):
        assert wire1.get(proxy.port, "/secret?password=x").status == 403
    proxy.kill()
    records = [json.loads(line) for path in sorted(audit.rglob("*")) if path.is_file() for line in path.read_text().splitlines()]
    denied = [r for r in records if "gate" in json.dumps(r)]
    assert len(denied) == 3, "kill -9 loses none"
    assert "password=x" not in json.dumps(records)
    assert os.path.exists(audit)
