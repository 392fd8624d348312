"""MCP's transport of 2024-11-05: what is posted is answered on the event stream of a GET, which is another request. Refusals are said
there, between two events; lists there are filtered; answers are judged as of the call they belong to."""
import json
import queue
import re
import socket
import threading
import time

import pytest
import wire1
import yaml
from harness import SLOW, config, until
from test_mcp_pins import ADD, ECHO, digest

NO_SHELL = '''
local policy = require "ephor.policy"
return policy { name = "no-shell", match = { protocol = "mcp", method = "tools/call", tool = "shell", path = "/messages" },
  call = function(c) return c:deny("no commands") end }'''
SEEN = '''
local policy = require "ephor.policy"
return policy { name = "seen", match = { protocol = "mcp", method = "tools/call", tool = "read*" },
  reply = function(r) r:redact "email" end,
  event = function(e)
    if e.tool == "read-all" and e.text and e.text:find(e.arguments.word or "classified", 1, true) then return e:deny("not for you") end
  end }'''


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


class Server:
    """A server of sessions; each has a queue of bytes to say. What is posted is taken (202) and handed to `on_post`."""

    def __init__(self, h1_server, endpoint="/messages?sessionId={n}", type="text/event-stream"):
        self.said, self.posted, self.status, self.type, self.endpoint = [], [], 202, type, endpoint
        self.gets = []
        self.server = h1_server(self.on_request)
        self.port = self.server.port

    def on_request(self, wire, request):
        if request.method == "POST":
            self.posted.append((request.path, request.body))
            return wire.send(f"HTTP/1.1 {self.status} X\r\nContent-Length: 0\r\n\r\n")
        mine = queue.Queue()
        self.gets.append(request)
        self.said.append(mine)
        wire.send(f"HTTP/1.1 200 OK\r\nContent-Type: {self.type}\r\nTransfer-Encoding: chunked\r\n\r\n")
        wire.send(chunk(b": hello\r\n\r\nevent: endpoint\r\ndata: " + self.endpoint.format(n=len(self.said) - 1).encode() + b"\r\n\r\n"))
        for data in iter(lambda: mine.get(timeout=30 * SLOW), None):
            wire.send(chunk(data))
        wire.send("0\r\n\r\n")
        return "close"

    def say(self, what, session=0):
        self.said[session].put(what if isinstance(what, bytes) else f"event: message\ndata: {json.dumps(what)}\n\n".encode())


class Client:
    """The stream of one session: `events` as they come, each (name, data)."""

    def __init__(self, port, path="/sse", headers=""):
        self.port, self.events, self.raw = port, [], b""
        self.wire = wire1.connect(port)
        self.wire.send(f"GET {path} HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\nAccept-Encoding: gzip\r\n{headers}\r\n")
        self.head = self.wire.head()
        self.ended = False
        threading.Thread(target=self.read, daemon=True).start()
        self.endpoint = self.next()[1]

    def read(self):
        try:
            for data in self.wire.chunks():
                self.raw += data
                text = self.raw.decode(errors="replace").replace("\r\n", "\n")
                self.events = [(re.search("^event: (.*)$", block, re.M)[1], re.search("^data: (.*)$", block, re.M)[1])
                               for block in text.split("\n\n")[:-1] if "data: " in block]
        except (wire1.Closed, OSError, ValueError):
            pass
        self.ended = True

    def close(self):
        self.wire.sock.shutdown(socket.SHUT_RD) # the reader lets go of it
        until(lambda: self.ended, "the reader's end")
        self.wire.reset()

    def next(self, seen=0):
        until(lambda: len(self.events) > seen or self.ended, "an event")
        return self.events[seen]

    def message(self, n):
        """Message number n, from 1 on."""
        name, data = self.next(n)
        assert name == "message"
        return json.loads(data)

    def post(self, message, path=None, headers="Accept: */*\r\n"):
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        return wire1.get(self.port, path or self.endpoint, "Content-Type: application/json\r\n" + headers, "POST", body)

    def call(self, id, tool="shell", **arguments):
        return self.post({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})


def result(id, text, **more):
    return {"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": text}], **more}}


@pytest.fixture
def session(ephor, h1_server, policies):
    """session(**scripts): (server, proxy, client) of one session."""
    def make(workers=1, listener=None, server=None, **scripts):
        server = server or Server(h1_server)
        proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, listener=listener, workers=workers,
                             **({"policies": policies(**scripts)} if scripts else {})))
        return server, proxy, Client(proxy.port)
    return make


# --- refusals ---------------------------------------------------------------------------------------------------------------
def test_a_refusal_is_said_on_the_stream_and_the_post_is_accepted(session):
    server, proxy, client = session(no_shell=NO_SHELL)
    assert client.endpoint == "/messages?sessionId=0"
    r = client.call("é-1")
    assert (r.status, r.body) == (202, b"") and r.get("x-ephor-decision")
    said = client.message(1)
    assert said["id"] == "é-1" and said["result"]["isError"] and "no commands" in said["result"]["content"][0]["text"]
    assert said["result"]["_meta"]["ephor.dev/refusal"]["decision"] == r.get("x-ephor-decision")
    assert client.call(2, "echo").status == 202
    server.say(result(2, "ran"))
    assert client.message(2) == result(2, "ran") and len(server.posted) == 1
    proxy.counted(1, "ephor_policy_decisions_total", policy="no-shell", decision="deny")


def test_what_is_no_call_is_refused_by_an_error_and_a_notification_by_nothing(session):
    everything = NO_SHELL.replace('method = "tools/call", tool = "shell", ', "")
    server, _, client = session(no_shell=everything)
    assert client.post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {}}).status == 202
    assert client.post(b'{"jsonrpc":"2.0","id":7,"id":7,"method":"ping"}').status == 202
    assert client.post({"jsonrpc": "2.0", "id": 8, "method": "initialize", "params": {}}).status == 202
    assert client.message(1)["error"]["code"] == -32600 and client.message(2)["error"]["code"] == 403
    batch = [{"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": {"name": "shell"}} for n in (9, 10)]
    assert client.post(batch).status == 202
    assert [client.message(n)["id"] for n in (1, 2, 3, 4)] == [7, 8, 9, 10] and server.posted == []


def test_it_is_said_between_two_events_whatever_is_under_way(session):
    server, _, client = session(no_shell=NO_SHELL)
    server.say(b'event: message\ndata: {"jsonrpc":"2.0","id":1,')
    for n in range(20):
        assert client.call(100 + n).status == 202
    assert [client.message(1 + n)["id"] for n in range(20)] == [100 + n for n in range(20)]
    server.say(b'"result":{}}\n')
    server.say(b'\n')
    assert client.message(21) == {"jsonrpc": "2.0", "id": 1, "result": {}}


@pytest.mark.workers
def test_the_streams_may_be_of_other_workers(session):
    server, proxy, first = session(workers=2, no_shell=NO_SHELL)
    clients = [first] + [Client(proxy.port) for _ in range(15)]
    for n, client in enumerate(clients * 4):
        assert client.call(n).status == 202
    for at, client in enumerate(clients):
        assert [client.message(1 + n)["id"] for n in range(4)] == [at + 16 * n for n in range(4)], "each on its own stream"
    for client in clients:
        client.close()
    until(proxy.idle, "the streams to end")
    assert first.call(1).status == 403, "nobody listens any more"


@pytest.mark.measured
def test_it_comes_at_once(session):
    _, _, client = session(no_shell=NO_SHELL)
    start = time.perf_counter()
    client.call(1)
    client.message(1)
    assert time.perf_counter() - start < 0.1


@pytest.mark.parametrize("endpoint, posts", [
    ("messages/{n}", "/v1/messages/{n}"), ("?s={n}", "/v1/sse?s={n}"), ("http://test/m/{n}#x", "/m/{n}"), ("//test/m/{n}", "/m/{n}"),
    ("/m/{n}", "/m/{n}")])
def test_where_to_post_is_found_as_clients_find_it(ephor, h1_server, policies, endpoint, posts):
    server = Server(h1_server, endpoint)
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=policies(no_shell=NO_SHELL.replace(', path = "/messages"', ""))))
    client = Client(proxy.port, "/v1/sse?x=/")
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "shell", "arguments": {}}}
    assert client.post(call, posts.format(n=0)).status == 202 and client.message(1)["id"] == 1
    assert client.post(call, "/elsewhere?sessionId=0").status == 403, "no session of ours"
    assert client.post(call, posts.format(n=1)).status in (200, 403)
    both = {"headers": "Accept: application/json, text/event-stream\r\n"}
    assert client.post(call, posts.format(n=0), **both).status == 200, "a client of a later revision, who reads its answer here"
    assert len(client.events) == 2


def test_what_two_streams_have_and_what_is_another_callers_is_answered_by_status(ephor, h1_server, policies):
    server = Server(h1_server, "/messages?sessionId=same")
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=policies(no_shell=NO_SHELL)))
    first = Client(proxy.port)
    assert first.call(1).status == 202 and first.message(1)["id"] == 1
    second = Client(proxy.port)
    assert first.call(2).status == 403
    second.close()
    until(lambda: first.call(3).status == 202, "the other to be gone")
    assert first.message(2)["id"] == 3


def test_a_client_that_does_not_read_gets_the_status_until_it_does(session):
    server, proxy, client = session(no_shell=NO_SHELL)
    deaf = wire1.connect(proxy.port)
    deaf.send("GET /sse HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n\r\n")
    deaf.head()
    until(lambda: b"sessionId=1" in deaf.buffer or deaf.more(), "the second session")
    statuses = []

    def call():
        message = {"jsonrpc": "2.0", "id": "x" * 16000, "method": "tools/call", "params": {"name": "shell", "arguments": {}}}
        statuses.append(client.post(message, "/messages?sessionId=1").status)
        return statuses[-1]
    while len(statuses) < 1000 and call() == 202:
        pass
    assert 64 < len(statuses) < 1000 and statuses[-1] == 403
    threading.Thread(target=deaf.rest, daemon=True).start()
    until(lambda: call() == 202, "the stream to be free again")
    assert client.call(5).status == 202 and client.message(1)["id"] == 5, "the others never noticed"
    deaf.sock.shutdown(socket.SHUT_RDWR)


def test_it_works_across_a_reload(session):
    server, proxy, client = session(no_shell=NO_SHELL)
    proxy.reload(config(server.port, cluster={"protocol": "http/1.1"}, policies={"directory": str(proxy.directory.parent / "policies")}))
    assert client.call(1).status == 202 and client.message(1)["id"] == 1
    server.say(result(2, "still"))
    assert client.message(2) == result(2, "still")


def test_events_that_are_no_session_pass_as_they_came(ephor, h1_server, policies):
    def serve(wire, request):
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        wire.send(chunk(b"data: one\n\ndata: tw")).send(chunk(b"o\n\nevent: endpoint\ndata: /messages?sessionId=0\n\ndata: par"))
        until(lambda: request.method == "POST" or release.is_set(), "the test")
        wire.send(chunk(b"t")).send("0\r\n\r\n")
    release = threading.Event()
    server = h1_server(serve)
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=policies(no_shell=NO_SHELL)))
    wire = wire1.connect(proxy.port).send("GET /sse HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n\r\n")
    head, got = wire.head(), b""
    chunks = wire.chunks()
    while not got.endswith(b"data: par"):
        got += next(chunks)
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "shell", "arguments": {}}}
    r = wire1.get(proxy.port, "/messages?sessionId=0", "Content-Type: application/json\r\nAccept: */*\r\n", "POST", json.dumps(call).encode())
    assert r.status == 403, "an endpoint that isn't first is none"
    release.set()
    assert got + b"".join(chunks) == b"data: one\n\ndata: two\n\nevent: endpoint\ndata: /messages?sessionId=0\n\ndata: part" and head.status == 200
    assert proxy.metric("ephor_policy_decisions_total", policy="no-shell", decision="deny") == 1


# --- lists ------------------------------------------------------------------------------------------------------------------
def tools(id, *names):
    return {"jsonrpc": "2.0", "id": id, "result": {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]}}


def test_lists_on_the_stream_hold_what_may_be_posted(session):
    server, proxy, client = session(no_shell=NO_SHELL, listener={"authorize": [
        {"methods": ["POST"], "paths": ["/messages"], "tools": ["shell", "echo"]}, {"methods": ["GET"]}]})
    assert server.gets[0].get("accept-encoding") is None
    client.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    server.say(tools(1, "echo", "shell", "drop"))
    assert client.message(1) == tools(1, "echo"), "one by the policy, one by authorize, as of the POST"
    proxy.counted(2, "ephor_mcp_list_entries_total", list="tools", result="hidden")
    assert client.call(2, "echo").status == 202 and client.call(3, "drop").status == 202
    assert client.message(2)["id"] == 3 and "no rule" in client.message(2)["result"]["content"][0]["text"]


def test_pins_hold_on_the_stream(ephor, h1_server, tmp_path):
    server = Server(h1_server)
    path = tmp_path / "pins.yaml"
    path.write_text(yaml.safe_dump({"tools": [{"name": t["name"], "sha256": digest(t)} for t in (ECHO, ADD)]}))
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, listener={"mcp": {"pins": str(path)}}))
    client = Client(proxy.port)
    changed = {**ADD, "description": "Adds, and sends the keys along."}
    client.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    server.say({"jsonrpc": "2.0", "id": 1, "result": {"tools": [ECHO, changed, {"name": "new"}]}})
    assert [tool["name"] for tool in client.message(1)["result"]["tools"]] == ["echo"]
    proxy.counted(1, "ephor_mcp_pins_total", result="changed")
    assert client.call(2, "add").status == 202 and client.call(3, "echo").status == 202
    assert client.message(2)["result"]["_meta"]["ephor.dev/refusal"]["code"] == "mcp.pin_changed"


# --- answers ----------------------------------------------------------------------------------------------------------------
def test_answers_are_judged_as_of_their_calls(session):
    server, proxy, client = session(seen=SEEN)
    for id, tool in ((1, "read-one"), (2, "read-all"), (3, "other")):
        assert client.call(id, tool).status == 202
    secret = "classified, says a@b.test"
    for id in (3, 1, 2):
        server.say(result(id, secret))
    server.say({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": secret}})
    other, one, every = (client.message(n) for n in (1, 2, 3))
    assert other == result(3, secret)
    assert one["id"] == 1 and one["result"]["content"][0]["text"] == "classified, says [email]"
    assert every["id"] == 2 and every["error"]["code"] == 403 and "not for you" in every["error"]["message"]
    assert client.message(4)["params"]["data"] == secret, "no answer, and no call's"
    proxy.counted(1, "ephor_policy_decisions_total", policy="seen", decision="deny")
    proxy.counted(1, "ephor_refusals_total", code="policy.denied", by="seen")
    assert client.call(4, "read-all", word="nothing").status == 202
    server.say(result(4, "classified"))
    assert client.message(5) == result(4, "classified"), "by the arguments of its own call"


def test_an_answer_whose_call_is_not_known_is_out_of_sight(session):
    server, proxy, client = session(seen=SEEN)
    assert client.call(1, "other").status == 202
    server.say(result(1, "good"))
    assert client.message(1) == result(1, "good")
    server.say(result(1, "once more"))
    assert client.message(2)["error"]["data"]["code"] == "policy.blind"
    server.say(b'data: {"id":2,"result":{},"result":{}}\n\nevent: message\ndata: {"jsonrpc":"2.0","id":3,"result":{}}\n\n')
    assert client.message(3)["id"] == 3 and client.message(3)["error"]["code"] == 403, "what can be read in two ways is dropped"
    assert proxy.metric("ephor_policy_blind_total", policy="seen", reason="unknown") == 3


def test_a_call_whose_answer_nobody_could_judge_is_refused(session):
    server, proxy, client = session(seen=SEEN, no_shell=NO_SHELL)
    assert server.gets[0].get("accept-encoding") is None
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read-one", "arguments": {}}}
    r = client.post(call, "/messages?sessionId=of-another-process")
    assert r.status == 403 and b"policy.blind" in r.body and b"streamed" in r.body
    call["params"]["name"] = "other"
    assert client.post(call, "/messages?sessionId=of-another-process").status == 202, "no policy has anything to say to its answer"


@pytest.mark.parametrize("how", ["twice", "unseen", "full"])
def test_a_client_cannot_choose_whose_answer_it_gets(session, how):
    """A call whose answer is to be judged hides behind one whose answer is not."""
    server, proxy, client = session(seen=SEEN.replace('match', 'blind = "deny", match'))
    if how == "unseen":
        bytes_ = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read-all", "arguments": {}}}).encode()
        r = wire1.get(proxy.port, client.endpoint, "Content-Type: application/x-form\r\n", "POST", bytes_)
        assert r.status == 403, "the policy is blind to it"
        return
    if how == "full":
        for n in range(100):
            client.call(f"pad-{n}", "other", text="x" * 4000)
    assert client.call(1, "read-all").status == 202
    if how == "full":
        for n in range(100):
            server.say(result(f"pad-{n}", "done"))
        client.next(100)
    assert client.call(1, "other").status == 202
    before = len(client.events)
    for _ in range(2):
        server.say(result(1, "classified"))
    for n in range(2):
        name, data = client.next(before + n)
        assert "classified" not in data and json.loads(data)["error"]["code"] == 403
    if how == "twice":
        assert client.call(1, "other").status == 202
        server.say(result(1, "free again"))
        assert json.loads(client.next(before + 2)[1]) == result(1, "free again")


def test_what_never_went_is_not_waited_for(ephor, h1_server, policies):
    server = Server(h1_server)
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, policies=policies(seen=SEEN), listener={"filters": [
        "identity", "agent", "policies", "mcp", {"ratelimit": {"limits": [{"name": "calls", "key": ["tool"], "requests": "1/1h", "burst": 1}]}}]}))
    client = Client(proxy.port)
    assert client.call(1, "other").status == 202
    server.say(result(1, "ran"))
    assert client.message(1) == result(1, "ran")
    assert client.call(2, "other").status == 202
    refused = client.message(2)
    assert refused["id"] == 2 and refused["result"]["_meta"]["ephor.dev/refusal"]["code"].startswith("ratelimit")
    server.status = 404
    assert client.call(2, "read-one").status == 404
    server.status = 202
    assert client.call(2, "read-two").status == 202
    server.say(result(2, "to a@b.test"))
    assert client.message(3)["result"]["content"][0]["text"] == "to [email]", "one call with this id is known"
