"""An answer as OpenAI Chat Completions writes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from gateway.simulated.answer import Answer, Choice
from gateway.simulated.ask import Ask
from gateway.simulated.script import Script, WrongUsage

DONE = b"data: [DONE]\n\n"
KINDS = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("permission_error", "permission_denied"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
    503: ("server_error", "overloaded"),
}


def whole(answer: Answer, ask: Ask, script: Script) -> bytes:
    """The reply that is not streamed."""
    head = {"id": f"chatcmpl-sim-{answer.id}", "object": "chat.completion"}
    body = head | {
        "created": answer.created,
        "model": answer.model,
        "choices": [_whole_choice(answer.id, index, choice, ask) for index, choice in enumerate(answer.choices)],
        "system_fingerprint": "fp_simulated",
    }
    if not script.no_usage:
        body["usage"] = usage(answer, script)
    return orjson.dumps(body)


def events(answer: Answer, ask: Ask, script: Script) -> Iterator[tuple[int, bytes]]:
    """The stream's events, each with the number of tokens that one choice has generated when it is sent."""
    head = {
        "id": f"chatcmpl-sim-{answer.id}",
        "object": "chat.completion.chunk",
        "created": answer.created,
        "model": answer.model,
        "system_fingerprint": "fp_simulated",
    }
    with_usage = ask.include_usage and not script.no_usage

    def event(choices: list[dict[str, Any]], used: dict[str, Any] | None = None) -> bytes:
        chunk = {**head, "choices": choices, "usage": used} if with_usage else {**head, "choices": choices}
        return b"data: " + orjson.dumps(chunk) + b"\n\n"

    for index, choice in enumerate(answer.choices):
        yield len(choice.reasoning), event([_delta(index, _opening(answer.id, index, choice))])
    for position in range(max(len(choice.pieces) for choice in answer.choices)):
        for index, choice in enumerate(answer.choices):
            if position < len(choice.pieces):
                piece = choice.pieces[position]
                logprobs = _logprobs([piece], ask.top_logprobs)
                at = len(choice.reasoning) + choice.name_tokens + position + 1
                yield at, event([_delta(index, _grown(choice, piece), logprobs=logprobs)])
    end = max(choice.tokens for choice in answer.choices)
    for index, choice in enumerate(answer.choices):
        yield end, event([_delta(index, {}, choice.finish)])
    if with_usage:
        yield end, event([], usage(answer, script))
    yield end, DONE


def failed(status: int, message: str, code: str = "") -> dict[str, Any]:
    """The error object OpenAI sends with this status."""
    kind, usual = KINDS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code or usual}}


def failed_event(status: int, message: str, code: str = "") -> bytes:
    """An error in the middle of a stream that began well."""
    return b"data: " + orjson.dumps(failed(status, message, code)) + b"\n\n"


def usage(answer: Answer, script: Script) -> dict[str, Any]:
    """The usage block: cached tokens are part of the prompt, reasoning tokens part of the completion."""
    prompt, completion, cached = answer.input_tokens, answer.output_tokens, answer.cached_tokens
    if script.wrong_usage is WrongUsage.CACHED:
        cached = prompt + 100
    if script.wrong_usage is WrongUsage.NEGATIVE:
        prompt, completion = 0, -9  # as one provider was recorded
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": answer.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _whole_choice(answer_id: str, index: int, choice: Choice, ask: Ask) -> dict[str, Any]:
    text = "".join(choice.pieces)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    if choice.tool:
        function = {"name": choice.tool, "arguments": text}
        call = {"id": f"call_sim_{answer_id}_{index}", "type": "function", "function": function}
        message |= {"content": None, "tool_calls": [call]}
    elif choice.refusal:
        message |= {"content": None, "refusal": text}
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(choice.pieces, ask.top_logprobs),
        "finish_reason": choice.finish,
    }


def _delta(
    index: int, delta: dict[str, Any], finish: str | None = None, *, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _opening(answer_id: str, index: int, choice: Choice) -> dict[str, Any]:
    if choice.tool:
        function = {"name": choice.tool, "arguments": ""}
        call = {"index": 0, "id": f"call_sim_{answer_id}_{index}", "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"role": "assistant", "content": "", "refusal": None}


def _grown(choice: Choice, piece: str) -> dict[str, Any]:
    if choice.tool:
        return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
    return {"refusal": piece} if choice.refusal else {"content": piece}


def _logprobs(pieces: Sequence[str], top: int | None) -> dict[str, Any] | None:
    if top is None:
        return None

    def entry(token: str, logprob: float) -> dict[str, Any]:
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    others = [(" other" * (rank + 1), -3.0 - rank) for rank in range(max(0, top - 1))]
    return {
        "content": [
            {
                **entry(piece, -0.1),
                "top_logprobs": [entry(token, odds) for token, odds in [(piece, -0.1), *others][:top]],
            }
            for piece in pieces
        ],
        "refusal": None,
    }
