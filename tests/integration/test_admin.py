"""Admin and reporting: what the pages say, who may change something, metrics, the access log, traces."""
import json
import re
import time

import pytest
import wire1
from harness import config, until
from wire2 import Client

STAGES = {"decode", "filter", "queue", "upstream", "body", "write", "self", "total"}


@pytest.fixture
def proxy(ephor, h1_server):
    server = h1_server()
    p = ephor(config(server.port, cluster={"protocol": "http/1.1"}))
    p.server = server
    return p


@pytest.mark.parametrize("path", ["/ready", "/live", "/metrics", "/config", "/clusters", "/hops"])
def test_the_pages_answer(proxy, path):
    wire1.get(proxy.port)
    status, text = proxy.admin(path)
    assert status == 200 and text


def test_an_unknown_page_is_404_and_a_wrong_method_405(proxy):
    assert proxy.admin("/nonsense")[0] == 404
    assert proxy.admin("/ready", "DELETE")[0] == 405


def test_the_metrics_are_open_metrics(proxy):
    for _ in range(20):
        wire1.get(proxy.port)
    proxy.counted(20, "ephor_requests_total", code="2xx")
    metrics = proxy.metrics()
    assert metrics.text.endswith("# EOF\n")
    assert metrics.sum("ephor_requests_total", direction="inbound", code="2xx") == 20
    assert metrics.sum("process_resident_memory_bytes") > 0
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", metrics.text, re.M))
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", metrics.text, re.M))
    for name in types:
        assert name in helps, f"{name} has no HELP"
    for name in metrics.names():
        base = re.sub(r"_(total|bucket|sum|count|created|info)$", "", name)
        assert base in types or name in types, f"{name} has no TYPE"


def test_histograms_add_up(proxy):
    for _ in range(10):
        wire1.get(proxy.port)
    proxy.counted(10, "ephor_hop_duration_seconds_count", stage="total")
    rows = [(labels, value) for name, labels, value in proxy.metrics().rows if name == "ephor_hop_duration_seconds_bucket"
            and labels["stage"] == "total"]
    values = [value for _, value in rows]
    assert values == sorted(values) and values[-1] == 10 and rows[-1][0]["le"] == "+Inf"


def counted_stages(proxy, count):
    """The rows of /hops by stage, once `count` requests have been counted."""
    def stages():
        rows = {row["stage"]: row for row in proxy.hops() if row["count"]}
        return rows if rows.get("total", {}).get("count") == count else None
    return until(stages, f"{count} requests in /hops")


def test_the_hops_tell_the_stages(proxy):
    for _ in range(10):
        wire1.get(proxy.port)
    until(lambda: any(row["stage"] == "total" and row["count"] == 10 for row in proxy.hops()), "all ten reported")
    stages = {row["stage"]: row for row in proxy.hops() if row["count"]}
    assert {"upstream", "total", "self"} <= set(stages) <= STAGES
    assert stages["total"]["count"] == 10
    assert stages["total"]["p50_ns"] >= stages["self"]["p50_ns"] > 0 and stages["total"]["p99_ns"] >= stages["total"]["p50_ns"]


def test_the_time_of_the_server_is_the_servers(ephor, h1_server):
    def slow(wire, request):
        until(lambda end=time.monotonic() + 0.1: time.monotonic() > end, "a tenth of a second")
        wire.send(wire1.answer("x"))
    proxy = ephor(config(h1_server(slow).port, cluster={"protocol": "http/1.1"}))
    wire1.get(proxy.port)
    until(lambda: any(row["stage"] == "total" and row["count"] for row in proxy.hops()), "the report of the request")
    stages = {row["stage"]: row for row in proxy.hops() if row["count"]}
    assert stages["upstream"]["p50_ns"] > 90e6 and stages["self"]["p50_ns"] < 50e6


def test_changes_need_the_token_and_a_host_of_ours(proxy):
    assert proxy.admin("/drain", "POST", headers={"authorization": "Bearer wrong"})[0] in (401, 403)
    assert proxy.admin("/drain", "POST", headers={"authorization": ""})[0] in (401, 403)
    assert proxy.admin("/config", headers={"host": "evil.example"})[0] in (400, 403, 421), "DNS rebinding"
    assert proxy.admin("/ready")[0] == 200


def test_the_log_level_is_changed(proxy):
    status, text = proxy.admin("/logging", "POST", body="level=debug", headers={"content-type": "application/x-www-form-urlencoded"})
    if status >= 400:
        status, text = proxy.admin("/logging?level=debug", "POST")
    assert status == 200, text
    assert "debug" in proxy.admin("/logging")[1]


def test_the_access_log_is_json_with_the_times(ephor, h1_server, tmp_path):
    path = tmp_path / "access.log"
    proxy = ephor(config(h1_server().port, cluster={"protocol": "http/1.1"}, access_log={"path": str(path), "sample": "100%"}))
    wire1.get(proxy.port, "/logged?password=secret", "User-Agent: me\"\\\r\nAuthorization: Bearer hidden\r\n")
    until(lambda: path.exists() and path.read_text().count("\n") >= 1, "a line")
    text = path.read_text()
    row = json.loads(text.splitlines()[0])
    assert "/logged" in json.dumps(row) and 200 in row.values()
    assert "secret" not in text and "hidden" not in text


def test_a_trace_is_carried_on_and_made_for_the_share_that_is_sampled(proxy, ephor, h1_server):
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    r = wire1.get(proxy.port, headers=f"traceparent: {given}\r\ntracestate: a=b\r\n")
    assert r.get("x-got-traceparent").split("-")[1] == given.split("-")[1] and r.get("x-got-tracestate") == "a=b"
    assert not wire1.get(proxy.port).get("x-got-traceparent")
    assert not wire1.get(proxy.port, headers="traceparent: nonsense\r\n").get("x-got-traceparent")
    sampling = ephor(config(h1_server().port, cluster={"protocol": "http/1.1"}, tracing={"sample": "100%"}))
    for headers in ["", "traceparent: nonsense\r\n"]:
        made = wire1.get(sampling.port, headers=headers).get("x-got-traceparent")
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", made)


def test_server_timing_when_asked(ephor, h1_server):
    proxy = ephor(config(h1_server().port, {"server_timing": True}, {"protocol": "http/1.1"}))
    assert re.search(r"ephor;dur=[\d.]+", wire1.get(proxy.port).get("server-timing"))


def test_labels_are_bounded(proxy):
    with Client(proxy.port) as client:
        for i in range(300):
            client.authority = f"host{i}.example"
            client.request(f"/{i}")
    text = proxy.metrics().text
    assert text.count("\n") < 3000 and "host299.example" not in text


@pytest.mark.measured
def test_a_scrape_costs_no_request(proxy):
    for _ in range(50):
        proxy.metrics()
        assert wire1.get(proxy.port).status == 200


@pytest.mark.measured
def test_idle_memory(ephor, h1_server, policies):
    proxy = ephor(config(h1_server().port, policies=policies(gate='''
local policy = require "ephor.policy"
return policy { name = "gate", call = function(c) if c.path == "/no" then return c:deny("no") end end }''')))
    wire1.get(proxy.port)
    assert proxy.rss("VmRSS") < 8 << 20, proxy.rss("VmRSS")
    assert proxy.rss("RssAnon") < 4 << 20, proxy.rss("RssAnon")
