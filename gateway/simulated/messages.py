"""An answer as Anthropic Messages writes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from gateway.simulated.answer import Answer, Choice
from gateway.simulated.schema import Json
from gateway.simulated.script import Script, WrongUsage

STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def whole(answer: Answer, script: Script) -> bytes:
    """The reply that is not streamed."""
    choice = answer.choices[0]
    content = [_closed(block, text, answer.id) for block, text in _blocks(choice, answer.id)]
    return orjson.dumps(_message(answer, content, _stop(choice)) | _used(answer, script))


def events(answer: Answer, script: Script) -> Iterator[tuple[int, bytes]]:
    """The stream's events, each with the number of tokens generated when it is sent."""
    choice = answer.choices[0]
    start = _message(answer, [], None)
    if not script.no_usage:
        begun = {"output_tokens": min(1, answer.output_tokens), "output_tokens_details": {"thinking_tokens": 0}}
        start["usage"] = usage(answer, script) | begun
    yield 0, _event("message_start", message=start)
    yield 0, _event("ping")
    index = 0
    if choice.reasoning:
        yield from _block(0, {"type": "thinking", "thinking": "", "signature": ""}, choice.reasoning, 0)
        index = 1
    at = len(choice.reasoning) + choice.name_tokens
    yield from _block(index, _opening(choice, answer.id), choice.pieces, at)
    delta = {"stop_reason": _stop(choice), "stop_sequence": None}
    yield choice.tokens, _event("message_delta", delta=delta, **_used(answer, script))
    yield choice.tokens, _event("message_stop")


def failed(status: int, message: str, code: str = "") -> dict[str, Any]:
    """The error object Anthropic sends with this status."""
    kind = code or KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_sim"}


def failed_event(status: int, message: str, code: str = "") -> bytes:
    """An error in the middle of a stream that began well."""
    return b"event: error\ndata: " + orjson.dumps(failed(status, message, code)) + b"\n\n"


def usage(answer: Answer, script: Script) -> dict[str, Any]:
    """The usage block: `input_tokens` leaves out what was read from the cache, reasoning is part of the output."""
    cached, output = answer.cached_tokens, answer.output_tokens
    fresh = answer.input_tokens - cached
    if script.wrong_usage is WrongUsage.CACHED:
        fresh, cached = -100, answer.input_tokens + 100
    if script.wrong_usage is WrongUsage.NEGATIVE:
        output = -9
    return {
        "input_tokens": fresh,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"thinking_tokens": answer.reasoning_tokens},
        "service_tier": "standard",
    }


def _used(answer: Answer, script: Script) -> dict[str, Any]:
    return {} if script.no_usage else {"usage": usage(answer, script)}


def _message(answer: Answer, content: list[dict[str, Any]], stop: str | None) -> dict[str, Any]:
    return {
        "id": f"msg_sim_{answer.id}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
    }


def _stop(choice: Choice) -> str:
    return "refusal" if choice.refusal else STOPS[choice.finish]


def _opening(choice: Choice, answer_id: str) -> dict[str, Any]:
    if choice.tool:
        return {"type": "tool_use", "id": f"toolu_sim_{answer_id}", "name": choice.tool, "input": {}}
    return {"type": "text", "text": ""}


def _blocks(choice: Choice, answer_id: str) -> Iterator[tuple[dict[str, Any], str]]:
    if choice.reasoning:
        yield {"type": "thinking", "thinking": "", "signature": ""}, "".join(choice.reasoning)
    yield _opening(choice, answer_id), "".join(choice.pieces)


def _closed(block: dict[str, Any], text: str, answer_id: str) -> dict[str, Any]:
    if block["type"] == "thinking":
        return block | {"thinking": text, "signature": f"sim{answer_id}"}
    if block["type"] == "tool_use":
        return block | {"input": _parsed(text)}
    return block | {"text": text}


def _parsed(arguments: str) -> Json:
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:  # cut short by the cap
        return {}


def _block(index: int, opening: dict[str, Any], pieces: Sequence[str], at: int) -> Iterator[tuple[int, bytes]]:
    kind, name = {
        "thinking": ("thinking_delta", "thinking"),
        "tool_use": ("input_json_delta", "partial_json"),
        "text": ("text_delta", "text"),
    }[opening["type"]]
    yield at, _event("content_block_start", index=index, content_block=opening)
    for position, piece in enumerate(pieces):
        yield at + position + 1, _event("content_block_delta", index=index, delta={"type": kind, name: piece})
    end = at + len(pieces)
    if kind == "thinking_delta":
        signature = {"type": "signature_delta", "signature": "simulated"}
        yield end, _event("content_block_delta", index=index, delta=signature)
    yield end, _event("content_block_stop", index=index)


def _event(kind: str, **fields: Json) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps({"type": kind, **fields}) + b"\n\n"
