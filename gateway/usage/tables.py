"""Where the figures stand in each wire shape of a usage block, and what usually contains what; see `gateway.usage`.

Measured on recorded traffic.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from gateway.types import Bucket

Path: TypeAlias = tuple[str, ...]

SEARCH_SIZE = "search_context_size"
"""In any shape: how much a call searched, which its fee may depend on."""


@dataclass(frozen=True)
class Part:
    """A kind of tokens: where its count stands (the first path that is there holds) and in which total it may be."""

    bucket: Bucket
    paths: tuple[Path, ...]
    rule: str  # what a provider entry calls it: cached, cache_writes, reasoning, audio, image
    included: bool = True  # in the count of the input or output, or beside it
    sum_path: Path = ()  # where this and the earlier parts of the same rule stand as one figure
    less: Path = ()  # what of it another part has already

    @cached_property
    def names(self) -> frozenset[str]:
        """The fields of a block that it is worked out from."""
        return frozenset(path[0] for path in (*self.paths, self.sum_path, self.less) if path)


@dataclass(frozen=True, slots=True)
class Tools:
    """Calls of the provider's own tools, by name: whichever it counts is a fee, also one that nobody knows yet."""

    path: Path
    ending: str  # of the names, which is no part of the fee's
    free: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Shape:
    """One wire shape of a usage block.  A block names few of its fields: nothing is looked for under other names."""

    input: tuple[Path, ...]
    output: tuple[Path, ...]
    parts: tuple[Part, ...]
    total: Path = ()
    fees: tuple[tuple[str, Path], ...] = ()
    tools: Tools | None = None
    lifetimes: Path = ()  # cache writes by how long they are kept; those that no part reads have no price
    iterations: str = ""  # the field that lists the passes of a call, not all of them in the totals
    proves: bool = True  # whether the total may show that a part is beside, against the shape

    @cached_property
    def totals(self) -> tuple[Path, ...]:
        """Where what went in or came out may stand: a block with none of them says nothing."""
        return (*self.input, *self.output)

    @cached_property
    def part_names(self) -> frozenset[str]:
        """The fields of a block that any part is worked out from."""
        return frozenset[str]().union(*(part.names for part in self.parts))

    @cached_property
    def known_lifetimes(self) -> frozenset[str]:
        """The lifetimes of cache writes that are parts."""
        paths = (path for part in self.parts for path in part.paths)
        return frozenset(path[-1] for path in paths if path[:-1] == self.lifetimes)

    @cached_property
    def fee_names(self) -> frozenset[str]:
        """The fields of a block that fees may stand in, or what has no price."""
        paths = [path for _, path in self.fees] + [self.lifetimes, self.tools.path if self.tools else ()]
        return frozenset({SEARCH_SIZE, *(path[0] for path in paths if path)})


CHAT = Shape(
    input=(("prompt_tokens",),),
    output=(("completion_tokens",),),
    parts=(
        Part(
            Bucket.CACHE_READ,
            (
                ("prompt_tokens_details", "cached_tokens"),
                ("prompt_cache_hit_tokens",),
                ("num_cached_tokens",),
                ("cached_tokens",),
                ("cache_read_input_tokens",),
            ),
            "cached",
        ),
        Part(
            Bucket.CACHE_WRITE_30M,
            (("prompt_tokens_details", "cache_write_tokens"), ("cache_creation_input_tokens",)),
            "cache_writes",
        ),
        Part(Bucket.AUDIO_IN, (("prompt_tokens_details", "audio_tokens"),), "audio"),
        Part(Bucket.IMAGE_IN, (("prompt_tokens_details", "image_tokens"),), "image"),
        Part(Bucket.VIDEO_IN, (("prompt_tokens_details", "video_tokens"),), "video"),
        Part(Bucket.REASONING, (("completion_tokens_details", "reasoning_tokens"), ("reasoning_tokens",)), "reasoning"),
        Part(Bucket.AUDIO_OUT, (("completion_tokens_details", "audio_tokens"),), "audio"),
        Part(Bucket.IMAGE_OUT, (("completion_tokens_details", "image_tokens"),), "image"),
    ),
    total=("total_tokens",),
    fees=(
        ("search_source", ("num_sources_used",)),
        ("web_search", ("num_search_queries",)),  # Perplexity
        ("citation_token", ("citation_tokens",)),
    ),
    tools=Tools(("server_tool_use_details",), "_requests", frozenset({"web_fetch"})),
)
"""OpenAI's Chat Completions and what is made in its image."""

MESSAGES = Shape(
    input=(("input_tokens",),),
    output=(("output_tokens",),),
    parts=(
        Part(Bucket.CACHE_READ, (("cache_read_input_tokens",),), "cached", included=False),
        Part(Bucket.CACHE_WRITE_1H, (("cache_creation", "ephemeral_1h_input_tokens"),), "cache_writes", included=False),
        Part(
            Bucket.CACHE_WRITE_5M,
            (("cache_creation", "ephemeral_5m_input_tokens"),),
            "cache_writes",
            included=False,
            sum_path=("cache_creation_input_tokens",),
        ),
        Part(Bucket.REASONING, (("output_tokens_details", "thinking_tokens"),), "reasoning"),
    ),
    tools=Tools(("server_tool_use",), "_requests", frozenset({"web_fetch"})),
    lifetimes=("cache_creation",),
    iterations="iterations",
)
"""Anthropic's Messages, wherever they are served."""

GEMINI = Shape(
    input=(("promptTokenCount",),),
    output=(("candidatesTokenCount",),),
    parts=(
        Part(Bucket.AUDIO_CACHE_READ, (("cacheTokensDetails", "AUDIO"),), "cached"),
        Part(Bucket.CACHE_READ, (), "cached", sum_path=("cachedContentTokenCount",)),
        Part(Bucket.AUDIO_IN, (("promptTokensDetails", "AUDIO"),), "audio", less=("cacheTokensDetails", "AUDIO")),
        Part(Bucket.IMAGE_IN, (("promptTokensDetails", "IMAGE"),), "image", less=("cacheTokensDetails", "IMAGE")),
        Part(Bucket.VIDEO_IN, (("promptTokensDetails", "VIDEO"),), "video", less=("cacheTokensDetails", "VIDEO")),
        Part(Bucket.INPUT, (("toolUsePromptTokenCount",),), "tool_use", included=False),
        Part(Bucket.REASONING, (("thoughtsTokenCount",),), "reasoning", included=False),
        Part(Bucket.AUDIO_OUT, (("candidatesTokensDetails", "AUDIO"),), "audio"),
        Part(Bucket.IMAGE_OUT, (("candidatesTokensDetails", "IMAGE"),), "image"),
    ),
    total=("totalTokenCount",),
    proves=False,
)
"""Google's generateContent: what tools read and what the model thought are beside the totals."""

RESPONSES = Shape(
    input=(("input_tokens",),),
    output=(("output_tokens",),),
    parts=(
        Part(
            Bucket.CACHE_READ,
            (("input_tokens_details", "cached_tokens"), ("prompt_tokens_details", "cached_tokens")),
            "cached",
        ),
        Part(Bucket.CACHE_WRITE_30M, (("input_tokens_details", "cache_write_tokens"),), "cache_writes"),
        Part(Bucket.AUDIO_IN, (("input_tokens_details", "audio_tokens"),), "audio"),
        Part(Bucket.IMAGE_IN, (("input_tokens_details", "image_tokens"),), "image"),
        Part(Bucket.REASONING, (("output_tokens_details", "reasoning_tokens"),), "reasoning"),
        Part(Bucket.AUDIO_OUT, (("output_tokens_details", "audio_tokens"),), "audio"),
        Part(Bucket.IMAGE_OUT, (("output_tokens_details", "image_tokens"),), "image"),
    ),
    total=("total_tokens",),
    fees=(("search_source", ("num_sources_used",)),),
    tools=Tools(("server_side_tool_usage_details",), "_calls", frozenset({"mcp"})),  # xAI
)
"""OpenAI's Responses and what is made in its image."""

ENDPOINTS = Shape(
    input=(("input_tokens",), ("prompt_tokens",), ("total_tokens",)),
    output=(("output_tokens",), ("completion_tokens",)),
    parts=(
        Part(Bucket.CACHE_READ, (("input_tokens_details", "cached_tokens"),), "cached"),
        Part(Bucket.IMAGE_IN, (("input_tokens_details", "image_tokens"),), "image"),
        Part(Bucket.IMAGE_IN, (("image_tokens",),), "image", included=False),  # Cohere's embeddings
        Part(
            Bucket.AUDIO_IN,
            (("input_token_details", "audio_tokens"), ("prompt_tokens_details", "audio_tokens")),
            "audio",
        ),
        Part(Bucket.IMAGE_OUT, (("output_tokens_details", "image_tokens"),), "image"),
    ),
    total=("total_tokens",),
)
"""Embeddings, rerank, images, transcriptions: what is counted in tokens of them."""
