"""Ids of responses that a provider keeps, as clients see them: each names the deployment that made it.

Whoever comes back with such an id must reach the same provider, through whichever gateway, so the id itself says where:

    resp_tg_<base32 of digest and deployment>_<the provider's id>

The digest binds it to the tenant it was told to: another's is as good as none.  Pure.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b32decode, b32encode
from binascii import Error
from dataclasses import dataclass

from gateway.errors import NotFound

_PREFIX = "resp_tg_"
_DIGEST_BYTES = 6
_ID = re.compile(rf"{_PREFIX}([a-z2-7]+)_(.+)", re.DOTALL)
_IN_PATH = re.compile(r"\w[\w.:-]{0,511}")


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a response is kept, and what it is called there."""

    deployment: str
    id: str

    def told(self, tenant: str) -> str:
        """The id that the tenant gets."""
        place = self._digest(tenant) + self.deployment.encode()
        return f"{_PREFIX}{b32encode(place).decode().rstrip('=').lower()}_{self.id}"

    def _digest(self, tenant: str) -> bytes:
        whole = f"{tenant}\0{self.deployment}\0{self.id}".encode()
        return hashlib.blake2b(whole, digest_size=_DIGEST_BYTES).digest()


def read(told: str, tenant: str) -> Stored:
    """What the id stands for.  Raises NotFound for any that this tenant was not told."""
    unknown = NotFound(f"There is no stored response {told[:200]!r}.", param="response_id")
    found = _ID.fullmatch(told)
    if found is None or not _IN_PATH.fullmatch(found[2]):
        raise unknown
    text = found[1].upper()
    try:
        place = b32decode(text + "=" * (-len(text) % 8))
        stored = Stored(place[_DIGEST_BYTES:].decode(), found[2])
    except (Error, UnicodeDecodeError):
        raise unknown from None
    if stored.told(tenant) != told:
        raise unknown
    return stored
