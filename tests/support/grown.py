"""What the official SDKs would build of a stream or a reply, in the two formats of clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson
from anthropic.types import RawMessageStreamEvent
from openai.types.chat import ChatCompletionChunk
from pydantic import TypeAdapter

from gateway.sse import Splitter, parse

EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def events(stream: bytes) -> Iterator[Any]:
    splitter = Splitter()
    for raw in [*splitter.feed(stream), splitter.rest()]:
        data = parse(raw).data
        if data and data != b"[DONE]":
            yield orjson.loads(data)


def texts(message: dict[str, Any], kind: str, field: str) -> str:
    return "".join(block[field] for block in message["content"] if block["type"] == kind)


def calls_of_message(message: dict[str, Any]) -> list[tuple[str, str, Any]]:
    return [(b["id"], b["name"], b["input"]) for b in message["content"] if b["type"] == "tool_use"]


def calls_of_chat(message: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """Arguments that are no JSON object, as of an answer cut short, stay as the text they are."""
    out = []
    for call in message.get("tool_calls") or []:
        block = call.get("function") or call.get("custom")
        text = block.get("arguments", block.get("input"))
        out.append((call["id"], block["name"], arguments(text)))
    return out


def arguments(text: str) -> Any:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {"unparsed_arguments": text}
    return value if isinstance(value, dict) else {"unparsed_arguments": text}


def grown_message(stream: bytes, *, ours: bool = True) -> dict[str, Any]:
    """What an Anthropic SDK would build of the events; ours are as its types say."""
    message: dict[str, Any] = {}
    for event in events(stream):
        if ours:
            EVENT.validate_python(event)
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(dict(event["content_block"]))
            case "content_block_delta":
                grow(message["content"][event["index"]], event["delta"])
            case "message_delta":
                message |= event["delta"]
                message["usage"] |= event["usage"]
    for block in message["content"]:
        if "partial_json" in block:
            block["input"] = arguments(block.pop("partial_json"))
    return message


def grow(block: dict[str, Any], delta: dict[str, Any]) -> None:
    if delta["type"] == "citations_delta":
        block["citations"] = [*(block.get("citations") or []), delta["citation"]]
        return
    for field in ("text", "thinking", "signature", "partial_json"):
        if field in delta:
            block[field] = block.get(field, "") + delta[field]


def grown_chat(stream: bytes) -> dict[str, Any]:
    """What an OpenAI SDK would build of the chunks: the first choice, and usage."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "refusal": "", "tool_calls": []}
    reply: dict[str, Any] = {"message": message, "finish_reason": None, "usage": None}
    for chunk in events(stream):
        ChatCompletionChunk.model_validate(chunk)
        reply["usage"] = chunk.get("usage") or reply["usage"]
        for choice in chunk["choices"]:
            delta = choice["delta"]
            for field in ("content", "reasoning_content", "refusal"):
                message[field] += delta.get(field) or ""
            for call in delta.get("tool_calls") or []:
                if call["index"] == len(message["tool_calls"]):
                    message["tool_calls"].append({"id": call["id"], "function": dict(call["function"])})
                else:
                    message["tool_calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
            for field in ("annotations", "citations", "thinking_blocks"):
                if delta.get(field):
                    message.setdefault(field, []).extend(delta[field])
            reply["finish_reason"] = choice["finish_reason"] or reply["finish_reason"]
    return reply
