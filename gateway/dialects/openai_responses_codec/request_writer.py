"""Conversation -> an OpenAI Responses request.

Nothing is stored at the provider: the whole conversation is in the request.  What a reasoning model thought comes back
encrypted for the next turn where the model is known to give it: OpenAI's own, or those of a provider that says so by
`options: {accepts: [encrypted_reasoning]}`.

Left out without a word, because the answer is the same: cache marks (OpenAI caches by itself), thoughts without proof,
citations in earlier answers.  A failed tool's result begins with "Error: ".
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway.conversation import (
    SAMPLING,
    Audio,
    Conversation,
    Document,
    Image,
    Opaque,
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
from gateway.dialects.codec import Refuser, accepts
from gateway.dialects.efforts import effort_of, wanted
from gateway.dialects.openai_chat_codec.request_writer import is_strict
from gateway.dialects.openai_responses_codec.request_reader import LOGPROBS
from gateway.dialects.signatures import unsealed
from gateway.plan import Step
from gateway.types import Capability, Format

HARMLESS = frozenset({"user", "store", "include"})
"""Fields that do not change the answer: left out without a word where a provider rejects them."""

_NAMES = {"text": "shape", "parallel_tool_calls": "parallel", "reasoning": "thinking"}
_SAID = frozenset({"temperature", "top_p", "logprobs", "top_logprobs"})
"""What of `Sampling` the format can say."""


def write_request(conversation: Conversation, step: Step, *, drop_params: bool) -> dict[str, Any]:
    """See Codec.write_request."""
    return _Request(conversation, step, Refuser("a model behind OpenAI's Responses", drop=drop_params)).body()


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
        if c.stop:
            self.cannot(c.param("stop"))
        body: dict[str, Any] = {"model": self.model, "input": list(self.items()), "store": False}
        if len(c.system) == 1:
            body["instructions"] = c.system[0].text
        body["max_output_tokens"] = self.step.output_cap
        body |= self.tools() | self.sampling() | self.reasoning()
        if c.shape is not None:
            body["text"] = {"format": _shape(c.shape)}
        if include := list(self.include()):
            body["include"] = include
        if c.user:
            body["user"] = c.user
        if c.stream:
            body["stream"] = True
        return self.taken(body)

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
            if opaque.format is not Format.RESPONSES:
                self.cannot(opaque.path, f"it is a {opaque.type} tool")
        tools = [_tool(tool) for tool in c.tools]
        tools += [dict(opaque.value) for opaque in c.opaque_tools if opaque.format is Format.RESPONSES]
        if not tools:
            return {}
        body: dict[str, Any] = {"tools": tools}
        if c.tool_choice is not None:
            body["tool_choice"] = _tool_choice(c.tool_choice)
        if c.parallel is not None:
            body["parallel_tool_calls"] = c.parallel
        return body

    def sampling(self) -> dict[str, Any]:
        given = {name: value for name in SAMPLING if (value := getattr(self.conversation.sampling, name)) is not None}
        for name in given.keys() - _SAID:
            self.cannot(self.conversation.param(name))
        return {name: given[name] for name in ("temperature", "top_p", "top_logprobs") if name in given}

    def include(self) -> Iterator[str]:
        if self.conversation.sampling.logprobs:
            yield LOGPROBS
        if gpt.reasons(self.model) or accepts(self.step, "encrypted_reasoning"):
            yield "reasoning.encrypted_content"

    def reasoning(self) -> dict[str, Any]:
        """The effort in this model's words; `options: {reasoning_summary: auto}` asks for what it thought in short."""
        thinking = wanted(self.conversation.thinking, self.step)
        effort = effort_of(thinking) if thinking else ""
        if not effort:
            return {}
        able = Capability.REASONING in self.step.deployment.capabilities
        if word := gpt.effort_word(self.model, effort) if able else "":
            summary = self.options.get("reasoning_summary")
            return {"reasoning": {"effort": word, **({"summary": summary} if summary else {})}}
        if effort != "none" and self.step.effort is None:
            self.cannot(self.conversation.param("thinking"), f"{self.model} does not reason")
        return {}

    def items(self) -> Iterator[dict[str, Any]]:
        c = self.conversation
        if len(c.system) > 1:
            yield _message("developer", self.content(c.system, "input_text"))
        for turn in c.turns:
            if turn.role is Role.SYSTEM:
                yield _message("developer", self.content(turn.parts, "input_text"))
            elif turn.role is Role.USER:
                yield from self.user(turn)
            else:
                yield from self.assistant(turn)

    def user(self, turn: Turn) -> Iterator[dict[str, Any]]:
        said: list[Part] = []
        for part in turn.parts:
            match part:
                case ToolResult():
                    yield {"type": "function_call_output", "call_id": part.id, "output": self.output(part)}
                case Opaque(format=Format.RESPONSES, type=kind) if kind.endswith("_output"):
                    yield dict(part.value)
                case _:
                    said.append(part)
        if content := self.content(said, "input_text"):
            yield _message("user", content)

    def output(self, result: ToolResult) -> str | list[dict[str, Any]]:
        parts: tuple[Part, ...] = result.parts
        first = parts[0] if parts else None
        if result.is_error and isinstance(first, Text) and not first.text.lower().startswith("error"):
            parts = (Text(f"Error: {first.text}"), *parts[1:])
        elif result.is_error and not isinstance(first, Text):
            parts = (Text("Error"), *parts)
        if all(isinstance(part, Text) for part in parts) and len(parts) <= 1:
            return "".join(part.text for part in parts if isinstance(part, Text))
        return self.content(parts, "input_text")

    def assistant(self, turn: Turn) -> Iterator[dict[str, Any]]:
        said: list[Part] = []
        for part in turn.parts:
            match part:
                case Reasoning():
                    yield from _thought(part)
                case ToolCall():
                    yield from self.message(said)
                    said = []
                    call = {"call_id": part.id, "name": part.name, "arguments": part.arguments}
                    yield {"type": "function_call", **call}
                case Opaque(format=Format.RESPONSES):
                    yield from self.message(said)
                    said = []
                    yield dict(part.value)
                case _:
                    said.append(part)
        yield from self.message(said)

    def message(self, said: Iterable[Part]) -> Iterator[dict[str, Any]]:
        if content := self.content(said, "output_text"):
            yield _message("assistant", content)

    def content(self, parts: Iterable[Part], text: str) -> list[dict[str, Any]]:
        return [block for part in parts if (block := self.part(part, text)) is not None]

    def part(self, part: Part, text: str) -> dict[str, Any] | None:
        match part:
            case Text():
                return {"type": text, "text": part.text}
            case Refusal():
                return {"type": "refusal", "refusal": part.text}
            case Image():
                return _image(part)
            case Audio():
                return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
            case Document():
                return self.document(part)
            case Opaque(format=Format.RESPONSES):
                return dict(part.value)
            case _:
                self.cannot(getattr(part, "path", "messages"), f"a part of type {getattr(part, 'type', '')}")
                return None

    def document(self, document: Document) -> dict[str, Any]:
        if document.cite:
            self.cannot(f"{document.path}.citations")
        if document.context:
            self.cannot(f"{document.path}.context")
        block: dict[str, Any] = {"type": "input_file"}
        if document.file_id:
            return block | {"file_id": document.file_id}
        if document.url:
            return block | {"file_url": document.url}
        data = document.data or b64encode(document.text.encode()).decode()
        block |= {"file_data": f"data:{document.media_type};base64,{data}"}
        return block | {"filename": document.title or "file"}


def _message(role: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


def _thought(thought: Reasoning) -> Iterator[dict[str, Any]]:
    """Without proof it means nothing to its provider, and with Gemini's nothing to this one."""
    sealed = thought.encrypted or thought.signature
    if sealed and not unsealed(sealed):
        yield reasoning_item(thought.text, sealed)


def reasoning_item(text: str, sealed: str | None) -> dict[str, Any]:
    """A thought as an item; `sealed` is what its provider wants to see again."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {"type": "reasoning", "summary": summary, "encrypted_content": sealed}


def _image(image: Image) -> dict[str, Any]:
    block = {"type": "input_image", "detail": image.detail or "auto"}
    if image.file_id:
        return block | {"file_id": image.file_id}
    return block | {"image_url": image.url or f"data:{image.media_type};base64,{image.data}"}


def _tool(tool: Tool) -> dict[str, Any]:
    """`strict` must be said: Responses would otherwise make a schema strict that is not."""
    written: dict[str, Any] = {"type": "function", "name": tool.name}
    if tool.description:
        written["description"] = tool.description
    written["parameters"] = tool.parameters or None
    written["strict"] = bool(tool.strict)
    return written


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.mode == "tool":
        return {"type": "function", "name": choice.name}
    if choice.allowed:
        tools = [{"type": "function", "name": name} for name in choice.allowed]
        return {"type": "allowed_tools", "mode": choice.mode, "tools": tools}
    return choice.mode


def _shape(shape: Shape) -> Mapping[str, Any]:
    if shape.kind == "json_object":
        return {"type": "json_object"}
    block: dict[str, Any] = {"type": "json_schema", "name": shape.name or "answer", "schema": shape.schema}
    if shape.description:
        block["description"] = shape.description
    return block | {"strict": is_strict(shape.schema) if shape.strict is None else shape.strict}
