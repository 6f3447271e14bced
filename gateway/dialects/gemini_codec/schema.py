"""A JSON schema in the subset of OpenAPI that older Gemini models understand.  Newer ones take it as it is.

References are written out; a keyword without a place in the subset is left out, which allows more than was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEPTH_MAX = 24
"""A schema that refers to itself is written out this deep, then left open."""

_KEPT = frozenset(
    {
        "title",
        "description",
        "nullable",
        "required",
        "propertyOrdering",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "pattern",
        "example",
        "default",
    }
)
_FORMATS = frozenset({"enum", "date-time", "float", "double", "int32", "int64"})


def openapi(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as OpenAPI's subset says it."""
    definitions = {
        f"#/{place}/{name}": body
        for place in ("$defs", "definitions")
        if isinstance(schema.get(place), Mapping)
        for name, body in schema[place].items()
    }
    return _written(schema, definitions, 0)


def _written(schema: object, definitions: Mapping[str, Any], depth: int) -> dict[str, Any]:
    if not isinstance(schema, Mapping) or depth > DEPTH_MAX:
        return {}
    if (name := schema.get("$ref")) is not None:
        target = definitions.get(name) if isinstance(name, str) else None
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return _written({**(target if isinstance(target, Mapping) else {}), **rest}, definitions, depth + 1)

    def below(inner: object) -> dict[str, Any]:
        return _written(inner, definitions, depth + 1)

    out = {key: value for key, value in schema.items() if key in _KEPT}
    if schema.get("format") in _FORMATS:
        out["format"] = schema["format"]
    if isinstance(properties := schema.get("properties"), Mapping):
        out["properties"] = {key: below(value) for key, value in properties.items()}
    if "items" in schema:
        out["items"] = below(schema["items"])
    alternatives: list[Any] = next((schema[key] for key in ("anyOf", "oneOf") if isinstance(schema.get(key), list)), [])
    return out | _kinds(schema, out, [below(each) for each in alternatives if not _is_null(each)], alternatives)


def _kinds(
    schema: Mapping[str, Any], out: Mapping[str, Any], alternatives: list[dict[str, Any]], given: list[Any]
) -> dict[str, Any]:
    """The type, the alternatives and the allowed values; null is a property of a type here and no type."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    found: dict[str, Any] = {}
    types = schema.get("type")
    named = [kind for kind in types if kind != "null"] if isinstance(types, list) else [types] if types else []
    if (isinstance(types, list) and "null" in types) or len(alternatives) < len(given):
        found["nullable"] = True
    if len(named) > 1:
        alternatives = [{**out, "type": kind} for kind in named]
    elif named:
        found["type"] = named[0]
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        found |= {"type": "string", "enum": values, "format": "enum"}
    if len(alternatives) == 1:
        return alternatives[0] | found
    return found | ({"anyOf": alternatives} if alternatives else {})


def _is_null(schema: object) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "null"
