"""The text of a database: what goes in comes out, and nothing else moves."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smeconf.database.record import BLANKS, Document, FormatError, Record, decode

ESMITH = (
    "# DO NOT MODIFY THIS FILE.\n"
    "# This file is automatically maintained by the Mitel Networks SME Server\n"
    "# configuration software.  Manually editing this file may put your\n"
    "# system in an unknown state.\n"
    "# updated: Tue Nov 24 10:00:00 2020\n"
    "DomainName=example.com\n"
    "EmailUnknownUser=returntosender\n"
    "Empty=\n"
    "LocalIP=192.168.1.1\n"
    "httpd-admin=service|PermitPlainTextAccess|no|TCPPort|980|ValidFrom||status|enabled\n"
    "k=|Prop|only\n"
    "qpsmtpd=service|RBLList|a.test:x=1,b.test|access|public|status|enabled|text|a\\|b\\nc\n"
    "smtpd=service|\n"
)

# The characters that mean something to the format, and bytes that are no UTF-8.
SHARP = "ab|\\n\n\r\t =#,\"'\0\v\x7f\x85\xa0\u00e9\u2028\ud83d\udc80\udcff"
texts = st.one_of(
    st.text(st.sampled_from([c for c in SHARP if not "\ud800" <= c < "\udc80"])),
    st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")),
)
keys = st.one_of(st.sampled_from(["qpsmtpd", "a", "b", "B", "\u00e9"]), texts)
names = st.one_of(st.sampled_from(["status", "A", "b", "~"]), texts)
changes = st.tuples(
    st.sampled_from(["set", "setprop", "delprop", "delete"]), keys, names, texts, texts
)
Model = dict[str, tuple[str, dict[str, str]]]


def reopen(text: str) -> Document:
    """As the next process reads it: through bytes."""
    data = text.encode("utf-8", "surrogateescape")
    return Document(data.decode("utf-8", "surrogateescape"))


def contents(document: Document) -> Model:
    records = ((key, document.find(key)) for key in document)
    return {
        key: (record.type, record.properties)
        for key, record in records
        if record is not None
    }


@given(st.lists(changes, max_size=12))
@example([("setprop", "k", "p", "a|b", "t"), ("setprop", "k", "q", "x", "t")])
@example([("setprop", "k", "p", "a\\|b", "t")])
@example([("setprop", "k", "p", "\\\n|", "t"), ("setprop", "k", "o", "|", "t")])
@settings(max_examples=300, deadline=None)
def test_what_is_accepted_comes_back_whatever_else_changed(
    history: list[tuple[str, str, str, str, str]],
) -> None:
    """Each change is followed by a write and a read; a dict tells what is expected."""
    text, model = "", Model()
    for verb, key, name, value, type in history:
        document = reopen(text)
        record = document.find(key)
        try:
            if verb == "delete":
                document.delete(key)
                del model[key]
            elif verb == "delprop" and record:
                record.properties.pop(name, None)
                document.put(key, record)
                model[key][1].pop(name, None)
            elif verb == "set":
                document.put(key, Record(type, {name: value}))
                model[key] = (type, {name: value})
            elif verb == "setprop":
                record = record or Record("service")
                record.properties[name] = value
                document.put(key, record)
                model[key] = (record.type, {**record.properties})
        except (FormatError, KeyError):
            assert document.text("today") == reopen(text).text("today")
        text = document.text("today")

        assert contents(reopen(text)) == model


@given(texts)
def test_what_is_refused_says_why_in_one_line(value: str) -> None:
    document = Document("k=service|after|1\n")

    try:
        document.put("k", Record("service", {"after": "1", "p": value}))
    except FormatError as error:
        reason = str(error)
    else:
        return

    assert reason.startswith("property p: a b")
    assert "\n" not in reason
    assert document.text("today").endswith("k=service|after|1\n")


@given(st.binary())
def test_reading_never_fails_and_never_invents(data: bytes) -> None:
    """Whatever a file holds: keys, records, and lines left as they are."""
    text = data.decode("utf-8", "surrogateescape")
    document = Document(text)

    for key in document:
        assert key in document
        assert document.find(key) is not None
    assert len(document) == len(document.keys())
    lines = [line for line in text.split("\n") if line]
    after = document.text("today").split("\n")
    assert all(line in after for line in lines if not line.startswith("# updated:"))


@given(st.dictionaries(texts, texts, max_size=6), texts, st.integers(0, 5))
def test_record_formats_to_itself(
    properties: dict[str, str], type: str, place: int
) -> None:
    try:
        raw = Record(type, properties).format()
    except FormatError:
        return

    assert "\n" not in raw
    assert Record.parse(raw) == Record(type, properties)
    assert Record.parse(raw).format() == raw


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("a\\nb", "a backslash followed by n"),
        ("a\\", "a backslash at the end"),
        ("a ", "a blank at the end"),
        ("a\n", "a blank at the end"),
        ("a\t", "a blank at the end"),
    ],
)
def test_value_that_would_come_back_changed_is_refused(value: str, reason: str) -> None:
    with pytest.raises(FormatError, match=f"^property p: {reason}"):
        Record("service", {"p": value}).format()

    with pytest.raises(FormatError, match=f"^type .*: {reason}|a type cannot"):
        Record(value).format()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "a property's name cannot be empty"),
        ("a|b", r"cannot hold a \|"),
        ("a\nb", "cannot hold a newline"),
        ("a\\", "cannot hold a backslash"),
    ],
)
def test_property_name_that_would_shift_the_record_is_refused(
    name: str, reason: str
) -> None:
    with pytest.raises(FormatError, match=reason):
        Record("service", {name: "v"}).format()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "cannot be empty"),
        (" a", "cannot begin or end with a blank"),
        ("a\t", "cannot begin or end with a blank"),
        ("#a", "begins with # is a comment"),
        ("a=b", "cannot hold an equals sign"),
        ("a\nb", "cannot hold a newline"),
    ],
)
def test_key_that_could_not_be_found_again_is_refused(key: str, reason: str) -> None:
    document = Document("a=1\n")

    with pytest.raises(FormatError, match=reason):
        document.put(key, Record("x"))

    assert document.text("x") == Document("a=1\n").text("x")
    assert document.keys() == ["a"]


@pytest.mark.parametrize(
    ("raw", "type", "properties"),
    [
        ("", "", {}),
        ("service", "service", {}),
        ("service|", "service", {"": ""}),
        ("service|a|1", "service", {"a": "1"}),
        ("service|a|", "service", {"a": ""}),
        ("service|a", "service", {"a": ""}),
        ("service|a|1|b", "service", {"a": "1", "b": ""}),
        ("|a|1", "", {"a": "1"}),
        ("s|a|x\\|y|b|2", "s", {"a": "x|y", "b": "2"}),
        ("s|a|x\\\\|y|b|2", "s", {"a": "x\\|y", "b": "2"}),
        ("s|a|x\\ny", "s", {"a": "x\ny"}),
        ("s|a|1|a|2", "s", {"a": "2"}),
        ("s|a|1\\", "s", {"a": "1\\"}),
    ],
)
def test_fields_are_split_as_esmith_splits_them(
    raw: str, type: str, properties: dict[str, str]
) -> None:
    assert Record.parse(raw) == Record(type, properties)


@given(texts)
def test_decoding_leaves_what_holds_no_backslash(text: str) -> None:
    plain = text.replace("\\", "")

    assert decode(plain) == plain


def test_properties_are_written_in_byte_order() -> None:
    record = Record("s", {"b": "1", "a": "2", "B": "3", "\u00e9": "4", "~": "5"})

    assert record.format() == "s|B|3|a|2|b|1|~|5|\u00e9|4"


def test_file_of_esmith_is_rewritten_byte_for_byte_but_for_the_date() -> None:
    document = Document(ESMITH)
    for key in document:
        record = document.find(key)
        assert record
        if key != "smtpd":  # an odd field: no record of ours is written so
            document.put(key, record)

    assert document.text("NOW") == ESMITH.replace("Tue Nov 24 10:00:00 2020", "NOW")


def test_change_touches_the_line_of_its_record_and_no_other() -> None:
    odd = "# h\n\n  # a comment\nz=1\nno equals sign\na = s|x\n \t\nm=2|q|\udcff\n"
    document = Document(odd)

    document.put("m", Record("3"))

    assert document.text("now") == odd.replace("m=2|q|\udcff", "m=3")


def test_new_keys_are_put_in_byte_order() -> None:
    document = Document("# updated: x\nB=1\nb=2\n")

    for key in ("\u00e9", "a", "A", "c", "C"):
        document.put(key, Record("new"))

    keys = [line.partition("=")[0] for line in document.text("y").splitlines()]
    assert keys == ["# updated: y", "A", "B", "C", "a", "b", "c", "\u00e9"]
    assert document.keys() == ["A", "B", "C", "a", "b", "c", "\u00e9"]


@given(st.sets(st.text("abAB~\u00e9", min_size=1), min_size=1), st.data())
def test_sorted_file_stays_sorted(all_keys: set[str], data: st.DataObject) -> None:
    in_order = sorted(all_keys, key=str.encode)
    there = [key for key in in_order if data.draw(st.booleans())]
    document = Document("# h\n" + "".join(f"{key}=1\n" for key in there))

    for key in all_keys - set(there):
        document.put(key, Record("1"))

    assert document.text("") == "# h\n" + "".join(f"{key}=1\n" for key in in_order)


def test_of_a_key_that_stands_twice_the_last_line_counts() -> None:
    text = "# h\na=old|p|1\nb=1\na=new\n"
    document = Document(text)
    assert document.find_raw("a") == "new"
    assert len(document) == 2
    assert document.keys() == ["a", "b"]
    assert document.text("") == text

    document.put("a", Record("newer"))

    assert document.text("") == "# h\nb=1\na=newer\n"


def test_deleting_a_key_that_stands_twice_removes_both_lines() -> None:
    document = Document("# h\na=1\nb=1\na=2\n")

    document.delete("a")

    assert document.text("") == "# h\nb=1\n"
    with pytest.raises(KeyError):
        document.delete("a")


def test_deleted_key_can_be_set_again() -> None:
    document = Document("# h\na=1\nb=1\n")

    document.delete("a")
    document.put("a", Record("2"))
    document.put("0", Record("3"))
    document.delete("0")

    assert document.text("") == "# h\na=2\nb=1\n"


def test_comment_lines_are_no_records() -> None:
    document = Document("#a=1\n  #b=1\n\t\n=no key\nc=1\n")

    assert document.keys() == ["c"]
    assert document.find_raw("#a") is None


def test_key_and_record_are_read_without_the_blanks_around_them() -> None:
    document = Document(" \tk = service|p| x y |q|1 \r\n")

    record = document.find("k")

    assert record == Record("service", {"p": " x y ", "q": "1"})


@pytest.mark.parametrize("text", ["", "\n", "# only a comment"])
def test_file_without_records_is_an_empty_database(text: str) -> None:
    document = Document(text)
    assert document.keys() == []

    document.put("k", Record("1"))

    assert document.text("now").endswith("\nk=1\n")
    assert document.text("now").startswith("#")


def test_file_without_a_head_gets_one_with_the_date() -> None:
    lines = Document("k=1").text("Tue Nov 24").split("\n")

    assert lines[0] == "# DO NOT MODIFY THIS FILE."
    assert lines[4:] == ["# updated: Tue Nov 24", "k=1", ""]


def test_file_cut_short_keeps_its_last_line() -> None:
    document = Document("# h\na=service|x|1\nb=service|status|ena")

    document.put("c", Record("1"))

    assert document.text("") == "# h\na=service|x|1\nb=service|status|ena\nc=1\n"


def test_only_the_head_tells_the_date() -> None:
    text = "# h\n# updated: old\na=1\n# updated: a note\n"

    after = Document(text).text("new")

    assert after == "# h\n# updated: new\na=1\n# updated: a note\n"


def test_writing_what_is_stored_already_is_no_change() -> None:
    document = Document("k=service|b|1|a|2\n")

    document.put("k", Record("service", {"b": "1", "a": "2"}))

    assert document.find("k") == Record("service", {"a": "2", "b": "1"})
    assert document.text("").endswith("\nk=service|a|2|b|1\n")


@pytest.mark.parametrize("field", ["p|kept |q|1", "|x|q|1", "a\\nb|x|q|1", "p |x|q|1"])
def test_odd_field_that_esmith_wrote_does_not_block_another_change(field: str) -> None:
    """A blank or backslash that we would refuse comes back as it stands."""
    document = Document(f"k=service|{field}\n")
    before = document.find("k")
    assert before

    changed = document.find("k")
    assert changed
    changed.properties["z"] = "new"
    document.put("k", changed)

    after = reopen(document.text("")).find("k")
    assert after == Record("service", {**before.properties, "z": "new"})


@pytest.mark.parametrize(
    ("line", "change"),
    [
        ("k=s|a|kept |b|1\n", {"a": "kept "}),
        ("k=s|a|1\\\n", {"a": "1\\", "b": "2"}),
        ("k=s\\\n", {"b": "2"}),
    ],
)
def test_odd_field_that_would_not_come_back_beside_a_change_refuses_it(
    line: str, change: dict[str, str]
) -> None:
    document = Document(line)
    record = document.find("k")
    assert record
    record.properties = change

    with pytest.raises(FormatError, match="would not come back the same"):
        document.put("k", record)

    assert document.text("x") == Document(line).text("x")
    assert document.text("").endswith(f"\n{line}")


def test_record_that_is_found_is_a_copy() -> None:
    document = Document("k=service|p|1\n")

    found = document.find("k")
    assert found
    found.properties["p"] = "2"

    assert document.find("k") == Record("service", {"p": "1"})
    assert BLANKS.isspace()
