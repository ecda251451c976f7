"""Certificates of a day for the test broker's TLS listeners, made by the `openssl` command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of PEM files. `server_store`: key, certificate and authority in one file, as the broker wants them."""

    authority: Path
    client_certificate: Path
    client_key: Path
    server_store: Path


def make_certificates(directory: Path, client: str) -> Certificates:
    """Make an authority, a certificate for 127.0.0.1 and localhost, and one for the client named `client`.

    Raises `subprocess.CalledProcessError` if openssl fails.
    """
    directory.mkdir(parents=True, exist_ok=True)
    authority = directory / "ca.pem"
    _openssl(
        directory, "req", "-x509", *_NEW_KEY, "-keyout", "ca.key", "-out", authority.name,
        "-subj", "/CN=detector test authority", "-days", "1",
    )  # fmt: skip
    _signed(directory, "server", "127.0.0.1", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    _signed(directory, "client", client, "extendedKeyUsage=clientAuth")
    store = directory / "server-store.pem"
    store.write_text("".join((directory / name).read_text() for name in ("server.key", "server.pem", "ca.pem")))
    return Certificates(authority, directory / "client.pem", directory / "client.key", store)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _signed(directory: Path, name: str, common_name: str, extension: str) -> None:
    extensions = directory / f"{name}.ext"
    extensions.write_text(extension + "\n")
    _openssl(
        directory, "req", *_NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={common_name}"
    )
    _openssl(
        directory, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
        "-out", f"{name}.pem", "-days", "1", "-extfile", extensions.name,
    )  # fmt: skip


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)
