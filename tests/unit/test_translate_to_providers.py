"""Requests to the formats that only providers speak: what is said how, and what is refused by which name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.dialects.bedrock_converse import BedrockConverse
from gateway.dialects.bedrock_invoke import BedrockInvoke
from gateway.dialects.cohere_chat import CohereChat
from gateway.dialects.ollama_chat import OllamaChat
from gateway.errors import InvalidRequest, UnsupportedField
from gateway.plan import Step
from gateway.types import Capability, Deployment, Estimate, Format, Key, Provider, Request, Tenant

CLAUDE, NEW_CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "global.anthropic.claude-opus-4-8-v1:0"
NOVA, LLAMA, GPT = "us.amazon.nova-2-lite-v1:0", "us.meta.llama3-3-70b-instruct-v1:0", "openai.gpt-oss-120b-1:0"
BEDROCK, INVOKE, COHERE, OLLAMA = BedrockConverse(), BedrockInvoke(), CohereChat(), OllamaChat()
AMAZON = "https://bedrock-runtime.{region}.amazonaws.com"

HI = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
CALL = {"id": "call|1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
LOOP = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL, {**CALL, "id": "call2"}]},
    {"role": "tool", "tool_call_id": "call|1", "content": "one"},
    {"role": "tool", "tool_call_id": "call2", "content": "two", "is_error": True},
]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
SHAPE = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
URL_IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
TEXT_FILE = {"type": "file", "file": {"filename": "a_b.txt", "file_data": "data:text/plain;base64,aGk="}}
PDF = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}}


def place(base_url: str, model: str, cap: int, effort: str | None, lacks: set[str], options: dict[str, Any]) -> Step:
    provider = Provider("p", "any", base_url, "secret-key", options=options)
    able = frozenset(Capability) - lacks
    return Step(Deployment("d", provider, model, capabilities=able), Estimate(7, 9), cap, 50, 0.0, effort=effort)


def call(
    dialect: Any,
    model: str,
    body: dict[str, Any],
    client: Format = Format.CHAT,
    *,
    cap: int = 9000,
    effort: str | None = None,
    lacks: set[str] | None = None,
    drop: bool = False,
    base_url: str = AMAZON,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> Any:
    body = {"model": "m", "messages": HI, **body}
    key = Key("k", "acme", "test", b"")
    stream = bool(body.get("stream"))
    request = Request("r1", client, orjson.dumps(body), body, "m", stream, 1.0, key, headers=headers or {})
    step = place(base_url, model, cap, effort, lacks or set(), {"region": "eu-west-1", **options})
    return dialect.encode(request, step, Tenant("acme", drop_params=drop))


def sent(dialect: Any, model: str, body: dict[str, Any], *args: Any, **more: Any) -> Any:
    return orjson.loads(call(dialect, model, body, *args, **more).body)


class TestConverse:
    def test_the_model_stands_in_the_address(self) -> None:
        made = call(BEDROCK, CLAUDE, {})
        assert made.url == (
            "https://bedrock-runtime.eu-west-1.amazonaws.com"
            "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"
        )
        assert made.headers["authorization"] == "Bearer secret-key"
        assert call(BEDROCK, CLAUDE, {"stream": True}).url.endswith("/converse-stream")
        arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/1arbu5hu2sjr"
        assert "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inf" in call(BEDROCK, arn, {}).url

    def test_a_call_that_will_be_signed_carries_no_key(self) -> None:
        assert "authorization" not in call(BEDROCK, CLAUDE, {}, credentials="aws").headers

    def test_the_whole_of_a_simple_request(self) -> None:
        body = {
            "messages": [{"role": "system", "content": "be brief"}, *HI],
            "temperature": 0.5,
            "top_p": 0.9,
            "stop": ["END"],
            "max_tokens": 50,
            "user": "u1",
        }
        assert sent(BEDROCK, LLAMA, body) == {
            "messages": [{"role": "user", "content": [{"text": "hi"}]}],
            "system": [{"text": "be brief"}],
            "inferenceConfig": {"maxTokens": 9000, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]},
        }

    def test_tools_and_their_results(self) -> None:
        found = sent(BEDROCK, CLAUDE, {"messages": LOOP, "tools": [TOOL], "tool_choice": "required"})
        assert found["messages"][1:] == [
            {
                "role": "assistant",
                "content": [
                    {"toolUse": {"toolUseId": "call_1", "name": "f", "input": {"a": 1}}},
                    {"toolUse": {"toolUseId": "call2", "name": "f", "input": {"a": 1}}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"toolResult": {"toolUseId": "call_1", "content": [{"text": "one"}]}},
                    {"toolResult": {"toolUseId": "call2", "content": [{"text": "two"}], "status": "error"}},
                ],
            },
        ]
        spec = {"name": "f", "description": "d", "inputSchema": {"json": {"type": "object"}}}
        assert found["toolConfig"] == {"tools": [{"toolSpec": spec}], "toolChoice": {"any": {}}}

    def test_a_failure_is_a_word_where_the_model_knows_no_status(self) -> None:
        result = sent(BEDROCK, LLAMA, {"messages": LOOP, "tools": [TOOL]})["messages"][2]["content"][1]["toolResult"]
        assert result == {"toolUseId": "call2", "content": [{"text": "Error:"}, {"text": "two"}]}

    def test_tools_of_earlier_calls_are_told_by_their_names(self) -> None:
        spec = {"name": "f", "inputSchema": {"json": {"type": "object"}}}
        assert sent(BEDROCK, NOVA, {"messages": LOOP})["toolConfig"] == {"tools": [{"toolSpec": spec}]}

    def test_a_long_id_is_the_same_short_one_in_call_and_result(self) -> None:
        messages = orjson.loads(orjson.dumps(LOOP).replace(b"call2", b"x" * 100))
        _, said, told = sent(BEDROCK, CLAUDE, {"messages": messages, "tools": [TOOL]})["messages"]
        id_ = said["content"][1]["toolUse"]["toolUseId"]
        assert len(id_) == 64
        assert told["content"][1]["toolResult"]["toolUseId"] == id_

    @pytest.mark.parametrize(
        ("choice", "parallel", "config", "more"),
        [
            ("auto", None, None, None),
            ("required", True, {"any": {}}, None),
            ({"type": "function", "function": {"name": "f"}}, None, {"tool": {"name": "f"}}, None),
            ("auto", False, None, {"type": "auto", "disable_parallel_tool_use": True}),
            ("required", False, None, {"type": "any", "disable_parallel_tool_use": True}),
            ("none", None, None, {"type": "none"}),
        ],
    )
    def test_tool_choice_of_claude(self, choice: Any, parallel: bool | None, config: Any, more: Any) -> None:
        body = {"tools": [TOOL], "tool_choice": choice, "parallel_tool_calls": parallel}
        found = sent(BEDROCK, CLAUDE, body)
        assert found["toolConfig"].get("toolChoice") == config
        assert found.get("additionalModelRequestFields", {}).get("tool_choice") == more

    def test_tools_that_others_may_not_call_are_not_shown(self) -> None:
        assert "toolConfig" not in sent(BEDROCK, NOVA, {"tools": [TOOL], "tool_choice": "none"})
        with pytest.raises(UnsupportedField, match="'tool_choice'"):
            sent(BEDROCK, NOVA, {"messages": LOOP, "tools": [TOOL], "tool_choice": "none"})

    def test_media(self) -> None:
        content = [{"type": "text", "text": "see"}, IMAGE, TEXT_FILE, PDF, TEXT_FILE]
        found = sent(BEDROCK, CLAUDE, {"messages": [{"role": "user", "content": content}]})
        assert found["messages"][0]["content"] == [
            {"text": "see"},
            {"image": {"format": "png", "source": {"bytes": "AAAA"}}},
            {"document": {"format": "txt", "name": "a b txt", "source": {"bytes": "aGk="}}},
            {"document": {"format": "pdf", "name": "a pdf", "source": {"bytes": "JVBERg=="}}},
            {"document": {"format": "txt", "name": "a b txt 2", "source": {"bytes": "aGk="}}},
        ]
        stored = {"type": "image_url", "image_url": {"url": "s3://bucket/a.jpg"}}
        found = sent(BEDROCK, NOVA, {"messages": [{"role": "user", "content": [stored]}]})
        source = {"s3Location": {"uri": "s3://bucket/a.jpg"}}
        assert found["messages"][0]["content"] == [{"image": {"format": "jpeg", "source": source}}]

    @pytest.mark.parametrize(
        ("model", "cached"),
        [(CLAUDE, True), (NOVA, True), (LLAMA, False), ("anthropic.claude-3-haiku-20240307-v1:0", False)],
    )
    def test_cache_points_go_where_they_are_taken(self, model: str, cached: bool) -> None:
        mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
        body = {
            "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi", **mark}]}],
            "tools": [{"name": "f", "input_schema": {"type": "object"}, **mark}],
        }
        found = sent(BEDROCK, model, body, Format.MESSAGES)
        hour = [{"cachePoint": {"type": "default", "ttl": "1h"}}] if cached else []
        assert found["system"][1:] == ([{"cachePoint": {"type": "default"}}] if cached else [])
        assert found["messages"][0]["content"][1:] == hour
        assert found["toolConfig"]["tools"][1:] == hour

    def test_signed_thoughts_go_back_to_claude_and_to_no_one_else(self) -> None:
        thought = {"type": "thinking", "thinking": "hm", "signature": "sig"}
        hidden = {"type": "redacted_thinking", "data": "AAAA"}
        said = {"role": "assistant", "content": [thought, hidden, {"type": "text", "text": "ok"}]}
        body = {"messages": [*HI, said, *HI]}
        assert sent(BEDROCK, CLAUDE, body, Format.MESSAGES)["messages"][1]["content"] == [
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig"}}},
            {"reasoningContent": {"redactedContent": "AAAA"}},
            {"text": "ok"},
        ]
        assert sent(BEDROCK, NOVA, body, Format.MESSAGES)["messages"][1]["content"] == [{"text": "ok"}]

    @pytest.mark.parametrize(
        ("model", "effort", "more", "config"),
        [
            (CLAUDE, "low", {"thinking": {"type": "enabled", "budget_tokens": 2048}}, None),
            (NEW_CLAUDE, "low", {"thinking": {"type": "adaptive"}}, {"effort": "low"}),
            (CLAUDE, "none", None, None),
            (NOVA, "low", {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}, None),
            (NOVA, "high", {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}}, None),
            (GPT, "none", {"reasoning_effort": "low"}, None),
            (GPT, "xhigh", {"reasoning_effort": "high"}, None),
            (LLAMA, "none", None, None),
        ],
    )
    def test_each_family_is_told_in_its_own_words_how_hard_to_think(
        self, model: str, effort: str, more: Any, config: Any
    ) -> None:
        found = sent(BEDROCK, model, {"reasoning_effort": effort})
        assert found.get("additionalModelRequestFields") == more
        assert found.get("outputConfig") == config
        assert sent(BEDROCK, model, {}, effort=effort).get("additionalModelRequestFields") == more

    def test_a_schema_is_text(self) -> None:
        found = sent(BEDROCK, CLAUDE, {"response_format": SHAPE})["outputConfig"]["textFormat"]
        assert found["type"] == "json_schema"
        assert orjson.loads(found["structure"]["jsonSchema"].pop("schema")) == SCHEMA
        assert found["structure"]["jsonSchema"] == {"name": "n"}

    def test_top_k_is_said_as_each_family_takes_it(self) -> None:
        more = "additionalModelRequestFields"
        assert sent(BEDROCK, CLAUDE, {"top_k": 5})[more] == {"top_k": 5}
        assert sent(BEDROCK, NOVA, {"top_k": 5})[more] == {"inferenceConfig": {"topK": 5}}
        assert sent(BEDROCK, LLAMA, {"top_k": 5}, accepts=["top_k"])[more] == {"top_k": 5}

    def test_a_guardrail_of_the_operators_goes_with_every_request(self) -> None:
        guardrail = {"guardrailIdentifier": "g", "guardrailVersion": "1"}
        assert sent(BEDROCK, CLAUDE, {}, guardrail=guardrail)["guardrailConfig"] == guardrail

    @pytest.mark.parametrize(
        ("model", "body", "param"),
        [
            (LLAMA, {"top_k": 5}, "top_k"),
            (LLAMA, {"seed": 1}, "seed"),
            (CLAUDE, {"n": 2}, "n"),
            (CLAUDE, {"logprobs": True}, "logprobs"),
            (CLAUDE, {"temperature": 1.5}, "temperature"),
            (NEW_CLAUDE, {"temperature": 0.5}, "temperature"),
            (LLAMA, {"reasoning_effort": "low"}, "reasoning_effort"),
            (NOVA, {"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
            (CLAUDE, {"response_format": {"type": "json_object"}}, "response_format"),
            (CLAUDE, {"messages": [{"role": "user", "content": [URL_IMAGE]}]}, "messages[0].content[0].image_url"),
            (CLAUDE, {"logit_bias": {"1": 2}}, "logit_bias"),
            (CLAUDE, {"tools": [{"type": "web_search"}]}, "tools[0]"),
            (CLAUDE, {"something": 1}, "something"),
        ],
    )
    def test_what_cannot_be_said_is_refused_by_name_or_dropped(self, model: str, body: Any, param: str) -> None:
        with pytest.raises(UnsupportedField) as caught:
            sent(BEDROCK, model, body)
        assert caught.value.param == param
        body = body if "messages" not in body else {"messages": [*HI, *body["messages"]]}
        assert sent(BEDROCK, model, body, drop=True)["messages"][0]["content"][0] == {"text": "hi"}

    def test_nothing_to_answer_is_invalid(self) -> None:
        with pytest.raises(InvalidRequest):
            sent(BEDROCK, CLAUDE, {"messages": []})


class TestInvoke:
    def test_claude_gets_its_clients_own_fields(self) -> None:
        body = {"max_tokens": 100, "metadata": {"user_id": "u"}, "service_tier": "auto", "stream": True}
        made = call(INVOKE, CLAUDE, body, Format.MESSAGES, headers={"anthropic-beta": "a-1, b-2"})
        assert made.url.endswith("/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke-with-response-stream")
        assert made.headers["authorization"] == "Bearer secret-key"
        assert made.headers.keys() == {"authorization", "content-type", "accept"}
        assert orjson.loads(made.body) == {
            "max_tokens": 9000,
            "messages": HI,
            "metadata": {"user_id": "u"},
            "anthropic_version": "bedrock-2023-05-31",
            "anthropic_beta": ["a-1", "b-2"],
        }

    def test_claude_is_asked_by_chat_clients_in_its_own_format(self) -> None:
        found = sent(INVOKE, CLAUDE, {"tools": [TOOL]})
        assert found["anthropic_version"] == "bedrock-2023-05-31"
        assert found["tools"][0]["input_schema"] == {"type": "object"}
        assert not found.keys() & {"model", "stream"}

    def test_openais_models_are_asked_in_theirs(self) -> None:
        found = sent(INVOKE, GPT, {"stream": True})
        assert (found["model"], found["stream_options"]) == (GPT, {"include_usage": True})
        assert "anthropic_version" not in found

    def test_others_are_left_to_converse(self) -> None:
        with pytest.raises(UnsupportedField, match="'bedrock'"):
            sent(INVOKE, NOVA, {})


class TestCohere:
    def test_the_whole_of_a_request(self) -> None:
        body = {
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": [IMAGE, TEXT_FILE]}],
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 5,
            "seed": 1,
            "presence_penalty": 0.1,
            "stop": ["END"],
            "stream": True,
            "response_format": SHAPE,
            "user": "u",
        }
        made = call(COHERE, "command-a-03-2025", body, base_url="https://api.cohere.com")
        assert made.url == "https://api.cohere.com/v2/chat"
        assert made.headers["authorization"] == "Bearer secret-key"
        assert orjson.loads(made.body) == {
            "model": "command-a-03-2025",
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": [IMAGE]}],
            "documents": [{"id": "document_1", "data": {"title": "a_b.txt", "text": "hi"}}],
            "temperature": 0.5,
            "p": 0.9,
            "k": 5,
            "seed": 1,
            "presence_penalty": 0.1,
            "stop_sequences": ["END"],
            "stream": True,
            "max_tokens": 9000,
            "response_format": {"type": "json_object", "json_schema": SCHEMA},
        }

    def test_tools_plans_and_results(self) -> None:
        said = {**LOOP[1], "reasoning_content": "I will look."}
        found = sent(COHERE, "command-a", {"messages": [LOOP[0], said, *LOOP[2:]], "tools": [TOOL]})
        assert found["messages"][1]["tool_plan"] == "I will look."
        assert [called["id"] for called in found["messages"][1]["tool_calls"]] == ["call|1", "call2"]
        assert found["messages"][2:] == [
            {"role": "tool", "tool_call_id": "call|1", "content": "one"},
            {"role": "tool", "tool_call_id": "call2", "content": "Error: two"},
        ]
        assert found["tools"] == [TOOL]
        assert "tool_choice" not in found

    def test_a_tool_by_name_is_the_only_one_and_required(self) -> None:
        other = {"type": "function", "function": {"name": "g", "parameters": {"type": "object"}}}
        named = {"type": "function", "function": {"name": "f"}}
        found = sent(COHERE, "command-a", {"tools": [TOOL, other], "tool_choice": named})
        assert (found["tools"], found["tool_choice"]) == ([TOOL], "REQUIRED")
        assert sent(COHERE, "command-a", {"tools": [TOOL], "tool_choice": "none"})["tool_choice"] == "NONE"

    @pytest.mark.parametrize(
        ("effort", "thinking"),
        [
            ("none", {"type": "disabled"}),
            ("low", {"type": "enabled", "token_budget": 2048}),
            ("max", {"type": "enabled", "token_budget": 8999}),
        ],
    )
    def test_thinking_has_a_budget_below_the_cap(self, effort: str, thinking: Any) -> None:
        assert sent(COHERE, "command-a-reasoning", {"reasoning_effort": effort})["thinking"] == thinking
        assert "thinking" not in sent(COHERE, "command-r", {}, effort=effort, lacks={Capability.REASONING})

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({"n": 2}, "n"),
            ({"top_logprobs": 3}, "top_logprobs"),
            ({"stop": list("abcdef")}, "stop"),
            ({"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
            ({"messages": [{"role": "user", "content": [PDF]}]}, "messages[0].content[0].file"),
        ],
    )
    def test_what_cannot_be_said_is_refused_by_name_or_dropped(self, body: Any, param: str) -> None:
        with pytest.raises(UnsupportedField) as caught:
            sent(COHERE, "command-a", body)
        assert caught.value.param == param
        assert sent(COHERE, "command-a", body, drop=True)["model"] == "command-a"


class TestOllama:
    def test_the_whole_of_a_request(self) -> None:
        body = {
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "see"}, IMAGE]},
            ],
            "temperature": 0.5,
            "seed": 1,
            "stop": ["END"],
            "logprobs": True,
            "response_format": SHAPE,
            "tools": [TOOL],
        }
        made = call(OLLAMA, "qwen3:4b", body, base_url="http://127.0.0.1:11434", num_ctx=8192, keep_alive="30m")
        assert made.url == "http://127.0.0.1:11434/api/chat"
        assert orjson.loads(made.body) == {
            "model": "qwen3:4b",
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "see", "images": ["AAAA"]},
            ],
            "options": {"num_predict": 9000, "temperature": 0.5, "seed": 1, "stop": ["END"], "num_ctx": 8192},
            "keep_alive": "30m",
            "stream": False,
            "logprobs": True,
            "format": SCHEMA,
            "tools": [TOOL],
        }

    def test_a_result_names_its_tool(self) -> None:
        found = sent(OLLAMA, "qwen3:4b", {"messages": LOOP, "tools": [TOOL]})["messages"]
        assert found[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}
        assert found[2:] == [
            {"role": "tool", "tool_call_id": "call|1", "tool_name": "f", "content": "one"},
            {"role": "tool", "tool_call_id": "call2", "tool_name": "f", "content": "Error: two"},
        ]

    @pytest.mark.parametrize(
        ("model", "effort", "think"),
        [
            ("qwen3:4b", "low", True),
            ("qwen3:4b", "none", False),
            ("gpt-oss:20b", "low", "low"),
            ("gpt-oss", "max", "high"),
        ],
    )
    def test_thinking_is_on_off_or_a_word(self, model: str, effort: str, think: Any) -> None:
        assert sent(OLLAMA, model, {"reasoning_effort": effort})["think"] == think
        assert "think" not in sent(OLLAMA, model, {})

    def test_tools_that_may_not_be_called_are_not_shown(self) -> None:
        assert "tools" not in sent(OLLAMA, "qwen3:4b", {"tools": [TOOL], "tool_choice": "none"})

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({"n": 2}, "n"),
            ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
            ({"messages": [{"role": "user", "content": [URL_IMAGE]}]}, "messages[0].content[0].image_url"),
            ({"messages": [{"role": "user", "content": [TEXT_FILE]}]}, "messages[0].content[0].file"),
        ],
    )
    def test_what_cannot_be_said_is_refused_by_name_or_dropped(self, body: Any, param: str) -> None:
        with pytest.raises(UnsupportedField) as caught:
            sent(OLLAMA, "qwen3:4b", body)
        assert caught.value.param == param
        assert sent(OLLAMA, "qwen3:4b", body, drop=True)["model"] == "qwen3:4b"
