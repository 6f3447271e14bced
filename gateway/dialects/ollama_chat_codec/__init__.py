"""Ollama's own chat, written for providers and read from them."""

from __future__ import annotations

from typing import Any

from gateway.conversation import Conversation
from gateway.dialects.codec import Reader
from gateway.dialects.frames import Frames
from gateway.dialects.ollama_chat_codec.reply_reader import LineFrames, OllamaReader
from gateway.dialects.ollama_chat_codec.request_writer import write_request
from gateway.plan import Step
from gateway.types import Format, Provider


class OllamaCodec:
    """See ProviderCodec."""

    format = Format.OLLAMA

    def write_request(self, conversation: Conversation, step: Step, *, drop_params: bool) -> dict[str, Any]:
        return write_request(conversation, step, drop_params=drop_params)

    def frames(self) -> Frames:
        return LineFrames()

    def reader(self, provider: Provider, now: float) -> Reader:
        return OllamaReader(provider, now)
