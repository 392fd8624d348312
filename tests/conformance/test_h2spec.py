"""h2spec (a Go program, installed by `./dev test h2spec`): what of HTTP/2 ephor does otherwise than it wants, each with its reason.

In none of these does a frame reach the upstream: it is dropped here. The first is nghttp2's own, nghttpd shows it too."""
import os
import pathlib
import shutil
import xml.etree.ElementTree

import pytest
from harness import config, nghttpd, run

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
H2SPEC = shutil.which("h2spec", path=f"{os.environ['PATH']}:{ROOT}/build/tools")
FORGOTTEN = "a closed stream's memory is let go of at once, so a late frame for it is dropped instead of answered"
NO_PRIORITIES = "SETTINGS_NO_RFC7540_PRIORITIES is sent (RFC 9218 section 2.1): PRIORITY is not looked at"
OTHERWISE = {
    ("http2/5.1.1", "Sends stream identifier that is numerically smaller than previous"): FORGOTTEN,
    ("http2/5.1", "closed: Sends a DATA frame after sending RST_STREAM frame"): FORGOTTEN,
    ("http2/5.1", "closed: Sends a HEADERS frame after sending RST_STREAM frame"): FORGOTTEN,
    ("http2/5.1", "closed: Sends a DATA frame"): FORGOTTEN,
    ("http2/5.1", "closed: Sends a HEADERS frame"): FORGOTTEN,
    ("http2/5.3.1", "Sends PRIORITY frame that depend on itself"): NO_PRIORITIES,
    ("http2/6.3", "Sends a PRIORITY frame with 0x0 stream identifier"): NO_PRIORITIES,
}


@pytest.mark.skipif(not H2SPEC, reason="h2spec is not installed: ./dev test h2spec")
@pytest.mark.limit(300)
def test_h2spec(ephor, process, tmp_path, site):
    _, port = process(nghttpd(tmp_path, site))
    proxy = ephor(config(port, cluster={"protocol": "h2"}))
    report = tmp_path / "report.xml"
    run(H2SPEC, "-h", "127.0.0.1", "-p", proxy.port, "-P", "/small", "-o", "2", "-j", report, check=False, timeout=280)
    cases = [(case.get("package"), case.get("classname"), case) for case in xml.etree.ElementTree.parse(report).iter("testcase")]
    assert len(cases) > 140
    failed = {(package, name) for package, name, case in cases if case.find("failure") is not None or case.find("error") is not None}
    assert not failed - set(OTHERWISE), failed - set(OTHERWISE)
