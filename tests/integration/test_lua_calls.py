"""The filter `lua`: scripts that wait — for an answer of httpCall(), for the next chunk, for trailers — and everything that can
happen to them meanwhile."""
import collections
import contextlib
import random
import threading

import pytest
import wire1
import wire2
from harness import config, until

CALL = """
    local function call(handle, path, timeout)
      return handle:httpCall("token", {[":method"] = "GET", [":path"] = path, [":authority"] = "token.svc"}, nil, timeout or 5000)
    end
"""


class Token:
    """A token service whose answers wait until they are let go."""

    def __init__(self, h1_server, handler=None):
        self.gate = threading.Event()
        self.gone = []
        self.server = h1_server(handler or self.answer)

    def answer(self, wire, request):
        if request.path == "/held":
            while not self.gate.wait(0.01):
                wire.sock.setblocking(False)
                try:
                    if wire.sock.recv(1) == b"":
                        self.gone.append(request.path)
                        return "close"
                except BlockingIOError:
                    pass
                except OSError:
                    self.gone.append(request.path)
                    return "close"
                finally:
                    wire.sock.settimeout(wire1.TIMEOUT)
        wire.send(wire1.answer("token for " + request.path, headers="X-Seen: yes\r\nX-Two: a\r\nX-Two: b\r\n"))
        return None


@pytest.fixture
def calling(ephor, h1_server, h2_server):
    def start(code, token=None, server=None, cluster=None, token_cluster=None, **more):
        server = server or h1_server()
        token = token or Token(h1_server)
        endpoints = [f"127.0.0.1:{token if isinstance(token, int) else token.server.port}"]
        configuration = config(server.port, {"filters": [{"lua": {"name": "play", "inline": CALL + code, "budget": {"time": "1s"}, **more}}]},
                               cluster=cluster or {"protocol": "http/1.1"})
        configuration["clusters"].append({"name": "token", "endpoints": endpoints, "protocol": "http/1.1", **(token_cluster or {})})
        proxy = ephor(configuration)
        proxy.configuration, proxy.server, proxy.token_service = configuration, server, token
        return proxy
    return start


# --- httpCall -----------------------------------------------------------------------------------------------------------
def test_the_answer_is_there(calling):
    proxy = calling("""
        function envoy_on_request(handle)
          local headers, body = handle:httpCall("token", {[":method"] = "POST", [":path"] = "/t?a=b", [":authority"] = "token.svc",
            ["X-Many"] = {"1", "2"}, ["x-n"] = 7, ["content-length"] = "99"}, "secret", 5000)
          handle:headers():add("x-token", headers[":status"] .. " " .. body .. " " .. headers["x-seen"] .. headers["x-two"])
        end""")
    assert wire1.get(proxy.port).get("x-got-x-token") == "200 token for /t?a=b yesb"
    seen = proxy.token_service.server.requests[0]
    assert (seen.method, seen.path, seen.body, seen.get("host")) == ("POST", "/t?a=b", b"secret", "token.svc")
    assert seen.all("x-many") == ["1", "2"] and seen.get("x-n") == "7" and seen.get("content-length") == "6"
    proxy.counted(1, "ephor_http_calls_total", owner="play", cluster="token", result="2xx")


def test_options(calling):
    proxy = calling("""
        function envoy_on_request(handle)
          local headers = handle:httpCall("token", {[":method"] = "GET", [":path"] = "/", [":authority"] = "a"}, nil,
            {timeout_ms = 5000, return_duplicate_headers = true, trace_sampled = false, send_xff = false, asynchronous = false})
          local nothing, none = handle:httpCall("token", {[":method"] = "GET", [":path"] = "/later", [":authority"] = "a"}, nil,
            {timeout_ms = 5000, asynchronous = true})
          handle:headers():add("x-two", table.concat(headers["x-two"], "|") .. type(headers["x-seen"]) .. tostring(nothing))
        end""")
    assert wire1.get(proxy.port, headers="Traceparent: 00-%032x-%016x-01\r\n" % (7, 7)).get("x-got-x-two") == "a|bstringnil"
    requests = proxy.token_service.server.requests
    until(lambda: len(requests) == 2, "the asynchronous call")
    assert requests[0].get("traceparent") is None and requests[1].get("traceparent").startswith("00-")


@pytest.mark.parametrize("what", ["dead", "slow", "huge", "resetting", "truncated", "nonsense"])
def test_whatever_goes_wrong_is_an_answer(calling, h1_server, what):
    def misbehaves(wire, request):
        if what == "huge":
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 2000000)
        elif what == "resetting":
            wire.reset()
        elif what == "truncated":
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")
            return "close"
        elif what == "nonsense":
            wire.send(b"\0\0\0\0 no HTTP\r\n\r\n")
        else:
            wire.rest()
        return None
    token = Token(h1_server, misbehaves)
    if what == "dead":
        token.server.close()
    proxy = calling("""
        function envoy_on_request(handle)
          local headers, body = call(handle, "/", TIMEOUT)
          handle:respond({[":status"] = headers[":status"]}, body)
        end""".replace("TIMEOUT", "100" if what == "slow" else "5000"), token=token)
    r = wire1.get(proxy.port)
    assert (r.status, r.body) == (503, b"upstream failure")
    until(proxy.idle, "nothing left")


def test_a_client_that_leaves_ends_the_call(calling):
    proxy = calling("function envoy_on_request(handle) call(handle, '/held') end")
    with wire2.Client(proxy.port) as client:
        stream = client.start("/")
        until(lambda: proxy.token_service.server.requests, "the call")
        client.reset_stream(stream.id) if hasattr(client, "reset_stream") else client.h2.reset_stream(stream.id)
        client.flush()
        until(lambda: proxy.token_service.gone, "the call to be given up")
    wire = wire1.connect(proxy.port).send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    until(lambda: len(proxy.token_service.server.requests) == 2, "the second call")
    wire.reset()
    until(lambda: len(proxy.token_service.gone) == 2, "it to be given up too")
    until(proxy.idle, "nothing left")
    assert proxy.server.requests == []
    proxy.counted(2, "ephor_http_calls_total", result="cancelled")


def test_a_reload_while_it_waits(calling):
    proxy = calling("""
        function envoy_on_request(handle)
          local _, body = call(handle, "/held")
          handle:headers():add("x-generation", "1 " .. body)
        end""")
    with wire1.connect(proxy.port) as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: proxy.token_service.server.requests, "the call")
        code = "function envoy_on_request(handle) handle:headers():add('x-generation', '2') end"
        listener = {**proxy.configuration["listeners"][0], "filters": [{"lua": {"name": "play", "inline": code}}]}
        clusters = [c for c in proxy.configuration["clusters"] if c["name"] != "token"]
        proxy.reload({**proxy.configuration, "listeners": [listener], "clusters": clusters})
        assert wire1.get(proxy.port).get("x-got-x-generation") == "2"
        proxy.token_service.gate.set()
        assert wire.response().get("x-got-x-generation") == "1 token for /held"


def test_a_stop_while_it_waits(calling):
    proxy = calling("""
        function envoy_on_request(handle)
          handle:httpCall("token", {[":method"] = "GET", [":path"] = "/held", [":authority"] = "a"}, nil, 60000, true)
        end""")
    assert wire1.get(proxy.port).status == 200
    until(lambda: proxy.token_service.server.requests, "the call")
    proxy.stop()  # asserts that it ends by itself, and that nothing leaks


def test_calls_without_end(calling):
    proxy = calling("""
        function envoy_on_request(handle)
          local n = 0
          local ok, err = pcall(function() while true do call(handle, "/" .. n) n = n + 1 end end)
          handle:respond({[":status"] = "200"}, n .. " " .. err:gsub("^.*: ", ""))
        end""")
    assert wire1.get(proxy.port).body == b"64 more than 64 httpCall() for one stream"
    assert len(proxy.token_service.server.requests) == 64


def test_many_wait_at_once_and_leave_nothing(calling):
    proxy = calling("""
        function envoy_on_request(handle)
          local _, body = call(handle, "/held")
          handle:headers():add("x-body", body)
        end""", token_cluster={"limits": {"connections": 300, "pending": 300}})
    with wire2.Client(proxy.port) as client:
        first = [client.start(f"/{i}") for i in range(150)]
        until(lambda: len(proxy.token_service.server.requests) == 150, "150 calls")
        proxy.token_service.gate.set()
        assert {client.finish(s).get("x-got-x-body") for s in first} == {"token for /held"}
    until(proxy.idle, "nothing left")


def test_the_limits_of_the_cluster_hold(calling):
    proxy = calling("""
        function envoy_on_request(handle)
          local headers = call(handle, "/held")
          handle:respond({[":status"] = headers[":status"]}, "")
        end""", token_cluster={"limits": {"requests": 1}})
    with wire2.Client(proxy.port) as client:
        first = client.start("/")
        until(lambda: proxy.token_service.server.requests, "the call")
        assert client.request("/").status == 503
        proxy.token_service.gate.set()
        assert client.finish(first).status == 200


def test_a_large_body_is_held_back_while_it_waits(calling):
    """Envoy #16674: there, a body that comes meanwhile is buffered, up to a 413."""
    proxy = calling("function envoy_on_request(handle) handle:headers():add('x-who', (select(2, call(handle, '/held')))) end")
    body = b"0123456789abcdef" * (8 << 16)  # 8 MiB
    with wire1.connect(proxy.port) as wire:
        sender = threading.Thread(target=lambda: wire.send(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body))
        sender.start()
        until(lambda: proxy.token_service.server.requests, "the call")
        assert sender.is_alive() and proxy.server.requests == []
        proxy.token_service.gate.set()
        r = wire.response()
        sender.join()
    assert r.status == 200 and proxy.server.requests[0].body == body
    assert proxy.server.requests[0].get("x-who") == "token for /held"


def test_a_body_after_a_call_and_a_call_after_a_body(calling):
    proxy = calling("""
        function envoy_on_request(handle)
          local _, one = call(handle, "/1")
          local body = handle:body()
          local _, two = call(handle, "/2")
          body:setBytes(one .. "|" .. body:getBytes(0, body:length()) .. "|" .. two)
        end
        function envoy_on_response(handle)
          local _, one = call(handle, "/3")
          local body = handle:body()
          local _, two = call(handle, "/4")
          body:setBytes(one .. "|" .. body:getBytes(0, body:length()) .. "|" .. two)
        end""")
    r = wire1.get(proxy.port, method="POST", body=b"hello")
    assert proxy.server.requests[0].body == b"token for /1|hello|token for /2"
    assert r.body == b"token for /3|token for /1|hello|token for /2|token for /4"


def test_a_script_that_fails_after_its_answer(calling):
    proxy = calling("function envoy_on_request(handle) call(handle, '/') error('boom') end")
    assert wire1.get(proxy.port).status == 403
    assert wire1.get(proxy.port, method="POST", body=b"x").status == 403
    proxy.counted(2, "ephor_policy_decisions_total", policy="play", decision="error")
    until(proxy.idle, "nothing left")


def test_a_script_that_fails_after_its_answer_and_may(calling):
    proxy = calling("""
        function envoy_on_request(handle) handle:headers():add('x-a', 'b') call(handle, '/') error('boom') end
        function envoy_on_response(handle) handle:headers():add('x-never', 'c') end""", on_error="allow")
    r = wire1.get(proxy.port, method="POST", body=b"x")
    assert r.status == 200 and r.get("x-got-x-a") == "b" and r.get("x-never") is None and r.body == b"x"


def test_a_call_in_the_middle_of_a_body_and_before_trailers(calling, h2_server):
    server = h2_server()
    proxy = calling("""
        function envoy_on_request(handle)
          local n = 0
          for chunk in handle:bodyChunks() do
            n = n + 1
            local _, body = call(handle, "/" .. n)
            chunk:setBytes(body .. ";")
          end
          local trailers = handle:trailers()
          local _, body = call(handle, "/end")
          if trailers then trailers:add("x-trailer", body) end
        end""", server=server, cluster={"protocol": "h2"})
    with wire2.Client(proxy.port) as client:
        stream = client.start("/", "POST", end=False)
        for i in range(3):
            client.send_data(stream.id, b"x")
            client.flush()
            until(lambda: len(proxy.token_service.server.requests) == i + 1, "a call for each chunk")
        client.h2.send_headers(stream.id, [("x-sum", "1")], end_stream=True)
        client.flush()
        r = client.finish(stream)
    assert r.status == 200 and bytes(r.body) == b"token for /1;token for /2;token for /3;"
    assert [q.path for q in proxy.token_service.server.requests] == ["/1", "/2", "/3", "/end"]
    assert r.get("x-got-x-trailer") == "token for /end" or dict(server.exchanges[0].stream.trailers)["x-trailer"] == "token for /end"


# --- chunks -------------------------------------------------------------------------------------------------------------
COUNT = """
    function envoy_on_request(handle)
      local bytes, chunks = 0, 0
      for chunk in handle:bodyChunks() do bytes, chunks = bytes + chunk:length(), chunks + 1 end
      handle:streamInfo():dynamicMetadata():set("play", "bytes", bytes)
      handle:streamInfo():dynamicMetadata():set("play", "chunks", chunks)
    end
    function envoy_on_response(handle)
      local seen = handle:streamInfo():dynamicMetadata():get("play") or {}
      handle:headers():add("x-bytes", tostring(seen.bytes))
      handle:headers():add("x-chunks", tostring(seen.chunks))
    end"""


def test_chunks_of_one_byte_by_h2(calling):
    proxy = calling(COUNT)
    with wire2.Client(proxy.port) as client:
        stream = client.start("/", "POST", end=False)
        for i in range(1000):
            client.send_data(stream.id, b"x", end=i == 999)
        r = client.finish(stream)
    assert r.get("x-bytes") == "1000" and bytes(r.body) == b"x" * 1000


def test_chunks_by_http1(calling):
    proxy = calling(COUNT)
    with wire1.connect(proxy.port) as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 500)
        wire.send(b"5\r\nhello\r\n0\r\n\r\n")
        r = wire.response()
    assert r.get("x-bytes") == "505" and r.body == b"x" * 500 + b"hello"
    assert wire1.get(proxy.port).get("x-chunks") == "0"  # without a body the loop never runs


@pytest.mark.measured
def test_a_long_body_costs_no_memory(calling, h1_server):
    """Chunks are shown as they pass: a server that is slow holds the client back, and ephor holds no more than windows."""
    gate = threading.Event()
    size = 64 << 20

    def slow(wire):
        head = wire.head()
        gate.wait(30)
        left = int(head.get("content-length")) - len(wire.buffer)
        while left:
            left -= len(wire.sock.recv(65536))
        wire.send(wire1.answer("done"))
    proxy = calling(COUNT, server=h1_server(slow, raw=True))
    before = proxy.rss()
    with wire1.connect(proxy.port) as wire:
        sender = threading.Thread(target=lambda: wire.send(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size))
        sender.start()
        until(lambda: proxy.metric("ephor_streams_active") == 1, "the request")
        held = proxy.rss()
        gate.set()
        r = wire.response()
        sender.join()
    assert r.get("x-bytes") == str(size)
    assert max(held, proxy.rss()) - before < 8 << 20


@pytest.mark.parametrize("version", ["http/1.1", "h2"])
def test_a_refusal_in_the_middle_of_a_body(calling, h1_server, version):
    """Envoy #39321: there, respond() is an error once the head has gone on."""
    got = []

    def server(wire):
        wire.head()
        got.append(wire.rest())
    proxy = calling("""
        function envoy_on_request(handle)
          for chunk in handle:bodyChunks() do
            if chunk:getBytes(0, chunk:length()):find("evil") then
              handle:respond({[":status"] = "403"}, "no evil here")
            end
          end
        end""", server=h1_server(server, raw=True))
    if version == "h2":
        with wire2.Client(proxy.port) as client:
            stream = client.start("/", "POST", end=False)
            client.send_data(stream.id, b"good ")
            client.flush()
            until(lambda: proxy.server.wires and b"good " in proxy.server.wires[0].seen, "the good part to have passed")
            client.send_data(stream.id, b"evil")
            client.flush()
            r = client.finish(stream)
            assert r.status == 403 and bytes(r.body) == b"no evil here"
    else:
        with wire1.connect(proxy.port) as wire:
            wire.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ngood \r\n")
            until(lambda: proxy.server.wires and b"good " in proxy.server.wires[0].seen, "the good part to have passed")
            wire.send(b"4\r\nevil\r\n")
            r = wire.response()
            assert r.status == 403 and r.body == b"no evil here"
    until(lambda: got, "the server's connection to be ended")
    assert b"evil" not in got[0] and not got[0].endswith(b"0\r\n\r\n")
    until(proxy.idle, "nothing left")


def test_a_response_is_scanned_and_cut(calling, h1_server):
    proxy = calling("""
        function envoy_on_response(handle)
          for chunk in handle:bodyChunks() do
            local text = chunk:getBytes(0, chunk:length())
            if text:find("secret") then error("a secret") end
          end
        end""", server=h1_server(lambda wire, request: wire.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n") and (
                request.path == "/good" or until(lambda: request.path, "a turn")) and wire.send(
                    b"4\r\nmore\r\n0\r\n\r\n" if request.path == "/good" else b"6\r\nsecret\r\n0\r\n\r\n") and None))
    assert wire1.get(proxy.port, "/good").body == b"goodmore"
    with wire1.connect(proxy.port) as wire:
        wire.send(b"GET /bad HTTP/1.1\r\nHost: x\r\n\r\n")
        got = wire.rest()
    assert b"secret" not in got


def test_the_response_of_respond_passes_its_own_hook(calling):
    proxy = calling("""
        function envoy_on_request(handle) handle:respond({[":status"] = "401"}, "who?") end
        function envoy_on_response(handle)
          handle:headers():add("x-seen", handle:headers():get(":status"))
          local n = 0
          for chunk in handle:bodyChunks() do n = n + chunk:length() chunk:setBytes("WHO?") end
          handle:headers():get("x")
        end""")
    r = wire1.get(proxy.port)
    assert r.status == 401 and r.get("x-seen") == "401" and r.body == b"WHO?"


# --- the others ---------------------------------------------------------------------------------------------------------
def test_an_endpoint_of_the_scripts_choice(calling, h1_server):
    one, two = h1_server(), h1_server()
    proxy = calling("""
        function envoy_on_request(handle)
          local host = handle:headers():get("x-host")
          handle:setUpstreamOverrideHost(host, handle:headers():get("x-strict") ~= nil)
        end""", server=one, cluster={"protocol": "http/1.1",
                                     "endpoints": [f"127.0.0.1:{one.port}", f"127.0.0.1:{two.port}"]})
    for server in (one, two):
        for _ in range(6):
            assert wire1.get(proxy.port, headers=f"X-Host: 127.0.0.1:{server.port}\r\n").status == 200
    assert (len(one.requests), len(two.requests)) == (6, 6)
    assert wire1.get(proxy.port, headers="X-Host: 127.0.0.1\r\n").status == 200
    assert wire1.get(proxy.port, headers="X-Host: 10.9.9.9:1\r\n").status == 200
    assert wire1.get(proxy.port, headers="X-Host: 10.9.9.9:1\r\nX-Strict: 1\r\n").status == 503


def test_reason_phrase_and_drain(calling):
    proxy = calling("""
        function envoy_on_response(handle)
          handle:headers():setHttp1ReasonPhrase("Quite Fine")
          if handle:downstreamRequestHeaders():get(":path") == "/drain" then
            handle:streamInfo():drainConnectionUponCompletion()
          end
        end""")
    with wire1.connect(proxy.port) as wire:
        r = wire.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").response()
        assert r.line == "HTTP/1.1 200 Quite Fine"
        r = wire.send(b"GET /drain HTTP/1.1\r\nHost: x\r\n\r\n").response()
        assert r.get("connection") == "close" and wire.closed()
    with wire2.Client(proxy.port) as client:
        assert client.request("/drain").status == 200
        client.pump_until(lambda: client.goaways)


def test_metrics_of_a_script(calling):
    proxy = calling("""
        function envoy_on_request(handle)
          local stats = handle:stats()
          stats:counter("seen"):inc()
          stats:counter("seen"):add(2)
          stats:gauge("level"):set(7)
          stats:gauge("level"):dec()
          stats:histogram("took", "ms"):recordValue(5)
          stats:histogram("size"):recordValue(100)
          handle:headers():add("x-value", stats:counter("seen"):value() .. " " .. stats:gauge("level"):value())
        end""")
    assert wire1.get(proxy.port).get("x-got-x-value") == "3 6"
    assert proxy.metric("ephor_script_counter_total", script="play", metric="seen") == 3
    assert proxy.metric("ephor_script_gauge", script="play", metric="level") == 6
    assert proxy.metric("ephor_script_duration_seconds_count", script="play", metric="took") == 1
    assert proxy.metric("ephor_script_value_sum_total", script="play", metric="size") == 100


def test_routes_choose_the_source_and_carry_metadata(calling, h1_server, ephor):
    server = h1_server()
    lua = {"lua": {"name": "play", "inline": "function envoy_on_request(h) h:headers():add('x-source', 'own') end",
                   "filter_context": {"team": "blue", "limits": {"n": 3}},
                   "sources": {"strict": """
                        function envoy_on_request(h)
                          h:headers():add('x-source', 'strict ' .. h:metadata():get('tier') .. h:metadata():get('n') ..
                            h:filterContext()['team'] .. h:filterContext():get('limits').n)
                        end"""}}}
    routes = [{"match": {"prefix": "/strict"}, "cluster": "app", "scripts": {"play": "strict"},
               "metadata": {"play": {"tier": "gold", "n": 5}}},
              {"match": {"prefix": "/off"}, "cluster": "app", "scripts": {"play": "off"}},
              {"cluster": "app"}]
    configuration = config(server.port, {"filters": [lua], "routes": routes}, cluster={"protocol": "http/1.1"})
    del configuration["listeners"][0]["cluster"]
    proxy = ephor(configuration)
    assert wire1.get(proxy.port, "/strict").get("x-got-x-source") == "strict gold5blue3"
    assert wire1.get(proxy.port, "/off").get("x-got-x-source") is None
    assert wire1.get(proxy.port, "/").get("x-got-x-source") == "own"
    routes[0]["scripts"]["play"] = "sturct"
    proxy.reload({**configuration, "listeners": [{**configuration["listeners"][0], "routes": routes}]}, expect="rejected")
    assert "which has none of that name" in proxy.log
    routes[0]["scripts"] = {"paly": "strict"}
    proxy.reload({**configuration, "listeners": [{**configuration["listeners"][0], "routes": routes}]}, expect="rejected")
    assert "'paly', which is not in this listener" in proxy.log


# --- while something else happens ---------------------------------------------------------------------------------------
def test_the_time_is_over_while_the_response_waits(calling, ephor):
    proxy = calling("function envoy_on_response(handle) call(handle, '/held', 30000) handle:headers():add('x-never', '1') end")
    routes = [{"cluster": "app", "timeout": "300ms"}]
    listener = {k: v for k, v in proxy.configuration["listeners"][0].items() if k != "cluster"}
    proxy.reload({**proxy.configuration, "listeners": [{**listener, "routes": routes}]})
    r = wire1.get(proxy.port)
    assert r.status == 504 and r.get("x-never") is None
    until(lambda: proxy.token_service.gone, "the call to be given up")
    until(proxy.idle, "nothing left")


def test_the_upstream_dies_while_the_response_waits(calling, h1_server):
    def dies(wire, request):
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        until(lambda: proxy.token_service.server.requests, "the call")
        wire.reset()
    proxy = calling("""
        function envoy_on_response(handle)
          local _, body = call(handle, handle:headers():get(":status") == "200" and "/held" or "/again")
          handle:headers():add("x-token", body)
        end""", server=h1_server(dies))
    r = wire1.get(proxy.port)
    assert r.status == 502
    until(lambda: proxy.token_service.gone, "the call to be given up")
    until(proxy.idle, "nothing left")


def test_two_scripts_in_a_chain(calling):
    proxy = calling("""
        function envoy_on_request(handle) handle:headers():add("x-first", (select(2, call(handle, "/first")))) end
        function envoy_on_response(handle) handle:headers():add("x-order", "first") end""")
    second = {"lua": {"name": "second", "inline": CALL + """
        function envoy_on_request(handle)
          local _, body = call(handle, "/second")
          if handle:headers():get("x-stop") then handle:respond({[":status"] = "403"}, body) end
          handle:headers():add("x-second", body .. " after " .. handle:headers():get("x-first"))
        end
        function envoy_on_response(handle) call(handle, "/back") handle:headers():add("x-order", "second") end"""}}
    listener = proxy.configuration["listeners"][0]
    proxy.reload({**proxy.configuration, "listeners": [{**listener, "filters": [*listener["filters"], second]}]})
    r = wire1.get(proxy.port)
    assert r.get("x-got-x-second") == "token for /second after token for /first" and r.all("x-order") == ["second", "first"]
    r = wire1.get(proxy.port, headers="X-Stop: 1\r\n")
    assert (r.status, r.body, r.all("x-order")) == (403, b"token for /second", ["second", "first"])


def test_a_reply_of_ours_that_waits_for_a_call_and_its_body(calling):
    proxy = calling("""
        function envoy_on_request(handle) handle:respond({[":status"] = "401"}, "who?") end
        function envoy_on_response(handle)
          local _, token = call(handle, "/1")
          local body = handle:body()
          call(handle, "/2")
          body:setBytes(token .. " " .. body:getBytes(0, body:length()))
        end""")
    r = wire1.get(proxy.port)
    assert (r.status, r.body) == (401, b"token for /1 who?")


RANDOM = """
    local function waits(handle, what)
      for step in what:gmatch("%a") do
        if step == "c" then call(handle, "/" .. what)
        elseif step == "h" then call(handle, "/slow")
        elseif step == "b" then local b = handle:body() if b then b:setBytes(b:getBytes(0, b:length()) .. "!") end
        elseif step == "k" then for chunk in handle:bodyChunks() do chunk:length() end
        elseif step == "m" then for chunk in handle:bodyChunks() do call(handle, "/m") end
        elseif step == "t" then handle:trailers()
        elseif step == "r" then handle:respond({[":status"] = "403"}, "no")
        elseif step == "e" then error("on purpose")
        elseif step == "l" then while true do end
        elseif step == "a" then handle:httpCall("token", {[":method"] = "GET", [":path"] = "/a", [":authority"] = "a"}, nil, 100, true)
        end
      end
    end
    function envoy_on_request(handle) waits(handle, handle:headers():get("x-request")) end
    function envoy_on_response(handle) waits(handle, handle:downstreamRequestHeaders():get("x-response")) end
"""


@pytest.mark.limit(180)
@pytest.mark.parametrize("seed", [1, 2])
def test_random_scripts_random_clients(calling, h1_server, seed):
    """Whatever a script waits for, and whenever a client leaves: streams end, calls end, and nothing is left."""
    rng = random.Random(seed)

    def token(wire, request):
        if request.path == "/slow":
            threading.Event().wait(rng.random() / 50)
        elif rng.random() < 0.1:
            return "close"
        wire.send(wire1.answer("token"))
        return None
    proxy = calling(RANDOM, token=Token(h1_server, token), token_cluster={"limits": {"connections": 64}}, budget={"time": "20ms"})
    statuses = collections.Counter()
    for _ in range(12):
        with wire2.Client(proxy.port) as client:
            streams = []
            for _ in range(25):
                pieces = rng.randrange(4)
                stream = client.start("/", "POST" if pieces else "GET", [
                    ("x-request", "".join(rng.choice("cchbkmtrela" if rng.random() < 0.3 else "chbkmta") for _ in range(rng.randrange(4)))),
                    ("x-response", "".join(rng.choice("chbkmtea") for _ in range(rng.randrange(3))))], end=not pieces)
                streams.append(stream)
                with contextlib.suppress(Exception):  # a stream that was refused already takes no more
                    for i in range(pieces):
                        client.send_data(stream.id, b"x" * rng.choice([1, 100, 9000]), end=i == pieces - 1)
                    client.flush()
                    if rng.random() < 0.2:
                        client.h2.reset_stream(stream.id)
                        client.flush()
            if rng.random() < 0.6:
                with contextlib.suppress(ConnectionError):
                    for stream in streams:
                        if not stream.done and stream.id in client.h2.streams and not client.h2.streams[stream.id].closed:
                            client.finish(stream)
                        statuses[stream.status] += 1
    until(proxy.idle, "nothing left")
    assert statuses[200] > 10 and statuses[403] > 3, statuses
    until(lambda: proxy.metric("ephor_lua_memory_bytes") < 4 << 20, "the scripts' memory")
