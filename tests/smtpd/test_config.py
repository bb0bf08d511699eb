"""The configuration directory: its files, their lines, the faults in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smeconf.smtpd.config import ConfigError, Directory, ServerSettings, whole_number
from tests.support.smtp import write_directory


def directory(tmp_path: Path, **files: str) -> Directory:
    return Directory(str(write_directory(tmp_path, files)))


def texts(of: Directory, name: str) -> list[str]:
    return [line.text for line in of.lines(name)]


def test_comments_and_blanks_are_dropped_and_numbers_kept(tmp_path: Path) -> None:
    files = directory(tmp_path, zones="# head\n\n  a.test  \r\n\t# no\nb.test # yes")

    lines = files.lines("zones")

    assert [(line.text, line.number) for line in lines] == [
        ("a.test", 3),
        ("b.test # yes", 5),
    ]
    assert str(lines[0].fault("why")) == f"{tmp_path}/zones:3: why"


def test_list_without_a_file_is_empty(tmp_path: Path) -> None:
    files = directory(tmp_path)

    assert files.lines("zones") == []
    assert files.names("peers") == []
    assert files.first("zones", str, "none") == "none"


def test_include_puts_another_file_in_its_place(tmp_path: Path) -> None:
    files = directory(tmp_path, a="1\n$include b\n4", b="2\n$include c\n", c="3")

    lines = files.lines("a")

    assert [line.text for line in lines] == ["1", "2", "3", "4"]
    assert lines[2].file == f"{tmp_path}/c"


def test_file_may_be_included_twice(tmp_path: Path) -> None:
    files = directory(tmp_path, a="$include b\n$include b", b="x")

    assert texts(files, "a") == ["x", "x"]


def test_file_that_includes_itself_is_an_error(tmp_path: Path) -> None:
    files = directory(tmp_path, a="$include b", b="$include a", c="$include ./c")

    with pytest.raises(ConfigError, match=r"/a: includes itself"):
        files.lines("a")
    with pytest.raises(ConfigError, match="includes itself"):
        files.lines("c")


def test_fault_is_named_by_the_included_file_and_its_line(tmp_path: Path) -> None:
    files = directory(tmp_path, a="1\n$include b", b="2\nthree")

    with pytest.raises(ConfigError, match=rf"^{tmp_path}/b:2: 'three' is no whole"):
        files.parsed("a", whole_number)


def test_file_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    files = directory(tmp_path)
    (tmp_path / "a").write_bytes(b"one\ntwo\n\xff\n")

    with pytest.raises(ConfigError, match=rf"^{tmp_path}/a:3: is not in UTF-8"):
        files.lines("a")


@pytest.mark.parametrize("name", [".", "b\0c"])
def test_file_that_cannot_be_read_is_an_error(tmp_path: Path, name: str) -> None:
    files = directory(tmp_path, a=f"$include {name}")

    with pytest.raises(ConfigError, match="cannot be read"):
        files.lines("a")


def test_directory_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gone: no such directory"):
        Directory(str(tmp_path / "gone"))


def test_settings_of_the_server_are_read(tmp_path: Path) -> None:
    files = directory(
        tmp_path,
        me="mx.test",
        smtpgreeting="mx.test at your service",
        listen="25\n127.0.0.1@2525\n::1\n::1@26",
        user="qpsmtpd",
        workers="3",
        dns_servers="127.0.0.1@5353",
        databytes="1000",
        timeoutsmtpd="20",
        loglevel="4",
    )

    settings = ServerSettings.read(files)

    assert settings == ServerSettings(
        me="mx.test",
        greeting="mx.test at your service",
        listen=(("", 25), ("127.0.0.1", 2525), ("::1", 25), ("::1", 26)),
        user="qpsmtpd",
        workers=3,
        dns_servers=(("127.0.0.1", 5353),),
        databytes=1000,
        timeout_seconds=20,
        log_level=4,
    )


def test_empty_directory_has_working_defaults(tmp_path: Path) -> None:
    settings = ServerSettings.read(directory(tmp_path))

    assert settings.me
    assert settings.greeting == settings.me
    assert settings.listen == (("", 25),)
    assert settings.dns_servers
    assert settings.timeout_seconds == 300


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("me", "two words"),
        ("me", "bücher.test"),
        ("listen", "host.test"),
        ("listen", "0"),
        ("listen", "65536"),
        ("listen", "127.0.0.1@smtp"),
        ("listen", "²"),
        ("workers", "-1"),
        ("workers", "two"),
        ("databytes", "1k"),
        ("timeoutsmtpd", "1.5"),
        ("dns_servers", "dns.test"),
        ("loglevel", "high"),
    ],
)
def test_setting_that_is_wrong_is_named_with_file_and_line(
    tmp_path: Path, name: str, text: str
) -> None:
    files = directory(tmp_path, **{name: f"# comment\n{text}"})

    with pytest.raises(ConfigError, match=rf"^{tmp_path}/{name}:2: "):
        ServerSettings.read(files)


# The whole, while an installer is at work


def generation(place: Path, text: str) -> None:
    Path(f"{place}.generation").write_text(text)


def unfinished(place: Path, **files: str | None) -> None:
    """An install that was begun: of ``x__y`` is said what to read in place of x/y."""
    instead = {name.replace("__", "/"): old for name, old in files.items()}
    generation(place, json.dumps({"id": "first", "unfinished": instead}))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return write_directory(tmp_path / "config", {"a": "new a", "b": "b"})


def test_whole_has_the_name_that_its_installer_gave_it(place: Path) -> None:
    assert Directory(str(place)).generation == ""

    generation(place, '{"id": "20261124-1"}\n')

    assert Directory(str(place)).generation == "20261124-1"
    assert Directory(f"{place}/").generation == "20261124-1"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"id"'])
def test_name_that_is_not_understood_is_an_error_that_says_what_to_do(
    place: Path, text: str
) -> None:
    generation(place, text)

    if not text:  # a machine that lost its power; nobody named the whole
        assert Directory(str(place)).generation == ""
        return
    with pytest.raises(ConfigError, match=r"config\.generation:1: .*: remove it$"):
        Directory(str(place))


def test_old_file_is_read_while_a_new_one_is_installed(place: Path) -> None:
    unfinished(place, a=".old-a")
    (place / ".old-a").write_text("old a")

    files = Directory(str(place))

    assert texts(files, "a") == ["old a"]
    assert texts(files, "./a") == ["old a"]
    assert texts(files, "b") == ["b"]
    assert files.generation == "first"


def test_included_file_is_the_old_one_too(place: Path) -> None:
    unfinished(place, a=".old-a")
    (place / ".old-a").write_text("old a")
    (place / "b").write_text("$include a")

    assert texts(Directory(str(place)), "b") == ["old a"]


def test_old_file_that_is_back_in_its_place_is_read_there(place: Path) -> None:
    """Its second name is gone then; an undo is at work."""
    unfinished(place, a=".old-a")

    assert texts(Directory(str(place)), "a") == ["new a"]


def test_file_that_is_new_is_not_there_until_the_install_ends(place: Path) -> None:
    (place / "peers").mkdir()
    (place / "peers/0").write_text("new")
    unfinished(place, a=None, peers__0=None)

    files = Directory(str(place))

    assert not files.has("a")
    assert files.lines("a") == []
    assert files.names("peers") == []


def test_file_that_is_removed_is_there_until_the_install_ends(place: Path) -> None:
    (place / "peers").mkdir()
    (place / "peers/.old-0").write_text("old")
    unfinished(place, peers__0="peers/.old-0")

    files = Directory(str(place))

    assert files.names("peers") == ["0"]
    assert texts(files, "peers/0") == ["old"]


def test_what_installers_and_editors_leave_is_no_list_of_peers(place: Path) -> None:
    (place / "peers").mkdir()
    for name in ("0", ".smeconf-1.new", "0~", "0.rpmsave", "0.edited", "0.edited.2"):
        (place / "peers" / name).touch()

    assert Directory(str(place)).names("peers") == ["0"]


def test_install_that_begins_or_ends_is_noticed(place: Path) -> None:
    before = Directory(str(place))
    assert not before.has_changed()

    unfinished(place, a=None)
    during = Directory(str(place))
    assert before.has_changed()
    assert not during.has_changed()

    generation(place, '{"id": "second"}')
    assert during.has_changed()
