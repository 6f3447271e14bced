"""A small instance of a JSON schema, always the same, so that a simulated answer can be parsed by a client's types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Json: TypeAlias = Any
"""Whatever JSON can say."""

DEPTH_MAX = 12
"""Deeper than this, optional properties and items are left out and null is preferred: a schema may refer to itself."""

STRINGS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def instance(schema: Json, root: Json = None, depth: int = 0) -> Json:
    """A value that `schema` allows: types, properties, items, enum, const, $ref, any/one/allOf, bounds, formats."""
    root = schema if root is None else root
    if not isinstance(schema, Mapping):
        return "simulated"
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if "$ref" in schema:
        return instance(_resolved(str(schema["$ref"]), root), root, depth + 1) if depth <= 2 * DEPTH_MAX else None
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return instance(_chosen(schema[union], depth), root, depth + 1)
    if schema.get("allOf"):
        return instance(_merged(schema, root), root, depth + 1)
    return BY_TYPE.get(_type(schema, depth), _string)(schema, root, depth)


def _type(schema: Mapping[str, Json], depth: int) -> str:
    given = schema.get("type")
    if isinstance(given, list):
        return (
            "null"
            if "null" in given and (depth > DEPTH_MAX or len(given) == 1)
            else next((str(kind) for kind in given if kind != "null"), "null")
        )
    if given is None:
        return "object" if "properties" in schema else "array" if "items" in schema else "string"
    return str(given)


def _chosen(options: list[Json], depth: int) -> Json:
    nulls = [option for option in options if isinstance(option, Mapping) and option.get("type") == "null"]
    others = [option for option in options if option not in nulls]
    return nulls[0] if nulls and (depth > DEPTH_MAX or not others) else others[0]


def _merged(schema: Mapping[str, Json], root: Json) -> Mapping[str, Json]:
    merged: dict[str, Json] = {key: value for key, value in schema.items() if key != "allOf"}
    for given in schema["allOf"]:
        part = _resolved(str(given["$ref"]), root) if "$ref" in given else given
        properties = {**merged.get("properties", {}), **part.get("properties", {})}
        required = [*merged.get("required", []), *part.get("required", [])]
        merged |= dict(part)
        if properties:
            merged |= {"properties": properties, "required": required}
    return merged


def _resolved(reference: str, root: Json) -> Json:
    found = root
    for escaped in reference.removeprefix("#").strip("/").split("/"):
        name = escaped.replace("~1", "/").replace("~0", "~")
        found = found.get(name, {}) if isinstance(found, Mapping) and name else found
    return found


def _object(schema: Mapping[str, Json], root: Json, depth: int) -> dict[str, Json]:
    required = schema.get("required", ())
    return {
        name: instance(part, root, depth + 1)
        for name, part in schema.get("properties", {}).items()
        if name in required or depth <= DEPTH_MAX
    }


def _array(schema: Mapping[str, Json], root: Json, depth: int) -> list[Json]:
    prefix = [instance(part, root, depth + 1) for part in schema.get("prefixItems", ())]
    least = int(schema.get("minItems", 0))
    wanted = max(least, 0 if depth > DEPTH_MAX or "items" not in schema else 1)
    if "maxItems" in schema:
        wanted = min(wanted, int(schema["maxItems"]))
    return prefix + [instance(schema.get("items"), root, depth + 1) for _ in range(wanted - len(prefix))]


def _string(schema: Mapping[str, Json], root: Json, depth: int) -> str:  # noqa: ARG001 - one signature for every type
    text = STRINGS.get(str(schema.get("format")), "simulated")
    text = text.ljust(int(schema.get("minLength", 0)), "x")
    return text[: int(schema["maxLength"])] if "maxLength" in schema else text


def _integer(schema: Mapping[str, Json], root: Json, depth: int) -> int:  # noqa: ARG001 - one signature for every type
    step = int(schema.get("multipleOf", 1)) or 1
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    if least is None:
        most = schema.get("maximum", schema.get("exclusiveMaximum", 1))
        return min(step, int(most) // step * step)
    above = int(least) + ("exclusiveMinimum" in schema and "minimum" not in schema)
    return -(-above // step) * step


def _number(schema: Mapping[str, Json], root: Json, depth: int) -> float:
    return float(_integer(schema, root, depth))


BY_TYPE: Mapping[str, Callable[[Mapping[str, Json], Json, int], Json]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": lambda schema, root, depth: True,  # noqa: ARG005 - one signature for every type
    "null": lambda schema, root, depth: None,  # noqa: ARG005 - one signature for every type
}
