"""However a stream is cut into chunks, its events are the same."""

from itertools import pairwise

from hypothesis import given, strategies as st

from gateway import sse

ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINES = st.sampled_from(
    [
        b"",
        b"",
        b": comment",
        b"data: {}",
        b"data:x",
        b"data: \xc3\xa9\xf0\x9f\x98\x80",
        b"event: ping",
        b"id: 7",
        b"data",
        b"odd",
    ]
)
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=30).map(lambda pairs: b"".join(line + end for line, end in pairs))


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


def read(chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    splitter = sse.Splitter()
    return [event for chunk in chunks for event in splitter.feed(chunk)], splitter.rest()


@given(STREAMS, st.lists(st.integers(0, 10_000)))
def test_events_do_not_depend_on_where_a_stream_is_cut(stream: bytes, places: list[int]) -> None:
    whole = read([stream])
    assert read(cut(stream, places)) == whole
    assert read([stream[i : i + 1] for i in range(len(stream))]) == whole


@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000)))
def test_no_byte_is_lost_or_added(stream: bytes, places: list[int]) -> None:
    events, rest = read(cut(stream, places))
    assert b"".join(events) + rest == stream


@given(STREAMS)
def test_what_is_relayed_reads_as_what_came(stream: bytes) -> None:
    """Lines joined the way the standard reads them, against our events."""
    expected: list[list[bytes]] = [[]]
    for line in stream.splitlines():
        if line:
            expected[-1].append(line)
        else:
            expected.append([])
    data = [
        b"\n".join(
            line[4:].removeprefix(b":").removeprefix(b" ") for line in lines if line == b"data" or line[:5] == b"data:"
        )
        for lines in expected
        if any(line == b"data" or line[:5] == b"data:" for line in lines)
    ]
    events, rest = read([stream])
    parsed = [sse.parse(event).data for event in [*events, rest]]
    assert [one for one in parsed if one is not None] == data


@given(st.text(), st.sampled_from(["", "ping", "message_delta"]))
def test_an_event_that_is_written_reads_back(text: str, name: str) -> None:
    data = text.encode()
    read_back = sse.parse(sse.event(data, name))
    assert read_back.name == name
    assert read_back.data == b"\n".join(data.splitlines())
