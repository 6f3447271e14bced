"""Ids of stored responses: they say where, to whom they were told and to nobody else."""

import pytest
from hypothesis import given, strategies as st

from gateway.dialects import stored
from gateway.dialects.stored import Stored
from gateway.errors import NotFound

IDS = st.from_regex(r"\w[\w.:-]{0,60}", fullmatch=True)


@given(st.text(min_size=1, max_size=40), IDS, st.text(max_size=20))
def test_an_id_comes_back_as_what_it_stands_for(deployment: str, id_: str, tenant: str) -> None:
    found = Stored(deployment, id_)
    assert stored.read(found.told(tenant), tenant) == found


@given(st.text(max_size=20), st.text(max_size=20))
def test_what_one_tenant_was_told_is_nothing_to_another(one: str, other: str) -> None:
    told = Stored("d", "resp_1").told(one)
    if one != other:
        with pytest.raises(NotFound):
            stored.read(told, other)


@given(st.text(max_size=80) | st.text("abcdefg234567_", max_size=40).map("resp_tg_{}".format))
def test_any_other_text_is_no_id(text: str) -> None:
    with pytest.raises(NotFound):
        stored.read(text, "acme")


@pytest.mark.parametrize("id_", ["..", ".", "../../secrets", "a/b", "x?y=1", "x#y", "", "a b", "%2e%2e"])
def test_an_id_that_would_lead_elsewhere_is_none(id_: str) -> None:
    with pytest.raises(NotFound):
        stored.read(Stored("d", id_).told("acme"), "acme")
