"""A model that is forbidden, hidden in every way that two readers might read differently: it is refused each time, and the provider
never sees it. What is no JSON, as the API has it, is refused in the API's own form even where a policy that is blind would let it pass."""
import gzip
import json
import zlib

import pytest
import wire1
from harness import config, until
from wire2 import Client

JSON = "Content-Type: application/json\r\n"
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
BAD = '{"model":"evil","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
GOOD = BAD.replace("evil", "good")
GATE = '''
return require "ephor.policy" {
  name = "models", principle = "P2", match = { model = "evil" }, blind = "%s",
  call = function(c) return c:deny("not that model") end,
}'''


def raw_deflate(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def deep(n):
    return BAD.replace('"hi"', "[" * n + "]" * n)


# name: (headers, body): no JSON, or JSON that two would read differently: 400 in the API's form
MALFORMED = {
    "the model twice, the bad one last": (JSON, BAD.replace('"model"', '"model":"good","model"')),
    "the model twice, the bad one first": (JSON, BAD.replace('"evil"', '"evil","model":"good"')),
    "the model twice, the last a number": (JSON, BAD.replace('"evil"', '"evil","model":1')),
    "two models and nothing asked": (JSON, '{"model":1,"model":"evil"}'),
    "a twin under an escape": (JSON, BAD.replace('"model"', '"model":"good","mod\\u0065l"')),
    "a twin in capitals": (JSON, BAD.replace('"model"', '"model":"good","MODEL"')),
    "in capitals alone": (JSON, BAD.replace('"model"', '"Model"')),
    "a key twice in a message": (JSON, BAD.replace('"role"', '"role":"system","role"')),
    "bytes that are no UTF-8": (JSON, BAD.replace("hi", "\xff").encode("latin-1")),
    "no UTF-8 in the model": (JSON, BAD.replace("evil", "evil\xff").encode("latin-1")),
    "an overlong letter": (JSON, BAD.encode().replace(b"evil", b"\xc1\xa5vil")),
    "half a character at the end": (JSON, BAD.encode()[:-1] + b',"x":"\xe2\x82"}'),
    "a surrogate in UTF-8": (JSON, BAD.encode().replace(b"hi", b"\xed\xa0\x80")),
    "half a surrogate in the model": (JSON, BAD.replace("evil", "evil\\ud800")),
    "a NUL in the text": (JSON, BAD.replace("hi", "\x00")),
    "UTF-16 that doesn't say so": (JSON, BAD.encode("utf-16")),
    "UTF-16 without a BOM": (JSON, BAD.encode("utf-16-le")),
    "UTF-32": (JSON, BAD.encode("utf-32")),
    "two BOMs": (JSON, b"\xef\xbb\xbf" * 2 + BAD.encode()),
    "deeper than 64": (JSON, deep(64)),
    "ever so deep": (JSON, deep(5000)),
    "a comma too many": (JSON, BAD[:-1] + ",}"),
    "comments": (JSON, "/* */" + BAD),
    "single quotes": (JSON, BAD.replace('"', "'")),
    "NaN": (JSON, BAD.replace("9", "NaN")),
    "cut": (JSON, BAD[:-1]),
    "a second value behind it": (JSON, GOOD + BAD),
    "no UTF-8 and no type": ("", BAD.replace("hi", "\xff").encode("latin-1")),
    "no UTF-8, as text": ("Content-Type: text/plain\r\n", BAD.replace("hi", "\xff").encode("latin-1")),
    "no UTF-8, gzip": (JSON + "Content-Encoding: gzip\r\n", gzip.compress(BAD.replace("hi", "\xff").encode("latin-1"))),
    "twice, gzip": (JSON + "Content-Encoding: gzip\r\n", gzip.compress(BAD.replace('"model"', '"model":"good","model"').encode())),
    "too deep, gzip": (JSON + "Content-Encoding: gzip\r\n", gzip.compress(deep(5000).encode())),
    "gzip that doesn't say so": (JSON, b"\x1f\x8b" + b"{" + BAD.encode()),
}
# The model is found
SEEN = {
    "as it is": (JSON, BAD),
    "escaped": (JSON, BAD.replace("evil", "\\u0065v\\u0069l")),
    "an escaped key": (JSON, BAD.replace('"model"', '"m\\u006fdel"')),
    "a BOM": (JSON, b"\xef\xbb\xbf" + BAD.encode()),
    "space in front": (JSON, " \r\n\t" * 300 + BAD),
    "behind much else": (JSON, BAD.replace('"model"', '"x":"' + "y" * 100_000 + '","model"')),
    "a charset that is ours": ("Content-Type: application/json; charset=UTF-8\r\n", BAD),
    "no type": ("", BAD),
    "text": ("Content-Type: text/plain\r\n", BAD),
    "gzip": (JSON + "Content-Encoding: gzip\r\n", gzip.compress(BAD.encode())),
    "gzip of two members": (JSON + "Content-Encoding: gzip\r\n", gzip.compress(BAD[:12].encode()) + gzip.compress(BAD[12:].encode())),
    "gzip in gzip": (JSON + "Content-Encoding: gzip, gzip\r\n", gzip.compress(gzip.compress(BAD.encode()))),
    "raw deflate": (JSON + "Content-Encoding: deflate\r\n", raw_deflate(BAD.encode())),
}
# Nobody can say: for `blind`
BLIND = {
    "UTF-16 that says so": ("Content-Type: application/json; charset=utf-16\r\n", BAD.encode("utf-16")),
    "a charset of old": ("Content-Type: application/json; charset=iso-8859-1\r\n", BAD),
    "a form": ("Content-Type: application/x-www-form-urlencoded\r\n", BAD),
    "plain that says gzip": (JSON + "Content-Encoding: gzip\r\n", BAD),
    "gzip that is cut": (JSON + "Content-Encoding: gzip\r\n", gzip.compress(BAD.encode())[:-4]),
    "an encoding that nobody knows": (JSON + "Content-Encoding: rot13\r\n", BAD),
    "content-type twice": (JSON + "Content-Type: text/plain\r\n", BAD),
}


@pytest.fixture
def guarded(ephor, h1_server, policies, tmp_path):
    def start(blind="deny"):
        server = h1_server(lambda wire, request: wire.send(wire1.answer(b"{}", headers=JSON + "X-Upstream: 1\r\n")))
        proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=policies(models=GATE % blind),
                             audit={"directory": str(tmp_path / "audit")}))
        proxy.server = server
        return proxy
    return start


def ways(proxy, path, headers, body):
    """Each way to send it: its name, and the status and body of the answer."""
    body = body.encode() if isinstance(body, str) else body
    head = f"POST {path} HTTP/1.1\r\nHost: t\r\nAnthropic-Version: 2023-06-01\r\n{headers}"
    yield "whole", wire1.exchange(proxy.port, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, "POST")
    if len(body) < 20_000:
        with wire1.connect(proxy.port) as wire:
            wire.send(f"{head}Content-Length: {len(body)}\r\n\r\n")
            for at in range(len(body)):
                wire.send(body[at:at + 1])
            yield "byte by byte", wire.response("POST")
        if "json" in headers:  # other types are not read without a length
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 3]), body[i:i + 3]) for i in range(0, len(body), 3))
            yield "in chunks", wire1.exchange(proxy.port, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n", "POST")
    pairs = [tuple(part.strip() for part in line.split(":", 1)) for line in headers.split("\r\n") if line]
    with Client(proxy.port) as client:
        stream = client.request(path, "POST", [("anthropic-version", "2023-06-01"), *((k.lower(), v) for k, v in pairs),
                                               ("content-length", str(len(body)))], body)
        yield "h2", stream


def is_error(api, body, kind):
    told = json.loads(body)
    error = told["error"]
    return error["type"] == kind and (told["type"] == "error" if api == "anthropic" else "code" in error)


@pytest.mark.limit(120)
@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("blind", ["deny", "allow"])
def test_what_is_no_json_is_refused_by_the_api_s_own_error(guarded, api, blind, tmp_path):
    proxy, wrong, sent = guarded(blind), [], 0
    for name, (headers, body) in MALFORMED.items():
        for way, answer in ways(proxy, PATHS[api], headers, body):
            sent += 1
            if answer.status != 400 or answer.get("x-upstream") or not is_error(api, answer.body, "invalid_request_error"):
                wrong.append((name, way, answer.status, answer.body[:120]))
    assert not wrong, "\n".join(map(str, wrong))
    assert proxy.server.requests == []
    until(proxy.idle, "no stream left")
    refused = sum(proxy.metric("ephor_refusals_total", listener="inbound", by="agent", code=code)
                  for code in ("agent.malformed", "agent.duplicate_key"))
    assert refused == sent
    proxy.stop()
    records = [json.loads(line) for path in sorted((tmp_path / "audit").glob("audit-*.jsonl")) for line in path.read_text().splitlines()]
    assert sum("agent.malformed" in json.dumps(r) or "agent.duplicate_key" in json.dumps(r) for r in records) == sent
    assert all(f'"{api}"' in json.dumps(r) for r in records if "agent.malformed" in json.dumps(r))


@pytest.mark.limit(120)
@pytest.mark.parametrize("api", PATHS)
def test_a_forbidden_model_is_found_however_it_is_hidden(guarded, api):
    proxy, wrong = guarded(), []
    for name, (headers, body) in {**SEEN, **BLIND}.items():
        for way, answer in ways(proxy, PATHS[api], headers, body):
            why = b"not that model" if name in SEEN else b"can't see what it judges"
            kind = "invalid_request_error" if api == "openai" else "permission_error"
            right = answer.status == 403 and why in answer.body
            if not right or (name in SEEN and not is_error(api, answer.body, kind)):
                wrong.append((name, way, answer.status, answer.body[:160]))
    assert not wrong, "\n".join(map(str, wrong))
    assert proxy.server.requests == []
    for way, answer in ways(proxy, PATHS[api], JSON, GOOD):
        assert answer.status == 200 and answer.get("x-upstream"), way
    assert all(request.body == GOOD.encode() for request in proxy.server.requests)


def test_what_is_no_call_of_a_model_is_not_refused_for_its_form(guarded):
    """Paths of other applications end like a model's."""
    proxy = guarded("allow")
    for path, headers, body in (("/survey/responses", JSON, "7"), ("/survey/responses", "Content-Type: text/plain\r\n", "well"),
                                ("/survey/responses", "Content-Type: image/png\r\n", "{"), ("/survey", JSON, "{'a':1}"),
                                ("/survey/responses", JSON, '{"answers":[1,2]}'), ("/v1/models", JSON, BAD[:-1])):
        assert wire1.get(proxy.port, path, headers, "POST", body.encode()).status == 200, (path, body)
