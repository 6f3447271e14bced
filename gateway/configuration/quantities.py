"""Quantities as they may be written in a configuration: money, rates, durations, times, names; and their base."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from gateway.types import Bucket

LIMIT_USD_MAX = 9_000_000
"""The ledger's scripts count nano-dollars in numbers that are exact to 2**53, a little above this many dollars."""
_DURATION = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Shape(BaseModel):
    """Unknown keys are errors, values do not change, and an error never prints the value: it may be a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True)


def _amount(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic reports only a ValueError
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise ValueError("must be a number") from None
    if not amount.is_finite() or amount < 0:
        raise ValueError("must be a number of dollars, 0 or more")
    return amount


def _usd(value: object) -> Decimal:
    amount = _amount(value)
    if amount > LIMIT_USD_MAX:
        raise ValueError(f"must be at most {LIMIT_USD_MAX} dollars: above that the ledger's integers are not exact")
    if amount.as_tuple().exponent < -9:  # type: ignore[operator]  # finite, so an int
        raise ValueError("must have at most nine decimals (a nano-dollar)")
    return amount


def _rate(value: object) -> Decimal | Bucket:
    if isinstance(value, str) and value in set(Bucket):
        return Bucket(value)
    try:
        return _amount(value)
    except ValueError:
        raise ValueError("must be dollars per million tokens, 0 or more, or the bucket it is billed as") from None


def _seconds(value: object) -> int:
    """'24h', '90s', '7d' or seconds."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = re.fullmatch(r"([1-9]\d*)([smhdw])", str(value))
    if match is None:
        raise ValueError("must be a duration such as 90s, 15m, 24h or 7d")
    return int(match[1]) * _DURATION[match[2]]


def _minute(value: object) -> int:
    """'16:30' as minutes of the day; YAML reads an unquoted 16:30 as 990, the same."""
    match = re.fullmatch(r"([01]?\d|2[0-4]):([0-5]\d)", str(value))
    minute = int(match[1]) * 60 + int(match[2]) if match else value
    if not isinstance(minute, int) or isinstance(minute, bool) or not 0 <= minute <= 1440:
        raise ValueError("must be a time of day in UTC such as 16:30")
    return minute


def _moment(value: object) -> float:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).timestamp()
    raise ValueError("must be a date such as 2027-01-31 or 2027-01-31T12:00:00Z")


def listed(value: object) -> object:
    """One mapping where a list of them may stand."""
    return [value] if isinstance(value, dict) else value


def _url(value: str) -> str:
    if value and not re.match(r"https?://[^/\s]+", value):
        raise ValueError("must be a URL such as https://api.example.com/v1")
    return value.rstrip("/")


def scheme(*allowed: str) -> AfterValidator:
    """A URL that begins with one of these."""

    def check(value: str | None) -> str | None:
        if value and value.partition("://")[0] not in allowed:
            raise ValueError(f"must begin with {', '.join(f'{scheme}://' for scheme in allowed)}")
        return value

    return AfterValidator(check)


def _named_master(url: str) -> str:
    kind, _, rest = url.partition("://")
    name = rest.rpartition("@")[2].partition("?")[0].partition("/")[2].partition("/")[0]
    if kind.endswith("+sentinel") and not name:
        raise ValueError(f"needs the master's name: {kind}://HOST:26379,HOST:26379/NAME")
    return url


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,127}$")]
Dollars = Annotated[Decimal, BeforeValidator(_usd)]
Rate = Annotated[Decimal | Bucket, BeforeValidator(_rate)]
Seconds = Annotated[int, BeforeValidator(_seconds)]
Minute = Annotated[int, BeforeValidator(_minute)]
Moment = Annotated[float, BeforeValidator(_moment)]
Count = Annotated[int, Field(ge=1, le=2**53)]
Positive = Annotated[float, Field(gt=0)]
Url = Annotated[str, AfterValidator(_url)]
RedisUrl = Annotated[
    str,
    scheme("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel", "unix"),
    AfterValidator(_named_master),
]
