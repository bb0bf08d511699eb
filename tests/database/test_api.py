"""The Python API: a database as a mapping, changed in transactions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smeconf.database import Database, DatabaseError, Document, FormatError, Record
from smeconf.paths import Paths

OLD = (
    "# h\n# updated: then\n"
    "DomainName=a.test\n"
    "qpsmtpd=service|DNSBL|enabled|RBLList|a.test\n"
)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    for name in ("DBPATH", "ESMITH_CONFIG_DB"):
        monkeypatch.delenv(name, raising=False)
    paths = Paths(str(tmp_path))
    file = Path(paths.database("configuration"))
    file.parent.mkdir(parents=True)
    file.write_text(OLD)
    return paths


def text(paths: Paths) -> str:
    return Path(paths.database("configuration")).read_text()


def test_property_is_set_as_an_item_of_an_item(paths: Paths) -> None:
    with Database.open("configuration", paths).transaction("new list") as t:
        t["qpsmtpd"]["RBLList"] = "b.test"
        assert t["qpsmtpd"]["RBLList"] == "b.test"

    assert text(paths).endswith("\nqpsmtpd=service|DNSBL|enabled|RBLList|b.test\n")
    (entry,) = Database.open("configuration", paths).entries()
    assert (entry.key, entry.property, entry.old, entry.new, entry.reason) == (
        *("qpsmtpd", "RBLList", "a.test", "b.test", "new list"),
    )


def test_root_of_the_environment_is_the_default(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMECONF_ROOT", paths.root)

    assert Database.open("configuration").read().keys() == ["DomainName", "qpsmtpd"]


def test_transaction_and_record_are_mappings(paths: Paths) -> None:
    with Database.open("configuration", paths).transaction() as t:
        record = t["qpsmtpd"]

        assert list(t) == t.keys() == ["DomainName", "qpsmtpd"]
        assert "qpsmtpd" in t
        assert "none" not in t
        assert t["DomainName"].type == "a.test"
        assert record.type == "service"
        assert list(record) == ["DNSBL", "RBLList"]
        assert len(record) == 2
        assert "DNSBL" in record
        assert "none" not in record
        assert record.get("DNSBL") == "enabled"
        assert record.get("none") is None
        assert record.get("none", "x") == "x"
        assert dict.fromkeys(record) == {"DNSBL": None, "RBLList": None}

    assert text(paths) == OLD


def test_records_and_properties_are_deleted(paths: Paths) -> None:
    with Database.open("configuration", paths).transaction() as t:
        record = t["qpsmtpd"]
        del record["DNSBL"]
        del t["DomainName"]

        assert "DomainName" not in t
        assert list(record) == ["RBLList"]

    assert text(paths).splitlines()[2:] == ["qpsmtpd=service|RBLList|a.test"]


def test_what_is_missing_is_a_key_error(paths: Paths) -> None:
    with Database.open("configuration", paths).transaction() as t:
        record = t["qpsmtpd"]
        with pytest.raises(KeyError, match="none"):
            t["none"]
        with pytest.raises(KeyError, match="none"):
            t["none"]["p"] = "1"
        with pytest.raises(KeyError, match="none"):
            record["none"]
        with pytest.raises(KeyError, match="none"):
            del record["none"]
        with pytest.raises(KeyError, match="none"):
            del t["none"]
        t.delete("qpsmtpd")
        with pytest.raises(KeyError, match="qpsmtpd"):
            record["DNSBL"] = "1"
        t.put("qpsmtpd", Record("service", {"DNSBL": "enabled", "RBLList": "a.test"}))

    assert text(paths) == OLD


@pytest.mark.parametrize("value", ["a\\", "a\\n", "a ", "\ud800", "\udcc3\udcbc"])
def test_what_cannot_be_stored_is_refused_and_nothing_of_all_is_written(
    paths: Paths, value: str
) -> None:
    with (  # noqa: PT012  # the second change is the one that fails
        pytest.raises(DatabaseError, match="configuration qpsmtpd: property DNSBL: "),
        Database.open("configuration", paths).transaction() as t,
    ):
        t["qpsmtpd"]["RBLList"] = "b.test"
        t["qpsmtpd"]["DNSBL"] = value

    assert text(paths) == OLD
    assert list(Database.open("configuration", paths).entries()) == []


def test_refusal_that_is_caught_changes_nothing_of_the_record(paths: Paths) -> None:
    with Database.open("configuration", paths).transaction() as t:
        with pytest.raises(DatabaseError):
            t["qpsmtpd"]["DNSBL"] = "a\\"

        assert t["qpsmtpd"]["DNSBL"] == "enabled"

    assert text(paths) == OLD


def test_exception_writes_nothing_and_lets_go_of_the_lock(paths: Paths) -> None:
    database = Database.open("configuration", paths)
    with pytest.raises(RuntimeError), database.transaction() as t:  # noqa: PT012
        t["qpsmtpd"]["RBLList"] = "b.test"
        del t["DomainName"]
        raise RuntimeError

    assert text(paths) == OLD
    with database.transaction() as t:
        t["qpsmtpd"]["RBLList"] = "c.test"
    assert "|RBLList|c.test\n" in text(paths)


def test_rehearsal_writes_nothing_and_needs_no_lock(paths: Paths) -> None:
    database = Database.open("configuration", paths)

    with database.transaction() as held:
        held["qpsmtpd"]["DNSBL"] = "disabled"
        trial = database.rehearse()
        trial["qpsmtpd"]["RBLList"] = "b.test"
        assert trial["qpsmtpd"]["RBLList"] == "b.test"

    assert text(paths).endswith("\nqpsmtpd=service|DNSBL|disabled|RBLList|a.test\n")


def test_transaction_tells_what_is_secret(paths: Paths) -> None:
    with Database.open("configuration", paths).transaction() as t:
        t.put("RootPassword", Record("hush"))
        assert t.is_secret("qpsmtpd", "Passwd")
        assert t.is_secret("RootPassword", "")
        assert not t.is_secret("qpsmtpd", "")
        assert not t.is_secret("qpsmtpd", "DNSBL")
        t.delete("RootPassword")
        assert t.revision == 0


# One document, or a new one for each change: the same lines

NAME = st.sampled_from(["a", "b", "k", "k k", "z", "é", "\udcff", "\U0001f600", "K"])
VALUE = st.sampled_from(["", "1", "a|b", "a=b", "x\ny", "\udcff", "#", " x", "\\x"])
EDIT = st.tuples(NAME, VALUE, st.none() | st.dictionaries(NAME, VALUE, max_size=3))
TEXTS = st.lists(
    st.sampled_from(
        [
            "# h",
            "# updated: then",
            "a=1",
            "a=2",
            "k k=x|p|1",
            "b =x|a|1",
            " z=1\r",
            "",
            "b",
            "=x",
            "é=1|q",
            "\udcff=1",
            "a=b=c",
            "\x0bk=1",
            "a\\",
            "zz=x|p|1|p|2",
        ]
    ),
    max_size=8,
)


def edit(document: Document, key: str, type: str, what: dict[str, str] | None) -> bool:
    try:
        if what is None:
            document.delete(key)
            return True
        return document.put(key, Record(type, what))
    except (FormatError, KeyError):
        return False


def records_in(text: str) -> list[str]:
    return sorted(line for line in text.split("\n") if line[:1] != "#")


@settings(deadline=None, max_examples=400)
@given(TEXTS, st.lists(EDIT, max_size=12))
def test_edits_of_one_document_are_those_of_one_document_each(
    lines: list[str], edits: list[tuple[str, str, dict[str, str] | None]]
) -> None:
    begin = Document("\n".join(lines)).text("now")
    many = Document(begin)
    one_each = begin

    for key, type, what in edits:
        single = Document(one_each)
        assert single.find(key) == many.find(key)
        assert edit(single, key, type, what) == edit(many, key, type, what)
        one_each = single.text("now")
        assert single.keys() == many.keys()

    # Where a new record stands among comments and odd lines may differ, no more.
    assert records_in(many.text("now")) == records_in(one_each)
    again = Document(one_each)
    assert {key: again.find(key) for key in again} == {k: many.find(k) for k in many}
    for key in ("a=b", "b ", " z", "x\na", "", "# h"):
        assert again.find_raw(key) is None
