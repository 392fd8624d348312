#!/usr/bin/python3
"""hold.py PORT N h1|h2c: opens N connections, has a request answered on each, says so, and holds them until it is ended."""
import signal
import socket
import sys

port, n, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
H1 = b"GET /small HTTP/1.1\r\nHost: bench\r\n\r\n"
# preface, empty SETTINGS, HEADERS on stream 1 (END_STREAM, END_HEADERS): :method GET, :scheme http, :authority, :path
BLOCK = b"\x82\x86\x41\x05bench\x44\x06/small"
H2 = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" + len(BLOCK).to_bytes(3, "big") + b"\1\5\0\0\0\1" + BLOCK)
held = []
for _ in range(n):
    s = socket.create_connection(("127.0.0.1", port))
    s.settimeout(10)
    s.sendall(H1 if kind == "h1" else H2)
    got = b""
    while b"0123456789" not in got:
        data = s.recv(65536)
        if not data:
            sys.exit(f"connection {len(held)} was closed after {got!r}")
        got += data
    held.append(s)
print("held", flush=True)
signal.pause()
