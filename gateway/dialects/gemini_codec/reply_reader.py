"""What a Gemini model answers -> deltas.

A tool call without an id gets one, from the reply's own id.  Signatures travel as signed thoughts, see
`gateway.dialects.signatures`.  Searches are counted as they are billed: up to 2.5 one for a grounded answer, from 3 on
one for each query.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from msgspec.structs import replace

from gateway import usage
from gateway.conversation import Citation, Finish, Opaque
from gateway.dialects import fields, gemini_models
from gateway.dialects.deltas import (
    ArgumentsDelta,
    CitationDelta,
    Delta,
    Finished,
    OpaqueDelta,
    PartEnded,
    ReasoningDelta,
    RefusalDelta,
    SignatureDelta,
    Started,
    TextDelta,
    ToolCallStarted,
    UsageSeen,
)
from gateway.dialects.fields import maybe, need
from gateway.dialects.refusal import clean, reported
from gateway.dialects.signatures import sealed
from gateway.errors import GatewayError, UpstreamFailed
from gateway.types import Format, Provider, Usage

FINISHES: Mapping[object, Finish] = {
    "STOP": Finish.END,
    1: Finish.END,
    "MAX_TOKENS": Finish.LENGTH,
    2: Finish.LENGTH,
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "LANGUAGE",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
            "IMAGE_OTHER",
            "NO_IMAGE",
            "MODEL_ARMOR",
            *(3, 4, 6, 7, 8, 9),
        ),
        Finish.REFUSED,
    ),
}
"""A word that is not here ends the answer as STOP does."""

UNUSABLE = frozenset({"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE"})
"""The model failed at its own format: an answer that holds nothing else is a failure and not an answer."""

_TIERS: Mapping[str, str] = {
    "TRAFFIC_TYPE_UNSPECIFIED": "",
    "ON_DEMAND": "",
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_PRIORITY": "priority",
    "PROVISIONED_THROUGHPUT": "provisioned",
}


class GeminiReader:
    """See Reader."""

    def __init__(self, provider: Provider, now: float) -> None:
        self.complete = False
        self.failure: GatewayError | None = None
        self._provider = provider
        self._now = now
        self._id = ""
        self._model = ""
        self._choices: dict[int, _Choice] = {}
        self._refused = False
        self._counted: Usage | None = None
        self._queries: set[str] = set()
        self._mapped = False  # whether Google Maps was looked at

    def read(self, data: bytes) -> Sequence[Delta]:
        """What one chunk says."""
        return self._chunk(orjson.loads(data))

    def read_whole(self, data: bytes) -> Sequence[Delta]:
        """A whole reply, or all chunks of a stream in one array, as Google sends it to who did not ask for events."""
        body = orjson.loads(data)
        chunks = body if isinstance(body, list) else [body]
        deltas = [delta for chunk in chunks for delta in self._chunk(chunk)]
        if not self._choices and not self._refused and self.failure is None:
            self.failure = reported(body, self._provider, self._now)
        self.complete = True  # whether or not it says why it ended
        return deltas

    def _chunk(self, value: object) -> list[Delta]:
        chunk = fields.mapping(value, "the reply")
        if chunk.get("error"):
            self.failure = reported(chunk, self._provider, self._now)
            return []
        out: list[Delta] = []
        if not self._id:
            self._id = str(chunk.get("responseId") or f"{int(self._now * 1e6):x}")
            self._model = str(chunk.get("modelVersion") or "").removeprefix("models/")
            out.append(Started(str(chunk.get("responseId") or ""), self._model))
        for position, item in enumerate(maybe(chunk, "candidates", fields.items) or ()):
            out += self._candidate(fields.mapping(item, "candidates[]"), position)
        if not self._choices:
            out += self._blocked(maybe(chunk, "promptFeedback", fields.mapping) or {})
        out += self._usage(chunk.get("usageMetadata"))
        self.complete = self._refused or all(choice.finished for choice in self._choices.values() or (_UNBEGUN,))
        return out

    def _usage(self, block: object) -> Iterator[Delta]:
        """Every chunk may count; the last count is the whole of it."""
        if isinstance(block, Mapping):
            rules = self._provider.options.get("usage", {})
            self._counted = usage.read(usage.GEMINI, block, rules, _tier(block)) or self._counted
        if self._counted is None:
            return
        asked = {"web_search": self._searches(), "maps": int(self._mapped)}
        fees = {**self._counted.fees, **{fee: count for fee, count in asked.items() if count}}
        yield UsageSeen(replace(self._counted, fees=fees))

    def _searches(self) -> int:
        return min(1, len(self._queries)) if gemini_models.generation(self._model) < (3, 0) else len(self._queries)

    def _blocked(self, feedback: Mapping[str, Any]) -> Iterator[Delta]:
        """A prompt that was refused has no candidates."""
        if reason := feedback.get("blockReason"):
            why = clean(str(feedback.get("blockReasonMessage") or ""), self._provider)
            yield RefusalDelta(why or f"The provider blocked the prompt: {str(reason)[:40]}.")
            yield Finished(Finish.REFUSED)
            self._refused = True

    def _candidate(self, candidate: Mapping[str, Any], position: int) -> Iterator[Delta]:
        index = maybe(candidate, "index", fields.integer)
        index = position if index is None else index
        choice = self._choices.setdefault(index, _Choice(index, self._id))
        content = maybe(candidate, "content", fields.mapping) or {}
        for part in maybe(content, "parts", fields.items, "content") or ():
            yield from choice.part(fields.mapping(part, "content.parts[]"))
        if logprobs := _logprobs(candidate.get("logprobsResult")):
            yield TextDelta("", index, logprobs)
        yield from self._grounding(candidate, index)
        if (reason := candidate.get("finishReason")) and reason != "FINISH_REASON_UNSPECIFIED":
            reason = reason if isinstance(reason, str | int) else str(reason)
            yield from self._end(choice, reason, str(candidate.get("finishMessage") or ""))

    def _end(self, choice: _Choice, reason: str | int, message: str) -> Iterator[Delta]:
        choice.finished = True
        yield from choice.end()
        if reason in UNUSABLE and not choice.said:
            why = clean(message, self._provider) or f"finish reason {reason}"
            self.failure = UpstreamFailed(f"Provider {self._provider.id}: the model's answer was unusable: {why}")
            return
        finish = FINISHES.get(reason, Finish.END)
        if finish is Finish.REFUSED and message:
            yield RefusalDelta(clean(message, self._provider), choice.index)
        yield Finished(Finish.TOOLS if finish is Finish.END and choice.calls else finish, None, choice.index)

    def _grounding(self, candidate: Mapping[str, Any], index: int) -> Iterator[Delta]:
        """What only adorns an answer does not break it."""
        grounding = _object(candidate.get("groundingMetadata"))
        self._queries.update(
            query for query in _list(grounding.get("webSearchQueries")) if isinstance(query, str) and query
        )
        chunks = [_object(chunk) for chunk in _list(grounding.get("groundingChunks"))]
        self._mapped = self._mapped or any("maps" in chunk for chunk in chunks)
        sources = [_object(chunk.get("web")) for chunk in chunks]
        for support in map(_object, _list(grounding.get("groundingSupports"))):
            quote = str(_object(support.get("segment")).get("text") or "")
            for at in _list(support.get("groundingChunkIndices")):
                if isinstance(at, int) and 0 <= at < len(sources) and sources[at].get("uri"):
                    yield CitationDelta(_citation(sources[at], quote), index)
        for cited in map(_object, _list(_object(candidate.get("citationMetadata")).get("citations"))):
            if cited.get("uri"):
                yield CitationDelta(_citation(cited, ""), index)


class _Choice:
    """One answer as it grows."""

    def __init__(self, index: int, reply_id: str) -> None:
        self.index = index
        self.calls = 0
        self.finished = False
        self.said = False
        self._text_signature = ""  # told once the text and what it cites have been
        self._reply_id = reply_id if not index else f"{reply_id}_{index}"

    def part(self, part: Mapping[str, Any]) -> Iterator[Delta]:
        """What one part says, and its signature."""
        signature = str(part.get("thoughtSignature") or "")
        if call := maybe(part, "functionCall", fields.mapping):
            self.said = True
            yield from self._signed(f"c{self.calls}", signature)
            yield from self._call(call)
            return
        text = maybe(part, "text", fields.string)
        if text is None:
            kind = next((name for name in part if name not in ("thought", "thoughtSignature")), "")
            if kind:
                self.said = True
                yield OpaqueDelta(Opaque(Format.GEMINI, kind, part), self.index)
            return
        thought = part.get("thought") is True
        if thought:
            yield from self.end()  # of what was said before
        if text:
            self.said = self.said or not thought
            yield ReasoningDelta(text, self.index) if thought else TextDelta(text, self.index)
        if thought:
            yield from self._signed("r", signature)
        elif signature:
            self._text_signature = signature

    def end(self) -> Iterator[Delta]:
        """What is told once a text has ended."""
        yield from self._signed("t", self._text_signature)
        self._text_signature = ""

    def _signed(self, place: str, signature: str) -> Iterator[Delta]:
        if signature:
            yield SignatureDelta(sealed(place, signature), self.index)
            yield PartEnded(self.index)

    def _call(self, call: Mapping[str, Any]) -> Iterator[Delta]:
        id_ = str(call.get("id") or "") or f"call_{self._reply_id}_{self.calls}"
        yield ToolCallStarted(self.calls, id_, need(call, "name", fields.string, "functionCall"), self.index)
        arguments = maybe(call, "args", fields.mapping, "functionCall") or {}
        yield ArgumentsDelta(self.calls, orjson.dumps(arguments).decode(), self.index)
        self.calls += 1


_UNBEGUN = _Choice(0, "")


def _tier(block: Mapping[str, Any]) -> str:
    """As AI Studio says it, or as Vertex does."""
    traffic = block.get("trafficType")
    if isinstance(traffic, str):
        return _TIERS.get(traffic, traffic.lower())  # one that nobody knows must not be billed as standard
    return str(block.get("serviceTier") or "").lower().removeprefix("service_tier_").replace("unspecified", "")


def _citation(source: Mapping[str, Any], quote: str) -> Citation:
    return Citation(str(source["uri"]), str(source.get("title") or ""), quote, source)


def _logprobs(result: object) -> dict[str, Any] | None:
    """Google's log probabilities in OpenAI's shape."""
    chosen = _list(_object(result).get("chosenCandidates"))
    tops = _list(_object(result).get("topCandidates"))
    if not chosen:
        return None
    content = []
    for at, token in enumerate(map(_object, chosen)):
        others = _list(_object(tops[at]).get("candidates")) if at < len(tops) else []
        content.append({**_token(token), "top_logprobs": [_token(_object(other)) for other in others]})
    return {"content": content}


def _token(candidate: Mapping[str, Any]) -> dict[str, Any]:
    text = str(candidate.get("token") or "")
    return {"token": text, "logprob": candidate.get("logProbability", 0.0), "bytes": list(text.encode())}


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
