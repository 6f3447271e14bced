from __future__ import annotations

from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest
from hypothesis import given, strategies as st
from ledgers import ACME, DAY, WEDNESDAY, draft, line

import gateway.ledger
from gateway.ledger.book import PRESUMED_KEPT_MS
from gateway.ledger.open import open_ledger
from gateway.ledger.places import KEEP_MS, Counters, counter_key, place
from gateway.ledger.redis import RedisLedger
from gateway.ledger.scripts import SCRIPTS
from gateway.ledger.sqlite import SqliteLedger
from gateway.ledger.windows import TOTAL, Spans
from gateway.ledger.wire import decode, encode, readable
from gateway.types import Account, Every, Outcome, Record, Unit, Window

names = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["~", "%", "a~", "%7E", "~a"])
accounts = st.builds(Account, names, names, names)


@given(accounts, accounts)
def test_two_accounts_never_share_a_counter(one: Account, other: Account) -> None:
    same = counter_key(one, Unit.COST, TOTAL) == counter_key(other, Unit.COST, TOTAL)
    assert same == (one == other)


def test_a_counter_outlives_what_may_still_be_booked_on_it() -> None:
    now_ms = int(WEDNESDAY * 1000)
    found = place([line(1, 2), line(1, 2, window=Window(Every.TOTAL))], now_ms, Counters())
    day, total = found.places
    assert day.keep == found.end + KEEP_MS
    assert KEEP_MS > PRESUMED_KEPT_MS + 7 * 86_400_000
    assert total.keep == 0


def test_lines_hold_together_while_the_shortest_of_their_windows_lasts() -> None:
    found = place([line(1, 2), line(1, 2, window=Window(Every.MINUTE))], int(WEDNESDAY * 1000) + 5, Counters())
    assert (found.start, found.end) == (int(WEDNESDAY * 1000), int(WEDNESDAY * 1000) + 60_000)


def test_a_record_survives_the_outbox_unchanged() -> None:
    record = draft(
        "r1",
        cost=None,
        outcome=Outcome.CLIENT_GONE,
        tags={"feature": "search ✓"},
        tokens={"input": 3},
        components={"input": 2**60},
        reported_cost=0,
        flags=("a", "b"),
        reasons="cheapest\n",
    )
    assert decode(encode(record)) == record


def test_a_record_is_written_without_what_every_record_says() -> None:
    plain = draft("r1")
    assert len(encode(plain)) < 200
    assert decode(encode(plain)) == plain


def test_a_record_of_an_older_or_newer_gateway_can_be_read() -> None:
    whole = msgspec.structs.asdict(draft("r1"))  # older ones write every field
    assert decode(msgspec.msgpack.encode(whole)) == draft("r1")
    del whole["reasons"], whole["attempts"]
    assert decode(msgspec.msgpack.encode({**whole, "colour": "green"})) == draft("r1")


async def test_a_record_nobody_can_read_holds_up_no_other() -> None:
    good = encode(draft("r1"))
    found = await readable([("1", b"\xc1"), ("2", good), ("3", good.replace(b"presumed", b"\xff" * 8))])
    assert found == [("2", draft("r1"))]


def test_an_absurd_number_in_a_record_is_no_error() -> None:
    found = decode(encode(draft("r1", cost=10**30, tokens={"input": -(10**30)})))
    assert (found.cost, found.tokens["input"]) == (2**63 - 1, 1 - 2**63)


def test_every_field_of_a_record_is_of_a_type_the_outbox_can_carry() -> None:
    assert msgspec.inspect.type_info(Record)
    needed = {field.name for field in msgspec.structs.fields(Record) if field.required}
    assert needed <= set(msgspec.msgpack.decode(encode(draft("r1")))) <= set(get_type_hints(Record))


def test_each_script_is_known_by_its_own_name() -> None:
    scripts = [getattr(SCRIPTS, verb) for verb in SCRIPTS.__dataclass_fields__]
    files = list(Path(gateway.ledger.__file__).parent.glob("*.lua"))
    assert len({script.sha for script in scripts}) == len(scripts) == len(files) - 1  # one is what they share


async def test_the_ledger_is_in_redis_if_there_is_one_and_else_in_the_database_file(tmp_path: Path) -> None:
    assert isinstance(open_ledger("redis://127.0.0.1:1/0", "sqlite:///x.db"), RedisLedger)
    assert isinstance(open_ledger("rediss+cluster://u:p%40@a:7000,b:7001/0", "postgresql://h/d"), RedisLedger)
    assert isinstance(open_ledger(None, f"sqlite:///{tmp_path}/x.db"), SqliteLedger)


@pytest.mark.parametrize("database", ["postgresql://h/d", "sqlite://", "sqlite:///:memory:", "sqlite:///"])
def test_a_database_that_cannot_hold_a_ledger_is_an_error_that_says_what_can(database: str) -> None:
    with pytest.raises(ValueError, match="redis"):
        open_ledger(None, database)


def test_the_account_of_the_figures_is_named_in_the_counter() -> None:
    assert (
        counter_key(ACME, Unit.COST, Spans().at(DAY, int(WEDNESDAY * 1000))) == "cost:day@1789516800:tenant~acme~acme"
    )
