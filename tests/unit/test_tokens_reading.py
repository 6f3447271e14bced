"""What is read from a request, and what is refused with the path of the field."""

from __future__ import annotations

import pytest

from gateway.errors import InvalidRequest
from gateway.tokens import choices, requested_output, validate
from gateway.tokens.parts import PROVIDER_CALLS, Facts
from gateway.tokens.reading import _CHAT_OPTIONS, _chat_options, _chat_tools, _response_format, read
from gateway.types import Capability, Format

HI = [{"role": "user", "content": "hi"}]
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
CLAUDE_TOOL = {"name": "add", "input_schema": {"type": "object"}}


def user(*parts):
    return {"messages": [{"role": "user", "content": list(parts)}]}


def deep(levels: int):
    value: object = 1
    for _ in range(levels):
        value = {"a": value}
    return value


WRONG = [
    (Format.CHAT, [], None),
    (Format.CHAT, {}, "messages"),
    (Format.CHAT, {"messages": []}, "messages"),
    (Format.CHAT, {"messages": {"role": "user"}}, "messages"),
    (Format.CHAT, {"messages": [*HI, "hi"]}, "messages[1]"),
    (Format.CHAT, {"messages": [{"content": "hi"}]}, "messages[0].role"),
    (Format.CHAT, {"messages": [{"role": 7, "content": "hi"}]}, "messages[0].role"),
    (Format.CHAT, {"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
    (Format.CHAT, {"messages": [*HI, *HI, *user(7)["messages"]]}, "messages[2].content[0]"),
    (Format.CHAT, user({"text": "hi"}), "messages[0].content[0].type"),
    (Format.CHAT, user({"type": ["text"]}), "messages[0].content[0].type"),
    (Format.CHAT, user({"type": "text"}), "messages[0].content[0].text"),
    (Format.CHAT, user({"type": "text", "text": "a"}, {"type": "image_url"}), "messages[0].content[1].image_url.url"),
    (Format.CHAT, user({"type": "image_url", "image_url": {"url": 1}}), "messages[0].content[0].image_url.url"),
    (Format.CHAT, user({"type": "input_audio", "input_audio": {}}), "messages[0].content[0].input_audio.data"),
    (Format.CHAT, user({"type": "file"}), "messages[0].content[0].file"),
    (Format.CHAT, {"messages": [{**HI[0], "tool_calls": [1]}]}, "messages[0].tool_calls[0]"),
    (Format.CHAT, {"messages": [{**HI[0], "tool_calls": [{}]}]}, "messages[0].tool_calls[0].function"),
    (Format.CHAT, {"messages": HI, "tools": {"a": 1}}, "tools"),
    (Format.CHAT, {"messages": HI, "tools": [1]}, "tools[0]"),
    (Format.CHAT, {"messages": HI, "tools": [TOOL, {"type": "function"}]}, "tools[1].function"),
    (Format.CHAT, {"messages": HI, "functions": ["f"]}, "functions[0]"),
    (Format.CHAT, {"messages": HI, "tool_choice": 1}, "tool_choice"),
    (Format.CHAT, {"messages": HI, "response_format": "json"}, "response_format"),
    (
        Format.CHAT,
        {"messages": HI, "response_format": {"type": "json_schema", "json_schema": 1}},
        "response_format.json_schema",
    ),
    (Format.CHAT, {"messages": HI, "reasoning_effort": 3}, "reasoning_effort"),
    (Format.CHAT, {"messages": HI, "max_tokens": 0}, "max_tokens"),
    (Format.CHAT, {"messages": HI, "max_tokens": -5}, "max_tokens"),
    (Format.CHAT, {"messages": HI, "max_tokens": 10**12}, "max_tokens"),
    (Format.CHAT, {"messages": HI, "max_tokens": "100"}, "max_tokens"),
    (Format.CHAT, {"messages": HI, "max_tokens": True}, "max_tokens"),
    (Format.CHAT, {"messages": HI, "max_completion_tokens": 1.5}, "max_completion_tokens"),
    (Format.CHAT, {"messages": HI, "n": 0}, "n"),
    (Format.CHAT, {"messages": HI, "n": 10_000}, "n"),
    (Format.CHAT, {"messages": HI, "tools": [{"type": "function", "function": {"parameters": deep(300)}}]}, "tools"),
    (Format.CHAT, user({"type": "strange", "x": deep(300)}), "messages[0].content[0]"),
    (Format.MESSAGES, {"messages": [{"role": "user"}]}, "messages[0].content"),
    (Format.MESSAGES, {"messages": HI, "max_tokens": -1}, "max_tokens"),
    (Format.MESSAGES, {"messages": HI, "system": 5}, "system"),
    (Format.MESSAGES, {"messages": HI, "system": [{"type": "text"}]}, "system[0].text"),
    (Format.MESSAGES, {"messages": HI, "tools": ["x"]}, "tools[0]"),
    (Format.MESSAGES, {"messages": HI, "tool_choice": "auto"}, "tool_choice"),
    (Format.MESSAGES, {"messages": HI, "thinking": True}, "thinking"),
    (Format.MESSAGES, user({"type": "image"}), "messages[0].content[0].source"),
    (
        Format.MESSAGES,
        user({"type": "tool_result", "content": [{"type": "text", "text": 1}]}),
        "messages[0].content[0].content[0].text",
    ),
]


@pytest.mark.parametrize(("format", "body", "param"), WRONG, ids=lambda value: str(value)[:40])
def test_what_has_the_wrong_shape_is_refused_with_its_path(format, body, param):  # noqa: A002  # the noun
    with pytest.raises(InvalidRequest) as refusal:
        validate(format, body)
    assert refusal.value.param == param
    assert param is None or param in refusal.value.message


C = Capability
NEEDS = [
    (Format.CHAT, {"messages": HI}, set()),
    (Format.CHAT, {"messages": HI, "tools": [], "n": 1, "logprobs": False, "reasoning_effort": "none"}, set()),
    (Format.CHAT, {"messages": HI, "tools": [TOOL]}, {C.TOOLS}),
    (Format.CHAT, {"messages": HI, "functions": [{"name": "f"}]}, {C.TOOLS}),
    (Format.CHAT, {"messages": HI, "response_format": {"type": "text"}}, set()),
    (Format.CHAT, {"messages": HI, "response_format": {"type": "json_object"}}, {C.JSON_OBJECT}),
    (Format.CHAT, {"messages": HI, "response_format": {"type": "json_schema", "json_schema": {}}}, {C.JSON_SCHEMA}),
    (Format.CHAT, user({"type": "image_url", "image_url": {"url": PIXEL}}), {C.VISION}),
    (Format.CHAT, user({"type": "input_audio", "input_audio": {"data": "AAAA"}}), {C.AUDIO}),
    (Format.CHAT, {"messages": HI, "modalities": ["text", "audio"]}, {C.AUDIO}),
    (Format.CHAT, user({"type": "file", "file": {"file_id": "f1"}}), {C.FILES}),
    (Format.CHAT, {"messages": HI, "n": 3, "logprobs": True}, {C.N, C.LOGPROBS}),
    (Format.CHAT, {"messages": HI, "reasoning_effort": "low"}, {C.REASONING}),
    (Format.MESSAGES, {"messages": HI}, set()),
    (Format.MESSAGES, {"messages": HI, "tools": [CLAUDE_TOOL]}, {C.TOOLS}),
    (Format.MESSAGES, {"messages": HI, "thinking": {"type": "enabled", "budget_tokens": 1024}}, {C.REASONING}),
    (Format.MESSAGES, {"messages": HI, "thinking": {"type": "disabled"}}, set()),
    (Format.MESSAGES, {"messages": HI, "output_config": {"format": {"schema": {"type": "object"}}}}, {C.JSON_SCHEMA}),
    (Format.MESSAGES, user({"type": "image", "source": {"type": "url", "url": "https://x"}}), {C.VISION}),
    (Format.MESSAGES, user({"type": "document", "source": {"type": "file", "file_id": "f"}}), {C.FILES}),
    (Format.MESSAGES, user({"type": "document", "source": {"type": "text", "data": "a"}}), set()),
]


def named(value: object) -> str:
    return str(sorted(value) if isinstance(value, set) else value)[:60]


@pytest.mark.parametrize(("format", "body", "needs"), NEEDS, ids=named)
def test_a_request_needs_what_it_uses_and_no_more(format, body, needs):  # noqa: A002  # the noun
    assert read(format, body).needs == needs


def test_every_text_of_a_chat_is_read():
    facts = read(
        Format.CHAT,
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "name": "bob", "content": [{"type": "text", "text": "a"}, {"type": "refusal"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"type": "function", "function": {"name": "f", "arguments": "{}"}},
                        {"type": "custom", "custom": {"name": "g", "input": "x"}},
                    ],
                },
                {"role": "tool", "tool_call_id": "1", "content": "r"},
            ]
        },
    )
    assert facts.texts == ["s", "a", "", "bob", "f", "{}", "g", "x", "r"]
    assert (facts.messages, facts.calls, facts.parallel, facts.system) == (4, 2, 1, True)


def test_every_text_of_anthropic_messages_is_read_except_old_thoughts():
    facts = read(
        Format.MESSAGES,
        {
            "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": "a"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": "z"},
                        {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "r"}]}
                    ],
                },
            ],
        },
    )
    assert facts.texts == ["a", "f", '{"x":1}', "r", "s"]
    assert (facts.messages, facts.calls, facts.system) == (3, 1, True)


def test_a_part_of_an_unknown_kind_is_counted_as_its_json():
    assert read(Format.CHAT, user({"type": "hologram", "depth": 3})).texts == ['{"type":"hologram","depth":3}']


@pytest.mark.parametrize(
    ("format", "body", "tokens"),
    [
        (Format.CHAT, {}, None),
        (Format.CHAT, {"max_tokens": None}, None),
        (Format.CHAT, {"max_tokens": 5}, 5),
        (Format.CHAT, {"max_tokens": 5, "max_completion_tokens": 7}, 7),
        (Format.MESSAGES, {"max_tokens": 9}, 9),
    ],
)
def test_the_answers_length_is_what_the_client_asked(format, body, tokens):  # noqa: A002  # the noun
    assert requested_output(format, body) == tokens


def test_a_chat_without_options_is_not_searched_for_any():
    asked = set()

    class Asked(dict):
        def get(self, key, default=None):
            asked.add(key)
            return super().get(key, default)

    for reader in (_chat_tools, _response_format, _chat_options):
        reader(Asked(messages=HI), Facts())
    assert asked == _CHAT_OPTIONS


SEARCH = {"type": "web_search_20250305", "name": "web_search"}


@pytest.mark.parametrize(
    ("format", "body", "calls"),
    [
        (Format.CHAT, {"messages": HI, "tools": [TOOL]}, 0),
        (Format.CHAT, {"messages": HI, "tools": [TOOL, {"type": "web_search"}]}, PROVIDER_CALLS),
        (Format.MESSAGES, {"messages": HI, "tools": [CLAUDE_TOOL, SEARCH]}, PROVIDER_CALLS),
        (Format.MESSAGES, {"messages": HI, "tools": [{**SEARCH, "max_uses": 3}]}, 3),
        (
            Format.RESPONSES,
            {"input": "hi", "tools": [{"type": "web_search"}, {"type": "file_search"}]},
            2 * PROVIDER_CALLS,
        ),
        (Format.RESPONSES, {"input": "hi", "tools": [{"type": "web_search"}], "max_tool_calls": 4}, 4),
        (Format.RESPONSES, {"input": "hi", "max_tool_calls": 4}, 0),
    ],
)
def test_a_provider_calls_its_own_tools_as_often_as_the_request_lets_it(format, body, calls):  # noqa: A002  # the noun
    assert read(format, body).provider_calls == calls


def test_one_answer_is_wanted_unless_said_otherwise():
    assert (choices({}), choices({"n": None}), choices({"n": 4})) == (1, 1, 4)
