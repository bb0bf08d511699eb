"""The command ``smeconf status``: whether the filter runs, and what it does."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from smeconf.paths import Paths

_SERVICES = ("qpsmtpd",)
# As systemctl has it.
_NOT_RUNNING = 3
_SECONDS = 10.0
_MOST_VERDICTS = 20

Answer = dict[str, Any]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print an object for scripts.")
@click.pass_obj
def status(paths: Paths, as_json: bool) -> None:
    """Tell whether the filter runs, since when, for whom, and what its plugins said.

    Exit status 0, where it runs; 3, where it does not; 1, where it does not answer.
    """
    from smeconf.services import ServiceError
    from smeconf.services.control import Control

    answers: dict[str, Answer | None] = {}
    try:
        for name in _SERVICES:
            answers[name] = Control(name, paths).ask("status", _SECONDS)
    except ServiceError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(_object(answers), indent=2))
    else:
        for name, answer in answers.items():
            for line in _lines(name, answer):
                click.echo(line)
    sys.exit(0 if all(answers.values()) else _NOT_RUNNING)


def _object(answers: dict[str, Answer | None]) -> dict[str, Any]:
    return {
        name: {"running": False} if answer is None else {"running": True, **answer}
        for name, answer in answers.items()
    }


def _lines(name: str, answer: Answer | None) -> Iterator[str]:
    if answer is None:
        yield f"{name} is not running: smeconf up, or your supervisor, starts it"
        return
    where = ", ".join(map(str, answer.get("listen", ())))
    yield f"{name} runs, process {answer.get('pid')}, on {where}"
    if "workers" not in answer or "counts" not in answer:
        yield "  it is of an older version: stop and start it to be told more"
        return
    named = answer.get("configuration")
    since = str(answer.get("since", "")).replace("T", " ")
    yield f"  since          {since} ({_duration(answer['up_seconds'])})"
    generation = f"  configuration  generation {answer.get('generation')}"
    yield f"{generation}, {named}" if named else generation
    yield from _numbers(answer)
    yield from _workers(answer)
    yield from _verdicts(answer["verdicts"])


def _numbers(answer: Answer) -> Iterator[str]:
    counts = answer["counts"]
    refused = sum(n for name, n in counts.items() if name.startswith("refused_"))
    yield (
        f"  connections    {answer['sessions']} now, {counts['connections']} in all, "
        f"{counts['connections_refused']} over a limit"
    )
    yield (
        f"  messages       {counts['messages']} taken "
        f"({_size(counts['message_bytes'])}), {refused} refusals"
    )
    for name, rates in answer["rates_a_minute"].items():
        shown = ", ".join(f"{rate:g} ({span} min)" for span, rate in rates.items())
        yield f"  {name + '/min':<14} {shown}"


def _workers(answer: Answer) -> Iterator[str]:
    yield ""
    yield "  worker   generation  sessions  messages   memory"
    for one in answer["workers"]:
        memory = f"{_size(one['memory_bytes'])} {one['memory_kind']}"
        yield (
            f"  {one['pid']:<8} {one['generation']:>10}  {one['sessions']:>8}  "
            f"{one['messages']:>8}   {memory}"
        )


def _verdicts(verdicts: list[Answer]) -> Iterator[str]:
    """Yield a table of what plugins decided; to decline is nothing to tell."""
    told = [one for one in verdicts if one["verdict"] != "DECLINED"]
    if not told:
        return
    told.sort(key=lambda one: (-one["times"], one["plugin"], one["hook"]))
    yield ""
    yield "  plugin                   hook           verdict              times   mean"
    for one in told[:_MOST_VERDICTS]:
        mean = one["seconds"] / one["times"] * 1000
        yield (
            f"  {one['plugin']:<24} {one['hook']:<14} {one['verdict']:<18} "
            f"{one['times']:>7}   {mean:.3g} ms"
        )
    if len(told) > _MOST_VERDICTS:
        yield f"  … and {len(told) - _MOST_VERDICTS} more: smeconf status --json"


def _duration(seconds: float) -> str:
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"


def _size(number: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
