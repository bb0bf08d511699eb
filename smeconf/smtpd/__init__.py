"""The SMTP filter: sessions, hooks in qpsmtpd's names, plugins, queues.

It knows the generated directory of files and nothing of the database that they came
from: a directory that a person wrote by hand serves as well.
"""
