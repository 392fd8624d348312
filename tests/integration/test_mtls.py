"""mTLS between workloads: who gets in, who doesn't, and certificates that change while requests run."""
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pki
import pytest
import wire1
from harness import config, curl, h2load, nghttpd, program, until
from wire2 import Client

PLANNER = "spiffe://cluster.local/ns/agents/sa/planner"
TOOLS = "spiffe://cluster.local/ns/agents/sa/tools"


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """One root; two workloads of the mesh, and those that must not get in."""
    d = tmp_path_factory.mktemp("keys")
    pki.roots(d)
    pki.roots(d, "others")
    made = {"planner": pki.leaf(d, "planner", PLANNER), "tools": pki.leaf(d, "tools", TOOLS),
            "foreign": pki.leaf(d, "foreign", "spiffe://other.domain/ns/agents/sa/planner"),
            "expired": pki.leaf(d, "expired", PLANNER, days=-1), "nameless": pki.leaf(d, "nameless", None),
            "stranger": pki.leaf(d, "stranger", PLANNER, signer="others")}
    return made


def identity(leaf):
    return {"files": {"certificate": leaf.certificate, "key": leaf.key, "roots": leaf.roots}, "trust_domain": "cluster.local"}


def tls_client(leaf=None, roots=None, alpn=("h2",), version=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if roots:
        context.load_verify_locations(roots)
    else:
        context.verify_mode = ssl.CERT_NONE
    if leaf:
        context.load_cert_chain(leaf.certificate, leaf.key)
    context.set_alpn_protocols(list(alpn))
    if version:
        context.minimum_version = context.maximum_version = version
    return context


@pytest.fixture
def strict(ephor, h1_server, keys):
    server = h1_server()
    proxy = ephor(config(server.port, listener={"tls": "strict"}, cluster={"protocol": "http/1.1"},
                         identity=identity(keys["tools"])))
    proxy.server = server
    return proxy


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_a_workload_of_the_mesh_gets_in(strict, keys, version):
    with Client(strict.port, tls=tls_client(keys["planner"], keys["tools"].roots, version=version)) as client:
        assert client.sock.selected_alpn_protocol() == "h2"
        assert client.request("/in").get("x-path") == "/in"
    until(lambda: strict.metric("ephor_tls_handshakes_total", side="server", result="ok") >= 1, "the count")


@pytest.mark.parametrize("who", ["nobody", "foreign", "expired", "nameless", "stranger"])
def test_all_others_stay_out(strict, keys, who):
    with pytest.raises((OSError, ssl.SSLError, AssertionError)):
        with Client(strict.port, tls=tls_client(keys.get(who), keys["tools"].roots)) as client:
            assert client.request("/in").status == 200
    assert not strict.server.requests


def test_a_certificate_of_ours_that_has_ended_is_told(ephor, h1_server, keys):
    proxy = ephor(config(h1_server().port, listener={"tls": "strict"}, identity=identity(keys["expired"])))
    until(lambda: "the identity's certificate ended at 20" in proxy.log, "a warning")
    assert 0 < proxy.metric("ephor_certificate_expiry_seconds", identity="files") < time.time()


def test_plain_text_stays_out_of_strict(strict):
    with wire1.connect(strict.port) as wire:
        assert b"200" not in wire.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n").rest()
    assert not strict.server.requests


def test_http_1_1_over_mtls(strict, keys):
    out = curl("--http1.1", "-k", "--cert", keys["planner"].certificate, "--key", keys["planner"].key, "-o", "/dev/null", "-w",
               "%{http_version} %{http_code}", f"https://127.0.0.1:{strict.port}/")
    assert out.stdout == "1.1 200"


def test_sessions_are_resumed(strict, keys):
    out = subprocess.run([program("openssl"), "s_client", "-connect", f"127.0.0.1:{strict.port}", "-cert",
                          keys["planner"].certificate, "-key", keys["planner"].key, "-tls1_2", "-reconnect"],
                         input="", capture_output=True, text=True, timeout=30).stdout
    assert "Reused, TLSv1.2" in out


def test_permissive_takes_both(ephor, h1_server, keys):
    proxy = ephor(config(h1_server().port, listener={"tls": "permissive"}, cluster={"protocol": "http/1.1"},
                         identity=identity(keys["tools"])))
    assert wire1.get(proxy.port, "/plain").status == 200
    with Client(proxy.port, tls=tls_client(keys["planner"])) as client:
        assert client.request("/tls").status == 200


def test_simple_asks_for_no_certificate(ephor, h1_server, keys):
    proxy = ephor(config(h1_server().port, listener={"tls": "simple"}, cluster={"protocol": "http/1.1"},
                         identity=identity(keys["tools"])))
    out = curl("--cacert", keys["tools"].roots, f"https://localhost:{proxy.port}/", "-o", "/dev/null", "-w", "%{http_code}",
               "--connect-to", f"localhost:{proxy.port}:127.0.0.1:{proxy.port}")
    assert out.stdout == "200"


def test_authorize_lets_in_by_principal_method_and_path(ephor, h1_server, keys):
    rules = [{"principals": ["spiffe://cluster.local/ns/agents/sa/planner"], "methods": ["POST"], "paths": ["/mcp"]}]
    proxy = ephor(config(h1_server().port, listener={"tls": "strict", "authorize": rules}, cluster={"protocol": "http/1.1"},
                         identity=identity(keys["tools"])))
    with Client(proxy.port, tls=tls_client(keys["planner"])) as client:
        assert client.request("/mcp", "POST", body=b"{}").status == 200
        assert client.request("/mcp", "GET").status == 403
        assert client.request("/other", "POST", body=b"").status == 403
    with Client(proxy.port, tls=tls_client(keys["tools"])) as client:
        assert client.request("/mcp", "POST", body=b"{}").status == 403


def pair(ephor, upstream, keys, peers=None, outbound="planner", protocol="http/1.1", inbound_keys=None):
    inbound = ephor(config(upstream, listener={"tls": "strict", "direction": "inbound"}, cluster={"protocol": protocol},
                           identity=identity(inbound_keys or keys["tools"])))
    tls = {"mode": "mesh", **({"peers": peers} if peers else {})}
    return inbound, ephor(config(inbound.port, listener={"direction": "outbound"}, cluster={"tls": tls},
                                 identity=identity(keys[outbound])))


def test_two_ephors_speak_h2_over_mtls_whatever_the_apps_speak(ephor, h1_server, keys):
    server = h1_server()
    inbound, outbound = pair(ephor, server.port, keys, peers=[TOOLS])
    r = wire1.get(outbound.port, "/far", method="POST", body=b"x" * 2048)
    assert r.status == 200 and r.body == b"x" * 2048 and server.requests[0].get("host") == "test"
    for i in range(20):
        assert wire1.get(outbound.port, f"/{i}").status == 200
    assert inbound.metric("ephor_connections_total") == 1, "one connection carries it all"


def test_a_server_of_another_name_is_not_trusted(ephor, h1_server, keys):
    server = h1_server()
    _, outbound = pair(ephor, server.port, keys, peers=["spiffe://cluster.local/ns/agents/sa/someone-else"])
    assert wire1.get(outbound.port).status in (502, 503)
    assert not server.requests


def test_a_client_that_the_server_refuses_sees_a_503(ephor, h1_server, keys):
    server = h1_server()
    _, outbound = pair(ephor, server.port, keys, outbound="stranger")
    assert wire1.get(outbound.port).status in (502, 503)
    assert not server.requests


def test_mesh_never_falls_back_to_plain_text(ephor, h1_server, keys):
    server = h1_server()
    outbound = ephor(config(server.port, cluster={"tls": {"mode": "mesh"}, "connect_timeout": "1s"},
                            identity=identity(keys["planner"])))
    assert wire1.get(outbound.port).status in (502, 503, 504)
    assert not server.requests, "nothing was said in the clear"


def swap_data(directory, leaf, number):
    """What the kubelet does: a new folder, and `..data` renamed onto it."""
    fresh = directory / f"..{number}"
    fresh.mkdir()
    for name, path in (("tls.crt", leaf.certificate), ("tls.key", leaf.key), ("ca.crt", leaf.roots)):
        shutil.copy(path, fresh / name)
    link = directory / "..data_tmp"
    link.symlink_to(fresh.name)
    os.replace(link, directory / "..data")


@pytest.mark.limit(90)
def test_certificates_change_under_load_and_nothing_fails(ephor, process, tmp_path, site, keys):
    _, upstream = process(nghttpd(tmp_path, site))
    mount = tmp_path / "mount"
    mount.mkdir()
    swap_data(mount, keys["tools"], 0)
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (mount / name).symlink_to(f"..data/{name}")
    files = {"certificate": str(mount / "tls.crt"), "key": str(mount / "tls.key"), "roots": str(mount / "ca.crt")}
    inbound = ephor(config(upstream, listener={"tls": "strict"}, cluster={"protocol": "h2"},
                           identity={"files": files, "trust_domain": "cluster.local"}))
    outbound = ephor(config(inbound.port, cluster={"tls": {"mode": "mesh"}}, identity=identity(keys["planner"])))
    result = {}
    load = threading.Thread(target=lambda: result.update(h2load(outbound.port, "-n", "60000", "-c", "8", "-m", "8",
                                                                path="/small", check=False)))
    load.start()
    for number in range(1, 6):
        leaf = pki.leaf(keys["tools"].directory, f"rotated{number}", TOOLS)
        swap_data(mount, leaf, number)
        until(lambda: client_sees(inbound.port, keys["planner"]) == certificate_of(leaf), "the new certificate")
    load.join()
    assert result["succeeded"] == result["total"] == result["2xx"], result["text"]


def client_sees(port, leaf):
    with socket.create_connection(("127.0.0.1", port)) as s, tls_client(leaf).wrap_socket(s) as t:
        return t.getpeercert(binary_form=True)


def certificate_of(leaf):
    return ssl.PEM_cert_to_DER_cert(open(leaf.certificate).read())


def test_no_key_is_ever_logged(strict, keys):
    with Client(strict.port, tls=tls_client(keys["planner"])) as client:
        client.request("/")
    secret = open(keys["tools"].key).read().splitlines()[1]
    assert secret not in strict.log and secret not in strict.admin("/config")[1] and "PRIVATE KEY" not in strict.log
