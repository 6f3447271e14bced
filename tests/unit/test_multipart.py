"""Forms: read without copying, and changed without touching what was not meant."""

import httpx
import pytest
from hypothesis import given, strategies as st

from gateway import multipart
from gateway.errors import InvalidRequest

FILE = b"\r\n--not the boundary\r\n\x00\xff--"


def form(data: dict[str, str | list[str]], file: bytes = FILE) -> tuple[bytes, str]:
    """As the official SDK's HTTP client writes it."""
    request = httpx.Request("POST", "http://x", data=data, files={"file": ("a.wav", file)})
    found = multipart.boundary(request.headers["content-type"])
    assert found is not None
    return request.read(), found


def test_fields_are_read_by_name_and_a_file_is_a_view_of_its_bytes() -> None:
    raw, boundary = form({"model": "whisper", "timestamp_granularities[]": ["word", "segment"], "empty": ""})
    fields = multipart.fields(raw, boundary)
    assert bytes(fields.pop("file")) == FILE
    assert fields == {"model": "whisper", "timestamp_granularities": ["word", "segment"], "empty": ""}


@given(model=st.text(min_size=1, max_size=30), file=st.binary(max_size=200))
def test_another_model_changes_nothing_else(model: str, file: bytes) -> None:
    raw, boundary = form({"before": "1", "model": "whisper", "after": "2"}, file)
    edited = multipart.edited(raw, boundary, {"model": model})
    assert edited == raw.replace(b"\r\n\r\nwhisper\r\n", b"\r\n\r\n" + model.encode() + b"\r\n")
    assert multipart.fields(edited, boundary)["model"] == model


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ("multipart/form-data; boundary=abc", "abc"),
        ('Multipart/Form-Data; charset=utf-8; boundary="a b"', "a b"),
        ("application/json", None),
        ("multipart/form-data", None),
        ("", None),
    ],
)
def test_the_boundary_is_what_the_header_names(header: str, boundary: str | None) -> None:
    assert multipart.boundary(header) == boundary


@given(st.binary(max_size=200), st.sampled_from(["b", "--", "x" * 70]))
def test_any_bytes_are_a_form_or_refused(raw: bytes, boundary: str) -> None:
    for body in (raw, b"--" + boundary.encode() + raw, b"--" + boundary.encode() + b"\r\n" + raw):
        try:
            multipart.fields(body, boundary)
        except InvalidRequest:
            continue


def test_a_form_of_endless_parts_is_refused() -> None:
    part = b'--b\r\ncontent-disposition: form-data; name="a"\r\n\r\nx\r\n'
    with pytest.raises(InvalidRequest):
        multipart.fields(part * 200 + b"--b--", "b")


def test_text_that_is_no_text_is_named() -> None:
    with pytest.raises(InvalidRequest) as refused:
        multipart.fields(b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\n\xff\r\n--b--', "b")
    assert refused.value.param == "model"
