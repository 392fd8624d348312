"""No blind policy: what a rule judges it sees, or it says that it can't, and `blind` decides. Compressed, encrypted, too large
and streamed bodies; bodies that two readers would read as two calls. The upstream gets the bytes that came."""
import contextlib
import gzip
import json
import ssl
import zlib

import brotli
import pytest
import wire1
import wire2
import yaml
import zstandard
from harness import config, run

GATE = '''
local policy = require "ephor.policy"
return policy {{
  name = "gate", principle = "P3", match = {{ protocol = "mcp", method = "tools/call" }}, needs = {{ "tool", "arguments" }}, {more}
  call = function(c)
    if c.tool == "shell" or (c.arguments and c.arguments.command) then return c:deny("no shell") end
  end,
}}'''
JSON = "application/json"


def call(tool="shell", **more):
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, **more}}).encode()


def raw_deflate(data):
    z = zlib.compressobj(6, zlib.DEFLATED, -15)
    return z.compress(data) + z.flush()


def zstd(data):
    return zstandard.ZstdCompressor().compress(data)


CODINGS = {
    "gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "raw": raw_deflate, "br": brotli.compress,
    "zstd": zstd, "deflate, gzip": lambda b: gzip.compress(zlib.compress(b)), "br, zstd, gzip":
    lambda b: gzip.compress(zstd(brotli.compress(b))), "members": lambda b: gzip.compress(b[:30]) + gzip.compress(b[30:]),
}
NAMES = {"raw": "deflate", "members": "gzip"}


@pytest.fixture(params=["h1", "h2"])
def way(request):
    """way(proxy, body, headers): the status and the body of the answer. `pieces`: how many bytes at a time."""
    def over_h1(proxy, body, headers=(), pieces=0, chunked=False, path="/mcp", content_type=JSON):
        head = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Type: {content_type}", "Accept: application/json, text/event-stream",
                "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}", *[f"{k}: {v}" for k, v in headers]]
        with wire1.connect(proxy.port) as wire:
            wire.send("\r\n".join(head) + "\r\n\r\n")
            for at in range(0, len(body), pieces or max(len(body), 1)):
                some = body[at:at + pieces] if pieces else body
                wire.send(b"%x\r\n%s\r\n" % (len(some), some) if chunked else some)
            if chunked:
                wire.send("0\r\n\r\n")
            answer = wire.response("POST")
            return answer.status, answer.body

    def over_h2(proxy, body, headers=(), pieces=0, chunked=False, path="/mcp", content_type=JSON):
        sent = [("content-type", content_type), ("accept", "application/json, text/event-stream"),
                *[(k.lower(), v) for k, v in headers]]
        if not chunked:
            sent.append(("content-length", str(len(body))))
        with wire2.Client(proxy.port) as client:
            stream = client.start(path, "POST", sent, end=False)
            step = pieces or max(len(body), 1)
            with contextlib.suppress(ConnectionError):  # refused before all of it was sent
                for at in range(0, len(body), step):
                    client.send_data(stream.id, body[at:at + step])
                client.send_data(stream.id, b"", end=True)
            client.finish(stream)
            return int(stream.status), stream.body
    return over_h1 if request.param == "h1" else over_h2


@pytest.fixture
def gated(ephor, h1_server, policies):
    def start(more="", listener=None, server=None, **top):
        server = server or h1_server()
        proxy = ephor(config(server.port, listener, cluster={"protocol": "http/1.1"}, policies=policies(gate=GATE.format(more=more)),
                             **top))
        proxy.server = server
        return proxy
    return start


def refused(answer):
    status, body = answer
    return status == 200 and b"isError" in body and b"no shell" in body


def blind(answer, why):
    status, body = answer
    return status == 403 and b"can't see what it judges (%s)" % why.encode() in body


# --- compressed ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_call_is_judged_by_what_it_says(gated, way, coding):
    proxy = gated()
    headers = [("Content-Encoding", NAMES.get(coding, coding))]
    bad, good = CODINGS[coding](call("shell")), CODINGS[coding](call("echo", arguments={"text": "x" * 500}))
    for pieces in (0, 1, 7):
        assert refused(way(proxy, bad, headers, pieces))
        status, body = way(proxy, good, headers, pieces)
        assert status == 200 and body == good, "the upstream gets the bytes that came"
    got = proxy.server.requests
    assert len(got) == 3 and all(q.get("content-encoding") == headers[0][1] and q.body == good for q in got)
    assert proxy.metric("ephor_policy_blind_total") == 0 and proxy.metric("ephor_call_blind_total") == 0


UNDECODABLE = {
    "plain": ("gzip", lambda b: b), "cut": ("gzip", lambda b: gzip.compress(b)[:-4]), "tail": ("gzip", lambda b: gzip.compress(b) + b"\0"),
    "other": ("br", gzip.compress), "unknown": ("compress", gzip.compress), "four": ("gzip, gzip, gzip, gzip", gzip.compress),
    "br tail": ("br", lambda b: brotli.compress(b) + b"}"), "zstd cut": ("zstd", lambda b: zstd(b)[:-1]),
    "wrong sum": ("gzip", lambda b: gzip.compress(b)[:-8] + b"\0" * 8),
    "secret": ("aes128gcm", lambda b: b),
}


@pytest.mark.parametrize("name", UNDECODABLE)
def test_what_cant_be_decoded_whole_is_blind_by_encoding(gated, way, name):
    proxy = gated()
    coding, encode = UNDECODABLE[name]
    for pieces in (0, 1):
        assert blind(way(proxy, encode(call("echo")), [("Content-Encoding", coding)], pieces), "encoding")
    assert proxy.server.requests == []
    proxy.counted(2, "ephor_policy_blind_total", policy="gate", reason="encoding")
    proxy.counted(2, "ephor_call_blind_total", listener="inbound", reason="encoding")


def test_a_bomb_is_too_large(gated, way):
    proxy = gated(listener={"max_body": "64MiB"})
    bomb = gzip.compress(b'{"x":"' + b"\0" * (20 << 20) + b'"}')
    assert blind(way(proxy, bomb, [("Content-Encoding", "gzip")]), "too_large")
    assert blind(way(proxy, zstd(b" " * (20 << 20)), [("Content-Encoding", "zstd")]), "too_large")
    assert proxy.rss() < 200 << 20


def test_a_body_that_is_too_large_when_decoded(gated, way):
    proxy = gated(listener={"max_body": "4KiB"})
    body = gzip.compress(call("echo", arguments={"text": "ab" * 5000}))
    assert len(body) < 4096
    assert blind(way(proxy, body, [("Content-Encoding", "gzip")]), "too_large")


# --- too large, streamed, unknown ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("mode", ["deny", "allow", "shadow"])
def test_a_body_that_is_too_large_is_what_blind_says(gated, way, mode, chunked):
    proxy = gated(f'blind = "{mode}",', {"max_body": "16KiB"})
    body = call("shell", arguments={"text": "y" * 50000})
    answer = way(proxy, body, chunked=chunked, pieces=9000)
    if mode == "deny":
        assert blind(answer, "too_large") and proxy.server.requests == []
    else:
        assert answer == (200, body), "all of it passes"
    proxy.counted(1, "ephor_policy_blind_total", policy="gate", reason="too_large")
    proxy.counted(1, "ephor_policy_decisions_total", policy="gate", decision=mode.replace("shadow", "shadow_deny"))


@pytest.mark.parametrize("mode", ["deny", "allow", "shadow"])
def test_a_streamed_body_is_what_blind_says(gated, way, mode):
    proxy = gated(f'blind = "{mode}",')
    answer = way(proxy, call("shell"), chunked=True, content_type="text/plain", pieces=1)
    if mode == "deny":
        assert blind(answer, "streamed") and proxy.server.requests == []
    else:
        assert answer == (200, call("shell"))
    proxy.counted(1, "ephor_policy_blind_total", policy="gate", reason="streamed")
    proxy.counted(1, "ephor_policy_decisions_total", policy="gate", decision=mode.replace("shadow", "shadow_deny"))


@pytest.mark.parametrize("body,content_type", [
    (call("shell").decode().encode("utf-16"), "application/json; charset=utf-16"),
    (call("shell").decode().encode("utf-16-le"), JSON), (call("shell").decode().encode("utf-32"), JSON),
    (call("shell"), "application/json; charset=latin1"), (call("shell"), "application/x-www-form-urlencoded"),
    (call("shell"), "multipart/form-data; boundary=x"), (b"{'method': 'tools/call'}", JSON), (call("shell") + b"x", JSON),
], ids=["utf-16", "utf-16 untold", "utf-32 untold", "latin1", "form", "multipart", "json5", "tail"])
def test_what_is_of_no_known_kind_is_unknown(gated, way, body, content_type):
    proxy = gated()
    for pieces in (0, 1):
        assert blind(way(proxy, body, content_type=content_type, pieces=pieces), "unknown")
    assert proxy.server.requests == []
    proxy.counted(2, "ephor_policy_blind_total", policy="gate", reason="unknown")


# --- encrypted ----------------------------------------------------------------------------------------------------------
def client_hello():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="api.test").do_handshake()
    return outgoing.read()


def echo_bytes(wire):
    while True:
        wire.more()
        data, wire.buffer = wire.buffer, b""
        wire.send(data)


@pytest.mark.parametrize("mode", ["deny", "allow", "shadow"])
def test_tls_that_is_passed_on_is_what_blind_says(ephor, h1_server, policies, mode):
    proxy = ephor({**config(h1_server(echo_bytes, raw=True).port, {"routes": [{"cluster": "app"}, {"cluster": "web"}]},
                            {"protocol": "tcp"}, policies=policies(gate=GATE.format(more=f'blind = "{mode}",'))),
                   "clusters": [{"name": "app", "endpoints": [f"127.0.0.1:{h1_server(echo_bytes, raw=True).port}"], "protocol": "tcp"},
                                {"name": "web", "endpoints": ["127.0.0.1:1"]}]})
    hello = client_hello()
    for pieces in (len(hello), 1):
        with wire1.connect(proxy.port) as wire:
            try:
                for at in range(0, len(hello), pieces):
                    wire.send(hello[at:at + pieces])
                got = wire.take(len(hello))
            except (wire1.Closed, OSError):
                got = None
            assert got == (None if mode == "deny" else hello)
    proxy.counted(2, "ephor_policy_blind_total", policy="gate", reason="encrypted")
    proxy.counted(2, "ephor_call_blind_total", listener="inbound", reason="encrypted")
    proxy.counted(2, "ephor_policy_decisions_total", policy="gate", decision=mode.replace("shadow", "shadow_deny"))


# --- in the audit -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["deny", "allow", "shadow"])
def test_blindness_that_denies_is_audited(gated, way, mode, tmp_path):
    audit = tmp_path / "audit"
    audit.mkdir()
    proxy = gated(f'blind = "{mode}",', audit={"directory": str(audit)})
    way(proxy, b"x", [("Content-Encoding", "gzip")])
    proxy.counted(1, "ephor_policy_blind_total", policy="gate", reason="encoding")
    proxy.stop()
    records = [json.loads(line) for path in sorted(audit.rglob("*")) if path.is_file() and path.suffix != ".sig"
               for line in path.read_text().splitlines() if line.startswith("{")]
    blind_ones = [r for r in records if "policy.blind" in json.dumps(r)]
    assert len(blind_ones) == (0 if mode == "allow" else 1)
    if blind_ones:
        text = json.dumps(blind_ones[0])
        assert "gate" in text and "P3" in text and "encoding" in text
        assert ("shadow_deny" in text) == (mode == "shadow")


# --- what two readers would read as two calls (AGENTS.md section 8) -----------------------------------------------------------
SEEN = {
    "white space": b" \r\n\t" + call("shell"),
    "byte order mark": b"\xef\xbb\xbf" + call("shell"),
    "escaped key": call("shell").replace(b"method", b"m\\u0065thod"),
    "escaped slash": call("shell").replace(b"tools/call", b"tools\\u002fcall"),
    "escaped name": call("shell").replace(b"shell", b"\\u0073hell"),
    "escaped params": call("shell").replace(b"params", b"p\\u0061rams").replace(b'"name"', b'"n\\u0061me"'),
    "escaped argument": call("x", arguments={"command": 1}).replace(b"command", b"comm\\u0061nd"),
    "batch": b"[" + call("echo") + b"," + call("shell") + b"]",
}


@pytest.mark.parametrize("name", SEEN)
@pytest.mark.parametrize("coding", ["", "gzip"])
def test_a_call_in_disguise_is_seen(gated, way, name, coding):
    proxy = gated()
    body = gzip.compress(SEEN[name]) if coding else SEEN[name]
    for pieces in (0, 1):
        for chunked in (False, True):
            answer = way(proxy, body, [("Content-Encoding", coding)] if coding else [], pieces, chunked)
            assert answer[0] == 200 and b"no shell" in answer[1]
    assert proxy.server.requests == []


DOUBLE = {
    "method": b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"name":"shell"},"method":"tools/call"}',
    "escaped": b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"name":"shell"},"m\\u0065thod":"tools/call"}',
    "name": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","name":"shell"}}',
    "argument": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"a":1,"a":2}}}',
    "case": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","Name":"shell"}}',
}


@pytest.mark.parametrize("name", DOUBLE)
@pytest.mark.parametrize("coding", ["", "gzip"])
def test_a_key_given_twice_is_refused(gated, way, name, coding):
    proxy = gated()
    body = gzip.compress(DOUBLE[name]) if coding else DOUBLE[name]
    for pieces in (0, 1):
        status, text = way(proxy, body, [("Content-Encoding", coding)] if coding else [], pieces)
        assert status == 400 and b"key" in text
    assert proxy.server.requests == []


@pytest.mark.parametrize("path", ["/mcp/", "/mcp?x=1", "/MCP", "//mcp", "/%6dcp", "/a/../mcp"])
def test_a_call_is_known_by_its_body_whatever_the_path(gated, way, path):
    proxy = gated()
    assert refused(way(proxy, call("shell"), path=path))


def test_invalid_utf8_is_no_json(gated, way):
    proxy = gated()
    assert blind(way(proxy, call("shell").replace(b"shell", b"sh\xffell")), "unknown")


# --- coverage -----------------------------------------------------------------------------------------------------------
def shown(proxy, *more, check=True):
    return run(proxy.binary, "policies", "--admin", f"127.0.0.1:{proxy.admin_port}", *more, check=check)


def columns(text, first):
    line = next(line for line in text.splitlines() if line.strip().startswith(first + " "))
    return [int(word) for word in line.split()[-6:]]


def test_ephor_policies_shows_what_each_saw_on_each_route(gated, way):
    proxy = gated(listener={"routes": [{"match": {"prefix": "/tools"}, "cluster": "app"}, {"match": {"prefix": "/mcp"}, "cluster": "app"}]})
    for _ in range(3):
        way(proxy, call("echo"))
    way(proxy, call("shell"), path="/tools")
    way(proxy, b"x", [("Content-Encoding", "gzip")])
    way(proxy, b"x" * 3_000_000, path="/tools")
    way(proxy, call("shell"), content_type="text/plain", chunked=True)
    way(proxy, json.dumps({"a": 1}).encode(), path="/none")
    out = shown(proxy).stdout
    #                                          seen matched denied shadow failed blind
    assert columns(out, "gate") == [8, 7, 4, 0, 0, 3]
    assert columns(out, "inbound/0") == [2, 2, 2, 0, 0, 1]
    assert columns(out, "inbound/1") == [5, 5, 2, 0, 0, 2]
    assert columns(out, "inbound/2") == [1, 0, 0, 0, 0, 0], "the route that `cluster` is short for"
    flag = next(line for line in out.splitlines() if line.startswith("! gate was blind"))
    assert "3 of 7" in flag and "on_blind deny" in flag
    for reason in ("encoding 1", "too_large 1", "streamed 1"):
        assert reason in flag
    told = json.loads(shown(proxy, "--json").stdout)["workers"][0]["policies"][0]
    assert told["blind_by"] == {"encoding": 1, "too_large": 1, "streamed": 1}
    assert {r["route"]: r["seen"] for r in told["routes"]} == {"inbound/0": 2, "inbound/1": 5, "inbound/2": 1}


def test_ephor_policies_points_out_what_never_matched(ephor, h1_server, policies):
    proxy = ephor(config(h1_server().port, cluster={"protocol": "http/1.1"}, policies=policies(
        gate=GATE.format(more='mode = "shadow",'), never=GATE.format(more="").replace('"gate"', '"never"').replace('"tools/call"', '"tools/call", tool = "nobody"'),
        off=GATE.format(more='mode = "off",').replace('"gate"', '"off"'))))
    assert "! gate has seen no call yet" in shown(proxy).stdout
    wire1.get(proxy.port, "/mcp", f"Content-Type: {JSON}\r\nAccept: application/json, text/event-stream\r\n", "POST", call("shell"))
    out = shown(proxy).stdout
    assert columns(out, "gate") == [1, 1, 0, 1, 0, 0] and columns(out, "never") == [1, 0, 0, 0, 0, 0]
    assert "! never matched none of 1 calls" in out and "! gate has seen" not in out and "! off" not in out
    assert "! gate is a shadow, and would have denied 100% of what it matched" in out


def test_a_header_that_a_policy_sets_changes_the_route_and_the_coverage(ephor, h1_server, policies):
    stamp = 'return require "ephor.policy" { name = "a-stamp", call = function(c) c:header("x-way", "two") end }'
    see = 'return require "ephor.policy" { name = "b-see", call = function(c) if c.route ~= "inbound/0" then c:deny(c.route) end end }'
    other = h1_server()
    conf = config(h1_server().port, {"routes": [{"match": {"headers": {"x-way": "two"}}, "cluster": "two"}]}, {"protocol": "http/1.1"},
                  policies=policies(a_stamp=stamp, b_see=see))
    conf["clusters"].append({"name": "two", "endpoints": [f"127.0.0.1:{other.port}"], "protocol": "http/1.1"})
    proxy = ephor(conf)
    assert wire1.get(proxy.port).status == 200 and len(other.requests) == 1
    told = {p["name"]: [r["route"] for r in p["routes"]] for p in json.loads(shown(proxy, "--json").stdout)["workers"][0]["policies"]}
    assert told == {"a-stamp": ["inbound/1"], "b-see": ["inbound/0"]}


def test_ephor_policies_says_why_there_is_no_answer(ephor, h1_server):
    proxy = ephor(config(h1_server().port))
    assert "! there is no policy" in shown(proxy).stdout
    for address, code, why in (("127.0.0.1:1", 3, "is ephor running"), ("nowhere", 3, "is no address"),
                               (f"127.0.0.1:{proxy.metrics_port}", 3, "404")):
        r = run(proxy.binary, "policies", "--admin", address, check=False)
        assert r.returncode == code and why in r.stderr
    assert run(proxy.binary, "policies", "x", check=False).returncode == 2
    assert "matched nothing" in run(proxy.binary, "policies", "--help").stdout


# --- what can never be, refused ---------------------------------------------------------------------------------------------
def check(ephor_binary, tmp_path, listener, cluster, **files):
    directory = tmp_path / "checked"
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / f"{name}.lua").write_text(text)
    path = tmp_path / "checked.yaml"
    path.write_text(yaml.safe_dump({"listeners": [{"name": "inbound", "bind": "127.0.0.1:0", "cluster": "app", **listener}],
                                    "clusters": [{"name": "app", "endpoints": ["127.0.0.1:1"], **cluster}],
                                    "policies": str(directory)}))
    return run(ephor_binary, "check", path, check=False)


IMPOSSIBLE = {
    "tool of tcp": ('match = { protocol = "tcp", tool = "shell" }', {}, {}, "gate.lua:3: policy: 'gate': match names 'tool'"),
    "arguments of grpc": ('match = { protocol = "grpc" }, needs = { "arguments" }', {}, {}, "gate.lua:3: policy: 'gate': needs names 'arguments'"),
    "no such protocol": ('match = { protocol = "mpc" }', {}, {}, "did you mean 'mcp'?"),
    "tool of tools/list": ('match = { protocol = "mcp", method = "tools/list", tool = "x" }', {}, {}, "only tools/call has it"),
    "mcp on a tcp listener": ('match = { protocol = "mcp" }', {"protocol": "tcp"}, {}, "gate.lua:3: policy 'gate': match.protocol leaves nothing"),
    "tool on tcp clusters": ('match = { tool = "shell" }', {}, {"protocol": "tcp"}, "it speaks of 'tool', and the listeners"),
    "no such listener": ('match = { listener = "inbond" }', {}, {}, "did you mean 'inbound'?"),
    "status of a call": ('call = function(c) return c.status end', {}, {}, "call reads c.status, and a call has no 'status'; only a reply has"),
    "a slip in a reply": ('reply = function(r)\n r:header("x", r.argument) end', {}, {}, "gate.lua:5: policy: reply reads r.argument, and a reply has no 'argument'; did you mean 'arguments'?"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_rule_on_what_can_never_be_is_refused(name, tmp_path, ephor, h1_server):
    keys, listener, cluster, why = IMPOSSIBLE[name]
    keys = keys if "function" in keys else keys + ", call = function(c) end"
    text = f'-- a policy\nlocal policy = require "ephor.policy"\nreturn policy {{ name = "gate",\n{keys} }}\n'
    proxy = ephor(config(h1_server().port, {"filters": ["identity", "agent"]}))
    r = check(proxy.binary, tmp_path, listener, cluster, gate=text)
    assert r.returncode == 1 and why in r.stderr and "checked.yaml: error:" in r.stderr, r.stderr
    proxy.reload(config(h1_server().port, listener, cluster, policies=str(tmp_path / "checked")), expect="rejected")
    assert why in json.loads(proxy.admin("/config")[1])["rejected"]["error"]


@pytest.mark.parametrize("keys,listener,cluster", [
    ('match = { protocol = { "mcp", "tcp" }, tool = "shell" }', {}, {}), ('match = { protocol = "tcp", peer = "*" }', {"protocol": "tcp"}, {}),
    ('match = { protocol = "grpc", service = "a.*" }', {}, {}), ('match = { tool = "x", model = "y" }, needs = { "arguments" }', {}, {}),
    ('match = { listener = "out*", tool = "x" }', {}, {}), ('match = { direction = "outbound" }', {}, {}),
    ('match = { protocol = "mcp", method = "tools/*", tool = "*" }', {}, {}),
])
def test_a_rule_on_what_may_be_is_not(keys, listener, cluster, tmp_path, ephor, h1_server):
    text = f'return require "ephor.policy" {{ name = "gate", {keys}, call = function(c) end, reply = function(r) return r.status end }}'
    binary = ephor(config(h1_server().port)).binary
    r = check(binary, tmp_path, listener, cluster, gate=text)
    assert r.returncode == 0, r.stderr


def test_check_without_the_directory_says_so(ephor, h1_server, tmp_path):
    proxy = ephor(config(h1_server().port))
    path = tmp_path / "elsewhere.yaml"
    path.write_text(yaml.safe_dump({"listeners": [{"name": "in", "bind": "127.0.0.1:0", "cluster": "app"}], "policies": "/nowhere/policies",
                                    "clusters": [{"name": "app", "endpoints": ["127.0.0.1:1"]}]}))
    r = run(proxy.binary, "check", path, check=False)
    assert r.returncode == 0 and "there is no /nowhere/policies here" in r.stderr
