"""Cohere's Chat v2, written for providers and read from them."""

from __future__ import annotations

from typing import Any

from gateway.conversation import Conversation
from gateway.dialects.codec import Reader
from gateway.dialects.cohere_chat_codec.reply_reader import CohereReader
from gateway.dialects.cohere_chat_codec.request_writer import write_request
from gateway.dialects.frames import Frames, SseFrames
from gateway.plan import Step
from gateway.types import Format, Provider


class CohereCodec:
    """See ProviderCodec."""

    format = Format.COHERE

    def write_request(self, conversation: Conversation, step: Step, *, drop_params: bool) -> dict[str, Any]:
        return write_request(conversation, step, drop_params=drop_params)

    def frames(self) -> Frames:
        return SseFrames()

    def reader(self, provider: Provider, now: float) -> Reader:
        return CohereReader(provider, now)
