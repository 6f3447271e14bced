"""Anthropic's Messages: what goes to a provider, and what comes back, byte for byte."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import corpus
import pytest
from corpus import Row, drain, pieces, request, step

from gateway import sse
from gateway.dialects.anthropic_messages import AnthropicMessages
from gateway.dialects.base import Decoder
from gateway.errors import (
    ContextOverflow,
    GatewayError,
    UpstreamBroken,
    UpstreamDenied,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamRejected,
)
from gateway.types import Bucket, Cost, Format, Provider, Tenant, Usage

DIALECT = AnthropicMessages(clock=lambda: 1_754_667_600.0)
ANTHROPIC = Provider("anthropic", "anthropic", "https://api.anthropic.com", "secret-key")
TENANT = Tenant("acme")

OLD, MIDDLE, NEW, NEWEST = "claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-4-7", "claude-sonnet-5"


def unknown(usage: Usage) -> Cost:
    return Cost(None)


def nano_per_token(usage: Usage) -> Cost:
    return Cost(usage.input_tokens + usage.output_tokens)


def encoded(payload: dict[str, Any], model: str = OLD, cap: int = 20_000, **more: Any) -> dict[str, Any]:
    call = DIALECT.encode(request(Format.MESSAGES, payload), step(ANTHROPIC, model, cap, **more), TENANT)
    found: dict[str, Any] = json.loads(call.body)
    return found


def stream(bill: Callable[[Usage], Cost] = unknown) -> Decoder:
    return DIALECT.decoder(request(Format.MESSAGES, {"stream": True}), step(ANTHROPIC), bill)


def whole() -> Decoder:
    return DIALECT.decoder(request(Format.MESSAGES, {}), step(ANTHROPIC), unknown)


def event(**body: Any) -> bytes:
    return sse.event(json.dumps(body, separators=(",", ":")).encode(), body["type"])


START = event(
    type="message_start",
    message={
        "id": "msg_1",
        "model": "claude-sonnet-4-5-20250929",
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 12, "cache_read_input_tokens": 100, "output_tokens": 1, "service_tier": "standard"},
    },
)
BLOCK = event(type="content_block_start", index=0, content_block={"type": "text", "text": ""})
PING = event(type="ping")
TEXT = event(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"})
BLOCK_STOP = event(type="content_block_stop", index=0)
END = event(type="message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 7, "input_tokens": None})
STOP = event(type="message_stop")
ALL = START + BLOCK + PING + TEXT + BLOCK_STOP + END + STOP


class TestEncode:
    def test_only_named_fields_change_and_every_other_byte_survives(self) -> None:
        raw = b'{"model":"auto","max_tokens":4096,"t":1.10,"messages":[{"a": 1e5 , "u":"\\u00e9"}]}'
        call = DIALECT.encode(request(Format.MESSAGES, json.loads(raw), raw=raw), step(ANTHROPIC, OLD, 7), TENANT)
        assert (
            call.body
            == b'{"model":"claude-sonnet-4-5","max_tokens":7,"t":1.10,"messages":[{"a": 1e5 , "u":"\\u00e9"}]}'
        )

    def test_the_call_goes_where_the_provider_says_with_its_key(self) -> None:
        call = DIALECT.encode(request(Format.MESSAGES, {}), step(ANTHROPIC), TENANT)
        assert call.url == "https://api.anthropic.com/v1/messages"
        assert call.headers["x-api-key"] == "secret-key"
        assert call.headers["anthropic-version"] == "2023-06-01"
        assert "authorization" not in call.headers

    def test_version_and_betas_of_the_client_pass(self) -> None:
        sent = {"anthropic-version": "2099-01-01", "anthropic-beta": "a-1,b-2", "x-api-key": "theirs"}
        headers = DIALECT.encode(request(Format.MESSAGES, {}, sent), step(ANTHROPIC), TENANT).headers
        assert (headers["anthropic-version"], headers["anthropic-beta"]) == ("2099-01-01", "a-1,b-2")
        assert headers["x-api-key"] == "secret-key"

    def test_thinking_stays_as_the_client_said_without_a_policy(self) -> None:
        thinking = {"type": "enabled", "budget_tokens": 9000}
        assert encoded({"thinking": thinking})["thinking"] == thinking

    @pytest.mark.parametrize(
        ("model", "effort", "sent"),
        [
            (OLD, "low", {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
            (OLD, "minimal", {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
            (OLD, "none", {}),
            (MIDDLE, "high", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
            (NEW, "minimal", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
            (NEW, "none", {}),
            (NEWEST, "none", {"thinking": {"type": "disabled"}}),
        ],
    )
    def test_effort_is_said_as_the_generation_understands_it(self, model: str, effort: str, sent: Any) -> None:
        client = {"thinking": {"type": "enabled", "budget_tokens": 9000}}
        body = encoded(client, model, effort=effort)
        assert {name: body[name] for name in ("thinking", "output_config") if name in body} == sent

    def test_a_budget_is_below_the_cap(self) -> None:
        assert encoded({}, cap=5000, effort="high")["thinking"]["budget_tokens"] == 4999
        assert "thinking" not in encoded({}, cap=1024, effort="high")

    def test_the_format_of_the_output_survives_the_effort(self) -> None:
        body = encoded({"output_config": {"effort": "max", "format": {"type": "json_schema"}}}, NEW, effort="low")
        assert body["output_config"] == {"format": {"type": "json_schema"}, "effort": "low"}

    @pytest.mark.parametrize(
        "payload",
        [
            {"tool_choice": {"type": "any"}},
            {"tool_choice": {"type": "tool", "name": "x"}},
            {"temperature": 0.2},
            {"top_k": 4},
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]},
        ],
    )
    def test_thinking_is_not_begun_where_anthropic_would_refuse_it(self, payload: dict[str, Any]) -> None:
        assert "thinking" not in encoded(payload, effort="high")


class TestStream:
    def test_a_stream_is_relayed_as_it_came(self) -> None:
        decoder = stream()
        assert drain(decoder, [ALL]) == ALL
        meter = decoder.meter
        assert meter.usage is not None
        assert meter.usage.tokens == {Bucket.INPUT: 12, Bucket.CACHE_READ: 100, Bucket.OUTPUT: 7}
        assert meter.usage.service_tier == ""
        assert meter.response_model == "claude-sonnet-4-5-20250929"
        assert (meter.finish_reason, meter.complete, decoder.generated()) == ("end_turn", True, "Hi")

    def test_usage_is_known_from_the_first_event_on(self) -> None:
        decoder = stream()
        decoder.feed(START)
        assert decoder.meter.usage is not None
        assert decoder.meter.usage.input_tokens == 112
        assert not decoder.meter.complete

    def test_the_cost_stands_beside_the_last_usage(self) -> None:
        out = drain(stream(lambda usage: Cost(1_500)), [ALL])
        assert out == ALL.replace(b'"input_tokens":null}', b'"input_tokens":null,"cost":0.0000015}')

    def test_the_last_count_wins(self) -> None:
        decoder = stream()
        again = event(type="message_delta", delta={}, usage={"output_tokens": 9, "input_tokens": 15})
        drain(decoder, [START + END + again + STOP])
        assert decoder.meter.usage is not None
        assert decoder.meter.usage.tokens == {Bucket.INPUT: 15, Bucket.CACHE_READ: 100, Bucket.OUTPUT: 9}
        assert decoder.meter.finish_reason == "end_turn"

    def test_all_that_is_generated_is_counted(self) -> None:
        decoder = stream()
        tool = {"type": "tool_use", "name": "look", "input": {}}
        decoder.feed(event(type="content_block_start", index=1, content_block=tool))
        for delta in ({"partial_json": "{}"}, {"thinking": "hm"}, {"text": "x"}, {"signature": "s"}, {"text": 3}):
            decoder.feed(event(type="content_block_delta", index=1, delta=delta))
        assert decoder.generated() == "look{}hmx"

    def test_message_stop_is_supplied_after_the_stop_reason(self) -> None:
        decoder = stream()
        assert drain(decoder, [START + TEXT + END]) == START + TEXT + END + STOP
        assert decoder.meter.complete

    @pytest.mark.parametrize("data", [b"", START, START + BLOCK + TEXT, START + TEXT + END[:30]])
    def test_a_stream_without_a_stop_reason_is_broken(self, data: bytes) -> None:
        decoder = stream()
        decoder.feed(data)
        with pytest.raises(UpstreamBroken):
            decoder.finish()
        assert not decoder.meter.complete

    @pytest.mark.parametrize(
        ("data", "leaf"),
        [
            (event(type="error", error={"type": "overloaded_error", "message": "Overloaded"}), UpstreamOverloaded),
            (event(type="error", error={"type": "rate_limit_error", "message": "x"}), UpstreamRateLimited),
            (event(type="error", error={"type": "api_error", "message": "x"}), UpstreamFailed),
            (event(type="error", error={"type": "authentication_error", "message": "x"}), UpstreamDenied),
            (event(type="error", error={"type": "invalid_request_error", "message": "bad"}), UpstreamRejected),
            (b'data: {"error":{"message":"x","code":429}}\n\n', UpstreamRateLimited),
            (b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}', UpstreamOverloaded),
            (b"<html></html>", UpstreamBroken),
            (b"data: {oops\n\n", UpstreamBroken),
        ],
    )
    def test_an_error_is_found_in_every_shape(self, data: bytes, leaf: type[GatewayError]) -> None:
        for chunks in ([data], [data[i : i + 1] for i in range(len(data))]):
            with pytest.raises(leaf) as caught:
                drain(stream(), chunks)
            assert type(caught.value) is leaf

    def test_an_error_in_the_middle_is_raised_after_what_came_before(self) -> None:
        decoder = stream()
        error = event(type="error", error={"type": "overloaded_error", "message": "Overloaded"})
        assert decoder.feed(START + TEXT + error) == START + TEXT
        with pytest.raises(UpstreamOverloaded):
            decoder.finish()
        assert decoder.meter.usage is not None

    def test_words_in_the_text_are_not_fields(self) -> None:
        text = '"type":"error","usage":{"output_tokens":1}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
        data = START + event(type="content_block_delta", index=0, delta={"type": "text_delta", "text": text})
        decoder = stream()
        assert decoder.feed(data) == data
        assert not decoder.meter.complete
        assert decoder.generated() == text

    def test_events_of_a_kind_nobody_knows_pass(self) -> None:
        odd = b"event: new\ndata: {}\n\ndata: 7\n\n: comment\n\n" + event(type="message_delta", delta=3)
        assert drain(stream(), [START + odd + END + STOP]) == START + odd + END + STOP

    def test_the_end_that_others_write_does_not_pass(self) -> None:
        assert drain(stream(), [START + END + STOP + b"event: data\ndata: [DONE]\n\n"]) == START + END + STOP

    def test_a_cut_is_an_error_event(self) -> None:
        assert stream().cut(UpstreamBroken("It broke.")) == (
            b'event: error\ndata: {"type":"error","error":'
            b'{"type":"api_error","message":"It broke.","code":"upstream_broken"}}\n\n'
        )


class TestWhole:
    BODY = (
        b'{"type":"message", "model":"claude-x","content":[{"type":"text","text":"Hi"},'
        b'{"type":"thinking","thinking":"hm"},{"type":"tool_use","name":"look","input":{"a":1}}],"stop_reason":"tool_use",'
        b'"usage":{"input_tokens":3,"output_tokens":9,"output_tokens_details":{"thinking_tokens":4}}}'
    )

    def test_a_reply_is_passed_on_byte_for_byte(self) -> None:
        decoder = whole()
        assert drain(decoder, [self.BODY[:9], self.BODY[9:]]) == self.BODY
        meter = decoder.meter
        assert meter.usage is not None
        assert meter.usage.tokens == {Bucket.INPUT: 3, Bucket.OUTPUT: 5, Bucket.REASONING: 4}
        assert (meter.response_model, meter.finish_reason, meter.complete) == ("claude-x", "tool_use", True)
        assert decoder.generated() == 'Hihmlook{"a":1}'

    @pytest.mark.parametrize(
        ("body", "leaf"),
        [
            (b"", UpstreamBroken),
            (b"[]", UpstreamBroken),
            (b"<html>", UpstreamBroken),
            (b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}', UpstreamOverloaded),
            (b'{"message":"nothing"}', UpstreamFailed),
        ],
    )
    def test_what_is_no_reply_is_never_passed_on(self, body: bytes, leaf: type[GatewayError]) -> None:
        with pytest.raises(leaf) as caught:
            drain(whole(), [body])
        assert type(caught.value) is leaf


def recorded(row: Row, bill: Callable[[Usage], Cost] = unknown) -> Decoder:
    who = Provider(row["provider"], "anthropic")
    return DIALECT.decoder(request(Format.MESSAGES, {"stream": row["streaming"]}), step(who), bill)


def expected(row: Row) -> tuple[int, int]:
    """Tokens in and out: the cache is beside the input, thinking within the output; a compaction is in neither."""
    block: dict[str, Any] = {}
    if row["streaming"]:
        for text in row["response_events"]:
            if "{" in text:
                said = json.loads(text[text.index("{") :])
                part = (said.get("message") or {}).get("usage") or said.get("usage") or {}
                block |= {name: value for name, value in part.items() if value is not None}
    else:
        block = row["response_body"]["usage"]
    extra = [one for one in block.get("iterations") or () if one["type"] == "compaction"]
    counts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    into = sum(one.get(name) or 0 for one in [block, *extra] for name in counts)
    return into, sum(one["output_tokens"] for one in [block, *extra])


DONE = b"event: data\ndata: [DONE]"
"""One ends with this, which is no event of the format: the official SDK would fail at it."""


@pytest.mark.corpus
class TestRecorded:
    def test_replies_pass_as_they_came(self) -> None:
        for row in corpus.streamed("messages") + corpus.whole("messages"):
            data = corpus.body(row)
            decoder = recorded(row)
            assert drain(decoder, [data]).rstrip() == data.rstrip().removesuffix(DONE).rstrip(), row["id"]
            assert decoder.meter.complete, row["id"]
            assert decoder.meter.response_model, row["id"]

    def test_usage_is_what_the_rule_of_the_surface_says(self) -> None:
        metered = 0
        for row in corpus.streamed("messages") + corpus.whole("messages"):
            decoder = recorded(row)
            drain(decoder, [corpus.body(row)])
            usage = decoder.meter.usage
            assert usage is not None, row["id"]
            assert (usage.input_tokens, usage.output_tokens) == expected(row), row["id"]
            assert all(count > 0 for count in usage.tokens.values()), row["id"]
            metered += 1
        assert metered > 1500

    def test_any_split_gives_the_same_bytes_usage_and_text(self) -> None:
        for number, row in enumerate(corpus.streamed("messages")):
            data = corpus.body(row)
            one, other = recorded(row, nano_per_token), recorded(row, nano_per_token)
            assert drain(one, pieces(data, number)) == drain(other, [data]), row["id"]
            assert (one.meter.usage, one.generated()) == (other.meter.usage, other.generated()), row["id"]

    def test_byte_by_byte_is_the_same(self) -> None:
        for row in corpus.streamed("messages")[::15]:
            data = corpus.body(row)
            if len(data) > 100_000:
                continue
            one, other = recorded(row, nano_per_token), recorded(row, nano_per_token)
            assert drain(one, [data[i : i + 1] for i in range(len(data))]) == drain(other, [data]), row["id"]
            assert one.meter.usage == other.meter.usage, row["id"]

    def test_the_cost_stands_beside_the_usage(self) -> None:
        for row in corpus.streamed("messages"):
            decoder = recorded(row, nano_per_token)
            out = drain(decoder, [corpus.body(row)])
            told = [json.loads(data) for raw in sse.Splitter().feed(out) if (data := sse.parse(raw).data)[:1] == b"{"]
            costs = [one["usage"]["cost"] for one in told if one.get("type") == "message_delta"]
            assert decoder.meter.usage is not None
            total = decoder.meter.usage.input_tokens + decoder.meter.usage.output_tokens
            assert Decimal(str(costs[-1])) * 10**9 == total, row["id"]

    def test_errors_become_the_leaf_their_status_suggests(self) -> None:
        sane = {400: {UpstreamRejected, ContextOverflow}, 401: {UpstreamDenied}, 404: {UpstreamDenied}}
        for row in corpus.refused("messages"):
            status = row["response_status"]
            error = DIALECT.error(status, row["response_headers"] or {}, corpus.body(row), ANTHROPIC)
            assert type(error) in sane[status], row["id"]
            assert error.message, row["id"]
