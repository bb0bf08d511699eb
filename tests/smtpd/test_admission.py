"""Limits of connections, counted over all workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smeconf.smtpd.admission import (
    TOO_MANY,
    TOO_MANY_OF_CLIENT,
    Admission,
    AdmissionLimits,
)
from smeconf.smtpd.config import ConfigError, Directory
from smeconf.smtpd.log import Log
from smeconf.smtpd.table import Table
from smeconf.smtpd.tally import Tally, client_number
from tests.support.smtp import Filter, write_directory

A, B = "192.0.2.1", "192.0.2.2"


class Lines:
    """A log target that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, level: int, line: str) -> None:
        self.lines.append(line.partition(" ")[2])

    def tick(self) -> None:
        pass

    def reopen(self) -> None:
        pass


class House:
    """Some workers behind one tally, all in this process; ``now`` is their clock."""

    def __init__(self, workers: int = 2, relay: str = "", **limits: int) -> None:
        self.tally = Tally(8)
        self.target = Lines()
        self.now = 1000.0
        limits = {"instances": 0, "instances_per_ip": 0, **limits}
        for slot in range(1, workers + 1):
            self.tally.begin(slot)
        self.doors = [
            Admission(
                self.tally,
                slot,
                AdmissionLimits(**limits),
                lambda remote: remote == relay,
                Log(6, self.target),
                lambda: self.now,
            )
            for slot in range(1, workers + 1)
        ]

    def come(self, remote: str, times: int = 1) -> list[bytes | None]:
        """Have a client come to each worker in turn."""
        return [self.doors[n % len(self.doors)].admit(remote) for n in range(times)]


def test_client_may_hold_as_many_connections_as_set_over_all_workers() -> None:
    house = House(instances_per_ip=3)

    assert house.come(A, 5) == [None, None, None, *[TOO_MANY_OF_CLIENT] * 2]
    assert house.come(B) == [None]


def test_one_that_goes_makes_room_for_one() -> None:
    house = House(instances_per_ip=2)
    house.come(A, 2)

    house.doors[1].released(A)

    assert house.come(A, 2) == [None, TOO_MANY_OF_CLIENT]


def test_all_workers_serve_as_many_connections_as_set() -> None:
    house = House(instances=3)
    clients = [f"192.0.2.{number}" for number in range(5)]

    answers = [house.come(client)[0] for client in clients]

    assert answers == [None, None, None, TOO_MANY, TOO_MANY]
    house.doors[0].released(clients[0])
    assert house.come(clients[4]) == [None]


def test_refusal_takes_no_room() -> None:
    house = House(instances=2, instances_per_ip=1)
    house.come(A)

    assert house.come(A, 50) == [TOO_MANY_OF_CLIENT] * 50
    assert house.tally.total() == 1
    assert house.come(B) == [None]


def test_limit_of_0_is_none() -> None:
    assert House().come(A, 500) == [None] * 500


def test_relay_client_is_bound_by_the_limit_of_all_alone() -> None:
    house = House(relay=A, instances=4, instances_per_ip=1, rate=1)

    assert house.come(A, 5) == [None, None, None, None, TOO_MANY]


def test_refusals_have_code_enhanced_code_and_reason() -> None:
    assert TOO_MANY == b"421 4.3.2 Too many connections, try again later\r\n"
    assert TOO_MANY_OF_CLIENT == (
        b"421 4.7.0 Too many connections from your address\r\n"
    )


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("::1", "0.0.0.0", False),
    ],
)
def test_client_is_an_ipv4_address_or_a_64_network_of_ipv6(
    one: str, other: str, is_same: bool
) -> None:
    assert (client_number(one) == client_number(other)) is is_same
    assert client_number(one) != 0


@given(st.text(max_size=40))
def test_what_is_no_address_has_no_number_and_breaks_nothing(text: str) -> None:
    assert 0 <= client_number(text) < 1 << 64


def test_clients_whose_address_is_unknown_count_in_all_alone() -> None:
    house = House(instances=3, instances_per_ip=1, rate=1)

    assert house.come("", 4) == [None, None, None, TOO_MANY]


# What is left by a worker that ended


def test_connections_of_a_worker_that_died_are_given_back() -> None:
    house = House(instances=4, instances_per_ip=4)
    house.come(A, 4)
    assert house.come(A) == [TOO_MANY_OF_CLIENT]

    house.tally.end(1)

    assert house.tally.total() == 2
    assert house.come(A) == [None]


def test_slot_of_a_dead_worker_serves_the_next_one() -> None:
    house = House(workers=1, instances_per_ip=2)
    for _ in range(50):
        assert house.come(A, 3) == [None, None, TOO_MANY_OF_CLIENT]
        house.tally.end(1)
        house.tally.begin(1)

    assert house.tally.total() == 0


def forked(work: Callable[[], None]) -> int:
    """Do ``work`` in a process that then stops and waits to be killed."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    return pid


def test_processes_see_each_others_connections_until_one_is_killed() -> None:
    house = House(instances_per_ip=5)

    pid = forked(lambda: [house.doors[1].admit(A) for _ in range(3)] and None)

    try:
        assert [house.doors[0].admit(A) for _ in range(3)] == [
            *(None, None),
            TOO_MANY_OF_CLIENT,
        ]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    house.tally.end(2)
    assert [house.doors[0].admit(A) for _ in range(4)] == [
        *(None, None, None),
        TOO_MANY_OF_CLIENT,
    ]


def test_many_processes_at_once_never_exceed_a_limit() -> None:
    house = House(workers=4, instances_per_ip=20)
    ready, go = os.pipe()

    def flood(slot: int) -> int:
        pid = os.fork()
        if pid == 0:
            door = house.doors[slot - 1]
            os.close(go)
            os.read(ready, 1)  # until all are there
            for number in range(3000):
                # Those that came last stay.
                if door.admit(A) is None and number < 2000:
                    door.released(A)
            os.kill(os.getpid(), signal.SIGKILL)
        return pid

    pids = [flood(slot) for slot in range(1, 5)]
    os.close(go)
    os.close(ready)
    for pid in pids:
        os.waitpid(pid, 0)

    held = house.tally.of_client(client_number(A))
    assert held == house.tally.total()
    assert held == 20


# Rate


def test_client_that_comes_too_often_is_refused_until_it_comes_less() -> None:
    house = House(rate=3)

    answers = house.come(A, 4)
    for door in house.doors:
        door.released(A)

    assert answers == [None, None, None, TOO_MANY_OF_CLIENT]
    assert house.come(B) == [None]
    house.now += 121
    assert house.come(A) == [None]


def test_client_that_goes_on_coming_stays_out() -> None:
    house = House(rate=3)
    house.come(A, 4)

    for _ in range(30):
        house.now += 10
        assert house.come(A) == [TOO_MANY_OF_CLIENT]


def test_rate_survives_the_worker_that_counted_it() -> None:
    house = House(workers=1, rate=3)
    house.come(A, 3)

    house.tally.end(1)
    house.tally.begin(1)

    assert house.come(A) == [TOO_MANY_OF_CLIENT]


# The log


def test_flood_of_one_client_is_a_line_a_minute() -> None:
    house = House(workers=1, instances_per_ip=1)
    house.come(A, 1000)

    text = f"connection limit: {A} refused"
    said = f"{text}: 4.7.0 Too many connections from your address"
    assert house.target.lines == [said]
    house.now += 61
    house.doors[0].tick()
    house.doors[0].tick()
    assert house.target.lines == [said, f"{text} 999 times within a minute"]


def test_flood_from_everywhere_does_not_fill_the_log() -> None:
    house = House(workers=1, instances=1)
    house.come(A)
    for number in range(3000):
        house.come(f"10.0.{number // 250}.{number % 250}")

    assert len(house.target.lines) <= 101
    assert "other addresses" in house.target.lines[-1]


# The table


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=300))
def test_table_counts_as_a_dictionary_does(steps: list[tuple[int, bool]]) -> None:
    table = Table(memoryview(bytearray(16 * 64)), 64, 0x9E3779B97F4A7C15)
    kept: dict[int, int] = {}
    for key, is_rise in steps:
        if is_rise:
            kept[key] = kept.get(key, 0) + 1
            assert table.raise_by(key) == kept[key]
        elif key in kept:
            table.lower(key)
            kept[key] -= 1
            if not kept[key]:
                del kept[key]

    assert dict(table.items()) == kept
    assert all(table.find(key) == kept.get(key, 0) for key in range(1, 41))


def test_full_table_takes_no_more_and_finds_all() -> None:
    table = Table(memoryview(bytearray(16 * 64)), 64, 1)

    assert [table.raise_by(key) for key in range(1, 60)] == [1] * 48 + [0] * 11
    table.lower(59)  # had no room
    assert [table.find(key) for key in range(1, 60)] == [1] * 48 + [0] * 11
    table.lower(1)
    assert table.raise_by(59) == 1


# The files


def test_limits_are_read_from_their_files(tmp_path: Path) -> None:
    files = {"instances": "10", "instances_per_ip": "0", "connection_rate": "5"}
    directory = Directory(str(write_directory(tmp_path, files)))

    assert AdmissionLimits.read(directory) == AdmissionLimits(10, 0, 5)


def test_limits_without_files_are_those_of_sme(tmp_path: Path) -> None:
    assert AdmissionLimits.read(Directory(str(tmp_path))) == AdmissionLimits(
        1200, 50, 0
    )


def test_limit_that_is_no_number_is_refused_with_its_place(tmp_path: Path) -> None:
    directory = Directory(str(write_directory(tmp_path, {"instances": "\nmany"})))

    with pytest.raises(ConfigError, match=r"instances:2: 'many' is no whole number"):
        AdmissionLimits.read(directory)


# The whole filter


def test_limits_hold_over_workers_and_reloads(tmp_path: Path) -> None:
    files = {"workers": "2", "instances_per_ip": "3", "instances": "5"}
    with Filter(tmp_path, files) as filter:
        held = [filter.connect("127.0.0.2") for _ in range(3)]
        assert [client.read()[:3] for client in held] == ["220"] * 3
        assert filter.control("reload")["ok"]

        refused = filter.connect("127.0.0.2")
        assert refused.read() == "421 4.7.0 Too many connections from your address"
        assert refused.read() == ""
        others = [filter.connect(f"127.0.0.{n}") for n in (3, 4, 5)]
        assert [client.read()[:9] for client in others] == [
            *["220 mx.te"] * 2,
            "421 4.3.2",
        ]
        assert filter.control("status")["sessions"] == 5
        assert held[0].say("QUIT").startswith("221")
        assert held[0].read() == ""
        again = filter.connect("127.0.0.2")
        assert again.read()[:3] == "220"


def test_connections_of_a_killed_worker_count_no_more(tmp_path: Path) -> None:
    with Filter(tmp_path, {"instances_per_ip": "2"}) as filter:
        for _ in range(2):
            assert filter.connect().read()[:3] == "220"
        (worker,) = filter.control("status")["workers"]
        assert worker["sessions"] == 2

        os.kill(worker["pid"], signal.SIGKILL)
        filter.wait_for("replacing it")

        assert filter.connect().read()[:3] == "220"
        assert filter.control("status")["sessions"] == 1
