"""Counts a request before the provider does.  One `Counter` per process, made by the composition root.

`content` counts what a request holds once, whatever the candidates; `estimate` turns that into tokens on one
deployment; `learn` corrects later estimates by what the provider reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from math import ceil
from typing import Final, TypeVar

from gateway.tokens import encodings, tools
from gateway.tokens.calibration import Calibration
from gateway.tokens.content import (
    CONTEXT_UNKNOWN,
    Content,
    ceiling,
    first_guess,
    guessed,
    media,
)
from gateway.tokens.encodings import O200K
from gateway.tokens.families import SIMULATED, Family, family_of
from gateway.tokens.memo import Memo, Tally
from gateway.tokens.parts import Body, Facts
from gateway.tokens.reading import canonical, read
from gateway.types import Deployment, Estimate, Format, Request

INLINE_CHARS: Final = 16_000
"""New text counted on the event loop, 2 ms at worst, 0.5 ms for prose; the rest on a thread: tiktoken frees the GIL."""
INLINE_BYTES: Final = 262_144
"""Bodies read on the event loop; a larger one may hold enough tiny parts to hold the loop up."""

_Kind = tuple[str, tuple[bool, bool, bool, bool]]  # deployment, and the kind of a guess
T = TypeVar("T")


class Counter:
    """Counts, estimates and learns.  All methods belong to one event loop."""

    def __init__(self, deployments: Iterable[Deployment] = (), *, memo_entries: int = 50_000) -> None:
        self._memo_entries = memo_entries
        self._tallies: dict[str, Tally] = {}
        self._tools: Memo[tuple[int, int]] = Memo(max(64, memo_entries // 50))
        self._families: dict[str, tuple[Deployment, Family]] = {}
        self._calibrations: dict[_Kind, Calibration] = {}
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="count")
        self._need(O200K)
        self.serve(deployments)

    def serve(self, deployments: Iterable[Deployment]) -> None:
        """These may be asked for from now on: loads the encodings they need, so that no request waits for one.

        Raises ValueError for an unknown `tokenizer`, DamagedRanks for a damaged installation.
        """
        for deployment in deployments:
            self._need(self._family(deployment).encoding)

    def close(self) -> None:
        """Gives the thread back; requests being counted there are cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def content(self, request: Request) -> Content:
        """What the request holds, counted.  Raises InvalidRequest naming the field, and nothing else.

        Does not yield to the event loop unless there is much in it that was not seen before.
        """
        size = len(request.raw)
        if size <= INLINE_BYTES:
            facts = read(request.format, request.body)
        else:
            facts = await self._off_loop(partial(read, request.format, request.body))
        if size <= INLINE_CHARS or self._unseen(facts) <= INLINE_CHARS:
            return self._counted(facts, size)
        return await self._off_loop(partial(self._counted, facts, size))

    def estimate(
        self, content: Content, deployment: Deployment, thinking: bool | None = None
    ) -> Estimate:  # a fact, not a mode
        """Input tokens on that deployment: calibrated once it has reported, before that by its family's rules.

        `thinking` is whether the call will ask for it; None: as the client's request does.
        """
        family = self._family(deployment)
        guess = guessed(family, content, content.facts.thinking if thinking is None else thinking)
        if family.exact:
            exact = ceil(guess.tokens)
            return Estimate(exact, exact)
        calibration = self._calibrations.get((deployment.id, guess.kind))
        if calibration is None:
            expected, doubt, shown = guess.tokens, guess.tokens * family.margin + family.slack, 0.0
        else:
            expected = calibration.expected(guess.tokens)
            doubt, shown = calibration.first_headroom(guess.tokens), calibration.headroom(guess.tokens)
        bound, shown_bound = ceil(expected + doubt), ceil(expected + shown)
        if bound > content.bytes:  # every ceiling is above
            bound = min(bound, ceiling(family, content))
        if bound < shown_bound:
            bound = shown_bound
        bound += guess.more
        if content.facts.opaque:
            bound = max(bound, deployment.context_max or CONTEXT_UNKNOWN)
        return Estimate(round(expected), bound)

    def learn(
        self,
        deployment: Deployment,
        content: Content,
        reported_input_tokens: int,
        thinking: bool | None = None,  # a fact, not a mode
    ) -> None:
        """Calibrates by what the provider reported for this content, cached tokens included."""
        family = self._family(deployment)
        if reported_input_tokens <= 0 or family.exact or content.facts.opaque:
            return
        guess = guessed(family, content, content.facts.thinking if thinking is None else thinking)
        kind = (deployment.id, guess.kind)
        calibration = self._calibrations.get(kind)
        if calibration is None:
            calibration = self._calibrations[kind] = Calibration(family.margin, family.slack)
        calibration.learn(guess.tokens, reported_input_tokens)

    def count_text(self, text: str, deployment: Deployment) -> int:
        """Our own count of generated text, for a stream that broke before its usage came."""
        family = self._family(deployment)
        return ceil(encodings.count(text, family.encoding) * family.text)

    async def count_long_text(self, text: str, deployment: Deployment) -> int:
        """`count_text`, off the event loop when the text is long."""
        if len(text) <= INLINE_CHARS:
            return self.count_text(text, deployment)
        return await self._off_loop(partial(self.count_text, text, deployment))

    def _family(self, deployment: Deployment) -> Family:
        known = self._families.get(deployment.id)
        if known is not None and known[0] is deployment:
            return known[1]
        family = family_of(deployment)
        self._families[deployment.id] = deployment, family
        return family

    def _need(self, encoding: str) -> None:
        if encoding not in self._tallies:
            encodings.load(encoding)
            self._tallies[encoding] = Tally(self._memo_entries, partial(encodings.count, name=encoding))

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _unseen(self, facts: Facts) -> int:
        tally = self._tallies[O200K]
        texts = chain(facts.texts, facts.thoughts, facts.old_thoughts)
        unseen = sum(len(text) for text in texts if not tally.knows(text))
        if facts.schema and not tally.knows(facts.schema):
            unseen += len(facts.schema)
        if facts.tools and not self._tools.knows(facts.tools_raw):
            unseen += 2 * len(facts.tools_raw)
        return unseen * len(self._tallies)

    def _counted(self, facts: Facts, size: int) -> Content:
        content = Content(facts, size, {name: tally.total(facts.texts) for name, tally in self._tallies.items()})
        if facts.tokens:
            content.text = {name: facts.tokens + tokens for name, tokens in content.text.items()}
        if facts.schema:
            content.schema = self._tallies[O200K].one(facts.schema)
        if facts.tools:
            content.tools_json, content.tools_namespace = self._tools.of(facts.tools_raw, partial(_tool_tokens, facts))
            facts.tools_raw = b""  # it is long, and needed no more
        if facts.thoughts or facts.old_thoughts:
            total = self._tallies[O200K].total
            content.thoughts, content.old_thoughts = total(facts.thoughts), total(facts.old_thoughts)
        return content


def _tool_tokens(facts: Facts) -> tuple[int, int]:
    listed = canonical(facts.tools)
    return encodings.count(tools.as_json(listed)), encodings.count(tools.as_namespace(listed))


def simulated_input_tokens(format: Format, body: Body) -> int:  # noqa: A002  # the noun of gateway.types
    """Input tokens as the simulated provider reports them: what `Counter.estimate` expects and bounds, exactly.

    o200k tokens of all text, 4 per message and 3, tools and output schema as JSON, 85 per picture.

    Raises InvalidRequest.
    """
    facts = read(format, body)
    content = Content(facts, 0, {O200K: sum(map(encodings.count, facts.texts))})
    if facts.schema:
        content.schema = encodings.count(facts.schema)
    if facts.tools:
        content.tools_json, content.tools_namespace = _tool_tokens(facts)
    return ceil(first_guess(SIMULATED, content, facts.thinking) + media(SIMULATED, facts)[0])
