"""docs/first-policy.md, done line by line: the files it shows are written, its commands run, and what comes out is what it says."""
import json
import os
import pathlib
import re
import subprocess

import yaml
from harness import ROOT, until

PAGE = ROOT / "docs" / "first-policy.md"
BINARY = pathlib.Path(os.environ.get("EPHOR_BIN", ROOT / "build/release/ephor")).resolve()


def blocks():
    """(language, lines) of each block of the page."""
    return [(language, text.splitlines()) for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)]


def commands(lines):
    """(command, what it prints: … is anything, on a line of its own any number of lines) of a block."""
    found = []
    for line in lines:
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            wanted = "(?:.*\n)*" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + "\n"
            found[-1] = (found[-1][0], found[-1][1] + wanted)
    return found


class Reader:
    """Who does what the page says, in a directory of their own."""

    def __init__(self, home, ephor, server):
        self.home, self.ephor, self.server, self.proxy = home, ephor, server, None
        home.mkdir()

    def file(self, lines):
        path = self.home / re.fullmatch(r"(?:#|--) (\S+)", lines[0])[1]
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")

    def start(self):
        """Ports of the kernel's choice in place of the page's."""
        configuration = yaml.safe_load((self.home / "ephor.yaml").read_text())
        configuration["listeners"][0]["bind"] = "127.0.0.1:0"
        configuration["clusters"][0]["endpoints"] = [f"127.0.0.1:{self.server.port}"]
        self.proxy = self.ephor(configuration)

    def run(self, command):
        if self.proxy:
            command = command.replace("8443", str(self.proxy.port))
            command = re.sub(r"^ephor policies$", f"ephor policies --admin 127.0.0.1:{self.proxy.admin_port}", command)
        done = subprocess.run(["bash", "-c", f"ephor() {{ '{BINARY}' \"$@\"; }}\n{command}"], cwd=self.home, capture_output=True,
                              text=True, stdin=subprocess.DEVNULL, timeout=60)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout if done.stdout.endswith("\n") or not done.stdout else done.stdout + "\n"

    def do(self, command, wanted):
        told = [""]

        def good():
            told[0] = self.run(command)
            return re.fullmatch(wanted, told[0])
        try:  # what is shown may come a moment later; what changes something is done once
            assert good() if command.startswith(("curl", "sed")) else until(good, "that output")
        except AssertionError:
            raise AssertionError(f"'{command}' prints\n{told[0]}\nwhich isn't\n{wanted}") from None


def test_the_page_is_so(ephor, h1_server, tmp_path):
    reader = Reader(tmp_path / "ephor0", ephor, h1_server())
    for language, lines in blocks():
        if language != "console":
            reader.file(lines)
            continue
        for command, wanted in commands(lines):
            if command.startswith("ephor run"):
                reader.start()
            else:
                reader.do(command, wanted)
    record = json.loads(reader.run("ephor audit show audit --last 1 --json"))
    assert record["policy_version"] == reader.run("ephor policies digest policies").strip()
