"""Server-sent events: each event passes when it is sent, whatever stands between, and a long silence ends nothing."""
import threading

import pytest
import wire1
from harness import config, until
from wire2 import Client


class Events:
    """A server of events that sends the next one when it is told to."""

    def __init__(self):
        self.go = threading.Semaphore(0)

    def on_h1(self, wire, request):
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(5):
            assert self.go.acquire(timeout=20)
            event = f"id: {i}\ndata: event {i}\n\n"
            wire.send(f"{len(event):x}\r\n{event}\r\n")
        wire.send("0\r\n\r\n")

    def on_h2(self, exchange):
        exchange.headers_only(200, [("content-type", "text/event-stream")])
        for i in range(5):
            assert self.go.acquire(timeout=20)
            exchange.data(f"id: {i}\ndata: event {i}\n\n".encode(), end=i == 4)


@pytest.fixture(params=["h1", "h2"])
def events(request, ephor, h1_server, h2_server):
    made = Events()
    server = h1_server(made.on_h1) if request.param == "h1" else h2_server(made.on_h2)
    made.proxy = ephor(config(server.port, cluster={"protocol": "http/1.1" if request.param == "h1" else "h2"}))
    return made


def test_each_event_arrives_before_the_next_exists_on_h1(events):
    with wire1.connect(events.proxy.port) as wire:
        head = wire.send("GET /events HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\n\r\n").head()
        assert head.get("content-type") == "text/event-stream", "the head comes before any event"
        chunks = wire.chunks()
        for i in range(5):
            events.go.release()
            assert next(chunks) == f"id: {i}\ndata: event {i}\n\n".encode()


def test_each_event_arrives_before_the_next_exists_on_h2(events):
    with Client(events.proxy.port) as client:
        stream = client.start("/events", headers=[("accept", "text/event-stream")])
        client.pump_until(lambda: stream.headers)
        for i in range(5):
            events.go.release()
            client.pump_until(lambda: f"event {i}\n\n".encode() in stream.body)
        client.finish(stream)
        assert stream.body.count(b"data:") == 5


def test_a_client_that_leaves_frees_the_stream(events):
    with wire1.connect(events.proxy.port) as wire:
        wire.send("GET /events HTTP/1.1\r\nHost: t\r\n\r\n").head()
    for _ in range(5):
        events.go.release()
    until(events.proxy.idle, "the stream to be gone")
