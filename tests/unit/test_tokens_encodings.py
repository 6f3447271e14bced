"""The shipped encodings: offline, checked, equal to tiktoken's own, and safe on hostile text."""

from __future__ import annotations

import gzip
import hashlib
import socket
import time

import pytest
import tiktoken
from tiktoken_ext import openai_public

from gateway.tokens import encodings
from gateway.tokens.encodings import CL100K, ENCODINGS, O200K, PIECE_CHARS, DamagedRanks

PROSE = (
    "The quick brown fox jumps over the lazy dog, don't you think?\n\tif (x == 10) { return foo_bar(); }  Grüße, 東京! "
)


def packed(name: str) -> bytes:
    return (encodings.DATA / f"{name}.tiktoken.gz").read_bytes()


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("name", [O200K, CL100K])
def test_a_shipped_encoding_is_tiktokens_own(name, tmp_path, monkeypatch, no_network):
    plain = gzip.decompress(packed(name))
    url = f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
    (tmp_path / hashlib.sha1(url.encode()).hexdigest()).write_bytes(plain)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    published = getattr(openai_public, name)()
    ours = ENCODINGS[name]
    assert ours.pattern == published["pat_str"]
    assert ours.special == published["special_tokens"]
    theirs = tiktoken.Encoding(**published)
    assert encodings.load(name).encode_ordinary(PROSE * 20) == theirs.encode_ordinary(PROSE * 20)


def test_a_changed_rank_file_is_refused_with_both_hashes():
    changed = gzip.compress(gzip.decompress(packed(O200K)) + b"\n")
    with pytest.raises(
        DamagedRanks, match=rf"o200k_base has SHA-256 [0-9a-f]{{64}}, expected {ENCODINGS[O200K].sha256}"
    ):
        encodings.build(ENCODINGS[O200K], changed)


@pytest.mark.parametrize("rubbish", [b"", b"not gzip", packed(CL100K)[:1000]])
def test_a_rank_file_that_cannot_be_unpacked_is_refused(rubbish):
    with pytest.raises(DamagedRanks, match="cl100k_base"):
        encodings.build(ENCODINGS[CL100K], rubbish)


def test_a_missing_rank_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(encodings, "DATA", tmp_path)
    with pytest.raises(DamagedRanks, match="o200k_base is missing"):
        encodings.load.__wrapped__(O200K)


def test_o200k_is_built_well_within_the_time_to_be_ready():
    data = packed(O200K)
    began = time.process_time()
    encodings.build(ENCODINGS[O200K], data)
    assert time.process_time() - began < 1.0  # 0.15 s on an idle core of 2024


def test_control_tokens_in_a_text_are_text():
    assert encodings.count("<|endoftext|>") > 1


def test_long_prose_is_cut_only_where_no_token_is():
    text = PROSE * 2_000
    assert len(text) > 10 * PIECE_CHARS
    assert encodings.count(text) == len(encodings.load(O200K).encode_ordinary(text))


def test_pieces_are_bounded_and_join_to_the_text():
    for text in ("x" * 100_000, " " * 50_001, PROSE * 900, "ab " * 30_000, ""):
        found = list(encodings.pieces(text))
        assert "".join(found) == text
        assert max(map(len, found)) <= PIECE_CHARS


HOSTILE = ["a", " ", "\n", "1", "!?", "\u0301", "\0", "'", "aA", "字", "👩‍👩‍👧", "<|endoftext|>", " \n\t", "\ud800"]


@pytest.mark.parametrize("unit", HOSTILE, ids=ascii)
def test_a_megabyte_of_one_thing_is_counted_and_never_above_its_bytes(unit):
    text = unit * (1_000_000 // len(unit))
    began = time.process_time()
    tokens = encodings.count(text)
    assert 0 < tokens <= len(text.encode(errors="surrogatepass"))
    assert time.process_time() - began < 5.0  # quadratic would take minutes
