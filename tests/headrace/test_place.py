import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.place import nearest_place, path_of, place_of

NAMES = st.lists(st.text(st.sampled_from('ab."\\ ä'), max_size=5), min_size=1, max_size=4).map(tuple)


@given(NAMES)
def test_every_path_can_be_written_and_read_back(path):
    assert path_of(place_of(path)) == path


@pytest.mark.parametrize("place", ["", ".", "a.", ".a", "a..b", '"a', '"a"b', '"a".', 'a."b'])
def test_what_is_no_place(place):
    with pytest.raises(ValueError, match="no place in an event"):
        path_of(place)


def test_plain_names_are_what_they_were():
    for name in ("id", "event_id", "my id", "ä", 'a"b', "a[0]", "$id"):
        assert path_of(name) == (name,)


def test_the_nearest_place_is_told_in_the_words_of_who_asks():
    known = [("event", "id"), ("meta", "ts"), ("user",), ("app.version",)]
    assert nearest_place(("user_id",), [("user",)]) == "did you mean 'user'?"
    assert nearest_place(("id",), known) == "did you mean 'event.id'?"
    assert nearest_place(("id",), known, feature=True) == 'did you mean path = "event.id"?'
    assert (
        nearest_place(("app", "version"), known) == 'did you mean the column of that name, { column = "app.version" }?'
    )
    assert 'name, column = "app.version"?' in nearest_place(("app", "version"), known, feature=True)
    assert nearest_place(("event.id",), known) == "did you mean 'event.id'?"
    assert nearest_place(("zzz",), known) == ""
