"""The key/property database: e-smith's files, exact, durable and fast.

from smeconf.database import Database

with Database.open("configuration").transaction("why") as records:
    records["qpsmtpd"]["DNSBL"] = "enabled"
"""

from smeconf.database.history import Entry
from smeconf.database.record import Document, FormatError, Record
from smeconf.database.store import Database, DatabaseError, Transaction

__all__ = [
    "Database",
    "DatabaseError",
    "Document",
    "Entry",
    "FormatError",
    "Record",
    "Transaction",
]
