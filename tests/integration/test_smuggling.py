"""The request-smuggling table: what two parsers could read in two ways is read by none.

Each row is sent byte by byte on HTTP/1.1, or as frames whose header fields h2 would never let a good client send, towards an
upstream of each kind. Asserted is what protects the next user of a connection: the upstream never sees the poisoned
request, or sees it in the one unambiguous form; the bytes behind it are never taken for a request.
"""
import contextlib

import harness
import pytest
import wire1
import wire2
from harness import config
from wire2 import Client

CHUNKED = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n"

# name: bytes after "POST /p HTTP/1.1\r\nHost: t\r\n"
REFUSED = {
    "CL.TE": "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "TE.CL": "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + CHUNKED,
    "TE.TE identity": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + CHUNKED,
    "TE.TE x": "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n" + CHUNKED,
    "TE xchunked": "Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED,
    "TE chunked, identity": "Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKED,
    "TE space before colon": "Transfer-Encoding : chunked\r\n\r\n" + CHUNKED,
    "TE tab before colon": "Transfer-Encoding\t: chunked\r\n\r\n" + CHUNKED,
    "TE vertical tab": "Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKED,
    "TE quoted": 'Transfer-Encoding: "chunked"\r\n\r\n' + CHUNKED,
    "TE folded": "Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKED,
    "obs-fold": "X-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
    "space before colon": "X-A : 1\r\nContent-Length: 0\r\n\r\n",
    "no colon": "X-A\r\nContent-Length: 0\r\n\r\n",
    "empty name": ": 1\r\nContent-Length: 0\r\n\r\n",
    "space in name": "X A: 1\r\nContent-Length: 0\r\n\r\n",
    "NUL in name": "X\0A: 1\r\nContent-Length: 0\r\n\r\n",
    "NUL in value": "X-A: a\0b\r\nContent-Length: 0\r\n\r\n",
    "CR in value": "X-A: a\rb\r\nContent-Length: 0\r\n\r\n",
    "bare LF": "X-A: 1\nContent-Length: 0\r\n\r\n",
    "bare LF at the end": "Content-Length: 0\r\n\n",
    "two lengths": "Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
    "two equal lengths": "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "length list": "Content-Length: 5, 5\r\n\r\nhello",
    "length +": "Content-Length: +5\r\n\r\nhello",
    "length -": "Content-Length: -5\r\n\r\n",
    "length hex": "Content-Length: 0x5\r\n\r\nhello",
    "length space": "Content-Length: 5 5\r\n\r\nhello",
    "length empty": "Content-Length: \r\n\r\n",
    "length overflow": "Content-Length: 18446744073709551621\r\n\r\nhello",
    "two hosts": "Host: other\r\nContent-Length: 0\r\n\r\n",
    "chunk size +": "Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "chunk size 0x": "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "chunk size space": "Transfer-Encoding: chunked\r\n\r\n5 5\r\nhello\r\n0\r\n\r\n",
    "chunk size empty": "Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
    "chunk size overflow": "Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
    "chunk size LF": "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    "chunk ext LF": "Transfer-Encoding: chunked\r\n\r\n5;a\nGET /smuggled HTTP/1.1\r\n\r\n",
    "chunk data LF": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
    "chunk too long": "Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
}

# name: the first line, with what follows
START_LINES = {
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "tab in line": b"GET\t/\tHTTP/1.1\r\nHost: t\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: t\r\n\r\n",
    "space in path": b"GET /a b HTTP/1.1\r\nHost: t\r\n\r\n",
    "NUL in path": b"GET /a\0b HTTP/1.1\r\nHost: t\r\n\r\n",
    "high byte in method": b"G\xc3T / HTTP/1.1\r\nHost: t\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: t\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/11": b"GET / HTTP/11\r\nHost: t\r\n\r\n",
    "space in host": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "slash in host": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "userinfo in host": b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "relative path": b"GET etc HTTP/1.1\r\nHost: t\r\n\r\n",
    "space first": b" GET / HTTP/1.1\r\nHost: t\r\n\r\n",
    "header before line": b"GET / HTTP/1.1\r\n X: 1\r\nHost: t\r\n\r\n",
}


class Play:
    """A proxy before an upstream of one kind, and what that upstream saw."""

    def __init__(self, kind, ephor, h1_server, h2_server):
        self.kind = kind
        self.server = h1_server() if kind == "h1" else h2_server()
        self.proxy = ephor(config(self.server.port, cluster={"protocol": "http/1.1" if kind == "h1" else "h2"}))
        self.port = self.proxy.port

    def paths(self):
        if self.kind == "h1":
            return [request.path for request in self.server.requests]
        return [exchange.get(":path") for exchange in self.server.exchanges]

    def finished(self):
        """Sends a marker on a new connection; whatever the upstream got, it has by now."""
        assert wire1.get(self.port, "/marker").status == 200
        return [path for path in self.paths() if path != "/marker"]


@pytest.fixture(params=["h1", "h2"], scope="module")
def play(request, tmp_path_factory):
    with contextlib.ExitStack() as stack:
        proxies = []

        def start(configuration):
            proxies.append(harness.Ephor(configuration, tmp_path_factory.mktemp("ephor")))
            return proxies[-1]
        yield Play(request.param, start, lambda: stack.enter_context(wire1.Server()),
                   lambda: stack.enter_context(wire2.Server()))
        for proxy in proxies:
            proxy.stop()


def refused(port, data):
    """Sends it, and what a second user would send behind it: a 400 and the end of the connection, or the end alone."""
    with wire1.connect(port) as wire:
        wire.send(data)
        wire.sock.shutdown(1)
        text = wire.rest()
    assert not text or text.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")), text[:200]
    assert text.count(b"HTTP/1.1 ") <= 1, "one answer, then the end"


@pytest.mark.parametrize("row", REFUSED)
def test_h1_what_is_ambiguous_is_refused(play, row):
    before = len(play.paths())
    refused(play.port, b"POST /p HTTP/1.1\r\nHost: t\r\n" + REFUSED[row].encode("latin-1"))
    assert "/smuggled" not in play.paths()
    if not row.startswith("chunk"):  # a chunked request may have begun upstream before its body went wrong
        assert "/p" not in play.paths()[before:]
    else:
        assert wire1.get(play.port, "/clean").get("x-path") == "/clean"
        if play.kind == "h1":
            assert not [r for r in play.server.requests if r.path == "/p"], "nothing unfinished was taken for whole"


@pytest.mark.parametrize("row", START_LINES)
def test_h1_a_first_line_that_is_wrong_is_refused(play, row):
    before = len(play.finished())
    refused(play.port, START_LINES[row])
    assert len(play.finished()) == before


def test_h1_bytes_behind_a_refusal_are_not_read(play):
    with wire1.connect(play.port) as wire:
        wire.send("GET / HTTP/1.1\r\nHost: t\r\nX-A : 1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n")
        assert wire.response().status == 400 and wire.closed()
    assert "/smuggled" not in play.finished()


def test_h1_headers_of_trust_are_not_taken_from_clients(play):
    r = wire1.get(play.port, "/", "X-Forwarded-Client-Cert: By=spiffe://evil\r\nX-Ephor-Constitution: sha256:0\r\n")
    assert r.status == 200
    assert r.get("x-got-x-forwarded-client-cert") is None and r.get("x-got-x-ephor-constitution") is None


GOOD = [(":method", "POST"), (":scheme", "http"), (":authority", "t"), (":path", "/p")]

H2_FIELDS = {
    "transfer-encoding": [("transfer-encoding", "chunked")],
    "connection": [("connection", "keep-alive")],
    "upgrade": [("upgrade", "h2c")],
    "te": [("te", "trailers, gzip")],
    "CRLF in value": [("x", "a\r\nX-Smuggled: 1")],
    "LF in value": [("x", "a\nb")],
    "NUL in value": [("x", "a\0b")],
    "space around value": [("x", " a")],
    "CRLF in name": [("x\r\ny", "a")],
    "colon in name": [("x:y", "a")],
    "space in name": [("x y", "a")],
    "empty name": [("", "a")],
    "upper-case name": [("X-Upper", "a")],
    "two lengths": [("content-length", "4"), ("content-length", "5")],
    "length list": [("content-length", "4,4")],
    "length +": [("content-length", "+4")],
    "length too great": [("content-length", "5")],
    "length too small": [("content-length", "3")],
}

H2_PSEUDO = {
    "CRLF in path": {":path": "/p HTTP/1.1\r\nHost: x\r\n\r\nGET /smuggled"},
    "space in path": {":path": "/p HTTP/1.1"},
    "no slash": {":path": "p"},
    "absolute path": {":path": "http://t/p"},
    "star": {":path": "*"},
    "CRLF in method": {":method": "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\nPOST"},
    "space in method": {":method": "POST /smuggled"},
    "CRLF in authority": {":authority": "t\r\nX-Smuggled: 1"},
    "slash in authority": {":authority": "t/x"},
    "userinfo in authority": {":authority": "u@t"},
    "scheme": {":scheme": "http\r\nx"},
}


def h2_refused(play, headers, may_begin=False):
    """The stream is refused. `may_begin`: what is wrong shows only with the body, so that the head may have gone on."""
    before = len(play.finished())
    with Client(play.port) as client:
        r = client.request(pseudo=headers, body=b"body")
        assert r.reset is not None or 400 <= r.status < 600 or client.closed, (r.status, r.body)
    assert may_begin or len(play.finished()) == before, play.finished()[before:]
    for request in play.server.requests if play.kind == "h1" else []:
        assert b"smuggled" not in request.raw.lower()


@pytest.mark.parametrize("row", H2_FIELDS)
def test_h2_fields_that_h1_would_read_otherwise(play, row):
    h2_refused(play, GOOD + H2_FIELDS[row], may_begin=row in ("length too great", "length too small"))


@pytest.mark.parametrize("row", H2_PSEUDO)
def test_h2_pseudo_fields_that_h1_would_read_otherwise(play, row):
    h2_refused(play, [(name, H2_PSEUDO[row].get(name, value)) for name, value in GOOD])


def test_h2_a_host_beside_the_authority_decides_nothing(play):
    with Client(play.port) as client:
        r = client.request(pseudo=GOOD + [("host", "other")], body=b"body")
    if r.status == 200:
        assert r.get("x-got-host" if play.kind == "h1" else "x-got-authority") == "t"
        assert play.kind == "h1" or r.get("x-got-host") is None
    else:
        assert r.status == 400 or r.reset is not None


@pytest.mark.parametrize("field", [("content-length", "5"), ("transfer-encoding", "chunked"), ("host", "x"), (":path", "/x")],
                         ids=lambda f: f[0])
def test_h2_trailers_cannot_carry_what_frames_a_message(play, field):
    with Client(play.port) as client:
        client.request("/t", "POST", body=b"body", trailers=[field])
    for request in play.server.requests if play.kind == "h1" else []:
        assert field[0] not in [name.lower() for name, _ in request.trailers]
    assert wire1.get(play.port, "/after").status == 200


def test_h2_a_length_that_lies_never_leaves_a_request_open_upstream(play):
    """The upstream connection that got too few bytes is not used again."""
    with Client(play.port) as client:
        client.request(pseudo=GOOD + [("content-length", "100")], body=b"short")
    r = wire1.get(play.port, "/clean")
    assert r.get("x-path") == "/clean" and r.get("x-method") == "GET"
