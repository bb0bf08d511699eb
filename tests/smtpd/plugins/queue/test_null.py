"""queue/null: takes mail and throws it away, and says so."""

from __future__ import annotations

from pathlib import Path

from tests.support.smtp import Conversation, load


def test_mail_is_taken_and_kept_nowhere(tmp_path: Path) -> None:
    configuration = load(tmp_path, {"plugins": "rcpt_ok\nqueue/null"})

    with Conversation(configuration) as one:
        assert one.deliver() == "250 2.0.0 Queued nowhere"

    kept = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert kept == []


def test_administrator_is_warned(tmp_path: Path) -> None:
    (plugin,) = load(tmp_path, {"plugins": "queue/null"}).plugins()

    (warning,) = plugin.warnings()

    assert "THROWN AWAY" in warning
