"""The resolver: what it believes, how long it waits, what it remembers."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import dns.message
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smeconf.dns import (
    Answer,
    Question,
    Resolver,
    Status,
    Zone,
    parse_servers,
    read_answer,
    reversed_address,
    system_servers,
)
from smeconf.dns import resolver as resolving
from tests.support.dns_server import DnsServer

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

T = TypeVar("T")
Loops = Callable[[], asyncio.AbstractEventLoop]
LOOPS: list[Loops] = [asyncio.new_event_loop]
if uvloop is not None:
    LOOPS.append(uvloop.new_event_loop)

LISTED = Question.of("2.0.0.127.list.test", "A")
CLEAN = Question.of("3.0.0.127.list.test", "A")


class ShiftedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward."""

    shift = 0.0

    def time(self) -> float:
        return super().time() + self.shift


def forward(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ShiftedLoop)
    loop.shift += seconds


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer({"2.0.0.127.list.test": {"A": ["127.0.0.2"]}}) as server:
        yield server


@pytest.fixture(params=LOOPS, ids=lambda factory: factory.__module__.partition(".")[0])
def loops(request: pytest.FixtureRequest) -> Any:
    return request.param


def run(work: Coroutine[Any, Any, T], loops: Loops = asyncio.new_event_loop) -> T:
    with asyncio.Runner(loop_factory=loops) as runner:
        return runner.run(work)


def ask(
    *questions: Question,
    of: list[int],
    seconds: float = 3.0,
    loops: Loops = asyncio.new_event_loop,
    **options: Any,
) -> list[Answer]:
    """Ask a new resolver of the servers on these ports, all at once."""

    async def work() -> list[Answer]:
        resolver = Resolver([("127.0.0.1", port) for port in of], **options)
        try:
            return await resolver.ask_all(questions, seconds)
        finally:
            resolver.close()

    return run(work(), loops)


def header(request: bytes, flags: bytes) -> bytes:
    """The header and question of a response without records to an EDNS question."""
    end = -11 if request[11] else len(request)
    return request[:2] + flags + b"\0\1\0\0\0\0\0\0" + request[12:end]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


# Names and addresses


def test_address_is_looked_up_by_its_reversed_octets() -> None:
    labels = reversed_address(ipaddress.IPv4Address("192.0.2.99"))

    assert labels == ("99", "2", "0", "192")


def test_ipv6_address_is_looked_up_by_its_32_reversed_nibbles() -> None:
    # The example of RFC 5782, 2.4
    labels = reversed_address(ipaddress.IPv6Address("2001:db8:1:2:3:4:567:89ab"))

    assert ".".join(labels) == (
        "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2"
    )


def test_mapped_ipv4_address_is_looked_up_as_ipv4() -> None:
    mapped = ipaddress.IPv6Address("::ffff:127.0.0.2")

    assert reversed_address(mapped) == ("2", "0", "0", "127")


def test_question_of_a_zone_is_the_question_of_the_whole_name() -> None:
    question = Zone.of("List.test.").question(("2", "0", "0", "127"), "A")

    assert question == LISTED
    assert hash(question) == hash(LISTED)
    assert (question.name, question.rdtype) == ("2.0.0.127.List.test", "A")
    assert question != Zone.of("list.test").question(("2", "0", "0", "127"), "TXT")
    assert question != "2.0.0.127.list.test"
    assert repr(question) == "Question('2.0.0.127.List.test', 'A')"


def test_types_that_differ_by_the_case_bit_are_different_questions() -> None:
    assert Question.of("a.test", "TYPE65") != Question.of("a.test", "TYPE97")


@pytest.mark.parametrize(
    "name",
    [
        "list",
        "",
        "a..test",
        "-a.test",
        "a-.test",
        "a b.test",
        "bücher.test",
        "a.test\n",
        "٣.test",
        f"{'a' * 64}.test",
        ".".join(["a" * 50] * 6),
    ],
)
def test_zone_that_is_no_host_name_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="is not a zone") as caught:
        Zone.of(name)

    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_zone_may_have_underscores_and_the_longest_name() -> None:
    longest = ".".join(["a" * 63] * 3 + ["b" * 61])

    assert Zone.of("_vouch.dwl.test").name == "_vouch.dwl.test"
    assert Zone.of(longest).name == longest


@pytest.mark.parametrize("label", ["", "a" * 64, "bü", "a.b"])
def test_label_that_dns_cannot_hold_is_refused(label: str) -> None:
    with pytest.raises(ValueError, match="is not a label"):
        Zone.of("list.test").question((label,), "A")


def test_name_longer_than_255_bytes_is_refused() -> None:
    zone = Zone.of("list.test")

    with pytest.raises(ValueError, match=r"too long for list\.test"):
        zone.question(("a" * 63,) * 4, "A")
    with pytest.raises(ValueError, match="is not a domain name"):
        Question.of(".".join(["a" * 63] * 5), "A")


@pytest.mark.parametrize("name", ["a..test", "\\300.test", "a" * 64, "ü" * 70])
def test_question_of_a_bad_name_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError, match="is not a domain name") as caught:
        Question.of(name, "A")

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rdtype", ["", "NOSUCH", "AXFR", "ANY", "TYPE99999"])
def test_question_for_no_type_of_record_is_refused(rdtype: str) -> None:
    with pytest.raises(ValueError, match=repr(rdtype)):
        Question.of("a.test", rdtype)


def test_name_in_other_letters_is_asked_as_idna() -> None:
    assert Question.of("bücher.test", "MX").name == "xn--bcher-kva.test"


def test_servers_are_read_with_and_without_port() -> None:
    entries = ["127.0.0.1", " 192.0.2.1@5353 ", "2001:DB8::1", "::1@54"]

    assert parse_servers(entries) == [
        ("127.0.0.1", 53),
        ("192.0.2.1", 5353),
        ("2001:db8::1", 53),
        ("::1", 54),
    ]


@pytest.mark.parametrize(
    "entry", ["", "dns.test", "1.2.3", "1.2.3.4@", "1.2.3.4@0", "1.2.3.4@65536", "@53"]
)
def test_entry_that_is_no_server_is_refused_by_name(entry: str) -> None:
    with pytest.raises(ValueError, match="is not a DNS server") as caught:
        parse_servers(["127.0.0.1", entry])

    assert repr(entry) in str(caught.value)


def test_system_has_at_least_one_server() -> None:
    assert system_servers()


def test_resolver_without_servers_is_refused() -> None:
    with pytest.raises(ValueError, match="no DNS server"):
        Resolver([])


# The three ends of a question


def test_listed_is_found_and_unlisted_is_none(server: DnsServer, loops: Loops) -> None:
    listed, clean = ask(LISTED, CLEAN, of=[server.port], loops=loops)

    assert listed.status is Status.FOUND
    assert listed.addresses == ("127.0.0.2",)
    assert clean == Answer(Status.NONE, (), "NXDOMAIN")


def test_answers_come_in_the_order_of_the_questions(
    server: DnsServer, loops: Loops
) -> None:
    server.fail("2.0.0.127.list.test", seconds=0.1)

    answers = ask(LISTED, CLEAN, LISTED, of=[server.port], loops=loops)

    expected = [Status.FOUND, Status.NONE, Status.FOUND]
    assert [answer.status for answer in answers] == expected
    assert server.times_asked(LISTED.name) == 1


def test_name_without_a_record_of_the_type_is_none(server: DnsServer) -> None:
    (answer,) = ask(Question.of(LISTED.name, "TXT"), of=[server.port])

    assert answer == Answer(Status.NONE, (), "no data")


def test_strings_of_one_txt_record_are_joined(server: DnsServer) -> None:
    server.zones["a.test"] = {"TXT": ['"v=spf1 " "-all"', '"other"']}

    (answer,) = ask(Question.of("a.test", "TXT"), of=[server.port])

    assert sorted(answer.texts) == [b"other", b"v=spf1 -all"]
    assert answer.addresses == ()


def test_ipv6_addresses_are_read(server: DnsServer) -> None:
    server.zones["a.test"] = {"AAAA": ["2001:db8::1"]}

    (answer,) = ask(Question.of("a.test", "AAAA"), of=[server.port])

    assert answer.addresses == ("2001:db8::1",)


def test_alias_is_followed_within_the_answer(server: DnsServer) -> None:
    server.zones |= {
        "www.test": {"CNAME": ["web.test."]},
        "web.test": {"CNAME": ["host.test."]},
        "host.test": {"A": ["192.0.2.1"]},
        "astray.test": {"CNAME": ["nowhere.test."]},
        "bare.test": {"CNAME": ["text.test."]},
        "text.test": {"TXT": ['"x"']},
    }
    names = ("www.test", "astray.test", "bare.test")

    answers = ask(*(Question.of(name, "A") for name in names), of=[server.port])

    assert answers[0].addresses == ("192.0.2.1",)
    assert answers[1] == Answer(Status.NONE, (), "NXDOMAIN")
    assert answers[2] == Answer(Status.NONE, (), "no data")


@pytest.mark.parametrize("kind", ["servfail", "refused"])
def test_server_that_declines_is_a_failure_at_once(
    server: DnsServer, kind: str
) -> None:
    server.fail(CLEAN.name, kind)

    (answer,) = ask(CLEAN, of=[server.port])

    why = f"{kind.upper()} from 127.0.0.1@{server.port}"
    assert answer == Answer(Status.FAILED, (), why)
    assert server.times_asked(CLEAN.name) == 1


def test_closed_port_is_a_failure_at_once(loops: Loops) -> None:
    port = free_port()
    started = time.monotonic()

    (answer,) = ask(CLEAN, of=[port], loops=loops)

    why = f"connection refused from 127.0.0.1@{port}"
    assert answer == Answer(Status.FAILED, (), why)
    assert time.monotonic() - started < 1


def test_server_that_comes_back_is_heard_at_once(loops: Loops) -> None:
    """A socket that had an ICMP error is dead to libuv: it must not be used again."""
    port = free_port()

    async def work() -> list[Answer]:
        resolver = Resolver([("127.0.0.1", port)], attempt_seconds=30.0)
        for _ in range(8):
            await resolver.ask(CLEAN, 1.0)
        with DnsServer({}, port=port):
            questions = [Question.of(f"q{n}.example.test", "A") for n in range(8)]
            answers = [await resolver.ask(one, 2.0) for one in questions]
        resolver.close()
        return answers

    answers = run(work(), loops)

    assert {answer.why for answer in answers} == {"NXDOMAIN"}


def test_network_that_cannot_be_reached_is_a_failure() -> None:
    async def work() -> Answer:
        # An IPv4 broadcast needs a permission that the socket does not have.
        resolver = Resolver([("255.255.255.255", 53)])
        answer = await resolver.ask(CLEAN, 1.0)
        resolver.close()
        return answer

    answer = run(work())

    assert answer.status is Status.FAILED
    assert "from 255.255.255.255@53" in answer.why


def test_garbage_is_a_failure_and_never_none(server: DnsServer) -> None:
    server.fail(LISTED.name, "garbage")

    (answer,) = ask(LISTED, of=[server.port])

    assert answer.status is Status.FAILED
    assert answer.why.startswith("malformed answer")


def test_bytes_without_sense_are_ignored(server: DnsServer) -> None:
    server.fail("*.list.test", "noise", times=2)

    answers = ask(LISTED, CLEAN, of=[server.port], attempt_seconds=0.05)

    assert [answer.status for answer in answers] == [Status.FOUND, Status.NONE]


@pytest.mark.parametrize("kind", ["formerr", "notimp"])
def test_server_older_than_edns_is_asked_without(server: DnsServer, kind: str) -> None:
    server.fail("*", kind)

    answers = ask(LISTED, CLEAN, of=[server.port])

    assert [answer.status for answer in answers] == [Status.FOUND, Status.NONE]
    assert server.times_asked(LISTED.name) == 2


def test_doubled_datagram_counts_once(server: DnsServer) -> None:
    def script(request: bytes, transport: str) -> list[bytes]:
        if request[11]:
            return [header(request, b"\x81\x81")] * 2  # FORMERR, twice
        return [header(request, b"\x81\x83")]

    server.script = script

    assert ask(CLEAN, of=[server.port])[0].status is Status.NONE


# Time


def test_silent_server_is_a_failure_when_the_budget_is_spent(
    server: DnsServer, loops: Loops
) -> None:
    server.fail(CLEAN.name, "silent")
    started = time.monotonic()

    listed, clean = ask(LISTED, CLEAN, of=[server.port], seconds=0.3, loops=loops)

    assert listed.status is Status.FOUND
    assert clean == Answer(Status.FAILED, (), "no answer in 0.3 s")
    assert 0.25 < time.monotonic() - started < 1


def test_nothing_is_asked_when_the_budget_is_already_spent(server: DnsServer) -> None:
    (answer,) = ask(CLEAN, of=[server.port], seconds=-0.1)

    assert answer == Answer(Status.FAILED, (), "no time left")
    assert server.asked == []


def test_unanswered_question_is_asked_again_from_another_port(
    server: DnsServer, loops: Loops
) -> None:
    server.fail(CLEAN.name, "silent", times=2)

    (answer,) = ask(CLEAN, of=[server.port], attempt_seconds=0.05, loops=loops)

    assert answer.status is Status.NONE
    assert server.times_asked(CLEAN.name) == 3
    assert server.sources[0] != server.sources[1] != server.sources[2]


def test_late_answer_to_an_earlier_attempt_is_welcome(server: DnsServer) -> None:
    server.fail(CLEAN.name, seconds=0.2)
    started = time.monotonic()

    (answer,) = ask(CLEAN, of=[server.port], attempt_seconds=0.12)

    assert answer.status is Status.NONE
    assert time.monotonic() - started < 0.3
    assert server.times_asked(CLEAN.name) == 2


def test_next_server_is_asked_when_the_first_is_dead_or_declines(
    server: DnsServer,
) -> None:
    with DnsServer() as broken:
        broken.fail("a.test", "servfail")
        broken.fail("b.test", "silent")
        broken.fail("c.test", "garbage")
        questions = [Question.of(f"{name}.test", "A") for name in "abc"]
        ports = [free_port(), broken.port, server.port]

        answers = ask(*questions, of=ports, attempt_seconds=0.05)

    assert [answer.status for answer in answers] == [Status.NONE] * 3
    assert {name for name, _, _ in server.asked} == {"a.test", "b.test", "c.test"}


def test_failure_of_all_servers_is_a_failure_at_once(server: DnsServer) -> None:
    server.fail(CLEAN.name, "servfail")
    with DnsServer() as other:
        other.fail(CLEAN.name, "refused")

        (answer,) = ask(CLEAN, of=[server.port, other.port])

        assert answer.why == f"REFUSED from 127.0.0.1@{other.port}"


def test_late_refusal_does_not_end_the_attempt_under_way(server: DnsServer) -> None:
    server.fail(CLEAN.name, "servfail", seconds=0.27)
    with DnsServer() as other:
        other.fail(CLEAN.name, seconds=0.13)

        (answer,) = ask(CLEAN, of=[server.port, other.port], attempt_seconds=0.2)

    assert answer.status is Status.NONE


def test_question_asked_later_is_asked_again_on_its_own_time(
    server: DnsServer,
) -> None:
    """One timer serves all attempts; a repeated one must not delay the next."""
    server.fail("*", "silent", times=3)

    async def work() -> float:
        resolver = Resolver([("127.0.0.1", server.port)], attempt_seconds=0.2)
        first = asyncio.create_task(resolver.ask(LISTED, 3.0))
        await asyncio.sleep(0.1)  # the distance between the two is the point
        started = time.monotonic()
        await resolver.ask(CLEAN, 3.0)
        taken = time.monotonic() - started
        await first
        resolver.close()
        return taken

    assert run(work()) < 0.28


# Who is believed


@pytest.mark.parametrize("kind", ["wrong id", "wrong question"])
def test_forged_answer_is_ignored_and_counted(
    server: DnsServer, kind: str, loops: Loops
) -> None:
    server.fail("*", kind)

    async def work() -> tuple[list[Answer], int]:
        resolver = Resolver([("127.0.0.1", server.port)])
        answers = await resolver.ask_all((LISTED, CLEAN), 3.0)
        resolver.close()
        return answers, resolver.ignored

    (listed, clean), ignored = run(work(), loops)

    assert listed.addresses == ("127.0.0.2",)
    assert clean.status is Status.NONE
    assert ignored == 2


def test_answer_from_another_address_is_not_received(server: DnsServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:

        def script(request: bytes, transport: str) -> list[bytes]:
            forged = header(request, b"\x81\x83")
            stranger.sendto(forged, ("127.0.0.1", server.sources[-1]))
            return []

        server.script = script

        (answer,) = ask(LISTED, of=[server.port], seconds=0.2)

    assert answer == Answer(Status.FAILED, (), "no answer in 0.2 s")


def test_name_in_another_case_is_the_same_name(server: DnsServer) -> None:
    question = Question.of(LISTED.name.upper(), "A")

    def script(request: bytes, transport: str) -> list[bytes]:
        section = request[12:-15].lower() + request[-15:-11]
        return [request[:2] + b"\x81\x83\0\1\0\0\0\0\0\0" + section]

    server.script = script

    assert ask(question, of=[server.port])[0].status is Status.NONE


def test_ports_and_ids_are_hard_to_guess(server: DnsServer, loops: Loops) -> None:
    idents: set[bytes] = set()

    def script(request: bytes, transport: str) -> list[bytes]:
        idents.add(request[:2])
        return [header(request, b"\x81\x83")]

    server.script = script
    questions = [Question.of(f"n{number}.test", "A") for number in range(60)]

    ask(*questions, of=[server.port], loops=loops)

    assert len(set(server.sources)) == 4
    assert len(idents) > 50


def test_port_is_renewed_after_many_questions(
    server: DnsServer, loops: Loops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolving, "QUESTIONS_PER_PORT", 10)
    questions = [Question.of(f"n{number}.test", "A") for number in range(60)]

    answers = ask(*questions, of=[server.port], sockets_per_server=2, loops=loops)

    assert {answer.status for answer in answers} == {Status.NONE}
    used = set(server.sources)
    assert len(used) >= 6
    assert max(server.sources.count(port) for port in used) <= 10


def test_port_is_renewed_after_a_minute_and_closed_when_idle(
    server: DnsServer,
) -> None:
    server.fail("slow.test", seconds=0.1)

    async def work() -> int:
        resolver = Resolver([("127.0.0.1", server.port)], sockets_per_server=1)
        before = open_sockets()
        slow = asyncio.create_task(resolver.ask(Question.of("slow.test", "A"), 90.0))
        await resolver.ask(CLEAN, 3.0)
        # The slow question's attempt falls due, too, and moves to the new port.
        forward(61)
        await resolver.ask(Question.of("later.test", "A"), 3.0)
        await slow
        opened = open_sockets() - before
        resolver.close()
        return opened

    def open_sockets() -> int:
        loop: Any = asyncio.get_running_loop()
        return len(loop._selector.get_map())

    assert run(work(), ShiftedLoop) == 1
    assert len(set(server.sources)) == 2


# What is shared and remembered


def test_question_of_several_callers_is_sent_once(
    server: DnsServer, loops: Loops
) -> None:
    server.fail(LISTED.name, seconds=0.15)

    async def work() -> list[Answer]:
        resolver = Resolver([("127.0.0.1", server.port)])
        answers = await asyncio.gather(
            resolver.ask(LISTED, 0.05), *(resolver.ask(LISTED, 3.0) for _ in range(5))
        )
        resolver.close()
        return answers

    hasty, *patient = run(work(), loops)

    assert hasty == Answer(Status.FAILED, (), "no answer in 0.1 s")
    assert {answer.status for answer in patient} == {Status.FOUND}
    assert server.times_asked(LISTED.name) == 1


def test_caller_that_is_cancelled_leaves_the_others_alone(server: DnsServer) -> None:
    server.fail(LISTED.name, seconds=0.1)

    async def work() -> tuple[Answer, Answer]:
        resolver = Resolver([("127.0.0.1", server.port)])
        alone = asyncio.create_task(resolver.ask(CLEAN, 3.0))
        gone = asyncio.create_task(resolver.ask(LISTED, 3.0))
        stays = asyncio.create_task(resolver.ask(LISTED, 3.0))
        await asyncio.sleep(0)
        alone.cancel()
        gone.cancel()
        await asyncio.wait([alone, gone])
        answers = await stays, await resolver.ask(CLEAN, 3.0)
        resolver.close()
        return answers

    listed, clean = run(work())

    assert listed.status is Status.FOUND
    assert clean.status is Status.NONE


def first_step(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that must not suspend, outside of any task."""
    with pytest.raises(StopIteration) as caught:
        work.send(None)
    value: T = caught.value.value
    return value


def test_cached_answers_are_returned_without_suspending(
    server: DnsServer, loops: Loops
) -> None:
    async def work() -> None:
        resolver = Resolver([("127.0.0.1", server.port)])
        assert resolver.find_cached(LISTED) is None

        answers = await resolver.ask_all((LISTED, CLEAN), 3.0)

        assert first_step(resolver.ask_all((LISTED, CLEAN), 3.0)) == answers
        assert first_step(resolver.ask(LISTED, 3.0)) == answers[0]
        assert resolver.find_cached(CLEAN) == answers[1]
        assert first_step(resolver.ask_all((), 3.0)) == []
        resolver.close()

    run(work(), loops)
    assert len(server.asked) == 2


def test_answers_are_kept_for_their_ttl(server: DnsServer) -> None:
    server.ttl, server.soa_ttl = 100, 50

    async def work() -> None:
        resolver = Resolver([("127.0.0.1", server.port)])
        await resolver.ask_all((LISTED, CLEAN), 3.0)

        forward(49)
        assert resolver.find_cached(LISTED)
        assert resolver.find_cached(CLEAN)
        forward(2)
        assert resolver.find_cached(LISTED)
        assert resolver.find_cached(CLEAN) is None
        forward(50)
        assert resolver.find_cached(LISTED) is None
        assert (await resolver.ask(LISTED, 3.0)).status is Status.FOUND
        resolver.close()

    run(work(), ShiftedLoop)
    assert server.times_asked(LISTED.name) == 2


def test_ttl_of_an_answer_is_capped(server: DnsServer) -> None:
    server.ttl = server.soa_ttl = 10**9

    async def work() -> None:
        resolver = Resolver([("127.0.0.1", server.port)])
        await resolver.ask_all((LISTED, CLEAN), 3.0)

        forward(3 * 3600 + 1)
        assert resolver.find_cached(CLEAN) is None
        forward(21 * 3600)
        assert resolver.find_cached(LISTED) is None
        resolver.close()

    run(work(), ShiftedLoop)


def test_some_answers_are_not_kept(server: DnsServer) -> None:
    """Without an SOA, with a TTL of zero, and all failures."""
    server.ttl, server.soa_ttl = 0, None
    server.fail("broken.test", "servfail")
    questions = (LISTED, CLEAN, Question.of("broken.test", "A"))

    async def work() -> None:
        resolver = Resolver([("127.0.0.1", server.port)])
        await resolver.ask_all(questions, 3.0)
        assert [resolver.find_cached(question) for question in questions] == [None] * 3
        resolver.close()

    run(work())


def test_cache_is_bounded_and_drops_the_oldest(server: DnsServer) -> None:
    questions = [Question.of(f"n{number}.test", "A") for number in range(5)]

    async def work() -> None:
        resolver = Resolver([("127.0.0.1", server.port)], cache_size=3)
        for question in questions:
            await resolver.ask(question, 3.0)
        known = [resolver.find_cached(question) is not None for question in questions]
        assert known == [False, False, True, True, True]
        resolver.close()

    run(work())


# TCP


def test_answer_that_was_cut_is_asked_for_by_tcp(
    server: DnsServer, loops: Loops
) -> None:
    server.zones["big.test"] = {"TXT": [f'"{n:0200}"' for n in range(100)]}
    server.fail(CLEAN.name, "truncated")
    big = Question.of("big.test", "TXT")

    answer, clean = ask(big, CLEAN, of=[server.port], loops=loops)

    assert len(answer.texts) == 100
    assert clean.status is Status.NONE
    assert ("big.test", "TXT", "tcp") in server.asked


def test_tcp_that_fails_is_a_failure(server: DnsServer, loops: Loops) -> None:
    server.fail(LISTED.name, "hang up")

    (answer,) = ask(LISTED, of=[server.port], loops=loops)

    why = f"connection closed by TCP from 127.0.0.1@{server.port}"
    assert answer == Answer(Status.FAILED, (), why)


def test_tcp_is_within_the_budget(server: DnsServer, loops: Loops) -> None:
    def script(request: bytes, transport: str) -> list[bytes]:
        cut = header(request, b"\x83\x80")
        return [cut] if transport == "udp" else []

    server.script = script
    started = time.monotonic()

    (answer,) = ask(LISTED, of=[server.port], seconds=0.2, loops=loops)

    assert answer == Answer(Status.FAILED, (), "no answer in 0.2 s")
    assert time.monotonic() - started < 1


def test_server_older_than_edns_is_asked_by_tcp_twice(server: DnsServer) -> None:
    def script(request: bytes, transport: str) -> list[bytes]:
        if transport == "udp":
            return [header(request, b"\x83\x80")]
        return [header(request, b"\x81\x81" if request[11] else b"\x81\x83")]

    server.script = script

    (answer,) = ask(CLEAN, of=[server.port], attempt_seconds=0.5, seconds=1.0)

    assert answer.status is Status.NONE


@pytest.mark.parametrize("spoil", ["id", "question", "cut"])
def test_tcp_answer_is_checked_like_any_other(server: DnsServer, spoil: str) -> None:
    def script(request: bytes, transport: str) -> list[bytes]:
        cut = header(request, b"\x83\x80")
        if transport == "udp" or spoil == "cut":
            return [cut]
        if spoil == "id":
            return [bytes((cut[0] ^ 1,)) + cut[1:2] + b"\x81\x83" + cut[4:]]
        return [cut[:2] + b"\x81\x83" + cut[4:].replace(b"list", b"mist")]

    server.script = script

    (answer,) = ask(LISTED, of=[server.port])

    assert answer.status is Status.FAILED
    assert "by TCP" in answer.why


# The end


def test_nothing_is_left_behind_when_a_question_has_ended(server: DnsServer) -> None:
    """No task of a stream that nobody waits for, no timer of a budget."""
    connected = asyncio.Event()
    loop: Any = None

    def script(request: bytes, transport: str) -> list[bytes]:
        if transport == "udp":
            return [header(request, b"\x83\x80")]
        loop.call_soon_threadsafe(connected.set)
        return []

    async def work() -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        resolver = Resolver([("127.0.0.1", server.port)])
        await resolver.ask(LISTED, 60.0)
        server.script = script
        under_way = asyncio.create_task(resolver.ask(CLEAN, 60.0))
        await connected.wait()
        under_way.cancel()
        await asyncio.wait([under_way])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks = asyncio.all_tasks()
        resolver.close()

        assert tasks == {asyncio.current_task()}
        assert [t for t in loop._scheduled if not t.cancelled()] == []

    run(work())


def test_closing_fails_what_is_under_way_and_what_comes_later(
    server: DnsServer, loops: Loops
) -> None:
    server.fail("*", "silent")

    async def work() -> list[Answer]:
        resolver = Resolver([("127.0.0.1", server.port)])
        under_way = asyncio.create_task(resolver.ask(LISTED, 3.0))
        await asyncio.sleep(0)
        resolver.close()
        resolver.close()
        return [await under_way, await resolver.ask(CLEAN, 3.0)]

    expected = Answer(Status.FAILED, (), "resolver is closed")
    assert run(work(), loops) == [expected, expected]


def test_resolver_may_be_closed_after_its_loop(server: DnsServer, loops: Loops) -> None:
    resolver = Resolver([("127.0.0.1", server.port)])
    run(resolver.ask(CLEAN, 3.0), loops)

    resolver.close()


def test_resolver_that_was_never_asked_can_be_closed() -> None:
    Resolver([("127.0.0.1", 53)]).close()


# Messages written by a stranger


def response(question: Question, rcode: int = 0, *records: str) -> bytes:
    """A response to `question`; records are "section name ttl type data"."""
    reply = dns.message.make_response(
        dns.message.make_query(question.name, question.rdtype, id=7, use_edns=True)
    )
    reply.set_rcode(dns.rcode.Rcode.make(rcode))
    for record in records:
        section, name, ttl, rdtype, data = record.split(" ", 4)
        rrset = dns.rrset.from_text(name, int(ttl), "IN", rdtype, data)
        getattr(reply, section).append(rrset)
    return reply.to_wire()


SOA = "authority list.test. 60 SOA ns.test. root.test. 1 2 3 4 40"
VALID = [
    response(LISTED, 0, "answer 2.0.0.127.list.test. 90 A 127.0.0.2"),
    response(LISTED, 3, SOA),
    response(LISTED, 0, SOA),
    response(
        LISTED,
        0,
        "answer 2.0.0.127.list.test. 90 CNAME other.test.",
        "answer other.test. 30 A 127.0.0.3",
        "additional extra.test. 30 A 203.0.113.200",
    ),
]


def test_shortest_ttl_of_the_chain_counts() -> None:
    answer, seconds = read_answer(LISTED, VALID[3])

    assert (answer.addresses, seconds) == (("127.0.0.3",), 30)


def test_denial_holds_for_the_lesser_of_soa_ttl_and_minimum() -> None:
    shorter = SOA.replace(" 60 ", " 20 ")

    assert read_answer(LISTED, VALID[1])[1] == 40
    assert read_answer(LISTED, response(LISTED, 3, shorter))[1] == 20


def test_ttl_with_the_top_bit_is_zero() -> None:
    message = VALID[1].replace(b"\0\0\0\x3c", b"\x80\0\0\0")
    message = message.replace(b"\0\0\0\x28", b"\xff\xff\xff\xff")

    assert read_answer(LISTED, message) == (Answer(Status.NONE, (), "NXDOMAIN"), 0)


def test_denial_through_an_alias_holds_no_longer_than_the_alias() -> None:
    alias = "answer 2.0.0.127.list.test. 10 CNAME gone.test."

    answer, seconds = read_answer(LISTED, response(LISTED, 3, alias, SOA))

    assert (answer, seconds) == (Answer(Status.NONE, (), "NXDOMAIN"), 10)
    assert read_answer(LISTED, response(LISTED, 3, alias))[1] == 0


@pytest.mark.parametrize(
    "message",
    [
        response(LISTED, 0, "authority test. 60 NS ns.test."),
        response(LISTED, 0, "answer mist.test. 90 A 127.0.0.2"),
        response(LISTED, 0, "answer 2.0.0.127.list.test. 90 TXT x"),
        response(LISTED, 0, "answer 2.0.0.127.list.test. 9 CNAME 2.0.0.127.list.test."),
        response(LISTED, 3, "answer 2.0.0.127.list.test. 90 A 127.0.0.2"),
        response(LISTED, 16),
        response(LISTED, 16, "answer 2.0.0.127.list.test. 90 A 127.0.0.2"),
        VALID[1][:-12],
    ],
    ids=[
        "referral",
        "other name",
        "other type",
        "alias of itself",
        "NXDOMAIN with an address",
        "extended error",
        "extended error with an address",
        "cut",
    ],
)
def test_answer_that_says_nothing_is_neither_found_nor_none(message: bytes) -> None:
    answer, seconds = read_answer(LISTED, message)

    assert LISTED.is_answered_by(message)
    assert (answer.status, seconds) == (Status.FAILED, 0)


def check(message: bytes) -> None:
    """Only what was asked for is ever found."""
    LISTED.is_answered_by(message)
    answer, seconds = read_answer(LISTED, message)
    assert (answer.status is Status.FOUND) == bool(answer.records)
    assert {record.rdtype for record in answer.records} <= {dns.rdatatype.A}
    assert answer.status is not Status.FAILED or seconds == 0
    assert 0 <= seconds <= 86400
    assert "203.0.113.200" not in answer.addresses


SECTION = LISTED.section


@given(st.binary(max_size=200))
@example(b"")
@example(b"\0" * 12)
@settings(deadline=None)
def test_arbitrary_bytes_never_raise(tail: bytes) -> None:
    check(tail)
    check(b"\0\7\x81\x80\0\1\0\1\0\0\0\0" + SECTION + tail)
    check(b"\0\7\x81\x80\0\1\0\0\0\1\0\0" + SECTION + tail)


changes = st.lists(
    st.tuples(st.integers(12 + len(SECTION), 120), st.integers(0, 255)), max_size=4
)


@given(st.sampled_from(VALID), changes, st.integers(0, 200))
@settings(max_examples=300, deadline=None)
def test_changed_answers_never_raise_and_never_find_what_was_not_asked(
    message: bytes, changes: list[tuple[int, int]], end: int
) -> None:
    changed = bytearray(message)
    for at, value in changes:
        changed[at % len(changed)] = value
    check(bytes(changed))
    check(bytes(changed[:end]))


@given(st.sampled_from(VALID), st.integers(2, 12 + len(SECTION) - 1), st.data())
@settings(deadline=None)
def test_changed_question_is_not_answered(
    message: bytes, at: int, data: st.DataObject
) -> None:
    """Only the case of letters, and bits that say nothing of it, may differ."""
    value = data.draw(st.integers(0, 255).filter(lambda value: value != message[at]))
    changed = message[:at] + bytes((value,)) + message[at + 1 :]

    if at in (4, 5):
        assert not LISTED.is_answered_by(changed)
    elif at == 2:
        assert LISTED.is_answered_by(changed) == (value & 0xF8 == 0x80)
    elif at >= 12:
        same = changed[12:-4].lower() == message[12:-4].lower()
        assert LISTED.is_answered_by(changed) == same


@given(st.lists(st.binary(max_size=80), max_size=5), st.booleans())
@settings(max_examples=40, deadline=None)
def test_stray_datagrams_change_nothing(strays: list[bytes], with_header: bool) -> None:
    """Whatever arrives before it, the true answer is the one that is taken."""
    with DnsServer() as server:

        def script(request: bytes, transport: str) -> list[bytes]:
            header = bytes((request[0] ^ 0xFF,)) + request[1:2] + b"\x81\x83\0\1"
            forged = [(header if with_header else b"") + stray for stray in strays]
            own = [stray for stray in forged if stray[:2] != request[:2]]
            return [*own, request[:2] + VALID[0][2:]]

        server.script = script

        (answer,) = ask(LISTED, of=[server.port])

    assert answer.addresses == ("127.0.0.2",)
