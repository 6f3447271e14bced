"""What proves to a provider that a call is ours, where a key in a header does not do: tokens that expire, signatures.

A dialect is pure and writes the call; credentials add to it at the edge, just before it is sent.  A provider names its
kind, found by entry point `tollgate.credentials`, in its options:

    options: {credentials: google}

A kind is a class that is made once for each provider with the provider as its only argument.  It reads its own options
from `provider.options`, fetches nothing before the first call, and is dropped when the provider's settings change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gateway.dialects.base import Call
from gateway.types import Provider


class Credentials(Protocol):
    """Proves calls to one provider.  Used by one event loop."""

    async def headers(self, provider: Provider, call: Call) -> Mapping[str, str]:
        """What to add to the headers of `call`; `call` is final but for them, so that it can be signed.

        Answers from memory wherever it can: this is on the path of every request.  Raises UpstreamDenied when there is
        no proof to be had, UpstreamUnreachable when whoever issues it cannot be reached.
        """
        ...
