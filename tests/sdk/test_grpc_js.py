"""The agent bus by @grpc/grpc-js, two ages of it, with its own protobuf encoder: a unary message's fields are what policies see, a
refusal is a status with the policy's words, and the same channel goes on. A client stream's messages are out of their sight."""
import json

import pytest
from conftest import AT_ONCE, HERE, ROOT, node
from harness import HASH, SANITIZED, Process, config, free_port, program

PROTO = ROOT / "proto" / "agent_bus.proto"
REFUSES = {
    "gate": '''
local policy = require "ephor.policy"
return policy { name = "gate", match = { protocol = "acgs2", method = { "command", "audit_log" } }, needs = { "priority", "recipient", "impact" },
  blind = "allow",
  call = function(c)
    if c.priority == "critical" then return c:deny("critical is for people") end
    if c.recipient == "vault" then return c:deny("nobody writes to the vault") end
    if c.impact >= 0.85 then return c:deny("this goes to deliberation") end
    if c.method == "audit_log" then
      c:log(table.concat({ c.id, c.agent, c.recipient, c.priority, tostring(c.impact), c.hash, c.claimed_tenant, c.conversation, c.service }, " "))
    end
  end }''',
    "strict": '''
local policy = require "ephor.policy"
return policy { name = "strict", mode = "shadow", match = { protocol = "acgs2", recipient = "vault" }, call = function(c) return c:deny("x") end }''',
}
SAYS = {"refused priority": "critical is for people", "refused recipient": "nobody writes to the vault",
        "refused impact": "this goes to deliberation", "refused hash": "Constitutional hash mismatch (provided: abcd1234...)"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    port = free_port()
    process = Process("grpc-server", [program("node"), HERE / "node" / "grpc_server.mjs", port, PROTO], tmp_path_factory.mktemp("bus"))
    process.wait_port(port)
    process.port = port
    yield process
    process.end()


@pytest.mark.parametrize("package", ["@grpc/grpc-js", "@grpc/grpc-js-1.8"])
def test_messages_of_the_bus(ephor, policies, server, tmp_path, package):
    audit = tmp_path / "audit"
    proxy = ephor(config(server.port, cluster={"protocol": "h2"}, policies=policies(**REFUSES), constitution={"hash": HASH},
                         audit={"directory": str(audit)}))

    def run(port):
        return {s["step"]: s for s in node("grpc_client.mjs", package, f"127.0.0.1:{port}", PROTO)}
    direct, before = run(server.port), server.log
    steps, arrived = run(proxy.port), server.log[len(before):].split()

    for name in ("send", "send after it", "tell", "stream", "send after all"):
        assert "value" in direct[name] and steps[name].get("value") == direct[name]["value"], (name, steps[name])
    for name, reason in SAYS.items():
        assert steps[name].get("code") == 7 and reason in steps[name]["message"], (name, steps[name])
        assert SANITIZED or steps[name]["ms"] < AT_ONCE
    cut = steps["refused in a stream"]
    assert (cut.get("code"), cut.get("type")) == (7, 1), "the answer to the good message had come"
    assert sorted(set(arrived) - {"got"}, key=int) == ["1", "3", "7", "8", "9", "10", "11", "13"]

    assert f"7 planner tools normal 0.8 {HASH} acme c1 acgs2.agent_bus.v1.AgentBus" in proxy.log
    proxy.counted(7, "ephor_bus_messages_total", type="command")
    assert proxy.metric("ephor_bus_messages_total", type="command", priority="critical") == 1
    assert proxy.metric("ephor_bus_messages_total", type="audit_log", priority="normal") == 1
    # a stream's messages nobody waits for: policies on what they say are told so, and not that it is fine
    assert proxy.metric("ephor_policy_blind_total", policy="strict", reason="streamed") == 2
    rows = [json.loads(line) for file in sorted(audit.glob("*.jsonl")) for line in file.read_text().splitlines()]
    denied = {r.get("message_id"): r for r in rows if r.get("decision") == "deny"}
    assert denied["5"]["protocol"] == "acgs2" and denied["5"]["method"] == "command" and denied["5"]["risk_score"] == 0.9
    assert {"2", "4", "5", "6"} <= set(denied)


NO_CODENAMES = """
function envoy_on_response(handle)
  if not (handle:headers():get("content-type") or ""):find("^application/grpc") then return end
  for chunk in handle:bodyChunks() do
    if chunk:getBytes(0, chunk:length()):find("osprey") then error("no codenames") end
  end
end"""
SCRIPTED = {"filters": ["identity", "agent", {"lua": {"name": "no-codenames", "inline": NO_CODENAMES, "on_error": "deny"}}]}


def words(exchange):
    """One, two, and what it was told; then the stream stays open, but for what says how it ends."""
    def say(word):
        exchange.data(b"\0" + len(word).to_bytes(4, "big") + word)
    last = exchange.body()[5:]
    exchange.headers_only(200, [("content-type", "application/grpc")])
    for word in b"one", b"two", last:
        say(word)
    if last == b"calm":
        exchange.peer.send_headers(exchange.id, [("grpc-status", "0")], end=True)
    elif last == b"reset":
        exchange.reset(2)
    elif last == b"gone":
        exchange.data(b"\0\0\0\0\x08half")
        exchange.peer.close()


@pytest.mark.parametrize("package", ["@grpc/grpc-js", "@grpc/grpc-js-1.8"])
def test_a_server_stream_that_is_refused_or_breaks_in_the_middle(ephor, h2_server, package):
    proxy = ephor(config(h2_server(words).port, SCRIPTED, {"protocol": "h2"}))
    rows = node("grpc_words.mjs", package, f"127.0.0.1:{proxy.port}")
    before, steps = [r["value"] for r in rows if r["step"] == "before"], {r["step"]: r for r in rows}
    assert before == [["one", "two"], ["one", "two", "reset"], ["one", "two", "gone"]], "all that had come, and nothing that is refused"
    refused = steps["osprey"]
    assert refused.get("code") == 7 and "Refused by policy no-codenames" in refused["message"] and "[decision " in refused["message"]
    for end in "reset", "gone":
        assert steps[end].get("code") == 14 and "the upstream ended the response early" in steps[end]["message"], steps[end]
    for name in "whole", "after osprey", "after reset", "after gone":
        assert steps[name].get("value") == ["one", "two", "calm"], steps[name]
    assert SANITIZED or max(steps[end]["ms"] for end in ("osprey", "reset", "gone")) < AT_ONCE
    proxy.counted(2, "ephor_refusals_total", code="upstream.reset")
