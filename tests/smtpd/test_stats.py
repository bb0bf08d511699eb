"""Counters of all processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smeconf.smtpd.hooks import Verdict
from smeconf.smtpd.slots import NoSlotLeft, Pieces, Slots
from smeconf.smtpd.stats import MESSAGES, NAMES, Stats, Verdicts
from smeconf.smtpd.vitals import Rates
from tests.support.smtp import Filter


def test_counts_of_all_processes_are_summed() -> None:
    stats = Stats(4)
    stats.begin(1)
    stats.count(MESSAGES, 2)

    pid = os.fork()
    if pid == 0:
        stats.serve_as(1)
        stats.count(MESSAGES, 3)
        os._exit(0)
    os.waitpid(pid, 0)

    assert stats.total(MESSAGES) == 5
    assert stats.worker_total(1, MESSAGES) == 3


def test_counts_of_a_worker_that_ended_are_kept() -> None:
    stats = Stats(4)
    stats.meter("dnsbl", "connect")
    for _ in range(3):
        stats.begin(1)
        assert stats.worker_total(1, MESSAGES) == 0
        pid = os.fork()
        if pid == 0:
            stats.serve_as(1)
            stats.count(MESSAGES)
            stats.plugin("dnsbl", "connect", Verdict.DENY, 0.5)
            os._exit(0)
        os.waitpid(pid, 0)
        stats.end(1)

    assert stats.total(MESSAGES) == 3
    assert list(stats.verdicts()) == [Verdicts("dnsbl", "connect", "DENY", 3, 1.5)]


def test_verdicts_are_counted_and_timed_by_plugin_and_hook() -> None:
    stats = Stats(4)
    meter = stats.meter("dnsbl", "connect")
    meter.add(Verdict.DECLINED, 0.5)
    meter.add(Verdict.DECLINED, 0.25)
    meter.add(Verdict.DENY, 1.0)
    stats.plugin("uribl", "data_post", None, 0.125)

    assert list(stats.verdicts()) == [
        Verdicts("dnsbl", "connect", "DENY", 1, 1.0),
        Verdicts("dnsbl", "connect", "DECLINED", 2, 0.75),
        Verdicts("uribl", "data_post", "error", 1, 0.125),
    ]


@pytest.mark.parametrize("verdict", [*Verdict, None])
def test_every_verdict_has_a_count_of_its_own(verdict: Verdict | None) -> None:
    stats = Stats(4)
    stats.meter("before", "rcpt").add(Verdict.OK, 1.0)
    stats.plugin("x", "rcpt", verdict, 2.0)
    stats.meter("behind", "rcpt")

    (found,) = (one for one in stats.verdicts() if one.plugin != "before")

    assert (found.plugin, found.times, found.seconds) == ("x", 1, 2.0)
    assert found.verdict == (verdict.name if verdict else "error")


def test_names_keep_their_counts_over_reloads() -> None:
    stats = Stats(4)
    stats.plugin("a", "rcpt", Verdict.OK, 1.0)
    stats.meter("b", "rcpt")

    stats.plugin("a", "rcpt", Verdict.OK, 1.0)

    assert list(stats.verdicts()) == [Verdicts("a", "rcpt", "OK", 2, 2.0)]


def test_more_names_than_there_is_room_for_are_counted_as_one() -> None:
    stats = Stats(4)
    for number in range(2000):
        stats.plugin(f"plugin{number}", "rcpt", Verdict.OK, 1.0)

    found = list(stats.verdicts())

    assert sum(one.times for one in found) == 2000
    assert found[0].plugin == ""
    assert found[0].times > 1000
    assert stats.total(MESSAGES) == 0


def test_replies_are_counted_by_their_first_digit() -> None:
    stats = Stats(4)
    for reply in (b"250 2.0.0 OK\r\n", b"220 x\r\n", b"550 5.7.1 No\r\n", b""):
        stats.count_reply(reply)

    counts = {name: n for name, n in stats.totals().items() if n}
    assert counts == {"replies_2": 2, "replies_5": 1}


def test_counter_without_a_name_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Stats(4).count("mesages")


def test_all_counters_begin_at_0() -> None:
    assert Stats(4).totals() == dict.fromkeys(NAMES, 0)


# Rates


def test_rate_is_a_minute_over_three_spans() -> None:
    now = 0.0
    stats = Stats(4)
    rates = Rates(stats, lambda: now)
    for _ in range(90):  # for fifteen minutes one every ten seconds
        now += 10
        stats.count(MESSAGES)
        rates.tick()
    assert rates.a_minute()["messages"] == {"1": 6.0, "5": 6.0, "15": 6.0}

    for _ in range(6):  # a minute of silence
        now += 10
        rates.tick()

    assert rates.a_minute()["messages"] == {"1": 0.0, "5": 4.8, "15": 5.6}


def test_rate_of_a_young_filter_is_over_its_life() -> None:
    now = 0.0
    stats = Stats(4)
    rates = Rates(stats, lambda: now)
    stats.count(MESSAGES, 10)
    now = 30.0

    assert rates.a_minute()["messages"] == {"1": 20.0, "5": 20.0, "15": 20.0}


# Slots


def test_lowest_slot_is_given_out_first_and_again() -> None:
    slots = Slots(4)
    assert [slots.take(), slots.take(), slots.take()] == [1, 2, 3]
    with pytest.raises(NoSlotLeft, match="3 workers are there"):
        slots.take()

    slots.give_back(2)

    assert slots.take() == 2


def test_cleared_piece_is_zero_and_its_neighbours_are_not() -> None:
    pieces = Pieces(100, 3)
    for slot in range(3):
        pieces.piece(slot)[:] = b"x" * len(pieces.piece(slot))

    pieces.clear(1)

    assert set(pieces.piece(1)) == {0}
    assert set(pieces.piece(0)) == set(pieces.piece(2)) == {ord("x")}


# The whole filter


def test_filter_counts_what_it_does_over_workers_and_reloads(tmp_path: Path) -> None:
    with Filter(tmp_path) as filter:
        for _ in range(2):
            client = filter.connect("127.9.8.7")
            client.begin()
            client.send("Subject: x\r\n\r\nx\r\n.\r\n")
            assert client.read().startswith("250")
            assert client.say("MAIL FROM:<a@far.test>").startswith("250")
            assert client.say("RCPT TO:<a@elsewhere.test>").startswith("550")
            assert client.say("QUIT").startswith("221")
            assert filter.control("reload")["ok"]

        answer = filter.control("status")

    counts = {name: number for name, number in answer["counts"].items() if number}
    assert counts == {
        "message_bytes": 2 * len("Subject: x\r\n\r\nx\r\n"),
        "connections": 2,
        "messages": 2,
        "refused_rcpt": 2,
        "replies_2": 14,
        "replies_3": 2,
        "replies_5": 2,
    }
    said = {
        (one["plugin"], one["hook"], one["verdict"]): one["times"]
        for one in answer["verdicts"]
    }
    assert said["rcpt_ok", "rcpt", "OK"] == 2
    assert said["rcpt_ok", "rcpt", "DENY"] == 2
    assert said["queue/maildir", "queue", "OK"] == 2
    assert all(one["seconds"] >= 0 for one in answer["verdicts"])
    assert answer["rates_a_minute"]["messages"]["1"] > 0
