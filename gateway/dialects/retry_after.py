"""When a provider says to try again, in every form that providers say it.  Pure: the present is an argument.

Seconds, milliseconds, durations (`6m0s`, `12ms`, `17.399s`), HTTP dates, RFC 3339, epoch seconds and milliseconds; in
`retry-after-ms`, `retry-after`, the resets of exhausted rate limits, the body, or the words of the message.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

DELAY_MAX_S = 31 * 86_400.0
"""Longer than the longest window of any provider: such a figure is nonsense."""

_EPOCH_S = 1e9  # September 2001: no delay is that long, no date that old
_EPOCH_MS = 1e11

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_DURATION = re.compile(
    r"(?:(?P<d>\d+)d)?(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m(?!s))?(?:(?P<s>\d+(?:\.\d+)?)s)?(?:(?P<ms>\d+(?:\.\d+)?)ms)?"
)
_IN_WORDS = re.compile(
    r"(?:try again|retry|wait)[^.\d]{0,30}?(\d[\d.hms]*)[ ]?(seconds?|minutes?|hours?|ms|milliseconds?)?\b",
    re.IGNORECASE,
)
_TOKENS = re.compile(r"(?:input-|output-)?tokens")
_UNITS = {"ms": 0.001, "milli": 0.001, "secon": 1.0, "minut": 60.0, "hours": 3600.0, "hour": 3600.0}


def retry_after(headers: Mapping[str, str], body: object, now: float) -> float | None:
    """Seconds until the provider wants to be asked again; None where it does not say.  Never negative.

    `headers` have lower-case names.  Times of day are measured by the reply's own `date`, else by `now` (unix seconds).
    """
    now = _date(headers.get("date", "")) or now
    for found in (_from_retry_headers(headers, now), _from_body(body, now), _from_resets(headers, now)):
        if found is not None:
            return found
    return _from_words(body)


def quotas(headers: Mapping[str, str], now: float) -> Iterator[tuple[str, float, float]]:
    """The provider's limits as any reply tells them: what each counts (`input-tokens`, `output-tokens`, `tokens`, else
    requests), what is left, and the seconds until all of it is there again."""
    now = _date(headers.get("date", "")) or now
    for name, left, wait_s in _limits(headers, now):
        kind = _TOKENS.search(name)
        yield kind[0] if kind else "requests", left, wait_s


def delay(text: str, now: float) -> float | None:
    """Seconds from `now` that one value in any form means; None where it means none."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        number = float(text)
        if number >= _EPOCH_MS:
            return _sane(number / 1000 - now)
        return _sane(number - now if number >= _EPOCH_S else number)
    if text and (match := _DURATION.fullmatch(text)) is not None:
        days, hours, minutes, seconds, millis = (float(part or 0) for part in match.groups())
        return _sane(days * 86_400 + hours * 3600 + minutes * 60 + seconds + millis / 1000)
    moment = _date(text)
    return None if moment is None else _sane(moment - now)


def _sane(seconds: float) -> float | None:
    return max(0.0, seconds) if math.isfinite(seconds) and seconds <= DELAY_MAX_S else None


@lru_cache(maxsize=256)
def _date(text: str) -> float | None:
    """An RFC 3339 or HTTP date as unix seconds.  All replies of a second have the same."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None


def _from_retry_headers(headers: Mapping[str, str], now: float) -> float | None:
    millis = headers.get("retry-after-ms", "").strip()
    if _NUMBER.fullmatch(millis) and float(millis) > 0:  # Azure says 0 ms and means the seconds beside it
        return _sane(float(millis) / 1000)
    return delay(headers.get("retry-after", ""), now)


def _from_resets(headers: Mapping[str, str], now: float) -> float | None:
    """The latest reset among the limits of which nothing remains: OpenAI's, Anthropic's and their likes' headers."""
    return max((wait_s for _, left, wait_s in _limits(headers, now) if left <= 0), default=None)


def _limits(headers: Mapping[str, str], now: float) -> Iterator[tuple[str, float, float]]:
    """The name of the header, what remains, the seconds until the reset."""
    for name, value in headers.items():
        if "reset" in name and "ratelimit" in name:
            left = headers.get(name.replace("reset", "remaining"), "").strip()
            wait_s = delay(value, now) if _NUMBER.fullmatch(left) else None
            if wait_s is not None:
                yield name, float(left), wait_s


def _from_body(body: object, now: float) -> float | None:
    """Google's RetryInfo; the headers OpenRouter repeats in its error's metadata; a plain `retry_after`."""
    for error in _errors(body):
        for detail in _list(error.get("details")):
            if isinstance(detail, Mapping) and isinstance(text := detail.get("retryDelay"), str):
                return delay(text, now)
        for holder in (error, error.get("metadata")):
            value = holder.get("retry_after") if isinstance(holder, Mapping) else None
            if isinstance(value, int | float | str) and not isinstance(value, bool):
                return delay(str(value), now)
        repeated = _repeated_headers(error)
        if (found := _from_retry_headers(repeated, now)) is not None:
            return found
        if (found := _from_resets(repeated, now)) is not None:
            return found
    return None


def _repeated_headers(error: Mapping[str, object]) -> dict[str, str]:
    metadata = error.get("metadata")
    headers = metadata.get("headers") if isinstance(metadata, Mapping) else None
    return {str(name).lower(): str(value) for name, value in headers.items()} if isinstance(headers, Mapping) else {}


def _from_words(body: object) -> float | None:
    """`Please try again in 6m0s`, `retry after 20 seconds`."""
    for error in _errors(body):
        message = error.get("message")
        if isinstance(message, str) and (match := _IN_WORDS.search(message[:2000])) is not None:
            value, unit = match.group(1).rstrip("."), (match.group(2) or "").lower()
            if unit and _NUMBER.fullmatch(value):
                return _sane(float(value) * _UNITS[unit[:5]])
            return delay(value, 0.0)
    return None


def _errors(body: object) -> Iterator[Mapping[str, object]]:
    """The error object, and what holds it."""
    for item in _list(body) or [body]:  # Gemini's streams wrap it in an array
        if isinstance(item, Mapping):
            if isinstance(inner := item.get("error"), Mapping):
                yield inner
            yield item


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
