"""The filter `lua`: scripts written for Envoy, between a real client and a real server."""
import pytest
import wire1
import wire2
from harness import config


@pytest.fixture
def scripted(ephor, h1_server):
    def start(code, **more):
        server = h1_server()
        lua = {"lua": {"name": "play", "inline": code, **more}}
        configuration = config(server.port, {"filters": [lua]}, cluster={"protocol": "http/1.1"})
        proxy = ephor(configuration)
        proxy.configuration, proxy.server = configuration, server
        return proxy
    return start


def test_headers_are_added_both_ways(scripted):
    proxy = scripted("""
        function envoy_on_request(handle)
          handle:headers():add("x-from-script", handle:headers():get(":path"))
          handle:headers():replace(":path", "/elsewhere")
        end
        function envoy_on_response(handle)
          handle:headers():add("x-status-was", handle:headers():get(":status"))
        end""")
    r = wire1.get(proxy.port, "/here")
    assert r.status == 200 and r.get("x-status-was") == "200" and r.get("x-got-x-from-script") == "/here"
    assert [q.path for q in proxy.server.requests] == ["/elsewhere"]


def test_a_script_answers_by_itself(scripted):
    proxy = scripted("""
        function envoy_on_request(handle)
          if handle:headers():get("authorization") == nil then
            handle:respond({[":status"] = "401", ["www-authenticate"] = "Basic", ["set-cookie"] = {"a=1", "b=2"}}, "who?")
          end
        end""")
    r = wire1.get(proxy.port)
    assert r.status == 401 and r.body == b"who?" and r.all("set-cookie") == ["a=1", "b=2"]
    assert r.get("content-type") == "text/plain" and r.get("www-authenticate") == "Basic"
    assert wire1.get(proxy.port, headers="Authorization: x\r\n").status == 200
    assert len(proxy.server.requests) == 1


def test_the_body_is_read_and_replaced(scripted):
    proxy = scripted("""
        function envoy_on_request(handle)
          local body = handle:body()
          if body then body:setBytes(body:getBytes(0, body:length()):upper() .. "!") end
        end
        function envoy_on_response(handle)
          handle:body(true):setBytes("was " .. handle:body(true):length())
        end""")
    r = wire1.get(proxy.port, method="POST", body=b"hello")
    assert proxy.server.requests[0].body == b"HELLO!"
    assert r.body.startswith(b"was ") and int(r.get("content-length")) == len(r.body)


def test_chunks_and_trickling_bodies_are_put_together(scripted):
    proxy = scripted("""
        function envoy_on_request(handle)
          handle:headers():add("x-length", handle:body():length())
        end""")
    with wire1.connect(proxy.port) as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (b"one", b"two", b"three"):
            wire.send(b"%x\r\n%s\r\n" % (len(part), part))
        wire.send(b"0\r\n\r\n")
        assert wire.response("POST").get("x-got-x-length") == "11"


@pytest.mark.parametrize("on_error, status", [("deny", 403), ("allow", 200)])
def test_a_script_that_fails(scripted, on_error, status):
    proxy = scripted("""
        function envoy_on_request(handle)
          if handle:headers():get("x-fail") then error("boom") end
        end""", on_error=on_error)
    assert wire1.get(proxy.port, headers="X-Fail: 1\r\n").status == status
    assert wire1.get(proxy.port).status == 200
    proxy.counted(1, "ephor_policy_decisions_total", policy="play", decision="error")


def test_an_endless_script_costs_its_budget_and_no_more(scripted):
    proxy = scripted("""
        function envoy_on_request(handle)
          if handle:headers():get("x-loop") then while true do pcall(function() while true do end end) end end
        end""")
    assert wire1.get(proxy.port, headers="X-Loop: 1\r\n").status == 403
    assert wire1.get(proxy.port).status == 200
    proxy.counted(1, "ephor_policy_decisions_total", policy="play", decision="overrun")


def test_stream_info_and_dynamic_metadata(scripted):
    proxy = scripted("""
        function envoy_on_request(handle)
          local info = handle:streamInfo()
          info:dynamicMetadata():set("play", "protocol", info:protocol())
          info:dynamicMetadata():set("play", "from", info:downstreamRemoteAddress())
          info:dynamicMetadata():set("play", "route", info:routeName())
        end
        function envoy_on_response(handle)
          local seen = handle:streamInfo():dynamicMetadata():get("play")
          for _, name in ipairs {"protocol", "from", "route"} do handle:headers():add("x-" .. name, seen[name]) end
        end""")
    r = wire1.get(proxy.port)
    assert r.get("x-protocol") == "HTTP/1.1" and r.get("x-route") == "inbound/0"
    assert r.get("x-from").startswith("127.0.0.1:")


def test_a_script_that_does_not_load_refuses_the_configuration(scripted):
    proxy = scripted("function envoy_on_request(handle) handle:headers():add('x-generation', '1') end")
    good = proxy.configuration
    bad = {**good, "listeners": [{**good["listeners"][0], "filters": [{"lua": {"inline": "this is no Lua ("}}]}]}
    proxy.reload(bad, expect="rejected")
    assert "script load error" in proxy.log
    assert wire1.get(proxy.port).get("x-got-x-generation") == "1"


def test_http2_streams_of_one_connection_wait_side_by_side(scripted):
    proxy = scripted("""
        function envoy_on_request(handle)
          local path = handle:headers():get(":path")
          handle:headers():add("x-seen", path .. ":" .. handle:body():length())
        end""")
    with wire2.Client(proxy.port) as client:
        streams = [client.start(f"/{i}", "POST", end=False) for i in range(8)]
        for i, stream in reversed(list(enumerate(streams))):
            client.send_data(stream.id, b"x" * (i + 1), end=True)
        for i, stream in enumerate(streams):
            assert client.finish(stream).get("x-got-x-seen") == f"/{i}:{i + 1}"
