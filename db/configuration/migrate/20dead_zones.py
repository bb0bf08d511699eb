"""Block lists that are no longer run: at best they answer nothing, at worst they list
the whole world."""

from smeconf.database.lists import ListError, join_list, split_list

LISTS = ("RBLList", "SBLList", "UBLList")

# With every zone below them.
DEAD = (
    *("njabl.org", "rfc-ignorant.org", "ordb.org", "securitysage.com"),
    *("sorbs.net", "ix.dnsbl.manitu.net"),
)
MOVED = {"sbl-xbl.spamhaus.org": "zen.spamhaus.org"}


def migrate(records, say):
    """Take dead lists out; where none is left, leave the property to its default."""
    record = records.find("qpsmtpd")
    if record is None:
        return
    for name in LISTS:
        try:
            entries = split_list(record.properties.get(name, ""))
        except ListError as error:
            say(f"qpsmtpd {name}: not looked at: {error}")
            continue
        kept = _without_dead(entries, f"qpsmtpd {name}", say)
        if kept == entries:
            continue
        if kept:
            record.properties[name] = join_list(kept)
        else:
            del record.properties[name]
            say(f"qpsmtpd {name}: no list was left, so it gets its default")
    records.put("qpsmtpd", record)


def _without_dead(entries, where, say):
    kept = []
    zones = {_zone(entry) for entry in entries}
    for entry in entries:
        zone = _zone(entry)
        if any(zone == dead or zone.endswith("." + dead) for dead in DEAD):
            say(f"{where}: {zone} is no longer run")
        elif zone in MOVED:
            heir = MOVED[zone]
            say(f"{where}: {zone} is now {heir}")
            if heir not in zones:
                kept.append(heir + entry[len(entry.partition(":")[0]) :])
                zones.add(heir)
        else:
            kept.append(entry)
    return kept


def _zone(entry):
    return entry.partition(":")[0].strip().rstrip(".").lower()
