"""What can be seen to be wrong with an answer.  Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.plan import Said
from gateway.types import Request

OPENING_CHARS = 200
"""A refusal shows itself at once."""
REFUSAL = re.compile(
    r"\b(?:I(?:'m| am) (?:sorry,? but|unable to|not able to)|I (?:can(?:'|no)t|won't|will not) (?:help|assist|answer|"
    r"do|provide|comply|fulfill?)|as an? (?:AI(?: language)?(?: model| assistant)?|"
    r"language model),? I|I do(?:n't| not) (?:know|have enough))",
    re.IGNORECASE,
)


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
