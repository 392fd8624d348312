"""Agents that call OpenAI and Anthropic over https, in a pod of their own: the SDKs as they come, their own base URLs, port 443,
connections bent to ephor by the kernel. The only things that the pod changes are the rules of its network, the names in its hosts
file (a stand-in answers in the place of the providers) and the variables of docs/egress.md.
"""
import os
import pathlib
import subprocess

import pki
import pytest
from conftest import AT_ONCE, HERE, ROOT, _steps
from harness import SANITIZED, config, program, until
from provider import Provider
from test_egress import server_context, shared  # noqa: F401
from test_intercept import APP, network, redirect, sidecar  # noqa: F401

HOSTS = ("api.openai.com", "api.anthropic.com")
ANSWER = "the answer is 42"
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
    if c.model == "forbidden" then return c:deny("that model is not for agents") end
  end,
  reply = function(r) r:redact("ssn") r:redact("email") end }'''

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


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
    names_asked, tls = [], server_context(keys["good"])
    tls.sni_callback = lambda sock, name, context: names_asked.append(name)
    with Provider((APP, 443), tls) as server:
        redirect()
        proxy = sidecar(config([], {"name": "inbound", "bind": "0.0.0.0:15001", "direction": "outbound", "intercept": "redirect",
                                    "filters": ["identity", "agent", "constitution", "policies", {"meter": {}}]},
                               {"original_destination": True}, policies=str(policies),
                               egress=[{"hosts": list(HOSTS), "tls": "intercept", "roots": str(roots)}],
                               egress_tls={"bundle": str(bundle), "unnamed": "deny"}))
        proxy.names, proxy.bundle, proxy.server, proxy.asked = names, str(bundle), server, names_asked
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
def test_over_https_a_model_is_refused_a_stream_is_redacted_and_tokens_are_counted(pod, client):
    if subprocess.run(["unshare", "--mount", "true"]).returncode != 0:
        pytest.skip("no mount namespaces here")
    steps = agent(pod, client)

    for name in ("allowed", "allowed again", "stream", "allowed at last"):
        assert steps[name].get("value") == ANSWER, (name, steps[name])
    for name in ("forbidden", "forbidden stream"):
        assert steps[name]["thrown"] == "PermissionDeniedError" and steps[name]["status"] == 403, steps[name]
        assert "that model is not for agents" in steps[name]["message"]
        assert SANITIZED or steps[name]["ms"] < AT_ONCE, "at once, and not tried again"
    said = steps["leaky stream"]["value"]
    assert said.startswith("the code is ") and said.endswith(", bye"), said
    assert not [secret for secret in ("078", "1120", "ann@", "mple.com") if secret in said], "each lay in two events"
    assert "thrown" in steps["broken stream"], steps["broken stream"]

    asked, models = pod.server.models(), {"plain": 4, "leaky": 1}
    assert "forbidden" not in asked and {m: asked.count(m) for m in models} == models, "the provider never saw the others"
    assert set(pod.asked) == {HOSTS[1] if "anthropic" in client else HOSTS[0]}
    assert pod.metric("ephor_policy_decisions_total", policy="models", decision="deny") == 2
    assert pod.metric("ephor_policy_redactions_total", policy="models", what="ssn") == 1
    until(lambda: pod.metric("ephor_llm_calls_total", usage="broken") >= 1, "the broken stream to be counted")
    assert pod.metric("ephor_llm_calls_total", model="plain", usage="reported") >= 3
    assert pod.metric("ephor_llm_tokens_total", model="plain", kind="input") > 0
    assert pod.metric("ephor_llm_tokens_total", model="plain", kind="output") > 0
    assert pod.metric("ephor_llm_tokens_total", model="broken", kind="input_estimated") + \
        pod.metric("ephor_llm_tokens_total", model="broken", kind="input") > 0
