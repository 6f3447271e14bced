"""Conversation -> a request of Ollama's own chat.

Left out without a word: cache marks (Ollama caches by itself), an image's `detail`, signatures of thoughts, the user's
id, whether a tool is strict.
Said in another way: tools that may not be called are not shown; a failed tool's result begins with "Error: "; the
result of a tool names the tool, for Ollama's calls need have no ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from gateway.conversation import (
    SAMPLING,
    Conversation,
    Document,
    Image,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from gateway.dialects.blocks import parsed_arguments
from gateway.dialects.codec import Refuser
from gateway.dialects.efforts import effort_of, wanted
from gateway.errors import InvalidRequest
from gateway.plan import Step
from gateway.types import Capability

OPTIONS = frozenset({"temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty"})
WORDS = {"minimal": "low", "low": "low", "medium": "medium"}
"""Of models that think in words; anything harder is high."""


def write_request(conversation: Conversation, step: Step, *, drop_params: bool) -> dict[str, Any]:
    """See ProviderCodec.write_request."""
    return _Request(conversation, step, Refuser("Ollama", drop=drop_params)).body()


class _Request:
    def __init__(self, conversation: Conversation, step: Step, refuser: Refuser) -> None:
        self.conversation = conversation
        self.step = step
        self.model = step.deployment.upstream_model
        self.options = step.deployment.provider.options
        self.cannot = refuser.cannot
        self.called: dict[str, str] = {}  # names of tools by the id of a call

    def body(self) -> dict[str, Any]:
        c = self.conversation
        for name in c.extras:
            self.cannot(name)
        body: dict[str, Any] = {"model": self.model, "messages": list(self.messages()), "stream": c.stream}
        body["options"] = {"num_predict": self.step.output_cap, **self.sampling(body)}
        if c.stop:
            body["options"]["stop"] = list(c.stop)
        if "num_ctx" in self.options:
            body["options"]["num_ctx"] = self.options["num_ctx"]
        if "keep_alive" in self.options:
            body["keep_alive"] = self.options["keep_alive"]
        if c.shape is not None:
            body["format"] = c.shape.schema if c.shape.kind == "json_schema" else "json"
        return body | self.tools() | self.thinking()

    def sampling(self, body: dict[str, Any]) -> dict[str, Any]:
        """The options; log probabilities stand beside them."""
        options: dict[str, Any] = {}
        for name in SAMPLING:
            value = getattr(self.conversation.sampling, name)
            if value is None:
                continue
            if name in OPTIONS:
                options[name] = value
            elif name in ("logprobs", "top_logprobs"):
                body[name] = value
            else:
                self.cannot(self.conversation.param(name))
        return options

    def thinking(self) -> dict[str, Any]:
        asked = wanted(self.conversation.thinking, self.step)
        if asked is None:
            return {}
        able = Capability.REASONING in self.step.deployment.capabilities
        if not able:
            if asked.effort != "none" and self.step.effort is None:
                self.cannot(self.conversation.param("thinking"), f"{self.model} does not think")
            return {}
        if "gpt-oss" in self.model:
            effort = effort_of(asked)
            return {"think": WORDS.get(effort, "low" if effort == "none" else "high")} if effort else {}
        return {"think": asked.effort != "none"}

    def tools(self) -> dict[str, Any]:
        c = self.conversation
        for opaque in c.opaque_tools:
            self.cannot(opaque.path, f"it is a {opaque.type} tool")
        mode = c.tool_choice.mode if c.tool_choice else "auto"
        if mode == "none" or not c.tools:
            return {}
        if mode != "auto":
            self.cannot(c.param("tool_choice"), "no tool can be forced")
        if c.parallel is False:
            self.cannot(c.param("parallel"))
        allowed = c.tool_choice.allowed if c.tool_choice else ()
        return {"tools": [_tool(tool) for tool in c.tools if not allowed or tool.name in allowed]}

    def messages(self) -> Iterator[dict[str, Any]]:
        c = self.conversation
        if c.system:
            yield {"role": "system", "content": _text(c.system)}
        for turn in c.turns:
            if turn.role is Role.ASSISTANT:
                yield self.assistant(turn)
                continue
            said: list[Part] = []
            for part in turn.parts:
                if isinstance(part, ToolResult):
                    yield self.tool_result(part)
                else:
                    said.append(part)
            if said:
                yield {"role": str(turn.role), **self.content(said)}

    def assistant(self, turn: Turn) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", **self.content(turn.parts)}
        if thought := "".join(part.text for part in turn.parts if isinstance(part, Reasoning)):
            message["thinking"] = thought
        if calls := [self.tool_call(part) for part in turn.parts if isinstance(part, ToolCall)]:
            message["tool_calls"] = calls
        return message

    def tool_call(self, call: ToolCall) -> dict[str, Any]:
        arguments = parsed_arguments(call.arguments)
        if arguments is None:
            raise InvalidRequest(f"'{call.path}' must be a JSON object.", param=call.path)
        self.called[call.id] = call.name
        return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}

    def tool_result(self, result: ToolResult) -> dict[str, Any]:
        message = {"role": "tool", "tool_call_id": result.id, **self.content(result.parts)}
        if name := self.called.get(result.id):
            message["tool_name"] = name
        if result.is_error:
            message["content"] = f"Error: {message['content']}"
        return message

    def content(self, parts: Iterable[Part]) -> dict[str, Any]:
        """Text, and the images beside it."""
        parts = tuple(parts)
        images: list[str] = []
        for part in parts:
            if isinstance(part, Image) and part.data:
                images.append(part.data)
            elif isinstance(part, Image):
                self.cannot(part.path, "an image must come with its data")
            elif not isinstance(part, Text | Refusal | Reasoning | ToolCall):
                kind = "document" if isinstance(part, Document) else getattr(part, "type", "input_audio")
                self.cannot(part.path, f"a part of type {kind}")
        return {"content": _text(parts), "images": images} if images else {"content": _text(parts)}


def _text(parts: Iterable[Part]) -> str:
    return "\n\n".join(part.text for part in parts if isinstance(part, Text | Refusal))


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description}
    function["parameters"] = {"type": "object", **tool.parameters} if "type" not in tool.parameters else tool.parameters
    return {"type": "function", "function": function}
