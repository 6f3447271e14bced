"""Tools as providers put them before a model: as JSON, or (OpenAI) as a TypeScript namespace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

Json: TypeAlias = Any
Schema: TypeAlias = Mapping[str, Json]
Definitions: TypeAlias = dict[str, Json]
"""By reference; each is expanded where it is first met, so that no schema can blow up."""

_DEPTH_MAX = 40
"""Schemas nested deeper are cut in the TypeScript rendering; their JSON is counted whole."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function a model may call, whatever the wire format called its parts."""

    name: str
    description: str
    parameters: Schema


def as_json(tools: Iterable[Tool]) -> str:
    """Compact JSON, the same for every wire format.  TypeError: nested too deeply."""
    return "\n".join(
        orjson.dumps(
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters}, default=str
        ).decode()
        for tool in tools
    )


def as_namespace(tools: Iterable[Tool]) -> str:
    """The TypeScript namespace in which OpenAI models are shown their tools."""
    lines = ["namespace functions {", ""]
    for tool in tools:
        if tool.description:
            lines.append(f"// {tool.description}")
        fields = _properties(tool.parameters, _definitions(tool.parameters), 0)
        if fields:
            lines += [f"type {tool.name} = (_: {{", *fields, "}) => any;", ""]
        else:
            lines += [f"type {tool.name} = () => any;", ""]
    lines.append("} // namespace functions")
    return "\n".join(lines)


def _definitions(schema: Schema) -> Definitions:
    found: Definitions = {}
    for key in ("$defs", "definitions"):
        if isinstance(named := schema.get(key), dict):
            found |= {f"#/{key}/{name}": definition for name, definition in named.items()}
    return found


def _properties(schema: Schema, definitions: Definitions, depth: int) -> list[str]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return []
    required = schema.get("required")
    needed = required if isinstance(required, list) else []
    lines = []
    for name, prop in properties.items():
        if not isinstance(prop, dict):
            continue
        description = prop.get("description")
        if isinstance(description, str):
            lines.append(f"// {description}")
        mark = "" if name in needed else "?"
        lines.append(f"{name}{mark}: {_type(prop, definitions, depth)},{_remarks(prop)}")
    return lines


def _remarks(prop: Schema) -> str:
    remarks = [f"{word}: {_plain(prop[word])}" for word in ("default", "minimum", "maximum") if word in prop]
    return f" // {', '.join(remarks)}" if remarks else ""


def _type(schema: Json, definitions: Definitions, depth: int) -> str:
    if not isinstance(schema, dict) or depth > _DEPTH_MAX:
        return "any"
    if isinstance(reference := schema.get("$ref"), str):
        return _type(definitions.pop(reference, None), definitions, depth + 1)
    if isinstance(values := schema.get("enum"), list):
        return " | ".join(f'"{value}"' if isinstance(value, str) else _plain(value) for value in values)
    for key in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(key), list):
            return " | ".join(_type(option, definitions, depth + 1) for option in options)
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(_type({**schema, "type": one}, definitions, depth + 1) for one in kind)
    return _simple(kind, schema, definitions, depth)


def _simple(kind: Json, schema: Schema, definitions: Definitions, depth: int) -> str:
    match kind:
        case "object":
            inner = _properties(schema, definitions, depth + 1)
            return "\n".join(["{", *inner, "}"]) if inner else "object"
        case "array":
            return f"{_type(schema['items'], definitions, depth + 1)}[]" if "items" in schema else "any[]"
        case "integer" | "number":
            return "number"
        case "string" | "boolean" | "null":
            return str(kind)
    return "any"


def _plain(value: Json) -> str:
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


_UNSEEN = frozenset({"additionalProperties", "$schema", "minimum", "maximum", "format", "strict"})


def pruned(schema: Json, depth: int = 0) -> Json:
    """The output schema without the keywords that OpenAI enforces but does not show the model (measured)."""
    if depth > _DEPTH_MAX:
        return schema
    if isinstance(schema, dict):
        return {key: pruned(value, depth + 1) for key, value in schema.items() if key not in _UNSEEN}
    if isinstance(schema, list):
        return [pruned(value, depth + 1) for value in schema]
    return schema


def as_answer(schema: Json) -> str:
    """An output schema as a model is shown it: its description, then its JSON.  TypeError: nested too deeply."""
    if not isinstance(schema, dict):
        return ""
    inner = schema.get("schema", schema)
    description = schema.get("description") if "schema" in schema else ""
    text = f"// {description}\n" if isinstance(description, str) and description else ""
    return text + orjson.dumps(pruned(inner), default=str).decode()
