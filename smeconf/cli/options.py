"""The options of commands whose wrong usage is 255, as SME's scripts know it."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def settle_process() -> None:
    """Make what is written independent of who calls: the modes of directories, and
    that descriptors 0 to 2 are taken, so that no file of ours gets their numbers."""
    os.umask(0o022)
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(file)


def end_process(status: int) -> NoReturn:
    """End with this status, whether or not somebody has read what was said.

    At once: all is written, and the interpreter's own end, module by module, would
    take a tenth of an event's time.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            pass  # it is gone, or full
    os._exit(status)


def take_root(words: list[str]) -> tuple[str | None, list[str]]:
    """Return the value of a leading ``--root``, and the words behind it."""
    if words[:1] == ["--root"] and len(words) > 1:
        return words[1], words[2:]
    if words and words[0].startswith("--root="):
        return words[0].removeprefix("--root="), words[1:]
    return None, words
