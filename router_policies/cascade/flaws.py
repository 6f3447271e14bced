"""What can be seen to be wrong with an answer, and whether two answers say the same.  Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.plan import Said
from gateway.types import Request

OPENING_CHARS = 200
"""A refusal shows itself at once."""
SHORT_CHARS = 40
"""An answer that is no more than a name, a letter or a number."""
REFUSAL = re.compile(
    r"\b(?:I(?:'m| am) (?:sorry,? but|unable to|not able to)|I (?:can(?:'|no)t|won't|will not) (?:help|assist|answer|"
    r"do|provide|comply|fulfill?)|as an? (?:AI(?: language)?(?: model| assistant)?|"
    r"language model),? I|I do(?:n't| not) (?:know|have enough))",
    re.IGNORECASE,
)
FINAL = (
    re.compile(r"\\boxed\{([^{}]*)\}"),
    re.compile(r"####\s*(\S[^\n]*)"),
    re.compile(r"(?:final )?answer\s*(?:is|:)\s*\**\(?([^\n*)]+?)(?:\.(?:\s|$)|[\n*)]|$)", re.IGNORECASE),
)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
WORD = re.compile(r"\w+")
FENCE = re.compile(r"^```(?:json)?\s*(.*?)\s*```$", re.DOTALL)


def flaw(request: Request, said: Said) -> str:
    """What is wrong with the answer, in a word; "" if nothing can be seen to be."""
    if not said.finish:
        return "unreadable"
    if said.finish == "refused" or (not said.calls and refuses(said.text)):
        return "refusal"
    if said.finish in {"length", "context_full"}:
        return "truncated"
    if said.calls:
        return "" if all(_fits_a_tool(request.body, *call) for call in said.calls) else "invalid_tool_call"
    if not said.text.strip():
        return "empty"
    return "" if _keeps_format(request.body, said.text) else "invalid_schema"


def refuses(text: str) -> bool:
    """Whether it begins as refusals do."""
    return REFUSAL.search(text[:OPENING_CHARS].replace("\u2019", "'")) is not None


def alike(one: Said, other: Said, from_: float) -> bool:
    """Whether two answers say the same: the same calls, the same JSON, the same final answer, or mostly the same words.

    `from_`: the share of words in common from which texts without a final answer are the same.
    """
    if one.calls or other.calls:
        return _calls(one) == _calls(other)
    first, second = _json(one.text), _json(other.text)
    if first is not None or second is not None:
        return bool(first == second)
    first, second = final_answer(one.text), final_answer(other.text)
    if first is not None and second is not None:
        return bool(first == second)
    words, others = (set(WORD.findall(said.text.lower())) for said in (one, other))
    return len(words & others) >= from_ * max(1, len(words | others))


def final_answer(text: str) -> str | None:
    """What a worked answer comes to: boxed, after ####, after "answer is"; of a short one all of it; else None."""
    for pattern in FINAL:
        if found := pattern.findall(text):
            return _plain(found[-1])
    return _plain(text) if len(text) <= SHORT_CHARS else None


def _plain(text: str) -> str:
    numbers = NUMBER.findall(text)
    if len(numbers) == 1:
        return f"{float(numbers[0].replace(',', '')):g}"
    return " ".join(WORD.findall(text.lower()))


def _calls(said: Said) -> list[tuple[str, Any]]:
    return [(name, _json(arguments)) for name, arguments in said.calls]


def _json(text: str) -> Any:  # noqa: ANN401 - whatever JSON it is; None: it is none, or a bare word
    fenced = FENCE.match(text.strip())
    inner = fenced[1] if fenced else text.strip()
    if inner[:1] not in {"{", "["}:
        return None
    try:
        return json.loads(inner)
    except (ValueError, RecursionError):
        return None


def _fits_a_tool(body: Mapping[str, Any], name: str, arguments: str) -> bool:
    """Whether the call is of a tool that was offered, with arguments its schema allows as far as `fits` looks."""
    try:
        given = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return False
    schemas = dict(_tools(body.get("tools")))
    return name in schemas and isinstance(given, dict) and fits(given, schemas[name])


def _tools(tools: object) -> list[tuple[str, Any]]:
    found = []
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, Mapping):
            inner = tool.get("function", tool)  # OpenAI's chat has it inside
            if isinstance(inner, Mapping) and isinstance(inner.get("name"), str):
                found.append((inner["name"], inner.get("parameters", inner.get("input_schema"))))
    return found


def _keeps_format(body: Mapping[str, Any], text: str) -> bool:
    wanted = body.get("response_format")
    if not isinstance(wanted, Mapping):
        nested = body.get("text")
        wanted = nested.get("format") if isinstance(nested, Mapping) else None
    if not isinstance(wanted, Mapping) or wanted.get("type") not in {"json_object", "json_schema"}:
        return True
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    inner = wanted.get("json_schema", wanted)
    return fits(value, inner.get("schema") if isinstance(inner, Mapping) else None)


KINDS: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def fits(value: object, schema: object) -> bool:
    """Whether a JSON value keeps the type, enum, required, properties, items and closedness that the schema states.

    What else a schema may say (references, combinations, patterns) is not looked at: a doubt is no flaw.
    """
    if not isinstance(schema, Mapping) or "$ref" in schema:
        return True
    if not _is_a(value, schema.get("type")):
        return False
    allowed = schema.get("enum")
    if isinstance(allowed, list) and value not in allowed:
        return False
    if isinstance(value, dict):
        return _fields_fit(value, schema)
    items = schema.get("items")
    return not isinstance(value, list) or all(fits(each, items) for each in value)


def _is_a(value: object, kind: object) -> bool:
    kinds: Sequence[Any] = kind if isinstance(kind, list) else [kind]
    if isinstance(value, bool):
        return kind is None or "boolean" in kinds
    return any(not isinstance(each, str) or each not in KINDS or isinstance(value, KINDS[each]) for each in kinds)


def _fields_fit(value: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    known = schema.get("properties")
    properties: Mapping[str, Any] = known if isinstance(known, Mapping) else {}
    required = schema.get("required")
    if isinstance(required, list) and any(name not in value for name in required):
        return False
    if schema.get("additionalProperties") is False and any(name not in properties for name in value):
        return False
    return all(fits(value[name], properties[name]) for name in value if name in properties)
