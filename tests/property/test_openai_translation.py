"""What OpenAI's two formats share beyond the others: sound in requests, and the probabilities of tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from gateway.conversation import Audio, Conversation, Finish, Role, Sampling, Text, Turn
from gateway.dialects.deltas import Delta, Finished, PartEnded, Started, TextDelta, UsageSeen, fold
from gateway.dialects.translate import CODECS
from gateway.types import Bucket, Format, Usage
from tests.property.test_responses_translation import as_told
from tests.property.test_translation import base64, plain, read, through, words, written

FORMATS = [Format.CHAT, Format.RESPONSES]
PAIRS = [(first, second) for first in FORMATS for second in FORMATS]

sounds = st.builds(Audio, base64, st.sampled_from(["wav", "mp3"]))
samplings = st.builds(lambda top: Sampling(logprobs=True, top_logprobs=top), st.none() | st.integers(1, 20)) | st.just(
    Sampling()
)
probable = st.fixed_dictionaries({"token": words, "logprob": st.floats(-20, 0), "bytes": st.none()})
tokens = st.builds(lambda token, others: {**token, "top_logprobs": others}, probable, st.lists(probable, max_size=2))


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    said = [Text(draw(words)), *draw(st.lists(sounds, min_size=1, max_size=3)), Text(draw(words))]
    return Conversation((Turn(Role.USER, tuple(said)),), sampling=draw(samplings))


@pytest.mark.parametrize(("first", "second"), PAIRS)
@settings(max_examples=30)
@given(conversations())
def test_sound_and_the_wish_for_probabilities_survive_both_formats(
    first: Format, second: Format, conversation: Conversation
) -> None:
    there_and_back = through(CODECS[second], through(CODECS[first], conversation))
    assert there_and_back.turns == conversation.turns
    assert there_and_back.sampling == conversation.sampling


@st.composite
def streams(draw: st.DrawFn) -> list[Delta]:
    """Each piece of text with the probabilities of its tokens, as providers send them."""
    pieces = draw(st.lists(st.tuples(words, st.lists(tokens, min_size=1, max_size=3)), min_size=1, max_size=4))
    said = [TextDelta(piece, logprobs={"content": known}) for piece, known in pieces]
    usage = Usage({Bucket.INPUT: 3, Bucket.OUTPUT: 5})
    return [Started("id_1", "model-1"), *said, PartEnded(), Finished(Finish.END), UsageSeen(usage)]


@pytest.mark.parametrize(("first", "second"), PAIRS)
@settings(max_examples=30)
@given(streams())
def test_probabilities_survive_both_formats_of_a_stream(first: Format, second: Format, deltas: list[Delta]) -> None:
    there = read(CODECS[first], written(CODECS[first], deltas))
    back = plain(fold(read(CODECS[second], written(CODECS[second], there))))
    assert back.answers[0].logprobs
    assert replace(back, id="resp_r1") == as_told(fold(deltas))
