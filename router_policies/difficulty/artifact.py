"""A model as a directory: `artifact.npz` (plain arrays, never pickled) and `card.json` (what it is, and its hash)."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from router_policies.difficulty.model import Encoder, Forms, Model

DEFAULT = Path(__file__).parent / "data"
"""The artifact that ships, trained on Apache-2.0 licensed outcomes only; see its card."""
ARRAYS = "artifact.npz"
CARD = "card.json"
FORMAT = 1


class ArtifactError(ValueError):
    """A directory that holds no artifact, or a damaged one."""


def save(model: Model, card: Mapping[str, Any], directory: Path) -> None:
    """Writes the artifact; the card gains the format and the hash of the arrays.  Each file is replaced whole."""
    directory.mkdir(parents=True, exist_ok=True)
    data = packed(model)
    complete = {**card, "format": FORMAT, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    for name, content in ((ARRAYS, data), (CARD, (json.dumps(complete, indent=2) + "\n").encode())):
        fresh = directory / f".{name}.new"
        fresh.write_bytes(content)
        fresh.replace(directory / name)


def load(directory: Path) -> Model:
    """The artifact in `directory`; the same object until its file changes.  Raises ArtifactError."""
    try:
        changed = (directory / ARRAYS).stat().st_mtime_ns
    except OSError as error:
        raise ArtifactError(f"{directory} holds no artifact ({ARRAYS}): {error.strerror}") from error
    return _load(directory, changed)


def card(directory: Path) -> dict[str, Any]:
    """The card of the artifact in `directory`.  Raises ArtifactError."""
    try:
        found = json.loads((directory / CARD).read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{directory} holds no readable {CARD}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ArtifactError(f"{directory / CARD} is not of format {FORMAT}: train it again")
    return found


@lru_cache(maxsize=8)
def _load(directory: Path, changed: int) -> Model:  # noqa: ARG001 - `changed` is part of the cache's key
    data = (directory / ARRAYS).read_bytes()
    if hashlib.sha256(data).hexdigest() != card(directory).get("sha256"):
        raise ArtifactError(f"{directory / ARRAYS} is not the file its card describes (sha256 differs)")
    return unpacked(data)


def packed(model: Model) -> bytes:
    """The model as a compressed .npz; weights of terms are kept in 8 bits, each column with its own scale."""
    scale = np.abs(model.term_weights).max(axis=0) / 127 + 1e-12
    vocabulary = sorted(model.encoder.vocabulary, key=model.encoder.vocabulary.__getitem__)
    arrays = {
        "vocabulary": _text(vocabulary),
        "tasks": _text(model.tasks),
        "models": _text(model.models),
        "idf": model.encoder.idf.astype(np.float16),
        "shape_mean": model.encoder.shape_mean,
        "shape_sd": model.encoder.shape_sd,
        "term_weights": np.round(model.term_weights / scale).astype(np.int8),
        "term_scale": scale.astype(np.float32),
        "shape_weights": model.shape_weights,
        "bias": model.bias,
        "table": model.table,
        "blend": model.blend,
        "sharpness": np.float32(model.sharpness),
        "floors": model.floors,
        "form_mean": model.forms.mean,
        "form_sd": model.forms.sd,
        "form_farthest": model.forms.farthest,
        "trained_on": model.trained_on,
        "quality": model.quality,
    }
    if model.encoder.salt:
        arrays["salt"] = _text((model.encoder.salt,))
    if model.embedding_weights is not None:
        arrays["embedding_weights"] = model.embedding_weights.astype(np.float16)
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **arrays)
    return out.getvalue()


def unpacked(data: bytes) -> Model:
    """The inverse of `packed`, within 8 bits of each weight."""
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        a = {name: found[name] for name in found.files}
    names = _names(a["vocabulary"])
    extra = a.get("embedding_weights")
    salt = _names(a["salt"])[0] if "salt" in a else ""
    return Model(
        encoder=Encoder(
            {name: i for i, name in enumerate(names)}, a["idf"].astype(np.float32), a["shape_mean"], a["shape_sd"], salt
        ),
        tasks=tuple(_names(a["tasks"])),
        models=tuple(_names(a["models"])),
        term_weights=a["term_weights"].astype(np.float32) * a["term_scale"],
        shape_weights=a["shape_weights"],
        bias=a["bias"],
        table=a["table"],
        blend=a["blend"],
        sharpness=float(a["sharpness"]),
        floors=a["floors"],
        forms=Forms(a["form_mean"], a["form_sd"], a["form_farthest"]),
        embedding_weights=None if extra is None else extra.astype(np.float32),
        trained_on=a["trained_on"],
        quality=a["quality"],
    )


def _text(names: list[str] | tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer("\n".join(names).encode(), dtype=np.uint8)


def _names(data: np.ndarray[Any, np.dtype[np.uint8]]) -> list[str]:
    return data.tobytes().decode().split("\n")
