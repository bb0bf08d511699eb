"""history, rollback, --expect, --reason: every change can be seen and undone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from smeconf.database import Database
from tests.support.config import Machine, Result

RECORDS = (
    "# h\n# updated: then\n"
    "DomainName=example.com\n"
    "qpsmtpd=service|DNSBL|disabled|RBLList|a.test|status|enabled\n"
    "zz=x|a|1|b|2\n"
)
DATABASE = "home/e-smith/db/configuration"
HISTORY = "var/lib/smeconf/history/configuration"
SITE = (
    'type = "service"\nhelp = "Ours."\n'
    '[Token]\nsecret = true\nhelp = "A secret."\n'
    '[Pin]\nkind = "integer"\nsecret = true\nhelp = "Another."\n'
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.records(RECORDS)
    return machine


def database(machine: Machine) -> Database:
    return Database.open("configuration", machine.paths)


Change = tuple[int, str, str, str | None, str | None]


def changes(machine: Machine) -> list[Change]:
    return [
        (entry.revision, entry.key, entry.property, entry.old, entry.new)
        for entry in database(machine).entries()
    ]


def records(machine: Machine) -> list[str]:
    return machine.read(DATABASE).splitlines()[2:]


def refused(machine: Machine, *words: str, env: dict[str, str] | None = None) -> str:
    """What is said of a call that is refused, and that it changed nothing."""
    before = machine.facts(DATABASE), machine.facts(HISTORY)

    result = machine.run(*words, check=False, env=env)

    assert (result.status, result.output) == (1, "")
    assert (machine.facts(DATABASE), machine.facts(HISTORY)) == before
    assert result.errors.count("\n") == 1
    return result.errors.removeprefix("config: ").rstrip("\n")


def as_esmith(machine: Machine, old: str, new: str) -> None:
    """Change the file as e-smith does, which knows of no revision."""
    text = re.sub(r" \(revision \d+\)", "", machine.read(DATABASE))
    assert old in text
    machine.write(DATABASE, text.replace(old, new))


# What leaves a line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("set k 1", [("k", "", None, "1")]),
        ("set k x p 1", [("k", "", None, "x"), ("k", "p", None, "1")]),
        ("set zz y b 2", [("zz", "", "x", "y"), ("zz", "a", "1", None)]),
        ("setdefault k x p 1", [("k", "", None, "x"), ("k", "p", None, "1")]),
        (
            "delete zz",
            [("zz", "", "x", None), ("zz", "a", "1", None), ("zz", "b", "2", None)],
        ),
        ("settype zz y", [("zz", "", "x", "y")]),
        ("setprop zz b 3 a 1 c ''", [("zz", "b", "2", "3"), ("zz", "c", None, "")]),
        ("delprop zz a none", [("zz", "a", "1", None)]),
        (
            "listadd qpsmtpd RBLList b.test",
            [("qpsmtpd", "RBLList", "a.test", "a.test,b.test")],
        ),
        ("listdel qpsmtpd RBLList a.test", [("qpsmtpd", "RBLList", "a.test", "")]),
    ],
)
def test_every_verb_that_changes_leaves_its_lines(
    machine: Machine, words: str, expected: list[tuple[str, str, str, str]]
) -> None:
    machine.run(f"config {words}")

    assert changes(machine) == [(1, *change) for change in expected]
    assert "(revision 1)" in machine.read(DATABASE)


def test_batch_is_one_revision(machine: Machine) -> None:
    machine.run("config batch", stdin="setprop zz a 2\nset k 1\nsetprop zz a 3\n")
    machine.run("config setprop zz a 4")

    assert changes(machine) == [
        (1, "zz", "a", "1", "3"),
        (1, "k", "", None, "1"),
        (2, "zz", "a", "3", "4"),
    ]


def test_import_is_one_revision(machine: Machine) -> None:
    text = '{"zz": null, "k": {"type": "1"}, "DomainName": {"type": "example.com"}}'
    machine.run("config import", stdin=text)

    assert [change[:3] for change in changes(machine)] == [
        (1, "zz", ""),
        (1, "zz", "a"),
        (1, "zz", "b"),
        (1, "k", ""),
    ]


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        ("setprop zz a 1", ""),
        ("set zz x a 1 b 2", ""),
        ("setdefault zz y", ""),
        ("settype zz x", ""),
        ("delprop zz none", ""),
        ("batch", "setprop zz a 2\nsetprop zz a 1\n"),
        ("batch", "set k 1\ndelete k\n"),
        ("batch", "delete zz\nset zz x a 1 b 2\n"),
        ("import", '{"DomainName": {"type": "example.com"}, "none": null}'),
        ("rollback 0", ""),
        ("getprop zz a", ""),
    ],
)
def test_what_changes_nothing_leaves_no_line_and_no_revision(
    machine: Machine, words: str, stdin: str
) -> None:
    machine.run(f"config {words}", stdin=stdin)

    assert machine.read(DATABASE) == RECORDS
    assert not machine.path(HISTORY).exists()


def test_what_is_refused_leaves_no_line(machine: Machine) -> None:
    refused(machine, "config", "setprop", "qpsmtpd", "status", "bananas")
    result = machine.run("config batch", stdin="set k 1\nquux\n", check=False)

    assert result.status == 1
    assert changes(machine) == []


def test_history_tells_who_when_what_and_why(machine: Machine) -> None:
    machine.run("config setprop zz a 2", env={"SUDO_USER": "ann"})
    machine.run("config", "--reason", "the spring\nclean", "delprop", "zz", "b")

    lines = machine.run("config history").output.splitlines()

    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.fullmatch(rf"    1  {time}  ann as \w+  zz a: '1' -> '2'", lines[0])
    assert re.fullmatch(
        rf"    2  {time}  \w+  zz b: '2' -> none  \(the spring clean\)", lines[1]
    )
    assert len(lines) == 2


def test_history_as_json_is_exact(machine: Machine) -> None:
    machine.run(
        "config", "--reason", "the spring\nclean", "setprop", "zz", "a", b"\xff\t|"
    )
    machine.run("config delete DomainName", env={"SUDO_USER": "ann"})

    first, second = json.loads(machine.run("config --json history").output)

    assert first.keys() == {
        *("revision", "time", "who", "reason", "key", "property", "old", "new")
    }
    assert (first["reason"], first["old"], first["new"]) == (
        "the spring\nclean",
        "1",
        "\udcff\t|",
    )
    assert second["who"].startswith("ann as ")
    assert (second["revision"], second["key"], second["property"]) == (
        2,
        "DomainName",
        None,
    )


def test_history_of_a_key_and_of_a_property(machine: Machine) -> None:
    machine.run("config batch", stdin="setprop zz a 2 b 3\nset k 1\n")

    def shown(words: str) -> list[str]:
        entries = json.loads(machine.run(f"config --json history {words}").output)
        return [f"{entry['key']} {entry['property']}" for entry in entries]

    assert shown("") == ["zz a", "zz b", "k None"]
    assert shown("zz") == ["zz a", "zz b"]
    assert shown("zz b") == ["zz b"]
    assert shown("k ''") == ["k None"]
    assert len(machine.run("config history zz").output.splitlines()) == 2


@pytest.mark.parametrize("words", ["", "none", "zz none"])
def test_no_history_is_status_1(machine: Machine, words: str) -> None:
    if words:
        machine.run("config setprop zz a 2")

    result = machine.run(f"config history {words}", check=False)

    assert (result.status, result.output, result.errors) == (1, "", "")


# Secrets


def everything_said(machine: Machine, *results: Result) -> str:
    """All output so far, and the history file."""
    return machine.read(HISTORY) + "".join(one.output + one.errors for one in results)


@pytest.fixture
def vault(machine: Machine) -> Machine:
    """A machine whose schema and names tell of secrets; each value is HUSH…"""
    machine.write("etc/smeconf/db/configuration/vault.toml", SITE)
    pin = 'help = "A secret value."\nsecret = true\n'
    machine.write("etc/smeconf/db/configuration/Pin.toml", pin)
    machine.records(
        "# h\n# updated: then\n"
        "Pin=HUSH\n"
        "RootPassword=HUSH\n"
        "vault=service|Open|1|Passwd|HUSH|Pin|1|Token|HUSH|x_secret_y|HUSH\n"
    )
    return machine


NEW = {"type": "service", "properties": {"Open": "1", "Token": "HUSH2"}}


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        ("setprop vault Token HUSH2", ""),
        ("setprop vault Passwd HUSH2 x_secret_y HUSH3", ""),
        ("setprop vault MyPASSWORD HUSH2", ""),
        ("delprop vault Token Passwd", ""),
        ("set vault service Token HUSH2", ""),
        ("--force set vault other", ""),
        ("set Pin HUSH2", ""),
        ("set RootPassword HUSH2", ""),
        ("delete vault", ""),
        ("delete RootPassword", ""),
        ("--expect HUSH setprop vault Token HUSH2", ""),
        ("batch", "setprop vault Token HUSH2\nsetprop vault Open 2\n"),
        ("import", json.dumps({"vault": NEW, "Pin": {"type": "HUSH2"}})),
        ("import", '{"vault": null, "Pin": null, "RootPassword": null}'),
        ("import", '{"SomePassword": {"type": "HUSH2"}}'),
        ("--plan import", json.dumps({"vault": NEW, "Pin": {"type": "HUSH2"}})),
    ],
)
def test_secret_is_neither_in_the_history_nor_shown(
    vault: Machine, words: str, stdin: str
) -> None:
    vault.run("config setprop vault Open 0")

    done = vault.run(f"config {words}", stdin=stdin, check=False)
    assert done.status == (2 if "--plan" in words else 0)

    shown = vault.run("config history"), vault.run("config --json history")
    assert "HUSH" not in everything_said(vault, done, *shown)
    if "--plan" not in words:
        assert "a secret was changed" in shown[0].output
        assert '"secret": true' in shown[1].output


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        ("--expect HUSH1 setprop vault Token HUSH2", ""),
        ("--expect HUSH1 setprop vault Passwd HUSH2", ""),
        ("setprop vault Pin HUSH", ""),
        ("setprop vault Token HUSH\\\\", ""),
        ("setprop vault Token my HUSH", ""),
        ("batch", "setprop vault Passwd my HUSH\n"),
        ("batch", "setprop vault Pin HUSH\n"),
        ("import", '{"vault": {"type": "service", "properties": {"Pin": "HUSH"}}}'),
        ("import", '{"vault": {"type": "service", "properties": {"Pin": ["HUSH"]}}}'),
        ("rollback 0", ""),
    ],
)
def test_refusal_does_not_tell_the_secret(
    vault: Machine, words: str, stdin: str
) -> None:
    vault.run("config setprop vault Token HUSH3")

    result = vault.run(f"config {words}", stdin=stdin, check=False)

    assert result.status in (1, 255)
    assert result.errors
    assert "HUSH" not in everything_said(vault, result)


def test_type_of_a_record_and_what_is_no_secret_are_told(vault: Machine) -> None:
    vault.run("config delete vault")

    told = {(key, name): old for _, key, name, old, _ in changes(vault)}
    assert told["vault", ""] == "service"
    assert told["vault", "Open"] == "1"
    assert told["vault", "Passwd"] is None


def test_secret_of_the_old_type_stays_one_where_the_type_changes(
    machine: Machine,
) -> None:
    site = SITE.replace('"service"', '"safe"')
    machine.write("etc/smeconf/db/accounts/types/safe.toml", site)
    machine.records("k=safe|Token|HUSH\n", "accounts")

    machine.run("db accounts set k other Token HUSH2")

    assert "HUSH" not in machine.read("var/lib/smeconf/history/accounts")


def test_history_file_is_for_its_owner_only(machine: Machine) -> None:
    machine.run("config setprop zz a 2")

    assert machine.path(HISTORY).stat().st_mode & 0o777 == 0o600
    assert machine.path(HISTORY).parent.stat().st_mode & 0o077 == 0


# Undoing


def test_rollback_undoes_all_changes_since_property_by_property(
    machine: Machine,
) -> None:
    machine.run("config setprop zz a 2")
    machine.run("config setprop zz a 3 c new")
    machine.run("config batch", stdin="delprop zz b\nsettype zz y\nset k 1\n")
    machine.run("config setprop zz a 4")

    result = machine.run("config rollback 1")

    assert set(result.output.splitlines()) == {
        "zz a: '4' -> '2'",
        "zz c: 'new' -> none",
        "zz b: none -> '2'",
        "zz type: 'y' -> 'x'",
        "k type: '1' -> none",
    }
    assert records(machine) == [*RECORDS.splitlines()[2:-1], "zz=x|a|2|b|2"]
    last = list(database(machine).entries())[-1]
    assert (last.revision, last.reason) == (5, "rollback to revision 1")


def test_rollback_leaves_what_others_changed_elsewhere(machine: Machine) -> None:
    machine.run("config setprop zz a 2")
    as_esmith(machine, "|b|2", "|b|9")

    machine.run("config rollback 0")

    assert records(machine)[-1] == "zz=x|a|1|b|9"


def test_record_that_was_deleted_comes_back_and_one_that_was_made_goes(
    machine: Machine,
) -> None:
    machine.run("config delete zz")
    machine.run("config delete DomainName")
    machine.run("config set k x p 1")

    machine.run("config rollback 0")

    assert records(machine) == RECORDS.splitlines()[2:]


def test_record_that_was_deleted_and_made_again_is_as_it_was(machine: Machine) -> None:
    machine.run("config delete zz")
    machine.run("config set zz y b 2 c 3")

    machine.run("config rollback 0")

    assert records(machine) == RECORDS.splitlines()[2:]


def test_rollback_can_be_undone_and_undone_again(machine: Machine) -> None:
    machine.run("config setprop zz a 2")
    machine.run("config delete qpsmtpd")
    machine.run("config rollback 0")  # revision 3
    assert records(machine) == RECORDS.splitlines()[2:]

    machine.run("config rollback 2")
    assert records(machine) == ["DomainName=example.com", "zz=x|a|2|b|2"]
    machine.run("config rollback 3")

    assert records(machine) == RECORDS.splitlines()[2:]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("|a|2", "|a|7", "zz a: is '7' now, not '2' as the history left it"),
        ("|a|2", "", "zz a: is None now, not '2' as the history left it"),
        ("zz=x|a|2|b|2\n", "", "zz a: is None now, not '2' as the history left it"),
    ],
)
def test_rollback_refuses_what_was_changed_since(
    machine: Machine, old: str, new: str, reason: str
) -> None:
    machine.run("config setprop qpsmtpd DNSBL enabled")
    machine.run("config setprop zz a 2")
    as_esmith(machine, old, new)

    said = refused(machine, "config", "rollback", "0")

    assert said == f"configuration {reason}; nothing was changed"


def test_rollback_refuses_to_take_a_record_from_what_others_put_into_it(
    machine: Machine,
) -> None:
    machine.run("config set k x p 1")
    as_esmith(machine, "k=x|p|1", "k=x|p|1|theirs|2")

    said = refused(machine, "config", "rollback", "0")

    assert said.startswith("configuration k: this would leave theirs without a record")


def test_rollback_refuses_to_give_a_property_to_a_record_that_is_gone(
    machine: Machine,
) -> None:
    machine.run("config delprop zz a")
    as_esmith(machine, "zz=x|b|2\n", "")

    said = refused(machine, "config", "rollback", "0")

    assert said.startswith("configuration zz: this would leave a without a record")


def test_rollback_refuses_secrets(machine: Machine) -> None:
    machine.run("config setprop zz Passwd hush")
    machine.run("config setprop zz a 2")

    said = refused(machine, "config", "rollback", "0")
    machine.run("config rollback 1")

    assert said == (
        "configuration zz Passwd: is a secret, which the history does not keep"
    )
    assert records(machine)[-1] == "zz=x|Passwd|hush|a|1|b|2"


def test_rollback_to_what_is_not_there_is_refused(machine: Machine) -> None:
    machine.run("config setprop zz a 2")

    said = refused(machine, "config", "rollback", "2")
    words = machine.run("config rollback x", check=False)

    assert said == "configuration: the last revision is 1"
    assert words.status == 255
    assert "rollback takes a revision" in words.errors


def test_rollback_over_a_gap_in_the_history_is_refused(machine: Machine) -> None:
    """The history file was deleted: what it held cannot be undone."""
    machine.run("config setprop zz a 2")
    machine.run("config setprop zz b 3")
    machine.path(HISTORY).unlink()

    assert refused(machine, "config", "rollback", "1").startswith(
        "configuration: revision 2 is not in the history"
    )
    machine.run("config setprop zz a 4")
    assert refused(machine, "config", "rollback", "0").startswith(
        "configuration: revision 2 is not in the history"
    )
    machine.run("config rollback 2")
    assert records(machine)[-1] == "zz=x|a|2|b|3"


def test_plan_of_a_rollback_touches_nothing(machine: Machine) -> None:
    machine.run("config setprop zz a 2")
    before = {path: path.stat().st_mtime_ns for path in machine.root.rglob("*")}

    plan = machine.run("config --plan rollback 0", check=False)
    none = machine.run("config --plan rollback 1")

    assert (plan.status, plan.output) == (2, "zz a: '2' -> '1'\n")
    assert (none.status, none.output) == (0, "")
    after = {path: path.stat().st_mtime_ns for path in machine.root.rglob("*")}
    assert after == before


# On condition


@pytest.mark.parametrize("value", ["disabled", "enabled"])
def test_expect_changes_only_what_is_as_expected(machine: Machine, value: str) -> None:
    words = f"config --expect {value} setprop qpsmtpd DNSBL enabled"

    if value == "disabled":
        machine.run(words)
        assert [change[1:] for change in changes(machine)] == [
            ("qpsmtpd", "DNSBL", "disabled", "enabled")
        ]
    else:
        assert refused(machine, *words.split()) == (
            "configuration qpsmtpd DNSBL: is 'disabled', not 'enabled' as expected; "
            "nothing was changed"
        )


@pytest.mark.parametrize("is_there", [True, False])
def test_expect_takes_what_is_absent_for_empty(
    machine: Machine, is_there: bool
) -> None:
    """Whatever default a key that is not there yet would begin with."""
    if not is_there:
        machine.records("# h\n# updated: then\n")
    words = "setprop qpsmtpd TCPPort 26"

    said = refused(machine, *f"config --expect 25 {words}".split())
    machine.run("config", "--expect", "", *words.split())

    assert "is '', not '25' as expected" in said
    assert machine.run("config getprop qpsmtpd TCPPort").output == "26\n"


@pytest.mark.parametrize(
    "words",
    [
        "setprop zz a 2 b 3",
        "set zz y",
        "delete zz",
        "delprop zz a",
        "getprop zz a",
        "batch",
    ],
)
def test_expect_goes_with_setprop_of_one_property_only(
    machine: Machine, words: str
) -> None:
    result = machine.run(f"config --expect 1 {words}", check=False)

    assert result.status == 255
    assert "--expect goes with " in result.errors
    assert machine.read(DATABASE) == RECORDS


@pytest.mark.parametrize("words", ["setprop zz a 2", "delete zz", "batch", "set k 1"])
def test_plan_is_refused_where_it_would_not_be_heeded(
    machine: Machine, words: str
) -> None:
    result = machine.run(f"config --plan {words}", stdin="set k 1\n", check=False)

    assert result.status == 255
    assert machine.read(DATABASE) == RECORDS
