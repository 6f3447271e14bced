"""What traffic teaches of what an answer will cost: how much a deployment says, and what it still holds in its cache.

Pure but for what it remembers, which is bounded; times are arguments, unix seconds.  An answer's tokens are learned by
(deployment, task, effort).  A conversation is known by the chain of hashes of its messages: what a deployment has read
of it lately it should have cached, and the share of it that it then reports is learned too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.plan import Talk, asked_effort
from gateway.types import CACHE_READ, REASONING, WRITE_BUCKETS, Bucket, Deployment, Request, Usage

CACHED_MIN = 1024
"""Tokens below which no provider caches a prompt (OpenAI and Anthropic: 1,024), so no request is looked at for less."""
SHARE_FIRST = 0.5
"""Of what a deployment should have cached: how much, until it has reported once."""
UNKNOWN = Talk(300.0)
"""Tokens of an answer, until any deployment has taught better."""
WEIGHT = 0.2  # of the newest answer in a moving average
PREFIXES_MAX = 20_000
TALKS_MAX = 512  # of one deployment: (task, effort)
TTL_S = 300.0
"""How long a provider keeps a prompt unless its usage says otherwise (Anthropic's default; OpenAI: 5 to 10 minutes)."""
LONGER: Mapping[Bucket, float] = {
    Bucket.CACHE_WRITE_30M: 1800.0,
    Bucket.CACHE_WRITE_1H: 3600.0,
    Bucket.CACHE_WRITE_12H: 43_200.0,
}

NOWHERE: Mapping[str, tuple[float, int]] = {}
NEVER = (0.0, 0)

Links = list[tuple[int, int]]
"""Each beginning of what is asked: its hash, and how long it is."""
Talks = dict[tuple[str, str], Talk]
"""By task and effort; "" stands for any task, and for the effort of a request that names none."""


class Habits:
    """One per process."""

    def __init__(self, prefixes_max: int = PREFIXES_MAX) -> None:
        self._prefixes_max = prefixes_max
        self._talks: dict[str, Talks] = {}
        self._typical: dict[str, Talk] = {}  # by effort, until something is learned
        self._held: dict[int, dict[str, tuple[float, int]]] = {}  # prefix: by deployment, until when, how many tokens
        self._shares: dict[str, float] = {}

    def talks(self, deployment: str) -> Talks:
        """What its answers are like; follows what is learned later."""
        found = self._talks.get(deployment)
        if found is None:
            found = self._talks[deployment] = {}
        return found

    def told(self) -> dict[str, dict[str, Any]]:
        """All that is known of how deployments answer, by deployment, as JSON can hold it."""
        return {
            deployment: {
                "talks": [[task, effort, talk.visible, talk.reasoning] for (task, effort), talk in talks.items()],
                "cached_share": self._shares.get(deployment),
            }
            for deployment, talks in self._talks.items()
            if talks
        }

    def recall(self, deployment: str, known: Mapping[str, Any]) -> None:
        """Begins with what `told` said before; what has been learned since counts more."""
        talks = self.talks(deployment)
        self._typical.clear()
        for task, effort, visible, reasoning in known["talks"][:TALKS_MAX]:
            talks.setdefault((task, effort), Talk(visible, reasoning))
        if known["cached_share"] is not None:
            self._shares.setdefault(deployment, known["cached_share"])

    def typical(self, effort: str) -> Talk:
        """What to expect of a deployment that has not answered yet: as many words as others, and no thoughts."""
        found = self._typical.get(effort)
        if found is None:
            known = [talk.visible for talks in self._talks.values() if (talk := talks.get(("", effort))) is not None]
            found = Talk(sum(known) / len(known)) if known else UNKNOWN
            if len(self._typical) < TALKS_MAX:  # efforts are clients' words
                self._typical[effort] = found
        return found

    @property
    def holding(self) -> bool:
        """Whether any deployment may have something cached."""
        return bool(self._held)

    def cached(self, request: Request, now: float, links: Links | None = None) -> dict[str, int]:
        """Tokens of the request that each deployment has likely cached; those that have none are not named.

        `links`: the request's `prefixes`, from who has them already.
        """
        found: dict[str, int] = {}
        if not self._held:
            return found
        for prefix, _ in reversed(links or prefixes(request.body)):
            for deployment, (until, tokens) in self._held.get(prefix, NOWHERE).items():
                if deployment not in found and now < until and tokens >= CACHED_MIN:
                    found[deployment] = round(tokens * self._shares.get(deployment, SHARE_FIRST))
        return found

    def learn(
        self,
        request: Request,
        deployment: Deployment,
        usage: Usage,
        effort: str | None,
        task: str,
        links: Links | None = None,
    ) -> None:
        """A complete answer with the provider's own usage; `links` as in `cached`."""
        self._learn_talk(request, deployment.id, usage, effort, task)
        if CACHE_READ in deployment.price.rates and usage.input_tokens >= CACHED_MIN:
            self._learn_cache(request, deployment, usage, links or prefixes(request.body))

    def _learn_talk(self, request: Request, deployment: str, usage: Usage, effort: str | None, task: str) -> None:
        choices = _choices(request.body.get("n"))
        reasoning = usage.tokens.get(REASONING, 0)
        visible = (usage.output_tokens - reasoning) / choices
        word = asked_effort(request.body) or "" if effort is None else effort
        talk, talks = Talk(visible, reasoning / choices), self.talks(deployment)
        self._typical.clear()
        _note(talks, ("", word), talk)
        if task:
            _note(talks, (task, word), talk)

    def _learn_cache(self, request: Request, deployment: Deployment, usage: Usage, links: Links) -> None:
        now, id_ = request.received, deployment.id
        held, cached = self._longest(id_, links, now), usage.cached_tokens
        if held:
            share = cached / held if cached < held else 1.0
            known = self._shares.get(id_)
            self._shares[id_] = share if known is None else _blend(known, share)
        if not cached and deployment.price.charges_writes and WRITE_BUCKETS.isdisjoint(usage.tokens):
            return  # whoever charges for writing has written nothing
        if links:
            until, length = now + kept_s(usage), links[-1][1] or 1
            for prefix, chars in {links[0], links[-1]}:
                self._hold(prefix, id_, until, usage.input_tokens * chars // length)

    def _hold(self, prefix: int, deployment: str, until: float, tokens: int) -> None:
        places = self._held.pop(prefix, {})
        places[deployment] = (until, tokens)
        self._held[prefix] = places
        while len(self._held) > self._prefixes_max:
            del self._held[next(iter(self._held))]

    def held(self, body: Mapping[str, Any]) -> dict[str, float]:
        """Until when (unix seconds, past or not) each deployment keeps what it has read of its beginning."""
        found: dict[str, float] = {}
        for prefix, _ in prefixes(body):
            found |= {deployment: until for deployment, (until, _) in self._held.get(prefix, {}).items()}
        return found

    def _longest(self, deployment: str, links: Links, now: float) -> int:
        """Tokens of the longest prefix that it has read and not yet forgotten; 0: none."""
        for prefix, _ in reversed(links):
            until, tokens = self._held.get(prefix, NOWHERE).get(deployment, NEVER)
            if now < until and tokens >= CACHED_MIN:
                return tokens
        return 0


def kept_s(usage: Usage) -> float:
    """How long a provider keeps what it has just read or written."""
    if WRITE_BUCKETS.isdisjoint(usage.tokens):
        return TTL_S
    return max((ttl for bucket, ttl in LONGER.items() if bucket in usage.tokens), default=TTL_S)


def prefixes(body: Mapping[str, Any]) -> Links:
    """Each beginning of what is asked; tools and instructions are the first.

    Cache marks are left out: clients move them from turn to turn.
    """
    links: Links = []
    head, length = 0, 0
    tools, system, instructions = body.get("tools"), body.get("system"), body.get("instructions")
    if tools or system or instructions:
        head, length = imprint([tools, system, instructions])
        links.append((head, length))
    turns = body.get("messages")
    if turns is None:
        turns = body.get("input")
    if not isinstance(turns, list):
        turns = [] if turns is None else [turns]
    for turn in turns:
        if type(turn) is dict and len(turn) == 2 and type(text := turn.get("content")) is str:  # most are: quicker
            head, length = hash((head, str(turn.get("role")), text)), length + len(text)
        else:
            print_, chars = imprint(turn)
            head, length = hash((head, print_)), length + chars
        links.append((head, length))
    return links


def imprint(value: object) -> tuple[int, int]:
    """A hash of a JSON value, and how long it is as JSON; 0 for one that is nested deeper than it can be written."""
    try:
        text = orjson.dumps(value)
        if text.find(b'"cache_control"') >= 0:  # `in` raises and catches an error first
            text = orjson.dumps(_unmarked(value))
    except orjson.JSONEncodeError:
        return 0, 0
    return hash(text), len(text)


def _unmarked(value: object) -> object:
    if isinstance(value, dict):
        return {name: _unmarked(inner) for name, inner in value.items() if name != "cache_control"}
    return [_unmarked(inner) for inner in value] if isinstance(value, list) else value


def _note(talks: Talks, key: tuple[str, str], talk: Talk) -> None:
    known = talks.get(key)
    if known is not None:
        talks[key] = Talk(_blend(known.visible, talk.visible), _blend(known.reasoning, talk.reasoning))
    elif len(talks) < TALKS_MAX:
        talks[key] = talk


def _blend(mean: float, value: float) -> float:
    return mean + WEIGHT * (value - mean)


def _choices(asked: object) -> int:
    return asked if isinstance(asked, int) and asked > 0 else 1
