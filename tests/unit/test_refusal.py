"""What a provider's error means to a client of ours."""

import json
from typing import Any

import pytest

from gateway.dialects.refusal import MESSAGE_CHARS_MAX, refusal, reported
from gateway.errors import (
    ContentRefused,
    ContextOverflow,
    GatewayError,
    UpstreamDenied,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
)
from gateway.types import Provider

PROVIDER = Provider("openai", "openai", api_key="test-secret-of-ours")


def of(status: int, body: Any, headers: dict[str, str] | None = None) -> GatewayError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return refusal(status, headers or {}, raw, PROVIDER, now=1_754_667_600.0)


def nested(message: str, **rest: Any) -> dict[str, Any]:
    return {"error": {"message": message, **rest}}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, nested("Too long.", code="context_length_exceeded")),
        (400, {"type": "error", **nested("prompt is too long: 3333404 tokens > 200000 maximum")}),
        (400, nested("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000")),
        (400, nested("The total length of all messages is too long.", type="too_many_prompt_tokens")),
        (400, {"message": "too many tokens: max tokens must be less than 4081", "error_type": "TOO_MANY_TOKENS"}),
        (400, nested("request (2009 tokens) exceeds the available context size", type="exceed_context_size_error")),
        (400, nested("prompt too long; exceeded max context length by 1119046 tokens")),
        (400, nested("The input token count (1200000) exceeds the maximum number of tokens allowed (1048575).")),
        (400, {"message": "Input is too long for requested model."}),
        (
            400,
            nested("Prompt contains 65673 tokens and 0 draft tokens, too large for model with 32768 maximum context"),
        ),
        (400, {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400}),
        (413, nested("Please reduce the length of the messages or completion.")),
        (500, nested("the request exceeds the available context size. try increasing the context size")),
        (500, nested("input (4002 tokens) is too large to process. increase the physical batch size")),
    ],
)
def test_every_wording_of_a_context_overflow_is_one(status: int, body: Any) -> None:
    error = of(status, body)
    assert type(error) is ContextOverflow
    assert error.failover


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, nested("Incorrect API key provided: sk-abc", code="invalid_api_key")),
        (400, nested("API key not valid. Please pass a valid API key.", status="INVALID_ARGUMENT")),
        (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***ey."}),
        (403, {"message": "The security token included in the request is invalid."}),
        (402, nested("Insufficient credits")),
        (429, nested("You exceeded your current quota.", code="insufficient_quota", type="insufficient_quota")),
        (400, nested("Your credit balance is too low to access the Anthropic API.", type="invalid_request_error")),
        (404, nested("model: claude-9", type="not_found_error")),
        (400, nested("The model `x` has been decommissioned.", code="model_decommissioned")),
        (400, {"message": "The provided model identifier is invalid."}),
        (400, {"object": "error", "type": "invalid_model", "message": "Invalid model: x", "code": "1500"}),
        (404, b"<html>nginx</html>"),
        (401, b""),
    ],
)
def test_what_is_wrong_on_our_side_is_never_the_clients_fault(status: int, body: Any) -> None:
    error = of(status, body)
    assert type(error) is UpstreamDenied
    assert (error.status, error.failover, error.retryable) == (502, True, False)


@pytest.mark.parametrize(
    ("status", "body", "leaf"),
    [
        (408, nested("x"), UpstreamFailed),
        (409, nested("x"), UpstreamFailed),
        (425, nested("x"), UpstreamOverloaded),
        (429, nested("Rate limit reached"), UpstreamRateLimited),
        (429, nested("Too many tokens, please wait before trying again."), UpstreamRateLimited),
        (429, nested("Slow down, or reduce the length of the messages."), UpstreamRateLimited),
        (413, nested("Request too large: tokens per minute (TPM)", code="rate_limit_exceeded"), UpstreamRateLimited),
        (500, nested("x"), UpstreamFailed),
        (502, b"<html>Bad gateway</html>", UpstreamFailed),
        (503, b"", UpstreamOverloaded),
        (504, b"upstream timed out", UpstreamTimeout),
        (529, {"type": "error", **nested("Overloaded", type="overloaded_error")}, UpstreamOverloaded),
        (418, nested("teapot"), UpstreamRejected),
        (422, {"detail": [{"msg": "field required", "loc": ["body"]}]}, UpstreamRejected),
        (400, nested("max_tokens is too large: 100000. This model supports at most 16384."), UpstreamRejected),
        (400, nested("tool call validation failed", code="tool_use_failed"), UpstreamRejected),
        (400, nested("filtered", code="content_filter"), ContentRefused),
        (400, nested("x", code="400", innererror={"code": "ResponsibleAIPolicyViolation"}), ContentRefused),
        (403, nested("Your input was flagged: violence"), ContentRefused),
    ],
)
def test_each_status_has_its_leaf(status: int, body: Any, leaf: type[GatewayError]) -> None:
    assert type(of(status, body)) is leaf


def test_a_rejection_keeps_status_code_and_param_of_the_provider() -> None:
    error = of(422, nested("Unsupported value: 'x'", param="tools[0].function", code="unsupported_value"))
    assert isinstance(error, UpstreamRejected)
    assert (error.message, error.param) == ("Unsupported value: 'x'", "tools[0].function")
    assert (error.upstream_status, error.upstream_code) == (422, "unsupported_value")


def test_an_aggregators_error_is_read_by_what_it_wraps() -> None:
    wrapped = json.dumps({"error": "Content violates usage guidelines. Failed check: SAFETY_CHECK"})
    body = nested("Provider returned error", code=403, metadata={"provider_name": "xAI", "raw": wrapped})
    error = of(403, body)
    assert type(error) is ContentRefused
    assert error.message.startswith("Content violates")


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghijklmnop",
        "sk-ant-api03-abcdef_ghijk",
        "gsk_abcdefghijklmnop",
        "AIzaSyA1234567890abcdefg",
        "Bearer abc.def.ghi",
        "?key=abcdefgh1234",
        "test-secret-of-ours",
        "eyJhbGciOiJIUzI1NiJ9.abc.def",
    ],
)
def test_a_message_shows_no_secret(secret: str) -> None:
    error = of(400, nested(f"The value '{secret}' is odd"))
    assert type(error) is UpstreamRejected
    shown = error.message
    assert "[masked]" in shown
    assert secret.removeprefix("Bearer ").removeprefix("?key=") not in shown


def test_a_denial_tells_the_operator_and_not_the_client() -> None:
    error = of(401, nested("Your organization org-9 must be verified. Key test-secret-of-ours"))
    assert "org-9" not in error.message
    assert "org-9" in error.__notes__[0]
    assert "test-secret-of-ours" not in error.__notes__[0]


def test_a_message_is_one_bounded_line() -> None:
    error = of(400, nested("word\n" * 10_000))
    assert "\n" not in error.message
    assert len(error.message) == MESSAGE_CHARS_MAX


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        None,
        3,
        "x",
        [[]],
        {"error": []},
        {"error": [[]]},
        {"error": {"message": {"x": 1}, "metadata": {"raw": "{"}}},
        {"error": {"code": [], "type": {}, "details": [[]]}},
        {"error": None, "detail": None},
        {"error": {"metadata": {"raw": '{"error": ' * 400}}},
    ],
)
def test_any_body_is_an_error_with_a_message(body: Any) -> None:
    for status in (400, 401, 429, 500):
        assert of(status, body).message
    assert reported(body, PROVIDER, 0.0).message


def test_retry_advice_goes_along() -> None:
    assert of(429, nested("slow down"), {"Retry-After": "7"}).retry_after_s == 7.0
    assert of(503, nested("x"), {"retry-after": "Fri, 08 Aug 2025 15:41:00 GMT"}).retry_after_s == 60.0


@pytest.mark.parametrize(
    ("body", "leaf"),
    [
        (nested("Upstream error from Venice", code=502), UpstreamFailed),
        (nested("x", code=429), UpstreamRateLimited),
        (nested("tool call validation failed", code="tool_use_failed", status_code=400), UpstreamRejected),
        ({"type": "error", **nested("Overloaded", type="overloaded_error")}, UpstreamOverloaded),
        ({"type": "error", **nested("x", type="rate_limit_error")}, UpstreamRateLimited),
        ({"type": "error", **nested("prompt is too long", type="invalid_request_error")}, ContextOverflow),
        (nested("failed to decode, try again"), UpstreamFailed),
        ({"error": "out of memory"}, UpstreamFailed),
    ],
)
def test_an_error_inside_a_good_reply_states_its_own_status(body: Any, leaf: type[GatewayError]) -> None:
    assert type(reported(body, PROVIDER, 0.0)) is leaf


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, "tools param requires --jinja flag"),
        (500, "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"),
        (501, "This server does not support embeddings. Start it with `--embeddings`"),
    ],
)
def test_a_server_that_was_started_without_what_is_asked_is_not_asked_again(status: int, message: str) -> None:
    error = of(status, nested(message, type="server_error"))
    assert type(error) is UpstreamDenied
    assert (error.retryable, error.failover) == (False, True)
    assert "does not serve this model as it was asked for" in error.message
    assert type(of(500, nested("Internal error"))) is UpstreamFailed
