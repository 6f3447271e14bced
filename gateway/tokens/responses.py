"""Reads an OpenAI Responses request into `Facts`.  Pure; see `reading`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gateway.tokens import images
from gateway.tokens.parts import (
    PROVIDER_CALLS,
    Body,
    Facts,
    Json,
    Misfit,
    Object,
    PartReader,
    compact,
    count_file,
    most_calls,
    optional,
    read_content,
    read_text,
    shown_schema,
    thought,
    user_spoke,
)
from gateway.types import Capability

ITEMS_MAX: Final = 100_000


def read_responses(body: Body, facts: Facts) -> None:
    """The input, the instructions, the tools and the shape of the answer."""
    instructions = optional(body, "instructions", str)
    if instructions is not None:
        facts.system = True
        facts.messages += 1
        facts.texts.append(instructions)
    _input(body.get("input"), facts)
    _tools(body, facts)
    text = optional(body, "text", dict) or {}
    form = optional(text, "format", dict, "text.") or {}
    if form.get("type") == "json_schema":
        facts.schema = shown_schema(form.get("schema"), "text.format.schema")
        facts.needs.add(Capability.JSON_SCHEMA)
    elif form.get("type") == "json_object":
        facts.needs.add(Capability.JSON_OBJECT)
    reasoning = optional(body, "reasoning", dict) or {}
    facts.thinking = reasoning.get("effort") not in (None, "none")
    stored = ("previous_response_id", "conversation", "prompt")  # what only the provider has
    facts.opaque = facts.opaque or any(body.get(name) is not None for name in stored)
    if body.get("top_logprobs") or "message.output_text.logprobs" in (optional(body, "include", list) or ()):
        facts.needs.add(Capability.LOGPROBS)


def _input(value: Json, facts: Facts) -> None:
    if type(value) is str:
        facts.messages += 1
        facts.texts.append(value)
        return
    if value is None:
        return
    if type(value) is not list or len(value) > ITEMS_MAX:
        raise Misfit("input", f"a string or a list of at most {ITEMS_MAX} items")
    for i, item in enumerate(value):
        try:
            _item(item, facts)
        except Misfit as misfit:
            raise Misfit(f"input[{i}]{misfit.path}", misfit.expected) from None


def _item(item: Json, facts: Facts) -> None:
    if type(item) is not dict:
        raise Misfit("", "an object")
    kind = item.get("type")
    if kind is not None and type(kind) is not str:
        raise Misfit(".type", "a string")
    _ITEMS.get(kind or "message", _unknown)(item, facts)


def _message(item: Object, facts: Facts) -> None:
    role = item.get("role")
    if type(role) is not str:
        raise Misfit(".role", "a string")
    facts.messages += 1
    facts.system = facts.system or role in ("system", "developer")
    if role == "user":
        user_spoke(facts)
    if item.get("content") is not None:
        read_content(item["content"], facts, PARTS, ".content")


def _call(item: Object, facts: Facts) -> None:
    facts.calls += 1
    facts.messages += 1
    for key in ("name", "arguments", "input"):
        facts.texts.append(optional(item, key, str, ".") or "")


def _output(item: Object, facts: Facts) -> None:
    facts.messages += 1
    if item.get("output") is not None:
        read_content(item["output"], facts, PARTS, ".output")


def _thought(item: Object, facts: Facts) -> None:
    """What may be read of it is summed up, and the rest is sealed."""
    thought({"encrypted_content": item.get("encrypted_content")}, facts)
    for part in optional(item, "content", list, ".") or optional(item, "summary", list, ".") or ():
        if type(part) is dict:
            thought(part, facts)


def _reference(_item: Object, facts: Facts) -> None:
    facts.opaque = True


def _unknown(item: Object, facts: Facts) -> None:
    facts.messages += 1
    facts.texts.append(compact(item))


_ITEMS: Final[Mapping[str, Callable[[Object, Facts], None]]] = {
    "message": _message,
    "function_call": _call,
    "custom_tool_call": _call,
    "function_call_output": _output,
    "custom_tool_call_output": _output,
    "reasoning": _thought,
    "item_reference": _reference,
    "web_search_call": _reference,
    "file_search_call": _reference,
}


def _image(part: Object, facts: Facts) -> None:
    url = optional(part, "image_url", str, ".")
    if url is None:
        facts.images.append(images.Image())
        return
    facts.images.append(images.from_url(url, optional(part, "detail", str, ".") or "auto"))


def _file(part: Object, facts: Facts) -> None:
    count_file(optional(part, "file_data", str, "."), facts)


def _audio(part: Object, facts: Facts) -> None:
    audio = part.get("input_audio")
    data = audio.get("data") if type(audio) is dict else None
    if type(data) is not str:
        raise Misfit(".input_audio.data", "a string")
    facts.audio.append(len(data))


def _refusal(part: Object, facts: Facts) -> None:
    facts.texts.append(optional(part, "refusal", str, ".") or "")


PARTS: Final[Mapping[str, PartReader]] = {
    "input_text": read_text,
    "output_text": read_text,
    "text": read_text,
    "summary_text": read_text,
    "refusal": _refusal,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}


def _tools(body: Body, facts: Facts) -> None:
    for i, tool in enumerate(optional(body, "tools", list) or ()):
        if type(tool) is not dict:
            raise Misfit(f"tools[{i}]", "an object")
        if tool.get("type") in ("function", "custom"):
            facts.tools.append(tool)
        else:
            facts.provider_tools += 1
            facts.provider_calls += PROVIDER_CALLS
            facts.opaque = True
    if facts.provider_tools and body.get("max_tool_calls") is not None:
        facts.provider_calls = most_calls(body["max_tool_calls"])
    choice = body.get("tool_choice")
    if choice is not None and type(choice) not in (str, dict):
        raise Misfit("tool_choice", "a string or an object")
    facts.idle = choice == "none"
    facts.named = type(choice) is dict
    facts.forced = facts.named or choice == "required"
