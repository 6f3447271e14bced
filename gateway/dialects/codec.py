"""What one wire format brings to the hub: how its requests, replies and streams are read and written.

A new format is one class with these methods, named in `gateway.dialects.translate`: in PROVIDERS if it is spoken to
providers, in CODECS if clients speak it too.  No other format changes.

A request is read with InvalidRequest (naming the path) as its only error, whatever JSON it is.  A reply is read the
same way; the Translator tells the client that an invalid reply is UpstreamBroken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.conversation import Conversation, Finish, Reply
from gateway.dialects.deltas import Delta
from gateway.dialects.frames import Frames
from gateway.errors import GatewayError, UnsupportedField
from gateway.plan import Step
from gateway.types import Cost, Format, Provider, Usage


@dataclass(frozen=True, slots=True)
class Heading:
    """What an answer to this client needs that the provider's reply may not say."""

    id: str  # of the request
    model: str  # the one called
    created: int  # unix seconds
    input_expected: int = 0  # tokens, where a stream must begin before the provider has counted
    include_usage: bool = False  # whether the client asked for usage at the end of a stream


class Reader(Protocol):
    """Reads one reply of a provider."""

    complete: bool  # whether the answer has ended as the format says it should
    failure: GatewayError | None  # the error the provider has reported inside its reply

    def read(self, data: bytes) -> Sequence[Delta]:
        """What one event of a stream says."""
        ...

    def read_whole(self, data: bytes) -> Sequence[Delta]:
        """What a reply that is not a stream says."""
        ...


class Writer(Protocol):
    """Writes one stream to a client."""

    def write(self, delta: Delta) -> bytes:
        """The events that say `delta`; maybe none."""
        ...

    def end(self, usage: Usage | None, cost: Cost | None) -> bytes:
        """The last events.  Usage and cost are told where they are known."""
        ...


class ProviderCodec(Protocol):
    """One wire format that providers speak; stateless."""

    format: Format

    def write_request(self, conversation: Conversation, step: Step, *, drop_params: bool) -> dict[str, Any]:
        """The body that asks it of `step.deployment`, with the step's model, output cap and effort.

        Raises UnsupportedField, with the client's own name for it, for what this format or model cannot say; left out
        instead when `drop_params`.
        """
        ...

    def frames(self) -> Frames:
        """Cuts a stream of this format into events."""
        ...

    def reader(self, provider: Provider, now: float) -> Reader:
        """Reads a reply of `provider`; `now`, unix seconds, is what its retry advice is told from."""
        ...


class Codec(ProviderCodec, Protocol):
    """One wire format that clients speak as well."""

    finishes: Mapping[Finish, str]  # what the format calls each

    def read_request(self, body: Mapping[str, Any]) -> Conversation:
        """What the client asks, in canonical form."""
        ...

    def write_reply(self, reply: Reply, heading: Heading, cost: Cost | None) -> bytes:
        """A whole reply for a client."""
        ...

    def writer(self, heading: Heading) -> Writer:
        """Writes a stream to a client."""
        ...

    def error(self, error: GatewayError) -> bytes:
        """The event that ends a broken stream."""
        ...


class Refuser:
    """What a writer does with what its format cannot say: refuse it by the client's name for it, or leave it out."""

    def __init__(self, target: str, *, drop: bool) -> None:
        self.target = target
        self.drop = drop

    def cannot(self, param: str, why: str = "") -> None:
        """Raises UnsupportedField for `param`; returns when it may be left out."""
        if self.drop:
            return
        reason = f": {why}" if why else ""
        raise UnsupportedField(f"'{param}' cannot be said to {self.target}{reason}.", param=param)


def accepts(step: Step, name: str) -> bool:
    """Whether this provider takes the extension `name` of its format: `options: {accepts: [cache_control, top_k]}`."""
    return name in step.deployment.provider.options.get("accepts", ())
