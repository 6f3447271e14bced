"""The reference is written from the code; nothing the code has is missing from it."""

from __future__ import annotations

from dataclasses import fields

import pytest
from reference import PAGES, commands, configuration, endpoints, errors, policies
from reference.table import table

from gateway.api import openapi
from gateway.configuration.presets import known
from gateway.configuration.schema import File, fields_at
from gateway.metrics import NAMES
from gateway.plugins import policy_names


def page(name: str) -> str:
    return PAGES[f"reference/{name}.md"][1]()


def test_every_metric_is_there_with_its_labels() -> None:
    text = page("metrics")
    assert not [name for name in NAMES if f"`{name}`" not in text]
    assert "| `tollgate_escalations_total` | `route`, `reason` |" in text


def test_every_key_of_the_configuration_is_there() -> None:
    text = page("configuration")
    for shape, file in configuration.shapes():
        section = text.partition(f"\n## {configuration.title(shape, file)}\n")[2].partition("\n## ")[0]
        assert section, shape
        assert not [name for name in shape.model_fields if f"| `{name}` |" not in section]
    assert set(fields_at(File, ("tenants", 0, "budgets", 0))) <= set(configuration.schema.LimitShape.model_fields)


def test_sections_of_the_configuration_have_names_of_their_own() -> None:
    titles = [configuration.title(*each).lower() for each in configuration.shapes()]
    assert len(set(titles)) == len(titles)


def test_what_stands_behind_a_field_in_the_source_stands_beside_it() -> None:
    assert "where records wait on disk while nothing else takes them" in page("configuration")


def test_every_command_is_there_with_its_options() -> None:
    text = page("commands")
    names = [name for name, _ in commands.commands()]
    assert {"tollgate serve", "tollgate import", "tollgate keys create", "tollgate ledger verify"} <= set(names)
    for name, command in commands.commands():
        section = text.partition(f"## {name}\n")[2].partition("\n## ")[0]
        options = [word for parameter in command.params for word in parameter.opts if word.startswith("--")]
        assert not [option for option in options if option not in section and option != "--help"]


def test_every_error_a_client_can_see_is_there() -> None:
    text = page("errors")
    codes = {kind.code for kind in errors.kinds()}
    assert {"budget_exceeded", "ledger_unavailable", "upstream_timeout", "internal_error"} <= codes | {"internal_error"}
    assert not [code for code in codes if f"`{code}`" not in text]
    assert "never retried, never failed over" in text


def test_every_policy_is_there_with_its_options() -> None:
    text = page("policies")
    assert sorted(policies.policies()) == sorted(policy_names())
    for name, kind in policies.policies().items():
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert not [field for field in fields(kind) if field.init and f"| `{field.name}` |" not in section]


def test_every_provider_known_by_name_is_there() -> None:
    text = page("providers")
    assert not [name for name in known(None, {}).providers if f"| `{name}` |" not in text]


def test_every_operation_is_there_with_what_it_does() -> None:
    text = page("endpoints")
    found = [*endpoints.rows(openapi.document()), *endpoints.rows(endpoints.admin_document())]
    assert {"`POST /v1/chat/completions`", "`GET /metrics`", "`POST /admin/v1/tenants`"} <= {name for name, _ in found}
    assert not [(name, told) for name, told in found if not told or f"| {name} |" not in text]


@pytest.mark.parametrize("text", ["a | b", "a\nb"])
def test_a_cell_cannot_break_its_table(text: str) -> None:
    assert len(table(("x",), [(text,)]).splitlines()) == 3
