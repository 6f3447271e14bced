"""Files nobody has seen: whatever they hold, training and evaluation answer with every figure, or say what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from gateway.cli import app
from router_policies.difficulty.evaluation.judge import cross_fitted, figures, ranks, with_artifact
from router_policies.difficulty.learn import Options, learn
from router_policies.difficulty.outcomes import Outcomes, outcomes

SHIPPED = Path(__file__).parents[2] / "router_policies" / "difficulty" / "data"
WORDS = ["river", "stone", "proof", "integral", "merge", "value", "sum", "list", "tensor", "cell", "law", "tax", "king"]
ROUTERS = {"router", "router, unchecked", "task lookup", "zero-router hull", "random", "shuffled", "oracle"}
Row = dict[str, Any]


def rows(queries: int = 60, models: str = "ab", seed: int = 0) -> list[Row]:
    """Scores that say nothing but that later models are better."""
    rng = np.random.default_rng(seed)
    prompts = [" ".join(rng.choice(WORDS, size=rng.integers(3, 40))) + f" {i}?" for i in range(queries)]
    return [
        {
            "query_id": f"q{i}",
            "prompt": prompt,
            "domain": f"task{i % 3}",
            "model": f"model-{model}",
            "score": float(rng.random() < 0.4 + 0.5 * rank / len(models)),
            "prompt_tokens": 10,
            "completion_tokens": 20,
            "cost": 0.0001 * 10.0 ** min(rank, 4),
            "answer": str(rng.integers(4)),
        }
        for i, prompt in enumerate(prompts)
        for rank, model in enumerate(models)
    ]


def every(n: int, made: list[Row], **changed: object) -> list[Row]:
    """Every nth row changed."""
    return [{**row, **changed} if i % n == 0 else row for i, row in enumerate(made)]


def each(made: list[Row], name: str, change: Callable[[Any], object]) -> list[Row]:
    """One column changed."""
    return [{**row, name: change(row[name])} for row in made]


FILES: dict[str, list[Row]] = {
    "fifty rows": rows(25),
    "one model": rows(60, "a"),
    "two models": rows(),
    "thirty models": rows(30, "abcdefghijklmnopqrstuvwxyzABCD"),
    "a third of the scores missing": every(3, rows(100, "abcd"), score=None),
    "scores and costs that are no number": every(7, rows(60, "abc"), score=float("nan"), cost=float("nan")),
    "no costs": each(rows(60, "abc"), "cost", lambda _: None),
    "nothing costs anything": each(rows(60, "abc"), "cost", lambda _: 0.0),
    "no tasks": each(rows(), "domain", lambda _: None),
    "a task for each query": each(rows(), "domain", hash),
    "no answers": each(rows(60, "abc"), "answer", lambda _: None),
    "all right": each(rows(), "score", lambda _: 1.0),
    "all wrong": each(rows(), "score", lambda _: 0.0),
    "grades": each(rows(), "score", lambda score: 0.3 + 0.4 * score),
    "true and false": each(rows(), "score", bool),
    "numbers for names": each(rows(), "query_id", lambda name: int(name[1:])),
    "rows without a name or a model": every(9, every(7, rows(), query_id=None), model=None),
    "prompts missing": every(5, rows(60), prompt=None),
    "everything twice": rows() * 2,
    "the strong one is cheap": each(rows(), "cost", lambda cost: 0.001 / cost),
    "nobody answered what another did": [
        row for row in rows(80) if (int(row["query_id"][1:]) < 40) == (row["model"] == "model-a")
    ],
}


def written(made: list[Row], file: Path) -> Path:
    parquet.write_table(pa.Table.from_pylist([{**row, "domain": _text(row["domain"])} for row in made]), file)
    return file


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def run(*arguments: object) -> dict[str, Any]:
    told = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert told.exit_code == 0, told.output
    return dict(json.loads(told.stdout))


@pytest.fixture(scope="module")
def by_the_shipped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """What the shipped artifact is said to be worth, by the name of a file."""
    there = tmp_path_factory.mktemp("made")

    @cache
    def evaluated(name: str) -> dict[str, Any]:
        return run("evaluate", "--outcomes", written(FILES[name], there / f"{name}.parquet"), "--artifact", SHIPPED)

    return evaluated


@pytest.mark.parametrize("name", FILES)
def test_every_figure_is_there_whatever_the_file_holds(
    name: str, tmp_path: Path, by_the_shipped: Callable[[str], dict[str, Any]]
) -> None:
    file, mine = written(FILES[name], tmp_path / "made.parquet"), tmp_path / "mine"
    assert run("train", "--outcomes", file, "--out", mine)["labels"] > 0
    for made in (by_the_shipped(name), run("evaluate", "--outcomes", file, "--artifact", mine)):
        pair = made["pair"]["routers"]
        assert set(pair) >= ROUTERS
        for router in ROUTERS:
            assert set(pair[router]["apgr"]) == {"value", "low", "high"}
            assert set(pair[router]["cpt"]) == {"50%", "80%", "95%"}
        if made["cost"] is None:
            assert name == "no costs"
            continue
        for router in ROUTERS:
            costs = made["cost"]["routers"][router]
            assert costs["aiq_low"] <= costs["aiq_high"]
            assert set(costs["kept"]) == {"95%", "99%", "100%"}


@pytest.mark.parametrize(
    "name", sorted(set(FILES) - {"one model", "all right", "all wrong", "nobody answered what another did"})
)
def test_on_work_it_never_saw_the_shipped_router_is_just_what_chance_is(
    name: str, by_the_shipped: Callable[[str], dict[str, Any]]
) -> None:
    made = by_the_shipped(name)
    assert made["pair"]["routers"]["router"]["apgr"]["value"] == pytest.approx(0.5)
    if made["cost"]:
        costs = made["cost"]["routers"]
        assert costs["router"]["aiq"] == pytest.approx(costs["zero-router hull"]["aiq"])


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (each(rows(), "score", lambda score: 10 * score), "for query 'q0' is 10: it must be from 0 to 1"),
        (each(rows(), "cost", lambda cost: -cost), "must be dollars, 0 or more"),
        (each(rows(), "score", lambda _: None), "no row has a score"),
        (each(rows(), "prompt", lambda _: "the same"), "1 different prompts are too few"),
        (rows(10), "20 are the least"),
    ],
)  # fmt: skip
def test_what_nothing_can_be_learned_from_is_said(made: list[Row], said: str, tmp_path: Path) -> None:
    file = written(made, tmp_path / "made.parquet")
    told = CliRunner().invoke(app, ["train", "--outcomes", str(file), "--out", str(tmp_path / "mine")])
    assert told.exit_code == 1
    assert said in " ".join(told.output.split())
    assert not (tmp_path / "mine").exists()


def table(made: list[Row]) -> Outcomes:
    return outcomes({name: [row[name] for row in made] for name in made[0]})


@pytest.mark.parametrize("seed", range(4))
def test_labels_that_say_nothing_never_make_a_router_that_is_worse_than_chance(seed: int) -> None:
    made = figures(cross_fitted(table(rows(200, seed=seed)), Options(directions_max=40)))
    assert made["pair"]["routers"]["router"]["apgr"]["value"] == pytest.approx(0.5)
    costs = made["cost"]["routers"]
    assert costs["router"]["aiq"] == pytest.approx(costs["zero-router hull"]["aiq"])


def test_a_router_that_learned_the_opposite_is_not_believed() -> None:
    """Same words, same models, other work: nothing in the text says so, labels do."""
    rng = np.random.default_rng(0)

    def workload(easy: str, seed: int) -> Outcomes:
        made = rows(400, seed=seed)
        for first, second in zip(made[::2], made[1::2], strict=True):
            hard = easy not in first["prompt"].split()
            first["score"], second["score"] = float(not hard), float(rng.random() < 0.98)
        return table(made)

    model = learn(workload("river", 1), Options(directions_max=40)).model
    other = workload("river", 2)
    other.scores[:, 0] = 1 - other.scores[:, 0]
    made = figures(with_artifact(other, model))
    assert made["pair"]["routers"]["router, unchecked"]["apgr"]["value"] < 0.45
    assert made["pair"]["routers"]["router"]["apgr"]["value"] == pytest.approx(0.5)
    assert made["pair"]["believed"] == 0.0


def test_what_ranks_by_chance_does_not_count_as_ranking() -> None:
    rng = np.random.default_rng(1)
    gain = (rng.random(400) < 0.5).astype(np.float64)
    assert ranks(gain + rng.normal(size=400), gain, rng)
    assert not ranks(np.full(400, np.nan), gain, rng)
    assert not ranks(np.zeros(400), gain, rng)
    assert not ranks(-gain, gain, rng)
