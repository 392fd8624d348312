"""The ready policies of lua/policies, each as an operator installs it: the file and its settings beside it, a caller with a
verified identity, and a server that must only ever see what was allowed."""
import base64
import hashlib
import json
import os
import pathlib
import shutil
import ssl
import subprocess
import time

import pki
import pytest
import wire1
from harness import ROOT, config, until
from wire2 import Client

POLICIES = ROOT / "lua/policies"
PEERS = {name: f"spiffe://cluster.local/ns/{where}" for name, where in {
    "planner": "agents/sa/planner", "builder": "agents/sa/builder", "stranger": "agents/sa/stranger", "admin": "agents/sa/admin",
    "acme": "tenant-acme/sa/planner", "judge": "court/sa/judge", "tools": "agents/sa/tools"}.items()}


@pytest.fixture(scope="module")
def leaves(tmp_path_factory):
    d = tmp_path_factory.mktemp("keys")
    pki.roots(d)
    return {name: pki.leaf(d, name, identity) for name, identity in PEERS.items()}


class Caller:
    """A workload of the mesh that calls through the proxy."""

    def __init__(self, proxy, leaf, authority="tools.agents.svc.cluster.local"):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname = False
        tls.load_verify_locations(leaf.roots)
        tls.load_cert_chain(leaf.certificate, leaf.key)
        tls.set_alpn_protocols(["h2"])
        self.client = Client(proxy.port, tls=tls, authority=authority)

    def post(self, path, body, headers=()):
        body = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        return self.client.request(path, "POST", [("content-type", "application/json"), ("accept", "application/json, text/event-stream"),
                                                  *headers], body)

    def tool(self, name, arguments=None, headers=(), **params):
        return self.post("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                                  "params": {"name": name, "arguments": arguments or {}, **params}}, headers)


@pytest.fixture
def guarded(ephor, h1_server, leaves, policies):
    """guarded(NAME, settings): a proxy with that policy; call.planner.tool(…) calls as the planner."""
    callers = []

    class Guarded:
        def __init__(self, name, settings=None, listener=None):
            self.name = name
            directory = policies()
            shutil.copy(POLICIES / f"{name}.lua", directory)
            example = POLICIES / f"_{name}_config.lua"
            if settings is None and example.exists():
                shutil.copy(example, directory)
            elif settings is not None:
                (pathlib.Path(directory) / example.name).write_text(settings)
            self.server = h1_server()
            self.passed = 0
            tools = leaves["tools"]
            self.proxy = ephor(config(self.server.port, listener={"tls": "strict", **(listener or {})}, cluster={"protocol": "http/1.1"},
                                      policies=directory, identity={
                "files": {"certificate": tools.certificate, "key": tools.key, "roots": tools.roots}, "trust_domain": "cluster.local"}))

        def caller(self, who="planner", **more):
            caller = Caller(self.proxy, leaves[who], **more)
            callers.append(caller.client)
            return caller

        def allows(self, reply):
            assert reply.status == 200 and b'"isError":true' not in reply.body.replace(b" ", b""), reply.body
            assert reply.get("x-path") is not None, "the server has answered"
            self.passed += 1
            return reply

        def denies(self, reply, text):
            assert reply.get("x-path") is None and len(self.server.requests) == self.passed, "the server has not seen it"
            assert text.encode() in reply.body, reply.body
            return reply

        def counted(self, **decisions):
            for decision, n in decisions.items():
                self.proxy.counted(n, "ephor_policy_decisions_total", policy=self.name, decision=decision)
    yield Guarded
    for client in callers:
        client.close()


def test_tool_allow_list(guarded):
    g = guarded("tool-allow-list")
    g.allows(g.caller().tool("search"))
    r = g.denies(g.caller().tool("document.write"), "is not on the list")
    assert json.loads(r.body)["result"]["isError"] is True
    g.denies(g.caller("stranger").tool("search"), "is not on the list")
    g.counted(allow=1, deny=2)


def test_no_shell_tools(guarded):
    g = guarded("no-shell-tools")
    g.allows(g.caller().tool("search"))
    g.allows(g.caller("admin").tool("run-shell"))
    g.denies(g.caller().tool("run-shell"), "only administrators may")


def test_path_guard(guarded):
    g = guarded("path-guard")
    g.allows(g.caller().tool("read", {"path": "/workspace/a.txt"}))
    for path in ("/etc/passwd", "/workspace/../etc/passwd", "/workspace/%252e%252e/x", "\u2025/x"):
        g.denies(g.caller().tool("read", {"path": path}), "is refused")
    g.denies(g.caller().post("/mcp", '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"r","arguments":{"p\\u0061th":"\\u002fetc\\u002fpasswd"}}}'),
             "is refused")
    g.denies(g.caller().post("/mcp", '{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///etc/passwd"}}'), "is refused")


def test_shell_guard(guarded):
    g = guarded("shell-guard")
    g.allows(g.caller().tool("convert", {"file": "a.pdf", "title": "Fish & chips"}))
    g.denies(g.caller().tool("convert", {"title": "x; rm -rf /"}), "is refused")
    g.denies(g.caller().tool("convert", {"deep": [{"x": "$(id)"}]}), "is refused")


def test_tenant_isolation(guarded):
    g = guarded("tenant-isolation")
    r = g.allows(g.caller("acme").tool("search", {"tenant_id": "acme"}))
    assert r.get("x-got-x-tenant-id") == "acme", "the server gets the verified tenant"
    g.denies(g.caller("acme").tool("search", headers=[("x-tenant-id", "beta")]), "another tenant")
    g.denies(g.caller("acme").tool("search", {"deep": {"tenantId": "beta"}}), "another tenant")
    g.denies(g.caller("planner").tool("search", headers=[("x-tenant-id", "acme")]), "no tenant")
    r = g.denies(g.caller("acme").post("/api/v1/messages", {"content": "x", "tenant_id": "beta"}), "another tenant")
    assert r.status == 403
    g.allows(g.caller("acme").post("/api/v1/messages", {"content": "x", "tenant_id": "acme"}))


def test_maci_separation(guarded):
    g = guarded("maci-separation")
    g.allows(g.caller("planner").tool("proposal.create"))
    g.allows(g.caller("builder").tool("code.write", {"output_id": "o-1"}))
    g.allows(g.caller("judge").tool("output.validate", {"output_id": "o-1"}))
    g.denies(g.caller("planner").tool("output.validate", {"output_id": "o-1"}), "may not validate")
    g.denies(g.caller("judge").tool("output.validate", {"author": PEERS["judge"]}), "themselves")
    g.denies(g.caller("judge").tool("output.validate", {"output_id": "o-1", "author": "planner"}), "made by another")
    g.denies(g.caller("stranger").tool("query.state"), "has no role")


def test_maci_separation_of_the_bus(guarded):
    settings = (POLICIES / "_maci-separation_config.lua").read_text().replace("return {", 'return { match = { path = "/api/v1/messages" },', 1)
    g = guarded("maci-separation", settings)
    g.allows(g.caller("planner").post("/api/v1/messages", {"message_type": "governance_request", "from_agent": "planner"}))
    assert g.denies(g.caller("planner").post("/api/v1/messages", {"message_type": "constitutional_validation", "author": "builder"}), "may not").status == 403
    g.denies(g.caller("planner").post("/api/v1/messages", {"message_type": "query", "from_agent": "builder"}), "not the caller")
    g.denies(g.caller("planner").post("/api/v1/messages", {"from_agent": "planner"}), "no message_type")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"], ids=["openai", "anthropic"])
def test_model_allow_list(guarded, path):
    g = guarded("model-allow-list", 'return { agents = { ["*"] = { "small-*" }, ["*/sa/planner"] = { "large" } } }')
    headers = [("anthropic-version", "2023-06-01")] if "messages" in path else []

    def ask(who, model):
        return g.caller(who).post(path, {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}, headers)
    g.allows(ask("stranger", "small-1"))
    g.allows(ask("planner", "large"))
    r = g.denies(ask("stranger", "large"), "not on the list")
    assert r.status == 403 and "error" in json.loads(r.body)


def test_working_hours(guarded):
    always = 'hours = { { days = "mon-sun", from = "00:00", to = "24:00", zone = "Z" } }'
    g = guarded("working-hours", f"return {{ {always} }}")
    g.allows(g.caller().tool("search"))
    before = g.proxy.metric("ephor_policy_reload_total", result="accepted")
    today, tomorrow = (time.strftime("%Y-%m-%d", time.gmtime(time.time() + s)) for s in (0, 86400))
    (pathlib.Path(g.proxy.directory.parent / "policies") / "_working-hours_config.lua").write_text(
        f'return {{ {always}, closed = {{ "{today}", "{tomorrow}" }}, exempt = {{ "*/sa/admin" }} }}')
    until(lambda: g.proxy.metric("ephor_policy_reload_total", result="accepted") > before, "the new settings to be in force")
    g.denies(g.caller().tool("search"), "outside of working hours")
    g.allows(g.caller("admin").tool("search"))


def test_no_eval(guarded):
    g = guarded("no-eval")
    g.allows(g.caller().tool("calculate", {"expression": "2 + 2"}))
    g.denies(g.caller().tool("eval"), "not allowed")
    g.denies(g.caller().tool("calculate", {"features": ["legacy_sync"]}), "not allowed")
    g.denies(g.caller().tool("calculate", {"expression": "__import__('os')"}), "code")


def test_outbound_domains(guarded):
    g = guarded("outbound-domains")
    g.allows(g.caller().tool("fetch", {"url": "https://www.example.com/a"}))
    g.denies(g.caller().tool("fetch", {"url": "http://169.254.169.254/latest"}), "is refused")
    g.denies(g.caller().tool("fetch", {"url": "https://example.com@evil.example/"}), "is refused")


def test_outbound_domains_by_host(guarded):
    g = guarded("outbound-domains", listener={"direction": "outbound"})
    g.allows(g.caller(authority="api.openai.com").post("/v1/chat/completions", {"model": "m", "messages": []}))
    r = g.denies(g.caller(authority="evil.example").post("/v1/chat/completions", {"model": "m", "messages": []}), "is not on the list")
    assert r.status == 403 and "error" in json.loads(r.body)


# --- approvals: signed by the openssl command, as any service could --------------------------------------------------------
def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Approver:
    def __init__(self, directory):
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.key = directory / "approver.key"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", self.key], check=True, capture_output=True)
        public = subprocess.run(["openssl", "pkey", "-in", self.key, "-pubout", "-outform", "DER"], check=True, capture_output=True).stdout
        self.jwks = json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": b64(public[-32:])}]})

    def sign(self, claims, alg="EdDSA"):
        head = {"alg": alg, "kid": "a", "typ": "approval+jwt"}
        text = ".".join(b64(json.dumps(part).encode()) for part in (head, claims))
        (self.directory / "to-sign").write_text(text)
        done = subprocess.run(["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", self.key, "-in", self.directory / "to-sign"], check=True,
                              capture_output=True)
        return f"{text}.{b64(done.stdout)}"

    def approve(self, tool, arguments, agent="planner", **more):
        canonical = json.dumps({"method": "tools/call", "tool": tool, "arguments": arguments}, sort_keys=True, separators=(",", ":"))
        now = int(time.time())
        return self.sign({"iss": "https://approvals.example", "aud": "ephor", "sub": "bob@example.com", "jti": f"{time.monotonic_ns()}", "iat": now,
                          "exp": now + 300, "method": "tools/call", "tool": tool, "agent": PEERS[agent],
                          "digest": "sha256:" + hashlib.sha256(canonical.encode()).hexdigest(), **more})


def test_human_approval(guarded, tmp_path):
    approver = Approver(tmp_path)
    g = guarded("human-approval", f"return {{ keys = [[{approver.jwks}]], issuer = 'https://approvals.example', where = 'https://approvals.example/new', "
                                  "scores = { ['*'] = 0.2, ['payment.*'] = 0.9 } }")
    pay = {"amount": 100, "to": "ann"}
    g.allows(g.caller().tool("search", pay))
    g.denies(g.caller().tool("search", pay, [("x-impact-score", "0.95")]), "approval")
    r = g.denies(g.caller().tool("payment.send", pay), "https://approvals.example/new")
    assert json.loads(r.body)["result"]["isError"] is True, "the agent can read where to ask"
    approval = approver.approve("payment.send", pay)
    r = g.allows(g.caller().tool("payment.send", pay, [("x-approval", approval)]))
    assert r.get("x-got-x-approval") is None, "the server does not get the approval"
    g.denies(g.caller().tool("payment.send", pay, [("x-approval", approval)]), "used already")
    fresh = approver.approve("payment.send", pay)
    g.denies(g.caller().tool("payment.send", {**pay, "amount": 101}, [("x-approval", fresh)]), "another call")
    g.denies(g.caller("builder").tool("payment.send", pay, [("x-approval", fresh)]), "another tool, method or agent")
    g.allows(g.caller().tool("payment.send", pay, _meta={"ephor.dev/approval": fresh}))
    g.denies(g.caller().tool("payment.send", pay, [("x-approval", approver.approve("payment.send", pay, exp=int(time.time()) - 1))]), "expired")
    g.denies(g.caller().tool("payment.send", pay, [("x-approval", approver.sign({}, alg="none"))]), "not accepted")


def test_pii_redaction(guarded):
    g = guarded("pii-redaction")
    r = g.allows(g.caller().tool("note", {"text": "ann@example.com, 123-45-6789", "card": "4111 1111 1111 1111", "n": 5}))
    seen = json.loads(g.server.requests[-1].body)["params"]["arguments"]
    assert seen["n"] == 5 and "ann@" not in json.dumps(seen) and "6789" not in json.dumps(seen) and "4111" not in json.dumps(seen)
    assert "ann@" not in r.body.decode()
    g.denies(g.caller().tool("note", {"text": "sk-proj-abcdefghijklmnopqrstuvwxyz"}), "secret")


def run_tests(directory):
    ephor = os.environ.get("EPHOR_BIN", str(ROOT / "build/release/ephor"))
    return subprocess.run([ephor, "test", str(directory)], capture_output=True, text=True, check=False)


# --- the library in a policy of one's own ---------------------------------------------------------------------------------
LIMITED = """
local policy, limits = require "ephor.policy", require "ephor.limits"
local calls = limits.window { name = "calls", limit = 3, seconds = 3600 }
local burst = limits.bucket { name = "burst", rate = 0.001, burst = 2 }
return policy {
  name = "limited",
  call = function(c)
    local good, _, retry = (c.path == "/bucket" and burst or calls)(c, c.headers["x-key"] or "")
    if not good then
      return c:deny(("over the limit, again in %d s"):format(retry), { status = 429, code = "limit.calls" })
    end
  end,
}"""

TOKENS = """
local policy, jwt = require "ephor.policy", require "ephor.jwt"
local keys = jwt.keys(require "_keys")
return policy {
  name = "tokens",
  call = function(c)
    local claims, why = jwt.verify(jwt.bearer(c.headers.authorization), {
      keys = keys, algorithms = { "EdDSA" }, issuer = "https://login.example", audience = "agents", now = c.now,
    })
    if not claims then
      return c:deny(why, { status = 401 })
    end
    c:header("x-subject", claims.sub)
  end,
}"""


@pytest.mark.parametrize("path, limit", [("/window", 3), ("/bucket", 2)], ids=["window", "bucket"])
def test_limits_hold_for_all_workers(ephor, h1_server, policies, path, limit):
    server = h1_server()
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=policies(limited=LIMITED), workers=2))
    statuses = [wire1.get(proxy.port, path, "X-Key: ann\r\n").status for _ in range(limit + 3)]
    assert statuses == [200] * limit + [429] * 3
    assert wire1.get(proxy.port, path, "X-Key: bob\r\n").status == 200, "another key has its own"
    assert wire1.get(proxy.port, path, "X-Key: " + "x" * 1000 + "\r\n").status == 200
    assert wire1.get(proxy.port, path).status == 403, "nobody's key is an error, and so a denial"


def test_tokens(ephor, h1_server, policies, tmp_path):
    issuer, stranger = Approver(tmp_path), Approver((tmp_path / "stranger"))
    directory = policies(tokens=TOKENS)
    (pathlib.Path(directory) / "_keys.lua").write_text(f"return [[{issuer.jwks}]]")
    server = h1_server()
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=directory))
    now = int(time.time())
    claims = {"iss": "https://login.example", "aud": "agents", "sub": "ann", "exp": now + 300}

    def ask(token):
        return wire1.get(proxy.port, "/", f"Authorization: Bearer {token}\r\n")
    r = ask(issuer.sign(claims))
    assert r.status == 200 and r.get("x-got-x-subject") == "ann"
    for token, why in ((stranger.sign(claims), "signature"), (issuer.sign(claims, alg="none"), "not accepted"), (issuer.sign(claims, alg="HS256"), "not accepted"),
                       (issuer.sign({**claims, "exp": now - 60}), "expired"), (issuer.sign({**claims, "aud": "x"}), "audience"), ("x", "no token")):
        r = ask(token)
        assert r.status == 401 and why.encode() in r.body, r.body
    assert wire1.get(proxy.port).status == 401


# --- a policy that is not set up must not be there at all ------------------------------------------------------------------
@pytest.mark.parametrize("settings, why", [(None, "must say 'agents'"), ("return { agents = { ['*'] = { '*' } }, agnets = {} }", "no setting 'agnets'"),
                                           ("return { agents = 'x' }", "must be a table"), ("return {", "_tool-allow-list_config.lua")],
                         ids=["missing", "misspelt", "type", "syntax"])
def test_settings_that_are_wrong_are_refused(settings, why, tmp_path):
    shutil.copy(POLICIES / "tool-allow-list.lua", tmp_path)
    if settings:
        (tmp_path / "_tool-allow-list_config.lua").write_text(settings)
    done = run_tests(tmp_path)
    assert done.returncode == 1 and why in done.stdout, done.stdout


def test_all_ready_policies_pass_their_tests():
    done = run_tests(POLICIES)
    assert done.returncode == 0, done.stdout[-3000:]
    assert len(list(POLICIES.glob("*_test.lua"))) == len([p for p in POLICIES.glob("*.lua") if not p.name.startswith("_") and not p.name.endswith("_test.lua")])
