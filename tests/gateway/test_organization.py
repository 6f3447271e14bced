"""OpenAI's organization reports, asked by OpenAI's SDK, say what the records say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import openai
import pytest
from databases import a_record
from harness import ADMIN_KEY, KEY, Running, config, gateway

from gateway.sql.records import row, write
from gateway.types import NANO, Bucket

DAY = 86400
START = 1_789_560_000 // DAY * DAY
RECORDS = [
    a_record("r1", at=START + 10.0, tenant="acme", key="k_1", upstream_model="gpt", cost=NANO, endpoint="chat"),
    a_record(
        "r2", at=START + 3700.0, tenant="acme", key="k_2", upstream_model="gpt", cost=2 * NANO, endpoint="messages"
    ),
    a_record("r3", at=START + DAY + 1.0, tenant="globex", upstream_model="claude", cost=4 * NANO, endpoint="chat"),
    a_record(
        "r4",
        at=START + DAY + 2.0,
        tenant="globex",
        upstream_model="embed",
        cost=8 * NANO,
        endpoint="embeddings",
        tokens={Bucket.INPUT: 7},
    ),
]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with gateway(config(tmp_path)) as found:
        rows = [row(record) for record in RECORDS]
        await found.gateway.store.database.run(lambda connection: write(connection, rows), write=True)
        yield found


async def ask(running: Running, path: str, key: str = ADMIN_KEY, **query: object) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return await running.client.get(f"/v1/organization/{path}", params=query, headers=headers)  # type: ignore[arg-type]


async def test_the_sdk_reads_costs_by_day_and_project(running: Running) -> None:
    client = openai.AsyncOpenAI(
        base_url="http://gateway/v1", api_key="-", admin_api_key=ADMIN_KEY, http_client=running.client
    )
    page = await client.admin.organization.usage.costs(
        start_time=START, end_time=START + 2 * DAY, group_by=["project_id"]
    )
    found = [
        (bucket.start_time, result.project_id, float(result.amount.value))  # type: ignore[union-attr, arg-type]
        for bucket in page.data
        for result in bucket.results
    ]
    assert sorted(found) == [(START, "acme", 3.0), (START + DAY, "globex", 12.0)]
    assert not page.has_more


async def test_the_sdk_reads_completions_by_hour_and_model_and_nothing_of_embeddings(running: Running) -> None:
    client = openai.AsyncOpenAI(
        base_url="http://gateway/v1", api_key="-", admin_api_key=ADMIN_KEY, http_client=running.client
    )
    page = await client.admin.organization.usage.completions(
        start_time=START, end_time=START + 2 * DAY, bucket_width="1h", group_by=["model"], limit=48
    )
    found = {
        (bucket.start_time - START, result.model): (
            result.input_tokens,
            result.input_cached_tokens,
            result.output_tokens,
        )  # type: ignore[union-attr]
        for bucket in page.data
        for result in bucket.results
    }
    assert found == {(0, "gpt"): (150, 50, 20), (3600, "gpt"): (150, 50, 20), (DAY, "claude"): (150, 50, 20)}
    assert len(page.data) == 48


async def test_pages_follow_each_other_and_add_up(running: Running) -> None:
    query = {"start_time": START, "end_time": START + 3 * DAY, "limit": 1}
    total, pages, cursor = 0, 0, {}
    while True:
        page = (await ask(running, "costs", **query, **cursor)).json()
        total += sum(result["amount"]["nano_usd"] for bucket in page["data"] for result in bucket["results"])
        pages += 1
        if not page["has_more"]:
            break
        cursor = {"page": page["next_page"]}
    assert (total, pages) == (sum(record.cost or 0 for record in RECORDS), 3)


async def test_filters_hold_without_being_grouped_by(running: Running) -> None:
    query = {"start_time": START, "end_time": START + 2 * DAY}
    page = (await ask(running, "costs", **query, **{"api_key_ids[]": "k_2"})).json()
    results = [result for bucket in page["data"] for result in bucket["results"]]
    assert [(each["amount"]["nano_usd"], each["api_key_id"]) for each in results] == [(2 * NANO, None)]
    embeddings = (await ask(running, "usage/embeddings", **query)).json()
    assert [each["input_tokens"] for bucket in embeddings["data"] for each in bucket["results"]] == [7]


@pytest.mark.parametrize(
    "wrong",
    [{}, {"start_time": "x"}, {"start_time": 1, "bucket_width": "1m"}, {"start_time": 1, "limit": 0},
     {"start_time": 1, "group_by": "colour"}, {"start_time": 1, "page": "?"}, {"start_time": "\u0663"}],
)  # fmt: skip
async def test_a_wrong_question_is_refused(running: Running, wrong: dict[str, object]) -> None:
    reply = await ask(running, "costs", **wrong)
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_only_the_admin_key_may_ask(running: Running) -> None:
    for path in ("costs", "usage/completions", "nothing"):
        assert (await ask(running, path, KEY, start_time=START)).status_code == 401
    assert (await ask(running, "usage/minds", start_time=START)).status_code == 404
