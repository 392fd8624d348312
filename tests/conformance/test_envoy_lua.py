"""Scripts in the style that people run under Envoy, as they stand in envoy_lua/: each is played against real peers, and what the
client and the server saw is what Envoy's documentation says they see. All of them are written for these tests."""
import base64
import binascii
import json
import pathlib
import ssl
import subprocess
import zlib

import pki
import pytest
import wire1
import wire2
from harness import config, until

SCRIPTS = pathlib.Path(__file__).resolve().parent / "envoy_lua"
played = set()


@pytest.fixture
def play(ephor, h1_server):
    """play("name", …): a proxy with that script in front of an app, and a second cluster `auth`."""
    def start(name, app=None, auth=None, protocol="http/1.1", cluster=None, listener=None, route=None, context=None, **top):
        played.add(name)
        server = app if hasattr(app, "port") else h1_server(app)
        helper = h1_server(auth)
        lua = {"lua": {"name": name, "file": str(SCRIPTS / f"{name}.lua"), "budget": {"time": "1s"}, **({"filter_context": context} if context else {})}}
        configuration = config(server.port, {"filters": ["identity", lua], **(listener or {})},
                               cluster={"protocol": protocol, **(cluster or {})}, **top)
        if route:
            del configuration["listeners"][0]["cluster"]
            configuration["listeners"][0]["routes"] = [{"cluster": "app", **route}]
        configuration["clusters"].append({"name": "auth", "endpoints": [f"127.0.0.1:{helper.port}"], "protocol": "http/1.1"})
        proxy = ephor(configuration)
        proxy.server, proxy.auth = server, helper
        return proxy
    return start


def b64url(data):
    return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()


def test_jwt_claim_header(play):
    proxy = play("jwt_claim_header")
    token = f"{b64url({'alg': 'none'})}.{b64url({'sub': 'alice@example', 'role': 'ädmin'})}.sig"
    assert wire1.get(proxy.port, headers=f"Authorization: Bearer {token}\r\n").get("x-got-x-jwt-sub") == "alice@example"
    assert wire1.get(proxy.port, headers="X-Jwt-Sub: forged\r\n").get("x-got-x-jwt-sub") is None
    wire1.get(proxy.port, headers="Authorization: Basic x\r\n")
    assert "script log: no JWT in authorization" in proxy.log


def test_mask_card_numbers(play):
    proxy = play("mask_card_numbers", app=lambda wire, request: wire.send(wire1.answer("card 1111-2222-3333-4444 and 1")))
    r = wire1.get(proxy.port, method="POST", body=b"pay 5500 0000 0000 0004 and 5500000000000005")
    assert proxy.server.requests[0].body == b"pay ****-****-****-0004 and ****-****-****-0005"
    assert proxy.server.requests[0].get("x-masked") == "2"
    assert r.body == b"card ****-****-****-4444 and 1" and r.get("x-masked") == "1"
    assert wire1.get(proxy.port).body == b"card ****-****-****-4444 and 1" and proxy.server.requests[1].get("x-masked") is None


def test_external_authorization(play):
    def auth(wire, request):
        good = request.get("authorization") == "Bearer good"
        wire.send(wire1.answer("" if good else "no such token", "200 OK" if good else "403 Forbidden", "X-User: alice\r\n"))
    proxy = play("external_authorization", auth=auth)
    r = wire1.get(proxy.port, "/orders?x=1", headers="Authorization: Bearer good\r\n")
    assert r.status == 200 and r.get("x-got-x-user") == "alice" and r.get("x-got-authorization") is None
    assert proxy.auth.requests[0].path == "/check/orders?x=1"
    r = wire1.get(proxy.port, headers="Authorization: Bearer bad\r\n")
    assert (r.status, r.body, r.get("www-authenticate")) == (401, b"no such token", "Bearer")
    proxy.auth.close()
    r = wire1.get(proxy.port, headers="Authorization: Bearer good\r\n")
    assert (r.status, r.body) == (503, b"upstream failure")
    assert len(proxy.server.requests) == 1


def test_scan_upload(play):
    proxy = play("scan_upload")
    assert wire1.get(proxy.port, method="POST", body=b"x" * 100000).body == b"x" * 100000
    until(lambda: "script log: clean upload of 100000 bytes" in proxy.log, "the line of the script")
    with wire2.Client(proxy.port) as client:
        stream = client.start("/", "POST", end=False)
        client.send_data(stream.id, b"harmless EICAR-STAND")
        client.flush()
        client.send_data(stream.id, b"ARD harm")
        r = client.finish(stream)
        assert (r.status, r.get("x-reason"), bytes(r.body)) == (422, "malware", b"malware")
    with wire1.connect(proxy.port) as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b"y" * 4096 + b"\r\n")
        wire.send((b"1000\r\n" + b"y" * 4096 + b"\r\n") * 24)
        r = wire.response()
        assert (r.status, r.body) == (413, b"too long")
    assert [len(q.body) for q in proxy.server.requests] == [100000]


def test_inject_banner(play):
    def app(wire, request):
        kind = "text/html; charset=utf-8" if request.path == "/" else "application/json"
        wire.send(wire1.answer("<body>hi</body>", headers=f"Content-Type: {kind}\r\n"))
    proxy = play("inject_banner", app=app)
    r = wire1.get(proxy.port, headers="Accept-Encoding: gzip\r\n")
    assert r.body == b"<body>hi<p>staging</p></body>" and proxy.server.requests[0].get("accept-encoding") is None
    assert wire1.get(proxy.port, "/api").body == b"<body>hi</body>"


def test_metadata_handover(play):
    proxy = play("metadata_handover")
    r = wire1.get(proxy.port, "/a?b", headers="User-Agent: me/1\r\n")
    assert r.get("x-request") == "GET /a?b by me/1" and r.get("x-took") == "some"
    assert r.get("x-namespace") == "envoy.filters.http.lua"


def test_token_cache(play):
    proxy = play("token_cache", auth=lambda wire, request: wire.send(wire1.answer(f"t{len(proxy.auth.requests)}")))
    for _ in range(5):
        assert wire1.get(proxy.port).get("x-got-authorization") == "Bearer t1"
    assert [(q.method, q.path, q.body) for q in proxy.auth.requests] == [("POST", "/token", b"client=ephor")]


def test_token_cache_without_a_service(play):
    proxy = play("token_cache", auth=lambda wire, request: "close")
    assert [wire1.get(proxy.port).status for _ in range(2)] == [502, 502] and proxy.server.requests == []


@pytest.mark.parametrize("path, clean", [
    ("//a///b", "/a/b"), ("/a/./b/../c?x=/../y", "/a/c?x=/../y"), ("/%61%2fb/", "/a%2Fb/"), ("/", "/"),
    ("/../etc/passwd", None), ("/%2e%2e/x", None), ("/a/..", "/"),
])
def test_normalise_path(play, path, clean):
    proxy = play("normalise_path")
    r = wire1.get(proxy.port, path)
    assert (r.status, [q.path for q in proxy.server.requests]) == ((200, [clean]) if clean else (400, []))


def test_ab_by_cookie(play):
    proxy = play("ab_by_cookie")
    first, second = wire1.get(proxy.port, "/x"), wire1.get(proxy.port, "/x")
    assert first.get("set-cookie") == "variant=a; Path=/; HttpOnly" and second.get("set-cookie").startswith("variant=b")
    assert (first.get("x-path"), second.get("x-path")) == ("/x", "/next/x")
    r = wire1.get(proxy.port, "/x", headers="Cookie: theme=dark; variant=b\r\n")
    assert r.get("x-got-x-variant") == "b" and r.get("set-cookie") is None and r.get("x-path") == "/next/x"


def test_maintenance(play):
    metadata = {"maintenance": {"maintenance": True, "open": ["/healthz", "/status"], "minutes": 2}}
    proxy = play("maintenance", route={"metadata": metadata})
    r = wire1.get(proxy.port)
    assert (r.status, r.get("retry-after"), r.get("content-type"), r.body) == (503, "120", "text/html", b"<h1>Back soon</h1>")
    assert wire1.get(proxy.port, "/healthz").status == 200
    assert wire1.get(proxy.port, headers="X-Operator: yes\r\n").status == 200


def test_maintenance_is_over(play):
    assert wire1.get(play("maintenance").port).status == 200


def test_cors(play):
    proxy = play("cors")
    ask = "Origin: {}\r\nAccess-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-a\r\n"
    r = wire1.get(proxy.port, method="OPTIONS", headers=ask.format("https://app.example"))
    assert (r.status, r.get("access-control-allow-methods"), r.get("access-control-allow-headers")) == (204, "GET, POST, PUT", "x-a")
    assert r.get("access-control-allow-origin") == "https://app.example" and r.get("access-control-max-age") == "600"
    assert wire1.get(proxy.port, method="OPTIONS", headers=ask.format("https://evil.example")).status == 403
    r = wire1.get(proxy.port, headers="Origin: https://admin.example\r\n")
    assert (r.status, r.get("access-control-allow-origin"), r.get("vary")) == (200, "https://admin.example", "origin")
    assert wire1.get(proxy.port, headers="Origin: https://evil.example\r\n").get("access-control-allow-origin") is None
    assert {q.method for q in proxy.server.requests} == {"GET"}


def test_body_digest(play):
    proxy = play("body_digest")
    body = bytes(range(256)) * 4
    r = wire1.get(proxy.port, method="POST", body=body)
    crc = zlib.crc32(body)
    assert r.get("x-got-x-crc32") == base64.b64encode(crc.to_bytes(4, "big")).decode()
    assert r.get("x-got-x-crc32-hex") == f"{crc:08x}"
    assert wire1.get(proxy.port).get("x-got-x-crc32") is None


def test_access_notes(play):
    proxy = play("access_notes")
    assert proxy.admin("/logging?level=trace", "POST")[0] == 200
    assert wire1.get(proxy.port, "/here").status == 200
    said = {(row["level"], row["message"]) for row in map(json.loads, filter(lambda x: x.startswith("{"), proxy.log.splitlines()))
            if row.get("topic") == "lua" and "script log" in row["message"]}
    assert {("trace", "script log: trace"), ("debug", "script log: debug"), ("warn", "script log: 42"),
            ("error", "script log: an error, only noted"), ("error", "script log: from a header object")} <= said
    assert any(text.startswith("script log: GET /here from 127.0.0.1:") and text.endswith("by HTTP/1.1 on inbound/0")
               for level, text in said if level == "info")


def test_filter_state(play):
    r = wire1.get(play("filter_state").port, headers="X-Tenant: acme\r\n")
    assert r.get("x-tenant-was") == "acme" and r.get("x-absent") == "nilnil"


def test_redirect_to_https(play):
    proxy = play("redirect_to_https")
    r = wire1.exchange(proxy.port, b"GET /a?b=c HTTP/1.1\r\nHost: shop.example:8080\r\n\r\n")
    assert (r.status, r.get("location"), r.body) == (301, "https://shop.example/a?b=c", b"")
    assert r.all("set-cookie") == ["seen=1", "from=http"] or set(r.all("set-cookie")) == {"seen=1", "from=http"}
    assert wire1.get(proxy.port, headers="X-Forwarded-Proto: https\r\n").status == 200
    assert wire1.get(proxy.port, "/.well-known/acme-challenge/x").status == 200


@pytest.mark.parametrize("method, status", [("Delete", "7"), ("Slow", "14"), ("Who", "16")])
def test_grpc_guard(play, method, status):
    proxy = play("grpc_guard")
    with wire2.Client(proxy.port) as client:
        r = client.request(f"/orders.Orders/{method}", "POST", [("content-type", "application/grpc"), ("te", "trailers")], b"\0" * 5)
        assert (r.status, r.get("grpc-status"), bytes(r.body)) == (200, status, b"")
        assert r.get("grpc-message") == "method is closed: 100%25"
    r = wire1.get(proxy.port, f"/orders.Orders/{method}")
    assert r.status in (401, 403, 503) and r.body == b"method is closed: 100%"


def test_retry_call(play):
    def flaky(wire, request):
        if request.get("x-try") == "1":
            return "close"
        good = request.get("x-try") == "3"
        wire.send(wire1.answer("17" if good else "", "200 OK" if good else "500 No"))
        return None
    proxy = play("retry_call", auth=flaky)
    assert wire1.get(proxy.port).get("x-got-x-quota") == "17"
    assert [q.get("x-try") for q in proxy.auth.requests if q.get("x-try") != "1"] == ["2", "3"]
    assert "script log: try 1 gave 503" in proxy.log and "script log: try 2 gave 500" in proxy.log


def test_strip_and_copy(play):
    proxy = play("strip_and_copy")
    r = wire1.get(proxy.port, headers="X-Internal-A: 1\r\nX-List: a\r\nX-List: b\r\nX-Internal-B: 2\r\nX-Secret: s\r\nX-Empty:\r\n")
    seen = proxy.server.requests[0]
    assert seen.get("x-internal-a") is None and seen.get("x-internal-b") is None
    assert seen.all("x-copy") == ["a", "b"] and int(seen.get("x-count")) >= 10  # with the pseudo-headers
    assert r.get("x-got-x-secret") is None and r.get("x-got-x-list") is not None


def test_trailers(play, h2_server):
    proxy = play("trailers", app=h2_server(), protocol="h2")
    with wire2.Client(proxy.port) as client:
        r = client.request("/", "POST", body=b"hello", trailers=[("x-sum", "17")])
        assert r.status == 200 and bytes(r.body) == b"hello"
        assert r.trailer("x-got-x-checked") == "sum 17" and r.trailer("x-bytes") == "5"
        r = client.request("/", "POST", body=b"hello")
        assert r.status == 200 and list(r.trailers) == []


def test_rate_limit(play):
    proxy = play("rate_limit")
    answers = [wire1.get(proxy.port) for _ in range(5)]
    assert [r.status for r in answers] == [200, 200, 200, 429, 429]
    assert 900 < int(answers[3].get("retry-after")) <= 1000 and answers[4].body == b"slow down"


def test_client_certificate(play, tmp_path):
    spiffe = "spiffe://cluster.local/ns/agents/sa/"
    pki.roots(tmp_path)
    client, server = pki.leaf(tmp_path, "planner", spiffe + "planner"), pki.leaf(tmp_path, "tools", spiffe + "tools")
    identity = {"files": {"certificate": server.certificate, "key": server.key, "roots": server.roots},
                "trust_domain": "cluster.local"}
    proxy = play("client_certificate", listener={"tls": "permissive"}, identity=identity)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(client.roots)
    context.load_cert_chain(client.certificate, client.key)
    context.set_alpn_protocols(["h2"])
    with wire2.Client(proxy.port, tls=context) as c:
        r = c.request("/", headers=[("x-forwarded-client-cert", "forged")])
    assert r.status == 200
    fields = dict(part.split("=", 1) for part in r.get("x-got-x-forwarded-client-cert").split(";"))
    der = ssl.PEM_cert_to_DER_cert(pathlib.Path(client.certificate).read_text())
    digest = subprocess.run(["sha256sum"], input=der, capture_output=True, check=True).stdout.split()[0].decode()
    assert fields == {"Hash": digest, "Subject": '"CN=localhost"', "URI": spiffe + "planner", "DNS": "localhost",
                      "By": spiffe + "tools"}
    pem = pathlib.Path(client.certificate).read_text()
    assert ssl.PEM_cert_to_DER_cert(wire_unquote(r.get("x-got-x-cert"))) == ssl.PEM_cert_to_DER_cert(pem)
    assert r.get("x-got-x-tls").startswith("TLSv1.3 0x130")
    serial = subprocess.run(["openssl", "x509", "-noout", "-serial", "-in", client.certificate], capture_output=True, text=True,
                            check=True).stdout.strip().split("=")[1].lower()
    details = r.get("x-got-x-details").split("|")
    assert details[:5] == ["localhost", "0", "CN=ephor test roots", serial, "true"]
    assert int(details[5]) >= 4 and int(details[6]) >= 4 and details[7:] == ["CN=localhost", "localhost", "string", "chain"]
    assert wire1.get(proxy.port).get("x-got-x-tls") == "none"


def wire_unquote(text):
    import urllib.parse
    return urllib.parse.unquote(text)


def test_mirror(play):
    proxy = play("mirror", auth=lambda wire, request: wire.send(wire1.answer("nobody reads this" * 1000)))
    r = wire1.get(proxy.port, "/copy", method="POST", body=b"payload", headers="X-Id: 7\r\n")
    assert r.status == 200 and r.body == b"payload"
    until(lambda: proxy.auth.requests, "the copy")
    copy = proxy.auth.requests[0]
    assert (copy.method, copy.path, copy.body) == ("POST", "/copy", b"payload")
    assert (copy.get("host"), copy.get("x-shadow"), copy.get("x-id")) == ("shadow", "1", "7")


def test_error_pages(play):
    def app(wire, request):
        status = {"/bad": "500 Internal Server Error", "/gone": "502 Bad Gateway"}.get(request.path, "200 OK")
        wire.send(wire1.answer("a stack trace", status, "Content-Type: text/plain\r\n"))
    proxy = play("error_pages", app=app)
    r = wire1.get(proxy.port, "/bad")
    assert (r.line, r.body, r.get("content-type")) == ("HTTP/1.1 500 Internal Trouble", b"<h1>500</h1>", "text/html")
    assert r.get("x-path-was") == "/bad" and "script log: the app said: a stack trace" in proxy.log
    assert wire1.get(proxy.port, "/gone").line == "HTTP/1.1 502 Backend Gone"
    assert wire1.get(proxy.port, "/").body == b"a stack trace"


def test_query_to_headers(play):
    proxy = play("query_to_headers")
    r = wire1.get(proxy.port, "/list?page=2&key=a%2Fb+c&order=up")
    assert (r.get("x-path"), r.get("x-got-x-api-key"), r.get("x-got-x-args")) == ("/list?order=up&page=2", "a/b c", "2")
    r = wire1.get(proxy.port, "/list?page=two")
    assert (r.status, r.body) == (400, b'page is no number: "two"')
    assert wire1.get(proxy.port, "/list").get("x-path") == "/list"


def test_basic_auth(play):
    proxy = play("basic_auth")
    for name, password, status in (("alice", "wonder land", 200), ("bob", "builder:1", 200), ("bob", "x", 401), ("eve", "", 401)):
        given = base64.b64encode(f"{name}:{password}".encode()).decode()
        r = wire1.get(proxy.port, headers=f"Authorization: Basic {given}\r\n")
        assert r.status == status and r.get("x-got-x-user") == (name if status == 200 else None)
    r = wire1.get(proxy.port)
    assert (r.status, r.get("www-authenticate")) == (401, 'Basic realm="ephor"')


def test_json_rewrite(play):
    proxy = play("json_rewrite")
    order = {"total": 99.5, "items": [{"name": "tea", "tags": ["a", "b"]}, {"name": "cup", "gift": True}], "note": "x\\\"y"}
    r = wire1.get(proxy.port, method="POST", body=json.dumps(order).encode())
    assert json.loads(r.body) == {"total": 99.5, "items": 2, "first": "tea"}
    order["total"] = 5000
    r = wire1.get(proxy.port, method="POST", body=json.dumps(order).encode())
    assert (r.status, json.loads(r.body), r.get("content-type")) == (403, {"error": "limit", "total": 5000}, "application/json")
    assert wire1.get(proxy.port, method="POST", body=b'{"total" 5}').status == 400


def test_verify_webhook(play, tmp_path):
    key, public = tmp_path / "key.pem", tmp_path / "public.der"
    pki.openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key)
    pki.openssl("pkey", "-in", key, "-pubout", "-outform", "DER", "-out", public)
    (tmp_path / "text").write_bytes(b'1700000000.{"event":"paid"}')
    pki.openssl("dgst", "-sha256", "-sign", key, "-out", tmp_path / "signature", tmp_path / "text")
    signature = binascii.hexlify((tmp_path / "signature").read_bytes()).decode()
    proxy = play("verify_webhook", context={"public_key": binascii.hexlify(public.read_bytes()).decode()})
    headers = f"X-Timestamp: 1700000000\r\nX-Signature: {signature}\r\n"
    r = wire1.get(proxy.port, method="POST", body=b'{"event":"paid"}', headers=headers)
    assert r.status == 200 and r.get("x-got-x-verified") == "true nil"
    r = wire1.get(proxy.port, method="POST", body=b'{"event":"paid!"}', headers=headers)
    assert (r.status, r.body) == (401, b"Failed to verify digest. Error code: 0")
    assert wire1.get(proxy.port, method="POST", body=b"", headers="X-Signature: 00\r\n").status == 401
    assert len(proxy.server.requests) == 1


def test_verify_webhook_with_a_bad_key(play):
    proxy = play("verify_webhook", context={"public_key": "00ff"})
    assert wire1.get(proxy.port, method="POST", body=b"x").status == 500


def test_sticky_endpoint(play, h1_server):
    def app(wire, request):
        host, port = wire.sock.getsockname()
        wire.send(wire1.answer("x", headers=f"X-Endpoint: {host}:{port}\r\n"))
    one, two = h1_server(app), h1_server(app)
    proxy = play("sticky_endpoint", app=one, cluster={"endpoints": [f"127.0.0.1:{s.port}" for s in (one, two)]})
    for server in (one, two):
        for _ in range(5):
            r = wire1.get(proxy.port, headers=f"Cookie: endpoint=127.0.0.1:{server.port}; a=b\r\n")
            assert r.get("set-cookie") == f"endpoint=127.0.0.1:{server.port}"
    assert wire1.get(proxy.port, headers="Cookie: endpoint=127.0.0.9:1\r\n").status == 200  # gone: any will do


def test_guarded(play):
    proxy = play("guarded", auth=lambda wire, request: wire.send(wire1.answer("fine")))
    with wire1.connect(proxy.port) as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
        r = wire.response()
    assert r.get("x-got-x-first") == "falsebad argument #2 to 'replace'" and r.get("x-got-x-second") == "true200fine"
    assert r.get("x-got-x-third") == "false http call cluster invalid. Must be configured"
    assert int(r.get("x-chunks")) >= 1 and r.body == b"body"
    assert r.get("x-respond") == "false respond not currently supported in the response path"


def test_statistics(play):
    proxy = play("statistics")
    for n in (10, 20):
        wire1.get(proxy.port, method="POST", body=b"x" * n)
    assert wire1.get(proxy.port).get("x-requests") == "3"
    assert proxy.metric("ephor_script_counter_total", script="statistics", metric="bytes") == 30
    assert proxy.metric("ephor_script_value_count_total", script="statistics", metric="length") == 3
    assert proxy.metric("ephor_script_gauge", script="statistics", metric="inside") == 0


def test_every_script_is_played():
    """Last: what stands in the folder and is played by nobody proves nothing."""
    source = pathlib.Path(__file__).read_text()
    for script in SCRIPTS.glob("*.lua"):
        assert f'play("{script.stem}"' in source, f"no test plays {script.name}"
    assert len(list(SCRIPTS.glob("*.lua"))) >= 20
