"""The faults to plant in a module: one small change of its syntax tree each.

Made for code whose work is to notice that something is wrong: besides the usual exchanges of operators and numbers,
every statement that only has an effect is left out, every condition is taken for true and for false, every operand of
``and`` and ``or``, every keyword argument and every kind of error that is caught is left out. Sentences are left alone:
the words of a message are the author's.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

_BOUNDARY: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_EXACT = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_CALLED = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list", "reversed": "list"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_NESTED = ("body", "orelse", "finalbody", "handlers", "cases")
_NOT_RUN = ("annotation", "returns", "decorator_list", "type_params", "bases", "keywords")
_DECLARATIONS = frozenset({"TypeVar", "NewType", "getLogger"})
_Statement = ast.stmt | ast.ExceptHandler | ast.match_case
_LABELS = frozenset({"daemon", "name", "strict", "thread_name_prefix"})
"""Keyword arguments that are left alone: they only name a thread, or let zip raise an alarm about the code itself."""

N = TypeVar("N", bound=ast.AST)


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One planted fault. ``scope``, ``before``, ``after`` and ``nth`` name it whatever line it stands in.

    ``before`` and ``after`` are the statement without what is nested in it; ``nth`` counts changes of one scope that
    read the same. ``lines`` are those of the statement, ``function`` is the outermost function that it is in (name and
    first line, decorators included); ``None`` when the change takes effect as the module is imported.
    """

    position: int
    scope: str
    before: str
    after: str
    nth: int
    lines: range
    function: tuple[str, int] | None


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a node hangs in the tree, and what surrounds it."""

    owner: ast.AST
    field: str
    index: int | None
    statement: _Statement
    scope: tuple[str, ...] = ()
    function: tuple[str, int] | None = None
    raising: bool = False

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.owner, self.field, node)
        else:
            getattr(self.owner, self.field)[self.index] = node


@dataclass(frozen=True)
class _Edit:
    place: _Place
    old: ast.AST
    new: ast.AST


def mutants_of(source: str) -> list[Mutant]:
    """Every fault that is planted in a module, in a fixed order."""
    tree = ast.parse(source)
    found = []
    seen: Counter[tuple[str, str, str]] = Counter()
    for position, edit in enumerate(_edits(tree)):
        statement = edit.place.statement
        before = _shown(statement)
        if edit.old is statement:
            after = _shown(edit.new)
        else:
            edit.place.put(edit.new)
            after = _shown(statement)
            edit.place.put(edit.old)
        scope = ".".join(edit.place.scope)
        seen[scope, before, after] += 1
        found.append(
            Mutant(
                position=position,
                scope=scope,
                before=before,
                after=after,
                nth=seen[scope, before, after],
                lines=_own_lines(statement),
                function=edit.place.function,
            )
        )
    return found


def mutated(source: str, position: int) -> ast.Module:
    """The tree of a module with the fault at that position of ``mutants_of`` in it."""
    tree = ast.parse(source)
    for number, edit in enumerate(_edits(tree)):
        if number == position:
            edit.place.put(ast.copy_location(edit.new, edit.old))
            return ast.fix_missing_locations(tree)
    raise IndexError(f"there is no mutant {position}")


def _shown(node: ast.AST) -> str:
    bare = copy.copy(node)
    for field in _NESTED:
        if isinstance(getattr(bare, field, None), list):
            setattr(bare, field, [])
    return ast.unparse(bare).strip()


def _own_lines(node: _Statement) -> range:
    if isinstance(node, ast.match_case):
        return range(node.pattern.lineno, node.body[0].lineno)
    inner = [child.lineno for field in _NESTED for child in getattr(node, field, []) if hasattr(child, "lineno")]
    # The body may begin on the line of its head.
    stop = min(inner) if inner else (node.end_lineno or node.lineno) + 1
    return range(node.lineno, max(stop, node.lineno + 1))


def _edits(tree: ast.Module) -> Iterator[_Edit]:
    for index, statement in enumerate(tree.body):
        yield from _visit(statement, _Place(owner=tree, field="body", index=index, statement=statement))


def _visit(node: ast.AST, place: _Place) -> Iterator[_Edit]:
    if _left_alone(node, place):
        return
    if isinstance(node, (ast.stmt, ast.ExceptHandler, ast.match_case)):
        place = replace(place, statement=node)
    for new in _changes(node, place):
        yield _Edit(place, node, new)
    below = place
    if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
        below = replace(below, scope=(*place.scope, node.name))
    if isinstance(node, ast.Raise):
        below = replace(below, raising=True)
    for field, value in ast.iter_fields(node):
        if field in _NOT_RUN and not isinstance(node, ast.Call):
            continue
        inside = below
        if isinstance(node, _FUNCTIONS) and field == "body" and place.function is None:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            inside = replace(below, function=(".".join(below.scope), first))
        if isinstance(value, ast.AST):
            yield from _visit(value, replace(inside, owner=node, field=field, index=None))
        elif isinstance(value, list):
            for index, child in enumerate(value):
                if isinstance(child, ast.AST):
                    yield from _visit(child, replace(inside, owner=node, field=field, index=index))


def _left_alone(node: ast.AST, place: _Place) -> bool:
    match node:
        case (
            ast.Import() | ast.ImportFrom() | ast.Global() | ast.Nonlocal() | ast.FormattedValue(format_spec=ast.AST())
        ):
            return True
        case ast.Expr(value=ast.Constant()):  # a docstring, or the dots of a protocol
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.ClassDef(bases=bases):
            return any("Protocol" in ast.unparse(base) for base in bases)
        case ast.Call(func=ast.Name(id=name)):
            return name in _DECLARATIONS
        case ast.Subscript(value=ast.Name(id="Literal")):
            return True
        case ast.keyword(arg=label):
            return label in _LABELS
        case ast.Constant() if _is_type_of_cast(place):
            return True
        case ast.JoinedStr(values=values):
            return place.raising or any(isinstance(value, ast.Constant) and " " in str(value.value) for value in values)
        case ast.BinOp(op=ast.Mod() | ast.Add(), left=left, right=right):
            return any(isinstance(side, (ast.JoinedStr, ast.Constant)) and _is_sentence(side) for side in (left, right))
    return False


def _is_type_of_cast(place: _Place) -> bool:
    match place.owner:
        case ast.Call(func=ast.Name(id="cast")):
            return (place.field, place.index) == ("args", 0)
    return False


def _is_sentence(node: ast.AST) -> bool:
    values = node.values if isinstance(node, ast.JoinedStr) else [node]
    return any(isinstance(v, ast.Constant) and isinstance(v.value, str) and " " in v.value for v in values)


def _changes(node: ast.AST, place: _Place) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=ops):
            # Whoever notices both that a whole condition is true and that it is false notices its opposite.
            whole = place.field == "test"
            for index, op in enumerate(ops):
                if not (whole and isinstance(op, _EXACT)):
                    yield _with(node, "ops", index, _BOUNDARY[type(op)]())
        case ast.BoolOp(values=values):
            for index in range(len(values)):
                rest = values[:index] + values[index + 1 :]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(op=node.op, values=rest)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            if place.field != "test":
                yield operand
        case ast.BinOp(op=binary):
            yield ast.BinOp(left=node.left, op=_ARITHMETIC[type(binary)](), right=node.right)
        case ast.AugAssign(op=binary):
            yield ast.AugAssign(target=node.target, op=_ARITHMETIC[type(binary)](), value=node.value)
        case ast.Constant(value=value):
            yield from _other_values(value)
        case ast.Slice(lower=lower, upper=upper):
            if lower is not None:
                yield ast.Slice(lower=None, upper=upper, step=node.step)
            if upper is not None:
                yield ast.Slice(lower=lower, upper=None, step=node.step)
        case ast.Call():
            yield from _other_calls(node)
        case ast.Dict(keys=keys, values=values):
            for index in range(len(keys)):
                yield ast.Dict(
                    keys=keys[:index] + keys[index + 1 :],
                    values=values[:index] + values[index + 1 :],
                )
        case ast.comprehension(ifs=ifs):
            for index in range(len(ifs)):
                yield ast.comprehension(
                    target=node.target, iter=node.iter, ifs=ifs[:index] + ifs[index + 1 :], is_async=node.is_async
                )
        case ast.ExceptHandler(type=ast.Tuple(elts=elts)):
            for index in range(len(elts)):
                rest = elts[:index] + elts[index + 1 :]
                yield _with(node, "type", None, ast.Tuple(elts=rest, ctx=ast.Load()))
        case ast.ExceptHandler(type=ast.AST()):
            yield _with(node, "type", None, ast.Tuple(elts=[], ctx=ast.Load()))
        case ast.If() | ast.IfExp():
            yield _with(node, "test", None, ast.Constant(value=True))
            yield _with(node, "test", None, ast.Constant(value=False))
        case ast.While(test=test):
            if not isinstance(test, ast.Constant):
                yield _with(node, "test", None, ast.Constant(value=False))
        case ast.Return(value=ast.AST() as value):
            if not isinstance(value, ast.Constant):
                yield ast.Return(value=ast.Constant(value=None))
    if isinstance(node, ast.stmt) and _is_effect(node) and not _alone_under_a_condition(node, place):
        yield ast.Pass()
    if isinstance(node, ast.Continue):
        yield ast.Break()
    if isinstance(node, ast.Break):
        yield ast.Continue()


def _is_effect(node: ast.stmt) -> bool:
    """Whether the statement can be left out without a name missing later."""
    match node:
        case ast.Expr() | ast.Raise() | ast.AugAssign() | ast.Delete() | ast.Continue() | ast.Break():
            return True
        case ast.Return(value=None):
            return True
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            return True
        case ast.AnnAssign(target=ast.Attribute() | ast.Subscript(), value=ast.AST()):
            return True
    return False


def _alone_under_a_condition(node: ast.stmt, place: _Place) -> bool:
    """Whether leaving the statement out is the same as taking the condition above it for false."""
    owner = place.owner
    return isinstance(owner, ast.If) and place.field == "body" and owner.body == [node] and not owner.orelse


def _other_values(value: object) -> Iterator[ast.expr]:
    if isinstance(value, bool):
        yield ast.Constant(value=not value)
    elif isinstance(value, (int, float)):
        yield ast.Constant(value=value + 1)
    elif isinstance(value, str) and " " not in value.strip():
        yield ast.Constant(value=f"XX{value}")
    elif isinstance(value, bytes):
        yield ast.Constant(value=b"XX" + value)


def _other_calls(node: ast.Call) -> Iterator[ast.expr]:
    if isinstance(node.func, ast.Name) and node.func.id in _CALLED:
        yield ast.Call(
            func=ast.Name(id=_CALLED[node.func.id], ctx=ast.Load()),
            args=node.args,
            keywords=[] if _CALLED[node.func.id] == "list" else node.keywords,
        )
    for index, keyword in enumerate(node.keywords):
        if keyword.arg is not None and keyword.arg not in _LABELS:
            yield _with(node, "keywords", None, node.keywords[:index] + node.keywords[index + 1 :])


def _with(node: N, field: str, index: int | None, value: ast.AST | Sequence[ast.AST]) -> N:
    """A copy of the node with another value in a field."""
    changed = copy.copy(node)
    if index is None:
        setattr(changed, field, value)
    else:
        values = list(getattr(node, field))
        values[index] = value
        setattr(changed, field, values)
    return changed
