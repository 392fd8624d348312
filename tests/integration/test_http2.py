"""HTTP/2 in and out, with prior knowledge: streams, windows, trailers, resets, GOAWAY, and what must be refused."""
import struct
import threading

import pytest
from harness import config, curl, h2load, nghttpd, program, run, until
from wire2 import Client, frame

GOAWAY, RST, PING, SETTINGS, WINDOW_UPDATE, CONTINUATION, HEADERS, DATA = 7, 3, 6, 4, 8, 9, 1, 0


@pytest.fixture
def proxy(ephor, h2_server):
    server = h2_server()
    p = ephor(config(server.port, cluster={"protocol": "h2"}))
    p.server = server
    return p


def test_a_request_and_its_answer_pass(proxy):
    with Client(proxy.port) as client:
        r = client.request("/hello?x=1", headers=[("x-mine", "yes")])
        assert (r.status, r.get("x-path"), r.get("x-got-x-mine"), r.get("x-got-authority")) == (200, "/hello?x=1", "yes", "test")


@pytest.mark.parametrize("size", [1, 16384, 65535, 65536, 1_000_000])
def test_a_body_passes_whole_both_ways(proxy, size):
    body = bytes(i % 251 for i in range(256)) * (size // 256 + 1)
    with Client(proxy.port) as client:
        assert client.request("/", "POST", body=body[:size]).body == body[:size]


def test_trailers_pass_both_ways(proxy):
    with Client(proxy.port) as client:
        r = client.request("/", "POST", body=b"x", trailers=[("x-sum", "1")])
        assert r.trailer("x-got-x-sum") == "1"
        r = client.request("/", "POST", body=None, trailers=[("x-sum", "2")])
        assert r.trailer("x-got-x-sum") == "2"


def test_many_streams_share_one_connection_upstream(proxy):
    with Client(proxy.port) as client:
        streams = [client.start(f"/{i}") for i in range(50)]
        for i, s in enumerate(streams):
            assert client.finish(s).get("x-path") == f"/{i}"
    assert len(proxy.server.peers) == 1


def test_a_slow_stream_holds_no_other(ephor, h2_server):
    go = threading.Event()

    def handler(exchange):
        if exchange.get(":path") == "/slow":
            go.wait(10)
        exchange.respond(200, b"done")
    proxy = ephor(config(h2_server(handler).port, cluster={"protocol": "h2"}))
    with Client(proxy.port) as client:
        slow = client.start("/slow")
        assert client.request("/quick").body == b"done" and not slow.done
        go.set()
        assert client.finish(slow).body == b"done"


def test_a_reset_of_the_client_reaches_the_server(ephor, h2_server):
    proxy = ephor(config(h2_server(lambda e: e.wait(lambda s: s.done)).port, cluster={"protocol": "h2"}))
    with Client(proxy.port) as client:
        stream = client.start("/", "POST", end=False)
        client.send_data(stream.id, b"some")
        until(lambda: proxy.metric("ephor_streams_active") == 1, "the stream")
        client.h2.reset_stream(stream.id, 8)
        client.flush()
        until(proxy.idle, "the stream to be gone")
        assert client.ping()


def test_a_reset_of_the_server_reaches_the_client(ephor, h2_server):
    def handler(exchange):
        exchange.headers_only(200)
        exchange.data(b"half")
        exchange.reset(2)
    proxy = ephor(config(h2_server(handler).port, cluster={"protocol": "h2"}))
    with Client(proxy.port) as client:
        r = client.request("/")
        assert r.reset is not None and not r.ended
        assert client.ping(), "the connection is still good"


def test_an_early_answer_is_passed_on(ephor, h2_server):
    proxy = ephor(config(h2_server(lambda e: e.respond(403, b"no")).port, cluster={"protocol": "h2"}))
    with Client(proxy.port) as client:
        stream = client.start("/", "POST", end=False)
        client.pump_until(lambda: stream.ended)
        assert (stream.status, stream.body) == (403, b"no")


def test_interim_answers_are_passed_on(ephor, h2_server):
    def handler(exchange):
        exchange.peer.send_headers(exchange.id, [(":status", "103"), ("link", "</a>")])
        exchange.respond(200, b"x")
    proxy = ephor(config(h2_server(handler).port, cluster={"protocol": "h2"}))
    with Client(proxy.port) as client:
        r = client.request("/")
        assert r.status == 200 and dict(r.interim[0])[":status"] == "103"


def test_streams_over_the_limit_of_the_peer_open_another_connection(ephor, h2_server):
    go = threading.Event()

    def handler(exchange):
        if exchange.get(":path") != "/first":
            go.wait(15)
        exchange.respond(200)
    server = h2_server(handler, max_streams=5)
    proxy = ephor(config(server.port, cluster={"protocol": "h2"}))
    with Client(proxy.port) as client:
        client.request("/first")  # by now ephor knows the limit
        streams = [client.start(f"/{i}") for i in range(20)]
        until(lambda: client.ping() and len(server.exchanges) >= 21, "all of them upstream")
        go.set()
        assert all(client.finish(s).status == 200 for s in streams)
    assert len(server.peers) >= 4


def test_a_limit_that_is_not_known_yet_costs_no_request(ephor, h2_server):
    go = threading.Event()

    def handler(exchange):
        go.wait(15)
        exchange.respond(200)
    server = h2_server(handler, max_streams=5)
    proxy = ephor(config(server.port, cluster={"protocol": "h2"}))
    with Client(proxy.port) as client:
        streams = [client.start(f"/{i}") for i in range(40)]
        until(lambda: client.ping() and len(server.exchanges) >= 40, "all of them upstream")
        go.set()
        assert all(client.finish(s).status == 200 for s in streams)


def test_goaway_of_the_server_costs_no_request(ephor, h2_server):
    def handler(exchange):
        exchange.respond(200, b"x")
        if exchange.get(":path") == "/last":
            exchange.goaway(exchange.id)
    server = h2_server(handler)
    proxy = ephor(config(server.port, cluster={"protocol": "h2"}))
    with Client(proxy.port) as client:
        for path in ["/1", "/last", "/3", "/4", "/last", "/6"]:
            assert client.request(path).status == 200
    assert len(server.peers) >= 2


def test_a_refused_stream_is_tried_again(ephor, h2_server):
    seen = []

    def handler(exchange):
        seen.append(exchange.get(":path"))
        exchange.reset(7) if len(seen) == 1 else exchange.respond(200, b"second")
    proxy = ephor(config(h2_server(handler).port, cluster={"protocol": "h2"}))
    with Client(proxy.port) as client:
        assert client.request("/again").body == b"second" and len(seen) == 2


@pytest.mark.parametrize("headers, why", [
    ([(":method", "GET"), (":scheme", "http"), (":authority", "t")], "no :path"),
    ([(":method", "GET"), (":scheme", "http"), (":authority", "t"), (":path", "")], "empty :path"),
    ([(":method", "GET"), (":method", "POST"), (":scheme", "http"), (":authority", "t"), (":path", "/")], "two :method"),
    ([(":method", "GET"), (":scheme", "http"), (":authority", "t"), (":path", "/"), ("x", "1"), (":path", "/b")], "late pseudo"),
    ([(":method", "GET"), (":scheme", "http"), (":authority", "t"), (":path", "/"), (":unknown", "1")], "unknown pseudo"),
    ([(":method", "GET"), (":scheme", "http"), (":authority", "t"), (":path", "/"), ("X-Upper", "1")], "upper case"),
    ([(":method", "GET"), (":scheme", "http"), (":authority", "t"), (":path", "/"), ("connection", "close")], "connection"),
    ([(":method", "GET"), (":scheme", "http"), (":authority", "t"), (":path", "/"), ("te", "gzip")], "te: gzip"),
    ([(":method", "GET"), (":scheme", "http"), (":authority", "t"), (":path", "/"), (":status", "200")], ":status in a request"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_malformed_requests_go_no_further(proxy, headers, why):
    with Client(proxy.port) as client:
        r = client.request(pseudo=headers)
        assert r.reset is not None or r.status == 400 or client.closed, why
        good = Client(proxy.port)
        assert good.request("/after").status == 200
        good.close()
    assert [e.get(":path") for e in proxy.server.exchanges] == ["/after"]


def test_the_connection_preface_must_be_right(proxy):
    import wire1
    with wire1.connect(proxy.port) as wire:
        wire.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
        wire.rest()  # ends, whatever is said


def test_h2c_upgrade_is_not_taken_up(proxy):
    out = curl("--http2", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", f"http://127.0.0.1:{proxy.port}/")
    assert out.stdout == "1.1 200"


# --- floods: each ends with GOAWAY or a closed connection, and the next client is served ---------------------------------
def resets(client):
    for _ in range(2000):
        stream = client.start("/flood")
        client.h2.reset_stream(stream.id, 8)
        client.flush()


def raw_flood(data):
    def send(client):
        for _ in range(2000):
            client.raw(data)
    return send


def continuations(client):
    client.raw(frame(HEADERS, 0, 1, b"\x82\x86\x84\x41\x01t"))
    for _ in range(200):
        client.raw(frame(CONTINUATION, 0, 1, b"\x00\x01a\x40" + b"b" * 64))


def empty_data(client):
    stream = client.start("/", "POST", end=False)
    for _ in range(20000):
        client.raw(frame(DATA, 0, stream.id))


@pytest.mark.parametrize("flood", [resets, continuations, empty_data,
                                   raw_flood(frame(PING, 0, 0, b"12345678") * 20),
                                   raw_flood(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)) * 20)],
                         ids=["resets", "continuation", "empty-data", "ping", "settings"])
def test_a_flood_ends_its_connection_and_no_other(proxy, flood):
    with Client(proxy.port) as client:
        try:
            flood(client)
            client.pump_until(lambda: client.goaways)
        except OSError:
            client.closed = True
        assert client.goaways or client.closed
    with Client(proxy.port) as good:
        assert good.request("/after").status == 200
    until(proxy.idle, "nothing left of the flood")


def test_a_window_update_that_overflows_resets_the_stream(proxy):
    with Client(proxy.port) as client:
        stream = client.start("/", "POST", end=False)
        client.raw(frame(WINDOW_UPDATE, 0, stream.id, struct.pack(">I", 0x7FFFFFFF)))
        client.pump_until(lambda: stream.done or client.goaways)
        assert stream.reset == 3 or client.goaways


def test_an_idle_connection_answers_ping(proxy):
    with Client(proxy.port) as client:
        assert client.ping() and client.ping()


def test_nghttp_and_h2load_through_ephor_to_nghttpd(ephor, process, tmp_path, site):
    _, port = process(nghttpd(tmp_path, site))
    proxy = ephor(config(port, cluster={"protocol": "h2"}))
    assert run(program("nghttp"), f"http://127.0.0.1:{proxy.port}/small").stdout == "0123456789"
    h2load(proxy.port, "-n", "20000", "-c", "50", "-m", "50", path="/small")
    h2load(proxy.port, "-n", "40", "-c", "4", "-m", "4", path="/mega")
    until(proxy.idle, "no stream left")
    assert proxy.metric("ephor_requests_total", code="2xx") >= 20041


@pytest.mark.workers
def test_two_workers_serve_one_port(ephor, process, tmp_path, site):
    _, port = process(nghttpd(tmp_path, site))
    proxy = ephor({**config(port, cluster={"protocol": "h2"}), "workers": 2})
    h2load(proxy.port, "-n", "4000", "-c", "20", "-m", "10", path="/small")
    proxy.counted(4000, "ephor_requests_total", code="2xx")
