"""Fixtures: each starts one kind of peer for one test, and ends it with the test."""
import contextlib
import os
import pathlib
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness
import wire1
import wire2


def pytest_configure(config):
    config.addinivalue_line("markers", "measured: measures time or memory, and means nothing under a sanitizer")
    config.addinivalue_line("markers", "workers: runs under ThreadSanitizer, with two workers or as many as it says")
    config.addinivalue_line("markers", "limit(seconds): the deadline of a test, when 60 s are not enough")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    marker = item.get_closest_marker("limit")
    seconds = (marker.args[0] if marker else 60) * harness.SLOW

    def too_late(*_):
        raise TimeoutError(f"the test took more than {seconds} s")
    previous = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for proxy in getattr(item, "ephors", []):
            with contextlib.suppress(Exception):
                report.sections.append((f"ephor's log, {proxy.directory.name}", proxy.log[-3000:]))


@pytest.fixture
def ephor(tmp_path, request):
    """ephor(configuration): a running proxy, ready, which must end cleanly when the test is over."""
    started = request.node.ephors = []

    def start(configuration, **options):
        proxy = harness.Ephor(configuration, tmp_path / f"ephor{len(started)}", **options)
        started.append(proxy)
        return proxy
    yield start
    failures = []
    for proxy in reversed(started):
        try:
            proxy.stop()
        except AssertionError as failure:
            failures.append(str(failure))
    assert not failures, "\n".join(failures)


@pytest.fixture
def process():
    """process(p): keeps a harness.Process for the length of the test."""
    with contextlib.ExitStack() as stack:
        def keep(started):
            p = started[0] if isinstance(started, tuple) else started
            stack.callback(p.end, signal.SIGKILL)
            return started
        yield keep


@pytest.fixture
def h1_server():
    """h1_server(handler): a server of raw HTTP/1.1 on its own port; see wire1.Server."""
    with contextlib.ExitStack() as stack:
        yield lambda handler=None, **o: stack.enter_context(wire1.Server(handler, **o))


@pytest.fixture
def h2_server():
    """h2_server(handler): a server of cleartext HTTP/2 on its own port; see wire2.Server."""
    with contextlib.ExitStack() as stack:
        yield lambda handler=None, **o: stack.enter_context(wire2.Server(handler, **o))


@pytest.fixture
def site(tmp_path):
    """A document root: small (10 bytes), kilo (1 KiB), mega (1 MiB)."""
    root = tmp_path / "site"
    root.mkdir()
    (root / "small").write_bytes(b"0123456789")
    (root / "kilo").write_bytes(b"k" * 1024)
    (root / "mega").write_bytes(os.urandom(1024) * 1024)
    (root / "index.html").write_bytes(b"0123456789")
    return pathlib.Path(root)


@pytest.fixture
def policies(tmp_path):
    """policies(**{name: lua}): a directory of policies."""
    directory = tmp_path / "policies"
    directory.mkdir()

    def write(**scripts):
        for name, text in scripts.items():
            (directory / f"{name.replace('_', '-')}.lua").write_text(text)
        return str(directory)
    return write
