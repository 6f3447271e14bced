"""`tollgate train` and `tollgate evaluate`: a router learned from outcomes, and what it is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.show import JsonOption, as_json, as_table, fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from router_policies.difficulty.evaluation.judge import Judged
    from router_policies.difficulty.outcomes import Outcomes

OutcomesOption = Annotated[
    list[Path],
    typer.Option("--outcomes", help="Parquet: query_id, prompt, model, score [, domain, cost, answer]. Repeatable."),
]
EmbeddingsOption = Annotated[
    Path | None, typer.Option("--embeddings", help="Directory with model.onnx and tokenizer.json.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="The same seed and data give the same result.")]


def train(
    outcomes: OutcomesOption,
    out: Annotated[Path, typer.Option("--out", help="Directory of the artifact.")],
    embeddings: EmbeddingsOption = None,
    seed: SeedOption = 0,
    good_at: Annotated[float, typer.Option("--good-at", help="A score from here on is good enough.")] = 0.5,
    licence: Annotated[str, typer.Option("--licence", help="Licence of the data, for the card.")] = "not stated",
    force: Annotated[bool, typer.Option("--force", help="Replace even a better artifact.")] = False,
    json: JsonOption = False,
) -> None:
    """Train a difficulty artifact on outcomes; refuses to replace a better one."""
    _need_training()
    from router_policies.difficulty.artifact import ArtifactError
    from router_policies.difficulty.learn import Options
    from router_policies.difficulty.train import WorseArtifact
    from router_policies.difficulty.train import train as train_artifact

    found = _read(outcomes, json=json)
    vectors = _embed(embeddings)(found.prompts) if embeddings else None
    try:
        with _Progress() as progress:
            card = train_artifact(
                found,
                out,
                files=outcomes,
                options=Options(seed=seed, good_at=good_at),
                licence=licence,
                force=force,
                progress=progress,
                embeddings=vectors,
            )
    except WorseArtifact as error:
        fail(f"{error} Use --force to replace it all the same.", json=json)
    except (ArtifactError, ValueError) as error:
        fail(str(error), json=json)
    if json:
        as_json(card)
        return
    figures = [(name.replace("_", " "), str(value)) for name, value in card["figures"].items()]
    title = f"{out}: {card['queries']} queries, {len(card['models'])} models, {len(card['tasks'])} tasks"
    as_table(title, ["held out", "figure"], figures, right=["figure"])


def evaluate(
    outcomes: OutcomesOption,
    artifact: Annotated[
        Path | None, typer.Option("--artifact", help="Directory of a trained artifact; none: cross-fitted on the file.")
    ] = None,
    weak: Annotated[str | None, typer.Option("--weak", help="Model; default: the cheapest that is not best.")] = None,
    strong: Annotated[str | None, typer.Option("--strong", help="Model; default: the best.")] = None,
    domain: Annotated[str | None, typer.Option("--domain", help="Only tasks that start so, e.g. mmlu/.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Directory for the picture and the page.")] = None,
    embeddings: EmbeddingsOption = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Say what a router is worth on recorded outcomes, beside random mixing, the hull, a task table and an oracle."""
    _need_training()
    from router_policies.difficulty.artifact import ArtifactError
    from router_policies.difficulty.evaluation import report
    from router_policies.difficulty.evaluation.judge import figures
    from router_policies.difficulty.outcomes import OutcomesError

    found = _only(_read(outcomes, json=json), domain)
    try:
        judged = _judged(found, artifact, embeddings, seed)
        made = figures(judged, weak, strong, seed)
    except (ArtifactError, OutcomesError, ValueError) as error:
        fail(str(error), json=json)
    name = "+".join(file.stem for file in outcomes)
    written = [str(file) for file in report.write(name, made, out)] if out else []
    if json:
        as_json(
            {"outcomes": [str(file) for file in outcomes], "artifact": str(artifact or ""), **made, "files": written}
        )
        return
    as_table(report.heading(name, made), report.COLUMNS, report.rows(made), right=report.RIGHT)
    for line in [*report.agreement(made), *written]:
        typer.echo(line)


def _judged(outcomes: Outcomes, artifact: Path | None, embeddings: Path | None, seed: int) -> Judged:
    from router_policies.difficulty.artifact import load
    from router_policies.difficulty.evaluation.judge import cross_fitted, with_artifact
    from router_policies.difficulty.learn import Options

    embed = _embed(embeddings) if embeddings else None
    if artifact:
        model = load(artifact)
        return with_artifact(outcomes, model, embed if model.embedding_weights is not None else None)
    return cross_fitted(outcomes, Options(seed=seed), embed(outcomes.prompts) if embed else None)


def _read(files: list[Path], *, json: bool) -> Outcomes:
    from router_policies.difficulty.outcomes import OutcomesError, read

    try:
        return read(files)
    except OutcomesError as error:
        fail(str(error), json=json)


def _only(outcomes: Outcomes, domain: str | None) -> Outcomes:
    import numpy as np

    if domain is None:
        return outcomes
    return outcomes.rows(np.flatnonzero([name.startswith(domain) for name in outcomes.domains]))


def _embed(directory: Path) -> Callable[[Any], Any]:
    from router_policies.difficulty.embeddings import Embedder

    return Embedder(directory)


def _need_training() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("sklearn", "pyarrow", "matplotlib") if find_spec(name) is None]
    if missing:
        fail(f"This command needs {', '.join(missing)}: pip install 'tollgate[train]'.")


class _Progress:
    """A bar on stderr; silent where stderr is no terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._bar = Progress(console=Console(stderr=True), transient=True)

    def __enter__(self) -> Callable[[str, int, int], None]:
        self._bar.start()
        self._task = self._bar.add_task("training", total=None)
        return lambda what, done, of: self._bar.update(self._task, description=what, completed=done, total=of)

    def __exit__(self, *_error: object) -> None:
        self._bar.stop()
