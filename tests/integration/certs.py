"""Certificates for tests and the demo, made by the openssl command: no key is ever kept in the repository.

    python3 tests/integration/certs.py DIR                      the whole set of make()
    python3 tests/integration/certs.py DIR NAME SPIFFE-ID       one more identity of the set's CA

A certificate NAME is DIR/NAME.pem and DIR/NAME.key (PKCS#8, mode 0600). All keys are P-256.
"""

import datetime
import os
import pathlib
import subprocess
import sys
import tempfile
import typing

TRUST_DOMAIN = "cluster.local"


class Pair(typing.NamedTuple):
    """A certificate and its key; `ca` is the file of roots that vouch for it."""

    certificate: pathlib.Path
    key: pathlib.Path
    ca: pathlib.Path


class Set(typing.NamedTuple):
    """What make() makes."""

    dir: pathlib.Path
    ca: Pair            # the mesh's CA
    other_ca: Pair      # a CA that nobody trusts
    agent_a: Pair       # spiffe://cluster.local/ns/default/sa/agent-a
    agent_b: Pair
    server: Pair        # DNS:localhost, *.test and IP:127.0.0.1, ::1; no SPIFFE ID
    expired: Pair       # agent-a's ID, ended an hour ago
    wrong_domain: Pair  # an ID of evil.test, by the mesh's CA
    unknown: Pair       # agent-a's ID, by the other CA
    two_ids: Pair       # two URI SANs


CA_EXTENSIONS = [
    "basicConstraints=critical,CA:TRUE",
    "keyUsage=critical,keyCertSign,cRLSign",
    "subjectKeyIdentifier=hash",
]
LEAF_EXTENSIONS = [
    "basicConstraints=critical,CA:FALSE",
    "keyUsage=critical,digitalSignature",
    "extendedKeyUsage=serverAuth,clientAuth",
    "subjectKeyIdentifier=hash",
    "authorityKeyIdentifier=keyid",
]


def spiffe(account: str, namespace: str = "default", trust_domain: str = TRUST_DOMAIN) -> str:
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{account}"


def _openssl(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr.strip()}")


def _time(moment: datetime.datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%SZ")


def _issue(
    directory: os.PathLike | str,
    name: str,
    extensions: list[str],
    ca: Pair | None,
    days: float,
    begins: datetime.datetime | None = None,
) -> Pair:
    """Makes a key and a certificate of it, signed by `ca` (None: by itself), good from `begins` for `days`."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    made = Pair(directory / f"{name}.pem", directory / f"{name}.key", ca.certificate if ca else directory / f"{name}.pem")
    now = datetime.datetime.now(datetime.timezone.utc)
    begins = begins or now - datetime.timedelta(minutes=5)
    ends = (now if days > 0 else begins) + datetime.timedelta(days=abs(days))
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = pathlib.Path(scratch_name)
        config = scratch / "openssl.cnf"
        config.write_text(
            "[req]\ndistinguished_name = name\n[name]\n[ca]\ndefault_ca = here\n[policy]\ncommonName = optional\n"
            f"[here]\ndatabase = {scratch}/index\nnew_certs_dir = {scratch}\nrand_serial = yes\n"
            "default_md = sha256\npolicy = policy\nunique_subject = no\n[ext]\n" + "\n".join(extensions) + "\n",
            encoding="utf-8",
        )
        (scratch / "index").touch()
        _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", scratch / "key")
        _openssl("req", "-new", "-config", config, "-key", scratch / "key", "-subj", f"/CN={name}", "-out", scratch / "csr")
        signer = ["-cert", ca.certificate, "-keyfile", ca.key] if ca else ["-selfsign", "-keyfile", scratch / "key"]
        _openssl("ca", "-batch", "-notext", "-config", config, "-extensions", "ext", "-startdate", _time(begins), "-enddate",
                 _time(ends), "-in", scratch / "csr", "-out", scratch / "pem", *signer)
        # The pair is replaced by renames, key first, as a watcher of the files must be able to stand.
        for source, target, mode in ((scratch / "key", made.key, 0o600), (scratch / "pem", made.certificate, 0o644)):
            fresh = target.with_name(f".{target.name}.new")
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as out:
                out.write(source.read_bytes())
            fresh.replace(target)
    return made


def authority(directory: os.PathLike | str, name: str = "ca", days: float = 30) -> Pair:
    """A self-signed CA."""
    return _issue(directory, name, CA_EXTENSIONS, None, days)


def svid(
    directory: os.PathLike | str,
    name: str,
    spiffe_id: str | list[str],
    ca: Pair | None = None,
    days: float = 1,
    begins: datetime.datetime | None = None,
) -> Pair:
    """An X.509-SVID. `ca` defaults to DIR/ca.pem; days < 0: it ended an hour ago."""
    directory = pathlib.Path(directory)
    ids = [spiffe_id] if isinstance(spiffe_id, str) else spiffe_id
    ca = ca or Pair(directory / "ca.pem", directory / "ca.key", directory / "ca.pem")
    if days < 0:
        begins = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days, hours=-1)
    san = "subjectAltName=" + ",".join(f"URI:{one}" for one in ids)
    return _issue(directory, name, [*LEAF_EXTENSIONS, san], ca, days, begins)


def server(
    directory: os.PathLike | str,
    name: str = "server",
    names: tuple[str, ...] = ("DNS:localhost", "DNS:*.test", "IP:127.0.0.1", "IP:::1"),
    ca: Pair | None = None,
    days: float = 1,
) -> Pair:
    """A certificate of a server by name, without a SPIFFE ID."""
    directory = pathlib.Path(directory)
    ca = ca or Pair(directory / "ca.pem", directory / "ca.key", directory / "ca.pem")
    return _issue(directory, name, [*LEAF_EXTENSIONS, "subjectAltName=" + ",".join(names)], ca, days)


def make(directory: os.PathLike | str) -> Set:
    """The whole set, made anew."""
    directory = pathlib.Path(directory)
    ca, other = authority(directory, "ca"), authority(directory, "other-ca")
    return Set(
        dir=directory,
        ca=ca,
        other_ca=other,
        agent_a=svid(directory, "agent-a", spiffe("agent-a"), ca),
        agent_b=svid(directory, "agent-b", spiffe("agent-b"), ca),
        server=server(directory, "server", ca=ca),
        expired=svid(directory, "expired", spiffe("agent-a"), ca, days=-1),
        wrong_domain=svid(directory, "wrong-domain", spiffe("agent-a", trust_domain="evil.test"), ca),
        unknown=svid(directory, "unknown", spiffe("agent-a"), other),
        two_ids=svid(directory, "two-ids", [spiffe("agent-a"), spiffe("agent-b")], ca),
    )


def main(arguments: list[str]) -> int:
    if len(arguments) == 1:
        for name, made in make(arguments[0])._asdict().items():
            if isinstance(made, Pair):
                print(f"{name}: {made.certificate}")
        return 0
    if len(arguments) == 3:
        print(svid(*arguments).certificate)
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
