"""Whose call it is: by the caller's identity first, by a header only where the route, or for routes that say nothing the listener, names it."""
import pki
import pytest
import wire1
import wire2
from harness import config
from test_authorize import tls

SHOW = 'return require "ephor.policy" { name = "show", call = function(c) c:header("x-tenant-seen", c.tenant or "nobody") end }'
ROUTES = [
    {"match": {"prefix": "/gateway"}, "cluster": "app", "tenant": {"header": "X-Tenant-ID"}},
    {"match": {"prefix": "/other"}, "cluster": "app", "tenant": {"header": "x-org", "identity": "spiffe://*/ns/*/sa/{tenant}"}},
    {"match": {"prefix": "/identity"}, "cluster": "app", "tenant": {}},
    {"cluster": "app"},
]


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    d = tmp_path_factory.mktemp("keys")
    pki.roots(d)
    return {"tools": pki.leaf(d, "tools", "spiffe://cluster.local/ns/agents/sa/tools"),
            "acme": pki.leaf(d, "acme", "spiffe://cluster.local/ns/tenant-acme/sa/planner")}


@pytest.fixture
def seen(ephor, h1_server, keys, policies):
    """seen(tenant of the listener)(path, headers, who): the tenant of that call."""
    def start(tenant=None):
        mine = keys["tools"]
        server = h1_server()
        listener = {"tls": "permissive", "cluster": "app", "routes": ROUTES, **({"tenant": tenant} if tenant else {})}
        proxy = ephor(config(server.port, listener, {"protocol": "http/1.1"}, policies=policies(show=SHOW),
                             identity={"files": {"certificate": mine.certificate, "key": mine.key, "roots": mine.roots},
                                       "trust_domain": "cluster.local"}))

        def ask(path, headers=(), who=None):
            with wire2.Client(proxy.port, tls=tls(keys[who]) if who else None) as client:
                stream = client.request(path, "GET", list(headers))
                return stream.get("x-got-x-tenant-seen") if stream.status == 200 else stream.status
        ask.proxy = proxy
        return ask
    return start


BOTH = [("x-tenant-id", "claimed"), ("x-org", "org")]


def test_a_header_is_believed_only_where_the_route_says_so(seen):
    ask = seen()
    assert ask("/gateway", BOTH) == "claimed"
    assert ask("/gateway/deeper", [("x-tenant-id", "other")]) == "other"
    assert ask("/other", BOTH) == "org"
    assert ask("/identity", BOTH) == "nobody" and ask("/", BOTH) == "nobody"
    assert ask("/gateway", [("x-tenant-id", "a"), ("x-tenant-id", "b")]) == 400, "named twice"
    assert ask("/", [("x-tenant-id", "a"), ("x-tenant-id", "b")]) == "nobody", "where nobody reads it, twice is nothing"


def test_the_identity_goes_before_any_header(seen):
    ask = seen({"identity": "spiffe://*/ns/tenant-{tenant}/sa/*"})
    for path in ("/gateway", "/identity", "/"):
        assert ask(path, BOTH, "acme") == "acme", "the listener's pattern where the route has none"
    assert ask("/other", BOTH, "acme") == "planner", "the route's own"
    assert ask("/gateway", BOTH, "tools") == "claimed", "an identity that names no tenant"
    assert ask("/identity", BOTH, "tools") == "nobody"


def test_the_listener_s_header_is_for_routes_that_say_nothing(seen):
    ask = seen({"header": "x-org"})
    assert ask("/", BOTH) == "org"
    assert ask("/identity", BOTH) == "nobody" and ask("/gateway", BOTH) == "claimed"
    assert ask("/gateway", [("x-org", "org")]) == "nobody"


def test_limits_by_tenant_go_by_the_route_s(ephor, h1_server):
    proxy = ephor(config(h1_server().port, {"routes": ROUTES, "filters": ["identity", "agent", {"ratelimit": {"limits": [
        {"name": "each", "key": ["tenant"], "requests": "1/1h"}]}}]}, {"protocol": "http/1.1"}))

    def status(path, tenant):
        return wire1.get(proxy.port, path, f"X-Tenant-ID: {tenant}\r\n").status
    assert [status("/gateway", t) for t in ("a", "b", "a")] == [200, 200, 429]
    assert [status("/identity", t) for t in ("a", "b")] == [200, 429], "a made-up tenant gains nothing"
