"""Opaque TCP: bytes in both directions, half close, a server that speaks first, and reset."""
import os
import threading

import pytest
import wire1
from harness import config, until


@pytest.fixture
def tcp(ephor, h1_server):
    def start(handler, **listener):
        server = h1_server(handler, raw=True)
        proxy = ephor(config(server.port, listener=listener or None, cluster={"protocol": "tcp"}))
        proxy.server = server
        return proxy
    return start


def echo(wire):
    while True:
        wire.more()
        data, wire.buffer = wire.buffer, b""
        wire.send(data)


@pytest.mark.parametrize("first", [b"\x00\x01binary", b"HELO there\r\n", b"\xff" * 3], ids=["zero", "text", "high"])
def test_bytes_pass_both_ways(tcp, first):
    with wire1.connect(tcp(echo).port) as wire:
        for _ in range(3):
            assert wire.send(first).take(len(first)) == first


def test_a_megabyte_comes_back_whole(tcp):
    data = b"\x00" + os.urandom(1 << 20)
    with wire1.connect(tcp(echo).port) as wire:
        threading.Thread(target=wire.send, args=(data,), daemon=True).start()
        assert wire.take(len(data)) == data


def test_a_server_that_speaks_first_is_heard(tcp):
    def banner(wire):
        wire.send("220 ready\r\n")
        wire.send(b"got " + wire.line())
    with wire1.connect(tcp(banner).port) as wire:
        assert wire.line() == b"220 ready\r\n"
        assert wire.send("EHLO me\r\n").line() == b"got EHLO me\r\n"


def test_half_close_passes_and_the_answer_still_comes(tcp):
    def after_end(wire):
        wire.send(b"%d" % len(wire.rest()))
    with wire1.connect(tcp(after_end, protocol="tcp").port) as wire:
        wire.send(b"\x01" * 1000)
        wire.sock.shutdown(1)
        assert wire.rest() == b"1000"


def test_the_end_of_the_server_is_the_end_for_the_client(tcp):
    with wire1.connect(tcp(lambda wire: wire.take(1), protocol="tcp").port) as wire:
        assert wire.send(b"\x01").closed()


def test_a_reset_of_the_client_ends_the_server_side(tcp):
    ended = threading.Event()

    def wait_end(wire):
        wire.take(1)
        wire.rest()
        ended.set()
    proxy = tcp(wait_end, protocol="tcp")
    wire = wire1.connect(proxy.port)
    wire.send(b"\x01")
    until(lambda: proxy.metric("ephor_connections_active") == 1, "the connection")
    wire.reset()
    assert ended.wait(10)
    until(lambda: proxy.metric("ephor_connections_active") == 0, "no connection")


def test_http_is_recognised_on_the_same_port(ephor, h1_server):
    server = h1_server()
    proxy = ephor(config(server.port))
    assert wire1.get(proxy.port, "/http").get("x-path") == "/http"
