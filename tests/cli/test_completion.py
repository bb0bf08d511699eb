"""Completion: what the shells offer, and that it stands the way they quote it."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from smeconf.cli.completion import candidates, complete_line
from smeconf.cli.db import usage
from smeconf.cli.db_words import Split, split_line
from smeconf.database.schema import Schema
from smeconf.events import find_event
from smeconf.paths import Paths
from smeconf.templates import Layers
from tests.support.config import BIN, SECONDS, Machine

RECORDS = (
    "# h\n# updated: then\n"
    "DomainName=example.com\n"
    "key: with blanks=service|p|1\n"
    "qpsmtpd=service|DNSBL|enabled|MySite|x|RBLList|a.test,b.test:Don't, say 'no'\n"
    "x=service|A|zone.test:Don't send, $HOME|B|two words|Passwd|hush\n"
)
SCRIPTS = Path(__file__).parents[2] / "smeconf/cli/completions"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name in list(os.environ):
        if name.startswith(("ESMITH_", "DBPATH")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SMECONF_ROOT", str(tmp_path))
    machine = Machine(tmp_path)
    machine.records(RECORDS)
    machine.records("a.test=domain|Description|A\n", "domains")
    machine.records("", "mine")
    machine.write("home/e-smith/db/configuration.lock", "")
    machine.write("home/e-smith/db/.configuration.new", "")
    return machine


def offered(line: str) -> list[str]:
    """What stands behind the last blank, of words that hold none."""
    command, *words = line.split(" ")
    return candidates(command, words)


# What is offered


@pytest.mark.parametrize("command", ["config", "db mine"])
def test_every_verb_and_option_of_the_help_is_offered(
    machine: Machine, command: str
) -> None:
    verbs = offered(f"{command} ")
    options = offered(f"{command} --")

    text = usage(command.split()[0])
    assert {"setprop", "getprop", "batch", "rollback", "help", "keys"} <= set(verbs)
    assert all(f"\n    {verb} " in text for verb in verbs)
    assert {"--force", "--expect", "--reason", "--json", "--plan", "--root"} <= set(
        options
    )
    assert all(f"\n    {option} " in text for option in options)


def test_databases_are_those_that_lie_there_and_those_that_are_known(
    machine: Machine,
) -> None:
    names = offered("db ")

    assert {"accounts", "configuration", "domains", "hosts", "mine"} <= set(names)
    assert not [name for name in names if "lock" in name or "." in name]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("config get ", ["DomainName", "key: with blanks", "qpsmtpd", "x"]),
        ("config delprop x ", ["A", "B", "Passwd"]),
        ("config delprop x A ", ["B", "Passwd"]),
        ("config getprop x ", ["A", "B", "Passwd"]),
        ("config getprop x A ", []),
        ("config printprop x A B ", ["Passwd"]),
        ("config setprop x A ", ["zone.test:Don't send, $HOME"]),
        ("config setprop x Passwd ", []),  # a secret is not shown
        ("config setprop x A 1 ", ["B", "Passwd"]),
        ("config setprop x A 1 B ", ["two words"]),
        ("config setprop qpsmtpd DNSBL ", ["disabled", "enabled"]),
        ("config set qpsmtpd ", ["service"]),
        ("config set qpsmtpd service DNSBL ", ["disabled", "enabled"]),
        ("config settype x ", ["service"]),
        ("config listdel qpsmtpd RBLList ", ["a.test", "b.test:Don't", "say 'no'"]),
        ("config --force --root ROOT --reason why get ", ["@"]),
        ("config --root=ROOT get ", ["@"]),
        ("config --reason ", []),
        ("config --expect ", []),
        ("config keys ", []),
        ("config batch ", []),
        ("config quux ", []),
        ("db domains getprop a.test ", ["Description"]),
        ("db --root ROOT configuration get ", ["@"]),
        ("db configuration --root ROOT get ", ["@"]),
        ("db none getprop k ", []),
        ("signal-event email-update ", []),
        ("expand-template /etc/motd ", []),
        (
            "expand-template -",
            ["--expand_queue", "--output_filename", "--root", "--stdout"],
        ),
        ("quux ", []),
    ],
)
def test_words_that_may_follow(
    machine: Machine, tmp_path: Path, line: str, expected: list[str]
) -> None:
    other = Machine(tmp_path / "other")
    other.records("@=1\n")

    found = offered(line.replace("ROOT", str(other.root)))

    assert [word for word in found if word not in MAY_COME] == expected


# Options that may be added to the tools.
MAY_COME = ("--diff", "--sources", "--plan", "--json")


def test_verbs_that_make_a_key_or_property_offer_what_is_known_too(
    machine: Machine,
) -> None:
    schema = Schema.load("configuration", machine.paths)

    for verb in ("set", "setdefault", "setprop", "listadd"):
        assert {*schema.known_keys(), "x"} <= set(offered(f"config {verb} "))
    known = schema.find("qpsmtpd")
    assert known
    current = {n for n, rule in known.properties.items() if not rule.obsolete}
    assert set(offered("config setprop qpsmtpd ")) == (current | {"MySite"}) - {"*"}
    assert "domain" in offered("db domains set b.test ")
    assert "example.com" in offered("config set DomainName ")
    assert "Nameservers" in offered("db domains set b.test domain ")


def test_lists_offer_properties_that_are_lists_and_items_of_the_default(
    machine: Machine,
) -> None:
    names = offered("config listadd qpsmtpd ")

    assert {"RBLList", "SBLList", "UBLList"} <= set(names)
    assert "status" not in names
    assert "zen.spamhaus.org" in offered("config listadd qpsmtpd RBLList ")
    assert "dbl.spamhaus.org" in offered("config listdel qpsmtpd SBLList ")


def test_history_and_rollback_offer_what_was(machine: Machine) -> None:
    machine.run("config set gone 1")
    machine.run("config delete gone")

    assert "gone" in offered("config history ")
    assert offered("config rollback ") == ["0", "1", "2"]


def test_help_offers_keys_properties_and_types(machine: Machine) -> None:
    assert "qpsmtpd" in offered("config help ")
    assert "x" not in offered("config help ")
    assert "domain" in offered("db domains help ")
    assert "RBLList" in offered("config help qpsmtpd ")
    assert "MySite" not in offered("config help qpsmtpd ")


def test_root_offers_directories(machine: Machine) -> None:
    assert offered(f"config --root {machine.root}/ho") == [f"{machine.root}/home/"]
    assert offered(f"config --root={machine.root}/") == [f"--root={machine.root}/home/"]


def test_events_are_those_that_can_be_signalled(machine: Machine) -> None:
    machine.event("motd-update")

    events = offered("signal-event ")

    assert {"email-update", "motd-update"} <= set(events)
    assert all(find_event(event, Paths()) for event in events)


def test_targets_are_those_that_have_a_template(machine: Machine) -> None:
    machine.fragment("etc/motd", "10name", "x")
    machine.write("etc/smeconf/templates-custom/etc/issue", "a template in one file")

    targets = offered("expand-template ")

    assert {"/etc/motd", "/etc/issue", "/var/service/qpsmtpd/config/me"} <= set(targets)
    assert all(Layers(Paths()).fragments(target) for target in targets)


def test_what_cannot_stand_on_a_line_is_not_offered(machine: Machine) -> None:
    machine.records("a=service|p|two\\nlines\ntab\tkey=1\n")

    assert offered("config get ") == ["a"]
    assert offered("config setprop a p ") == []


def test_secret_of_the_schema_is_not_shown(machine: Machine) -> None:
    site = 'type = "service"\n[Token]\nsecret = true\nhelp = "x"\n'
    machine.write("etc/smeconf/db/configuration/vault.toml", site)
    machine.records("vault=service|Open|1|Token|hush\n")

    assert offered("config setprop vault Open ") == ["1"]
    assert offered("config setprop vault Token ") == []


# Silence


def run_silently(machine: Machine, *words: str) -> str:
    result = machine.run(*words)
    assert result.errors == ""
    return result.output


def test_any_fault_is_an_empty_answer(tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    assert run_silently(machine, "config", "--complete", "config", "get", "") == ""
    assert run_silently(machine, "config", "--complete", "config", "rollback", "x")
    for words in ([], ["quux"], ["config", "get"], ["config", "--root", "/none/"]):
        run_silently(machine, "config", "--complete", *words)
    for words in ([], ["config"], ["config", "line"], ["config", "line", "", ""]):
        assert run_silently(machine, "db", "--complete-bash", *words) == ""
    machine.path("home/e-smith/db/configuration").mkdir(parents=True)
    assert run_silently(machine, "config", "--complete", "config", "get", "") == ""


def test_schema_that_cannot_be_read_leaves_what_is_stored(machine: Machine) -> None:
    machine.write("etc/smeconf/db/configuration/bad.toml", "no [toml")

    words = ("config", "--complete", "config", "setprop", "")

    assert run_silently(machine, *words) == "DomainName\nkey: with blanks\nqpsmtpd\nx\n"


def test_history_that_cannot_be_read_leaves_what_is_stored(machine: Machine) -> None:
    machine.write("var/lib/smeconf/history/configuration", "no history\n")

    assert run_silently(machine, "config", "--complete", "config", "rollback", "") == ""


def test_completion_does_not_wait_for_click(machine: Machine) -> None:
    """What is asked at each TAB imports neither click nor the templates' engine."""
    code = (
        "import sys; sys.argv[1:] = ['--complete', 'config', 'setprop', '']\n"
        "from smeconf.cli.db import config\n"
        "try: config()\n"
        "except SystemExit: pass\n"
        "slow = {'click', 'jinja2', 'dns', 'logging', 'asyncio', 'shlex'}\n"
        "print(sorted(slow & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [BIN / "python", "-c", code],
        env=machine.environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == "[]"


# Words and quotes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("a  b\tc\r", ["a", "b", "c"]),
        ("a 'b c' \"d e\"f", ["a", "b c", "d ef"]),
        ("'' \"\"", ["", ""]),
        (r"a\ b \' \\", ["a b", "'", "\\"]),
        (r'"a\"b\\c\$d\e"', [r'a"b\c$d\e']),
        (r"'a\b'", [r"a\b"]),
        ("it'\"'\"'\"'s'", ["it\"'s"]),
        ("a\xa0b \u2003", ["a\xa0b", "\u2003"]),  # no blanks to a shell
    ],
)
def test_words_are_split_as_a_shell_splits_them(text: str, words: list[str]) -> None:
    assert split_line(text) == words


@pytest.mark.parametrize("text", ["'a", 'a "b', "a\\", '"\\'])
def test_quote_that_is_not_closed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"No (closing quotation|escaped character)"):
        split_line(text)
    assert Split(text).open != ""


@pytest.mark.parametrize(
    ("line", "text", "expected"),
    [
        ("config setprop x A ", "", [r"zone.test:Don\'t\ send,\ \$HOME"]),
        ("config setprop x A zone.test:", "", [r"Don\'t\ send,\ \$HOME"]),
        ("config setprop x A zone.test:Do", "Do", [r"Don\'t\ send,\ \$HOME"]),
        (r"config setprop x A zone.test:Don\'", r"Don\'", [r"Don\'t\ send,\ \$HOME"]),
        ("config setprop x A 'zo", "zo", [r"zone.test:Don'\''t send, $HOME"]),
        ('config setprop x A "zo', "zo", [r"zone.test:Don't send, \$HOME"]),
        ("config setprop x A zone.test:'D", "D", [r"Don'\''t send, $HOME"]),
        ("config setprop x B 'two ", "two ", ["two words"]),
        ("config setprop x B three", "three", []),
        ("config setprop x B two\\", "two\\", []),
        ("config setprop x B", "B", ["B"]),
        ("/opt/bin/config setprop x B", "B", ["B"]),
        ("A=1 config setprop x B", "B", ["B"]),
        ("config get key:", "", [r"\ with\ blanks"]),
        ("config getprop 'key: with blanks' ", "", ["p"]),
    ],
)
def test_answer_takes_the_place_of_what_readline_replaces(
    machine: Machine, line: str, text: str, expected: list[str]
) -> None:
    assert complete_line("config", line, text) == expected


# The shells themselves


class Bash:
    """A bash at a terminal, with the completion loaded; commands only show their
    words."""

    def __init__(self, machine: Machine, place: Path) -> None:
        place.mkdir()
        self._words = place / "words"
        wrapper = place / "config"
        wrapper.write_text(
            "#!/bin/bash\n"
            f'[[ $1 == --complete* ]] && exec {BIN}/config "$@"\n'
            f"printf '%s\\n' \"$@\" >{self._words}\n"
        )
        wrapper.chmod(0o755)
        shutil.copy(wrapper, place / "db")
        shutil.copy(wrapper, place / "signal-event")
        environment = {
            **machine.environment,
            "PATH": f"{place}:{BIN}:{os.environ['PATH']}",
            "TERM": "dumb",
            "INPUTRC": "/dev/null",
            "HISTFILE": "",
        }
        pid, self._terminal = pty.fork()
        if pid == 0:
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
        self._pid = pid
        self._number = 0
        self.type('eval "$(smeconf completion bash)"')

    def type(self, line: str) -> list[str]:
        """Type a line; return the words that the command was given."""
        self._number += 1
        self._words.unlink(missing_ok=True)
        text = f"{line}\necho en''d{self._number};\n"
        os.write(self._terminal, text.encode())
        shown = b""
        deadline = time.monotonic() + SECONDS
        while b"end%d" % self._number not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([self._terminal], [], [], 0.5)[0]:
                shown += os.read(self._terminal, 65536)
        return self._words.read_text().splitlines() if self._words.exists() else []

    def close(self) -> None:
        os.close(self._terminal)
        os.waitpid(self._pid, 0)


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bash]:
    place = tmp_path_factory.mktemp("bash")
    machine = Machine(place / "root")
    machine.records(RECORDS)
    machine.records("a.test=domain\n", "domains")
    bash = Bash(machine, place / "bin")
    yield bash
    bash.close()


A = "zone.test:Don't send, $HOME"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("config setp\t", ["setprop"]),
        ("config getprop qps\t DNS\t", ["getprop", "qpsmtpd", "DNSBL"]),
        ("config setprop x A \t", ["setprop", "x", "A", A]),
        ("config setprop x A zone.test:\t", ["setprop", "x", "A", A]),
        ("config setprop x A zone.test:D\t", ["setprop", "x", "A", A]),
        ("config setprop x A 'zo\t", ["setprop", "x", "A", A]),
        ('config setprop x A "zo\t', ["setprop", "x", "A", A]),
        ("config setprop x A zone.test:'D\t", ["setprop", "x", "A", A]),
        (r"config setprop x A zone.test:Don\'t" + "\t", ["setprop", "x", "A", A]),
        ("config setprop x B tw\t", ["setprop", "x", "B", "two words"]),
        ("config setprop x B 'two w\t", ["setprop", "x", "B", "two words"]),
        ("config setprop x B two\\ \t", ["setprop", "x", "B", "two words"]),
        ("config printprop key:\tp", ["printprop", "key: with blanks", "p"]),
        ("config --fo\tget x", ["--force", "get", "x"]),
        ("echo; config getprop x B\t", ["getprop", "x", "B"]),
        ("db domains getp\ta.t\t", ["getprop", "a.test"]),
        ("signal-event email-u\t", ["email-update"]),
    ],
)
def test_tab_in_bash_completes_to_the_very_word(
    bash: Bash, line: str, words: list[str]
) -> None:
    given = bash.type(line)

    if given[:1] == ["domains"]:
        given = given[1:]
    assert given == words


def test_bash_function_fills_compreply(machine: Machine) -> None:
    script = (
        'eval "$(smeconf completion bash)"\n'
        "COMP_WORDS=(config setprop qpsmtpd DNSBL '') COMP_CWORD=4\n"
        "COMP_LINE='config setprop qpsmtpd DNSBL ' COMP_POINT=${#COMP_LINE}\n"
        "_smeconf_complete config '' DNSBL\n"
        "printf '%s\\n' \"${COMPREPLY[@]}\"\n"
        "complete -p config db signal-event expand-template\n"
    )

    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**machine.environment, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )

    assert done.stdout.splitlines() == [
        "disabled",
        "enabled",
        *(
            f"complete -F _smeconf_complete {command}"
            for command in ("config", "db", "signal-event", "expand-template")
        ),
    ]
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_of_a_shell_is_put_out_and_parses_there(
    machine: Machine, shell: str, tmp_path: Path
) -> None:
    text = machine.run(f"smeconf completion {shell}").output

    script = tmp_path / "script"
    script.write_text(text)
    if shutil.which(shell):
        done = subprocess.run([shell, "-n", script], timeout=SECONDS, check=False)
        assert done.returncode == 0
    assert text.startswith((SCRIPTS / shell).read_text())
    assert "_SMECONF_COMPLETE" in text  # and smeconf itself
    assert "config db signal-event expand-template" in text


def test_fish_and_zsh_hand_over_plain_words(machine: Machine) -> None:
    """They quote by themselves; here what their scripts ask for."""
    words = ("config", "--complete", "config", "setprop", "key: with blanks", "p", "")

    assert machine.run(*words).output == "1\n"


FISH = [
    ("config setprop x A ", [A]),
    ("config setprop x A zone.test:D", [A]),
    ("config setprop 'key: with blanks' p ", ["1"]),
    ("db dom", ["domains"]),
]


def test_fish_completes_where_it_is_installed(machine: Machine) -> None:
    fish = shutil.which("fish")
    for line, expected in FISH if fish else ():
        done = subprocess.run(
            [
                str(fish),
                "--no-config",
                "-c",
                "smeconf completion fish | source; complete -C $argv[1]",
                line,
            ],
            env={**machine.environment, "PATH": f"{BIN}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        assert done.stdout.splitlines() == expected
