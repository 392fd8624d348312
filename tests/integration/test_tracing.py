"""Spans over OTLP: what they say, who is traced, one decision id everywhere, and collectors that misbehave."""
import contextlib
import email.utils
import json
import re
import time

import pki
import pytest
import wire1
from harness import config, free_port, run, until
from otlp import Collector
from wire2 import Client

pytestmark = pytest.mark.workers

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
H1 = {"protocol": "http/1.1"}


def given(flags="01", version="00", rest=""):
    return f"traceparent: {version}-{TRACE}-{PARENT}-{flags}{rest}\r\n"


@pytest.fixture
def collector():
    with Collector() as c:
        yield c
        assert not c.errors, c.errors


@pytest.fixture
def traced(ephor, h1_server, collector):
    """traced(...): a proxy that traces every request, in front of an echo."""
    def start(tracing=None, listener=None, cluster=None, upstream=None, **top):
        return ephor(config(upstream or h1_server().port, listener, {**H1, **(cluster or {})},
                            tracing={"otlp": collector.url, "sample": "100%", **(tracing or {})}, **top))
    return start


# --- what a span says ---------------------------------------------------------------------------------------------------

def test_a_span_per_hop_and_each_is_the_parent_of_the_next(traced, collector):
    inner = traced(node={"service": "tools", "namespace": "agents"})
    outer = traced(upstream=inner.port, listener={"direction": "outbound"}, node={"service": "planner"})
    before = time.time_ns()
    r = wire1.get(outer.port, "/far?token=secret", given() + "tracestate: vendor=1,b=2\r\nUser-Agent: agent/1\r\nAuthorization: hidden\r\n")
    client, server = sorted(collector.wait(2), key=lambda s: s.kind)
    assert (client.kind, server.kind) == ("client", "server")
    assert client.trace_id == server.trace_id == TRACE and client.parent_id == PARENT and server.parent_id == client.span_id
    assert r.get("x-got-traceparent") == f"00-{TRACE}-{server.span_id}-01", "the app's spans are children of the inner hop's"
    assert client.trace_state == server.trace_state == r.get("x-got-tracestate") == "vendor=1,b=2"
    assert server.resource["service.name"] == "tools" and server.resource["k8s.namespace.name"] == "agents"
    assert client.resource["service.name"] == "planner"
    for span in client, server:
        assert span.name == "GET" and span.status == "unset" and span.flags == 0x301
        assert (span["http.request.method"], span["http.response.status_code"], span["url.path"], span["url.scheme"]) == \
            ("GET", 200, "/far", "http")
        assert span["network.protocol.version"] == "1.1" and span["user_agent.original"] == "agent/1"
        assert before - 1e9 < span.start_ns <= span.end_ns < time.time_ns() + 1e9, "on the wall clock"
        assert span["ephor.stage.upstream"] > 0 and 0 < span["ephor.stage.self"] < 5
    assert client["url.full"] == "http://test/far" and client["server.address"] == "test"
    assert client["network.peer.port"] == inner.port and server["client.address"] == "127.0.0.1"
    assert client["ephor.direction"] == "outbound" and client["ephor.cluster"] == "app"
    assert all(b"secret" not in request.body and b"hidden" not in request.body for request in collector.requests)


def test_mcp_in_the_words_of_the_conventions(traced, collector):
    proxy = traced()
    call = {"jsonrpc": "2.0", "id": "c-7", "method": "tools/call", "params": {"name": "search", "arguments": {"q": "my secret"}}}
    wire1.get(proxy.port, "/mcp", "Content-Type: application/json\r\nMCP-Session-Id: s-1\r\nMCP-Protocol-Version: 2025-06-18\r\n",
              "POST", json.dumps(call).encode())
    span, = collector.wait(1)
    assert span.name == "tools/call search"
    assert {k: v for k, v in span.attributes.items() if re.match("mcp|gen_ai|jsonrpc", k)} == {
        "mcp.method.name": "tools/call", "mcp.protocol.version": "2025-06-18", "mcp.session.id": "s-1",
        "jsonrpc.request.id": "c-7", "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
    assert b"my secret" not in collector.requests[0].body


def test_models_in_the_words_of_the_conventions(traced, collector):
    proxy = traced()
    chat = {"model": "gpt-5", "messages": [{"role": "user", "content": "my secret"}]}
    wire1.get(proxy.port, "/v1/chat/completions", "Content-Type: application/json\r\n", "POST", json.dumps(chat).encode())
    wire1.get(proxy.port, "/v1/messages", "Content-Type: application/json\r\nanthropic-version: 2023-06-01\r\n", "POST",
              json.dumps({**chat, "model": "claude"}).encode())
    spans = {s["gen_ai.provider.name"]: s for s in collector.wait(2)}
    assert (spans["openai"].name, spans["anthropic"].name) == ("chat gpt-5", "chat claude")
    assert spans["openai"]["gen_ai.request.model"] == "gpt-5" and spans["anthropic"]["gen_ai.operation.name"] == "chat"
    assert all(b"my secret" not in request.body for request in collector.requests)


def test_what_a_model_used_is_in_its_span_when_the_provider_says_so(traced, collector, h1_server):
    def answer(wire, request):
        usage = {} if b"quiet" in request.body else {"usage": {"prompt_tokens": 19, "completion_tokens": 7}}
        wire.send(wire1.answer(json.dumps({"model": "gpt-5-2026-01", "choices": [], **usage}).encode(), headers="Content-Type: application/json\r\n"))
    proxy = traced(upstream=h1_server(answer).port)
    for model in "gpt-5", "quiet":
        chat = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        wire1.get(proxy.port, "/v1/chat/completions", "Content-Type: application/json\r\n", "POST", json.dumps(chat).encode())
    told, quiet = sorted(collector.wait(2), key=lambda s: s.name)
    assert (told["gen_ai.request.model"], told["gen_ai.response.model"]) == ("gpt-5", "gpt-5-2026-01")
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (19, 7)
    assert quiet["gen_ai.usage.input_tokens"] is None and quiet["gen_ai.usage.output_tokens"] is None, "an estimate is no usage"


@pytest.mark.parametrize("padding", [0, 40])
def test_each_call_of_a_batch_is_an_event_and_the_refused_one_says_so(ephor, collector, policies, h1_server, padding):
    deny = '''return require "ephor.policy" { name = "no", match = { tool = "shell" }, call = function(c) return c:deny("no") end }'''
    proxy = ephor(config(h1_server().port, cluster=H1, policies=policies(no=deny), tracing={"otlp": collector.url, "sample": "100%"}))

    def batch(*tools):
        calls = [{"jsonrpc": "2.0", "id": i, "method": "tools/call", "params": {"name": t, "arguments": {"q": "my secret"}}} for i, t in enumerate(tools)]
        return wire1.get(proxy.port, "/mcp", "Content-Type: application/json\r\nMCP-Session-Id: s\r\n", "POST",
                         json.dumps([*calls, {"jsonrpc": "2.0", "id": "l", "method": "tools/list"}]).encode())
    batch(*["echo"] * padding, "search")
    r = batch(*["echo"] * padding, "search", "shell")
    assert r.status == 200 and json.loads(r.body)[-1]["error"]["code"] == 403
    passed, refused = sorted(collector.wait(2), key=lambda s: s["ephor.batch.calls"])
    assert passed["ephor.batch.calls"] == padding + 2 and refused["ephor.batch.calls"] == padding + 3
    assert all(name == "ephor.call" for name, _, _ in passed.events + refused.events)
    if padding:
        assert len(passed.events) == 32 and len(refused.events) == 33, "the first, and the one that was refused"
    else:
        assert [a for _, _, a in passed.events] == [
            {"mcp.method.name": "tools/call", "jsonrpc.request.id": "0", "gen_ai.tool.name": "search"},
            {"mcp.method.name": "tools/list", "jsonrpc.request.id": "l"}]
    assert [a["gen_ai.tool.name"] for _, _, a in refused.events if a.get("ephor.refused")] == ["shell"]
    assert refused["ephor.policy"] == "no" and not any("ephor.refused" in a for _, _, a in passed.events)
    assert b"my secret" not in b"".join(request.body for request in collector.requests)


def test_bytes_that_are_no_utf8_spoil_no_batch(traced, collector):
    proxy = traced()
    assert wire1.exchange(proxy.port, b"GET /\xff\xfe HTTP/1.1\r\nHost: test\r\nUser-Agent: \xc3(\r\n\r\n").status in (200, 400)
    assert wire1.exchange(proxy.port, b"GET / HTTP/1.1\r\nHost: test\r\nUser-Agent: \xc3(\r\n\r\n").status == 200
    assert collector.wait(1, user_agent__original="?(")


def test_opaque_tcp_and_failures_have_spans(traced, collector):
    proxy = traced(upstream=free_port())
    assert wire1.get(proxy.port, "/gone").status == 503
    span, = collector.wait(1)
    assert span.status == "error" and span["error.type"] == "upstream.connect_refused" and span["ephor.response_flag"] == "UF"
    tcp = traced(upstream=free_port(), listener={"protocol": "tcp"}, cluster={"protocol": "tcp"})
    with contextlib.suppress(ConnectionResetError):  # as soon as it is accepted
        with wire1.connect(tcp.port) as wire:
            wire.send(b"hello").rest()
    span, = collector.wait(1, ephor__protocol="tcp")
    assert span.name == "tcp" and span.status == "error" and span["http.request.method"] is None


# --- who is traced ------------------------------------------------------------------------------------------------------

def test_the_callers_decision_is_kept(traced, collector):
    proxy = traced()
    r = wire1.get(proxy.port, "/unsampled", given("00") + "tracestate: a=b\r\n")
    assert r.get("x-got-traceparent") == f"00-{TRACE}-{PARENT}-00" and r.get("x-got-tracestate") == "a=b", "as it came"
    none = traced({"sample": "0%"})
    r = wire1.get(none.port, "/sampled", given("03"))
    assert not wire1.get(none.port, "/neither").get("x-got-traceparent")
    span, = collector.wait(1)
    assert span["url.path"] == "/sampled" and span.flags == 0x303
    assert r.get("x-got-traceparent") == f"00-{TRACE}-{span.span_id}-03", "the random flag of level 2 stays"


def test_a_later_version_is_understood_and_nonsense_starts_a_new_trace(traced, collector):
    proxy = traced()
    r = wire1.get(proxy.port, "/later", given(version="cc", rest="-what-the-future-holds"))
    later, = collector.wait(1)
    assert r.get("x-got-traceparent") == f"00-{TRACE}-{later.span_id}-01" and later.parent_id == PARENT
    for bad in [given(version="ff"), given(rest="-x"), given("0"), "traceparent: nonsense\r\n", given() + given()]:
        r = wire1.get(proxy.port, "/new", bad + "tracestate: a=b\r\n")
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", r.get("x-got-traceparent")), bad
        assert TRACE not in r.get("x-got-traceparent") and not r.get("x-got-tracestate")
    assert all(not s.parent_id and s.trace_id != TRACE for s in collector.wait(5, url__path="/new"))


def test_a_share_is_traced(traced, collector):
    proxy = traced({"sample": "50%"})
    made = sum(bool(wire1.get(proxy.port).get("x-got-traceparent")) for _ in range(200))
    assert 60 < made < 140
    collector.wait(made)
    wire1.get(proxy.port, "/last", given())
    collector.wait(1, url__path="/last")
    assert len(collector.spans) == made + 1


# --- one decision id ----------------------------------------------------------------------------------------------------

DENY = '''
local policy = require "ephor.policy"
return policy { name = "no", principle = "P3", mode = "MODE", call = function(c) return c:deny("not for you") end }'''


def records(directory):
    return [json.loads(line) for path in sorted(directory.glob("*.jsonl")) for line in path.read_text().splitlines()]


def denied(ephor, collector, policies, tmp_path, upstream, mode="enforce", tracing=None, **cluster):
    directory = policies(no=DENY.replace("MODE", mode))
    return ephor(config(upstream, cluster={**H1, **cluster}, policies=directory, audit={"directory": str(tmp_path / "audit")},
                        access_log={"sample": "100%", "path": str(tmp_path / "access.log")},
                        tracing={"otlp": collector.url, **(tracing or {})}))


def same_everywhere(collector, tmp_path, decision, what="deny"):
    """The record and the span of a decision, which agree."""
    until(lambda: decision in (tmp_path / "access.log").read_text(), "the access log")
    span, = collector.wait(1, ephor__decision__id=decision)
    record, = [r for r in records(tmp_path / "audit") if r.get("decision_id") == decision]
    row, = [r for r in map(json.loads, (tmp_path / "access.log").read_text().splitlines()) if decision in json.dumps(r)]
    assert record["decision"] == span["ephor.decision"] == what
    assert record["policy"] == span["ephor.policy"] == "no" and record["principle"] == span["ephor.principle"] == "P3"
    assert record["trace_id"] == span.trace_id == row["trace_id"] and record["span_id"] == span.span_id
    return span


def test_one_id_in_mcp_where_the_wire_says_200(ephor, collector, policies, tmp_path, h1_server):
    proxy = denied(ephor, collector, policies, tmp_path, h1_server().port)
    call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "shell", "arguments": {"c": "secret"}}}
    r = wire1.get(proxy.port, "/mcp", "Content-Type: application/json\r\n" + given("00"), "POST", json.dumps(call).encode())
    decision = r.get("x-ephor-decision")
    assert r.status == 200 and json.loads(r.body)["result"]["_meta"]["ephor.dev/refusal"]["decision"] == decision
    span = same_everywhere(collector, tmp_path, decision)
    assert span.status == "error" and span.message == span["error.type"] == "policy.denied"
    assert span["http.response.status_code"] == 200 and span["gen_ai.tool.name"] == "shell"
    assert span.trace_id == TRACE and span.parent_id == PARENT and span.flags == 0x300, "the caller did not sample, and is told so"
    listed = {"jsonrpc": "2.0", "id": 8, "method": "tools/list"}
    r = wire1.get(proxy.port, "/mcp", "Content-Type: application/json\r\n", "POST", json.dumps(listed).encode())
    assert json.loads(r.body)["error"]["data"]["decision"] == r.get("x-ephor-decision")
    assert same_everywhere(collector, tmp_path, r.get("x-ephor-decision")).name == "tools/list"
    assert b"secret" not in b"".join(request.body for request in collector.requests)


def test_one_id_in_a_models_api_and_in_plain_http(ephor, collector, policies, tmp_path, h1_server):
    proxy = denied(ephor, collector, policies, tmp_path, h1_server().port)
    r = wire1.get(proxy.port, "/v1/chat/completions", "Content-Type: application/json\r\n", "POST", b'{"model": "m", "messages": []}')
    assert r.status == 403 and json.loads(r.body)["error"]["code"] == "policy.denied"
    assert json.loads(r.body)["error"]["decision"] == r.get("x-ephor-decision")
    assert same_everywhere(collector, tmp_path, r.get("x-ephor-decision")).name == "chat m"
    r = wire1.get(proxy.port, "/page", "Accept: application/json\r\n")
    assert r.status == 403 and r.get("x-ephor-decision") in r.body.decode()
    assert same_everywhere(collector, tmp_path, r.get("x-ephor-decision")).status == "error"


def test_one_id_in_grpc(ephor, collector, policies, tmp_path, h2_server):
    proxy = denied(ephor, collector, policies, tmp_path, h2_server().port, protocol="h2")
    with Client(proxy.port) as client:
        stream = client.request("/test.Echo/Unary", "POST", [("content-type", "application/grpc"), ("te", "trailers")], b"\0\0\0\0\0")
        assert stream.get("grpc-status") == "7"
        span = same_everywhere(collector, tmp_path, stream.get("x-ephor-decision"))
    assert span.name == "test.Echo/Unary" and span["rpc.method"] == "test.Echo/Unary" and span["rpc.system.name"] == "grpc"
    assert span["rpc.response.status_code"] == "PERMISSION_DENIED" and span.status == "error"
    assert span["network.protocol.version"] == "2"


def test_a_shadow_denial_has_a_span_and_passes(ephor, collector, policies, tmp_path, h1_server):
    proxy = denied(ephor, collector, policies, tmp_path, h1_server().port, mode="shadow")
    assert wire1.get(proxy.port, "/page").status == 200
    span, = collector.wait(1, ephor__decision="shadow_deny")
    assert same_everywhere(collector, tmp_path, span["ephor.decision.id"], "shadow_deny").status == "unset"


def test_decisions_only_as_sampled_when_so_configured(ephor, collector, policies, tmp_path, h1_server):
    proxy = denied(ephor, collector, policies, tmp_path, h1_server().port, tracing={"decisions": "sampled"})
    assert wire1.get(proxy.port, "/unsampled").status == 403
    decision = wire1.get(proxy.port, "/sampled", given()).get("x-ephor-decision")
    same_everywhere(collector, tmp_path, decision)
    assert [s["url.path"] for s in collector.spans] == ["/sampled"]


# --- collectors ---------------------------------------------------------------------------------------------------------

def counted(proxy, **wanted):
    for result, n in wanted.items():
        proxy.counted(n, "ephor_spans_total", result=result)


def test_an_answer_byte_by_byte_and_one_that_rejects_some(ephor, h1_server):
    partial = b"\x0a\x0c\x08\x01\x12\x08too many"
    with Collector([wire1.answer(partial)], drip=True) as slow:
        proxy = ephor(config(h1_server().port, cluster=H1, tracing={"otlp": slow.url, "sample": "100%"}))
        for _ in range(3):
            wire1.get(proxy.port)
        slow.wait(3)
        counted(proxy, exported=2, rejected=1)
        assert "too many" in proxy.log


def test_a_busy_collector_is_asked_again_when_it_says(ephor, h1_server):
    def busy(after):
        return wire1.answer(b"", "503 Service Unavailable", f"Retry-After: {after}\r\n")

    in_two_seconds = email.utils.formatdate(time.time() + 3, usegmt=True)
    with Collector([busy(1), busy(in_two_seconds), wire1.answer(b"", "429 Too Many Requests")]) as c:
        proxy = ephor(config(h1_server().port, cluster=H1, tracing={"otlp": c.url, "sample": "100%"}))
        wire1.get(proxy.port)
        until(lambda: len(c.requests) >= 1, "the first try")
        first = time.monotonic()
        c.wait(1)
        assert time.monotonic() - first >= 1, "Retry-After is kept"
        assert len({request.body for request in c.requests}) == 1, "the same batch each time"
        counted(proxy, exported=1)
        assert proxy.log.count('"topic":"tracing"') == 2 and "takes spans again" in proxy.log


def test_a_refusal_is_final(ephor, h1_server):
    with Collector([wire1.answer(b"", "400 Bad Request")]) as c:
        proxy = ephor(config(h1_server().port, cluster=H1, tracing={"otlp": c.url, "sample": "100%"}))
        wire1.get(proxy.port, "/lost")
        counted(proxy, refused=1)
        wire1.get(proxy.port, "/next")
        assert [s["url.path"] for s in c.wait(1)] == ["/next"]
        counted(proxy, exported=1, refused=1)


def test_a_collector_that_is_away_costs_old_spans_and_one_line_a_worker(ephor, h1_server):
    port = free_port()
    proxy = ephor({**config(h1_server().port, cluster=H1, tracing={"otlp": f"http://127.0.0.1:{port}", "sample": "100%"}), "workers": 2})
    for _ in range(8):
        wire1.get(proxy.port, "/while-away")
    until(lambda: "takes no spans" in proxy.log, "the line")
    run("h2load", "-n", "12000", "-c", "4", "-m", "10", "--h1", f"http://127.0.0.1:{proxy.port}/long/{'x' * 900}")
    until(lambda: proxy.metric("ephor_spans_total", result="dropped") > 1000, "the queue is bounded")
    assert proxy.log.count("takes no spans") <= 2
    with Collector(port=port) as c:
        assert c.wait(1000), "the newest were kept, and came when it was back"
        total = proxy.metric("ephor_spans_total", result="dropped")
        until(lambda: proxy.metric("ephor_spans_total", result="exported") + total >= 12008, "every span is accounted for")
        assert not c.errors and proxy.metric("ephor_spans_total") == 12008


def test_a_collector_that_hangs_holds_up_nobody(ephor, h1_server):
    with Collector([lambda wire, request: wire.rest()] * 5) as c:
        proxy = ephor(config(h1_server().port, cluster=H1, tracing={"otlp": c.url, "sample": "100%"}))
        wire1.get(proxy.port)
        until(lambda: len(c.requests) >= 1, "the batch")
        assert all(wire1.get(proxy.port, f"/{i}").status == 200 for i in range(50))
        began = time.monotonic()
        proxy.stop()
        assert time.monotonic() - began < 8, "two seconds are granted, not ten"
        assert "could not be sent" in proxy.log


def test_what_is_left_is_sent_before_the_end(traced, collector):
    proxy = traced()
    for i in range(20):
        wire1.get(proxy.port, f"/{i}")
    proxy.stop()
    assert sorted(int(s["url.path"][1:]) for s in collector.wait(20)) == list(range(20))


def test_a_connection_that_the_collector_closed_while_idle_is_no_failure(ephor, h1_server):
    with Collector() as c:
        proxy = ephor(config(h1_server().port, cluster=H1, tracing={"otlp": c.url, "sample": "100%"}))
        for i in range(3):
            wire1.get(proxy.port, f"/{i}")
            c.wait(i + 1)
            for wire in c.wires:
                wire.close()
        assert "takes no spans" not in proxy.log
        counted(proxy, exported=3)


def test_a_reload_changes_the_collector_and_takes_it_away(ephor, h1_server):
    upstream = h1_server().port
    with Collector() as one, Collector() as other:
        def at(**tracing):
            return config(upstream, cluster=H1, tracing={"sample": "100%", **tracing})
        proxy = ephor(at(otlp=one.url))
        wire1.get(proxy.port, "/one")
        one.wait(1)
        proxy.reload(at(otlp=other.url + "/base/"))
        wire1.get(proxy.port, "/other")
        other.wait(1, url__path="/other")
        assert other.requests[0].path == "/base/v1/traces" and one.requests[0].path == "/v1/traces"
        proxy.reload(at())
        assert wire1.get(proxy.port, "/none").get("x-got-traceparent"), "sampled for those behind us"
        proxy.reload(at(otlp=one.url))
        wire1.get(proxy.port, "/again")
        one.wait(1, url__path="/again")
        assert all(s["url.path"] != "/none" for s in one.spans + other.spans)


def test_a_collector_by_name_and_over_https(ephor, h1_server, collector, tmp_path):
    proxy = ephor(config(h1_server().port, cluster=H1, tracing={"otlp": f"http://localhost:{collector.port}", "sample": "100%"}))
    wire1.get(proxy.port, "/named")
    assert collector.wait(1, url__path="/named")
    keys = pki.make(tmp_path)
    with Collector(tls=keys) as secure:
        def at(**tracing):
            return config(h1_server().port, cluster=H1, tracing={"sample": "100%", **tracing})
        proxy = ephor(at(otlp=f"https://localhost:{secure.port}", roots=str(keys.roots)))
        wire1.get(proxy.port, "/sealed")
        assert secure.wait(1, url__path="/sealed")
        proxy = ephor(at(otlp=f"https://localhost:{secure.port}"))
        wire1.get(proxy.port, "/untrusted")
        until(lambda: "takes no spans: tls" in proxy.log, "the system's roots don't know it")


def test_two_workers_export_what_they_carry(ephor, h1_server, collector):
    proxy = ephor({**config(h1_server().port, cluster=H1, tracing={"otlp": collector.url, "sample": "100%"}), "workers": 2})
    for i in range(40):
        wire1.get(proxy.port, f"/{i}")
    assert sorted(int(s["url.path"][1:]) for s in collector.wait(40)) == list(range(40))
    assert len({s.span_id for s in collector.spans}) == 40
