"""`GET /openapi.json`: the data plane in OpenAPI 3.1.  Paths come from the tables the gateway serves by, refusals
from the tree of errors, so that the document cannot promise what is not there.  The admin API has one of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import orjson

from gateway import __version__, errors
from gateway.api import openapi_shapes as shapes
from gateway.api.chat import COUNTED, GENERATED
from gateway.api.reply import ASGISend, Receive, Reply
from gateway.dialects.endpoints import FREE_FORM
from gateway.errors import GatewayError
from gateway.reply_headers import JSON
from gateway.types import Format

Spec = dict[str, Any]

_EVERYWHERE = (errors.InvalidRequest, errors.Unauthorized, errors.Suspended, errors.MethodNotAllowed)
_KEPT = (*_EVERYWHERE, errors.Forbidden, errors.NotFound, errors.Unavailable, errors.InternalError)
_ADMIN = (errors.InvalidRequest, errors.Unauthorized, errors.NotFound, errors.Unavailable, errors.InternalError)


def leaves(kind: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    """Every error of the tree below `kind`."""
    for each in kind.__subclasses__():
        yield each
        yield from leaves(each)


def document() -> Spec:
    """The whole of it."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tollgate",
            "version": __version__,
            "description": "OpenAI's API, and Anthropic's Messages, over every provider that is configured. "
            "The admin API is described at /admin/openapi.json, with the admin key.",
        },
        "security": _keys(),
        "paths": {**dict(_generation()), **_models(), **_stored(), **_files(), **_batches(), **_probes()},
        "components": {
            "securitySchemes": SECURITY,
            "schemas": {"Error": shapes.ERROR, "AnthropicError": shapes.ANTHROPIC_ERROR},
        },
    }


SECURITY: Mapping[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def _keys() -> list[dict[str, list[str]]]:
    return [{name: []} for name in SECURITY]


class Described:
    """Answers with the document; needs no key, as it is the same everywhere."""

    @cached_property
    def _body(self) -> bytes:
        return orjson.dumps(document())

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: ASGISend) -> None:  # noqa: ARG002  # ASGI's signature
        """200 and the document."""
        await Reply(send).whole(200, [JSON], self._body)


def refusals(kinds: Iterable[type[GatewayError]], schema: str = "Error") -> Spec:
    """Responses by status, each with the codes that it may have."""
    by_status: dict[int, dict[str, None]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, {})[kind.code] = None
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    headers = _headers({**shapes.REQUEST_ID, **shapes.ERROR_HEADERS})
    return {
        str(status): {"description": ", ".join(codes), "headers": headers, "content": content}
        for status, codes in sorted(by_status.items())
    }


def administered(found: Spec) -> Spec:
    """FastAPI's own document of the admin API, with the refusals that it really gives and who may ask."""
    components = found.setdefault("components", {})
    components["securitySchemes"] = dict(SECURITY)
    components.setdefault("schemas", {})["Error"] = shapes.ERROR
    found["security"] = _keys()
    for methods in found["paths"].values():
        for method, operation in methods.items():
            operation["responses"].pop("422", None)
            changes = () if method == "get" else (errors.Conflict,)
            operation["responses"] |= refusals([*_ADMIN, *changes])
    return found


def _headers(fields: Mapping[str, shapes.Field]) -> Spec:
    return {name: {"description": each.told, "schema": each.schema} for name, each in fields.items()}


def _asked(where: str, fields: Mapping[str, shapes.Field], *, required: bool = False) -> list[Spec]:
    return [
        {"name": name, "in": where, "required": required, "description": each.told, "schema": each.schema}
        for name, each in fields.items()
    ]


def _body(schema: shapes.Schema, *media: str) -> Spec:
    return {"required": True, "content": {each: {"schema": schema} for each in media or ("application/json",)}}


def _answer(told: str, schema: shapes.Schema, headers: Mapping[str, shapes.Field] = shapes.REQUEST_ID) -> Spec:
    return {
        "200": {
            "description": told,
            "headers": _headers(headers),
            "content": {"application/json": {"schema": schema}},
        }
    }


def _operation(told: str, tag: str, responses: Spec, **more: object) -> Spec:
    return {"summary": told, "tags": [tag], "responses": responses, **more}


def _generation() -> Iterator[tuple[str, Spec]]:
    for path, format_ in GENERATED.items():
        yield path, {"post": _generated(format_)}
    for path, format_ in COUNTED.items():
        counted = _answer("The gateway's own estimate.", shapes.holding(input_tokens=shapes.COUNT), {})
        yield path, {"post": _told(format_, "Input tokens, counted without a call and without a charge.", counted)}


def _generated(format_: Format) -> Spec:
    talk = shapes.TALKS[format_]
    headers = {**shapes.REQUEST_ID, **shapes.REPLY_HEADERS, **shapes.RATE_HEADERS}
    answer = _answer("The provider's reply, in the client's format.", talk.reply, headers)
    if talk.streams:
        answer["200"]["content"]["text/event-stream"] = {}
    if format_ in FREE_FORM:
        answer["200"]["content"] |= {"text/*": {}, "audio/*": {}, "application/octet-stream": {}}
    return _told(format_, talk.told, answer, {**shapes.ONCE_HEADER, **shapes.ASKED_HEADERS})


def _told(format_: Format, told: str, answer: Spec, headers: Mapping[str, shapes.Field] | None = None) -> Spec:
    """One POST with a model and what the format wants beside it."""
    talk = shapes.TALKS[format_]
    schema = shapes.holding(model={"type": "string", "minLength": 1}, **talk.asked)
    if talk.streams:
        schema["properties"]["stream"] = {"type": ["boolean", "null"]}
    media = ["multipart/form-data"] if shapes.FILE in talk.asked.values() else ["application/json"]
    shape = "AnthropicError" if format_ is Format.MESSAGES else "Error"
    refused = refusals(leaves(), shape)
    rejected = {"4XX": {**refused["400"], "description": "upstream_rejected, or the provider's own code"}}
    return _operation(
        told,
        str(format_),
        {**answer, **refused, **rejected},
        parameters=_asked("header", shapes.ASKED_HEADERS if headers is None else headers),
        requestBody=_body(schema, *media),
    )


def _models() -> Spec:
    refused = refusals([*_EVERYWHERE, errors.UnknownModel])
    one = _asked("path", {"model": shapes.Field("A route, a deployment or a model.")}, required=True)
    return {
        "/v1/models": {
            "get": _operation(
                "What the key may ask for.", "models", {**_answer("A list.", shapes.MODELS, {}), **refused}
            )
        },
        "/v1/models/{model}": {
            "get": _operation("One of them.", "models", {**_answer("It.", shapes.MODEL, {}), **refused}, parameters=one)
        },
    }


def _stored() -> Spec:
    """Responses that a provider keeps."""
    refused = refusals([*_KEPT, *leaves(errors.UpstreamFailure), errors.UpstreamRejected])
    id_ = _asked("path", {"response_id": shapes.Field("As it was told.")}, required=True)
    headers = {**shapes.REQUEST_ID, "x-tollgate-deployment": shapes.REPLY_HEADERS["x-tollgate-deployment"]}
    answer = _answer("As its provider tells it.", shapes.OBJECT, headers)
    streamed = _answer("As its provider tells it.", shapes.OBJECT, headers)
    streamed["200"]["content"]["text/event-stream"] = {}
    path = "/v1/responses/{response_id}"

    def operation(told: str, found: Spec) -> Spec:
        return _operation(told, str(Format.RESPONSES), {**found, **refused}, parameters=id_)

    return {
        path: {
            "get": operation("A stored response.", streamed),
            "delete": operation("Forgets it.", answer),
        },
        f"{path}/cancel": {"post": operation("Stops one that is made in the background.", answer)},
        f"{path}/input_items": {"get": operation("What went into it.", answer)},
    }


def _page(most: int, **more: shapes.Field) -> list[Spec]:
    count = {"type": "integer", "minimum": 1, "maximum": most}
    fields = {
        "limit": shapes.Field("Entries on a page.", count),
        "after": shapes.Field("The last id of the page before."),
    }
    return _asked("query", {**fields, **more})


def _files() -> Spec:
    refused = refusals([*_KEPT, errors.BodyTooLarge, errors.RequestTimeout, errors.Overloaded])
    id_ = _asked("path", {"file_id": shapes.Field("Of the file.")}, required=True)
    order = {"order": shapes.Field("By time; newest first unless `asc`.", {"enum": ["asc", "desc"]})}
    listing = _page(10_000, purpose=shapes.Field("Only those."), **order)

    def operation(told: str, schema: shapes.Schema, **more: object) -> Spec:
        return _operation(told, "files", {**_answer(told, schema), **refused}, **more)

    content = operation("What is in it.", {}, parameters=id_)
    content["responses"]["200"]["content"] = {"application/octet-stream": {}}
    upload = _body(shapes.UPLOAD, "multipart/form-data")
    return {
        "/v1/files": {
            "get": operation("The tenant's files.", shapes.paged(shapes.FILE_KEPT), parameters=listing),
            "post": operation("Uploads one for batches.", shapes.FILE_KEPT, requestBody=upload),
        },
        "/v1/files/{file_id}": {
            "get": operation("One file.", shapes.FILE_KEPT, parameters=id_),
            "delete": operation("Deletes it.", shapes.DELETED, parameters=id_),
        },
        "/v1/files/{file_id}/content": {"get": content},
    }


def _batches() -> Spec:
    asked = refusals(each for each in leaves() if not issubclass(each, errors.UpstreamFailure))
    refused = refusals([*_KEPT, errors.Conflict])
    id_ = _asked("path", {"batch_id": shapes.Field("Of the batch.")}, required=True)

    def operation(told: str, schema: shapes.Schema, refused: Spec = refused, **more: object) -> Spec:
        return _operation(told, "batches", {**_answer(told, schema), **refused}, **more)

    headers = _asked("header", shapes.ASKED_HEADERS)
    make = operation("Makes one.", shapes.BATCH, asked, parameters=headers, requestBody=_body(shapes.BATCH_ASKED))
    return {
        "/v1/batches": {
            "get": operation("The tenant's batches.", shapes.paged(shapes.BATCH), parameters=_page(100)),
            "post": make,
        },
        "/v1/batches/{batch_id}": {"get": operation("One batch.", shapes.BATCH, parameters=id_)},
        "/v1/batches/{batch_id}/cancel": {"post": operation("Cancels it.", shapes.BATCH, parameters=id_)},
    }


def _probes() -> Spec:
    """What needs no key."""
    status = shapes.holding(status=shapes.TEXT)
    ready = _answer("It can serve.", status, {})
    ready["503"] = {**ready["200"], "description": "It cannot, and says why."}
    metrics = _answer("For Prometheus.", {}, {})
    metrics["200"]["content"] = {"text/plain": {}}

    def operation(told: str, responses: Spec) -> Spec:
        refused = refusals([errors.MethodNotAllowed])
        return {"get": _operation(told, "operations", {**responses, **refused}, security=[])}

    return {
        "/healthz": operation("Whether the process lives.", _answer("It does.", status, {})),
        "/readyz": operation("Whether it can serve.", ready),
        "/metrics": operation("Every metric.", metrics),
        "/openapi.json": operation("This document.", _answer("OpenAPI 3.1.", shapes.OBJECT, {})),
    }
