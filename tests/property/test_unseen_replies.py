"""Replies that nobody has recorded: recorded ones with fields left out, added, repeated, and of other types.

Whatever a provider sends, its reply is read or refused and never a bug; and what it used is priced or unknown.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from functools import cache
from random import Random
from typing import Any

import corpus
import pytest
import surfaces
from corpus import Row
from hypothesis import HealthCheck, given, settings, strategies as st
from surfaces import Surface

from gateway import money
from gateway.errors import GatewayError
from gateway.types import Cost, Format, Usage

pytestmark = pytest.mark.corpus

SPOKEN = (Format.CHAT, Format.MESSAGES, Format.RESPONSES)
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 7, 1.5, 1e30, 10**30, "x", "", "STOP", "unheard_of", "\ud800"),
    *([], {}, [None], [{}], {"a": 1}, [[[[]]]], {"type": "unheard_of"}),
)
SIZE_MAX = 6_000
OF_EACH = 3


@cache
def recorded() -> list[tuple[Row, Surface]]:
    """A few small replies of each preset's surface, whole and streamed."""
    found: dict[object, list[tuple[Row, Surface]]] = defaultdict(list)
    for row in corpus.every_line():
        at = surfaces.surface(row)
        if isinstance(at, Surface) and row["response_status"] == 200 and row["response_format"] in ("json", "sse"):
            some = found[at, surfaces.streams(row)]
            if len(some) < OF_EACH and len(corpus.body(row)) < SIZE_MAX:
                some.append((row, at))
    return [one for some in found.values() for one in some]


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where its parts stand."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:6]) if isinstance(value, list) else ()
    return [place for name, part in items for place in [(*at, name), *places(part, (*at, name))]]


def changed(value: Any, dice: Random) -> Any:
    """The same JSON but for one to four parts: gone, odd, or new."""
    value = copy.deepcopy(value)
    for _ in range(dice.choice((1, 1, 2, 4))):
        if not (known := places(value)):
            return value
        *way, last = dice.choice(known)
        holder = value
        for name in way:
            holder = holder[name]
        match dice.choice(("gone", "odd", "odd", "new")):
            case "gone":
                del holder[last]
            case "odd":
                holder[last] = copy.deepcopy(dice.choice(ODD))
            case "new" if isinstance(holder, dict):
                holder[f"new_{dice.randrange(9)}"] = copy.deepcopy(dice.choice(ODD))
            case _:
                holder.append(copy.deepcopy(dice.choice(ODD)))
    return value


def unseen(row: Row, dice: Random) -> bytes:
    """A reply much like this one."""
    if row["response_format"] == "json":
        return json.dumps(changed(row["response_body"], dice)).encode()
    events = list(row["response_events"])
    for _ in range(dice.choice((1, 2, 3))):
        number = dice.randrange(len(events))
        name, brace, text = events[number].partition("{")
        match dice.choice(("change", "change", "repeat", "lose")):
            case "repeat":
                events.insert(dice.randrange(len(events) + 1), events[number])
            case "lose" if len(events) > 1:
                del events[number]
            case _ if brace:
                events[number] = name + json.dumps(changed(json.loads(brace + text), dice))
    return "".join(event + "\n\n" for event in events).encode()


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_any_reply_is_read_or_refused_and_what_it_used_is_priced_or_unknown(seed: int) -> None:
    dice = Random(seed)
    row, at = dice.choice(recorded())
    data = unseen(row, dice)
    for client in SPOKEN if at.client in SPOKEN else (at.client,):
        step = surfaces.step(row, at)
        price = step.deployment.price

        def bill(usage: Usage) -> Cost:
            return money.cost(usage, price, 0.0)  # noqa: B023  # called before the next turn

        asked = {"stream": surfaces.streams(row), "stream_options": {"include_usage": True}}
        decoder = surfaces.dialect(at).decoder(corpus.request(client, asked), step, bill)
        try:
            corpus.drain(decoder, list(corpus.pieces(data, seed)))
        except GatewayError as error:
            decoder.cut(error)
        decoder.generated()
        meter = decoder.meter
        assert isinstance(meter.response_model, str)
        assert isinstance(meter.finish_reason, str)
        if meter.usage is not None:
            check(meter.usage, bill(meter.usage))


def check(usage: Usage, cost: Cost) -> None:
    """Counts are counts, and a cost is one or says what it lacks."""
    assert all(type(count) is int and count > 0 for count in usage.tokens.values())
    assert all(type(count) is int and count >= 0 for count in usage.fees.values())
    assert (cost.total is None) == bool(cost.unknown)
    assert cost.total is None or cost.total >= 0
