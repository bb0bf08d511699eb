"""Expansion: Jinja2, sandboxed and strict, fragment by fragment.

Printing what is undefined is an error; testing it (``if``, ``or``, ``default``) is not.
A value that holds a newline or another control character cannot be printed, unless the
fragment says ``| lines``: a property never becomes a directive of its own.

A variable that a fragment sets at its top is seen by the fragments behind it.
Compiled fragments are kept from one run to the next, see cache.py.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

import jinja2
import jinja2.runtime
import jinja2.sandbox
from jinja2.utils import missing

from smeconf.database.lists import split_list
from smeconf.templates.cache import Cache
from smeconf.templates.layers import Fragment, Layers
from smeconf.templates.records import DATABASES, DatabaseView, RecordView, Snapshot
from smeconf.templates.sources import LineSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from smeconf.templates.names import Mention
    from smeconf.templates.trace import Tracer


class TemplateError(Exception):
    """A fragment that failed: ``file:line: why``."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """The text of a target, ready to be installed.

    ``lines`` say what made each line, where the expander traces: one for each newline
    in the text, and one for what stands behind the last.
    """

    target: str
    text: str
    lines: tuple[LineSource, ...] = ()


class Expander:
    """Expands targets on one snapshot of the databases.

    ``event`` is what templates see as ``EVENT``; ``cache`` holds compiled fragments,
    and gets those that are compiled; ``trace``: expansions say what made each line.
    """

    def __init__(
        self,
        layers: Layers,
        snapshot: Snapshot,
        event: str = "",
        cache: Cache | None = None,
        *,
        trace: bool = False,
    ) -> None:
        self._layers = layers
        self._snapshot = snapshot
        self._environment = _Environment(snapshot)
        self._event = event
        self._cache = cache
        self._trace = trace
        # The same fragments make several targets; within a run each is read once.
        self._templates: dict[Fragment, jinja2.Template] = {}

    def expand(
        self, target: str, variables: Mapping[str, Any] | None = None
    ) -> Expansion:
        """Return the text of a target.

        ``variables`` are more names that its fragments see.  Raises TemplateError
        naming fragment and line, and TargetError where the target has no template.
        """
        names: dict[str, Any] = {"EVENT": self._event, **(variables or {})}
        fragments = self._layers.fragments(target)
        if self._trace:
            return self._expand_traced(target, fragments, names)
        text = []
        for fragment in fragments:
            text += self._render(fragment, self._template(fragment), names)
        return Expansion(target.strip("/"), "".join(text))

    def mentions(
        self, target: str, variables: Mapping[str, Any] | None = None
    ) -> list[Mention]:
        """Return every read that the fragments of a target name, in any branch.

        Raises as :meth:`expand` does, but for what only rendering can find.
        """
        from smeconf.templates.names import Names

        names = Names({"EVENT": self._event, **(variables or {})})
        found = []
        for fragment in self._layers.fragments(target):
            tree = self._parse(fragment, _source_of(fragment))
            found += names.mentions(tree, fragment.path)
        return found

    def _expand_traced(
        self, target: str, fragments: list[Fragment], names: dict[str, Any]
    ) -> Expansion:
        from smeconf.templates.trace import Tracer, add_marks

        tracer = self._environment.tracer = Tracer()
        self._snapshot.on_read = tracer.note
        text = []
        try:
            for fragment in fragments:
                tree = self._parse(fragment, _source_of(fragment))
                marks = add_marks(tree)
                tracer.begin(fragment.path, marks)
                template = self._load(self._generate(fragment, tree))
                text += self._render(fragment, template, names)
        finally:
            self._environment.tracer = None
            self._snapshot.on_read = None
        return Expansion(target.strip("/"), "".join(text), tracer.finish())

    def _render(
        self, fragment: Fragment, template: jinja2.Template, names: dict[str, Any]
    ) -> list[str]:
        """Return the text of a fragment in pieces; add to ``names`` what it sets."""
        self._snapshot.last_read = ""
        tracer = self._environment.tracer
        try:
            context = template.new_context(names)
            if tracer is None:
                pieces = list(template.root_render_func(context))
            else:
                pieces = []
                for piece in template.root_render_func(context):
                    tracer.take(piece)
                    pieces.append(piece)
        except Exception as error:
            line = _line_of(error, template)
            read = self._snapshot.last_read
            why = _why(error) + (f" (last read: {read})" if read else "")
            raise TemplateError(f"{fragment.path}:{line}: {why}") from error
        exported = context.get_exported()
        if tracer is not None:
            tracer.end(exported)
        names.update(exported)
        return pieces

    def _template(self, fragment: Fragment) -> jinja2.Template:
        """Return a compiled fragment, from the cache where it has it."""
        template = self._templates.get(fragment)
        if template is None:
            source = _source_of(fragment)
            code = None
            if self._cache is not None:
                code = self._cache.find(fragment.name, fragment.path, source)
            if code is None:
                code = self._generate(fragment, self._parse(fragment, source))
                if self._cache is not None:
                    self._cache.add(fragment.name, fragment.path, source, code)
            template = self._templates[fragment] = self._load(code)
        return template

    def _parse(self, fragment: Fragment, source: str) -> jinja2.nodes.Template:
        try:
            return self._environment.parse(source, fragment.name, fragment.path)
        except jinja2.TemplateSyntaxError as error:
            raise _syntax_error(fragment, error) from error

    def _generate(self, fragment: Fragment, tree: jinja2.nodes.Template) -> CodeType:
        try:
            return self._environment.compile(tree, fragment.name, fragment.path)
        except jinja2.TemplateSyntaxError as error:
            raise _syntax_error(fragment, error) from error

    def _load(self, code: CodeType) -> jinja2.Template:
        environment = self._environment
        return jinja2.Template.from_code(environment, code, environment.globals)


def _source_of(fragment: Fragment) -> str:
    try:
        with open(fragment.path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"{fragment.path}:1: {error}") from error


def _syntax_error(
    fragment: Fragment, error: jinja2.TemplateSyntaxError
) -> TemplateError:
    return TemplateError(f"{fragment.path}:{error.lineno}: {error.message}")


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
        tracer = self.environment.tracer
        if tracer is not None:
            snapshot.on_read = tracer.resolve
        record = snapshot.find("configuration", key)
        if tracer is not None:
            snapshot.on_read = tracer.note
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
        )
        self.snapshot = snapshot
        self.tracer: Tracer | None = None
        self.filters["entries"] = split_list
        self.filters["lines"] = _Verbatim
        self.filters["prefixes"] = _network_prefixes

    def parse(
        self, source: str, name: str | None = None, filename: str | None = None
    ) -> jinja2.nodes.Template:
        if not self.extensions:  # an import that compiled code does without
            self.add_extension("jinja2.ext.do")
        return super().parse(source, name, filename)

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
                # Not the value itself: it may be a secret.
                raise _UnsafeValue(
                    f"the value holds a control character, {character!r}, "
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
