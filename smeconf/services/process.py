"""The process of our filter: which it is, killing it, starting it.

Its process id file is locked by the master as long as that lives, so a number in a file
that nobody locks means nothing.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import sys
import time
from typing import Any

from smeconf.paths import Paths
from smeconf.services.control import Control
from smeconf.services.service import ServiceError

START_SECONDS = 30.0
END_SECONDS = 20.0
_PAUSE_SECONDS = 0.05
_MAX_LOG_BYTES = 65536


def find_master(name: str, paths: Paths) -> int | None:
    """Return the process that holds the process id file, None where none does."""
    path = os.path.join(paths.service_run(name), f"{name}.pid")
    try:
        with open(path, encoding="ascii") as file:
            pid = int(file.read(32))
            locked = os.fstat(file.fileno())
        return pid if _holds_lock(pid, locked) else None
    except (OSError, ValueError):
        return None


def _holds_lock(pid: int, locked: os.stat_result) -> bool:
    """Tell whether a process has a file open and locked: by what the kernel says of
    its descriptors, since to try the lock could keep a filter from starting."""
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            if not os.path.samestat(os.stat(f"/proc/{pid}/fd/{number}"), locked):
                continue
            with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as facts:
                if any(line.startswith("lock:") for line in facts):
                    return True
        except OSError:
            continue  # closed meanwhile
    return False


def kill_master(name: str, paths: Paths) -> bool:
    """Kill the master by force; return whether there was one.

    Its workers end with their last session.  Raises ServiceError where that is not
    permitted or does not help.
    """
    pid = find_master(name, paths)
    if pid is None:
        return False
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # Only now is it certain that the handle is that of the filter.
        if find_master(name, paths) != pid:
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not select.select([handle], [], [], END_SECONDS)[0]:
            raise ServiceError(f"{name}: process {pid} cannot be killed")
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise ServiceError(
            f"{name}: process {pid} cannot be killed: {error.strerror}"
        ) from error
    finally:
        os.close(handle)
    return True


def has_ended(pid: object) -> bool:
    """Wait for the end of a process, END_SECONDS at most; tell whether it ended."""
    if not isinstance(pid, int) or pid <= 0:
        return True
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        return bool(select.select([handle], [], [], END_SECONDS)[0])
    finally:
        os.close(handle)


def start_filter(name: str, paths: Paths, control: Control) -> dict[str, Any]:
    """Start the filter, detached; return what it answers once it serves.

    Its output is appended to ``var/log/NAME/current``.  Raises ServiceError with the
    last line that it logged where it ends, or does not serve within its time.
    """
    path = paths.under(f"var/log/{name}/current")
    try:
        log = _open_log(path)
    except OSError as error:
        raise ServiceError(f"{path}: {error.strerror}") from error
    try:
        begin = os.fstat(log).st_size
        process = _spawn(name, paths, log)
        try:
            answer = _await_answer(process, control)
        except ServiceError as error:
            _end(process)
            reason = _last_line(log, begin) or str(error)
            raise ServiceError(f"{name} does not start: {reason}") from error
        except BaseException:  # an interrupt from the keyboard
            _end(process)
            raise
    finally:
        os.close(log)
    # It lives on without us, who neither wait for it nor warn that we did not.
    process.returncode = 0
    return answer


def _open_log(path: str) -> int:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # Not through a link, and not into a pipe that the filter's user put there.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    log = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640)
    if not stat.S_ISREG(os.fstat(log).st_mode):
        os.close(log)
        raise OSError(0, "is not a file to log to")
    return log


def _spawn(name: str, paths: Paths, log: int) -> subprocess.Popen[bytes]:
    command = os.path.join(os.path.dirname(sys.executable), "smeconf-smtpd")
    try:
        return subprocess.Popen(
            [command, "--config", paths.service_config(name)],
            env={**os.environ, "SMECONF_ROOT": paths.root},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    except OSError as error:
        raise ServiceError(f"{command}: {error.strerror}") from error


def _await_answer(process: subprocess.Popen[bytes], control: Control) -> dict[str, Any]:
    handle = os.pidfd_open(process.pid)
    try:
        deadline = time.monotonic() + START_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            try:
                answer = control.ask("status", left)
            except ServiceError:
                answer = None  # it may have ended while it was asked
            if answer is not None and answer["ok"]:
                return answer
            if select.select([handle], [], [], _PAUSE_SECONDS)[0]:
                raise ServiceError(f"exit status {process.wait()}")
        raise ServiceError(f"it did not serve within {START_SECONDS:g} s")
    finally:
        os.close(handle)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_line(log: int, begin: int) -> str:
    """Return the last line logged since ``begin``, without who logged it."""
    begin = max(begin, os.fstat(log).st_size - _MAX_LOG_BYTES)
    lines = os.pread(log, _MAX_LOG_BYTES, begin).decode("utf-8", "replace").split("\n")
    line = next((text for text in reversed(lines) if text.strip()), "").strip()
    _, program, text = line.rpartition("smeconf-smtpd: ")
    return text if program else line
