"""Conversation -> an Anthropic Messages request.

Left out without a word: an image's `detail`; thoughts without Anthropic's signature, which Anthropic refuses.
Said in another way: system text within the conversation follows the user's turn, or joins the system prompt on models
that take none there; a system prompt alone is the user's turn; a refusal of the assistant is text; characters that
Anthropic refuses in tool ids become "_".
How it thinks and samples: `gateway.dialects.claude_asked`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway.conversation import (
    Conversation,
    Document,
    Image,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)
from gateway.dialects import claude, claude_asked
from gateway.dialects.blocks import cache_control, parsed_arguments, thinking_block
from gateway.dialects.codec import Refuser
from gateway.errors import InvalidRequest
from gateway.plan import Step
from gateway.types import Format

IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})

_REFUSED_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")


def write_request(conversation: Conversation, step: Step, *, drop_params: bool) -> dict[str, Any]:
    """See Codec.write_request."""
    return _Request(conversation, step, Refuser("an Anthropic model", drop=drop_params)).body()


class _Request:
    def __init__(self, conversation: Conversation, step: Step, refuser: Refuser) -> None:
        self.conversation = conversation
        self.step = step
        self.model = step.deployment.upstream_model
        self.cannot = refuser.cannot

    def body(self) -> dict[str, Any]:
        c = self.conversation
        for name in c.extras:
            self.cannot(name)
        system, messages = self.messages()
        if not messages:
            raise InvalidRequest("'messages' holds nothing to answer.", param="messages")
        body: dict[str, Any] = {"model": self.model, "max_tokens": self.step.output_cap, "messages": messages}
        if system:
            body["system"] = system
        config, thinking = claude_asked.thinking(c, self.step, self.cannot)
        if c.shape is not None:
            config |= self.shape()
        if config:
            body["output_config"] = config
        body |= thinking | claude_asked.sampling(c, self.model, self.cannot) | self.tools()
        if stop := self.stop():
            body["stop_sequences"] = stop
        if c.user:
            body["metadata"] = {"user_id": c.user}
        if c.stream:
            body["stream"] = True
        return body | cache_control(c.cache)

    def shape(self) -> dict[str, Any]:
        shape = self.conversation.shape
        if shape is None or shape.kind != "json_schema":
            self.cannot(self.conversation.param("shape"), "it needs a JSON schema")
            return {}
        return {"format": {"type": "json_schema", "schema": shape.schema}}

    def stop(self) -> list[str]:
        words = self.conversation.stop
        if all(word.strip() for word in words):
            return list(words)
        self.cannot(self.conversation.param("stop"), "a stop sequence must hold more than white space")
        return [word for word in words if word.strip()]

    def tools(self) -> dict[str, Any]:
        c = self.conversation
        for opaque in c.opaque_tools:
            self.cannot(opaque.path, f"it is a {opaque.type} tool")
        allowed = c.tool_choice.allowed if c.tool_choice else ()
        tools = [_tool(tool) for tool in c.tools if not allowed or tool.name in allowed]
        if not tools:
            return {}
        choice = _tool_choice(c)
        return {"tools": tools, "tool_choice": choice} if choice else {"tools": tools}

    def messages(self) -> tuple[str | list[dict[str, Any]], list[dict[str, Any]]]:
        """The system prompt and the messages."""
        system: list[Part] = list(self.conversation.system)
        out: list[dict[str, Any]] = []
        late: list[Part] = []
        for turn in self.conversation.turns:
            if turn.role is Role.SYSTEM:
                late += turn.parts
                continue
            if turn.role is Role.ASSISTANT:
                self.place(late, out, system)
            _append(out, turn.role, list(self.blocks(turn.parts)))
        self.place(late, out, system)
        written = list(self.blocks(system))
        if not out:  # nothing but a system prompt
            _append(out, Role.USER, written)
            return [], out
        return _plain(written), out

    def place(self, late: list[Part], out: list[dict[str, Any]], system: list[Part]) -> None:
        """Puts system text after the user's turn where the model takes it there, else into the system prompt."""
        if late and out and out[-1]["role"] == Role.USER and claude.takes_late_system(self.model):
            out.append({"role": "system", "content": list(self.blocks(late))})
        else:
            system += late
        late.clear()

    def blocks(self, parts: Iterable[Part]) -> Iterator[dict[str, Any]]:
        for part in parts:
            if (block := self.block(part)) is not None:
                yield block

    def block(self, part: Part) -> dict[str, Any] | None:
        match part:
            case Text():
                return text_block(part) | cache_control(part.cache)
            case ToolCall():
                return self.tool_use(part)
            case ToolResult():
                return self.tool_result(part)
            case Image():
                return self.image(part)
            case Document():
                return self.document(part)
            case Reasoning():
                return thinking_block(part) if claude_asked.is_thought(part) else None
            case Refusal(text):
                return {"type": "text", "text": text} if text else None
            case Opaque(format=Format.MESSAGES):
                return dict(part.value)
            case _:
                kind = part.type if isinstance(part, Opaque) else "input_audio"
                self.cannot(part.path, f"a part of type {kind}")
                return None

    def tool_use(self, call: ToolCall) -> dict[str, Any]:
        arguments = parsed_arguments(call.arguments)
        if arguments is None:
            raise InvalidRequest(f"'{call.path}' must be a JSON object.", param=call.path)
        block = {"type": "tool_use", "id": _REFUSED_IN_ID.sub("_", call.id), "name": call.name, "input": arguments}
        return block | cache_control(call.cache)

    def tool_result(self, result: ToolResult) -> dict[str, Any]:
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": _REFUSED_IN_ID.sub("_", result.id)}
        if content := _plain(list(self.blocks(result.parts))):
            block["content"] = content
        if result.is_error:
            block["is_error"] = True
        return block | cache_control(result.cache)

    def image(self, image: Image) -> dict[str, Any] | None:
        if image.file_id or (image.data and image.media_type not in IMAGE_TYPES):
            self.cannot(image.path, "the file is another provider's" if image.file_id else f"it is {image.media_type}")
            return None
        if image.url:
            return {"type": "image", "source": {"type": "url", "url": image.url}} | cache_control(image.cache)
        source = {"type": "base64", "media_type": image.media_type, "data": image.data}
        return {"type": "image", "source": source} | cache_control(image.cache)

    def document(self, document: Document) -> dict[str, Any] | None:
        if document.file_id or (document.data and document.media_type != "application/pdf"):
            self.cannot(document.path, "only text and PDF, with their data, are taken")
            return None
        block: dict[str, Any] = {"type": "document", "source": _source(document)}
        if document.title:
            block["title"] = document.title
        if document.context:
            block["context"] = document.context
        if document.cite:
            block["citations"] = {"enabled": True}
        return block | cache_control(document.cache)


def text_block(text: Text) -> dict[str, Any]:
    """A text with those of its citations that Anthropic knows."""
    block: dict[str, Any] = {"type": "text", "text": text.text}
    if citations := [citation.source for citation in text.citations if "cited_text" in citation.source]:
        block["citations"] = citations
    return block


def _append(out: list[dict[str, Any]], role: Role, blocks: list[dict[str, Any]]) -> None:
    if not blocks:
        return
    if out and out[-1]["role"] == role:
        out[-1]["content"] += blocks
    else:
        out.append({"role": str(role), "content": blocks})


def _plain(blocks: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """One plain text as the string it is."""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return str(blocks[0]["text"])
    return blocks


def _source(document: Document) -> dict[str, str]:
    if document.url:
        return {"type": "url", "url": document.url}
    if document.data:
        return {"type": "base64", "media_type": document.media_type, "data": document.data}
    return {"type": "text", "media_type": "text/plain", "data": document.text}


def _tool(tool: Tool) -> dict[str, Any]:
    schema: Mapping[str, Any] = tool.parameters
    if "type" not in schema:
        schema = {"type": "object", **schema}
    written: dict[str, Any] = {"name": tool.name, "input_schema": schema}
    if tool.description:
        written["description"] = tool.description
    if tool.strict is not None:
        written["strict"] = tool.strict
    return written | cache_control(tool.cache)


def _tool_choice(c: Conversation) -> dict[str, Any]:
    """Empty where nothing was said."""
    if c.tool_choice is None and c.parallel is None:
        return {}
    mode = c.tool_choice.mode if c.tool_choice else "auto"
    choice: dict[str, Any] = {"type": "any" if mode == "required" else mode}
    if c.tool_choice and mode == "tool":
        choice["name"] = c.tool_choice.name
    if c.parallel is not None and mode != "none":
        choice["disable_parallel_tool_use"] = not c.parallel
    return choice
