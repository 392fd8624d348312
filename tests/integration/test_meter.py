"""`meter`: tokens out of answers of OpenAI and Anthropic, whole, streamed, compressed and broken; cost; and the limits by them."""
import gzip
import json

import pytest
import wire1
from harness import config, free_port, until

pytestmark = pytest.mark.workers

PRICES = [{"model": "gpt-4*", "input": "2.50", "output": "10.00", "cached": "1.25"}, {"model": "text-*", "input": "0.02"},
          {"model": "claude-*", "input": "3", "output": "15", "cached": "0.30", "cache_write": "3.75"}]
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100, "prompt_tokens_details": {"cached_tokens": 400},
         "completion_tokens_details": {"reasoning_tokens": 60}}
CHAT = json.dumps({"id": "c", "object": "chat.completion", "model": "gpt-4o", "usage": USAGE, "choices": [
    {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}]}).encode()
MESSAGE = json.dumps({"type": "message", "role": "assistant", "content": [{"type": "text", "text": "hi"}], "usage": {
    "input_tokens": 50, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 200, "output_tokens": 30}}).encode()
EMBEDDING = json.dumps({"object": "list", "data": [{"embedding": [0.5] * 300, "index": 0}], "model": "text-embedding-3-small",
                        "usage": {"prompt_tokens": 8, "total_tokens": 8}}).encode()


def events(*data, name=None):
    return [((f"event: {d.get('type')}\n" if name else "") + f"data: {d if isinstance(d, str) else json.dumps(d)}\n\n").encode()
            for d in data]


def said(text):
    return {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}


CHAT_STREAM = events(said("Hello there, "), said("this is it."), {"id": "c", "choices": [], "usage": USAGE}, "[DONE]")
MESSAGE_STREAM = events(
    {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 25, "output_tokens": 1}}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello there, this is it."}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}},
    {"type": "message_stop"}, name=True)


def whole(body, kind="application/json", headers=""):
    return lambda wire, request: wire.send(wire1.answer(body, headers=f"Content-Type: {kind}\r\n{headers}"))


def streamed(chunks, piece=None, cut=False):
    """Sends events in chunks, cut into pieces; `cut`: and then the connection breaks."""
    def handler(wire, request):
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        data = b"".join(chunks)
        for at in range(0, len(data), piece or len(data)):
            part = data[at:at + (piece or len(data))]
            wire.send(b"%x\r\n%s\r\n" % (len(part), part))
        if cut:
            return "close"
        wire.send("0\r\n\r\n")
    return handler


def ask(proxy, path="/v1/chat/completions", model="gpt-4o", headers="", **more):
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "What is the weather in Paris today?"}], **more}).encode()
    return wire1.get(proxy.port, path, "Content-Type: application/json\r\n" + headers, "POST", body)


@pytest.fixture
def metered(ephor, h1_server):
    def start(handler, *limits, prices=PRICES, log=False, **more):
        server = h1_server(handler)
        filters = ["identity", "agent", *([{"ratelimit": {"limits": list(limits), **more}}] if limits else []),
                   {"meter": {"prices": prices} if prices else {}}]
        proxy = ephor(config(server.port, {"filters": filters, "tenant": {"header": "x-tenant-id"}}, {"protocol": "http/1.1"},
                             access_log={"sample": "100%"} if log else {"enabled": False}))
        proxy.server = server
        return proxy
    return start


def tokens(proxy, **labels):
    rows = [(has["kind"], value) for name, has, value in proxy.metrics().rows
            if name == "ephor_llm_tokens_total" and all(has[k] == v for k, v in labels.items())]
    return dict(rows)


# --- reading ------------------------------------------------------------------------------------------------------------
def test_a_whole_answer_is_counted_and_priced_and_reaches_the_client_as_it_was(metered):
    proxy = metered(whole(CHAT), log=True)
    r = ask(proxy, headers="x-tenant-id: acme\r\n")
    assert r.body == CHAT
    proxy.counted(1, "ephor_llm_calls_total", model="gpt-4o", usage="reported", tenant="acme", agent="unknown")
    assert tokens(proxy, tenant="acme", model="gpt-4o") == {"input": 1000, "output": 100, "cached": 400, "reasoning": 60}
    # 600 × 2.50 + 400 × 1.25 + 100 × 10, a million each
    assert proxy.metric("ephor_llm_cost_total", model="gpt-4o", basis="reported") == pytest.approx(0.003)
    row = until(lambda: [json.loads(l) for l in proxy.log.splitlines() if '"tokens_input"' in l], "the line")[0]
    assert row["tokens_input"] == 1000 and row["tokens_output"] == 100 and row["cost"] == pytest.approx(0.003)
    assert "tokens_estimated" not in row


@pytest.mark.parametrize("path,model,headers,handler,want,cost", [
    ("/v1/messages", "claude-x", "anthropic-version: 2023-06-01\r\n", whole(MESSAGE),
     {"input": 1250, "output": 30, "cached": 1000, "cache_write": 200}, 50 * 3 + 1000 * .3 + 200 * 3.75 + 30 * 15),
    ("/v1/embeddings", "text-embedding-3-small", "", whole(EMBEDDING), {"input": 8}, 8 * .02),
    ("/v1/chat/completions", "gpt-4o", "", whole(gzip.compress(CHAT), headers="Content-Encoding: gzip\r\n"),
     {"input": 1000, "output": 100, "cached": 400, "reasoning": 60}, 3000),
    ("/v1/chat/completions", "gpt-4o", "", streamed(CHAT_STREAM), {"input": 1000, "output": 100, "cached": 400, "reasoning": 60}, 3000),
    ("/v1/chat/completions", "gpt-4o", "", streamed(CHAT_STREAM, 1), {"input": 1000, "output": 100, "cached": 400, "reasoning": 60}, 3000),
    ("/v1/messages", "claude-x", "anthropic-version: 2023-06-01\r\n", streamed(MESSAGE_STREAM, 1), {"input": 25, "output": 15},
     25 * 3 + 15 * 15)], ids=["messages", "embeddings", "gzip", "stream", "stream in bytes", "messages stream in bytes"])
def test_each_kind_of_answer(metered, path, model, headers, handler, want, cost):
    proxy = metered(handler)
    ask(proxy, path, model, headers)
    proxy.counted(1, "ephor_llm_calls_total", usage="reported")
    assert tokens(proxy, model=model) == want
    assert proxy.metric("ephor_llm_cost_total") == pytest.approx(cost / 1e6)


def test_a_stream_without_usage_is_estimated_and_says_so(metered):
    proxy = metered(streamed(CHAT_STREAM[:2] + CHAT_STREAM[3:]), log=True)
    ask(proxy, stream=True)
    proxy.counted(1, "ephor_llm_calls_total", usage="estimated")
    got = tokens(proxy)
    assert set(got) == {"input_estimated", "output_estimated"} and got["output_estimated"] == 6, "24 bytes of text"
    assert 10 <= got["input_estimated"] <= 30
    assert proxy.metric("ephor_llm_cost_total", basis="estimated") > 0 and proxy.metric("ephor_llm_cost_total", basis="reported") == 0
    assert until(lambda: [json.loads(l) for l in proxy.log.splitlines() if '"tokens_estimated":true' in l], "the line")


def test_a_stream_that_breaks_is_counted_by_what_was_seen(metered):
    proxy = metered(streamed(MESSAGE_STREAM[:2], 7, cut=True))
    try:
        ask(proxy, "/v1/messages", "claude-x", "anthropic-version: 2023-06-01\r\n", stream=True)
    except (wire1.Closed, ConnectionError):
        pass
    proxy.counted(1, "ephor_llm_calls_total", usage="broken")
    assert tokens(proxy) == {"input": 25, "output_estimated": 6}


@pytest.mark.parametrize("path,model,headers,chunks,usage", [
    ("/v1/messages", "claude-x", "anthropic-version: 2023-06-01\r\n", MESSAGE_STREAM[:3], "broken"),
    ("/v1/chat/completions", "gpt-4o", "", CHAT_STREAM[:2], "broken"),
    ("/v1/responses", "gpt-4o", "", events({"type": "response.output_text.delta", "delta": "Hello"}, name=True), "broken"),
    ("/v1/chat/completions", "gpt-4o", "", CHAT_STREAM[:2] + events(
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}), "estimated")], ids=["messages", "chat", "responses", "no DONE"])
def test_a_stream_that_ends_where_its_api_does_not_end_one_passes_and_is_counted(metered, path, model, headers, chunks, usage):
    proxy = metered(streamed(chunks), log=True)
    r = ask(proxy, path, model, headers, stream=True)
    assert r.body == b"".join(chunks), "as direct: no error is made of it, since some servers end so"
    proxy.counted(1, "ephor_llm_calls_total", usage=usage)
    row = until(lambda: [json.loads(l) for l in proxy.log.splitlines() if '"tokens_input"' in l], "the line")[0]
    assert row.get("flag") == ("SE" if usage == "broken" else None), row


def test_a_model_without_a_price_is_counted_as_such(metered):
    proxy = metered(whole(CHAT))
    ask(proxy, model="o9-ultra")
    proxy.counted(1, "ephor_llm_unpriced_total", model="o9-ultra")
    assert tokens(proxy, model="o9-ultra")["input"] == 1000
    assert "ephor_llm_cost_total" not in proxy.metrics().names()


def test_errors_use_nothing(metered):
    proxy = metered(lambda w, r: w.send(wire1.answer(b'{"error":{"message":"no"}}', "500 No", "Content-Type: application/json\r\n")))
    ask(proxy)
    proxy.counted(1, "ephor_llm_calls_total", usage="none")
    assert tokens(proxy) == {}


def test_tools_are_counted_by_name_in_the_default_chain(ephor, h1_server, policies):
    deny = 'return require "ephor.policy" { name = "p", match = { tool = "shell" }, call = function(c) return c:deny("no") end }'
    proxy = ephor(config(h1_server().port, cluster={"protocol": "http/1.1"}, policies=policies(p=deny)))
    mcp = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
    calls = [{"jsonrpc": "2.0", "id": i, "method": "tools/call", "params": {"name": n}} for i, n in enumerate(["a", "b", "a"])]
    wire1.get(proxy.port, "/mcp", mcp, "POST", json.dumps(calls).encode())
    wire1.get(proxy.port, "/mcp", mcp, "POST", json.dumps({**calls[0], "params": {"name": "shell"}}).encode())
    proxy.counted(2, "ephor_tool_calls_total", protocol="mcp", tool="a", result="ok")
    assert proxy.metric("ephor_tool_calls_total", tool="b", result="ok") == 1
    proxy.counted(1, "ephor_tool_calls_total", tool="shell", result="refused")
    proxy.reload(config(free_port(), cluster={"protocol": "http/1.1"}))
    wire1.get(proxy.port, "/mcp", mcp, "POST", json.dumps(calls[0]).encode())
    proxy.counted(1, "ephor_tool_calls_total", tool="a", result="failed")


def test_names_without_end_are_folded(metered):
    proxy = metered(whole(CHAT))
    with wire1.connect(proxy.port) as wire:
        for i in range(2100):
            body = json.dumps({"model": f"m{i}", "messages": []}).encode()
            wire.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                      % (len(body), body))
            assert wire.response("POST").status == 200
    until(lambda: proxy.metric("ephor_llm_calls_total") == 2100, "all")
    metrics = proxy.metrics()
    assert metrics.sum("ephor_llm_calls_total", model="other") == 100
    assert metrics.sum("ephor_series_folded_total", metric="ephor_llm_calls_total") >= 1


# --- limits by tokens and money -----------------------------------------------------------------------------------------
def usage_of(n):
    return json.dumps({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": n - 10, "total_tokens": n}}).encode()


def test_tokens_are_reserved_before_and_settled_after(metered):
    proxy = metered(whole(usage_of(300)), {"name": "t", "tokens": "1000/1h"}, reserve=500)
    assert ask(proxy).status == 200, "about 520 are taken, and 300 were used"
    until(proxy.idle, "the end of the call")
    assert ask(proxy).status == 200
    until(proxy.idle, "the end of the call")
    r = ask(proxy, headers="Accept: application/json\r\n")
    assert r.status == 429 and json.loads(r.body)["error"]["code"] == "ratelimit.exceeded", "400 are left"
    assert '"t";q=1000;qu="tokens";w=3600' == r.get("ratelimit-policy") and '"t";r=400;' in r.get("ratelimit")
    assert 350 <= int(r.get("retry-after")) <= 500, "some 120 are missing, at 3.6 s each"


def test_max_tokens_says_what_is_reserved(metered):
    proxy = metered(whole(usage_of(20)), {"name": "t", "tokens": "1000/1h"}, reserve=0)
    assert ask(proxy, max_tokens=800).status == 200
    r = ask(proxy, max_tokens=5000)
    assert r.status == 429 and r.get("retry-after") is None and json.loads(r.body)["error"]["code"] == "ratelimit.too_large"
    assert ask(proxy, max_tokens=300, n=2).status == 200
    assert ask(proxy, max_tokens=300, n=4).status == 429


def test_what_was_more_than_reserved_is_owed(metered):
    proxy = metered(whole(usage_of(4000)), {"name": "t", "tokens": "1000/1h"}, reserve=100)
    assert ask(proxy).status == 200
    until(proxy.idle, "the end of the call")
    r = ask(proxy)
    assert r.status == 429 and int(r.get("retry-after")) > 3 * 3600, "3000 are owed: three hours"


@pytest.mark.parametrize("cut", [True, False], ids=["cut", "without its last event"])
def test_a_broken_stream_keeps_the_reservation_and_a_refused_one_gives_it_back(metered, cut):
    proxy = metered(streamed(MESSAGE_STREAM[:2], cut=cut), {"name": "t", "tokens": "1000/1h"}, reserve=600)
    try:
        ask(proxy, stream=True)
    except (wire1.Closed, ConnectionError):
        pass
    until(proxy.idle, "the end of the call")
    assert ask(proxy).status == 429, "what it was in the end nobody knows"
    failing = metered(lambda w, r: w.send(wire1.answer(b"{}", "503 No", "Content-Type: application/json\r\n")),
                      {"name": "t", "tokens": "1000/1h"}, reserve=600)
    for _ in range(4):
        assert ask(failing).status == 503
        until(failing.idle, "the end of the call")


def test_a_client_that_goes_away_before_the_answer_gets_nothing_back(metered):
    waiting = []

    def never(wire, request):
        waiting.append(wire)
        wire.rest()
    proxy = metered(never, {"name": "t", "tokens": "1000/1h"}, reserve=600)
    body = json.dumps({"model": "gpt-4o", "messages": []}).encode()
    with wire1.connect(proxy.port) as wire:
        wire.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                  % (len(body), body))
        until(lambda: waiting, "the request at the provider")
        wire.reset()
    until(proxy.idle, "the end of the call")
    assert ask(proxy).status == 429


def test_a_budget_in_money(metered):
    proxy = metered(whole(CHAT), {"name": "money", "key": ["tenant"], "cost": "0.01/1d"}, reserve=100)
    for _ in range(3):
        assert ask(proxy, headers="x-tenant-id: a\r\n").status == 200
        until(proxy.idle, "the end of the call")
    r = ask(proxy, headers="x-tenant-id: a\r\n")
    assert r.status == 429 and "more than 0.01 in money in 1d" in json.loads(r.body)["error"]["message"]
    assert r.get("retry-after") and r.get("ratelimit") is None, "0.009 are spent, and a thousandth must be there"
    assert ask(proxy, headers="x-tenant-id: b\r\n").status == 200
    r = ask(proxy, model="o9-ultra", headers="x-tenant-id: b\r\n")
    assert r.status == 429 and json.loads(r.body)["error"]["code"] == "ratelimit.unpriced", "a budget that nobody can reckon is none"


def test_a_batch_keeps_what_each_of_its_messages_may_use(metered):
    proxy = metered(whole(b'{"id":"b","type":"message_batch"}'), {"name": "t", "tokens": "1000/1h"})

    def batch(*most):
        requests = [{"custom_id": str(i), "params": {"model": "claude-x", "max_tokens": n, "messages": []}} for i, n in enumerate(most)]
        return wire1.get(proxy.port, "/v1/messages/batches", "Content-Type: application/json\r\nanthropic-version: 2023-06-01\r\n",
                         "POST", json.dumps({"requests": requests}).encode())
    assert batch(300, 300).status == 200
    until(proxy.idle, "the end of the call")
    assert batch(200, 300).status == 429 and batch(300).status == 200
    proxy.counted(2, "ephor_llm_calls_total", usage="batch")
    assert tokens(proxy) == {}


def test_limits_of_tokens_leave_other_calls_alone(metered):
    proxy = metered(None, {"name": "t", "tokens": "1/1h"})
    for _ in range(3):
        assert wire1.get(proxy.port, "/page").status == 200
    r = wire1.get(proxy.port, "/v1/messages/count_tokens", "Content-Type: application/json\r\nanthropic-version: 2023-06-01\r\n",
                  "POST", b'{"model":"claude-x","messages":[]}')
    assert r.status == 200


def test_limits_of_tokens_need_the_meter_and_money_needs_prices(ephor, h1_server):
    proxy = ephor(config(h1_server().port, cluster={"protocol": "http/1.1"}))
    for meter, limit, complaint in [([], {"tokens": "1/s"}, "needs the filter 'meter'"), (["meter"], {"cost": "1/1d"}, "needs a price list")]:
        filters = ["agent", {"ratelimit": {"limits": [{"name": "x", **limit}]}}, *meter]
        proxy.reload(config(1, {"filters": filters}), expect="rejected")
        assert complaint in proxy.log
