"""An OpenAI Chat Completions request -> Conversation.

Beyond OpenAI's own fields it reads what clients send through compatible gateways: `cache_control` on messages, parts
and tools, `reasoning_content` and `thinking_blocks` in what the assistant said, `is_error` on tool results, `top_k`,
and `thinking` or `reasoning` beside `reasoning_effort`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.conversation import SAMPLING, Conversation, Opaque, Sampling, Shape, Thinking, Tool, ToolChoice
from gateway.dialects import fields
from gateway.dialects.blocks import read_cache
from gateway.dialects.fields import maybe, need
from gateway.dialects.openai_chat_codec.turn_reader import read_messages
from gateway.types import Format

NAMES = {
    "shape": "response_format",
    "output_max": "max_completion_tokens",
    "parallel": "parallel_tool_calls",
    "thinking": "reasoning_effort",
}

READ = frozenset(
    {
        *SAMPLING,
        "model",
        "messages",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "stop",
        "max_tokens",
        "max_completion_tokens",
        "reasoning_effort",
        "reasoning",
        "thinking",
        "stream",
        "user",
        "safety_identifier",
        "cache_control",
    }
)
HARMLESS = frozenset(
    {
        "include_reasoning",  # it is always told
        "metadata",
        "prediction",  # speed
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "service_tier",
        "store",
        "stream_options",  # ours to answer
        "usage",  # whether to tell it: always
    }
)
"""Fields that change nothing in the answer: left out without a word when formats are crossed."""

NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "top_p": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "function_call": ("none", "auto"),
    "functions": ([],),
}
"""Values that say what holds anyway."""

_EFFORT = fields.one_of("none", "minimal", "low", "medium", "high", "xhigh", "max")


def read_request(body: Mapping[str, Any]) -> Conversation:
    """See Codec.read_request."""
    system, turns, extras = read_messages(need(body, "messages", fields.items))
    tools, opaque_tools = _tools(maybe(body, "tools", fields.items) or ())
    cap = maybe(body, "max_completion_tokens", fields.integer)
    return Conversation(
        turns=turns,
        system=system,
        tools=tools,
        opaque_tools=opaque_tools,
        tool_choice=maybe(body, "tool_choice", _tool_choice),
        parallel=maybe(body, "parallel_tool_calls", fields.boolean),
        shape=maybe(body, "response_format", _shape),
        sampling=_sampling(body),
        stop=maybe(body, "stop", _stop) or (),
        output_max=maybe(body, "max_tokens", fields.integer) if cap is None else cap,
        thinking=_thinking(body),
        stream=maybe(body, "stream", fields.boolean) or False,
        user=maybe(body, "safety_identifier", fields.string) or maybe(body, "user", fields.string) or "",
        cache=maybe(body, "cache_control", read_cache),
        extras={name: value for name, value in body.items() if _matters(name, value)} | extras,
        names=NAMES,
    )


def _matters(name: str, value: object) -> bool:
    return value is not None and name not in READ and name not in HARMLESS and value not in NEUTRAL.get(name, ())


def _tools(tools: Sequence[Any]) -> tuple[tuple[Tool, ...], tuple[Opaque, ...]]:
    known: list[Tool] = []
    opaque: list[Opaque] = []
    for i, value in enumerate(tools):
        path = f"tools[{i}]"
        tool = fields.mapping(value, path)
        kind = need(tool, "type", fields.string, path)
        if kind != "function":
            opaque.append(Opaque(Format.CHAT, kind, tool, path))
            continue
        function = need(tool, "function", fields.mapping, path)
        where = f"{path}.function"
        known.append(
            Tool(
                need(function, "name", fields.string, where),
                maybe(function, "description", fields.string, where) or "",
                maybe(function, "parameters", fields.mapping, where) or {},
                maybe(function, "strict", fields.boolean, where),
                maybe(tool, "cache_control", read_cache, path),
                path,
            )
        )
    return tuple(known), tuple(opaque)


def _tool_choice(value: object, path: str) -> ToolChoice:
    if isinstance(value, str):
        return ToolChoice("required" if value == "any" else _MODE(value, path))
    choice = fields.mapping(value, path)
    kind = need(choice, "type", fields.one_of("function", "tool", "allowed_tools"), path)
    if kind == "tool":
        return ToolChoice("tool", need(choice, "name", fields.string, path))
    if kind == "function":
        function = need(choice, "function", fields.mapping, path)
        return ToolChoice("tool", need(function, "name", fields.string, f"{path}.function"))
    path = f"{path}.allowed_tools"
    allowed = need(choice, "allowed_tools", fields.mapping, path.removesuffix(".allowed_tools"))
    names = tuple(
        need(need(fields.mapping(tool, where), "function", fields.mapping, where), "name", fields.string, where)
        for where, tool in ((f"{path}.tools[{i}]", t) for i, t in enumerate(need(allowed, "tools", fields.items, path)))
    )
    return ToolChoice(need(allowed, "mode", _MODE, path), allowed=names)


_MODE = fields.one_of("auto", "none", "required", "any")


def _shape(value: object, path: str) -> Shape | None:
    wanted = fields.mapping(value, path)
    kind = need(wanted, "type", fields.one_of("text", "json_object", "json_schema"), path)
    if kind == "text":
        return None
    if kind == "json_object":
        return Shape(kind)
    path = f"{path}.json_schema"
    block = need(wanted, "json_schema", fields.mapping, path.removesuffix(".json_schema"))
    return Shape(
        kind,
        maybe(block, "schema", fields.mapping, path) or {},
        maybe(block, "name", fields.string, path) or "",
        maybe(block, "description", fields.string, path) or "",
        maybe(block, "strict", fields.boolean, path),
    )


def _stop(value: object, path: str) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else fields.strings(value, path)


def _sampling(body: Mapping[str, Any]) -> Sampling:
    given = {
        name: read(body[name], name)
        for name, read in _SAMPLING.items()
        if body.get(name) is not None and body[name] not in NEUTRAL.get(name, ())
    }
    return Sampling(**given) if given else Sampling()


_SAMPLING: Mapping[str, Any] = {
    "temperature": fields.number,
    "top_p": fields.number,
    "top_k": fields.integer,
    "seed": fields.integer,
    "presence_penalty": fields.number,
    "frequency_penalty": fields.number,
    "logit_bias": fields.mapping,
    "logprobs": fields.boolean,
    "top_logprobs": fields.integer,
    "n": fields.integer,
}


def _thinking(body: Mapping[str, Any]) -> Thinking | None:
    effort = maybe(body, "reasoning_effort", _EFFORT)
    if block := maybe(body, "thinking", fields.mapping):
        kind = need(block, "type", fields.one_of("enabled", "disabled", "adaptive"), "thinking")
        if kind == "disabled":
            return Thinking("none")
        return Thinking(effort or "", maybe(block, "budget_tokens", fields.integer, "thinking"))
    if block := maybe(body, "reasoning", fields.mapping):
        effort = effort or maybe(block, "effort", _EFFORT, "reasoning")
        return Thinking(effort or "", maybe(block, "max_tokens", fields.integer, "reasoning"))
    return Thinking(effort) if effort else None
