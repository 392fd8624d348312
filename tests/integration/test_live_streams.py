"""Live streams: only whole events leave, a stream that breaks ends by its protocol's error, and no time limit, reload or
drain ends one before its time."""
import json
import queue
import signal
import threading

import pytest
import wire1
from harness import config, until
from wire2 import Client

pytestmark = pytest.mark.workers

JSON = [("content-type", "application/json")]
CALLS = {
    "openai": ("/v1/chat/completions", {"model": "gpt", "stream": True, "messages": []}),
    "responses": ("/v1/responses", {"model": "gpt", "stream": True, "input": "x"}),
    "anthropic": ("/v1/messages", {"model": "claude", "stream": True, "max_tokens": 5, "messages": []}),
    "mcp": ("/mcp", {"jsonrpc": "2.0", "id": "q-1", "method": "tools/call", "params": {"name": "a", "arguments": {}}}),
}


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


class Origin:
    """A server of events that says what it is told to, to all who listen: bytes; None ends it well, Exception breaks it."""

    def __init__(self, h1_server, h2_server, kind):
        self.streams, self.headers = [], []
        self.server = h1_server(self.on_h1) if kind == "h1" else h2_server(self.on_h2)
        self.port = self.server.port

    def say(self, *what):
        for stream in self.streams:
            for one in what:
                stream.put(one)

    def said(self):
        self.streams.append(queue.Queue())
        return iter(lambda mine=self.streams[-1]: mine.get(timeout=30), None)

    def on_h1(self, wire, request):
        said = self.said()
        self.headers.append(request)
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for data in said:
            if data is Exception:
                wire.close()
                return
            wire.send(chunk(data))
        wire.send("0\r\n\r\n")

    def on_h2(self, exchange):
        said = self.said()
        self.headers.append(exchange)
        exchange.headers_only(200, [("content-type", "text/event-stream")])
        for data in said:
            if data is Exception:
                exchange.reset(2)
                return
            exchange.data(data)
        exchange.data(b"", end=True)


class Caller:
    """Reads the answer of one call as it comes, over h1 or h2."""

    def __init__(self, kind, port, path, body=None, headers=()):
        self.kind, self.got, self.over = kind, b"", False
        text = json.dumps(body).encode() if body is not None else b""
        headers = list(headers) + (JSON if body is not None else [])
        if kind == "h1":
            self.wire = wire1.connect(port)
            lines = "".join(f"{k}: {v}\r\n" for k, v in headers)
            self.wire.send(f"{'POST' if text else 'GET'} {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(text)}\r\n{lines}\r\n".encode() + text)
            self.head = self.wire.head()
            self.chunks = self.wire.chunks()
        else:
            self.client = Client(port)
            self.stream = self.client.start(path, "POST" if text else "GET", headers, end=not text)
            if text:
                self.client.send_data(self.stream.id, text, end=True)
            self.client.pump_until(lambda: self.stream.headers)

    def step(self):
        if self.kind == "h1":
            try:
                self.got += next(self.chunks)
            except StopIteration:
                self.over = True
        else:
            self.client.pump()
            self.got, self.over = bytes(self.stream.body), bool(self.stream.done)

    def until(self, text):
        while text not in self.got:
            assert not self.over, self.got
            self.step()

    def to_end(self):
        while not self.over:
            self.step()
        return self.got

    def close(self):
        (self.wire if self.kind == "h1" else self.client).close()


@pytest.fixture(params=["h1", "h2"])
def kind(request):
    return request.param


@pytest.fixture
def caller(kind):
    """caller(proxy): proxy.call(protocol) is then one call of it, which ends with the test."""
    callers = []

    def give(proxy):
        def call(protocol=None, path="/events", headers=()):
            path, body = CALLS[protocol] if protocol else (path, None)
            if protocol == "mcp":
                headers = [("accept", "application/json, text/event-stream"), *headers]
            callers.append(Caller(kind, proxy.port, path, body, headers))
            return callers[-1]
        proxy.call = call
        return proxy
    yield give
    for one in callers:
        one.close()


@pytest.fixture
def play(ephor, h1_server, h2_server, kind, caller):
    """play(listener, **top): a proxy in front of an origin, both of one kind."""
    def start(listener=None, cluster=None, **top):
        origin = Origin(h1_server, h2_server, kind)
        cluster = {"protocol": "http/1.1" if kind == "h1" else "h2", **(cluster or {})}
        configuration = config(origin.port, listener, cluster=cluster, **top)
        configuration["listeners"][0] = {k: v for k, v in configuration["listeners"][0].items() if v is not None}
        proxy = caller(ephor(configuration))
        proxy.origin, proxy.configuration = origin, configuration
        return proxy
    return start


def events_of(text):
    """[(name, data)] of whole events; what is left must be nothing."""
    blocks = text.split(b"\n\n")
    assert not blocks[-1], blocks[-1]
    out = []
    for block in filter(None, (b.strip(b"\n") for b in blocks)):
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
        out.append((fields.get(b"event", b"").decode(), fields[b"data"].decode()))
    return out


def error_of(protocol, event):
    name, data = event
    data = json.loads(data)
    if protocol == "mcp":
        assert name == "message" and data["id"] == "q-1"
        return data["error"]["data"]["code"]
    assert name == "error"
    if protocol == "anthropic":
        assert data["type"] == "error"
        return data["error"]["type"]
    return data["error"]["code"]


@pytest.mark.parametrize("protocol", CALLS)
def test_an_upstream_that_breaks_in_the_middle_of_an_event(play, protocol):
    proxy = play()
    caller = proxy.call(protocol)
    proxy.origin.say(b'data: {"a":1}\n\ndata: {"b"', b':2}\n\ndata: {"ha', b"lf")
    caller.until(b'data: {"b":2}\n\n')
    proxy.origin.say(Exception)
    events = events_of(caller.to_end())
    assert events[:2] == [("", '{"a":1}'), ("", '{"b":2}')] and len(events) == 3, "half an event never leaves"
    assert error_of(protocol, events[2]) == ("api_error" if protocol == "anthropic" else "upstream.reset")
    proxy.counted(1, "ephor_refusals_total", code="upstream.reset", by="router")


@pytest.mark.parametrize("protocol", ["openai", "mcp"])
def test_a_silent_upstream_is_told_as_the_route_says(play, protocol):
    proxy = play({"routes": [{"cluster": "app", "event_timeout": "300ms"}], "cluster": None})
    caller = proxy.call(protocol)
    proxy.origin.say(b'data: {"a":1}\n\ndata: {"half')
    events = events_of(caller.to_end())
    assert len(events) == 2 and error_of(protocol, events[1]) == "upstream.timeout"
    proxy.origin.say(None)


def test_neither_request_nor_idle_time_ends_events(play):
    proxy = play({"routes": [{"cluster": "app", "timeout": "400ms", "idle_timeout": "200ms"}], "cluster": None})
    plain, model = proxy.call(), proxy.call("openai")
    started = threading.Event()
    timer = threading.Timer(1.2, started.set)  # three times all limits: the silence itself is what is tested
    timer.start()
    assert started.wait(10)
    proxy.origin.say(b"data: late\n\n", None)
    for caller in (plain, model):
        caller.until(b"data: late\n\n")
        assert caller.to_end() == b"data: late\n\n"


def test_a_client_that_closes_amid_events_is_gone_at_once(play):
    proxy = play()
    caller = proxy.call("mcp")
    proxy.origin.say(b"data: 1\n\n")
    caller.until(b"data: 1\n\n")
    caller.close()
    until(proxy.idle, "the silent stream to be given up", 5)
    proxy.origin.say(None)


def test_a_reload_leaves_streams(play):
    proxy = play()
    caller = proxy.call("openai")
    proxy.origin.say(b"data: 1\n\n")
    caller.until(b"data: 1\n\n")
    changed = json.loads(json.dumps(proxy.configuration))
    changed["listeners"][0]["stream_idle_timeout"] = "77s"
    proxy.reload(changed)
    proxy.origin.say(b"data: 2\n\n", None)
    assert caller.to_end() == b"data: 1\n\ndata: 2\n\n"


def test_a_drain_waits_for_streams_and_then_ends_them_with_a_word(play):
    proxy = play(drain={"accept": "0s", "timeout": "700ms"})
    model, plain = proxy.call("openai"), proxy.call()
    proxy.origin.say(b"data: 1\n\n")
    model.until(b"data: 1\n\n")
    plain.until(b"data: 1\n\n")
    proxy.process.popen.send_signal(signal.SIGTERM)
    until(lambda: proxy.admin("/ready")[0] == 503, "not ready")
    proxy.origin.say(b"data: 2\n\n")
    plain.until(b"data: 2\n\n")
    events = events_of(model.to_end())
    assert [e[1] for e in events[:2]] == ["1", "2"] and error_of("openai", events[2]) == "drain.over"
    assert plain.to_end() == b"data: 1\n\ndata: 2\n\n", "plain events end as if they were over: the client comes back"
    proxy.origin.say(None)
    proxy.process.popen.wait(20)
    assert proxy.process.popen.returncode == 0
    proxy.stopped = True


def test_who_comes_back_says_where_it_was(play):
    proxy = play()
    caller = proxy.call(headers=[("accept", "text/event-stream"), ("last-event-id", "41")])
    proxy.origin.say(b"id: 42\nretry: 5\ndata: x\n\n", None)
    assert caller.to_end() == b"id: 42\nretry: 5\ndata: x\n\n"
    assert proxy.origin.headers[0].get("last-event-id") == "41"


@pytest.mark.limit(120)
@pytest.mark.parametrize("protocol", [None, "openai", "mcp"], ids=["http", "openai", "mcp"])
@pytest.mark.parametrize("piece", [1, 7, 100000])
def test_a_thousand_events_pass_as_they_came(play, protocol, piece):
    proxy = play()
    wanted = b"".join(b': c%d\r\ndata: {"i":%d,"t":"\xc3\xa9"}\r\ndata: \r\nid: %d\n\n' % (i, i, i) for i in range(1000 if piece > 1 else 60))
    caller = proxy.call(protocol)
    proxy.origin.say(*(wanted[i:i + piece] for i in range(0, len(wanted), piece)), None)
    assert caller.to_end() == wanted
    labels = {"direction": "inbound", "cluster": "app", "protocol": protocol or "http"}
    n = wanted.count(b"id: ")
    until(lambda: proxy.metric("ephor_events_total", **labels) == n, "all events to be counted")
    assert proxy.metric("ephor_event_first_seconds_count", **labels) == 1
    assert proxy.metric("ephor_event_gap_seconds_count", **labels) == n - 1
