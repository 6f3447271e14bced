from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway import settings
from gateway.configuration.payers import hard
from gateway.settings import Settings, SettingsError
from gateway.types import Action, Capability, Every, Limit, Unit, Window

CONFIG = Path(__file__).parents[2] / "config"
NOW = datetime(2026, 11, 21, tzinfo=UTC).timestamp()
BASE = """
providers:
  sim: {dialect: simulated}
deployments:
  - {id: small, provider: sim, upstream_model: sim-small, price: {input: 1, output: 2}}
  - {id: large, provider: sim, upstream_model: sim-large, price: {input: 3, output: 9}}
"""


def parse(text: str, env: Mapping[str, str] | None = None) -> Settings:
    return settings.parse(text, env or {}, "f.yaml", now=NOW)


def problems(text: str, env: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        parse(text, env)
    return [str(problem) for problem in refused.value.problems]


def tenant(lines: str) -> str:
    return BASE + "tenants:\n  - id: acme\n" + "".join(f"    {line}\n" for line in lines.splitlines())


# the files that ship


def test_the_demo_runs_without_any_key_and_says_what_it_leaves_out() -> None:
    demo = settings.load(CONFIG / "gateway.yaml", {}, now=NOW)
    assert list(demo.routes) == ["auto"]
    assert demo.routes["auto"].candidates == ("sim-small", "sim-medium", "sim-large")
    assert demo.routes["auto"].baseline == "sim-large"
    assert list(demo.providers) == ["simulated"]
    assert any("OPENAI_API_KEY is not set" in notice for notice in demo.notices)
    assert hard(demo.tenants[0].limits)


def test_the_demo_uses_a_real_provider_once_its_key_is_set() -> None:
    demo = settings.load(CONFIG / "gateway.yaml", {"OPENAI_API_KEY": "sk-1"}, now=NOW)
    assert demo.routes["live"].candidates == ("gpt-mini",)
    assert demo.deployments["gpt-mini"].provider.api_key == "sk-1"
    assert demo.deployments["gpt-mini"].price.known
    assert "gpt-mini" in demo.routes["auto"].candidates
    assert "anthropic" not in demo.providers


def test_the_production_example_is_valid() -> None:
    names = ["REDIS_URL", "DATABASE_URL", "TOLLGATE_ADMIN_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"]
    env = dict.fromkeys(names, "0123456789abcdef")
    env |= {"REDIS_URL": "redis://r", "DATABASE_URL": "postgresql://d"}
    env |= {"ACME_KEY_SHA256": "a" * 64, "ACME_TRIAL_KEY_SHA256": "b" * 64}
    found = settings.load(CONFIG / "production.example.yaml", env, now=NOW)
    assert found.tenants[0].zone == ZoneInfo("Europe/Berlin")
    assert found.keys[1].expires == datetime(2027, 12, 31, tzinfo=UTC).timestamp()


def test_every_variable_the_production_example_lacks_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        settings.load(CONFIG / "production.example.yaml", {}, now=NOW)
    told = str(refused.value)
    assert all(f"{name} is not set" in told for name in ("REDIS_URL", "OPENAI_API_KEY", "ACME_KEY_SHA256"))
    assert "GROQ_API_KEY" not in told


def test_a_secret_is_in_no_repr_and_in_no_error() -> None:
    env = {"OPENAI_API_KEY": "sk-secret-1", "TOLLGATE_ADMIN_KEY": "sk-secret-2"}
    demo = settings.load(CONFIG / "gateway.yaml", env, now=NOW)
    assert "sk-secret" not in repr(demo)
    text = tenant("keys: [{name: a, key: sk-secret-3, hash: sk-secret-4}]")
    assert "sk-secret" not in "\n".join(problems(text + "admin_key: [sk-secret-5]\nredis: sk-secret-6\n"))


def test_a_file_that_is_not_there_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        settings.load(tmp_path / "none.yaml", {})


def test_an_empty_file_is_a_gateway_that_serves_nobody() -> None:
    assert parse("").routes == {}


# the environment


def test_a_variable_stands_in_for_text_anywhere() -> None:
    found = parse(BASE + "database: sqlite:///${DIR:-/tmp}/${NAME}.db\n", {"NAME": "t"})
    assert found.database == "sqlite:////tmp/t.db"


def test_a_key_of_digits_keeps_its_zeros() -> None:
    found = parse(tenant("keys: [{name: a, key: '${K}'}, {name: b, key: '$${K}12345'}]"), {"K": "0012345678"})
    assert found.keys[0].digest == hashlib.sha256(b"0012345678").digest()
    assert found.keys[1].digest == hashlib.sha256(b"${K}12345").digest()


def test_an_unset_variable_is_named_with_its_key_and_line() -> None:
    assert problems("server:\n  host: ${HOST}\n") == [
        "f.yaml:2: server.host: environment variable HOST is not set; set it, or write ${HOST:-default}"
    ]


def test_an_empty_variable_counts_as_unset() -> None:
    assert "HOST is not set" in problems("server: {host: '${HOST}'}", {"HOST": ""})[0]
    assert parse("redis: ${REDIS_URL:-}\n").redis is None


def test_a_variable_can_be_a_number() -> None:
    assert parse("server: {port: '${PORT}'}", {"PORT": "9000"}).server.port == 9000


@pytest.mark.parametrize("switch", ["optional: true", "enabled: '${KEY:+true}'", "enabled: false"])
def test_an_optional_provider_is_left_out_with_all_that_needs_it(switch: str) -> None:
    text = (
        BASE.replace("deployments:", f"  groq: {{api_key: '${{KEY}}', {switch}}}\ndeployments:", 1)
        + "  - {id: llama, provider: groq, upstream_model: llama-3.3-70b-versatile}\n"
        + "routes:\n  auto: {candidates: [small, llama], baseline: llama}\n  fast: {candidates: [llama]}\n"
    )
    without = parse(text)
    assert "llama" not in without.deployments
    assert without.routes.keys() == {"auto"}
    assert without.routes["auto"].candidates == ("small",)
    assert without.routes["auto"].baseline is None
    assert len(without.notices) == 5
    with_key = parse(text.replace("enabled: false", "enabled: true"), {"KEY": "k"})
    assert with_key.routes["auto"].baseline == "llama"
    assert with_key.deployments["llama"].provider.base_url == "https://api.groq.com/openai/v1"


# what is wrong


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sever: {}\n", "f.yaml:1: sever: unknown key; did you mean 'server'?"),
        ("\nserver:\n  prt: 1\n", "f.yaml:3: server.prt: unknown key; did you mean 'port'?"),
        ("server:\n  port: x\n", "f.yaml:2: server.port: must be a valid integer"),
        ("server: {port: 1, port: 2}\n", "f.yaml:1: server.port: is given twice, first in line 1; keep one"),
        ("server: [\n", "f.yaml:2: not YAML"),
        ("server: {host: ${HOST}}\n", "f.yaml:1: not YAML: expected ',' or '}', but got '{'; put ${...} in quotes"),
        ("server: 3\n", "f.yaml:1: server: must be"),
        ("- a\n", "f.yaml:1: "),
        ("redis: http://x\n", "f.yaml:1: redis: must begin with redis://"),
        ("providers:\n  x: {dialect: simulatd}\n", "providers.x.dialect: there is no dialect 'simulatd'; did"),
        ("providers:\n  x: {preset: grok}\n", "providers.x.preset: there is no preset 'grok'; did you mean 'groq'?"),
        ("providers:\n  grok: {}\n", "f.yaml:2: providers.grok: needs a dialect"),
        ("providers:\n  x: {dialect: openai}\n", "f.yaml:2: providers.x: needs a base_url"),
        ("providers:\n  x: {dialect: openai, base_url: ftp://x}\n", "f.yaml:2: providers.x.base_url: must be a URL"),
        (BASE + "  - {id: small, provider: sim, upstream_model: m}\n", "deployments[2].id: deployment 'small'"),
        (BASE + "  - {id: x, provider: simm, upstream_model: m}\n", "f.yaml:7: deployments[2].provider: there is no"),
        (BASE + "  - {id: x, provider: sim}\n", "f.yaml:7: deployments[2].upstream_model: is missing"),
        (
            BASE + "  - id: x\n    provider: sim\n    upstream_model: m\n    price: {inptu: 1}\n",
            "f.yaml:10: deployments[2].price.inptu: unknown key; did you mean 'input'?",
        ),
        (
            BASE + "  - {id: x, provider: sim, upstream_model: m, price: {per_hour: 2}}\n",
            "f.yaml:7: deployments[2].price: a price per hour needs both per_hour and tokens_per_second",
        ),
        (
            BASE
            + "  - {id: x, provider: sim, upstream_model: m,\n"
            + "     price: {tiers: [{above: 1, marginal: true, output: 1}]}}\n",
            "f.yaml:8: deployments[2].price.tiers[0].output: a marginal tier prices the input above it",
        ),
        (
            BASE + "  - {id: x, provider: sim, upstream_model: m, price: {input: -1}}\n",
            "f.yaml:7: deployments[2].price.input: must be dollars per million tokens",
        ),
        (BASE + "routes: {auto: {candidates: [smal]}}\n", "candidates[0]: there is no deployment 'smal'; did"),
        (BASE + "routes: {auto: {candidates: [small], baseline: lage}}\n", "auto.baseline: there is no deployment"),
        (BASE + "routes: {auto: {candidates: []}}\n", "f.yaml:7: routes.auto.candidates: "),
        (BASE + "routes: {small: {candidates: [large]}}\n", "'small' is both a route and a deployment"),
        (BASE + "routes: {auto: {candidates: [small, small]}}\n", "'small' stands 2 times"),
        (
            BASE + "routes:\n  auto:\n    candidates: [small]\n    policies:\n      - cheepest: {}\n",
            "f.yaml:11: routes.auto.policies[0].cheepest: unknown policy 'cheepest'; did you mean 'cheapest'?",
        ),
        (
            BASE + "routes:\n  auto:\n    candidates: [small]\n    policies:\n      - output_cap: {defualt: 3}\n",
            "policies[0].output_cap.defualt: policy 'output_cap' has no such option; did you mean 'default'?",
        ),
        (
            BASE + "routes:\n  auto:\n    candidates: [small]\n    policies:\n      - output_cap: {default: many}\n",
            "f.yaml:11: routes.auto.policies[0].output_cap.default: must be int | None",
        ),
        (tenant("timezone: Europe/Berln"), "tenants[0].timezone: there is no time zone 'Europe/Berln'; did you mean"),
        (tenant("budgets: [{limit_usd: 1}]"), "tenants[0].budgets[0]: a limit of cost needs one of window and rolling"),
        (tenant("budgets: [{window: day}]"), "tenants[0].budgets[0]: needs one of limit_usd"),
        (tenant("budgets: [{limit_usd: 9000001, window: day}]"), "budgets[0].limit_usd: must be at most 9000000"),
        (tenant("budgets: [{limit_usd: -1, window: day}]"), "budgets[0].limit_usd: must be a number of dollars"),
        (tenant("budgets: [{limit_usd: 1, window: fortnight}]"), "budgets[0].window: must be 'minute', 'hour'"),
        (tenant("budgets: [{limit_usd: 1, rolling: 5 parsecs}]"), "budgets[0].rolling: must be a duration such as"),
        (tenant("budgets: [{limit_usd: 1, window: day}, {limit_usd: 2, window: day}]"), "cost-day-deny' stands twice"),
        (tenant("budgets: [{limit_usd: 1, window: day, account: tenent}]"), "no limit is kept for 'tenent'; did"),
        (tenant("rate_limits: {request_per_minute: 1}"), "rate_limits.request_per_minute: unknown key; did you mean"),
        (tenant("rate_limits: {account: tenent, concurrent: 1}"), "rate_limits.account: no limit is kept for 'tenent'"),
        (tenant("rate_limits: [{concurrent: 1}, {requests_per_da: 1}]"), "rate_limits[1].requests_per_da: unknown key"),
        (tenant("rate_limits: {requests_per_minute: 0}"), "greater than or equal to 1"),
        (tenant("keys: [{name: a}]"), "tenants[0].keys[0]: key 'a' needs one of hash and key"),
        (tenant("keys: [{name: a, hash: 'sha256:abc'}]"), "tenants[0].keys[0].hash: must match"),
        (
            tenant("keys: [{name: a, key: same-secret}, {name: b, key: same-secret}]"),
            "keys 'acme:a' and 'acme:b' have the same secret",
        ),
        (tenant("keys: [{name: a, key: secret-1}, {name: a, key: secret-2}]"), "key 'a' of 'acme' stands twice"),
        (tenant("{}").replace("    {}\n", "  - id: acme\n"), "tenants[1].id: tenant 'acme' stands twice"),
        ("limits: [{account: tenants, limit_usd: 1, window: day}]\n", "limits[0].account: no limit is kept for"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place_and_what_would_be_right(text: str, problem: str) -> None:
    told = problems(text)
    assert any(problem in line for line in told), told


def test_all_mistakes_are_told_together_in_the_order_of_their_lines() -> None:
    told = problems(
        "server: {prt: 1}\nadmin_key: ${NONE}\nproviders:\n  x: {dialect: 3}\nroutes: {r: {candidates: 1}}\n"
    )
    assert [line.split(":")[1] for line in told] == ["1", "2", "4", "5"]


def test_an_alias_that_contains_itself_is_an_error_and_no_crash() -> None:
    assert "not YAML" in problems("providers: &a\n  x: *a\n")[0]


# tenants


def test_budgets_and_rate_limits_become_limits() -> None:
    found = parse(
        tenant(
            """timezone: Europe/Berlin
budgets:
  - {limit_usd: 100, window: month}
  - {account: key, limit_usd: 0.5, rolling: 24h, action: degrade}
  - {account: "tag:feature", tokens: 7, window: week, action: alert, id: mine}
rate_limits: {requests_per_minute: 600, tokens_per_day: 9, concurrent: 50}
request_cost_max_usd: 0.25
tags: {team: core}"""
        )
    ).tenants[0]
    berlin = ZoneInfo("Europe/Berlin")
    assert found.limits == (
        Limit("tenant", Unit.COST, 100 * 10**9, Window(Every.MONTH, zone=berlin), id="tenant-cost-month-deny"),
        Limit(
            "key", Unit.COST, 5 * 10**8, Window(rolling_s=86400, zone=berlin), Action.DEGRADE,
            "key-cost-rolling_86400s-degrade",
        ),
        Limit("tag:feature", Unit.TOKENS, 7, Window(Every.WEEK, zone=berlin), Action.ALERT, "mine"),
        Limit("tenant", Unit.REQUESTS, 600, Window(rolling_s=60), id="tenant-requests-per-minute"),
        Limit("tenant", Unit.TOKENS, 9, Window(rolling_s=86400), id="tenant-tokens-per-day"),
        Limit("tenant", Unit.CONCURRENT, 50, Window(), id="tenant-concurrent"),
    )  # fmt: skip
    assert (found.request_cost_max, found.tags) == (250_000_000, {"team": "core"})


def test_a_keys_own_budget_is_kept_for_the_key() -> None:
    found = parse(tenant("keys: [{name: ci, key: secret-1, models: [small], budgets: [{limit_usd: 1, window: day}]}]"))
    (key,) = found.keys
    assert (key.id, key.tenant, key.models) == ("acme:ci", "acme", ("small",))
    assert [limit.account for limit in key.limits] == ["key"]


def test_the_limits_of_everyone_are_global() -> None:
    assert parse("limits: [{limit_usd: 5, window: day}]\n").limits[0].account == "global"


@pytest.mark.parametrize(("host", "refused"), [
    ("127.0.0.1", False), ("localhost", False), ("'::1'", False), ("0.0.0.0", True), ("gw.example", True),
    ("'::'", True),
])  # fmt: skip
def test_a_demo_key_opens_nothing_beyond_this_machine(host: str, refused: bool) -> None:
    text = tenant("keys: [{name: a, key: demo-key-1}]") + f"admin_key: demo-admin-key\nserver: {{host: {host}}}\n"
    if not refused:
        assert parse(text).admin_key == "demo-admin-key"
        return
    told = problems(text)
    assert [line.split(": ")[1] for line in told] == ["tenants[0].keys[0].key", "admin_key"]


def test_a_permitted_name_that_nothing_has_is_noticed() -> None:
    assert parse(tenant("models: [smal, 'x-*', large]")).notices == (
        "tenant 'acme' may use 'smal', but nothing has this name",
    )


# prices and caps

UNPRICED = (
    BASE
    + "  - {id: mystery, provider: sim, upstream_model: who-knows}\nroutes: {auto: {candidates: [small, mystery]}}\n"
)
CAPPED = "budgets: [{limit_usd: 1, window: day}]"


def capped(models: str, budget: str = CAPPED) -> str:
    return UNPRICED + f"tenants:\n  - {{id: acme, models: {models}, {budget}}}\n"


@pytest.mark.parametrize(("models", "way"), [("['*']", "mystery"), ("[auto]", "auto"), ("[who-*]", "who-knows")])
def test_a_hard_cap_over_a_model_without_a_price_is_an_error_naming_both(models: str, way: str) -> None:
    (told,) = problems(capped(models))
    assert "deployment 'mystery' has no known price, but tenant 'acme'" in told
    assert f"as {way!r}" in told
    assert told.startswith("f.yaml:7: deployments[2]")


def test_a_soft_cap_or_no_way_to_it_allows_a_model_without_a_price() -> None:
    assert parse(capped("['*']", "budgets: [{limit_usd: 1, window: day, action: alert}]"))
    assert parse(capped("[small]"))


def test_a_hard_cap_of_a_key_or_of_everyone_needs_prices_too() -> None:
    keyed = capped("['*']", "keys: [{name: a, key: secret-1, budgets: [{limit_usd: 1, window: day}]}]")
    assert "no known price" in problems(keyed)[0]
    assert "no known price" in problems(capped("['*']", "tags: {}") + "limits: [{limit_usd: 1, window: day}]\n")[0]
    narrow = "keys: [{name: a, key: secret-1, models: [small]}], " + CAPPED
    assert parse(capped("['*']", narrow))


# providers


def test_a_preset_gives_what_the_provider_does_not_say() -> None:
    found = parse(
        "providers:\n"
        "  mine: {preset: mistral, api_key: k, options: {max_tokens_field: other}, timeouts: {idle_s: 5}}\n"
        "  groq: {api_key: k}\n"
        "  openai: {dialect: openai, base_url: 'http://127.0.0.1:9/v1/'}\n"
    )
    mine = found.providers["mine"]
    assert (mine.dialect, mine.base_url) == ("openai", "https://api.mistral.ai/v1")
    assert (mine.options["max_tokens_field"], mine.options["error_shape"]) == ("other", "flat")
    assert (mine.timeouts.idle_s, mine.timeouts.connect_s) == (5.0, 5.0)
    assert found.providers["groq"].options["stream_usage"] == "x_groq"
    elsewhere = found.providers["openai"]
    assert (elsewhere.base_url, elsewhere.options) == ("http://127.0.0.1:9/v1", {})


def test_files_beside_the_configuration_win_over_the_packaged_ones(tmp_path: Path) -> None:
    (tmp_path / "providers.yaml").write_text(
        "providers: {groq: {dialect: openai, base_url: http://proxy/v1, source: us, date: 2026-01-01}}\n"
    )
    (tmp_path / "prices.yaml").write_text(
        "prices: [{provider: openai, model: 'gpt-4o', price: {output: 1}, source: contract, date: 2026-01-01}]\n"
        "models: [{match: [gpt-4o], output_max: 77, lacks: [tools], source: us, date: 2026-01-01}]\n"
    )
    (tmp_path / "gateway.yaml").write_text(
        "providers:\n  groq: {}\n  openai: {api_key: k}\n"
        "deployments: [{id: g, provider: openai, upstream_model: gpt-4o}]\n"
    )
    found = settings.load(tmp_path / "gateway.yaml", {}, now=NOW)
    assert found.providers["groq"].base_url == "http://proxy/v1"
    deployment = found.deployments["g"]
    assert (deployment.price.rates["output"], deployment.price.rates["input"]) == (10**9, 25 * 10**8)
    assert deployment.output_max == 77
    assert Capability.TOOLS not in deployment.capabilities
    assert "contract (2026-01-01)" in deployment.price.source


def test_a_mistake_in_a_file_beside_it_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("prices:\n  - {provder: openai}\n")
    (tmp_path / "gateway.yaml").write_text("")
    with pytest.raises(
        SettingsError, match=r"prices\.yaml:2: prices\[0\]\.provder: unknown key; did you mean 'provider'"
    ):
        settings.load(tmp_path / "gateway.yaml", {})
