"""Chaos: delay and abort for a share of requests, off unless asked for, never beyond what was asked."""
import time

import pytest
import wire1
from harness import config, until


@pytest.fixture
def chaos(ephor, h1_server):
    def start(*experiments, enabled=True, **top):
        server = h1_server()
        proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"},
                             chaos={"enabled": enabled, "experiments": list(experiments)}, **top))
        proxy.server = server
        return proxy
    return start


def experiment(fault, **more):
    return {"experiment": "test", "because": "to see it", "match": {}, "fault": fault, "percent": 100, "duration": "5m", **more}


def timed(port, path="/", headers=""):
    start = time.monotonic()
    return wire1.get(port, path, headers), time.monotonic() - start


def test_a_delay_delays(chaos):
    proxy = chaos(experiment({"delay": {"fixed": "200ms"}}))
    r, seconds = timed(proxy.port)
    assert r.status == 200 and seconds >= 0.2
    proxy.counted(1, "ephor_chaos_injections_total", experiment="test", fault="delay")


def test_an_abort_answers_in_place_of_the_upstream(chaos):
    proxy = chaos(experiment({"abort": {"status": 503}}))
    assert wire1.get(proxy.port).status == 503 and not proxy.server.requests
    proxy.counted(1, "ephor_chaos_injections_total", experiment="test", fault="abort")


def test_only_what_matches_is_hit(chaos):
    proxy = chaos(experiment({"abort": {"status": 503}}, match={"path": "/victim"}))
    assert wire1.get(proxy.port, "/other").status == 200 and wire1.get(proxy.port, "/victim").status == 503


def test_a_share_is_a_share(chaos):
    proxy = chaos(experiment({"abort": {"status": 503}}, percent=30, seed=42))
    with wire1.connect(proxy.port) as wire:
        hit = sum(wire.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n").response().status == 503 for _ in range(400))
    assert 70 <= hit <= 170
    proxy.counted(hit, "ephor_chaos_injections_total")


def test_off_is_off(chaos):
    proxy = chaos(experiment({"abort": {"status": 503}}), enabled=False)
    assert wire1.get(proxy.port).status == 200


def test_clients_cannot_ask_for_faults(ephor, h1_server):
    proxy = ephor(config(h1_server().port, cluster={"protocol": "http/1.1"}))
    assert wire1.get(proxy.port, headers="x-envoy-fault-abort-request: 503\r\nx-envoy-fault-delay-request: 2000\r\n").status == 200


def test_an_experiment_ends_when_its_time_is_over(chaos):
    proxy = chaos(experiment({"abort": {"status": 503}}, duration="1s"))
    until(lambda: wire1.get(proxy.port).status == 200, "the end of the experiment")


def test_a_duration_is_required(chaos):
    broken = experiment({"abort": {"status": 503}})
    del broken["duration"]
    with pytest.raises(AssertionError, match="duration"):
        chaos(broken)
