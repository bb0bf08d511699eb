"""Expansion: Jinja2, sandboxed and strict, fragment by fragment.

Printing what is undefined is an error; testing it (``if``, ``or``, ``default``) is not.
A value that holds a newline or another control character cannot be printed, unless the
fragment says ``| lines``: a property never becomes a directive of its own.

A variable that a fragment sets at its top is seen by the fragments behind it.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

import jinja2
import jinja2.runtime
import jinja2.sandbox
from jinja2.utils import missing

from smeconf.database.lists import split_list
from smeconf.templates.layers import Fragment, Layers
from smeconf.templates.records import DATABASES, DatabaseView, RecordView, Snapshot


class TemplateError(Exception):
    """A fragment that failed: ``file:line: why``."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """The text of a target, ready to be installed."""

    target: str
    text: str


class Expander:
    """Expands targets on one snapshot of the databases.

    ``event`` is what templates see as ``EVENT``.
    """

    def __init__(self, layers: Layers, snapshot: Snapshot, event: str = "") -> None:
        self._layers = layers
        self._snapshot = snapshot
        self._environment = _Environment(snapshot)
        self._event = event

    def expand(self, target: str) -> Expansion:
        """Return the text of a target.

        Raises TemplateError naming fragment and line, and TargetError where the
        target has no template.
        """
        variables: dict[str, Any] = {"EVENT": self._event}
        text = []
        for fragment in self._layers.fragments(target):
            text.append(self._render(fragment, variables))
        return Expansion(target.strip("/"), "".join(text))

    def _render(self, fragment: Fragment, variables: dict[str, Any]) -> str:
        """Return the text of a fragment; note in ``variables`` what it sets."""
        template = self._compile(fragment)
        self._snapshot.last_read = ""
        try:
            module = template.make_module(variables)
        except Exception as error:
            line = _line_of(error, template)
            read = self._snapshot.last_read
            why = _why(error) + (f" (last read: {read})" if read else "")
            raise TemplateError(f"{fragment.path}:{line}: {why}") from error
        for name, value in vars(module).items():
            if not name.startswith("_"):
                variables[name] = value
        return str(module)

    def _compile(self, fragment: Fragment) -> jinja2.Template:
        try:
            with open(fragment.path, encoding="utf-8") as file:
                source = file.read()
            code = self._environment.compile(source, fragment.name, fragment.path)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"{fragment.path}:{error.lineno}: {error.message}"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateError(f"{fragment.path}:1: {error}") from error
        return jinja2.Template.from_code(
            self._environment, code, self._environment.make_globals(None)
        )


class _Missing(jinja2.StrictUndefined):
    """Undefined: may be tested, not used."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]  # strict refuses that too
        return False


class _Verbatim(str):
    """A text that a fragment lets through with its line ends."""


class _UnsafeValue(ValueError):
    """A value with a control character in it."""


class _Context(jinja2.runtime.Context):
    """Looks names up in the databases, behind a template's own variables."""

    def resolve_or_missing(self, key: str) -> Any:
        found = super().resolve_or_missing(key)
        if found is not missing:
            return found
        assert isinstance(self.environment, _Environment)
        snapshot = self.environment.snapshot
        if key in DATABASES:
            return DatabaseView(snapshot, key)
        record = snapshot.find("configuration", key)
        return missing if record is None else record


class _Environment(jinja2.sandbox.SandboxedEnvironment):
    context_class = _Context

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(
            undefined=_Missing,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            finalize=_finalize,
            extensions=["jinja2.ext.do"],
        )
        self.snapshot = snapshot
        self.filters["entries"] = split_list
        self.filters["lines"] = _Verbatim
        self.filters["prefixes"] = _network_prefixes

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, RecordView):
            return self._property(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, RecordView) and isinstance(argument, str):
            return self._property(obj, argument)
        if isinstance(obj, DatabaseView) and isinstance(argument, str):
            try:
                return obj[argument]
            except KeyError:
                return self.undefined(hint=obj.describe_missing(argument))
        return super().getitem(obj, argument)

    def _property(self, record: RecordView, name: str) -> Any:
        value = record.find(name)
        if value is None:
            return self.undefined(hint=record.describe_missing(name))
        return value


def _finalize(value: Any) -> Any:
    """Let a value through into the output, or raise _UnsafeValue."""
    if isinstance(value, RecordView):
        raise _UnsafeValue(f"{value.key} is a record: name one of its properties")
    if isinstance(value, str) and not isinstance(value, _Verbatim):
        for character in value:
            if character != "\t" and (character < " " or "\x7f" <= character <= "\x9f"):
                shown = value if len(value) < 60 else value[:60] + "…"
                raise _UnsafeValue(
                    f"the value {shown!r} holds a control character, "
                    f"which would become a line of its own"
                )
    return value


def _network_prefixes(key: str, mask: str) -> list[str]:
    """The lines of ``relayclients`` that cover a network: prefixes of whole octets,
    as qpsmtpd reads them."""
    network = ipaddress.ip_network(f"{key}/{mask}", strict=False)
    if network.version == 6:
        return [str(network)]
    octets = -(-network.prefixlen // 8)
    if octets in (0, 4):
        return [str(one) for one in network] if octets else ["0.0.0.0/0"]
    subnets = network.subnets(new_prefix=octets * 8)
    return [".".join(str(one).split(".")[:octets]) + "." for one in subnets]


def _line_of(error: BaseException, template: jinja2.Template) -> int:
    """Return the line of a fragment in which an error arose."""
    line = 1
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == template.filename:
            line = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return line


def _why(error: BaseException) -> str:
    if isinstance(error, jinja2.UndefinedError | ValueError):
        return str(error)
    return f"{type(error).__name__}: {error}"
