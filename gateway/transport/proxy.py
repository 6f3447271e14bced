"""Through an HTTP proxy: CONNECT, for https and http alike, so that a proxy sees where we go and not what we say.

A provider's `proxy` is a URL, or `environment`: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY as curl reads them.
What cannot be gone through is never gone around.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import (  # type: ignore[attr-defined]  # typeshed does not know the second
    getproxies_environment,
    proxy_bypass_environment,
)

from gateway.provider import ENVIRONMENT

HEAD_BYTES_MAX = 16 * 1024
_GRANTED = re.compile(rb"HTTP/1\.[01] 2\d\d\b")
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})\b")


class Proxy(NamedTuple):
    """Where it is, and the header that it wants."""

    host: str
    port: int
    authorization: str


def proxy_of(setting: str, host: str, *, tls: bool) -> Proxy | None:
    """The proxy on the way to `host`; None: there is none.  Raises ValueError for one that cannot be used."""
    if setting == ENVIRONMENT:
        setting = _of_environment(host, "https" if tls else "http")
    return _read(setting) if setting else None


def _of_environment(host: str, scheme: str) -> str:
    found = getproxies_environment()
    if proxy_bypass_environment(host, found):
        return ""
    address = found.get(scheme) or found.get("all") or ""
    return address if "://" in address or not address else f"http://{address}"


def _read(address: str) -> Proxy:
    parts = urlsplit(address)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("its proxy is not an http:// address")
    authorization = ""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"proxy-authorization: Basic {base64.b64encode(user.encode()).decode()}\r\n"
    return Proxy(parts.hostname, parts.port or 80, authorization)


async def tunnel(proxied: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Has the proxy at the other end of a connected, non-blocking socket connect it to `host`.  Raises OSError."""
    loop = asyncio.get_running_loop()
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    await loop.sock_sendall(
        proxied, f"CONNECT {where} HTTP/1.1\r\nhost: {where}\r\n{proxy.authorization}\r\n".encode("latin-1")
    )
    said = b""
    while b"\r\n\r\n" not in said:
        more = await loop.sock_recv(proxied, 4096)
        if not more or len(said) > HEAD_BYTES_MAX:
            raise ConnectionError("the proxy did not answer as one")
        said += more
    if _GRANTED.match(said) is None:
        status = _STATUS.match(said)
        raise ConnectionError(f"the proxy answered {status[1].decode() if status else 'what is no status'}")
    if not said.endswith(b"\r\n\r\n"):
        raise ConnectionError("the proxy said more than was asked")
