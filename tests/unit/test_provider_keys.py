"""Keys of a provider: whose turn it is, what rests, where a value comes from, and what a settings file may say."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path

import pytest

from gateway import settings
from gateway.credentials.keyring import Bunch
from gateway.credentials.keys import REST_MAX_S, Minute, Slot, Slots
from gateway.credentials.secret import BYTES_MAX, Secret
from gateway.errors import UpstreamDenied, UpstreamFailed, UpstreamRateLimited
from gateway.provider import KEY_HERE, Provider, ProviderKey
from gateway.settings import SettingsError


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def key(name: str, **fields: object) -> ProviderKey:
    return ProviderKey(name, **{"value": f"secret-{name}", **fields})  # type: ignore[arg-type]


def taken(slots: Slots, times: int, now: float = 0.0) -> list[str]:
    found = [slots.take(now, 0) for _ in range(times)]
    return [slot.key.name for slot in found if slot is not None]


def test_keys_take_turns_by_weight_and_none_waits_for_all_of_another() -> None:
    names = taken(Slots([key("a", weight=3), key("b")]), 8)
    assert Counter(names) == {"a": 6, "b": 2}
    assert "b" in names[:4]


def test_a_key_that_has_used_its_minute_leaves_the_turn_to_the_others() -> None:
    slots = Slots([key("a", requests_per_minute=2), key("b")])
    assert Counter(taken(slots, 10)) == {"a": 2, "b": 8}


def test_where_no_key_has_room_the_wait_is_told_and_is_long_enough() -> None:
    slots = Slots([key("a", requests_per_minute=2), key("b", tokens_per_minute=100)])
    assert slots.wait_s(0.0) == 0
    taken(slots, 3)
    slots.take(0.0, 500)
    taken(slots, 3)
    wait_s = slots.wait_s(0.0)
    assert 60 < wait_s < 120
    assert slots.wait_s(wait_s) == 0


@pytest.mark.parametrize(("spent", "limit"), [((0.0, 5), 5), ((30.0, 5), 5), ((59.0, 7), 5), ((0.0, 100), 5)])
def test_a_minute_never_lets_more_through_than_its_limit_and_the_request_that_passes_it(
    spent: tuple[float, int], limit: int
) -> None:
    minute = Minute(limit)
    minute.add(*spent)
    now = spent[0]
    wait_s = minute.wait_s(now)
    assert wait_s > 0
    assert minute.wait_s(now + wait_s * 0.98) > 0
    assert minute.wait_s(now + wait_s) == 0


def test_a_key_without_limits_never_waits() -> None:
    minute = Minute(None)
    minute.add(0.0, 10**9)
    assert minute.wait_s(0.0) == 0


def test_a_key_rests_no_longer_than_two_minutes_whatever_is_said() -> None:
    slot = Slot(key("a"))
    slot.rest(0.0, 86_400.0, limited=True)
    assert slot.wait_s(0.0) == REST_MAX_S


def bunch(*keys: ProviderKey, clock: Clock | None = None) -> tuple[Bunch, list[tuple[str, str, str]]]:
    told: list[tuple[str, str, str]] = []
    provider = Provider("p", "openai", api_key=KEY_HERE, keys=keys)
    return Bunch(provider, clock or Clock(), lambda *words: told.append(words)), told


@pytest.mark.parametrize(
    ("error", "outcome", "rests"),
    [
        (UpstreamDenied("no"), "denied", True),
        (UpstreamRateLimited("slow down", retry_after_s=7.0), "limited", True),
        (UpstreamRateLimited("slow down"), "limited", True),
        (UpstreamFailed("broken"), "failed", False),
    ],
)
async def test_a_key_rests_for_what_is_its_own_fault_and_for_nothing_else(
    error: UpstreamDenied | UpstreamRateLimited | UpstreamFailed, outcome: str, *, rests: bool
) -> None:
    found, told = bunch(key("a"))
    chosen = await found.next(0)
    assert chosen is not None
    assert await found.refused(chosen, error) is rests
    assert told == [("p", "a", outcome)]
    assert (found.wait_s() > 0) is rests


async def test_a_model_that_is_not_served_is_not_the_keys_fault() -> None:
    found, _ = bunch(key("a"))
    chosen = await found.next(0)
    assert chosen is not None
    error = UpstreamDenied("no such model")
    error.of_key = False
    assert not await found.refused(chosen, error)
    assert found.wait_s() == 0


async def test_a_key_that_cannot_be_read_leaves_the_call_to_another(tmp_path: Path) -> None:
    found, told = bunch(key("a", value="", file=str(tmp_path / "nothing"), weight=100), key("b"))
    chosen = await found.next(0)
    assert chosen is not None
    assert chosen.name == "b"
    assert told == [("p", "a", "unreadable")]


# Where a value comes from


async def test_a_file_is_read_again_when_it_changes_and_no_restart_is_needed(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "key"
    file.write_text("first\n")
    secret = Secret("p", ProviderKey("a", file=str(file), ttl_s=1.0), clock)
    assert await secret.value() == "first"
    file.write_text("second\n")
    assert await secret.value() == "first"  # its time is not over
    clock.now += 1.0
    assert await secret.value() == "second"


async def test_the_old_value_serves_while_the_file_is_gone(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "key"
    file.write_text("first")
    secret = Secret("p", ProviderKey("a", file=str(file), ttl_s=1.0), clock)
    await secret.value()
    file.unlink()
    clock.now += 100.0
    assert await secret.value() == "first"


async def test_a_command_is_run_once_for_all_and_again_when_its_time_is_over(tmp_path: Path) -> None:
    clock, runs = Clock(), tmp_path / "runs"
    program = f"open({str(runs)!r}, 'a').write('x'); print('key-' + str(len(open({str(runs)!r}).read())))"
    secret = Secret("p", ProviderKey("a", command=(sys.executable, "-c", program), ttl_s=300.0), clock)
    assert set(await asyncio.gather(*(secret.value() for _ in range(20)))) == {"key-1"}
    clock.now += 300.0
    assert await secret.value() == "key-2"


async def test_no_shell_reads_a_command(tmp_path: Path) -> None:
    made = tmp_path / "made"
    secret = Secret("p", ProviderKey("a", command=("echo", f"$(touch {made})")), Clock())
    with pytest.raises(UpstreamDenied):
        await secret.value()  # what it printed is not one word
    assert not made.exists()


@pytest.mark.parametrize(
    "program",
    [
        "import sys; print('secret-word'); sys.exit(3)",
        "import time; print('secret-word', flush=True); time.sleep(60)",
        f"print('secret-word' * {BYTES_MAX})",
        "print('')",
        "print('two words')",
        "print('secret-word\\x07')",
        "import sys; sys.stderr.write('secret-word'); sys.exit(1)",
    ],
    ids=["fails", "hangs", "endless", "nothing", "two words", "control", "complains"],
)
async def test_a_command_that_gives_no_key_is_told_of_without_a_word_of_what_it_said(
    program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = Secret("p", ProviderKey("a", command=(sys.executable, "-c", program), timeout_s=0.5), Clock())
    with pytest.raises(UpstreamDenied) as denied:
        await secret.value()
    said = "".join(capsys.readouterr())
    assert "provider's key not read" in said
    assert "secret-word" not in said + str(denied.value)


async def test_a_program_that_is_not_there_is_no_crash() -> None:
    with pytest.raises(UpstreamDenied):
        await Secret("p", ProviderKey("a", command=("/no/such/program",)), Clock()).value()


# What a settings file may say

CONFIG = """
server: {{workers: 4}}
providers:
  p:
    dialect: openai
    base_url: https://api.example.com/v1
    keys:
      {keys}
"""


def read(keys: str) -> Provider:
    return settings.parse(CONFIG.format(keys=keys), {"KEY": "sk-hidden-value"}).providers["p"]


def test_a_keys_limits_are_shared_by_the_workers_of_a_machine() -> None:
    found = read('- {name: a, key: "${KEY}", requests_per_minute: 400, tokens_per_minute: 3, weight: 2}')
    assert found.keys == (ProviderKey("a", "sk-hidden-value", weight=2, requests_per_minute=100, tokens_per_minute=1),)
    assert found.api_key == KEY_HERE
    assert "sk-hidden-value" not in repr(found)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("- {name: a}", "keys[0]: needs one of key, file and command"),
        ("- {name: a, key: x, file: y}", "keys[0]: needs one of key, file and command"),
        ("- {name: a, key: x}\n      - {name: a, key: y}", "'a' stands 2 times"),
        ("- {name: a, key: x}\n    api_key: y", "takes the place of api_key"),
        ("- {name: a, command: vault read}", "keys[0].command: must be a valid list"),
        ("- {name: a, key: x, wieght: 2}", "did you mean 'weight'?"),
    ],
)
def test_a_mistake_in_keys_is_named_with_what_would_be_right(keys: str, problem: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        read(keys)
    assert problem in str(wrong.value)
