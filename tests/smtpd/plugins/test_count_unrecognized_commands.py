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


def test_log_does_not_show_the_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plugins = "count_unrecognized_commands 1\nrcpt_ok"
    with Conversation(load(tmp_path, {"plugins": plugins})) as one:
        one.say("cGFzc3dvcmQ=")  # a password, of one who logs in too early

    said = capfd.readouterr().err
    assert said.endswith("fail, 1 unrecognized commands\n")
