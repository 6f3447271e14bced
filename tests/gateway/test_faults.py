"""The fault matrix: a provider over TCP that fails in every known way, streaming or not, alone or with one behind it.

One gateway on a real socket serves all of it side by side.  Each row says what the client sees and what is charged when
the faulty deployment is alone; with another behind it every failure before the first byte is invisible.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from faulty import FAULTS, FaultyProvider, bomb
from served import Served, served

from gateway.accounts import shared_lines
from gateway.types import Outcome, Record

KEY = "test-key-of-acme"
AT_ONCE = 24
PATIENCE_S = 20.0  # for what has a deadline of 2 s, on a machine that may be busy
WAIT_S = 60.0

STATED = 14_000  # nano-dollars: what the faulty provider's own usage costs at a dollar per million tokens
INPUT = 16_000  # the input as we count it
ELSEWHERE = 2_800_000  # the same usage on the deployment behind


class End(NamedTuple):
    """How a request ends when nobody else can serve it.  `least` and `most`: nano-dollars charged."""

    status: int
    code: str = ""
    least: int = 0
    most: int = 0
    retry_after: range | None = None
    midway: bool = False  # the client saw the beginning
    recorded: bool = True  # it reached the provider


FINE = End(200, least=STATED, most=STATED)
COUNTED = End(200, least=INPUT + 4_000, most=INPUT + 6_000)
UNREACHED = End(502, "upstream_unreachable", recorded=False)
BROKEN = End(502, "upstream_broken")
BROKEN_AFTER_WORK = End(502, "upstream_broken", INPUT, INPUT + 80_000)
TIMED_OUT = End(504, "upstream_timeout", INPUT, INPUT)
TIMED_OUT_AFTER_WORK = End(504, "upstream_timeout", INPUT, INPUT + 80_000)
FAILED = End(502, "upstream_error")
FAILED_AFTER_WORK = End(502, "upstream_error", STATED, STATED)
OVERLOADED = End(503, "upstream_overloaded")
LIMITED = End(429, "upstream_rate_limited")


def midway(code: str, tokens: int) -> End:
    return End(200, code, INPUT + 1_000 * (tokens - 1), INPUT + 1_000 * (tokens + 1), midway=True)


def limited(seconds: int) -> End:
    return LIMITED._replace(retry_after=range(max(1, seconds - 5), seconds + 1))


ROWS: dict[str, tuple[End, End]] = {  # whole, streamed
    "fine": (FINE, FINE),
    "slow": (FINE, FINE),
    "refused": (UNREACHED, UNREACHED),
    "no_such_name": (UNREACHED, UNREACHED),
    "tls_error": (UNREACHED, UNREACHED),
    "reset_before_headers": (BROKEN, BROKEN),
    "reset_during_headers": (BROKEN, BROKEN),
    "reset_after_headers": (BROKEN_AFTER_WORK, BROKEN_AFTER_WORK),
    "reset_midway": (BROKEN_AFTER_WORK, midway("upstream_broken", 3)),
    "half_closed": (BROKEN_AFTER_WORK, midway("upstream_broken", 3)),
    "slow_loris": (TIMED_OUT, TIMED_OUT),
    "byte_by_byte": (TIMED_OUT_AFTER_WORK, TIMED_OUT_AFTER_WORK),
    "no_head": (TIMED_OUT, TIMED_OUT),
    "stall": (TIMED_OUT_AFTER_WORK, midway("upstream_timeout", 3)),
    "wrong_content_type": (BROKEN, BROKEN),
    "truncated_json": (BROKEN_AFTER_WORK, midway("upstream_broken", 2)),
    "invalid_utf8": (BROKEN_AFTER_WORK, midway("upstream_broken", 0)),
    "invalid_gzip": (BROKEN, BROKEN),
    "zip_bomb": (BROKEN, BROKEN),
    "line_of_10_mb": (FINE, FINE),
    "endless_line": (
        End(502, "upstream_broken", INPUT, INPUT + 4_096_000),
        End(502, "upstream_broken", INPUT, INPUT),
    ),
    "redirect_loop": (BROKEN, BROKEN),
    "early_error": (FAILED, FAILED),
    "late_error": (FAILED, midway("upstream_error", 3)),
    "error_with_usage": (FAILED_AFTER_WORK, FAILED_AFTER_WORK),
    "done_twice": (FINE, FINE),
    "no_done": (FINE, FINE),
    "no_end": (BROKEN_AFTER_WORK, midway("upstream_broken", 3)),
    "no_usage": (COUNTED, COUNTED),
    "status_408": (FAILED, FAILED),
    "status_409": (FAILED, FAILED),
    "status_500": (FAILED, FAILED),
    "status_503_html": (OVERLOADED, OVERLOADED),
    "status_529": (OVERLOADED, OVERLOADED),
    "limited": (LIMITED, LIMITED),
    "limited_ms": (limited(1), limited(1)),
    "limited_seconds": (limited(40), limited(40)),
    "limited_date": (limited(40), limited(40)),
    "limited_epoch": (limited(40), limited(40)),
    "limited_minutes": (limited(360), limited(360)),
    "limited_fraction": (limited(18), limited(18)),
    "limited_retry_info": (limited(40), limited(40)),
    "limited_words": (limited(360), limited(360)),
    "limited_reset": (limited(360), limited(360)),
}
CASES = [(name, stream) for name in ROWS for stream in (False, True)]


def row(name: str, *, stream: bool) -> End:
    return ROWS[name][stream]


def first(name: str, stream: bool) -> str:
    """One deployment each: what an open circuit does is another test's."""
    return f"{name}.{'streamed' if stream else 'whole'}"


PROVIDER = """
  {name}: {{dialect: openai, base_url: "{url}", api_key: sk-x, retries_max: 0,
    timeouts: {{connect_s: 5, {deadlines}}}}}"""
OF_TIME = {name for name, ends in ROWS.items() if any(end.code == "upstream_timeout" for end in ends)}
SHORT, LONG = "first_byte_s: 1.5, idle_s: 1, total_s: 2", "first_byte_s: 20, idle_s: 20, total_s: 20"
"""Of the rest no deadline is the fault: a busy machine may take its time."""
DEPLOYMENTS = """
  - {{id: {name}.whole.alone, provider: {name}, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 4096}}
  - {{id: {name}.streamed.alone, provider: {name}, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 4096}}
  - {{id: {name}.whole, provider: {name}, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 4096}}
  - {{id: {name}.streamed, provider: {name}, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 4096}}"""
ROUTE = """
  {name}.whole.route: {{candidates: [{name}.whole, behind], policies: [cheapest]}}
  {name}.streamed.route: {{candidates: [{name}.streamed, behind], policies: [cheapest]}}"""
CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  good: {{dialect: openai, base_url: "http://127.0.0.1:{port}/fine/v1", api_key: sk-x}}{providers}
deployments:
  - {{id: behind, provider: good, upstream_model: m, price: {{input: 200, output: 200}}}}{deployments}
routes:{routes}
tenants:
  - id: acme
    keys: [{{name: prod, key: test-key-of-acme}}]
    budgets: [{{limit_usd: 1000, window: total}}]
"""


def config(folder: Path, port: int) -> str:
    urls = {name: f"http://127.0.0.1:{port}/{name}/v1" for name in FAULTS} | {
        "refused": "http://127.0.0.1:1/v1",
        "no_such_name": "http://nobody.invalid/v1",
        "tls_error": f"https://127.0.0.1:{port}/fine/v1",
    }
    return CONFIG.format(
        folder=folder,
        port=port,
        providers="".join(
            PROVIDER.format(name=name, url=url, deadlines=SHORT if name in OF_TIME else LONG)
            for name, url in urls.items()
        ),
        deployments="".join(DEPLOYMENTS.format(name=name) for name in urls),
        routes="".join(ROUTE.format(name=name) for name in urls),
    )


@dataclass
class Seen:
    """What became of one request."""

    status: int
    retry_after: str | None
    text: str
    records: list[Record]


@dataclass
class Matrix:
    """What became of all of them."""

    alone: dict[tuple[str, bool], Seen]
    failover: dict[tuple[str, bool], Seen]
    charged: int
    held: int
    records: list[Record]


async def ask(gateway: Served, model: str, turns: asyncio.Semaphore, *, stream: bool) -> Seen:
    async with turns, asyncio.timeout(WAIT_S):
        reply = await gateway.chat(model, key=KEY, stream=stream)
    id_ = reply.headers["x-tollgate-request-id"]
    found = [record for record in gateway.records if record.id == id_]
    return Seen(reply.status_code, reply.headers.get("retry-after"), reply.text, found)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def matrix(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Matrix]:
    """Every case, once."""
    bomb()  # before the clocks run
    turns = asyncio.Semaphore(AT_ONCE)
    async with FaultyProvider() as provider:
        text = config(tmp_path_factory.mktemp("matrix"), provider.port)
        async with served(text) as gateway:
            alone = await asyncio.gather(
                *(ask(gateway, f"{first(name, s)}.alone", turns, stream=s) for name, s in CASES)
            )
            failover = await asyncio.gather(
                *(ask(gateway, f"{first(name, s)}.route", turns, stream=s) for name, s in CASES)
            )
            site = gateway.gateway.sites.current
            lines = shared_lines(site.directory.tenants, (), (), now=time.time())
            (balance,) = await gateway.gateway.parts.ledger.balances(lines)
            for _ in range(200):  # a client has its answer before the ledger has heard of it
                if not balance.reserved:
                    break
                await asyncio.sleep(0.01)
                (balance,) = await gateway.gateway.parts.ledger.balances(lines)
            ends = [dict(zip(CASES, seen, strict=True)) for seen in (alone, failover)]
            yield Matrix(ends[0], ends[1], balance.spent, balance.reserved, gateway.records)


def test_every_fault_has_its_row() -> None:
    assert set(ROWS) >= set(FAULTS)
    assert len(ROWS) >= 25


@pytest.mark.parametrize(("name", "stream"), CASES)
@pytest.mark.asyncio(loop_scope="module")
async def test_alone_a_fault_is_told_in_the_clients_terms_and_charged_as_what_it_was(
    matrix: Matrix, name: str, *, stream: bool
) -> None:
    seen, end = matrix.alone[name, stream], row(name, stream=stream)
    assert seen.status == end.status
    assert (not end.code) == ('"code":"' not in seen.text)
    assert f'"code":"{end.code}"' in seen.text or not end.code
    if end.retry_after is None:
        assert seen.retry_after is None
    else:
        assert seen.retry_after is not None
        assert int(seen.retry_after) in end.retry_after
    assert len(seen.records) == end.recorded
    for record in seen.records:
        assert record.cost is not None
        assert end.least <= record.cost <= end.most
        assert record.outcome is outcome(end)
        assert (record.error, record.status, record.attempts) == (end.code, end.status, 1)
        assert record.latency_ms < 1000 * PATIENCE_S


def outcome(end: End) -> Outcome:
    if not end.code:
        return Outcome.OK
    return Outcome.BROKEN_STREAM if end.midway else Outcome.UPSTREAM_ERROR


@pytest.mark.parametrize(("name", "stream"), CASES)
@pytest.mark.asyncio(loop_scope="module")
async def test_with_another_behind_a_fault_before_the_first_byte_is_invisible(
    matrix: Matrix, name: str, *, stream: bool
) -> None:
    seen, end = matrix.failover[name, stream], row(name, stream=stream)
    (record,) = seen.records
    assert seen.status == 200
    if end.midway:
        assert f'"code":"{end.code}"' in seen.text
        assert (record.deployment, record.outcome) == (first(name, stream), Outcome.BROKEN_STREAM)
        return
    assert record.outcome is Outcome.OK
    assert '"code":"' not in seen.text
    served_first = end.status == 200
    assert record.deployment == (first(name, stream) if served_first else "behind")
    assert record.attempts == (1 if served_first else 2)
    assert record.cost is not None
    wasted = record.cost - (0 if served_first else ELSEWHERE)
    assert end.least <= wasted <= end.most
    assert record.overhead_cost == (0 if served_first else wasted)
    assert record.cost == sum(record.components.values())


@pytest.mark.parametrize("name", [name for name in ROWS if row(name, stream=True).midway])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_stream_that_broke_does_not_pretend_to_have_ended(matrix: Matrix, name: str) -> None:
    for seen in (matrix.alone[name, True], matrix.failover[name, True]):
        assert "[DONE]" not in seen.text
        assert '"finish_reason":"stop"' not in seen.text


@pytest.mark.asyncio(loop_scope="module")
async def test_the_ledger_says_what_the_records_say_and_nothing_stays_held(matrix: Matrix) -> None:
    assert len({record.id for record in matrix.records}) == len(matrix.records)
    assert matrix.charged == sum(record.cost or 0 for record in matrix.records)
    assert matrix.held == 0
