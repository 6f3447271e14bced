"""What a model thought before, and is sent again: counted where it is shown, and within the bound everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import corpus
import pytest

from gateway.tokens import Counter
from gateway.types import Deployment, Estimate, Format, Provider

THOUGHT = "First I look at the tools that I have. " * 200
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "7"}


@pytest.fixture
def counter() -> Iterator[Counter]:
    made = Counter()
    yield made
    made.close()


def model(name: str, dialect: str = "openai") -> Deployment:
    return Deployment(name, Provider("p", dialect), name)


async def estimate(counter: Counter, where: Deployment, format_: Format, **body: Any) -> Estimate:
    counter.serve([where])
    return counter.estimate(await counter.content(corpus.request(format_, body)), where)


def chat(*rest: dict[str, Any], **thought: Any) -> list[dict[str, Any]]:
    said = {"role": "assistant", "content": "", "tool_calls": [CALL], **thought}
    return [{"role": "user", "content": "What is it?"}, said, RESULT, *rest]


@pytest.mark.parametrize(
    "thought",
    [
        {"reasoning_content": THOUGHT},
        {"reasoning": THOUGHT, "reasoning_content": THOUGHT},
        {"reasoning_details": [{"type": "reasoning.text", "text": THOUGHT, "format": "unknown"}, 7]},
        {"thinking_blocks": [{"type": "thinking", "thinking": THOUGHT, "signature": "x"}]},
    ],
)
async def test_a_thought_of_this_turn_is_counted_once_however_it_is_sent(
    counter: Counter, thought: dict[str, Any]
) -> None:
    where = model("qwen3")
    without = await estimate(counter, where, Format.CHAT, messages=chat())
    found = await estimate(counter, where, Format.CHAT, messages=chat(**thought))
    tokens = counter.count_text(THOUGHT, where)
    assert found.expected - without.expected == pytest.approx(tokens, abs=2)


async def test_a_thought_of_an_earlier_turn_is_not_expected_again_but_bounded(counter: Counter) -> None:
    where = model("qwen3")
    more = {"role": "user", "content": "And now?"}
    without = await estimate(counter, where, Format.CHAT, messages=chat(more))
    found = await estimate(counter, where, Format.CHAT, messages=chat(more, reasoning_content=THOUGHT))
    assert found.expected == without.expected
    assert found.bound >= without.bound + counter.count_text(THOUGHT, where)


@pytest.mark.parametrize("where", [model("grok-3-mini"), model("deepseek-chat"), model("gpt-5")])
async def test_a_thought_is_bounded_where_it_is_not_shown(counter: Counter, where: Deployment) -> None:
    found = await estimate(counter, where, Format.CHAT, messages=chat(reasoning_content=THOUGHT))
    assert found.bound > counter.count_text(THOUGHT, where)


async def test_what_is_sealed_is_bounded_by_its_length(counter: Counter) -> None:
    sealed = "A" * 8_000
    item = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": sealed}
    asked = {"role": "user", "content": "What is it?"}
    for where, format_, body in (
        (model("gpt-5"), Format.RESPONSES, {"input": [asked, item]}),
        (
            model("claude-sonnet-4-5", "anthropic"),
            Format.MESSAGES,
            {"messages": [asked, {"role": "assistant", "content": [{"type": "redacted_thinking", "data": sealed}]}]},
        ),
    ):
        assert (await estimate(counter, where, format_, **body)).bound > 2_000


async def test_a_choice_of_tools_in_another_formats_words_hides_them_from_grok(counter: Counter) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    asked = [{"role": "user", "content": "Add."}]
    plain = await estimate(counter, model("grok-3"), Format.CHAT, messages=asked)
    for choice, shown in (
        ({"type": "tool", "name": "add"}, False),
        ("none", False),
        ({"type": "function", "function": {"name": "add"}}, True),
        ("auto", True),
    ):
        found = await estimate(counter, model("grok-3"), Format.CHAT, messages=asked, tools=[tool], tool_choice=choice)
        assert (found.expected > plain.expected + 100) is shown, choice
