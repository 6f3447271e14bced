"""Requests from one format to the other: what is said how, and what is refused by which name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from anthropic.types import message_create_params
from openai.types.chat import completion_create_params
from pydantic import TypeAdapter

from gateway.conversation import Conversation
from gateway.dialects import claude
from gateway.dialects.translate import CODECS, translated_body
from gateway.errors import InvalidRequest, UnsupportedField
from gateway.plan import Step
from gateway.types import Capability, Deployment, Estimate, Format, Key, Provider, Request, Tenant

IMAGE = "data:image/png;base64,AAAA"
PDF = "data:application/pdf;base64,JVBERg=="


def request(format_: Format, body: dict[str, Any]) -> Request:
    stream = bool(body.get("stream"))
    return Request("r1", format_, b"", body, "m", stream, 1_700_000_000.0, Key("k", "acme", "test", b""))


def step(
    model: str, *, cap: int = 9000, effort: str | None = None, able: frozenset[str] | None = None, **options: Any
) -> Step:
    able = frozenset(Capability) if able is None else able
    deployment = Deployment("d", Provider("p", "any", options=options), model, capabilities=able)
    return Step(deployment, Estimate(7, 9), cap, 50, 0.0, effort=effort)


def to_messages(body: dict[str, Any], model: str = "claude-sonnet-4-5", *, drop: bool = False, **more: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
    tenant = Tenant("acme", drop_params=drop)
    return orjson.loads(translated_body(request(Format.CHAT, body), step(model, **more), tenant, Format.MESSAGES))


def to_chat(body: dict[str, Any], model: str = "gpt-5.2", *, drop: bool = False, **more: Any) -> Any:
    body = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}], **body}
    tenant = Tenant("acme", drop_params=drop)
    return orjson.loads(translated_body(request(Format.MESSAGES, body), step(model, **more), tenant, Format.CHAT))


def chat_turn(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def function(name: str = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def call(id_: str, arguments: str = '{"a":1}') -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": "f", "arguments": arguments}}


CACHED = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
FULL_CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "In French.", **CACHED}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look"},
                {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}, **CACHED},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
            ],
        },
        {
            "role": "assistant",
            "content": "Calling",
            "reasoning_content": "hm",
            "thinking_blocks": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "redacted_thinking", "data": "xyz"},
            ],
            "tool_calls": [call("c1"), call("c2", "")],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "one", **CACHED},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}]},
        {"role": "user", "content": "And?"},
    ],
    "tools": [function(description="d", parameters={"type": "object", "properties": {}}, strict=True) | CACHED],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object", "additionalProperties": False}, "strict": True},
    },
    "temperature": 0.5,
    "stop": "END",
    "max_tokens": 50,
    "user": "u7",
    "stream": True,
    "stream_options": {"include_usage": True},
    "n": 1,
    "store": False,
    "metadata": {"a": "b"},
    "service_tier": "auto",
}


def test_a_whole_chat_request_is_said_to_anthropic() -> None:
    body = to_messages(FULL_CHAT)
    TypeAdapter(message_create_params.MessageCreateParamsStreaming).validate_python(body)
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert body == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 9000,
        "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "In French.", **mark}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}, **mark},
                    {
                        "type": "document",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                        "title": "a.pdf",
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "sig"},
                    {"type": "redacted_thinking", "data": "xyz"},
                    {"type": "text", "text": "Calling"},
                    {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
                    {"type": "tool_use", "id": "c2", "name": "f", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "one", **mark},
                    {"type": "tool_result", "tool_use_id": "c2", "content": "two"},
                    {"type": "text", "text": "And?"},
                ],
            },
        ],
        "tools": [
            {
                "name": "f",
                "description": "d",
                "input_schema": {"type": "object", "properties": {}},
                "strict": True,
                **mark,
            }
        ],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "output_config": {
            "format": {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}}
        },
        "temperature": 0.5,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u7"},
        "stream": True,
    }


FULL_MESSAGES: dict[str, Any] = {
    "system": "Be brief.",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look", "cache_control": {"type": "ephemeral"}},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                    "title": "a.pdf",
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "text", "text": "Calling"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "t2", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
                {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "two"}]},
                {"type": "text", "text": "And?"},
            ],
        },
    ],
    "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "output_config": {
        "format": {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "required": ["a"],
                "additionalProperties": False,
            },
        }
    },
    "temperature": 0.5,
    "stop_sequences": ["END"],
    "metadata": {"user_id": "u7"},
    "stream": True,
}


def test_a_whole_message_request_is_said_to_openai() -> None:
    body = to_chat(FULL_MESSAGES)
    TypeAdapter(completion_create_params.CompletionCreateParamsStreaming).validate_python(body)
    assert body == {
        "model": "gpt-5.2",
        "max_completion_tokens": 9000,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": IMAGE}},
                    {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
                ],
            },
            {"role": "assistant", "content": "Calling", "tool_calls": [call("t1"), call("t2", "{}")]},
            {"role": "tool", "tool_call_id": "t1", "content": "one"},
            {"role": "tool", "tool_call_id": "t2", "content": "two"},
            {"role": "user", "content": "And?"},
        ],
        "tools": [function(description="d", parameters={"type": "object"})],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "answer",
                "schema": FULL_MESSAGES["output_config"]["format"]["schema"],
                "strict": True,
            },
        },
        "temperature": 0.5,
        "stop": ["END"],
        "user": "u7",
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_provider_that_takes_extensions_gets_cache_marks_and_thoughts() -> None:
    takes = ["cache_control", "reasoning_content", "thinking_blocks"]
    said = to_chat(FULL_MESSAGES, accepts=takes)["messages"]
    assert said[1]["content"][0]["cache_control"] == {"type": "ephemeral"}
    assert said[2]["reasoning_content"] == "hm"
    assert said[2]["thinking_blocks"] == [{"type": "thinking", "thinking": "hm", "signature": "sig"}]


@pytest.mark.parametrize(
    ("marked", "written"),
    [({}, {}), ({"ttl": "5m"}, {"ttl": "30m"}), ({"ttl": "1h"}, {"ttl": "12h"})],
    ids=["default", "5m", "1h"],
)
def test_a_cache_mark_becomes_openais_breakpoint_that_lasts_no_less(marked: Any, written: Any) -> None:
    part = {"type": "text", "text": "t", "cache_control": {"type": "ephemeral", **marked}}
    body = to_chat(chat_turn(part), accepts=["prompt_cache_breakpoint"])
    assert body["messages"][0]["content"][0]["prompt_cache_breakpoint"] == {"mode": "explicit", **written}


def test_a_breakpoint_becomes_anthropics_mark_that_lasts_as_long_as_it_can() -> None:
    part = {"type": "text", "text": "t", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}}
    block = to_messages(chat_turn(part))["messages"][0]["content"][0]
    assert block["cache_control"] == {"type": "ephemeral", "ttl": "1h"}


@pytest.mark.parametrize(
    ("chat", "messages"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        (function("f"), {"type": "tool", "name": "f"}),
    ],
    ids=str,
)
def test_every_tool_choice_has_its_counterpart(chat: Any, messages: Any) -> None:
    assert to_messages({"tools": [function()], "tool_choice": chat})["tool_choice"] == messages
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    assert to_chat({"tools": tools, "tool_choice": messages})["tool_choice"] == chat


def test_allowed_tools_are_the_only_ones_anthropic_is_told_of() -> None:
    allowed = {"mode": "required", "tools": [function("g")]}
    body = to_messages(
        {
            "tools": [function("f"), function("g")],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": allowed},
        }
    )
    assert [tool["name"] for tool in body["tools"]] == ["g"]
    assert body["tool_choice"] == {"type": "any"}


def test_tools_without_a_choice_may_still_be_called_one_at_a_time() -> None:
    body = to_messages({"tools": [function()], "parallel_tool_calls": False})
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


def test_a_tool_without_parameters_has_an_empty_object_for_anthropic() -> None:
    assert to_messages({"tools": [function()]})["tools"] == [{"name": "f", "input_schema": {"type": "object"}}]


def test_turns_of_one_role_become_one() -> None:
    said = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert to_messages({"messages": said})["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    ]


def test_a_system_prompt_alone_is_the_users_turn_for_anthropic() -> None:
    body = to_messages({"messages": [{"role": "system", "content": "s"}]})
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "s"}]}]
    assert "system" not in body
    assert to_messages({"messages": [{"role": "system", "content": "s"}], "reasoning_effort": "low"})["thinking"]


LATE_SYSTEM = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "system", "content": "late"},
    {"role": "user", "content": "c"},
]


def test_late_system_text_follows_the_users_turn_where_the_model_takes_it() -> None:
    body = to_messages({"messages": LATE_SYSTEM}, "claude-opus-4-8")
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user", "system"]
    assert "system" not in body


def test_late_system_text_joins_the_system_prompt_elsewhere() -> None:
    body = to_messages({"messages": LATE_SYSTEM}, "claude-sonnet-4-5")
    assert body["system"] == "late"
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]


def test_late_system_text_keeps_its_place_for_openai() -> None:
    body = to_chat({"messages": [*LATE_SYSTEM[:1], {"role": "system", "content": "late"}]})
    assert [message["role"] for message in body["messages"]] == ["user", "system"]


def test_an_image_in_a_tool_result_follows_in_the_users_message_for_openai() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "see"}, image]}
    said = to_chat({"messages": [{"role": "user", "content": [result]}]})["messages"]
    assert said[0] == {"role": "tool", "tool_call_id": "t1", "content": "see"}
    assert said[1]["content"][0] == {"type": "text", "text": "From the result of tool call t1:"}
    assert said[1]["content"][1]["image_url"] == {"url": "https://example.org/a.png"}


@pytest.mark.parametrize(("told", "written"), [("boom", "Error: boom"), ("Error 5", "Error 5"), ("", "Error: ")])
def test_a_failed_tool_says_so_in_words_to_openai(told: str, written: str) -> None:
    result = {"type": "tool_result", "tool_use_id": "t1", "content": told, "is_error": True}
    assert to_chat({"messages": [{"role": "user", "content": [result]}]})["messages"][0]["content"] == written


def test_a_failed_tool_of_a_chat_client_is_one_for_anthropic() -> None:
    told = {"role": "tool", "tool_call_id": "c", "content": "boom", "is_error": True}
    assert to_messages({"messages": [told]})["messages"][0]["content"][0]["is_error"] is True


def test_a_tool_id_anthropic_would_refuse_is_the_same_one_in_call_and_result() -> None:
    said = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [call("functions.f:0")]},
        {"role": "tool", "tool_call_id": "functions.f:0", "content": "r"},
    ]
    body = to_messages({"messages": said})
    assert body["messages"][1]["content"][0]["id"] == "functions_f_0"
    assert body["messages"][2]["content"][0]["tool_use_id"] == "functions_f_0"


def test_a_refusal_of_the_assistant_is_text_for_anthropic() -> None:
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "refusal": "No."}]
    assert to_messages({"messages": said})["messages"][1]["content"] == [{"type": "text", "text": "No."}]


def test_thoughts_nobody_signed_are_not_sent_to_anthropic() -> None:
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "reasoning_content": "hm"}]
    assert to_messages({"messages": said})["messages"][1]["content"] == [{"type": "text", "text": "b"}]


def test_a_plain_text_file_is_a_text_document_and_back() -> None:
    part = {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,aGk="}}
    body = to_messages(chat_turn(part))
    block = body["messages"][0]["content"][0]
    assert block["source"] == {"type": "text", "media_type": "text/plain", "data": "hi"}
    assert to_chat({"messages": body["messages"]})["messages"][0]["content"] == [part]


def test_a_mark_on_the_whole_request_stays_there() -> None:
    assert to_messages({"cache_control": {"type": "ephemeral"}})["cache_control"] == {"type": "ephemeral"}
    assert "cache_control" not in to_chat({"cache_control": {"type": "ephemeral"}})


def test_who_asks_is_told_by_either_name_and_not_at_all_where_nobody_said() -> None:
    assert to_messages({"user": "u7"})["metadata"] == {"user_id": "u7"}
    assert to_messages({"user": "old", "safety_identifier": "u8"})["metadata"] == {"user_id": "u8"}
    assert "metadata" not in to_messages({})
    assert "user" not in to_chat({})


def test_a_turn_of_thoughts_alone_is_an_empty_answer_for_openai() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": [thought]}]
    assert to_chat({"messages": said})["messages"][1] == {"role": "assistant", "content": ""}


def test_a_schema_keeps_its_name_and_description_for_openai() -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "string"}, "description": "d"}}
    there = Conversation((), shape=CODECS[Format.CHAT].read_request({"messages": [], "response_format": shape}).shape)
    body = CODECS[Format.CHAT].write_request(there, step("gpt-5.2"), drop_params=False)
    assert body["response_format"]["json_schema"] == {**shape["json_schema"], "strict": True}  # type: ignore[dict-item]  # an object, as written above


# Reasoning


@pytest.mark.parametrize(
    ("model", "effort", "written"),
    [
        ("claude-3-7-sonnet-latest", "low", {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        ("claude-sonnet-4-5", "max", {"thinking": {"type": "enabled", "budget_tokens": 8999}}),
        ("claude-sonnet-4-6", "low", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
        ("claude-sonnet-4-6", "xhigh", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
        ("claude-opus-4-8", "xhigh", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}),
        ("claude-opus-4-8", "minimal", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
        ("claude-opus-4-8", "none", {}),
        ("claude-opus-5", "none", {"thinking": {"type": "disabled"}}),
    ],
)
def test_an_effort_is_told_as_the_model_understands_it(model: str, effort: str, written: Any) -> None:
    body = to_messages({"reasoning_effort": effort}, model)
    assert {name: body[name] for name in ("thinking", "output_config") if name in body} == written


def test_the_effort_of_the_step_outranks_the_clients() -> None:
    body = to_messages({"reasoning_effort": "high"}, "claude-opus-4-8", effort="low")
    assert body["output_config"] == {"effort": "low"}
    assert "thinking" not in to_messages({"reasoning_effort": "high"}, "claude-opus-4-8", effort="none")


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, "minimal"),
        ({"type": "enabled", "budget_tokens": 10_000}, "medium"),
        ({"type": "enabled", "budget_tokens": 16_384}, "high"),
        ({"type": "adaptive"}, None),
    ],
    ids=str,
)
def test_a_budget_is_the_effort_it_stands_for(thinking: Any, effort: str | None) -> None:
    assert to_chat({"thinking": thinking}, "gpt-5").get("reasoning_effort") == effort


def test_not_to_think_is_an_effort_too() -> None:
    assert to_chat({"thinking": {"type": "disabled"}})["reasoning_effort"] == "none"


def test_anthropics_effort_is_openais() -> None:
    body = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}
    assert to_chat(body)["reasoning_effort"] == "high"


@pytest.mark.parametrize(
    "excluding",
    [
        {"temperature": 0.2},
        {"top_k": 5},
        {"tools": [function()], "tool_choice": "required"},
    ],
    ids=str,
)
def test_thinking_is_refused_by_name_where_anthropic_excludes_it(excluding: Any) -> None:
    with pytest.raises(UnsupportedField) as refused:
        to_messages({"reasoning_effort": "low", **excluding})
    assert refused.value.param == "reasoning_effort"
    assert "thinking" not in to_messages({"reasoning_effort": "low", **excluding}, drop=True)
    assert "thinking" not in to_messages(excluding, effort="low")  # a policy's wish breaks no request


def test_thinking_needs_room_below_the_output_cap() -> None:
    with pytest.raises(UnsupportedField, match="1024"):
        to_messages({"reasoning_effort": "low"}, cap=1024)


def test_a_tool_loop_whose_thoughts_were_not_sent_back_goes_on_without_thinking() -> None:
    loop: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [call("c")]},
        {"role": "tool", "tool_call_id": "c", "content": "r"},
    ]
    body = to_messages({"messages": loop, "reasoning_effort": "low"})
    assert body.keys() == {"model", "max_tokens", "messages"}
    loop[1]["thinking_blocks"] = [{"type": "thinking", "thinking": "hm", "signature": "sig"}]
    assert "thinking" in to_messages({"messages": loop, "reasoning_effort": "low"})


def test_a_model_that_does_not_reason_refuses_an_effort_by_its_name() -> None:
    plain = frozenset(Capability) - {Capability.REASONING}
    with pytest.raises(UnsupportedField) as refused:
        to_chat({"thinking": {"type": "enabled", "budget_tokens": 2000}}, able=plain)
    assert refused.value.param == "thinking"
    assert "reasoning_effort" not in to_chat({"thinking": {"type": "disabled"}}, able=plain)


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("claude-3-5-sonnet-20241022", (3, 5)),
        ("claude-sonnet-4-20250514", (4, 0)),
        ("claude-opus-4-1-20250805", (4, 1)),
        ("us.anthropic.claude-opus-4-8-v1:0", (4, 8)),
        ("anthropic/claude-opus-4.6", (4, 6)),
        ("claude-sonnet-4-5@20250929", (4, 5)),
        ("claude-fable-5", (5, 0)),
    ],
)
def test_a_claude_is_known_by_its_name_on_every_cloud(model: str, known: tuple[int, int]) -> None:
    assert claude.generation(model) == known


# What cannot be said

TEXT = {"type": "text", "text": "t"}

PARAMS_ANTHROPIC_LACKS: list[tuple[dict[str, Any], str]] = [
    ({"n": 2}, "n"),
    ({"seed": 1}, "seed"),
    ({"logprobs": True}, "logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logit_bias": {"1": 5}}, "logit_bias"),
    ({"presence_penalty": 0.5}, "presence_penalty"),
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ({"temperature": 1.5}, "temperature"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    ({"verbosity": "low"}, "verbosity"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"something_new": 1}, "something_new"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"stop": [" "]}, "stop"),
    ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0]"),
    (
        chat_turn(
            {"type": "text", "text": "t"}, {"type": "input_audio", "input_audio": {"data": "A", "format": "wav"}}
        ),
        "messages[0].content[1].input_audio",
    ),
    (chat_turn(TEXT, {"type": "video_url"}), "messages[0].content[1]"),
    (
        chat_turn(TEXT, {"type": "file", "file": {"file_id": "file-1"}}),
        "messages[0].content[1].file",
    ),
    (
        chat_turn(
            {"type": "text", "text": "t"}, {"type": "image_url", "image_url": {"url": "data:image/bmp;base64,A"}}
        ),
        "messages[0].content[1].image_url",
    ),
    ({"messages": [{"role": "user", "name": "bob", "content": "t"}]}, "messages[0].name"),
]


@pytest.mark.parametrize(("body", "param"), PARAMS_ANTHROPIC_LACKS, ids=[param for _, param in PARAMS_ANTHROPIC_LACKS])
def test_what_anthropic_cannot_be_told_is_refused_by_name_or_dropped(body: Any, param: str) -> None:
    with pytest.raises(UnsupportedField) as refused:
        to_messages(body)
    assert refused.value.param == param
    assert param in refused.value.message
    assert to_messages(body, drop=True)["messages"]


@pytest.mark.parametrize(
    "body",
    [
        {"n": 1, "logprobs": False, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "top_p": 1},
        {"store": True, "metadata": {}, "service_tier": "flex", "prompt_cache_key": "k", "prediction": {}},
        {"seed": None, "audio": None, "tools": None, "something_new": None, "stop": None},
        {"modalities": ["text"], "response_format": {"type": "text"}},
    ],
    ids=["neutral", "harmless", "null", "default"],
)
def test_what_changes_nothing_is_left_out_without_a_word(body: Any) -> None:
    assert to_messages(body).keys() == {"model", "max_tokens", "messages"}


PARAMS_OPENAI_LACKS: list[tuple[dict[str, Any], str]] = [
    ({"top_k": 5}, "top_k"),
    ({"container": "c"}, "container"),
    ({"context_management": {}}, "context_management"),
    ({"inference_geo": "eu"}, "inference_geo"),
    ({"something_new": 1}, "something_new"),
    ({"stop_sequences": list("abcde")}, "stop_sequences"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
    ({"tools": [{"name": "f", "input_schema": {}, "defer_loading": True}]}, "tools[0].defer_loading"),
    (
        chat_turn({"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}}),
        "messages[0].content[0]",
    ),
    (
        chat_turn({"type": "document", "source": {"type": "text", "data": "d"}, "citations": {"enabled": True}}),
        "messages[0].content[0].citations",
    ),
    (chat_turn({"type": "search_result", "source": "s", "title": "t", "content": []}), "messages[0].content[0]"),
    (chat_turn({"type": "image", "source": {"type": "file", "file_id": "f"}}), "messages[0].content[0].source"),
]


@pytest.mark.parametrize(("body", "param"), PARAMS_OPENAI_LACKS, ids=[param for _, param in PARAMS_OPENAI_LACKS])
def test_what_openai_cannot_be_told_is_refused_by_name_or_dropped(body: Any, param: str) -> None:
    with pytest.raises(UnsupportedField) as refused:
        to_chat(body)
    assert refused.value.param == param
    assert to_chat(body, drop=True)["model"]


def test_sampling_is_refused_by_claudes_that_take_none_unless_it_is_the_default() -> None:
    assert "temperature" not in to_messages({"temperature": 1}, "claude-opus-4-7")
    with pytest.raises(UnsupportedField) as refused:
        to_messages({"temperature": 0}, "claude-opus-4-7")
    assert refused.value.param == "temperature"


def test_what_a_provider_rejects_is_refused_by_the_clients_name_for_it() -> None:
    with pytest.raises(UnsupportedField) as refused:
        to_chat({"stop_sequences": ["a"]}, rejects=["stop"])
    assert refused.value.param == "stop_sequences"
    body = to_chat({"metadata": {"user_id": "u"}, "stream": True}, rejects=["user", "stream_options"])
    assert body.keys() == {"model", "messages", "max_completion_tokens", "stream"}


def test_a_provider_may_call_the_cap_otherwise() -> None:
    assert to_chat({}, cap=77, max_tokens_field="max_tokens")["max_tokens"] == 77


# What is wrong


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        (
            chat_turn({"type": "image_url", "image_url": {"url": "data:nonsense"}}),
            "messages[0].content[0].image_url.url",
        ),
        (
            chat_turn({"type": "file", "file": {"file_data": "data:text/plain;base64,!"}}),
            "messages[0].content[0].file.file_data",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [call("c", "{")]}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [call("c", "5")]}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"temperature": "hot"}, "temperature"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"reasoning_effort": "much"}, "reasoning_effort"),
        ({"stream": "yes"}, "stream"),
        ({"messages": []}, "messages"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_malformed_is_named(body: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as wrong:
        to_messages(body)
    assert wrong.value.param == param


def test_a_body_nested_beyond_measure_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"a": deep}
    with pytest.raises(InvalidRequest, match="nested"):
        to_messages({"tools": [function(parameters=deep)]})
    with pytest.raises(InvalidRequest, match="nested"):
        to_chat({"output_config": {"format": {"type": "json_schema", "schema": deep}}})
