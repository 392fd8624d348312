"""What policies do beside refusing: redact, route, delay, count, remember; replies with their bodies; and what happens when the
client goes, the configuration changes or the process drains while a policy waits."""
import gzip
import json
import threading
import time

import pytest
import wire1
import wire2
from harness import SLOW, config, until

JSON = "application/json"


def policy(name, call=None, reply=None, more=""):
    parts = [f"call = function(c) {call} end," if call else "", f"reply = function(r) {reply} end," if reply else ""]
    return f'local policy = require "ephor.policy"\nreturn policy {{ name = "{name}", {more} {" ".join(parts)} }}\n'


def answers(body, status="200 OK", headers="Content-Type: application/json\r\n"):
    return lambda wire, request: wire.send(wire1.answer(b"" if request.method == "HEAD" else body, status, headers))


@pytest.fixture
def guarded(ephor, h1_server, policies):
    def start(handler=None, listener=None, top=None, clusters=(), **scripts):
        server = h1_server(handler)
        c = config(server.port, listener, cluster={"protocol": "http/1.1"}, policies=policies(**scripts), **(top or {}))
        c["clusters"] += clusters
        proxy = ephor(c)
        proxy.server = server
        return proxy
    return start


def post(port, body, kind=JSON, path="/", headers=""):
    return wire1.get(port, path, f"Content-Type: {kind}\r\n{headers}", "POST", body)


# --- delay --------------------------------------------------------------------------------------------------------------
def test_a_delayed_call_waits_and_others_do_not(guarded):
    proxy = guarded(slow=policy("slow", 'if c.path == "/slow" then c:delay(0.4) c:header("x-late", "yes") end'))
    done = {}

    def ask(path):
        begin = time.monotonic()
        r = wire1.get(proxy.port, path)
        done[path] = (r.status, r.get("x-got-x-late"), time.monotonic() - begin)
    slow = threading.Thread(target=ask, args=("/slow",))
    slow.start()
    until(lambda: proxy.metric("ephor_policy_waiting") == 1, "the policy waits")
    ask("/fast")
    slow.join()
    assert done["/slow"][:2] == (200, "yes") and done["/slow"][2] >= 0.4
    assert done["/fast"][0] == 200 and done["/fast"][2] < 0.4 * SLOW
    proxy.counted(2, "ephor_policy_decisions_total", policy="slow", decision="allow")
    assert proxy.metric("ephor_policy_waiting") == 0


def test_policies_behind_one_that_waits_still_judge(guarded):
    proxy = guarded(a_wait=policy("a-wait", 'c:delay("20ms")'), b_gate=policy("b-gate", 'return c:deny("after the wait")'))
    r = post(proxy.port, b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x"}}',
             headers="Accept: application/json, text/event-stream\r\n")
    assert r.status == 200 and json.loads(r.body)["id"] == 7 and b"after the wait" in r.body
    assert proxy.server.requests == []


def test_a_reply_may_wait_and_be_refused(guarded):
    proxy = guarded(late=policy("late", reply='r:delay("30ms") if r.status == 200 then r:deny("too good") end'))
    r = wire1.get(proxy.port)
    assert r.status == 403 and b"too good" in r.body


def test_shadow_delays_nothing(guarded):
    proxy = guarded(shy=policy("shy", 'c:delay(20) c:header("x-late", "1")', more='mode = "shadow",'))
    begin = time.monotonic()
    assert wire1.get(proxy.port).get("x-got-x-late") is None
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("body", ["c:delay(31)", "for i = 1, 17 do c:delay(0.001) end", "c:delay(-1)", 'c:delay("soon")',
                                  "coroutine.wrap(function() c:delay(0.01) end)()", "coroutine.yield()",
                                  "table.sort({1, 2, 3}, function() c:delay(0.01) return false end)"])
def test_waiting_has_limits_and_what_goes_beyond_denies(guarded, body):
    proxy = guarded(broken=policy("broken", f'if c.path == "/bad" then {body} end'))
    assert wire1.get(proxy.port, "/bad").status == 403
    assert wire1.get(proxy.port, "/good").status == 200
    proxy.counted(1, "ephor_policy_decisions_total", policy="broken", decision="error")


def test_the_budget_is_not_renewed_by_waiting(guarded):
    proxy = guarded(busy=policy("busy", "for i = 1, 10 do for k = 1, 30000 do end c:delay(0.001) end"))
    assert wire1.get(proxy.port).status == 403
    proxy.counted(1, "ephor_policy_decisions_total", policy="busy", decision="overrun")


def test_a_client_that_leaves_while_a_policy_waits(guarded):
    proxy = guarded(slow=policy("slow", "c:delay(20)"))
    with wire1.connect(proxy.port) as wire:
        wire.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        until(lambda: proxy.metric("ephor_policy_waiting") == 1, "the policy waits")
        wire.reset()
    with wire2.Client(proxy.port) as client:
        client.start("/")
        until(lambda: proxy.metric("ephor_policy_waiting") >= 1, "the policy waits")
    until(lambda: proxy.metric("ephor_policy_waiting") == 0, "nobody waits")
    until(proxy.idle, "no stream")
    assert proxy.server.requests == []


def test_a_reload_while_a_policy_waits(guarded):
    proxy = guarded(gate=policy("gate", 'if c.path == "/slow" then c:delay(0.5) end c:header("x-version", "1")'))
    result = {}
    slow = threading.Thread(target=lambda: result.update(r=wire1.get(proxy.port, "/slow")))
    slow.start()
    until(lambda: proxy.metric("ephor_policy_waiting") == 1, "the policy waits")
    (proxy.directory.parent / "policies" / "gate.lua").write_text(policy("gate", 'c:header("x-version", "2")'))
    until(lambda: wire1.get(proxy.port).get("x-got-x-version") == "2", "the new version")
    slow.join()
    assert result["r"].status == 200 and result["r"].get("x-got-x-version") == "1", "it ends with the version it began with"


def test_a_drain_waits_for_a_policy_that_waits(guarded):
    proxy = guarded(top={"drain": {"accept": "0s"}}, slow=policy("slow", "c:delay(0.5)"))
    result = {}
    slow = threading.Thread(target=lambda: result.update(r=wire1.get(proxy.port)))
    slow.start()
    until(lambda: proxy.metric("ephor_policy_waiting") == 1, "the policy waits")
    proxy.stop()
    slow.join()
    assert result["r"].status == 200


# --- redact -------------------------------------------------------------------------------------------------------------
SECRET = b'{"a": "ssn 123-45-6789 and ann\\u0040example.com", "n": [4111111111111111, 7], "\\u00fc": "plain"}'


def test_a_call_is_redacted_on_its_way_and_framed_anew(guarded):
    proxy = guarded(mask=policy("mask", 'c:redact({"ssn", "email", "credit_card"})'))
    for headers, body in (("", SECRET), ("Content-Encoding: gzip\r\n", gzip.compress(SECRET))):
        r = post(proxy.port, body, headers=headers)
        assert json.loads(r.body) == {"a": "ssn [ssn] and [email]", "n": ["[credit_card]", 7], "ü": "plain"}
        assert int(r.get("x-got-content-length")) == len(r.body) and r.get("x-got-content-encoding") is None
    chunked = (b"POST / HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" +
               b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (20, SECRET[:20], len(SECRET) - 20, SECRET[20:]))
    assert b"123-45" not in wire1.exchange(proxy.port, chunked, "POST").body
    with wire2.Client(proxy.port) as client:
        assert b"123-45" not in client.request("/", "POST", [("content-type", JSON)], SECRET).body
    proxy.counted(4, "ephor_policy_redactions_total", policy="mask", what="ssn", mode="enforce")
    plain = post(proxy.port, b'{"a":   1}')
    assert plain.body == b'{"a":   1}', "what has nothing to hide goes on byte by byte"


def test_the_next_policy_sees_what_was_redacted(guarded):
    proxy = guarded(a_mask=policy("a-mask", 'c:redact("ssn", {with = "(a number that was taken out)"})'),
                    b_look=policy("b-look", 'if c.arguments.q ~= "x (a number that was taken out)" or c.body:find("6789") '
                                            'then return c:deny("unmasked") end', more='match = {protocol = "mcp"},'))
    r = post(proxy.port, b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"q":"x 123-45-6789"}}}',
             headers="Accept: application/json, text/event-stream\r\n")
    assert json.loads(r.body)["params"]["arguments"]["q"] == "x (a number that was taken out)"


@pytest.mark.parametrize("body", [b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t-123-45-6789"}}',
                                  b'{"123-45-6789": 1}'], ids=["the tool", "a key"])
def test_what_can_not_be_redacted_is_refused(guarded, body):
    proxy = guarded(mask=policy("mask", 'c:redact("ssn")'))
    r = post(proxy.port, body)
    assert b"can't see" in r.body and proxy.server.requests == []
    proxy.counted(1, "ephor_policy_blind_total", policy="mask")


@pytest.mark.parametrize("kind, headers", [("application/octet-stream", ""), (JSON, "Content-Encoding: lzma\r\n")])
def test_a_call_out_of_sight_is_not_passed_as_redacted(guarded, kind, headers):
    proxy = guarded(mask=policy("mask", 'c:redact("ssn")'), )
    assert post(proxy.port, SECRET, kind, headers=headers).status == 403


def test_a_reply_is_redacted(guarded):
    proxy = guarded(answers(SECRET, headers="Content-Type: application/json\r\nETag: \"1\"\r\n"),
                    mask=policy("mask", reply='r:redact("ssn") r:redact("email", {with = ("long "):rep(10)})'))
    r = wire1.get(proxy.port)
    assert b"[ssn]" in r.body and b"long long" in r.body and int(r.get("content-length")) == len(r.body)
    assert len(r.body) > len(SECRET), "it grew" 
    assert r.get("etag") is None
    assert wire1.get(proxy.port, method="HEAD").body == b""
    with wire2.Client(proxy.port) as client:
        s = client.request("/")
        assert b"[ssn]" in s.body and int(s.get("content-length")) == len(s.body)
        assert client.request("/", "HEAD").status == 200


def test_a_compressed_reply_is_redacted_and_one_that_can_not_be_is_refused(guarded):
    def handler(wire, request):
        bodies = {"/gzip": gzip.compress(SECRET), "/cut": gzip.compress(SECRET)[:-4], "/plain": gzip.compress(b"{}")}
        wire.send(wire1.answer(bodies[request.path], headers="Content-Type: application/json\r\nContent-Encoding: gzip\r\n"))
    proxy = guarded(handler, mask=policy("mask", reply='r:redact("ssn")'))
    r = wire1.get(proxy.port, "/gzip")
    assert json.loads(r.body)["a"].startswith("ssn [ssn]") and r.get("content-encoding") is None
    r = wire1.get(proxy.port, "/plain")
    assert gzip.decompress(r.body) == b"{}" and r.get("content-encoding") == "gzip", "nothing to hide: the bytes as they came"
    assert wire1.get(proxy.port, "/cut").status == 403
    proxy.counted(1, "ephor_policy_blind_total", policy="mask", reason="encoding")


@pytest.mark.parametrize("headers, reason", [("Content-Type: text/event-stream\r\nContent-Encoding: lzma\r\n", "encoding"),
                                             ("Content-Type: application/pdf\r\n", "unknown"),
                                             ("Content-Type: application/json\r\nContent-Encoding: lzma\r\n", "encoding"),
                                             ("Content-Type: text/plain; charset=utf-16\r\n", "unknown")])
@pytest.mark.parametrize("blind", ["deny", "allow", "shadow"])
def test_a_reply_out_of_sight_is_as_blind_says(guarded, headers, reason, blind):
    proxy = guarded(answers(b"data: 123-45-6789\n\n", headers=headers),
                    mask=policy("mask", reply='r:redact("ssn")', more=f'blind = "{blind}",'))
    assert wire1.get(proxy.port).status == (403 if blind == "deny" else 200)
    proxy.counted(1, "ephor_policy_blind_total", policy="mask", reason=reason)


@pytest.mark.parametrize("blind", ["deny", "allow", "shadow"])
def test_a_stream_of_events_is_in_sight_and_redacted(guarded, blind):
    proxy = guarded(answers(b"data: 123-45-6789\n\n", headers="Content-Type: text/event-stream\r\n"),
                    mask=policy("mask", reply='r:redact("ssn")', more=f'blind = "{blind}",'))
    r = wire1.get(proxy.port)
    assert (r.status, r.body) == (200, b"data: [ssn]\n\n")
    proxy.counted(1, "ephor_policy_redactions_total", policy="mask", what="ssn", mode="enforce")
    assert not proxy.metric("ephor_policy_blind_total", policy="mask")


def test_a_reply_too_large_is_refused(guarded):
    def handler(wire, request):
        if request.path == "/said":
            wire.send(wire1.answer(b"x" * 5000, headers="Content-Type: text/plain\r\n"))
        else:
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n" +
                      b"1388\r\n" + b"x" * 5000 + b"\r\n0\r\n\r\n")
    proxy = guarded(handler, listener={"max_body": 4096}, mask=policy("mask", reply='r:redact("ssn")'))
    assert wire1.get(proxy.port, "/said").status == 403
    assert wire1.get(proxy.port, "/unsaid").status == 403


def test_replies_without_a_body_pass(guarded):
    proxy = guarded(lambda wire, request: wire.send("HTTP/1.1 204 No Content\r\n\r\n"),
                    mask=policy("mask", reply='r:redact("ssn") if r.body then r:deny("a body?") end',
                                more='needs_reply = {"body"},'))
    assert wire1.get(proxy.port).status == 204


def test_shadow_redacts_nothing_and_counts(guarded):
    proxy = guarded(answers(SECRET), shy=policy("shy", 'c:redact("ssn")', 'r:redact("email")', 'mode = "shadow",'))
    assert post(proxy.port, SECRET).body == SECRET
    assert proxy.server.requests[0].body == SECRET
    proxy.counted(1, "ephor_policy_redactions_total", policy="shy", what="ssn", mode="shadow")
    proxy.counted(1, "ephor_policy_redactions_total", policy="shy", what="email", mode="shadow")


# --- replies with their bodies ------------------------------------------------------------------------------------------
def test_a_policy_judges_the_body_of_a_reply(guarded):
    proxy = guarded(answers(SECRET), look=policy("look", reply='if r.body:find("ssn") then return r:deny("a number") end',
                                                 more='needs_reply = {"body"},'))
    r = post(proxy.port, b'{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"t"}}',
             headers="Accept: application/json, text/event-stream\r\n")
    assert r.status == 200 and json.loads(r.body)["id"] == "x" and b"a number" in r.body and b"6789" not in r.body
    with wire2.Client(proxy.port) as client:
        assert client.request("/").status == 403


def test_a_body_that_was_not_asked_for_is_an_error(guarded):
    proxy = guarded(answers(SECRET), look=policy("look", reply="return r.body"))
    assert wire1.get(proxy.port).status == 403
    proxy.counted(1, "ephor_policy_decisions_total", policy="look", decision="error")


# --- route_to -----------------------------------------------------------------------------------------------------------
def test_a_call_goes_where_the_policy_says(guarded, h1_server):
    other = h1_server(answers(b"other", headers=""))
    clusters = [{"name": "other", "endpoints": [f"127.0.0.1:{other.port}"]}]
    proxy = guarded(clusters=clusters,
                    steer=policy("steer", 'if c.headers["x-to"] then c:route_to(c.headers["x-to"]) c:tag("to", c.cluster) end'),
                    try_it=policy("try-it", 'c:route_to("other")', more='mode = "shadow", match = {path = "/shadow"},'))
    assert wire1.get(proxy.port).body == b"" and wire1.get(proxy.port, "/shadow").body == b""
    assert wire1.get(proxy.port, headers="X-To: other\r\n").body == b"other"
    assert wire1.get(proxy.port, headers="X-To: othr\r\n").status == 403
    assert "there is no cluster 'othr'; did you mean 'other'?" in proxy.log
    proxy.counted(1, "ephor_requests_total", cluster="other", code="2xx")


# --- counting and remembering -------------------------------------------------------------------------------------------
def test_meter_counts_by_name(guarded):
    proxy = guarded(count=policy("count", 'c:meter("calls") c:meter("tokens", 7) if c.path == "/bad" then c:meter("x y") end'))
    wire1.get(proxy.port)
    wire1.get(proxy.port)
    assert wire1.get(proxy.port, "/bad").status == 403
    proxy.counted(3, "ephor_policy_meter_total", policy="count", meter="calls")
    proxy.counted(21, "ephor_policy_meter_total", policy="count", meter="tokens")


@pytest.mark.workers
def test_what_is_remembered_is_shared_by_workers_and_outlives_a_reload(guarded):
    limit = policy("limit", 'if c:count(c.path, 1, "1h") > 20 then return c:deny("enough", {status = 429}) end '
                            'local m = c:recall("seen") or {n = 0} m.n = m.n + 1 c:remember("seen", m, 60) '
                            'c:header("x-n", tostring(m.n))')
    proxy = guarded(top={"workers": 2}, limit=limit)
    statuses = [wire1.get(proxy.port, "/a").status for _ in range(10)]
    proxy.reload()
    statuses += [wire1.get(proxy.port, "/a").status for _ in range(15)]
    assert statuses == [200] * 20 + [429] * 5
    assert wire1.get(proxy.port, "/b").get("x-got-x-n") == "21"
    assert proxy.metric("ephor_policy_memory_entries") == 3


# --- http ---------------------------------------------------------------------------------------------------------------
ASK = ('local r, why = c:http {cluster = "oracle", path = "/ask?who=" .. (c.headers["x-who"] or ""), json = {path = c.path}, '
       'headers = {["x-twice"] = {"a", "b"}}, timeout = 2} '
       'if not r then return c:deny("no answer: " .. why) end '
       'if r.status ~= 200 then return c:deny(r.body) end c:header("x-oracle", r.headers["x-says"] .. "/" .. r.body)')


@pytest.fixture
def asking(guarded, h1_server):
    def start(handler, script=ASK, **scripts):
        oracle = h1_server(handler)
        proxy = guarded(clusters=[{"name": "oracle", "endpoints": [f"127.0.0.1:{oracle.port}"], "protocol": "http/1.1"}],
                        ask=policy("ask", script), **scripts)
        proxy.oracle = oracle
        return proxy
    return start


def oracle(wire, request):
    if "bad" in request.path:
        wire.send(wire1.answer(b"the oracle says no", "403 Forbidden"))
    else:
        wire.send(wire1.answer(b"yes", headers="X-Says: well\r\n"))


def test_a_policy_asks_another_service(asking):
    proxy = asking(oracle)
    assert wire1.get(proxy.port, "/p", "X-Who: good\r\n").get("x-got-x-oracle") == "well/yes"
    asked = proxy.oracle.requests[0]
    assert (asked.method, asked.path, asked.get("x-twice")) == ("POST", "/ask?who=good", "a, b")
    assert json.loads(asked.body) == {"path": "/p"} and asked.get("content-type") == JSON
    r = wire1.get(proxy.port, "/p", "X-Who: bad\r\n")
    assert r.status == 403 and b"the oracle says no" in r.body
    with wire2.Client(proxy.port) as client:
        assert client.request("/p").get("x-got-x-oracle") == "well/yes"
    assert proxy.metric("ephor_policy_waiting") == 0


def test_an_oracle_that_fails_is_told_and_nothing_passes_by_mistake(asking):
    def handler(wire, request):
        if "hang" in request.path:
            wire.rest()
        return "close"
    proxy = asking(handler, ASK.replace("timeout = 2", 'timeout = "300ms"'),
                   b=policy("b", 'local r = c:http {cluster = "oracle", path = "/x"} if r.status ~= 200 then c:deny("x") end',
                            more='match = {path = "/careless"},'))
    assert b"no answer: timeout" in wire1.get(proxy.port, headers="X-Who: hang\r\n").body
    assert b"no answer: " in wire1.get(proxy.port).body
    assert wire1.get(proxy.port, "/careless").status == 403
    assert proxy.server.requests == []


@pytest.mark.parametrize("call", ['{}', '{cluster = "nowhere"}', '{cluster = "oracle", methd = "GET"}',
                                  '{cluster = "oracle", path = "x y"}', '{cluster = "oracle", timeout = 0}',
                                  '{cluster = "oracle", body = "x", json = 1}', '"oracle"'])
def test_a_question_that_is_none_denies(asking, call):
    proxy = asking(oracle, f"c:http {call}")
    assert wire1.get(proxy.port).status == 403
    proxy.counted(1, "ephor_policy_decisions_total", policy="ask", decision="error")
    assert proxy.oracle.requests == []


def test_clients_that_leave_while_the_oracle_thinks(asking):
    proxy = asking(lambda wire, request: wire.rest())
    with wire2.Client(proxy.port) as client:
        for _ in range(20):
            client.start("/")
        until(lambda: proxy.metric("ephor_policy_waiting") == 20, "all wait")
    until(lambda: proxy.metric("ephor_policy_waiting") == 0, "nobody waits")
    until(proxy.idle, "no stream, and no request of the policies")


def test_a_reload_and_a_drain_while_the_oracle_thinks(asking):
    go = threading.Event()

    def handler(wire, request):
        go.wait(10 * SLOW)
        oracle(wire, request)
    proxy = asking(handler)
    results = []
    threads = [threading.Thread(target=lambda: results.append(wire1.get(proxy.port).get("x-got-x-oracle"))) for _ in range(4)]
    for t in threads:
        t.start()
    until(lambda: proxy.metric("ephor_policy_waiting") == 4, "all wait")
    proxy.reload()
    threading.Timer(0.3, go.set).start()
    proxy.stop()
    for t in threads:
        t.join()
    assert results == ["well/yes"] * 4


def test_many_wait_at_once(asking):
    proxy = asking(oracle)
    with wire2.Client(proxy.port) as client:
        streams = [client.start(f"/{i}") for i in range(100)]
        for s in streams:
            client.finish(s)
        assert all(s.get("x-got-x-oracle") == "well/yes" for s in streams)
    assert proxy.metric("ephor_policy_waiting") == 0


# --- fields -------------------------------------------------------------------------------------------------------------
def test_a_tenant_by_header_only_where_the_listener_says_so(guarded):
    tell = policy("tell", 'c:header("x-tenant", c.tenant or "none")')
    assert wire1.get(guarded(tell=tell).port, headers="X-Tenant-ID: acme\r\n").get("x-got-x-tenant") == "none"


def test_a_tenant_by_the_header_that_the_listener_names(guarded):
    proxy = guarded(listener={"tenant": {"header": "X-Team"}}, tell=policy("tell", 'c:header("x-tenant", c.tenant or "none")'))
    assert wire1.get(proxy.port, headers="X-Team: acme\r\nX-Tenant-ID: other\r\n").get("x-got-x-tenant") == "acme"
    assert wire1.get(proxy.port, headers="X-Team: acme\r\nX-Team: other\r\n").status == 400


@pytest.mark.parametrize("priority, said", [(3, "critical"), (1, "normal"), ("medium", "normal"), ("HIGH", "high"), (9, "9")])
def test_priority_and_impact_of_a_bus_message(guarded, priority, said):
    proxy = guarded(bus=policy("bus", 'c:header("x-said", c.priority .. " " .. tostring(c.impact) .. " " .. c.method .. " " .. c.agent) '
                                      'if c.impact >= 0.8 then return c:deny("ask a person") end',
                               more='match = {protocol = "acgs2"}, needs = {"impact"},'))
    message = {"message_type": "command", "priority": priority, "impact_score": 0.25, "from_agent": "planner", "content": {}}
    assert post(proxy.port, json.dumps(message).encode(), path="/api/v1/messages").get("x-got-x-said") == f"{said} 0.25 command planner"
    r = post(proxy.port, json.dumps({**message, "impact_score": 0.8}).encode())
    answer = json.loads(r.body)
    assert r.status == 403 and answer["is_valid"] is False and answer["decision"] == "DENY" and "ask a person" in answer["errors"][0]
    assert proxy.metric("ephor_bus_messages_total", type="command", priority=said if said in ("critical", "normal", "high") else "other") == 2
    twice = post(proxy.port, b'{"message_type": "event", "content": {}, "message_type": "command"}')
    assert twice.status == 400 and json.loads(twice.body)["error"] == "MessageValidationError"
    assert post(proxy.port, b'{"content": 1}').status == 200, "no message of the bus"


def test_each_message_of_an_array_for_the_bus_is_judged(guarded, tmp_path):
    audit = tmp_path / "audit"
    vault = policy("vault", 'return c:deny("nobody writes to the vault")', more='match = {protocol = "acgs2", recipient = "vault"},')
    proxy = guarded(top={"audit": {"directory": str(audit)}}, vault=vault)

    def to(name, **more):
        return {"message_type": "command", "message_id": f"for-{name}", "to_agent": name, "content": {}, **more}
    assert post(proxy.port, json.dumps([to("a"), to("b")]).encode()).status == 200
    r = post(proxy.port, json.dumps([to("a"), to("vault", impact_score=0.9), to("b")]).encode())
    answer = json.loads(r.body)
    assert r.status == 403 and answer["is_valid"] is False and answer["error"] == "PolicyViolationError"
    assert answer["metadata"]["message_id"] == "for-vault" and answer["metadata"]["decision_id"] == r.get("x-ephor-decision")
    proxy.counted(5, "ephor_bus_messages_total", type="command")
    record, = [json.loads(line) for file in audit.glob("*.jsonl") for line in file.read_text().splitlines() if '"deny"' in line]
    assert (record["message_id"], record["risk_score"]) == ("for-vault", 0.9), "the one that was refused"
    # an element that is no message: what a bus makes of it is open, so who has a rule on messages decides
    assert post(proxy.port, json.dumps([to("a"), 7]).encode()).status == 403
    assert proxy.metric("ephor_call_blind_total", reason="unknown") == 1


def test_the_prompt_of_a_language_model(guarded):
    proxy = guarded(ask=policy("ask", 'c:header("x-prompt", c.prompt:gsub("\\n", "|"))', more='match = {prompt = "*secret*"},'))
    body = {"model": "m", "messages": [{"role": "system", "content": "be good"},
                                       {"role": "user", "content": [{"type": "text", "text": "the sec\u0072et"}, {"type": "image_url"}]}]}
    raw = json.dumps(body).replace("secret", "sec\\u0072et").encode()
    assert post(proxy.port, raw, path="/v1/chat/completions").get("x-got-x-prompt") == "be good|the secret"
    assert post(proxy.port, b'{"model": "m", "input": "a secret"}', path="/v1/responses").get("x-got-x-prompt") == "a secret"
    assert post(proxy.port, b'{"model": "m", "input": "nothing"}', path="/v1/responses").get("x-got-x-prompt") is None
