"""Comma lists: what is joined is split again; quotes open only in front."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeconf.database.lists import ListError, join_list, split_list

entries = st.lists(st.text(st.sampled_from("ab ,'\":\t%")), max_size=5)


@given(entries)
def test_list_that_is_joined_is_split_into_the_same_entries(items: list[str]) -> None:
    """Empty entries are dropped; what cannot be quoted is refused."""
    if any("," in item and "'" in item and '"' in item for item in items):
        with pytest.raises(ListError, match="a comma and both kinds of quotes"):
            join_list(items)
        return

    try:
        value = join_list(items)
    except ListError:  # in need of quotes for a blank or quote in front
        assert any("'" in item and '"' in item for item in items)
        return

    assert split_list(value) == [item for item in items if item]


@given(st.text(st.sampled_from("ab ,'\":\t")))
def test_any_value_is_split_or_refused(value: str) -> None:
    try:
        items = split_list(value)
    except ListError:
        assert "'" in value or '"' in value
        return

    assert all(items)
    assert "".join(items).count("a") == value.count("a")


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("", []),
        (" , ,", []),
        ("a", ["a"]),
        (" a , b\t,c ", ["a", "b", "c"]),
        ("a,,b", ["a", "b"]),
        ("zone:Don't send", ["zone:Don't send"]),
        ('zone:Don\'t send,b:say "no"', ["zone:Don't send", 'b:say "no"']),
        ('"zone:No, thanks",b', ["zone:No, thanks", "b"]),
        ("'zone:No, \"you\"' , b", ['zone:No, "you"', "b"]),
        ('" a "', [" a "]),
        ('"",a', ["a"]),
        ("a b", ["a b"]),
    ],
)
def test_entries_of_a_list(value: str, items: list[str]) -> None:
    assert split_list(value) == items


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("a,'b", "entry 2 opens a quote (') and never closes it"),
        ('"', 'entry 1 opens a quote (") and never closes it'),
        ('"a"b,c', "entry 1 goes on behind its closing quote: 'b'"),
    ],
)
def test_list_that_cannot_be_read_says_which_entry(value: str, reason: str) -> None:
    with pytest.raises(ListError) as caught:
        split_list(value)

    assert str(caught.value) == reason


def test_entries_are_quoted_only_where_they_must_be() -> None:
    items = ["a", "b:Don't", "c, d", 'e, "f"', "'g'", " h"]

    assert join_list(items) == """a,b:Don't,"c, d",'e, "f"',"'g'"," h\""""
