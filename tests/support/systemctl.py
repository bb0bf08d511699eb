"""A program ``systemctl`` that plays what a test wrote down, and logs its calls.

fake = FakeSystemctl(tmp_path / "fake")
fake.unit("dovecot", "inactive")
monkeypatch.setenv("PATH", str(fake.bin))
... act ...
assert fake.calls == ["start dovecot.service"]
"""

from __future__ import annotations

from pathlib import Path

# $STATE/UNIT/ holds: state, a line for each time that it is asked, the last one for
# ever; facts, the other properties; journal, what `status` shows; VERB.sh, what a verb
# does beside being logged.
_SCRIPT = """\
#!/bin/sh
PATH=/usr/bin:/bin
for word; do
    case $word in
    --no-ask-password | --no-pager | --full | --lines=* | --property=*) ;;
    --*) verb="$verb $word" ;;
    *.service) unit=${word%.service} ;;
    *) verb="$verb$word" ;;
    esac
done
cd "$STATE/$unit" || exit 4
echo "$*" >> "$STATE/words"
case $verb in
show)
    echo "ActiveState=$(head -n 1 state)"
    [ "$(wc -l < state)" -le 1 ] || sed -i 1d state
    cat facts
    exit 0 ;;
status)
    printf '* %s.service\\n   Active: ...\\n\\n' "$unit"
    cat journal
    exit 3 ;;
esac
echo "$verb $unit.service" >> "$STATE/calls"
verb=${verb%% *}
[ ! -f "$verb.sh" ] || . "./$verb.sh"
"""


class FakeSystemctl:
    """The program, in a directory of its own; ``bin`` is what PATH must hold."""

    def __init__(self, place: Path) -> None:
        self.bin = place / "bin"
        self._state = place / "state"
        self.bin.mkdir(parents=True)
        self._state.mkdir()
        program = self.bin / "systemctl"
        program.write_text(_SCRIPT.replace("$STATE", str(self._state)))
        program.chmod(0o755)

    def unit(self, name: str, *states: str, journal: str = "", **facts: str) -> None:
        """Have a unit, in these states one after the other."""
        place = self._state / name
        place.mkdir(exist_ok=True)
        known = {"Type": "simple", "Result": "success", "ExecMainStatus": "0", **facts}
        lines = (f"{key}={value}\n" for key, value in known.items())
        (place / "state").write_text("\n".join(states) + "\n")
        (place / "facts").write_text("".join(lines))
        (place / "journal").write_text(journal)

    def on(self, name: str, verb: str, script: str) -> None:
        """Have a verb do something to a unit: shell, run in the unit's directory."""
        (self._state / name / f"{verb}.sh").write_text(script + "\n")

    @property
    def calls(self) -> list[str]:
        """What systemd was told to do, questions left out."""
        return self._lines("calls")

    @property
    def words(self) -> list[str]:
        """The words of every call, questions too."""
        return self._lines("words")

    def _lines(self, name: str) -> list[str]:
        file = self._state / name
        return file.read_text().splitlines() if file.exists() else []
