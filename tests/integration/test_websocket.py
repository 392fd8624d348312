"""WebSocket: by Upgrade on HTTP/1.1, by extended CONNECT (RFC 8441) on HTTP/2, and from one to the other."""
import base64
import hashlib

import pytest
import wire1
from harness import config, free_port, node, node_client
from wire2 import Client

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept(key):
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


def echo_after_upgrade(wire, request):
    assert request.get("upgrade", "").lower() == "websocket", request.headers
    wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
              f"Sec-WebSocket-Accept: {accept(request.get('sec-websocket-key'))}\r\n\r\n")
    while True:
        if not wire.buffer:
            wire.more()
        data, wire.buffer = wire.buffer, b""
        wire.send(data)


UPGRADE = ("GET /chat HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
           "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")


@pytest.fixture
def echo(ephor, h1_server):
    return ephor(config(h1_server(echo_after_upgrade).port, cluster={"protocol": "http/1.1"}))


def test_upgrade_on_h1_opens_a_tunnel(echo):
    with wire1.connect(echo.port) as wire:
        r = wire.send(UPGRADE).response()
        assert r.status == 101 and r.get("sec-websocket-accept") == accept("dGhlIHNhbXBsZSBub25jZQ==")
        for data in (b"\x81\x05hello", b"\x82\x7e\xff\xff" + b"b" * 65535):
            assert wire.send(data).take(len(data)) == data


def test_bytes_sent_right_behind_the_upgrade_are_kept(echo):
    with wire1.connect(echo.port) as wire:
        assert wire.send(UPGRADE.encode() + b"\x81\x02hi").response().status == 101
        assert wire.take(4) == b"\x81\x02hi"


def test_a_refused_upgrade_leaves_http(ephor, h1_server):
    proxy = ephor(config(h1_server(lambda w, r: w.send(wire1.answer("no", "403 Forbidden"))).port,
                         cluster={"protocol": "http/1.1"}))
    with wire1.connect(proxy.port) as wire:
        r = wire.send(UPGRADE).response()
        assert r.status == 403
        if r.get("connection", "").lower() != "close":
            assert wire.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n").response().status == 403


def test_extended_connect_on_h2_reaches_an_h1_server(echo):
    with Client(echo.port) as client:
        client.pump_until(lambda: 8 in client.settings)
        assert client.settings[8] == 1, "SETTINGS_ENABLE_CONNECT_PROTOCOL"
        stream = client.start(pseudo=[(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
                                      (":authority", "t"), (":path", "/chat")], headers=[("sec-websocket-version", "13")], end=False)
        client.pump_until(lambda: stream.headers or stream.done)
        assert stream.status == 200
        client.send_data(stream.id, b"\x81\x05hello")
        client.pump_until(lambda: len(stream.body) >= 7 or stream.done)
        assert stream.body == b"\x81\x05hello"


def test_through_two_ephors_it_rides_on_h2(ephor, h1_server):
    inner = ephor(config(h1_server(echo_after_upgrade).port, cluster={"protocol": "http/1.1"}))
    outer = ephor(config(inner.port, cluster={"protocol": "h2"}))
    with wire1.connect(outer.port) as wire:
        r = wire.send(UPGRADE).response()
        assert r.status == 101 and r.get("sec-websocket-accept") == accept("dGhlIHNhbXBsZSBub25jZQ==")
        assert wire.send(b"\x81\x03two").take(5) == b"\x81\x03two"


def test_connect_opens_a_tunnel(ephor, h1_server):
    def tunnel(wire, request):
        assert request.method == "CONNECT"
        wire.send("HTTP/1.1 200 Connected\r\n\r\n")
        while True:
            if not wire.buffer:
                wire.more()
            data, wire.buffer = wire.buffer, b""
            wire.send(data)
    proxy = ephor(config(h1_server(tunnel).port, cluster={"protocol": "http/1.1"}))
    with wire1.connect(proxy.port) as wire:
        wire.send("CONNECT far:443 HTTP/1.1\r\nHost: far:443\r\n\r\n")
        assert wire.head().status == 200
        assert wire.send(b"\x16\x03raw").take(5) == b"\x16\x03raw"


def test_the_ws_package_on_both_ends(ephor, process, tmp_path):
    port = free_port()
    process(node(tmp_path, "ws_server.mjs", port, port=port))
    proxy = ephor(config(port, cluster={"protocol": "http/1.1"}))
    assert node_client("ws_client.mjs", proxy.port) == {"texts": 50, "bytes": 1048576, "pong": True, "closed": 4001}
