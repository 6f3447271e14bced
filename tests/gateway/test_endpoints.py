"""Embeddings, rerank, moderations, images, sound and legacy completions through the whole application."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from vendor import Served, Vendor, served

from gateway.money import nano

CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  east: {{dialect: openai, base_url: "https://east.example/v1", api_key: k, retries_max: 0}}
  west: {{dialect: openai, base_url: "https://west.example/v1", api_key: k, retries_max: 0}}
  claude: {{dialect: anthropic, base_url: "https://claude.example", api_key: k}}
deployments:
  - {{id: embed, provider: east, upstream_model: text-embedding-3-small, price: {{input: 0.02}}}}
  - {{id: embed-dear, provider: west, upstream_model: text-embedding-3-large, price: {{input: 0.13}}}}
  - {{id: rerank, provider: east, upstream_model: rerank-v3.5, price: {{fees: {{search_unit: 0.002}}}}}}
  - {{id: mod, provider: east, upstream_model: omni-moderation-latest, price: {{input: 0}}}}
  - {{id: dalle, provider: east, upstream_model: dall-e-3,
      price: {{fees: {{image: 0.04, "image:hd": 0.08, "image:1024x1792": 0.08}}}}}}
  - {{id: gpt-image, provider: east, upstream_model: gpt-image-x,
      price: {{input: 5, image_in: 10, output: 40, image_out: 40}}}}
  - {{id: whisper, provider: east, upstream_model: whisper-1, price: {{fees: {{audio_second: 0.0001}}}}}}
  - {{id: transcribe, provider: east, upstream_model: gpt-4o-transcribe,
      price: {{input: 2.5, audio_in: 6, output: 10}}}}
  - {{id: tts, provider: east, upstream_model: tts-1, price: {{fees: {{character: 0.000015}}}}}}
  - {{id: legacy, provider: east, upstream_model: gpt-3.5-turbo-instruct, price: {{input: 1.5, output: 2}}}}
  - {{id: claude, provider: claude, upstream_model: claude-x, price: {{input: 1, output: 1}}}}
routes:
  vectors: {{candidates: [embed, embed-dear, claude], policies: [cheapest]}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: key-of-acme}}], budgets: [{{limit_usd: {limit}, window: day}}]}}
"""
WAV = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0" + (32_000).to_bytes(4, "little") + b"\0" * 64_000
"""Two seconds of silence."""
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 200


def embeddings(n: int = 1, tokens: int = 7) -> httpx.Response:
    data = [{"object": "embedding", "index": i, "embedding": [0.5, 0.25]} for i in range(n)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return httpx.Response(200, json={"object": "list", "data": data, "model": "text-embedding-3-small", "usage": usage})


def images(n: int, usage: dict[str, Any] | None = None) -> httpx.Response:
    body: dict[str, Any] = {"created": 1, "data": [{"b64_json": "aGk="}] * n}
    return httpx.Response(200, json=body if usage is None else body | {"usage": usage})


def site(folder: Path, limit: str = "100", **replies: httpx.Response) -> Any:
    vendor = Vendor(replies={f"/v1/{path.replace('__', '/')}": reply for path, reply in replies.items()})
    return served(CONFIG.format(folder=folder, limit=limit), vendor)


def sent(found: Served) -> Any:
    return found.vendor.calls[-1][2]


async def test_embeddings_are_billed_by_the_tokens_that_the_reply_reports(tmp_path: Path) -> None:
    async with site(tmp_path, embeddings=embeddings(2, tokens=31)) as found:
        reply = await found.openai().embeddings.create(model="embed", input=["one", "two"], encoding_format="float")
        assert [each.embedding for each in reply.data] == [[0.5, 0.25]] * 2
        assert sent(found)["model"] == "text-embedding-3-small"
        [record] = found.records
        assert (record.endpoint, record.cost, dict(record.tokens)) == ("embeddings", 31 * 20, {"input": 31})
        assert record.reserved >= record.cost


async def test_a_route_of_embeddings_fails_over_and_passes_by_who_has_none(tmp_path: Path) -> None:
    async with site(tmp_path, embeddings=embeddings(tokens=10)) as found:
        found.vendor.down = {"east.example"}
        reply = await found.http.post(
            "/v1/embeddings", json={"model": "vectors", "input": "x"}, headers={"authorization": "Bearer key-of-acme"}
        )
        assert reply.status_code == 200
        assert reply.headers["x-tollgate-deployment"] == "embed-dear"
        assert nano(reply.headers["x-tollgate-cost-usd"]) == 10 * 130
        assert not any("claude" in url for _, url, _ in found.vendor.calls)


async def test_who_has_no_embeddings_says_so_by_name_and_nothing_is_owed(tmp_path: Path) -> None:
    async with site(tmp_path) as found:
        with pytest.raises(openai.BadRequestError) as refused:
            await found.openai().embeddings.create(model="claude", input="x")
        assert "embeddings" in refused.value.message
        assert (found.vendor.calls, found.records) == ([], [])


async def test_a_budget_without_room_refuses_before_anyone_is_called(tmp_path: Path) -> None:
    async with site(tmp_path, limit="0.01", images__generations=images(1)) as found:
        with pytest.raises(openai.RateLimitError) as refused:
            await found.openai().images.generate(model="dalle", prompt="a cat")
        assert refused.value.code == "budget_exceeded"
        assert (found.vendor.calls, found.records) == ([], [])


async def test_an_image_costs_what_its_quality_and_size_cost(tmp_path: Path) -> None:
    async with site(tmp_path, images__generations=images(1)) as found:
        client = found.openai()
        await client.images.generate(model="dalle", prompt="a cat")
        await client.images.generate(model="dalle", prompt="a cat", quality="hd")
        await client.images.generate(model="dalle", prompt="a cat", size="1024x1792")
        assert [record.cost for record in found.records] == [nano("0.04"), nano("0.08"), nano("0.08")]
        assert [record.reserved for record in found.records] == [nano("0.04"), nano("0.08"), nano("0.08")]


async def test_a_quality_that_has_no_price_is_refused_under_a_hard_cap(tmp_path: Path) -> None:
    async with site(tmp_path, images__generations=images(1)) as found:
        with pytest.raises(openai.BadRequestError) as refused:
            await found.openai().images.generate(model="dalle", prompt="a cat", quality="hd", size="1024x1792")
        assert refused.value.code == "price_unknown"
        assert found.vendor.calls == []


async def test_images_of_a_model_priced_in_tokens_are_billed_and_bounded_in_tokens(tmp_path: Path) -> None:
    usage = {
        "input_tokens": 14,
        "input_tokens_details": {"text_tokens": 14, "image_tokens": 0},
        "output_tokens": 4160,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": 4160},
        "total_tokens": 4174,
    }
    async with site(tmp_path, images__generations=images(1, usage)) as found:
        await found.openai().images.generate(model="gpt-image", prompt="a cat", quality="high", size="1024x1024")
        [record] = found.records
        assert record.cost == 14 * 5000 + 4160 * 40_000
        assert record.cost < record.reserved < 3 * record.cost


async def test_an_edit_is_billed_by_the_piece_and_its_form_is_passed_on(tmp_path: Path) -> None:
    async with site(tmp_path, images__edits=images(2)) as found:
        told = await found.openai().images.edit(
            model="dalle", image=("a.png", PNG), mask=("m.png", PNG + b"m"), prompt="a hat", n=2, size="1024x1792"
        )
        assert [each.b64_json for each in told.data or []] == ["aGk=", "aGk="]
        form = sent(found)
        assert b'name="model"\r\n\r\ndall-e-3\r\n' in form
        assert PNG in form
        [record] = found.records
        assert (record.endpoint, record.cost, record.reserved) == ("image_edits", 2 * nano("0.08"), 2 * nano("0.08"))


@pytest.mark.filterwarnings("ignore:deprecated")  # by the SDK
async def test_a_variation_is_billed_by_the_piece(tmp_path: Path) -> None:
    async with site(tmp_path, images__variations=images(1)) as found:
        await found.openai().images.create_variation(model="dalle", image=("a.png", PNG))
        [record] = found.records
        assert (record.endpoint, record.cost, record.reserved) == ("image_variations", nano("0.04"), nano("0.04"))


@pytest.mark.parametrize("form", [True, False])
async def test_an_edit_priced_in_tokens_is_billed_and_bounded_with_the_pictures_it_is_made_from(
    tmp_path: Path, form: bool
) -> None:
    usage = {  # recorded: gpt-image-1.5, two pictures of 128x128
        "input_tokens": 431,
        "input_tokens_details": {"image_tokens": 388, "text_tokens": 43},
        "output_tokens": 1364,
        "output_tokens_details": {"image_tokens": 1056, "text_tokens": 308},
        "total_tokens": 1795,
    }
    async with site(tmp_path, images__edits=images(1, usage)) as found:
        if form:
            pictures = [("a.png", PNG), ("b.png", PNG)]
            await found.openai().images.edit(model="gpt-image", image=pictures, prompt="a hat")
        else:
            body = {"model": "gpt-image", "prompt": "a hat", "images": [{"image_url": "https://x.example/a.png"}] * 2}
            headers = {"authorization": "Bearer key-of-acme"}
            await found.http.post("/v1/images/edits", json=body, headers=headers)
            assert sent(found) == body | {"model": "gpt-image-x"}
        [record] = found.records
        assert record.cost == 43 * 5000 + 388 * 10_000 + 1364 * 40_000
        assert record.reserved >= record.cost + 2 * 6_000 * 10_000  # a picture of high fidelity is up to so many tokens


async def test_an_edit_may_be_streamed(tmp_path: Path) -> None:
    usage = {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30, "output_tokens_details": {"image_tokens": 20}}
    partial = {"type": "image_edit.partial_image", "b64_json": "aGk=", "partial_image_index": 0}
    done = {"type": "image_edit.completed", "b64_json": "aGk=", "usage": usage}
    stream = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in (partial, done))
    reply = httpx.Response(200, content=stream, headers={"content-type": "text/event-stream"})
    async with site(tmp_path, images__edits=reply) as found:
        events = await found.openai().images.edit(
            model="gpt-image", image=("a.png", PNG), prompt="a hat", stream=True, partial_images=1
        )
        assert [event.type async for event in events] == ["image_edit.partial_image", "image_edit.completed"]
        assert [record.cost for record in found.records] == [10 * 5000 + 20 * 40_000]


async def test_a_rerank_is_billed_by_the_search_unit(tmp_path: Path) -> None:
    reply = {"results": [], "meta": {"billed_units": {"search_units": 1}}}
    async with site(tmp_path, rerank=httpx.Response(200, json=reply)) as found:
        body = {"model": "rerank", "query": "ruby", "documents": ["a"] * 150}
        told = await found.http.post("/v1/rerank", json=body, headers={"authorization": "Bearer key-of-acme"})
        assert told.json() == reply
        [record] = found.records
        assert (record.cost, record.reserved) == (nano("0.002"), nano("0.004"))  # 150 documents may be two


async def test_a_moderation_is_free_and_recorded(tmp_path: Path) -> None:
    reply = httpx.Response(200, json={"id": "m", "model": "omni-moderation-latest", "results": []})
    async with site(tmp_path, moderations=reply) as found:
        await found.openai().moderations.create(model="mod", input="fine")
        assert [record.cost for record in found.records] == [0]


async def test_a_transcription_is_billed_by_the_second_and_its_form_is_passed_on(tmp_path: Path) -> None:
    reply = httpx.Response(200, json={"text": "Hello.", "usage": {"type": "duration", "seconds": 3}})
    async with site(tmp_path, audio__transcriptions=reply) as found:
        told = await found.openai().audio.transcriptions.create(model="whisper", file=("a.wav", WAV), language="en")
        assert told.text == "Hello."
        form = sent(found)
        assert b'name="model"\r\n\r\nwhisper-1\r\n' in form
        assert WAV in form
        [record] = found.records
        assert (record.cost, record.fees) == (3 * 100_000, {"audio_second": 3})
        assert record.reserved == 3 * 100_000  # what a WAV of two seconds and a bit can be


async def test_plain_text_is_a_transcription_too(tmp_path: Path) -> None:
    reply = httpx.Response(200, text="1\n00:00 Hello.\n", headers={"content-type": "text/plain; charset=utf-8"})
    async with site(tmp_path, audio__transcriptions=reply) as found:
        told = await found.openai().audio.transcriptions.create(
            model="whisper", file=("a.mp3", b"x" * 80_000), response_format="srt"
        )
        assert told == "1\n00:00 Hello.\n"
        [record] = found.records
        assert record.estimated
        assert record.cost == 10 * 100_000  # at 64 kbit/s


async def test_a_transcription_priced_in_tokens_is_billed_in_tokens(tmp_path: Path) -> None:
    details = {"text_tokens": 0, "audio_tokens": 37}
    usage = {
        "type": "tokens",
        "input_tokens": 37,
        "input_token_details": details,
        "output_tokens": 9,
        "total_tokens": 46,
    }
    async with site(
        tmp_path, audio__transcriptions=httpx.Response(200, json={"text": "Hello.", "usage": usage})
    ) as found:
        await found.openai().audio.transcriptions.create(model="transcribe", file=("a.wav", WAV))
        [record] = found.records
        assert record.cost == 37 * 6000 + 9 * 10_000
        assert record.reserved >= record.cost


async def test_a_transcription_may_be_streamed(tmp_path: Path) -> None:
    done = b'{"type":"transcript.text.done","text":"Hello.","usage":{"type":"duration","seconds":3}}'
    stream = b'data: {"type":"transcript.text.delta","delta":"Hello."}\n\ndata: ' + done + b"\n\ndata: [DONE]\n\n"
    reply = httpx.Response(200, content=stream, headers={"content-type": "text/event-stream"})
    async with site(tmp_path, audio__transcriptions=reply) as found:
        events = await found.openai().audio.transcriptions.create(model="whisper", file=("a.wav", WAV), stream=True)
        assert [event.type async for event in events] == ["transcript.text.delta", "transcript.text.done"]
        assert [record.cost for record in found.records] == [3 * 100_000]


async def test_speech_is_billed_by_the_character_and_its_bytes_are_passed_on(tmp_path: Path) -> None:
    sound = bytes(range(256)) * 4
    reply = httpx.Response(200, content=sound, headers={"content-type": "audio/mpeg"})
    async with site(tmp_path, audio__speech=reply) as found:
        told = await found.openai().audio.speech.create(model="tts", voice="nova", input="Hello, you.")
        assert told.content == sound
        assert told.response.headers["content-type"] == "audio/mpeg"
        [record] = found.records
        assert (record.cost, record.fees) == (11 * 15_000, {"character": 11})
        assert not record.estimated


async def test_legacy_completions_are_served_and_bounded_by_their_own_default(tmp_path: Path) -> None:
    choice = {"index": 0, "text": " you.", "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    body = {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    async with site(tmp_path, completions=httpx.Response(200, json=body)) as found:
        told = await found.openai().completions.create(model="legacy", prompt=["Hello", "Hello"], n=2)
        assert told.choices[0].text == " you."
        assert sent(found)["max_tokens"] == 16
        [record] = found.records
        assert record.cost == 2 * 1500 + 3 * 2000
        assert record.reserved >= 4 * 16 * 2000


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("embeddings", {"input": []}, "input"),
        ("embeddings", {"input": ["x", 3.5]}, "input[1]"),
        ("rerank", {"query": "x", "documents": [1]}, "documents[0]"),
        ("moderations", {"input": 3}, "input"),
        ("images/generations", {"prompt": "x", "n": 1000}, "n"),
        ("images/edits", {"prompt": "x"}, "image"),
        ("images/edits", {"prompt": "x", "image": ["a.png"]}, "image"),
        ("images/edits", {"image": {"url": "x"}}, "prompt"),
        ("images/variations", {"image": []}, "image"),
        ("audio/speech", {"input": ""}, "input"),
        ("audio/transcriptions", {"file": 3}, "file"),
        ("completions", {"prompt": {"a": 1}}, "prompt"),
        ("responses", {"input": [3]}, "input[0]"),
    ],
)
async def test_what_is_malformed_is_refused_by_its_place(
    tmp_path: Path, path: str, body: dict[str, Any], param: str
) -> None:
    async with site(tmp_path) as found:
        reply = await found.http.post(
            f"/v1/{path}", json={"model": "embed", **body}, headers={"authorization": "Bearer key-of-acme"}
        )
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


async def test_a_broken_form_is_refused(tmp_path: Path) -> None:
    async with site(tmp_path) as found:
        headers = {"authorization": "Bearer key-of-acme", "content-type": "multipart/form-data; boundary=b"}
        for raw in (b"", b"--b", b"--b\r\n\r\nx", b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nx'):
            reply = await found.http.post("/v1/audio/transcriptions", content=raw, headers=headers)
            assert reply.status_code == 400
