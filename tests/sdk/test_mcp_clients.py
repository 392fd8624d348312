"""MCP's own SDKs as clients, direct and through ephor: what is allowed is the same, what is refused is the SDK's own error or a
tool result at once, and the same client goes on."""
import pytest
from conftest import AT_ONCE, HERE, node, python, shared
from harness import SANITIZED, Process, config, free_port, program

REFUSES = {
    "no_shell": '''
local policy = require "ephor.policy"
return policy { name = "no-shell", principle = "P1", match = { protocol = "mcp", method = "tools/call", tool = "shell" },
  call = function(c) return c:deny("no commands for agents") end }''',
    "no_secrets": '''
local policy = require "ephor.policy"
return policy { name = "no-secrets", match = { protocol = "mcp", method = { "prompts/get", "resources/read" } },
  call = function(c)
    if c.prompt == "secret-prompt" or c.uri == "note://secret" then return c:deny("that is secret") end
  end }''',
}
ALLOWED = ["echo", "echo after shell", "count", "progress", "greeting", "echo after secret-prompt", "public", "echo after secret"]
SERVERS = [(era, mode) for era in ("legacy", "modern") for mode in ("json", "sse")]
CLIENTS = {
    "sdk 1.32": ("legacy modern", lambda url: node("mcp_client.mjs", "sdk", url)),
    "sdk 1.20": ("legacy modern", lambda url: node("mcp_client.mjs", "sdk-1.20", url)),
    "sdk 1.10": ("legacy modern", lambda url: node("mcp_client.mjs", "sdk-1.10", url)),
    "client 2.4": ("legacy modern", lambda url: node("mcp_client.mjs", "client", url)),
    "client 2.4, 2026-07-28": ("modern", lambda url: node("mcp_client.mjs", "client-2026", url)),
    "python 1.30": ("legacy modern", lambda url: python("older", "mcp_client.py", "session", url)),
    "python 2.3": ("legacy modern", lambda url: python("newest", "mcp_client.py", "legacy", url)),
    "python 2.3, 2026-07-28": ("modern", lambda url: python("newest", "mcp_client.py", "2026-07-28", url)),
}
ERRORS = {"sdk": "McpError", "client": "ProtocolError", "python 1.30": "McpError", "python 2.3": "MCPError"}


@pytest.fixture(scope="module", params=[shared(s, " ".join(s)) for s in SERVERS])
def server(request, tmp_path_factory):
    era, mode = request.param
    port = free_port()
    process = Process("mcp-server", [program("node"), HERE / "node" / "mcp_server.mjs", port, era, mode], tmp_path_factory.mktemp("mcp"))
    process.wait_port(port)
    process.era, process.port = era, port
    yield process
    process.end()


def steps_of(client, port):
    return {step.pop("step"): step for step in CLIENTS[client][1](f"http://127.0.0.1:{port}/mcp")}


@pytest.mark.parametrize("client", CLIENTS)
def test_allowed_as_direct_refused_in_its_own_words_and_it_goes_on(ephor, policies, server, client):
    if server.era not in CLIENTS[client][0]:
        pytest.skip("the server knows no revision of this client")
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=policies(**REFUSES)))
    direct, shells = steps_of(client, server.port), server.log.count("ran shell")
    through = steps_of(client, proxy.port)

    assert shells and server.log.count("ran shell") == shells, "through ephor no command ran"
    for name in ALLOWED:
        assert "value" in direct[name] and through[name].get("value") == direct[name]["value"], (name, through[name])
    assert direct["count"]["value"]["content"] == [{"type": "text", "text": "counted to 3"}]

    assert direct["tools"]["value"] == ["echo", "shell", "count"] and through["tools"]["value"] == ["echo", "count"]
    assert through["prompts"]["value"] == ["greeting"] and through["resources"]["value"] == ["note://public"]

    shell = through["shell"]["value"]
    assert shell["isError"] and "no commands for agents" in shell["content"][0]["text"]
    assert shell["_meta"]["ephor.dev/refusal"]["policy"] == "no-shell"
    error = next(name for start, name in ERRORS.items() if client.startswith(start))
    for name in ("secret-prompt", "secret"):
        refused = through[name]
        assert (refused["thrown"], refused["code"]) == (error, 403) and "that is secret" in refused["message"]
        assert refused["data"]["policy"] == "no-secrets" and refused["data"]["decision"]
    if not SANITIZED:
        assert max(through[name]["ms"] for name in ("shell", "secret-prompt", "secret")) < AT_ONCE
    proxy.counted(3, "ephor_policy_decisions_total", decision="deny")


@pytest.mark.parametrize("sdk", ["sdk", "sdk-1.20", "sdk-1.10"])
def test_over_the_transport_of_2024_11_05_a_refusal_is_an_error_at_once_and_the_session_goes_on(ephor, policies, process, tmp_path, sdk):
    port = free_port()
    server = process(Process("mcp-server", [program("node"), HERE / "node" / "mcp_server.mjs", port, "separate", "sse"], tmp_path))
    server.wait_port(port)
    chain = {"filters": ["identity", "agent", "policies"]} # without `mcp` no session is known, and the POST's status has to do
    proxy = ephor(config(port, cluster={"protocol": "http/1.1"}, listener=chain, policies=policies(**REFUSES)))

    def steps(at):
        return {step["step"]: step for step in node("mcp_client.mjs", sdk, f"http://127.0.0.1:{at}/mcp", "sse")}
    direct, through = steps(port), steps(proxy.port)
    assert server.log.count("ran shell") == 1
    for name in ALLOWED + ["tools"]:
        assert "value" in direct[name] and through[name].get("value") == direct[name]["value"], (name, through[name])
    for name, why in (("shell", "no commands for agents"), ("secret-prompt", "that is secret"), ("secret", "that is secret")):
        refused = through[name]
        assert refused["thrown"] == "Error" and "HTTP 403" in refused["message"] and why in refused["message"]
        assert SANITIZED or refused["ms"] < AT_ONCE
