"""HTTP/1.1 byte by byte: a server whose every answer a test writes down, and a client that sends what it is told.

Both keep the raw bytes that came, so that a test can say what was on the wire and not only what a library made of it.
"""
import contextlib
import re
import socket
import threading

from harness import SLOW

TIMEOUT = 15 * SLOW


class Closed(Exception):
    """The peer ended the connection before the message was whole; .got is what came."""

    def __init__(self, got=b""):
        super().__init__(f"closed after {got[:200]!r}")
        self.got = got


class Message:
    """A request or a response: start line, headers as a list of pairs, body, trailers, and the bytes of it all."""

    def __init__(self, line, headers, raw):
        self.line, self.headers, self.raw = line, headers, raw
        self.body, self.trailers, self.interim = b"", [], []
        words = line.split(" ", 2)
        if line.startswith("HTTP/"):
            self.version, self.status = words[0], int(words[1])
        else:
            self.method, self.path = words[0], words[1] if len(words) > 1 else ""

    def get(self, name, default=None):
        values = self.all(name)
        return ", ".join(values) if values else default

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Wire:
    """One connection, either side."""

    def __init__(self, sock):
        self.sock = sock
        sock.settimeout(TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.seen = b""

    def send(self, data):
        self.sock.sendall(data.encode() if isinstance(data, str) else data)
        return self

    def more(self):
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed(self.buffer)
        self.buffer += data
        self.seen += data

    def take(self, n):
        while len(self.buffer) < n:
            self.more()
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def line(self):
        while b"\n" not in self.buffer:
            self.more()
        data, self.buffer = self.buffer.split(b"\n", 1)
        return data + b"\n"

    def rest(self):
        """All bytes up to the end of the connection."""
        with contextlib.suppress(Closed):
            while True:
                self.more()
        data, self.buffer = self.buffer, b""
        return data

    def head(self):
        raw = self.line()
        while raw in (b"\r\n", b"\n"):
            raw = self.line()
        while not raw.endswith((b"\r\n\r\n", b"\n\n")):
            raw += self.line()
        lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        pairs = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:]]
        return Message(lines[0], [pair for pair in pairs if len(pair) == 2], raw)

    def chunks(self):
        """Yields the chunks as they arrive; then the trailers are in .last_trailers."""
        while True:
            size = int(self.line().split(b";")[0].strip(), 16)
            if size == 0:
                break
            yield self.take(size)
            self.take(2)
        self.last_trailers = []
        while (line := self.line()) not in (b"\r\n", b"\n"):
            name, value = line.decode("latin-1").split(":", 1)
            self.last_trailers.append((name.strip(), value.strip()))

    def body_of(self, message, to_end=False):
        if "chunked" in (message.get("transfer-encoding") or "").lower():
            message.body = b"".join(self.chunks())
            message.trailers = self.last_trailers
        elif message.get("content-length") is not None:
            message.body = self.take(int(message.get("content-length").split(",")[0]))
        elif to_end:
            message.body = self.rest()
        return message

    def request(self):
        return self.body_of(self.head())

    def response(self, method="GET"):
        interim = []
        while True:
            message = self.head()
            if message.status >= 200 or message.status == 101:
                break
            interim.append(message)
        message.interim = interim
        if method == "HEAD" or message.status in (101, 204, 304):
            return message
        return self.body_of(message, to_end=True)

    def closed(self):
        """Waits for the end of the connection: True when the peer closed without another byte."""
        return self.rest() == b""

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def connect(port, host="127.0.0.1"):
    return Wire(socket.create_connection((host, port), timeout=TIMEOUT))


def exchange(port, data, method="GET"):
    """Sends bytes on a new connection; the response."""
    with connect(port) as wire:
        return wire.send(data).response(method)


def get(port, path="/", headers="", method="GET", body=b""):
    length = f"Content-Length: {len(body)}\r\n" if body or method in ("POST", "PUT") else ""
    return exchange(port, f"{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}{length}\r\n".encode() + body, method)


def answer(body=b"", status="200 OK", headers=""):
    body = body.encode() if isinstance(body, str) else body
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def echo(wire, request):
    """The default handler: says what it got."""
    headers = "".join(f"X-Got-{name}: {value}\r\n" for name, value in request.headers if not re.match("(?i)connection", name))
    wire.send(answer(request.body, headers=f"X-Method: {request.method}\r\nX-Path: {request.path}\r\n{headers}"))


class Server:
    """Runs `handler(wire, request)` for each request of each connection, in a thread a connection.

    With `raw=True` the handler is `handler(wire)`, called once a connection. `requests` and `wires` keep all that came."""

    def __init__(self, handler=None, raw=False, port=0):
        self.handler, self.raw = handler or echo, raw
        self.requests, self.wires, self.errors = [], [], []
        self.listener = socket.create_server(("127.0.0.1", port), backlog=512, reuse_port=False)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.accept, daemon=True)

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            wire = Wire(sock)
            self.wires.append(wire)
            threading.Thread(target=self.serve, args=(wire,), daemon=True).start()

    def serve(self, wire):
        try:
            if self.raw:
                self.handler(wire)
                return
            while True:
                request = wire.request()
                self.requests.append(request)
                if self.handler(wire, request) == "close":
                    break
        except (Closed, OSError):
            pass
        except Exception as error:  # shown by the test that looks at it
            self.errors.append(error)
        finally:
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)
            wire.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for wire in self.wires:
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)
            wire.close()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.close()
