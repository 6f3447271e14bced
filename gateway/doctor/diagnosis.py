"""Why a provider's prompt cache was not read: two fingerprints and what is known of the caches, compared.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.doctor.prints import HEAD, RUNGS, TOOLS, Block, Print
from gateway.types import Bucket, Deployment, NanoUSD

MILLION = 1_000_000
LOST_TOKENS_MIN = 64
LOST_SHARE_MIN = 0.05
"""Of the input: with less than both there is nothing to find; caches go by blocks of up to 128 tokens."""
FULL_SHARE = 0.8
"""Of the input that was read from the cache: nothing is wrong with such a request."""
ALIKE_SHARE = 0.3
"""Of the smaller prompt's head that another has too, wherever: they are of one kind."""
MINIMUM_TOKENS = 1024
MINIMA: tuple[tuple[re.Pattern[str], int], ...] = (
    (re.compile(r"claude.*(?:opus-4-[5-9]|haiku-4-5|opus-5|haiku-5)"), 4096),
    (re.compile(r"claude.*haiku"), 2048),
    (re.compile(r"gemini-2\.5-pro|gemini-3"), 4096),
    (re.compile(r"deepseek|grok"), 128),
)
"""Tokens that the providers' documents say a prompt must have to be cached; MINIMUM_TOKENS for all others."""


class Cause(StrEnum):
    """What kept the cache from being read, or from being written before."""

    TIMESTAMP = "timestamp"
    DATE = "date"
    ID = "id"
    NUMBER = "number"
    REORDERED_TOOLS = "reordered_tools"
    CHANGED_TOOLS = "changed_tools"
    CHANGED_SYSTEM = "changed_system"
    MODEL_SWITCHED = "model_switched"
    EXPIRED = "expired"
    NOT_MARKED = "not_marked"
    TOO_SHORT = "too_short"
    PROVIDER = "provider"


ADVICE: Mapping[Cause, str] = {
    Cause.TIMESTAMP: "Move the time to the end of the prompt, into the last user message, or round it to the day.",
    Cause.DATE: "Move the date to the end of the prompt, into the last user message.",
    Cause.ID: "Move the id (session, user, request) to the end of the prompt, or leave it out.",
    Cause.NUMBER: "Move the number that changes to the end of the prompt.",
    Cause.REORDERED_TOOLS: "Send the tools in one order, and their JSON keys too: sort them by name.",
    Cause.CHANGED_TOOLS: "Send the same tools with every request, and narrow them with tool_choice.",
    Cause.CHANGED_SYSTEM: "Keep what changes in the instructions behind what stays, or in the last user message.",
    Cause.MODEL_SWITCHED: "Keep a conversation on one deployment: the policies `affinity` and `sticky` do.",
    Cause.EXPIRED: "Ask for a longer cache (cache_control ttl 1h, prompt_cache_retention 24h), or send more often.",
    Cause.NOT_MARKED: "Mark the end of what stays with cache_control: this provider caches only what is marked.",
    Cause.TOO_SHORT: "Below the provider's minimum: put more of what stays in front, or mind it no more.",
    Cause.PROVIDER: "Nothing in the prompt: the provider had it and did not read it.  Set prompt_cache_key.",
}


@dataclass(frozen=True, slots=True)
class Visit:
    """One answer: what it had read, and what was known of its prompt before.  Times are unix seconds."""

    deployment: Deployment
    at: float
    input_tokens: int
    cached_tokens: int
    written: bool  # the usage tells of tokens written to the cache
    held: Mapping[str, float]  # by deployment: until when it would keep a beginning of this prompt


@dataclass(frozen=True, slots=True)
class Finding:
    """`lost_tokens` would have been read from the cache had it not been for the cause, which stands at `block` (counted
    from 0), about `token` tokens from the prompt's beginning."""

    cause: Cause
    role: str
    block: int
    token: int
    lost_tokens: int


@dataclass(frozen=True, slots=True)
class Reach:
    """How far two prompts agree: characters in all, and the block where they part."""

    chars: int
    block: int


def alike(one: Print, other: Print) -> float:
    """How much of the smaller head is in the other one too: 0 to 1."""
    first, second = one.pieces(), other.pieces()
    if len(second) < len(first):
        first, second = second, first
    whole = sum(first.values())
    return sum(size for piece, size in first.items() if piece in second) / whole if whole else 0.0


def diagnose(before: Print, now: Print, visit: Visit) -> Finding | None:
    """What is wrong with a prompt, by an earlier one of its kind; None: nothing that costs."""
    if not now.chars:
        return None
    tokens = visit.input_tokens / now.chars
    reaches = [_reach(before, now, rung) for rung in range(len(RUNGS))]
    exact, best = reaches[0], reaches[-1]
    slack = max(LOST_TOKENS_MIN, visit.input_tokens * LOST_SHARE_MIN)
    cause = next(
        (
            Cause(name)
            for name, reach in zip(RUNGS, reaches, strict=True)
            if (reach.chars - exact.chars) * tokens > slack
        ),
        None,
    )
    chars = best.chars
    if cause is None and (changed := _changed(before, now, best)):
        cause, chars = changed, best.chars + _beyond(before, now, best)
    potential = min(visit.input_tokens, round(chars * tokens))
    lost = potential - visit.cached_tokens
    if lost <= slack:
        return None
    least = minimum(visit.deployment)
    if potential < least:
        repeated = 2 * potential >= visit.input_tokens
        return _at(Cause.TOO_SHORT, now, best, tokens, lost) if repeated else None
    if needs_marks(visit.deployment) and not visit.written and not visit.cached_tokens:
        return _at(Cause.NOT_MARKED, now, exact, tokens, lost)
    reached = exact.chars * tokens
    if cause is not None and (reached < least or visit.cached_tokens >= reached - slack):
        return _at(cause, now, exact, tokens, lost)
    return _at(_elsewhere(visit), now, exact, tokens, lost)


def lost_nano(finding: Finding, deployment: Deployment) -> NanoUSD:
    """What the lost tokens cost beyond what reading them would have, at the base rates; 0 where one is not known."""
    rates = deployment.price.rates
    if Bucket.INPUT not in rates or Bucket.CACHE_READ not in rates:
        return 0
    return max(0, finding.lost_tokens * (rates[Bucket.INPUT] - rates[Bucket.CACHE_READ]) // MILLION)


def minimum(deployment: Deployment) -> int:
    """Tokens a prompt must have to be cached there."""
    model = deployment.upstream_model
    return next((tokens for pattern, tokens in MINIMA if pattern.search(model)), MINIMUM_TOKENS)


def needs_marks(deployment: Deployment) -> bool:
    """Whether it caches only what the request marks: those do that charge for writing, and only if they are asked."""
    return deployment.price.charges_writes and not deployment.cache_writes


def _elsewhere(visit: Visit) -> Cause:
    """The prompt is as it was, up to there: where and when was it read last?"""
    here = visit.held.get(visit.deployment.id)
    if here is not None:
        return Cause.PROVIDER if visit.at < here else Cause.EXPIRED
    return Cause.MODEL_SWITCHED if any(visit.at < until for until in visit.held.values()) else Cause.EXPIRED


def _at(cause: Cause, now: Print, reach: Reach, tokens: float, lost: int) -> Finding:
    block = min(reach.block, len(now.blocks) - 1)
    return Finding(cause, now.blocks[block].role, block, round(reach.chars * tokens), lost)


def _reach(before: Print, now: Print, rung: int) -> Reach:
    chars = 0
    for index, (old, new) in enumerate(zip(before.blocks, now.blocks, strict=False)):
        if old.whole == new.whole and old.role == new.role:
            chars += new.chars
            continue
        same = _same(old, new, rung)
        chars += sum(new.sized(rung)[:same]) if same else 0
        if old.role != new.role or not new.rungs or same < max(len(new.rungs[rung]), len(old.rungs[rung])):
            return Reach(chars, index)
    return Reach(chars, min(len(before.blocks), len(now.blocks)))


def _same(old: Block, new: Block, rung: int) -> int:
    """Pieces that agree at the beginning of two blocks."""
    if old.role != new.role or not old.rungs or not new.rungs:
        return 0
    pairs = zip(old.rungs[rung], new.rungs[rung], strict=False)
    return next(
        (index for index, (one, other) in enumerate(pairs) if one != other),
        min(len(old.rungs[rung]), len(new.rungs[rung])),
    )


def _changed(before: Print, now: Print, reach: Reach) -> Cause | None:
    """Whether it is tools or instructions in which they part."""
    roles = {each.blocks[reach.block].role for each in (before, now) if reach.block < len(each.blocks)} & HEAD
    if not roles:
        return None
    return Cause.CHANGED_TOOLS if TOOLS in roles else Cause.CHANGED_SYSTEM


def _beyond(before: Print, now: Print, reach: Reach) -> int:
    """Characters behind the place where two heads part that both have: what could stand in front of it."""
    known = before.pieces()
    wholes = {block.whole for block in before.blocks}
    chars, last = 0, len(RUNGS) - 1
    for index, block in enumerate(now.blocks[reach.block :]):
        if block.whole in wholes:
            chars += block.chars
        elif block.role in HEAD and block.rungs:
            same = _same(before.blocks[reach.block], block, last) if not index and _both(before, reach) else 0
            pairs = zip(block.rungs[last][same:], block.sized(last)[same:], strict=True)
            chars += sum(size for piece, size in pairs if piece in known)
        else:
            break
    return chars


def _both(before: Print, reach: Reach) -> bool:
    return reach.block < len(before.blocks)
