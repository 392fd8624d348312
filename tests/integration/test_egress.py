"""HTTPS that apps start to hosts outside the mesh: intercepted, originated, passed through, refused."""
import base64
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import socket
import ssl
import sys
import tempfile

import pki
import pytest
import wire1
import wire2
from harness import SLOW, config, curl, program, run, until
from test_intercept import APP, network, redirect, sidecar, tproxy  # noqa: F401

pytestmark = pytest.mark.workers

HOST = "api.models.test"
SYSTEM = "/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A public CA, and what origins show: a good certificate and bad ones."""
    d = tmp_path_factory.mktemp("origins")
    pki.roots(d)
    pki.roots(d, "others")
    hosts = (HOST, "other.models.test", "*.wild.test")
    return {"good": pki.leaf(d, "good", None, hosts=hosts),
            "expired": pki.leaf(d, "expired", None, days=-1, hosts=hosts),
            "elsewhere": pki.leaf(d, "elsewhere", None, hosts=("elsewhere.test",)),
            "stranger": pki.leaf(d, "stranger", None, signer="others", hosts=hosts)}


def server_context(key, alpn=("http/1.1",)):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(key.certificate, key.key)
    context.set_alpn_protocols(list(alpn))
    return context


class Origin(wire1.Server):
    """An https server of HTTP/1.1; `names` are the SNIs that it was asked for."""

    def __init__(self, key, handler=None, alpn=("http/1.1",), **options):
        super().__init__(handler, **options)
        self.names, self.failed = [], []
        self.tls = server_context(key, alpn)
        self.tls.sni_callback = lambda sock, name, context: self.names.append(name)

    def serve(self, wire):
        try:
            wire.sock = self.tls.wrap_socket(wire.sock, server_side=True)
        except OSError as error:
            self.failed.append(str(error))
            wire.close()
            return
        super().serve(wire)


@pytest.fixture
def origin(keys):
    with contextlib.ExitStack() as stack:
        yield lambda key="good", handler=None, **o: stack.enter_context(Origin(keys[key], handler, **o))


@pytest.fixture
def egress(ephor, keys, tmp_path):
    """egress(origin, rule…): a proxy whose apps' TLS to HOST ends at it; proxy.bundle is what they trust."""
    def start(server, *rules, cluster=None, listener=None, unnamed=None, **top):
        rules = rules or ({},)
        roots = keys["good"].roots
        made = [{"hosts": [HOST], "tls": "intercept", **({"roots": roots} if r.get("tls", "intercept") != "passthrough" else {}),
                 **r} for r in rules]
        bundle = tmp_path / "trust" / "ca.pem"
        bundle.parent.mkdir(exist_ok=True)
        tls = {"bundle": str(bundle), **({"unnamed": unnamed} if unnamed else {})}
        proxy = ephor(config(server if isinstance(server, int) else server.port,
                             {"direction": "outbound", **(listener or {})}, cluster, egress=made, egress_tls=tls, **top))
        proxy.bundle = str(bundle)
        return proxy
    return start


def client_context(proxy, alpn=("http/1.1",), verify=True):
    context = ssl.create_default_context(cafile=proxy.bundle)
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn))
    return context


def connect(proxy, name=HOST, alpn=("http/1.1",), verify=True):
    sock = socket.create_connection(("127.0.0.1", proxy.port), timeout=wire1.TIMEOUT)
    return wire1.Wire(client_context(proxy, alpn, verify).wrap_socket(sock, server_hostname=name))


def get(proxy, path="/", name=HOST, host=None):
    with connect(proxy, name) as wire:
        return wire.send(f"GET {path} HTTP/1.1\r\nHost: {host or name}\r\n\r\n").response()


def fetch(proxy, *arguments, host=HOST, port=443, **more):
    return curl("--connect-to", f"::127.0.0.1:{proxy.port}", "--cacert", proxy.bundle, *arguments, f"https://{host}:{port}/x",
                **more)


# --- what clients see ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_sees_the_origin_under_our_certificate_and_the_request_is_seen(egress, origin, version):
    server = origin()
    proxy = egress(server)
    done = fetch(proxy, version, "-D", "-", "-v")
    assert "x-path: /x" in done.stdout.lower() and "ephor egress" in done.stderr
    assert server.names == [HOST], "the origin is asked for by its own name"
    assert server.requests[0].get("host").startswith(HOST)
    proxy.counted(1, "ephor_requests_total", protocol="http", code="2xx")
    assert proxy.metric("ephor_egress_connections_total", how="intercepted") == 1
    assert proxy.metric("ephor_connections_total", protocol="h2" if version == "--http2" else "http/1.1") == 1


def test_an_h2_origin_is_spoken_to_in_h2(egress, keys):
    with wire2.Server(tls=server_context(keys["good"], ("h2",))) as server:
        proxy = egress(server.port)
        assert '"x-path' in fetch(proxy, "--http2", "-w", "%{header_json}").stdout.replace("X-", "x-")
        assert len(server.exchanges) == 1
        assert dict(server.exchanges[0].stream.headers)[":authority"].startswith(HOST)


def test_node_trusts_it_by_NODE_EXTRA_CA_CERTS(egress, origin):
    proxy = egress(origin())
    script = f"""
      const r = require('https').get({{host: '127.0.0.1', port: {proxy.port}, servername: '{HOST}', path: '/node',
                                      headers: {{host: '{HOST}'}}}}, r => {{
        console.log(JSON.stringify([r.statusCode, r.headers['x-path'], r.socket.getPeerCertificate().subject.CN]));
        r.resume(); r.on('end', () => process.exit(0));
      }});
      r.on('error', e => {{ console.log(JSON.stringify([e.code])); process.exit(0); }});"""
    node = [program("node"), "-e", script]
    assert json.loads(run(*node, env={**os.environ, "NODE_EXTRA_CA_CERTS": proxy.bundle}).stdout) == [200, "/node", HOST]
    assert json.loads(run(*node).stdout)[0] in ("UNABLE_TO_VERIFY_LEAF_SIGNATURE", "SELF_SIGNED_CERT_IN_CHAIN",
                                                "UNABLE_TO_GET_ISSUER_CERT_LOCALLY")


def test_python_trusts_it_by_SSL_CERT_FILE(egress, origin):
    proxy = egress(origin())
    script = f"""
import socket, ssl
context = ssl.create_default_context()
context.verify_flags |= ssl.VERIFY_X509_STRICT
s = context.wrap_socket(socket.create_connection(("127.0.0.1", {proxy.port})), server_hostname="{HOST}")
s.sendall(b"GET /python HTTP/1.1\\r\\nHost: {HOST}\\r\\nConnection: close\\r\\n\\r\\n")
got = b""
while (part := s.recv(65536)): got += part
print(got.decode())"""
    done = run(sys.executable, "-c", script, env={**os.environ, "SSL_CERT_FILE": proxy.bundle})
    assert "x-path: /python" in done.stdout


def test_the_bundle_has_our_CA_and_the_systems_roots_and_no_key(egress, origin):
    proxy = egress(origin())
    text = pathlib.Path(proxy.bundle).read_text()
    assert os.stat(proxy.bundle).st_mode & 0o777 == 0o644
    assert text.endswith(pathlib.Path(SYSTEM).read_text()) and "PRIVATE KEY" not in text
    named = run("openssl", "x509", "-noout", "-subject", "-ext", "basicConstraints,keyUsage", "-in", proxy.bundle).stdout
    assert "ephor egress" in named and "CA:TRUE, pathlen:0" in named
    shown = json.loads(proxy.admin("/egress")[1])["ca"]
    digest = run("openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", proxy.bundle).stdout
    assert shown["sha256"] == digest.strip().split("=")[1].replace(":", "").lower() and not shown["mounted"]
    assert not [f for f in proxy.directory.rglob("*") if f.is_file() and b"PRIVATE KEY" in f.read_bytes()]


def test_a_certificate_is_for_a_day_begins_earlier_and_is_made_once(egress, origin):
    proxy = egress(origin())
    shown = set()
    for _ in range(3):
        with connect(proxy) as wire:
            shown.add(ssl.DER_cert_to_PEM_cert(wire.sock.getpeercert(binary_form=True)))
    assert len(shown) == 1 and json.loads(proxy.admin("/egress")[1])["ca"]["certificates_made"] == 1
    with connect(proxy) as wire:
        cert = wire.sock.getpeercert()
    life = ssl.cert_time_to_seconds(cert["notAfter"]) - ssl.cert_time_to_seconds(cert["notBefore"])
    assert life == 86400 + 3600 and cert["subjectAltName"] == (("DNS", HOST),)


@pytest.mark.parametrize("sni", ["API.Models.TEST", "api.models.test."])
def test_a_name_is_known_in_any_case_and_with_a_dot_at_its_end(egress, origin, sni):
    server = origin()
    proxy = egress(server)
    with connect(proxy, sni, verify=False) as wire:
        assert wire.send(f"GET /y HTTP/1.1\r\nHost: {sni}:443\r\n\r\n").response().status == 200
    assert server.names == [HOST]
    assert proxy.metric("ephor_egress_connections_total", how="intercepted") == 1


def test_a_wildcard_is_all_below_a_name_and_not_the_name(egress, origin):
    server = origin()
    proxy = egress(server, {"hosts": ["*.Wild.test"]})
    assert get(proxy, name="a.wild.test").status == 200
    with pytest.raises((ssl.SSLError, OSError)):  # passed through: the origin's own certificate, of a CA nobody knows here
        get(proxy, name="wild.test")
    until(lambda: proxy.metric("ephor_egress_connections_total", how="passthrough") == 1, "the passthrough to be counted")
    assert proxy.metric("ephor_egress_connections_total", how="intercepted") == 1


def test_a_client_without_alpn_is_understood_by_what_it_says(egress, origin):
    proxy = egress(origin())
    with connect(proxy, alpn=()) as wire:
        assert wire.sock.selected_alpn_protocol() is None
        assert wire.send(f"GET /plain HTTP/1.1\r\nHost: {HOST}\r\n\r\n").response().status == 200


def test_connections_to_a_host_are_used_again_for_it_and_for_no_other(egress, origin):
    server = origin()
    proxy = egress(server, {"hosts": ["*.wild.test"]}, workers=1)
    for name in ("a.wild.test", "b.wild.test", "a.wild.test", "b.wild.test"):
        assert get(proxy, name=name).status == 200
    assert server.names == ["a.wild.test", "b.wild.test"]
    assert [r.get("host") for r in server.requests] == ["a.wild.test", "b.wild.test"] * 2


def test_a_websocket_goes_through(egress, origin):
    def talk(wire, request):
        key = request.get("sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
                  f"Sec-WebSocket-Accept: {base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()}\r\n\r\n")
        wire.send(b"said " + wire.take(5))
        return "close"
    proxy = egress(origin(handler=talk))
    with connect(proxy) as wire:
        wire.send(f"GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        assert wire.response().status == 101
        assert wire.send(b"hello").take(10) == b"said hello"


def test_what_is_no_http_inside_goes_on_as_bytes_over_verified_tls(egress, origin):
    server = origin(raw=True, alpn=(), handler=lambda wire: wire.send(b"got " + wire.line()))
    proxy = egress(server)
    with connect(proxy, alpn=()) as wire:
        assert wire.send(b"\x00hello\n").line() == b"got \x00hello\n"
    assert server.names == [HOST]
    proxy.counted(1, "ephor_requests_total", protocol="tcp")


@pytest.mark.parametrize("tls", ["intercept", "originate"])
def test_no_answer_leads_away_to_quic(egress, origin, tls):
    proxy = egress(origin(handler=lambda wire, _: wire.send(wire1.answer(headers="Alt-Svc: h3=\":443\"\r\n"))), {"tls": tls})
    r = get(proxy) if tls == "intercept" else wire1.exchange(proxy.port, f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    assert r.status == 200 and r.get("alt-svc") is None


# --- policies and refusals ----------------------------------------------------------------------------------------------
def test_a_policy_judges_what_was_encrypted(egress, origin, policies):
    server = origin()
    directory = policies(models='return require("ephor.policy") {name = "models", match = {protocol = "openai"}, call = '
                                'function(c) if c.model == "forbidden" then return c:deny("not that one") end end}')
    proxy = egress(server, policies=directory)
    for model, status in (("allowed", "200"), ("forbidden", "403")):
        done = fetch(proxy, "-o", "/dev/null", "-w", "%{http_code}", "-d", json.dumps({"model": model, "messages": []}),
                     "-H", "content-type: application/json", "--request-target", "/v1/chat/completions")
        assert done.stdout == status
    assert len(server.requests) == 1


@pytest.mark.parametrize("key, says", [("expired", "expired"), ("elsewhere", "not for 'api.models.test'"),
                                       ("stranger", "not from a CA we trust")])
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_an_origin_that_is_not_who_it_should_be_is_refused_with_the_reason(egress, origin, key, says, version):
    server = origin(key)
    proxy = egress(server)
    done = fetch(proxy, version, "-w", "%{http_code}")
    problem = json.loads(done.stdout[:-3])
    assert done.stdout.endswith("502") and says in problem["detail"], problem
    assert not server.requests
    proxy.counted(1, "ephor_refusals_total", code="upstream.tls")


def test_without_roots_the_systems_are_meant(egress, origin):
    proxy = egress(origin(), {"roots": ""})
    assert get(proxy).status == 502


@pytest.mark.parametrize("version", ["http/1.1", "h2"])
@pytest.mark.parametrize("host", ["other.models.test", "evil.test", "", f"x@{HOST}", f"{HOST}.evil.test"])
def test_domain_fronting_is_misdirected(egress, origin, version, host):
    server = origin()
    proxy = egress(server, {"hosts": ["*.models.test"]})
    valid = host and "@" not in host
    if version == "h2":
        client = wire2.Client(proxy.port, tls=client_context(proxy, ("h2",)), authority=HOST)
        stream = client.request(pseudo=[(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "/")])
        if valid:
            assert stream.status == 421 and client.request().status == 200, "the connection goes on"
        else:
            assert stream.status in (400, 0), "the codec knows it for no authority"
        client.close()
    else:
        with connect(proxy) as wire:
            r = wire.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").response()
            assert r.status == 421 or (not valid and r.status == 400)
    assert not [r for r in server.requests if not r.get("host").startswith(HOST)]


def test_fronting_by_an_absolute_target_or_a_tunnel_is_misdirected_too(egress, origin):
    server = origin()
    proxy = egress(server)
    for line in ("GET http://evil.test/ HTTP/1.1", "CONNECT evil.test:443 HTTP/1.1"):
        with connect(proxy) as wire:
            assert wire.send(f"{line}\r\nHost: {HOST}\r\n\r\n").response("CONNECT").status in (400, 421)
    assert not server.requests
    assert proxy.metric("ephor_refusals_total", code="egress.misdirected") >= 1


# --- what isn't opened --------------------------------------------------------------------------------------------------
def origins_own(proxy, keys, name=HOST):
    context = ssl.create_default_context(cafile=keys["good"].roots)
    sock = socket.create_connection(("127.0.0.1", proxy.port), timeout=wire1.TIMEOUT)
    return wire1.Wire(context.wrap_socket(sock, server_hostname=name))


def test_what_passes_through_is_sealed_and_known_by_name(egress, origin, keys):
    proxy = egress(origin(), {"tls": "passthrough"}, cluster={"tls": "off"})
    with origins_own(proxy, keys) as wire:
        assert wire.send(f"GET /z HTTP/1.1\r\nHost: {HOST}\r\n\r\n").response().get("x-path") == "/z"
    assert proxy.metric("ephor_egress_connections_total", how="passthrough") == 1
    until(lambda: proxy.metric("ephor_call_blind_total", reason="encrypted") == 1, "the blind call to be counted")


def test_authorize_denies_by_the_name_in_the_client_hello(egress, origin, keys):
    proxy = egress(origin(), {"tls": "passthrough"}, listener={"authorize": [{"action": "deny", "hosts": [HOST]}]})
    with pytest.raises(OSError):
        origins_own(proxy, keys)
    with origins_own(proxy, keys, "other.models.test") as wire:
        assert wire.send("GET / HTTP/1.1\r\nHost: o\r\n\r\n").response().status == 200
    proxy.counted(1, "ephor_refusals_total", code="authorize.denied")


def test_a_policy_on_hosts_alone_judges_what_passes_by_its_name(egress, origin, keys, policies):
    directory = policies(hosts='return require("ephor.policy") {name = "hosts", call = function(c) '
                               'if c.host:find("^other") then return c:deny("not there") end end}')
    proxy = egress(origin(), {"tls": "passthrough"}, policies=directory)
    with origins_own(proxy, keys) as wire:
        assert wire.send("GET / HTTP/1.1\r\nHost: o\r\n\r\n").response().status == 200
    with pytest.raises(OSError):
        origins_own(proxy, keys, "other.models.test")
    proxy.counted(1, "ephor_policy_decisions_total", policy="hosts", decision="deny")


@pytest.mark.parametrize("unnamed", ["deny", "passthrough"])
@pytest.mark.parametrize("name", [None, "127.0.0.1"])
def test_tls_to_nobody_in_particular_is_as_configured(egress, origin, keys, unnamed, name):
    proxy = egress(origin(), {"hosts": ["*"]}, unnamed=unnamed)
    context = ssl.create_default_context(cafile=keys["good"].roots)
    context.check_hostname = name is not None
    sock = socket.create_connection(("127.0.0.1", proxy.port), timeout=wire1.TIMEOUT)
    if unnamed == "deny":
        with pytest.raises(OSError):
            context.wrap_socket(sock, server_hostname=name)
        proxy.counted(1, "ephor_refusals_total", code="egress.unnamed")
        assert proxy.metric("ephor_egress_connections_total", how="refused") == 1
    else:
        with wire1.Wire(context.wrap_socket(sock, server_hostname=name)) as wire:
            assert wire.send("GET / HTTP/1.1\r\nHost: o\r\n\r\n").response().status == 200
        assert proxy.metric("ephor_egress_connections_total", how="unnamed") == 1


def hello_with_ech(name=HOST):
    """A ClientHello with the grease of Encrypted Client Hello, which can't be told from a real one."""
    context, out = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.MemoryBIO()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    message = bytearray(out.read()[5:])
    outer = b"\0\0\1\0\1\x2a" + b"\0\x20" + os.urandom(32) + b"\0\x90" + os.urandom(144)
    extension = b"\xfe\x0d" + len(outer).to_bytes(2, "big") + outer
    at = 4 + 2 + 32
    at += 1 + message[at]
    at += 2 + int.from_bytes(message[at:at + 2], "big")
    at += 1 + message[at]
    message[at:at + 2] = (int.from_bytes(message[at:at + 2], "big") + len(extension)).to_bytes(2, "big")
    message[at + 2:at + 2] = extension
    message[1:4] = (len(message) - 4).to_bytes(3, "big")
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + bytes(message)


@pytest.mark.parametrize("tls, unnamed, how", [("passthrough", "deny", "refused"), ("passthrough", "passthrough", "hidden"),
                                               ("intercept", "deny", "intercepted")])
def test_encrypted_client_hello_hides_a_name_that_would_pass_and_no_other(egress, origin, tls, unnamed, how):
    proxy = egress(origin(), {"tls": tls}, unnamed=unnamed)
    with wire1.connect(proxy.port) as wire:
        wire.send(hello_with_ech())
        if how == "refused":
            assert wire.closed()
        else:
            assert wire.take(1) == b"\x16", "a ServerHello"
    until(lambda: proxy.metric("ephor_egress_connections_total", how=how) == 1, "it to be counted")


# --- clients that pin ---------------------------------------------------------------------------------------------------
def pinned(proxy, keys):
    """A client that takes the origin's own CA only: tells by an alert."""
    return curl("--connect-to", f"::127.0.0.1:{proxy.port}", "--cacert", keys["good"].roots, f"https://{HOST}/", check=False)


def test_a_pinned_client_goes_on_being_refused_and_is_told_of(egress, origin, keys):
    proxy = egress(origin())
    for _ in range(3):
        assert pinned(proxy, keys).returncode == 60
    proxy.counted(3, "ephor_egress_pinned_total", host=HOST, sign="alert")
    shown = json.loads(proxy.admin("/egress")[1])["pinned"]
    assert [(p["host"], p["source"], p["alerts"], p["sure"]) for p in shown] == [(HOST, "127.0.0.1", 3, True)]
    assert proxy.log.count("refuses our certificate") == 1, "once an hour and host"
    assert proxy.metric("ephor_egress_connections_total", how="passthrough") == 0


def test_a_pinned_client_passes_where_that_is_asked_for(egress, origin, keys):
    server = origin()
    proxy = egress(server, {"on_pinned": "passthrough"})
    assert pinned(proxy, keys).returncode == 60
    until(lambda: proxy.metric("ephor_egress_pinned_total", sign="alert") == 1, "the refusal to be known")
    assert pinned(proxy, keys).returncode == 0 and len(server.requests) == 1
    assert proxy.metric("ephor_egress_connections_total", how="pinned") == 1


def test_one_that_only_closes_passes_after_three_and_not_when_it_had_sent_a_request(egress, origin, keys):
    proxy = egress(origin(), {"on_pinned": "passthrough"})

    def closes(times):
        before = proxy.metric("ephor_egress_pinned_total", sign="closed")
        for k in range(times):
            connect(proxy).close()
            until(lambda: proxy.metric("ephor_egress_pinned_total", sign="closed") == before + k + 1, "the close to be counted")
    closes(2)
    assert get(proxy).status == 200
    until(lambda: proxy.metric("ephor_connections_active") == 0, "the connection to be over")
    closes(2)
    assert get(proxy).status == 200, "two, and a request in between"
    until(lambda: proxy.metric("ephor_connections_active") == 0, "the connection to be over")
    closes(3)
    with pytest.raises(ssl.SSLError):
        get(proxy)  # the origin's own certificate now
    assert proxy.metric("ephor_egress_connections_total", how="pinned") == 1


# --- originate ----------------------------------------------------------------------------------------------------------
def test_a_plain_request_goes_out_over_tls(egress, origin):
    server = origin()
    proxy = egress(server, {"tls": "originate"})
    r = wire1.exchange(proxy.port, f"GET /plain HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    assert r.status == 200 and r.get("x-path") == "/plain" and server.names == [HOST]


def test_an_originated_request_is_verified_too(egress, origin):
    proxy = egress(origin("elsewhere"), {"tls": "originate"})
    assert wire1.exchange(proxy.port, f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()).status == 502


# --- configurations, many hosts -----------------------------------------------------------------------------------------
def test_a_reload_keeps_the_ca_and_live_connections(egress, origin, keys):
    server = origin()
    proxy = egress(server)
    before = pathlib.Path(proxy.bundle).read_text()
    with connect(proxy) as wire:
        for number in range(5):
            assert wire.send(f"GET /{number} HTTP/1.1\r\nHost: {HOST}\r\n\r\n").response().status == 200
            changed = proxy.path.read_text().replace("drain:", f"node: {{service: s{number}}}\ndrain:", 1) if number == 0 else \
                proxy.path.read_text().replace(f"service: s{number - 1}", f"service: s{number}")
            proxy.reload(changed)
        gone = proxy.path.read_text().replace("tls: intercept", "tls: passthrough").replace(
            f"  roots: {keys['good'].roots}\n", "")
        proxy.reload(gone)
        assert wire.send(f"GET /last HTTP/1.1\r\nHost: {HOST}\r\n\r\n").response().status == 200, "what was opened stays open"
        assert wire.send("GET /other HTTP/1.1\r\nHost: evil.test\r\n\r\n").response().status == 421
    with origins_own(proxy, keys) as wire:
        assert wire.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").response().status == 200
    proxy.reload(changed)
    assert get(proxy).status == 200 and pathlib.Path(proxy.bundle).read_text() == before
    os.unlink(proxy.bundle)
    proxy.reload(changed.replace("s4", "s5"))
    assert pathlib.Path(proxy.bundle).read_text() == before, "a bundle that went is written again"


def test_other_roots_are_taken_by_a_reload_for_new_connections(egress, origin, keys):
    proxy = egress(origin("stranger"))
    assert get(proxy).status == 502
    proxy.reload(proxy.path.read_text().replace(keys["good"].roots, keys["stranger"].roots))
    assert get(proxy).status == 200


def test_a_mounted_ca_signs(ephor, origin, keys, tmp_path):
    ca = pki.roots(tmp_path, "corporate")
    rule = {"hosts": [HOST], "tls": "intercept", "roots": keys["good"].roots}
    made = config(origin().port, {"direction": "outbound"}, egress=[rule],
                  egress_tls={"certificate": ca, "key": ca.replace(".pem", ".key")})
    proxy = ephor(made)
    proxy.bundle = ca
    assert get(proxy).status == 200
    shown = json.loads(proxy.admin("/egress")[1])["ca"]
    assert shown["mounted"] and "bundle" not in shown


def test_a_certificate_that_is_no_ca_or_another_key_is_refused(ephor, origin, keys, tmp_path):
    pki.roots(tmp_path, "one"), pki.roots(tmp_path, "two")
    rule = {"hosts": [HOST], "tls": "intercept", "roots": keys["good"].roots}
    for certificate, key, says in ((keys["good"].certificate, keys["good"].key, "not that of a CA"),
                                   (tmp_path / "one.pem", tmp_path / "two.key", "not that of the certificate")):
        made = config(1, {"direction": "outbound"}, egress=[rule], egress_tls={"certificate": str(certificate), "key": str(key)})
        proxy = ephor(made, ready=False)
        until(lambda: not proxy.process.alive(), "ephor to give up")
        assert says in proxy.log
        proxy.stopped = True


def test_many_hosts_are_kept_within_a_bound(egress, origin):
    proxy = egress(origin(), {"hosts": ["*.wild.test"]}, workers=1)
    n = 1100 if SLOW == 1 else 1040
    for number in range(n):
        sock = socket.create_connection(("127.0.0.1", proxy.port), timeout=wire1.TIMEOUT)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(sock, server_hostname=f"h{number}.wild.test"):
            pass
    shown = json.loads(proxy.admin("/egress")[1])
    assert shown["ca"]["certificates_kept"] == 1024 and shown["ca"]["certificates_made"] == n
    until(lambda: len(json.loads(proxy.admin("/egress")[1])["pinned"]) == 256, "the list of who closed to be full")
    assert get(proxy, name="h0.wild.test").status == 200, "one that left is made anew"


@pytest.mark.measured
def test_what_a_certificate_costs(egress, origin, capsys):
    """CPU of a handshake for a name that is new, over one for a name that is known; and memory with the system's roots."""
    proxy = egress(origin(), {"hosts": ["*.wild.test"]}, {"hosts": ["real.test"], "roots": ""}, workers=1)

    def cpu_us():
        return sum(int(open(f"/proc/{proxy.pid}/task/{task}/schedstat").read().split()[0])
                   for task in os.listdir(f"/proc/{proxy.pid}/task")) / 1000

    def handshakes(names):
        context = client_context(proxy, verify=False)
        before = cpu_us()
        for name in names:
            with context.wrap_socket(socket.create_connection(("127.0.0.1", proxy.port)), server_hostname=name):
                pass
        return (cpu_us() - before) / len(names)
    handshakes(["warm.wild.test"] * 20)
    new, known = handshakes([f"h{k}.wild.test" for k in range(300)]), handshakes([f"h{k}.wild.test" for k in range(300)])
    with capsys.disabled():
        print(f"\n  a handshake: {known:.0f} us of CPU, with a new certificate {new:.0f} us; RssAnon {proxy.rss('RssAnon') >> 10} KiB")
    assert new - known < 1000


def test_workers_share_one_ca(egress, origin):
    proxy = egress(origin(), workers=2)
    for _ in range(16):
        assert get(proxy).status == 200
    assert json.loads(proxy.admin("/egress")[1])["ca"]["certificates_made"] <= 2


# --- a pod of its own: connections bent to ephor by the kernel ----------------------------------------------------------
@pytest.fixture
def shared():
    """A directory that the sidecar's user can read and write, as a pod's volume."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ephor-egress-"))
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def origin_at(keys, port, key="good"):
    server = Origin(keys[key])
    server.listener.close()
    server.listener = socket.create_server((APP, port), backlog=64)
    server.port = port
    return server


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("how", ["redirect", "tproxy"])
def test_an_app_in_a_pod_calls_its_origin_and_is_seen(sidecar, shared, keys, how):
    """The app dials the origin itself; what it gets is ours, what goes out goes where it dialled."""
    bundle, roots = shared / "ca.pem", shared / "roots.pem"
    shutil.copy(keys["good"].roots, roots)
    roots.chmod(0o644)
    made = config([], {"name": "inbound", "bind": "0.0.0.0:15001", "direction": "outbound", "intercept": how},
                  {"original_destination": True},
                  egress=[{"hosts": [HOST], "tls": "intercept", "roots": str(roots), "ports": [8080]},
                          {"hosts": ["plain.wild.test"], "tls": "originate", "roots": str(roots), "origin_port": 8443}],
                  egress_tls={"bundle": str(bundle)})
    with origin_at(keys, 8080) as server, origin_at(keys, 8443) as other:
        {"redirect": redirect, "tproxy": tproxy}[how]()
        proxy = sidecar(made, **({"capabilities": "net_admin"} if how == "tproxy" else {}))
        trusts = ssl.create_default_context(cafile=str(bundle))
        for k in range(3):
            with wire1.Wire(trusts.wrap_socket(socket.create_connection((APP, 8080), timeout=wire1.TIMEOUT),
                                               server_hostname=HOST)) as wire:
                r = wire.send(f"GET /pod{k} HTTP/1.1\r\nHost: {HOST}\r\n\r\n").response()
                assert r.status == 200 and r.get("x-path") == f"/pod{k}"
        assert server.names[0] == HOST and len(server.requests) == 3
        assert proxy.metric("ephor_egress_connections_total", how="intercepted") == 3
        with wire1.connect(8080, APP) as wire:
            r = wire.send("GET /plain HTTP/1.1\r\nHost: plain.wild.test\r\n\r\n").response()
        assert r.status == 200 and other.names == ["plain.wild.test"] and other.requests[0].path == "/plain"
        if how == "redirect":  # another port: no rule is about it
            own = ssl.create_default_context(cafile=keys["good"].roots)
            with wire1.Wire(own.wrap_socket(socket.create_connection((APP, 8443), timeout=wire1.TIMEOUT),
                                            server_hostname=HOST)) as wire:
                assert wire.send(f"GET /through HTTP/1.1\r\nHost: {HOST}\r\n\r\n").response().status == 200
            assert proxy.metric("ephor_egress_connections_total", how="passthrough") == 1
