"""The recorded replies of real providers behind a real gateway process, with the official SDKs as its clients.

What a client has in the end is what the dialect makes of the recorded bytes (which the tests in `golden` hold to the
recordings), however those bytes are cut on the wire; and what is booked is what they say was used.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import corpus
import pytest
import replayed
import surfaces
from asking import CLIENTS, Booked, Case, Clients, Got, booked, digest, expected
from corpus import Row
from processes import GatewayProcess
from surfaces import Surface

from gateway import money, plugins, settings
from gateway.dialects import relay
from gateway.errors import UpstreamRejected
from gateway.types import OUTPUT_BUCKETS, Bucket, Deployment, Usage

pytestmark = [
    pytest.mark.system,
    pytest.mark.corpus,
    pytest.mark.filterwarnings("ignore:deprecated"),  # fields of the SDKs
]

AT_ONCE = 8


def good(row: Row) -> bool:
    """Whether it is a good reply that a client's request could have brought."""
    return 200 <= row["response_status"] < 300 and _callable(row)


def refused(row: Row) -> bool:
    """Whether it is an error that one could have brought."""
    return row["response_status"] >= 400 and _callable(row)


def framed(row: Row) -> bool:
    """Whether it is an event stream of Amazon's, in a format that is spoken here."""
    return good(row) and row["response_format"] == "aws-eventstream"


def _callable(row: Row) -> bool:
    return row["method"] == "POST" and isinstance(surfaces.surface(row), Surface)


def damaged(row: Row) -> bytes:
    """One bit of it is another, anywhere."""
    data, dice = bytearray(replayed.recorded(row)), random.Random(row["id"])
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(data)


def damaged_at_the_end(row: Row) -> bytes:
    """In the last frame, which has the usage."""
    data = bytearray(replayed.recorded(row))
    data[-6] ^= 1
    return bytes(data)


DAMAGE: Mapping[str, replayed.Alter] = {"damaged": damaged, "damagedatend": damaged_at_the_end}


def cases(rows: Iterable[Row]) -> Iterator[Case]:
    """Each reply for each who may ask for it; streams in single bytes once, and in random pieces for all."""
    for row in rows:
        at = surfaces.surface(row)
        assert isinstance(at, Surface)
        for number, client in enumerate(CLIENTS.get(at.name, (at.client,))):
            yield from (Case(row, at, client, how, replayed.place(row, at)) for how in _hows(row, number))
            for how in (*(DAMAGE if framed(row) else ()), *(["whole"] if refused(row) else [])):
                yield Case(row, at, client, how, replayed.place(row, at, f"{client}-{how}"))


def _hows(row: Row, number: int) -> Sequence[str]:
    if refused(row):
        return ()
    return ("whole",) if not surfaces.streams(row) else ("random",) if number else ("random", "bytes")


@dataclass(frozen=True)
class Played:
    """What came of some cases, what was booked by request, and the deployments."""

    got: list[tuple[Case, Got]]
    records: Mapping[str, Booked]
    deployments: Mapping[str, Deployment]


async def played(rows: list[Row], folder: Path) -> Played:
    """Asks a gateway for them all."""
    asked = list(cases(rows))
    async with replayed.playing(rows, DAMAGE) as player:
        text = replayed.config({case.place: (case.row, case.at) for case in asked}, player.url)
        gateway = GatewayProcess(folder, text)
        try:
            await asyncio.to_thread(gateway.start)
            clients, free = Clients(gateway.url), asyncio.Semaphore(AT_ONCE)

            async def ask(case: Case) -> Got:
                async with free:
                    found = await clients.ask(case)
                return replace(found, said=digest(found.said, case))  # all of it would be gigabytes

            got = await asyncio.gather(*map(ask, asked))
            await clients.close()
            assert await asyncio.to_thread(gateway.stop) in {0, -signal.SIGTERM}
        finally:
            gateway.kill()
    deployments = settings.parse(text, {}).deployments
    return Played(list(zip(asked, got, strict=True)), booked(folder / "tollgate.db"), deployments)


def check_replies(done: Played) -> int:
    """That each client has what was recorded, and that it is booked; how many were checked."""
    some = [(case, found) for case, found in done.got if good(case.row) and case.how not in DAMAGE]
    wrong = []
    for case, found in some:
        want = expected(case, done.deployments[case.place], replayed.recorded(case.row))
        if problem := _differs(case, found, want, done.records.get(found.id)):
            wrong.append((case.row["id"], case.at.preset, case.client.value, case.how, problem))
    assert not wrong, (len(wrong), wrong[:5])
    assert len(done.records) == len(done.got), "each of them is booked, once"
    return len(some)


def _differs(case: Case, found: Got, want: Got, record: Booked | None) -> str:
    if found.error != want.error:
        return f"{found.error!r} is not {want.error!r}"
    if found.said != digest(want.said, case):
        return f"it did not say {want.said!r:.600}"
    if record is None:
        return "nothing was booked"
    if want.usage is not None and want.usage.exact and not want.error:
        tokens = {str(bucket): count for bucket, count in want.usage.tokens.items()}
        if (record.tokens, record.fees) != (tokens, dict(want.usage.fees)):
            return f"{record} is not {want.usage}"
        if (record.cost, record.estimated) != (want.cost, False):
            return f"{record} does not cost {want.cost}"
    return ""


def check_damaged(done: Played) -> int:
    """That what came before the damage reaches the client and an error after it, and that it is charged."""
    some = [(case, found) for case, found in done.got if case.how in DAMAGE]
    for case, found in some:
        deployment = done.deployments[case.place]
        want = expected(case, deployment, DAMAGE[case.how](case.row))
        assert found.error == want.error == "upstream_broken", (case, found.error)
        assert found.said == digest(want.said, case), case
        _check_charge(case, found, want, done.records[found.id], deployment)
    return len(some)


def _check_charge(case: Case, found: Got, want: Got, record: Booked, deployment: Deployment) -> None:
    """The input as the provider said, else as estimated; the output as it said, or as much as was seen."""
    if found.status == 502:  # nothing was sent: what the provider may charge for it is overhead
        assert (record.outcome, record.tokens) == ("upstream_error", {})
        assert record.cost == record.tokens_estimated * 1000
        return
    assert (found.status, record.outcome) == (200, "broken_stream")
    tokens = {Bucket(name): count for name, count in record.tokens.items()}
    assert record.cost == money.cost(Usage(tokens), deployment.price, 0).total
    into = sum(count for bucket, count in tokens.items() if bucket not in OUTPUT_BUCKETS)
    assert into == (want.usage.input_tokens if want.usage else record.tokens_estimated), case
    if case.how == "damagedatend":  # all of the answer was there
        true = expected(case, deployment, replayed.recorded(case.row)).usage
        assert true is not None
        out = sum(count for bucket, count in tokens.items() if bucket in OUTPUT_BUCKETS)
        least, most = (
            true.output_tokens / 4 - 12,
            true.output_tokens * 1.5 + 12,
        )  # what a tool call is wrapped in is unseen
        assert least <= out <= most, (case, out, true.output_tokens)


def check_refused(done: Played) -> int:
    """That each client is told what the leaf says: its status, its code, whether and when to try again."""
    some = [(case, found) for case, found in done.got if refused(case.row)]
    for case, found in some:
        provider = done.deployments[case.place].provider
        headers = dict(replayed.headers(case.row))
        leaf = plugins.dialect(provider.dialect).error(
            case.row["response_status"], headers, replayed.recorded(case.row), provider
        )
        status = leaf.upstream_status if isinstance(leaf, UpstreamRejected) else leaf.status
        assert (found.status, found.error) == (status, relay.error_code(leaf)), case
        assert found.headers.get("x-should-retry") == str(leaf.retryable).lower(), case
        assert ("retry-after" in found.headers) == (leaf.retry_after_s is not None), (case, leaf.retry_after_s)
        record = done.records[found.id]
        assert (record.outcome, record.cost, record.tokens) == ("upstream_error", 0, {}), case
    return len(some)


def sample() -> Iterator[Row]:
    """A small one of each kind, with a tool call where there is one."""
    kinds: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in corpus.every_line():
        if good(row):
            kinds[surfaces.surface(row), surfaces.streams(row)].append(row)
        elif refused(row):
            kinds[row["provider"], row["response_status"]].append(row)
    for rows in kinds.values():
        yield min(rows, key=_plainness)


def _plainness(row: Row) -> tuple[bool, int]:
    data = replayed.recorded(row)
    return not (b"tool" in data.lower() and len(data) < 4_000), len(data)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """What came of the sample."""
    return asyncio.run(played(list(sample()), tmp_path_factory.mktemp("sample")))


def test_a_recording_of_each_kind_reaches_its_clients_as_it_is(sampled: Played) -> None:
    assert check_replies(sampled) > 150


def test_a_damaged_frame_ends_its_stream_with_an_error_and_what_came_is_charged(sampled: Played) -> None:
    assert check_damaged(sampled) > 10


def test_an_error_of_each_kind_is_told_with_its_status_code_and_advice(sampled: Played) -> None:
    assert check_refused(sampled) > 50


# The frames of all 85 event streams are damaged in golden/test_bedrock.py: nine are of formats that are not spoken.
@pytest.mark.slow
def test_every_recording_reaches_its_clients_as_it_is(tmp_path: Path) -> None:
    rows = [row for row in corpus.every_line() if good(row) or refused(row)]
    assert (sum(map(good, rows)), sum(map(framed, rows))) == (
        10_499,
        76,
    )
    done = asyncio.run(played(rows, tmp_path))
    assert check_replies(done) > 20_000
    assert check_damaged(done) == 4 * 76
    assert check_refused(done) > 1000
