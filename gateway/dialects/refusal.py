"""What a provider's error means: its status, headers and body -> a leaf of the error tree.  Pure.

Providers agree on little: an invalid key is 401, 403 or 400, an unknown model 404 or 400, a prompt that is too long has
eight wordings, and an aggregator wraps another's error in its own.  What the words say outranks the status.  A message
that is shown to a client is bounded and holds no secrets; our keys, accounts and configuration are never its business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from gateway.dialects.retry_after import retry_after
from gateway.errors import (
    ContentRefused,
    ContextOverflow,
    GatewayError,
    UpstreamDenied,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
)
from gateway.types import Provider

MESSAGE_CHARS_MAX = 600
BODY_CHARS_READ = 8192

Block: TypeAlias = Mapping[str, object]

_OVERFLOW = re.compile(
    r"context_length_exceeded|too_many_prompt_tokens|too_many_tokens|exceed_context_size|model_max_prompt_tokens"
    r"|prompt(?: is)? too long|max(?:imum)? (?:context|prompt length)|context (?:window|length|limit)"
    r"|exceeds? the (?:available )?context size|messages is too long|input is too long|input token count"
    r"|tokens?\)? .{0,80}too large (?:for model|to process)|reduce the length of|input tokens exceed",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    r"content_filter|content_policy|content management policy|responsibleaipolicy|violates? (?:our )?(?:usage|content)"
    r"|safety_check|moderation_blocked|input was flagged|flagged (?:by|for|as)|prompt_blocked|prohibited_content",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"insufficient_quota|billing_hard_limit|billing_not_active|credit balance is too low"
    r"|insufficient (?:balance|credits|funds)|invalid_api_key|api_key_invalid|account_deactivated|authentication fails"
    r"|(?:invalid|incorrect|expired|missing|bad) (?:x-)?api[ -]?key"
    r"|api[ -]?key (?:is |provided is )?(?:not valid|invalid|expired)",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"model_not_found|invalid_model|model_decommissioned|model_not_exist|not a valid model|model .{0,100}does not exist"
    r"|model identifier is invalid|supported api model names|model .{0,100}(?:decommissioned|deprecated)"
    r"|model.{0,20} not (?:found|exist)|with on-demand throughput isn",
    re.IGNORECASE,
)
_CANNOT = re.compile(r"not_supported_error|does not support|(?:is|are) not supported|requires --", re.IGNORECASE)
"""Said with a 5xx by servers that were started without what the request needs: to ask them again is no use."""
_RATE_LIMITED = re.compile(
    r"rate_limit|ratelimit|rate limit|throttlingexception|too_many_requests|resource_exhausted", re.IGNORECASE
)

_BY_STATUS: Mapping[int, type[GatewayError]] = {
    401: UpstreamDenied,
    402: UpstreamDenied,
    403: UpstreamDenied,
    404: UpstreamDenied,
    407: UpstreamDenied,
    408: UpstreamFailed,  # of the request itself: it was not begun
    409: UpstreamFailed,
    424: UpstreamFailed,  # Bedrock: the model failed
    425: UpstreamOverloaded,
    429: UpstreamRateLimited,
    498: UpstreamOverloaded,  # Groq: flex capacity exceeded
    499: UpstreamFailed,
    503: UpstreamOverloaded,
    504: UpstreamTimeout,
    524: UpstreamTimeout,
    529: UpstreamOverloaded,  # Anthropic
}

_STATUS_BY_WORD: Mapping[str, int] = {
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "invalid_request_error": 400,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""For errors inside a 200 reply, which have no status of their own."""

_SECRETS = re.compile(
    r"(?:sk|pk|rk|gsk|xai|csk|key|fw|r8|hf|pplx|tgp|nvapi)[-_][A-Za-z0-9*_-]{8,}"
    r"|AIza[\w-]{10,}|eyJ[\w-]{10,}\.[\w.-]+"
    r"|(?<=bearer )\s*\S+|(?<=basic )[A-Za-z0-9+/=]{8,}"
    r"|(?<=key=)[^&\s\"']+|(?<=token=)[^&\s\"']+|(?<=api key: )\S+|(?<=api key provided: )\S+|(?<=api_key: )\S+",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Said:
    """What an error body says, whatever its shape."""

    message: str = ""
    words: str = ""  # everything that classifies: codes, types, messages, those of wrapped errors too
    code: str | None = None
    param: str | None = None
    status: int | None = None


def refusal(status: int, headers: Mapping[str, str], body: bytes, provider: Provider, now: float) -> GatewayError:
    """The leaf that a reply of this status (>= 400) is, with its retry advice."""
    parsed = _parsed(body)
    lower = {name.lower(): value for name, value in headers.items()}
    return _leaf(status, said(parsed), provider, retry_after(lower, parsed, now))


def reported(body: object, provider: Provider, now: float) -> GatewayError:
    """The leaf that an error inside a 200 reply is; `body` is what holds the error, decoded."""
    what = said(body)
    return _leaf(what.status or _guessed(what.words), what, provider, retry_after({}, body, now))


def _guessed(words: str) -> int:
    """The status of an error that states none."""
    if _DENIED.search(words) or _NO_MODEL.search(words):
        return 401
    return 400 if _FILTERED.search(words) else 502


def said(body: object) -> Said:
    """Reads an error body of any known shape: nested, flat, a list, a string, wrapped by an aggregator."""
    errors = list(_errors(body))
    messages = [text for error in errors for name in _MESSAGES if (text := _text(error.get(name)))]
    if isinstance(body, str):
        messages.append(body)
    labels = [_text(error.get(name)) for error in errors for name in ("code", "type", "status", "error_type", "object")]
    first = errors[0] if errors else {}
    code = first.get("code")
    return Said(
        message=next((text for text in messages if text.lower() != "provider returned error"), ""),
        words="\n".join([*labels, *messages])[:BODY_CHARS_READ],
        code=code if isinstance(code, str) and re.fullmatch(r"[a-z0-9_.-]{1,64}", code) else None,
        param=_text(first.get("param"))[:200] or None,
        status=_status(errors),
    )


_MESSAGES = ("message", "error", "detail", "msg")


def _leaf(status: int, what: Said, provider: Provider, wait_s: float | None) -> GatewayError:
    kind = _kind(status, what.words)
    shown = clean(what.message, provider)
    if kind is UpstreamDenied:
        return _denied(status, what.words, shown, provider)
    message = shown or f"Provider {provider.id} answered with status {status} and no explanation."
    if kind is UpstreamRejected:
        return UpstreamRejected(message, param=what.param, upstream_status=status, upstream_code=what.code)
    if issubclass(kind, ContextOverflow | ContentRefused):
        return kind(message, param=what.param)
    return kind(f"Provider {provider.id}: {message}" if shown else message, retry_after_s=wait_s)


def _denied(status: int, words: str, shown: str, provider: Provider) -> UpstreamDenied:
    """Its message keeps our affairs from the client; the note is for the operator's log."""
    ours = status == 404 or status >= 500 or _NO_MODEL.search(words)
    why = "does not serve this model as it was asked for" if ours else "refused the gateway's own key or account"
    error = UpstreamDenied(f"Provider {provider.id} {why} (status {status}).")
    error.of_key = not ours
    if shown:
        error.add_note(f"{provider.id} says: {shown}")
    return error


def _kind(status: int, words: str) -> type[GatewayError]:
    """The words first: they tell apart what one status mixes."""
    if _RATE_LIMITED.search(words) and status in (413, 429, 502, 503) and not _DENIED.search(words):
        return UpstreamRateLimited  # Groq: 413 for tokens per minute
    if status not in (401, 408, 429) and _OVERFLOW.search(words):
        return ContextOverflow
    if status in (400, 403, 422, 451) and _FILTERED.search(words):
        return ContentRefused
    if status == 501 or (status == 500 and _CANNOT.search(words)):
        return UpstreamDenied
    if status < 500 and (_DENIED.search(words) or _NO_MODEL.search(words)):
        return UpstreamDenied
    if (kind := _BY_STATUS.get(status)) is not None:
        return kind
    return UpstreamRejected if 400 <= status < 500 else UpstreamFailed


def clean(message: str, provider: Provider) -> str:
    """The message on one line, bounded, with everything masked that looks like a secret or is ours."""
    text = " ".join(message[: 4 * MESSAGE_CHARS_MAX].split())
    if len(provider.api_key) >= 4:
        text = text.replace(provider.api_key, "[masked]")
    text = _SECRETS.sub("[masked]", text)
    return text if len(text) <= MESSAGE_CHARS_MAX else text[: MESSAGE_CHARS_MAX - 1] + "…"


def _errors(body: object) -> Iterator[Block]:
    """The objects that describe the error, the outermost error object first, wrapped ones after it."""
    if isinstance(body, list):
        body = body[0] if body else None
    if not isinstance(body, Mapping):
        return
    inner = body.get("error")
    inner = inner[0] if isinstance(inner, list) and inner else inner
    if isinstance(inner, Mapping):
        yield inner
        metadata = inner.get("metadata")
        raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
        if isinstance(raw, str):
            wrapped = _parsed(raw.encode())
            yield from _errors(wrapped if isinstance(wrapped, Mapping) else {"message": raw})
        if isinstance(policy := inner.get("innererror"), Mapping):
            yield policy
    yield body


def _status(errors: list[Block]) -> int | None:
    """The HTTP status an error states for itself."""
    for error in errors:
        for name in ("status_code", "code", "status", "type"):
            value = error.get(name)
            if isinstance(value, str):
                value = int(value) if value.isdecimal() and len(value) == 3 else _STATUS_BY_WORD.get(value)
            if isinstance(value, int) and 400 <= value < 600:
                return value
    return None


def _text(value: object) -> str:
    """What is said in a string, a number, or a list of validation errors."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list):
        return "; ".join(_text(item.get("msg")) for item in value[:5] if isinstance(item, Mapping))
    return ""


def _parsed(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        text = body[:BODY_CHARS_READ].decode(errors="replace").strip()
        return "" if text.startswith("<") else text  # a page of HTML explains nothing
