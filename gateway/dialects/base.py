"""How a wire format talks.  A dialect is pure: values in, values out; `gateway.upstream` does the I/O.

Same format in and out: the client's bytes are relayed and only what must change is changed.  Otherwise the request is
read into a `gateway.conversation.Conversation` and written in the provider's format, and the reply comes back the same
way.  Who is called (URL, key, quirks) is a `Provider`, data from YAML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from msgspec import Struct, field

from gateway.errors import GatewayError
from gateway.plan import Step
from gateway.types import Cost, Format, Provider, Request, Tenant, Usage

Bill: TypeAlias = Callable[[Usage], Cost]
"""Prices usage at this deployment at this moment."""


class Call(Struct, frozen=True):
    """One HTTP request to a provider.  `headers` may hold secrets and are never printed."""

    url: str
    body: bytes
    headers: Mapping[str, str]
    method: str = "POST"

    def __repr__(self) -> str:
        return f"Call({self.method} {self.url})"


class Meter(Struct):
    """What a decoder has learned so far.  Read it whenever the call ends, however it ends."""

    usage: Usage | None = None  # None: the provider has not said (yet)
    response_model: str = ""
    finish_reason: str = ""  # as in the client's format
    complete: bool = False  # the reply ended as its format says it should
    pending: str = ""  # the provider's id of an answer that it is still making in the background
    media_type: str = ""  # of the reply, as the provider states it
    chunks: list[bytes] = field(default_factory=list)  # what carried content and is not folded yet


class Decoder(Protocol):
    """Turns what the provider sends into what the client gets, metering on the way.  One per call; not thread-safe.

    `feed` and `finish` raise a GatewayError when the provider reports an error inside a 200 reply or sends what cannot
    be read; if nothing has been returned yet the next step of the plan can be tried.
    """

    meter: Meter

    def feed(self, chunk: bytes) -> bytes:
        """Bytes for the client, maybe none yet.  `chunk` may split anything anywhere."""
        ...

    def finish(self) -> bytes:
        """The provider's body has ended: what is still to be sent, [DONE] and usage included."""
        ...

    def cut(self, error: GatewayError) -> bytes:
        """The stream broke after it began: an error event in the client's format, and nothing that pretends success."""
        ...

    def generated(self) -> str:
        """The text generated so far (visible, reasoning, tool arguments), for our own count when usage is missing."""
        ...


class Dialect(Protocol):
    """One provider wire format."""

    @property
    def name(self) -> str:
        """As providers name it in their settings."""
        ...

    @property
    def format(self) -> Format:
        """What it speaks, or speaks first."""
        ...

    def encode(self, request: Request, step: Step, tenant: Tenant) -> Call:
        """The call that serves `request` on `step.deployment`, with the model, cap and effort of the step.

        Raises UnsupportedField for what this format cannot say (dropped instead when `tenant.drop_params`).
        """
        ...

    def decoder(self, request: Request, step: Step, bill: Bill) -> Decoder:
        """The reader of that call's 2xx reply, writing in `request.format`."""
        ...

    def error(self, status: int, headers: Mapping[str, str], body: bytes, provider: Provider) -> GatewayError:
        """The leaf of the error tree that a reply with this status (>= 400) is, with its retry advice."""
        ...


Body: TypeAlias = Mapping[str, Any]
