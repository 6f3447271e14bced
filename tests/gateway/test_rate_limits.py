"""Rate limits as clients see them, and the providers' own limits as plans heed them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from harness import KEY, Visitor, config, gateway

from gateway import settings
from gateway.app import Gateway, running
from gateway.health import Condition
from gateway.ledger.base import Line
from gateway.reply_headers import duration
from gateway.simulated import SimulatedTransport
from gateway.types import Account, Every, Limit, Unit, Window

COUNTED = [
    Line(Account("tenant", "acme", "acme"), Limit("tenant", unit, 100, window), 0)
    for unit, window in [
        (Unit.COST, Window(Every.DAY)),
        (Unit.REQUESTS, Window(rolling_s=60)),
        (Unit.CONCURRENT, Window()),
    ]
]
RESET = re.compile(r"(?:\d+h)?(?:\d+m)?(?:\d+(?:\.\d+)?s)|\d+ms")


def limited(folder: Path, limits: str) -> str:
    return config(folder) + f"    rate_limits: {limits}\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, b"13ms"),
        (0.12, b"120ms"),
        (1, b"1s"),
        (7.66, b"7.66s"),
        (360, b"6m0s"),
        (361.5, b"6m1.5s"),
        (86_341, b"23h59m1s"),
        (86_400, b"24h0m0s"),
    ],
)
def test_a_reset_is_written_as_openai_writes_it(seconds: float, text: bytes) -> None:
    assert duration(seconds) == text


async def test_every_answer_tells_the_tightest_limit_of_each_kind_once(tmp_path: Path) -> None:
    limits = "{requests_per_minute: 3, requests_per_day: 100, tokens_per_minute: 50000}"
    async with gateway(limited(tmp_path, limits)) as app:
        reply = await app.chat("small", max_tokens=10)
        names = [name for name, _ in reply.headers.multi_items() if name.startswith("x-ratelimit")]
        assert len(names) == len(set(names)) == 6
        assert reply.headers["x-ratelimit-limit-requests"] == "3"
        assert reply.headers["x-ratelimit-remaining-requests"] == "2"
        assert reply.headers["x-ratelimit-reset-requests"] == "1m0s"
        assert reply.headers["x-ratelimit-limit-tokens"] == "50000"
        assert RESET.fullmatch(reply.headers["x-ratelimit-reset-tokens"])


async def test_a_refused_request_consumes_nothing_and_is_told_its_limits(tmp_path: Path) -> None:
    limits = "{requests_per_minute: 2, tokens_per_minute: 300}"
    async with gateway(limited(tmp_path, limits)) as app:
        assert (await app.chat("small", max_tokens=20)).status_code == 200
        for _ in range(3):  # too many tokens: neither a request nor a token is used up by asking
            refused = await app.chat("small", max_tokens=2000)
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "rate_limit_exceeded"
            assert refused.headers["x-ratelimit-limit-tokens"] == "300"
            assert int(refused.headers["x-ratelimit-remaining-tokens"]) > 100
            assert RESET.fullmatch(refused.headers["x-ratelimit-reset-tokens"])
        last = await app.chat("small", max_tokens=20)
        assert last.status_code == 200
        assert last.headers["x-ratelimit-remaining-requests"] == "0"
        assert (await app.chat("small", max_tokens=20)).status_code == 429


@pytest.mark.parametrize(
    ("limit", "much", "kind"),
    [
        ("input_tokens_per_minute: 100", {"text": "word " * 300, "max_tokens": 5}, "input-tokens"),
        ("output_tokens_per_minute: 100", {"max_tokens": 2000}, "output-tokens"),
    ],
)
async def test_tokens_in_and_tokens_out_have_limits_of_their_own(
    tmp_path: Path, limit: str, much: dict[str, Any], kind: str
) -> None:
    async with gateway(limited(tmp_path, f"{{{limit}, requests_per_minute: 2}}")) as app:
        refused = await app.chat("small", **much)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert app.provider.called == 0
        assert refused.headers[f"x-ratelimit-remaining-{kind}"] == "100"
        served = await app.chat("small", max_tokens=20)
        assert served.status_code == 200
        usage = served.json()["usage"]
        used = usage["prompt_tokens"] if kind == "input-tokens" else usage["completion_tokens"]
        assert 0 < used < 100
        second = await app.chat("small", max_tokens=20)
        assert second.headers["x-ratelimit-remaining-requests"] == "0"  # the refused one is not counted
        left = int(second.headers[f"x-ratelimit-remaining-{kind}"])
        assert left <= 100 - used
        assert served.headers[f"x-ratelimit-limit-{kind}"] == "100"


async def test_a_request_refused_for_those_in_flight_is_not_counted_and_takes_no_money(tmp_path: Path) -> None:
    text = limited(tmp_path, "{requests_per_minute: 2, concurrent: 1}").replace("first_token_ms=0", "stall=before")
    async with gateway(text) as app:
        slow = asyncio.create_task(app.chat("small", max_tokens=100))
        while app.provider.called == 0:  # noqa: ASYNC110 - the gateway's own work is what is waited for
            await asyncio.sleep(0)
        for _ in range(3):
            assert (await app.chat("small", max_tokens=5)).status_code == 429
        money, pace, flying = await app.gateway.parts.ledger.balances(COUNTED)
        assert (money.spent, pace.reserved + pace.spent, flying.reserved) == (0, 1, 1)
        assert 100_000 <= money.reserved < 200_000  # one answer of 100 tokens and its question
        slow.cancel()


@pytest.mark.parametrize(
    "fault",
    ["status=500", "status=429", "reset=connect", "reset=before", "reset=middle", "error=middle", "latency_ms=60000"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_fails_gives_its_place_in_flight_back(tmp_path: Path, fault: str, *, stream: bool) -> None:
    text = limited(tmp_path, "{concurrent: 1}").replace("sim-small?first_token_ms=0", f"sim-small?{fault}")
    text = text.replace("{id: small,", "{id: small, timeouts: {first_byte_s: 0.2, total_s: 0.2},")
    async with gateway(text) as app:
        for _ in range(2):  # the second finds the place free, or would be told of the limit
            failed = await app.chat("small", stream=stream, max_tokens=20)
            assert "rate_limit_exceeded" not in failed.text
        assert (await app.chat("large", max_tokens=5)).status_code == 200


async def test_a_client_that_leaves_gives_its_place_in_flight_back(tmp_path: Path) -> None:
    text = limited(tmp_path, "{concurrent: 1}").replace("sim-small?first_token_ms=0", "sim-small?stall=before")
    async with gateway(text) as app:
        said = [{"role": "user", "content": "Hi."}]
        visitor = Visitor(app.gateway, "/v1/chat/completions", orjson.dumps({"model": "small", "messages": said}))
        visit = visitor.visit()
        while app.provider.called == 0:  # noqa: ASYNC110 - the gateway's own work is what is waited for
            await asyncio.sleep(0)
        assert (await app.chat("large", max_tokens=5)).status_code == 429
        visitor.leave()
        await asyncio.wait_for(visit, 5)
        assert (await app.chat("large", max_tokens=5)).status_code == 200


class Telling(httpx.AsyncBaseTransport):
    """The simulated provider, which says what is left of its own limits."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.inner = SimulatedTransport()
        self.headers = headers
        self.together = asyncio.Barrier(1)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self.together.wait()
        reply = await self.inner.handle_async_request(request)
        reply.headers.update(self.headers)
        return reply


async def served_by(headers: dict[str, str], folder: Path, then: int = 1) -> list[str]:
    """The deployments that serve one request, and then so many at once, to a route whose cheapest is `small`."""
    telling = Telling(headers)
    app = Gateway(lambda: settings.parse(config(folder), {}), transport=lambda _: telling)
    async with running(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        body: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 5}

        async def served() -> str:
            reply = await client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"})
            return reply.headers["x-tollgate-deployment"]

        first = await served()
        telling.together = asyncio.Barrier(then)
        return [first, *await asyncio.gather(*(served() for _ in range(then)))]


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"},
        {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "12s"},
        {"x-ratelimit-remaining-tokens": "9", "x-ratelimit-reset-tokens": "12s"},
        {"x-ratelimit-remaining-input-tokens": "2", "x-ratelimit-reset-input-tokens": "12s"},
        {
            "anthropic-ratelimit-output-tokens-remaining": "0",
            "anthropic-ratelimit-output-tokens-reset": "2099-01-01T00:00:00Z",
            "date": "Thu, 31 Dec 2098 23:59:00 GMT",
        },
    ],
    ids=["requests", "tokens", "too few tokens", "too few tokens in", "anthropic"],
)
async def test_a_deployment_whose_own_limits_are_used_up_is_left_alone_until_they_reset(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    assert await served_by(headers, tmp_path) == ["small", "large"]


async def test_a_deployment_with_something_left_is_used_again(tmp_path: Path) -> None:
    left = {
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "6m0s",
        "x-ratelimit-remaining-tokens": "500",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert await served_by(left, tmp_path) == ["small", "small"]


async def test_no_more_are_sent_at_once_than_a_deployment_has_left(tmp_path: Path) -> None:
    left = {"x-ratelimit-remaining-requests": "2", "x-ratelimit-reset-requests": "6m0s"}
    first, *others = await served_by(left, tmp_path, then=5)
    assert first == "small"
    assert sorted(others) == ["large", "large", "large", "small", "small"]


def test_limits_that_have_reset_are_forgotten() -> None:
    condition = Condition()
    condition.told(100.0, [("requests", 0.0, 5.0)])
    assert not condition.untroubled
    assert not condition.healthy(104.9)
    assert condition.healthy(105.0)
    assert condition.untroubled


async def test_an_open_circuit_is_seen_by_plans(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as app:
        condition = app.gateway.parts.health.of("small")
        for _ in range(6):
            condition.failed(app.gateway.sites.current.pipeline.now())
        assert condition.open
        reply = await app.chat("auto", max_tokens=5)
        assert reply.headers["x-tollgate-deployment"] == "large"
