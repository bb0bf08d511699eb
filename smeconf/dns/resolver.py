"""The resolver: lookups under way, those who wait for them, and the answers kept."""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict, deque
from collections.abc import Sequence

import dns.rcode

from smeconf.dns.message import (
    FORMERR,
    NOTIMP,
    NXDOMAIN,
    Answer,
    Question,
    Status,
    failed,
    read_answer,
)
from smeconf.dns.servers import Port, Server, exchange, reason

QUESTIONS_PER_PORT = 200
PORT_SECONDS = 60.0

_ENDED = -1.0  # in place of the time at which a lookup is due


class _Group:
    """The questions that one caller waits for."""

    __slots__ = ("answers", "done", "left")

    def __init__(
        self, answers: list[Answer | None], left: int, done: asyncio.Future[None]
    ) -> None:
        self.answers = answers
        self.left = left
        self.done = done

    def put(self, place: int, answer: Answer) -> None:
        self.answers[place] = answer
        self.left -= 1
        if self.left == 0:
            self.stop()

    def stop(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Lookup:
    """A question on its way, for all who wait for it."""

    __slots__ = (
        "due",
        "edns",
        "last",
        "question",
        "sent",
        "streams",
        "tried",
        "waiters",
    )

    def __init__(self, question: Question, server: Server) -> None:
        self.question = question
        self.waiters: list[tuple[_Group, int]] = []
        self.sent: list[tuple[Port, bytes]] = []
        self.last = server  # who was asked last
        self.tried = 0  # one bit for each server that was asked
        self.streams: dict[Server, asyncio.Task[None]] = {}
        self.edns = True
        self.due = 0.0  # when to ask again, or _ENDED


class Resolver:
    """Asks recursive servers, keeps answers for their TTL, shares what is under way.

    Belongs to the loop that runs when the first question is asked.
    """

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        *,
        attempt_seconds: float = 1.0,
        cache_size: int = 20000,
        sockets_per_server: int = 4,
    ) -> None:
        """Take the (address, port) of each server, in the order they are asked.

        A question without an answer after `attempt_seconds` is asked again, of
        the next server.  At most `cache_size` answers are kept.  Nothing is
        opened yet.  Raises ValueError when there is no server.
        """
        if not servers:
            raise ValueError("no DNS server to ask")
        self.ignored = 0  # datagrams that answered nothing that was asked
        self._servers = [
            Server(number, ip, port, sockets_per_server)
            for number, (ip, port) in enumerate(servers)
        ]
        for server, following in zip(self._servers, self._servers[1:], strict=False):
            server.next = following
        self._servers[-1].next = self._servers[0]
        self._attempt_seconds = attempt_seconds
        self._cache_size = cache_size
        self._cache: OrderedDict[bytes, tuple[float, Answer]] = OrderedDict()
        self._lookups: dict[bytes, Lookup] = {}
        # Attempts last equally long, so the oldest is due first: one timer does.
        self._attempts: deque[tuple[float, Lookup]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._retired: set[Port] = set()
        self._random = b""
        self._random_at = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clock = time.monotonic
        self._is_closed = False

    def find_cached(self, question: Question) -> Answer | None:
        """Return the answer to `question` if it is known and still holds."""
        kept = self._cache.get(question.key)
        if kept is None:
            return None
        if kept[0] > self._clock():
            return kept[1]
        del self._cache[question.key]
        return None

    async def ask(self, question: Question, seconds: float) -> Answer:
        """Return the answer to `question`, FAILED when `seconds` have passed.

        Raises nothing for trouble of the network.  A cached answer is returned
        without suspending.
        """
        return (await self.ask_all((question,), seconds))[0]

    async def ask_all(
        self, questions: Sequence[Question], seconds: float
    ) -> list[Answer]:
        """Ask all `questions` at once and return their answers, in their order.

        All share one budget of `seconds`; what is not answered by then is
        FAILED.  Raises nothing for trouble of the network.  Returns without
        suspending when all answers are cached.
        """
        answers = [self.find_cached(question) for question in questions]
        places = [place for place, answer in enumerate(answers) if answer is None]
        if places:
            await self._fill(answers, questions, places, seconds)
        return [answer for answer in answers if answer is not None]

    async def _fill(
        self,
        answers: list[Answer | None],
        questions: Sequence[Question],
        places: list[int],
        seconds: float,
    ) -> None:
        if self._is_closed or seconds <= 0:
            why = "resolver is closed" if self._is_closed else "no time left"
            for place in places:
                answers[place] = failed(why)
            return
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
            self._clock = loop.time
        group = _Group(answers, len(places), loop.create_future())
        lookups = [self._join(questions[place], group, place) for place in places]
        timer = loop.call_later(seconds, group.stop)
        try:
            await group.done
        finally:
            # Here too when the caller is cancelled.
            timer.cancel()
            if group.left:
                for place, lookup in zip(places, lookups, strict=True):
                    if answers[place] is None:
                        answers[place] = failed(f"no answer in {seconds:.1f} s")
                        self._leave(lookup, group, place)

    def close(self) -> None:
        """Close all sockets; what is under way has FAILED, and what is asked later."""
        self._is_closed = True
        if self._loop is None or self._loop.is_closed():
            self._lookups.clear()
        for lookup in list(self._lookups.values()):
            self._finish(lookup, failed("resolver is closed"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._attempts.clear()
        for server in self._servers:
            self._retired.update(port for port in server.ports if port is not None)
            server.ports = [None] * len(server.ports)
        while self._retired:
            self._close_port(self._retired.pop())

    # The life of a lookup

    def _join(self, question: Question, group: _Group, place: int) -> Lookup:
        lookup = self._lookups.get(question.key)
        if lookup is not None:
            lookup.waiters.append((group, place))
            return lookup
        first = self._servers[0]
        lookup = self._lookups[question.key] = Lookup(question, first)
        lookup.waiters.append((group, place))
        self._send(lookup, first)
        return lookup

    def _leave(self, lookup: Lookup, group: _Group, place: int) -> None:
        lookup.waiters.remove((group, place))
        if not lookup.waiters:
            self._finish(lookup, failed("nobody waits"))

    def _finish(self, lookup: Lookup, answer: Answer, seconds: int = 0) -> None:
        key = lookup.question.key
        self._lookups.pop(key, None)
        lookup.due = _ENDED
        attempts = self._attempts
        while attempts and attempts[0][1].due == _ENDED:
            attempts.popleft()
        for port, ident in lookup.sent:
            self._forget(port, ident)
        for task in lookup.streams.values():
            task.cancel()
        if seconds > 0 and self._cache_size > 0:
            if len(self._cache) >= self._cache_size:
                self._cache.popitem(last=False)
            self._cache[key] = (self._clock() + seconds, answer)
        for group, place in lookup.waiters:
            group.put(place, answer)

    def _pass_on(self, lookup: Lookup, server: Server, why: str) -> None:
        """Ask a server that was not yet asked, now that `server` is of no use."""
        if lookup.due == _ENDED:
            return
        for other in self._servers:
            if not lookup.tried & other.bit:
                self._send(lookup, other)
                return
        # A later attempt may still be answered.
        if server is lookup.last:
            self._finish(lookup, failed(f"{why} from {server.text}"))

    def _ask_again(self) -> None:
        """Send once more what was not answered in time."""
        assert self._loop is not None
        now = self._clock()
        attempts = self._attempts
        # An attempt is over, too, when a later one of the same lookup was made.
        while attempts and (attempts[0][0] <= now or attempts[0][1].due == _ENDED):
            due, lookup = attempts.popleft()
            if lookup.due == due:
                self._send(lookup, lookup.last.next)
        self._timer = None
        if attempts:
            self._timer = self._loop.call_at(attempts[0][0], self._ask_again)

    # UDP

    def _send(self, lookup: Lookup, server: Server) -> None:
        assert self._loop is not None
        now = self._clock()
        lookup.last = server
        lookup.tried |= server.bit
        lookup.due = now + self._attempt_seconds
        self._attempts.append((lookup.due, lookup))
        if self._timer is None:
            self._timer = self._loop.call_at(lookup.due, self._ask_again)
        try:
            port = self._choose_port(lookup, server, now)
        except OSError as error:
            self._pass_on(lookup, server, reason(error))
            return
        ident = self._draw()
        while ident in port.outstanding:
            ident = self._draw()
        port.asked += 1
        port.outstanding[ident] = lookup
        lookup.sent.append((port, ident))
        try:
            port.sock.send(lookup.question.message(ident, lookup.edns))
        except BlockingIOError:
            pass  # as good as lost on the way: it will be asked again
        except OSError as error:
            self._lose(port, error)

    def _choose_port(self, lookup: Lookup, server: Server, now: float) -> Port:
        ports = server.ports
        slot = self._draw()[0] % len(ports)
        if lookup.sent and lookup.sent[-1][0] is ports[slot]:
            slot = (slot + 1) % len(ports)
        port = ports[slot]
        if port is not None:
            if port.asked < QUESTIONS_PER_PORT and now < port.retire_at:
                return port
            ports[slot] = None
            if port.outstanding:
                self._retired.add(port)
            else:
                self._close_port(port)
        assert self._loop is not None
        port = ports[slot] = Port(server, now + PORT_SECONDS)
        self._loop.add_reader(port.sock, self._read, port)
        return port

    def _draw(self) -> bytes:
        """Return two random bytes; the kernel is asked for many at a time."""
        at = self._random_at
        if at >= len(self._random):
            self._random = os.urandom(2048)
            at = 0
        self._random_at = at + 2
        return self._random[at : at + 2]

    def _read(self, port: Port) -> None:
        try:
            message = port.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(port, error)
            return
        ident = message[:2]
        lookup = port.outstanding.get(ident)
        if lookup is None or not lookup.question.is_answered_by(message):
            self.ignored += 1
            return
        self._forget(port, ident)
        if message[2] & 2:  # TC: RFC 7766, 5
            self._start_stream(lookup, port.server)
        else:
            self._take(lookup, port.server, message)

    def _take(self, lookup: Lookup, server: Server, message: bytes) -> None:
        """Judge a response that is whole and belongs to `lookup`."""
        rcode = message[3] & 15
        if rcode in (FORMERR, NOTIMP) and lookup.edns:
            lookup.edns = False  # a server older than EDNS: RFC 6891, 7
            self._send(lookup, server)
            return
        if rcode not in (0, NXDOMAIN):
            code = dns.rcode.to_text(dns.rcode.Rcode.make(rcode))
            self._pass_on(lookup, server, code)
            return
        answer, seconds = read_answer(lookup.question, message)
        if answer.status is Status.FAILED:
            self._pass_on(lookup, server, answer.why)
        else:
            self._finish(lookup, answer, seconds)

    def _lose(self, port: Port, error: OSError) -> None:
        """Give up what was asked from `port`: an ICMP error does not say which.

        The port goes with it: libuv watches a socket no longer once it had an error.
        """
        ports = port.server.ports
        if port in ports:
            ports[ports.index(port)] = None
        self._retired.discard(port)
        self._close_port(port)
        lost = list(port.outstanding.values())
        port.outstanding.clear()
        for lookup in lost:
            self._pass_on(lookup, port.server, reason(error))

    def _forget(self, port: Port, ident: bytes) -> None:
        port.outstanding.pop(ident, None)
        if port in self._retired and not port.outstanding:
            self._retired.remove(port)
            self._close_port(port)

    def _close_port(self, port: Port) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(port.sock)
        port.sock.close()

    # TCP

    def _start_stream(self, lookup: Lookup, server: Server) -> None:
        assert self._loop is not None
        if server not in lookup.streams:
            task = self._loop.create_task(self._ask_by_tcp(lookup, server))
            lookup.streams[server] = task

    async def _ask_by_tcp(self, lookup: Lookup, server: Server) -> None:
        ident = self._draw()
        try:
            message = await exchange(
                server, lookup.question.message(ident, lookup.edns)
            )
        except (OSError, EOFError) as error:
            why = reason(error)
        else:
            if message[:2] != ident or not lookup.question.is_answered_by(message):
                why = "answer to another question"
            else:
                why = "answer cut off" if message[2] & 2 else ""
        del lookup.streams[server]
        if why:
            self._pass_on(lookup, server, f"{why} by TCP")
        else:
            self._take(lookup, server, message)
