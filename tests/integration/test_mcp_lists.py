"""Lists of tools, prompts and resources hold what the caller may call, and nothing else: as JSON and as events, page by page."""
import gzip
import json

import pytest
import wire1
from harness import config

HEADERS = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\nAccept-Encoding: gzip\r\n"

BY_NAME = '''
local policy = require "ephor.policy"
return policy { name = "by-name", match = { protocol = "mcp", method = { "tools/call", "prompts/get", "resources/read" } },
  call = function(c)
    if (c.tool or c.prompt or c.uri or ""):find("secret") then return c:deny("secret") end
  end }'''
BY_ARGUMENTS = '''
local policy = require "ephor.policy"
return policy { name = "by-arguments", match = { protocol = "mcp", method = "tools/call", tool = "write" },
  call = function(c) if not (c.arguments and c.arguments.dry_run) then return c:deny("only dry runs") end end }'''
BY_COUNT = '''
local policy = require "ephor.policy"
return policy { name = "by-count", match = { protocol = "mcp", method = "tools/call", tool = "read" },
  call = function(c)
    c:meter("reads"); c:remember("last", c.tool, "1m")
    if c:count("reads", 1, "1m") > 1 then return c:deny("once") end
  end }'''
SHADOW = BY_NAME.replace('"by-name",', '"shadow", mode = "shadow",').replace("secret", "read")

TOOLS = ["read", "secret-a", "write", "secret-b"]


def entries(*names, key="name"):
    return [{key: name, "description": f"a [b] {{c}}, \"{name}\" ☃", "inputSchema": {"type": "object"}} for name in names]


def reply(result, request=None):
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}, ensure_ascii=False)


@pytest.fixture
def listing(ephor, h1_server, policies):
    """listing(body, **more): (what the client gets, the proxy) when the server answers a list with `body`."""
    def make(body, method="tools/list", type="application/json", headers="", listener=None, scripts=None, **more):
        data = body if isinstance(body, bytes) else body.encode()

        def handler(wire, request):
            wire.send(f"HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nContent-Length: {len(data)}\r\n{headers}\r\n").send(data)
        server = h1_server(handler)
        directory = policies(**(scripts if scripts is not None else {"by_name": BY_NAME, "by_arguments": BY_ARGUMENTS}))
        proxy = ephor(config(server.port, listener=listener, cluster={"protocol": "http/1.1"}, policies=directory, **more))
        proxy.server = server
        r = wire1.get(proxy.port, "/mcp", HEADERS, "POST", b'{"jsonrpc":"2.0","id":1,"method":"%s"}' % method.encode())
        return r, proxy
    return make


def names(r, member="tools", key="name"):
    return [entry[key] for entry in json.loads(r.body)["result"][member]]


def test_what_a_policy_refuses_by_name_is_not_listed_and_what_hangs_on_arguments_is(listing):
    r, proxy = listing(reply({"tools": entries(*TOOLS), "nextCursor": "more"}))
    assert r.status == 200 and names(r) == ["read", "write"] and json.loads(r.body)["result"]["nextCursor"] == "more"
    assert json.loads(r.body)["result"]["tools"] == entries("read", "write"), "the entries themselves are untouched"
    proxy.counted(2, "ephor_mcp_list_entries_total", listener="inbound", list="tools", result="hidden")
    proxy.counted(2, "ephor_mcp_list_entries_total", list="tools", result="listed")
    assert proxy.server.requests[0].get("accept-encoding") is None
    assert proxy.metric("ephor_policy_decisions_total", policy="by-name", decision="deny") == 0, "nobody called anything"


@pytest.mark.parametrize("method, member, key", [
    ("prompts/list", "prompts", "name"), ("resources/list", "resources", "uri")])
def test_prompts_and_resources_are_filtered_alike(listing, method, member, key):
    r, _ = listing(reply({member: entries("note://a", "note://secret", key=key)}), method)
    assert names(r, member, key) == ["note://a"]


def test_a_template_is_listed_since_its_uri_is_not_known(listing):
    r, _ = listing(reply({"resourceTemplates": entries("note://secret/{id}", key="uriTemplate")}), "resources/templates/list")
    assert names(r, "resourceTemplates", "uriTemplate") == ["note://secret/{id}"]


def test_a_page_of_which_nothing_is_left_is_still_a_page(listing):
    r, _ = listing(reply({"tools": entries("secret-a", "secret-b"), "nextCursor": "2"}))
    assert json.loads(r.body)["result"] == {"tools": [], "nextCursor": "2"}


def test_where_nothing_is_hidden_the_bytes_are_the_servers(listing):
    body = '{ "jsonrpc" : "2.0","result":{"tools" :[ {"name":"read", "n":1e400} ,{"name":"wr\\u0069te"}\t]},"id":1}\n'
    r, _ = listing(body)
    assert r.body == body.encode()


@pytest.mark.parametrize("names_", [[], ["read"], ["read", "secret"]])
@pytest.mark.parametrize("type", ["application/json", "text/event-stream"])
def test_a_list_that_is_written_for_people_is_read(listing, names_, type):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": entries(*names_), "empty": {}, "none": []}}, indent=2)
    if type != "application/json":
        body = "".join(f"data: {line}\r\n" for line in body.splitlines()) + "\r\n"
    r, _ = listing(body, type=type)
    text = r.body.decode() if type == "application/json" else "\n".join(
        line[5:] for line in r.body.decode().splitlines() if line.startswith("data:"))
    assert [tool["name"] for tool in json.loads(text)["result"]["tools"]] == [n for n in names_ if n != "secret"]


def test_an_escaped_name_and_key_hide_nothing(listing):
    r, _ = listing('{"jsonrpc":"2.0","id":1,"result":{"to\\u006fls":[{"n\\u0061me":"se\\u0063ret"},{"name":"read"}]}}')
    assert names(r) == ["read"]


def test_a_reply_in_gzip_is_read_and_goes_on_plain(listing):
    r, _ = listing(gzip.compress(reply({"tools": entries(*TOOLS)}).encode()), headers="Content-Encoding: gzip\r\nETag: x\r\n")
    assert names(r) == ["read", "write"] and r.get("content-encoding") is None and r.get("etag") is None


def test_what_may_be_cached_for_all_may_not_once_it_was_filtered(listing):
    r, _ = listing(reply({"ttlMs": 5, "cacheScope": "public", "tools": entries("read", "secret")}))
    assert json.loads(r.body)["result"]["cacheScope"] == "private" and names(r) == ["read"]


UNREADABLE = {
    "two lists": '{"jsonrpc":"2.0","id":1,"result":{"tools":[],"tools":[{"name":"secret"}]}}',
    "another case": '{"jsonrpc":"2.0","id":1,"result":{"Tools":[{"name":"secret"}]}}',
    "letters that Go folds": '{"jsonrpc":"2.0","id":1,"result":{"tool\u017f":[{"name":"secret"}]}}',
    "a name of another case": '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"Name":"secret"}]}}',
    "too deep": '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"a":%s},{"name":"secret"}]}}' % ("[" * 70 + "]" * 70),
    "no JSON": '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"secret"}]}',
}


@pytest.mark.parametrize("row", UNREADABLE)
def test_a_list_that_can_be_read_in_two_ways_is_refused(listing, row):
    r, proxy = listing(UNREADABLE[row])
    error = json.loads(r.body)["error"]
    assert r.status == 200 and error["code"] == 502 and error["data"]["code"] == "mcp.list_unreadable"
    proxy.counted(1, "ephor_refusals_total", code="mcp.list_unreadable")


def test_policies_that_count_or_remember_are_not_asked_and_nothing_is_counted(listing):
    r, proxy = listing(reply({"tools": entries("read", "read", "read")}), scripts={"by_count": BY_COUNT})
    assert names(r) == ["read"] * 3 and proxy.metric("ephor_policy_meter_total") == 0
    assert proxy.metric("ephor_policy_memory_entries") == 0
    call = b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"read"}}'
    assert b"isError" not in wire1.get(proxy.port, "/mcp", HEADERS, "POST", call).body
    assert b"isError" in wire1.get(proxy.port, "/mcp", HEADERS, "POST", call).body, "the second real call is one too many"


def test_a_policy_in_shadow_hides_nothing(listing):
    r, _ = listing(reply({"tools": entries(*TOOLS)}), scripts={"shadow": SHADOW})
    assert names(r) == TOOLS


def test_authorize_hides_what_it_refuses(listing):
    r, _ = listing(reply({"tools": entries(*TOOLS)}), scripts={}, listener={"authorize": [{"action": "deny", "tools": ["secret-*"]}]})
    assert names(r) == ["read", "write"]


def test_an_allow_rule_lists_what_it_allows(listing):
    r, _ = listing(reply({"tools": entries(*TOOLS)}), scripts={}, listener={"authorize": [{"tools": ["write"]}]})
    assert names(r) == ["write"]


def test_it_can_be_switched_off(listing):
    r, proxy = listing(reply({"tools": entries(*TOOLS)}), listener={"mcp": {"filter_lists": False}})
    assert names(r) == TOOLS and proxy.metric("ephor_mcp_list_entries_total") == 0


def test_without_rules_nothing_is_held_or_touched(listing):
    body = UNREADABLE["two lists"]
    r, proxy = listing(body, scripts={})
    assert r.body == body.encode() and proxy.server.requests[0].get("accept-encoding") == "gzip"


# --- events ---------------------------------------------------------------------------------------------------------------
def event(data, lines="event: message\n", end="\n"):
    return f"{lines}data: {data}\n{end}"


def datas(r):
    return [json.loads(line[6:]) for line in r.body.decode().splitlines() if line.startswith("data: {")]


def test_a_list_in_an_event_is_filtered_and_the_events_around_it_are_as_they_came(listing):
    progress = '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}'
    start = "id: 7\ndata: \n\n: a comment\n\n" + event(progress)
    r, proxy = listing(start + event(reply({"tools": entries(*TOOLS)}), "event: message\nid: 8\n"), type="text/event-stream")
    assert r.body.startswith(start.encode()) and b"id: 8\n" in r.body
    assert [tool["name"] for tool in datas(r)[-1]["result"]["tools"]] == ["read", "write"]
    proxy.counted(2, "ephor_mcp_list_entries_total", result="hidden")


def test_a_batch_of_lists(ephor, h1_server, policies):
    body = f'[{reply({"tools": entries("read", "secret")})},{reply({"prompts": entries("secret", "greet")})}]'.encode()
    server = h1_server(lambda wire, request: wire.send(
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").send(body))
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=policies(by_name=BY_NAME)))
    r = wire1.get(proxy.port, "/mcp", HEADERS, "POST", b'[{"jsonrpc":"2.0","id":1,"method":"tools/list"},'
                  b'{"jsonrpc":"2.0","id":2,"method":"prompts/list"}]')
    tools, prompts = json.loads(r.body)
    assert [t["name"] for t in tools["result"]["tools"]] == ["read"] and [p["name"] for p in prompts["result"]["prompts"]] == ["greet"]


def test_a_list_that_is_resumed_on_the_servers_own_stream_is_filtered(ephor, h1_server, policies):
    body = event(reply({"tools": entries(*TOOLS)})).encode()

    def handler(wire, request):
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(len(body)):
            wire.send(b"1\r\n" + body[i:i + 1] + b"\r\n")
        wire.send("0\r\n\r\n")
    server = h1_server(handler)
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=policies(by_name=BY_NAME)))
    r = wire1.get(proxy.port, "/mcp", "Accept: text/event-stream\r\nMcp-Session-Id: s\r\nLast-Event-ID: 7\r\n")
    assert [tool["name"] for tool in datas(r)[0]["result"]["tools"]] == ["read", "write"]


def test_an_event_that_can_be_read_in_two_ways_ends_the_stream_with_an_error(listing):
    r, proxy = listing(event('{"jsonrpc":"2.0","method":"notifications/x"}') + event(UNREADABLE["two lists"]), type="text/event-stream")
    first, last = datas(r)
    assert first["method"] == "notifications/x", "what passed before it is heard"
    assert last["id"] == 1 and last["error"]["data"]["code"] == "mcp.list_unreadable" and b"secret" not in r.body


@pytest.mark.measured
@pytest.mark.parametrize("policies_", [0, 1, 10])
def test_what_a_list_of_a_hundred_tools_costs(listing, policies_):
    """docs/mcp.md has the figures: what this hop adds to a list, the median of 200 (/hops)."""
    scripts = {f"p{i}": BY_NAME.replace("by-name", f"p{i}") for i in range(policies_)}
    tools = [{**entry, "description": "what it does, at some length " * 7} for entry in entries(*(f"tool-{i}" for i in range(100)))]
    _, proxy = listing(reply({"tools": tools}), scripts=scripts)
    for _ in range(200):
        assert wire1.get(proxy.port, "/mcp", HEADERS, "POST", b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}').status == 200
    added, = [row["p50_ns"] / 1e6 for row in proxy.hops() if row["stage"] == "self" and row["count"]]
    print(f"\n100 tools, {len(reply({'tools': tools}))} bytes, {policies_} policies: {added:.3f} ms")
    assert added < 20
