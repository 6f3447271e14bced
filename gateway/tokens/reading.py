"""Reads a request of any client format into `Facts`: what is in it, not yet counted.  Pure.

A body is whatever JSON a client sent.  What is read here and has the wrong shape raises InvalidRequest with the path of
the field; what is not read is left to the provider.  A wire format is one function in `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

import orjson

from gateway.errors import InvalidRequest
from gateway.tokens.endpoints import ENDPOINTS
from gateway.tokens.parts import (
    ANTHROPIC_PARTS,
    CHAT_PARTS,
    PROVIDER_CALLS,
    TOO_DEEP,
    Body,
    Facts,
    Json,
    Misfit,
    Object,
    most_calls,
    optional,
    read_content,
    shown_schema,
    thought,
    user_spoke,
)
from gateway.tokens.responses import read_responses
from gateway.tokens.tools import Tool
from gateway.types import Capability, Format

OUTPUT_MAX: Final = 10_000_000
"""Tokens; no model writes more, so a larger `max_tokens` is a mistake."""
CHOICES_MAX: Final = 128
MESSAGES_MAX: Final = 100_000

_NO_THINKING: Final = ("none", "disabled")
_CHOICES: Final = ("function", "custom", "allowed_tools")
"""The objects that chat has for a choice of tools.  Who passes by another one, as xAI does, shows no tools."""
_CHAT_OPTIONS: Final = frozenset(
    {"tools", "functions", "tool_choice", "response_format", "logprobs", "top_logprobs", "modalities"}
    | {"web_search_options", "reasoning_effort", "reasoning", "thinking", "enable_thinking"}
)
"""What is read of a chat beside its messages and how much it asks for: most have nothing of it."""
_CHAT_CAPS: Final = ("max_completion_tokens", "max_tokens")
_CAPS: Final[Mapping[Format, tuple[str, ...]]] = {
    Format.CHAT: _CHAT_CAPS,
    Format.MESSAGES: ("max_tokens",),
    Format.RESPONSES: ("max_output_tokens",),
    Format.COMPLETIONS: ("max_tokens",),
}


def read(format: Format, body: Body) -> Facts:  # noqa: A002  # the noun of gateway.types
    """What `body` holds.  Raises InvalidRequest naming the field, and nothing else, whatever the JSON."""
    if not isinstance(body, dict):
        raise InvalidRequest("The body: expected a JSON object.")
    try:
        return READERS[format](body)
    except Misfit as misfit:
        raise InvalidRequest(f"{misfit.path}: expected {misfit.expected}.", param=misfit.path) from None


def validate(format: Format, body: Body) -> None:  # noqa: A002  # the noun of gateway.types
    """Raises InvalidRequest for what `Counter.content` would refuse, without counting."""
    read(format, body)


def requested_output(format: Format, body: Body) -> int | None:  # noqa: A002  # the noun of gateway.types
    """The most tokens the client wants per answer; None: it did not say.  Raises InvalidRequest."""
    return _capped(body, _CAPS.get(format, ()))


def _capped(body: Body, names: Iterable[str]) -> int | None:
    found = None
    for name in names:
        value = _integer(body, name, OUTPUT_MAX) if name in body else None
        found = value if found is None else found
    return found


def choices(body: Body) -> int:
    """How many answers the client wants (`n`).  Raises InvalidRequest."""
    return (_integer(body, "n", CHOICES_MAX) or 1) if "n" in body else 1


def _integer(body: Body, name: str, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 < value <= most:
        raise InvalidRequest(f"{name}: expected an integer from 1 to {most}.", param=name)
    return value


def read_chat(body: Body) -> Facts:
    """OpenAI Chat Completions."""
    facts = Facts(output_requested=_capped(body, _CHAT_CAPS), choices=choices(body))
    _each(body, facts, _chat_message)
    if not _CHAT_OPTIONS.isdisjoint(body):
        _chat_tools(body, facts)
        _response_format(body, facts)
        _chat_options(body, facts)
    return _finish(facts)


def read_messages(body: Body) -> Facts:
    """Anthropic Messages."""
    facts = Facts(output_requested=requested_output(Format.MESSAGES, body))
    _each(body, facts, _anthropic_message)
    system = body.get("system")
    if system is not None:
        facts.system = True
        read_content(system, facts, ANTHROPIC_PARTS, "system")
    _anthropic_tools(body, facts)
    output = optional(body, "output_config", dict) or {}
    form = optional(body, "output_format", dict) or optional(output, "format", dict, "output_config.")
    if form is not None:
        facts.schema = shown_schema(form.get("schema"), "output_config.format.schema")
        facts.needs.add(Capability.JSON_SCHEMA)
    thinking = optional(body, "thinking", dict)
    facts.thinking = thinking is not None and thinking.get("type") not in _NO_THINKING
    return _finish(facts)


def _with(read_into: Callable[[Body, Facts], None], format: Format, body: Body) -> Facts:  # noqa: A002  # the noun of gateway.types
    facts = Facts(output_requested=requested_output(format, body))
    read_into(body, facts)
    return facts


def _read_responses(body: Body) -> Facts:
    return _finish(_with(read_responses, Format.RESPONSES, body))


READERS: Final[Mapping[Format, Callable[[Body], Facts]]] = {
    Format.CHAT: read_chat,
    Format.MESSAGES: read_messages,
    Format.RESPONSES: _read_responses,
    **{name: partial(_with, read_into, name) for name, read_into in ENDPOINTS.items()},
}


def _finish(facts: Facts) -> Facts:
    if facts.tools:
        try:
            facts.tools_raw = orjson.dumps(facts.tools)
        except TypeError:
            raise Misfit("tools", TOO_DEEP) from None
    needs = facts.needs
    if facts.tools or facts.provider_tools:
        needs.add(Capability.TOOLS)
    if facts.images:
        needs.add(Capability.VISION)
    if facts.audio:
        needs.add(Capability.AUDIO)
    if facts.files:
        needs.add(Capability.FILES)
    if facts.thinking:
        needs.add(Capability.REASONING)
    if facts.choices > 1:
        needs.add(Capability.N)
    return facts


def _each(body: Body, facts: Facts, message_reader: Callable[[Object, str, Facts], None]) -> None:
    messages = body.get("messages")
    if type(messages) is not list or not 0 < len(messages) <= MESSAGES_MAX:
        raise Misfit("messages", f"a list of 1 to {MESSAGES_MAX} messages")
    facts.messages = len(messages)
    for i, message in enumerate(messages):
        if type(message) is not dict:
            raise Misfit(f"messages[{i}]", "an object with role and content")
        role = message.get("role")
        if type(role) is not str:
            raise Misfit(f"messages[{i}].role", "a string")
        try:
            message_reader(message, role, facts)
        except Misfit as misfit:
            raise Misfit(f"messages[{i}]{misfit.path}", misfit.expected) from None


def _chat_message(message: Object, role: str, facts: Facts) -> None:
    content = message.get("content")
    if type(content) is str:
        facts.texts.append(content)
    elif content is not None:
        read_content(content, facts, CHAT_PARTS, ".content")
    if role in ("system", "developer"):
        facts.system = True
    elif role == "user" and facts.thoughts:
        user_spoke(facts)
    if len(message) == 2 and content is not None:
        return
    _chat_thoughts(message, facts)
    if (name := optional(message, "name", str, ".")) is not None:
        facts.texts.append(name)
        facts.names += 1
    calls = optional(message, "tool_calls", list, ".") or ()
    facts.parallel += len(calls) > 1
    for i, call in enumerate(calls):
        _chat_call(call, facts, f".tool_calls[{i}]")
    if (legacy := optional(message, "function_call", dict, ".")) is not None:
        _function_call(legacy, facts, ".function_call")


def _chat_thoughts(message: Object, facts: Facts) -> None:
    """The same thoughts may stand there in the words of several vendors."""
    for name in ("reasoning_content", "reasoning"):
        if type(text := message.get(name)) is str:
            facts.thoughts.append(text)
            return
    for name in ("thinking_blocks", "reasoning_details"):
        if type(blocks := message.get(name)) is list:
            for block in blocks:
                if type(block) is dict:
                    thought(block, facts)
            return


def _chat_call(call: Json, facts: Facts, path: str) -> None:
    if type(call) is not dict:
        raise Misfit(path, "an object")
    key = "custom" if call.get("type") == "custom" else "function"
    function = call.get(key)
    if type(function) is not dict:
        raise Misfit(f"{path}.{key}", "an object with name and arguments")
    _function_call(function, facts, f"{path}.{key}")


def _function_call(function: Object, facts: Facts, path: str) -> None:
    facts.calls += 1
    for key in ("name", "arguments", "input"):
        if (text := optional(function, key, str, f"{path}.")) is not None:
            facts.texts.append(text)


def _anthropic_message(message: Object, role: str, facts: Facts) -> None:
    content = message.get("content")
    if role == "user" and not _is_result(content):
        user_spoke(facts)
    if type(content) is str:
        facts.texts.append(content)
    else:
        read_content(content, facts, ANTHROPIC_PARTS, ".content")


def _is_result(content: Json) -> bool:
    first = content[0] if type(content) is list and content else None
    return type(first) is dict and first.get("type") == "tool_result"


def _chat_tools(body: Body, facts: Facts) -> None:
    for i, tool in enumerate(optional(body, "tools", list) or ()):
        if type(tool) is not dict:
            raise Misfit(f"tools[{i}]", "an object")
        kind = tool.get("type")
        if kind not in ("function", "custom"):
            facts.provider_tools += 1
            facts.provider_calls += PROVIDER_CALLS
            facts.opaque = True
        elif type(function := tool.get(kind)) is dict:
            facts.tools.append(function)
        else:
            raise Misfit(f"tools[{i}].{kind}", "an object with a name")
    facts.tools += _objects(body, "functions")
    choice = body.get("tool_choice")
    if choice is not None and type(choice) not in (str, dict):
        raise Misfit("tool_choice", "a string or an object")
    worded = type(choice) is dict and choice.get("type") in _CHOICES
    facts.idle = choice == "none" or (type(choice) is dict and not worded)
    facts.named = worded
    facts.forced = worded or choice == "required"


def _anthropic_tools(body: Body, facts: Facts) -> None:
    for tool in _objects(body, "tools"):
        if tool.get("type") in (None, "custom"):
            facts.tools.append(tool)
        else:
            facts.provider_tools += 1
            facts.provider_calls += most_calls(tool.get("max_uses"))
            facts.opaque = facts.opaque or str(tool["type"]).startswith(("web_", "code_", "mcp"))
    facts.opaque = facts.opaque or bool(body.get("mcp_servers") or body.get("context_management"))
    choice = optional(body, "tool_choice", dict)
    kind = choice.get("type") if choice is not None else None
    facts.idle = kind == "none"
    facts.named = kind == "tool"
    facts.forced = kind in ("any", "tool")


def canonical(tools: list[Object]) -> list[Tool]:
    """The tools of either client format; a part of the wrong type counts as absent."""
    found = []
    for tool in tools:
        name, description = tool.get("name"), tool.get("description")
        parameters = tool.get("parameters") or tool.get("input_schema") or tool.get("format")
        found.append(
            Tool(
                name if type(name) is str else "",
                description if type(description) is str else "",
                parameters if type(parameters) is dict else {},
            )
        )
    return found


def _response_format(body: Body, facts: Facts) -> None:
    form = optional(body, "response_format", dict)
    if form is None:
        return
    match form.get("type"):
        case "json_schema":
            schema = optional(form, "json_schema", dict, "response_format.")
            facts.schema = shown_schema(schema, "response_format.json_schema")
            facts.needs.add(Capability.JSON_SCHEMA)
        case "json_object":
            facts.needs.add(Capability.JSON_OBJECT)


def _chat_options(body: Body, facts: Facts) -> None:
    if body.get("logprobs") is True or body.get("top_logprobs"):
        facts.needs.add(Capability.LOGPROBS)
    if "audio" in (optional(body, "modalities", list) or ()):
        facts.needs.add(Capability.AUDIO)
    facts.opaque = facts.opaque or body.get("web_search_options") is not None
    effort = optional(body, "reasoning_effort", str)
    reasoning = optional(body, "reasoning", dict)
    thinking = optional(body, "thinking", dict)
    facts.thinking = (
        (effort is not None and effort not in _NO_THINKING)
        or (reasoning is not None and reasoning.get("effort") != "none" and reasoning.get("enabled") is not False)
        or (thinking is not None and thinking.get("type") not in _NO_THINKING)
        or body.get("enable_thinking") is True
    )


def _objects(body: Body, name: str) -> list[Object]:
    items = optional(body, name, list) or []
    for i, item in enumerate(items):
        if type(item) is not dict:
            raise Misfit(f"{name}[{i}]", "an object")
    return items
