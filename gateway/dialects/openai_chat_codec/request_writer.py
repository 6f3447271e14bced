"""Conversation -> an OpenAI Chat Completions request.

Left out without a word, because the answer is the same: cache marks (OpenAI caches by itself), what another provider's
model thought, citations in earlier answers.  A provider of this format that wants them says so in its options:
`accepts: [cache_control, prompt_cache_breakpoint, reasoning_content, thinking_blocks, is_error, top_k]`.

Said in another way: images and files in a tool's result follow in the next user message, for a tool message holds only
text; a failed tool's result begins with "Error: ".
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway.conversation import (
    SAMPLING,
    Audio,
    CacheMark,
    Conversation,
    Document,
    Image,
    Part,
    Reasoning,
    Refusal,
    Role,
    Shape,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from gateway.dialects import gpt
from gateway.dialects.blocks import cache_control, thinking_block
from gateway.dialects.codec import Refuser, accepts
from gateway.dialects.efforts import effort_of, wanted
from gateway.plan import Step
from gateway.types import Capability

STOPS_MAX = 4
HARMLESS = frozenset({"stream_options", "user"})
"""Fields that do not change the answer: left out without a word where a provider rejects them."""

_NAMES = {"response_format": "shape", "parallel_tool_calls": "parallel", "reasoning_effort": "thinking"}


def write_request(conversation: Conversation, step: Step, *, drop_params: bool) -> dict[str, Any]:
    """See Codec.write_request."""
    return _Request(conversation, step, Refuser("an OpenAI chat model", drop=drop_params)).body()


class _Request:
    def __init__(self, conversation: Conversation, step: Step, refuser: Refuser) -> None:
        self.conversation = conversation
        self.step = step
        self.model = step.deployment.upstream_model
        self.options = step.deployment.provider.options
        self.cannot = refuser.cannot

    def body(self) -> dict[str, Any]:
        c = self.conversation
        for name in c.extras:
            self.cannot(name)
        body: dict[str, Any] = {"model": self.model, "messages": list(self.messages())}
        body[self.options.get("max_tokens_field", "max_completion_tokens")] = self.step.output_cap
        body |= self.tools()
        body |= self.sampling()
        body |= self.reasoning()
        if c.shape is not None:
            body["response_format"] = _shape(c.shape)
        if len(c.stop) > STOPS_MAX:
            self.cannot(c.param("stop"), f"it takes at most {STOPS_MAX}")
        if c.stop:
            body["stop"] = list(c.stop[:STOPS_MAX])
        if c.user:
            body["user"] = c.user
        if c.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return self.taken(body | self.mark(c.cache))

    def taken(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body without the fields this provider rejects."""
        for name in body.keys() & set(self.options.get("rejects", ())):
            if name not in HARMLESS:
                self.cannot(self.conversation.param(_NAMES.get(name, name)), "this provider rejects it")
            del body[name]
        return body

    def tools(self) -> dict[str, Any]:
        c = self.conversation
        for opaque in c.opaque_tools:
            self.cannot(opaque.path, f"it is a {opaque.type} tool")
        if not c.tools:
            return {}
        body: dict[str, Any] = {"tools": [_tool(tool) | self.mark(tool.cache) for tool in c.tools]}
        if c.tool_choice is not None:
            body["tool_choice"] = _tool_choice(c.tool_choice)
        if c.parallel is not None:
            body["parallel_tool_calls"] = c.parallel
        return body

    def sampling(self) -> dict[str, Any]:
        sampling = self.conversation.sampling
        given = {name: value for name in SAMPLING if (value := getattr(sampling, name)) is not None}
        if "top_k" in given and not accepts(self.step, "top_k"):
            self.cannot(self.conversation.param("top_k"))
            del given["top_k"]
        return given

    def reasoning(self) -> dict[str, Any]:
        """The effort in this model's words, where the provider takes it: `options: {effort_field: ...}`."""
        thinking = wanted(self.conversation.thinking, self.step)
        effort = effort_of(thinking) if thinking else ""
        if not effort:
            return {}
        field = self.options.get("effort_field", "reasoning_effort")
        able = Capability.REASONING in self.step.deployment.capabilities and field != "none"
        word = gpt.effort_word(self.model, effort) if able else ""
        if word:
            return {field: {"effort": word} if field == "reasoning" else word}
        if effort != "none" and self.step.effort is None:
            self.cannot(self.conversation.param("thinking"), f"{self.model} does not reason")
        return {}

    def mark(self, cache: CacheMark | None) -> dict[str, Any]:
        if cache is None:
            return {}
        if accepts(self.step, "cache_control"):
            return cache_control(cache)
        if accepts(self.step, "prompt_cache_breakpoint"):
            ttl = {"ttl": "30m" if cache.minutes <= 30 else "12h"} if cache.minutes else {}
            return {"prompt_cache_breakpoint": {"mode": "explicit", **ttl}}
        return {}

    def messages(self) -> Iterator[dict[str, Any]]:
        c = self.conversation
        if c.system:
            yield {"role": "system", "content": self.content(c.system)}
        for turn in c.turns:
            if turn.role is Role.SYSTEM:
                yield {"role": "system", "content": self.content(turn.parts)}
            elif turn.role is Role.USER:
                yield from self.user(turn)
            else:
                yield self.assistant(turn)

    def user(self, turn: Turn) -> Iterator[dict[str, Any]]:
        said: list[Part] = []
        for part in turn.parts:
            if not isinstance(part, ToolResult):
                said.append(part)
                continue
            texts = [inner for inner in part.parts if isinstance(inner, Text)]
            others = [inner for inner in part.parts if not isinstance(inner, Text)]
            if others:
                said += [Text(f"From the result of tool call {part.id}:"), *others]
            yield self.tool_result(part, texts)
        if said:
            yield {"role": "user", "content": self.content(said)}

    def tool_result(self, result: ToolResult, texts: list[Text]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "tool", "tool_call_id": result.id}
        if result.is_error and accepts(self.step, "is_error"):
            message["is_error"] = True
        elif result.is_error:
            first, *rest = texts or [Text("")]
            if not first.text.lower().startswith("error"):
                texts = [Text(f"Error: {first.text}", cache=first.cache), *rest]
        return message | {"content": self.content(texts)} | self.mark(result.cache)

    def assistant(self, turn: Turn) -> dict[str, Any]:
        said = [part for part in turn.parts if not isinstance(part, ToolCall | Reasoning | Refusal)]
        message: dict[str, Any] = {"role": "assistant", "content": self.content(said) if said else None}
        if refusal := "".join(part.text for part in turn.parts if isinstance(part, Refusal)):
            message["refusal"] = refusal
        calls = [part for part in turn.parts if isinstance(part, ToolCall)]
        if calls:
            message["tool_calls"] = [tool_call(call) | self.mark(call.cache) for call in calls]
        elif not said and not refusal:
            message["content"] = ""
        thoughts = [part for part in turn.parts if isinstance(part, Reasoning)]
        if thoughts and accepts(self.step, "reasoning_content"):
            message |= reasoning_content(thoughts)
        if thoughts and accepts(self.step, "thinking_blocks"):
            message["thinking_blocks"] = [thinking_block(part) for part in thoughts]
        return message

    def content(self, parts: Iterable[Part]) -> str | list[dict[str, Any]]:
        written = [block for part in parts if (block := self.part(part)) is not None]
        if not written:
            return ""
        if len(written) == 1 and written[0].keys() == {"type", "text"}:
            return str(written[0]["text"])
        return written

    def part(self, part: Part) -> dict[str, Any] | None:
        match part:
            case Text():
                return {"type": "text", "text": part.text} | self.mark(part.cache)
            case Image():
                return self.image(part)
            case Audio():
                block = {"data": part.data, "format": part.format}
                return {"type": "input_audio", "input_audio": block} | self.mark(part.cache)
            case Document():
                return self.document(part)
            case _:
                self.cannot(getattr(part, "path", "messages"), f"a part of type {getattr(part, 'type', '')}")
                return None

    def image(self, image: Image) -> dict[str, Any] | None:
        if image.file_id:
            self.cannot(image.path, "the file is another provider's")
            return None
        block = {"url": image.url or f"data:{image.media_type};base64,{image.data}"}
        if image.detail:
            block["detail"] = image.detail
        return {"type": "image_url", "image_url": block} | self.mark(image.cache)

    def document(self, document: Document) -> dict[str, Any] | None:
        if document.file_id or document.url:
            self.cannot(document.path, "a file must come with its data")
            return None
        if document.cite:
            self.cannot(f"{document.path}.citations")
        if document.context:
            self.cannot(f"{document.path}.context")
        data = document.data or b64encode(document.text.encode()).decode()
        file = {"file_data": f"data:{document.media_type};base64,{data}"}
        if document.title:
            file["filename"] = document.title
        return {"type": "file", "file": file} | self.mark(document.cache)


def tool_call(call: ToolCall) -> dict[str, Any]:
    """A call as it stands in a message."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def reasoning_content(thoughts: Iterable[Reasoning]) -> dict[str, str]:
    """The field that holds what can be read of the thoughts; nothing where nothing can."""
    text = "".join(thought.text for thought in thoughts)
    return {"reasoning_content": text} if text else {}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    if choice.allowed:
        tools = [{"type": "function", "function": {"name": name}} for name in choice.allowed]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": tools}}
    return choice.mode


def _shape(shape: Shape) -> dict[str, Any]:
    if shape.kind == "json_object":
        return {"type": "json_object"}
    block: dict[str, Any] = {"name": shape.name or "answer", "schema": shape.schema}
    if shape.description:
        block["description"] = shape.description
    block["strict"] = is_strict(shape.schema) if shape.strict is None else shape.strict
    return {"type": "json_schema", "json_schema": block}


def is_strict(schema: object) -> bool:
    """Whether OpenAI can guarantee it: every object names all it may hold, and requires all of it."""
    if isinstance(schema, list):
        return all(is_strict(item) for item in schema)
    if not isinstance(schema, Mapping):
        return True
    properties, required = schema.get("properties"), schema.get("required")
    if schema.get("type") == "object" or isinstance(properties, Mapping):
        names = set(properties) if isinstance(properties, Mapping) else set()
        needed = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
        if schema.get("additionalProperties") is not False or names != needed:
            return False
    return all(is_strict(value) for value in schema.values())
