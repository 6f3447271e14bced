"""What a request asks of the simulated provider, whichever format it speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import orjson

from gateway.simulated.schema import Json


class BadRequest(ValueError):
    """The request is not one the format knows; says what is wrong."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call."""

    name: str
    parameters: Json  # JSON schema


@dataclass(frozen=True, slots=True)
class Ask:
    """The parts of a request that shape the answer."""

    seed: int  # of the prompt: the same messages get the same answer
    cap: int | None  # tokens out, for each choice
    choices: int
    schema: Json  # the answer's JSON schema; None: prose
    tools: tuple[Tool, ...]
    forced: str | None  # the tool that must be called; "": any
    answers_tool: bool  # the last message is a tool's result
    last_text: str
    stream: bool
    include_usage: bool
    top_logprobs: int | None  # None: no logprobs wanted


def read_chat(body: Mapping[str, Any]) -> Ask:
    """Reads a Chat Completions body.  Raises BadRequest."""
    messages = _messages(body)
    caps = [body[name] for name in ("max_completion_tokens", "max_tokens") if body.get(name) is not None]
    options = body.get("stream_options") or {}
    return Ask(
        seed=crc32(orjson.dumps(messages)),
        cap=min(_positive(cap, "max_tokens") for cap in caps) if caps else None,
        choices=_positive(body.get("n") or 1, "n"),
        schema=_chat_schema(body.get("response_format") or {}),
        tools=tuple(_chat_tool(tool) for tool in body.get("tools") or () if "function" in tool),
        forced=_chat_forced(body.get("tool_choice")),
        answers_tool=bool(messages) and messages[-1].get("role") == "tool",
        last_text=_text(messages[-1].get("content")) if messages else "",
        stream=bool(body.get("stream")),
        include_usage=bool(options.get("include_usage")),
        top_logprobs=int(body.get("top_logprobs") or 0) if body.get("logprobs") else None,
    )


def read_messages(body: Mapping[str, Any]) -> Ask:
    """Reads an Anthropic Messages body.  Raises BadRequest."""
    messages = _messages(body)
    if body.get("max_tokens") is None:
        raise BadRequest("max_tokens: field required")
    choice = body.get("tool_choice") or {}
    wanted = (body.get("output_config") or {}).get("format") or {}
    content = messages[-1].get("content") if messages else None
    return Ask(
        seed=crc32(orjson.dumps(messages)),
        cap=_positive(body["max_tokens"], "max_tokens"),
        choices=1,
        schema=wanted.get("schema"),
        tools=tuple(
            Tool(str(tool.get("name")), tool.get("input_schema", {}))
            for tool in body.get("tools") or ()
            if "input_schema" in tool
        ),
        forced={"any": "", "tool": choice.get("name")}.get(choice.get("type", "")),
        answers_tool=isinstance(content, list) and any(part.get("type") == "tool_result" for part in content),
        last_text=_text(content),
        stream=bool(body.get("stream")),
        include_usage=True,
        top_logprobs=None,
    )


def _messages(body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadRequest("messages: a list of messages is required")
    return messages


def _positive(value: Json, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadRequest(f"{name}: a whole number of 1 or more is required, not {value!r}")
    return value


def _chat_schema(wanted: Mapping[str, Any]) -> Json:
    if wanted.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    return (wanted.get("json_schema") or {}).get("schema")


def _chat_tool(tool: Mapping[str, Any]) -> Tool:
    function = tool["function"]
    return Tool(str(function.get("name")), function.get("parameters", {}))


def _chat_forced(choice: Json) -> str | None:
    if isinstance(choice, Mapping):
        return str((choice.get("function") or {}).get("name", ""))
    return "" if choice == "required" else None


def _text(content: Json) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
