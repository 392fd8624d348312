"""No rule that silently sees nothing: replies that grow over `max_body`, and calls that come by another method than POST. What a
policy can't see, `blind` decides; what passes, passes whole."""
import gzip
import json
import threading

import pytest
import wire1
import wire2
from harness import config, run, until

BIG = b"".join(b"%07d\n" % i for i in range(12_500))  # 100 kB, each line another: what is lost or doubled shows
KINDS = ["chunked", "to the end", "h2", "length"]


# --- replies over max_body ----------------------------------------------------------------------------------------------
def reply_policy(more, body='if r.body and r.body:find("secret") then r:deny("no secrets") end'):
    return f'return require "ephor.policy" {{ name = "look", principle = "P4", {more} reply = function(r) {body} end }}'


def answer_h1(kind, body):
    def handler(wire, request):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
        if kind == "length":
            wire.send(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        elif kind == "to the end":
            wire.send(head + b"Connection: close\r\n\r\n" + body)
            return "close"
        else:
            wire.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(body), 1000):
                wire.send(b"%x\r\n%s\r\n" % (len(body[at:at + 1000]), body[at:at + 1000]))
            wire.send(b"0\r\n\r\n")
    return handler


@pytest.fixture
def replying(ephor, h1_server, h2_server, policies):
    def start(kind, script, body=BIG, max_body="16KiB"):
        if kind == "h2":
            server = h2_server(lambda exchange: exchange.respond(200, body, [("content-type", "text/plain")]))
        else:
            server = h1_server(answer_h1(kind, body))
        return ephor(config(server.port, {"max_body": max_body}, {"protocol": "h2" if kind == "h2" else "http/1.1"},
                            policies=policies(look=script)))
    return start


def fetch(proxy, over):
    if over == "h1":
        answer = wire1.get(proxy.port)
        return answer.status, answer.body
    with wire2.Client(proxy.port) as client:
        stream = client.request("/")
        assert stream.reset is None
        return int(stream.status), stream.body


@pytest.mark.parametrize("over", ["h1", "h2"])
@pytest.mark.parametrize("mode", ["deny", "allow", "shadow"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_reply_that_is_too_large_is_what_blind_says(replying, kind, mode, over):
    proxy = replying(kind, reply_policy(f'blind = "{mode}", needs_reply = {{ "body" }},'))
    status, body = fetch(proxy, over)
    if mode == "deny":
        assert status == 403 and b"can't see what it judges (too_large)" in body
    else:
        assert status == 200 and body == BIG, "what was held goes on too"
    proxy.counted(1, "ephor_policy_blind_total", policy="look", reason="too_large")
    proxy.counted(1, "ephor_policy_decisions_total", policy="look",
                  decision={"deny": "deny", "allow": "allow", "shadow": "shadow_deny"}[mode])
    told = run(proxy.binary, "policies", "--admin", f"127.0.0.1:{proxy.admin_port}").stdout
    assert f"(on_blind {mode}): too_large 1" in told
    until(proxy.idle, "no stream left")


@pytest.mark.parametrize("mode", ["deny", "allow"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_redaction_of_a_reply_that_is_too_large_is_what_blind_says(replying, kind, mode):
    proxy = replying(kind, reply_policy(f'blind = "{mode}",', 'r:redact("ssn")'))
    status, body = fetch(proxy, "h1")
    assert (status, body) == (200, BIG) if mode == "allow" else status == 403
    proxy.counted(1, "ephor_policy_blind_total", policy="look", reason="too_large")


@pytest.mark.parametrize("kind", KINDS)
def test_a_reply_of_just_max_body_is_seen(replying, kind):
    body = BIG[:16_376] + b"secrets\n"
    assert len(body) == 16 << 10
    proxy = replying(kind, reply_policy('blind = "allow", needs_reply = { "body" },'), body)
    status, text = fetch(proxy, "h1")
    assert status == 403 and b"no secrets" in text
    assert proxy.metric("ephor_policy_blind_total") == 0


def test_a_large_reply_passes_while_it_comes(ephor, h1_server, policies):
    """Once it is known to be too large, nobody holds it: its end may be far away."""
    arrived = threading.Event()

    def handler(wire, request):
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n" +
                  b"%x\r\n%s\r\n" % (len(BIG), BIG))
        assert arrived.wait(wire1.TIMEOUT), "the client has nothing before the end"
        wire.send(b"3\r\nend\r\n0\r\n\r\n")
    proxy = ephor(config(h1_server(handler).port, {"max_body": "16KiB"}, {"protocol": "http/1.1"},
                         policies=policies(look=reply_policy('blind = "allow", needs_reply = { "body" },'))))
    with wire1.connect(proxy.port) as wire:
        wire.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        while BIG[-8:] not in wire.buffer:
            wire.more()
        arrived.set()
        assert wire.response().body == BIG + b"end"


# --- calls by any method ------------------------------------------------------------------------------------------------
GATE = '''
return require "ephor.policy" {
  name = "gate", principle = "P3", match = { protocol = "mcp", method = "tools/call", tool = "shell" },
  call = function(c) return c:deny("no shell") end,
}'''
METHODS = ["PUT", "PATCH", "DELETE", "GET", "OPTIONS", "QUERY", "POST"]
SESSION = "Mcp-Session-Id: s\r\nMcp-Protocol-Version: 2025-06-18\r\nAccept: application/json, text/event-stream\r\n"
JSON = "Content-Type: application/json\r\n"


EVIL = json.dumps({"model": "evil", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}).encode()


def call(tool="shell"):
    return json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": {}}}).encode()


@pytest.fixture
def gated(ephor, h1_server, policies):
    server = h1_server()
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=policies(gate=GATE)))
    proxy.server = server
    return proxy


def exchange(proxy, over, method, headers, body, chunked=False):
    """The status and the body of the answer."""
    if over == "h1":
        framing = "Transfer-Encoding: chunked\r\n" if chunked else f"Content-Length: {len(body)}\r\n"
        sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
        answer = wire1.exchange(proxy.port, f"{method} /mcp HTTP/1.1\r\nHost: t\r\n{headers}{framing}\r\n".encode() + sent, method)
        return answer.status, answer.body
    pairs = [tuple(part.strip() for part in line.split(":", 1)) for line in headers.lower().split("\r\n") if line]
    with wire2.Client(proxy.port) as client:
        stream = client.request("/mcp", method, pairs if chunked else [*pairs, ("content-length", str(len(body)))], body)
        return int(stream.status or 0), stream.body


@pytest.mark.parametrize("over", ["h1", "h2"])
@pytest.mark.parametrize("method", METHODS)
def test_a_call_is_judged_whatever_the_method(gated, method, over):
    kinds = {"as JSON": (JSON, call()), "with a session": (JSON + SESSION, call()), "as text": ("Content-Type: text/plain\r\n", call()),
             "without a type": ("", call()), "gzip": (JSON + "Content-Encoding: gzip\r\n", gzip.compress(call())),
             "as bytes": ("Content-Type: application/octet-stream\r\n", call())}
    for name, (headers, body) in kinds.items():
        for chunked in (False, True):
            status, text = exchange(gated, over, method, headers, body, chunked)
            seen = "judged" if b"no shell" in text else "blind" if b"can't see what it judges" in text else "passed"
            unseen = name == "as bytes" or (chunked and (name == "as text" or (name == "without a type" and method == "POST")))
            assert seen == ("blind" if unseen else "judged"), (name, chunked, status, text)
    assert gated.server.requests == []
    status, text = exchange(gated, over, method, JSON, call("echo"))
    assert status == 200 and text == call("echo") and gated.server.requests[0].method == method


@pytest.mark.parametrize("over", ["h1", "h2"])
def test_requests_without_a_body_wait_for_nothing(gated, over):
    for method, headers in (("GET", ""), ("GET", SESSION), ("DELETE", SESSION), ("DELETE", ""), ("HEAD", ""), ("OPTIONS", "")):
        if over == "h1":
            assert wire1.get(gated.port, "/mcp", headers, method).status == 200
        else:
            pairs = [tuple(part.strip() for part in line.split(":", 1)) for line in headers.lower().split("\r\n") if line]
            with wire2.Client(gated.port) as client:
                assert client.request("/mcp", method, pairs).status == 200
                assert client.request("/mcp", method, pairs, b"").status == 200, "the end in a frame of its own"
    assert gated.metric("ephor_policy_blind_total") == 0 and gated.metric("ephor_call_blind_total") == 0


def test_a_session_s_end_that_carries_a_call_is_that_call(gated):
    """By its head it would be the end of a session, which no policy on tools looks at."""
    for method in ("DELETE", "GET"):
        status, text = exchange(gated, "h1", method, JSON + SESSION, call())
        assert status == 200 and json.loads(text)["id"] == 7 and json.loads(text)["result"]["isError"]
        status, text = exchange(gated, "h1", method, JSON + SESSION, b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}')
        assert status == 400 and json.loads(text)["error"]["code"] == -32600
    assert gated.server.requests == []


def test_a_model_is_judged_whatever_the_method(ephor, h1_server, policies):
    server = h1_server()
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=policies(
        gate='return require "ephor.policy" { name = "gate", match = { model = "evil" }, call = function(c) c:deny("not that one") end }')))
    for path in ("/v1/chat/completions", "/v1/messages"):
        for method in ("POST", "PUT", "PATCH", "GET"):
            r = wire1.get(proxy.port, path, JSON, method, EVIL)
            assert r.status == 403 and "error" in json.loads(r.body)
        assert wire1.get(proxy.port, path).status == 200, "a GET without a body asks no model"
    assert len(server.requests) == 2


def test_an_upload_by_put_passes_where_no_policy_could_mean_it(ephor, h1_server, policies):
    server = h1_server(lambda wire, request: wire.send(wire1.answer(b"%d" % len(request.body))))
    proxy = ephor(config(server.port, {"max_body": "16KiB"}, {"protocol": "http/1.1"}, policies=policies(
        gate=GATE.replace("match = {", 'match = { path = "/mcp",'))))
    for headers in ("Content-Type: image/png\r\n", JSON, ""):
        assert wire1.get(proxy.port, "/files/1", headers, "PUT", BIG).body == b"100000"
    assert wire1.get(proxy.port, "/mcp", JSON, "PUT", BIG).status == 403
