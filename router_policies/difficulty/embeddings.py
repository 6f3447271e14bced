"""Sentence embeddings from an ONNX file the user provides.  Needs the extra `embeddings`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from router_policies.difficulty.model import Array
from router_policies.difficulty.text import window

TOKENS_MAX = 256
BATCH = 32


class Embedder:
    """A directory with `model.onnx` (a BERT-like encoder) and `tokenizer.json`: mean of the last layer, of length 1."""

    def __init__(self, directory: Path) -> None:
        import onnxruntime  # noqa: PLC0415 - an optional dependency
        from tokenizers import Tokenizer  # noqa: PLC0415 - an optional dependency

        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.enable_truncation(TOKENS_MAX)
        self._tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(directory / "model.onnx"), options)
        self._inputs = {each.name for each in self._session.get_inputs()}

    def one(self, text: str) -> Array:
        """The embedding of one text."""
        embedding: Array = self._batch([text])[0]
        return embedding

    def __call__(self, texts: Sequence[str]) -> Array:
        """The embeddings of texts, a row each; texts of a length go together, which is quicker."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        parts = [self._batch([texts[i] for i in order[at : at + BATCH]]) for at in range(0, len(order), BATCH)]
        out = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
        out[order] = np.concatenate(parts)
        return out

    def _batch(self, texts: list[str]) -> Array:
        encoded = self._tokenizer.encode_batch([window(text) for text in texts])
        ids = np.array([each.ids for each in encoded], dtype=np.int64)
        mask = np.array([each.attention_mask for each in encoded], dtype=np.int64)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        last = self._session.run(None, {name: given[name] for name in self._inputs})[0]
        pooled = (last * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True) if last.ndim == 3 else last
        unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return np.asarray(unit, dtype=np.float32)
