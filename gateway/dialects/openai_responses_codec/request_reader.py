"""An OpenAI Responses request -> Conversation.  https://platform.openai.com/docs/api-reference/responses/create"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.conversation import Conversation, Opaque, Sampling, Shape, Text, Thinking, Tool, ToolChoice
from gateway.dialects import fields
from gateway.dialects.fields import maybe, need
from gateway.dialects.openai_responses_codec.item_reader import read_input
from gateway.types import Format

NAMES = {
    "shape": "text.format",
    "output_max": "max_output_tokens",
    "parallel": "parallel_tool_calls",
    "thinking": "reasoning.effort",
    "logprobs": "include",
}
READ = frozenset(
    {
        "model",
        "input",
        "instructions",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "text",
        "temperature",
        "top_p",
        "top_logprobs",
        "max_output_tokens",
        "reasoning",
        "include",
        "stream",
        "user",
        "safety_identifier",
    }
)
HARMLESS = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "service_tier",
        "store",  # what is not stored cannot be built on: the id says so
        "stream_options",
    }
)
"""Fields that change nothing in the answer: left out without a word when formats are crossed."""

NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "background": (False,),
    "truncation": ("disabled",),
    "top_p": (1,),
    "top_logprobs": (0,),
}
"""Values that say what holds anyway."""

LOGPROBS = "message.output_text.logprobs"
INCLUDED = frozenset({LOGPROBS, "reasoning.encrypted_content"})
"""What `include` may ask for of a provider of any format."""


def read_request(body: Mapping[str, Any]) -> Conversation:
    """See Codec.read_request."""
    system, turns = read_input(() if body.get("input") is None else body["input"])  # a `prompt` may hold it all
    if instructions := maybe(body, "instructions", fields.string):
        system = [Text(instructions), *system]
    tools, opaque_tools = _tools(maybe(body, "tools", fields.items) or ())
    text = maybe(body, "text", fields.mapping) or {}
    include = maybe(body, "include", fields.strings) or ()
    return Conversation(
        turns=turns,
        system=tuple(system),
        tools=tools,
        opaque_tools=opaque_tools,
        tool_choice=maybe(body, "tool_choice", _tool_choice),
        parallel=maybe(body, "parallel_tool_calls", fields.boolean),
        shape=maybe(text, "format", _shape, "text"),
        sampling=_sampling(body, include),
        output_max=maybe(body, "max_output_tokens", fields.integer),
        thinking=_thinking(body),
        stream=maybe(body, "stream", fields.boolean) or False,
        user=maybe(body, "safety_identifier", fields.string) or maybe(body, "user", fields.string) or "",
        extras=_extras(body, text, include),
        names=NAMES,
    )


def _extras(body: Mapping[str, Any], text: Mapping[str, Any], include: Sequence[str]) -> dict[str, Any]:
    """What has no place in the hub and matters."""
    extras = {
        name: value
        for name, value in body.items()
        if value is not None and name not in READ and name not in HARMLESS and value not in NEUTRAL.get(name, ())
    }
    if text.get("verbosity") not in (None, "medium"):
        extras["text.verbosity"] = text["verbosity"]
    if more := [each for each in include if each not in INCLUDED]:
        extras["include"] = more
    return extras


def _sampling(body: Mapping[str, Any], include: Sequence[str]) -> Sampling:
    top = maybe(body, "top_logprobs", fields.integer) or None
    top_p = maybe(body, "top_p", fields.number)
    return Sampling(
        temperature=maybe(body, "temperature", fields.number),
        top_p=None if top_p == 1 else top_p,
        logprobs=True if LOGPROBS in include or top else None,
        top_logprobs=top,
    )


def _thinking(body: Mapping[str, Any]) -> Thinking | None:
    block = maybe(body, "reasoning", fields.mapping) or {}
    effort = maybe(block, "effort", _EFFORT, "reasoning")
    return Thinking(effort) if effort else None


_EFFORT = fields.one_of("none", "minimal", "low", "medium", "high", "xhigh", "max")


def _tools(tools: Sequence[Any]) -> tuple[tuple[Tool, ...], tuple[Opaque, ...]]:
    known: list[Tool] = []
    opaque: list[Opaque] = []
    for i, value in enumerate(tools):
        path = f"tools[{i}]"
        tool = fields.mapping(value, path)
        kind = need(tool, "type", fields.string, path)
        if kind != "function":
            opaque.append(Opaque(Format.RESPONSES, kind, tool, path))
            continue
        known.append(
            Tool(
                need(tool, "name", fields.string, path),
                maybe(tool, "description", fields.string, path) or "",
                maybe(tool, "parameters", fields.mapping, path) or {},
                maybe(tool, "strict", fields.boolean, path),
                path=path,
            )
        )
    return tuple(known), tuple(opaque)


def _tool_choice(value: object, path: str) -> ToolChoice:
    if isinstance(value, str):
        return ToolChoice(_MODE(value, path))
    choice = fields.mapping(value, path)
    if need(choice, "type", _CHOICE, path) == "function":
        return ToolChoice("tool", need(choice, "name", fields.string, path))
    tools = need(choice, "tools", fields.items, path)
    names = tuple(
        need(fields.mapping(tool, f"{path}.tools[{i}]"), "name", fields.string, f"{path}.tools[{i}]")
        for i, tool in enumerate(tools)
    )
    return ToolChoice(need(choice, "mode", _MODE, path), allowed=names)


_MODE = fields.one_of("auto", "none", "required")
_CHOICE = fields.one_of("function", "allowed_tools")


def _shape(value: object, path: str) -> Shape | None:
    wanted = fields.mapping(value, path)
    kind = need(wanted, "type", fields.one_of("text", "json_object", "json_schema"), path)
    if kind == "text":
        return None
    if kind == "json_object":
        return Shape(kind)
    return Shape(
        kind,
        need(wanted, "schema", fields.mapping, path),
        maybe(wanted, "name", fields.string, path) or "",
        maybe(wanted, "description", fields.string, path) or "",
        maybe(wanted, "strict", fields.boolean, path),
    )
