"""How each family of models turns a request into input tokens.  Data, and the arithmetic over it.

Every figure was fitted on recorded traffic (requests with the tokens the provider reported), November 2026.  They are
priors: calibration corrects them per deployment.  Where a rule is exact (OpenAI's and the simulated provider's text),
it is the provider's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cache
from math import ceil
from typing import Final

from gateway.tokens import images
from gateway.tokens.encodings import CL100K, O200K
from gateway.tokens.images import ImageTokens
from gateway.types import Deployment


@dataclass(frozen=True, slots=True)
class Family:
    """Tokens a family adds to its text, and how far a first guess may be off (`margin`, a share; `slack`, tokens)."""

    name: str
    encoding: str = O200K
    text: float = 1.0  # times the text's tokens in that encoding
    message: float = 4.0  # per message
    start: float = 3.0  # per request: the priming of the answer, and any hidden system prompt
    unsystem: float = 0.0  # more when the request has no system message: the model's default one
    namespace: bool = False  # tools are shown as a TypeScript namespace, else as JSON
    tools: float = 1.3  # times the tools' tokens
    tool: float = 0.0  # per tool
    tools_start: float = 60.0  # once, with tools
    tools_unsystem: float = 0.0  # more when there are tools and no system message
    forced: float = 0.0  # more when a tool must be called
    named: float = 0.0  # more when the tool to call is named
    call: float = 30.0  # per earlier tool call, its result included
    parallel: float = 0.0  # per message with several calls
    idle: bool = True  # whether tools are shown although the request forbids calling them
    provider_tool: float = 0.0  # per tool that the provider brings itself
    cited: float = 0.0  # once, when a document is to be cited
    schema: float = 1.0  # times the output schema's tokens
    schema_start: float = 20.0
    thinking: float = 0.0
    thoughts: float = 1.0  # the share of what it thought, since the user last said something, that it is shown again
    image: ImageTokens = field(default=images.area(784, 4_096), repr=False)
    audio_second: float = 12.5
    margin: float = 0.15
    slack: float = 30.0
    exact: bool = False


_4O = Family(
    "gpt-4o",
    namespace=True,
    tools=1.0,
    tools_start=5,
    tools_unsystem=4,
    named=9,
    call=7,
    parallel=13,
    schema_start=9,
    image=images.tiles(85, 170),
    audio_second=10,
    margin=0.06,
    slack=12,
)
_5 = replace(
    _4O,
    name="gpt-5",
    start=2,
    tools_start=90,
    tools_unsystem=0,
    named=0,
    call=13,
    parallel=8,
    schema_start=15,
    image=images.tiles(70, 140),
)
_O = replace(_5, name="o-series", tools_start=9, image=images.tiles(75, 150))
_CLAUDE = Family(
    "claude",
    text=1.14,
    message=3,
    start=3,
    tools=1.15,
    tool=15,
    tools_start=495,
    forced=98,
    call=72,
    schema=1.7,
    schema_start=120,
    provider_tool=1_650,
    cited=595,
    thinking=29,
    image=images.area(750, 1_600, 7),
    margin=0.2,
    slack=60,  # the interleaved-thinking beta, unseen in the body, shows tools with 155 tokens more
)
_GEMINI = Family(
    "gemini",
    text=1.04,
    message=0,
    start=1,
    tools=1.0,
    tools_start=0,
    call=15,
    schema=0.0,
    schema_start=0,
    image=images.squares(258, 768, 16),
    audio_second=32,
    slack=20,
)
_GROK = Family(
    "grok",
    start=2,
    tools=1.0,
    tools_start=205,
    call=25,
    idle=False,
    schema=1.8,
    schema_start=0,
    image=images.squares(256, 448, 6),
    slack=80,
)
_LLAMA = Family("llama", start=31, tools=1.15, tools_start=140, call=40, slack=60, margin=0.25)
_MISTRAL = Family(
    "mistral",
    text=1.05,
    message=2,
    start=1,
    tools=1.4,
    tool=10,
    tools_start=1,
    call=4,
    idle=False,
    schema=0.0,
    schema_start=0,
    margin=0.2,
    slack=40,
)
_DEEPSEEK = Family(
    "deepseek", text=1.03, message=2, start=2, tools=1.31, tools_start=215, forced=-114, idle=False, slack=60
)
_QWEN = Family("qwen", text=1.02, message=5, start=3, tools=1.3, tool=8, tools_start=85, call=30, slack=90)

_ROWS: Final = (
    # what the model's name holds (aggregators put "openai/" before it) -> its rules
    (r"^openai/gpt-5(?!-chat)|^openai/gpt-6", replace(_5, name="gpt-5-responses", tools_start=8)),
    (r"^openai/o[134]\b", replace(_O, name="o-series-responses", tools_start=5)),
    (r"gpt-oss", Family("gpt-oss", message=5, start=63, namespace=True, tools=1.0, tools_start=22, call=30, slack=60)),
    (
        r"gpt-image|chatgpt-image",
        Family("gpt-image", message=0, start=6, image=images.flat(400, 7_000), margin=0.3, slack=60),
    ),
    (r"gpt-4o-mini", replace(_4O, name="gpt-4o-mini", image=images.tiles(2_833, 5_667))),
    (r"gpt-4\.1-mini", replace(_4O, name="gpt-4.1-mini", image=images.patches(1.62, 1_536))),
    (r"gpt-4\.1-nano", replace(_4O, name="gpt-4.1-nano", image=images.patches(2.46, 1_536))),
    (r"gpt-4o|gpt-4\.1|gpt-4\.5|chatgpt|gpt-5-chat|gpt-audio", _4O),
    (r"gpt-5-(mini|nano)", replace(_5, name="gpt-5-mini", image=images.patches(1.5, 1_536))),
    (r"gpt-5\.[4-9]|gpt-[6-9]", replace(_5, name="gpt-5.4", image=images.patches(1.2, 10_000))),
    (r"gpt-5|codex", _5),
    (r"(^|/)o4-mini", replace(_O, name="o4-mini", image=images.patches(1.72, 1_536))),
    (r"(^|/)o[134](\b|-)", _O),
    (
        r"gpt-3\.5|gpt-35|gpt-4",
        replace(_4O, name="gpt-4", encoding=CL100K, tools=1.05, call=8, image=images.tiles(85, 170)),
    ),
    (
        r"claude-(opus-4[-.][7-9]|(opus|sonnet|haiku|[a-z]+)-([5-9]|\d\d)(?!\d))",
        replace(_CLAUDE, name="claude-5", text=1.4, message=4, tools=1.6, margin=0.3, image=images.area(750, 4_800, 7)),
    ),
    (r"claude-(haiku-4|opus-4[-.][56]|sonnet-4[-.][56])", replace(_CLAUDE, name="claude-4.5")),
    (
        r"claude-(3[-.]7|opus-4|sonnet-4)",
        replace(_CLAUDE, name="claude-4", tools_start=318, forced=3),
    ),
    (r"claude-3[-.]5-sonnet", replace(_CLAUDE, name="claude-3.5-sonnet", tools_start=310, forced=0)),
    (r"claude-3-opus", replace(_CLAUDE, name="claude-3-opus", tools_start=530, forced=-230)),
    (r"claude.*haiku", replace(_CLAUDE, name="claude-3-haiku", tools_start=270, forced=90)),
    (r"claude", _CLAUDE),
    (r"gemma", Family("gemma", message=2, start=7, slack=30, margin=0.3)),
    (r"gemini-(1|2\.0)", replace(_GEMINI, name="gemini-2.0")),
    (r"gemini-2", replace(_GEMINI, name="gemini-2.5")),
    (r"gemini", replace(_GEMINI, name="gemini-3", image=images.flat(1_085, 2_300))),
    # hosts of the open weights put Mistral's own system prompt before requests that have none
    (r"devstral-small-2505", replace(_MISTRAL, name="devstral-small-2505", unsystem=1_219)),
    (r"mistral-small-3[-.]2", replace(_MISTRAL, name="mistral-small-3.2", unsystem=551)),
    (r"mistral-small-3[-.]1", replace(_MISTRAL, name="mistral-small-3.1", unsystem=171)),
    (r"mistral-small", replace(_MISTRAL, name="mistral-small", unsystem=9)),
    (r"mistral|ministral|magistral|devstral|codestral|mixtral|pixtral|voxtral", _MISTRAL),
    (r"deepseek.*(llama|qwen)", replace(_DEEPSEEK, name="deepseek-distill", start=5)),
    (r"deepseek|mai-ds", _DEEPSEEK),
    (r"kimi|moonshot", Family("kimi", start=3, unsystem=17, tools=1.28, tools_start=15, call=33, slack=60)),
    (r"llama-?4", replace(_LLAMA, name="llama-4", message=5.5, start=4, tools=1.0, tools_start=650)),
    (r"llama|hermes", _LLAMA),
    (r"qwen|qwq", _QWEN),
    (r"grok-2", replace(_GROK, name="grok-2", tools_start=72)),
    (r"grok-3-mini", replace(_GROK, name="grok-3-mini", start=3, tools_start=225, thoughts=0.0)),
    (r"grok-4-0709|grok-4$", replace(_GROK, name="grok-4", start=680, tools_start=150, slack=400)),
    (r"grok-code", replace(_GROK, name="grok-code", start=200, tools_start=132, call=70, slack=400)),
    (r"grok-4", replace(_GROK, name="grok-4-fast", start=152, tools_start=148, call=70, slack=420)),
    (r"grok", _GROK),
    (r"glm", Family("glm", text=1.05, message=2, start=3, tools=1.3, tools_start=100, call=20, slack=40)),
    (r"nova", Family("nova", tools=0.94, tools_start=800, slack=60, image=images.flat(1_819, 2_200), margin=0.3)),
    (
        r"command-a-reasoning",
        Family("cohere-reasoning", start=1_382, tools=1.36, tools_start=300, slack=120, margin=0.3),
    ),
    (r"command|cohere", Family("cohere", start=491, tools=1.36, tools_start=890, slack=120, margin=0.3)),
    (r"sonar", Family("sonar", message=0, start=1, margin=0.1, slack=10)),
    (r"minimax", Family("minimax", message=2, start=40, slack=700, margin=0.3)),
)
_TABLE: Final = tuple((re.compile(pattern), family) for pattern, family in _ROWS)

SIMULATED: Final = Family(
    "simulated",
    thoughts=0.0,
    tools=1.0,
    tools_start=0,
    call=0,
    schema=1.0,
    schema_start=0,
    image=images.flat(85, 85),
    exact=True,
)
UNKNOWN: Final = Family("unknown", text=1.05, start=8, margin=0.4, slack=120)

FAMILIES: Final = {family.name: family for family in (SIMULATED, UNKNOWN, *(family for _, family in _ROWS))} | {
    O200K: replace(_4O, name=O200K),
    CL100K: replace(_4O, name=CL100K, encoding=CL100K),
}
"""By the names that a deployment's `tokenizer` may have."""


def family_of(deployment: Deployment) -> Family:
    """The family whose rules hold: the deployment's `tokenizer`, else by dialect and the upstream model's name.

    Raises ValueError for a `tokenizer` that names none.
    """
    if deployment.tokenizer:
        if (named := FAMILIES.get(deployment.tokenizer)) is None:
            known = ", ".join(sorted(FAMILIES))
            raise ValueError(f"Deployment {deployment.id}: no tokenizer {deployment.tokenizer!r}; known: {known}.")
        return named
    if deployment.provider.dialect == "simulated":
        return SIMULATED
    found = _by_name(deployment.upstream_model.lower())
    if found is UNKNOWN and deployment.provider.dialect == "anthropic":
        return _CLAUDE
    return found


@cache
def _by_name(model: str) -> Family:
    return next((family for pattern, family in _TABLE if pattern.search(model)), UNKNOWN)


def audio_tokens(family: Family, size: int) -> tuple[int, int]:
    """Tokens of `size` bytes of base64 sound: at 128 kbit/s, and at most, at 24 kbit/s."""
    seconds = size * 0.75 / 16_000
    return ceil(seconds * family.audio_second) + 2, ceil(seconds * family.audio_second * 5.4) + 8


def file_tokens(size: int) -> tuple[int, int]:
    """Tokens of a document of `size` bytes of base64 text: a page for each 40 kB, and at most one token a byte."""
    return 1_600 * (1 + size // 40_000), size + 4_000
