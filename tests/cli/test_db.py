"""The commands db and config: output and exit status of each verb, as scripts know it.

Every call here is a process of its own.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.config import BIN, SECONDS, Machine

RECORDS = (
    "# h\n# updated: then\n"
    "DomainName=example.com\n"
    "Empty=\n"
    "bare=service\n"
    "odd=service|a|1|b\n"
    "qpsmtpd=service|DNSBL|enabled|RBLList||text|a\\|b\n"
    "zz=x|B|2|a|1\n"
)
KEYS = "DomainName\nEmpty\nbare\nodd\nqpsmtpd\nzz\n"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.records(RECORDS)
    return machine


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine that no test changes."""
    machine = Machine(tmp_path_factory.mktemp("reading"))
    machine.records(RECORDS)
    return machine


def stored(machine: Machine, key: str = "qpsmtpd") -> str | None:
    return machine.database().read().find_raw(key)


def body(machine: Machine) -> str:
    """The records, without the head that tells the date."""
    text = machine.read("home/e-smith/db/configuration")
    return "".join(f"{line}\n" for line in text.splitlines() if line[0] != "#")


# Verbs that read


@pytest.mark.parametrize(
    ("words", "status", "output"),
    [
        ("keys", 0, KEYS),
        ("get DomainName", 0, "example.com\n"),
        ("get Empty", 0, "\n"),
        ("get qpsmtpd", 0, "service|DNSBL|enabled|RBLList||text|a\\|b\n"),
        ("get none", 1, ""),
        ("print qpsmtpd", 0, "qpsmtpd=service|DNSBL|enabled|RBLList||text|a\\|b\n"),
        ("print none", 1, ""),
        ("show qpsmtpd", 0, "qpsmtpd=service\n    DNSBL=enabled\n    RBLList=\n"),
        ("show zz", 0, "zz=x\n    B=2\n    a=1\n"),
        ("show bare", 0, "bare=service\n"),
        ("show none", 1, ""),
        ("printtype zz", 0, "zz=x\n"),
        ("printtype Empty", 0, "Empty=\n"),
        ("printtype none", 1, ""),
        ("gettype zz", 0, "x\n"),
        ("gettype Empty", 0, "\n"),
        ("gettype none", 1, ""),
        ("printprop zz", 0, "B=2\na=1\n"),
        ("printprop zz a none", 0, "a=1\n"),
        ("printprop zz none", 0, ""),
        ("printprop none a", 0, ""),
        ("printprop bare", 1, ""),
        ("printprop none", 1, ""),
        ("getprop qpsmtpd DNSBL", 0, "enabled\n"),
        ("getprop qpsmtpd RBLList", 0, "\n"),
        ("getprop qpsmtpd text", 0, "a|b\n"),
        ("getprop odd b", 0, "\n"),
        ("getprop qpsmtpd none", 1, ""),
        ("getprop none DNSBL", 1, ""),
    ],
)
def test_verb_that_reads(
    reading: Machine, words: str, status: int, output: str
) -> None:
    result = reading.run(f"config {words}", check=False)

    if words == "show qpsmtpd":
        output += "    text=a|b\n"
    assert (result.status, result.output, result.errors) == (status, output, "")


def test_verbs_without_a_key_tell_of_all_records_in_order(reading: Machine) -> None:
    lines = RECORDS.splitlines(keepends=True)[2:]

    assert reading.run("config print").output == "".join(lines)
    assert reading.run("config printtype").output == (
        "DomainName=example.com\nEmpty=\nbare=service\nodd=service\n"
        "qpsmtpd=service\nzz=x\n"
    )
    assert reading.run("config show").output == (
        "DomainName=example.com\nEmpty=\nbare=service\n"
        "odd=service\n    a=1\n    b=\n"
        "qpsmtpd=service\n    DNSBL=enabled\n    RBLList=\n    text=a|b\n"
        "zz=x\n    B=2\n    a=1\n"
    )


@pytest.mark.parametrize("verb", ["keys", "print", "show", "printtype"])
def test_empty_database_is_status_1(tmp_path: Path, verb: str) -> None:
    result = Machine(tmp_path).run(f"config {verb}", check=False)

    assert (result.status, result.output, result.errors) == (1, "", "")
    assert os.listdir(tmp_path) == []  # and reading makes no file


# Verbs that change


@pytest.mark.parametrize(
    ("words", "key", "after"),
    [
        ("set new service A 1 B ''", "new", "service|A|1|B|"),
        ("set new ''", "new", ""),
        ("set zz y", "zz", "y"),
        ("set zz y p 1 p 2", "zz", "y|p|2"),
        ("set qpsmtpd service status disabled", "qpsmtpd", "service|status|disabled"),
        ("setdefault new x p 1", "new", "x|p|1"),
        ("setdefault zz y C 3", "zz", "x|B|2|a|1"),
        ("delete zz", "zz", None),
        ("settype zz y", "zz", "y|B|2|a|1"),
        ("setprop zz B 3 C 4 C 5", "zz", "x|B|3|C|5|a|1"),
        ("setprop zz type T", "zz", "x|B|2|a|1|type|T"),
        ("setprop zz a ''", "zz", "x|B|2|a|"),
        ("setprop zz B 'x|a|9'", "zz", "x|B|x\\|a\\|9|a|1"),
        ("setprop odd a 2", "odd", "service|a|2|b|"),
        ("delprop zz B none", "zz", "x|a|1"),
        ("delprop zz none", "zz", "x|B|2|a|1"),
        ("delprop none B", "none", None),
    ],
)
def test_verb_that_changes(
    machine: Machine, words: str, key: str, after: str | None
) -> None:
    result = machine.run(f"config {words}")

    assert (result.output, result.errors) == ("", "")
    assert stored(machine, key) == after
    others = [line for line in body(machine).splitlines() if key != line.split("=")[0]]
    assert others == [
        line for line in RECORDS.splitlines()[2:] if key != line.split("=")[0]
    ]


@pytest.mark.parametrize("words", ["delete none", "settype none x"])
def test_changing_what_is_missing_is_status_1(machine: Machine, words: str) -> None:
    result = machine.run(f"config {words}", check=False)

    assert (result.status, result.output, result.errors) == (1, "", "")
    assert body(machine) == body_of_records()


def body_of_records() -> str:
    return "".join(RECORDS.splitlines(keepends=True)[2:])


@pytest.mark.parametrize(
    "words",
    [
        "",
        "quux",
        "keys extra",
        "print a b",
        "show a b",
        "get",
        "get a b",
        "set",
        "set k",
        "set k t p",
        "set '' t",
        "setdefault k",
        "setdefault k t p",
        "setdefault k ''",
        "setdefault k 0",
        "setdefault '' t",
        "delete",
        "gettype",
        "settype zz",
        "settype zz ''",
        "printprop",
        "getprop",
        "getprop zz",
        "getprop zz a b",
        "setprop",
        "setprop zz",
        "setprop zz a",
        "setprop zz a 1 b",
        "delprop",
        "delprop zz",
        "batch words",
        "help a b c",
        "--quux keys",
        "--root",
    ],
)
def test_wrong_usage_is_255_and_changes_nothing(machine: Machine, words: str) -> None:
    result = machine.run(f"config {words}", check=False)

    assert (result.status, result.output) == (255, "")
    assert result.errors.startswith(("config: ", "usage: config"))
    assert "Traceback" not in result.errors
    assert body(machine) == body_of_records()


@pytest.mark.parametrize("words", ["db", "db configuration", "db --force"])
def test_database_or_verb_that_is_missing_is_255_with_the_verbs(
    reading: Machine, words: str
) -> None:
    result = reading.run(*words.split(" "), check=False)

    assert (result.status, result.output) == (255, "")
    assert result.errors.startswith("usage: db [OPTION]… FILE VERB …\n\n    keys ")


def test_help_lists_the_verbs(reading: Machine) -> None:
    result = reading.run("config", "--help")

    assert result.output.startswith("usage: config [OPTION]… VERB …\n\n    keys ")
    assert result.errors == ""
    for verb in ("setdefault", "delprop", "batch", "--force", "--root"):
        assert verb in result.output


# What is refused


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            "set qpsmtpd enabled",
            "configuration qpsmtpd: is a service, and set would wipe its properties; "
            "setprop changes properties (--force sets it all the same)",
        ),
        (
            "setprop qpsmtpd status bananas",
            "configuration qpsmtpd status: must be enabled or disabled, not 'bananas' "
            "(--force stores it all the same)",
        ),
        (
            "setprop qpsmtpd TCPPort 70000",
            "configuration qpsmtpd TCPPort: must be a whole number from 1 to 65535, "
            "not '70000' (--force stores it all the same)",
        ),
        (
            "set qpsmtpd service DNSBL on",
            "configuration qpsmtpd DNSBL: must be enabled or disabled, not 'on' "
            "(--force stores it all the same)",
        ),
        (
            "set DomainName not/a/domain",
            "configuration DomainName: must be a host or domain name, "
            "not 'not/a/domain' (--force stores it all the same)",
        ),
        (
            "settype qpsmtpd enabled",
            "configuration qpsmtpd: its type is service, not 'enabled'; "
            "setprop changes properties (--force sets it all the same)",
        ),
        (
            "setprop qpsmtd DNSBL enabled",
            "configuration qpsmtd: no such key; did you mean qpsmtpd? "
            "(set KEY TYPE makes a new one)",
        ),
        (
            "setprop quux a 1",
            "configuration quux: no such key (set KEY TYPE makes a new one)",
        ),
    ],
)
def test_refusal_is_one_line_and_status_1(
    machine: Machine, words: str, reason: str
) -> None:
    result = machine.run(f"config {words}", check=False)

    assert (result.status, result.output) == (1, "")
    assert result.errors == f"config: {reason}\n"
    assert body(machine) == body_of_records()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("a\\nb", "a backslash followed by n cannot be stored"),
        ("a\\", "a backslash at the end cannot be stored"),
        ("a ", "a blank at the end cannot be stored"),
    ],
)
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_value_that_the_format_cannot_hold_is_refused_always(
    machine: Machine, value: str, reason: str, force: list[str]
) -> None:
    result = machine.run("config", *force, "setprop", "zz", "a", value, check=False)

    assert result.status == 1
    assert result.errors.startswith(f"config: configuration zz: property a: {reason}")
    assert body(machine) == body_of_records()


@pytest.mark.parametrize("key", ["#k", "a=b", " k", "a\nb"])
def test_key_that_could_not_be_read_again_is_refused(
    machine: Machine, key: str
) -> None:
    result = machine.run("config", "set", key, "x", check=False)

    assert result.status == 1
    assert result.errors.startswith("config: configuration ")
    assert result.errors.count("\n") == 1 + key.count("\n")
    assert body(machine) == body_of_records()


def test_one_bad_value_of_several_stores_none(machine: Machine) -> None:
    result = machine.run(
        "config setprop qpsmtpd DNSBL disabled status bananas", check=False
    )

    assert result.status == 1
    assert body(machine) == body_of_records()


@pytest.mark.parametrize(
    ("words", "key", "after"),
    [
        ("set qpsmtpd enabled", "qpsmtpd", "enabled"),
        ("setprop zz status bananas", "zz", "x|B|2|a|1|status|bananas"),
        ("set DomainName a/b", "DomainName", "a/b"),
        ("settype qpsmtpd x", "qpsmtpd", "x|DNSBL|enabled|RBLList||text|a\\|b"),
        ("set qpsmtpd service status bananas", "qpsmtpd", "service|status|bananas"),
    ],
)
def test_force_stores_it_all_the_same(
    machine: Machine, words: str, key: str, after: str
) -> None:
    machine.run(f"config --force {words}")

    assert stored(machine, key) == after


def test_setprop_on_a_missing_key_makes_it_from_the_schema(tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    machine.run("config setprop qpsmtpd DNSBL enabled")

    record = machine.database().read().find("qpsmtpd")
    assert record
    assert record.type == "service"
    assert record.properties["DNSBL"] == "enabled"
    assert record.properties["status"] == "enabled"
    assert record.properties["TCPPort"] == "25"


def test_type_of_a_record_tells_what_is_known_of_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.run("db networks set 10.0.0.0 network Mask 255.0.0.0")

    result = machine.run("db networks setprop 10.0.0.0 Mask wide", check=False)

    assert result.status == 1
    assert result.errors.startswith("db: networks 10.0.0.0 Mask: must be a netmask")


# Who is warned


def run_on_terminal(machine: Machine, *words: str) -> tuple[int, str]:
    """Run a command whose standard error is a terminal; return what stood there."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [BIN / words[0], *words[1:]], stderr=theirs, env=machine.environment
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    return process.wait(SECONDS), shown.decode().replace("\r\n", "\n")


def test_unknown_property_is_stored_with_a_warning_on_a_terminal_only(
    machine: Machine,
) -> None:
    words = ("config", "setprop", "qpsmtpd", "RBLLst", "a.test")

    quiet = machine.run(*words)
    status, shown = run_on_terminal(machine, *words)

    assert quiet.errors == ""
    assert status == 0
    assert shown == (
        "configuration qpsmtpd: warning: no property RBLLst is known; "
        "did you mean RBLList?\n"
    )
    assert "|RBLLst|a.test|" in (stored(machine) or "")


def test_obsolete_property_is_stored_with_a_word_about_it(machine: Machine) -> None:
    words = ("config", "setprop", "qpsmtpd", "RequireResolvableFromHost", "yes")

    status, shown = run_on_terminal(machine, *words)

    assert status == 0
    assert shown == (
        "configuration qpsmtpd RequireResolvableFromHost: warning: obsolete: nothing: "
        "the envelope sender's domain is always looked up\n"
    )


# Words and where they go


@pytest.mark.parametrize(
    "value", ["-1", "--x", "--force", "--help", "--root=/x", "-", "--", "=", "a=b", "#"]
)
def test_word_that_looks_like_an_option_is_a_value_behind_the_verb(
    machine: Machine, value: str
) -> None:
    machine.run("config", "setprop", "zz", "a", value)

    assert machine.run("config", "getprop", "zz", "a").output == f"{value}\n"
    machine.run("config", "set", "--force", value)
    assert machine.run("config", "get", "--force").output == f"{value}\n"


@pytest.mark.parametrize(
    "value", [b"gr\xc3\xbc\xc3\x9fe", b"\xff\xfe", b"\xe2\x82\xac|\t x"]
)
@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"},
    ],
)
def test_bytes_go_through_whatever_the_locale(
    machine: Machine, value: bytes, locale: dict[str, str]
) -> None:
    machine.run("config", "setprop", "zz", "a", value, env=locale)

    output = machine.run("config", "getprop", "zz", "a", env=locale).output
    assert output.encode("utf-8", "surrogateescape") == value + b"\n"
    raw = machine.path("home/e-smith/db/configuration").read_bytes()
    assert b"|a|" + value.replace(b"|", b"\\|") + b"\n" in raw


def test_refusal_of_odd_bytes_is_told_whatever_the_locale(machine: Machine) -> None:
    result = machine.run(
        *("config", "setprop", "qpsmtpd", "status", b"\xff\xc3\xbc"),
        check=False,
        env={"LC_ALL": "C"},
    )

    assert result.status == 1
    assert result.errors.startswith("config: configuration qpsmtpd status: must be ")
    assert result.errors.count("\n") == 1


def test_dbpath_is_put_before_any_name(machine: Machine, tmp_path: Path) -> None:
    other = tmp_path / "other"
    env = {"DBPATH": str(other)}

    machine.run("config set k 1", env=env)
    machine.run("db /absolute/name set k 2", env=env)

    assert machine.run("config get k", env=env).output == "1\n"
    assert (other / "absolute/name").exists()
    assert machine.run("config get k", check=False).status == 1


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("ESMITH_CONFIG_DB", "configuration"),
        ("ESMITH_ACCOUNT_DB", "accounts"),
        ("ESMITH_DOMAINS_DB", "domains"),
        ("ESMITH_HOSTS_DB", "hosts"),
        ("ESMITH_NETWORKS_DB", "networks"),
    ],
)
def test_esmith_variable_names_the_file_of_one_database(
    machine: Machine, tmp_path: Path, variable: str, name: str
) -> None:
    env = {variable: str(tmp_path / "elsewhere")}

    machine.run(f"db {name} set k 1", env=env)

    assert "k=1\n" in (tmp_path / "elsewhere").read_text()
    assert machine.run(f"db {name} get k", check=False).status == 1


def test_schema_follows_the_database_whatever_its_file(
    machine: Machine, tmp_path: Path
) -> None:
    env = {"ESMITH_CONFIG_DB": str(tmp_path / "elsewhere")}

    result = machine.run("config setprop qpsmtpd status no", env=env, check=False)
    machine.run("config setprop qpsmtpd status disabled", env=env)

    assert result.errors.startswith("config: configuration qpsmtpd status: must be ")
    assert machine.run("config getprop qpsmtpd status", env=env).output == "disabled\n"


def test_absolute_name_is_the_file_itself(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "mine/wbl"

    machine.run(f"db {file} set k service p 1")

    assert machine.run(f"db {file} getprop k p").output == "1\n"
    assert file.read_text().endswith("\nk=service|p|1\n")


def test_database_at_its_old_place_is_read_and_written_there(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write("home/e-smith/configuration", "k=service|p|old\n")

    assert machine.run("config getprop k p").output == "old\n"
    machine.run("config setprop k p new")

    assert "k=service|p|new\n" in machine.read("home/e-smith/configuration")
    assert not machine.path("home/e-smith/db/configuration").exists()


def test_root_may_be_given_as_an_option(machine: Machine, tmp_path: Path) -> None:
    other = Machine(tmp_path / "other")
    other.records("k=1\n")

    for words in (
        f"config --root {other.root} get k",
        f"config --root={other.root} get k",
        f"db --root {other.root} configuration get k",
        f"db configuration --root {other.root} get k",
    ):
        assert machine.run(words).output == "1\n"


# Batches


def test_batch_is_one_write_and_puts_out_what_its_verbs_say(machine: Machine) -> None:
    before = machine.facts("home/e-smith/db/configuration")

    result = machine.run(
        "config batch",
        stdin=(
            "# a comment\n\n"
            "setprop qpsmtpd DNSBL disabled\n"
            "set new service p 'two words' q \"\"\n"
            "getprop new p\n"
            "delete zz\n"
            "keys\n"
        ),
    )

    after = machine.facts("home/e-smith/db/configuration")
    assert result.output == "two words\nDomainName\nEmpty\nbare\nnew\nodd\nqpsmtpd\n"
    assert stored(machine, "new") == "service|p|two words|q|"
    assert before
    assert after
    assert before.inode != after.inode


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("setprop qpsmtpd status bananas", "configuration qpsmtpd status: must be "),
        ("delete none", "configuration: delete none: missing"),
        ("getprop zz none", "configuration: getprop zz none: missing"),
        ("quux zz", "no verb quux"),
        ("stprop zz a 1", "no verb stprop; did you mean setprop?"),
        ("setprop zz a", "setprop takes "),
        ("set k 'open", "No closing quotation"),
        ("set k x p 'a\\'", "configuration k: property p: a backslash at the end"),
        ("set qpsmtpd x", "configuration qpsmtpd: is a service"),
    ],
)
def test_line_that_fails_is_named_and_nothing_of_the_batch_is_written(
    machine: Machine, line: str, reason: str
) -> None:
    text = f"setprop zz a 9\nkeys\n\n{line}\nsetprop zz B 9\n"

    result = machine.run("config batch", stdin=text, check=False)

    assert (result.status, result.output) == (1, "")
    assert result.errors.startswith(f"config: line 4: {reason}")
    assert result.errors.endswith("; nothing of this batch was written\n")
    assert result.errors.count("\n") == 1
    assert body(machine) == body_of_records()


def test_force_holds_for_all_of_a_batch(machine: Machine) -> None:
    machine.run("config --force batch", stdin="set qpsmtpd x\nset DomainName a/b\n")

    assert stored(machine) == "x"
    assert stored(machine, "DomainName") == "a/b"


def test_empty_batch_changes_nothing(machine: Machine) -> None:
    before = machine.facts("home/e-smith/db/configuration")

    result = machine.run("config batch", stdin="")

    assert (result.status, result.output) == (0, "")
    assert machine.facts("home/e-smith/db/configuration") == before


# Help on what is known


def test_help_tells_of_keys_properties_and_what_they_accept(reading: Machine) -> None:
    keys = reading.run("config help").output
    one_key = reading.run("config help qpsmtpd").output
    one_property = reading.run("config help qpsmtpd status").output
    of_type = reading.run("db domains help domain").output

    assert "qpsmtpd          The mail filter on port 25\n" in keys
    assert one_key.startswith("qpsmtpd (service): The mail filter on port 25.\n")
    assert "\n    RBLList  " in one_key
    assert one_property == (
        "qpsmtpd status\n    Whether the filter runs.\n"
        "    accepts: enabled or disabled\n    default: enabled\n"
    )
    assert of_type.startswith("domain (domain): ")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            "qpsmtd",
            "configuration qpsmtd: nothing is known of it; did you mean qpsmtpd?",
        ),
        (
            "qpsmtpd RBLLst",
            "configuration qpsmtpd RBLLst: nothing is known of it; "
            "did you mean RBLList?",
        ),
    ],
)
def test_help_on_what_is_not_known_offers_the_nearest(
    reading: Machine, words: str, reason: str
) -> None:
    result = reading.run(f"config help {words}", check=False)

    assert (result.status, result.output) == (1, "")
    assert result.errors == f"config: {reason}\n"


# Where the output goes


def test_reader_that_leaves_early_gets_no_traceback(machine: Machine) -> None:
    machine.records("".join(f"key{n}=x\n" for n in range(40000)))
    process = machine.start("config", "keys")
    assert process.stdout

    process.stdout.close()

    assert process.wait(SECONDS) == 1


def run_to(machine: Machine, redirection: str, words: str) -> tuple[int, str]:
    done = subprocess.run(
        ["sh", "-c", f"exec {BIN}/config {words} {redirection}"],
        env=machine.environment,
        stderr=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.returncode, done.stderr


def test_reader_that_leaves_early_hears_nothing_on_standard_error(
    machine: Machine,
) -> None:
    machine.records("".join(f"key{n}=x\n" for n in range(40000)))

    _, errors = run_to(machine, "| head -1 >/dev/null", "keys")

    assert errors == ""


def test_output_that_cannot_be_written_is_one_line_and_status_1(
    reading: Machine,
) -> None:
    assert run_to(reading, ">/dev/full", "keys") == (
        1,
        "config: standard output: No space left on device\n",
    )


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_output_harms_no_change(machine: Machine, redirection: str) -> None:
    assert run_to(machine, redirection, "getprop zz a") == (0, "")
    assert run_to(machine, redirection, "getprop zz none") == (1, "")
    assert run_to(machine, redirection, "setprop qpsmtpd status no")[0] == 1
    assert run_to(machine, redirection, "setprop qpsmtpd Unknown 1") == (0, "")

    assert "|Unknown|1|" in (stored(machine) or "")


# What a start costs

COSTLY = [
    "re",
    "click",
    "jinja2",
    "dns",
    "logging",
    "asyncio",
    "dataclasses",
    "enum",
    "typing",
    "pathlib",
    "json",
    "tomllib",
    "argparse",
]


@pytest.mark.parametrize(
    "words",
    [
        "getprop qpsmtpd DNSBL",
        "setprop qpsmtpd DNSBL disabled RBLList 'a.test:No, b.test' TCPPort 26",
        "setprop qpsmtpd QueueTarget x User qpsmtpd LogLevel 4",
        "setprop qpsmtpd NobodyKnows x RequireResolvableFromHost no",
    ],
)
def test_getprop_and_setprop_import_no_more_than_they_need(
    machine: Machine, words: str
) -> None:
    """Beyond what an interpreter of this environment has loaded anyway."""
    bare = modules_after(machine, "os._exit(0)", "")

    loaded = modules_after(
        machine, "from smeconf.cli.db import config\nconfig()", words
    )

    assert "smeconf.cli.db" in loaded
    assert [name for name in COSTLY if name in loaded - bare] == []


def modules_after(machine: Machine, code: str, words: str) -> set[str]:
    watched = (
        "import os, sys\n"
        "def leave(status, leave=os._exit):\n"
        "    os.write(2, ' '.join(sys.modules).encode())\n"
        "    leave(status)\n"
        "os._exit = leave\n" + code
    )
    done = subprocess.run(
        [sys.executable, "-c", watched, *shlex.split(words)],
        env=machine.environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    return set(done.stderr.split())


def test_commands_start_without_a_wrapper(reading: Machine) -> None:
    """What pip writes for an entry point imports re."""
    for name in ("config", "db"):
        script = (BIN / name).read_text().splitlines()

        assert script[0].startswith("#!")
        assert f"from smeconf.cli.db import {name}" in script
        assert "import re" not in script
