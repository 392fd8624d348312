"""`ratelimit`: what is used up is refused in each caller's own protocol, two workers hold one limit, a reload forgets nothing.

Rates are slow (so many in an hour) wherever a test counts: what flows in while it runs is then less than one.
"""
import json
import re
import threading

import pytest
import wire1
import wire2
from harness import config, h2load, run, until

pytestmark = pytest.mark.workers

MCP = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"


def limited(*limits, before=("identity", "agent"), **more):
    return {"filters": [*before, {"ratelimit": {"limits": list(limits), **more}}]}


@pytest.fixture
def proxy_with(ephor, h1_server):
    def start(*limits, handler=None, top=None, **more):
        server = h1_server(handler)
        proxy = ephor(config(server.port, limited(*limits, **more), {"protocol": "http/1.1"}, **(top or {})))
        proxy.server = server
        return proxy
    return start


def tool(name, number=1):
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": name}}


def mcp(proxy, *messages, headers=""):
    body = json.dumps(messages[0] if len(messages) == 1 else messages).encode()
    return wire1.get(proxy.port, "/mcp", MCP + headers, "POST", body)


# --- the forms of a refusal ---------------------------------------------------------------------------------------------
def test_plain_http_gets_429_with_the_time_and_the_limit(proxy_with):
    proxy = proxy_with({"name": "all", "requests": "3/1h"})
    for _ in range(3):
        assert wire1.get(proxy.port, "/x").status == 200
    r = wire1.get(proxy.port, "/x", "Accept: application/json\r\n")
    assert r.status == 429 and r.get("content-type") == "application/problem+json"
    said = json.loads(r.body)
    assert said["code"] == "ratelimit.exceeded" and said["policy"] == "all" and said["title"] == "Limit reached"
    assert said["detail"] == "Refused by limit all: more than 3 requests in 1h"
    assert 1190 <= int(r.get("retry-after")) <= 1200, "a third of an hour, less what the test has taken"
    assert r.get("ratelimit-policy") == '"all";q=3;w=3600'
    assert re.fullmatch(rf'"all";r=0;t={r.get("retry-after")}', r.get("ratelimit"))
    assert len(proxy.server.requests) == 3
    proxy.counted(3, "ephor_ratelimit_total", limit="all", decision="allow")
    proxy.counted(1, "ephor_ratelimit_total", limit="all", decision="deny")
    proxy.counted(1, "ephor_refusals_total", code="ratelimit.exceeded", by="all")
    until(lambda: proxy.metric("ephor_ratelimit_buckets") == 1, "one bucket")


def test_a_tool_call_gets_an_error_result_that_the_model_can_act_on(proxy_with):
    proxy = proxy_with({"name": "search", "key": ["tool"], "requests": "1/1h", "match": {"tools": ["search*"]}})
    assert mcp(proxy, tool("search")).status == 200
    r = mcp(proxy, tool("search", 7))
    result = json.loads(r.body)["result"]
    assert r.status == 200 and result["isError"] and json.loads(r.body)["id"] == 7
    wait = int(r.get("retry-after"))
    assert result["content"][0]["text"] == f"Refused by limit search: more than 1 requests in 1h. Try again in {wait} s."
    assert result["_meta"]["ephor.dev/refusal"]["retryAfter"] == wait and 3590 <= wait <= 3600
    assert mcp(proxy, tool("echo")).status == 200 and len(proxy.server.requests) == 2


def test_another_mcp_request_gets_a_json_rpc_error(proxy_with):
    proxy = proxy_with({"name": "lists", "requests": "1/1h", "match": {"methods": ["tools/list"]}})
    ask = {"jsonrpc": "2.0", "id": "a", "method": "tools/list"}
    mcp(proxy, ask)
    r = mcp(proxy, ask)
    error = json.loads(r.body)["error"]
    assert r.status == 200 and error["code"] == 429 and error["data"]["code"] == "ratelimit.exceeded"
    note = {"jsonrpc": "2.0", "method": "notifications/progress"}
    proxy2 = proxy_with({"name": "notes", "requests": "1/1h"})
    assert mcp(proxy2, note).status == 200
    r = mcp(proxy2, note)
    assert r.status == 202 and r.body == b"" and len(proxy2.server.requests) == 1


def test_grpc_gets_status_8(ephor, h2_server):
    server = h2_server()
    proxy = ephor(config(server.port, limited({"name": "rpc", "key": ["method"], "requests": "1/1h"}), {"protocol": "h2"}))
    with wire2.Client(proxy.port) as client:
        head = [("content-type", "application/grpc"), ("te", "trailers")]
        client.request("/pkg.S/Get", "POST", head, body=b"\0\0\0\0\0")
        r = client.request("/pkg.S/Get", "POST", head, body=b"\0\0\0\0\0")
        assert r.status == 200 and r.get("grpc-status") == "8" and "limit%20rpc" in r.get("grpc-message").replace(" ", "%20")
        other = client.request("/pkg.S/Put", "POST", head, body=b"\0\0\0\0\0")
        assert other.get("grpc-status") != "8"
    assert len(server.exchanges) == 2


@pytest.mark.parametrize("path,headers,kind", [("/v1/chat/completions", "", "openai"),
                                               ("/v1/messages", "anthropic-version: 2023-06-01\r\n", "anthropic")])
def test_models_get_their_own_429_that_is_not_retried(proxy_with, path, headers, kind):
    proxy = proxy_with({"name": "gpt", "key": ["model"], "requests": "1/1h"})

    def ask(model):
        body = json.dumps({"model": model, "max_tokens": 5, "messages": []}).encode()
        return wire1.get(proxy.port, path, "Content-Type: application/json\r\n" + headers, "POST", body)
    ask("a")
    r = ask("a")
    assert r.status == 429 and r.get("x-should-retry") == "false" and int(r.get("retry-after")) > 3500
    assert json.loads(r.body)["error"]["type"] == "rate_limit_error"
    assert ask("b").status == 200


def test_another_status_can_be_asked_for(proxy_with):
    proxy = proxy_with({"name": "all", "requests": "1/1h", "status": 503})
    wire1.get(proxy.port)
    assert wire1.get(proxy.port).status == 503


# --- who shares a bucket ------------------------------------------------------------------------------------------------
def test_keys_are_combined(proxy_with):
    proxy = proxy_with({"name": "k", "key": ["header:x-user", "tool"], "requests": "1/1h"})
    said = [json.loads(mcp(proxy, tool(t), headers=f"x-user: {u}\r\n").body).get("result", {}).get("isError", False)
            for u, t in [("a", "x"), ("b", "x"), ("a", "y"), ("a", "x"), ("b", "x"), ("b", "y")]]
    assert said == [False, False, False, True, True, False]


def test_what_calls_no_tool_is_not_under_a_limit_of_tools(proxy_with):
    proxy = proxy_with({"name": "tools", "key": ["tool"], "requests": "1/1h"})
    for _ in range(3):
        assert mcp(proxy, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).get("retry-after") is None
        assert wire1.get(proxy.port, "/page").status == 200


def test_a_call_that_is_hidden_is_under_it(proxy_with):
    proxy = proxy_with({"name": "tools", "key": ["tool"], "requests": "1/1h", "match": {"tools": ["shell"]}})
    hide = "Content-Type: application/json; charset=utf-16\r\n"
    assert wire1.get(proxy.port, "/mcp", hide, "POST", b"??").status == 200
    assert wire1.get(proxy.port, "/mcp", hide, "POST", b"??").status == 429


def test_who_leaves_a_header_out_shares_a_bucket_with_all_who_do(proxy_with):
    proxy = proxy_with({"name": "users", "key": ["header:x-user"], "requests": "1/1h"})
    assert [wire1.get(proxy.port, "/", h).status for h in ("", "x-user: a\r\n", "", "x-user: b\r\n", "x-user: a\r\n")] == \
        [200, 200, 429, 200, 429]


def test_each_call_of_a_batch_counts(proxy_with):
    proxy = proxy_with({"name": "t", "key": ["tool"], "requests": "3/1h"})
    assert "isError" not in mcp(proxy, tool("a", 1), tool("a", 2), tool("b", 3)).body.decode()
    r = mcp(proxy, tool("a", 4), tool("a", 5))
    assert [m["result"]["isError"] for m in json.loads(r.body)] == [True, True], "one more is there, two are not"
    assert "isError" not in mcp(proxy, tool("a", 6)).body.decode(), "and the batch that was refused took nothing"
    assert "isError" in mcp(proxy, tool("a", 7)).body.decode()


def test_a_call_takes_from_all_limits_or_none(proxy_with):
    proxy = proxy_with({"name": "each", "key": ["path"], "requests": "1/1h"}, {"name": "sum", "requests": "3/1h"})
    assert [wire1.get(proxy.port, p).status for p in ("/a", "/a", "/a", "/b", "/c", "/d")] == [200, 429, 429, 200, 200, 429]
    assert wire1.get(proxy.port, "/d").get("ratelimit").startswith('"sum"'), "the path's own bucket was given back"


def test_bytes_count_both_ways_and_what_is_over_is_owed(proxy_with):
    proxy = proxy_with({"name": "b", "bytes": "1000/1h"}, handler=lambda w, r: w.send(wire1.answer(b"x" * 900)))
    assert wire1.get(proxy.port, "/", "", "POST", b"y" * 200).status == 200
    proxy.counted(1, "ephor_ratelimit_total", decision="allow")
    until(proxy.idle, "the end of the first")
    r = wire1.get(proxy.port)
    assert r.status == 429 and 350 <= int(r.get("retry-after")) <= 364, "101 too many: 100 are owed, and one is asked for"
    assert 'qu="content-bytes"' in r.get("ratelimit-policy")
    big = proxy_with({"name": "b", "bytes": "1000/1h"})
    r = wire1.get(big.port, "/", "Accept: application/json\r\n", "POST", b"y" * 1001)
    assert r.status == 429 and r.get("retry-after") is None and json.loads(r.body)["code"] == "ratelimit.too_large"


def test_allowed_answers_tell_what_is_left_when_asked_to(proxy_with):
    proxy = proxy_with({"name": "a", "requests": "60/1m", "burst": "5"}, {"name": "z", "requests": "1000/1d"}, headers="always")
    r = wire1.get(proxy.port)
    assert r.get("ratelimit") == '"a";r=4;t=1, "z";r=999;t=87'
    assert r.get("ratelimit-policy") == '"a";q=5;w=5, "z";q=1000;w=86400'
    silent = proxy_with({"name": "a", "requests": "1/1h"}, headers="never")
    assert wire1.get(silent.port).get("ratelimit") is None
    r = wire1.get(silent.port)
    assert r.status == 429 and r.get("ratelimit") is None and r.get("retry-after")


def test_in_shadow_all_pass_and_the_audit_has_what_would_not_have(proxy_with, tmp_path):
    proxy = proxy_with({"name": "s", "requests": "1/1h", "mode": "shadow"}, {"name": "e", "requests": "3/1h"},
                       top={"audit": {"directory": str(tmp_path / "audit")}})
    assert [wire1.get(proxy.port).status for _ in range(4)] == [200, 200, 200, 429]
    proxy.counted(3, "ephor_ratelimit_total", limit="s", decision="shadow_deny")
    shown = run(proxy.binary, "audit", "show", "--json", tmp_path / "audit", check=False).stdout
    rows = [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
    got = [(r["decision"], r["policy"], r["code"]) for r in rows if r["event"] == "decision"]
    assert got.count(("shadow_deny", "s", "ratelimit.exceeded")) == 3 and got.count(("deny", "e", "ratelimit.exceeded")) == 1


# --- two workers, reloads, crowds ---------------------------------------------------------------------------------------
@pytest.mark.limit(120)
def test_two_workers_hold_one_limit_and_a_crowd_gets_what_is_there_and_no_more(ephor, site, process):
    from harness import nghttpd
    _, port = process(nghttpd(site.parent, site))
    proxy = ephor(config(port, limited({"name": "all", "requests": "700/1h"}), {"protocol": "h2"}, workers=2))
    got = h2load(proxy.port, "-n", "4000", "-c", "16", "-m", "16", "-t", "2", path="/small", check=False)
    assert got["2xx"] == 700 + int(got["2xx"] > 700), "one more, where the run took longer than five seconds"
    assert got["2xx"] + got["4xx"] == 4000
    proxy.counted(got["2xx"], "ephor_ratelimit_total", limit="all", decision="allow")


def test_a_reload_keeps_the_buckets_of_limits_that_stay_as_they_are(ephor, h1_server):
    server = h1_server()

    def file(**changed):
        mine = {"name": "kept", "key": ["path"], "requests": "2/1h"}
        other = {"name": "changed", "key": ["header:x"], "requests": "2/1h", "match": {"paths": ["/o"]}, **changed}
        return config(server.port, limited(mine, other), {"protocol": "http/1.1"})
    proxy = ephor(file())
    for path in ("/a", "/a", "/o", "/o"):
        assert wire1.get(proxy.port, path).status == 200
    proxy.reload({**file(), "drain": {"timeout": "31s"}})
    assert wire1.get(proxy.port, "/a").status == 429 and wire1.get(proxy.port, "/o").get("ratelimit").startswith('"kept"')
    proxy.reload({**file(requests="3/1h"), "drain": {"timeout": "32s"}})
    assert wire1.get(proxy.port, "/a").status == 429, "what was not changed remembers"


def test_limits_of_one_pod_are_shared_by_listeners_that_ask_for_it(ephor, h1_server):
    server = h1_server()
    limit = {"name": "sum", "requests": "2/1h", "scope": "pod"}
    filters = limited(limit)["filters"]
    two = config(server.port, {"filters": filters}, {"protocol": "http/1.1"})
    two["listeners"].append({"name": "second", "bind": "127.0.0.1:0", "cluster": "app", "filters": filters})
    proxy = ephor(two)
    assert [wire1.get(proxy.ports[l]).status for l in ("inbound", "second", "inbound", "second")] == [200, 200, 429, 429]


def test_many_at_once_on_one_connection_each(proxy_with):
    proxy = proxy_with({"name": "all", "requests": "50/1h"})
    seen = []

    def go():
        for _ in range(10):
            seen.append(wire1.get(proxy.port).status)
    threads = [threading.Thread(target=go) for _ in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert seen.count(200) == 50 and seen.count(429) == 50


def test_a_filter_in_front_of_what_it_needs_is_refused(proxy_with, ephor, h1_server):
    proxy = ephor(config(h1_server().port, cluster={"protocol": "http/1.1"}))
    bad = config(1, limited({"name": "t", "key": ["tool"], "requests": "1/s"}, before=("identity",)))
    proxy.reload(bad, expect="rejected")
    assert "limit t is about the call: put the filter 'agent' in front" in proxy.log
