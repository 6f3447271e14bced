"""Files, as OpenAI has them: what batches read and write.

    POST   /v1/files                 multipart: purpose=batch, file
    GET    /v1/files                 ?purpose= &limit= &after= &order=
    GET    /v1/files/{id}
    GET    /v1/files/{id}/content
    DELETE /v1/files/{id}

A file belongs to one tenant; to another it is not there.  It ends after 30 days, or as `expires_after[seconds]` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway import multipart
from gateway.api.stored import PAGE_MAX, Visit, listed
from gateway.errors import InvalidRequest, MethodNotAllowed, NotFound
from gateway.sql.files import KEPT_S, File, Files, cut

PREFIX = "/v1/files/"
BYTES_MAX = 200 * 1024 * 1024
UPLOAD_S = 600.0
PURPOSE = "batch"
KEPT_MIN_S = 3600
CONTENT = (b"content-type", b"application/octet-stream")

METHODS: Mapping[tuple[bool, str], tuple[str, ...]] = {
    (False, ""): ("GET", "POST"),
    (True, ""): ("GET", "DELETE"),
    (True, "content"): ("GET",),
}
"""What each path takes: whether it names one, and what stands below it."""


class FilesEndpoint:
    """See the module."""

    def __init__(self, files: Files) -> None:
        self.files = files

    async def serve(self, visit: Visit) -> None:
        """See gateway.api.stored.Kept."""
        id_, _, below = visit.scope["path"].removeprefix(PREFIX[:-1]).removeprefix("/").partition("/")
        match visit.method, bool(id_), below:
            case "POST", False, "":
                await visit.answer(shape(await self._upload(visit)))
            case "GET", False, "":
                await visit.answer(await self._list(visit))
            case "GET", True, "":
                await visit.answer(shape(await self.files.get(visit.tenant.id, id_)))
            case "GET", True, "content":
                await self._content(visit, await self.files.get(visit.tenant.id, id_))
            case "DELETE", True, "":
                file = await self.files.get(visit.tenant.id, id_)
                await self.files.delete(file.id)
                await visit.answer({"id": file.id, "object": "file", "deleted": True})
            case _, named, _ if (named, below) in METHODS:
                raise MethodNotAllowed(visit.scope["path"], METHODS[named, below])
            case _:
                raise NotFound(f"There is nothing at {visit.scope['path'][:200]!r}.")

    async def _upload(self, visit: Visit) -> File:
        boundary = multipart.boundary(visit.headers.get("content-type", ""))
        if boundary is None:
            raise InvalidRequest("A file is uploaded as multipart/form-data, with `purpose` and `file`.", param="file")
        raw = await visit.body(BYTES_MAX, UPLOAD_S)
        fields = multipart.fields(raw, boundary)
        if fields.get("purpose") != PURPOSE:
            raise InvalidRequest(f"`purpose` must be {PURPOSE!r}: files serve batches here.", param="purpose")
        content = fields.get("file")
        if not isinstance(content, memoryview) or not content:
            raise InvalidRequest("`file` must be a file that is not empty.", param="file")
        name = multipart.filename(raw, boundary, "file")
        return await self.files.put(visit.tenant.id, PURPOSE, name, cut(content), _kept_s(fields))

    async def _list(self, visit: Visit) -> dict[str, Any]:
        count, after = visit.count(PAGE_MAX), visit.asked("after")
        last = await self.files.get(visit.tenant.id, after) if after else None
        up = visit.asked("order") == "asc"
        found = await self.files.page(visit.tenant.id, visit.asked("purpose"), count + 1, last, up=up)
        return listed([shape(file) for file in found[:count]], more=len(found) > count)

    async def _content(self, visit: Visit, file: File) -> None:
        size = (b"content-length", b"%d" % (file.bytes or 0))
        await visit.reply.start(200, [CONTENT, size, (b"x-tollgate-request-id", visit.request_id.encode())])
        async for part in self.files.parts(file.id):
            await visit.reply.chunk(part)
        await visit.reply.end(b"")


def shape(file: File) -> dict[str, Any]:
    """OpenAI's file object."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes or 0,
        "created_at": int(file.created),
        "expires_at": int(file.expires),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def _kept_s(fields: dict[str, Any]) -> float:
    said = fields.get("expires_after[seconds]")
    if said is None:
        return KEPT_S
    if not isinstance(said, str) or not said.isdecimal() or not KEPT_MIN_S <= int(said[:9]) <= KEPT_S:
        message = f"`expires_after[seconds]` must be from {KEPT_MIN_S} to {int(KEPT_S)}."
        raise InvalidRequest(message, param="expires_after")
    return float(said)
