"""Processor time and memory of the filter, beside aiosmtpd and a bare protocol.

What counts is the CPU time of all the server's processes, from /proc, before and after
a load that runs in processes of its own.  The servers stay up for the whole of it and
are loaded in turns.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from environment import BENCH, Load, find_load, install_ours, install_peer, scratch
from held_sessions import HeldSessions
from processes import Server, free_port, running
from rounds import in_turns
from table import Goal, Row, at_most

_LOAD_SECONDS = 60
_HELD = 1000
_BIG_BYTES = 10 * 1024 * 1024
# What it took, a connection each, on the machine where the goals were set.
_AIOSMTPD_MS = 0.90
_ZONES = ("zen.example.org", "bl.example.net", "combined.example.com")


@dataclass(frozen=True)
class Size:
    """How much is run: rounds, and messages a round."""

    rounds: int
    messages: int
    big_messages: int

    # What one section may take before it stops with the rounds it has.
    seconds: float


_FULL = Size(rounds=5, messages=3000, big_messages=8, seconds=45)
_QUICK = Size(rounds=3, messages=1000, big_messages=3, seconds=10)


def run(is_quick: bool) -> list[Row]:
    """Measure; return the rows.  Raises SetupError."""
    size = _QUICK if is_quick else _FULL
    _allow_many_files()
    commands, peer = install_ours(), install_peer()
    load = find_load()
    rows: list[Row] = []
    speed = 0.0
    with ExitStack() as stack:
        root = stack.enter_context(scratch())
        servers = _start_servers(stack, root, commands, peer)
        if load is not None:
            small, speed = _small(servers, load, size)
            rows += small
        rows += _with_lists(stack, root, commands, peer, size, speed)
        if load is not None:
            rows += _big(servers, load, size, speed)
        rows += _held(servers)
    return rows


def _start_servers(
    stack: ExitStack, root: Path, commands: Path, peer: Path
) -> dict[str, Server]:
    servers = {"ours": _start_ours(stack, root / "plain", commands, dns_port=0)}
    for name, file in (("aiosmtpd", "peer_aiosmtpd.py"), ("bare", "bare_protocol.py")):
        port = free_port()
        command = (peer, BENCH / file, str(port))
        server = running(name, command, port, root / f"{name}.log")
        servers[name] = stack.enter_context(server)
    return servers


def _start_ours(stack: ExitStack, root: Path, commands: Path, dns_port: int) -> Server:
    """Start our filter; with ``dns_port``, the plugin dnsbl and three zones."""
    port = free_port()
    plugins = ["logging/logterse", "relay", "rcpt_ok", "queue/null"]
    files = {
        "me": "bench.test",
        "listen": f"127.0.0.1@{port}",
        "rcpthosts": "local.test",
        "relayclients": "",
        "workers": "1",
        "loglevel": "5",
        "dns_servers": f"127.0.0.1@{dns_port or 53}",
    }
    if dns_port:
        plugins.insert(2, "dnsbl")
        files["dnsbl_zones"] = "\n".join(_ZONES)
    files["peers/0"] = files["peers/local"] = "\n".join(plugins)
    config = root / "config"
    (config / "peers").mkdir(parents=True)
    for name, text in files.items():
        (config / name).write_text(text + "\n")
    program = commands / "smeconf-smtpd"
    command = (program, "--config", config, "--root", root)
    return stack.enter_context(running("ours", command, port, root / "log"))


def _small(
    servers: Mapping[str, Server], load: Load, size: Size
) -> tuple[list[Row], float]:
    """4 KB messages: a connection each, and all over one connection a client.

    Returns the speed of this machine, too.
    """
    rows = []
    speed = 0.0
    for what, options, limit in (
        ("4 KB message, a connection each", (), 0.25),
        ("4 KB message, over one connection", ("-d",), 0.10),
    ):
        acts = {
            name: _cpu(
                server, size.messages, _source(load, server, *options), size.messages
            )
            for name, server in servers.items()
        }
        found = {name: figures[0] for name, figures in _turns(acts, size).items()}
        ours, peer, bare = found["ours"], found["aiosmtpd"], found["bare"]
        speed = speed or _AIOSMTPD_MS / peer
        goal = at_most(limit, ours, "ms")
        rows.append(Row(f"{what}, CPU", ours, "ms", "aiosmtpd", peer, goal))
        rows += _scaled(limit, ours, speed)
        rows.append(Row("the same", ours, "ms", "bare", bare))
    peer, ours = rows[0].peer_value or 0.0, rows[0].ours
    less = Goal("3.6 x less", peer / ours >= 3.6)
    rows.insert(1, Row("the same, as a ratio", ours, "ms", "aiosmtpd", peer, less))
    return rows, speed


def _scaled(limit: float, ours: float, speed: float) -> list[Row]:
    """Return the row of a figure as it would be where the goals were set."""
    if not speed:
        return []
    there = ours * speed
    what = "the same, at the speed where goals were set"
    return [Row(what, there, "ms", goal=at_most(limit, there, "ms"))]


def _with_lists(
    stack: ExitStack,
    root: Path,
    commands: Path,
    peer: Path,
    size: Size,
    speed: float,
) -> list[Row]:
    """Three block lists, each client new to them, beside the same load without."""
    dns_port = free_port()
    responder = (peer, BENCH / "dns_responder.py", str(dns_port))
    stack.enter_context(running("dns", responder, 0, root / "dns.log"))
    client = count(0, size.messages)

    def source(server: Server) -> Callable[[int], None]:
        def send(messages: int) -> None:
            words = (server.port, messages, next(client))
            _run_load((peer, BENCH / "many_clients.py", *words), dict(os.environ))

        return send

    acts = {}
    for name, port in (("without", 0), ("with", dns_port)):
        server = _start_ours(stack, root / name, commands, port)
        acts[name] = _cpu(server, size.messages, source(server), size.messages)
    found = {name: figures[0] for name, figures in _turns(acts, size).items()}
    ours, without = found["with"], found["without"]
    what = "4 KB message, 3 DNSBL zones, CPU"
    return [
        Row(what, ours, "ms", "without", without, at_most(0.40, ours, "ms")),
        *_scaled(0.40, ours, speed),
    ]


def _big(
    servers: Mapping[str, Server], load: Load, size: Size, speed: float
) -> list[Row]:
    """10 MB messages, one a connection, one connection at a time."""

    def act(server: Server) -> Callable[[], tuple[float, float]]:
        send = _source(load, server, "-l", str(_BIG_BYTES), "-s", "1")
        server.forget_peaks()
        before = server.peaks_mb()
        cpu = _cpu(server, size.big_messages, send, 1)

        def measure() -> tuple[float, float]:
            (used,) = cpu()
            after = server.peaks_mb()
            return used, max(after[pid] - before.get(pid, 0) for pid in after)

        return measure

    found = _turns({name: act(server) for name, server in servers.items()}, size)
    (ours, grown), (peer, peer_grown) = found["ours"], found["aiosmtpd"]
    what = "10 MB message, CPU"
    flat = Goal("flat: at most 10 MB", grown <= 10)
    return [
        Row(what, ours, "ms", "aiosmtpd", peer, at_most(70, ours, "ms")),
        *_scaled(70, ours, speed),
        Row("the same", ours, "ms", "bare", found["bare"][0]),
        Row("the same, memory grows by", grown, "MB", "aiosmtpd", peer_grown, flat),
    ]


def _held(servers: Mapping[str, Server]) -> list[Row]:
    """Hold a thousand sessions, weigh them, then send a message over each."""
    weights: dict[str, float] = {}
    taken: dict[str, int] = {}
    for name, server in servers.items():
        with ExitStack() as stack:
            sessions = HeldSessions(server.port, _HELD, stack)
            weights[name] = server.pss_mb()
            taken[name] = sessions.send_messages()
    ours, peer = weights["ours"], weights["aiosmtpd"]
    what = f"{_HELD} sessions held, PSS"
    every = Goal(f"all {_HELD}", taken["ours"] == _HELD)
    return [
        Row(what, ours, "MB", "aiosmtpd", peer, at_most(45, ours, "MB")),
        Row("the same", ours, "MB", "bare", weights["bare"]),
        Row(
            "the same, messages then taken",
            taken["ours"],
            "",
            "aiosmtpd",
            taken["aiosmtpd"],
            every,
        ),
    ]


def _turns(
    acts: Mapping[str, Callable[[], tuple[float, ...]]], size: Size
) -> dict[str, tuple[float, ...]]:
    return in_turns(acts, size.rounds, size.seconds)


def _cpu(
    server: Server, messages: int, send: Callable[[int], None], warm: int
) -> Callable[[], tuple[float]]:
    """Return what measures the server's CPU milliseconds a message."""
    send(min(warm, 200))  # the first messages import and allocate

    def measure() -> tuple[float]:
        before = server.cpu_ms()
        send(messages)
        return ((server.cpu_ms() - before) / messages,)

    return measure


def _source(load: Load, server: Server, *options: str) -> Callable[[int], None]:
    """Return what sends messages by smtp-source, on 20 connections at a time."""

    def send(messages: int) -> None:
        given = ("-s", "20", "-l", "4096", *options, "-m", str(messages))
        envelope = ("-f", "a@b.test", "-t", "user@local.test")
        target = f"127.0.0.1:{server.port}"
        _run_load((load.program, *given, *envelope, target), load.environment)

    return send


def _run_load(command: Sequence[str | int | Path], environment: dict[str, str]) -> None:
    words = [str(word) for word in command]
    ended = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=_LOAD_SECONDS
    )
    if ended.returncode != 0:
        said = (ended.stderr or ended.stdout).strip().split("\n")[-1]
        raise RuntimeError(f"{words[0]}: {said}")


def _allow_many_files() -> None:
    """Raise the limit of open files for us and the servers that we start."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
