"""The key/property database: e-smith's files, exact, durable and fast.

from smeconf.database import Database

with Database("/home/e-smith/db/configuration").transaction() as records:
    qpsmtpd = records.find("qpsmtpd")
    qpsmtpd.properties["DNSBL"] = "enabled"
    records.put("qpsmtpd", qpsmtpd)
"""

from smeconf.database.record import Document, FormatError, Record
from smeconf.database.store import Database, DatabaseError, Transaction

__all__ = [
    "Database",
    "DatabaseError",
    "Document",
    "FormatError",
    "Record",
    "Transaction",
]
