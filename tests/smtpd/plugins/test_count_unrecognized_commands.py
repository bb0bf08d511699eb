"""count_unrecognized_commands: ends connections that do not speak SMTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.smtp import Conversation, load


@pytest.mark.parametrize(("argument", "limit"), [("", 4), ("2", 2)])
def test_connection_ends_at_the_limit(
    tmp_path: Path, argument: str, limit: int
) -> None:
    plugins = f"count_unrecognized_commands {argument}\nrcpt_ok"
    with Conversation(load(tmp_path, {"plugins": plugins})) as one:
        for _ in range(limit - 1):
            assert one.say("GET / HTTP/1.1") == "500 5.5.1 Unrecognized command"
            assert one.say("NOOP").startswith("250")
        assert not one.session.closing

        reply = one.say("XYZZY")

        assert reply == f"521 5.7.1 Closing connection, {limit} unrecognized commands"
        assert one.session.closing


def test_log_shows_the_command_harmlessly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plugins = "count_unrecognized_commands 1\nrcpt_ok"
    with Conversation(load(tmp_path, {"plugins": plugins})) as one:
        one.say("X\x1b[2J")

    assert r"fail, 1 unrecognized commands: X\x1b[2J" in capfd.readouterr().err
