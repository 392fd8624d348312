"""h2spec, where it is installed (it is a Go program that Debian does not have); what nghttp2 would refuse is in
tests/integration/test_http2.py without it."""
import shutil

import pytest
from harness import config, nghttpd, run

H2SPEC = shutil.which("h2spec")


@pytest.mark.skipif(not H2SPEC, reason="h2spec is not installed")
@pytest.mark.limit(300)
def test_h2spec(ephor, process, tmp_path, site):
    _, port = process(nghttpd(tmp_path, site))
    proxy = ephor(config(port, cluster={"protocol": "h2"}))
    done = run(H2SPEC, "-h", "127.0.0.1", "-p", proxy.port, "-P", "/small", "-o", "5", check=False, timeout=280)
    assert ", 0 failed" in done.stdout, done.stdout[-4000:]
