"""A throw-away certificate authority by the openssl command: P-256, a day, one leaf for both sides of the mesh."""
import pathlib
import subprocess
from types import SimpleNamespace


def openssl(*arguments, stdin=None):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, input=stdin, text=True)


def make(directory, identity="spiffe://cluster.local/ns/bench/sa/proxy"):
    """Makes roots.pem, leaf.pem, leaf.key and bundle.pem (the leaf and its key) in a directory."""
    d = pathlib.Path(directory)
    d.mkdir(parents=True, exist_ok=True)
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    openssl("req", "-x509", *curve, "-keyout", d / "roots.key", "-out", d / "roots.pem", "-subj", "/CN=ephor test roots",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    leaf(d, "leaf", identity)
    return SimpleNamespace(certificate=str(d / "leaf.pem"), key=str(d / "leaf.key"), roots=str(d / "roots.pem"),
                           bundle=str(d / "bundle.pem"), directory=d)


def leaf(d, name, identity):
    (d / f"{name}.ext").write_text(
        f"subjectAltName=URI:{identity},DNS:localhost,IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n"
        "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n")
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", d / f"{name}.key",
            "-out", d / f"{name}.csr", "-subj", "/CN=localhost")
    openssl("x509", "-req", "-in", d / f"{name}.csr", "-CA", d / "roots.pem", "-CAkey", d / "roots.key", "-CAcreateserial",
            "-days", "1", "-extfile", d / f"{name}.ext", "-out", d / f"{name}.pem")
    bundle = "bundle.pem" if name == "leaf" else f"{name}.bundle.pem"
    (d / bundle).write_text((d / f"{name}.pem").read_text() + (d / f"{name}.key").read_text())
