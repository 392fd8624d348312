"""HTTP/1.1 in and out: what a client of the protocol may rely on, message by message."""
import pytest
import wire1
from harness import config, curl, h2load, nginx, until
from wire1 import answer, connect, exchange, get


@pytest.fixture
def proxy(ephor, h1_server):
    """A proxy with a server that says what it got."""
    server = h1_server()
    p = ephor(config(server.port, cluster={"protocol": "http/1.1"}))
    p.server = server
    return p


def test_a_request_and_its_answer_pass(proxy):
    r = get(proxy.port, "/hello?x=1", "X-Mine: yes\r\n")
    assert (r.status, r.get("x-method"), r.get("x-path"), r.get("x-got-x-mine")) == (200, "GET", "/hello?x=1", "yes")
    assert proxy.server.requests[0].get("host") == "test"


@pytest.mark.parametrize("size", [0, 1, 1000, 16384, 16385, 300_000])
def test_a_body_with_a_length_passes_whole(proxy, size):
    body = bytes(i % 251 for i in range(size))
    r = get(proxy.port, "/", method="POST", body=body)
    assert r.body == body and r.get("content-length") == str(size)


def test_a_chunked_body_passes_whole_with_its_trailers(proxy):
    r = exchange(proxy.port, b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                             b"5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n")
    assert r.body == b"hello world"
    assert ("x-sum", "11") in [(k.lower(), v) for k, v in proxy.server.requests[0].trailers]


def test_one_connection_serves_many_requests(proxy):
    with connect(proxy.port) as wire:
        for i in range(50):
            assert wire.send(f"GET /{i} HTTP/1.1\r\nHost: t\r\n\r\n").response().get("x-path") == f"/{i}"
    assert len(proxy.server.wires) == 1, "and one upstream connection too"


def test_pipelined_requests_are_answered_in_order(proxy):
    with connect(proxy.port) as wire:
        wire.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: t\r\n\r\n" % i for i in range(10)))
        assert [wire.response().get("x-path") for _ in range(10)] == [f"/{i}" for i in range(10)]


def test_a_request_may_come_byte_by_byte(proxy):
    with connect(proxy.port) as wire:
        for byte in b"POST /slow HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc":
            wire.send(bytes([byte]))
        assert wire.response().body == b"abc"


def test_connection_close_is_kept_and_told(proxy):
    with connect(proxy.port) as wire:
        r = wire.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").response()
        assert r.status == 200 and r.get("connection", "").lower() == "close" and wire.closed()


def test_http_1_0_is_answered_and_closed(proxy):
    with connect(proxy.port) as wire:
        r = wire.send("GET /old HTTP/1.0\r\nHost: t\r\n\r\n").response()
        assert r.status == 200 and r.get("x-path") == "/old" and wire.closed()


def test_http_1_0_keeps_alive_when_asked(proxy):
    with connect(proxy.port) as wire:
        for _ in range(2):
            r = wire.send("GET / HTTP/1.0\r\nHost: t\r\nConnection: keep-alive\r\n\r\n").response()
            assert r.status == 200 and r.get("connection", "").lower() == "keep-alive"


def test_hop_by_hop_headers_end_here(proxy):
    get(proxy.port, "/", "Connection: x-secret, keep-alive\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\n"
                         "TE: gzip\r\n")
    seen = {name.lower() for name, _ in proxy.server.requests[0].headers}
    assert not seen & {"x-secret", "keep-alive", "proxy-connection"}


def test_head_has_the_length_and_no_body(ephor, h1_server):
    server = h1_server(lambda wire, request: wire.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"))
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}))
    with connect(proxy.port) as wire:
        for _ in range(2):
            r = wire.send("HEAD / HTTP/1.1\r\nHost: t\r\n\r\n").response("HEAD")
            assert (r.status, r.get("content-length")) == (200, "5")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_without_a_body_leave_the_connection_good(ephor, h1_server, status):
    server = h1_server(lambda wire, request: wire.send(f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n"))
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}))
    with connect(proxy.port) as wire:
        for _ in range(3):
            r = wire.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n").response()
            assert r.status == int(status[:3]) and r.get("transfer-encoding") is None


def test_an_answer_that_ends_with_its_connection_is_whole(ephor, h1_server):
    def until_close(wire, request):
        wire.send("HTTP/1.1 200 OK\r\n\r\nall of it")
        return "close"
    proxy = ephor(config(h1_server(until_close).port, cluster={"protocol": "http/1.1"}))
    assert get(proxy.port).body == b"all of it"


def test_a_chunked_answer_passes_as_it_comes(ephor, h1_server):
    import threading
    go = threading.Event()

    def slowly(wire, request):
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        assert go.wait(10)
        wire.send("3\r\ntwo\r\n0\r\nX-End: yes\r\n\r\n")
    proxy = ephor(config(h1_server(slowly).port, cluster={"protocol": "http/1.1"}))
    with connect(proxy.port) as wire:
        wire.send("GET / HTTP/1.1\r\nHost: t\r\nTE: trailers\r\n\r\n").head()
        chunks = wire.chunks()
        assert next(chunks) == b"one", "before the second part exists"
        go.set()
        assert b"".join(chunks) == b"two" and ("X-End".lower(), "yes") in [(k.lower(), v) for k, v in wire.last_trailers]


def test_an_interim_answer_is_passed_on(ephor, h1_server):
    server = h1_server(lambda wire, request: wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer("x").decode()))
    r = get(ephor(config(server.port, cluster={"protocol": "http/1.1"})).port)
    assert r.status == 200 and [i.status for i in r.interim] == [103] and r.interim[0].get("link") == "</a>"


def test_expect_100_continue_is_answered_before_the_body(ephor, h1_server):
    def handler(wire):
        while True:
            request = wire.head()
            if "100-continue" in (request.get("expect") or ""):
                wire.send("HTTP/1.1 100 Continue\r\n\r\n")
            wire.body_of(request)
            wire.send(answer(request.body))
    proxy = ephor(config(h1_server(handler, raw=True).port, cluster={"protocol": "http/1.1"}))
    with connect(proxy.port) as wire:
        wire.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert wire.head().status == 100
        assert wire.send("body").response().body == b"body"


def test_an_early_answer_reaches_a_client_that_is_still_sending(ephor, h1_server):
    def early(wire):
        wire.head()
        wire.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        wire.rest()
    proxy = ephor(config(h1_server(early, raw=True).port, cluster={"protocol": "http/1.1"}))
    with connect(proxy.port) as wire:
        wire.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Type: image/png\r\nContent-Length: 1000000\r\n\r\n"
                  + "x" * 1000)
        assert wire.response().status == 413


def test_a_client_that_half_closes_still_gets_its_answer(proxy):
    import socket
    with connect(proxy.port) as wire:
        wire.send("GET /half HTTP/1.1\r\nHost: t\r\n\r\n")
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.response().get("x-path") == "/half"


def test_an_upstream_that_is_not_there_is_a_503_that_says_so(ephor):
    import harness
    proxy = ephor(config(harness.free_port(), cluster={"protocol": "http/1.1"}))
    r = get(proxy.port)
    assert r.status == 503 and r.get("content-type")
    proxy.counted(1, "ephor_requests_total", code="5xx")


@pytest.mark.parametrize("reply", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"",
                                   b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
                                   b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"],
                         ids=["no-http", "bad-length", "nothing", "two-lengths", "length-and-chunked"])
def test_a_broken_upstream_becomes_a_502(ephor, h1_server, reply):
    def broken(wire):
        wire.head()
        wire.send(reply)
    proxy = ephor(config(h1_server(broken, raw=True).port, cluster={"protocol": "http/1.1"}))
    assert get(proxy.port, method="POST", body=b"x").status in (502, 503)


def test_an_answer_cut_in_the_middle_is_never_shown_as_whole(ephor, h1_server):
    def cut(wire):
        wire.head()
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    proxy = ephor(config(h1_server(cut, raw=True).port, cluster={"protocol": "http/1.1"}))
    with connect(proxy.port) as wire, pytest.raises(wire1.Closed):
        wire.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n").response()


def test_headers_beyond_the_limit_are_refused(proxy):
    assert get(proxy.port, "/" + "a" * 20_000).status in (400, 414, 431)
    assert get(proxy.port, "/", "X-Big: " + "a" * 70_000 + "\r\n").status in (400, 431)
    assert get(proxy.port, "/", "".join(f"X-{i}: 1\r\n" for i in range(150))).status in (400, 431)
    assert not proxy.server.requests


def test_curl_and_h2load_and_nginx_agree(ephor, process, tmp_path, site):
    _, port = process(nginx(tmp_path, site))
    proxy = ephor(config(port, cluster={"protocol": "http/1.1"}))
    assert curl(f"http://127.0.0.1:{proxy.port}/small").stdout == "0123456789"
    assert len(curl("--output", "-", f"http://127.0.0.1:{proxy.port}/mega", f"http://127.0.0.1:{proxy.port}/kilo").stdout) > 1024
    h2load(proxy.port, "--h1", "-n", "3000", "-c", "10", path="/small")
    until(proxy.idle, "no stream left")
