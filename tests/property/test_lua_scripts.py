"""Each script of the ledger on a real Redis, from any state there may be, against the model of it in Python."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings, strategies as st
from lua_model import FOREVER, Kept, Place, Take

from gateway.ledger.scripts import SCRIPTS

pack = msgspec.msgpack.encode

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
SLACK_MS = 10_000
"""A busy machine takes its time between a write and the look at how long it stays."""

STEP, LENGTH = 10, 600
IDS = ("a", "b", "c", "d")
KEYS = {"day": 0, "total": 0, "rolling": STEP}
UNITS = ("cost", "requests", "tokens", "input_tokens", "output_tokens", "concurrent")
SHARES = ("", "provider x", "provider y")
SERVERS = ("-", "", "one", "other")

Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]

# Few values, so that bounds are met exactly: sums that come out at zero, a window's last millisecond, its first slot.
small = st.sampled_from([0, 1, 7, 50, 100, 150, 300])
moments = st.sampled_from([100_000, 100_001, 100_299, 100_300, 100_305, 100_599, 100_600])
slots = st.sampled_from([9939, 9940, 9941, 9968, 9969, 9970, 9971, 9998, 9999, 10_000, 10_001, 10_030])
drafts = st.sampled_from(["", "a draft"])
records = st.sampled_from(["", "a record"])
uses = st.tuples(small, st.integers(0, 2), small, small)
shared = st.none() | st.dictionaries(st.sampled_from(SHARES[1:]), uses)
epochs = st.sampled_from([None, "!restored", "one:1", "other:1"])
periods = st.sampled_from([(0, 2**53 - 1), (0, 2**53 - 1), (100_000, 100_300), (100_300, 100_600)])


@st.composite
def places(draw: Draw) -> list[Place]:
    """A counter is in a reservation at most once."""
    keys = draw(st.lists(st.sampled_from(sorted(KEYS)), max_size=3, unique=True))
    keep = {"day": 90_000_000, "total": 0, "rolling": 0}
    return [
        (key, draw(st.sampled_from(UNITS)), draw(small), KEYS[key], LENGTH if KEYS[key] else 0, keep[key], share)
        for key in keys
        for share in [draw(st.sampled_from(SHARES))]
    ]


@st.composite
def takes(draw: Draw) -> list[Take]:
    """What a hold of some moment has of its counters."""
    now = draw(moments)
    return [
        (key, unit, amount, now // step if step else 0, (now // step + 1) * step + LENGTH if step else keep, share)
        for key, unit, amount, step, _, keep, share in draw(places())
    ]


@st.composite
def states(draw: Draw) -> Kept:
    """Any, also such as follow a loss: holds and counters need not agree."""
    kept = Kept(epoch=draw(epochs))
    for key, step in KEYS.items():
        used = draw(st.lists(slots, max_size=3)) if step else [""]
        fields = {f"{kind}{slot}": draw(small) for slot in used for kind in "sr"}
        if left := {name: amount for name, amount in fields.items() if amount}:
            kept.counters[key] = left
    for id_ in IDS:
        state = draw(st.sampled_from(["O", "", "P", "S", "R", "O"]))
        if state in ("O", "P"):
            kept.holds[id_] = (state, draw(drafts), draw(takes()))
        elif state:
            kept.holds[id_] = (state, "", [])
        if state == "O" or draw(st.integers(0, 9)) == 0:
            kept.due[id_] = draw(moments)
    return kept


@dataclass
class Shard:
    """One shard's keys in a Redis that others use too."""

    client: redis.Redis
    prefix: str

    def key(self, name: str) -> str:
        return f"{self.prefix}{{s}}:{name}"

    def hold(self, id_: str) -> str:
        return self.key(f"hold:{id_}")

    def full(self, counted: list[Any]) -> list[Any]:
        """Places or takes with the names of their counters in Redis."""
        return [(self.key(each[0]), *each[1:]) for each in counted]

    def write(self, kept: Kept) -> None:
        with self.client.pipeline() as pipe:
            pipe.delete(*self.names())
            for key, fields in kept.counters.items():
                pipe.hset(self.key(key), mapping=fields)
            for id_, (state, draft, found) in kept.holds.items():
                pipe.set(self.hold(id_), state.encode() + (pack((draft, self.full(found))) if state in "OP" else b""))
            if kept.due:
                pipe.zadd(self.key("holds"), kept.due)
            if kept.epoch is not None:
                pipe.set(self.key("epoch"), kept.epoch)
            pipe.execute()

    def read(self) -> Kept:
        """All of it; `lasts` of every key that will go by itself, and of open holds, which must not."""
        with self.client.pipeline() as pipe:
            for key in KEYS:
                pipe.hgetall(self.key(key))
                pipe.pttl(self.key(key))
            for id_ in IDS:
                pipe.get(self.hold(id_))
                pipe.pttl(self.hold(id_))
            pipe.zrange(self.key("holds"), 0, -1, withscores=True)
            pipe.xrange(self.key("outbox"))
            pipe.get(self.key("epoch"))
            *pairs, due, outbox, epoch = pipe.execute()
        found = dict(zip([*KEYS, *IDS], zip(pairs[::2], pairs[1::2], strict=True), strict=True))
        kept = Kept(epoch=None if epoch is None else epoch.decode())
        kept.due = {id_.decode(): int(at) for id_, at in due}
        kept.outbox = [fields[b"record"].decode() for _, fields in outbox]
        for key in KEYS:
            if fields := found[key][0]:
                kept.counters[key] = {name.decode(): int(amount) for name, amount in fields.items()}
        for id_ in IDS:
            if (value := found[id_][0]) is not None:
                draft, held = msgspec.msgpack.decode(value[1:]) if value[:1] in b"OP" else ("", [])
                stem = len(self.key(""))
                kept.holds[id_] = (value[:1].decode(), draft, [(each[0][stem:], *each[1:]) for each in held])
        kept.lasts = {name: lasts for name, (value, lasts) in found.items() if value}
        return kept

    def names(self) -> list[str]:
        return [*map(self.key, [*KEYS, "holds", "outbox", "epoch"]), *map(self.hold, IDS)]

    def run(self, verb: str, keys: list[str], now: int | str, *args: Any) -> Any:
        text = getattr(SCRIPTS, verb).text
        reply = self.client.eval(text, len(keys), *keys, now, *args)
        return reply.decode() if isinstance(reply, bytes) else reply


@pytest.fixture
def shard(redis_url: str) -> Iterator[Shard]:
    with redis.Redis.from_url(redis_url) as client:
        shard = Shard(client, f"tollgate-test-{secrets.token_hex(6)}:")
        yield shard
        client.delete(*shard.names())


def agree(shard: Shard, kept: Kept, act: Callable[[], Any], model: Callable[[Kept], Any]) -> None:
    """The script answers as the model and leaves what the model leaves."""
    shard.write(kept)
    expected = deepcopy(kept)
    expected.lasts = {}
    answered, told = act(), model(expected)
    found = shard.read()
    assert answered == told
    for name, lasts in expected.lasts.items():
        if lasts == FOREVER:
            assert found.lasts[name] == FOREVER
        else:
            assert lasts - SLACK_MS < found.lasts[name] <= lasts
    found.lasts = expected.lasts
    assert found == expected


@settings(SETTINGS, max_examples=200)
@given(st.data(), states(), moments, periods, st.sampled_from(IDS), places())
def test_reserve_takes_every_place_or_says_why_not(
    shard: Shard, data: st.DataObject, kept: Kept, now: int, period: tuple[int, int], id_: str, asked: list[Place]
) -> None:
    checks = []
    for index, place in enumerate(asked, 1):
        needed = sum(kept.sums(place, now)) + place[2]
        checks.append((index, data.draw(st.sampled_from([needed, needed + 1, -1, max(0, needed - 1), 0])), place[2]))
    ttl, draft = data.draw(st.integers(1, 500)), data.draw(drafts)
    server = data.draw(st.sampled_from(("-", "-", *SERVERS)))
    if data.draw(st.integers(0, 3)):
        kept.holds.pop(id_, None)  # most ids are new
    keys = [shard.hold(id_), shard.key("holds"), shard.key("epoch")]
    sent = pack((shard.full(asked), checks))
    agree(
        shard,
        kept,
        lambda: shard.run("reserve", keys, now, *period, ttl, id_, sent, draft, server),
        lambda model: model.reserve(now, *period, ttl, id_, asked, checks, draft, server),
    )


@SETTINGS
@given(states(), moments, st.integers(1, 500), st.sampled_from(IDS))
def test_extend_moves_the_expiry_of_an_open_hold_and_never_back(
    shard: Shard, kept: Kept, now: int, ttl: int, id_: str
) -> None:
    keys = [shard.hold(id_), shard.key("holds")]
    agree(shard, kept, lambda: shard.run("extend", keys, now, ttl, id_), lambda model: model.extend(now, ttl, id_))


@SETTINGS
@given(states(), moments, st.sampled_from(IDS), uses, records, shared)
def test_settle_puts_the_truth_in_place_of_what_was_held_or_presumed(
    shard: Shard, kept: Kept, now: int, id_: str, used: Any, record: str, shares: Any
) -> None:
    keys = [shard.hold(id_), shard.key("holds"), shard.key("outbox")]
    told = b"" if shares is None else pack(shares)
    agree(
        shard,
        kept,
        lambda: shard.run("settle", keys, now, id_, pack(used), 50_000, record, told),
        lambda model: model.settle(now, id_, used, 50_000, record, shares),
    )


@SETTINGS
@given(states(), moments, st.sampled_from(IDS), uses, takes(), records, shared, st.sampled_from(SERVERS))
def test_book_unknown_books_an_id_once_and_nothing_where_all_was_forgotten(
    shard: Shard, kept: Kept, now: int, id_: str, used: Any, of: list[Take], record: str, shares: Any, server: str
) -> None:
    keys = [shard.hold(id_), shard.key("outbox"), shard.key("epoch")]
    told = b"" if shares is None else pack(shares)
    args = (pack(used), 50_000, pack(shard.full(of)), record, told, server)
    agree(
        shard,
        kept,
        lambda: shard.run("book_unknown", keys, now, *args),
        lambda model: model.book_unknown(now, id_, used, 50_000, of, record, shares, server),
    )


@SETTINGS
@given(states(), moments, st.sampled_from(IDS))
def test_release_frees_an_open_hold_and_remembers_an_id_it_does_not_know(
    shard: Shard, kept: Kept, now: int, id_: str
) -> None:
    keys = [shard.hold(id_), shard.key("holds")]
    agree(
        shard,
        kept,
        lambda: shard.run("release", keys, now, id_, 50_000),
        lambda model: model.release(now, id_, 50_000),
    )


@SETTINGS
@given(states(), moments, st.integers(1, 4))
def test_expire_presumes_the_oldest_that_are_due_and_no_others(shard: Shard, kept: Kept, now: int, most: int) -> None:
    keys = [shard.key("holds"), shard.key("outbox")]
    agree(
        shard,
        kept,
        lambda: shard.run("expire", keys, now, shard.hold(""), most, 50_000),
        lambda model: model.expire(now, most, 50_000),
    )


@SETTINGS
@given(states(), moments, periods, places())
def test_balances_sums_what_still_counts_and_changes_nothing(
    shard: Shard, kept: Kept, now: int, period: tuple[int, int], asked: list[Place]
) -> None:
    agree(
        shard,
        kept,
        lambda: shard.run("balances", [shard.key("holds")], now, *period, pack(shard.full(asked))),
        lambda model: model.balances(now, *period, asked),
    )


@SETTINGS
@given(states(), moments, st.integers(1, 500), st.sampled_from(IDS), takes(), drafts)
def test_adopt_takes_back_what_is_not_known_whether_there_is_room_or_not(
    shard: Shard, kept: Kept, now: int, ttl: int, id_: str, held: list[Take], draft: str
) -> None:
    keys = [shard.hold(id_), shard.key("holds")]
    agree(
        shard,
        kept,
        lambda: shard.run("adopt", keys, now, ttl, id_, pack(shard.full(held)), draft),
        lambda model: model.adopt(now, ttl, id_, held, draft),
    )


@SETTINGS
@given(states(), moments, takes(), st.lists(st.sampled_from(IDS)))
def test_restore_raises_what_is_spent_and_never_lowers_it(
    shard: Shard, kept: Kept, now: int, spent: list[Take], ids: list[str]
) -> None:
    args = (pack(shard.full(spent)), pack(ids), shard.hold(""), 50_000)
    agree(
        shard,
        kept,
        lambda: shard.run("restore", [shard.key("epoch")], now, *args),
        lambda model: model.restore(now, spent, ids, 50_000),
    )


@SETTINGS
@given(states(), st.sampled_from(["-", "", "one", "other"]))
def test_admit_names_the_server_that_was_told_unless_all_is_gone(shard: Shard, kept: Kept, server: str) -> None:
    agree(
        shard,
        kept,
        lambda: shard.run("admit", [shard.key("epoch")], 0, server, "t0k3n"),
        lambda model: model.admit(0, server, "t0k3n"),
    )


def test_without_a_time_given_a_script_asks_the_server(shard: Shard) -> None:
    seconds, micros = shard.client.time()
    before = seconds * 1000 + micros // 1000
    _, told = shard.run("balances", [shard.key("holds")], "", 0, 0, pack([]))
    assert before <= told <= before + SLACK_MS


def test_every_script_has_a_model() -> None:
    assert set(SCRIPTS.__slots__) == {name for name in vars(Kept) if name in SCRIPTS.__slots__}
