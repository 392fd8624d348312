"""gRPC with the official client and server of Node, through ephor: all kinds of calls, statuses, trailers, refusals."""
import pytest
from harness import config, free_port, node, node_client, until
from wire2 import Client


def call(port, *arguments):
    return node_client("grpc_client.mjs", port, *arguments)


@pytest.fixture
def server(process, tmp_path):
    port = free_port()
    process(node(tmp_path, "grpc_server.mjs", port, port=port))
    return port


def check(told):
    assert told["unary"]["text"] == "got hello" and told["unary"]["trailer"] == "there"
    assert told["big"] == 3_000_004
    assert (told["failed"]["code"], told["failed"]["details"], told["failed"]["trailer"]) == (9, "not now, 100 % sure ü", "there")
    assert (told["client"], told["server"], told["both"]) == ("20 20000", 100, 30)
    assert (told["deadline"], told["cancelled"]) == (4, 1)


def test_all_four_kinds_of_calls(ephor, server):
    proxy = ephor(config(server, cluster={"protocol": "h2"}))
    check(call(proxy.port))
    until(proxy.idle, "no call left")


def test_all_four_kinds_through_two_ephors(ephor, server):
    inner = ephor(config(server, cluster={"protocol": "h2"}))
    outer = ephor(config(inner.port, cluster={"protocol": "h2"}))
    check(call(outer.port))
    until(outer.idle, "no call left outside")
    until(inner.idle, "no call left inside")


def test_an_upstream_that_is_away_is_unavailable(ephor):
    proxy = ephor(config(free_port(), cluster={"protocol": "h2"}))
    assert call(proxy.port, "unary")["unary"]["code"] == 14


def test_a_policy_refuses_with_permission_denied(ephor, server, policies):
    directory = policies(no_unary='''
local policy = require "ephor.policy"
return policy { name = "no-unary", match = { protocol = "grpc" },
  call = function(c) if c.path == "/test.Echo/Unary" then return c:deny("unary is not for you, 100 %") end end }''')
    proxy = ephor(config(server, cluster={"protocol": "h2"}, policies=directory))
    told = call(proxy.port, "unary")["unary"]
    assert told["code"] == 7 and "100 %" in told["details"]


def test_a_refusal_is_trailers_only(ephor, server, policies):
    directory = policies(none='''
local policy = require "ephor.policy"
return policy { name = "none", match = { protocol = "grpc" }, call = function(c) return c:deny("no") end }''')
    proxy = ephor(config(server, cluster={"protocol": "h2"}, policies=directory))
    with Client(proxy.port) as client:
        r = client.request("/test.Echo/Unary", "POST", [("content-type", "application/grpc"), ("te", "trailers")], b"\0\0\0\0\0")
    assert (r.status, r.get("grpc-status"), r.body, r.trailers) == (200, "7", b"", [])
