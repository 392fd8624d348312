"""Back-pressure: who reads slowly slows who writes, and ephor's memory stays small in between."""
import os
import threading

import pytest
import wire1
import wire2
from harness import config, curl, nginx, until

MIB = 1 << 20
BLOCK = b"b" * 65536


class Flow:
    """Counts what one side could get rid of."""

    def __init__(self):
        self.sent = 0

    def stalled(self):
        """True when nothing more goes out: the other side stopped reading all the way up."""
        last = [-1]

        def still():
            same, last[0] = self.sent == last[0] and self.sent > 0, self.sent
            return same
        quiet = [0]

        def quiet_for_a_while():
            quiet[0] = quiet[0] + 1 if still() else 0
            return quiet[0] >= 20
        return quiet_for_a_while


def send_all(flow, total, write):
    while flow.sent < total:
        write(BLOCK)
        flow.sent += len(BLOCK)


@pytest.mark.measured
@pytest.mark.limit(120)
@pytest.mark.parametrize("server_kind, total", [("h1", 256 * MIB), ("h2", 24 * MIB)])
@pytest.mark.parametrize("client_kind", ["h1", "h2"])
def test_a_client_that_does_not_read_stops_the_server(ephor, h1_server, h2_server, client_kind, server_kind, total):
    if client_kind == "h2":
        total = 24 * MIB
    flow = Flow()

    def on_h1(wire, request):
        wire.send(f"HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n")
        send_all(flow, total, wire.send)

    def on_h2(exchange):
        exchange.headers_only(200)
        send_all(flow, total, exchange.data)
        exchange.data(b"", end=True)
    server = h1_server(on_h1) if server_kind == "h1" else h2_server(on_h2)
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1" if server_kind == "h1" else "h2"}))
    if client_kind == "h1":
        with wire1.connect(proxy.port) as wire:
            head = wire.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n").head()
            until(flow.stalled(), "the server to be held", 30)
            assert flow.sent < total, "the server was held back"
            left = total
            if head.get("content-length"):
                left -= len(wire.buffer)
                while left:
                    data = wire.sock.recv(min(left, MIB))
                    assert data
                    left -= len(data)
            else:
                left -= sum(len(chunk) for chunk in wire.chunks())
            assert left == 0
    else:
        with wire2.Client(proxy.port) as client:
            client.auto_window = False
            stream = client.start("/")
            client.pump_until(lambda: len(stream.body) >= 65535)
            until(flow.stalled(), "the server to be held", 30)
            assert flow.sent < total
            client.auto_window = True
            client.h2.increment_flow_control_window(MIB)
            client.h2.increment_flow_control_window(MIB, stream.id)
            client.flush()
            parts = [0]

            def drop():
                parts[0] += len(stream.body)
                stream.body = b""
                return stream.done
            client.pump_until(drop)
            assert parts[0] == total
    assert proxy.rss("VmHWM") < 16 * MIB, f"{proxy.rss('VmHWM') / MIB:.1f} MiB"
    until(proxy.idle, "no stream left")


@pytest.mark.measured
@pytest.mark.limit(120)
@pytest.mark.parametrize("server_kind", ["h1", "h2"])
@pytest.mark.parametrize("client_kind", ["h1", "h2"])
def test_a_server_that_does_not_read_stops_the_client(ephor, h1_server, h2_server, client_kind, server_kind):
    total, flow, go = 24 * MIB, Flow(), threading.Event()

    def on_h1(wire):
        head = wire.head()
        assert go.wait(60)
        if head.get("content-length"):
            left = total - len(wire.buffer)
            while left:
                left -= len(wire.sock.recv(min(left, MIB)))
        else:
            for _ in wire.chunks():
                pass
        wire.send(wire1.answer("all read"))

    def on_h2(exchange):
        assert go.wait(60)
        with exchange.peer.lock:
            exchange.peer.auto_window = True
            exchange.peer.h2.increment_flow_control_window(total, exchange.id)
            exchange.peer.h2.increment_flow_control_window(total)
            exchange.peer.flush()
        exchange.body()
        exchange.respond(200, b"all read")
    server = h1_server(on_h1, raw=True) if server_kind == "h1" else h2_server(on_h2, auto_window=False)
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1" if server_kind == "h1" else "h2"}))
    answered = {}

    def upload():
        if client_kind == "h1":
            with wire1.connect(proxy.port) as wire:
                wire.sock.settimeout(60)
                wire.send(f"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {total}\r\n\r\n")
                send_all(flow, total, wire.send)
                answered["body"] = wire.response().body
        else:
            with wire2.Client(proxy.port) as client:
                client.sock.settimeout(60)
                stream = client.start("/", "POST", end=False)
                send_all(flow, total, lambda block: client.send_data(stream.id, block))
                client.send_data(stream.id, b"", end=True)
                answered["body"] = client.finish(stream).body
    thread = threading.Thread(target=upload, daemon=True)
    thread.start()
    until(flow.stalled(), "the client to be held", 30)
    assert flow.sent < total
    go.set()
    thread.join(60)
    assert answered.get("body") == b"all read"
    assert proxy.rss("VmHWM") < 16 * MIB, f"{proxy.rss('VmHWM') / MIB:.1f} MiB"


@pytest.mark.measured
@pytest.mark.limit(90)
def test_many_slow_readers_at_once_stay_within_bounds(ephor, h1_server):
    total = 16 * MIB

    def handler(wire, request):
        wire.send(f"HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n")
        for _ in range(total // len(BLOCK)):
            wire.send(BLOCK)
    proxy = ephor(config(h1_server(handler).port, cluster={"protocol": "http/1.1"}))
    wires = [wire1.connect(proxy.port).send("GET / HTTP/1.1\r\nHost: t\r\n\r\n") for _ in range(30)]
    for wire in wires:
        wire.head()
    until(lambda: proxy.metric("ephor_streams_active") == 30, "all of them")
    for wire in wires:
        left = total - len(wire.buffer)
        while left:
            data = wire.sock.recv(min(left, MIB))
            assert data
            left -= len(data)
        wire.close()
    assert proxy.rss("VmHWM") < (8 + 30 * 0.75) * MIB
    until(proxy.idle, "no stream left")


SLOW_MIB = int(os.environ.get("EPHOR_SLOW_MIB", "6"))


@pytest.mark.measured
@pytest.mark.limit(60 + 2 * SLOW_MIB)
@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_a_client_of_1_mib_a_second_costs_no_memory(ephor, process, tmp_path, site, version):
    """EPHOR_SLOW_MIB=1024 is the gibibyte."""
    with open(site / "slow", "wb") as file:
        file.truncate(SLOW_MIB * MIB)
    _, port = process(nginx(tmp_path, site))
    proxy = ephor(config(port, cluster={"protocol": "http/1.1"}))
    taken = curl("--max-time", 60 + 2 * SLOW_MIB, version, "--limit-rate", "1M", "-o", "/dev/null", "-w", "%{size_download} %{time_total}",
                 f"http://127.0.0.1:{proxy.port}/slow", timeout=60 + 2 * SLOW_MIB).stdout.split()
    assert int(taken[0]) == SLOW_MIB * MIB
    assert SLOW_MIB < 64 or float(taken[1]) > SLOW_MIB / 2  # curl evens the rate out over some seconds
    assert proxy.rss("VmHWM") < 16 * MIB, f"{proxy.rss('VmHWM') / MIB:.1f} MiB"
