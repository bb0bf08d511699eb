"""queue/maildir: 250 means that the mail is safe, in the right place."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeconf.smtpd.address import Address
from smeconf.smtpd.plugins.queue import maildir
from tests.support.smtp import Conversation, load, mails


def client(tmp_path: Path, argument: str = "var/mail", **files: str) -> Conversation:
    plugins = f"relay\nrcpt_ok\nqueue/maildir {argument}"
    return Conversation(load(tmp_path, {"plugins": plugins, **files}))


def test_message_is_kept_with_its_envelope(tmp_path: Path) -> None:
    with client(tmp_path) as one:
        reply = one.deliver("you@here.test", "me@here.test")

    (file,) = (tmp_path / "root/var/mail/new").iterdir()
    assert reply == f"250 2.0.0 Queued! {file.name}"
    assert file.name.endswith(".mx.test")
    text = file.read_bytes()
    assert text.startswith(
        b"Return-Path: <a@far.test>\nDelivered-To: you@here.test\n"
        b"Delivered-To: me@here.test\nReceived: "
    )
    assert b"\r" not in text


def test_absolute_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    with client(tmp_path, f"{tmp_path}/elsewhere") as one:
        one.deliver()

    assert len(mails(tmp_path / "elsewhere")) == 1


@pytest.mark.parametrize(("argument", "mode"), [("", 0o600), ("'' 640", 0o640)])
def test_file_has_the_mode_that_is_set(
    tmp_path: Path, argument: str, mode: int
) -> None:
    with client(tmp_path, f"var/mail {argument}") as one:
        one.deliver()

    (file,) = (tmp_path / "root/var/mail/new").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a", b""]), max_size=12))
def test_crlf_is_written_as_lf_wherever_pieces_are_cut(pieces: list[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        maildir._write_durably(path, pieces, 0o600)
        with open(path, "rb") as file:
            assert file.read() == b"".join(pieces).replace(b"\r\n", b"\n")


class Disk:
    """Notes what is done to the disk, in order, and fails where it is told to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.fails: tuple[str, str] = ("", "")
        self.fsync, self.rename = os.fsync, os.rename
        self.patch = patch
        patch.setattr(os, "fsync", self.on_fsync)
        patch.setattr(os, "rename", self.on_rename)

    def note(self, what: str, path: str) -> None:
        self.done.append(f"{what} {path}")
        call, part = self.fails
        if call == what and part in path:
            raise OSError(errno.ENOSPC, "No space left on device", path)

    def on_fsync(self, file: int) -> None:
        path = os.readlink(f"/proc/self/fd/{file}")
        parts = Path(path).parts
        short = parts[-2] if parts[-2] == "tmp" else "/".join(parts[-2:])
        self.note("fsync", short)
        self.fsync(file)

    def on_rename(self, old: str, new: str) -> None:
        self.note("rename", "/".join(Path(new).parts[-3:-1]))
        self.rename(old, new)


def test_file_and_directory_are_on_disk_before_250(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)

    with client(tmp_path) as one:
        assert one.deliver().startswith("250")

    assert disk.done == ["fsync tmp", "rename mail/new", "fsync mail/new"]


def test_all_copies_are_on_disk_before_the_first_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(tmp_path, "var/mail %l") as one:
        one.deliver("b@here.test", "c@here.test")
        disk = Disk(monkeypatch)

        one.deliver("b@here.test", "c@here.test")

    assert disk.done == [
        "fsync tmp",
        "fsync tmp",
        "rename b/new",
        "rename c/new",
        "fsync b/new",
        "fsync c/new",
    ]


def test_new_folder_of_a_recipient_is_on_disk_before_250(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(tmp_path, "var/mail %d/%l") as one:
        disk = Disk(monkeypatch)
        assert one.deliver("b@here.test").startswith("250")

    for folder in ("var/mail", "mail/here.test", "here.test/b"):
        assert f"fsync {folder}" in disk.done
    assert disk.done[-1] == "fsync b/new"


@pytest.mark.parametrize(
    "fails", [("fsync", "tmp"), ("rename", "b/"), ("rename", "c/"), ("fsync", "b/new")]
)
def test_full_disk_defers_the_message_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    fails: tuple[str, str],
) -> None:
    disk = Disk(monkeypatch)
    disk.fails = fails

    with client(tmp_path, "var/mail %l") as one:
        reply = one.deliver("b@here.test", "c@here.test")
        assert reply == "452 4.7.1 The mailbox cannot be written, try again later"

    assert [path for path in tmp_path.glob("root/**/*") if path.is_file()] == []
    assert "(queue) queue/maildir: error, " in (log := capfd.readouterr().err)
    assert "No space left on device" in log


def test_directory_that_is_gone_defers_the_message(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with client(tmp_path) as one:
        folder = tmp_path / "root/var/mail/tmp"
        folder.rmdir()
        folder.write_text("")
        assert one.deliver().startswith("452 4.7.1")
        folder.unlink()
        folder.mkdir()
        assert one.deliver().startswith("250")

    assert "error, " in capfd.readouterr().err


def test_each_recipient_has_a_folder_by_the_pattern(tmp_path: Path) -> None:
    with client(tmp_path, "var/mail %d/%l") as one:
        one.deliver("Bob@here.test", "carol@here.test", "BOB@HERE.TEST")

    root = tmp_path / "root/var/mail"
    (bob,) = mails(root / "here.test/bob")
    (carol,) = mails(root / "here.test/carol")
    assert b"Delivered-To: Bob@here.test\nDelivered-To: BOB@here.test\n" in bob
    assert b"carol" not in bob.partition(b"Received")[0]
    assert b"Delivered-To: carol@here.test\n" in carol


HOSTILE = [
    '"../../../../tmp/x"@here.test',
    '".."@here.test',
    '"."@here.test',
    '"/etc/passwd"@here.test',
    '"..\\/"@here.test',
    "a/b@here.test",
    "%d%u@here.test",
]


@pytest.mark.parametrize("recipient", HOSTILE)
@pytest.mark.parametrize("pattern", ["%l", "%u", "%d/%l"])
def test_no_recipient_leads_out_of_the_directory(
    tmp_path: Path, recipient: str, pattern: str
) -> None:
    with client(tmp_path, f"var/mail {pattern}", relayclients="192.") as one:
        assert one.deliver(recipient).startswith("250")

    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    (mail,) = [path for path in files if path.parent.name == "new"]
    folder = mail.parent.parent.relative_to(tmp_path / "root/var/mail")
    assert len(folder.parts) == pattern.count("/") + 1
    assert all(not part.startswith(".") for part in folder.parts)


def test_signs_in_a_local_part_are_not_filled_in() -> None:
    """Else mail to one address would land in the folder of another."""
    fill_in = maildir._fill_in

    assert fill_in("%l", Address("%d", "here.test")) == "%d"
    assert fill_in("%d/%l", Address("%u", "here.test")) == "here.test/%u"
    assert fill_in("%u", Address("%l", "here.test")) == "%l@here.test"


@given(st.text(min_size=1), st.sampled_from(["%l", "%u", "x%l", "%d/%l"]))
def test_whatever_the_local_part_is_it_stays_one_name(local: str, pattern: str) -> None:
    folder = maildir._fill_in(pattern, Address(local, "here.test"))

    parts = folder.split("/")
    assert len(parts) == pattern.count("/") + 1
    assert not {"", ".", ".."} & set(parts)
