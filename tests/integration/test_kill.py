"""kill -9 of each part in the middle of requests: the others see clean errors in time, and go on."""
import signal
import threading

import pki
import pytest
import wire1
import wire2
from harness import config, free_port, h2load, nghttpd, program, until
from harness import Process


@pytest.mark.parametrize("protocol", ["h1", "h2"])
def test_the_upstream_dies_in_the_middle_of_an_answer(ephor, h1_server, h2_server, protocol):
    def on_h1(wire, request):
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        wire.reset()

    def on_h2(exchange):
        exchange.headers_only(200, [("content-length", "1000")])
        exchange.data(b"half")
        exchange.peer.close()
    server = h1_server(on_h1) if protocol == "h1" else h2_server(on_h2)
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1" if protocol == "h1" else "h2"}))
    with wire1.connect(proxy.port) as wire, pytest.raises(wire1.Closed):
        wire.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n").response()
    with wire2.Client(proxy.port) as client:
        r = client.request("/")
        assert r.reset is not None or r.status in (502, 503)
        assert client.ping(), "the connection to the client is still good"
    until(proxy.idle, "no stream left")


@pytest.mark.parametrize("protocol", ["h1", "h2"])
def test_the_upstream_dies_before_its_answer(ephor, h1_server, h2_server, protocol):
    server = h1_server(lambda wire, request: wire.reset()) if protocol == "h1" else h2_server(lambda e: e.peer.close())
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1" if protocol == "h1" else "h2"}))
    r = wire1.get(proxy.port, method="POST", body=b"x")
    assert r.status in (502, 503) and r.body
    until(proxy.idle, "no stream left")


def test_a_killed_upstream_under_load_fails_cleanly_and_its_return_is_noticed(ephor, tmp_path, site, process):
    first, port = process(nghttpd(tmp_path, site))
    proxy = ephor(config(port, cluster={"protocol": "h2", "connect_timeout": "1s"}))
    results = []
    load = threading.Thread(target=lambda: results.append(h2load(proxy.port, "-n", "60000", "-c", "8", "-m", "8", path="/small",
                                                                 check=False)))
    load.start()
    until(lambda: proxy.metric("ephor_requests_total", code="2xx") > 500, "some requests")
    first.end(signal.SIGKILL)
    load.join(60)
    assert results and results[0]["done"] == results[0]["total"], "every request was answered, with success or a clean error"
    assert results[0]["2xx"] + results[0]["5xx"] + results[0]["errored"] >= results[0]["done"] - results[0]["failed"]
    until(proxy.idle, "no stream left")
    again = process(Process("nghttpd-again", [program("nghttpd"), "-a", "127.0.0.1", "-d", site, "--no-tls", port], tmp_path))
    again.wait_port(port)
    until(lambda: wire1.get(proxy.port, "/small").status == 200, "the return of the upstream")


def test_a_killed_client_leaves_nothing(ephor, tmp_path, site, process):
    _, port = process(nghttpd(tmp_path, site))
    proxy = ephor(config(port, cluster={"protocol": "h2"}))
    load = process(Process("h2load", [program("h2load"), "-n", "10000000", "-c", "20", "-m", "20",
                                      f"http://127.0.0.1:{proxy.port}/mega"], tmp_path))
    until(lambda: proxy.metric("ephor_streams_active") >= 100, "the load")
    load.end(signal.SIGKILL)
    until(proxy.idle, "no stream left")
    until(lambda: proxy.metric("ephor_connections_active") == 0, "no connection left")
    assert wire1.get(proxy.port, "/small").status == 200


def test_a_killed_ephor_is_a_clean_error_for_the_other(ephor, h1_server, tmp_path):
    pki.roots(tmp_path)
    identities = {name: pki.leaf(tmp_path, name, f"spiffe://cluster.local/ns/agents/sa/{name}") for name in ("a", "b")}

    def identity(name):
        leaf = identities[name]
        return {"files": {"certificate": leaf.certificate, "key": leaf.key, "roots": leaf.roots}, "trust_domain": "cluster.local"}
    entered = threading.Event()

    def hang(wire, request):
        if request.path == "/hang":
            entered.set()
            wire.rest()
        else:
            wire.send(wire1.answer("x"))
    inner = ephor(config(h1_server(hang).port, {"tls": "strict"}, {"protocol": "http/1.1"}, identity=identity("a")))
    outer = ephor(config(inner.port, cluster={"tls": {"mode": "mesh"}, "connect_timeout": "1s"}, identity=identity("b")))
    assert wire1.get(outer.port).status == 200
    with wire1.connect(outer.port) as wire:
        wire.send("POST /hang HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx")
        assert entered.wait(10)
        inner.kill()
        assert wire.response().status in (502, 503)
    assert wire1.get(outer.port).status in (502, 503)
    until(outer.idle, "no stream left")


def test_a_killed_ephor_can_be_started_again_on_its_ports(ephor, h1_server):
    port = free_port()
    server = h1_server()
    made = config(server.port, {"bind": f"127.0.0.1:{port}"}, {"protocol": "http/1.1"})
    first = ephor(made)
    wires = [wire1.connect(port).send("GET / HTTP/1.1\r\nHost: t\r\n\r\n") for _ in range(5)]
    for wire in wires:
        wire.response()
    first.kill()
    assert wire1.get(ephor(made).port).status == 200
    for wire in wires:
        wire.close()
