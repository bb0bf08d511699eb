"""A DNS stub resolver on the running asyncio loop.

A stub resolver asks the recursive servers of the site and believes them; all
it can do against forged answers is to be hard to guess (RFC 5452): every
question leaves from one of several random ports that are renewed, under a
random id, and an answer counts only when port, id and question all agree.

A question ends in one of three ways, and the third is not the second::

    zone = Zone.of("zen.example.org")
    client = ipaddress.ip_address("192.0.2.99")
    question = zone.question(reversed_address(client), "A")
    answer = await resolver.ask(question, 4.0)

    Status.FOUND   99.2.0.192.zen.example.org has records: answer.addresses
    Status.NONE    the servers said that there is no such name or record
    Status.FAILED  nobody said anything that can be relied on: answer.why

Not done here: DNSSEC, search lists, iteration from the root, zone transfers.
"""

from smeconf.dns.message import (
    Answer,
    Question,
    Status,
    Zone,
    read_answer,
    reversed_address,
)
from smeconf.dns.resolver import Resolver
from smeconf.dns.servers import parse_servers, system_servers

__all__ = [
    "Answer",
    "Question",
    "Resolver",
    "Status",
    "Zone",
    "parse_servers",
    "read_answer",
    "reversed_address",
    "system_servers",
]
