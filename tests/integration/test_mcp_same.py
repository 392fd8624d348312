"""The same calls over JSON, events and batches, HTTP/1.1 and HTTP/2, gzip and plain, whole and byte by byte: the same decisions."""
import gzip
import itertools
import json
import random

import pytest
import wire1
import wire2
from harness import config

CALLS = 2000
TOOLS = ["read", "write", "shell", "search.web", "search.files", "Shell", "shell "]
PATHS = ["/etc/passwd", "/home/a", "/etcetera", "/tmp/é☃", "/home/../etc"]
POLICY = '''
local policy = require "ephor.policy"
return policy { name = "some", match = { protocol = "mcp", method = "tools/call" },
  call = function(c)
    if c.tool == "shell" then return c:deny("no commands") end
    local path = c.arguments and c.arguments.path
    if path and path:find("^/etc/") then return c:deny("not there") end
  end }'''


def is_denied(call):
    return call["params"]["name"] == "shell" or call["params"]["arguments"].get("path", "").startswith("/etc/")


def make_calls(count):
    rng = random.Random(5)
    for number in range(count):
        arguments = {"path": rng.choice(PATHS)} if rng.random() < 0.6 else {"query": "x" * rng.randrange(300)}
        yield {"jsonrpc": "2.0", "id": rng.choice([number, f"id-{number}"]), "method": "tools/call",
               "params": {"name": rng.choice(TOOLS), "arguments": arguments}}


def serve(wire, request):
    body = gzip.decompress(request.body) if request.get("content-encoding") == "gzip" else request.body
    message = json.loads(body)
    answers = [{"jsonrpc": "2.0", "id": m["id"], "result": {"content": [{"type": "text", "text": "ran"}]}}
               for m in (message if isinstance(message, list) else [message])]
    if "json" in request.get("accept"):
        wire.send(wire1.answer(json.dumps(answers if isinstance(message, list) else answers[0]), headers="Content-Type: application/json\r\n"))
    else:
        events = "".join(f"event: message\ndata: {json.dumps(answer)}\n\n" for answer in answers)
        wire.send(wire1.answer(events, headers="Content-Type: text/event-stream\r\n"))


class Agent:
    """Posts on connections that it keeps, in the form that is asked for."""

    def __init__(self, port):
        self.port, self.wires = port, {"h1": wire1.connect(port), "h2": wire2.Client(port)}

    def close(self):
        for wire in self.wires.values():
            wire.close()

    def post(self, message, version, coding, pieces, accept):
        body = json.dumps(message, ensure_ascii=False).encode()
        headers = [("content-type", "application/json"), ("accept", accept)]
        if coding == "gzip":
            body = gzip.compress(body)
            headers.append(("content-encoding", "gzip"))
        kind, text = (self.h1 if version == "h1" else self.h2)(body, headers, pieces)
        if kind == "text/event-stream":
            told = [json.loads(line[6:]) for line in text.decode().splitlines() if line.startswith("data: {")]
            return told if isinstance(message, list) else told[0]
        return json.loads(text)

    def h1(self, body, headers, pieces):
        wire = self.wires["h1"]
        head = "POST /mcp HTTP/1.1\r\nHost: t\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers)
        if pieces == "bytes":
            wire.send(head + "Transfer-Encoding: chunked\r\n\r\n")
            for byte in body:
                wire.send(b"1\r\n%c\r\n" % byte)
            wire.send("0\r\n\r\n")
        else:
            wire.send((head + f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
        r = wire.response("POST")
        assert r.status == 200
        return r.get("content-type"), r.body

    def h2(self, body, headers, pieces):
        client = self.wires["h2"]
        stream = client.start("/mcp", "POST", headers, end=False)
        for i in range(len(body)) if pieces == "bytes" else ():
            client.send_data(stream.id, body[i:i + 1])
        client.send_data(stream.id, b"" if pieces == "bytes" else body, end=True)
        client.finish(stream)
        assert stream.status == 200
        return stream.get("content-type"), bytes(stream.body)


def refused(answer):
    return "ephor.dev/refusal" in json.dumps(answer)


@pytest.mark.limit(120)
def test_the_form_of_a_call_changes_no_decision(ephor, h1_server, policies):
    server = h1_server(serve)
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=policies(some=POLICY)))
    forms = list(itertools.product(["h1", "h2"], ["plain", "gzip"], ["whole", "bytes"],
                                   ["application/json, text/event-stream", "text/event-stream"]))
    calls, agent = list(make_calls(CALLS)), Agent(proxy.port)
    assert 300 < sum(map(is_denied, calls)) < CALLS - 300
    for number, call in enumerate(calls):
        for form in (forms[0], forms[number % len(forms)]):
            answer = agent.post(call, *form)
            assert answer["id"] == call["id"] and refused(answer) == is_denied(call), (form, call, answer)
    denied = 2 * sum(map(is_denied, calls))
    for number in range(0, CALLS, 5):
        batch = calls[number:number + 5]
        answers = agent.post(batch, *forms[number // 5 % len(forms)])
        assert [a["id"] for a in answers] == [c["id"] for c in batch]
        assert {refused(a) for a in answers} == {any(map(is_denied, batch))}, (batch, answers)
        denied += any(map(is_denied, batch))
    agent.close()
    proxy.counted(denied, "ephor_policy_decisions_total", policy="some", decision="deny")
    assert len(server.requests) + denied == 2 * CALLS + CALLS // 5, "what was refused never reached the server"
