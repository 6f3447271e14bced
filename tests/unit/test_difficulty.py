"""The difficulty policy on a small artifact made here: easy sums, hard sums, and things it has never seen."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from easy_and_hard import EASY, HARD, made_outcomes

from gateway.plan import Context, Plan, Step
from gateway.types import Bucket, Deployment, Estimate, Format, Key, Price, Provider, Request, Tenant
from router_policies.difficulty import Difficulty, artifact
from router_policies.difficulty.learn import Options, learn
from router_policies.difficulty.model import Model
from router_policies.difficulty.text import HEAD_CHARS, TAIL_CHARS, asked, shape, terms, window, words


@pytest.fixture(scope="module")
def model() -> Model:
    return learn(made_outcomes(), Options(directions_max=40)).model


@pytest.fixture(scope="module")
def directory(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("artifact")
    artifact.save(model, {}, out)
    return out


def step(name: str, dollars: int, *, quality: float | None = None, healthy: bool = True, id_: str = "") -> Step:
    price = Price({Bucket.INPUT: dollars * 10**9, Bucket.OUTPUT: dollars * 10**9})
    deployment = Deployment(id_ or name, Provider("p", "simulated"), name, price, quality=quality)
    return Step(deployment, Estimate(100, 110), 100, 50, 0.0, healthy=healthy)


PLAN = Plan((step("small", 1), step("large", 20)))


def request(text: object) -> Request:
    body = {"messages": [{"role": "user", "content": text}]}
    return Request("r", Format.CHAT, b"", body, "auto", False, 0.0, Key("k", "t", "n", b""))


CONTEXT = Context(Tenant("t"), 0.0)


def order(plan: Plan) -> list[str]:
    return [each.deployment.id for each in plan.steps]


def routed(policy: Difficulty, text: object, plan: Plan = PLAN) -> Plan:
    return policy.apply(plan, request(text), CONTEXT)


def test_an_easy_request_goes_to_the_cheap_model_and_a_hard_one_to_the_strong(directory: Path) -> None:
    policy = Difficulty(target_quality=0.85, artifact=str(directory))
    easy = routed(policy, EASY.format("redfox", "oldcat"))
    hard = routed(policy, HARD.format("redfox", "oldcat"))
    assert order(easy) == ["small", "large"]
    assert order(hard) == ["large", "small"]
    assert "small is good enough on colours" in easy.reasons[-1]
    assert "large is good enough on proofs" in hard.reasons[-1]


def test_a_request_unlike_anything_learned_goes_to_the_safe_default_and_the_plan_says_so(directory: Path) -> None:
    policy = Difficulty(target_quality=0.85, artifact=str(directory))
    plan = routed(policy, "def f(x):\n    return {**x}\n\n# bitte übersetzen\nSELECT 1;\n" * 9)
    assert order(plan) == ["large", "small"], "the dearest, as no quality is known"
    assert "abstains" in plan.reasons[-1]
    assert "default large" in plan.reasons[-1]


@pytest.mark.parametrize("content", ["", [{"type": "image_url", "image_url": {"url": "data:"}}], None, 7])
def test_a_request_without_text_is_not_judged(directory: Path, content: object) -> None:
    assert "no text" in routed(Difficulty(artifact=str(directory)), content).reasons[-1]


def test_the_default_is_the_named_one_then_the_best_rated_then_the_dearest(directory: Path) -> None:
    rated = Plan((step("a", 1, quality=0.3), step("b", 2, quality=0.9), step("c", 9)))
    assert order(routed(Difficulty(artifact=str(directory), default="c"), EASY, rated)) == ["c", "a", "b"]
    assert order(routed(Difficulty(artifact=str(directory)), EASY, rated)) == ["b", "a", "c"]
    unrated = Plan((step("a", 1), step("b", 2)))
    assert order(routed(Difficulty(artifact=str(directory)), EASY, unrated)) == ["b", "a"]


def test_unknown_candidates_are_matched_only_by_option(directory: Path) -> None:
    renamed = Plan((step("x-1", 1, quality=0.5, id_="x"), step("y-1", 20, quality=0.97, id_="y")))
    easy = EASY.format("redfox", "oldcat")
    assert "no candidate is known" in routed(Difficulty(0.85, str(directory)), easy, renamed).reasons[-1]
    by_name = Difficulty(0.85, str(directory), models={"x": "small", "y": "large"})
    assert order(routed(by_name, easy, renamed)) == ["x", "y"]
    by_quality = Difficulty(0.85, str(directory), by_quality=True)
    assert "x is good enough" in routed(by_quality, easy, renamed).reasons[-1]


def test_a_vendor_path_and_case_do_not_hide_a_model(directory: Path) -> None:
    plan = Plan((step("acme/Small", 1), step("LARGE", 20)))
    assert "good enough" in routed(Difficulty(0.85, str(directory)), EASY.format("redfox", "elk"), plan).reasons[-1]


def test_it_abstains_when_no_known_candidate_is_good_enough_and_others_are_unknown(directory: Path) -> None:
    plan = Plan((step("small", 1), step("stranger", 5)))
    found = routed(Difficulty(0.85, str(directory)), HARD.format("redfox", "oldcat"), plan)
    assert "others are unknown" in found.reasons[-1]
    assert order(found)[0] == "stranger"


def test_where_nobody_reaches_the_target_the_likeliest_goes_first(directory: Path) -> None:
    found = routed(Difficulty(1.0, str(directory)), HARD.format("redfox", "oldcat"))
    assert order(found) == ["large", "small"]
    assert "likeliest" in found.reasons[-1]


def test_a_relative_target_is_a_share_of_the_best_candidates(directory: Path) -> None:
    found = routed(Difficulty(0.9, str(directory), relative=True), EASY.format("redfox", "oldcat"))
    assert "small is good enough" in found.reasons[-1]


def test_an_unhealthy_candidate_is_never_first_while_another_is_healthy(directory: Path) -> None:
    ill = Plan((step("small", 1, healthy=False), step("large", 20)))
    for text in (EASY.format("redfox", "oldcat"), "unlike"):
        assert order(routed(Difficulty(0.5, str(directory)), text, ill))[0] == "large"


def test_a_plan_never_gains_or_loses_a_step_and_the_policy_is_pure(directory: Path) -> None:
    policy = Difficulty(0.9, str(directory))
    plan = Plan((step("small", 1), step("large", 20), step("other", 5), step("large", 7, id_="large-2")))
    for text in (EASY, HARD, "x" * 50_000, "?", "\ud800 broken", "0 " * 400):
        first, second = routed(policy, text, plan), routed(policy, text, plan)
        assert sorted(order(first)) == sorted(order(plan))
        assert first == second


def test_a_plan_of_one_step_is_left_alone(directory: Path) -> None:
    alone = Plan((step("small", 1),))
    assert routed(Difficulty(artifact=str(directory)), EASY, alone) is alone


@pytest.mark.parametrize("target", [0, -1, 1.01])
def test_a_target_that_is_no_share_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="target_quality"):
        Difficulty(target)


def test_a_model_the_artifact_does_not_know_is_refused_by_name(directory: Path) -> None:
    with pytest.raises(ValueError, match="gpt-9"):
        Difficulty(artifact=str(directory), models={"a": "gpt-9"})


def test_a_directory_without_an_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(artifact.ArtifactError, match="holds no artifact"):
        Difficulty(artifact=str(tmp_path))


def test_a_damaged_artifact_is_refused(model: Model, tmp_path: Path) -> None:
    artifact.save(model, {}, tmp_path)
    data = bytearray((tmp_path / artifact.ARRAYS).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / artifact.ARRAYS).write_bytes(data)
    with pytest.raises(artifact.ArtifactError, match="sha256"):
        artifact.load(tmp_path)


def test_an_artifact_says_after_a_round_trip_what_it_said_before(model: Model, directory: Path) -> None:
    texts = [EASY.format("redfox", "elk"), HARD.format("oldcat", "newbee")]
    kept = artifact.load(directory).probabilities(texts)
    assert np.abs(kept - model.probabilities(texts)).max() < 0.02


def test_the_artifact_that_ships_is_small_and_has_a_card_of_apache_data() -> None:
    card = artifact.card(artifact.DEFAULT)
    assert card["bytes"] <= 2_000_000
    assert card["licence_of_data"] == "Apache-2.0"
    assert {each["file"] for each in card["data"]} == {
        "routellm_gsm8k_mmlu.parquet",
        "mmlu_pro.parquet",
        "gsm8k_zeroeval.parquet",
        "crux_zeroeval.parquet",
    }
    assert card["figures"]["calibration_error"] <= 0.05
    assert artifact.load(artifact.DEFAULT).tasks


def test_an_artifact_with_embeddings_is_refused_without_an_embedder(model: Model, tmp_path: Path) -> None:
    columns = model.term_weights.shape[1]
    artifact.save(replace(model, embedding_weights=np.zeros((4, columns), np.float32)), {}, tmp_path)
    with pytest.raises(ValueError, match="embeddings"):
        Difficulty(artifact=str(tmp_path))


def test_of_a_long_prompt_only_head_and_tail_are_read() -> None:
    long = "start " + "x" * 100_000 + " end"
    read = window(long)
    assert len(read) == HEAD_CHARS + TAIL_CHARS + 1
    assert read.startswith("start ")
    assert read.endswith(" end")


@pytest.mark.parametrize("words_in_it", [10, 100, 100_000])
def test_a_judgement_by_the_artifact_that_ships_takes_less_than_a_millisecond(words_in_it: int) -> None:
    """No text is judged twice, so nothing remembered helps.  Generous: only a change of kind fails."""
    policy = Difficulty()
    plan = Plan((step("gpt-4o-mini-2024-07-18", 1), step("gpt-4o-2024-05-13", 20)))
    took = []
    for number in range(60):
        asked_for = request(f"Prove statement {number}: " + "every number is the sum " * (words_in_it // 5))
        began = time.perf_counter()
        judged = policy.apply(plan, asked_for, CONTEXT)
        took.append(time.perf_counter() - began)
        assert "difficulty" in judged.reasons[-1]
    assert min(took) < 1e-3  # 0.05 to 0.14 ms measured


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"role": "user", "content": "a question that is long enough"}], "a question that is long enough"),
        ([{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}], "hi"),
        (
            [
                {"role": "user", "content": "write a poem about the sea"},
                {"role": "assistant", "content": "..."},
                {"role": "user", "content": "continue"},
            ],
            "write a poem about the sea\ncontinue",
        ),
        ([{"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url"}]}], "look"),
        (
            [
                {"role": "user", "content": "what is in this file of mine?"},
                {"role": "user", "content": [{"type": "tool_result", "content": "..."}]},
            ],
            "what is in this file of mine?",
        ),
        ([], ""),
        (["not a message"], ""),
    ],
)
def test_what_is_asked_is_the_last_user_text(messages: list[object], text: str) -> None:
    assert asked({"messages": messages}) == text


def test_terms_are_words_and_pairs_of_neighbours() -> None:
    assert terms(words("Is it SO?")) == ["is", "it", "so", "is it", "it so"]


def test_shape_tells_a_multiple_choice_from_code() -> None:
    choice = "Which is NOT blue?\nA. sky\nB. sea\nC. blood"
    code = "def f(x):\n    return x + 1"
    assert shape(choice, len(choice), words(choice))[7:13] == (3.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    assert shape(code, len(code), words(code))[7:13] == (0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
