"""Many requests of all kinds, good and rude: memory, descriptors and streams are what they were.

EPHOR_SOAK sets how many (default 30,000 in a test run; 2,000,000 is the long one)."""
import contextlib
import os
import random
import threading

import pytest
import wire1
import wire2
from harness import SANITIZED, config, h2load, nghttpd, until

COUNT = int(os.environ.get("EPHOR_SOAK", "3000" if SANITIZED else "30000"))


def rude(port, rng, rounds):
    """What clients do that isn't nice: leave early, reset, send half, send nonsense."""
    for _ in range(rounds):
        with contextlib.suppress(OSError, wire1.Closed):
            kind = rng.randrange(6)
            if kind == 0:
                with wire1.connect(port) as wire:
                    wire.send("POST /small HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\nhalf")
            elif kind == 1:
                wire1.connect(port).send("GET /mega HTTP/1.1\r\nHost: t\r\n\r\n").reset()
            elif kind == 2:
                with wire1.connect(port) as wire:
                    wire.send(bytes(rng.randrange(256) for _ in range(200))).sock.shutdown(1)
                    wire.rest()
            elif kind == 3:
                with wire2.Client(port) as client:
                    streams = [client.start("/mega") for _ in range(5)]
                    for stream in streams:
                        client.h2.reset_stream(stream.id, 8)
                    client.flush()
            elif kind == 4:
                with wire2.Client(port) as client:
                    client.start("/small", "POST", end=False)
            else:
                assert wire1.get(port, "/kilo").status == 200


@pytest.mark.workers
@pytest.mark.limit(3600)
def test_a_mix_of_requests_leaves_nothing_behind(ephor, process, tmp_path, site):
    _, port = process(nghttpd(tmp_path, site, "-m", "100"))
    proxy = ephor({**config(port, cluster={"protocol": "h2"}), "workers": 2})

    def round_of(count, seed):
        rng = random.Random(seed)
        others = [threading.Thread(target=rude, args=(proxy.port, random.Random(seed + i), max(20, count // 500)))
                  for i in range(2)]
        for thread in others:
            thread.start()
        big = max(10, count // 1000)
        h2load(proxy.port, "-n", str(count * 6 // 10), "-c", "20", "-m", "20", path="/small")
        h2load(proxy.port, "-n", str(count * 3 // 10), "-c", "10", "--h1", path="/kilo")
        h2load(proxy.port, "-n", str(big), "-c", "5", "-m", str(rng.randrange(1, 5)), path="/mega")
        for thread in others:
            thread.join()
        until(proxy.idle, "no stream left", 30)
        until(lambda: proxy.metric("ephor_connections_active") == 0, "no connection left", 30)
    round_of(COUNT // 3, 1)  # what is kept for later is there by now
    descriptors = proxy.fds()
    for seed in range(2, 6):  # how many come at once is the machine's choice, so a round may need more than those before: a leak grows in each
        memory = proxy.rss("RssAnon")
        round_of(COUNT, seed)
        if SANITIZED or proxy.rss("RssAnon") <= memory + (2 << 20):
            break
    else:
        pytest.fail(f"another {proxy.rss('RssAnon') - memory} bytes in each round")
    assert proxy.fds() <= descriptors + 2
