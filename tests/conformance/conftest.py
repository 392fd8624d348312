"""The conformance tests stand on the harness of the integration tests."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
from fixtures import *  # noqa: E402,F401,F403
