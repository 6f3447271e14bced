"""A provider's usage block -> Usage in disjoint buckets.  Pure; one table row per shape of block.

Providers disagree on what is contained in what: OpenAI counts cached tokens within the prompt, Anthropic beside it;
most count reasoning within the completion, xAI's chat beside it.  A `Shape` says where the figures are and what usually
contains what; a provider entry may declare its own rules (`options: {usage: {cached: excluded}}`); where it does not,
the block's own total may prove them.  Rows and rules were measured on recorded traffic of the providers.

Nothing here raises on what a provider may send: contradictions are clamped and named in `Usage.flags`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from itertools import combinations
from typing import Any, TypeAlias

from gateway.money import GEO, SIZED_REQUEST, STANDARD_TIERS
from gateway.types import INPUT, INPUT_BUCKETS, NANO, OUTPUT, Bucket, NanoUSD, Usage
from gateway.usage.tables import CHAT, ENDPOINTS, GEMINI, MESSAGES, RESPONSES, SEARCH_SIZE, Part, Path, Shape

__all__ = ["CHAT", "ENDPOINTS", "GEMINI", "MESSAGES", "RESPONSES", "Part", "Shape", "read", "reported_cost"]

Block: TypeAlias = Mapping[str, Any]

TOKENS_MAX = 1 << 40
"""No call uses more, in tokens or dollars; a larger figure is nonsense."""

TIER_CHARS_MAX = 40

_ANYWHERE = frozenset({"", "global", "not_available"})
_NO_RULES: Mapping[str, str] = {}
_MODALITIES = ("UNSPECIFIED", "TEXT", "IMAGE", "VIDEO", "AUDIO", "DOCUMENT")
"""Google's, by the number that may stand for each."""

_COSTS: tuple[tuple[Path, Decimal], ...] = (
    (("cost_in_usd_ticks",), Decimal("1e-10")),  # xAI
    (("cost", "total_cost"), Decimal(1)),  # Perplexity
    (("cost",), Decimal(1)),  # OpenRouter, Vercel
    (("estimated_cost",), Decimal(1)),  # DeepInfra
)
_COST_NAMES = frozenset(path[0] for path, _ in _COSTS)
_FINEST = Decimal("1e-12")
"""Dollars.  What is below it is the noise of floats."""


def read(shape: Shape, block: object, rules: Mapping[str, str] = _NO_RULES, tier: object = "") -> Usage | None:
    """The usage that `block` reports; None where it holds no count at all, which is not the same as zero.

    `rules` are a provider's own, by the names in `Part.rule` (`cached: excluded`) or of a tier (`tier:provisioned:
    standard`).  `tier` is the service tier the reply states outside the block.
    """
    if not isinstance(block, dict) or _stated(block, shape.totals) is None:
        return None
    flags: list[str] = []
    tokens = _tokens(shape, block, rules, flags)
    fees = {} if shape.fee_names.isdisjoint(block) else _fees(shape, block, tokens, flags)
    if shape.iterations:
        _add_iterations(shape, block, tokens, fees, flags)
    return Usage(
        tokens=tokens,
        fees=fees,
        service_tier=_tier(block, tier, rules),
        reported_cost=_reported_cost(block, tokens, flags),
        flags=tuple(flags),
        reported=block,
    )


def reported_cost(block: Block) -> NanoUSD | None:
    """The provider's own figure, also where it reports no tokens."""
    return _reported_cost(block, {}, [])


def _fees(shape: Shape, block: Block, tokens: dict[Bucket, int], flags: list[str]) -> dict[str, int]:
    """What is billed by the piece, by name."""
    fees = {fee: n for fee, path in shape.fees if (n := _count(block, (path,), flags))}
    fees |= _called(shape, block, flags) | _kept(shape, block, tokens, flags)
    if isinstance(size := block.get(SEARCH_SIZE), str):
        fees[f"{SIZED_REQUEST}{size[:20]}"] = 1
    return fees


def _called(shape: Shape, block: Block, flags: list[str]) -> dict[str, int]:
    """The calls of tools, by name."""
    tools = shape.tools
    counts = None if tools is None else _at(block, tools.path)
    if tools is None or not isinstance(counts, dict):
        return {}
    named = {str(name).removesuffix(tools.ending)[:40]: name for name in counts if str(name).endswith(tools.ending)}
    return {
        tool: n
        for tool, name in named.items()
        if tool not in tools.free and (n := _count(block, ((*tools.path, name),), flags))
    }


def _kept(shape: Shape, block: Block, tokens: dict[Bucket, int], flags: list[str]) -> dict[str, int]:
    """Cache writes of a lifetime that nobody knows: no rate is theirs, so they are fees that no price has."""
    counts = _at(block, shape.lifetimes) if shape.lifetimes else None
    if not isinstance(counts, dict):
        return {}
    fees: dict[str, int] = {}
    for name in counts:
        count = 0 if name in shape.known_lifetimes else _count(block, ((*shape.lifetimes, name),), flags)
        if count:
            fees[f"cache_write_token:{str(name)[:40]}"] = count
            rest = tokens.pop(Bucket.CACHE_WRITE_5M, 0) - count  # where what is told apart nowhere else was counted
            tokens |= {Bucket.CACHE_WRITE_5M: rest} if rest > 0 else {}
    return fees


def _tokens(shape: Shape, block: Block, rules: Mapping[str, str], flags: list[str]) -> dict[Bucket, int]:
    went_in, came_out = _count(block, shape.input, flags), _count(block, shape.output, flags)
    parts = [] if shape.part_names.isdisjoint(block) else _parts(shape, block, flags)
    beside = _beside(shape, block, went_in + came_out, parts, rules, flags)
    totals = {True: went_in, False: came_out}
    tokens: dict[Bucket, int] = {}
    for part, count in parts:
        side = part.bucket in INPUT_BUCKETS
        if part not in beside:
            if count > totals[side]:
                flags.append(f"{part.bucket} {count} is more than the {totals[side]} left of its total")
                count = totals[side]  # noqa: PLW2901 - clamped
            totals[side] -= count
        tokens[part.bucket] = tokens.get(part.bucket, 0) + count
    for bucket, rest in ((INPUT, totals[True]), (OUTPUT, totals[False])):
        tokens[bucket] = tokens.get(bucket, 0) + rest
    return {bucket: n for bucket, n in tokens.items() if n}


def _parts(shape: Shape, block: Block, flags: list[str]) -> list[tuple[Part, int]]:
    """The parts that are not zero."""
    found: list[tuple[Part, int]] = []
    seen: dict[str, int] = {}
    for part in shape.parts:
        if part.names.isdisjoint(block):
            continue
        count = _count(block, part.paths, flags)
        if part.sum_path:
            count = max(count, _count(block, (part.sum_path,), flags) - seen.get(part.rule, 0))
        if part.less:
            count = max(0, count - _count(block, (part.less,), flags))
        if count:
            seen[part.rule] = seen.get(part.rule, 0) + count
            found.append((part, count))
    return found


def _beside(
    shape: Shape,
    block: Block,
    base: int,
    parts: Sequence[tuple[Part, int]],
    rules: Mapping[str, str],
    flags: list[str],
) -> list[Part]:
    """The parts that are not in the input's or output's count: as declared, else as the total proves, else by shape."""
    beside = [part for part, _ in parts if rules.get(part.rule, _word(part)) == "excluded"]
    total = _at(block, shape.total) if shape.total else None
    if not shape.proves:
        base += sum(count for part, count in parts if part in beside)
    if type(total) is not int or total <= 0 or total == base:
        return beside
    proof = None if not shape.proves else _summing_to(total - base, parts)
    if proof is None:
        flags.append(f"{shape.total[-1]} {total} is not the sum of its parts")
        return beside
    return beside + [part for part in proof if part.rule not in rules and part not in beside]


def _word(part: Part) -> str:
    return "included" if part.included else "excluded"


def _summing_to(gap: int, parts: Sequence[tuple[Part, int]]) -> list[Part] | None:
    """The fewest parts that make up exactly `gap`."""
    for size in range(1, len(parts) + 1):
        for some in combinations(parts, size):
            if sum(count for _, count in some) == gap:
                return [part for part, _ in some]
    return None


def _add_iterations(
    shape: Shape, block: Block, tokens: dict[Bucket, int], fees: dict[str, int], flags: list[str]
) -> None:
    """Adds the passes that the totals leave out: those of the same model as tokens, those of others as fees by name.

    A compaction runs on the model called; an advisor on its own model.  A fee `claude-opus-4-8:output` counts tokens.
    """
    passes = [item for item in _list(block.get(shape.iterations)) if isinstance(item, dict)]
    outside = [item for item in passes if item.get("type") != "message"]
    if not outside or _sums_up(shape, block, passes):
        return
    for item in outside:
        model = item.get("model")
        for bucket, count in _tokens(shape, item, _NO_RULES, flags).items():
            if isinstance(model, str) and item.get("type") == "advisor_message":
                fees[f"{model}:{bucket}"] = fees.get(f"{model}:{bucket}", 0) + count
            else:
                tokens[bucket] = tokens.get(bucket, 0) + count
        flags.append(f"{str(item.get('type'))[:40]} pass is not in the totals; added")


def _sums_up(shape: Shape, block: Block, passes: Iterable[Block]) -> bool:
    passes = list(passes)
    return all(
        _count(block, paths, []) == sum(_count(item, paths, []) for item in passes)
        for paths in (shape.input, shape.output)
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _tier(block: Block, outside: object, rules: Mapping[str, str]) -> str:
    """The tier that is billed, with speed and place where these cost more; "" for the standard one.

    Whatever else the provider states stays, and has a price or none.
    """
    tier, speed = block.get("service_tier") or outside, block.get("speed")
    geo = block.get("inference_geo")
    if rules:
        tier = rules.get(f"tier:{tier}", tier)
    if not (speed or geo) and (not tier or (isinstance(tier, str) and tier in STANDARD_TIERS)):
        return ""
    place = f"{GEO}{geo}" if geo and str(geo) not in _ANYWHERE else ""
    stated = [str(part)[:TIER_CHARS_MAX] for part in (speed, tier, place) if part]
    return ",".join([part for part in stated if part not in STANDARD_TIERS])


def _reported_cost(block: Block, tokens: Mapping[Bucket, int], flags: list[str]) -> NanoUSD | None:
    if _COST_NAMES.isdisjoint(block):
        return None
    for path, unit in _COSTS:
        value = _at(block, path)
        if value is None or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if path == ("cost_in_usd_ticks",) and not value and tokens:
            continue  # Azure's Grok says 0 for everything
        amount = Decimal(str(value)) * unit
        if not amount.is_finite() or not 0 <= amount < TOKENS_MAX:
            flags.append(f"{'.'.join(path)} is {value!r}")
            return None
        return _nano(amount + _own_key_cost(block))
    return None


def _own_key_cost(block: Block) -> Decimal:
    """OpenRouter with the customer's own key: `cost` is only its fee, the model is paid upstream."""
    upstream = _at(block, ("cost_details", "upstream_inference_cost"))
    if block.get("is_byok") is not True or isinstance(upstream, bool) or not isinstance(upstream, int | float):
        return Decimal(0)
    amount = Decimal(str(upstream))
    return amount if amount.is_finite() and 0 <= amount < TOKENS_MAX else Decimal(0)


def _nano(amount: Decimal) -> NanoUSD:
    return int((amount.quantize(_FINEST) * NANO).to_integral_value(ROUND_CEILING))


def _count(block: Block, paths: Iterable[Path], flags: list[str]) -> int:
    """The first count that is there; 0, with a flag, for what is none."""
    for path in paths:
        value = block.get(path[0])  # most of what may be there is not
        if value is None or (len(path) > 1 and (value := _within(value, path)) is None):
            continue
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is int and 0 <= value <= TOKENS_MAX:
            return value
        flags.append(f"{'.'.join(path)} is {repr(value)[:40]}")
        return 0
    return 0


def _stated(block: Block, paths: Iterable[Path]) -> object:
    """The first that is there, whatever it is."""
    for path in paths:
        if (value := _at(block, path)) is not None:
            return value
    return None


def _at(block: Block, path: Path) -> object:
    value: object = block.get(path[0])
    return value if value is None or len(path) == 1 else _within(value, path)


def _within(value: object, path: Path) -> object:
    """What stands at the path in the value of its first field."""
    for name in path[1:]:
        if isinstance(value, dict):  # to ask for any Mapping takes ten times as long
            value = value.get(name)
        elif isinstance(value, list):
            value = _of_modality(value, name)
        else:
            return None
    return value


def _of_modality(details: list[Any], name: str) -> object:
    """The count of one kind of tokens in Google's list of them; as it came, where it stands but once."""
    counts: list[Any] = [
        item.get("tokenCount") for item in details if isinstance(item, dict) and _modality(item.get("modality")) == name
    ]
    if len(counts) > 1 and all(type(count) is int for count in counts):
        return sum(counts)
    return counts[0] if counts else None


def _modality(value: object) -> object:
    """Its name, though it came as a number."""
    return _MODALITIES[value] if type(value) is int and 0 <= value < len(_MODALITIES) else value
