"""Events out of bytes: the cases one can name."""

import pytest

from gateway import sse
from gateway.errors import UpstreamBroken


@pytest.mark.parametrize(
    ("raw", "name", "data"),
    [
        (b"data: x\n\n", "", b"x"),
        (b"data:x\n\n", "", b"x"),
        (b"data:  x\n\n", "", b" x"),
        (b"data: a\ndata: b\n\n", "", b"a\nb"),
        (b"data: a\r\ndata: b\r\n\r\n", "", b"a\nb"),
        (b"data: a\rdata: b\r\r", "", b"a\nb"),
        (b"event: ping\ndata: {}\n\n", "ping", b"{}"),
        (b"\ndata: x\n\n", "", b"x"),
        (b"data\n\n", "", b""),
        (b": comment\n\n", "", None),
        (b"id: 1\nretry: 5\n\n", "", None),
        (b"\n\n", "", None),
        (b"\xef\xbb\xbfdata: x\n\n", "", b"x"),
        (b"data: x", "", b"x"),
    ],
)
def test_an_event_reads_as_the_standard_says(raw: bytes, name: str, data: bytes | None) -> None:
    assert sse.parse(raw) == (name, data)


def test_a_chunk_of_whole_events_is_not_copied() -> None:
    chunk = b'data: {"a":1}\n\n'
    assert sse.Splitter().feed(chunk)[0] is chunk


def test_a_carriage_return_waits_for_its_line_feed() -> None:
    splitter = sse.Splitter()
    assert splitter.feed(b"data: x\r\n\r") == []
    assert splitter.feed(b"\ndata: y") == [b"data: x\r\n\r\n"]
    assert splitter.rest() == b"data: y"


@pytest.mark.parametrize(
    "chunks", [[b"data: 12345\n\n"], [b"data: 12345"], [b"data:", b" 12345"], [b"data: 1\r\n", b"2345\r\n"]]
)
def test_an_event_that_is_too_large_breaks_the_stream(chunks: list[bytes]) -> None:
    splitter = sse.Splitter(event_bytes_max=10)
    with pytest.raises(UpstreamBroken, match="more than 10 bytes"):
        [splitter.feed(chunk) for chunk in chunks]


def test_many_small_events_are_not_too_large() -> None:
    assert len(sse.Splitter(event_bytes_max=10).feed(b"data: 1\n\n" * 100)) == 100


def test_data_of_several_lines_is_written_as_several_data_lines() -> None:
    assert sse.event(b"a\nb", "x") == b"event: x\ndata: a\ndata: b\n\n"
