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
    listadd    KEY PROP ITEM                  put an item into a comma list
    listdel    KEY PROP ITEM                  take one out
    batch                                     verbs from standard input, a line each,
                                              words quoted as in a shell: all or none
    history    [KEY [PROP]]                   who changed what, when and why
    rollback   REVISION                       undo all changes since that revision
    export                                    all records as JSON
    import                                    records from JSON on standard input
    help       [KEY [PROP]]                   what is known of keys and properties

Options stand before the verb:
    --force        store what the schema refuses; let set wipe a service's record
    --expect OLD   setprop: change the property only if that is its value now
    --reason TEXT  why, for the history
    --json         keys, print, show, history: as JSON
    --plan         import, rollback: show the changes, write nothing; exit 2 if any
    --root DIR     what home/e-smith/db lies under, else SMECONF_ROOT, else /
    --help         this text
"""


class UsageError(Exception):
    """Words that do not fit the verb; exit 255, as scripts know it."""


class Options:
    """What stands before the verb."""

    __slots__ = ("expect", "force", "help", "json", "plan", "reason", "root")

    def __init__(self) -> None:
        self.root: str | None = None
        self.expect: str | None = None
        self.reason = ""
        self.force = self.json = self.plan = self.help = False

    def take(self, words: list[str]) -> list[str]:
        """Read the options in front of ``words``; return the rest."""
        while words and words[0].startswith("--"):
            option, equals, value = words[0].partition("=")
            words = words[1:]
            name = option[2:]
            if name in ("force", "json", "plan", "help") and not equals:
                setattr(self, name, True)
            elif name in ("root", "expect", "reason") and (equals or words):
                if not equals:
                    value, words = words[0], words[1:]
                setattr(self, name, value)
            else:
                raise UsageError(f"no option {option}, or it lacks its value")
        return words


class Call:
    """One verb with its words, the database it is for, and its output."""

    __slots__ = ("database", "options", "output", "paths", "verb", "words")

    def __init__(
        self,
        verb: str,
        words: list[str],
        database: Database,
        paths: Paths,
        options: Options,
    ) -> None:
        self.verb = verb
        self.words = words
        self.database = database
        self.paths = paths
        self.options = options
        self.output: list[str] = []

    @property
    def name(self) -> str:
        """The database's name, for messages."""
        return self.database.name

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
    if sys.argv[1:] and sys.argv[1].startswith("--complete"):
        from smeconf.cli.completion import answer

        sys.exit(answer([_as_stored(word) for word in sys.argv[1:]]))
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
    if sys.stderr is not None:
        sys.stderr.flush()
    # All is written and flushed. The interpreter's own end, module by module, would
    # take longer than the verb.
    os._exit(status)


def run(program: str, name: str | None, words: list[str]) -> int:
    """Run one command line; return its exit status.

    ``name`` is the database, None where the first word names it.  Raises UsageError
    and DatabaseError.
    """
    options = Options()
    words = options.take(words)
    if name is None and words:
        name, words = words[0], options.take(words[1:])
    if options.help:
        _write(usage(program))
        return 0
    if name is None or not words:
        _complain(usage(program).rstrip("\n"))
        return USAGE
    paths = Paths(options.root)
    call = Call(words[0], words[1:], Database.open(name, paths), paths, options)
    status = _run_verb(call)
    _write("".join(call.output))
    return status


def _run_verb(call: Call) -> int:
    # An option that was meant to hold a change back must not be passed over.
    if call.options.expect is not None and call.verb != "setprop":
        raise UsageError("--expect goes with setprop")
    if call.options.plan and call.verb not in ("import", "rollback"):
        raise UsageError("--plan goes with import and rollback")
    if call.verb in READING:
        return READING[call.verb](call, call.database.read())
    act = _find_rare(call.verb)
    if act is not None:
        return act(call)
    from smeconf.cli.db_change import CHANGING

    change = CHANGING.get(call.verb)
    if change is None:
        raise UsageError(f"no verb {call.verb}")
    with call.database.transaction(call.options.reason) as records:
        status = change(call, records)
    say_what_remains(call, records)
    return status


def is_at_terminal() -> bool:
    """Whether a person reads warnings; scripts have set odd properties for years."""
    return sys.stderr is not None and sys.stderr.isatty()


def say_what_remains(call: Call, records: Transaction) -> None:
    """Tell a person which event puts into force what was written."""
    if not records.written or not is_at_terminal():
        return
    from smeconf.cli.hint import what_remains

    types = {
        entry.key: record.type
        for entry in records.written
        if (record := records.find(entry.key)) is not None
    }
    hint = what_remains(records.written, call.database.schema, types, call.paths)
    if hint:
        _complain(hint)


def _find_rare(verb: str) -> Callable[[Call], int] | None:
    """Return a verb that brings its own imports."""
    if verb == "help":
        from smeconf.cli.db_help import show_help

        return show_help
    if verb == "batch":
        from smeconf.cli.db_change import batch

        return batch
    if verb in ("history", "rollback"):
        from smeconf.cli import db_history

        return db_history.VERBS[verb]
    if verb in ("export", "import"):
        from smeconf.cli import db_json

        return db_json.VERBS[verb]
    return None


def _keys(call: Call, records: Records) -> int:
    call.take(0, 0, "no words")
    keys = records.keys()
    if call.options.json:
        return _put_json(call, keys, bool(keys))
    call.output += (f"{key}\n" for key in keys)
    return 0 if keys else MISSING


def _print(call: Call, records: Records) -> int:
    def line(key: str, record: Record) -> str:
        return f"{key}={records.find_raw(key)}\n"

    return _each_record(call, records, line)


def _show(call: Call, records: Records) -> int:
    def lines(key: str, record: Record) -> str:
        properties = (f"    {line}" for line in _property_lines(record))
        return f"{key}={record.type}\n" + "".join(properties)

    return _each_record(call, records, lines)


def _printtype(call: Call, records: Records) -> int:
    def line(key: str, record: Record) -> str:
        return f"{key}={record.type}\n"

    return _each_record(call, records, line)


def _each_record(
    call: Call, records: Records, text: Callable[[str, Record], str]
) -> int:
    """Put out the text of the key that is given, or of all."""
    words = call.take(0, 1, "[KEY]")
    found = {
        key: record
        for key in words or records.keys()
        if (record := records.find(key)) is not None
    }
    if call.options.json:
        from smeconf.cli.db_json import as_json

        return _put_json(call, as_json(found), bool(found))
    call.output += (text(key, record) for key, record in found.items())
    return 0 if found else MISSING


def _put_json(call: Call, value: object, is_found: bool) -> int:
    from smeconf.cli.db_json import dump

    call.output.append(dump(value))
    return 0 if is_found else MISSING


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


def usage(program: str) -> str:
    """Return the text of --help, which completion reads, too."""
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
