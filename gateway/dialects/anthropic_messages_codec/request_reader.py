"""An Anthropic Messages request -> Conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.conversation import Conversation, Opaque, Sampling, Shape, Thinking, Tool, ToolChoice
from gateway.dialects import fields
from gateway.dialects.anthropic_messages_codec.turn_reader import read_messages, read_system
from gateway.dialects.blocks import read_cache
from gateway.dialects.fields import maybe, need
from gateway.types import Format

NAMES = {
    "shape": "output_config.format",
    "output_max": "max_tokens",
    "stop": "stop_sequences",
    "parallel": "tool_choice",
}

READ = frozenset(
    {
        "model",
        "messages",
        "system",
        "max_tokens",
        "tools",
        "tool_choice",
        "output_config",
        "output_format",
        "temperature",
        "top_p",
        "top_k",
        "stop_sequences",
        "thinking",
        "stream",
        "metadata",
        "cache_control",
    }
)
HARMLESS = frozenset({"diagnostics", "service_tier", "speed", "user_profile_id", "workspace_id"})
"""Fields that change nothing in the answer: left out without a word when formats are crossed."""

TOOL_HARMLESS = frozenset({"type", "eager_input_streaming"})


def read_request(body: Mapping[str, Any]) -> Conversation:
    """See Codec.read_request."""
    turns, extras = read_messages(need(body, "messages", fields.items))
    tools, opaque_tools = _tools(maybe(body, "tools", fields.items) or (), extras)
    choice = maybe(body, "tool_choice", fields.mapping) or {}
    single = maybe(choice, "disable_parallel_tool_use", fields.boolean, "tool_choice")
    config = maybe(body, "output_config", fields.mapping) or {}
    extras |= {f"output_config.{name}": config[name] for name in config.keys() - {"effort", "format"}}
    extras |= {name: body[name] for name in body.keys() - READ - HARMLESS if body[name] is not None}
    metadata = maybe(body, "metadata", fields.mapping) or {}
    return Conversation(
        turns=turns,
        system=maybe(body, "system", read_system) or (),
        tools=tools,
        opaque_tools=opaque_tools,
        tool_choice=_tool_choice(choice) if choice else None,
        parallel=None if single is None else not single,
        shape=maybe(config, "format", _shape, "output_config") or maybe(body, "output_format", _shape),
        sampling=Sampling(
            temperature=maybe(body, "temperature", fields.number),
            top_p=maybe(body, "top_p", fields.number) if body.get("top_p") != 1 else None,
            top_k=maybe(body, "top_k", fields.integer),
        ),
        stop=maybe(body, "stop_sequences", fields.strings) or (),
        output_max=maybe(body, "max_tokens", fields.integer),
        thinking=_thinking(body, config),
        stream=maybe(body, "stream", fields.boolean) or False,
        user=maybe(metadata, "user_id", fields.string, "metadata") or "",
        cache=maybe(body, "cache_control", read_cache),
        extras=extras,
        names=NAMES,
    )


def _tools(tools: Sequence[Any], extras: dict[str, Any]) -> tuple[tuple[Tool, ...], tuple[Opaque, ...]]:
    known: list[Tool] = []
    opaque: list[Opaque] = []
    for i, value in enumerate(tools):
        path = f"tools[{i}]"
        tool = fields.mapping(value, path)
        kind = maybe(tool, "type", fields.string, path) or "custom"
        if kind != "custom":
            opaque.append(Opaque(Format.MESSAGES, kind, tool, path))
            continue
        known.append(
            Tool(
                need(tool, "name", fields.string, path),
                maybe(tool, "description", fields.string, path) or "",
                need(tool, "input_schema", fields.mapping, path),
                maybe(tool, "strict", fields.boolean, path),
                maybe(tool, "cache_control", read_cache, path),
                path,
            )
        )
        for name in tool.keys() - _TOOL_READ - TOOL_HARMLESS:
            if tool[name] is not None:
                extras[f"{path}.{name}"] = tool[name]
    return tuple(known), tuple(opaque)


_TOOL_READ = frozenset({"name", "description", "input_schema", "strict", "cache_control"})


def _tool_choice(choice: Mapping[str, Any]) -> ToolChoice:
    kind = need(choice, "type", fields.one_of("auto", "any", "tool", "none"), "tool_choice")
    if kind == "tool":
        return ToolChoice("tool", need(choice, "name", fields.string, "tool_choice"))
    return ToolChoice("required" if kind == "any" else kind)


def _shape(value: object, path: str) -> Shape:
    block = fields.mapping(value, path)
    return Shape(need(block, "type", fields.one_of("json_schema"), path), need(block, "schema", fields.mapping, path))


def _thinking(body: Mapping[str, Any], config: Mapping[str, Any]) -> Thinking | None:
    effort = maybe(config, "effort", _EFFORT, "output_config") or ""
    block = maybe(body, "thinking", fields.mapping)
    if not block:
        return Thinking(effort) if effort else None
    kind = need(block, "type", fields.one_of("enabled", "adaptive", "disabled", "between_tools"), "thinking")
    if kind == "disabled":
        return Thinking("none")
    if kind == "enabled":
        return Thinking(effort, need(block, "budget_tokens", fields.integer, "thinking"))
    return Thinking(effort)


_EFFORT = fields.one_of("low", "medium", "high", "xhigh", "max")
