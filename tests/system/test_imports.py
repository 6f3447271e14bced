"""A LiteLLM configuration of ten models, budgets and fallbacks, converted by the command, served by a process."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from processes import TOLLGATE, GatewayProcess, SimulatedProcess, web
from prometheus_client.parser import text_string_to_metric_families
from services import free_port

pytestmark = pytest.mark.system

MASTER = "sk-master-of-the-old-proxy"
NAMES = [f"model-{number}" for number in range(1, 7)]


def original(url: str) -> dict[str, Any]:
    """Six models at one vendor, two of one group, one whose filter refuses all, and one whose server is down."""

    def entry(name: str, model: str, **params: Any) -> dict[str, Any]:
        params = {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": "os.environ/UPSTREAM_KEY", **params}
        prices = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_output_tokens": 1024}
        return {"model_name": name, "litellm_params": params, "model_info": prices}

    down = f"http://127.0.0.1:{free_port()}/v1"
    models = [entry(name, f"sim-{name}") for name in NAMES]
    models += [entry("pair", "sim-left", rpm=6), entry("pair", "sim-right", rpm=6)]
    models += [entry("filtered", "sim-filtered?status=400&code=content_filter")]
    models += [entry("down", "sim-down", api_base=down)]
    models[0]["litellm_params"] |= {"max_budget": 0.0000001, "budget_duration": "1d"}
    return {
        "model_list": models,
        "router_settings": {
            "num_retries": 0,
            "fallbacks": [{"down": ["model-6"]}],
            "content_policy_fallbacks": [{"filtered": ["model-5"]}],
            "model_group_alias": {"other": "pair"},
            "provider_budget_config": {"openai": {"budget_limit": 50, "time_period": "1d"}},
        },
        "litellm_settings": {"max_budget": 100, "budget_duration": "30d", "drop_params": True},
        "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
    }


@dataclass
class Moved:
    """The gateway that took over, and what was said of the move."""

    gateway: GatewayProcess
    told: str

    def client(self) -> openai.OpenAI:
        """As the old proxy's clients are: only the address changed."""
        return openai.OpenAI(base_url=f"{self.gateway.url}/v1", api_key=MASTER, max_retries=0)


@pytest.fixture(scope="module")
def moved(start: Any, provider: SimulatedProcess, tmp_path_factory: pytest.TempPathFactory) -> Moved:
    folder: Path = tmp_path_factory.mktemp("old")
    (folder / "litellm.yaml").write_text(yaml.safe_dump(original(provider.url)))
    command = [*TOLLGATE, "import", "litellm.yaml", "--output", "gateway.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    env = {"LITELLM_MASTER_KEY": MASTER, "UPSTREAM_KEY": "sk-upstream", "TOLLGATE_ADMIN_KEY": "test-admin-key"}
    text = (folder / "gateway.yaml").read_text()
    return Moved(start(text, env=env), done.stderr)


def asked(client: openai.OpenAI, model: str) -> Any:
    return client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": "Hello."}], max_tokens=20
    )


def test_every_model_answers_under_its_old_name_with_the_old_key(moved: Moved) -> None:
    with moved.client() as client:
        listed = {model.id for model in client.models.list()}
        assert {*NAMES, "pair", "filtered", "down", "other"} <= listed
        for name in NAMES[1:]:
            reply = asked(client, name)
            assert reply.headers["x-tollgate-deployment"] == name
            assert float(reply.headers["x-tollgate-cost-usd"]) > 0
            assert reply.parse().choices[0].message.content


def test_a_group_serves_from_both_and_moves_on_where_one_has_reached_its_limit(moved: Moved) -> None:
    with moved.client() as client:
        served = [asked(client, name).headers["x-tollgate-deployment"] for name in ("pair", "other") for _ in range(6)]
        assert {name: served.count(name) for name in served} == {"pair@openai": 6, "pair@openai-2": 6}
        with pytest.raises(openai.RateLimitError):
            asked(client, "pair")


def test_a_model_whose_server_is_down_is_served_by_its_fallback(moved: Moved) -> None:
    with moved.client() as client:
        assert asked(client, "down").headers["x-tollgate-deployment"] == "model-6"


def test_what_a_filter_refuses_is_served_by_the_fallback_for_that(moved: Moved) -> None:
    with moved.client() as client:
        assert asked(client, "filtered").headers["x-tollgate-deployment"] == "model-5"


def test_a_models_own_budget_is_hard(moved: Moved) -> None:
    with moved.client() as client, pytest.raises(openai.RateLimitError) as caught:
        asked(client, "model-1")
    assert caught.value.code == "budget_exceeded"


def spent(gateway: GatewayProcess) -> dict[str, tuple[float, float]]:
    """Limit and spend in dollars by account, once nothing is set aside any more."""
    ends = time.monotonic() + 20
    while True:
        found: dict[str, dict[str, float]] = {}
        for family in text_string_to_metric_families(web.get(f"{gateway.url}/metrics").text):
            for sample in family.samples:
                if sample.name.startswith("tollgate_budget_") and sample.name.endswith("_usd"):
                    found.setdefault(sample.labels["account"], {})[sample.name.split("_")[2]] = sample.value
        if not any(each["reserved"] for each in found.values()):
            return {account: (each["limit"], each["spent"]) for account, each in found.items()}
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_the_budgets_of_the_proxy_and_of_its_providers_count_every_answer(moved: Moved) -> None:
    before = spent(moved.gateway)
    with moved.client() as client:
        cost = sum(float(asked(client, name).headers["x-tollgate-cost-usd"]) for name in ("model-2", "down"))
    after = spent(moved.gateway)
    assert cost > 0
    # OpenAI's 50 are halved: one of its two servers is another provider here, and together they may spend no more.
    for account, limit in (("global", 100), ("provider:openai", 25)):
        assert after[account][0] == limit
        assert after[account][1] - before[account][1] == pytest.approx(cost)


def test_the_master_key_does_not_open_the_admin_api(moved: Moved) -> None:
    with moved.client() as client, pytest.raises(openai.AuthenticationError):
        client.with_options(base_url=moved.gateway.url).get("/admin/v1/tenants", cast_to=object)
    assert "opens the models here and nothing else" in moved.told
