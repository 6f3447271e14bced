"""Bedrock's Converse, written for providers and read from them."""

from __future__ import annotations

from typing import Any

from gateway.conversation import Conversation
from gateway.dialects.bedrock_converse_codec.reply_reader import ConverseReader
from gateway.dialects.bedrock_converse_codec.request_writer import write_request
from gateway.dialects.codec import Reader
from gateway.dialects.frames import Frames
from gateway.plan import Step
from gateway.types import Format, Provider


class ConverseCodec:
    """See ProviderCodec."""

    format = Format.CONVERSE

    def write_request(self, conversation: Conversation, step: Step, *, drop_params: bool) -> dict[str, Any]:
        return write_request(conversation, step, drop_params=drop_params)

    def frames(self) -> Frames:
        from gateway.dialects import bedrock_frames  # noqa: PLC0415 - needs botocore, which only Bedrock's users have

        return bedrock_frames.BedrockFrames(bedrock_frames.event)

    def reader(self, provider: Provider, now: float) -> Reader:
        return ConverseReader(provider, now)
