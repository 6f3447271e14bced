"""Batches on vendors of three kinds: what clients get, what is set aside, what is settled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import redis
from batch_vendor import CACHED, COST, INPUT, KINDS, MODELS, OUTPUT, BatchVendor, Served, config, line, served
from services import RedisServer

from gateway.batches import intake, work
from gateway.batches.order import HOLD_S
from gateway.configuration.presets import known
from gateway.dialects.batches.wires import wire_of
from gateway.errors import LedgerUnavailable
from gateway.settlements import Settlements
from gateway.sql import jobs
from gateway.sql.records import Filter, page
from gateway.types import Outcome, Provider

kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


async def stored(at: Served, wanted: int) -> list[dict[str, Any]]:
    """The records in SQL once there are so many."""
    async with asyncio.timeout(20):
        while True:
            rows = await at.gateway.store.database.run(lambda connection: page(connection, Filter(), 100))
            if len(rows) >= wanted:
                return rows
            await at.gateway.parts.recorder.round()
            await asyncio.sleep(0)


@kinds
async def test_every_line_is_answered_in_the_clients_format_and_paid_at_the_batch_price(
    kind: str, tmp_path: Path
) -> None:
    async with served(config(tmp_path, kind), BatchVendor(kind)) as at:
        batch = await at.create([line("a"), line("b"), line("c")])
        assert batch.status == "validating"
        batch = await at.ended(batch.id)
        assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 3, 0)
        assert batch.error_file_id is None
        found = await at.content(batch.output_file_id)
        assert sorted(found) == ["a", "b", "c"]
        for id_, each in found.items():
            body = each["response"]["body"]
            assert each["response"]["status_code"] == 200
            assert body["choices"][0]["message"]["content"] == f"answer to Say {id_}."
            assert body["choices"][0]["finish_reason"] == "stop"
            assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (INPUT, OUTPUT)
        assert await at.spent() == (3 * COST, 0)
        rows = await stored(at, 3)
    assert [row["cost"] for row in rows] == [COST] * 3
    assert {(row["service_tier"], row["tags"]["batch"], row["outcome"]) for row in rows} == {("batch", batch.id, "ok")}
    assert len({row["id"] for row in rows}) == 3


@kinds
async def test_cached_tokens_of_a_line_are_paid_at_the_batch_price_of_cached_tokens(kind: str, tmp_path: Path) -> None:
    async with served(config(tmp_path, kind), BatchVendor(kind, fates={0: "cached"})) as at:
        await at.ended((await at.create([line("a"), line("b")])).id)
        costs = sorted(row["cost"] for row in await stored(at, 2))
        assert costs == [COST - CACHED * (500 - 50), COST]  # half of $1 and of $0.10 a million
        assert await at.spent() == (sum(costs), 0)


@pytest.mark.parametrize("kind", ["anthropic"])
async def test_what_is_set_aside_is_the_most_every_line_can_cost_at_the_batch_price(kind: str, tmp_path: Path) -> None:
    async with served(config(tmp_path, kind), BatchVendor(kind, until_done=10**9)) as at:
        batch = await at.create([line("a"), line("b")])
        spent, reserved = await at.spent()
        assert spent == 0
        assert 2 * 20 * 1000 < reserved < 2 * (20 * 1000 + 200 * 500)  # output at half of $2, input at half of $1
        assert batch.model_extra["tollgate"]["reserved_usd"] == f"{reserved / 1e9:.9f}".rstrip("0")


async def test_a_ledger_that_forgot_can_be_told_what_batches_hold(tmp_path: Path) -> None:
    async with served(config(tmp_path, "openai"), BatchVendor("openai")) as at:
        outstanding = at.gateway.runner.outstanding
        assert await outstanding() == ([], [])
        batch = await at.create([line("a"), line("b")])
        held, settled = await outstanding()
        assert sum(each.lines[0].amount for each in held) == (await at.spent())[1] > 0
        assert (len(held), settled) == (2, [])
        await at.ended(batch.id)
        assert await outstanding() == ([], [])


@kinds
async def test_each_line_is_charged_by_what_became_of_it(kind: str, tmp_path: Path) -> None:
    fates = ["", "failed", "no_usage", "broken", "missing"]
    async with served(config(tmp_path, kind), BatchVendor(kind, fates=dict(enumerate(fates)))) as at:
        batch = await at.ended((await at.create([line(fate or "good") for fate in fates])).id)
        assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 2, 3)
        assert sorted(await at.content(batch.output_file_id)) == ["good", "no_usage"]
        errors = await at.content(batch.error_file_id)
        assert sorted(errors) == ["broken", "failed", "missing"]
        assert "the vendor failed" in errors["failed"]["response"]["body"]["error"]["message"]
        by_fate = {fates[int(record.id.rpartition("_")[2]) - 1]: record for record in at.records}
        good, failed, uncounted, broken, missing = (by_fate[fate] for fate in fates)
        assert (good.outcome, good.cost, good.estimated) == (Outcome.OK, COST, False)
        assert (failed.outcome, failed.cost) == (Outcome.UPSTREAM_ERROR, 0)
        assert (uncounted.outcome, uncounted.estimated) == (Outcome.OK, True)
        assert uncounted.tokens["input"] == uncounted.tokens_estimated
        assert 3 <= uncounted.tokens["output"] <= 20
        assert (broken.outcome, broken.estimated) == (Outcome.UPSTREAM_ERROR, True)
        assert broken.cost  # it was answered, so it may have been charged
        assert missing.cost is None  # nobody can say: all that was set aside is booked
        known = sum(record.cost or 0 for record in at.records)
        assert await at.spent() == (known + missing.reserved, 0)
        assert batch.model_extra["tollgate"]["cost_usd"] is None


@kinds
async def test_a_batch_that_expires_pays_for_what_was_answered_and_nothing_else(kind: str, tmp_path: Path) -> None:
    answered = 0 if kind == "gemini" else 1  # Gemini gives out nothing of a batch that expires
    vendor = BatchVendor(kind, fates={1: "expired", 2: "expired"}, ends="expired")
    async with served(config(tmp_path, kind), vendor) as at:
        batch = await at.ended((await at.create([line("a"), line("b"), line("c")])).id)
        assert batch.status == "expired"
        errors = await at.content(batch.error_file_id)
        assert {errors[id_]["error"]["code"] for id_ in ("b", "c")} == {"batch_expired"}
        assert await at.spent() == (answered * COST, 0)
        assert len(at.records) == 3


@pytest.mark.parametrize("kind", ["anthropic"])
async def test_a_batch_above_the_budget_is_refused_and_consumes_nothing(kind: str, tmp_path: Path) -> None:
    async with served(config(tmp_path, kind, limit="0.0001"), BatchVendor(kind)) as at:
        with pytest.raises(openai.RateLimitError) as refused:
            await at.create([line(str(i)) for i in range(5)])
        assert refused.value.code == "budget_exceeded"
        assert await at.spent() == (0, 0)
        assert at.vendor.calls == []
        assert (await at.openai().batches.list()).data == []


async def test_two_batches_at_once_never_pass_the_cap_together(tmp_path: Path) -> None:
    async with served(config(tmp_path, "openai", limit="0.0002"), BatchVendor("openai", until_done=10**9)) as at:
        lines = [line(str(i), max_tokens=100) for i in range(1)]
        found = await asyncio.gather(*(at.create(lines) for _ in range(6)), return_exceptions=True)
        spent, reserved = await at.spent()
        taken = [each for each in found if not isinstance(each, BaseException)]
        assert 0 < len(taken) < 6
        assert spent + reserved <= 200_000
        assert reserved == sum(round(float(each.tollgate["reserved_usd"]) * 1e9) for each in taken)


@kinds
async def test_a_cancelled_batch_is_settled_for_what_was_answered(kind: str, tmp_path: Path) -> None:
    vendor = BatchVendor(kind, until_done=10**9)
    async with served(config(tmp_path, kind), vendor) as at:
        batch = await at.create([line("a"), line("b")])
        while not vendor.batches:
            vendor.seen.clear()
            await vendor.seen.wait()
        asked = await at.openai().batches.cancel(batch.id)
        assert asked.status in ("cancelling", "cancelled")
        batch = await at.ended(batch.id)
        assert (batch.status, batch.output_file_id) == ("cancelled", None)
        errors = await at.content(batch.error_file_id)
        assert {each["error"]["code"] for each in errors.values()} == {"batch_cancelled"}
        assert await at.spent() == (0, 0)
        with pytest.raises(openai.ConflictError):
            await at.openai().batches.cancel(batch.id)


@pytest.mark.parametrize("kind", ["openai", "gemini"])
async def test_a_batch_that_the_vendor_fails_as_a_whole_costs_nothing(kind: str, tmp_path: Path) -> None:
    async with served(config(tmp_path, kind), BatchVendor(kind, ends="failed")) as at:
        batch = await at.ended((await at.create([line("a")])).id)
        assert batch.status == "failed"
        assert "the vendor dislikes line 1" in batch.errors.data[0].message
        assert await at.spent() == (0, 0)
        assert at.records == []


@pytest.mark.parametrize("kind", ["anthropic"])
async def test_a_batch_that_the_vendor_refuses_fails_and_frees_everything(kind: str, tmp_path: Path) -> None:
    refusal = httpx.Response(400, json={"error": {"message": "no batches today", "type": "invalid_request_error"}})
    vendor = BatchVendor(kind, fault=lambda request: refusal if request.method == "POST" else None)
    async with served(config(tmp_path, kind), vendor) as at:
        batch = await at.ended((await at.create([line("a")])).id)
        assert (batch.status, batch.errors.data[0].message) == ("failed", "no batches today")
        assert await at.spent() == (0, 0)


@kinds
async def test_a_vendor_that_is_away_for_a_while_is_asked_again(kind: str, tmp_path: Path) -> None:
    left = [3]

    def away(request: httpx.Request) -> httpx.Response | None:
        if request.method != "GET" or not left[0]:
            return None
        left[0] -= 1
        if left[0] == 1:
            raise httpx.ConnectError("nobody is there", request=request)
        return httpx.Response(503, json={"error": {"message": "busy"}})

    async with served(config(tmp_path, kind), BatchVendor(kind, fault=away)) as at:
        batch = await at.ended((await at.create([line("a")])).id)
        assert batch.status == "completed"
        assert left == [0]
        assert await at.spent() == (COST, 0)


@kinds
async def test_a_batch_whose_submission_was_not_answered_is_found_and_not_submitted_twice(
    kind: str, tmp_path: Path
) -> None:
    lost = [1]

    def broken(request: httpx.Request) -> bool:
        made = request.method == "POST" and not request.url.path.endswith("/files")
        return made and bool(lost) and bool(lost.pop())

    async with served(config(tmp_path, kind), BatchVendor(kind, broken=broken)) as at:
        batch = await at.ended((await at.create([line("a"), line("b")])).id)
        assert batch.status == "completed"
        assert len(at.vendor.batches) == 1
        assert await at.spent() == (2 * COST, 0)


@kinds
async def test_results_that_break_off_are_read_again_and_settled_once(kind: str, tmp_path: Path) -> None:
    cut = [1]

    class Cut(BatchVendor):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            reply = await super().handle_async_request(request)
            wanted = request.url.path.endswith(("/content", "/results"))
            if self.kind == "gemini":
                wanted = b"inlinedResponses" in reply.content
            if not (wanted and cut and cut.pop()):
                return reply
            content = reply.content
            end = content.index(b"\n") + 20 if b"\n" in content else len(content) // 2

            async def some() -> Any:
                yield content[:end]
                raise httpx.ReadError("reset", request=request)

            return httpx.Response(200, content=some(), request=request)

    async with served(config(tmp_path, kind), Cut(kind)) as at:
        batch = await at.ended((await at.create([line("a"), line("b"), line("c")])).id)
        assert (batch.status, batch.request_counts.completed) == ("completed", 3)
        assert not cut
        assert sorted(await at.content(batch.output_file_id)) == ["a", "b", "c"]
        assert len(at.records) == 3
        assert await at.spent() == (3 * COST, 0)


@kinds
async def test_a_gateway_that_stops_amid_settling_leaves_the_rest_to_the_next(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book, booked = Settlements.book, []
    stuck = asyncio.Event()

    async def some(self: Settlements, *owed: Any) -> Any:
        if len(booked) == 2:
            stuck.set()
            raise LedgerUnavailable("it is away")
        booked.append(owed)
        return await book(self, *owed)

    vendor = BatchVendor(kind)
    with monkeypatch.context() as patch:
        patch.setattr(Settlements, "book", some)
        async with served(config(tmp_path, kind), vendor) as at:
            id_ = (await at.create([line(str(i)) for i in range(5)])).id
            await stuck.wait()
    async with served(config(tmp_path, kind), vendor) as at:
        batch = await at.ended(id_)
        assert (batch.status, batch.request_counts.completed) == ("completed", 5)
        assert len(await at.content(batch.output_file_id)) == 5
        assert await at.spent() == (5 * COST, 0)
        rows = await stored(at, 5)
        assert [row["cost"] for row in rows] == [COST] * 5


@kinds
async def test_two_gateways_follow_a_batch_and_settle_it_once(kind: str, tmp_path: Path) -> None:
    vendor = BatchVendor(kind, until_done=3)
    text = config(tmp_path, kind)
    async with served(text, vendor) as one, served(text.replace("/spool", "/spool2"), vendor) as other:
        ids = [(await each.create([line(str(i)) for i in range(4)])).id for each in (one, other, one, other)]
        for id_ in ids:
            assert (await one.ended(id_)).request_counts.completed == 4
        assert len(vendor.batches) == 4
        assert await one.spent() == (16 * COST, 0)
        assert len(one.records) + len(other.records) == 16


async def test_what_was_set_aside_for_a_batch_whose_client_was_never_told_is_freed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(Exception):
        pass

    async def put_down(self: jobs.Jobs, job: jobs.Job) -> bool:
        await self._set(job, lease_until=0.0)  # as when its lease has ended
        raise Died

    async with served(config(tmp_path, "openai"), BatchVendor("openai")) as at:
        with monkeypatch.context() as patch:
            patch.setattr(intake, "SETTING_ASIDE_S", -60.0)
            patch.setattr(jobs.Jobs, "put_down", put_down)
            with pytest.raises(openai.InternalServerError):
                await at.create([line("a"), line("b")])
        async with asyncio.timeout(20):
            while (await at.openai().batches.list()).data:  # it is forgotten after it is freed
                at.gateway.runner.kick()
                await asyncio.sleep(0.01)
        assert await at.spent() == (0, 0)
        assert (await at.openai().batches.list()).data == []
        assert at.vendor.calls == []


async def test_on_redis_a_batch_is_held_settled_and_told_again_after_all_was_forgotten(
    tmp_path: Path, own_redis: RedisServer
) -> None:
    vendor = BatchVendor("openai", until_done=10**9)
    async with served(f"redis: {own_redis.url}\n{config(tmp_path, 'openai')}", vendor) as at:
        batch = await at.create([line("a"), line("b")])
        _, reserved = await at.spent()
        assert reserved > 2 * COST
        with redis.Redis.from_url(own_redis.url) as client:
            client.flushall()
        async with asyncio.timeout(20):
            while await at.spent() != (0, reserved):  # noqa: ASYNC110 - a ledger tells nobody
                await asyncio.sleep(0.01)
        vendor.until_done = 0
        assert (await at.ended(batch.id)).request_counts.completed == 2
        assert await at.spent() == (2 * COST, 0)


async def test_an_administrator_sees_every_batch_and_what_it_costs(tmp_path: Path) -> None:
    async with served(config(tmp_path, "openai"), BatchVendor("openai")) as at:
        batch = await at.ended((await at.create([line("a")])).id)
        admin = {"authorization": "Bearer test-admin-key"}
        (found,) = (await at.http.get("/admin/v1/batches", headers=admin)).json()["data"]
        assert (found["id"], found["tenant"], found["state"]) == (batch.id, "acme", "completed")
        assert (found["cost"]["nano_usd"], found["lines"], found["upstream_id"]) == (COST, 1, "b1")
        assert (await at.http.get("/admin/v1/batches?under_way=true", headers=admin)).json()["data"] == []
        metrics = (await at.http.get("/metrics")).text
        assert 'tollgate_batches_total{provider="vendor",state="completed",tenant="acme"} 1.0' in metrics
        assert "tollgate_request_seconds_count" not in metrics


async def test_a_batch_is_settled_although_nobody_asks(tmp_path: Path) -> None:
    async with served(config(tmp_path, "openai"), BatchVendor("openai")) as at:
        await at.create([line("a")])
        assert len(await stored(at, 1)) == 1
        assert await at.spent() == (COST, 0)


async def test_what_a_batch_has_set_aside_outlives_the_day_it_may_take_and_is_kept_longer_where_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert HOLD_S > 24 * 3600
    vendor = BatchVendor("openai", until_done=10**9)
    async with served(config(tmp_path, "openai"), vendor) as at:
        kept, ledger = asyncio.Event(), at.gateway.parts.ledger
        extend = ledger.extend

        async def seen(hold: Any, ttl_s: float) -> bool:
            open_ = await extend(hold, ttl_s)
            if open_ and ttl_s == 3 * HOLD_S:
                kept.set()
            return open_

        monkeypatch.setattr(ledger, "extend", seen)
        monkeypatch.setattr(work, "HOLD_S", 3 * HOLD_S)  # as when more than half of it has passed
        await at.create([line("a")])
        async with asyncio.timeout(20):
            await kept.wait()


BAD_LINES: list[tuple[Any, str]] = [
    ("{not json", "Line 2: this is not JSON"),
    ('["a list"]', "Line 2: "),
    (line("a"), "Line 2: `custom_id` 'a' is that of line 1 already."),
    (line(""), "Line 2: `custom_id` must have 1 to 512 characters."),
    (line("b", method="GET"), "Line 2: `method` must be POST"),
    (line("b", url="/v1/embeddings"), "Line 2: `url` must be '/v1/chat/completions'"),
    ({"custom_id": "b", "method": "POST", "url": "/v1/chat/completions"}, "Line 2: "),
    (line("b", model="none-such"), "Line 2: "),
    (line("b", model="m2"), "Line 2: model 'm2' is not that of line 1, 'm': provider 'vendor' takes one model"),
    (line("b", model="no-batches"), "Line 2: model 'no-batches' has no deployment whose provider takes batches"),
    (line("b", model="unpriced"), "Line 2: "),
    (line("b", stream=True), "Line 2: `stream` cannot be asked for in a batch."),
    (line("b", service_tier="flex"), "Line 2: `service_tier` cannot be chosen in a batch"),
    (line("b", max_tokens=10**6), "Line 2: "),
    (line("b", messages="hello"), "Line 2: "),
]


async def test_what_is_wrong_with_a_line_is_said_with_its_number(tmp_path: Path) -> None:
    async with served(config(tmp_path, "openai"), BatchVendor("openai")) as at:
        for bad, words in BAD_LINES:
            with pytest.raises(openai.APIStatusError) as refused:
                await at.create([line("a"), bad])
            assert 400 <= refused.value.status_code < 500
            assert refused.value.body["message"].startswith(words), refused.value.body  # type: ignore[index,union-attr]
        assert await at.spent() == (0, 0)
        assert at.vendor.calls == []


def test_only_vendors_whose_results_are_read_and_priced_take_batches() -> None:
    project = {"project": "p"}  # without which there is no Vertex
    found = [
        name
        for name, preset in known(None, {}).providers.items()
        if wire_of(Provider(name, preset.dialect, options=preset.options | (project if "vertex" in name else {})))
    ]
    assert found == ["openai", "anthropic", "gemini"]


async def test_a_vendor_that_mixes_models_serves_them_in_one_batch(tmp_path: Path) -> None:
    async with served(config(tmp_path, "anthropic"), BatchVendor("anthropic")) as at:
        batch = await at.ended((await at.create([line("a"), line("b", model="m2")])).id)
        assert batch.request_counts.completed == 2
        (sent,) = at.vendor.batches.values()
        assert [asked["model"] for _, asked in sent.lines] == [MODELS["anthropic"], f"{MODELS['anthropic']}-2"]


async def test_a_batch_above_the_maximum_of_one_request_is_refused(tmp_path: Path) -> None:
    async with served(config(tmp_path, "openai"), BatchVendor("openai")) as at:
        with pytest.raises(openai.BadRequestError, match="Line 2: with it the batch could cost"):
            await at.create([line("a"), line("b")], **{"x-tollgate-max-cost-usd": "0.00005"})


async def test_a_tenant_sees_no_file_and_no_batch_of_another(tmp_path: Path) -> None:
    async with served(config(tmp_path, "openai"), BatchVendor("openai")) as at:
        batch = await at.ended((await at.create([line("a")])).id)
        rival = at.openai("key-of-rival")
        assert (await rival.files.list()).data == []
        assert (await rival.batches.list()).data == []
        for file in (batch.input_file_id, batch.output_file_id):
            for ask in (rival.files.retrieve, rival.files.content, rival.files.delete):
                with pytest.raises(openai.NotFoundError):
                    await ask(file)  # type: ignore[operator]
        for ask in (rival.batches.retrieve, rival.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                await ask(batch.id)  # type: ignore[operator]
        with pytest.raises(openai.NotFoundError):
            await rival.batches.create(
                input_file_id=batch.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
            )


async def test_files_are_listed_read_and_deleted(tmp_path: Path) -> None:
    async with served(config(tmp_path, "openai"), BatchVendor("openai")) as at:
        client = at.openai()
        content = b"x" * 3_000_000
        files = [await client.files.create(file=(f"{i}.jsonl", content), purpose="batch") for i in range(3)]
        assert (files[0].bytes, files[0].filename, files[0].purpose) == (3_000_000, "0.jsonl", "batch")
        assert [each.id async for each in client.files.list(limit=2)] == [each.id for each in reversed(files)]
        assert [each.id async for each in client.files.list(limit=1, order="asc")] == [each.id for each in files]
        assert (await client.files.content(files[1].id)).content == content
        assert (await client.files.delete(files[1].id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(files[1].id)
        with pytest.raises(openai.BadRequestError, match="purpose"):
            await client.files.create(file=("a", b"x"), purpose="fine-tune")


async def test_batches_are_listed_newest_first_page_by_page(tmp_path: Path) -> None:
    async with served(config(tmp_path, "openai"), BatchVendor("openai")) as at:
        ids = [(await at.create([line("a")])).id for _ in range(3)]
        assert [each.id async for each in at.openai().batches.list(limit=2)] == ids[::-1]


async def test_the_vendor_keeps_nothing_once_the_results_are_read(tmp_path: Path) -> None:
    async with served(config(tmp_path, "openai"), BatchVendor("openai")) as at:
        await at.ended((await at.create([line("a")])).id)
        async with asyncio.timeout(20):
            while len([each for each in at.vendor.calls if each.startswith("DELETE /v1/files/")]) < 2:
                at.vendor.seen.clear()
                await at.vendor.seen.wait()


async def test_a_line_keeps_the_fields_that_the_gateway_does_not_know(tmp_path: Path) -> None:
    async with served(config(tmp_path, "openai"), BatchVendor("openai")) as at:
        await at.ended((await at.create([line("a", brand_new={"field": [1.50]})])).id)
        (sent,) = at.vendor.batches.values()
        assert json.dumps(sent.lines[0][1]["brand_new"]) == '{"field": [1.5]}'
