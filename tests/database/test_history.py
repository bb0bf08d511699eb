"""The history file: what it holds, and that it agrees with the database whatever
happened to either of them."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeconf.database import Database, DatabaseError, Entry, Record
from smeconf.database.history import History, HistoryError, looks_secret

OLD = "# h\n# updated: then\nDomainName=a.test\nqpsmtpd=service|DNSBL|enabled\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "configuration"
    file.write_text(OLD)
    return file


@pytest.fixture
def log(file: Path) -> Path:
    return file.with_name(".configuration.history")


def put(file: Path, value: str, name: str = "p", key: str = "k") -> None:
    with Database(str(file)).transaction() as records:
        record = records.find(key) or Record("service")
        record.properties[name] = value
        records.put(key, record)


def told(file: Path, name: str = "p") -> list[tuple[int, str | None]]:
    """The revisions and new values of a property."""
    return [
        (entry.revision, entry.new)
        for entry in Database(str(file)).entries()
        if entry.property == name
    ]


def named(file: Path) -> str:
    """The revision in the head of the file."""
    match = re.search(r"\(revision (\d+)\)", file.read_text())
    return match[1] if match else ""


# Lines

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
BYTES = st.binary(max_size=8).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
WORD = TEXT | BYTES | st.text("\t\n\r\\ntr|=-*", max_size=8)
ENTRY = st.builds(
    Entry,
    st.integers(1, 10**9),
    st.just("2026-01-01T00:00:00Z"),
    WORD,
    WORD,
    WORD,
    WORD,
    st.none() | WORD,
    st.none() | WORD,
)


def fields(entry: Entry) -> list[object]:
    return [getattr(entry, name) for name in Entry.__slots__]


@given(ENTRY)
def test_entry_comes_back_from_its_line(entry: Entry) -> None:
    line = entry.format()

    assert not set("\n\r") & set(line)
    assert fields(Entry.parse(line)) == fields(entry)


@given(WORD | st.lists(WORD, max_size=9).map("\t".join))
def test_any_line_is_an_entry_or_refused(line: str) -> None:
    with contextlib.suppress(HistoryError):
        assert Entry.parse(line).format().count("\t") == 7


@pytest.mark.parametrize(
    "line", ["", "x", "1\tt\tw\tr\tk\tp\t=o", "²\tt\tw\tr\tk\tp\t=o\t=n"]
)
def test_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(HistoryError, match="no line of a history"):
        Entry.parse(line)


def test_secret_is_a_star_in_the_file() -> None:
    entry = Entry(1, "t", "w", "", "k", "Passwd", "hush", None, True)

    assert entry.format() == "1\tt\tw\t\tk\tPasswd\t*\t-"
    again = Entry.parse(entry.format())
    assert (again.is_secret, again.old, again.new) == (True, None, None)


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        ("Passwd", True),
        ("PASSWORD", True),
        ("SecondaryMailPassword", True),
        ("x_secret_y", True),
        ("KeyPassphrase", True),
        ("PasswdSet", True),
        ("Pass", False),
        ("BypassList", False),
        ("DNSBL", False),
        ("", False),
    ],
)
def test_names_that_tell_of_a_secret(name: str, is_secret: bool) -> None:
    assert looks_secret(name) == is_secret


def test_last_revision_is_found_behind_a_line_of_any_length(tmp_path: Path) -> None:
    history = History(str(tmp_path / "log"))
    assert history.last_revision() == 0
    for revision, size in enumerate((1, 4000, 4096, 5000, 100000, 10), 1):
        value = "x" * size
        entry = Entry(revision, "t", "w", "", "k", "p", value, value)
        history.append([entry, entry], revision - 1)
        assert history.last_revision() == revision

    history.append([Entry(4, "t", "w", "", "k", "p", None, "new")], 3)

    assert [entry.revision for entry in history.read()] == [1, 1, 2, 2, 3, 3, 4]


# Agreement


def test_head_of_the_file_names_the_revision(file: Path) -> None:
    put(file, "1")
    put(file, "2")

    assert named(file) == "2"
    assert told(file) == [(1, "1"), (2, "2")]


def test_esmith_that_drops_the_revision_leaves_the_history_whole(file: Path) -> None:
    put(file, "1")
    put(file, "2")
    text = file.read_text().replace(" (revision 2)", "")
    file.write_text(text.replace("DNSBL|enabled", "DNSBL|disabled"))

    assert told(file) == [(1, "1"), (2, "2")]
    put(file, "3")

    assert (told(file), named(file)) == ([(1, "1"), (2, "2"), (3, "3")], "3")


def test_esmith_that_writes_a_file_anew_leaves_the_history_whole(file: Path) -> None:
    put(file, "1")
    file.write_text("# other head\nk=service|p|1\n")
    put(file, "2")

    assert told(file) == [(1, "1"), (2, "2")]


def killed_before_the_rename(file: Path, value: str, name: str = "p") -> None:
    """Make a change of which the history is written, the database not."""
    text = file.read_text()
    put(file, value, name)
    file.write_text(text)


@pytest.mark.parametrize("name", ["p", "Passwd"])
def test_line_of_a_write_that_was_killed_is_void(file: Path, name: str) -> None:
    put(file, "1", name)
    killed_before_the_rename(file, "2", name)

    assert [entry.revision for entry in Database(str(file)).entries()] == [1, 1]
    put(file, "3", name)

    revisions = [entry.revision for entry in Database(str(file)).entries()]
    assert (revisions, named(file)) == ([1, 1, 2], "2")
    if name == "p":
        assert told(file) == [(1, "1"), (2, "3")]


def test_kill_is_seen_where_esmith_dropped_the_revision_too(file: Path) -> None:
    put(file, "1")
    file.write_text(file.read_text().replace(" (revision 1)", ""))
    killed_before_the_rename(file, "2")

    assert told(file) == [(1, "1")]
    put(file, "3")

    assert told(file) == [(1, "1"), (2, "3")]


def test_database_from_a_backup_goes_on_behind_the_whole_history(file: Path) -> None:
    put(file, "1")
    backup = file.read_text()
    for value in "234":
        put(file, value)
    file.write_text(backup)

    assert told(file) == [(1, "1"), (2, "2"), (3, "3"), (4, "4")]
    put(file, "5")

    assert told(file) == [(1, "1"), (2, "2"), (3, "3"), (4, "4"), (5, "5")]
    assert named(file) == "5"


def test_history_from_a_backup_goes_on_behind_the_revision_of_the_database(
    file: Path, log: Path
) -> None:
    put(file, "1")
    backup = log.read_bytes()
    put(file, "2")
    put(file, "3")
    log.write_bytes(backup)

    put(file, "4")

    assert (told(file), named(file)) == ([(1, "1"), (4, "4")], "4")


def test_history_that_was_deleted_begins_anew_with_the_next_revision(
    file: Path, log: Path
) -> None:
    put(file, "1")
    put(file, "2")
    log.unlink()

    assert told(file) == []
    put(file, "3")

    assert (told(file), named(file)) == ([(3, "3")], "3")


@pytest.mark.parametrize("keep", range(1, 60, 7))
def test_last_line_that_was_cut_off_is_void(file: Path, log: Path, keep: int) -> None:
    put(file, "1")
    whole = log.stat().st_size
    killed_before_the_rename(file, "x" * 100)
    with log.open("r+b") as cut:
        cut.truncate(whole + keep)

    assert told(file) == [(1, "1")]
    put(file, "3")

    assert (told(file), named(file)) == ([(1, "1"), (2, "3")], "2")
    assert log.read_bytes().endswith(b"=3\n")


def test_revision_of_which_only_some_lines_were_written_is_void(
    file: Path, log: Path
) -> None:
    put(file, "1")
    before = file.read_text()
    with Database(str(file)).transaction() as records:
        for n in range(5):
            records.put(f"k{n}", Record("service", {"p": "2"}))
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:6]))
    file.write_text(before)

    assert told(file) == [(1, "1")]
    put(file, "3")

    assert told(file) == [(1, "1"), (2, "3")]


def test_history_that_cannot_be_read_is_named(file: Path, log: Path) -> None:
    log.write_text("no line\n")

    with pytest.raises(DatabaseError, match=f"{log}: no line of a history"):
        list(Database(str(file)).entries())
