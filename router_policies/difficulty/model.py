"""Text to P(good enough) for each model, or to no opinion.

    terms, shape  --linear-->  a response for each task, a score for each model
    responses     --softmax->  how much of each task this is  --table-->  a prior for each model
    prior, score, and their means over all models  --logistic, fitted out of fold-->  P(good enough), calibrated

No opinion is said of a text unlike all that was learned from, and of a model that was never seen on such a task.
Everything is plain numbers, read with numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from router_policies.difficulty.text import HEAD_CHARS, TAIL_CHARS, Prompt, plain_name, read, window

Array = NDArray[Any]
"""Floats; 32 bits where it is kept or served."""

MEMO_MAX = 4096
"""Opinions kept: one for each text read lately."""
EVIDENCE_MIN = 0.5
"""A model is judged only if this share of the text's tasks has labels of that model."""
SHAPE_CLIP = 3.0
SHAPE_WEIGHT = 0.2


@dataclass(frozen=True, slots=True)
class Opinion:
    """What is thought of one text.  `p` holds nan for a model of which nothing is known here."""

    task: str
    p: Array
    known: bool  # False: unlike anything learned from; then every p is nan
    why: str = ""  # of an unknown text, in words


@dataclass(frozen=True, slots=True)
class Features:
    """One text as numbers: known terms with their weights (of length 1), shape, and the share of words known."""

    index: NDArray[np.intp]
    weight: Array
    shape: Array
    coverage: float


@dataclass(frozen=True, slots=True)
class Forms:
    """The usual shapes: for each family of tasks a mean, a spread, and how far off its own texts are at most."""

    mean: Array  # families x shape
    sd: Array
    farthest: Array  # families

    def distances(self, form: Array) -> Array:
        """From each family: the mean square in its standard deviations, each at most 6.  `form` may have rows."""
        bounded = np.minimum(np.abs(form[..., None, :] - self.mean) / self.sd, 6.0)
        distances: Array = np.einsum("...i,...i->...", bounded, bounded) / form.shape[-1]
        return distances

    def strange(self, form: Array) -> bool:
        """Whether a shape is farther from every family than that family's own texts."""
        return bool((self.distances(form) > self.farthest).all())


@dataclass(frozen=True, slots=True)
class Encoder:
    """Text to features."""

    vocabulary: dict[str, int]
    idf: Array
    shape_mean: Array
    shape_sd: Array
    salt: str = field(default="", repr=False)  # of the readings it was learned from; "": from texts

    def __call__(self, prompt: Prompt) -> Features:
        """The features of one prompt."""
        found, bag, measured = read(prompt, self.salt)
        known = np.array([at for at in map(self.vocabulary.get, bag) if at is not None], dtype=np.intp)
        index, count = np.unique(known, return_counts=True)
        weight = (1.0 + np.log(count)) * self.idf[index]
        length = float(np.sqrt(weight @ weight)) or 1.0
        distinct = set(found)
        coverage = sum(map(self.vocabulary.__contains__, distinct)) / (len(distinct) or 1)
        form = (np.array(measured, dtype=np.float32) - self.shape_mean) / self.shape_sd
        return Features(index, (weight / length).astype(np.float32), form.astype(np.float32), coverage)


def shape_input(form: Array) -> Array:
    """Shape as the linear layer takes it."""
    return np.clip(form, -SHAPE_CLIP, SHAPE_CLIP) * np.float32(SHAPE_WEIGHT)


def logit(p: Array) -> Array:
    """The logit of p, kept within 1 % and 99 %: a table of few labels knows no better."""
    bounded = np.clip(p, 0.01, 0.99)
    odds: Array = np.log(bounded / (1 - bounded))
    return odds


def sigmoid(x: Array) -> Array:
    """The inverse of the logit."""
    p: Array = 1 / (1 + np.exp(-np.clip(x, -30, 30)))
    return p


def shares(responses: Array, sharpness: float) -> Array:
    """Responses of the tasks (rows x tasks) to shares that sum to 1."""
    powers = np.exp(sharpness * (responses - responses.max(axis=1, keepdims=True)))
    share: Array = powers / powers.sum(axis=1, keepdims=True)
    return share


def priors(share: Array, table: Array) -> tuple[Array, Array]:
    """What the task table says of each model, and the share of tasks it knows of.  `table` holds nan for no labels."""
    known = ~np.isnan(table)
    evidence = share @ known.astype(np.float32)
    prior = (share @ np.where(known, table, 0).astype(np.float32)) / np.maximum(evidence, 1e-6)
    return prior, evidence


def evidence_of(prior: Array, known: Array, score: Array) -> Array:
    """What P is blended from, rows x models x 4: a model's prior (as logit) and score, and the means over all models.

    The means say how hard a text is for anyone.  A model that is not known on the text's tasks has nan.
    """
    out = np.empty((*prior.shape, 4), dtype=np.float32)
    out[..., 0] = logit(prior)
    out[..., 1] = score
    member = known >= EVIDENCE_MIN
    count = np.maximum(member.sum(axis=1), 1)
    for own in (0, 1):
        out[..., own + 2] = ((out[..., own] * member).sum(axis=1) / count)[:, None]
    out[~member] = np.nan
    return out


def blended(blend: Array, evidence: Array) -> Array:
    """P(good enough), rows x models; nan where there is no evidence."""
    return sigmoid(blend[:, 0] + (evidence * blend[:, 1:]).sum(axis=2))


@dataclass(frozen=True)
class Model:
    """A learned model.  K columns are the tasks, then the models."""

    encoder: Encoder
    tasks: tuple[str, ...]
    models: tuple[str, ...]
    term_weights: Array  # terms x K
    shape_weights: Array  # shape x K
    bias: Array  # K
    table: Array  # tasks x models: P(good enough), nan where there are no labels
    blend: Array  # models x 5: a constant, and weights of what `evidence_of` gives
    sharpness: float
    floors: Array  # least response of a task, least coverage, of a text that is known
    forms: Forms
    embedding_weights: Array | None = None  # dimensions x K
    trained_on: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))  # sorted fingerprints
    quality: Array = field(default_factory=lambda: np.zeros(0, np.float32))  # of each model, over all its labels
    _memo: dict[str, Opinion] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def place(self) -> Mapping[str, int]:
        """The column of each model by its plain name."""
        return {plain_name(model): i for i, model in enumerate(self.models)}

    def opinion(self, text: str, embed: Callable[[str], Array] | None = None) -> Opinion:
        """What is thought of `text`; remembered.  `embed` is needed by a model that was trained with embeddings."""
        key = text if len(text) <= HEAD_CHARS + TAIL_CHARS else f"{len(text)} {window(text)}"
        found = self._memo.get(key)
        if found is None:
            if len(self._memo) >= MEMO_MAX:
                self._memo.clear()
            found = self._memo[key] = self._judge(self.encoder(text), embed(text) if embed else None)
        return found

    def probabilities(self, texts: Sequence[Prompt], embeddings: Array | None = None) -> Array:
        """P(good enough) for texts x models; nan where there is no opinion."""
        rows = embeddings if embeddings is not None else [None] * len(texts)
        return np.stack([self._judge(self.encoder(text), row).p for text, row in zip(texts, rows, strict=True)])

    def _judge(self, features: Features, embedding: Array | None) -> Opinion:
        raw = features.weight @ self.term_weights[features.index] + shape_input(features.shape) @ self.shape_weights
        raw += self.bias
        if self.embedding_weights is not None:
            if embedding is None:
                raise ValueError("this artifact was trained with embeddings: name the ONNX model in `embeddings`")
            raw += embedding @ self.embedding_weights
        count = len(self.tasks)
        share = shares(raw[None, :count], self.sharpness)
        task = self.tasks[int(share[0].argmax())]
        why = self._unlike(float(raw[:count].max()), features)
        if why:
            return Opinion(task, np.full(len(self.models), np.nan, np.float32), known=False, why=why)
        prior, known = priors(share, self.table)
        return Opinion(task, blended(self.blend, evidence_of(prior, known, raw[None, count:]))[0], known=True)

    def _unlike(self, response: float, features: Features) -> str:
        """Why a text is unlike all that was learned from; empty if it is not."""
        if features.coverage < self.floors[1]:
            return f"only {features.coverage:.0%} of its words are known"
        if self.forms.strange(features.shape):
            return "its form is unlike that of any known task"
        if response < self.floors[0]:
            return "it is like none of the known tasks"
        return ""


def fingerprint(prompt: Prompt) -> int:
    """32 bits that tell whether a prompt was trained on, without keeping it."""
    return crc32(str(prompt).encode(errors="replace"))
