"""The commands ``db`` and ``config``: e-smith's verbs, words, output and exit codes.

Scripts call these thousands of times, so this module and what it imports are the hot
path: words are read by hand, and what a rare verb needs is imported by that verb.
"""

from __future__ import annotations

import os
import sys

from smeconf.database import Database, DatabaseError, Record
from smeconf.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from smeconf.database import Document, Transaction

    Records = Document | Transaction

MISSING = 1
USAGE = 255

_VERBS = """\
    keys                                      every key
    print      [KEY]                          KEY=TYPE|PROP|VALUE… as stored
    show       [KEY]                          a property on each line
    get        KEY                            the stored TYPE|PROP|VALUE…
    set        KEY TYPE [PROP VALUE]…         write a whole record
    setdefault KEY TYPE [PROP VALUE]…         the same, unless the key exists
    delete     KEY                            remove a record
    printtype  [KEY]                          KEY=TYPE
    gettype    KEY                            the type, or a single value
    settype    KEY TYPE                       change the type, keep the properties
    printprop  KEY [PROP]…                    PROP=VALUE
    getprop    KEY PROP                       one value
    setprop    KEY PROP VALUE [PROP VALUE]…   set properties, all in one write
    delprop    KEY PROP…                      remove properties
    batch                                     verbs from standard input, a line each,
                                              words quoted as in a shell: all or none
    help       [KEY [PROP]]                   what is known of keys and properties

Options stand before the verb:
    --force      store what the schema refuses; let set wipe a service's record
    --root DIR   the root that home/e-smith/db lies under (else SMECONF_ROOT, else /)
    --help       this text
"""


class UsageError(Exception):
    """Words that do not fit the verb; exit 255, as scripts know it."""


class Call:
    """One verb with its words, and where its output goes."""

    __slots__ = ("force", "name", "output", "paths", "verb", "words")

    def __init__(
        self, verb: str, words: list[str], name: str, paths: Paths, force: bool
    ) -> None:
        self.verb = verb
        self.words = words
        self.name = name
        self.paths = paths
        self.force = force
        self.output: list[str] = []

    def take(self, least: int, most: int, form: str) -> list[str]:
        """Return the words; raise UsageError unless there are that many."""
        if least <= len(self.words) <= most:
            return self.words
        raise UsageError(f"{self.verb} takes {form}")


def config() -> NoReturn:
    """The command ``config``: ``db`` on the configuration database."""
    _main("config", "configuration")


def db() -> NoReturn:
    """The command ``db FILE VERB …``."""
    _main("db", None)


def _main(program: str, name: str | None) -> NoReturn:
    try:
        status = run(program, name, [_as_stored(word) for word in sys.argv[1:]])
    except UsageError as error:
        _complain(f"{program}: {error} ({program} --help lists the verbs)")
        status = USAGE
    except DatabaseError as error:
        _complain(f"{program}: {error}")
        status = MISSING
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = MISSING
    except OSError as error:
        _complain(f"{program}: standard output: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = MISSING
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


class _Options:
    """What stands before the verb."""

    __slots__ = ("force", "help", "root")

    def __init__(self) -> None:
        self.root: str | None = None
        self.force = False
        self.help = False

    def take(self, words: list[str]) -> list[str]:
        """Read the options in front of ``words``; return the rest."""
        while words and words[0].startswith("--"):
            option, equals, value = words[0].partition("=")
            words = words[1:]
            if option == "--force" and not equals:
                self.force = True
            elif option == "--help" and not equals:
                self.help = True
            elif option == "--root" and (equals or words):
                self.root, words = (value, words) if equals else (words[0], words[1:])
            else:
                raise UsageError(f"no option {option}")
        return words


def run(program: str, name: str | None, words: list[str]) -> int:
    """Run one command line; return its exit status.

    ``name`` is the database, None where the first word names it.  Raises UsageError
    and DatabaseError.
    """
    options = _Options()
    words = options.take(words)
    if name is None and words:
        name, words = words[0], options.take(words[1:])
    if options.help:
        _write(_usage(program))
        return 0
    if name is None or not words:
        _complain(_usage(program).rstrip("\n"))
        return USAGE
    paths = Paths(options.root)
    database = Database(paths.database(name))
    # By the database's own name, whatever file ESMITH_CONFIG_DB gives it.
    own_name = os.path.basename(name)
    call = Call(words[0], words[1:], own_name, paths, options.force)
    status = _run_verb(call, database)
    _write("".join(call.output))
    return status


def _run_verb(call: Call, database: Database) -> int:
    if call.verb in READING:
        return READING[call.verb](call, database.read())
    if call.verb == "help":
        from smeconf.cli.db_help import show_help

        return show_help(call)
    from smeconf.cli import db_change

    if call.verb == "batch":
        return db_change.batch(call, database)
    if call.verb in db_change.CHANGING:
        with database.transaction() as records:
            return db_change.CHANGING[call.verb](call, records)
    raise UsageError(f"no verb {call.verb}")


def _keys(call: Call, records: Records) -> int:
    call.take(0, 0, "no words")
    keys = records.keys()
    call.output += (f"{key}\n" for key in keys)
    return 0 if keys else MISSING


def _print(call: Call, records: Records) -> int:
    def line(key: str) -> str:
        return f"{key}={records.find_raw(key)}\n"

    return _each_record(call, records, line)


def _show(call: Call, records: Records) -> int:
    def lines(key: str) -> str:
        record = records.find(key)
        assert record
        properties = (f"    {line}" for line in _property_lines(record))
        return f"{key}={record.type}\n" + "".join(properties)

    return _each_record(call, records, lines)


def _printtype(call: Call, records: Records) -> int:
    def line(key: str) -> str:
        record = records.find(key)
        assert record
        return f"{key}={record.type}\n"

    return _each_record(call, records, line)


def _each_record(call: Call, records: Records, text: Callable[[str], str]) -> int:
    """Put out the text of the key that is given, or of all."""
    words = call.take(0, 1, "[KEY]")
    keys = words or records.keys()
    if not keys or records.find_raw(keys[0]) is None:
        return MISSING
    call.output += map(text, keys)
    return 0


def _property_lines(record: Record) -> list[str]:
    from smeconf.database.record import byte_order

    names = sorted(record.properties, key=byte_order)
    return [f"{name}={record.properties[name]}\n" for name in names]


def _get(call: Call, records: Records) -> int:
    (key,) = call.take(1, 1, "KEY")
    raw = records.find_raw(key)
    if raw is None:
        return MISSING
    call.output.append(raw + "\n")
    return 0


def _gettype(call: Call, records: Records) -> int:
    (key,) = call.take(1, 1, "KEY")
    record = records.find(key)
    if record is None:
        return MISSING
    call.output.append(record.type + "\n")
    return 0


def _printprop(call: Call, records: Records) -> int:
    key, *names = call.take(1, 10**6, "KEY [PROP]…")
    record = records.find(key) or Record("")
    if names:
        known = {n: record.properties[n] for n in names if n in record.properties}
        call.output += _property_lines(Record("", known))
        return 0
    call.output += _property_lines(record)
    return 0 if record.properties else MISSING


def _getprop(call: Call, records: Records) -> int:
    key, name = call.take(2, 2, "KEY PROP")
    record = records.find(key)
    if record is None or name not in record.properties:
        return MISSING
    call.output.append(record.properties[name] + "\n")
    return 0


READING: dict[str, Callable[[Call, Records], int]] = {
    "keys": _keys,
    "print": _print,
    "show": _show,
    "get": _get,
    "printtype": _printtype,
    "gettype": _gettype,
    "printprop": _printprop,
    "getprop": _getprop,
}


def _usage(program: str) -> str:
    words = "db [OPTION]… FILE" if program == "db" else "config [OPTION]…"
    return f"usage: {words} VERB …\n\n{_VERBS}"


def _as_stored(word: str) -> str:
    """Return an argument as the database holds text, whatever the locale."""
    return os.fsencode(word).decode("utf-8", "surrogateescape")


def _write(text: str) -> None:
    if text and sys.stdout is not None:  # None where it was closed by the caller
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        sys.stdout.flush()


def _complain(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text.encode("utf-8", "replace").decode() + "\n")
