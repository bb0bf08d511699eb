"""Lists that SME before 9.2 separated by colons, as commas."""

from smeconf.database.values import is_domain

LISTS = ("RBLList", "SBLList", "UBLList")


def migrate(records, say):
    """Turn ``zone:zone`` into ``zone,zone``; ``zone:message``, ``zone:masks`` stay."""
    record = records.find("qpsmtpd")
    if record is None:
        return
    for name in LISTS:
        value = record.properties.get(name, "")
        parts = value.split(":")
        if len(parts) > 1 and all(map(_is_zone, parts)):
            record.properties[name] = ",".join(parts)
            say(f"qpsmtpd {name}: its entries are separated by commas now")
    records.put("qpsmtpd", record)


def _is_zone(part):
    """Tell whether a part is a bare domain name: not masks, an address or a text.

    A part that holds a comma is none, so a list with a comma stays as it is.
    """
    has_letter = any(character.isalpha() for character in part)
    return has_letter and is_domain(part, least_labels=2)
