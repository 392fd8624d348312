"""MCP with the official SDK and the official server, through ephor: it works as without it, and refusals are the client's own."""
import gzip
import json
import zlib

import pytest
import wire1
from harness import ROOT, Process, config, free_port, node_client, program, until

EVERYTHING = ROOT / "demo/node_modules/@modelcontextprotocol/server-everything/dist/index.js"

NO_ENVIRONMENT = '''
local policy = require "ephor.policy"
return policy {
  name = "no-environment", principle = "P1", match = { protocol = "mcp", method = "tools/call" },
  call = function(c) if c.tool == "get-env" then return c:deny("the environment is not for agents") end end,
}'''


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    port = free_port()
    process = Process("everything", [program("node"), EVERYTHING, "streamableHttp"], tmp_path_factory.mktemp("mcp"),
                      {"PORT": str(port)})
    process.wait_port(port)
    yield port
    process.end()


def agent(port, *arguments):
    return node_client("mcp_client.mjs", f"http://127.0.0.1:{port}/mcp", *arguments, modules="demo")


def saw_everything(told):
    assert "fatal" not in told, told["fatal"]
    assert told["session"] and "echo" in told["tools"]
    assert told["echo"]["text"] == "Echo: hello" and "42" in told["sum"]["text"] and told["again"]["text"] == "Echo: again"
    assert told["progress"] >= 1 and not told["long"]["isError"], "progress comes as events while the call runs"


def test_a_session_works_as_without_ephor(ephor, server):
    proxy = ephor(config(server, cluster={"protocol": "http/1.1"}))
    saw_everything(agent(proxy.port))
    until(proxy.idle, "no stream left")


def test_a_session_works_through_two_ephors(ephor, server):
    inner = ephor(config(server, cluster={"protocol": "http/1.1"}))
    outer = ephor(config(inner.port, cluster={"protocol": "h2"}))
    saw_everything(agent(outer.port))


def test_a_refused_tool_is_an_error_result_and_the_session_goes_on(ephor, server, policies):
    proxy = ephor(config(server, cluster={"protocol": "http/1.1"}, policies=policies(no_environment=NO_ENVIRONMENT)))
    told = agent(proxy.port, "get-env")
    saw_everything(told)
    assert told["refused"]["isError"] and "the environment is not for agents" in told["refused"]["text"]
    assert "thrown" not in told["refused"]
    proxy.counted(1, "ephor_policy_decisions_total", policy="no-environment", decision="deny")


def test_in_shadow_the_same_call_passes_and_is_counted(ephor, server, policies):
    text = NO_ENVIRONMENT.replace('principle = "P1"', 'mode = "shadow"')
    proxy = ephor(config(server, cluster={"protocol": "http/1.1"}, policies=policies(no_environment=text)))
    told = agent(proxy.port, "get-env")
    assert not told["refused"]["isError"]
    proxy.counted(1, "ephor_policy_decisions_total", decision="shadow_deny")


# --- the bytes of a refusal, on the wire --------------------------------------------------------------------------------
HEADERS = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"


@pytest.fixture
def guarded(ephor, h1_server, policies):
    server = h1_server()
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=policies(no_environment=NO_ENVIRONMENT, closed='''
local policy = require "ephor.policy"
return policy { name = "closed", match = { protocol = "mcp", path = "/closed" }, call = function(c) return c:deny("closed") end }''', no_prompts='''
local policy = require "ephor.policy"
return policy { name = "no-prompts", match = { protocol = "mcp", method = {"prompts/*", "notifications/*"} },
  call = function(c) return c:deny("no prompts") end }''')))
    proxy.server = server
    return proxy


def post(proxy, body, headers=HEADERS):
    body = body if isinstance(body, bytes) else body.encode()
    return wire1.get(proxy.port, "/mcp", headers, "POST", body)


@pytest.mark.parametrize("given", ["7", '"seven"', "-1", "12345678901234567890", '"\\u00e9"'])
def test_the_id_comes_back_byte_by_byte(guarded, given):
    r = post(guarded, '{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"name":"get-env"}}' % given)
    assert r.status == 200 and r.get("content-type") == "application/json"
    assert f'"id":{given}'.encode() in r.body.replace(b" ", b"") and b'"isError":true' in r.body
    assert r.get("mcp-session-id") is None and json.loads(r.body)["result"]["resultType"] == "complete"
    assert not guarded.server.requests


def test_what_is_no_tool_call_is_refused_by_a_json_rpc_error(guarded):
    r = post(guarded, '{"jsonrpc":"2.0","id":3,"method":"prompts/get","params":{"name":"x"}}')
    answer = json.loads(r.body)
    assert (r.status, answer["id"], answer["error"]["code"]) == (200, 3, 403) and "no prompts" in answer["error"]["message"]


@pytest.mark.parametrize("method", ["server/discover", "initialize", "ping", "tools/list", "subscriptions/listen"])
def test_what_a_client_begins_with_is_refused_by_200_and_an_error_since_another_status_aborts_it(guarded, method):
    body = '{"jsonrpc":"2.0","id":"server-discover-probe-1","method":"%s","params":{"_meta":' \
           '{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}' % method
    r = wire1.get(guarded.port, "/closed", HEADERS + f"Mcp-Method: {method}\r\nMCP-Protocol-Version: 2026-07-28\r\n", "POST", body.encode())
    answer = json.loads(r.body)
    assert (r.status, answer["id"], answer["error"]["code"]) == (200, "server-discover-probe-1", 403)
    assert "result" not in answer and r.get("mcp-session-id") is None


@pytest.mark.parametrize("method, headers", [("GET", "Accept: text/event-stream\r\n"), ("DELETE", "Accept: */*\r\n")])
def test_the_servers_stream_and_the_end_of_a_session_are_refused_as_not_offered(guarded, method, headers):
    r = wire1.get(guarded.port, "/closed", headers + "Mcp-Session-Id: s\r\n", method)
    assert (r.status, r.get("allow")) == (405, "POST") and not guarded.server.requests


def test_a_param_header_that_lies_about_its_argument_is_refused(guarded):
    body = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"region":"eu"}}}'
    r = post(guarded, body, HEADERS + "Mcp-Param-Region: us\r\n")
    assert (r.status, json.loads(r.body)["error"]["code"]) == (400, -32020) and not guarded.server.requests
    assert post(guarded, body, HEADERS + "Mcp-Param-Region: =?base64?ZXU=?=\r\n").status == 200 and guarded.server.requests


def test_a_refused_notification_is_dropped_with_202(guarded):
    r = post(guarded, '{"jsonrpc":"2.0","method":"notifications/initialized"}')
    assert (r.status, r.body) == (202, b"") and not guarded.server.requests


HIDDEN = {
    "escaped method": '{"jsonrpc":"2.0","id":1,"method":"tools\\u002fcall","params":{"name":"get-env"}}',
    "escaped key": '{"jsonrpc":"2.0","id":1,"m\\u0065thod":"tools/call","params":{"name":"get-env"}}',
    "escaped tool": '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get\\u002denv"}}',
    "BOM": '\ufeff{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-env"}}',
    "white space": '\r\n\t {"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-env"}}',
    "duplicate method": '{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call","params":{"name":"get-env"}}',
    "duplicate name": '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","name":"get-env"}}',
    "batch": '[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-env"}}]',
    "batch behind a good one": '[{"jsonrpc":"2.0","id":1,"method":"tools/list"},'
                               '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"get-env"}}]',
}


@pytest.mark.parametrize("row", HIDDEN)
def test_a_call_cannot_hide(guarded, row):
    post(guarded, HIDDEN[row])
    assert not guarded.server.requests, "the server never saw it"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_call_cannot_hide(guarded, encoding):
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-env"}}'
    post(guarded, gzip.compress(body) if encoding == "gzip" else zlib.compress(body), HEADERS + f"Content-Encoding: {encoding}\r\n")
    assert not guarded.server.requests


def test_a_call_split_over_many_packets_cannot_hide(guarded):
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-env"}}'
    with wire1.connect(guarded.port) as wire:
        wire.send(f"POST /mcp HTTP/1.1\r\nHost: t\r\n{HEADERS}Transfer-Encoding: chunked\r\n\r\n")
        for byte in body:
            wire.send(b"1\r\n" + bytes([byte]) + b"\r\n")
        r = wire.send("0\r\n\r\n").response()
    assert b'"isError":true' in r.body and not guarded.server.requests


def test_headers_that_lie_about_the_body_are_refused(guarded):
    r = post(guarded, '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-env"}}',
             HEADERS + "Mcp-Method: tools/list\r\n")
    assert not guarded.server.requests and r.status in (200, 400)
