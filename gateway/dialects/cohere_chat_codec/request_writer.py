"""Conversation -> a Cohere Chat v2 request.

Left out without a word: cache marks (Cohere caches by itself), the user's id, thoughts of answers that called no tool,
citations in earlier answers, how a document shall be cited.
Said in another way: what was thought before a tool call is its `tool_plan`; text files are `documents` of the request;
a tool that must be called by its name is the only one, and required; a failed tool's result begins with "Error: ".
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
from gateway.dialects.codec import Refuser
from gateway.dialects.efforts import budget_of, wanted
from gateway.plan import Step
from gateway.types import Capability

STOPS_MAX = 5
NAMES = {
    "temperature": "temperature",
    "top_p": "p",
    "top_k": "k",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "logprobs": "logprobs",
}


def write_request(conversation: Conversation, step: Step, *, drop_params: bool) -> dict[str, Any]:
    """See ProviderCodec.write_request."""
    return _Request(conversation, step, Refuser("Cohere", drop=drop_params)).body()


class _Request:
    def __init__(self, conversation: Conversation, step: Step, refuser: Refuser) -> None:
        self.conversation = conversation
        self.step = step
        self.model = step.deployment.upstream_model
        self.cannot = refuser.cannot
        self.documents: list[dict[str, Any]] = []

    def body(self) -> dict[str, Any]:
        c = self.conversation
        for name in c.extras:
            self.cannot(name)
        body: dict[str, Any] = {"model": self.model, "messages": list(self.messages()), "stream": c.stream}
        body["max_tokens"] = self.step.output_cap
        if self.documents:
            body["documents"] = self.documents
        if len(c.stop) > STOPS_MAX:
            self.cannot(c.param("stop"), f"it takes at most {STOPS_MAX}")
        if c.stop:
            body["stop_sequences"] = list(c.stop[:STOPS_MAX])
        if c.shape is not None:
            schema = {"json_schema": c.shape.schema} if c.shape.kind == "json_schema" else {}
            body["response_format"] = {"type": "json_object", **schema}
        return body | self.sampling() | self.tools() | self.thinking()

    def sampling(self) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for name in SAMPLING:
            value = getattr(self.conversation.sampling, name)
            if value is not None and name in NAMES:
                given[NAMES[name]] = value
            elif value is not None:
                self.cannot(self.conversation.param(name))
        return given

    def thinking(self) -> dict[str, Any]:
        asked = wanted(self.conversation.thinking, self.step)
        if asked is None:
            return {}
        able = Capability.REASONING in self.step.deployment.capabilities
        if asked.effort == "none":
            return {"thinking": {"type": "disabled"}} if able else {}
        if not able:
            if self.step.effort is None:
                self.cannot(self.conversation.param("thinking"), f"{self.model} does not think")
            return {}
        block: dict[str, Any] = {"type": "enabled"}
        if (asked.effort or asked.budget is not None) and self.step.output_cap > 1:
            block["token_budget"] = min(budget_of(asked), self.step.output_cap - 1)
        return {"thinking": block}

    def tools(self) -> dict[str, Any]:
        c = self.conversation
        for opaque in c.opaque_tools:
            self.cannot(opaque.path, f"it is a {opaque.type} tool")
        choice = c.tool_choice
        wanted_names = (choice.name,) if choice and choice.mode == "tool" else choice.allowed if choice else ()
        tools = [tool for tool in c.tools if not wanted_names or tool.name in wanted_names]
        if not tools:
            return {}
        if c.parallel is False:
            self.cannot(c.param("parallel"))
        body: dict[str, Any] = {"tools": [_tool(tool) for tool in tools]}
        if any(tool.strict for tool in tools):
            body["strict_tools"] = True
        if choice and choice.mode != "auto":
            body["tool_choice"] = "NONE" if choice.mode == "none" else "REQUIRED"
        return body

    def messages(self) -> Iterator[dict[str, Any]]:
        c = self.conversation
        if c.system:
            yield {"role": "system", "content": _text(c.system)}
        for turn in c.turns:
            if turn.role is Role.ASSISTANT:
                yield self.assistant(turn)
                continue
            results = [part for part in turn.parts if isinstance(part, ToolResult)]
            yield from (self.tool_result(result) for result in results)
            said = [block for part in turn.parts if part not in results and (block := self.part(part)) is not None]
            if said:
                yield {"role": str(turn.role), "content": said}

    def assistant(self, turn: Turn) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant"}
        said = [part for part in turn.parts if not isinstance(part, ToolCall | Reasoning)]
        if content := [block for part in said if (block := self.part(part)) is not None]:
            message["content"] = content
        calls = [part for part in turn.parts if isinstance(part, ToolCall)]
        if calls:
            message["tool_calls"] = [_call(call) for call in calls]
            if plan := "".join(part.text for part in turn.parts if isinstance(part, Reasoning)):
                message["tool_plan"] = plan
        elif not content:
            message["content"] = ""
        return message

    def tool_result(self, result: ToolResult) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": "Error: "}] if result.is_error else []
        for part in result.parts:
            if isinstance(part, Document) and part.text:
                content.append({"type": "document", "document": {"data": _data(part)}})
            elif (block := self.part(part)) is not None:
                content.append(block)
        if all(block["type"] == "text" for block in content):
            text = "".join(block["text"] for block in content)
            return {"role": "tool", "tool_call_id": result.id, "content": text}
        return {"role": "tool", "tool_call_id": result.id, "content": content}

    def part(self, part: Part) -> dict[str, Any] | None:
        match part:
            case Text(text) | Refusal(text):
                return {"type": "text", "text": text} if text else None
            case Image(file_id=""):
                url = part.url or f"data:{part.media_type};base64,{part.data}"
                detail = {"detail": part.detail} if part.detail else {}
                return {"type": "image_url", "image_url": {"url": url, **detail}}
            case Document() if part.text:
                self.documents.append({"id": f"document_{len(self.documents) + 1}", "data": _data(part)})
            case _:
                self.cannot(getattr(part, "path", "messages"), "only text, images and files of text are taken")
        return None


def _text(parts: Iterable[Text]) -> str:
    return "\n\n".join(part.text for part in parts)


def _data(document: Document) -> dict[str, str]:
    named = {"title": document.title} if document.title else {}
    told = {"context": document.context} if document.context else {}
    return {**named, **told, "text": document.text}


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    return {"id": call.id, "type": "function", "function": function}


def _tool(tool: Tool) -> dict[str, Any]:
    parameters = tool.parameters if "type" in tool.parameters else {"type": "object", **tool.parameters}
    function: dict[str, Any] = {"name": tool.name, "parameters": parameters}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}
