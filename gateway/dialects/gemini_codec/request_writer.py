"""Conversation -> a generateContent request, without the model, which is in its URL.

Left out without a word, because the answer is the same: the user; what `gateway.dialects.gemini_codec.content_writer`
leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.conversation import Conversation, Thinking, Tool
from gateway.dialects import gemini_models, vertex
from gateway.dialects.codec import Refuser
from gateway.dialects.efforts import budget_of, effort_of, wanted
from gateway.dialects.gemini_codec.content_writer import ContentWriter
from gateway.dialects.gemini_codec.schema import openapi
from gateway.plan import Step
from gateway.types import Capability

STOPS_MAX = 5
TIERS = frozenset({"flex", "priority"})

_SAMPLING: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
    "n": "candidateCount",
}


def write_request(conversation: Conversation, step: Step, *, drop_params: bool) -> dict[str, Any]:
    """See Codec.write_request."""
    return _Request(conversation, step, Refuser("a Gemini model", drop=drop_params)).body()


class _Request:
    def __init__(self, conversation: Conversation, step: Step, refuser: Refuser) -> None:
        self.conversation = conversation
        self.step = step
        self.model = step.deployment.upstream_model
        self.refuser = refuser
        self.cannot = refuser.cannot

    def body(self) -> dict[str, Any]:
        c = self.conversation
        for name in c.extras:
            self.cannot(name)
        system, contents = ContentWriter(c, self.step, self.refuser).written()
        body: dict[str, Any] = {"contents": contents}
        if system:
            body["systemInstruction"] = {"parts": system}
        body |= self.tools()
        body["generationConfig"] = self.config()
        if self.step.service_tier in TIERS and not vertex.is_vertex(self.step.deployment.provider):
            body["serviceTier"] = self.step.service_tier
        return body

    def config(self) -> dict[str, Any]:
        c = self.conversation
        config: dict[str, Any] = {"maxOutputTokens": self.step.output_cap}
        config |= {name: value for ours, name in _SAMPLING.items() if (value := getattr(c.sampling, ours)) is not None}
        if c.sampling.logit_bias is not None:
            self.cannot(c.param("logit_bias"))
        if len(c.stop) > STOPS_MAX:
            self.cannot(c.param("stop"), f"it takes at most {STOPS_MAX}")
        if c.stop:
            config["stopSequences"] = list(c.stop[:STOPS_MAX])
        if thinking := self.thinking():
            config["thinkingConfig"] = thinking
        return config | self.shape()

    def shape(self) -> dict[str, Any]:
        c = self.conversation
        if c.shape is None:
            return {}
        if c.tools and not gemini_models.takes_tools_with_json(self.model):
            self.cannot(c.param("shape"), f"{self.model} takes no tools beside it")
            return {}
        config: dict[str, Any] = {"responseMimeType": "application/json"}
        if c.shape.kind == "json_schema" and c.shape.schema:
            as_is = gemini_models.takes_json_schema(self.model)
            config |= {"responseJsonSchema": c.shape.schema} if as_is else {"responseSchema": openapi(c.shape.schema)}
        return config

    def thinking(self) -> dict[str, Any]:
        """The effort in this model's words, and the thoughts in the answer; nothing where nothing was asked."""
        asked = wanted(self.conversation.thinking, self.step)
        if asked is None:
            return {}
        able = Capability.REASONING in self.step.deployment.capabilities and gemini_models.thinks(self.model)
        if not able:
            if asked.effort != "none" and self.step.effort is None:
                self.cannot(self.conversation.param("thinking"), f"{self.model} does not reason")
            return {}
        told = {} if asked.effort == "none" else {"includeThoughts": True}
        return told | (self.budget(asked) if gemini_models.thinks_by_budget(self.model) else self.level(asked))

    def budget(self, asked: Thinking) -> dict[str, Any]:
        """Tokens, within what the model takes and the answer's cap, which thoughts count towards."""
        least, most, optional = gemini_models.budget_range(self.model)
        if asked.effort == "none" or (asked.budget is not None and asked.budget <= 0):
            return {"thinkingBudget": 0 if optional else least}
        if not asked.effort and asked.budget is None:
            return {"thinkingBudget": -1}
        return {"thinkingBudget": max(least, min(budget_of(asked), most, self.step.output_cap - 1))}

    def level(self, asked: Thinking) -> dict[str, Any]:
        word = gemini_models.level(self.model, effort_of(asked))
        return {"thinkingLevel": word} if word else {}

    def tools(self) -> dict[str, Any]:
        c = self.conversation
        for opaque in c.opaque_tools:
            self.cannot(opaque.path, f"it is a {opaque.type} tool")
        if not c.tools:
            return {}
        if c.parallel is False:
            self.cannot(c.param("parallel"), "it may always call several tools at once")
        allowed = c.tool_choice.allowed if c.tool_choice else ()
        declared = [self.tool(tool) for tool in c.tools if not allowed or tool.name in allowed]
        body: dict[str, Any] = {"tools": [{"functionDeclarations": declared}]}
        if c.tool_choice is not None:
            modes = {"auto": "AUTO", "none": "NONE", "required": "ANY", "tool": "ANY"}
            calling: dict[str, Any] = {"mode": modes[c.tool_choice.mode]}
            if c.tool_choice.mode == "tool":
                calling["allowedFunctionNames"] = [c.tool_choice.name]
            body["toolConfig"] = {"functionCallingConfig": calling}
        return body

    def tool(self, tool: Tool) -> dict[str, Any]:
        """A declaration; a tool without parameters has none, for an object without properties is refused."""
        declared: dict[str, Any] = {"name": tool.name}
        if tool.description:
            declared["description"] = tool.description
        if not tool.parameters.get("properties"):
            return declared
        if gemini_models.takes_json_schema(self.model):
            return declared | {"parametersJsonSchema": tool.parameters}
        return declared | {"parameters": openapi(tool.parameters)}
