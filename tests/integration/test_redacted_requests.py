"""Redaction on the way to the upstream, end to end: however deep what must not get out is nested, what arrives is the text that was
sent with just that replaced, byte for byte, and its length is said right; compressed bodies go on decoded."""
import gzip
import json
import zlib

import brotli
import pytest
import wire1
import wire2
from harness import config

SECRETS = {"ssn": "123-45-6789", "email": "ada@example.org", "credit_card": "4111 1111 1111 1111"}
MASK = 'return require "ephor.policy" { name = "a-mask", principle = "P5", call = function(c) c:redact({"ssn", "email", "credit_card"}) end }'
LOOK = '''
return require "ephor.policy" { name = "b-look", call = function(c)
  for _, part in ipairs(c.parts or {}) do
    if part.text and part.text:find("6789", 1, true) then return c:deny("parts") end
  end
  local function seen(v)
    if type(v) == "string" then return v:find("6789", 1, true) end
    if type(v) == "table" then for _, x in pairs(v) do if seen(x) then return true end end end
  end
  if seen(c.arguments) then return c:deny("arguments") end
  if c.prompt and c.prompt:find("6789", 1, true) then return c:deny("prompt") end
  if c.body:find("6789", 1, true) then return c:deny("body") end
end }'''
SSN, MAIL, CARD = SECRETS.values()
TEXT = f"I am {SSN}, write to {MAIL} or <{MAIL}>; \"pay\" {CARD}\n\u00e4\u20ac"


def rpc(method, params):
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def nested(value, depth):
    for i in range(depth):
        value = {f"k{i}": [value, i, None]} if i % 2 else [{"v": value}]
    return value


PARTS = [{"kind": "text", "text": TEXT}, {"kind": "data", "data": {"deep": nested(TEXT, 9), "n": [1, 2.5, True, SSN]}, "metadata": {"note": MAIL}},
         {"kind": "file", "file": {"name": MAIL, "uri": "https://x.test/a"}}]
A2A_1 = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": TEXT}, {"data": nested(TEXT, 12)}], "metadata": {"from": MAIL}}
TOOL_RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": [
    {"type": "text", "text": TEXT}, {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": TEXT}, "title": SSN}]}
# name: (path, headers, body)
BODIES = {
    "MCP arguments": ("/mcp", rpc("tools/call", {"name": "send", "arguments": {"to": MAIL, "body": {"lines": [TEXT, nested(TEXT, 20)]}}})),
    "an MCP batch": ("/mcp", [rpc("tools/call", {"name": "a", "arguments": {"x": [SSN]}}), rpc("tools/call", {"name": "b", "arguments": {"y": {"z": TEXT}}})]),
    "MCP prompts": ("/mcp", rpc("prompts/get", {"name": "p", "arguments": {"q": TEXT}})),
    "A2A 0.3": ("/", rpc("message/send", {"message": {"kind": "message", "messageId": "m", "role": "user", "parts": PARTS}, "metadata": {"who": TEXT}})),
    "A2A 1.0": ("/", rpc("SendMessage", {"message": A2A_1})),
    "A2A REST": ("/v1/message:send", {"message": A2A_1}),
    "OpenAI chat": ("/v1/chat/completions", {"model": "m", "messages": [
        {"role": "system", "content": TEXT}, {"role": "user", "content": [{"type": "text", "text": TEXT}, {"type": "image_url", "image_url": {"url": "https://x.test/" + SSN}}]},
        {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": json.dumps({"to": MAIL, "t": ["x", SSN]})}}]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": TEXT}]}], "tools": [{"type": "function", "function": {"name": "f", "description": MAIL}}]}),
    "OpenAI responses": ("/v1/responses", {"model": "m", "instructions": TEXT, "input": [
        {"role": "user", "content": [{"type": "input_text", "text": TEXT}]}, {"type": "function_call_output", "call_id": "c", "output": TEXT}]}),
    "Anthropic": ("/v1/messages", {"model": "m", "max_tokens": 5, "system": [{"type": "text", "text": TEXT}], "messages": [
        {"role": "user", "content": [{"type": "text", "text": TEXT}, TOOL_RESULT]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {"to": MAIL, "list": nested(SSN, 8)}}]}]}),
    "the agent bus": ("/api/v1/messages", {"message_type": "command", "from_agent": "a", "to_agent": "b", "content": {"text": TEXT, "deep": nested(MAIL, 10)}}),
    "plain JSON": ("/x", {"a": nested(TEXT, 30)}),
}
ENCODINGS = {"": bytes, "gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "gzip, gzip": lambda b: gzip.compress(gzip.compress(b))}
WAYS = {  # how the JSON is written
    "compact": lambda v: json.dumps(v, separators=(",", ":"), ensure_ascii=False), "spaced": lambda v: json.dumps(v, indent=1, ensure_ascii=False)}


def masked(text):
    for name, secret in SECRETS.items():
        text = text.replace(secret, f"[{name}]")
    return text


@pytest.fixture
def masking(ephor, h1_server, policies):
    def start(**scripts):
        server = h1_server()
        proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=policies(a_mask=MASK, b_look=LOOK, **scripts)))
        proxy.server = server
        return proxy
    return start


def post(proxy, over, path, body, headers=(), chunked=False):
    sent = [("content-type", "application/json"), ("accept", "application/json, text/event-stream"), *headers]
    if over == "h2":
        with wire2.Client(proxy.port) as client:
            stream = client.request(path, "POST", sent if chunked else [*sent, ("content-length", str(len(body)))], body)
            return stream.status, stream.body
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: t", *(f"{k}: {v}" for k, v in sent), framing]) + "\r\n\r\n"
    data = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 50]), body[i:i + 50]) for i in range(0, len(body), 50)) + b"0\r\n\r\n" if chunked else body
    answer = wire1.exchange(proxy.port, head.encode() + data, "POST")
    return answer.status, answer.body


@pytest.mark.parametrize("over", ["h1", "h2"])
@pytest.mark.parametrize("name", BODIES)
def test_what_is_nested_arrives_redacted(masking, name, over):
    proxy, (path, value) = masking(), BODIES[name]
    for write in WAYS.values():
        text = write(value)
        # a string that is changed is written anew, with the escapes that it needs alone: a line's end as \\u000a
        expected = json.loads(masked(text))
        for coding, encode in ENCODINGS.items():
            for chunked in (False, True):
                headers = [("content-encoding", coding)] if coding else []
                proxy.server.requests.clear()
                status, answer = post(proxy, over, path, encode(text.encode()), headers, chunked)
                assert status == 200, (coding, chunked, answer)
                [got] = proxy.server.requests
                assert json.loads(got.body) == expected
                assert got.body == masked(text).replace("\\n", "\\u000a").encode(), "and nothing else has changed"
                assert got.get("content-length") == (None if chunked else str(len(got.body)))
                assert got.get("content-encoding") is None, "decoded, and it says so"
    assert proxy.metric("ephor_policy_redactions_total", policy="a-mask", what="ssn", mode="enforce") > 0
    assert proxy.metric("ephor_policy_blind_total") == 0


def test_what_is_escaped_and_what_is_a_number_is_found(masking):
    proxy = masking()
    for sent, wanted in (
        (r'{"a":["\u0031\u0032\u0033-45-6789","\u0041b\n\/"]}', r'{"a":["[ssn]","\u0041b\n\/"]}'),
        (r'{"a":"x\u0040y.org \"\\ \ud83d\ude00"}', '{"a":"[email] \\"\\\\ \U0001f600"}'),
        ('{"n": 4111111111111111 ,"m":1.5e3}', '{"n": "[credit_card]" ,"m":1.5e3}'),
        ('{"a":"nothing \\u0041 here" , "b":[ ]}', '{"a":"nothing \\u0041 here" , "b":[ ]}'),
        ('\ufeff{"a":"123-45-6789"}', None),
    ):
        proxy.server.requests.clear()
        status, answer = post(proxy, "h1", "/x", sent.encode())
        if wanted is None:
            assert status == 403 and proxy.server.requests == [] or b"6789" not in proxy.server.requests[0].body
            continue
        assert status == 200, answer
        [got] = proxy.server.requests
        assert got.body == wanted.encode() and int(got.get("content-length")) == len(got.body)


@pytest.mark.parametrize("coding", ENCODINGS)
def test_without_a_hit_the_bytes_go_on_as_they_came(masking, coding):
    proxy = masking()
    body = ENCODINGS[coding](json.dumps(rpc("tools/call", {"name": "send", "arguments": {"x": "nothing"}})).encode())
    assert post(proxy, "h1", "/mcp", body, [("content-encoding", coding)] if coding else [])[0] == 200
    [got] = proxy.server.requests
    assert got.body == body and got.get("content-encoding", "") == coding and int(got.get("content-length")) == len(body)


@pytest.mark.parametrize("value", [
    rpc("tools/call", {"name": MAIL, "arguments": {"x": MAIL}}), rpc("tools/call", {"name": "send", "arguments": {MAIL: 1}}),
    {"a": [{"b": {SSN: "x"}}]},
], ids=["the tool", "a key", "a key further down"])
@pytest.mark.parametrize("coding", ["", "gzip"])
def test_names_and_keys_are_not_replaced_but_refused(masking, value, coding):
    proxy = masking()
    body = ENCODINGS[coding](json.dumps(value).encode())
    status, answer = post(proxy, "h1", "/mcp", body, [("content-encoding", coding)] if coding else [])
    assert b"can't see what it judges" in answer and proxy.server.requests == []


def test_arguments_that_a_header_mirrors_are_redacted_there_too(masking):
    proxy = masking()
    body = json.dumps(rpc("tools/call", {"name": "send", "arguments": {"to": MAIL}})).encode()
    status, answer = post(proxy, "h1", "/mcp", body, [("mcp-param-to", MAIL)])
    [got] = proxy.server.requests
    assert status == 200 and json.loads(got.body)["params"]["arguments"]["to"] == "[email]" == got.get("mcp-param-to")
