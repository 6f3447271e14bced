"""`tollgate train` and `tollgate evaluate`: a router learned from outcomes, and what it is worth."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.show import CONFIG, ConfigOption, JsonOption, as_json, as_table, fail, settings_of, with_store
from gateway.cli.spend import moment_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.sql.lessons import Learned
    from gateway.sql.tenants import Store
    from router_policies.difficulty.evaluation.judge import Judged
    from router_policies.difficulty.outcomes import Outcomes

READ_S = 300.0

OutcomesOption = Annotated[
    list[Path] | None,
    typer.Option("--outcomes", help="Parquet: query_id, prompt, model, score [, domain, cost, answer]. Repeatable."),
]
RecordsOption = Annotated[
    bool, typer.Option("--records", help="The gateway's own records in place of files: see `learning` in the settings.")
]
SinceOption = Annotated[str, typer.Option(help="Of the records, from here on: 24h, 7d, or a date (UTC).")]
RouteOption = Annotated[str | None, typer.Option(help="Of the records, only this route's.")]
EmbeddingsOption = Annotated[
    Path | None, typer.Option("--embeddings", help="Directory with model.onnx and tokenizer.json.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="The same seed and data give the same result.")]


def train(
    out: Annotated[Path, typer.Option("--out", help="Directory of the artifact.")],
    outcomes: OutcomesOption = None,
    records: RecordsOption = False,
    config: ConfigOption = CONFIG,
    since: SinceOption = "30d",
    route: RouteOption = None,
    embeddings: EmbeddingsOption = None,
    seed: SeedOption = 0,
    good_at: Annotated[float, typer.Option("--good-at", help="A score from here on is good enough.")] = 0.5,
    licence: Annotated[str, typer.Option("--licence", help="Licence of the data, for the card.")] = "not stated",
    force: Annotated[bool, typer.Option("--force", help="Replace even a better artifact.")] = False,
    verifier: Annotated[bool, typer.Option("--verifier", help="A judge of answers, for the policy `cascade`.")] = False,
    accuracy: Annotated[
        float, typer.Option("--accuracy", min=0.0, max=1.0, help="How often an answer it accepts must be right.")
    ] = 0.95,
    json: JsonOption = False,
) -> None:
    """Train a difficulty artifact on outcomes or on the gateway's own records; refuses to replace a better one."""
    _need_training()
    from router_policies.difficulty.answers import train_verifier
    from router_policies.difficulty.artifact import ArtifactError
    from router_policies.difficulty.learn import Options
    from router_policies.difficulty.train import WorseArtifact, train as train_artifact

    source = Source(outcomes or [], records=records, config=config, since=since, route=route, json=json)
    found = source.read(embeddings)
    vectors = _embed(embeddings)(found.texts) if embeddings else None
    try:
        with _Progress() as progress:
            options = Options(seed=seed, good_at=good_at)
            common: dict[str, Any] = {"files": source.files, "options": options, "licence": licence}
            if verifier:
                card = train_verifier(found, out, accuracy=accuracy, progress=progress, **common)
            else:
                card = train_artifact(found, out, force=force, progress=progress, embeddings=vectors, **common)
    except WorseArtifact as error:
        fail(f"{error} Use --force to replace it all the same.", json=json)
    except (ArtifactError, ValueError) as error:
        fail(str(error), json=json)
    if json:
        as_json(card)
        return
    told = card["figures"] | card.get("verifier", {})
    figures = [(name.replace("_", " "), str(value)) for name, value in told.items()]
    title = f"{out}: {card['queries']} queries, {len(card['models'])} models, {len(card['tasks'])} tasks"
    as_table(title, ["held out", "figure"], figures, right=["figure"])


def evaluate(
    outcomes: OutcomesOption = None,
    records: RecordsOption = False,
    config: ConfigOption = CONFIG,
    since: SinceOption = "30d",
    route: RouteOption = None,
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

    source = Source(outcomes or [], records=records, config=config, since=since, route=route, json=json)
    found = _only(source.read(embeddings), domain)
    try:
        with _Progress() as progress:
            judged = _judged(found, artifact, embeddings, seed, progress)
        made = figures(judged, weak, strong, seed)
    except (ArtifactError, OutcomesError, ValueError) as error:
        fail(str(error), json=json)
    name = source.name
    written = [str(file) for file in report.write(name, made, out)] if out else []
    if json:
        as_json(
            {
                "outcomes": [str(file) for file in source.files],
                "records": records,
                "artifact": str(artifact or ""),
                **made,
                "files": written,
            }
        )
        return
    as_table(report.heading(name, made), report.COLUMNS, report.rows(made), right=report.RIGHT)
    for line in [*report.agreement(made), *written]:
        typer.echo(line)


def _judged(
    outcomes: Outcomes,
    artifact: Path | None,
    embeddings: Path | None,
    seed: int,
    progress: Callable[[str, int, int], None],
) -> Judged:
    from router_policies.difficulty.artifact import load
    from router_policies.difficulty.evaluation.judge import cross_fitted, with_artifact
    from router_policies.difficulty.learn import Options

    embed = _embed(embeddings) if embeddings else None
    if artifact:
        model = load(artifact)
        return with_artifact(outcomes, model, embed if model.embedding_weights is not None else None)
    return cross_fitted(outcomes, Options(seed=seed), embed(outcomes.texts) if embed else None, progress)


@dataclass(frozen=True)
class Source:
    """Where outcomes come from: files, or the database of these settings."""

    files: list[Path]
    records: bool
    config: Path
    since: str
    route: str | None
    json: bool

    @property
    def name(self) -> str:
        """For headings and files."""
        return "records" if self.records else "+".join(file.stem for file in self.files)

    def read(self, embeddings: Path | None) -> Outcomes:
        """The outcomes, or the end of the command."""
        from router_policies.difficulty.outcomes import OutcomesError, read

        if self.records == bool(self.files):
            fail("Say either --outcomes FILE or --records.", json=self.json)
        try:
            return self._own(embeddings) if self.records else read(self.files)
        except (OutcomesError, ValueError) as error:
            fail(str(error), json=self.json)

    def _own(self, embeddings: Path | None) -> Outcomes:
        from gateway.sql.lessons import lessons
        from gateway.sql.records import Filter
        from router_policies.difficulty.records import outcomes_of

        learning = settings_of(self.config, json=self.json).learning
        if learning is None:
            fail(f"{self.config} keeps nothing to learn from: set `learning`.", json=self.json)
        if embeddings is not None:
            fail("Records keep no text that could be embedded; leave --embeddings out.", json=self.json)
        wanted = Filter(moment_of(self.since, time.time()), equal={} if self.route is None else {"route": self.route})

        async def told(store: Store) -> list[Learned]:
            return await store.database.run(lambda connection: lessons(connection, wanted), timeout_s=READ_S)

        return outcomes_of(with_store(self.config, told, json=self.json), learning.salt)


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
