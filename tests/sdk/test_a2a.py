"""Agent2Agent's own SDKs, two ages of Node's and of Python's, over JSON-RPC, REST and gRPC, direct and through ephor: one policy
by one name of the method holds for all of them."""
import json

import pytest
import wire1
from conftest import AT_ONCE, HERE, ROOT, node, python, shared
from harness import SANITIZED, Process, config, free_port, program

NO_SECRETS = '''
local policy = require "ephor.policy"
return policy { name = "no-secrets", principle = "P2", match = { protocol = "a2a", method = "message/*" },
  call = function(c)
    for _, part in ipairs(c.parts or {}) do
      if part.text and part.text:find("secret") then return c:deny("no secrets for agents") end
    end
  end }'''

SERVERS = {
    "node 1.3": lambda http, grpc: [program("node"), HERE / "node" / "a2a_server.mjs", "sdk", http, grpc],
    "node 0.3": lambda http, grpc: [program("node"), HERE / "node" / "a2a_server.mjs", "sdk-0.3", http, grpc],
    "python 1.3": lambda http, grpc: ["/usr/bin/python3", HERE / "python" / "a2a_server.py", http, grpc],
}
CLIENTS = {
    "node 1.3": ("node 1.3", "python 1.3"), "node 0.3": ("node 0.3",),
    "python newest": ("python 1.3", "node 1.3"), "python older": ("node 0.3",),
}
ERRORS = {
    ("node 1.3", "JSONRPC"): "JsonRpcUnsupportedOperationError", ("node 1.3", "HTTP+JSON"): "RestUnsupportedOperationError",
    ("node 1.3", "GRPC"): "GrpcUnsupportedOperationError", ("node 0.3", "JSONRPC"): "UnsupportedOperationJSONRPCError",
    ("node 0.3", "HTTP+JSON"): "UnsupportedOperationError", ("node 0.3", "GRPC"): "Error",
    ("python newest", "JSONRPC"): "UnsupportedOperationError", ("python newest", "HTTP+JSON"): "UnsupportedOperationError",
    ("python newest", "GRPC"): "UnsupportedOperationError", ("python older", "JSONRPC"): "A2AClientJSONRPCError",
    ("python older", "HTTP+JSON"): "A2AClientHTTPError", ("python older", "GRPC"): "AioRpcError",
}
BINDINGS = {"JSONRPC": "http://127.0.0.1:{}/rpc", "HTTP+JSON": "http://127.0.0.1:{}/rest", "GRPC": "127.0.0.1:{}"}


@pytest.fixture(scope="module", params=[shared(s) for s in SERVERS])
def server(request, tmp_path_factory):
    http, grpc = free_port(), free_port()
    env = {"PYTHONPATH": str(ROOT / "build" / "deps" / "sdk-python-newest")} if request.param.startswith("python") else None
    process = Process("a2a-server", SERVERS[request.param](http, grpc), tmp_path_factory.mktemp("a2a"), env)
    process.wait_port(http)
    process.wait_port(grpc)
    process.sdk, process.http, process.grpc = request.param, http, grpc
    yield process
    process.end()


def steps_of(client, binding, port, *more):
    language, age = client.split()
    url = BINDINGS[binding].format(port)
    rows = node("a2a_client.mjs", {"1.3": "sdk", "0.3": "sdk-0.3"}[age], binding, url, *more) if language == "node" else \
        python(age, "a2a_client.py", binding, url, *more)
    return {row.pop("step"): row for row in rows}


def plain(value):
    """Without the ids that a server makes up."""
    return json.loads(json.dumps(value), object_hook=lambda o: {k: v for k, v in o.items() if k not in ("messageId", "taskId")})


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("client", CLIENTS)
def test_allowed_as_direct_refused_in_its_own_words_and_it_goes_on(ephor, policies, server, client, binding):
    if server.sdk not in CLIENTS[client]:
        pytest.skip("the server speaks another version")
    port = server.grpc if binding == "GRPC" else server.http
    proxy = ephor(config(port, cluster={"protocol": "h2" if binding == "GRPC" else "http/1.1"},
                         policies=policies(no_secrets=NO_SECRETS)))
    direct = steps_of(client, binding, port)
    told = server.log.count("told a secret")
    through = steps_of(client, binding, proxy.port)
    assert told and server.log.count("told a secret") == told, "through ephor nothing secret arrived"
    for name in ("first", "after denied", "stream", "after denied stream", "last"):
        assert "value" in direct[name] and plain(through[name].get("value")) == plain(direct[name]["value"]), (name, through[name])
    for name in ("denied", "denied stream"):
        assert ERRORS[client, binding] in through[name]["thrown"], through[name]
        if (client, binding) != ("python older", "HTTP+JSON"):  # which tells of no body
            assert "no secrets for agents" in through[name]["all"]
        assert SANITIZED or through[name]["ms"] < AT_ONCE


def test_a_card_passes_byte_for_byte_so_that_its_signature_holds(ephor, server):
    if not server.sdk.startswith("node"):
        pytest.skip("this server has no card")
    proxy = ephor(config(server.http, cluster={"protocol": "http/1.1"}))
    direct, through = (wire1.get(port, "/.well-known/agent-card.json") for port in (server.http, proxy.port))
    assert through.status == 200 and through.body == direct.body and b"echo" in direct.body


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
def test_a_stream_that_breaks_is_an_error_and_no_end(ephor, process, tmp_path, client, binding):
    """The server dies in the middle: direct, some of the SDKs end the iteration as if that were all."""
    port = free_port()
    origin = process(Process("breaking", ["/usr/bin/python3", HERE / "python" / "a2a_breaking.py", port], tmp_path))
    origin.wait_port(port)
    proxy = ephor(config(port, cluster={"protocol": "http/1.1"}))
    steps = steps_of(client, binding, proxy.port, "stream")
    assert "thrown" in steps["stream"], steps["stream"]
    assert proxy.metric("ephor_refusals_total", code="upstream.reset") == 1


NO_CODENAMES = '''
local policy = require "ephor.policy"
return policy { name = "no-codenames", match = { protocol = "a2a" },
  event = function(e) if e.data:find("osprey") then return e:deny("no codenames") end end }'''


def two_updates(version, binding):
    """An agent whose second event says what it must not, and which then waits."""
    def update(request, text):
        parts = "content" if version == "0.3" else "parts"
        status = {"state": "TASK_STATE_WORKING", "message": {"messageId": "m", "role": "ROLE_AGENT", parts: [{"text": text}]}}
        event = {"statusUpdate": {"taskId": "t", "contextId": "c", "status": status}}
        if version == "0.3" and binding == "JSONRPC":
            status = {"state": "working", "message": {"kind": "message", "messageId": "m", "role": "agent",
                                                      "parts": [{"kind": "text", "text": text}]}}
            event = {"kind": "status-update", "taskId": "t", "contextId": "c", "final": False, "status": status}
        if binding == "JSONRPC":
            event = {"jsonrpc": "2.0", "id": json.loads(request.body)["id"], "result": event}
        return f"data: {json.dumps(event)}\n\n".encode()

    def serve(wire, request):
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for text in ("hello", "osprey"):
            said = update(request, text)
            wire.send(f"{len(said):x}\r\n".encode() + said + b"\r\n")
    return serve


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
def test_a_policy_ends_a_stream_by_an_error_of_the_sdk(ephor, policies, h1_server, client, binding):
    origin = h1_server(two_updates("0.3" if client in ("node 0.3", "python older") else "1.0", binding))
    proxy = ephor(config(origin.port, cluster={"protocol": "http/1.1"}, policies=policies(no_codenames=NO_CODENAMES)))
    language, age = client.split()
    url = BINDINGS[binding].format(proxy.port)
    rows = node("a2a_client.mjs", {"1.3": "sdk", "0.3": "sdk-0.3"}[age], binding, url, "stream") if language == "node" else \
        python(age, "a2a_client.py", binding, url, "stream")
    assert [row["step"] for row in rows] == ["event", "stream"], "one event passed, the other is the error"
    assert "osprey" not in json.dumps(rows) and "thrown" in rows[-1], rows
    if (client, binding) != ("python older", "HTTP+JSON"):
        assert "no codenames" in rows[-1]["all"], rows


SCRIPT = """
function envoy_on_response(handle)
  if not (handle:headers():get("content-type") or ""):find("^application/grpc") then return end
  for chunk in handle:bodyChunks() do
    if chunk:getBytes(0, chunk:length()):find("osprey") then error("no codenames") end
  end
end"""


def updates_over_grpc(end):
    """An agent that tells of two updates and then, unless it is asked calmly, of what it must not; or breaks off."""
    def field(number, value):
        return bytes([number << 3 | 2, len(value)]) + value

    def update(text):
        message = field(1, b"m") + b"\x20\x02" + field(5, field(1, text))
        told = field(3, field(1, b"t") + field(2, b"c") + field(3, b"\x08\x02" + field(2, message)))
        return b"\0" + len(told).to_bytes(4, "big") + told

    def serve(exchange):
        calm = b"calm" in exchange.body()
        exchange.headers_only(200, [("content-type", "application/grpc")])
        for text in b"one", b"two", *([b"osprey"] if end == "refused" and not calm else []):
            exchange.data(update(text))
        if calm:
            exchange.peer.send_headers(exchange.id, [("grpc-status", "0")], end=True)
        elif end == "broken":
            exchange.reset(2)
    return serve


@pytest.mark.parametrize("end", ["refused", "broken"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_of_grpc_that_is_refused_or_breaks_in_the_middle(ephor, h2_server, client, end):
    script = {"lua": {"name": "no-codenames", "inline": SCRIPT, "on_error": "deny"}}
    proxy = ephor(config(h2_server(updates_over_grpc(end)).port, {"filters": ["identity", "agent", script]}, {"protocol": "h2"}))
    language, age = client.split()
    url = BINDINGS["GRPC"].format(proxy.port)
    rows = node("a2a_client.mjs", {"1.3": "sdk", "0.3": "sdk-0.3"}[age], "GRPC", url, "stream", "calm") if language == "node" else \
        python(age, "a2a_client.py", "GRPC", url, "stream", "calm")
    assert [row["step"] for row in rows] == ["event", "event", "stream", "event", "event", "after it"]
    stopped, after = rows[2], rows[-1]
    assert "osprey" not in json.dumps(rows) and len(after["value"]) == 2, after
    if end == "refused":
        assert ERRORS[client, "GRPC"] in stopped["thrown"] and "Refused by policy no-codenames" in stopped["all"], stopped
    else:
        assert "thrown" in stopped and "the upstream ended the response early" in stopped["all"], stopped
    assert SANITIZED or stopped["ms"] < AT_ONCE
