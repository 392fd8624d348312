"""A stand-in for OpenTelemetry's collector: takes OTLP over HTTP, decodes protobuf by hand, and answers as it is told.

The decoder knows the field numbers of trace.proto by itself, so that it can disagree with the encoder.
"""
import ssl
import struct

import wire1
from harness import until


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7f) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data):
    """[(number, value)]: ints for varints and fixed, bytes for the rest."""
    found, at = [], 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 1:
            value, at = struct.unpack_from("<Q", data, at)[0], at + 8
        elif kind == 5:
            value, at = struct.unpack_from("<I", data, at)[0], at + 4
        else:
            assert kind == 2, f"wire type {kind}"
            size, at = varint(data, at)
            assert at + size <= len(data), "a length beyond the end"
            value, at = data[at:at + size], at + size
        found.append((key >> 3, value))
    return found


def one(message, number, default=None):
    values = [value for n, value in message if n == number]
    assert len(values) <= 1, f"field {number} is there {len(values)} times"
    return values[0] if values else default


def attributes(message, number):
    result = {}
    for n, raw in message:
        if n != number:
            continue
        pair = fields(raw)
        key = one(pair, 1).decode()
        (kind, value), = fields(one(pair, 2))
        assert key not in result, f"{key} is there twice"
        result[key] = {1: lambda v: v.decode("utf-8"), 2: bool, 3: lambda v: v,
                       4: lambda v: struct.unpack("<d", struct.pack("<Q", v))[0]}[kind](value)
    return result


class Span:
    def __init__(self, raw, resource):
        message = fields(raw)
        assert {n for n, _ in message} <= {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 15, 16}
        self.resource = resource
        self.trace_id, self.span_id = one(message, 1).hex(), one(message, 2).hex()
        self.parent_id = one(message, 4, b"").hex()
        self.trace_state = one(message, 3, b"").decode()
        self.name = one(message, 5).decode("utf-8")
        self.kind = {2: "server", 3: "client"}[one(message, 6)]
        self.start_ns, self.end_ns = one(message, 7), one(message, 8)
        self.attributes = attributes(message, 9)
        self.events = [(one(event, 2).decode(), one(event, 1), attributes(event, 3))
                       for event in (fields(value) for n, value in message if n == 11)]
        status = fields(one(message, 15, b""))
        self.status = {0: "unset", 1: "ok", 2: "error"}[one(status, 3, 0)]
        self.message = one(status, 2, b"").decode()
        self.flags = one(message, 16, 0)
        assert len(self.trace_id) == 32 and len(self.span_id) == 16 and len(self.parent_id) in (0, 16)
        assert self.start_ns <= self.end_ns
        assert all(self.start_ns <= time <= self.end_ns for _, time, _ in self.events)

    def __getitem__(self, key):
        return self.attributes.get(key)


def spans_of(body):
    found = []
    for number, resource_spans in fields(body):
        assert number == 1
        message = fields(resource_spans)
        resource = attributes(fields(one(message, 1)), 1)
        for scope_spans in (value for n, value in message if n == 2):
            inner = fields(scope_spans)
            assert one(fields(one(inner, 1)), 1) == b"ephor"
            found += [Span(value, resource) for n, value in inner if n == 2]
    return found


class Collector(wire1.Server):
    """Keeps the spans of every request that was answered by 200. `answers`: what to send first, in order, instead."""

    def __init__(self, answers=(), port=0, drip=False, tls=None):
        self.answers, self.drip, self.spans, self.times = list(answers), drip, [], []
        super().__init__(self.take, port=port)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
            self.listener = context.wrap_socket(self.listener, server_side=True)

    def take(self, wire, request):
        assert request.method == "POST" and request.get("content-type") == "application/x-protobuf", request.raw
        spans = spans_of(request.body)
        assert spans
        answer = self.answers.pop(0) if self.answers else wire1.answer(b"", headers="Content-Type: application/x-protobuf\r\n")
        if callable(answer):
            return answer(wire, request)
        for byte in (bytes([b]) for b in answer) if self.drip else [answer]:
            wire.send(byte)
        if b" 200 " in answer[:15]:
            self.spans += spans
        return None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def wait(self, n=1, **attributes):
        """The spans that have these attributes (dots as __), once there are n of them."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}

        def those():
            return [s for s in self.spans if all(s[key] == value for key, value in wanted.items())]
        until(lambda: len(those()) >= n or self.errors, f"{n} spans with {wanted}, of {len(self.spans)}: "
              f"{[s.attributes for s in self.spans[:3]]}")
        assert not self.errors, self.errors
        return those()
