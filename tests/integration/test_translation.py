"""The four directions: h1→h1, h1→h2, h2→h1, h2→h2. What is said on one side is what is heard on the other.

The client and the server are the same two plays for all directions; `Side` hides which protocol they speak.
"""
import pytest
import wire1
import wire2
from harness import config, until


class H1Client:
    def __init__(self, port):
        self.wire = wire1.connect(port)

    def request(self, path="/", method="GET", headers=(), body=None, trailers=None):
        lines = "".join(f"{k}: {v}\r\n" for k, v in headers)
        head = f"{method} {path} HTTP/1.1\r\nHost: test\r\nTE: trailers\r\n{lines}"
        if trailers is not None:
            text = "".join(f"{k}: {v}\r\n" for k, v in trailers)
            chunk = f"{len(body or b''):x}\r\n".encode() + (body or b"") + b"\r\n" if body else b""
            self.wire.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk + f"0\r\n{text}\r\n".encode())
        elif body is not None:
            self.wire.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        else:
            self.wire.send(head + "\r\n")
        r = self.wire.response(method)
        r.trailer = lambda name: dict((k.lower(), v) for k, v in r.trailers).get(name)
        r.interim_statuses = [i.status for i in r.interim]
        return r

    def close(self):
        self.wire.close()


class H2Client:
    def __init__(self, port):
        self.client = wire2.Client(port)

    def request(self, path="/", method="GET", headers=(), body=None, trailers=None):
        r = self.client.request(path, method, [(k.lower(), v) for k, v in headers], body,
                                [(k.lower(), v) for k, v in trailers] if trailers is not None else None)
        r.interim_statuses = [int(dict(i)[":status"]) for i in r.interim]
        return r

    def close(self):
        self.client.close()


class Answer:
    """What the server shall say, in either protocol."""

    def __init__(self, status=200, body=b"", headers=(), trailers=None, interim=None, length=True):
        self.status, self.body, self.headers, self.trailers = status, body, list(headers), trailers
        self.interim, self.length = interim, length

    def on_h1(self, wire, request):
        headers = "".join(f"{k}: {v}\r\n" for k, v in self.headers)
        out = f"HTTP/1.1 {self.interim} Interim\r\nX-Early: 1\r\n\r\n".encode() if self.interim else b""
        out += f"HTTP/1.1 {self.status} Fine\r\n{headers}".encode()
        if self.trailers is not None or not self.length:
            trailers = "".join(f"{k}: {v}\r\n" for k, v in self.trailers or [])
            chunk = b"%x\r\n%s\r\n" % (len(self.body), self.body) if self.body else b""
            out += b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n" + trailers.encode() + b"\r\n"
        elif self.status in (204, 304):
            out += b"\r\n"
        else:
            out += f"Content-Length: {len(self.body)}\r\n\r\n".encode() + (b"" if request.method == "HEAD" else self.body)
        wire.send(out)

    def on_h2(self, exchange):
        exchange.body()
        if self.interim:
            exchange.peer.send_headers(exchange.id, [(":status", str(self.interim)), ("x-early", "1")])
        headers = [(k.lower(), v) for k, v in self.headers]
        if self.length and self.trailers is None and self.status not in (204, 304):
            headers.append(("content-length", str(len(self.body))))
        body = b"" if exchange.get(":method") == "HEAD" else self.body
        exchange.respond(self.status, body, headers,
                         [(k.lower(), v) for k, v in self.trailers] if self.trailers is not None else None)


class Side:
    """A proxy in one direction: client protocol, server protocol, and what the server says."""

    def __init__(self, direction, ephor, h1_server, h2_server):
        self.client_kind, self.server_kind = direction.split(" to ")
        self.ephor, self.h1_server, self.h2_server = ephor, h1_server, h2_server

    def run(self, answer=None):
        if self.server_kind == "h1":
            server = self.h1_server(answer.on_h1 if answer else None)
        else:
            server = self.h2_server(answer.on_h2 if answer else None)
        self.server = server
        self.proxy = self.ephor(config(server.port, cluster={"protocol": "http/1.1" if self.server_kind == "h1" else "h2"}))
        self.client = (H1Client if self.client_kind == "h1" else H2Client)(self.proxy.port)
        return self.client

    def server_saw(self):
        """Headers of the last request, trailers, in lower case."""
        if self.server_kind == "h1":
            request = self.server.requests[-1]
            headers = [(":method", request.method), (":path", request.path)] + [(k.lower(), v) for k, v in request.headers]
            return headers, [(k.lower(), v) for k, v in request.trailers]
        exchange = self.server.exchanges[-1]
        return exchange.headers, exchange.stream.trailers


@pytest.fixture(params=["h1 to h1", "h1 to h2", "h2 to h1", "h2 to h2"])
def side(request, ephor, h1_server, h2_server):
    made = Side(request.param, ephor, h1_server, h2_server)
    yield made
    made.client.close()


def test_method_path_headers_and_body(side):
    r = side.run().request("/a/b?c=%20d&e", "PUT", [("X-One", "1"), ("X-One", "2"), ("X-Empty", "")], b"body")
    assert r.status == 200 and r.body == b"body"
    headers, _ = side.server_saw()
    assert (":method", "PUT") in headers and (":path", "/a/b?c=%20d&e") in headers
    assert ", ".join(v for k, v in headers if k == "x-one").replace(",  ", ", ") == "1, 2"
    assert ("x-empty", "") in headers


def test_authority_becomes_host_and_back(side):
    side.run().request("/")
    headers, _ = side.server_saw()
    assert ("host", "test") in headers if side.server_kind == "h1" else (":authority", "test") in headers
    if side.server_kind == "h2":
        assert "host" not in dict(headers)


@pytest.mark.parametrize("size", [0, 1, 65_535, 400_000])
def test_bodies_of_all_sizes(side, size):
    body = b"z" * size
    client = side.run()
    for _ in range(2):
        assert client.request("/", "POST", body=body).body == body


def test_trailers_of_requests_and_answers(side):
    client = side.run(Answer(body=b"x", trailers=[("X-Sum", "9")]))
    r = client.request("/", "POST", body=b"abc", trailers=[("X-Up", "7")])
    assert r.trailer("x-sum") == "9" and r.body == b"x"
    assert side.server_saw()[1] == [("x-up", "7")]


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body(side, status):
    client = side.run(Answer(status, headers=[("ETag", '"v1"')]))
    for _ in range(2):
        r = client.request("/")
        assert (r.status, r.body, r.get("etag", r.get("ETag"))) == (status, b"", '"v1"')


def test_head_keeps_the_length(side):
    client = side.run(Answer(body=b"12345"))
    for _ in range(2):
        r = client.request("/", "HEAD")
        assert (r.status, r.get("content-length"), r.body) == (200, "5", b"")
    assert client.request("/").body == b"12345"


def test_an_answer_of_unknown_length(side):
    r = side.run(Answer(body=b"data", length=False)).request("/")
    assert r.body == b"data" and r.get("content-length") is None


def test_interim_answers(side):
    r = side.run(Answer(body=b"x", interim=103)).request("/")
    assert r.status == 200 and r.interim_statuses == [103]


def test_hop_by_hop_headers_do_not_cross(side):
    side.run(Answer(body=b"x", headers=[("X-Kept", "1")])).request("/", headers=[("X-Up", "1")])
    headers, _ = side.server_saw()
    names = {k for k, _ in headers}
    assert "x-up" in names and not names & {"keep-alive", "upgrade", "proxy-connection", "http2-settings"}
    assert dict(headers).get("connection", "te").lower() in ("te", "keep-alive"), "its own, for its own hop"
    if side.server_kind == "h2":
        assert "transfer-encoding" not in names


def test_cookies_are_one_line_on_h1(side):
    if side.client_kind == "h2":
        headers = [("cookie", "a=1"), ("cookie", "b=2")]
    else:
        headers = [("Cookie", "a=1; b=2")]
    side.run().request("/", headers=headers)
    saw = [v for k, v in side.server_saw()[0] if k == "cookie"]
    assert "; ".join(saw) == "a=1; b=2" and (len(saw) == 1 or side.server_kind == "h2")


def test_several_set_cookie_lines_stay_several(side):
    r = side.run(Answer(body=b"x", headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])).request("/")
    assert [v for k, v in r.headers if k.lower() == "set-cookie"] == ["a=1", "b=2"]


def test_one_connection_carries_many_requests(side):
    client = side.run()
    for i in range(30):
        assert client.request(f"/{i}", "POST", body=b"b" * i).body == b"b" * i
    until(side.proxy.idle, "no stream left")


def test_options_star(side):
    r = side.run().request("*", "OPTIONS")
    assert r.status == 200 and (":path", "*") in side.server_saw()[0]


def test_h1_absolute_target_becomes_host_and_path(ephor, h1_server):
    server = h1_server()
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"}))
    r = wire1.exchange(proxy.port, b"GET http://other.example/abs?q HTTP/1.1\r\nHost: ignored\r\n\r\n")
    if r.status == 200:
        assert server.requests[0].path == "/abs?q" and server.requests[0].get("host") == "other.example"
    else:
        assert r.status == 400 and not server.requests


@pytest.mark.parametrize("answer", ["HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "<html>what?</html>"],
                         ids=["with-a-status", "bare"])
def test_an_app_that_knows_no_h2_is_asked_in_http1_without_being_told(ephor, h1_server, answer):
    prefaces = []

    def app(wire, request):
        if not request.line.startswith("PRI "):
            return wire1.echo(wire, request)
        prefaces.append(request)
        wire.send(answer)
        return "close"
    proxy = ephor(config(h1_server(app).port))  # protocol: auto
    with wire2.Client(proxy.port) as client:
        assert client.request("/a", "POST", [], b"small").get("x-path") == "/a", "the very first request too"
        for i in range(3):
            assert client.request(f"/{i}").get("x-path") == f"/{i}"
    assert len(prefaces) == 1
    assert "speaks no HTTP/2, so it is asked in HTTP/1.1" in proxy.log
