"""Whom we believe at the other end of TLS, and how we show who we are.  Certificates are verified, always."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path

from gateway.provider import Tls


def stamped(ca_file: str, cert_file: str, key_file: str) -> Tls:
    """These files as they are now: when settings are loaded again, changed ones are other settings.  Raises OSError."""
    files = (ca_file, cert_file, key_file)
    return Tls(*files, tuple(Path(file).stat().st_mtime_ns if file else 0 for file in files))


@lru_cache(maxsize=256)
def context(tls: Tls) -> ssl.SSLContext:
    """For connections under `tls`: the system's authorities, or those in its file alone; with our certificate, if any.

    Raises OSError, of which ssl.SSLError is one.
    """
    made = ssl.create_default_context(cafile=tls.ca_file or None)
    if tls.cert_file:
        made.load_cert_chain(tls.cert_file, tls.key_file or None, password=_no_password)
    return made


def _no_password() -> str:
    """A key that needs one is an error; nobody is there to be asked."""
    raise ssl.SSLError("the key is encrypted; give one without a password")
