"""Chat Completions: what goes to a provider, and what comes back, byte for byte."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import corpus
import pytest
from corpus import Row, drain, pieces, request, step
from msgspec.structs import replace

from gateway import sse
from gateway.dialects.base import Decoder
from gateway.dialects.openai_chat import ChatStream, ChatWhole, OpenAIChat
from gateway.errors import (
    ContentRefused,
    ContextOverflow,
    GatewayError,
    UnsupportedField,
    UpstreamBroken,
    UpstreamDenied,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
)
from gateway.types import Bucket, Capability, Cost, Deployment, Format, Provider, Tenant, Usage

DIALECT = OpenAIChat(clock=lambda: 1_754_667_600.0)
TENANT = Tenant("acme")
OPENAI = Provider("openai", "openai", "https://api.openai.com/v1", "secret-key")


def unknown(usage: Usage) -> Cost:
    return Cost(None)


def nano_per_token(usage: Usage) -> Cost:
    return Cost(usage.input_tokens + usage.output_tokens)


def provider(**options: Any) -> Provider:
    return Provider("p", "openai", "https://p.example/v1/", "secret-key", options=options)


def encoded(payload: dict[str, Any], who: Provider = OPENAI, model: str = "gpt-4o-mini", **more: Any) -> dict[str, Any]:
    tenant = more.pop("tenant", TENANT)
    call = DIALECT.encode(request(Format.CHAT, payload), step(who, model, **more), tenant)
    found: dict[str, Any] = json.loads(call.body)
    return found


def stream(
    *, asked: bool = True, bill: Callable[[Usage], Cost] = unknown, who: Provider = OPENAI, n: int = 1
) -> Decoder:
    options = {"stream_options": {"include_usage": True}} if asked else {}
    return DIALECT.decoder(request(Format.CHAT, {"stream": True, "n": n, **options}), step(who), bill)


def whole(who: Provider = OPENAI) -> Decoder:
    return DIALECT.decoder(request(Format.CHAT, {}), step(who), unknown)


def chunk(content: str = "", finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    body = {"id": "c1", "object": "chat.completion.chunk", "model": "gpt-4o-mini-2024", "choices": [choice], **more}
    return sse.event(json.dumps(body, separators=(",", ":")).encode())


USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
LAST = sse.event(b'{"id":"c1","choices":[],"usage":' + json.dumps(USAGE).encode() + b"}")
DONE = b"data: [DONE]\n\n"


class TestEncode:
    def test_only_named_fields_change_and_every_other_byte_survives(self) -> None:
        raw = b'{"model":"auto","n": 123456789012345678901,"t":1.10,"u":"\\u00e9","m":[{"a": 1e5 }],"max_tokens":9}'
        call = DIALECT.encode(request(Format.CHAT, json.loads(raw), raw=raw), step(OPENAI, cap=7), TENANT)
        assert call.body == (
            b'{"model":"gpt-4o-mini","n":123456789012345678901,"t":1.10,"u":"\\u00e9","m":[{"a": 1e5 }],"max_tokens":7}'
        )

    def test_the_call_goes_where_the_provider_says_with_its_key(self) -> None:
        call = DIALECT.encode(request(Format.CHAT, {}), step(OPENAI), TENANT)
        assert (call.method, call.url) == ("POST", "https://api.openai.com/v1/chat/completions")
        assert call.headers["authorization"] == "Bearer secret-key"
        assert "secret-key" not in repr(call)

    def test_a_provider_may_want_another_path_query_and_header(self) -> None:
        who = provider(path="/completions", query={"api-version": "2024-10-21"}, auth="api-key")
        call = DIALECT.encode(request(Format.CHAT, {}), step(who), TENANT)
        assert call.url == "https://p.example/v1/completions?api-version=2024-10-21"
        assert call.headers["api-key"] == "secret-key"
        assert "authorization" not in call.headers

    def test_a_client_cannot_set_the_providers_key(self) -> None:
        sent = {"authorization": "Bearer theirs", "idempotency-key": "i", "anthropic-beta": "x"}
        headers = DIALECT.encode(request(Format.CHAT, {}, sent), step(OPENAI), TENANT).headers
        assert headers["authorization"] == "Bearer secret-key"
        assert headers["idempotency-key"] == "i"
        assert "anthropic-beta" not in headers

    @pytest.mark.parametrize(
        ("payload", "model", "options", "field"),
        [
            ({}, "gpt-4o-mini", {}, "max_tokens"),
            ({"max_tokens": 900}, "gpt-4o-mini", {}, "max_tokens"),
            ({"max_completion_tokens": 900}, "gpt-4o-mini", {}, "max_completion_tokens"),
            ({"max_tokens": None, "max_completion_tokens": 900}, "llama", {}, "max_completion_tokens"),
            ({}, "o3-mini", {}, "max_completion_tokens"),
            ({"max_tokens": 900}, "gpt-5-nano", {}, "max_completion_tokens"),
            ({"max_tokens": 900}, "openai/gpt-5.2", {}, "max_completion_tokens"),
            ({"max_completion_tokens": 900}, "mistral-small", {"max_tokens_field": "max_tokens"}, "max_tokens"),
            ({"max_tokens": 900, "max_completion_tokens": 800}, "gpt-oss-120b", {}, "max_completion_tokens"),
        ],
    )
    def test_the_cap_of_the_step_stands_in_exactly_one_field(
        self, payload: dict[str, Any], model: str, options: dict[str, Any], field: str
    ) -> None:
        body = encoded(payload, provider(**options), model, cap=77)
        caps = {name: body[name] for name in ("max_tokens", "max_completion_tokens") if name in body}
        assert caps == {field: 77}

    def test_streams_are_asked_for_usage_and_keep_the_clients_other_options(self) -> None:
        body = encoded({"stream": True, "stream_options": {"include_usage": False, "include_obfuscation": False}})
        assert body["stream_options"] == {"include_usage": True, "include_obfuscation": False}
        assert "stream_options" not in encoded({"stream": False})
        assert "stream_options" not in encoded({"stream": True}, provider(stream_usage="always"))

    @pytest.mark.parametrize(
        ("model", "effort", "sent"),
        [
            ("o3-mini", "none", "low"),
            ("o3", "high", "high"),
            ("gpt-5-mini", "none", "minimal"),
            ("gpt-5.1", "minimal", "none"),
            ("gpt-5.1", "xhigh", "high"),
            ("gpt-5.2", "xhigh", "xhigh"),
            ("qwen3", "none", "none"),
            ("gpt-4o", "low", None),
        ],
    )
    def test_effort_is_sent_in_words_the_model_knows(self, model: str, effort: str, sent: str | None) -> None:
        assert encoded({}, model=model, effort=effort).get("reasoning_effort") == sent

    def test_effort_stays_as_the_client_said_without_a_policy(self) -> None:
        assert encoded({"reasoning_effort": "high"}, model="o3")["reasoning_effort"] == "high"
        assert encoded({"reasoning_effort": "high"}, model="o3", effort="low")["reasoning_effort"] == "low"

    def test_effort_goes_where_the_provider_wants_it(self) -> None:
        who = provider(effort_field="reasoning")
        body = encoded({"reasoning": {"exclude": True, "effort": "high"}}, who, "x/y", effort="low")
        assert body["reasoning"] == {"exclude": True, "effort": "low"}
        assert "reasoning_effort" not in body
        assert "reasoning_effort" not in encoded({}, provider(effort_field="none"), "x/y", effort="low")

    def test_a_model_that_does_not_reason_is_not_told_how_hard_to(self) -> None:
        plain = Deployment("d", OPENAI, "llama", capabilities=frozenset({Capability.TOOLS}))
        one = replace(step(OPENAI, effort="low"), deployment=plain)
        assert "reasoning_effort" not in json.loads(DIALECT.encode(request(Format.CHAT, {}), one, TENANT).body)

    def test_what_a_provider_rejects_is_refused_by_name_unless_harmless_or_dropped(self) -> None:
        who = provider(rejects=["seed", "user", "stream_options"])
        with pytest.raises(UnsupportedField, match="'seed'") as caught:
            encoded({"seed": 1}, who)
        assert caught.value.param == "seed"
        assert "seed" not in encoded({"seed": 1}, who, tenant=Tenant("acme", drop_params=True))
        assert "user" not in encoded({"user": "u", "seed": None}, who)


class TestStream:
    def test_a_stream_is_relayed_as_it_came(self) -> None:
        data = b": hello\n\n" + chunk("Hi") + chunk(" there", "stop") + LAST + DONE
        decoder = stream()
        assert drain(decoder, [data]) == data
        meter = decoder.meter
        assert meter.usage is not None
        assert meter.usage.tokens == {Bucket.INPUT: 10, Bucket.OUTPUT: 5}
        assert (meter.response_model, meter.finish_reason, meter.complete) == ("gpt-4o-mini-2024", "stop", True)
        assert decoder.generated() == "Hi there"

    def test_events_go_out_as_soon_as_they_are_complete(self) -> None:
        decoder = stream()
        event = chunk("Hi")
        assert decoder.feed(event[:-1]) == b""
        assert decoder.feed(event[-1:]) == event

    def test_usage_is_hidden_from_a_client_who_did_not_ask(self) -> None:
        decoder = stream(asked=False)
        assert drain(decoder, [chunk("Hi") + chunk("", "stop") + LAST + DONE]) == chunk("Hi") + chunk("", "stop") + DONE
        assert decoder.meter.usage is not None

    def test_usage_in_the_finish_chunk_is_hidden_and_the_chunk_is_not(self) -> None:
        decoder = stream(asked=False)
        assert drain(decoder, [chunk("Hi") + chunk("", "stop", usage=USAGE)]) == chunk("Hi") + chunk("", "stop") + DONE
        assert decoder.meter.usage is not None

    def test_the_cost_stands_in_the_usage_the_client_asked_for(self) -> None:
        decoder = stream(bill=lambda usage: Cost(1_500))
        out = drain(decoder, [chunk("Hi", "stop") + LAST + DONE])
        assert (
            out
            == chunk("Hi", "stop")
            + LAST.replace(b"15}", b'15,"cost":0.0000015}')
            .replace(b": ", b":")
            .replace(b"data:", b"data: ")
            .replace(b", ", b",")
            + DONE
        )

    def test_an_unknown_cost_is_left_out(self) -> None:
        assert b"cost" not in drain(stream(bill=unknown), [chunk("Hi", "stop") + LAST + DONE])

    def test_the_last_of_cumulative_usage_wins(self) -> None:
        decoder = stream()
        first = chunk("a", usage={"prompt_tokens": 9, "completion_tokens": 1})
        drain(decoder, [first + chunk("b", "stop", usage={"prompt_tokens": 9, "completion_tokens": 2})])
        assert decoder.meter.usage is not None
        assert decoder.meter.usage.output_tokens == 2

    def test_groqs_own_usage_counts(self) -> None:
        decoder = stream(asked=False)
        data = chunk("a") + chunk("", "stop", x_groq={"id": "r", "usage": USAGE})
        assert drain(decoder, [data]) == data + DONE
        assert decoder.meter.usage is not None
        assert decoder.meter.usage.input_tokens == 10

    def test_explicit_zero_usage_is_usage(self) -> None:
        decoder = stream()
        drain(decoder, [chunk("a", "stop", usage={"prompt_tokens": 0, "completion_tokens": 0})])
        assert decoder.meter.usage is not None
        assert decoder.meter.usage.tokens == {}

    def test_null_usage_is_none(self) -> None:
        decoder = stream()
        data = chunk("a", "stop", usage=None) + DONE
        assert drain(decoder, [data]) == data
        assert decoder.meter.usage is None

    def test_the_tier_of_the_reply_is_the_tier_of_the_usage(self) -> None:
        decoder = stream()
        drain(decoder, [chunk("a", "stop", service_tier="flex", usage=USAGE)])
        assert decoder.meter.usage is not None
        assert decoder.meter.usage.service_tier == "flex"

    def test_words_in_the_text_are_not_fields(self) -> None:
        text = '"usage":{"prompt_tokens":1},"error":{"message":"x"},[DONE]\n\ndata: [DONE]\n\n'
        data = chunk(text) + chunk("", "stop") + DONE
        decoder = stream()
        assert drain(decoder, [data]) == data
        assert decoder.meter.usage is None
        assert decoder.generated() == text

    def test_done_is_supplied_after_the_finish(self) -> None:
        decoder = stream()
        assert drain(decoder, [chunk("a", "stop")]) == chunk("a", "stop") + DONE
        assert decoder.meter.complete

    def test_done_is_enough(self) -> None:
        decoder = stream()
        drain(decoder, [chunk("a") + DONE])
        assert decoder.meter.complete

    @pytest.mark.parametrize("end", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\n\n", b"data: [DONE]\r\n\r\n"])
    def test_done_is_seen_in_every_spelling(self, end: bytes) -> None:
        decoder = stream()
        drain(decoder, [chunk("a") + end])
        assert decoder.meter.complete

    def test_a_stream_that_ends_without_a_finish_is_broken(self) -> None:
        decoder = stream()
        assert decoder.feed(chunk("a"))
        with pytest.raises(UpstreamBroken, match="broke off"):
            decoder.finish()
        assert not decoder.meter.complete

    def test_every_choice_must_finish(self) -> None:
        second = chunk("b", "stop").replace(b'"index":0', b'"index":1')
        with pytest.raises(UpstreamBroken):
            drain(stream(n=2), [chunk("a", "stop")])
        drain(stream(n=2), [chunk("a", "stop") + second])

    def test_a_stream_cut_inside_an_event_is_broken(self) -> None:
        decoder = stream()
        decoder.feed(chunk("a") + chunk("b")[:40])
        with pytest.raises(UpstreamBroken):
            decoder.finish()

    def test_an_empty_body_is_broken(self) -> None:
        with pytest.raises(UpstreamBroken):
            stream().finish()

    def test_an_event_that_is_not_json_breaks_the_stream(self) -> None:
        with pytest.raises(UpstreamBroken):
            stream().feed(b"data: {oops\n\n")

    def test_an_error_before_the_first_event_sends_nothing(self) -> None:
        decoder = stream()
        assert decoder.feed(b": PROCESSING\n\n: PROCESSING\n\n") == b""
        with pytest.raises(UpstreamFailed, match="engine"):
            decoder.feed(b'data: {"error":{"message":"engine stopped","code":502}}\n\n')

    @pytest.mark.parametrize("split", [True, False])
    def test_an_error_in_the_middle_is_raised_after_what_came_before(self, *, split: bool) -> None:
        decoder = stream()
        error = b'data: {"error":{"message":"slow down","code":429}}\n\n'
        if split:
            assert decoder.feed(chunk("a")) == chunk("a")
        else:
            assert decoder.feed(chunk("a") + error + chunk("b")) == chunk("a")
        with pytest.raises(UpstreamRateLimited):
            decoder.feed(error)
        with pytest.raises(UpstreamRateLimited):
            decoder.finish()
        assert decoder.generated() == "a"

    @pytest.mark.parametrize(
        ("event", "leaf"),
        [
            (
                b'event: error\ndata: {"error":{"message":"x","code":"tool_use_failed","status_code":400}}\n\n',
                UpstreamRejected,
            ),
            (b'error: {"error":{"message":"failed to decode"}}\n\n', UpstreamFailed),
            (b'data: {"object":"error","message":"out of memory","code":503}\n\n', UpstreamOverloaded),
            (b'data: {"detail":"nothing here"}\n\n', UpstreamFailed),
            (b'data: {"error":"out of memory"}\n\n', UpstreamFailed),
            (
                b'data: {"choices":[{"delta":{},"finish_reason":"error","error":{"code":504,"message":"x"}}]}\n\n',
                UpstreamTimeout,
            ),
            (b'data: {"choices":[],"error":{"message":"prompt is too long","code":400}}\n\n', ContextOverflow),
            (b'{"error":{"message":"Invalid key","code":"invalid_api_key","type":"x"}}', UpstreamDenied),
            (b' \n{"error":\n\n{"message":"busy","type":"overloaded_error"}}', UpstreamOverloaded),
            (b"<html>502</html>\n\n", UpstreamBroken),
            (b'{"id":"c1","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}', UpstreamBroken),
        ],
    )
    def test_an_error_is_found_in_every_shape(self, event: bytes, leaf: type[GatewayError]) -> None:
        for chunks in ([event], [event[i : i + 1] for i in range(len(event))]):
            with pytest.raises(leaf) as caught:
                drain(stream(), chunks)
            assert type(caught.value) is leaf

    def test_events_of_a_kind_nobody_knows_pass(self) -> None:
        data = (
            chunk("a")
            + b'event: x\ndata: {"id":"1","message":"hello"}\n\ndata: 7\n\nid: 9\n\n'
            + chunk("", "stop")
            + DONE
        )
        assert drain(stream(), [data]) == data

    def test_an_event_of_several_lines_is_read(self) -> None:
        data = b'id: 1\ndata: {"choices":[],\ndata: "usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n' + DONE
        decoder = stream()
        assert drain(decoder, [data]) == data
        assert decoder.meter.usage is not None

    def test_all_that_is_generated_is_counted(self) -> None:
        deltas = [
            {"content": "a"},
            {"reasoning_content": "b"},
            {"reasoning": "c"},
            {"refusal": "d"},
            {"tool_calls": [{"index": 0, "function": {"name": "e", "arguments": "{"}}]},
            {"function_call": {"arguments": "f"}},
            {"audio": {"transcript": "g"}},
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "h"}]},
                    {"type": "text", "text": "i"},
                ]
            },
            {"content": 7, "tool_calls": "x", "audio": [], "function_call": 3},
        ]
        decoder = stream()
        for delta in deltas:
            decoder.feed(sse.event(json.dumps({"choices": [{"delta": delta}, {"index": 1, "delta": {}}]}).encode()))
        assert decoder.generated() == "abcde{fghi"

    def test_what_an_error_says_that_it_used_is_metered(self) -> None:
        decoder = stream()
        choice = {"index": 0, "delta": {}, "finish_reason": "error", "error": {"code": 502, "message": "x"}}
        with pytest.raises(UpstreamFailed):
            decoder.feed(sse.event(json.dumps({"choices": [choice], "usage": USAGE}).encode()))
        assert decoder.meter.usage is not None
        assert decoder.meter.usage.tokens == {Bucket.INPUT: 10, Bucket.OUTPUT: 5}

    def test_a_cut_is_an_error_event_and_no_end(self) -> None:
        assert stream().cut(UpstreamBroken("It broke.")) == (
            b'data: {"error":{"message":"It broke.","type":"api_error","param":null,"code":"upstream_broken"}}\n\n'
        )


class TestWhole:
    BODY = (
        b'{ "id":"c","model":"m-1","x":1.0,"choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"length"}],'
        b'"usage":{"prompt_tokens":3,"completion_tokens":1},"service_tier":"flex"}'
    )

    def test_a_reply_is_passed_on_byte_for_byte(self) -> None:
        decoder = whole()
        assert decoder.feed(self.BODY[:50]) == b""
        assert decoder.feed(self.BODY[50:]) == b""
        assert decoder.finish() == self.BODY
        meter = decoder.meter
        assert meter.usage is not None
        assert (meter.usage.tokens, meter.usage.service_tier) == ({Bucket.INPUT: 3, Bucket.OUTPUT: 1}, "flex")
        assert (meter.response_model, meter.finish_reason, meter.complete) == ("m-1", "length", True)
        assert decoder.generated() == "Hi"

    @pytest.mark.parametrize(
        ("body", "leaf"),
        [
            (b"", UpstreamBroken),
            (b"{", UpstreamBroken),
            (b"<html>", UpstreamBroken),
            (b"[]", UpstreamBroken),
            (b'{"choices":7}', UpstreamBroken),
            (b'{"choices":[{"message":{"content":"\xff"}}]}', UpstreamBroken),
            (b'{"error":{"code":502,"message":"Provider returned error"}}', UpstreamFailed),
            (b'{"detail":"no"}', UpstreamFailed),
            (b'{"choices":[{"finish_reason":"error","error":{"code":429,"message":"x"}}]}', UpstreamRateLimited),
            (b'data: {"choices":[]}\n\n', UpstreamBroken),
        ],
    )
    def test_what_is_no_reply_is_never_passed_on(self, body: bytes, leaf: type[GatewayError]) -> None:
        with pytest.raises(leaf) as caught:
            drain(whole(), [body])
        assert type(caught.value) is leaf

    def test_a_body_that_is_too_large_is_broken(self) -> None:
        decoder = ChatWhole(OPENAI, DIALECT.clock)
        decoder._body_bytes_max = 10
        decoder.feed(b"x" * 10)
        with pytest.raises(UpstreamBroken, match="more than 10 bytes"):
            decoder.feed(b"x")


def rules(row: Row) -> Provider:
    """The provider as its entry would declare it."""
    usage = {}
    if row["provider"] == "vercel-gateway":
        usage = {"reasoning": "excluded"}
    if row["provider"] == "azure" and "grok" in str(row["model"]):
        usage = {"cached": "excluded"}
    return Provider(row["provider"], "openai", options={"usage": usage})


def expected(row: Row) -> tuple[int, int]:
    """Tokens in and out by the measured rule of the surface, from the last usage block that was recorded."""
    block = corpus.usage_blocks(row)[-1]
    into, out = block["prompt_tokens"], block["completion_tokens"]
    details = block.get("prompt_tokens_details") or {}
    reasoning = (block.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    if row["provider"] in ("xai", "vercel-gateway"):
        out += reasoning
    if row["provider"] == "mistral":
        into += details.get("audio_tokens") or 0
    if row["provider"] == "azure" and "grok" in str(row["model"]):
        into += details.get("cached_tokens") or 0
    return into, out


BROKEN = {
    "dd11d7b769199ea5": "llama.cpp behind gpustack failed in the middle",
    "9ba26ac4ec43ec77": "Groq: a tool call of the wrong shape, told in an event",
    "8f51eae4c49a9ad1": "the same",
    "e5d747303c3031b6": "OpenRouter: malformed function call, told within the last chunk",
    "9d60dab013bfbc10": "the same, within a whole reply",
    "01169fe9ccf40ecf": "OpenRouter: Venice stopped after comments",
    "4a6612dd4cb5d4e0": "OpenRouter: the choice ends with an error",
    "8f5721286612b72d": "OpenRouter: an error with status 200",
    "fbf00c9834a0e841": "the same",
    "49902a7807e6c8bd": "the recording ends after 3,000 bytes",
    "65379735b723b632": "the same",
    "9d318904a1d69065": "the same",
    "2bdb756d0b888ab5": "the same",
    "16bc8680b80a8613": "the same",
}
"""Recorded replies that are errors, by id."""


def recorded(row: Row, *, asked: bool = True, bill: Callable[[Usage], Cost] = unknown) -> Decoder:
    options = {"include_usage": asked}
    payload = {"stream": row["streaming"], "stream_options": options, "n": (row["request_body"] or {}).get("n", 1)}
    return DIALECT.decoder(request(Format.CHAT, payload), step(rules(row)), bill)


def outcome(decoder: Decoder, chunks: Any) -> tuple[bytes | str, Usage | None, str]:
    try:
        out: bytes | str = drain(decoder, chunks)
    except GatewayError as error:
        out = f"{type(error).__name__}: {error.message}"
    return out, decoder.meter.usage, decoder.generated()


@pytest.mark.corpus
class TestRecorded:
    def test_replies_pass_as_they_came_but_for_those_that_are_errors(self) -> None:
        broken = set()
        for row in corpus.streamed("chat") + corpus.whole("chat"):
            data = corpus.body(row)
            try:
                out = drain(recorded(row), [data])
            except GatewayError:
                broken.add(row["id"])
            else:
                assert out in (data, data + DONE), row["id"]
        assert broken == BROKEN.keys()

    def test_usage_is_what_the_rule_of_the_surface_says(self) -> None:
        metered = 0
        for row in corpus.streamed("chat") + corpus.whole("chat"):
            if row["id"] in BROKEN:
                continue
            decoder = recorded(row)
            drain(decoder, [corpus.body(row)])
            usage = decoder.meter.usage
            if not corpus.usage_blocks(row):
                assert usage is None or "x_groq" in str(row["response_events"]), row["id"]
                continue
            assert usage is not None, row["id"]
            assert (usage.input_tokens, usage.output_tokens) == expected(row), row["id"]
            assert all(count > 0 for count in usage.tokens.values()), row["id"]
            metered += 1
        assert metered > 3000

    def test_a_client_who_did_not_ask_sees_no_usage_and_misses_no_text(self) -> None:
        for row in corpus.streamed("chat"):
            if row["id"] in BROKEN:
                continue
            told, silent = recorded(row), recorded(row, asked=False)
            drain(told, [corpus.body(row)])
            out = drain(silent, [corpus.body(row)])
            assert not _usage_in(out), row["id"]
            again = recorded(row)
            drain(again, [out])
            assert again.generated() == told.generated(), row["id"]
            assert silent.meter.usage == told.meter.usage, row["id"]

    def test_the_cost_is_told_in_every_usage_that_was_asked_for(self) -> None:
        for row in corpus.streamed("chat"):
            if row["id"] in BROKEN or not corpus.usage_blocks(row):
                continue
            decoder = recorded(row, bill=nano_per_token)
            found = _usage_in(drain(decoder, [corpus.body(row)]))
            assert decoder.meter.usage is not None
            total = decoder.meter.usage.input_tokens + decoder.meter.usage.output_tokens
            assert Decimal(str(found[-1].pop("cost"))) * 10**9 == total, row["id"]
            plain = corpus.usage_blocks(row)[-1]
            plain.pop("cost", None)
            assert found[-1] == plain, row["id"]

    def test_any_split_gives_the_same_bytes_usage_and_text(self) -> None:
        for number, row in enumerate(corpus.streamed("chat")):
            data = corpus.body(row)
            at_once = outcome(recorded(row, asked=False, bill=nano_per_token), [data])
            split = recorded(row, asked=False, bill=nano_per_token)
            in_pieces = outcome(split, pieces(data, number))
            assert in_pieces == at_once, row["id"]

    def test_byte_by_byte_is_the_same(self) -> None:
        for row in corpus.streamed("chat")[::25]:
            data = corpus.body(row)[-20_000:] if row["id"] in BROKEN else corpus.body(row)
            if len(data) > 100_000:
                continue
            at_once = outcome(recorded(row, bill=nano_per_token), [data])
            byte_by_byte = outcome(recorded(row, bill=nano_per_token), [data[i : i + 1] for i in range(len(data))])
            assert byte_by_byte == at_once, row["id"]

    def test_errors_become_the_leaf_their_status_suggests(self) -> None:
        sane = {
            400: {UpstreamRejected, ContextOverflow, UpstreamDenied},
            401: {UpstreamDenied},
            403: {UpstreamDenied, ContentRefused},
            404: {UpstreamDenied},
            422: {UpstreamRejected},
            429: {UpstreamRateLimited},
            500: {UpstreamFailed, UpstreamDenied},
        }
        for row in corpus.refused("chat"):
            status = row["response_status"]
            error = DIALECT.error(status, row["response_headers"] or {}, corpus.body(row), OPENAI)
            assert type(error) in sane[status], row["id"]
            assert error.message, row["id"]


def _usage_in(stream_: bytes) -> list[dict[str, Any]]:
    found = []
    for raw in sse.Splitter().feed(stream_):
        data = sse.parse(raw).data
        if data and data.startswith(b"{") and (block := json.loads(data).get("usage")):
            found.append(block)
    return found


def test_the_decoder_of_a_stream_reads_chat() -> None:
    assert isinstance(stream(), ChatStream)
