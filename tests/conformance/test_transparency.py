"""With ephor in between and without: what others' clients and servers say to each other must be the same.

Each case runs a real client against a real server directly, then through one ephor, then through two, and compares what the
client tells."""
import pytest
from harness import ROOT, Process, config, curl, free_port, nghttpd, nginx, node, node_client, program, run

PATHS = {"one": 1, "two": 2}


@pytest.fixture(params=PATHS)
def through(request, ephor):
    """through(port, protocol): a port behind which the server at `port` is reached through one or two ephors."""
    def make(port, protocol):
        port = ephor(config(port, cluster={"protocol": protocol})).port
        if PATHS[request.param] == 2:
            port = ephor(config(port, cluster={"protocol": "h2"})).port
        return port
    return make


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in ("ms", "progress")}
    return value


def test_mcp(through, process, tmp_path):
    port = free_port()
    server = ROOT / "demo/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    process(Process("everything", [program("node"), server, "streamableHttp"], tmp_path, {"PORT": str(port)})).wait_port(port)

    def told(p):
        return without_times(node_client("mcp_client.mjs", f"http://127.0.0.1:{p}/mcp", modules="demo"))
    assert told(through(port, "http/1.1")) == told(port)


def test_grpc(through, process, tmp_path):
    port = free_port()
    process(node(tmp_path, "grpc_server.mjs", port, port=port))
    assert node_client("grpc_client.mjs", through(port, "h2")) == node_client("grpc_client.mjs", port)


def test_websocket(through, process, tmp_path):
    port = free_port()
    process(node(tmp_path, "ws_server.mjs", port, port=port))
    assert node_client("ws_client.mjs", through(port, "http/1.1")) == node_client("ws_client.mjs", port)


HOP = {"date", "connection", "keep-alive", "server", "transfer-encoding", "via"}
CASES = {
    "get": ["/kilo"], "head": ["-I", "/kilo"], "range": ["-r", "10-19", "/kilo"], "missing": ["/missing"],
    "if-none-match": ["-H", "If-None-Match: *", "/kilo"], "redirect": ["/go"], "empty": ["/empty"], "options": ["-X", "OPTIONS", "/kilo"],
    "post": ["-d", "x=1", "/say"], "big post": ["--data-binary", "@BIG", "/say"], "gzip": ["-H", "Accept-Encoding: gzip", "/kilo"],
}


@pytest.mark.parametrize("case", CASES)
def test_curl_and_nginx(through, process, tmp_path, site, case):
    (tmp_path / "BIG").write_bytes(b"b" * 300_000)
    _, port = process(nginx(tmp_path, site, """
        gzip on; gzip_min_length 1; location /go { return 302 /kilo; } location /empty { return 204; }
        location /say { proxy_pass http://127.0.0.1:PORT/back; client_max_body_size 0; } # reads the body, then asks itself
        location /back { return 200 "$request_method $content_length $http_content_type"; }"""))

    def told(p, version):
        *options, path = [a.replace("BIG", str(tmp_path / "BIG")) for a in CASES[case]]
        text = curl(version, "-i", *options, f"http://127.0.0.1:{p}{path}", "-H", "Host: same").stdout
        head, _, body = text.replace("\r\n", "\n").partition("\n\n")
        status, *lines = head.split("\n")
        headers = sorted(line.lower() for line in lines if line.split(":")[0].lower() not in HOP)
        return status.split()[1], headers, body
    behind = through(port, "http/1.1")
    direct = told(port, "--http1.1")
    assert told(behind, "--http1.1") == direct
    assert told(behind, "--http2-prior-knowledge") == direct


def test_nghttp_and_nghttpd(through, process, tmp_path, site):
    _, port = process(nghttpd(tmp_path, site, "--trailer", "x-end: yes"))

    def told(p):
        out = run(program("nghttp"), "-v", "--no-dep", f"http://127.0.0.1:{p}/kilo").stdout
        fields = [line.split(") ", 1)[1] for line in out.splitlines() if "recv (stream_id=" in line and ") " in line]
        return sorted(f for f in fields if not f.startswith("date")), out.count("k" * 1024)
    assert told(through(port, "h2")) == told(port)
