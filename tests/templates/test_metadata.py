"""What metadata.toml may say, how layers are joined, and how a fault is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from smeconf.templates.metadata import Metadata, TargetError, read_metadata

EVERY_KEY = """\
owner = "mail"
group = "adm"
mode = "0640"
template = "/etc/base"
comment = "ini"
output = "home/{key}/.forward"
delete = true
filter = "line if line else none"
check = ["visudo", "-cf", "{}"]
each = "accounts/user"
queue = ["templates-user", "templates-user-custom"]
check_directory = ["true", "{}"]
generation = true
"""


def put(place: Path, toml: str, name: str = "metadata.toml") -> str:
    path = place / name
    path.write_text(toml)
    return str(path)


def fault(path: str) -> str:
    with pytest.raises(TargetError) as caught:
        read_metadata([path])
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_every_key_is_read(tmp_path: Path) -> None:
    path = put(tmp_path, EVERY_KEY)

    metadata = read_metadata([path])

    assert metadata == Metadata(
        owner="mail",
        group="adm",
        mode=0o640,
        template="etc/base",
        comment="ini",
        output="home/{key}/.forward",
        delete=True,
        filter="line if line else none",
        check=("visudo", "-cf", "{}"),
        each="accounts/user",
        queue=("templates-user", "templates-user-custom"),
        check_directory=("true", "{}"),
        generation=True,
    )
    assert set(metadata.said) == {line.split()[0] for line in EVERY_KEY.splitlines()}


def test_later_file_replaces_keys_of_the_earlier_one(tmp_path: Path) -> None:
    shipped = put(tmp_path, EVERY_KEY, "shipped")
    site = put(tmp_path, 'mode = "0600"\ncheck = ["mine"]', "site")

    metadata = read_metadata([shipped, site])

    assert (metadata.mode, metadata.check) == (0o600, ("mine",))
    assert (metadata.owner, metadata.each) == ("mail", "accounts/user")
    assert metadata.said["mode"] == site
    assert metadata.said["owner"] == shipped


def test_empty_value_switches_a_key_off(tmp_path: Path) -> None:
    shipped = put(tmp_path, EVERY_KEY, "shipped")
    off = ("template", "comment", "output", "filter", "each")
    site = put(
        tmp_path,
        "".join(f'{key} = ""\n' for key in off)
        + "check = []\nqueue = []\ncheck_directory = []\n"
        + "delete = false\ngeneration = false\n",
        "site",
    )

    assert read_metadata([shipped, site]) == Metadata("mail", "adm", 0o640)


def test_default_that_is_said_is_known_to_be_said(tmp_path: Path) -> None:
    path = put(tmp_path, 'mode = "0644"')

    assert read_metadata([path]) == read_metadata([])
    assert read_metadata([path]).said == {"mode": path}


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("mode = 640", 'mode is octal in quotes, such as "0640", not 640'),
        ('mode = "rw"', "mode is octal in quotes, such as \"0640\", not 'rw'"),
        ('mode = "0999"', "mode is octal in quotes, such as \"0640\", not '0999'"),
        ('mode = "0o64"', "mode is octal in quotes, such as \"0640\", not '0o64'"),
        ('mode = "-644"', "mode is octal in quotes, such as \"0640\", not '-644'"),
        ('mode = "400000"', "mode is octal in quotes, such as \"0640\", not '400000'"),
        ('mode = ""', "mode is octal in quotes, such as \"0640\", not ''"),
        ("owner = 0", 'owner is a name, such as "root", not 0'),
        ('group = ""', "group is a name, such as \"root\", not ''"),
        ("template = []", 'template is a path, such as "etc/motd", not []'),
        (
            'template = "../base"',
            "template: '../base' is no path below the root: name a file, without ..",
        ),
        (
            'output = "/"',
            "output: '/' is no path below the root: name a file, without ..",
        ),
        ("comment = 1", 'comment is a style, such as "ini" or "none", not 1'),
        ('comment = "a/b"', 'comment is a style, such as "ini" or "none", not \'a/b\''),
        ("delete = 1", "delete is true or false, not 1"),
        ('generation = "yes"', "generation is true or false, not 'yes'"),
        (
            "filter = true",
            'filter is an expression, such as "line if line else none", not True',
        ),
        (
            'check = "true"',
            'check is a list of words, such as ["true", "{}"], not \'true\'',
        ),
        ("check = [1]", 'check is a list of words, such as ["true", "{}"], not [1]'),
        (
            'check_directory = "true {}"',
            'check_directory is a list of words, such as ["true", "{}"], '
            "not 'true {}'",
        ),
        (
            'check_directory = [""]',
            'check_directory is a list of words, such as ["true", "{}"], not [\'\']',
        ),
        (
            'each = "accounts"',
            "each is a database and a type, such as \"accounts/user\", not 'accounts'",
        ),
        (
            'each = "/user"',
            "each is a database and a type, such as \"accounts/user\", not '/user'",
        ),
        (
            'each = "acounts/user"',
            "each: there is no database acounts; did you mean accounts?",
        ),
        (
            'queue = "templates-user"',
            'queue is a list of directories, such as ["templates-user"], '
            "not 'templates-user'",
        ),
        (
            'queue = ["../templates"]',
            "queue: '../templates' is no path below the root: name a file, without ..",
        ),
        ('perms = "0640"', "perms is not known; known are owner, group, mode, "),
        ('onwer = "root"', "onwer is not known; did you mean owner?"),
        ("[mode]", 'mode is octal in quotes, such as "0640", not {}'),
        ("owner = ", "Invalid value (at "),
        (
            'each = "accounts/user"',
            "each needs an output with {key}, such as output = ",
        ),
        (
            'each = "accounts/user"\noutput = "home/key"',
            "each needs an output with {key}, such as output = ",
        ),
        (
            'output = "home/{key}"',
            'output has {key}: say each, such as each = "accounts/user"',
        ),
    ],
)
def test_fault_is_named_with_file_and_key(
    tmp_path: Path, toml: str, reason: str
) -> None:
    path = put(tmp_path, toml)

    assert fault(path).startswith(f"{path}: {reason}")


def test_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metadata.toml"
    path.write_bytes(b"mode = '\xff'")

    assert fault(str(path)).startswith(f"{path}: ")
