"""Counting before the provider does: offline encodings, rules per model family, calibration by reported usage.  Pure.

Read `counter` first.  `reading` and `parts` take a request apart, `tools` and `images` say how those are shown and
counted, `families` holds every family's figures, `calibration` what is learned, `memo` what need not be counted again.
"""

from gateway.tokens.content import Content
from gateway.tokens.counter import Counter, simulated_input_tokens
from gateway.tokens.encodings import DamagedRanks
from gateway.tokens.families import FAMILIES, family_of
from gateway.tokens.reading import choices, requested_output, validate

__all__ = [
    "FAMILIES",
    "Content",
    "Counter",
    "DamagedRanks",
    "choices",
    "family_of",
    "requested_output",
    "simulated_input_tokens",
    "validate",
]
