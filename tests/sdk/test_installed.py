"""What the other tests here stand on: the versions are the ones that they were written for."""
import json

import pytest
from conftest import HERE, ROOT


@pytest.mark.parametrize("package, version", [
    ("@modelcontextprotocol/sdk", "1.32.2"), ("@modelcontextprotocol/client", "2.4.0"), ("openai-4", "4.104.0")])
def test_node_has_the_versions_that_the_list_names(package, version):
    with open(HERE / "node" / "node_modules" / package / "package.json") as f:
        assert json.load(f)["version"] == version


@pytest.mark.parametrize("age, dist", [("newest", "mcp-2.3.0"), ("older", "mcp-1.30.0"), ("older", "a2a_sdk-0.3.26")])
def test_python_has_the_versions_that_the_list_names(age, dist):
    assert (ROOT / "build" / "deps" / f"sdk-python-{age}" / f"{dist}.dist-info").is_dir()
