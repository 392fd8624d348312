"""What `./dev demo` runs when all is built: what it claims holds."""
import subprocess

from conftest import ROOT


def test_the_demo_ends_well():
    done = subprocess.run(["/usr/bin/python3", str(ROOT / "demo" / "demo.py")], capture_output=True, text=True, timeout=55)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "get-env             refused" in done.stdout and "all of it was so" in done.stdout
