"""The repository says what is so: documents name files that exist, sources keep the order of the modules."""
import json
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
NAMED = re.compile(r"`((?:proxy|filters|tests|bench|demo|lua|docs|proto|cmake)/[A-Za-z0-9_./-]+)(?:[:#][^`]*)?`")


def documents():
    return sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("document", documents(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_document_names_only_files_that_exist(document):
    named = set(NAMED.findall(document.read_text()))
    missing = sorted(name for name in named if not list(ROOT.glob(name.rstrip("/"))) and not name.startswith("bench/results/"))
    assert not missing, f"{document.name} names what is not there: {missing}"


def test_the_architecture_page_names_the_files_of_the_data_path():
    page = ROOT / "docs" / "architecture.md"
    named = set(NAMED.findall(page.read_text()))
    assert len([name for name in named if name.startswith("proxy/")]) >= 10, "the data path is told file by file"


def test_every_link_between_documents_leads_somewhere():
    wrong = []
    for document in documents():
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text()):
            if "://" not in target and not (document.parent / target).exists():
                wrong.append(f"{document.relative_to(ROOT)}: {target}")
    assert not wrong, wrong


def test_includes_point_down_and_files_are_short():
    run = subprocess.run([sys.executable, ROOT / "tests" / "lint_sources.py"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_every_filter_of_the_table_has_a_page_or_a_line_in_the_docs():
    filters = re.findall(r"^X\((\w+)\)", (ROOT / "filters" / "filters.def").read_text(), re.M)
    text = "\n".join(document.read_text() for document in documents())
    missing = [name for name in filters if f"`{name}`" not in text]
    assert filters and not missing, missing


def test_dev_tells_each_command_in_one_line():
    run = subprocess.run([ROOT / "dev", "help"], capture_output=True, text=True, check=True)
    commands = set(re.findall(r"^cmd_(\w+)\(\)", (ROOT / "dev").read_text(), re.M))
    told = {line.split()[1] for line in run.stdout.splitlines()}
    assert commands == told


def test_dev_refuses_an_unknown_command_with_2():
    assert subprocess.run([ROOT / "dev", "nonsense"], capture_output=True).returncode == 2


@pytest.mark.parametrize("folder", ["demo", "tests"])
def test_npm_packages_are_pinned(folder):
    package = json.loads((ROOT / folder / "package.json").read_text())
    lock = json.loads((ROOT / folder / "package-lock.json").read_text())
    for name in package["dependencies"]:
        entry = lock["packages"][f"node_modules/{name}"]
        assert entry["version"] and entry["integrity"].startswith("sha512-"), name


def test_the_numbers_of_the_agent_bus_are_those_of_its_proto():
    proto = (ROOT / "proto" / "agent_bus.proto").read_text()
    header = (ROOT / "filters" / "agent" / "bus.h").read_text()

    def number(message, field):
        body = re.search(rf"^message {message} {{(.*?)^}}", proto, re.M | re.S)[1]
        return re.search(rf"\b{field} = (\d+);", body)[1]
    given = re.findall(r"EP_BUS_(MESSAGE|ROUTING)_(\w+)\s+(\d+)u", header)
    assert len(given) >= 14
    for message, field, n in given:
        assert n == number({"MESSAGE": "AgentMessage", "ROUTING": "Routing"}[message], field.lower()), field
    package, service = re.search(r"^package (\S+);", proto, re.M)[1], re.search(r"^service (\w+)", proto, re.M)[1]
    assert f'"{package}.{service}"' in header
