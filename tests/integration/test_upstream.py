"""Upstream: retries that are safe, breakers, ejection, timeouts, probes, DNS, balancing."""
import os
import socket
import struct
import threading
import time

import pytest
import wire1
from harness import config, free_port, until
from wire1 import answer


def h1(**cluster):
    return {"protocol": "http/1.1", **cluster}


def test_an_endpoint_that_refuses_connections_is_passed_over(ephor, h1_server):
    server = h1_server()
    proxy = ephor(config([free_port(), server.port], cluster=h1(balance="round_robin")))
    assert [wire1.get(proxy.port).status for _ in range(10)] == [200] * 10


def configured(upstream, route, **cluster):
    """A listener with one route for all."""
    made = config(upstream, {"routes": [{"match": {}, "cluster": "app", **route}]}, h1(**cluster))
    del made["listeners"][0]["cluster"]
    return made


def flaky(failures, status="503 No"):
    left = [failures]

    def handler(wire, request):
        if left[0] > 0:
            left[0] -= 1
            wire.send(answer("no", status))
        else:
            wire.send(answer("yes"))
    return handler


def test_a_status_is_tried_again_when_the_route_says_so(ephor, h1_server):
    server = h1_server(flaky(2))
    proxy = ephor(configured(server.port, {"retry": {"attempts": 2, "on": ["503"], "budget": "100%"}}))
    r = wire1.get(proxy.port)
    assert (r.status, r.body, len(server.requests)) == (200, b"yes", 3)
    assert proxy.metric("ephor_retries_total", result="done") == 2 or proxy.metric("ephor_retries_total") >= 2


def test_attempts_are_bounded(ephor, h1_server):
    server = h1_server(flaky(9))
    proxy = ephor(configured(server.port, {"retry": {"attempts": 2, "on": ["503"], "budget": "100%"}}))
    assert wire1.get(proxy.port).status == 503 and len(server.requests) == 3


def test_a_post_is_tried_again_with_its_body(ephor, h1_server):
    def handler(wire, request):
        wire.send(answer(request.body, "503 No" if len(server.requests) == 1 else "200 OK"))
    server = h1_server(handler)
    proxy = ephor(configured(server.port, {"retry": {"attempts": 1, "on": ["503"], "budget": "100%"}}))
    r = wire1.get(proxy.port, method="POST", body=b"again" * 100)
    if r.status == 200:
        assert r.body == b"again" * 100 and len(server.requests) == 2
    else:
        assert len(server.requests) == 1, "a POST is not idempotent: once is right too, twice without the body is not"


def test_a_post_is_not_sent_twice_when_its_connection_breaks(ephor, h1_server):
    """A connection that was kept is closed by the server as the request comes: nobody knows whether it ran."""
    def one_answer(wire):
        wire.request()
        wire.send(answer("first"))
        wire.request()
        posts.append(1)
    posts = []
    proxy = ephor(config(h1_server(one_answer, raw=True).port, cluster=h1()))
    assert wire1.get(proxy.port).status == 200
    r = wire1.get(proxy.port, method="POST", body=b"pay")
    assert r.status in (502, 503) and len(posts) == 1


def test_a_get_on_a_connection_that_broke_is_tried_on_a_new_one(ephor, h1_server):
    def one_answer(wire):
        wire.request()
        wire.send(answer("first"))
        wire.request()  # and the connection ends without an answer
    proxy = ephor(configured(h1_server(one_answer, raw=True).port, {"retry": {"attempts": 1, "on": ["reset"], "budget": "100%"}}))
    assert [wire1.get(proxy.port).status for _ in range(4)] == [200] * 4


def test_the_timeout_of_a_route_is_a_504(ephor, h1_server):
    server = h1_server(lambda wire, request: wire.rest())
    proxy = ephor(configured(server.port, {"timeout": "200ms"}))
    start = time.monotonic()
    r = wire1.get(proxy.port)
    assert r.status == 504 and 0.15 < time.monotonic() - start < 5
    until(proxy.idle, "no stream left")


def test_a_try_that_takes_too_long_is_given_to_another(ephor, h1_server):
    slow, quick = h1_server(lambda wire, request: wire.rest()), h1_server()
    proxy = ephor(configured([slow.port, quick.port], {"per_try_timeout": "200ms",
                                                       "retry": {"attempts": 2, "on": ["timeout"], "budget": "100%"}},
                             balance="round_robin"))
    assert [wire1.get(proxy.port).status for _ in range(4)] == [200] * 4


def held():
    go = threading.Event()

    def handler(wire, request):
        go.wait(20)
        wire.send(answer("late"))
    return go, handler


def test_requests_over_the_limit_of_a_cluster_are_refused_at_once(ephor, h1_server):
    go, handler = held()
    server = h1_server(handler)
    proxy = ephor(config(server.port, cluster=h1(limits={"requests": 3})))
    wires = [wire1.connect(proxy.port).send("GET / HTTP/1.1\r\nHost: t\r\n\r\n") for _ in range(3)]
    until(lambda: len(server.requests) == 3, "three requests upstream")
    assert wire1.get(proxy.port).status == 503
    proxy.counted(1, "ephor_breaker_overflow_total", limit="requests")
    go.set()
    assert [w.response().status for w in wires] == [200] * 3
    for wire in wires:
        wire.close()


def test_requests_wait_for_a_connection_within_the_limits(ephor, h1_server):
    go, handler = held()
    server = h1_server(handler)
    proxy = ephor(config(server.port, cluster=h1(limits={"connections": 1, "pending": 2})))
    def ask():
        return wire1.connect(proxy.port).send("GET / HTTP/1.1\r\nHost: t\r\n\r\n")
    wires = [ask()]
    until(lambda: len(server.wires) == 1 and proxy.metric("ephor_upstream_pending") == 0, "the one that is served")
    wires += [ask(), ask()]
    until(lambda: proxy.metric("ephor_upstream_pending") == 2, "two that wait")
    assert wire1.get(proxy.port).status == 503
    go.set()
    assert [w.response().status for w in wires] == [200] * 3 and len(server.wires) == 1
    for wire in wires:
        wire.close()


def test_an_endpoint_that_fails_is_ejected_and_comes_back(ephor, h1_server):
    bad_now = [True]
    good = h1_server(lambda wire, request: wire.send(answer("good")))
    bad = h1_server(lambda wire, request: wire.send(answer("x", "500 No" if bad_now[0] else "200 OK")))
    proxy = ephor(config([good.port, bad.port], cluster=h1(balance="round_robin", outlier={
        "consecutive_5xx": 3, "ejection": "300ms", "max_ejected": "50%"})))
    until(lambda: wire1.get(proxy.port) and proxy.metric("ephor_outlier_ejections_total") >= 1, "the ejection")
    assert [wire1.get(proxy.port).status for _ in range(5)].count(500) <= 1
    bad_now[0] = False
    seen = len(bad.requests)
    until(lambda: wire1.get(proxy.port).status == 200 and len(bad.requests) > seen, "its return")


def test_a_probe_takes_an_endpoint_out_and_back_in(ephor, h1_server):
    healthy = [True]

    def handler(wire, request):
        if request.path == "/health":
            wire.send(answer("", "200 OK" if healthy[0] else "503 No"))
        else:
            wire.send(answer("two"))
    one, two = h1_server(lambda wire, request: wire.send(answer("one"))), h1_server(handler)
    proxy = ephor(config([one.port, two.port], cluster=h1(balance="round_robin", probe={
        "path": "/health", "interval": "100ms", "timeout": "1s", "healthy": 1, "unhealthy": 2})))

    def bodies():
        return {wire1.get(proxy.port).body for _ in range(6)}
    until(lambda: bodies() == {b"one", b"two"}, "both")
    healthy[0] = False
    until(lambda: bodies() == {b"one"}, "one alone")
    proxy.counted(0, "ephor_endpoint_healthy", endpoint=f"127.0.0.1:{two.port}")
    healthy[0] = True
    until(lambda: bodies() == {b"one", b"two"}, "both again")


@pytest.mark.parametrize("balance", ["round_robin", "least_request", "p2c_ewma", "random"])
def test_each_balancer_uses_all_endpoints(ephor, h1_server, balance):
    servers = [h1_server() for _ in range(3)]
    proxy = ephor(config([s.port for s in servers], cluster=h1(balance=balance)))
    with wire1.connect(proxy.port) as wire:
        for _ in range(90):
            assert wire.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n").response().status == 200
    counts = [len(s.requests) for s in servers]
    assert sum(counts) == 90 and min(counts) >= (30 if balance == "round_robin" else 1), counts


def test_a_name_is_looked_up(ephor, h1_server):
    server = h1_server()
    proxy = ephor(config(0, cluster=h1(dns=f"localhost:{server.port}")))
    until(lambda: wire1.get(proxy.port).status == 200, "the name")


def test_a_name_that_is_not_there_is_a_503(ephor):
    proxy = ephor(config(0, cluster=h1(dns="nowhere.invalid:80")))
    assert wire1.get(proxy.port).status == 503


def test_a_unix_socket_is_an_endpoint_and_a_listener(ephor, tmp_path):
    path = str(tmp_path / "app.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(8)

    def serve():
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.recv(4096)
            sock.sendall(answer("unix", headers="Connection: close\r\n"))
            sock.close()
    threading.Thread(target=serve, daemon=True).start()
    made = config(f"unix:{path}", cluster=h1())
    front = str(tmp_path / "front.sock")
    made["listeners"].append({"name": "front", "bind": f"unix:{front}", "cluster": "app"})
    proxy = ephor(made)
    assert wire1.get(proxy.port).body == b"unix"
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(front)
        s.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        assert s.recv(4096).startswith(b"HTTP/1.1 200")
    os.unlink(path)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_proxy_protocol_v2_is_read(ephor, h1_server):
    proxy = ephor(config(h1_server().port, {"proxy_protocol": True}, h1()))
    header = (b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack(">H", 12) + socket.inet_aton("192.0.2.7") +
              socket.inet_aton("192.0.2.8") + struct.pack(">HH", 1234, 80))
    assert wire1.exchange(proxy.port, header + b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").status == 200
    with wire1.connect(proxy.port) as wire:
        assert b"200" not in wire.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n").rest()


@pytest.mark.parametrize("match, path, hit", [
    ({"prefix": "/api"}, "/api/x", True), ({"prefix": "/api"}, "/apix", False), ({"path": "/a"}, "/a?q=1", True),
    ({"path": "/a"}, "/a/b", False), ({"method": "POST"}, "/", False), ({"headers": {"x-tenant": "ac*"}}, "/", True),
    ({"host": "te*"}, "/", True), ({"host": "other"}, "/", False)])
def test_routes_match(ephor, h1_server, match, path, hit):
    server = h1_server()
    made = configured(server.port, {})
    made["listeners"][0]["routes"] = [{"match": match, "cluster": "app"}]
    proxy = ephor(made)
    assert (wire1.get(proxy.port, path, "X-Tenant: acme\r\n").status == 200) == hit
    assert bool(server.requests) == hit
