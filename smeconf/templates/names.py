"""Names: which properties a fragment could read, whatever branch is taken.

Found in the syntax tree, nothing is rendered.  Where the key is only known in the end
(``domains[name].Description``) it is None: any key; a property is ``*`` then.  Names
that templates set themselves are no reads, but one for a record stands for the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import nodes
from jinja2.defaults import DEFAULT_NAMESPACE

from smeconf.templates.records import DATABASES, Read, RecordView

# What every template has, and what calls bring.
_NO_RECORDS = (*DEFAULT_NAMESPACE, "self", "super", "caller", "varargs", "kwargs")
ANY_PROPERTY = "*"
# Filters whose result holds the same items.
_SAME_ITEMS = ("list", "reverse", "sort", "unique")


@dataclass(frozen=True, slots=True)
class Mention:
    """A read that a line of a fragment could make."""

    read: Read
    fragment: str
    line: int


@dataclass(frozen=True, slots=True)
class _Record:
    """A record, or a single value: the tree does not tell.  Key None: any."""

    database: str
    key: str | None


@dataclass(frozen=True, slots=True)
class _Database:
    name: str


@dataclass(frozen=True, slots=True)
class _Items:
    """Pairs of key and record."""

    database: str


_Value = _Record | _Database | _Items | None  # None: a value like any other
_Scope = dict[str, _Value]


class Names:
    """Finds the reads of fragments, in the order in which they make a target.

    ``variables`` are what they see besides the databases.
    """

    def __init__(self, variables: Mapping[str, object]) -> None:
        self._scope: _Scope = dict.fromkeys(_NO_RECORDS)
        for name, value in variables.items():
            self._scope[name] = None
            if isinstance(value, RecordView):
                self._scope[name] = _Record(value.database, None)

    def mentions(self, tree: nodes.Template, path: str) -> list[Mention]:
        """Return the reads of the next fragment, each with its first line."""
        walk = _Walk()
        walk.all(tree.body, self._scope)
        return [Mention(read, path, line) for read, line in walk.found.items()]


class _Walk:
    """One way through a syntax tree; ``found`` holds the first line of each read."""

    def __init__(self) -> None:
        self.found: dict[Read, int] = {}
        self._statements: dict[type, Callable[..., None]] = {
            nodes.Assign: self._assign,
            nodes.AssignBlock: self._assign_block,
            nodes.For: self._for,
            nodes.With: self._with,
            nodes.Macro: self._macro,
            nodes.CallBlock: self._call_block,
            nodes.Import: self._import,
            nodes.FromImport: self._import,
        }
        self._expressions: dict[type, Callable[..., _Value]] = {
            nodes.Name: self._name,
            nodes.Getattr: self._getattr,
            nodes.Getitem: self._getitem,
            nodes.Call: self._call,
            nodes.Filter: self._filter,
        }

    def all(self, body: Sequence[nodes.Node], scope: _Scope) -> None:
        """Go through statements, or anything else that stands in a row."""
        for node in body:
            self._visit(node, scope)

    def _visit(self, node: nodes.Node, scope: _Scope) -> None:
        statement = self._statements.get(type(node))
        if statement is not None:
            statement(node, scope)
        elif isinstance(node, nodes.Expr):
            self._use(node, scope)
        else:
            self.all(list(node.iter_child_nodes()), scope)

    def _note(self, node: nodes.Node, read: Read) -> None:
        self.found.setdefault(read, node.lineno)

    # Statements

    def _assign(self, node: nodes.Assign, scope: _Scope) -> None:
        value = self._evaluate(node.node, scope)
        for name in _targets(node.target):
            scope[name] = None
        if isinstance(node.target, nodes.Name):
            scope[node.target.name] = value

    def _assign_block(self, node: nodes.AssignBlock, scope: _Scope) -> None:
        self.all(node.body, dict(scope))
        if node.filter is not None:
            self._use(node.filter, scope)
        scope.update(dict.fromkeys(_targets(node.target)))

    def _for(self, node: nodes.For, scope: _Scope) -> None:
        iterable = self._evaluate(node.iter, scope)
        inner = {**scope, **dict.fromkeys((*_targets(node.target), "loop"))}
        if isinstance(iterable, _Database):
            self._note(node.iter, (iterable.name, None, None))
        elif isinstance(iterable, _Record):
            self._note(node.iter, (iterable.database, iterable.key, None))
        elif isinstance(iterable, _Items) and isinstance(node.target, nodes.Tuple):
            for name in _targets(node.target.items[-1]):
                inner[name] = _Record(iterable.database, None)
        if node.test is not None:
            self._use(node.test, inner)
        self.all(node.body, inner)
        self.all(node.else_, dict(scope))

    def _with(self, node: nodes.With, scope: _Scope) -> None:
        inner = dict(scope)
        for target, value in zip(node.targets, node.values, strict=True):
            found = self._evaluate(value, scope)
            inner.update(dict.fromkeys(_targets(target), found))
        self.all(node.body, inner)

    def _macro(self, node: nodes.Macro, scope: _Scope) -> None:
        scope[node.name] = None
        self._with_arguments(node, scope)

    def _call_block(self, node: nodes.CallBlock, scope: _Scope) -> None:
        self._use(node.call, scope)
        self._with_arguments(node, scope)

    def _with_arguments(
        self, node: nodes.Macro | nodes.CallBlock, scope: _Scope
    ) -> None:
        self.all(node.defaults, scope)
        inner = {**scope, **dict.fromkeys(one.name for one in node.args)}
        self.all(node.body, inner)

    def _import(self, node: nodes.Import | nodes.FromImport, scope: _Scope) -> None:
        self._use(node.template, scope)
        if isinstance(node, nodes.Import):
            scope[node.target] = None
        else:
            for name in node.names:
                scope[name if isinstance(name, str) else name[1]] = None

    # Expressions

    def _use(self, node: nodes.Node, scope: _Scope) -> None:
        """Evaluate an expression whose value is wanted, not something behind it."""
        value = self._evaluate(node, scope)
        if isinstance(value, _Record) and value.key is not None:
            self._note(node, (value.database, value.key, None))
        elif isinstance(value, _Database):
            self._note(node, (value.name, None, None))

    def _evaluate(self, node: nodes.Node, scope: _Scope) -> _Value:
        expression = self._expressions.get(type(node))
        if expression is not None:
            return expression(node, scope)
        self.all(list(node.iter_child_nodes()), scope)
        return None

    def _name(self, node: nodes.Name, scope: _Scope) -> _Value:
        if node.name in scope:
            return scope[node.name]
        if node.name in DATABASES:
            return _Database(node.name)
        return _Record("configuration", node.name)

    def _getattr(self, node: nodes.Getattr, scope: _Scope) -> _Value:
        value = self._evaluate(node.node, scope)
        if isinstance(value, _Record):
            self._note(node, (value.database, value.key, node.attr))
        elif isinstance(value, _Database):
            self._note(node, (value.name, None, None))
            return _Items(value.name) if node.attr == "items" else None
        return None

    def _getitem(self, node: nodes.Getitem, scope: _Scope) -> _Value:
        value = self._evaluate(node.node, scope)
        word = node.arg.value if isinstance(node.arg, nodes.Const) else None
        self._use(node.arg, scope)
        if isinstance(value, _Database):
            return _Record(value.name, word if isinstance(word, str) else None)
        if isinstance(value, _Record):
            name = word if isinstance(word, str) else ANY_PROPERTY
            self._note(node, (value.database, value.key, name))
        return None

    def _call(self, node: nodes.Call, scope: _Scope) -> _Value:
        called = self._evaluate(node.node, scope)
        children = list(node.iter_child_nodes(exclude=("node",)))
        self.all(children, scope)
        return called if isinstance(called, _Items) else None

    def _filter(self, node: nodes.Filter, scope: _Scope) -> _Value:
        self.all(list(node.iter_child_nodes(exclude=("node",))), scope)
        if node.node is None:
            return None
        value = self._evaluate(node.node, scope)
        if isinstance(value, _Items) and node.name in _SAME_ITEMS:
            return value
        if isinstance(value, _Record) and value.key is not None:
            self._note(node, (value.database, value.key, None))
        elif isinstance(value, _Database):
            self._note(node, (value.name, None, None))
        return None


def _targets(node: nodes.Node) -> Iterator[str]:
    if isinstance(node, nodes.Name):
        yield node.name
    for name in node.find_all(nodes.Name):
        yield name.name
