"""Conversation -> a Bedrock Converse request.

Left out without a word: cache marks where the model takes none; an image's `detail`; thoughts without a signature,
which Amazon refuses; citations in earlier answers; the user's id.
Said in another way: later system text joins the system prompt; a prompt alone is the user's turn; characters that
Amazon refuses in ids and names of documents; tools that were called before but are not offered now are told by their
names, because Amazon wants to know every tool of a conversation; on Claude, calls one at a time and a forbidden tool go
in Anthropic's own `tool_choice`; the failure of a tool is a word before its result where only some models know it.
What a model takes beside the common fields: `additionalModelRequestFields`, by the family that its id names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.conversation import SAMPLING, Conversation, Tool, ToolCall
from gateway.dialects import claude, claude_asked
from gateway.dialects.bedrock_converse_codec.block_writer import Blocks
from gateway.dialects.codec import Refuser, accepts
from gateway.dialects.efforts import effort_of, wanted
from gateway.errors import InvalidRequest
from gateway.plan import Step
from gateway.types import Capability

CACHES_FROM = (3, 5)
"""The generation of Claude from which Bedrock takes cache points."""
NOVA_EFFORTS = {"minimal": "low", "low": "low"}
"""Any other is medium: at `high` Nova takes no output cap, and without one the cost has no bound."""
GPT_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium"}


def write_request(conversation: Conversation, step: Step, *, drop_params: bool) -> dict[str, Any]:
    """See ProviderCodec.write_request.  The model stands in the address."""
    return _Request(conversation, step, Refuser("Bedrock's Converse", drop=drop_params)).body()


class _Request:
    def __init__(self, conversation: Conversation, step: Step, refuser: Refuser) -> None:
        self.conversation = conversation
        self.step = step
        self.model = step.deployment.upstream_model
        self.options = step.deployment.provider.options
        self.cannot = refuser.cannot
        self.claude = "claude" in self.model
        self.nova = "nova" in self.model
        caches = self.nova or (self.claude and claude.generation(self.model) >= CACHES_FROM)
        self.blocks = Blocks(
            refuser.cannot,
            caches=caches or accepts(step, "cache_control"),
            judges=self.claude or self.nova,
            remembers=self.claude,
        )
        self.more: dict[str, Any] = {}  # in the model's own words

    def body(self) -> dict[str, Any]:
        c = self.conversation
        for name in c.extras:
            self.cannot(name)
        system, messages = self.blocks.messages(c)
        if not messages:
            raise InvalidRequest("'messages' holds nothing to answer.", param="messages")
        body: dict[str, Any] = {"messages": messages}
        if system:
            body["system"] = system
        body["inferenceConfig"] = {"maxTokens": self.step.output_cap, **self.sampling()}
        if c.stop:
            body["inferenceConfig"]["stopSequences"] = list(c.stop)
        if tools := self.tools():
            body["toolConfig"] = tools
        if config := self.shape() | self.thinking():
            body["outputConfig"] = config
        if self.more:
            body["additionalModelRequestFields"] = self.more
        if guardrail := self.options.get("guardrail"):
            body["guardrailConfig"] = dict(guardrail)
        return body

    def sampling(self) -> dict[str, Any]:
        c = self.conversation
        if self.claude:
            given = claude_asked.sampling(c, self.model, self.cannot)
        else:
            given = {name: value for name in SAMPLING if (value := getattr(c.sampling, name)) is not None}
            for name in given.keys() - {"temperature", "top_p", "top_k"}:
                self.cannot(c.param(name))
        if (top_k := given.get("top_k")) is not None:
            self.top_k(top_k)
        names = {"temperature": "temperature", "top_p": "topP"}
        return {theirs: given[ours] for ours, theirs in names.items() if ours in given}

    def top_k(self, top_k: int) -> None:
        if self.nova:
            self.more["inferenceConfig"] = {"topK": top_k}
        elif self.claude or accepts(self.step, "top_k"):
            self.more["top_k"] = top_k
        else:
            self.cannot(self.conversation.param("top_k"))

    def thinking(self) -> dict[str, Any]:
        """What it adds to `outputConfig`; in `more` what the model's family takes."""
        if self.claude:
            config, fields = claude_asked.thinking(self.conversation, self.step, self.cannot)
            self.more |= fields
            return config
        asked = wanted(self.conversation.thinking, self.step)
        effort = effort_of(asked) if asked else ""
        able = Capability.REASONING in self.step.deployment.capabilities
        if effort and effort != "none" and able and self.nova:
            level = NOVA_EFFORTS.get(effort, "medium")
            self.more["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": level}
        elif effort and able and "gpt-oss" in self.model:
            self.more["reasoning_effort"] = GPT_EFFORTS.get(effort, "low" if effort == "none" else "high")
        elif effort and effort != "none" and self.step.effort is None:
            self.cannot(self.conversation.param("thinking"), f"{self.model} is not told how hard to think")
        return {}

    def shape(self) -> dict[str, Any]:
        shape = self.conversation.shape
        if shape is None:
            return {}
        if shape.kind != "json_schema":
            self.cannot(self.conversation.param("shape"), "it needs a JSON schema")
            return {}
        schema: dict[str, str] = {"schema": orjson.dumps(shape.schema).decode()}
        if shape.name:
            schema["name"] = shape.name
        if shape.description:
            schema["description"] = shape.description
        return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}

    def tools(self) -> dict[str, Any]:
        c = self.conversation
        for opaque in c.opaque_tools:
            self.cannot(opaque.path, f"it is a {opaque.type} tool")
        called = [part.name for turn in c.turns for part in turn.parts if isinstance(part, ToolCall)]
        mode = c.tool_choice.mode if c.tool_choice else "auto"
        allowed = c.tool_choice.allowed if c.tool_choice else ()
        offered = [tool for tool in c.tools if not allowed or tool.name in allowed]
        if mode == "none" and not self.claude:
            if called:
                self.cannot(c.param("tool_choice"), "tools were called before, and cannot be forbidden now")
            else:
                return {}
        known = {tool.name for tool in offered}
        offered += [Tool(name) for name in dict.fromkeys(called) if name not in known]
        if not offered:
            return {}
        specs = [block for tool in offered for block in (_spec(tool), *self.blocks.cache_point(tool.cache))]
        choice = self.tool_choice(mode) if c.tools else {}
        return {"tools": specs, "toolChoice": choice} if choice else {"tools": specs}

    def tool_choice(self, mode: str) -> Mapping[str, Any]:
        """Empty where it is Claude's own to say, or goes without saying."""
        c = self.conversation
        name = c.tool_choice.name if c.tool_choice else ""
        if self.claude and (mode == "none" or c.parallel is False):
            choice: dict[str, Any] = {"type": "any" if mode == "required" else mode}
            if mode == "tool":
                choice["name"] = name
            if mode != "none":
                choice["disable_parallel_tool_use"] = True
            self.more["tool_choice"] = choice
            return {}
        if c.parallel is False:
            self.cannot(c.param("parallel"))
        if mode == "tool":
            return {"tool": {"name": name}}
        return {"any": {}} if mode == "required" else {}


def _spec(tool: Tool) -> dict[str, Any]:
    schema: Mapping[str, Any] = tool.parameters
    if "type" not in schema:
        schema = {"type": "object", **schema}
    spec: dict[str, Any] = {"name": tool.name, "inputSchema": {"json": schema}}
    if tool.description:
        spec["description"] = tool.description
    if tool.strict:
        spec["strict"] = True
    return {"toolSpec": spec}
