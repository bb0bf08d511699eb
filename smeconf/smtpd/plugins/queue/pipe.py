"""queue/pipe: hand mail to a program that understands sendmail's arguments.

Hook      queue
Argument  COMMAND               the program by its full path and its arguments, all in
                                one pair of quotes; {sender} stands for the envelope
                                sender, {recipients} for all recipients, each an
                                argument of its own
Option    timeout 60            seconds that the program may take
From      qpsmtpd{QueueMethod}   pipe
          qpsmtpd{QueueTarget}   COMMAND
          qpsmtpd{QueueTimeout}  timeout

    queue/pipe "/usr/sbin/sendmail -i -f {sender} -- {recipients}"

No shell is in between.  The message is the program's input, its lines end with LF.
Exit status 0 takes it; 65 to 69 and from 77 on (sysexits) refuse it for good; any
other, a signal and a program that takes too long put it off.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from smeconf.smtpd.hooks import Answer, deny, denysoft, ok
from smeconf.smtpd.message import Message
from smeconf.smtpd.plugin import Context, Plugin, argument, option
from smeconf.smtpd.state import Connection, Transaction

_SENDER, _RECIPIENTS = "{sender}", "{recipients}"
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/"}
_OUTPUT_BYTES = 4096
_LATER = "The mail cannot be handed on, try again later"


class Pipe(Plugin):
    """Runs a program for each message."""

    @dataclass(frozen=True)
    class Settings:
        """What to run."""

        command: str = argument(0, "")
        timeout: int = option(60)

    def __init__(self, name: str, settings: Any, context: Context) -> None:
        super().__init__(name, settings, context)
        self._words = shlex.split(settings.command)
        _check(self._words)

    async def hook_queue(self, connection: Connection, message: Message) -> Answer:
        """Run the program; accept the message when it did."""
        transaction = connection.transaction
        assert transaction is not None
        words = self._arguments(transaction)
        if words is None:
            self.log_error(connection, "an address that looks like an option")
            return deny("An address that begins with - cannot be served")
        # In a task of its own, as time limits need one.
        return await asyncio.ensure_future(self._run(connection, words, message))

    def _arguments(self, transaction: Transaction) -> list[str] | None:
        """Return the words of the command; None where an address would be an option."""
        words: list[str] = []
        is_guarded = False
        for word in self._words:
            if word == _SENDER:
                sender = str(transaction.sender)
                if sender.startswith("-") and not is_guarded:
                    return None
                words.append(sender)
            elif word == _RECIPIENTS:
                words += map(str, transaction.recipients)
            else:
                words.append(word)
                is_guarded = is_guarded or word == "--"
        return words

    async def _run(
        self, connection: Connection, words: list[str], message: Message
    ) -> Answer:
        output = _Output()
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.PIPE,
                stdout=output.write_end,
                stderr=output.write_end,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,  # a group, to be ended as a whole
            )
        except OSError as error:
            output.close()
            self.log_error(connection, f"{words[0]}: {error.strerror}")
            return denysoft(_LATER)
        status: int | None = None
        try:
            async with asyncio.timeout(self.settings.timeout):
                is_fed = await _feed(process, message)
                status = await process.wait()
        except TimeoutError:
            self.log_error(connection, f"{words[0]}: ended after the time limit")
            return denysoft(_LATER)
        finally:
            text = output.close()
            # What it left behind goes too, unless all went well.
            if status != 0:
                _end(process)
                await process.wait()
        return self._judge(connection, status, text, is_fed=is_fed)

    def _judge(
        self, connection: Connection, status: int, output: bytes, *, is_fed: bool
    ) -> Answer:
        program = self._words[0]
        text = " / ".join(output.decode("utf-8", "replace").split("\n")).strip(" /")
        if status == 0 and is_fed:
            self.log_pass(connection, f"{program}: {text}" if text else program)
            return ok("Queued!")
        why = f"signal {-status}" if status < 0 else f"exit status {status}"
        if status == 0:
            why = "did not read the whole message"
        self.log_error(connection, f"{program}: {why}: {text}")
        if 65 <= status <= 69 or status >= 77:
            return deny("The message is not taken")
        return denysoft(_LATER)

    def warnings(self) -> list[str]:
        """Say where the program is missing."""
        program = self._words[0]
        if os.access(program, os.X_OK):
            return []
        return [f"{self.name}: {program} cannot be run: no mail will be taken"]


def _check(words: list[str]) -> None:
    """Raise ValueError for a command that cannot be run safely."""
    if not words or not words[0].startswith("/"):
        raise ValueError("needs a program by its full path, and its arguments, quoted")
    if _RECIPIENTS not in words:
        raise ValueError("needs {recipients} as an argument of its own")
    if "--" not in words[: words.index(_RECIPIENTS)]:
        raise ValueError("needs -- before {recipients}, where options end")
    for word in words:
        if word not in (_SENDER, _RECIPIENTS) and (
            _SENDER in word or _RECIPIENTS in word
        ):
            raise ValueError(f"{word}: an address is an argument of its own")


class _Output:
    """What a program prints: its beginning is kept, the rest read and dropped.

    A pipe of our own: a program that goes on in the background may hold it open, and
    is not waited for.
    """

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self._kept = b""
        asyncio.get_running_loop().add_reader(self._read_end, self._read)

    def _read(self) -> bool:
        """Read what is there; tell whether there may be more at once."""
        try:
            piece = os.read(self._read_end, _OUTPUT_BYTES)
        except BlockingIOError:
            return False
        self._kept = (self._kept + piece)[:_OUTPUT_BYTES]
        if not piece:
            asyncio.get_running_loop().remove_reader(self._read_end)
        return bool(piece)

    def close(self) -> bytes:
        """Read no more; return the beginning of what was printed."""
        while len(self._kept) < _OUTPUT_BYTES and self._read():
            pass
        asyncio.get_running_loop().remove_reader(self._read_end)
        os.close(self._read_end)
        os.close(self.write_end)
        return self._kept


async def _feed(process: asyncio.subprocess.Process, message: Message) -> bool:
    """Write the message to a program; tell whether it read all of it."""
    stdin = process.stdin
    assert stdin is not None
    held = b""
    try:
        for piece in message.pieces():
            # A CR at the end of a piece may belong to an LF of the next.
            piece = held + piece
            held = b"\r" if piece.endswith(b"\r") else b""
            stdin.write(piece[: len(piece) - len(held)].replace(b"\r\n", b"\n"))
            await stdin.drain()
        stdin.write(held)
        stdin.close()
        await stdin.wait_closed()
    except (OSError, RuntimeError):  # uvloop's, for a pipe that is closed
        return False
    return True


def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a program with all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
