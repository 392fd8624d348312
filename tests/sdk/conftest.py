"""Agents' own SDKs as clients, direct and through ephor. They stand on the harness of the integration tests.

`./dev test sdk` installs them: node/package.json (two versions of each, the older under another name) and
python/{newest,older}.txt. A script in node/ or python/ is a client (or a server) that prints one line of JSON for each step.
"""
import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# ms that a refusal may take, as the SDK's caller measures. Beside other tests ten times as much: still far below any time limit of an
# SDK, and that none tries again is seen by what ephor counted. `WORKERS=1 ./dev test sdk` on a quiet machine shows the 100.
AT_ONCE = 1000 if "PYTEST_XDIST_WORKER" in os.environ else 100
sys.path.insert(0, str(HERE.parent / "integration"))
from fixtures import *  # noqa: E402,F401,F403


def shared(parameter, name=None):
    """A parameter of a module's server: tests with the same one run on the same worker, so that it starts once."""
    return pytest.param(parameter, id=name, marks=pytest.mark.xdist_group(name or parameter))


def node(script, *args, timeout=60):
    """The steps that node/SCRIPT printed, as a list of objects."""
    return _steps(["node", str(HERE / "node" / script), *map(str, args)], os.environ, timeout)


def python(age, script, *args, timeout=60):
    """The same of python/SCRIPT with the SDKs of `age`: newest or older."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "build" / "deps" / f"sdk-python-{age}"), "PYTHONDONTWRITEBYTECODE": "1"}
    return _steps(["/usr/bin/python3", str(HERE / "python" / script), *map(str, args)], env, timeout)


def _steps(command, env, timeout):
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, text=True)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
