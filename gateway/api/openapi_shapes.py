"""What the bodies and headers of the data plane hold, for its OpenAPI document: JSON schemas, as data.

Only what the gateway itself reads or promises has a type.  Other fields go to the provider and come back as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gateway.api.ask import TAGS_MAX, TEXT_MAX
from gateway.api.once import KEY_CHARS_MAX
from gateway.batches.intake import WINDOW
from gateway.dialects.batches.wires import ENDPOINTS
from gateway.types import Format

Schema: TypeAlias = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
COUNT: Schema = {"type": "integer", "minimum": 0}
OBJECT: Schema = {"type": "object"}
LIST: Schema = {"type": "array"}
OBJECTS: Schema = {"type": "array", "items": OBJECT}
FILE: Schema = {"type": "string", "format": "binary"}


def holding(**required: Schema) -> dict[str, Any]:
    """An object with these fields at least."""
    return {"type": "object", "required": list(required), "properties": dict(required)}


def paged(entry: Schema) -> dict[str, Any]:
    """A list of which more may follow."""
    return holding(
        object={"const": "list"},
        data={"type": "array", "items": entry},
        first_id=TEXT_OR_NULL,
        last_id=TEXT_OR_NULL,
        has_more={"type": "boolean"},
    )


@dataclass(frozen=True, slots=True)
class Talk:
    """One format of clients: what it is, what a request holds beside `model`, and what a reply holds."""

    told: str
    asked: Mapping[str, Schema]
    reply: Schema
    streams: bool = False


_MESSAGE = holding(role=TEXT)
_TEXTS: Schema = {"anyOf": [TEXT, LIST]}
_CHOICES = holding(object=TEXT, choices=OBJECTS)

TALKS: Mapping[Format, Talk] = {
    Format.CHAT: Talk(
        "OpenAI Chat Completions.", {"messages": {"type": "array", "items": _MESSAGE}}, _CHOICES, streams=True
    ),
    Format.COMPLETIONS: Talk("OpenAI's legacy Completions.", {"prompt": _TEXTS}, _CHOICES, streams=True),
    Format.MESSAGES: Talk(
        "Anthropic Messages.",
        {"messages": {"type": "array", "items": _MESSAGE}, "max_tokens": {"type": "integer", "minimum": 1}},
        holding(type={"const": "message"}, role=TEXT, content=OBJECTS, usage=OBJECT),
        streams=True,
    ),
    Format.RESPONSES: Talk(
        "OpenAI Responses.", {"input": _TEXTS}, holding(id=TEXT, object={"const": "response"}), streams=True
    ),
    Format.EMBEDDINGS: Talk("Embeddings.", {"input": _TEXTS}, holding(data=OBJECTS)),
    Format.RERANK: Talk("Rerank, as Cohere has it.", {"query": TEXT, "documents": LIST}, holding(results=OBJECTS)),
    Format.MODERATIONS: Talk("Moderations.", {"input": _TEXTS}, holding(results=OBJECTS)),
    Format.IMAGES: Talk("Images from a text.", {"prompt": TEXT}, holding(data=OBJECTS), streams=True),
    Format.IMAGE_EDITS: Talk(
        "Images from a text and images.", {"image": FILE, "prompt": TEXT}, holding(data=OBJECTS), streams=True
    ),
    Format.IMAGE_VARIATIONS: Talk("Images like an image.", {"image": FILE}, holding(data=OBJECTS)),
    Format.TRANSCRIPTIONS: Talk("Speech to text.", {"file": FILE}, holding(text=TEXT), streams=True),
    Format.TRANSLATIONS: Talk("Speech to English text.", {"file": FILE}, holding(text=TEXT)),
    Format.SPEECH: Talk("Text to speech.", {"input": TEXT, "voice": {}}, {}, streams=True),
}


@dataclass(frozen=True, slots=True)
class Field:
    """A header or a field of a query."""

    told: str
    schema: Schema = field(default_factory=lambda: TEXT)


_SHORT: Schema = {"type": "string", "maxLength": TEXT_MAX}

ASKED_HEADERS: Mapping[str, Field] = {
    "x-tollgate-user": Field("Who it is for: budgets of users, reports.", _SHORT),
    "x-tollgate-tags": Field(f"`name=value` pairs with commas, at most {TAGS_MAX}: budgets of tags, reports."),
    "x-tollgate-task": Field("What it is part of: budgets of tasks, outcomes, reports.", _SHORT),
    "x-tollgate-route": Field("The model to ask for in place of the body's."),
    "x-tollgate-max-cost-usd": Field("The most this request may cost, in dollars."),
    "x-tollgate-deadline": Field("Until when the answer is of use, seconds from now or a time: slower tiers may do."),
}
ONCE_HEADER = {
    "idempotency-key": Field(
        "The same request with the same key is served, and charged, once within 24 hours.",
        {"type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX},
    )
}

REQUEST_ID = {"x-tollgate-request-id": Field("Finds the request in the log and the records.")}
REPLY_HEADERS: Mapping[str, Field] = {
    "x-tollgate-deployment": Field("What served it."),
    "x-tollgate-attempts": Field("How often a provider was asked.", COUNT),
    "x-tollgate-route": Field("The route that was asked for."),
    "x-tollgate-reasons": Field("Why this deployment."),
    "x-tollgate-replayed": Field("`true`: the stored reply to this Idempotency-Key."),
    "x-tollgate-cached-input-tokens": Field("Of the input, read from the provider's prompt cache.", COUNT),
    "x-tollgate-cost-usd": Field("What it cost, in dollars; in a stream it is in the last usage event."),
    "x-tollgate-baseline-cost-usd": Field("What the route's reference model would have cost."),
    "x-tollgate-budget-remaining-usd": Field("Of the tightest hard budget."),
}
RATE_HEADERS: Mapping[str, Field] = {
    f"x-ratelimit-{what}-{unit}": Field(told, TEXT if what == "reset" else COUNT)
    for unit in ("requests", "tokens")
    for what, told in (
        ("limit", f"Of {unit}, in the window that has the least left."),
        ("remaining", f"How many {unit} are left of it."),
        ("reset", "When all of it is there again, such as `6m0s`."),
    )
}
ERROR_HEADERS: Mapping[str, Field] = {
    "x-should-retry": Field("Whether the same request may work later.", {"enum": ["true", "false"]}),
    "retry-after": Field("Seconds, where it is known.", COUNT),
}

ERROR = holding(error=holding(message=TEXT, type=TEXT, param=TEXT_OR_NULL, code=TEXT_OR_NULL))
ANTHROPIC_ERROR = holding(type={"const": "error"}, error=holding(type=TEXT, message=TEXT), request_id=TEXT)

MODEL = holding(id=TEXT)
MODELS = holding(data={"type": "array", "items": MODEL})
FILE_KEPT = holding(
    id=TEXT, object={"const": "file"}, bytes=COUNT, created_at=COUNT, expires_at=COUNT, filename=TEXT, purpose=TEXT
)
UPLOAD = holding(purpose={"const": "batch"}, file=FILE)
DELETED = holding(id=TEXT, object=TEXT, deleted={"const": True})
BATCH_ASKED = holding(
    input_file_id={"type": "string", "minLength": 1},
    endpoint={"enum": sorted(ENDPOINTS)},
    completion_window={"const": WINDOW},
)
BATCH = holding(id=TEXT, object={"const": "batch"}, status=TEXT, endpoint=TEXT, request_counts=OBJECT, tollgate=OBJECT)
