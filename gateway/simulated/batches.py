"""Batches of the simulated provider, as OpenAI has them: files and batches, kept in memory and answered after a while.

A line is answered as if it had come by itself, so scripts work in batches too.  The oldest files and batches are
forgotten when there are too many.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from gateway import multipart
from gateway.errors import InvalidRequest
from gateway.simulated.reply import Fault, InputTokens, respond

KEPT_MAX = 200
BATCH_S = 1.0

Json: TypeAlias = dict[str, Any]
Said: TypeAlias = tuple[int, bytes]
"""A status and a body."""


@dataclass(slots=True)
class _Batch:
    id: str
    asked: Json
    created: float
    cancelled: bool = False
    output: str = ""
    errors: str = ""
    counts: Json = field(default_factory=lambda: {"total": 0, "completed": 0, "failed": 0})


class Batches:
    """One provider's.  `batch_s`: how long a batch takes."""

    def __init__(self, now: Callable[[], float], input_tokens: InputTokens, batch_s: float = BATCH_S) -> None:
        self.batch_s = batch_s
        self._now, self._input_tokens = now, input_tokens
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, _Batch] = {}
        self._made = 0

    def answer(self, method: str, path: str, content_type: str, body: bytes) -> Said | None:
        """The reply to a request for files or batches; None: it is for neither."""
        found = re.fullmatch(r".*/(files|batches)(?:/([\w-]+))?(?:/(content|cancel))?", path)
        if found is None:
            return None
        serve = self._file if found[1] == "files" else self._batch
        return serve(method, found[2] or "", found[3] or "", (content_type, body))

    def _file(self, method: str, id_: str, below: str, sent: tuple[str, bytes]) -> Said:
        if method == "POST" and not id_:
            return self._upload(*sent)
        if id_ not in self._files:
            return _failed(404, f"No such file: {id_}")
        if method == "DELETE":
            del self._files[id_]
            return 200, orjson.dumps({"id": id_, "object": "file", "deleted": True})
        if below == "content":
            return 200, self._files[id_]
        return 200, orjson.dumps({"id": id_, "object": "file", "bytes": len(self._files[id_]), "purpose": "batch"})

    def _upload(self, content_type: str, body: bytes) -> Said:
        boundary = multipart.boundary(content_type)
        try:
            fields: Mapping[str, Any] = multipart.fields(body, boundary) if boundary else {}
        except InvalidRequest as error:
            return _failed(400, error.message)
        if not isinstance(fields.get("file"), memoryview):
            return _failed(400, "file: a file is required")
        id_ = self._keep(bytes(fields["file"]))
        return 200, orjson.dumps({"id": id_, "object": "file", "purpose": "batch"})

    def _batch(self, method: str, id_: str, below: str, sent: tuple[str, bytes]) -> Said:
        if method == "POST" and not id_:
            return self._create(orjson.loads(sent[1]))
        if not id_:
            return 200, orjson.dumps({"object": "list", "data": [self._shape(each) for each in self._batches.values()]})
        batch = self._batches.get(id_)
        if batch is None:
            return _failed(404, f"No such batch: {id_}")
        if below == "cancel":
            batch.cancelled = batch.cancelled or not self._due(batch)
        return 200, orjson.dumps(self._shape(batch))

    def _create(self, asked: Json) -> Said:
        if asked.get("input_file_id") not in self._files:
            return _failed(400, f"No such file: {asked.get('input_file_id')}")
        self._made += 1
        batch = _Batch(f"batch_sim_{self._made:06d}", asked, self._now())
        self._batches[batch.id] = batch
        while len(self._batches) > KEPT_MAX:
            del self._batches[next(iter(self._batches))]
        return 200, orjson.dumps(self._shape(batch))

    def _due(self, batch: _Batch) -> bool:
        return self._now() >= batch.created + self.batch_s

    def _shape(self, batch: _Batch) -> Json:
        over = batch.cancelled or self._due(batch)
        if over and not batch.counts["total"]:
            self._serve(batch)
        status = "cancelled" if batch.cancelled else "completed" if over else "in_progress"
        return {
            "id": batch.id,
            "object": "batch",
            **{name: batch.asked.get(name) for name in ("input_file_id", "endpoint", "completion_window", "metadata")},
            "status": status,
            "created_at": int(batch.created),
            "output_file_id": batch.output or None,
            "error_file_id": batch.errors or None,
            "request_counts": batch.counts,
        }

    def _serve(self, batch: _Batch) -> None:
        """Every line is answered; none of a batch that was cancelled in time."""
        good: list[Json] = []
        bad: list[Json] = []
        for number, raw in enumerate(self._files.get(str(batch.asked["input_file_id"]), b"").splitlines()):
            line = orjson.loads(raw)
            named = {"id": f"batch_req_{batch.id}_{number}", "custom_id": line["custom_id"]}
            if batch.cancelled:
                bad.append(named | {"response": None, "error": {"code": "batch_cancelled", "message": "Cancelled."}})
                continue
            status, body = self._reply(str(line["url"]), orjson.dumps(line["body"]))
            whole = named | {
                "response": {"status_code": status, "request_id": named["id"], "body": body},
                "error": None,
            }
            (good if status == 200 else bad).append(whole)
        batch.counts = {"total": len(good) + len(bad), "completed": len(good), "failed": len(bad)}
        batch.output = self._keep(b"\n".join(map(orjson.dumps, good))) if good else ""
        batch.errors = self._keep(b"\n".join(map(orjson.dumps, bad))) if bad else ""

    def _reply(self, path: str, body: bytes) -> tuple[int, Json]:
        reply = respond(path, body, int(self._now()), self._input_tokens)
        pieces = [piece for _, piece in reply.pieces]
        whole = b"".join(piece for piece in pieces if not isinstance(piece, Fault))
        try:
            return reply.status, orjson.loads(whole)
        except orjson.JSONDecodeError:  # its script breaks it off
            return 500, {"error": {"message": "The script breaks this answer off", "type": "server_error"}}

    def _keep(self, content: bytes) -> str:
        self._made += 1
        id_ = f"file-sim-{self._made:06d}"
        self._files[id_] = content
        while len(self._files) > KEPT_MAX:
            del self._files[next(iter(self._files))]
        return id_


def _failed(status: int, message: str) -> Said:
    return status, orjson.dumps({"error": {"message": message, "type": "invalid_request_error", "param": None}})
