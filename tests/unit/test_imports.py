"""A LiteLLM configuration as one of ours: what it becomes, that nothing is silent, and that no secret is copied."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from gateway import settings
from gateway.cli import app
from gateway.document import Problem, SettingsError
from gateway.imports.base import Converted, NotConvertible
from gateway.imports.litellm import convert
from gateway.settings import Settings

EXAMPLE = Path(__file__).parents[1] / "golden" / "imports" / "litellm.yaml"
ENV = {"REDIS_HOST": "localhost", "REDIS_PORT": "6379", "AZURE_EAST_BASE": "https://east.openai.azure.com"}


def converted(value: object, **options: bool) -> Converted:
    return convert(yaml.safe_dump(value), "litellm.yaml", **options)


def entry(name: str, model: str, info: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, **params}, "model_info": info or {}}


def read(result: Converted) -> Settings:
    env = {name: f"value-of-{name.lower()}" for name in result.variables}
    urls = {name: "https://example.com" for name in result.variables if name.endswith(("_BASE", "_URL"))}
    return settings.parse(result.text, env | urls | {name: value for name, value in ENV.items() if name in env})


def about(notes: tuple[Problem, ...], part: str) -> list[str]:
    return [f"{note.key}: {note.message}" for note in notes if part in f"{note.key}: {note.message}"]


@pytest.fixture(scope="module")
def example() -> Converted:
    return convert(EXAMPLE.read_text(), "litellm.yaml")


@pytest.fixture(scope="module")
def ours(example: Converted) -> Settings:
    return read(example)


def test_every_model_and_alias_can_be_asked_for_by_its_name_but_the_one_without_a_price(ours: Settings) -> None:
    names = {*ours.deployments, *ours.routes}
    asked = {each["model_name"] for each in yaml.safe_load(EXAMPLE.read_text())["model_list"]}
    assert asked - names == {"unpriced"}
    assert {"gpt-4", "fast"} <= names


def test_a_model_without_a_price_is_left_out_under_a_hard_budget_unless_it_is_said_to_be_free(
    example: Converted,
) -> None:
    assert about(example.notes, "some-finetune has no known price, and a hard budget cannot cover it")
    free = read(convert(EXAMPLE.read_text(), "litellm.yaml", free=True))
    assert set(free.deployments["unpriced@hosted_vllm"].price.rates.values()) == {0}


def test_a_group_is_drawn_by_its_limits_and_falls_back_in_order(ours: Settings) -> None:
    route = ours.routes["gpt-4o"]
    assert route.candidates[:2] == ("east", "gpt-4o@openai")
    fallback, weighted = route.policies
    order = ["east", "gpt-4o@openai", "claude-sonnet@anthropic", "gemini-flash@gemini", "gpt-4o-mini"]
    assert list(fallback.order) == order  # type: ignore[attr-defined]
    assert dict(weighted.weights) == {"east": 600, "gpt-4o@openai": 300}  # type: ignore[attr-defined]
    assert ours.routes["gpt-4"].policies == route.policies


def test_embeddings_do_not_fall_back_on_a_chat_model(ours: Settings) -> None:
    assert "embeddings" in ours.deployments
    assert all("embeddings" not in route.candidates for route in ours.routes.values())


def test_budgets_become_hard_limits(ours: Settings) -> None:
    limits = {(limit.account, limit.of, str(limit.unit)): (limit.amount, str(limit.window)) for limit in ours.limits}
    assert limits["global", "", "cost"] == (500 * 10**9, "month")
    assert limits["deployment", "gpt-4o-mini", "cost"] == (10 * 10**9, "day")
    assert limits["tag:product", "chat", "cost"] == (50 * 10**9, "day")
    assert limits["deployment", "east", "requests"][0] == 600
    assert limits["global", "", "concurrent"][0] == 200
    shares = [amount for (account, of, _), (amount, _) in limits.items() if account == "provider" and "openai" in of]
    assert len(shares) == 3
    assert 0 <= 100 * 10**9 - sum(shares) < 3  # nano-dollars: never more than the original


def test_prices_timeouts_and_facts_are_kept(ours: Settings) -> None:
    house = ours.deployments["in-house@openai-3"]
    assert {str(bucket): rate for bucket, rate in house.price.rates.items()}.items() >= {
        ("input", 120_000_000),
        ("output", 480_000_000),
    }
    assert (house.context_max, house.output_max) == (32768, 4096)
    assert "vision" not in house.capabilities
    assert "tools" in house.capabilities
    claude = ours.deployments["claude-sonnet@anthropic"].timeouts
    assert claude is not None
    assert (claude.total_s, claude.first_byte_s) == (120, 15)
    assert ours.providers["groq"].timeouts.total_s == 90
    assert ours.providers["groq"].retries_max == 3
    assert ours.deployments["llama@groq"].concurrency_max == 20


def test_azure_is_called_at_its_address_and_priced_by_its_base_model(ours: Settings) -> None:
    east = ours.deployments["east"]
    assert east.provider.base_url == "https://east.openai.azure.com/openai"
    assert east.provider.options["query"] == {"api-version": "2024-10-21"}
    assert east.price.known


def test_clients_keep_their_key_and_it_is_not_the_admin_key(example: Converted, ours: Settings) -> None:
    assert ours.tenants[0].drop_params
    assert [key.id for key in ours.keys] == ["default:clients"]
    assert about(example.notes, "opens the models here and nothing else")
    assert ours.admin_key is None


def test_no_secret_of_the_original_is_copied(example: Converted) -> None:
    said = example.text + "".join(map(str, example.notes)) + "".join(example.variables)
    assert "sk-written-in-the-file" not in said
    assert "${OPENAI_API_KEY_1}" in example.text


def test_a_vendors_key_never_goes_to_somebody_elses_server() -> None:
    models = [
        entry("a", "openai/a", api_base="http://house:8000/v1", api_key="own-secret"),
        entry("b", "openai/b", api_base="http://barn:8000/v1"),
    ]
    providers = yaml.safe_load(converted({"model_list": models}).text)["providers"]
    assert providers["openai"]["api_key"] == "${HOUSE_8000_API_KEY_1}"
    assert "api_key" not in providers["openai-2"]


def test_two_different_secrets_get_two_variables() -> None:
    models = [entry(name, "openai/gpt-4o", api_key=f"sk-{name}") for name in ("a", "b")]
    result = converted({"model_list": models})
    assert {"OPENAI_API_KEY_1", "OPENAI_API_KEY_2"} <= set(result.variables)
    assert len(read(result).providers) == 2


def mappings(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from mappings(inner, (*path, key))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if not isinstance(value, dict | list):
        yield path
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(inner, (*path, key))


ORIGINAL = yaml.safe_load(EXAMPLE.read_text())
NAMED_BY_USERS = (
    "environment_variables",
    "model_group_alias",
    "provider_budget_config",
    "tag_budget_config",
    "fallbacks",
)


def changed(path: tuple[Any, ...], value: Any) -> Any:
    whole = copy.deepcopy(ORIGINAL)
    around = whole
    for part in path[:-1]:
        around = around[part]
    around[path[-1]] = value
    return whole


@pytest.mark.parametrize("path", list(mappings(ORIGINAL)), ids=str)
def test_a_key_nobody_knows_is_named_wherever_it_stands(path: tuple[Any, ...]) -> None:
    if any(isinstance(part, str) and part.endswith(NAMED_BY_USERS) for part in path):
        return  # whatever stands there is a name, and is judged as one
    notes = converted(changed((*path, "brand_new_option"), 1)).notes
    assert about(notes, "brand_new_option")


@pytest.mark.parametrize("every", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_nonsense_anywhere_is_told_and_never_a_crash(every: int) -> None:
    cases = itertools.product(leaves(ORIGINAL), (-1, "nonsense ${X} os.environ/", ["x", 1], {"a": {"b": 1}}))
    for path, nonsense in itertools.islice(cases, 0, None, every):
        try:
            result = converted(changed(path, nonsense))
        except (NotConvertible, SettingsError):
            continue
        assert yaml.safe_load(result.text)


def test_a_pattern_becomes_the_models_the_price_list_knows() -> None:
    result = converted({"model_list": [entry("anthropic/*", "anthropic/*"), entry("*", "openai/*")]})
    found = read(result)
    assert "anthropic/claude-sonnet-4-5" in found.deployments
    assert found.deployments["gpt-4o"].price.known
    assert about(result.notes, "'anthropic/*' became the")


@pytest.mark.parametrize(
    ("model", "params", "preset", "upstream"),
    [
        ("bedrock/converse/us.amazon.nova-lite-v1:0", {}, "bedrock", "us.amazon.nova-lite-v1:0"),
        ("vertex_ai/claude-sonnet-4-5", {"vertex_project": "p"}, "vertex-anthropic", "claude-sonnet-4-5"),
        ("gemini-2.5-pro", {"vertex_project": "p"}, "vertex", "gemini-2.5-pro"),
        ("together_ai/meta-llama/Llama-3.3-70B", {}, "together", "meta-llama/Llama-3.3-70B"),
        ("openrouter/anthropic/claude-sonnet-4.5", {}, "openrouter", "anthropic/claude-sonnet-4.5"),
        ("ollama_chat/llama3", {"api_base": "http://localhost:11434"}, "ollama-native", "llama3"),
        ("azure/responses/my-o3", {"api_base": "https://x.openai.azure.com"}, "azure-deployments", "my-o3"),
        ("o3-mini", {}, "openai", "o3-mini"),
        ("some-model", {"custom_llm_provider": "groq"}, "groq", "some-model"),
    ],
)  # fmt: skip
def test_the_vendor_is_read_off_the_model(model: str, params: dict[str, Any], preset: str, upstream: str) -> None:
    result = converted({"model_list": [entry("m", model, **params)]})
    (provider,) = yaml.safe_load(result.text)["providers"].values()
    assert provider["preset"] == preset
    assert read(result).deployments["m"].upstream_model == upstream


def test_what_is_no_litellm_configuration_is_refused(tmp_path: Path) -> None:
    for text in ("a: 1", "[]", "model_list: {}", "model_list: [{model_name: x}]"):
        with pytest.raises(NotConvertible):
            convert(text, "x.yaml")
    with pytest.raises(SettingsError):
        convert("{", "x.yaml")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_a_file_that_check_accepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "gateway.yaml"
    done = run("import", EXAMPLE, "--output", target)
    assert done.exit_code == 0, done.output
    assert "LITELLM_MASTER_KEY" in done.stderr
    told = json.loads(run("import", EXAMPLE, "--json").stdout)
    assert told["text"] == target.read_text()
    for name in told["variables"]:
        monkeypatch.setenv(name, ENV.get(name, f"https://{name.lower()}.example.com"))
    assert run("check", target).exit_code == 0, run("check", target).output
    again = run("import", EXAMPLE, "--output", target)
    assert again.exit_code == 1
    assert "--force" in again.stderr
