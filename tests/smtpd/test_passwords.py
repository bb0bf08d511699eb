"""Hashed passwords, and the file that they lie in."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import threading
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeconf.smtpd import passwords
from smeconf.smtpd.passwords import (
    UNKNOWN,
    PasswordError,
    PasswordFile,
    hash_password,
    is_plain_name,
    needs_rehash,
    verify,
)

SESAME = hash_password("sesame")


def cheap(text: str, log2_n: int = 4) -> str:
    """A hash that costs nothing, made without the code under test."""
    salt = b"s" * 16
    digest = hashlib.scrypt(text.encode(), salt=salt, n=1 << log2_n, r=8, p=1, dklen=32)
    encoded = "$".join(b64encode(one).decode() for one in (salt, digest))
    return f"scrypt${log2_n}$8$1${encoded}"


@pytest.fixture
def file(tmp_path: Path) -> PasswordFile:
    return PasswordFile(str(tmp_path / "state/passwd"))


def written(file: PasswordFile, text: str) -> PasswordFile:
    path = Path(file.path)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return file


# Hashes


def test_password_is_verified_against_its_hash_alone() -> None:
    assert verify("sesame", SESAME)
    assert not verify("Sesame", SESAME)
    assert not verify("sesame ", SESAME)
    assert not verify("", SESAME)


def test_hash_tells_how_it_was_made_and_not_of_what() -> None:
    kind, log2_n, r, p, _, _ = SESAME.split("$")

    assert (kind, log2_n, r, p) == ("scrypt", "15", "8", "1")
    assert "sesame" not in SESAME
    assert ":" not in SESAME


def test_two_hashes_of_a_password_differ() -> None:
    assert hash_password("sesame") != SESAME


def test_hash_of_other_parameters_is_read_and_known_to_be_one() -> None:
    assert verify("sesame", cheap("sesame"))
    assert not verify("other", cheap("sesame"))
    assert needs_rehash(cheap("sesame"))
    assert not needs_rehash(SESAME)


def test_nothing_is_the_password_of_nobody_and_it_costs_as_much_as_any() -> None:
    assert not verify("", UNKNOWN)
    assert not verify("sesame", UNKNOWN)
    assert not needs_rehash(UNKNOWN)


def test_accents_may_be_put_together_in_either_way() -> None:
    assert verify("pa\u0308ss", hash_password("p\u00e4ss"))


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "sesame",
        "$6$salt$" + "x" * 86,
        "$5$salt$" + "x" * 43,
        "scrypt",
        SESAME[:-8],
        SESAME + "$",
        SESAME.replace("$15$", "$x$"),
        SESAME.replace("$15$", "$-1$"),
        SESAME.replace("$15$", "$0$"),
        SESAME.replace("$15$8$", "$99$8$"),
        SESAME.replace("$15$8$", "$24$32$"),
        SESAME.replace("$15$8$1$", "$15$8$0$"),
        SESAME.replace("$15$8$1$", "$15$8$99$"),
        "scrypt$15$8$1$!!!!$" + SESAME.rpartition("$")[2],
        "scrypt$15$8$1$$",
    ],
)
def test_what_is_no_scrypt_hash_within_bounds_is_refused(stored: str) -> None:
    with pytest.raises(PasswordError, match="set the password anew"):
        verify("sesame", stored)
    with pytest.raises(PasswordError, match="set the password anew"):
        needs_rehash(stored)


@given(st.text())
def test_no_line_breaks_the_reader(stored: str) -> None:
    for text in (stored, "scrypt$" + stored, "scrypt$4$8$1$" + stored):
        with contextlib.suppress(PasswordError):
            assert needs_rehash(text) in (True, False)


# Names


@pytest.mark.parametrize(
    "name", ["ann", "ann@here.test", "änn", "a.b-c_d+e", "x" * 256]
)
def test_name_may_be_any_word(name: str) -> None:
    assert is_plain_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "a:b", "a b", " a", "a\t", "a\nb", "a\0", "a\x85", "#a", "\udcff", "x" * 257],
)
def test_name_that_the_file_could_not_hold_is_none(
    file: PasswordFile, name: str
) -> None:
    assert not is_plain_name(name)
    with pytest.raises(ValueError, match="is no name"):
        file.put(name, SESAME, is_new=True)


# The file


def test_file_that_is_missing_has_no_names(file: PasswordFile) -> None:
    assert file.find("ann") is None
    assert file.names() == []
    assert file.faults() == []
    assert not file.delete("ann")


def test_name_is_found_by_its_whole_and_is_the_same_in_any_form(
    file: PasswordFile,
) -> None:
    file.put("a\u0308nn", SESAME, is_new=True)

    assert file.find("\u00e4nn") == SESAME
    assert file.find("\u00e4n") is None
    assert file.find("\u00c4nn") is None


def test_name_is_added_once_and_changed_only_where_it_is(file: PasswordFile) -> None:
    other = cheap("other")

    assert not file.put("ann", SESAME, is_new=False)
    assert file.put("ann", SESAME, is_new=True)
    assert not file.put("ann", other, is_new=True)
    assert file.find("ann") == SESAME
    assert file.put("ann", other, is_new=False)
    assert file.find("ann") == other
    assert file.delete("ann")
    assert file.find("ann") is None


def test_other_lines_stay_as_they_are(file: PasswordFile) -> None:
    text = f"# who\n\nann:{SESAME}\nbroken\nbob:{SESAME}\n"
    written(file, text)

    file.put("bob", cheap("x"), is_new=False)
    file.put("cem", SESAME, is_new=True)
    file.delete("ann")

    bob, cem = f"bob:{cheap('x')}", f"cem:{SESAME}"
    assert Path(file.path).read_text() == f"# who\n\nbroken\n{bob}\n{cem}\n"


def test_change_by_somebody_else_is_seen_at_once(file: PasswordFile) -> None:
    writer = PasswordFile(file.path)
    for password in ("one", "two", "six"):
        writer.put("ann", cheap(password), is_new=file.find("ann") is None)
        assert file.find("ann") == cheap(password)
    Path(file.path).unlink()
    assert file.find("ann") is None


def test_change_in_place_that_keeps_size_and_time_is_seen(file: PasswordFile) -> None:
    written(file, f"ann:{cheap('one')}\n")
    assert file.find("ann") == cheap("one")
    before = os.stat(file.path)

    with open(file.path, "r+") as stream:
        stream.write(f"ann:{cheap('two')}\n")
    os.utime(file.path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert file.find("ann") == cheap("two")


def test_file_is_read_once_while_it_stays_the_same(
    file: PasswordFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(file, f"ann:{SESAME}\n")
    file.find("ann")

    def fail(*_: object) -> None:
        raise AssertionError("is read again")

    monkeypatch.setattr(passwords, "_read_table", fail)
    assert file.find("ann") == SESAME
    assert file.find("bob") is None


def test_broken_line_is_named_and_costs_no_other(file: PasswordFile) -> None:
    lines = ["ann", "bob:$6$x$y", f"cem:{SESAME}", f"cem:{cheap('x')}", f"d d:{SESAME}"]
    written(file, "\n".join(lines) + "\n")

    assert file.names() == ["cem"]
    assert file.find("cem") == SESAME
    assert file.faults() == [
        f"{file.path}:1: is not NAME:HASH",
        f"{file.path}:2: is no scrypt hash: set the password anew",
        f"{file.path}:4: cem is there twice: the first line counts",
        f"{file.path}:5: is not NAME:HASH",
    ]
    assert file.has("bob")
    assert not file.has("ann")


def test_line_that_is_not_utf_8_costs_no_other(file: PasswordFile) -> None:
    written(file, "")
    Path(file.path).write_bytes(b"\xff:x\nann:" + SESAME.encode() + b"\nbob:\xff\n")

    assert file.names() == ["ann"]
    assert len(file.faults()) == 2


def test_name_that_is_deleted_is_gone_from_every_line(file: PasswordFile) -> None:
    written(file, f"ann:{SESAME}\nann:{cheap('x')}\n")

    file.delete("ann")

    assert Path(file.path).read_text() == ""


def test_file_that_cannot_be_read_is_no_empty_one(file: PasswordFile) -> None:
    Path(file.path).mkdir(parents=True)

    for act in (lambda: file.find("ann"), file.names, file.faults):
        with pytest.raises(PasswordError, match=r"/state/passwd: "):
            act()
    with pytest.raises(PasswordError, match=r"/state/passwd: "):
        file.put("ann", SESAME, is_new=True)


def test_file_is_open_to_its_owner_and_to_the_group_alone(
    file: PasswordFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            modes.append(stat.S_IMODE(status.st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    old = os.umask(0)
    try:
        file.put("ann", SESAME, is_new=True)
        PasswordFile(file.path, os.getegid()).put("bob", SESAME, is_new=True)
        opened = stat.S_IMODE(os.stat(file.path).st_mode)
        file.delete("bob")
    finally:
        os.umask(old)

    assert modes == [0o600, 0o640, 0o600]
    assert opened == 0o640
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(file.path + ".lock").st_mode) == 0o600


def test_file_and_directory_are_on_disk_before_a_change_counts(
    file: PasswordFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("directory" if is_directory else "file")
        fsync(descriptor)

    def note_rename(old: str, new: str) -> None:
        done.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)

    file.put("ann", SESAME, is_new=True)

    assert done == ["file", "rename", "directory"]


def test_change_that_fails_leaves_the_file_and_no_litter(
    file: PasswordFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.put("ann", SESAME, is_new=True)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(PasswordError, match="No space left on device"):
        file.put("bob", SESAME, is_new=True)

    assert PasswordFile(file.path).names() == ["ann"]
    assert sorted(os.listdir(os.path.dirname(file.path))) == ["passwd", "passwd.lock"]


def test_litter_and_links_beside_the_file_are_not_followed(
    file: PasswordFile, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    written(file, "")
    os.symlink(victim, tmp_path / "state/.passwd.new")

    file.put("ann", SESAME, is_new=True)

    assert victim.read_text() == "safe"
    assert file.names() == ["ann"]


def test_writers_at_the_same_time_lose_nothing(file: PasswordFile) -> None:
    names = [f"user{number}" for number in range(24)]

    def add(some: list[str]) -> None:
        for name in some:
            assert PasswordFile(file.path).put(name, SESAME, is_new=True)

    threads = [threading.Thread(target=add, args=(names[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(file.names()) == sorted(names)


def test_lock_that_nobody_lets_go_is_waited_for_only_so_long(
    file: PasswordFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "_LOCK_SECONDS", 0.1)
    written(file, "")
    with open(file.path + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PasswordError, match="is held by another process"):
            file.put("ann", SESAME, is_new=True)
    assert file.put("ann", SESAME, is_new=True)
