"""Claude on Google's cloud: recorded calls as we would make them, recorded replies as clients get them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import corpus
import pytest
from corpus import drain, pieces, request, step
from grown import grown_chat, grown_message, texts

from gateway.dialects.vertex_anthropic import VertexAnthropic
from gateway.types import Bucket, Cost, Format, Provider, Tenant

DIALECT = VertexAnthropic(clock=lambda: 1_754_667_600.0)
VERTEX = Provider(
    "vertex-anthropic",
    "vertex_anthropic",
    "https://aiplatform.googleapis.com/v1",
    options={"auth": "bearer", "project": "fantasy-playground-472418", "location": "us-east5"},
)


def test_a_call_names_the_model_in_its_url_and_the_version_in_its_body() -> None:
    payload = {"model": "m", "messages": [], "max_tokens": 5}
    asked = request(Format.MESSAGES, payload, {"anthropic-version": "2023-06-01", "anthropic-beta": "b-1"})
    call = DIALECT.encode(asked, step(VERTEX, "claude-sonnet-4-5@20250929", 5), Tenant("acme"))
    assert json.loads(call.body) == {"messages": [], "max_tokens": 5, "anthropic_version": "vertex-2023-10-16"}
    assert call.url.endswith("/publishers/anthropic/models/claude-sonnet-4-5@20250929:rawPredict")
    assert call.headers["anthropic-beta"] == "b-1"
    assert not {"anthropic-version", "x-api-key", "authorization"} & set(call.headers)


def test_a_client_of_another_format_is_served_as_well() -> None:
    payload = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    call = DIALECT.encode(request(Format.CHAT, payload), step(VERTEX, "claude-opus-4-6", 5), Tenant("acme"))
    assert json.loads(call.body) == {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "max_tokens": 5,
        "stream": True,
        "anthropic_version": "vertex-2023-10-16",
    }
    assert call.url.endswith(":streamRawPredict")


@pytest.mark.corpus
def test_every_recorded_call_is_made_the_same() -> None:
    rows = corpus.rows("raw_predict")
    assert len(rows) > 40
    for row in rows:
        sent: dict[str, Any] = row["request_body"]
        model = unquote(row["url"].rpartition("/")[2].partition(":")[0])
        client = {"model": model, **{name: value for name, value in sent.items() if name != "anthropic_version"}}
        call = DIALECT.encode(request(Format.MESSAGES, client), step(VERTEX, model, sent["max_tokens"]), Tenant("acme"))
        assert json.loads(call.body) == sent, row["id"]
        if "us-east5" in row["url"]:
            assert call.url == unquote(row["url"]).partition("?")[0], row["id"]


@pytest.mark.corpus
@pytest.mark.parametrize("client", [Format.CHAT, Format.MESSAGES])
def test_every_recorded_reply_is_read_however_it_is_split(client: Format) -> None:
    for row in corpus.rows("raw_predict"):
        data, stream = corpus.body(row), row["response_format"] == "sse"
        asked = request(client, {"stream": stream, "stream_options": {"include_usage": True}})
        decoders = [DIALECT.decoder(asked, step(VERTEX), lambda usage: Cost(1_500)) for _ in range(2)]
        out = drain(decoders[0], [data])
        assert drain(decoders[1], pieces(data, seed=len(data))) == out, row["id"]
        message = grown_message(data, ours=False) if stream else row["response_body"]
        meter, block = decoders[0].meter, message["usage"]
        assert meter.usage is not None
        assert meter.complete
        assert meter.usage.output_tokens == block["output_tokens"], row["id"]
        assert meter.usage.tokens.get(Bucket.INPUT, 0) == block["input_tokens"], row["id"]
        whole = sum(
            block.get(name) or 0 for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        )
        assert meter.usage.input_tokens == whole, row["id"]
        if client is Format.CHAT:
            said = grown_chat(out)["message"] if stream else json.loads(out)["choices"][0]["message"]
            assert (said["content"] or "") == texts(message, "text", "text"), row["id"]
