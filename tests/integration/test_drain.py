"""Draining: SIGTERM ends ephor when the last request has ended, and no request is lost to it."""
import signal
import threading

import wire1
from harness import accepts, config, until
from wire2 import Client


def gated(h1_server):
    go, entered = threading.Event(), threading.Event()

    def handler(wire, request):
        if request.path == "/long":
            entered.set()
            go.wait(20)
        wire.send(wire1.answer("done"))
    return go, entered, h1_server(handler)


def test_a_running_request_ends_before_ephor_does(ephor, h1_server):
    go, entered, server = gated(h1_server)
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}))
    with wire1.connect(proxy.port) as wire:
        wire.send("GET /long HTTP/1.1\r\nHost: t\r\n\r\n")
        assert entered.wait(10)
        proxy.process.popen.send_signal(signal.SIGTERM)
        until(lambda: proxy.admin("/ready")[0] == 503, "not ready")
        assert proxy.admin("/live")[0] == 200
        until(lambda: not accepts(proxy.port), "the end of accepting")
        go.set()
        r = wire.response()
        assert r.status == 200 and r.get("connection", "").lower() == "close" and wire.closed()
    proxy.process.popen.wait(20)
    assert proxy.process.popen.returncode == 0
    proxy.stopped = True


def test_h2_is_told_by_goaway_and_its_streams_end(ephor, h1_server):
    go, entered, server = gated(h1_server)
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}))
    with Client(proxy.port) as client:
        stream = client.start("/long")
        assert entered.wait(10)
        proxy.process.popen.send_signal(signal.SIGTERM)
        client.pump_until(lambda: client.goaways)
        assert client.goaways[0][1] == 0, "no error"
        go.set()
        client.finish(stream)
        assert stream.status == 200 and stream.body == b"done"
    proxy.process.popen.wait(20)
    assert proxy.process.popen.returncode == 0
    proxy.stopped = True


def test_while_endpoints_still_list_the_pod_it_goes_on_accepting(ephor, h1_server):
    go, entered, server = gated(h1_server)
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}, drain={"accept": "1500ms"}))
    proxy.process.popen.send_signal(signal.SIGTERM)
    until(lambda: proxy.admin("/ready")[0] == 503, "not ready")
    for _ in range(5):
        assert wire1.get(proxy.port).status == 200
    until(lambda: not accepts(proxy.port), "the end of accepting")
    proxy.process.popen.wait(20)
    assert proxy.process.popen.returncode == 0
    proxy.stopped = True


def test_drain_by_the_admin_page(ephor, h1_server):
    proxy = ephor(config(h1_server().port))
    assert proxy.admin("/drain", "POST")[0] in (200, 202)
    until(lambda: not proxy.process.alive() or proxy.admin("/ready")[0] == 503, "not ready")


def test_an_idle_proxy_ends_at_once(ephor, h1_server):
    proxy = ephor(config(h1_server().port))
    with Client(proxy.port) as client:
        client.request("/")
        proxy.process.popen.send_signal(signal.SIGTERM)
        proxy.process.popen.wait(10)
    assert proxy.process.popen.returncode == 0
    proxy.stopped = True
