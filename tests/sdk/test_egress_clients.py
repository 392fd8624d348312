"""Agents that call OpenAI and Anthropic over https, in a pod of their own: the SDKs as they come, their own base URLs, port 443,
connections bent to ephor by the kernel. The only things that the pod changes are the rules of its network, the names in its hosts
file (a stand-in answers in the place of the providers) and the variables of docs/egress.md.
"""
import json
import os
import pathlib
import subprocess

import pki
import pytest
from conftest import HERE, ROOT, _steps
from harness import SANITIZED, config, program
from test_egress import Origin, origin_at, shared  # noqa: F401
from test_intercept import APP, network, redirect, sidecar  # noqa: F401

HOSTS = ("api.openai.com", "api.anthropic.com")
ANSWER = "By the law."
CLIENTS = {
    "openai 7": ["node", "openai"], "openai 6": ["node", "openai-6"], "openai 4": ["node", "openai-4"],
    "anthropic 1": ["node", "@anthropic-ai/sdk"], "anthropic 0": ["node", "@anthropic-ai/sdk-0"],
    "python openai 3": ["newest", "openai"], "python openai 1": ["older", "openai"],
    "python anthropic 2": ["newest", "anthropic"], "python anthropic 0": ["older", "anthropic"],
}
POLICY = '''
local policy = require "ephor.policy"
return policy { name = "models", principle = "P4", match = { protocol = { "openai", "anthropic" } },
  call = function(c)
    if c.model == "forbidden-1" then return c:deny("that model is not for agents") end
  end }'''

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def events(rows):
    return "".join((f"event: {name}\n" if name else "") + f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n"
                   for name, data in rows).encode()


def openai_reply(model, stream):
    if not stream:
        return {"id": "c1", "object": "chat.completion", "created": 1, "model": model,
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}
    return events([(None, {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model,
                           "choices": [{"index": 0, "delta": {"content": part}, "finish_reason": None}]})
                   for part in ("By ", "the l", "aw.")] + [(None, "[DONE]")])


def anthropic_reply(model, stream):
    message = {"id": "m1", "type": "message", "role": "assistant", "model": model, "stop_reason": "end_turn", "stop_sequence": None,
               "usage": {"input_tokens": 3, "output_tokens": 4}}
    if not stream:
        return {**message, "content": [{"type": "text", "text": ANSWER}]}
    rows = [{"type": "message_start", "message": {**message, "content": [], "stop_reason": None}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}]
    rows += [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": part}}
             for part in ("By ", "the l", "aw.")]
    rows += [{"type": "content_block_stop", "index": 0},
             {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 4}},
             {"type": "message_stop"}]
    return events([(row["type"], row) for row in rows])


def provider(wire, request):
    """Both providers: which one is told by the path, as by theirs."""
    asked = json.loads(request.body)
    make = anthropic_reply if request.path.startswith("/v1/messages") else openai_reply
    reply = make(asked["model"], asked.get("stream", False))
    kind = "application/json"
    if isinstance(reply, bytes):
        kind = "text/event-stream"
    else:
        reply = json.dumps(reply).encode()
    wire.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(reply)}\r\n\r\n".encode() + reply)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    d = tmp_path_factory.mktemp("providers")
    pki.roots(d)
    return {"good": pki.leaf(d, "good", None, hosts=HOSTS)}


@pytest.fixture
def pod(sidecar, shared, keys):  # noqa: F811
    """A sidecar with the policy, the stand-in at port 443 of an address of the pod, and the app's environment."""
    roots, bundle, policies, names = (shared / n for n in ("roots.pem", "ca.pem", "policies", "hosts"))
    roots.write_text(pathlib.Path(keys["good"].roots).read_text())
    policies.mkdir()
    (policies / "models.lua").write_text(POLICY)
    names.write_text("127.0.0.1 localhost\n" + "".join(f"{APP} {host}\n" for host in HOSTS))
    for path in (roots, names, policies / "models.lua"):
        path.chmod(0o644)
    policies.chmod(0o755)
    with origin_at(keys, 443) as server:
        server.handler = provider
        redirect()
        proxy = sidecar(config([], {"name": "inbound", "bind": "0.0.0.0:15001", "direction": "outbound", "intercept": "redirect"},
                               {"original_destination": True}, policies=str(policies),
                               egress=[{"hosts": list(HOSTS), "tls": "intercept", "roots": str(roots)}],
                               egress_tls={"bundle": str(bundle), "unnamed": "deny"}))
        proxy.names, proxy.bundle, proxy.server = names, str(bundle), server
        yield proxy


def agent(proxy, client):
    """What the client told, by step. It sees the pod's hosts file in place of the machine's."""
    kind, package = CLIENTS[client]
    environment = {**os.environ, "SSL_CERT_FILE": proxy.bundle, "NODE_EXTRA_CA_CERTS": proxy.bundle, "PYTHONDONTWRITEBYTECODE": "1"}
    if kind == "node":
        command = [program("node"), HERE / "node" / "egress_client.mjs", package]
    else:
        command = ["/usr/bin/python3", HERE / "python" / "egress_client.py", package]
        environment["PYTHONPATH"] = str(ROOT / "build" / "deps" / f"sdk-python-{kind}")
    inside = ["unshare", "--mount", "sh", "-c", f'mount --bind {proxy.names} /etc/hosts && exec "$@"', "sh", *map(str, command)]
    return {step.pop("step"): step for step in _steps(inside, environment, 60)}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_forbidden_model_is_refused_in_the_sdks_own_error_over_https(pod, client):
    if subprocess.run(["unshare", "--mount", "true"]).returncode != 0:
        pytest.skip("no mount namespaces here")
    steps = agent(pod, client)

    for name in ("allowed", "allowed again", "stream", "allowed at last"):
        assert steps[name].get("value") == ANSWER, (name, steps[name])
    for name in ("forbidden", "forbidden stream"):
        assert steps[name]["thrown"] == "PermissionDeniedError" and steps[name]["status"] == 403, steps[name]
        assert "that model is not for agents" in steps[name]["message"]
        assert SANITIZED or steps[name]["ms"] < 100, "at once, and not tried again"
    asked = [json.loads(request.body)["model"] for request in pod.server.requests]
    assert asked == ["law-1"] * 4, "the provider never saw the others"
    assert set(pod.server.names) == {HOSTS[1] if "anthropic" in client else HOSTS[0]}
    protocol = "anthropic" if "anthropic" in client else "openai"
    pod.counted(4, "ephor_requests_total", protocol=protocol, code="2xx")
    assert pod.metric("ephor_policy_decisions_total", policy="models", decision="deny") == 2
