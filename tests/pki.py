"""A throw-away certificate authority by the openssl command: P-256, a day, leaves with a SPIFFE ID for both sides of the mesh."""
import pathlib
import subprocess
from types import SimpleNamespace

CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def roots(directory, name="roots"):
    """Makes NAME.pem and NAME.key, a root of trust."""
    d = pathlib.Path(directory)
    d.mkdir(parents=True, exist_ok=True)
    openssl("req", "-x509", *CURVE, "-days", "1", "-keyout", d / f"{name}.key", "-out", d / f"{name}.pem", "-subj",
            f"/CN=ephor test {name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    return str(d / f"{name}.pem")


def leaf(directory, name, identity, days=1, signer="roots", hosts=("localhost",)):
    """Makes NAME.pem, NAME.key and NAME.bundle.pem, for both sides of TLS. `identity` goes into the URI SAN (None: no URI);
    days=-1 makes one that has expired."""
    d = pathlib.Path(directory)
    uri = f"URI:{identity}," if identity else ""
    (d / f"{name}.ext").write_text(
        f"subjectAltName={uri}{','.join('DNS:' + host for host in hosts)},IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n"
        "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n")
    openssl("req", "-new", *CURVE, "-keyout", d / f"{name}.key", "-out", d / f"{name}.csr", "-subj", "/CN=localhost")
    openssl("x509", "-req", "-in", d / f"{name}.csr", "-CA", d / f"{signer}.pem", "-CAkey", d / f"{signer}.key",
            "-CAcreateserial", "-days", days, "-extfile", d / f"{name}.ext", "-out", d / f"{name}.pem")
    (d / f"{name}.bundle.pem").write_text((d / f"{name}.pem").read_text() + (d / f"{name}.key").read_text())
    return SimpleNamespace(certificate=str(d / f"{name}.pem"), key=str(d / f"{name}.key"), roots=str(d / f"{signer}.pem"),
                           bundle=str(d / f"{name}.bundle.pem"), directory=d)


def make(directory, identity="spiffe://cluster.local/ns/bench/sa/proxy"):
    """Roots and one leaf."""
    roots(directory)
    return leaf(directory, "leaf", identity)
