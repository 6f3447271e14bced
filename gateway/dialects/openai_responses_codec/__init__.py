"""OpenAI Responses, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.conversation import Conversation, Reply
from gateway.dialects.codec import Heading, Reader, Writer
from gateway.dialects.frames import Frames, SseFrames
from gateway.dialects.openai_responses_codec.reply_reader import ResponsesReader
from gateway.dialects.openai_responses_codec.reply_writer import ResponsesWriter
from gateway.dialects.openai_responses_codec.request_reader import read_request
from gateway.dialects.openai_responses_codec.request_writer import write_request
from gateway.dialects.openai_responses_codec.shapes import FINISHES, error_event, write_reply
from gateway.errors import GatewayError
from gateway.plan import Step
from gateway.types import Cost, Format, Provider


class ResponsesCodec:
    """See Codec."""

    format = Format.RESPONSES
    finishes = FINISHES

    def read_request(self, body: Mapping[str, Any]) -> Conversation:
        return read_request(body)

    def write_request(self, conversation: Conversation, step: Step, *, drop_params: bool) -> dict[str, Any]:
        return write_request(conversation, step, drop_params=drop_params)

    def frames(self) -> Frames:
        return SseFrames()

    def reader(self, provider: Provider, now: float) -> Reader:
        return ResponsesReader(provider, now)

    def write_reply(self, reply: Reply, heading: Heading, cost: Cost | None) -> bytes:
        return write_reply(reply, heading, cost)

    def writer(self, heading: Heading) -> Writer:
        return ResponsesWriter(heading)

    def error(self, error: GatewayError) -> bytes:
        return error_event(error)
