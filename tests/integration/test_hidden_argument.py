"""A `tools/call` whose forbidden argument is hidden, in every way that two readers might read differently: it is refused each
time, and the upstream never sees it.

Calls are POSTs: what PUT, GET and others carry is no call to any MCP server, and passes unread (docs/agents.md).

The rule is about one argument. Each case is a request that some server would run as the forbidden call; how it is
refused may differ (an error of MCP's, a 400, a closed connection), that it is refused may not."""
import gzip
import json
import zlib

import pytest
import wire1
from harness import config, until
from wire2 import Client

POLICY = '''
local policy = require "ephor.policy"
return policy {
  name = "no-passwords", principle = "P1", match = { method = "tools/call" }, needs = { "arguments" },
  call = function(c)
    local path = c.tool == "read" and c.arguments.path
    if type(path) == "string" and path:find("passwd", 1, true) then return c:deny("not that file") end
  end,
}'''
JSON = "Content-Type: application/json\r\n"
BAD = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read","arguments":{"path":"/etc/passwd"}}}'
GOOD = BAD.replace("/etc/passwd", "/etc/motd")
PARAMS = '{"name":"read","arguments":{"path":"/etc/passwd"}}'


def call(params=PARAMS, method='"method"', name='"tools/call"', more=""):
    return f'{{"jsonrpc":"2.0","id":1,{method}:{name},"params":{params}{more}}}'


def deflate(data, bits=-15):
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    return packer.compress(data) + packer.flush()


def deep(n):
    return '{"a":' * n + "1" + "}" * n


# name: (headers, body); text is UTF-8
BODIES = {
    "as it is": (JSON, BAD),
    "an argument twice, the bad one last": (JSON, BAD.replace('{"path"', '{"path":"/etc/motd","path"')),
    "an argument twice, the bad one first": (JSON, BAD.replace('passwd"}', 'passwd","path":"/etc/motd"}')),
    "a twin under an escape": (JSON, BAD.replace('{"path"', '{"path":"/etc/motd","p\\u0061th"')),
    "arguments twice": (JSON, BAD.replace('"arguments"', '"arguments":{"path":"/etc/motd"},"arguments"')),
    "params twice": (JSON, BAD.replace('"params"', '"params":{"name":"read","arguments":{"path":"/etc/motd"}},"params"')),
    "params twice, the bad one first": (JSON, call(more=',"params":{"name":"read","arguments":{"path":"/etc/motd"}}')),
    "the method twice": (JSON, BAD.replace('"method"', '"method":"ping","method"')),
    "the method twice, the bad one first": (JSON, call(more=',"method":"ping"')),
    "the name twice": (JSON, BAD.replace('"name"', '"name":"other","name"')),
    "an escaped value": (JSON, BAD.replace("/etc/passwd", "\\u002fetc\\/p\\u0061ssw\\u0064")),
    "escaped keys": (JSON, BAD.replace('"params"', '"p\\u0061rams"').replace('"arguments"', '"\\u0061rguments"').replace('"path"', '"\\u0070ath"')),
    "an escaped method": (JSON, BAD.replace("tools/call", "tools\\u002fcall")),
    "an escaped key of the method": (JSON, BAD.replace('"method"', '"m\\u0065thod"')),
    "an escaped tool": (JSON, BAD.replace('"read"', '"r\\u0065ad"')),
    "a BOM": (JSON, b"\xef\xbb\xbf" + BAD.encode()),
    "two BOMs": (JSON, b"\xef\xbb\xbf" * 2 + BAD.encode()),
    "space in front": (JSON, " \r\n\t" * 300 + BAD),
    "another kind of space": (JSON, "\u00a0" + BAD),
    "UTF-16 that says so": ("Content-Type: application/json; charset=utf-16\r\n", BAD.encode("utf-16")),
    "UTF-16 that doesn't": (JSON, BAD.encode("utf-16")),
    "UTF-16 without a BOM": (JSON, BAD.encode("utf-16-le")),
    "UTF-16, the other end first": ("Content-Type: application/json; charset=UTF-16BE\r\n", BAD.encode("utf-16-be")),
    "UTF-32": ("Content-Type: application/json; charset=utf-32\r\n", BAD.encode("utf-32")),
    "UTF-7": ("Content-Type: application/json; charset=utf-7\r\n", BAD.replace("passwd", "p+AGE-sswd")),
    "a charset of old": ("Content-Type: application/json; charset=iso-8859-1\r\n", BAD),
    "EBCDIC": ("Content-Type: application/json; charset=cp037\r\n", BAD.encode("cp037")),
    "charset twice": ("Content-Type: application/json; charset=utf-8; charset=utf-16\r\n", BAD.encode("utf-16")),
    "bytes that are no UTF-8": (JSON, BAD.replace('{"path"', '{"note":"\xff","path"').encode("latin-1")),
    "an overlong slash": (JSON, BAD.encode().replace(b"/etc", b"\xc0\xafetc")),
    "half a surrogate": (JSON, BAD.replace('{"path"', '{"note":"\\ud800","path"')),
    "a NUL in the text": (JSON, BAD.replace('{"path"', '{"note":"\x00","path"')),
    "a second call in a batch": (JSON, f"[{GOOD.replace(':1,', ':2,', 1)},{BAD}]"),
    "a batch in a batch": (JSON, f"[{GOOD.replace(':1,', ':2,', 1)},[{BAD}]]"),
    "a batch that begins with nonsense": (JSON, f"[1,{BAD}]"),
    "a batch of one": (JSON, f"[{BAD}]"),
    "the same id twice in a batch": (JSON, f"[{GOOD},{BAD}]"),
    "a second object behind": (JSON, GOOD + BAD),
    "a second line": (JSON, GOOD + "\n" + BAD + "\n"),
    "an object behind a comma": (JSON, GOOD + "," + BAD),
    "rubbish behind": (JSON, BAD + "\x00\x00"),
    "record separators": ("Content-Type: application/json-seq\r\n", "\x1e" + BAD + "\n"),
    "keys in another case": (JSON, BAD.replace('"params"', '"Params"')),
    "the method in another case": (JSON, BAD.replace('"method"', '"METHOD"')),
    "arguments in another case": (JSON, BAD.replace('"arguments"', '"Arguments"')),
    "a name in another case": (JSON, BAD.replace('"name"', '"NAME"')),
    "a twin in another case": (JSON, call(more=',"Method":"ping"')),
    "a long s": (JSON, BAD.replace('"params"', '"param\u017f"')),
    "deep nesting in front": (JSON, BAD.replace('{"path"', f'{{"a":{deep(3000)},"path"')),
    "deep arrays in front": (JSON, BAD.replace('{"path"', f'{{"a":{"[" * 3000 + "]" * 3000},"path"')),
    "many keys in front": (JSON, BAD.replace('{"path"', '{' + "".join(f'"k{i}":{i},' for i in range(3000)) + '"path"')),
    "behind a megabyte": (JSON, BAD.replace('{"path"', f'{{"pad":"{"x" * (1 << 20)}","path"')),
    "behind a megabyte of space": (JSON, " " * (1 << 20) + BAD),
    "arguments as text": (JSON, call('{"name":"read","arguments":"{\\"path\\":\\"/etc/passwd\\"}"}')),
    "params as a list": (JSON, call('["read",{"path":"/etc/passwd"}]')),
    "no id": (JSON, BAD.replace('"id":1,', "")),
    "an id of null": (JSON, BAD.replace('"id":1', '"id":null')),
    "an id that is an object": (JSON, BAD.replace('"id":1', '"id":{}')),
    "no version": (JSON, BAD.replace('"jsonrpc":"2.0",', "")),
    "version 1": (JSON, BAD.replace('"jsonrpc":"2.0"', '"jsonrpc":"1.0"')),
    "a result beside it": (JSON, call(more=',"result":{}')),
    "an error beside it": (JSON, call(more=',"error":{"code":1,"message":""}')),
    "comments": (JSON, "/* */" + BAD),
    "single quotes": (JSON, BAD.replace('"', "'")),
    "a comma too many": (JSON, BAD[:-1] + ",}"),
    "NaN": (JSON, BAD.replace('{"path"', '{"n":NaN,"path"')),
    "gzip": (JSON + "Content-Encoding: gzip\r\n", gzip.compress(BAD.encode())),
    "x-gzip": (JSON + "Content-Encoding: x-gzip\r\n", gzip.compress(BAD.encode())),
    "gzip of two members": (JSON + "Content-Encoding: gzip\r\n", gzip.compress(BAD[:40].encode()) + gzip.compress(BAD[40:].encode())),
    "gzip and a second member behind a good one": (JSON + "Content-Encoding: gzip\r\n", gzip.compress(GOOD.encode()) + gzip.compress(BAD.encode())),
    "gzip in gzip": (JSON + "Content-Encoding: gzip, gzip\r\n", gzip.compress(gzip.compress(BAD.encode()))),
    "gzip by two headers": (JSON + "Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n", gzip.compress(gzip.compress(BAD.encode()))),
    "gzip that doesn't say so": (JSON, gzip.compress(BAD.encode())),
    "plain that says gzip": (JSON + "Content-Encoding: gzip\r\n", BAD),
    "gzip with something behind": (JSON + "Content-Encoding: gzip\r\n", gzip.compress(GOOD.encode()) + BAD.encode()),
    "gzip that is cut": (JSON + "Content-Encoding: gzip\r\n", gzip.compress(BAD.encode())[:-4]),
    "deflate": (JSON + "Content-Encoding: deflate\r\n", zlib.compress(BAD.encode())),
    "raw deflate": (JSON + "Content-Encoding: deflate\r\n", deflate(BAD.encode())),
    "an encoding that nobody knows": (JSON + "Content-Encoding: rot13\r\n", BAD),
    "an empty encoding": (JSON + "Content-Encoding: \r\n", BAD),
    "identity": (JSON + "Content-Encoding: identity\r\n", BAD),
    "the header names another tool": (JSON + "Mcp-Name: other\r\nMcp-Method: tools/call\r\n", BAD),
    "the header names another method": (JSON + "Mcp-Method: tools/list\r\n", BAD),
    "the headers name the tool twice": (JSON + "Mcp-Name: other\r\nMcp-Name: read\r\nMcp-Method: tools/call\r\n", BAD),
    "the newest version": (JSON + "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: read\r\n", BAD),
    "a version that nobody knows": (JSON + "MCP-Protocol-Version: 2031-01-01\r\n", BAD),
    "content-type twice": (JSON + "Content-Type: text/plain\r\n", BAD),
    "content-type twice, the other first": ("Content-Type: text/plain\r\n" + JSON, BAD),
    "two types in one": ("Content-Type: text/plain, application/json\r\n", BAD),
    "no type": ("", BAD),
    "an empty type": ("Content-Type: \r\n", BAD),
    "text": ("Content-Type: text/plain\r\n", BAD),
    "a form": ("Content-Type: application/x-www-form-urlencoded\r\n", BAD),
    "a vendor's JSON": ("Content-Type: application/vnd.api+json\r\n", BAD),
    "JSON in capitals": ("Content-Type: APPLICATION/JSON;CHARSET=UTF-8\r\n", BAD),
    "multipart": ("Content-Type: multipart/form-data; boundary=b\r\n", f"--b\r\nContent-Type: application/json\r\n\r\n{BAD}\r\n--b--\r\n"),
    "octets": ("Content-Type: application/octet-stream\r\n", BAD),
    "gRPC's type": ("Content-Type: application/grpc\r\n", BAD),
    "a stream of events as a request": ("Content-Type: text/event-stream\r\n", f"data: {BAD}\n\n"),
}
WHOLE_ONLY = 20_000  # longer bodies don't go out in pieces of one byte


def chunked(body, size=1, extension=""):
    return b"".join(f"{len(body[i:i + size]):x}{extension}\r\n".encode() + body[i:i + size] + b"\r\n"
                    for i in range(0, len(body), size)) + b"0\r\n\r\n"


def h1(headers, body, framing=None, method="POST"):
    framing = framing if framing is not None else f"Content-Length: {len(body)}\r\n"
    return f"{method} /mcp HTTP/1.1\r\nHost: test\r\n{headers}{framing}\r\n".encode("latin-1") + body


TE = "Transfer-Encoding: chunked\r\n"
bad, good = BAD.encode(), GOOD.encode()
SMUGGLED = h1(JSON, bad)

# name: all bytes of a connection
WIRES = {
    "chunks of one byte": h1(JSON, chunked(bad), TE),
    "chunks with extensions": h1(JSON, chunked(bad, 7, ';a="\\"b"'), TE),
    "a border inside an escape": h1(JSON, chunked(bad.replace(b"/etc", b"\\u002fetc"), 3), TE),
    "gzip in chunks": h1(JSON + "Content-Encoding: gzip\r\n", chunked(gzip.compress(bad), 5), TE),
    "gzip as a transfer coding": h1(JSON, chunked(gzip.compress(bad), 50), "Transfer-Encoding: gzip, chunked\r\n"),
    "a length and chunks": h1(JSON, chunked(bad), TE + "Content-Length: 4\r\n"),
    "chunks and a length": h1(JSON, chunked(bad), "Content-Length: 4\r\n" + TE),
    "chunked twice": h1(JSON, chunked(bad), TE + TE),
    "chunked, then identity": h1(JSON, chunked(bad), "Transfer-Encoding: chunked, identity\r\n"),
    "identity alone": h1(JSON, bad, f"Transfer-Encoding: identity\r\nContent-Length: {len(bad)}\r\n"),
    "a coding like chunked": h1(JSON, chunked(bad), "Transfer-Encoding: xchunked\r\n"),
    "chunked in quotes": h1(JSON, chunked(bad), 'Transfer-Encoding: "chunked"\r\n'),
    "a tab before chunked": h1(JSON, chunked(bad), "Transfer-Encoding:\tchunked\r\n"),
    "a vertical tab before chunked": h1(JSON, chunked(bad), "Transfer-Encoding:\vchunked\r\n"),
    "a space before the colon": h1(JSON, chunked(bad), "Transfer-Encoding : chunked\r\n"),
    "chunked on a folded line": h1(JSON, chunked(bad), "Transfer-Encoding:\r\n chunked\r\n"),
    "chunked under another name": h1(JSON, chunked(bad), "Transfer_Encoding: chunked\r\n"),
    "two lengths": h1(JSON, bad, f"Content-Length: {len(bad)}\r\nContent-Length: 0\r\n"),
    "two lengths in one": h1(JSON, bad, f"Content-Length: 0, {len(bad)}\r\n"),
    "a length with a sign": h1(JSON, bad, f"Content-Length: +{len(bad)}\r\n"),
    "a length in hex": h1(JSON, bad, f"Content-Length: 0x{len(bad):x}\r\n"),
    "a chunk size with 0x": h1(JSON, chunked(bad, 16).replace(b"10\r\n", b"0x10\r\n"), TE),
    "chunks ended by LF": h1(JSON, chunked(bad, 16).replace(b"\r\n", b"\n"), TE),
    "a chunk size beyond 64 bits": h1(JSON, b"10000000000000001\r\n" + bad + b"\r\n0\r\n\r\n", TE),
    "a second request behind a length of 0": h1(JSON, SMUGGLED, "Content-Length: 0\r\n" + TE),
    "a second request behind the last chunk": h1(JSON, b"0\r\n\r\n" + SMUGGLED, f"Content-Length: {len(SMUGGLED) + 5}\r\n" + TE),
    "a second request in the body of a GET": h1("", SMUGGLED, f"Content-Length: {len(SMUGGLED)}\r\nTransfer-Encoding: x\r\n", "GET"),
    "a second request, in the open": h1(JSON, bad) + h1(JSON, bad),
    "a promise to wait": h1(JSON + "Expect: 100-continue\r\n", bad),
    "an upgrade to h2c beside it": h1(JSON + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", bad),
    "an upgrade to WebSocket beside it": h1(JSON + "Connection: Upgrade\r\nUpgrade: websocket\r\n", bad),
    "HTTP/1.0 without a length": h1(JSON, bad, "").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a type on a folded line": h1("Content-Type: text/plain\r\n ; application/json\r\n", bad),
    "a type hidden by a connection header": h1(JSON + "Connection: content-type\r\n", bad),
    "the encoding hidden by a connection header": h1(JSON + "Content-Encoding: gzip\r\nConnection: content-encoding\r\n", gzip.compress(bad)),
}


@pytest.fixture
def guarded(ephor, h1_server, policies):
    server = h1_server(lambda wire, request: wire.send(wire1.answer(b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}', headers=JSON + "X-Upstream: 1\r\n")))
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=policies(no_passwords=POLICY)))
    return proxy, server


def saw(server):
    """The requests with a body that the upstream has seen, and bytes that it can't read as a request; then it forgets."""
    seen = [request.raw + request.body for request in server.requests if request.body] + [wire.buffer for wire in server.wires if wire.buffer]
    server.requests.clear()
    return seen


def play(proxy, data, pieces=False):
    """Sends a connection's bytes; the answers that are ephor's own."""
    statuses = []
    with wire1.connect(proxy.port) as wire:
        try:
            for i in range(0, len(data), 1 if pieces else len(data)):
                wire.send(data[i:i + 1] if pieces else data)
            wire.sock.shutdown(1)
        except OSError:
            pass  # it was refused before its end
        try:
            while True:
                answer = wire.response()
                if answer.get("x-upstream") is None:
                    statuses.append((answer.status, answer.body, answer.get("grpc-status")))
        except (wire1.Closed, OSError, ValueError):
            pass
    return statuses


def no(statuses):
    """Every answer says no: a status of its own, or an error of MCP's under a 200."""
    return all(status >= 400 or status == 202 or b'"isError":true' in body or b'"error":' in body or grpc not in (None, "0")
               for status, body, grpc in statuses)


def failed(proxy):
    return proxy.metric("ephor_policy_decisions_total", policy="no-passwords", decision="error")


def check(proxy, server, name, statuses, wrong):
    until(proxy.idle, "no stream left")
    seen = saw(server)
    if seen or not no(statuses):
        wrong.append((name, [(s, b[:120]) for s, b, _ in statuses], f"the upstream saw {seen}"))


@pytest.mark.limit(120)
def test_a_forbidden_argument_is_found_however_it_is_hidden(guarded):
    proxy, server = guarded
    wrong = []
    assert play(proxy, h1(JSON, good)) == [] and len(saw(server)) == 1, "what isn't forbidden passes"
    for name, (headers, body) in BODIES.items():
        body = body.encode() if isinstance(body, str) else body
        check(proxy, server, name, play(proxy, h1(headers, body)), wrong)
        if len(body) < WHOLE_ONLY:
            check(proxy, server, name + ", in pieces", play(proxy, h1(headers, body), True), wrong)
            check(proxy, server, name + ", chunked", play(proxy, h1(headers, chunked(body, 2), TE)), wrong)
    for name, data in WIRES.items():
        check(proxy, server, name, play(proxy, data), wrong)
        check(proxy, server, name + ", in pieces", play(proxy, data, True), wrong)
    assert not wrong, "\n".join(map(str, wrong))
    assert play(proxy, h1(JSON, good)) == [] and len(saw(server)) == 1, "and it still does"
    assert failed(proxy) == 3, "arguments with half a surrogate are no text that Lua could have: whole, in pieces, chunked"


@pytest.mark.limit(120)
def test_the_same_over_http2(guarded):
    proxy, server = guarded
    wrong = []
    for name, (headers, body) in BODIES.items():
        body = body.encode() if isinstance(body, str) else body
        pairs = [tuple(part.strip() for part in line.split(":", 1)) for line in headers.split("\r\n") if line]
        with Client(proxy.port) as client:
            stream = client.request("/mcp", "POST", [(key.lower(), value) for key, value in pairs], body)
        own = stream.reset is None and not stream.get("x-upstream")
        check(proxy, server, name, [(stream.status, stream.body, stream.get("grpc-status"))] if own else [], wrong)
    assert not wrong, "\n".join(map(str, wrong))
