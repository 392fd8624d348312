"""`ephor test` as people and machines use it: reports, exit codes, coverage; required tests; a record of real traffic replayed."""
import gzip
import json
import os
import stat
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest
import wire1
from harness import ROOT, config, until

TOOLS = '''local policy = require "ephor.policy"
return policy {
  name = "tools",
  call = function(c)
    if c.headers["x-tool"] == "shell" then
      return c:deny("no shells")
    end
    if c.headers["x-tool"] == "never" then
      return c:deny("never tried")
    end
  end,
}
'''
GOOD = '''local t = require "ephor.test"
t.policy "tools"
t.case("a shell is refused", function()
  t.denied(t.call { headers = { ["x-tool"] = "shell" } }, "no shells")
end)
t.case("a search passes", function()
  t.allowed(t.call { headers = { ["x-tool"] = "search" } })
end)
'''


@pytest.fixture
def directory(tmp_path):
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "tools.lua").write_text(TOOLS)
    (folder / "tools_test.lua").write_text(GOOD)
    return folder


def run(*arguments):
    binary = os.environ.get("EPHOR_BIN", str(ROOT / "build/release/ephor"))
    return subprocess.run([binary, "test", *map(str, arguments)], capture_output=True, text=True, timeout=50)


def test_good_tests_are_zero_and_tap(directory):
    told = run(directory)
    assert told.returncode == 0 and told.stderr == ""
    assert told.stdout.splitlines() == ["TAP version 13", "# tools_test.lua", "ok 1 - a shell is refused", "ok 2 - a search passes",
                                        "1..2", "# 1 policies, 2 tests, 0 failed"]


@pytest.mark.parametrize("more", ['mode = "shadow",', "enforce_percent = 0.01,"])
def test_how_far_a_policy_is_rolled_out_changes_no_test(directory, more):
    (directory / "tools.lua").write_text(TOOLS.replace('name = "tools",', f'name = "tools", {more}'))
    assert run(directory).returncode == 0


def test_an_error_that_a_case_wants_is_no_line_in_the_log(directory):
    (directory / "tools.lua").write_text(TOOLS.replace('return c:deny("never tried")', 'error "boom"'))
    (directory / "tools_test.lua").write_text(GOOD + '''
t.case("an error denies", function()
  t.ok(t.call({ headers = { ["x-tool"] = "never" } }).error:find "boom")
end)''')
    told = run(directory)
    assert told.returncode == 0 and told.stderr == "", told.stderr


def test_what_fails_breaks_or_loops_is_one_with_its_place(directory):
    (directory / "tools_test.lua").write_text(GOOD + '''
t.case("fails", function()
  t.allowed(t.call { headers = { ["x-tool"] = "shell" } })
end)
t.case("breaks", function() return nothing.here end)
t.case("loops", function()
  while true do end
end)
t.case("a policy's error is shown", function()
  t.allowed(t.call { headers = { ["x-tool"] = "search" }, tol = "x" })
end)
''')
    told = run(directory)
    assert told.returncode == 1
    lines = told.stdout.splitlines()
    assert "# tools_test.lua:11: expected it to pass, got deny by tools: no shells" in lines
    assert any(line.startswith("# tools_test.lua:13: attempt to index a nil value (global 'nothing')") for line in lines)
    assert "# tools_test.lua:15: over the budget of instructions" in lines
    assert "# tools_test.lua:18: a call has no field 'tol'; did you mean 'tool'?" in lines
    assert lines[-1] == "# 1 policies, 6 tests, 4 failed"


def test_exit_codes(directory, tmp_path):
    assert run().returncode == 2 and run("--what", directory).returncode == 2 and run(directory, directory).returncode == 2
    assert run("--format", "html", directory).returncode == 2 and run("--coverage-minimum", "much", directory).returncode == 2
    assert run("--fail-on-difference", directory).returncode == 2 and run("--coverage", "--record", "x", directory).returncode == 2
    assert run(tmp_path / "nowhere").returncode == 3
    assert run("--output", tmp_path / "no" / "report", directory).returncode == 3
    assert run("--record", tmp_path / "nowhere", directory).returncode == 3
    assert run("--run", "no such case", directory).returncode == 1
    (directory / "tools.lua").write_text("return {")
    assert run(directory).returncode == 1


def test_junit_is_read_by_an_xml_parser(directory, tmp_path):
    (directory / "more_test.lua").write_text('local t = require "ephor.test"\nt.case("<&\\"\\0>", function() t.ok(false, "a < b") end)\n'
                                             't.case("error", function() error("thrown") end)\n')
    report = tmp_path / "report.xml"
    told = run("--format", "junit", "--output", report, directory)
    assert told.returncode == 1 and told.stdout == f"4 tests, 2 failed: {report}\n"
    suites = ElementTree.parse(report).getroot()
    assert suites.attrib == {"name": "ephor test", "tests": "4", "failures": "1", "errors": "1"}
    assert [(s.get("name"), s.get("tests"), s.get("failures"), s.get("errors")) for s in suites] == [
        ("more_test.lua", "2", "1", "1"), ("tools_test.lua", "2", "0", "0")]
    odd, error = suites[0]
    assert odd.get("name") == '<&"\ufffd>' and odd.find("failure").get("message") == "more_test.lua:2: a < b"
    assert error.find("error").text == "more_test.lua:3: thrown"
    assert all(float(case.get("time")) >= 0 for case in suites.iter("testcase"))
    assert [case.get("classname") for case in suites[1]] == ["tools_test", "tools_test"]


def test_coverage_is_by_line_and_has_a_minimum(directory):
    told = run("--coverage", directory)
    lines = [line for line in told.stdout.splitlines() if line.startswith("# coverage")]
    assert told.returncode == 0 and len(lines) == 1 and lines[0].endswith("not run: 9"), told.stdout
    assert "7 of 8 lines" in lines[0], "1, 2, 3, 4, 5, 6, 8, and 9, which no test reaches"
    assert run("--coverage-minimum", "80%", directory).returncode == 0
    told = run("--coverage-minimum", "95%", directory)
    assert told.returncode == 1 and "not ok 3 - tools is covered to 95%" in told.stdout


def test_the_library_and_the_ready_policies_pass(tmp_path):
    told = run("--coverage-minimum", "70%", ROOT / "lua/policies")
    assert told.returncode == 0, told.stdout


CODES = '''return require "ephor.policy" {
  name = "codes", match = { protocol = "openai" },
  event = function(e)
    if e.text and e.text:find("launch code", 1, true) then return e:deny("no codes") end
    e:redact { "ssn" }
  end,
}
'''
STREAM = '''local t = require "ephor.test"
t.policy "codes"
local function say(text) return { choices = { { index = 0, delta = { content = text } } } } end
local function stream(...)
  return t.stream { call = { protocol = "openai", method = "chat/completions", model = "m" }, events = { ... } }
end
t.case("over a border", function()
  local d = stream(say "my SSN is 555-", say "12-3456.", "[DONE]")
  t.allowed(d)
  t.equal(d.said.text, "my SSN is [ssn].")
  t.equal(d.events[3].data, "[DONE]")
end)
t.case("stopped", function()
  local d = stream(say "the launch ", say "code is")
  t.denied(d, "no codes")
  t.ok(d.events[2].refusal and d.events[2].json.error)
end)
'''


def test_streams_are_played_and_policies_of_streams_alone_are_warned_of(ephor, h1_server, directory):
    (directory / "tools.lua").unlink()
    (directory / "tools_test.lua").unlink()
    (directory / "codes.lua").write_text(CODES)
    (directory / "codes_test.lua").write_text(STREAM)
    told = run("--coverage", directory)
    assert told.returncode == 0 and "# coverage codes (codes.lua): 5 of 5 lines, 100.0%" in told.stdout, told.stdout
    (directory / "codes_test.lua").write_text(STREAM.replace("[ssn]", "555-12-3456"))
    told = run(directory)
    assert told.returncode == 1
    assert '# codes_test.lua:10: expected "my SSN is 555-12-3456.", got "my SSN is [ssn]."' in told.stdout.splitlines()

    (directory / "codes_test.lua").write_text(STREAM)
    proxy = ephor(config(h1_server().port, cluster={"protocol": "http/1.1"},
                         policies={"directory": str(directory), "require_tests": True}))
    warning = "codes.lua:1: policy 'codes': it has an event and no reply, so it sees nothing of an answer that comes whole, as those of openai may"
    assert warning in proxy.log
    checked = subprocess.run([proxy.binary, "check", proxy.path], capture_output=True, text=True, timeout=50)
    assert checked.returncode == 0 and f"warning: {warning}" in checked.stderr
    (directory / "codes_test.lua").write_text('local t = require "ephor.test"\nt.policy "codes"\n'
                                              't.case("a call alone", function() t.allowed(t.call { protocol = "openai" }) end)\n')
    checked = subprocess.run([proxy.binary, "check", proxy.path], capture_output=True, text=True, timeout=50)
    assert checked.returncode == 1 and "'codes' has no passing test of its event (t.stream)" in checked.stderr
    (directory / "codes.lua").write_text(CODES.replace('"openai"', '"grpc"'))
    checked = subprocess.run([proxy.binary, "check", proxy.path], capture_output=True, text=True, timeout=50)
    assert checked.returncode == 1 and "the protocol that it matches (grpc) are never server-sent events" in checked.stderr


def test_required_tests_keep_untested_policies_out(ephor, h1_server, directory):
    server = h1_server()
    settings = config(server.port, cluster={"protocol": "http/1.1"},
                      policies={"directory": str(directory), "require_tests": True})
    proxy = ephor(settings)
    assert wire1.get(proxy.port, headers="X-Tool: shell\r\n").status == 403
    (directory / "tools.lua").write_text(TOOLS.replace('"shell"', '"bash"'))  # the test says otherwise
    until(lambda: "1 of 2 tests fail; 'a shell is refused'" in proxy.log, "the refusal")
    assert wire1.get(proxy.port, headers="X-Tool: shell\r\n").status == 403
    assert wire1.get(proxy.port, headers="X-Tool: bash\r\n").status == 200, "the old one stays"
    proxy.counted(1, "ephor_policy_reload_total", result="rejected")
    (directory / "tools_test.lua").write_text(GOOD.replace('"shell"', '"bash"'))
    until(lambda: wire1.get(proxy.port, headers="X-Tool: bash\r\n").status == 403, "the new one")
    (directory / "untested.lua").write_text(TOOLS.replace('"tools"', '"untested"'))
    until(lambda: "'untested' has no passing test" in proxy.log, "the refusal")
    checked = subprocess.run([proxy.binary, "check", proxy.path], capture_output=True, text=True, timeout=50)
    assert checked.returncode == 1 and "untested.lua:2: 'untested' has no passing test" in checked.stderr


def test_a_record_of_real_traffic_is_replayed_on_a_changed_policy(ephor, h1_server, directory, tmp_path):
    record = tmp_path / "record.jsonl"
    server = h1_server()
    proxy = ephor(config(server.port, {"max_body": "1MiB"}, cluster={"protocol": "http/1.1"},
                         policies={"directory": str(directory), "record": {"file": str(record), "sample": "100%"}}))
    mcp = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "search", "arguments": {"q": "é"}}}).encode()
    head = ("Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
            "MCP-Protocol-Version: 2025-06-18\r\n")
    assert wire1.get(proxy.port, "/?token=hidden", "X-Tool: shell\r\nAuthorization: Bearer hidden\r\n").status == 403
    assert wire1.get(proxy.port, "/", "X-Tool: search\r\n").status == 200
    assert wire1.get(proxy.port, "/", "X-Tool: write\r\n").status == 200
    assert wire1.get(proxy.port, "/mcp", head, method="POST", body=mcp).status == 200
    lines = until(lambda: record.exists() and len(record.read_text().splitlines()) == 4 and record.read_text(), "4 lines").splitlines()
    assert stat.S_IMODE(record.stat().st_mode) == 0o600 and "hidden" not in "".join(lines)
    proxy.counted(4, "ephor_policy_records_total", result="written")
    call = json.loads(lines[3])
    assert call["request"]["protocol"] == "mcp" and call["request"]["tool"] == "search"
    assert json.loads(call["request"]["arguments"]) == {"q": "é"} and json.loads(call["request"]["body"])["id"] == 7
    assert call["decisions"] == [{"policy": "tools", "call": 0, "decision": "allow"}]

    told = run("--fail-on-difference", "--record", record, directory)
    assert told.returncode == 0, told.stdout
    assert told.stdout.splitlines()[0] == "4 requests: 4 as before, 0 differ, 0 can't be told, 0 not replayable"

    (directory / "tools.lua").write_text('''return require "ephor.policy" {
  name = "tools",
  call = function(c)
    if c.protocol == "mcp" and c.arguments.q == "é" then return c:deny("no accents") end
    if c.headers["x-tool"] == "write" then return c:deny("no writing") end
    if c.headers["x-tool"] == "shell" and c.headers.authorization == "Bearer hidden" then return c:deny("no shells") end
  end,
}''')
    told = run("--fail-on-difference", "--record", record, directory)
    assert told.returncode == 1
    lines = told.stdout.splitlines()
    assert lines[0] == "4 requests: 1 as before, 2 differ, 1 can't be told, 0 not replayable"
    assert "  1 x tools: allow -> deny: no writing (line 3)" in lines and "  1 x tools: allow -> deny: no accents (line 4)" in lines
    assert "  1 x tools: deny -> allow: headers.authorization is not in the record as it was (masked) (line 1)" in lines


ASKING = '''return require "ephor.policy" {
  name = "ask",
  call = function(c)
    c:delay(0.05)
    local r, why = c:http { cluster = "oracle", path = "/v1/check?token=hidden&who=" .. c.headers["x-who"], json = { path = c.path } }
    if not r then return c:deny("nobody answers: " .. why) end
    if r.status ~= 200 then return c:deny(r.body) end
  end,
  needs_reply = { "body" },
  reply = function(r)
    local answer = r:http { cluster = "oracle", path = "/v1/reply" }
    if answer.headers["x-says"] ~= "well" or r.body:find("poison", 1, true) then return r:deny("no poison") end
  end,
}
'''


def test_a_record_has_the_replies_and_what_was_asked(ephor, h1_server, directory, tmp_path):
    def oracle(wire, request):
        if "who=bad" in request.path:
            wire.send(wire1.answer(b"the oracle says no", "403 Forbidden"))
        else:
            wire.send(wire1.answer(b"yes", headers="X-Says: well\r\nSet-Cookie: hidden=1\r\n"))

    def app(wire, request):
        if request.path == "/zip":
            wire.send(wire1.answer(gzip.compress(b"zipped poison"), headers="Content-Type: text/plain\r\nContent-Encoding: gzip\r\n"))
        else:
            wire.send(wire1.answer(b"poison" if request.path == "/poison" else b"bread", headers="Content-Type: text/plain\r\n"))
    record = tmp_path / "record.jsonl"
    asked, server = h1_server(oracle), h1_server(app)
    (directory / "tools.lua").unlink()
    (directory / "ask.lua").write_text(ASKING)
    c = config(server.port, cluster={"protocol": "http/1.1"},
               policies={"directory": str(directory), "record": {"file": str(record), "sample": "100%"}})
    c["clusters"].append({"name": "oracle", "endpoints": [f"127.0.0.1:{asked.port}"], "protocol": "http/1.1"})
    proxy = ephor(c)
    assert wire1.get(proxy.port, "/bread", "X-Who: ann\r\n").status == 200
    assert wire1.get(proxy.port, "/poison", "X-Who: ann\r\n").status == 403
    assert wire1.get(proxy.port, "/bread", "X-Who: bad\r\n").status == 403
    assert wire1.get(proxy.port, "/zip", "X-Who: ann\r\n").status == 403
    lines = until(lambda: record.exists() and len(record.read_text().splitlines()) == 4 and record.read_text(), "4 lines").splitlines()
    assert "hidden" not in "".join(lines)
    first = json.loads(lines[0])
    assert [(a["path"], a["status"]) for a in first["http"]] == [("/v1/check?token=***&who=ann", 200), ("/v1/reply", 200)]
    assert first["reply"]["body"] == "bread" and json.loads(lines[3])["reply"]["decoded"] is True
    assert json.loads(lines[2])["reply"] is None

    told = run("--fail-on-difference", "--record", record, directory)
    assert told.returncode == 0, told.stdout
    assert told.stdout.splitlines()[0] == "4 requests: 4 as before, 0 differ, 0 can't be told, 0 not replayable"
    assert len(asked.requests) == 7, "a replay asks nobody"

    (directory / "ask.lua").write_text(ASKING.replace("poison", "bread"))
    told = run("--fail-on-difference", "--record", record, directory)
    assert told.returncode == 1
    lines = told.stdout.splitlines()
    assert lines[0] == "4 requests: 1 as before, 3 differ, 0 can't be told, 0 not replayable"
    assert "  1 x ask, reply: allow -> deny: no bread (line 1)" in lines and "  2 x ask, reply: deny -> allow (line 2)" in lines

    (directory / "ask.lua").write_text(ASKING.replace("/v1/check", "/v2/check"))
    told = run("--fail-on-difference", "--record", record, directory)
    assert told.returncode == 4
    lines = told.stdout.splitlines()
    assert lines[0] == "4 requests: 0 as before, 0 differ, 0 can't be told, 4 not replayable"
    assert "  3 x ask: the record has no answer to POST /v2/check?token=***&who=ann of oracle (line 1)" in lines

    (directory / "ask.lua").write_text(ASKING.replace('answer.headers["x-says"]', 'answer.headers["set-cookie"] and "well"'))
    told = run("--fail-on-difference", "--record", record, directory)
    assert "set-cookie of an answer is not in the record as it was (masked)" in told.stdout


def test_a_record_of_a_stream_is_judged_event_by_event(ephor, h1_server, directory, tmp_path):
    record = tmp_path / "record.jsonl"
    server = h1_server(lambda wire, request: wire.send(wire1.answer(b"data: one\n\ndata: two\n\n", headers="Content-Type: text/event-stream\r\n")))
    (directory / "tools.lua").unlink()
    watch = 'return require "ephor.policy" { name = "watch", event = function(e) if e.data:find("%s") then return e:deny("not that") end end }'
    (directory / "watch.lua").write_text(watch % "three")
    proxy = ephor(config(server.port, cluster={"protocol": "http/1.1"},
                         policies={"directory": str(directory), "record": {"file": str(record), "sample": "100%"}}))
    assert wire1.get(proxy.port, "/events").body == b"data: one\n\ndata: two\n\n"
    line = json.loads(until(lambda: record.exists() and record.read_text(), "a line"))
    assert line["reply"]["body"] == "data: one\n\ndata: two\n\n" and line["reply"]["lost"] == {}
    assert line["decisions"][-1] == {"policy": "watch", "phase": "event", "decision": "allow"}
    assert run("--fail-on-difference", "--record", record, directory).returncode == 0
    (directory / "watch.lua").write_text(watch % "two")
    told = run("--fail-on-difference", "--record", record, directory)
    assert told.returncode == 1 and "  1 x watch, event: allow -> deny: not that (line 1)" in told.stdout.splitlines()


def test_a_record_goes_on_over_a_reload_and_stops_at_its_limit(ephor, h1_server, directory, tmp_path):
    record = tmp_path / "record.jsonl"
    server = h1_server()
    settings = config(server.port, cluster={"protocol": "http/1.1"},
                      policies={"directory": str(directory), "record": {"file": str(record), "sample": "100%", "limit": "4KiB"}})
    proxy = ephor(settings)
    for _ in range(4):
        assert wire1.get(proxy.port).status == 200
    (directory / "tools.lua").write_text(TOOLS + "-- changed\n")
    until(lambda: proxy.metric("ephor_config_generation") == 2, "the reload")
    for _ in range(40):
        assert wire1.get(proxy.port).status == 200
    until(lambda: proxy.metric("ephor_policy_records_total", result="dropped") > 0, "a record that does not fit")
    written = proxy.metric("ephor_policy_records_total", result="written")
    lines = record.read_text().splitlines()
    assert len(lines) == written >= 5 and record.stat().st_size <= 4096
    assert all(json.loads(line)["v"] == 1 for line in lines)
    assert proxy.log.count("nothing more is recorded") == 1
