"""`python -m router_policies.difficulty.evaluation.proof OUTCOMES DOCS [EMBEDDINGS]`: docs/routing.md, made anew.

OUTCOMES is the directory of recorded outcomes, EMBEDDINGS one with `model.onnx` and `tokenizer.json`.  Every figure in
the page is computed here; the words, in `routing.template.md`, state what each is and what does not hold.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from router_policies.difficulty import artifact
from router_policies.difficulty.answers import learn_verifier, read_responses
from router_policies.difficulty.evaluation import report
from router_policies.difficulty.evaluation.curves import Floats, apgr, auroc, calibration_error
from router_policies.difficulty.evaluation.judge import Judged, cross_fitted, figures, with_artifact
from router_policies.difficulty.learn import Options, fold_of, learn
from router_policies.difficulty.model import Array, Model
from router_policies.difficulty.outcomes import Outcomes, read
from router_policies.difficulty.text import plain_name

APACHE = ("routellm_gsm8k_mmlu", "mmlu_pro", "gsm8k_zeroeval", "crux_zeroeval")
"""The outcome files whose licence lets an artifact that ships be trained on them."""
TEMPLATE = Path(__file__).with_name("routing.template.md")
PARTS = (("verifier", "each_file"), ("in_domain", "label_efficiency", "left_out", "policy_time", "shipped"))
"""The sections of the page, in two processes: the verifier's answers are needed for the files too."""
LABELS = (250, 1000, 2500)
SEEDS = 3


class Proof:
    """The sections of the page, each computed from the recorded outcomes."""

    def __init__(self, data: Path, embeddings: Path | None) -> None:
        self.data = data
        self.files = {name: read([data / f"{name}.parquet"]) for name in APACHE}
        self.embeddings = embeddings

    @cached_property
    def mmlu(self) -> Outcomes:
        """The MMLU questions: two models."""
        return only(self.files[APACHE[0]], "mmlu/")

    def sections(self, names: Sequence[str]) -> dict[str, str]:
        """The figures by their names in the template; tells on stderr how long each has taken."""
        made = {}
        for name in names:
            start = time.monotonic()
            made[name] = str(getattr(self, name)())
            print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)  # noqa: T201 - progress
        return made

    def in_domain(self) -> str:
        """MMLU, five folds: text alone, then with embeddings."""
        lines = ["| inputs | APGR (95 % interval) | calibration error | abstained |", "|---|---|---|---|"]
        judged = cross_fitted(self.mmlu)
        made = figures(judged)
        lines.append(_line("text", made))
        vectors = self._embedded()
        if vectors is not None:
            lines.append(_line("text and MiniLM embeddings", figures(cross_fitted(self.mmlu, embeddings=vectors))))
        lines += [f"| {name} | {_area(made, name)} | | |" for name in ("task lookup", "prompt length", "shuffled")]
        return "\n".join(lines)

    def _embedded(self) -> Array | None:
        if self.embeddings is None:
            return None
        from router_policies.difficulty.embeddings import Embedder  # noqa: PLC0415 - an optional dependency

        return Embedder(self.embeddings)(self.mmlu.texts)

    def each_file(self) -> str:
        """Every file that may be trained on, cross-fitted; then CRUX without the models whose cost is not known."""
        parts = [section(name, outcomes, self.answered) for name, outcomes in self.files.items()]
        crux = self.files["crux_zeroeval"]
        visible = crux.columns([i for i, name in enumerate(crux.models) if not name.startswith("o1")])
        parts.append(section("crux_zeroeval without o1", visible, self.answered))
        return "\n\n".join(parts)

    def label_efficiency(self) -> str:
        """MMLU as a new workload: n labelled queries drawn from four fifths, judged on the other fifth; all five."""
        whole = self._learned_from(len(self.mmlu), 0)
        lines = ["| labelled queries | APGR, mean of 3 draws | share of the gain of all |", "|---|---|---|"]
        for count in LABELS:
            each = [self._learned_from(count, seed) for seed in range(SEEDS)]
            mean = float(np.mean(each))
            lines.append(f"| {count:,} | {mean:.3f} ({min(each):.3f} to {max(each):.3f}) | {share(mean, whole):.0%} |")
        return "\n".join([*lines, f"| {len(self.mmlu) * 4 // 5:,} (all) | {whole:.3f} | 100% |"])

    def _learned_from(self, count: int, seed: int) -> float:
        outcomes = self.mmlu
        weak, strong = np.argsort(outcomes.scores.mean(axis=0))[[0, -1]]
        options = Options(seed=seed)
        fold = fold_of(outcomes.prompts, replace(options, seed=1))
        score = np.empty(len(outcomes))
        for each in range(options.folds):
            drawn = np.random.default_rng(seed).permutation(np.flatnonzero(fold != each))[:count]
            held = np.flatnonzero(fold == each)
            p = learn(outcomes.rows(drawn), options).model.probabilities(outcomes.rows(held).prompts)
            score[held] = p[:, strong] - p[:, weak]
        return apgr(score, outcomes.scores[:, strong] - outcomes.scores[:, weak])

    def shipped(self) -> str:
        """The card of the artifact that ships, in a sentence."""
        return shipped()

    def left_out(self) -> str:
        """Trained on all sets but one, judged on that one; the shipped artifact on files it never saw."""
        lines = [
            "| judged on | trained on | abstained | believed | APGR router | unchecked | AIQ router | AIQ hull |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, judged, on in self._left_out():
            made = figures(judged)
            cost = made["cost"]["routers"] if made["cost"] else None
            area = f"{cost['router']['aiq']:.3f} | {cost['zero-router hull']['aiq']:.3f}" if cost else "|"
            told = f"{made['abstained']:.0%} | {made['pair']['believed']:.0%}"
            lines.append(
                f"| {name} | {on} | {told} | {_area(made, 'router')} | {_area(made, 'router, unchecked')} | {area} |"
            )
        return "\n".join(lines)

    def _left_out(self) -> Iterator[tuple[str, Judged, str]]:
        sets = {"MMLU": self.mmlu, "GSM8K (RouteLLM)": only(self.files[APACHE[0]], "gsm8k")}
        sets |= {name: self.files[name] for name in APACHE[1:]}
        family = {"GSM8K (RouteLLM)": "gsm", "gsm8k_zeroeval": "gsm"}
        for name, outcomes in sets.items():
            same = family.get(name, name)
            others = [other for key, other in sets.items() if family.get(key, key) != same]
            yield name, with_artifact(outcomes, learn(joined(others)).model), "the other sets"
        shipped_model = artifact.load(artifact.DEFAULT)
        for name in ("routerbench_arc_mbpp_winogrande", "bfcl_tools_2024_08"):
            yield name, with_artifact(read([self.data / f"{name}.parquet"]), shipped_model), "the artifact that ships"
        arc = only(read([self.data / "routerbench_arc_mbpp_winogrande.parquet"]), "routerbench/arc")
        yield "ARC, models renamed to match", with_artifact(_as_mmlu_models(arc), learn(self.mmlu).model), "MMLU"

    @cached_property
    def answers(self) -> tuple[Outcomes, list[str], list[str], Floats]:
        """Recorded answers of cheap models, their questions and models, and P(right): five folds by question, an
        answer's question is never on both sides."""
        prompts = {key: text for file in self.files.values() for key, text in zip(file.ids, file.texts, strict=True)}
        labelled, questions, models = read_responses(self.data / "responses_cheap_models.parquet", prompts)
        return labelled, questions, models, _verified(labelled, questions)

    @cached_property
    def answered(self) -> dict[tuple[str, str], float]:
        """P(right) by question and model."""
        _, questions, models, p = self.answers
        names = map(plain_name, models)
        return dict(zip(zip(questions, names, strict=True), p.tolist(), strict=True))

    def verifier(self) -> str:
        """Over all answers, then for each set and model."""
        labelled, _, models, p = self.answers
        good = (labelled.scores[:, 0] >= 0.5).astype(np.float64)
        lines = ["| answers | AUROC | calibration error |", "|---|---|---|"]
        lines.append(f"| all, {len(good):,} | {auroc(p, good):.3f} | {calibration_error(p, good):.3f} |")
        for domain, model in sorted(set(zip(labelled.domains, models, strict=True))):
            mine = np.array([d == domain and m == model for d, m in zip(labelled.domains, models, strict=True)])
            error = calibration_error(p[mine], good[mine])
            lines.append(f"| {domain}, {model} | {auroc(p[mine], good[mine]):.3f} | {error:.3f} |")
        return "\n".join(lines)

    def policy_time(self) -> str:
        """Microseconds for one opinion that is not remembered, on one core of the machine that made this page."""
        model = artifact.load(artifact.DEFAULT)
        prompts = self.files["mmlu_pro"].texts[:500]
        long = ["\n".join(prompts[i : i + 12])[:8000] for i in range(0, 480, 12)] * 10
        parts = []
        for name, texts in (("MMLU-Pro questions", list(prompts)), ("prompts of 2,000 tokens", long)):
            times = sorted(_timed(model, text) for text in texts)
            parts.append(f"{name}: median {times[len(times) // 2]:.0f} us, p90 {times[len(times) * 9 // 10]:.0f} us")
        return "; ".join(parts)


def _verified(labelled: Outcomes, questions: list[str]) -> Floats:
    options = Options()
    fold = fold_of(questions, replace(options, seed=1))
    p = np.full(len(labelled), np.nan)
    for each in range(options.folds):
        seen, unseen = np.flatnonzero(fold != each), np.flatnonzero(fold == each)
        learned = learn_verifier(labelled.rows(seen), [questions[i] for i in seen], options)
        p[unseen] = learned.model.probabilities(labelled.rows(unseen).prompts)[:, 0]
    return p


def _timed(model: Model, text: str) -> float:
    start = time.thread_time_ns()
    model.probabilities([text])
    return (time.thread_time_ns() - start) / 1e3


def share(area: float, whole: float) -> float:
    """The part of a gain over random mixing."""
    return (area - 0.5) / (whole - 0.5)


def section(name: str, outcomes: Outcomes, answered: Mapping[tuple[str, str], float]) -> str:
    """A file's figures as a table in Markdown; `answered`: P(right) by question and model, where a verifier read it."""
    judged = cross_fitted(outcomes)
    names = [plain_name(model) for model in judged.outcomes.models]
    verified = np.array([[answered.get((key, name), np.nan) for name in names] for key in judged.outcomes.ids])
    made = figures(replace(judged, verified=verified))
    lines = [f"**{name}.** {report.heading(name, made).split(': ', 1)[1]}.", ""]
    lines += ["| " + " | ".join(report.COLUMNS) + " |", "|" + "---|" * len(report.COLUMNS)]
    lines += ["| " + " | ".join(row) + " |" for row in report.rows(made)]
    lines += ["", *(f"- {line}" for line in report.agreement(made))]
    return "\n".join(lines).rstrip()


def only(outcomes: Outcomes, domain: str) -> Outcomes:
    """The queries of tasks whose name starts so."""
    return outcomes.rows(np.flatnonzero([name.startswith(domain) for name in outcomes.domains]))


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    """Sets with different queries and models as one."""
    models = tuple(sorted({name for part in parts for name in part.models}))
    place = {name: i for i, name in enumerate(models)}
    scores: list[Floats] = []
    costs: list[Floats] = []
    for part in parts:
        columns = [place[name] for name in part.models]
        for source, into in ((part.scores, scores), (part.costs, costs)):
            wide = np.full((len(part), len(models)), np.nan)
            wide[:, columns] = source
            into.append(wide)
    return Outcomes(
        ids=tuple(key for part in parts for key in part.ids),
        prompts=tuple(text for part in parts for text in part.prompts),
        domains=tuple(name for part in parts for name in part.domains),
        models=models,
        scores=np.concatenate(scores),
        costs=np.concatenate(costs),
    )


def _as_mmlu_models(outcomes: Outcomes) -> Outcomes:
    names = {"mistralai/mixtral-8x7b-chat": "Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview": "gpt-4-1106-preview"}
    kept = outcomes.columns([i for i, name in enumerate(outcomes.models) if name in names])
    return replace(kept, models=tuple(names[name] for name in kept.models))


def _area(made: dict[str, Any], name: str) -> str:
    figure = made["pair"]["routers"][name]["apgr"]
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def _line(name: str, made: dict[str, Any]) -> str:
    return f"| {name} | {_area(made, 'router')} | {made['calibration_error']:.3f} | {made['abstained']:.1%} |"


def shipped() -> str:
    """The card of the artifact that ships, in a sentence."""
    card = artifact.card(artifact.DEFAULT)
    return (
        f"{card['queries']:,} queries, {card['labels']:,} labels, {len(card['models'])} models, {len(card['tasks'])} "
        f"tasks, {card['bytes'] / 1e6:.2f} MB, trained {card['trained']}; held out: calibration error "
        f"{card['figures']['calibration_error']}, {card['figures']['skill']:.0%} less log loss than base rates; sha256 "
        f"`{card['sha256']}`"
    )


def main() -> None:
    """Writes the page."""
    data, docs, *rest = map(Path, sys.argv[1:])
    proof = Proof(data, rest[0] if rest else None)
    with ProcessPoolExecutor(len(PARTS)) as pool:
        made = list(pool.map(proof.sections, PARTS))
    sections = {name: text for part in made for name, text in part.items()}
    docs.write_text(Template(TEMPLATE.read_text()).substitute(sections))


if __name__ == "__main__":
    main()
