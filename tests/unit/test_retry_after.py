"""When to ask a provider again, in every form recorded or documented."""

from typing import Any

import pytest

from gateway.dialects.retry_after import delay, retry_after

NOW = 1_754_667_600.0  # 2025-08-08 15:40:00 UTC


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("20", 20.0),
        ("7.5", 7.5),
        (" 3 ", 3.0),
        ("12ms", 0.012),
        ("1s", 1.0),
        ("17.399s", 17.399),
        ("6m0s", 360.0),
        ("20m9.6s", 1209.6),
        ("1h0m0s", 3600.0),
        ("1h30m", 5400.0),
        ("2m", 120.0),
        ("1d2h", 93_600.0),
        ("1s500ms", 1.5),
        ("1754667660", 60.0),
        ("1754667660000", 60.0),
        ("2025-08-08T15:41:00Z", 60.0),
        ("2025-08-08T17:41:00+02:00", 60.0),
        ("Fri, 08 Aug 2025 15:41:00 GMT", 60.0),
        ("Fri, 08 Aug 2025 15:00:00 GMT", 0.0),
        ("1600000000", 0.0),
    ],
)
def test_every_form_of_a_delay_is_read(text: str, seconds: float) -> None:
    assert delay(text, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "soon", "-1", "inf", "nan", "1e9", "99999999", "9" * 400, "s", "m", "12x", "0x10"]
)
def test_what_is_no_delay_is_none(text: str) -> None:
    assert delay(text, NOW) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "0", "retry-after": "1"}, 1.0),
        ({"retry-after": "Fri, 08 Aug 2025 15:41:00 GMT"}, 60.0),
        ({"retry-after": "Fri, 08 Aug 2025 15:41:00 GMT", "date": "Fri, 08 Aug 2025 15:40:50 GMT"}, 10.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1754667660000"}, 60.0),
        ({"x-ratelimit-remaining-requests": "4", "x-ratelimit-reset-requests": "12ms"}, None),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "6m0s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "12ms",
            },
            360.0,
        ),
        (
            {
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "2025-08-08T15:40:30Z",
            },
            30.0,
        ),
        ({}, None),
    ],
)
def test_headers_say_when(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, None, NOW) == seconds


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"error": {"details": [{"@type": "x"}, {"@type": "RetryInfo", "retryDelay": "17s"}]}}, 17.0),
        ([{"error": {"details": [{"retryDelay": "0.5s"}]}}], 0.5),
        (
            {"error": {"metadata": {"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1754667660000"}}}},
            60.0,
        ),
        ({"error": {"metadata": {"retry_after": 9}}}, 9.0),
        ({"retry_after": 3.5}, 3.5),
        ({"error": {"message": "Rate limit reached. Please try again in 6m0s. Visit us."}}, 360.0),
        ({"error": {"message": "Please try again in 20.5s."}}, 20.5),
        ({"error": {"message": "Please retry after 20 seconds."}}, 20.0),
        ({"error": {"message": "Try again in 2 minutes"}}, 120.0),
        ({"message": "please wait 12ms"}, 0.012),
        ({"error": {"message": "Please retry shortly."}}, None),
        ({"error": {"message": "Limit 30000, used 2000. Buy more."}}, None),
        ({"error": {"message": 3, "details": "x", "metadata": []}}, None),
        ("try again in 3s", None),
        (None, None),
    ],
)
def test_the_body_says_when(body: Any, seconds: float | None) -> None:
    assert retry_after({}, body, NOW) == seconds


def test_a_header_is_believed_before_the_body() -> None:
    assert retry_after({"retry-after": "2"}, {"retry_after": 9}, NOW) == 2.0
