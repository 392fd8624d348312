"""The constitution: named in headers, in messages of the agent bus as JSON and as protobuf; its text, pinned and signed."""
import base64
import hashlib
import json
import os
import pathlib

import pki
import pytest
import wire1
import wire2
from harness import HASH, config, run, until

pytestmark = pytest.mark.workers

WRONG = "abcd1234ffffffff"
JSON = "Content-Type: application/json\r\nAccept: application/json\r\n"

NO_SHELL = '''
local policy = require "ephor.policy"
return policy { name = "no-shell", call = function(c)
  if c.path:find("^/shell") then return c:deny("no shells") end
end }'''
OPERATORS = NO_SHELL.replace("no-shell", "operators").replace("/shell", "/ops")
YAML = """
hash: {hash}
version: 2026.11
principles:
  - id: P1
    text: No agent runs commands of its own.
    severity: critical
    policies: [no-shell]
    tags: [eu-ai-act, soc2]
  - {{id: P2, text: Who asks is known., policies: [constitution, authorize]}}
"""


@pytest.fixture
def bundle(tmp_path):
    """bundle(name): a constitution's directory, its files free to change."""
    def make(name="constitution", text=YAML.format(hash=HASH), policy=NO_SHELL):
        directory = tmp_path / name
        (directory / "policies").mkdir(parents=True, exist_ok=True)
        (directory / "constitution.yaml").write_text(text)
        (directory / "policies" / "no-shell.lua").write_text(policy)
        return directory
    return make


@pytest.fixture
def constitutional(ephor, h1_server):
    def start(listener=None, cluster=None, top=None, **constitution):
        proxy = ephor(config(h1_server().port, listener, {"protocol": "http/1.1", **(cluster or {})}, constitution=constitution, **(top or {})))
        return proxy
    return start


def post(port, message, path="/api/v1/messages", headers=JSON):
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return wire1.get(port, path, headers, method="POST", body=body)


@pytest.mark.parametrize("message, status", [
    ({"content": "hi", "constitutional_hash": HASH}, 200),
    ({"content": "hi", "constitutional_hash": WRONG}, 403),
    ({"message_type": "command", "constitutional_hash": WRONG}, 400),
    ({"content": {"deep": ["}", "\""]}, "routing": {"routing_key": "a", "constitutional_hash": WRONG}}, 403),
    ({"routing": {"constitutional_hash": HASH}, "constitutional_hash": HASH}, 200),
    ({"routing": {"constitutional_hash": HASH}, "constitutional_hash": WRONG}, 403),
    ({"content": {"constitutional_hash": WRONG}, "constitutional_hash": None}, 200),
    ({"constitutional_hash": 7}, 403),
    ([{"constitutional_hash": HASH}, {"constitutional_hash": WRONG}], 403),
    (b'{"constitutional\\u005fhash": "' + WRONG.encode() + b'"}', 403),
    (b'{"Constitutional_Hash": "' + WRONG.encode() + b'"}', 403),
    (b' \xef\xbb\xbf'.strip() + b'{"constitutional_hash": "' + WRONG.encode() + b'"}', 403),
    ({}, 200),
])
def test_a_message_of_the_bus_names_the_hash_in_its_body(constitutional, message, status):
    proxy = constitutional(hash=HASH)
    r = post(proxy.port, message)
    assert r.status == status
    if status != 200:
        answer = json.loads(r.body)
        code = answer["metadata"]["code"] if status == 400 else answer["code"]  # a message of the bus: its ValidationResult
        assert code == "constitution.mismatch" and HASH.encode() not in r.raw + r.body
        proxy.counted(1, "ephor_constitution_checks_total", result="mismatch")


def test_a_wrong_hash_is_shown_by_its_first_eight_characters_only(constitutional):
    proxy = constitutional(hash=HASH)
    r = post(proxy.port, {"constitutional_hash": WRONG})
    assert "Constitutional hash mismatch (provided: abcd1234...)" in json.loads(r.body)["detail"]


def test_strict_takes_the_hash_from_header_or_body_and_each_must_be_right(constitutional):
    proxy = constitutional(hash=HASH, strict=True)
    named = f"X-Constitutional-Hash: {HASH}\r\n"
    assert post(proxy.port, {"content": "hi"}).status == 403
    assert post(proxy.port, {"content": "hi"}, headers=JSON + named).status == 200
    assert post(proxy.port, {"content": "hi", "constitutional_hash": HASH}).status == 200
    assert post(proxy.port, {"constitutional_hash": WRONG}, headers=JSON + named).status == 403
    one, other = {"message_type": "event", "constitutional_hash": HASH}, {"message_type": "event"}
    assert post(proxy.port, [one, one]).status == 200
    assert post(proxy.port, [one, other]).status == 400, "each message of an array"
    assert post(proxy.port, [one, other], headers=JSON + named).status == 200


# --- protobuf -----------------------------------------------------------------------------------------------------------
def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    return varint(number << 3 | 2) + varint(len(value)) + value


def framed(message, flag=0):
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def call(port, *messages, method="Send", headers=()):
    with wire2.Client(port) as client:
        return client.request(f"/acgs2.agent_bus.v1.AgentBus/{method}", method="POST",
                              headers=[("content-type", "application/grpc"), ("te", "trailers"), *headers],
                              body=b"".join(messages))


def grpc(exchange):
    exchange.respond(200, framed(b"ok"), [("content-type", "application/grpc")], trailers=[("grpc-status", "0")])


@pytest.mark.parametrize("message, status", [
    (field(1, b"id") + field(15, HASH.encode()), "0"),
    (field(15, WRONG.encode()), "7"),
    (field(9, field(3, b"key") + field(8, WRONG.encode())), "7"),
    (field(15, HASH.encode()) + field(15, WRONG.encode()), "7"),
    (field(3, field(15, WRONG.encode())) + field(15, HASH.encode()), "0"),
    (b"\x7a\xff\xff\xff\xff\x0fx", "3"),  # no message of the bus, to the filter agent
    (b"", "0"),
])
def test_a_message_over_grpc_names_it_in_its_field(ephor, h2_server, message, status):
    proxy = ephor(config(h2_server(grpc).port, cluster={"protocol": "h2"}, constitution={"hash": HASH}))
    r = call(proxy.port, framed(message))
    assert (r.get("grpc-status") or r.trailer("grpc-status")) == status
    if status == "7":
        assert HASH not in str(r.headers)
    assert call(proxy.port, framed(message, flag=1)).get("grpc-status") == "7", "compressed: it can't be seen"


def test_a_message_of_grpc_web_in_base64_is_read_and_in_json_it_is_none(ephor, h2_server, policies):
    vault = '''return require "ephor.policy" { name = "vault", match = { protocol = "acgs2", recipient = "vault" },
      call = function(c) return c:deny("nobody writes to the vault") end }'''
    proxy = ephor(config(h2_server(grpc).port, cluster={"protocol": "h2"}, constitution={"hash": HASH}, policies=policies(vault=vault)))

    def send(message, kind="application/grpc-web-text", method="Send"):
        body = framed(message)
        pieces = [body[:5], body[5:]] if "text" in kind else []  # each padded by itself
        with wire2.Client(proxy.port) as client:
            return client.request(f"/acgs2.agent_bus.v1.AgentBus/{method}", method="POST", headers=[("content-type", kind)],
                                  body=b"".join(map(base64.b64encode, pieces)) or body)
    right, wrong = field(15, HASH.encode()), field(15, WRONG.encode())
    assert send(right).trailer("grpc-status") == "0" and send(field(6, b"x") + right, "application/grpc-web+proto").trailer("grpc-status") == "0"
    r = send(field(6, b"vault") + right)
    assert r.get("grpc-status") == "7" and "nobody writes to the vault" in r.get("grpc-message")
    for refused in send(wrong), send(wrong, "application/grpc-web"), send(wrong, method="Stream"), send(right, method="Stream"), \
            send(json.dumps({"constitutionalHash": WRONG}).encode(), "application/grpc+json"):
        assert refused.get("grpc-status") == "7" and HASH not in str(refused.headers)
    proxy.counted(5, "ephor_bus_messages_total", type="command")
    assert proxy.metric("ephor_call_blind_total", reason="unknown") == 1, "JSON"


def test_each_message_of_a_stream_is_looked_at_and_strict_wants_it_in_each(ephor, h2_server):
    seen = []

    def collect(exchange):
        seen.append(exchange.body())
        grpc(exchange)
    proxy = ephor(config(h2_server(collect).port, cluster={"protocol": "h2"}, constitution={"hash": HASH, "strict": True}))
    good, other = framed(field(15, HASH.encode())), framed(field(11, b"acme"))
    assert call(proxy.port, good, good, good, method="Stream").trailer("grpc-status") == "0" and seen == [good * 3]
    assert call(proxy.port, good, other, method="Stream").get("grpc-status") == "7"
    assert call(proxy.port, other, headers=[("x-constitutional-hash", HASH)]).trailer("grpc-status") == "0"
    assert call(proxy.port, good[:-3], method="Stream").get("grpc-status") == "7", "cut off"
    assert call(proxy.port, good[:-3]).get("grpc-status") == call(proxy.port, good, good).get("grpc-status") == "3", "not one message"


def begin(client, method):
    return client.start(f"/acgs2.agent_bus.v1.AgentBus/{method}", "POST", [("content-type", "application/grpc"), ("te", "trailers")], end=False)


BAD = framed(field(15, WRONG.encode()))


def test_an_upstream_that_answers_before_a_message_never_gets_a_call_of_one_message(ephor, h2_server):
    server = h2_server(grpc)
    proxy = ephor(config(server.port, cluster={"protocol": "h2"}, constitution={"hash": HASH}))
    assert call(proxy.port, framed(b"")).trailer("grpc-status") == "0", "a connection is there"
    with wire2.Client(proxy.port) as client:
        for message in (BAD, framed(field(15, HASH.encode()), flag=1)):
            s = begin(client, "Send")
            assert client.ping() and not s.headers, "the head is held until the message was judged"
            client.send_data(s.id, message, end=True)
            assert client.finish(s).get("grpc-status") == "7"
    assert not any(e.stream.body for e in server.exchanges[1:])


def test_an_upstream_that_answers_before_the_messages_of_a_stream_does_not_get_them_when_they_are_refused(ephor, h2_server):
    def early(exchange):
        exchange.headers_only(200, [("content-type", "application/grpc")])
        exchange.data(framed(b"ok"))
    server = h2_server(early)
    proxy = ephor(config(server.port, cluster={"protocol": "h2"}, constitution={"hash": HASH}))
    with wire2.Client(proxy.port) as client:
        s = begin(client, "Stream")
        assert client.pump_until(lambda: s.body == framed(b"ok"))
        client.send_data(s.id, BAD[:9])
        client.send_data(s.id, BAD[9:])
        assert client.finish(s).trailer("grpc-status") == "7"
        assert server.exchanges[0].wait(lambda s: s.reset is not None).body == b""


def test_a_refusal_behind_an_answer_that_has_not_left_yet_is_none_that_looks_good(ephor, h2_server):
    def early(exchange):
        exchange.respond(200, b"x" * 100_000, [("content-type", "application/grpc")], trailers=[("grpc-status", "0")])
        with exchange.peer.lock:
            exchange.peer.h2.ping(b"answered")
            exchange.peer.flush()
    server = h2_server(early)
    proxy = ephor(config(server.port, cluster={"protocol": "h2"}, constitution={"hash": HASH}))
    with wire2.Client(proxy.port) as client:
        client.auto_window = False  # so the end of the answer waits in the proxy
        s = begin(client, "Stream")
        assert client.pump_until(lambda: len(s.body) == 65535)
        until(lambda: server.peers[0].pings, "the proxy has all of the answer")
        client.send_data(s.id, BAD)
        assert client.finish(s).reset == 2 and not s.trailers
    assert server.exchanges[0].stream.body == b""
    proxy.counted(1, "ephor_constitution_checks_total", result="mismatch")


# --- between ephors -----------------------------------------------------------------------------------------------------
def identity(leaf):
    return {"files": {"certificate": leaf.certificate, "key": leaf.key, "roots": leaf.roots}, "trust_domain": "cluster.local"}


@pytest.mark.parametrize("theirs, known", [("same", "same"), ("other", "other"), (None, "unknown")])
def test_a_pod_knows_whether_its_peer_is_held_to_the_same_text(ephor, h1_server, bundle, tmp_path, theirs, known):
    pki.roots(tmp_path)
    planner, tools = (pki.leaf(tmp_path, n, f"spiffe://cluster.local/ns/agents/sa/{n}") for n in ("planner", "tools"))
    ours = bundle()
    text = {"same": ours, "other": bundle("other", policy=NO_SHELL + "-- a word more"), None: None}[theirs]
    server = h1_server()
    inner = ephor(config(server.port, {"tls": "strict"}, {"protocol": "http/1.1"}, identity=identity(tools),
                         constitution={"bundle": str(ours)}))
    outer = ephor(config(inner.port, {"direction": "outbound"}, {"protocol": "h2", "tls": {"mode": "mesh"}},
                         identity=identity(planner), constitution={"bundle": str(text)} if text else {"hash": HASH}))
    r = wire1.get(outer.port, headers="X-Ephor-Constitution: sha256:forged\r\n")
    assert r.status == 200 and r.get("x-ephor-constitution") is None
    assert not [n for n, _ in server.requests[-1].headers if n.lower() == "x-ephor-constitution"], "it goes no further"
    inner.counted(1, "ephor_constitution_peers_total", peer=known)
    if text:
        until(lambda: outer.metric("ephor_constitution_peers_total", peer=known) == 1, "the reply tells the same")


def test_a_mark_of_a_stranger_is_not_believed(constitutional, bundle):
    text = bundle()
    proxy = constitutional(bundle=str(text))
    assert wire1.get(proxy.port, headers=f"X-Ephor-Constitution: {digest(text)}\r\n").status == 200
    proxy.counted(1, "ephor_constitution_peers_total", peer="unknown")


# --- the bundle ---------------------------------------------------------------------------------------------------------
def digest(directory):
    """As docs/constitution.md defines it, by another hand."""
    lines = []
    for path in directory.rglob("*"):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in name.split("/")) and name != "constitution.sig":
            data = path.read_bytes()
            lines.append((name.encode(), f"{hashlib.sha256(data).hexdigest()} {len(data)} {name}\n"))
    listing = "ephor-constitution-1\n" + "".join(line for _, line in sorted(lines))
    return "sha256:" + hashlib.sha256(listing.encode()).hexdigest()


def test_the_text_is_in_force_and_each_refusal_names_its_principle(constitutional, bundle, policies, tmp_path):
    text = bundle()
    proxy = constitutional(bundle=str(text), digest=digest(text),
                           top={"policies": {"directory": policies(operators=OPERATORS), "mode": "shadow"},
                                "audit": {"directory": str(tmp_path / "audit")}})
    r = wire1.get(proxy.port, "/shell", "Accept: application/json\r\n")
    answer = json.loads(r.body)
    assert r.status == 403 and answer["policy"] == "no-shell" and answer["principle"] == "P1"
    assert answer["principle_text"] == "No agent runs commands of its own." and "(principle P1: No agent runs commands of its own)" in answer["detail"]
    assert wire1.get(proxy.port, "/ops").status == 200, "the operator's shadow is the operator's"
    r = wire1.get(proxy.port, headers=f"X-Constitutional-Hash: {WRONG}\r\nAccept: application/json\r\n")
    assert json.loads(r.body)["principle"] == "P2"
    records = [json.loads(line) for path in (tmp_path / "audit").glob("*.jsonl") for line in path.read_text().splitlines()]
    denied, = [r for r in records if r.get("policy") == "no-shell"]
    assert denied["compliance_tags"] == ["eu-ai-act", "soc2"] and denied["policy_version"] == "2026.11"
    assert denied["constitutional_hash"] == HASH
    assert [r["constitution_digest"] for r in records if r["event"] == "configuration"] == [digest(text)]
    told = json.loads(proxy.admin("/constitution")[1])
    assert told["hash"] == HASH and told["bundle"]["digest"] == digest(text) and told["bundle"]["principles"][0]["id"] == "P1"
    assert told["checks"]["mismatch"] == 1 and told["since"].startswith("20") and told["digest_pinned"]


def test_no_rollback_leads_to_the_constitution_alone(ephor, h1_server, bundle, policies):
    text, upstream, directory = bundle(), h1_server().port, policies(operators=OPERATORS)

    def configured(mode):
        return config(upstream, None, {"protocol": "http/1.1"}, constitution={"hash": HASH, "bundle": str(text), "digest": digest(text)},
                      policies={"directory": directory, "mode": mode})
    proxy = ephor(configured("enforce"))
    assert wire1.get(proxy.port, "/ops").status == 403 and wire1.get(proxy.port, "/shell").status == 403
    proxy.reload(configured("off"))
    assert wire1.get(proxy.port, "/ops").status == 200 and wire1.get(proxy.port, "/shell").status == 403
    assert proxy.admin("/policies/rollback", "POST")[0] == 409
    proxy.reload(configured("enforce"))
    assert wire1.get(proxy.port, "/ops").status == 403
    assert proxy.admin("/policies/rollback", "POST")[0] == 409, "there is no version without the operator's policies"
    assert wire1.get(proxy.port, "/ops").status == 403 and wire1.get(proxy.port, "/shell").status == 403


def test_what_the_constitution_refuses_takes_no_version_of_the_policies_back(ephor, h1_server, bundle, policies):
    text, upstream, directory = bundle(), h1_server().port, policies(operators=OPERATORS)

    def settings():
        return config(upstream, None, {"protocol": "http/1.1"}, constitution={"hash": HASH, "bundle": str(text)},
                      policies={"directory": str(directory), "rollback": {"window": "60s", "minimum": 20}})

    def told():
        return json.loads(proxy.admin("/policies")[1])

    def drive(path, status):
        for _ in range(30):
            assert wire1.get(proxy.port, path).status == status

    proxy = ephor(settings())
    drive("/good", 200)
    pathlib.Path(directory, "operators.lua").write_text(OPERATORS.replace("/ops", "/other"))
    until(lambda: wire1.get(proxy.port, "/other").status == 403, "the new version")
    drive("/shell", 403)  # the constitution's
    assert told()["compared"] is True
    bundle(policy=NO_SHELL.replace("/shell", "/worse"))
    proxy.reload(settings())
    until(lambda: wire1.get(proxy.port, "/worse").status == 403, "the constitution's new text")
    assert told()["compared"] is True, "another constitution ends no comparison"
    drive("/worse", 403)
    drive("/good", 200)
    assert told()["rolled_back"] is False and told()["compared"] is True
    for _ in range(30):
        wire1.get(proxy.port, "/other")  # the operator's: half of what they were asked
    until(lambda: told()["rolled_back"], "the version before")
    assert wire1.get(proxy.port, "/ops").status == 403 and wire1.get(proxy.port, "/worse").status == 403
    assert proxy.metric("ephor_policy_rollbacks_total", reason="denials") == 1


def test_another_text_than_the_pinned_one_is_never_loaded(constitutional, bundle):
    text = bundle()
    proxy = constitutional(bundle=str(text), digest=digest(text))
    rejected = proxy.metric("ephor_config_reload_total", result="rejected")
    (text / "policies" / "no-shell.lua").write_text(NO_SHELL.replace("/shell", "/other"))
    until(lambda: proxy.metric("ephor_config_reload_total", result="rejected") > rejected, "the change is seen and refused")
    assert "this is another text" in proxy.admin("/config")[1]
    assert wire1.get(proxy.port, "/shell").status == 403 and wire1.get(proxy.port, "/other").status == 200
    since = json.loads(proxy.admin("/constitution")[1])["since"]
    proxy.reload(config(1, constitution={"bundle": str(text), "digest": digest(text)}))
    assert json.loads(proxy.admin("/constitution")[1])["since"] > since
    assert wire1.get(proxy.port, "/other").status == 403


def test_a_text_that_is_not_signed_by_the_key_is_never_loaded(constitutional, bundle, ephor, tmp_path):
    text, binary = bundle(), os.environ.get("EPHOR_BIN", "build/release/ephor")
    key, other = (run(binary, "constitution", "keygen", tmp_path / name).stdout.strip() for name in ("key.pem", "other.pem"))
    assert run(binary, "constitution", "verify", "--key", key, text, check=False).returncode == 1
    assert run(binary, "constitution", "sign", "--key", tmp_path / "key.pem", text).stdout.strip() == digest(text)
    assert "good" in run(binary, "constitution", "verify", "--key", key, "--digest", digest(text), text).stdout
    assert "not of this key" in run(binary, "constitution", "verify", "--key", other, text, check=False).stderr
    proxy = constitutional(bundle=str(text), signature=key)
    assert json.loads(proxy.admin("/constitution")[1])["bundle"]["signed_by"] == key
    proxy.reload(config(1, constitution={"bundle": str(text), "signature": other}), "rejected")
    rejected = proxy.metric("ephor_config_reload_total", result="rejected")
    (text / "constitution.yaml").write_text(YAML.format(hash=HASH).replace("critical", "low"))
    until(lambda: proxy.metric("ephor_config_reload_total", result="rejected") > rejected, "the change is seen and refused")
    assert wire1.get(proxy.port, "/shell").status == 403
    assert run(binary, "constitution", "keygen", tmp_path / "key.pem", check=False).returncode == 3, "no key is written over"


@pytest.mark.parametrize("damage, says", [
    (lambda d: (d / "constitution.yaml").unlink(), "there is no constitution.yaml"),
    (lambda d: (d / "constitution.yaml").write_text("hash: cdd01ef066bc6cf2\nversion: 1\nprinciples: []\nrules: 1\n"), "rules"),
    (lambda d: (d / "constitution.yaml").write_text(YAML.format(hash="feedfacefeedface")), "another hash"),
    (lambda d: (d / "policies" / "no-shell.lua").write_text("return 7"), "no-shell.lua"),
    (lambda d: os.mkfifo(d / "pipe"), "not a file"),
    (lambda d: (d / "policies" / "io.lua").write_text('return io.open("/etc/passwd")'), "io.lua"),
])
def test_a_text_that_is_not_good_does_not_start(bundle, damage, says, h1_server, ephor):
    text = bundle()
    damage(text)
    proxy = ephor(config(h1_server().port, constitution={"hash": HASH, "bundle": str(text)}), ready=False)
    proxy.stopped = True
    until(lambda: not proxy.process.alive(), "the end of a start that can't be")
    assert proxy.process.popen.returncode in (1, 3) and says in proxy.log


def test_a_digest_is_of_what_stands_there_and_of_nothing_else(bundle, tmp_path):
    text, binary = bundle(), os.environ.get("EPHOR_BIN", "build/release/ephor")
    assert run(binary, "constitution", "digest", text).stdout.strip() == digest(text)
    first = run(binary, "constitution", "digest", "--listing", text).stdout
    assert first.startswith("ephor-constitution-1\n") and first.endswith(" policies/no-shell.lua\n")
    (text / ".git").mkdir()
    (text / ".git" / "HEAD").write_text("x")
    (text / "constitution.sig").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (text / "link").symlink_to(tmp_path / "elsewhere")
    assert run(binary, "constitution", "digest", "--listing", text).stdout == first
    (text / "notes.md").write_text("")
    assert run(binary, "constitution", "digest", text).stdout.strip() == digest(text) != "sha256:" + hashlib.sha256(first.encode()).hexdigest()
    shown = run(binary, "constitution", "show", text).stdout
    assert "P1 (critical) No agent runs commands" in shown and HASH in shown
