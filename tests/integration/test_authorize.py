"""`/authorize` says which rule decides, and the real request gets the very answer that it says. Order and precedence of rules."""
import json
import ssl
import urllib.parse

import pki
import pytest
import wire2
from harness import config, run

PLANNER = "spiffe://cluster.local/ns/agents/sa/planner"
READER = "spiffe://cluster.local/ns/agents/sa/reader"
TOOLS = "spiffe://cluster.local/ns/agents/sa/tools"
RULES = [
    {"principals": ["*/sa/planner"], "methods": ["POST"], "paths": ["/mcp"], "tools": ["search*", "echo"]},             # 0
    {"principals": ["*/sa/reader"], "methods": ["GET", "HEAD"], "paths": ["/docs/*", "/docs"]},                         # 1
    {"action": "deny", "tools": ["search-secrets"]},                                                                    # 2
    {"action": "deny", "paths": ["/docs/private*"], "principals": ["*/sa/reader"]},                                     # 3
    {"headers": {"x-tenant": "acme*"}, "hosts": ["tools.*"], "paths": ["/tenant"]},                                     # 4
    {"action": "deny", "headers": {"x-block": "*"}},                                                                    # 5
    {"principals": ["*"], "protocols": ["grpc"]},                                                                       # 6
    {"action": "deny", "protocols": ["openai"], "methods": ["POST"], "paths": ["/v1/*"]},                               # 7
    {"principals": ["*/sa/planner"], "paths": ["/v1/*", "/free"]},                                                      # 8
]


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    d = tmp_path_factory.mktemp("keys")
    pki.roots(d)
    return {name: pki.leaf(d, name, f"spiffe://cluster.local/ns/agents/sa/{name}") for name in ("planner", "reader", "tools")}


@pytest.fixture
def guarded(ephor, h1_server, keys):
    def start(rules, **listener):
        server = h1_server()
        mine = keys["tools"]
        proxy = ephor(config(server.port, listener={"tls": "permissive", "authorize": rules, **listener}, cluster={"protocol": "http/1.1"},
                             identity={"files": {"certificate": mine.certificate, "key": mine.key, "roots": mine.roots},
                                       "trust_domain": "cluster.local"}))
        proxy.server = server
        return proxy
    return start


def ask(proxy, **question):
    headers = question.pop("headers", {})
    query = urllib.parse.urlencode({**question, **{f"header.{k}": v for k, v in headers.items()}}, quote_via=urllib.parse.quote)
    status, text = proxy.admin("/authorize?" + query)
    return status, json.loads(text)


def tls(leaf):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(leaf.roots)
    context.load_cert_chain(leaf.certificate, leaf.key)
    context.set_alpn_protocols(["h2"])
    return context


def send(proxy, keys, who=None, method="GET", path="/", host="tools.agents", headers=None, body=None):
    """Sends the request; whether it got through."""
    before = len(proxy.server.requests)
    with wire2.Client(proxy.port, tls=tls(keys[who]) if who else None, authority=host) as client:
        client.request(path, method, list((headers or {}).items()), body=body)
    return len(proxy.server.requests) > before


def mcp(method, **params):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    return {"method": "POST", "path": "/mcp", "body": body,
            "headers": {"content-type": "application/json", "accept": "application/json, text/event-stream"}}


def tool(name):
    return mcp("tools/call", name=name)


def model(path="/v1/chat/completions"):
    return {"method": "POST", "path": path, "body": b'{"model":"m","messages":[]}', "headers": {"content-type": "application/json"}}


GRPC = {"method": "POST", "path": "/a.B/C", "body": b"\0\0\0\0\0", "headers": {"content-type": "application/grpc", "te": "trailers"}}
ID = {"planner": PLANNER, "reader": READER, "tools": TOOLS, None: ""}


def combinations():
    """Who, the request, what else the question says, and what must come of it: allowed, by which rule."""
    def row(who, request, allowed, rule, **said):
        return pytest.param(who, request, said, allowed, rule, id=f"{who}-{request.get('method', 'GET')}-{request.get('path', '/')}-"
                            f"{said.get('tool') or said.get('call') or ''}{'-'.join(request.get('marks', ''))}-{rule}")
    get = lambda path, **more: {"path": path, **more}
    yield row("planner", tool("search"), True, 0, protocol="mcp", tool="search")
    yield row("planner", tool("search-web"), True, 0, protocol="mcp", tool="search-web")
    yield row("planner", tool("echo"), True, 0, tool="echo")
    yield row("planner", tool("echo2"), False, None, tool="echo2")
    yield row("planner", tool("shell"), False, None, tool="shell")
    yield row("planner", tool("search-secrets"), False, 2, tool="search-secrets")
    yield row("reader", tool("search-secrets"), False, 2, tool="search-secrets")
    yield row("reader", tool("search"), False, None, tool="search")
    yield row(None, tool("search"), False, None, tool="search")
    yield row("planner", mcp("initialize", protocolVersion="2025-06-18"), True, 0, protocol="mcp", call="initialize")
    yield row("planner", mcp("tools/list"), True, 0, protocol="mcp", call="tools/list")
    yield row("planner", mcp("resources/read", uri="x"), False, None, protocol="mcp", call="resources/read")
    yield row("reader", mcp("tools/list"), False, None, protocol="mcp", call="tools/list")
    yield row("planner", {**tool("search"), "path": "/other"}, False, None, tool="search")
    yield row("planner", {**tool("search"), "path": "/mcp?x=1"}, True, 0, tool="search")
    yield row("planner", {**tool("search"), "path": "/a/../mcp"}, False, None, tool="search")
    yield row("reader", get("/docs/a"), True, 1)
    yield row("reader", get("/docs"), True, 1)
    yield row("reader", get("/docs/a", method="HEAD"), True, 1)
    yield row("reader", get("/docs/a", method="DELETE"), False, None)
    yield row("reader", get("/docs/private"), False, 3)
    yield row("reader", get("/docs/private/x?y"), False, 3)
    yield row("reader", get("/docs/%70rivate"), False, 3)
    yield row("reader", get("/docs/./private"), False, 3)
    yield row("reader", get("/docs/../etc"), False, None)
    yield row("planner", get("/docs/a"), False, None)
    yield row(None, get("/docs/a"), False, None)
    yield row(None, get("/tenant", headers={"x-tenant": "acme-1"}), True, 4)
    yield row(None, get("/tenant", headers={"x-tenant": "other"}), False, None)
    yield row(None, get("/tenant"), False, None)
    yield row("reader", get("/tenant", headers={"x-tenant": "acme"}), True, 4)
    yield row(None, get("/tenant", headers={"x-tenant": "acme"}, host="TOOLS.agents:8080"), True, 4)
    yield row(None, get("/tenant", headers={"x-tenant": "acme"}, host="web.agents"), False, None)
    yield row(None, get("/tenant", headers={"x-tenant": "acme", "x-block": "1"}), False, 5)
    yield row("reader", get("/docs/a", headers={"x-block": ""}), False, 5)
    yield row("reader", GRPC, True, 6, protocol="grpc")
    yield row(None, GRPC, False, None, protocol="grpc")
    yield row("planner", model(), False, 7, protocol="openai")
    yield row("reader", model(), False, 7, protocol="openai")
    yield row("planner", {**model(), "path": "/v1/else"}, True, 8)
    yield row("planner", get("/v1/models"), True, 8)
    yield row("planner", get("/free"), True, 8)
    yield row(None, get("/free"), False, None)
    yield row("tools", get("/free"), False, None)
    yield row("planner", {**tool("search"), "headers": {**tool("search")["headers"], "content-encoding": "compress"}}, False, 2,
              visible="headers", protocol="http")
    yield row("planner", {"method": "POST", "path": "/free", "body": b"a=b", "headers": {"content-type": "application/x-www-form-urlencoded"}},
              False, 2, visible="headers")


@pytest.mark.parametrize("who,request_,said,allowed,rule", combinations())
def test_what_is_said_is_what_is_done(guarded, keys, who, request_, said, allowed, rule):
    proxy = guarded(RULES)
    headers = {k: v for k, v in request_.get("headers", {}).items() if k.startswith("x-")}
    question = {"principal": ID[who], "method": request_.get("method", "GET"), "path": request_.get("path", "/"),
                "host": request_.get("host", "tools.agents"), "headers": headers, **said}
    status, told = ask(proxy, **question)
    assert status == 200
    assert (told["decision"] == "allow", told.get("rule")) == (allowed, rule), json.dumps(told, indent=1)
    assert send(proxy, keys, who, **request_) == allowed
    assert [r["rule"] for r in told["rules"]] == [2, 3, 5, 7, 0, 1, 4, 6, 8], "deny rules first"
    assert [r["rule"] for r in told["rules"] if r.get("decides")] == ([] if rule is None else [rule])
    result = "allow" if allowed else "deny"
    proxy.counted(1, "ephor_authorize_total", listener="inbound", result=result)


def test_each_rule_says_why_it_does_not_match(guarded):
    proxy = guarded(RULES)
    text = proxy.path.read_text().splitlines()
    status, told = ask(proxy, principal=READER, tool="shell", path="/mcp")
    why = {r["rule"]: r["because"] for r in told["rules"]}
    assert why[0] == f"principal '{READER}' is none of */sa/planner" and why[1].startswith("method 'POST' is none of GET, HEAD")
    assert why[2] == "tool 'shell' is none of search-secrets" and why[3].startswith("path '/mcp' is none of /docs/private*")
    assert why[4] == "host '' is none of tools.*" and why[5] == "there is no header x-block"
    assert why[6] == "protocol 'mcp' is none of grpc" and why[8].startswith("principal")
    assert told["because"] == "there are allow rules, and none of them matches" and "where" not in told
    for r in told["rules"]:
        path, line = r["where"].rsplit(":", 1)
        assert path == str(proxy.path)
        first = next(k for k in ("action", "principals", "headers") if k in RULES[r["rule"]])
        assert text[int(line) - 1].strip().lstrip("- ").split(":")[0] in RULES[r["rule"]], (r, first)


def test_without_rules_and_with_deny_rules_alone(guarded, keys):
    proxy = guarded([])
    assert ask(proxy)[1]["because"].startswith("the listener has no rules") and send(proxy, keys)
    proxy = guarded([{"action": "deny", "paths": ["/admin*"]}])
    assert ask(proxy, path="/x")[1]["because"].startswith("there are deny rules alone") and send(proxy, keys, path="/x")
    assert ask(proxy, path="/admin")[1]["rule"] == 0 and not send(proxy, keys, path="/admin")


def test_a_question_that_is_no_good(guarded):
    proxy = guarded(RULES)
    for query, why in (("principle=x", "did you mean 'principal'?"), ("listener=inbond", "did you mean 'inbound'?"), ("tool", "no KEY=VALUE"),
                       ("visible=half", "full, headers or none"), ("header.b%20d=x", "is no header")):
        status, text = proxy.admin("/authorize?" + query)
        assert status == 400 and why in json.loads(text)["error"]


def test_ephor_authorize_asks_a_running_one_or_a_file(guarded):
    proxy = guarded(RULES)
    for source in (("--admin", f"127.0.0.1:{proxy.admin_port}"), ("-c", proxy.path)):
        r = run(proxy.binary, "authorize", *source, f"principal={PLANNER}", "tool=search", "path=/mcp", check=False)
        assert r.returncode == 0 and r.stdout.startswith("allow: no deny rule matches, and this allow rule does: "), r.stderr
        assert "=> rule 0 (allow, " in r.stdout and "   rule 2 (deny, " in r.stdout
        r = run(proxy.binary, "authorize", *source, "host=a b&c", "header.x-tenant=a=b", "--json", check=False)
        told = json.loads(r.stdout)
        assert r.returncode == 1 and told["decision"] == "deny"
        assert any("host 'a b&c' is none of" in rule["because"] for rule in told["rules"])
        r = run(proxy.binary, "authorize", *source, "tol=x", check=False)
        assert r.returncode == 2 and "did you mean 'tool'?" in r.stderr
    assert run(proxy.binary, "authorize", "--admin", "127.0.0.1:1", "tool=x", check=False).returncode == 3
    assert run(proxy.binary, "authorize", check=False).returncode == 2
