"""HTTP/2 with python-h2, which checks nothing here: a client and a server that may say what they should not.

The client reads in the test's own thread; the server has a thread a connection and a handler a request.
"""
import contextlib
import socket
import ssl
import struct
import threading

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from harness import SLOW

TIMEOUT = 15 * SLOW
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LOOSE = dict(validate_outbound_headers=False, normalize_outbound_headers=False, validate_inbound_headers=False,
             normalize_inbound_headers=False, header_encoding="latin-1")


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class Connection(h2.connection.H2Connection):
    """python-h2 takes GOAWAY for the end; streams that were begun go on after it (RFC 9113 section 6.8)."""

    def _receive_goaway_frame(self, goaway):
        before = self.state_machine.state
        events = super()._receive_goaway_frame(goaway)
        self.state_machine.state = before
        return events


class Stream:
    """What came on one stream."""

    def __init__(self, number):
        self.id = number
        self.headers, self.trailers, self.interim = [], [], []
        self.body = b""
        self.ended = self.answered = False
        self.reset = None

    @property
    def status(self):
        return int(self.get(":status", 0))

    @property
    def done(self):
        return self.ended or self.reset is not None

    def get(self, name, default=None):
        found = [value for key, value in self.headers if key == name]
        return ", ".join(found) if found else default

    def trailer(self, name, default=None):
        return dict(self.trailers).get(name, default)


class Peer:
    """The half that both sides share: a socket, an h2 connection, and the streams by their number."""

    def __init__(self, sock, client, settings=None):
        self.sock = sock
        sock.settimeout(TIMEOUT)
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.h2 = Connection(h2.config.H2Configuration(client_side=client, **LOOSE))
        self.streams, self.settings, self.goaways, self.pings = {}, {}, [], 0
        self.closed = False
        self.auto_window = True
        if settings:
            self.h2.update_settings(settings)
        self.h2.initiate_connection()
        self.sock.sendall(self.first(self.h2.data_to_send()))

    def first(self, data):
        return data

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.sock.sendall(data)

    def raw(self, data):
        with self.lock:
            self.flush()
            self.sock.sendall(data)
        return self

    def stream(self, number):
        return self.streams.setdefault(number, Stream(number))

    def pump(self):
        """Reads once and takes in what came. False at the end of the connection."""
        try:
            data = self.sock.recv(65536)
        except (ConnectionError, ssl.SSLError):
            data = b""
        with self.lock:
            if not data:
                self.closed = True
                self.changed.notify_all()
                return False
            try:
                events = self.h2.receive_data(data)
            except h2.exceptions.ProtocolError:
                events = []
            for event in events:
                self.on(event)
            with contextlib.suppress(OSError):
                self.flush()
            self.changed.notify_all()
        return True

    def on(self, event):
        kind = type(event).__name__
        if kind in ("ResponseReceived", "RequestReceived"):
            self.stream(event.stream_id).headers = list(event.headers)
            if kind == "RequestReceived":
                self.on_request(self.stream(event.stream_id))
        elif kind == "InformationalResponseReceived":
            self.stream(event.stream_id).interim.append(list(event.headers))
        elif kind == "TrailersReceived":
            self.stream(event.stream_id).trailers = list(event.headers)
        elif kind == "DataReceived":
            self.stream(event.stream_id).body += event.data
            if self.auto_window and event.flow_controlled_length:
                with contextlib.suppress(h2.exceptions.ProtocolError):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif kind == "StreamEnded":
            self.stream(event.stream_id).ended = True
            self.on_end(self.stream(event.stream_id))
        elif kind == "StreamReset":
            self.stream(event.stream_id).reset = int(event.error_code)
        elif kind == "ConnectionTerminated":
            self.goaways.append((event.last_stream_id, int(event.error_code)))
        elif kind == "RemoteSettingsChanged":
            self.settings.update({int(k): v.new_value for k, v in event.changed_settings.items()})
        elif kind == "PingAckReceived":
            self.pings += 1

    def on_request(self, stream):
        pass

    def on_end(self, stream):
        pass

    def send_headers(self, number, headers, end=False):
        with self.lock:
            self.h2.send_headers(number, headers, end_stream=end)
            self.flush()

    def send_data(self, number, data, end=False):
        """All of it, as the windows allow."""
        view = memoryview(bytes(data))
        while True:
            with self.lock:
                stream = self.streams.get(number)
                if self.closed or (stream and stream.reset is not None):
                    raise ConnectionError("the stream is gone")
                try:
                    room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size, len(view))
                except h2.exceptions.ProtocolError as error:
                    raise ConnectionError("the stream is gone") from error
                if room > 0 or len(view) == 0:
                    last = room == len(view)
                    self.h2.send_data(number, bytes(view[:room]), end_stream=end and last)
                    self.flush()
                    view = view[room:]
                    if last:
                        return
                    continue
            self.wait_window()

    def wait_window(self):
        raise NotImplementedError

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Client(Peer):
    """c = Client(port); s = c.request("/path"); s.status, s.body, s.trailers."""

    def __init__(self, port, host="127.0.0.1", settings=None, tls=None, authority="test"):
        sock = socket.create_connection((host, port), timeout=TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname=authority)
        self.authority = authority
        super().__init__(sock, True, settings)

    def wait_window(self):
        if not self.pump():
            raise ConnectionError("closed while a window was awaited")

    def pump_until(self, condition):
        while not condition():
            if not self.pump():
                return condition()
        return True

    def start(self, path="/", method="GET", headers=(), pseudo=None, end=True):
        number = self.h2.get_next_available_stream_id()
        first = pseudo if pseudo is not None else [(":method", method), (":scheme", "http"), (":authority", self.authority),
                                                   (":path", path)]
        self.stream(number)
        self.send_headers(number, [*first, *headers], end)
        return self.streams[number]

    def request(self, path="/", method="GET", headers=(), body=None, trailers=None, pseudo=None):
        stream = self.start(path, method, headers, pseudo, end=body is None and trailers is None)
        with contextlib.suppress(ConnectionError):
            if body is not None:
                self.send_data(stream.id, body, end=trailers is None)
            if trailers is not None:
                self.send_headers(stream.id, trailers, end=True)
        return self.finish(stream)

    def finish(self, stream):
        self.pump_until(lambda: stream.done)
        return stream

    def ping(self):
        """True when the connection still answers."""
        before = self.pings
        with self.lock:
            self.h2.ping(b"ephortst")
            self.flush()
        return self.pump_until(lambda: self.pings > before)


class Exchange:
    """A request at the server, and the way to answer it."""

    def __init__(self, peer, stream):
        self.peer, self.stream, self.id = peer, stream, stream.id
        self.headers = stream.headers

    def get(self, name, default=None):
        return self.stream.get(name, default)

    def wait(self, condition):
        with self.peer.changed:
            self.peer.changed.wait_for(lambda: condition(self.stream) or self.peer.closed, TIMEOUT)
        return self.stream

    def body(self):
        return self.wait(lambda s: s.done).body

    def respond(self, status=200, body=b"", headers=(), trailers=None):
        end = not body and trailers is None
        self.stream.answered = True  # before its last frame: the client may use the place at once
        self.peer.send_headers(self.id, [(":status", str(status)), *headers], end)
        if not end:
            if body:
                self.peer.send_data(self.id, body, end=trailers is None)
            if trailers is not None:
                self.peer.send_headers(self.id, trailers, end=True)

    def headers_only(self, status=200, headers=()):
        self.peer.send_headers(self.id, [(":status", str(status)), *headers])

    def data(self, data, end=False):
        self.peer.send_data(self.id, data, end)

    def reset(self, code=0):
        with self.peer.lock:
            self.peer.h2.reset_stream(self.id, code)
            self.peer.flush()

    def goaway(self, last, code=0):
        self.peer.raw(frame(7, 0, 0, struct.pack(">II", last, code)))


def echo(exchange):
    body = exchange.body()
    names = [(f"x-got-{name.lstrip(':')}", value) for name, value in exchange.headers]
    trailers = [(f"x-got-{name}", value) for name, value in exchange.stream.trailers]
    exchange.respond(200, body, [("x-method", exchange.get(":method")), ("x-path", exchange.get(":path", "")), *names],
                     trailers or None)


class ServerPeer(Peer):
    def __init__(self, sock, server):
        self.server = server
        super().__init__(sock, False, server.settings)
        self.auto_window = server.auto_window

    def first(self, data):
        """Its limit is in the first SETTINGS; the library, which would enforce it by itself, believes in 100."""
        if not self.server.max_streams:
            return data
        assert struct.pack(">HI", 3, 100) in data
        return data.replace(struct.pack(">HI", 3, 100), struct.pack(">HI", 3, self.server.max_streams))

    def on_request(self, stream):
        if self.server.max_streams and sum(not s.answered for s in self.streams.values()) > self.server.max_streams:
            stream.reset, stream.answered = 7, True
            self.h2.reset_stream(stream.id, 7)
            return
        exchange = Exchange(self, stream)
        self.server.exchanges.append(exchange)
        threading.Thread(target=self.server.run, args=(exchange,), daemon=True).start()

    def wait_window(self):
        with self.changed:
            self.changed.wait(0.5)


class Server:
    """Runs `handler(exchange)` in a thread for each request, as soon as its headers are there."""

    def __init__(self, handler=None, settings=None, tls=None, port=0, auto_window=True, max_streams=0):
        self.handler, self.settings, self.tls, self.auto_window = handler or echo, settings, tls, auto_window
        self.max_streams = max_streams
        self.exchanges, self.peers, self.errors = [], [], []
        self.listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port = self.listener.getsockname()[1]

    def run(self, exchange):
        try:
            self.handler(exchange)
        except (OSError, h2.exceptions.H2Error):
            pass
        except Exception as error:
            self.errors.append(error)

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        with contextlib.suppress(OSError):
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
            peer = ServerPeer(sock, self)
            self.peers.append(peer)
            while peer.pump():
                pass
            peer.close()

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.peers:
            peer.close()
