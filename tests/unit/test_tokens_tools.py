"""How tools and output schemas are shown to a model, and that no schema can blow it up."""

from __future__ import annotations

import pytest

from gateway.tokens.tools import Tool, as_answer, as_json, as_namespace, pruned

SHOWN = """namespace functions {

// Finds a book.
type find_book = (_: {
// Whose book
author: {
// Both names
name: string,
},
kinds?: "novel" | "poem"[],
year?: number | null, // minimum: 1450
strict: boolean, // default: true
extra?: object,
}) => any;

type now = () => any;

} // namespace functions"""


def test_tools_are_shown_as_a_typescript_namespace():
    parameters = {
        "type": "object",
        "$defs": {
            "Author": {
                "type": "object",
                "properties": {"name": {"type": "string", "description": "Both names"}},
                "required": ["name"],
            }
        },
        "properties": {
            "author": {"$ref": "#/$defs/Author", "description": "Whose book"},
            "kinds": {"type": "array", "items": {"enum": ["novel", "poem"]}},
            "year": {"type": ["integer", "null"], "minimum": 1450},
            "strict": {"type": "boolean", "default": True},
            "extra": {"type": "object"},
        },
        "required": ["author", "strict"],
    }
    assert as_namespace([Tool("find_book", "Finds a book.", parameters), Tool("now", "", {})]) == SHOWN


def refers(name):
    return {"type": "object", "properties": {"next": {"$ref": f"#/$defs/{name}"}, "other": {"$ref": f"#/$defs/{name}"}}}


@pytest.mark.parametrize(
    "definitions",
    [
        {"D0": refers("D0")},
        {f"D{i}": refers(f"D{i + 1}") for i in range(60)},  # 2 ** 60 if each were expanded wherever it is named
        {f"D{i}": {"$ref": f"#/$defs/D{i + 1}"} for i in range(5_000)},
    ],
    ids=["itself", "doubling", "chain"],
)
def test_references_are_expanded_once_and_not_without_end(definitions):
    tool = Tool("f", "", {**refers("D0"), "$defs": definitions})
    assert len(as_namespace([tool])) < 10_000


@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": []},
        {"properties": {"a": 1, "b": {"type": 5}, "c": {"enum": 3}, "d": {"anyOf": [1, {}]}}},
        {"properties": {"a": {"type": "array", "items": []}, "b": {"type": [1, []]}}, "required": 4},
        {"$defs": [], "properties": {"a": {"$ref": 1}, "b": {"$ref": "#/nowhere"}}},
    ],
)
def test_a_strange_schema_is_shown_somehow(parameters):
    assert "type f = " in as_namespace([Tool("f", "", parameters)])


def test_json_is_compact_and_the_same_for_every_format():
    shown = '{"name":"f","description":"d","parameters":{"a":1}}'
    assert as_json([Tool("f", "d", {"a": 1})] * 2) == f"{shown}\n{shown}"


def test_an_output_schema_is_shown_without_what_is_only_enforced():
    schema = {"type": "object", "additionalProperties": False, "properties": {"age": {"type": "integer", "minimum": 1}}}
    assert as_answer({"name": "n", "description": "d", "schema": schema, "strict": True}) == (
        '// d\n{"type":"object","properties":{"age":{"type":"integer"}}}'
    )
    assert as_answer(schema) == as_answer({"schema": schema})
    assert as_answer(None) == ""
    assert pruned([schema])[0]["properties"] == {"age": {"type": "integer"}}
