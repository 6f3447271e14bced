"""`x-tollgate-deadline`: what it may say, and what a provider is then asked."""

from __future__ import annotations

import json

import pytest
from corpus import request, step
from msgspec.structs import replace

from gateway.api.ask import DEADLINE_MAX_S, deadline_of
from gateway.dialects.openai_chat import OpenAIChat
from gateway.dialects.openai_responses import OpenAIResponses
from gateway.errors import InvalidRequest
from gateway.types import Format, Provider, Tenant

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
OPENAI = Provider("p", "openai", "https://p.example/v1/", "k", options={"paths": {"responses": "/responses"}})


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("1800", 1800.0),
        ("0.5", 0.5),
        ("2027-01-15T09:00:00Z", 3600.0),
        ("2027-01-15T10:00:00+01:00", 3600.0),
    ],
)
def test_a_deadline_is_seconds_from_now_or_a_time_with_its_zone(header: str | None, seconds: float | None) -> None:
    assert deadline_of(header, NOW) == seconds


@pytest.mark.parametrize(
    "header",
    ["", "soon", "0", "-5", "nan", "inf", "2027-01-15T09:00:00", "2020-01-01T00:00:00Z", str(2 * DEADLINE_MAX_S)],
)
def test_any_other_deadline_is_refused_by_name(header: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        deadline_of(header, NOW)
    assert refused.value.param == "x-tollgate-deadline"


@pytest.mark.parametrize(("dialect", "format_"), [(OpenAIChat(), Format.CHAT), (OpenAIResponses(), Format.RESPONSES)])
@pytest.mark.parametrize(("tier", "sent"), [("flex", "flex"), ("", None), ("standard_only", None)])
def test_the_flex_tier_is_asked_for_only_where_the_plan_says_so(
    dialect: OpenAIChat | OpenAIResponses, format_: Format, tier: str, sent: str | None
) -> None:
    body = {"model": "auto", "messages": [], "input": "hi"}
    asked = request(format_, body, raw=json.dumps(body).encode())
    call = dialect.encode(asked, replace(step(OPENAI), service_tier=tier), Tenant("acme"))
    assert json.loads(call.body).get("service_tier") == sent
