"""Interception by the kernel: REDIRECT and TPROXY in a network of its own, where ephor runs as another user than the apps."""
import ctypes
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile

import harness
import pytest
import wire1
from harness import config

CLONE_NEWNET = 0x40000000
UID = 1337
LIBC = ctypes.CDLL(None, use_errno=True)
APP = "10.77.0.1"  # an address of this network that is nobody's loopback

pytestmark = [pytest.mark.workers, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def sh(command):
    return subprocess.run(command, shell=True, capture_output=True, text=True)


def must(command):
    done = sh(command)
    if done.returncode != 0:
        pytest.skip(f"{command}: {done.stderr.strip()}")


@pytest.fixture
def network():
    """This thread, and what it starts, in a network namespace of its own; back afterwards."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    if LIBC.unshare(CLONE_NEWNET) != 0:
        os.close(home)
        pytest.skip("no network namespaces here")
    try:
        must("ip link set lo up")
        must(f"ip addr add {APP}/32 dev lo")
        yield
    finally:
        assert LIBC.setns(home, CLONE_NEWNET) == 0
        os.close(home)


class Unprivileged(harness.Ephor):
    """Runs as the sidecar's user, whose own connections are not intercepted."""

    def __init__(self, configuration, directory, capabilities=""):
        shutil.copy(os.environ.get("EPHOR_BIN", str(harness.ROOT / "build/release/ephor")), directory / "ephor")
        keep = f"--inh-caps=+{capabilities} --ambient-caps=+{capabilities}" if capabilities else ""
        wrapper = directory / "run-ephor"
        wrapper.write_text(f'#!/bin/sh\nexec setpriv --reuid={UID} --regid={UID} --clear-groups {keep} {directory}/ephor "$@"\n')
        wrapper.chmod(0o755)
        before = os.environ.get("EPHOR_BIN")
        os.environ["EPHOR_BIN"] = str(wrapper)
        try:
            super().__init__(configuration, directory)
        finally:
            os.environ.pop("EPHOR_BIN")
            if before is not None:
                os.environ["EPHOR_BIN"] = before


@pytest.fixture
def sidecar(network):
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ephor-intercept-"))
    directory.chmod(0o777)
    started = []

    def start(configuration, **more):
        started.append(Unprivileged(configuration, directory, **more))
        return started[-1]
    yield start
    try:
        for proxy in started:
            proxy.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def server_at(handler=None, port=8080, raw=False):
    server = wire1.Server(handler, raw=raw)
    server.listener.close()
    server.listener = socket.create_server((APP, port), backlog=64)
    server.port = port
    return server


def outbound(how, **cluster):
    made = config([], {"name": "inbound", "bind": "0.0.0.0:15001", "direction": "outbound", "intercept": how},
                  {"original_destination": True, **cluster})
    return made


def redirect():
    must(f"iptables -w 10 -t nat -A OUTPUT -p tcp -d {APP} -m owner ! --uid-owner {UID} -j REDIRECT --to-ports 15001")


def tproxy():
    must(f"iptables -w 10 -t mangle -A OUTPUT -p tcp -d {APP} --dport 8080 -m owner ! --uid-owner {UID} -j MARK --set-mark 1")
    must("ip rule add fwmark 1 lookup 100 pref 10")
    must("ip route add local 0.0.0.0/0 dev lo table 100")
    must("iptables -w 10 -t mangle -A PREROUTING -p tcp -m mark --mark 1 -j TPROXY --on-port 15001 --tproxy-mark 1")


@pytest.mark.parametrize("how", ["redirect", "tproxy"])
@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_what_an_app_dials_arrives_where_it_was_meant_to(sidecar, how, protocol):
    def echo(wire):
        wire.send(b"got " + wire.line())
    with server_at(echo if protocol == "tcp" else None, raw=protocol == "tcp") as server:
        {"redirect": redirect, "tproxy": tproxy}[how]()
        proxy = sidecar(outbound(how), **({"capabilities": "net_admin"} if how == "tproxy" else {}))
        with wire1.connect(server.port, APP) as wire:
            if protocol == "tcp":
                assert wire.send("\x00hello\n").line() == b"got \x00hello\n"
            else:
                assert wire.send("GET /far HTTP/1.1\r\nHost: app\r\n\r\n").response().get("x-path") == "/far"
        assert proxy.metric("ephor_connections_total", listener="inbound") == 1, "it went through ephor"


def test_a_loop_to_itself_is_found_and_refused(sidecar):
    """An app dials the sidecar's own port: what was meant by that is the sidecar, again and again."""
    redirect()
    proxy = sidecar(outbound("redirect"))
    with wire1.connect(15001, APP) as wire:
        text = wire.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").rest()
    assert text.startswith(b"HTTP/1.1 5")
    assert proxy.process.alive() and proxy.metric("ephor_connections_total", listener="inbound") == 1
    proxy.counted(1, "ephor_refusals_total", code="upstream.loop")
