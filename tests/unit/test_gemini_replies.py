"""What Gemini answers, as clients of other formats get it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from corpus import drain, request, step
from grown import grown_chat, grown_message

from gateway.dialects.base import Decoder
from gateway.dialects.gemini import Gemini
from gateway.errors import GatewayError, UpstreamBroken, UpstreamFailed, UpstreamOverloaded
from gateway.types import Bucket, Cost, Format, Provider

GOOGLE = Provider("google", "gemini", "https://generativelanguage.googleapis.com/v1beta", "secret-key")
CHAT, MESSAGES = Format.CHAT, Format.MESSAGES


def decoder(client: Format, *, stream: bool) -> Decoder:
    body = {"stream": stream, "stream_options": {"include_usage": True}}
    return Gemini().decoder(request(client, body), step(GOOGLE, "gemini-3-flash-preview"), lambda usage: Cost(1_500))


def chunk(*parts: dict[str, Any], finish: Any = None, index: int = 0, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": index}
    if finish:
        candidate["finishReason"] = finish
    candidate |= more.pop("candidate", {})
    return {"candidates": [candidate], "modelVersion": "gemini-3-flash-preview", "responseId": "r7", **more}


def events(*chunks: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\r\n\r\n" for each in chunks)


def whole(reply: dict[str, Any], client: Format = CHAT) -> Any:
    return json.loads(drain(decoder(client, stream=False), [json.dumps(reply).encode()]))


def usage(prompt: int, total: int, **more: int) -> dict[str, Any]:
    return {"usageMetadata": {"promptTokenCount": prompt, "totalTokenCount": total, **more}}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"text": said, **more}


def call(name: str = "f", **more: Any) -> dict[str, Any]:
    signature = {"thoughtSignature": more.pop("signed")} if "signed" in more else {}
    return {"functionCall": {"name": name, "args": {"a": 1}, **more}, **signature}


class TestCalls:
    def test_calls_without_ids_get_ids_that_differ_in_a_conversation(self) -> None:
        first = whole(chunk(call(), call("g"), finish="STOP"))["choices"][0]
        assert first["finish_reason"] == "tool_calls"
        ids = [each["id"] for each in first["message"]["tool_calls"]]
        assert ids == ["call_r7_0", "call_r7_1"]
        other = whole({**chunk(call(), finish="STOP"), "responseId": "r8"})["choices"][0]
        assert other["message"]["tool_calls"][0]["id"] not in ids

    def test_an_id_that_is_given_is_kept(self) -> None:
        choice = whole(chunk(call(id="own"), finish="STOP"))["choices"][0]
        assert choice["message"]["tool_calls"][0]["id"] == "own"

    def test_a_call_in_an_earlier_chunk_still_says_why_the_stream_ended(self) -> None:
        out = drain(decoder(CHAT, stream=True), [events(chunk(call()), chunk(text(""), finish="STOP"))])
        assert grown_chat(out)["finish_reason"] == "tool_calls"

    @pytest.mark.parametrize("client", [CHAT, MESSAGES])
    def test_a_stream_ends_only_when_it_says_why(self, client: Format) -> None:
        read = decoder(client, stream=True)
        read.feed(events(chunk(text("Hi"))))
        with pytest.raises(UpstreamBroken):
            read.finish()
        assert not read.meter.complete


def test_places_that_google_maps_told_are_a_fee_of_their_own() -> None:
    looked = {"groundingMetadata": {"groundingChunks": [{"maps": {"uri": "https://maps.google.com/1", "title": "A"}}]}}
    read = decoder(CHAT, stream=False)
    reply = {**chunk(text("Here."), finish="STOP", candidate=looked), **usage(5, 7, candidatesTokenCount=2)}
    drain(read, [json.dumps(reply).encode()])
    assert read.meter.usage is not None
    assert read.meter.usage.fees == {"maps": 1}


class TestSignatures:
    def test_a_signed_call_follows_a_signed_thought(self) -> None:
        parts = (text("hm", thought=True), call(signed="AA=="), call("g"))
        message = whole(chunk(*parts, finish="STOP"), MESSAGES)
        thought, first, second = message["content"]
        assert thought == {"type": "thinking", "thinking": "hm", "signature": "gemini:c0:AA=="}
        assert (first["name"], second["name"]) == ("f", "g")

    def test_a_signed_text_is_followed_by_a_signed_thought_in_a_stream(self) -> None:
        stream = events(chunk(text("Hi")), chunk(text("", thoughtSignature="BB=="), finish="STOP"))
        message = grown_message(drain(decoder(MESSAGES, stream=True), [stream]))
        assert message["content"] == [
            {"type": "text", "text": "Hi"},
            {"type": "thinking", "thinking": "", "signature": "gemini:t:BB=="},
        ]
        chat = grown_chat(drain(decoder(CHAT, stream=True), [stream]))["message"]
        assert chat["content"] == "Hi"
        assert chat["thinking_blocks"] == [{"type": "thinking", "thinking": "", "signature": "gemini:t:BB=="}]


class TestEnds:
    @pytest.mark.parametrize(
        "reason", ["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "SPII", "BLOCKLIST", "IMAGE_SAFETY", 3]
    )
    def test_a_filter_ends_an_answer_as_each_client_knows_it(self, reason: Any) -> None:
        reply = chunk(text("Well"), finish=reason)
        assert whole(reply)["choices"][0]["finish_reason"] == "content_filter"
        assert whole(reply, MESSAGES)["stop_reason"] == "refusal"

    def test_what_google_says_of_it_is_told(self) -> None:
        reply = chunk(finish="SAFETY", candidate={"finishMessage": "It is unsafe."})
        assert whole(reply)["choices"][0]["message"]["refusal"] == "It is unsafe."

    @pytest.mark.parametrize("stream", [True, False])
    def test_a_blocked_prompt_is_a_refusal_that_says_why_and_what_it_cost(self, *, stream: bool) -> None:
        reply = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **usage(9, 9)}
        read = decoder(CHAT, stream=stream)
        out = drain(read, [events(reply) if stream else json.dumps(reply).encode()])
        choice = grown_chat(out) if stream else json.loads(out)["choices"][0]
        assert choice["finish_reason"] == "content_filter"
        assert "PROHIBITED_CONTENT" in choice["message"]["refusal"]
        assert read.meter.usage is not None
        assert (read.meter.usage.tokens, read.meter.complete) == ({Bucket.INPUT: 9}, True)

    def test_a_call_the_model_could_not_write_is_a_failure_and_not_an_empty_answer(self) -> None:
        reply = chunk(
            finish="MALFORMED_FUNCTION_CALL", candidate={"finishMessage": "Malformed: print("}, **usage(9, 12)
        )
        read = decoder(CHAT, stream=False)
        with pytest.raises(UpstreamFailed, match="Malformed"):
            drain(read, [json.dumps(reply).encode()])
        assert read.meter.usage is not None
        said = chunk(text("So:"), finish="MALFORMED_FUNCTION_CALL")
        assert whole(said)["choices"][0]["finish_reason"] == "stop"

    def test_an_unknown_reason_is_an_end(self) -> None:
        assert whole(chunk(text("x"), finish="NEW_REASON"))["choices"][0]["finish_reason"] == "stop"

    def test_an_error_in_the_stream_comes_after_what_was_said(self) -> None:
        error = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
        read = decoder(CHAT, stream=True)
        assert b"Hi" in read.feed(events(chunk(text("Hi")), error))
        with pytest.raises(UpstreamOverloaded):
            read.finish()

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{}",
            b"[]",
            b"null",
            b"[1]",
            b'{"candidates": 3}',
            b'{"candidates": [{"content": {"parts": [7]}}]}',
            b"{",
        ],
    )
    def test_what_is_no_answer_is_an_error_and_never_a_bug(self, body: bytes) -> None:
        for client in (CHAT, MESSAGES):
            with pytest.raises(GatewayError):
                drain(decoder(client, stream=False), [body])


class TestUsage:
    def test_the_last_count_wins_and_a_chunk_without_counts_changes_nothing(self) -> None:
        read = decoder(CHAT, stream=True)
        stream = events(
            chunk(text("a"), **usage(9, 9)),
            chunk(text("b"), **usage(9, 30, candidatesTokenCount=6, thoughtsTokenCount=15)),
            chunk(text("c"), finish="STOP", usageMetadata={"trafficType": "ON_DEMAND"}),
        )
        drain(read, [stream])
        assert read.meter.usage is not None
        assert read.meter.usage.tokens == {Bucket.INPUT: 9, Bucket.OUTPUT: 6, Bucket.REASONING: 15}


class TestGrounding:
    def test_sources_are_citations_and_queries_are_fees(self) -> None:
        grounding = {
            "webSearchQueries": ["a", "b", "a", ""],
            "groundingChunks": [{"web": {"uri": "https://x.org", "title": "X"}}, {"retrievedContext": {}}],
            "groundingSupports": [
                {"segment": {"text": "Sky is blue", "endIndex": 11}, "groundingChunkIndices": [0, 1, 7]}
            ],
        }
        reply = chunk(text("Sky is blue"), finish="STOP", candidate={"groundingMetadata": grounding}, **usage(3, 3))
        read = decoder(CHAT, stream=False)
        message = json.loads(drain(read, [json.dumps(reply).encode()]))["choices"][0]["message"]
        [cited] = message["annotations"]
        assert cited["url_citation"] == {"url": "https://x.org", "title": "X", "start_index": 0, "end_index": 11}
        assert read.meter.usage is not None
        assert read.meter.usage.fees == {"web_search": 2}
        [block] = whole(reply, MESSAGES)["content"]
        assert block["citations"][0]["cited_text"] == "Sky is blue"


class TestMore:
    def test_log_probabilities_are_in_openais_shape(self) -> None:
        token = {"token": "Hé", "tokenId": 1, "logProbability": -0.25}
        result = {"chosenCandidates": [token], "topCandidates": [{"candidates": [token]}]}
        told = whole(chunk(text("Hé"), finish="STOP", candidate={"logprobsResult": result}))["choices"][0]["logprobs"]
        entry = {"token": "Hé", "logprob": -0.25, "bytes": [72, 195, 169]}
        assert told == {"content": [{**entry, "top_logprobs": [entry]}]}

    def test_several_answers_are_several_choices(self) -> None:
        one = chunk(text("a"), finish="STOP")
        one["candidates"].append({"content": {"parts": [{"text": "b"}]}, "index": 1, "finishReason": "MAX_TOKENS"})
        choices = whole(one)["choices"]
        assert [(each["message"]["content"], each["finish_reason"]) for each in choices] == [
            ("a", "stop"),
            ("b", "length"),
        ]

    def test_a_stream_of_several_answers_ends_with_the_last_of_them(self) -> None:
        read = decoder(CHAT, stream=True)
        read.feed(events(chunk(text("a"), finish="STOP"), chunk(text("b"), index=1)))
        assert not read.meter.complete
        read.feed(events(chunk(finish="STOP", index=1)))
        assert read.meter.complete

    def test_an_image_is_passed_on_as_it_came(self) -> None:
        image = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
        message = whole(chunk(text("Here"), image, finish="STOP"))["choices"][0]["message"]
        assert message["provider_blocks"] == [image]
        assert message["content"] == "Here"

    def test_a_tier_is_as_the_reply_says(self) -> None:
        for block, tier in (
            ({"serviceTier": "standard"}, ""),
            ({"serviceTier": "flex"}, "flex"),
            ({"trafficType": "ON_DEMAND"}, ""),
            ({"trafficType": "ON_DEMAND_PRIORITY"}, "priority"),
            ({"trafficType": "PROVISIONED_THROUGHPUT"}, "provisioned"),
            ({"trafficType": "ON_THE_MOON"}, "on_the_moon"),
        ):
            read = decoder(CHAT, stream=False)
            reply = chunk(
                text("x"), finish="STOP", usageMetadata={"promptTokenCount": 1, "totalTokenCount": 1, **block}
            )
            drain(read, [json.dumps(reply).encode()])
            assert read.meter.usage is not None
            assert read.meter.usage.service_tier == tier
