"""MCP's conformance suite, the released one and the next (with the requirements of two revisions), direct and through ephor: the same
result for each check. What the server itself lacks fails in both, and is named here."""
import collections
import json
import os
import subprocess

import pytest
from conftest import HERE, ROOT
from harness import SLOW, Process, config, free_port, program

SUITES = {
    "0.1.16": ["conformance", "--suite", "all"],
    "0.2, 2025-11-25": ["conformance-next", "--requirements", "2025-11-25"],
    "0.2, 2026-07-28": ["conformance-next", "--requirements", "2026-07-28"],
}
PASSED = {"0.1.16": 40, "0.2, 2025-11-25": 70, "0.2, 2026-07-28": 150}
LACKS = ("json-schema-2020-12", "server-sse-polling", "tasks-")  # what no revision requires of the server
CHAINS = {"plain": None, "judged": '''
local policy = require "ephor.policy"
return policy { name = "nobody", match = { protocol = "mcp" },
  call = function(c) if c.tool == "nobody-has-it" then return c:deny("no") end end }'''}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    port = free_port()
    process = Process("conformance-server", [program("node"), HERE / "node" / "conformance_server.mjs", port], tmp_path_factory.mktemp("mcp"))
    process.wait_port(port)
    yield port
    process.end()


def results(suite, port, directory):
    """{scenario: {(check, status): how often}}"""
    package, *arguments = SUITES[suite]
    done = subprocess.run([program("node"), HERE / "node" / "conformance.mjs", package, "server", "--url", f"http://127.0.0.1:{port}/mcp",
                           *arguments, "-o", directory], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100 * SLOW,
                          env={**os.environ, "NO_COLOR": "1"})
    found = {}
    for path in directory.glob("*/checks.json"):
        scenario = path.parent.name.removeprefix("server-").rsplit("-2026-", 1)[0]
        found[scenario] = collections.Counter((check["id"], check["status"]) for check in json.loads(path.read_text()))
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return found


@pytest.fixture(scope="module")  # of one worker, which therefore plays all of a suite
def direct(server, tmp_path_factory):
    kept = {}

    def ask(suite):
        if suite not in kept:
            kept[suite] = results(suite, server, tmp_path_factory.mktemp("direct"))
        return kept[suite]
    return ask


@pytest.mark.limit(240)
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("suite", [pytest.param(suite, marks=pytest.mark.xdist_group(suite)) for suite in SUITES])
def test_every_check_ends_as_without_ephor(ephor, policies, server, direct, tmp_path, suite, chain):
    wanted = direct(suite)
    assert sum(n for checks in wanted.values() for (_, status), n in checks.items() if status == "SUCCESS") >= PASSED[suite]
    assert not [name for name, checks in wanted.items() if not name.startswith(LACKS) and any(status == "FAILURE" for _, status in checks)]
    more = {"policies": policies(nobody=CHAINS[chain])} if CHAINS[chain] else {}
    proxy = ephor(config(server, cluster={"protocol": "http/1.1"}, **more))
    through = results(suite, proxy.port, tmp_path / "through")
    assert through.keys() == wanted.keys()
    assert {name: through[name] - wanted[name] for name in wanted if through[name] != wanted[name]} == {}
    if more:
        assert proxy.metric("ephor_policy_decisions_total", decision="allow") > 20


CLIENT_SCENARIOS = {
    "2025-11-25": ["initialize", "tools_call", "elicitation-sep1034-client-defaults", "sse-retry"],
    "2026-07-28": ["tools_call", "request-metadata", "sep-2322-client-request-state", "http-standard-headers", "http-custom-headers",
                   "http-invalid-tool-headers", "json-schema-ref-no-deref"],
}
TIMED = "client-sse-retry-timing"  # to 200 ms, which a busy machine may miss with and without ephor


def client_results(scenario, revision, directory, env):
    done = subprocess.run([program("node"), HERE / "node" / "conformance.mjs", "conformance-next", "client", "--command",
                           f"node {HERE / 'node' / 'conformance_client.mjs'}", "--scenario", scenario, "--spec-version", revision,
                           "-o", directory], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50 * SLOW,
                          env={**os.environ, "NO_COLOR": "1", **env})
    found = [check for path in directory.glob("*/checks.json") for check in json.loads(path.read_text())]
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return collections.Counter((check["id"], check["status"]) for check in found if check["status"] != "INFO" and check["id"] != TIMED)


@pytest.mark.limit(120)
@pytest.mark.parametrize("revision, scenario", [(r, s) for r, scenarios in CLIENT_SCENARIOS.items() for s in scenarios])
def test_what_the_suite_sees_of_a_client_is_the_same_through_ephor(tmp_path, revision, scenario):
    """The suite starts server and client itself; the client puts an ephor of its own in between."""
    direct = client_results(scenario, revision, tmp_path / "direct", {})
    assert "SUCCESS" in (said := {status for _, status in direct}) and said <= {"SUCCESS", "SKIPPED"}
    binary = os.environ.get("EPHOR_BIN", str(ROOT / "build" / "release" / "ephor"))
    (tmp_path / "ephor").mkdir()
    through = client_results(scenario, revision, tmp_path / "through", {"EPHOR_BIN": os.path.abspath(binary), "EPHOR_DIR": str(tmp_path / "ephor")})
    assert list((tmp_path / "ephor").glob("*.yaml")), "it went through ephor"
    assert through == direct
