"""Properties of older versions: those that nothing reads go, others are renamed."""

from smeconf.database import Record

# Key and property, and what they are now.
RENAMED = {
    ("smtpd", "Authentication"): ("qpsmtpd", "Authentication"),
    ("ssmtpd", "Authentication"): ("sqpsmtpd", "Authentication"),
}


def migrate(records, say):
    """Delete and rename properties; what stands under the new name already wins."""
    qpsmtpd = records.find("qpsmtpd")
    if qpsmtpd and qpsmtpd.properties.pop("RequireResolvableFromHost", None):
        records.put("qpsmtpd", qpsmtpd)
        say("the domain of the envelope sender is always looked up")
    smtpd = records.find("smtpd")
    if smtpd and smtpd.properties.get("Proxy") == "enabled":
        smtpd.properties["Proxy"] = "transparent"
        records.put("smtpd", smtpd)
    for (old_key, old_name), (new_key, new_name) in RENAMED.items():
        old, new = records.find(old_key), records.find(new_key)
        if old is None or old_name not in old.properties:
            continue
        if new is None:
            new = Record("service")
        value = old.properties.pop(old_name)
        new.properties.setdefault(new_name, value)
        records.put(old_key, old)
        records.put(new_key, new)
        say(f"{old_key} {old_name} is now {new_key} {new_name}")
