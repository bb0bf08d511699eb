"""naughty: carry out the refusals that other plugins put off.

Hooks     connect, mail, rcpt, data, data_post
Options   reject rcpt           the stage at which to refuse; what is found later is
                                refused at the end of the message
          reject_type           taken for qpsmtpd's sake: the plugin that found the
                                fault says how it is refused

A plugin with ``reject naughty`` lets the conversation go on, so that the log names
sender and recipient, and users on listed addresses can authenticate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from smeconf.smtpd.address import Address
from smeconf.smtpd.hooks import DECLINED, Answer
from smeconf.smtpd.log import NOTICE
from smeconf.smtpd.message import Message
from smeconf.smtpd.plugin import Plugin, option
from smeconf.smtpd.state import Connection

_STAGES = ("connect", "mail", "rcpt", "data", "data_post")


def _stage(word: str) -> str:
    if word not in _STAGES:
        raise ValueError(f"must be one of {', '.join(_STAGES)}, not {word!r}")
    return word


class Naughty(Plugin):
    """Refuses clients that others found naughty."""

    executes_naughty = True

    @dataclass(frozen=True)
    class Settings:
        """When to refuse."""

        reject: str = option("rcpt", _stage)
        reject_type: str = option("disconnect")

    def hook_connect(self, connection: Connection) -> Answer:
        """Refuse here if that is the stage."""
        return self._at("connect", connection, ())

    def hook_mail(self, connection: Connection, sender: Address) -> Answer:
        """Refuse here if that is the stage."""
        return self._at("mail", connection, ())

    def hook_rcpt(self, connection: Connection, recipient: Address) -> Answer:
        """Refuse this recipient if that is the stage."""
        return self._at("rcpt", connection, (recipient,))

    def hook_data(self, connection: Connection) -> Answer:
        """Refuse here if that is the stage."""
        return self._at("data", connection, _recipients(connection))

    def hook_data_post(self, connection: Connection, message: Message) -> Answer:
        """Refuse what was found after the stage, whatever that is."""
        return self._refuse(connection, _recipients(connection))

    def _at(
        self, stage: str, connection: Connection, recipients: Iterable[Address]
    ) -> Answer:
        if self.settings.reject != stage:
            return DECLINED
        return self._refuse(connection, recipients)

    def _refuse(self, connection: Connection, recipients: Iterable[Address]) -> Answer:
        found = connection.grievances
        if not found:
            return DECLINED
        whom = tuple(recipients)
        spared = bool(whom) and all(one.is_role_account for one in whom)
        grievances = [one for one in found if not (spared and one.spares_role_accounts)]
        if not grievances:
            return DECLINED
        why = "; ".join(f"({one.plugin}) {one.text}" for one in grievances)
        self.log(connection, NOTICE, f"fail, {why}")
        text = "\n".join(one.text for one in grievances)
        return Answer(grievances[0].reject_type.value, text, why)


def _recipients(connection: Connection) -> Iterable[Address]:
    transaction = connection.transaction
    return transaction.recipients if transaction is not None else ()
