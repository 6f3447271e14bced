"""OpenAI Responses: what goes to a provider, what comes back, and which way a request of each format takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from corpus import drain, request, step

from gateway import sse
from gateway.dialects import stored
from gateway.dialects.base import Decoder
from gateway.dialects.openai import OpenAI
from gateway.dialects.openai_responses import OpenAIResponses, kept
from gateway.dialects.stored import Stored
from gateway.errors import (
    GatewayError,
    UnsupportedField,
    UpstreamBroken,
    UpstreamFailed,
    UpstreamRateLimited,
)
from gateway.types import Cost, Deployment, Format, Provider, Tenant, Usage

DIALECT = OpenAIResponses(clock=lambda: 1_754_667_600.0)
TENANT = Tenant("acme")
BOTH = {"paths": {"responses": "/responses"}}
USAGE = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


def provider(**options: Any) -> Provider:
    return Provider("p", "openai", "https://p.example/v1/", "secret-key", options=options)


def response(status: str = "completed", **more: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "status": status, "model": "m", "output": [], "usage": None, **more}


def event(kind: str, **more: Any) -> bytes:
    return sse.event(json.dumps({"type": f"response.{kind}", **more}).encode(), f"response.{kind}")


def decoder(*, stream: bool = True, **body: Any) -> Decoder:
    return DIALECT.decoder(request(Format.RESPONSES, {"stream": stream, **body}), step(provider()), lambda _: Cost(5))


CREATED = event("created", response=response("in_progress"))
TEXT = event("output_text.delta", delta="Hello.")
DONE = event("completed", response=response(usage=USAGE))


class TestEncode:
    def test_only_what_the_step_decides_changes_and_every_other_byte_survives(self) -> None:
        raw = b'{"model":"auto","input":"\\u00e9","x": 1.10,"max_output_tokens":9}'
        call = DIALECT.encode(request(Format.RESPONSES, json.loads(raw), raw=raw), step(provider(), cap=7), TENANT)
        assert call.body == b'{"model":"gpt-4o-mini","input":"\\u00e9","x":1.10,"max_output_tokens":7}'
        assert call.url == "https://p.example/v1/responses"
        assert call.headers["authorization"] == "Bearer secret-key"

    def test_the_response_built_on_goes_by_the_providers_own_id(self) -> None:
        told = Stored("d", "resp_9").told("acme")
        asked = request(Format.RESPONSES, {"input": "x", "previous_response_id": told})
        body = json.loads(DIALECT.encode(asked, step(provider()), TENANT).body)
        assert body["previous_response_id"] == "resp_9"

    def test_an_effort_of_the_step_goes_in_the_models_words(self) -> None:
        asked = request(Format.RESPONSES, {"input": "x", "reasoning": {"summary": "auto"}})
        body = json.loads(DIALECT.encode(asked, step(provider(), "gpt-5.1", effort="minimal"), TENANT).body)
        assert body["reasoning"] == {"summary": "auto", "effort": "none"}

    def test_what_a_provider_rejects_is_refused_by_name_or_dropped(self) -> None:
        asked = request(Format.RESPONSES, {"input": "x", "truncation": "auto"})
        with pytest.raises(UnsupportedField) as refused:
            DIALECT.encode(asked, step(provider(rejects=["truncation"])), TENANT)
        assert refused.value.param == "truncation"
        dropped = DIALECT.encode(asked, step(provider(rejects=["truncation"])), Tenant("acme", drop_params=True))
        assert "truncation" not in json.loads(dropped.body)

    def test_what_is_below_a_response_is_asked_for_with_the_providers_version_and_the_clients_query(self) -> None:
        deployment = Deployment("d", provider(query={"api-version": "1"}, auth="api-key"), "m")
        call = kept(deployment, "resp_1", "/input_items", query="limit=2")
        assert (call.method, call.url) == (
            "GET",
            "https://p.example/v1/responses/resp_1/input_items?api-version=1&limit=2",
        )
        assert call.headers["api-key"] == "secret-key"


class TestStream:
    def test_a_failure_before_anything_is_made_is_invisible(self) -> None:
        error = {"code": "rate_limit_exceeded", "message": "Rate limit reached."}
        failed = event("failed", response=response("failed", error=error))
        reader = decoder()
        assert reader.feed(CREATED) == b""
        with pytest.raises(UpstreamRateLimited):
            reader.feed(failed)

    def test_what_waited_comes_with_the_first_that_is_made(self) -> None:
        reader = decoder(store=False)
        assert reader.feed(CREATED) == b""
        assert reader.feed(TEXT) == CREATED + TEXT
        assert reader.generated() == "Hello."

    def test_what_is_made_in_the_background_has_its_id_at_once(self) -> None:
        reader = decoder(background=True)
        told = json.loads(sse.parse(reader.feed(CREATED)).data or b"")
        assert stored.read(told["response"]["id"], "acme") == Stored("d", "resp_1")
        assert reader.meter.pending == "resp_1"
        reader.feed(DONE)
        assert reader.meter.pending == ""

    def test_a_failure_later_is_told_in_the_providers_own_words(self) -> None:
        reader = decoder(store=False)
        reader.feed(CREATED + TEXT)
        failed = event("failed", response=response("failed", error={"code": "server_error", "message": "Oops."}))
        with pytest.raises(UpstreamFailed) as failure:
            reader.feed(failed)
        assert reader.cut(failure.value) == failed

    def test_a_stream_that_breaks_off_ends_in_an_error_event(self) -> None:
        reader = decoder(store=False)
        reader.feed(CREATED + TEXT)
        with pytest.raises(UpstreamBroken) as broken:
            reader.finish()
        told = sse.parse(reader.cut(broken.value))
        assert told.name == "error"
        assert json.loads(told.data or b"")["error"]["code"] == "upstream_broken"

    @pytest.mark.parametrize(
        "data",
        [
            sse.event(b'{"type":"error","code":"server_error","message":"Oops."}', "error"),
            sse.event(b'{"error":{"message":"Oops.","code":"server_error"}}'),
            b'{"error":{"message":"Oops.","code":"server_error"}}',
            sse.event(b"not JSON"),
        ],
    )
    def test_an_error_in_any_shape_is_one(self, data: bytes) -> None:
        with pytest.raises(GatewayError):
            drain(decoder(), [data])

    def test_the_last_event_has_the_cost_and_the_id_that_can_be_asked_for(self) -> None:
        reader = decoder()
        out = drain(reader, [CREATED + TEXT + DONE])
        last = json.loads(sse.parse(out[out.rindex(b"event: ") :]).data or b"")["response"]
        assert last["usage"] == {**USAGE, "cost": 0.000000005}
        assert stored.read(last["id"], "acme").id == "resp_1"
        assert reader.meter.finish_reason == "completed"

    def test_a_search_is_a_fee_and_reading_a_page_is_none(self) -> None:
        def search(kind: str) -> dict[str, Any]:
            return {"type": "web_search_call", "status": "completed", "action": {"type": kind}}

        reader = decoder()
        done = response(usage=USAGE, output=[search("search"), search("open_page"), search("search")])
        drain(reader, [CREATED + TEXT + event("completed", response=done)])
        assert reader.meter.usage is not None
        assert reader.meter.usage.fees == {"web_search": 2}


class TestWhole:
    def test_what_is_not_stored_keeps_every_byte(self) -> None:
        body = json.dumps(response(usage=USAGE, store=False), indent=2).encode()
        assert drain(decoder(stream=False), [body]) == body

    def test_what_is_queued_is_complete_and_pending(self) -> None:
        reader = decoder(stream=False, background=True)
        drain(reader, [json.dumps(response("queued", output=None)).encode()])
        assert (reader.meter.complete, reader.meter.pending, reader.meter.usage) == (True, "resp_1", None)

    def test_a_failed_response_is_its_error_and_owes_what_it_reports(self) -> None:
        reader = decoder(stream=False)
        failed = response("failed", error={"code": "server_error", "message": "Oops."}, usage=USAGE)
        with pytest.raises(UpstreamFailed):
            drain(reader, [json.dumps(failed).encode()])
        assert reader.meter.usage is not None
        assert reader.meter.usage.output_tokens == 4

    @pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"error": {"message": "no"}}', b'{"id": "x"}'])
    def test_what_is_no_response_is_an_error(self, body: bytes) -> None:
        with pytest.raises(GatewayError):
            drain(decoder(stream=False), [body])


def sent(format_: Format, body: dict[str, Any], model: str = "gpt-4o", **options: Any) -> str:
    url = OpenAI().encode(request(format_, body), step(provider(**options), model), TENANT).url
    return url.removeprefix("https://p.example/v1")


CHAT = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 9}
ASKED = {"input": "x"}


class TestWays:
    @pytest.mark.parametrize(
        ("format_", "body", "model", "options", "path"),
        [
            (Format.CHAT, CHAT, "gpt-4o", BOTH, "/chat/completions"),
            (Format.CHAT, CHAT, "gpt-5-pro", BOTH, "/responses"),
            (Format.CHAT, CHAT, "gpt-5-pro", {}, "/chat/completions"),
            (Format.CHAT, CHAT, "m", {"paths": {"chat": None, "responses": "/responses"}}, "/responses"),
            (Format.MESSAGES, CHAT, "gpt-4o", BOTH, "/chat/completions"),
            (Format.MESSAGES, CHAT, "o3-deep-research", BOTH, "/responses"),
            (Format.RESPONSES, ASKED, "gpt-4o", BOTH, "/responses"),
            (Format.RESPONSES, ASKED, "gpt-4o", {}, "/chat/completions"),
            (Format.EMBEDDINGS, ASKED, "e", {}, "/embeddings"),
            (Format.EMBEDDINGS, ASKED, "a/b c", {"paths": {"embeddings": "/d/{model}/e"}}, "/d/a%2Fb%20c/e"),
            (Format.COMPLETIONS, {"prompt": "x"}, "m", {}, "/completions"),
        ],
    )
    def test_a_request_goes_where_its_format_is_spoken(
        self, format_: Format, body: dict[str, Any], model: str, options: dict[str, Any], path: str
    ) -> None:
        assert sent(format_, body, model, **options) == path

    def test_a_provider_that_does_not_take_it_refuses_it_by_name(self) -> None:
        with pytest.raises(UnsupportedField, match="embeddings"):
            sent(Format.EMBEDDINGS, ASKED, paths={"embeddings": None})

    def test_legacy_completions_know_one_name_for_the_cap(self) -> None:
        asked = request(Format.COMPLETIONS, {"prompt": "x"})
        call = OpenAI().encode(asked, step(provider(max_tokens_field="max_completion_tokens"), "m", cap=7), TENANT)
        assert json.loads(call.body) == {"prompt": "x", "model": "m", "max_tokens": 7}


def test_usage_with_nothing_in_it_is_not_zero() -> None:
    reader = decoder(stream=False)
    drain(reader, [json.dumps(response(usage={})).encode()])
    assert reader.meter.usage is None
    assert Usage().tokens == {}
