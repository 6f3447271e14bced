"""A gateway learns from its own traffic, keeps no word of it, and routes by what it has learned."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import Result
from easy_and_hard import EASY, HARD, NAMES
from harness import ADMIN_KEY, Running, gateway
from typer.testing import CliRunner

from gateway.cli import app
from gateway.sql.lessons import Learned, lessons
from gateway.sql.records import Filter

CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
{learning}
providers: {{simulated: {{dialect: simulated, retries_max: 0}}}}
deployments:
  - {{id: cheap, provider: simulated, upstream_model: "sim-cheap?first_token_ms=0",
      price: {{input: 0.1, output: 0.1}}, context_max: 128000, output_max: 4096}}
  - {{id: strong, provider: simulated, upstream_model: "sim-strong?first_token_ms=0&output=30&reasoning=60",
      price: {{input: 10, output: 10}}, context_max: 128000, output_max: 4096}}
routes:
  auto:
    candidates: [cheap, strong]
    baseline: strong
    policies: [{{output_cap: {{default: 100}}}}, cheapest, {policy}]
  other: {{candidates: [cheap]}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: test-key-of-acme}}], budgets: [{{limit_usd: 100, window: day}}]}}
"""
LEARNING = "learning: {salt: a-secret-of-the-operator, routes: [auto], tenants: [acme]}"
SHADOW = "{shadow: {by: strong, share: 1, budget_usd: 100}}"


def config(folder: Path, learning: str = LEARNING, policy: str = SHADOW) -> str:
    return CONFIG.format(folder=folder, learning=learning, policy=policy)


async def kept(served: Running) -> list[Learned]:
    while await served.gateway.parts.recorder.round():
        continue
    await served.gateway.parts.lessons.flush()
    database = served.gateway.store.database
    return await database.run(lambda connection: lessons(connection, Filter()))


def everything(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def teach(served: Running) -> None:
    """The strong model answers all questions, and the cheap one only the easy ones as the strong one does."""

    async def answered(request: httpx.Request) -> httpx.Response:
        body = json.loads(await request.aread())
        question = body["messages"][-1]["content"]
        if body["model"].startswith("sim-strong") or question.startswith("What colour"):
            text = f"{len(question)}"
        else:
            text = "no idea"
        return reply_of(text)

    served.provider.handle_async_request = answered  # type: ignore[method-assign]


def say(served: Running, answers: dict[str, str]) -> None:
    """These models answer with these texts, the others as they do."""
    plain = served.provider.handle_async_request

    async def answered(request: httpx.Request) -> httpx.Response:
        text = answers.get(json.loads(await request.aread())["model"].partition("?")[0])
        return await plain(request) if text is None else reply_of(text)

    served.provider.handle_async_request = answered  # type: ignore[method-assign]


def reply_of(text: str) -> httpx.Response:
    usage = {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    reply = {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
    return httpx.Response(200, json=reply)


async def told_by(command: list[str]) -> Result:
    """What a command says; in a thread, for it has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, command)


def questions(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [(HARD if n % 2 else EASY).format(*rng.choice(NAMES, 2)) for n in range(count)]


async def test_nothing_is_kept_unless_route_and_tenant_are_named(tmp_path: Path) -> None:
    for place, learning in (("a", ""), ("b", LEARNING.replace("[acme]", "[other]")), ("c", LEARNING)):
        folder = tmp_path / place
        folder.mkdir()
        async with gateway(config(folder, learning)) as served:
            await served.chat(model="other", text="Say hello.")
            await served.chat(text="Say hello.")
            await served.gateway.parts.shadows.stop(10)
            found = await kept(served)
            assert [each.lesson.route for each in found] == (["auto"] if place == "c" else [])


async def test_no_word_of_a_request_or_of_an_answer_reaches_the_database(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as served:
        await served.chat(text="My xylophone is broken, says Wolfeschlegelstein.")
        await served.gateway.parts.shadows.stop(10)
        (found,) = await kept(served)
        assert len(found.lesson.words) == 6
        answer = json.loads((await served.chat(text="My xylophone?")).text)["choices"][0]["message"]["content"]
    stored = everything(tmp_path)
    assert b"xylophone" not in stored.lower()
    assert b"wolfeschlegelstein" not in stored.lower()
    assert answer.encode() not in stored
    assert b"a-secret-of-the-operator" not in stored


async def test_comparisons_become_an_artifact_and_the_artifact_routes(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as served:
        teach(served)
        for question in questions(100):
            await served.chat(text=question)
        await served.gateway.parts.shadows.stop(20)
        found = await kept(served)
        assert len(found) == 100
        assert all(each.scores["strong"] == 1 for each in found)
        assert sum(each.scores["cheap"] or 0 for each in found) == 50
        reply = await served.client.post(
            "/admin/v1/outcomes",
            json={"outcomes": [{"request": found[0].lesson.id, "score": 0.9}]},
            headers={"authorization": f"Bearer {ADMIN_KEY}"},
        )
        assert reply.status_code == 201
    (tmp_path / "gateway.yaml").write_text(config(tmp_path))
    options = ["--records", "--config", str(tmp_path / "gateway.yaml"), "--json"]
    made = await told_by(["train", *options, "--out", str(tmp_path / "mine")])
    assert made.exit_code == 0, made.output
    card: dict[str, Any] = json.loads(made.stdout)
    assert (card["queries"], card["labels"], card["learned_from"]) == (100, 200, "readings of a gateway's own records")
    assert card["figures"]["apgr"] > 0.7
    assert "a-secret" not in made.stdout
    again = await told_by(["evaluate", *options])
    assert again.exit_code == 0, again.output
    told = json.loads(again.stdout)
    assert (told["records"], told["queries"], told["best_single"]) == (True, 100, "strong")
    policy = f"{{difficulty: {{artifact: {tmp_path / 'mine'}, target_quality: 0.8}}}}"
    async with gateway(config(tmp_path, policy=policy)) as served:
        for n, question in enumerate(questions(12, seed=7)):
            reply = await served.chat(text=question)
            assert reply.headers["x-tollgate-deployment"] == ("strong" if n % 2 else "cheap"), reply.headers


async def test_what_cannot_be_learned_from_is_said_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    for text, options, words in (
        (config(tmp_path, ""), ["--records"], "keeps nothing to learn from"),
        (config(tmp_path), ["--records"], "no request was kept"),
        (config(tmp_path), ["--records", "--outcomes", str(file)], "Say either"),
        (config(tmp_path), [], "Say either"),
        (config(tmp_path), ["--records", "--embeddings", str(tmp_path)], "no text that could be embedded"),
    ):
        file.write_text(text)
        done = await told_by(["train", "--config", str(file), "--out", str(tmp_path / "mine"), *options])
        assert done.exit_code == 1
        assert words in done.output
    assert not (tmp_path / "mine").exists()


async def test_a_restart_remembers_how_much_a_deployment_says_and_thinks(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "", "{fallback: {order: [strong]}}")) as served:
        await served.chat(model="strong", max_tokens=500)
        before = served.gateway.parts.health.habits.talks("strong")["", ""]
        assert (before.visible, before.reasoning) == (30, 60)
    async with gateway(config(tmp_path, "", "{fallback: {order: [strong]}}")) as served:
        after = served.gateway.parts.health.habits
        assert after.talks("strong")["", ""] == before
        assert after.talks("cheap") == {}, "who has never answered has no habits"


@pytest.mark.parametrize(
    ("cascade", "answers", "scores"),
    [
        ("{}", {"sim-cheap": "I cannot help with that."}, {"cheap": 0.0, "strong": None}),
        ("{}", {"sim-cheap": "Certainly: 42."}, {"cheap": None}),
        ("{llm: grader}", {"sim-cheap": "42", "sim-grader": "95"}, {"cheap": 1.0}),
        ("{llm: grader}", {"sim-cheap": "42", "sim-grader": "5"}, {"cheap": 0.0, "strong": None}),
    ],
)
async def test_what_a_judge_finds_of_an_answer_is_a_label_and_that_nothing_is_wrong_is_none(
    tmp_path: Path, cascade: str, answers: dict[str, str], scores: dict[str, float | None]
) -> None:
    text = config(tmp_path, policy=f"{{cascade: {cascade}}}").replace(
        "routes:\n  auto:\n    candidates: [cheap, strong]",
        "  - {id: grader, provider: simulated, upstream_model: sim-grader, price: {input: 0.2, output: 0.2}}\n"
        "routes:\n  auto:\n    candidates: [cheap, strong, grader]",
    )
    async with gateway(text) as served:
        say(served, answers)
        await served.chat(text="What is six times seven?")
        (found,) = await kept(served)
        assert found.scores == scores
