"""Tracing: which line of a fragment each piece of text comes from, and which reads.

A traced fragment is compiled from a syntax tree with marks in it: before each
statement, and before each piece of text, stands a call that tells the tracer where the
rendering is.  Reads belong to the mark they are made at.  A piece of text is made of
the reads at its own mark, of those of the conditions and loops around it, and of those
that its variables were set from.

Macros, blocks and what is included are one piece, of the line that asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import nodes

from smeconf.templates.records import DatabaseView, Read
from smeconf.templates.sources import LineGatherer, LineSource

_NOTHING: frozenset[Read] = frozenset()


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a fragment.

    ``guards`` are the numbers of the conditions and loops around it, ``uses`` the
    names in its own expression, ``sets`` the variables that get their values here, and
    ``touches`` those that may be changed.  ``loop`` is, of the mark at the beginning of
    a loop's body, the number of the loop.
    """

    line: int
    guards: tuple[int, ...]
    uses: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    touches: frozenset[str] = frozenset()
    loop: int | None = None


class Tracer:
    """Follows the rendering of one target, fragment by fragment."""

    def __init__(self) -> None:
        self._lines = LineGatherer()
        self._variables: dict[str, frozenset[Read]] = {}
        self._path = ""
        self._marks: Sequence[Mark] = ()
        self._here: int | None = None
        self._fresh: set[Read] = set()  # reads since the last mark or piece
        self._totals: dict[int, frozenset[Read]] = {}  # of marks passed, by number
        self._iterables: dict[int, frozenset[Read]] = {}  # of loops, by number

    def begin(self, path: str, marks: Sequence[Mark]) -> None:
        """Start with the next fragment."""
        self._path, self._marks, self._here = path, marks, None
        self._totals, self._iterables = {}, {}
        self._fresh = set()

    def note(self, read: Read) -> None:
        """Take a read of the databases."""
        self._fresh.add(read)

    def resolve(self, read: Read) -> None:
        """Take it that a single value's name was looked up.

        Compiled code looks names up when a fragment or a loop begins: what uses the
        name is what reads it.
        """
        if read[1] is not None:
            self._variables[read[1]] = frozenset({read})

    def enter(self, number: int) -> None:
        """Take it that the rendering has come to a mark."""
        loop = self._marks[number].loop
        if loop is None:
            self._leave()
        else:  # what was read since is the loop's, to find its next item
            self._totals[loop] = self._iterables[loop] | self._fresh
            self._set(self._marks[loop].sets, self._totals[loop])
        self._here = number
        self._fresh = set()

    def iterate(self, number: int, iterable: Any) -> Any:
        """Return what a loop goes through; the reads up to now were to find that."""
        self._leave()
        self._iterables[number] = self._totals[number]
        self._here = None
        if isinstance(iterable, DatabaseView):
            iterable = iterable.keys()  # read now, not when the first one is wanted
            self._iterables[number] |= self._fresh
        self._fresh = set()
        return iterable

    def consider(self) -> bool:
        """Take it that a loop's condition is tried on its next item."""
        self._fresh = set()
        return True

    def take(self, piece: str) -> None:
        """Take the next piece of text."""
        line, reads = 1, frozenset(self._fresh)
        if self._here is not None:
            mark = self._marks[self._here]
            line, reads = mark.line, self._reads_at(mark).union(*self._guards(mark))
        self._lines.add(piece, (self._path, line), reads)
        self._fresh = set()

    def end(self, exported: Iterable[str]) -> None:
        """Take it that the fragment is done: the variables it exported live on."""
        self._leave()
        self._variables = {
            name: self._variables[name] for name in exported if name in self._variables
        }

    def finish(self) -> tuple[LineSource, ...]:
        """Return the source of each line of the target."""
        return self._lines.finish()

    def _leave(self) -> None:
        """Draw the sum of the mark that the rendering was at."""
        if self._here is None:
            return
        mark = self._marks[self._here]
        reads = self._totals[self._here] = self._reads_at(mark)
        if mark.sets or mark.touches:
            guarded = reads.union(*self._guards(mark))
            self._set(mark.sets, guarded)
            for name in mark.touches:
                self._variables[name] = guarded | self._variables.get(name, _NOTHING)

    def _set(self, names: frozenset[str], reads: frozenset[Read]) -> None:
        for name in names:
            self._variables[name] = reads

    def _reads_at(self, mark: Mark) -> frozenset[Read]:
        of_names = (self._variables.get(name, _NOTHING) for name in mark.uses)
        return frozenset(self._fresh).union(*of_names)

    def _guards(self, mark: Mark) -> Iterator[frozenset[Read]]:
        return (self._totals.get(number, _NOTHING) for number in mark.guards)


def add_marks(tree: nodes.Template) -> list[Mark]:
    """Put marks into a syntax tree; return them.

    What is compiled of it calls the ``tracer`` of its environment.
    """
    environment = tree.environment
    assert environment is not None  # the parser gave it one
    marker = _Marker()
    tree.body = marker.mark_all(tree.body, ())
    tree.set_environment(environment)
    return marker.marks


class _Marker:
    def __init__(self) -> None:
        self.marks: list[Mark] = []

    def mark_all(
        self, body: Sequence[nodes.Node], guards: tuple[int, ...]
    ) -> list[nodes.Node]:
        marked: list[nodes.Node] = []
        for node in body:
            if isinstance(node, nodes.Output):
                for line, child in _pieces(node):
                    marked.append(self._mark(Mark(line, guards, _names(child))))
                    marked.append(nodes.Output([child], lineno=line))
            else:
                mark = Mark(node.lineno, guards, *_flow(node))
                marked += (self._mark(mark), node)
                self._mark_inside(node, len(self.marks) - 1, guards)
        return marked

    def _mark_inside(
        self, node: nodes.Node, number: int, guards: tuple[int, ...]
    ) -> None:
        inside = (*guards, number)
        if isinstance(node, nodes.If):
            for branch in (node, *node.elif_):
                branch.body = self.mark_all(branch.body, inside)
            node.else_ = self.mark_all(node.else_, inside)
        elif isinstance(node, nodes.For) and not node.recursive:
            node.iter = _call("iterate", nodes.Const(number), node.iter)
            if node.test is not None:
                node.test = nodes.And(_call("consider"), node.test)
            first = self._mark(Mark(node.lineno, inside, loop=number))
            body = self.mark_all(node.body, inside)
            node.body = [first, *body, self._mark(Mark(node.lineno, inside))]
            node.else_ = self.mark_all(node.else_, inside)
        elif isinstance(
            node, nodes.With | nodes.Scope | nodes.ScopedEvalContextModifier
        ):
            node.body = self.mark_all(node.body, guards)

    def _mark(self, mark: Mark) -> nodes.Node:
        self.marks.append(mark)
        call = _call("enter", nodes.Const(len(self.marks) - 1))
        return nodes.ExprStmt(call, lineno=mark.line)


def _call(method: str, *words: nodes.Node) -> nodes.Call:
    """Return a call of a method of the tracer, which is the environment's."""
    called = nodes.EnvironmentAttribute(f"tracer.{method}")
    return nodes.Call(called, list(words), [], None, None)


def _pieces(output: nodes.Output) -> Iterator[tuple[int, nodes.Expr]]:
    """Yield the parts of an output with their lines, its text line by line."""
    for child in output.nodes:
        if isinstance(child, nodes.TemplateData):
            *ended, rest = child.data.split("\n")
            texts = [f"{text}\n" for text in ended] + ([rest] if rest else [])
            for line, text in enumerate(texts, child.lineno):
                yield line, nodes.TemplateData(text, lineno=line)
        else:
            yield child.lineno, child


def _flow(
    node: nodes.Node,
) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return the names that a statement uses, sets and may change."""
    if isinstance(node, nodes.If):
        tests = frozenset().union(*(_names(one.test) for one in (node, *node.elif_)))
        return tests, frozenset(), _names(node, "store")
    if isinstance(node, nodes.For):
        loop = frozenset() if node.recursive else frozenset({"loop"})
        return _names(node.iter), _names(node.target, "store") | loop, frozenset()
    if isinstance(node, nodes.With):
        targets = frozenset().union(*(_names(one, "param") for one in node.targets))
        return frozenset().union(*map(_names, node.values)), targets, frozenset()
    if isinstance(node, nodes.Assign | nodes.AssignBlock):
        attributes = frozenset(one.name for one in node.find_all(nodes.NSRef))
        return _names(node), _names(node.target, "store"), attributes
    if isinstance(node, nodes.ExprStmt):  # do list.append(…) changes the list
        return _names(node), frozenset(), _names(node)
    return _names(node), frozenset(), frozenset()


def _names(node: nodes.Node, context: str = "load") -> frozenset[str]:
    found = [node] if isinstance(node, nodes.Name) else []
    found += node.find_all(nodes.Name)
    return frozenset(one.name for one in found if one.ctx == context)
