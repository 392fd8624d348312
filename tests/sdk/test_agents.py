"""OpenAI's Agents SDK with its model and its MCP server both behind ephor: a refused tool's reason reaches the model, a refused model
ends the run with the SDK's error."""
import pytest
from conftest import HERE, node
from harness import Process, config, free_port, program
from provider import Provider

REFUSES = {
    "no_shell": '''
local policy = require "ephor.policy"
return policy { name = "no-shell", match = { protocol = "mcp", method = "tools/call" }, needs = { "arguments" },
  call = function(c) if c.tool == "shell" and c.arguments.command == "ls" then return c:deny("ask a person for commands") end end }''',
    "models": '''
local policy = require "ephor.policy"
return policy { name = "models", match = { model = "forbidden" },
  call = function(c) return c:deny("this model is not for agents") end }''',
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    port = free_port()
    process = Process("mcp-server", [program("node"), HERE / "node" / "mcp_server.mjs", port, "legacy", "sse"], tmp_path_factory.mktemp("mcp"))
    process.wait_port(port)
    process.port = port
    yield process
    process.end()


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("package", ["@openai/agents", "@openai/agents-0.11"])
def test_the_reason_reaches_the_model_and_a_refused_model_the_caller(ephor, policies, server, package, api):
    directory = policies(**REFUSES)
    with Provider() as provider:
        tools = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=directory))
        models = ephor(config(provider.port, cluster={"protocol": "http/1.1"}, policies=directory))
        ran = server.log.count("ran shell")
        steps = {s["step"]: s for s in node("agents_client.mjs", package, f"http://127.0.0.1:{models.port}",
                                            f"http://127.0.0.1:{tools.port}/mcp", api)}
        assert "Echo: hi" in steps["allowed tool"]["value"] and "Echo: hi" in steps["streamed tool"]["value"]
        assert "ask a person for commands" in steps["refused tool"]["value"], "the model has read why"
        assert server.log.count("ran shell") == ran and "forbidden" not in provider.models()
        for name in ("refused model", "refused model streamed"):
            assert (steps[name].get("thrown"), steps[name].get("status")) == ("PermissionDeniedError", 403), steps[name]
            assert "this model is not for agents" in steps[name]["message"]
        assert "ended the response early" in steps["broken"]["message"], steps["broken"]
        assert steps["after all"]["value"] == "the answer is 42"
        tools.counted(1, "ephor_policy_decisions_total", decision="deny")
        models.counted(2, "ephor_policy_decisions_total", decision="deny")
