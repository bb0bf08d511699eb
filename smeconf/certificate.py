"""The certificate of a new machine: self-signed, until the site has one of its own.

A certificate that is there is never touched, whoever made it.
"""

from __future__ import annotations

import datetime
import os

from smeconf.paths import Paths
from smeconf.system import FileState, System

_YEARS = 10


def make_certificate(
    paths: Paths, name: str, system: System, user: str = "qpsmtpd"
) -> str | None:
    """Make key and certificate for a host name where there is neither.

    ``user``, whom the filter runs as, may read the key.  Returns the path of the
    certificate, None where nothing was to be made.  Raises OSError.
    """
    directory = paths.under("var/service/qpsmtpd/ssl")
    certificate, key = (
        os.path.join(directory, f"{one}.pem") for one in ("cert", "key")
    )
    if os.path.lexists(certificate) or os.path.lexists(key):
        return None
    key_text, certificate_text = _self_signed(name)
    uid, gid = os.geteuid(), _group(user, system)
    # The key first: whoever finds the certificate finds its key, too.
    system.replace(key, FileState(key_text, 0o640, uid, gid))
    system.replace(certificate, FileState(certificate_text, 0o644, uid, gid))
    return certificate


def _group(user: str, system: System) -> int:
    try:
        return system.group_id(user) if os.geteuid() == 0 else os.getegid()
    except KeyError:
        return os.getegid()


def _self_signed(name: str) -> tuple[bytes, bytes]:
    """Return key and certificate, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    return (
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate.public_bytes(serialization.Encoding.PEM),
    )
