"""MCP's SDKs over the transport of 2024-11-05, whose answers come on the stream of another request: refusals come there too."""
import pytest
from conftest import HERE, node, python
from harness import SANITIZED, Process, config, free_port, program
from test_mcp_clients import ALLOWED, REFUSES


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("client", ["node 1.32", "node 1.20", "node 1.10", "python 1.30", "python 2.3"])
def test_over_the_transport_of_2024_11_05_it_is_no_other(ephor, policies, process, tmp_path, client, workers):
    """The answers come on the stream of another request; so do refusals."""
    run, error = {
        "node 1.32": (lambda url: node("mcp_client.mjs", "sdk", url, "sse"), "McpError"),
        "node 1.20": (lambda url: node("mcp_client.mjs", "sdk-1.20", url, "sse"), "McpError"),
        "node 1.10": (lambda url: node("mcp_client.mjs", "sdk-1.10", url, "sse"), "McpError"),
        "python 1.30": (lambda url: python("older", "mcp_client.py", "sse", url), "McpError"),
        "python 2.3": (lambda url: python("newest", "mcp_client.py", "sse", url), "MCPError"),
    }[client]
    port = free_port()
    server = process(Process("mcp-server", [program("node"), HERE / "node" / "mcp_server.mjs", port, "separate", "sse"], tmp_path))
    server.wait_port(port)
    proxy = ephor(config(port, cluster={"protocol": "http/1.1"}, policies=policies(**REFUSES), workers=workers))

    def steps(at):
        return {step["step"]: step for step in run(f"http://127.0.0.1:{at}/mcp")}
    direct, through = steps(port), steps(proxy.port)
    assert server.log.count("ran shell") == 1
    for name in ALLOWED:
        assert "value" in direct[name] and through[name].get("value") == direct[name]["value"], (name, through[name])
    assert direct["tools"]["value"] == ["echo", "shell", "count"] and through["tools"]["value"] == ["echo", "count"]
    assert through["prompts"]["value"] == ["greeting"] and through["resources"]["value"] == ["note://public"]
    shell = through["shell"]["value"]
    assert shell["isError"] and "no commands for agents" in shell["content"][0]["text"]
    assert shell["_meta"]["ephor.dev/refusal"]["policy"] == "no-shell"
    for name in ("secret-prompt", "secret"):
        refused = through[name]
        assert (refused["thrown"], refused["code"]) == (error, 403) and "that is secret" in refused["message"]
        assert refused["data"]["policy"] == "no-secrets" and refused["data"]["decision"]
    if not SANITIZED:
        assert max(through[name]["ms"] for name in ("shell", "secret-prompt", "secret")) < 100
    proxy.counted(3, "ephor_policy_decisions_total", decision="deny")
