"""Lua's own test suite, in ephor's sandbox: what the sandbox keeps of the language and its library is as it was.

The suite comes with the source of lupa on PyPI, fetched by pip with version and digest pinned, once, into build/deps. It
is of 5.4.8, the library here of 5.4.4 or later: what was mended in between is skipped (Debian's lua5.4, 5.4.4, fails each of
those parts too), as are the parts about what the sandbox doesn't have. All of them are in SKIPPED, by the lines of the file and with the reason; the lines are blanked, so
that what an error says of the place is right.
"""
import fcntl
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SUITE = ROOT / "build" / "deps" / "lua-5.4-tests"
PINNED = "lupa==2.8 --hash=sha256:d8022641b9ec8ecf2c5ecbe9f47e5a70e0b87c4b5ae921b92cb02a638e0acd08"

FILES = ["bitwise", "big", "calls", "closure", "constructs", "coroutine", "cstack", "errors", "events", "goto", "literals",
         "locals", "math", "nextvar", "pm", "sort", "strings", "tpack", "utf8", "vararg"]

# file: (first line, last line, why)
SKIPPED = {
    "bitwise": [(6, 6, "bwcoercion changes the metatable of strings, which scripts don't see"), (26, 27, "the same"),
                (71, 98, "the same"),
                (102, 363, "package.preload")],
    "calls": [(160, 168, "xpcall's handler runs after the stack was unwound, so it can't overflow"),
              (308, 494, "binary chunks, string.dump, debug")],
    "closure": [(6, 11, "a bug of 5.4.7")],
    "constructs": [(126, 127, "mended after 5.4.4")],
    "coroutine": [(10, 14, "running() doesn't give the host's threads away"), (148, 177, "the same"),
                  (323, 335, "the replacement of a gsub may yield, as it may pause"), (339, 356, "debug.sethook"), (360, 361, "lines of the host's frames"), (445, 458, "running()"),
                  (788, 788, "running()")],
    "cstack": [(20, 31, "xpcall's handler runs after the stack was unwound"), (85, 110, "mended after 5.4.4; check_stack in host.c")],
    "errors": [(137, 141, "bugs of 5.4.6 and 5.4.7"), (227, 227, "io"), (245, 245, "io"), (248, 248, "io"), (250, 250, "io"), (253, 253, "io"),
               (274, 275, "io, and print goes to the log"), (278, 290, "string.dump"), (334, 334, "collectgarbage"), (340, 340, "io"),
               (356, 357, "names of functions come from package.loaded"),
               (413, 427, "the line of a call that fails: changed after 5.4.4"), (371, 371, "the host's threads are coroutines that C calls")],
    "literals": [(296, 320, "os.setlocale")],
    "locals": [(365, 382, "a bug of 5.4.4"), (483, 493, "tracebacks in xpcall's handler"),
               (581, 612, "xpcall's handler runs after the stack was unwound")],
    "math": [(816, 853, "randomseed does nothing: the generator is shared")],
    "nextvar": [(293, 303, "package, and clears what the suite needs"), (353, 372, "running() gives nil for the main thread"),
                (483, 527, "tables with __len are refused"), (530, 537, "the same")],
    "sort": [(73, 77, "tables with __len are refused"), (163, 188, "a move that long is over any budget before it begins"),
             (194, 200, "tables with __len are refused")],
    "strings": [(170, 170, "running() gives nil for the main thread")],
    "utf8": [(123, 125, "stray continuation bytes: an error after 5.4.4")],
}
WHOLE = {
    "all, main": "the interpreter's command line",
    "api, code": "a library built for tests",
    "attrib, files": "require of C modules, io",
    "bwcoercion": "the metatable of strings, which scripts don't see",
    "db": "debug",
    "gc, gengc, tracegc": "collectgarbage and __gc",
    "heavy, verybig": "gigabytes, files",
}


def fetch():
    """Once for all workers: the first fetches, the others wait."""
    SUITE.parent.mkdir(parents=True, exist_ok=True)
    with open(SUITE.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not SUITE.exists():
            download()


def download():
    work = ROOT / "build" / "deps" / "lua-5.4-tests.part"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "pinned").write_text(PINNED + "\n")
    # pip asks the package for its metadata, which would build LuaJIT if it were not told otherwise.
    done = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-cache-dir", "--no-binary", ":all:", "--no-deps",
                           "--no-build-isolation", "-r", work / "pinned", "-d", work], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "LUPA_NO_LUAJIT": "true", "LUPA_NO_BUNDLE": "true"})
    archives = list(work.glob("lupa-*.tar.gz"))
    if not archives:
        pytest.skip(f"the suite can't be had from PyPI: {(done.stderr or done.stdout).strip()[-300:]}")
    subprocess.run(["tar", "-xzf", archives[0], "-C", work, "--strip-components=4", "--wildcards",
                    "*/third-party/lua54/testes/*.lua"], check=True)
    archives[0].unlink()
    work.rename(SUITE)


@pytest.fixture(scope="module")
def suite():
    fetch()
    return SUITE


@pytest.fixture(scope="module")
def lua_run():
    program = pathlib.Path(os.environ["EPHOR_BIN"]).resolve().parent / "lua_run"
    if not program.exists():
        pytest.skip(f"{program} was not built: ninja lua_run")
    return program


@pytest.mark.parametrize("how", ["at once", "paused"])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.limit(180)
def test_a_file_of_the_suite(suite, lua_run, tmp_path, name, how):
    lines = (suite / f"{name}.lua").read_text(encoding="latin-1").split("\n")
    for first, last, why in SKIPPED.get(name, ()):
        assert why and 1 <= first <= last <= len(lines)
        lines[first - 1:last] = [""] * (last - first + 1)
    for other in suite.glob("*.lua"):
        shutil.copy(other, tmp_path)
    (tmp_path / f"{name}.lua").write_text("\n".join(lines), encoding="latin-1")
    done = subprocess.run([lua_run, tmp_path, f"{name}.lua", how], capture_output=True, text=True, errors="replace", timeout=170,
                          cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_file_of_the_suite_is_run_or_has_a_reason(suite):
    named = set(FILES) | {name for names in WHOLE for name in names.split(", ")}
    assert {path.stem for path in suite.glob("*.lua")} == named
