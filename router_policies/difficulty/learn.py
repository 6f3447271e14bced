"""Outcomes to a model.  Deterministic: the same outcomes, options and library versions give the same bytes.

Labels are spent where they count: the representation (a vocabulary and its principal directions) needs none, so prompts
without a score still teach it; tables are drawn toward each model's mean; what a label teaches is judged only on rows
it was not taught from, which is what makes the probabilities honest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from router_policies.difficulty.model import (
    Array,
    Encoder,
    Features,
    Forms,
    Model,
    blended,
    evidence_of,
    fingerprint,
    logit,
    priors,
    shape_input,
    shares,
)
from router_policies.difficulty.outcomes import Outcomes
from router_policies.difficulty.text import Prompt, read

QUERIES_MIN = 20
"""Different prompts below which nothing is learned at all."""
EVIDENCE_NATS = 4.0
"""What reading the text must gain over a model's base rate, summed over its labels and seen on labels it was not taught
from, to count: by chance four free weights gain as much once in a hundred times."""
COVERAGE_ENOUGH = 0.75
DISTANCE_NEAR = 1.5
"""With this share of its words known, or this near in form, a text is never unlike: prompts made from one template
differ by less, and the next one may hold a new word."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many parts of it are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to learn.  The defaults are those of the figures in docs/routing.md."""

    seed: int = 0
    good_at: float = 0.5  # a score from here on is good enough
    terms_max: int = 12_000
    directions_max: int = 400
    folds: int = 5
    task_queries_min: int = 25  # smaller tasks are merged into what stands before the slash of their name
    labels_min: int = 40  # of a model, with both outcomes, for its own score; fewer: the task table alone
    prior_queries: float = 20.0  # a task's rate counts as many labels of the model's mean
    task_ridge: float = 1.0
    score_c: float = 0.4
    blend_c: float = 0.3
    sharpness: float = 6.0
    unlike_share: float = 0.004  # of what was learned from: a text beyond all but these, by any sign, is unlike it


@dataclass(frozen=True, slots=True)
class Learned:
    """A model with what it thought of each row before it had seen the row's labels."""

    model: Model
    held_out: Array  # rows x models; nan: no label, or no opinion


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is learned from: inputs, tasks and labels, row by row."""

    inputs: NDArray[np.float64]
    task: NDArray[np.intp]
    good: Array  # nan: no label
    tasks: int
    fold: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class _Heads:
    """Linear layers over inputs: K columns, and the table."""

    weights: NDArray[np.float64]  # inputs x K
    bias: NDArray[np.float64]
    table: Array


def nothing(_what: str, _done: int, _of: int) -> None:
    """Progress nobody watches."""


def learn(
    outcomes: Outcomes,
    options: Options | None = None,
    progress: Progress = nothing,
    embeddings: Array | None = None,
    groups: Sequence[str] = (),
) -> Learned:
    """A model of `outcomes`.  Raises ValueError for fewer than 20 different prompts, and where nothing is labelled.

    `embeddings` has a row for each query; queries of one group (without groups, of one prompt) are never on both sides
    of a split.  It keeps to one thread: its matrices are small, and on a busy machine several wait for each other.
    """
    distinct = len(set(outcomes.prompts))
    if distinct < QUERIES_MIN:
        raise ValueError(
            f"{distinct} different prompts are too few to learn from; {QUERIES_MIN} are the least, 1,000 a good start"
        )
    if np.isnan(outcomes.scores).all():
        raise ValueError("there is nothing to learn from: no row has a score")
    with threadpool_limits(1):
        return _learned(outcomes, options or Options(), progress, embeddings, groups)


def _learned(
    outcomes: Outcomes, options: Options, progress: Progress, embeddings: Array | None, groups: Sequence[str]
) -> Learned:
    progress("reading prompts", 0, 1)
    encoder, document_share = fit_encoder(outcomes.prompts, options, outcomes.salt)
    features = [encoder(prompt) for prompt in outcomes.prompts]
    directions = _directions(features, len(encoder.vocabulary), options)
    inputs = _inputs(features, directions, embeddings)
    names, task = merged_tasks(outcomes.domains, options.task_queries_min)
    good = np.where(np.isnan(outcomes.scores), np.nan, outcomes.scores >= options.good_at).astype(np.float32)
    rows = _Rows(inputs, task, good, len(names), fold_of(groups or outcomes.prompts, options))
    responses, evidence = _out_of_fold(rows, options, progress)
    blend = _blend(evidence, good, options)
    held_out = blended(blend, evidence)
    progress("learning from all parts", options.folds, options.folds + 1)
    heads = _heads(rows, np.arange(len(inputs)), options)
    share = options.unlike_share
    floors = np.array(
        [np.quantile(responses.max(axis=1), share), min(np.quantile(document_share, share), COVERAGE_ENOUGH)],
        dtype=np.float32,
    )
    forms = _forms(np.stack([f.shape for f in features]), outcomes.domains, options)
    model = _assembled(encoder, directions, heads, blend, floors, forms, names, outcomes, good, options)
    return Learned(model, np.where(np.isnan(good), np.nan, held_out).astype(np.float32))


def fit_encoder(prompts: tuple[Prompt, ...], options: Options, salt: str = "") -> tuple[Encoder, Array]:
    """The encoder of these prompts, and of each prompt the share of its words that others have too."""
    found = [read(prompt, salt) for prompt in prompts]
    frequency: Counter[str] = Counter()
    for _, bag, _ in found:
        frequency.update(set(bag))
    kept = sorted((term for term, n in frequency.items() if n > 1), key=lambda term: (-frequency[term], term))
    kept = kept[: options.terms_max]
    idf = np.log((1 + len(found)) / (1 + np.array([frequency[term] for term in kept], dtype=np.float32))) + 1
    forms = np.array([form for _, _, form in found], dtype=np.float32)
    place = {term: i for i, term in enumerate(kept)}
    encoder = Encoder(place, idf.astype(np.float32), forms.mean(axis=0), forms.std(axis=0) + 0.05, salt)
    others = [
        sum(frequency[word] > 2 and word in place for word in set(each)) / (len(set(each)) or 1) for each, _, _ in found
    ]
    return encoder, np.array(others, dtype=np.float32)


def merged_tasks(domains: tuple[str, ...], least: int) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """Tasks with at least `least` queries, and the task of each query; a small one becomes its parent, then "other"."""
    size = Counter(domains)
    parents = [domain if size[domain] >= least else domain.split("/", 1)[0] for domain in domains]
    size = Counter(parents)
    named = [parent if size[parent] >= least else "other" for parent in parents]
    names = tuple(sorted(set(named)))
    place = {name: i for i, name in enumerate(names)}
    return names, np.array([place[name] for name in named], dtype=np.intp)


def _sparse(features: list[Features], width: int) -> csr_matrix:
    ends = np.cumsum([0, *(len(f.index) for f in features)])
    columns = np.concatenate([f.index for f in features])
    weights = np.concatenate([f.weight for f in features]).astype(np.float64)
    return csr_matrix((weights, columns, ends), shape=(len(features), width))


def _directions(features: list[Features], width: int, options: Options) -> NDArray[np.float64]:
    """The principal directions of the terms, terms x directions: no label is used."""
    count = min(options.directions_max, len(features) // 2, width - 1)
    if count < 1:
        return np.zeros((width, 0))
    _, _, directions = randomized_svd(_sparse(features, width), count, n_iter=3, random_state=options.seed)
    return np.asarray(directions.T, dtype=np.float64)


def _inputs(features: list[Features], directions: NDArray[np.float64], embeddings: Array | None) -> NDArray[np.float64]:
    parts = [_sparse(features, len(directions)) @ directions, np.stack([shape_input(f.shape) for f in features])]
    if embeddings is not None:
        parts.append(embeddings)
    return np.hstack(parts).astype(np.float64)


def _heads(rows: _Rows, index: NDArray[np.intp], options: Options) -> _Heads:
    inputs, good, task = rows.inputs[index], rows.good[index], rows.task[index]
    onto = np.where(task[:, None] == np.arange(rows.tasks), 1.0, -1.0)
    mean = onto.mean(axis=0)
    gram = inputs.T @ inputs + options.task_ridge * np.eye(inputs.shape[1])
    weights = [np.linalg.solve(gram, inputs.T @ (onto - mean))]
    bias = [mean]
    for model in range(good.shape[1]):
        slope, constant = _score(inputs, good[:, model], options)
        weights.append(slope[:, None])
        bias.append(np.array([constant]))
    return _Heads(np.hstack(weights), np.concatenate(bias), _table(good, task, rows.tasks, options.prior_queries))


def _score(inputs: NDArray[np.float64], good: Array, options: Options) -> tuple[NDArray[np.float64], float]:
    """A logistic regression on the rows with a label; zero where there are too few."""
    rows = ~np.isnan(good)
    labels = good[rows] > 0.5
    if not _enough(labels, options.labels_min):
        return np.zeros(inputs.shape[1]), 0.0
    fitted = LogisticRegression(C=options.score_c, max_iter=1000, tol=1e-3).fit(inputs[rows], labels)
    return fitted.coef_[0], float(fitted.intercept_[0])


def _enough(labels: NDArray[np.bool_], least: int) -> bool:
    return len(labels) >= least and 5 <= labels.sum() <= len(labels) - 5


def _table(good: Array, task: NDArray[np.intp], tasks: int, weight: float) -> Array:
    """P(good enough) for tasks x models, drawn toward the model's mean as by `weight` labels; nan where none."""
    member = (task[:, None] == np.arange(tasks)).astype(np.float32)
    labelled = ~np.isnan(good)
    count = member.T @ labelled.astype(np.float32)
    sums = member.T @ np.where(labelled, good, 0).astype(np.float32)
    mean = sums.sum(axis=0) / np.maximum(count.sum(axis=0), 1)
    return np.where(count > 0, (sums + weight * mean) / (count + weight), np.nan).astype(np.float32)


def _out_of_fold(rows: _Rows, options: Options, progress: Progress) -> tuple[Array, Array]:
    """Responses of the tasks and evidence for each model, of each row, from heads that have not seen it."""
    responses = np.zeros((len(rows.inputs), rows.tasks), dtype=np.float32)
    evidence = np.zeros((*rows.good.shape, 4), dtype=np.float32)
    for done in range(options.folds):
        seen, unseen = np.flatnonzero(rows.fold != done), np.flatnonzero(rows.fold == done)
        progress("learning from all parts but one", done, options.folds + 1)
        heads = _heads(rows, seen, options)
        raw = (rows.inputs[unseen] @ heads.weights + heads.bias).astype(np.float32)
        responses[unseen] = raw[:, : rows.tasks]
        prior, known = priors(shares(responses[unseen], options.sharpness), heads.table)
        evidence[unseen] = evidence_of(prior, known, raw[:, rows.tasks :])
    return responses, evidence


def fold_of(groups: Sequence[Prompt], options: Options) -> NDArray[np.intp]:
    """The fold of each query, one for all of a group."""
    _, member = np.unique(np.array(groups, dtype=object).astype(str), return_inverse=True)
    count = int(member.max()) + 1
    fold: NDArray[np.intp] = (np.random.default_rng(options.seed).permutation(count) % options.folds)[member]
    return fold


def _blend(evidence: Array, good: Array, options: Options) -> Array:
    """For each model a constant and the weights of its evidence; the prior alone where labels are few.

    Weights say "more of this is better" or nothing: what a table learned from the other rows is set against a row's own
    label (the more of the good ones it holds, the fewer are left), so free weights turn labels that say nothing into a
    router that is worse than chance.  Evidence that does not show on rows it was not taught from gets no weight: the
    model's base rate is all that is known.
    """
    blend = np.tile(np.array([0, 1, 0, 0, 0], dtype=np.float32), (good.shape[1], 1))
    for model in range(good.shape[1]):
        rows = ~np.isnan(good[:, model]) & ~np.isnan(evidence[:, model, 0])
        labels = good[rows, model] > 0.5
        if _enough(labels, options.labels_min):
            blend[model] = _weighed(evidence[rows, model].astype(np.float64), labels, options.blend_c)
    return blend


def _weighed(evidence: NDArray[np.float64], labels: NDArray[np.bool_], strength: float) -> list[float]:
    """A constant and the weights of own prior, own score and both means over models, of a logistic regression.

    None of the weights of the means, and of what is above or below them, is negative.
    """
    own, means = evidence[:, :2], evidence[:, 2:]
    inputs = np.hstack([np.ones((len(labels), 1)), own - means, means])
    sign = np.where(labels, 1.0, -1.0)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = sign * (inputs @ weights)
        slope = -sign / (1 + np.exp(np.clip(margin, -30, 30)))
        penalty = weights[1:] / strength
        value = np.logaddexp(0, -margin).sum() + penalty @ weights[1:] / 2
        return float(value), inputs.T @ slope + np.concatenate([[0.0], penalty])

    base = float(logit(np.asarray(labels.mean())))
    start = np.array([base, 0.0, 0.0, 0.0, 0.0])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(None, None)] + [(0, None)] * 4)
    if loss(start)[0] - found.fun < EVIDENCE_NATS:
        return [base, 0.0, 0.0, 0.0, 0.0]
    constant, *weights = found.x.tolist()
    return [constant, weights[0], weights[1], weights[2] - weights[0], weights[3] - weights[1]]


def _forms(shapes: Array, domains: tuple[str, ...], options: Options) -> Forms:
    """The usual shapes of each family: what stands before the slash of a task's name."""
    families, member = merged_tasks(tuple(domain.split("/", 1)[0] for domain in domains), options.task_queries_min)
    each = [shapes[member == family] for family in range(len(families))]
    usual = Forms(
        np.stack([rows.mean(axis=0) for rows in each]),
        np.stack([rows.std(axis=0) + 0.05 for rows in each]),
        np.zeros(len(each), dtype=np.float32),
    )
    distances = usual.distances(shapes)
    own = [np.quantile(distances[member == f, f], 1 - options.unlike_share) for f in range(len(each))]
    return Forms(usual.mean, usual.sd, np.maximum(own, DISTANCE_NEAR).astype(np.float32))


def _assembled(
    encoder: Encoder,
    directions: NDArray[np.float64],
    heads: _Heads,
    blend: Array,
    floors: Array,
    forms: Forms,
    names: tuple[str, ...],
    outcomes: Outcomes,
    good: Array,
    options: Options,
) -> Model:
    """The linear steps multiplied out: terms and shape go straight to the K columns."""
    wide = directions.shape[1]
    narrow = wide + len(encoder.shape_mean)
    embedded = heads.weights[narrow:].astype(np.float32)
    labelled = ~np.isnan(good)
    quality = np.where(labelled, good, 0).sum(axis=0) / np.maximum(labelled.sum(axis=0), 1)
    return Model(
        encoder=encoder,
        tasks=names,
        models=outcomes.models,
        term_weights=(directions @ heads.weights[:wide]).astype(np.float32),
        shape_weights=heads.weights[wide:narrow].astype(np.float32),
        bias=heads.bias.astype(np.float32),
        table=heads.table,
        blend=blend,
        sharpness=options.sharpness,
        floors=floors,
        forms=forms,
        embedding_weights=embedded if len(embedded) else None,
        trained_on=np.unique(np.array([fingerprint(prompt) for prompt in outcomes.prompts], dtype=np.uint32)),
        quality=quality.astype(np.float32),
    )
