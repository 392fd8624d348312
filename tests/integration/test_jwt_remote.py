"""jwt.remote against a real server of keys: one fetch for all, an unknown key id, a rotation, a server that is away, and clients
that leave while the keys are on their way."""
import base64
import json
import threading
import time

import pytest
import wire1
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from harness import SLOW, config, until

POLICY = '''local policy, jwt = require "ephor.policy", require "ephor.jwt"
local issuer_keys = jwt.remote { cluster = "issuer", path = "/jwks.json", host = "login.example", %s }
return policy {
  name = "token",
  call = function(c)
    local token = jwt.bearer(c.headers.authorization)
    if not token then return c:deny("a token, please") end
    local keys, why = issuer_keys(c, jwt.kid(token))
    if not keys then return c:deny(why, { code = "token.keys" }) end
    local claims, no = jwt.verify(token, { keys = keys, algorithms = { "EdDSA" }, issuer = "login", audience = "agents", now = c.now })
    if not claims then return c:deny(no, { code = "token.bad" }) end
    c:header("x-who", claims.sub)
  end,
}
'''


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Publishes its keys, or hangs, or says 503, or is nobody's."""

    def __init__(self):
        self.keys, self.mode, self.go_on = {}, "good", threading.Event()
        self.rotate("first")

    def rotate(self, kid):
        self.keys = {kid: Ed25519PrivateKey.generate()}

    def handler(self, wire, request):
        assert (request.method, request.path, request.get("host")) == ("GET", "/jwks.json", "login.example")
        if self.mode == "slow":
            self.go_on.wait(20)
        if self.mode == "away":
            return wire.send(wire1.answer(b"", "503 Service Unavailable"))
        jwks = [{"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid,
                 "x": b64(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))} for kid, key in self.keys.items()]
        return wire.send(wire1.answer(json.dumps({"keys": jwks}).encode()))

    def token(self, kid=None, key=None, **claims):
        kid = kid or next(iter(self.keys))
        key = key or self.keys.get(kid) or Ed25519PrivateKey.generate()
        parts = [{"alg": "EdDSA", "kid": kid}, {"iss": "login", "aud": "agents", "sub": "ann", "exp": time.time() + 600, **claims}]
        text = ".".join(b64(json.dumps(part).encode()) for part in parts)
        return f"{text}.{b64(key.sign(text.encode()))}"


@pytest.fixture
def guarded(ephor, h1_server, policies):
    def start(options="every = 600"):
        issuer = Issuer()
        server, keys = h1_server(), h1_server(issuer.handler)
        c = config(server.port, cluster={"protocol": "http/1.1"}, policies=policies(token=POLICY % options))
        c["clusters"].append({"name": "issuer", "endpoints": [f"127.0.0.1:{keys.port}"], "protocol": "http/1.1"})
        proxy = ephor(c)
        proxy.issuer, proxy.keys, proxy.server = issuer, keys, server
        return proxy
    return start


def ask(proxy, token):
    return wire1.get(proxy.port, headers=f"Authorization: Bearer {token}\r\nAccept: application/json\r\n")


def reason(response):
    assert response.status == 403
    return json.loads(response.body)["detail"].removeprefix("Refused by policy token: ")


def together(proxy, tokens):
    """Asks at the same time, with one connection each."""
    answers = [None] * len(tokens)

    def one(i):
        answers[i] = ask(proxy, tokens[i])
    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(tokens))]
    for thread in threads:
        thread.start()
    return answers, threads


def test_a_valid_token_passes_and_the_keys_are_kept(guarded):
    proxy = guarded()
    issuer = proxy.issuer
    for _ in range(20):
        r = ask(proxy, issuer.token())
        assert (r.status, r.get("x-got-x-who")) == (200, "ann")
    assert len(proxy.keys.requests) == 1, "20 calls, one fetch"
    assert "expired" in reason(ask(proxy, issuer.token(exp=time.time() - 3600)))
    assert "signature is wrong" in reason(ask(proxy, issuer.token(key=Ed25519PrivateKey.generate())))
    assert "another audience" in reason(ask(proxy, issuer.token(aud="others")))
    assert len(proxy.keys.requests) == 1 and len(proxy.server.requests) == 20


def test_calls_that_come_while_the_keys_are_fetched_wait_for_them(guarded):
    proxy = guarded()
    proxy.issuer.mode = "slow"
    answers, threads = together(proxy, [proxy.issuer.token() for _ in range(8)])
    until(lambda: proxy.metric("ephor_policy_waiting") == 8, "all wait")
    assert len(proxy.keys.requests) == 1
    proxy.issuer.go_on.set()
    for thread in threads:
        thread.join()
    assert [r.status for r in answers] == [200] * 8
    assert len(proxy.keys.requests) == 1, "one fetch for all"
    assert proxy.metric("ephor_policy_waiting") == 0


def test_an_unknown_key_is_asked_for_once_and_not_by_each_call(guarded):
    proxy = guarded("every = 600, unknown = 2")
    issuer = proxy.issuer
    assert ask(proxy, issuer.token()).status == 200
    begin = time.monotonic()
    asked = until(lambda: "not known" in reason(ask(proxy, issuer.token("made-up"))) and len(proxy.keys.requests) == 2 and
                  time.monotonic(), "the one fetch")
    assert asked - begin > 1.0, "not before its time"
    answers, threads = together(proxy, [issuer.token(f"made-up-{i}") for i in range(20)])
    for thread in threads:
        thread.join()
    assert all(r.status == 403 for r in answers)
    if time.monotonic() - asked < 2:  # else a busy machine has let the next one begin
        assert len(proxy.keys.requests) == 2, "no storm"
    assert ask(proxy, issuer.token()).status == 200


def test_a_rotated_key_works_when_it_is_first_used(guarded):
    proxy = guarded("every = 600, unknown = 1")
    issuer = proxy.issuer
    old = issuer.token()
    assert ask(proxy, old).status == 200
    issuer.rotate("second")
    assert ask(proxy, old).status == 200, "what is kept is kept"
    until(lambda: ask(proxy, issuer.token()).status == 200, "the new key")
    assert len(proxy.keys.requests) == 2
    assert "not known" in reason(ask(proxy, old)), "the old one is gone with the old set"


def test_without_the_server_nothing_passes_and_the_reason_says_why(guarded):
    proxy = guarded("failed = 1")
    issuer = proxy.issuer
    issuer.mode = "away"
    for _ in range(5):
        assert reason(ask(proxy, issuer.token())) == "the issuer's keys can't be fetched: status 503"
    assert len(proxy.keys.requests) <= 1 + 1 * SLOW, "a failure is remembered"
    issuer.mode = "good"
    until(lambda: ask(proxy, issuer.token()).status == 200, "it is back")
    proxy.keys.close()
    assert ask(proxy, issuer.token()).status == 200, "the keys that are there stay good"
    assert len(proxy.server.requests) == 2


def test_a_server_that_nobody_listens_for_or_that_hangs(guarded):
    proxy = guarded("failed = 1, timeout = 0.5")
    proxy.issuer.mode = "slow"
    assert reason(ask(proxy, proxy.issuer.token())) == "the issuer's keys can't be fetched: timeout"
    proxy.issuer.go_on.set()
    proxy.issuer.mode = "good"
    until(lambda: ask(proxy, proxy.issuer.token()).status == 200, "it answers again")

    nobody = guarded("failed = 600")
    nobody.keys.close()
    assert reason(ask(nobody, nobody.issuer.token())).startswith("the issuer's keys can't be fetched: ")
    assert nobody.server.requests == []


def test_old_keys_are_good_for_a_while_and_then_none(guarded):
    proxy = guarded("every = 1, stale = 2, failed = 0.1")
    token = proxy.issuer.token()
    assert ask(proxy, token).status == 200
    proxy.issuer.mode = "away"
    until(lambda: len(proxy.keys.requests) >= 2 or ask(proxy, token).status != 200, "it is asked again")
    until(lambda: ask(proxy, token).status == 403, "too old")
    assert reason(ask(proxy, token)) == "the issuer's keys can't be fetched: status 503"
    proxy.issuer.mode = "good"
    until(lambda: ask(proxy, token).status == 200, "and back")


def test_a_client_that_leaves_while_it_fetches_takes_nobody_with_it(guarded):
    proxy = guarded("timeout = 1")
    issuer = proxy.issuer
    issuer.mode = "slow"
    with wire1.connect(proxy.port) as first:
        first.send(f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {issuer.token()}\r\n\r\n")
        until(lambda: len(proxy.keys.requests) == 1, "it fetches")
        first.reset()
    until(lambda: proxy.metric("ephor_policy_waiting") == 0, "it is gone")
    issuer.mode = "good"
    issuer.go_on.set()
    assert ask(proxy, issuer.token()).status == 200
    assert len(proxy.keys.requests) == 2
