"""A module's code with its small conditionals turned into choices between values, to have fewer paths.

`if c: x = a` forks a run on unknown numbers in two, and twenty in a row make a million paths. Where both ways
do nothing but assign numbers to names, the module is compiled with

    x = a if c holds, otherwise x

as one unknown number instead: the "if-conversion" of compilers. What it is applied to is the source that the
verifier is made of, and what it does not apply to (returns, calls of methods, values that are no numbers)
is left as it is, and forks. It also replaces `min`, `max`, `abs` and `int` by what takes unknown numbers, and
runs a loop over `range(_ROUNDS)` once: what holds after one round from anywhere holds after any number. After
each statement of a round it calls `sym_cut`, where a proof may go on from what it has shown so far.
"""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Callable
from typing import Any, Final

import z3

from tests.verifier.smt.symbolic import Int, Integer, Truth, choose, greatest, least

#: Functions that compute numbers and nothing else: they may run on a way that is not taken.
_PURE: Final = frozenset(
    {"min", "max", "abs", "_up_to", "_down_to", "_round_up", "_round_down", "_truncated", "_absorb"}
)
#: What the converted code calls, which is as pure as its operands.
_HELPERS: Final = frozenset(
    {"sym_both", "sym_either", "sym_not", "sym_choice", "sym_truth", "sym_merge", "sym_unknown"}
)
_UNBOUND: Final = object()
#: After each statement of a round. Put in by the conversion, so that it can be a lemma of its own.
_CUT: Final = (
    "value, mask, umin, umax, smin, smax, low = sym_cut(self, bits, value, mask, umin, umax, smin, smax, low)"
)


def load(module: types.ModuleType, **replaced: Any) -> types.SimpleNamespace:
    """The module's names, from its converted source; `replaced` stands for what it imports."""
    tree = _Converted().visit(ast.parse(inspect.getsource(module)))
    ast.fix_missing_locations(tree)
    name = f"{module.__name__} on unknown numbers"
    space: dict[str, Any] = {
        "__name__": name,
        "sym_either": _either, "sym_both": _both, "sym_not": _not, "sym_merge": _merge, "sym_truth": _truth,
        "sym_unknown": _unknown, "sym_choice": _choice, "sym_unbound": _UNBOUND,
    }  # fmt: skip
    exec(compile(tree, inspect.getsourcefile(module) or name, "exec"), space)
    space |= {"sym_cut": lambda _, __, *parts: parts, "min": least, "max": greatest, "int": Int} | replaced
    return types.SimpleNamespace(**space)


# What the converted code calls.


def _truth(value: Any) -> Any:
    """A condition: unknown, or True or False."""
    if isinstance(value, Integer):
        return value != 0
    return value if isinstance(value, Truth) else bool(value)


def _unknown(value: Any) -> bool:
    return isinstance(value, Truth)


def _not(value: Any) -> Any:
    truth = _truth(value)
    return Truth(z3.Not(truth.expr)) if isinstance(truth, Truth) else not truth


def _both(*operands: Callable[[], Any]) -> Any:
    return _connected(operands, stops=False, connect=z3.And)


def _either(*operands: Callable[[], Any]) -> Any:
    return _connected(operands, stops=True, connect=z3.Or)


def _connected(operands: tuple[Callable[[], Any], ...], stops: bool, connect: Any) -> Any:
    """`and` or `or`: as in Python while operands are known; from the first unknown one, one condition.

    `number or 1`, of nothing but numbers, is a number.
    """
    unknown: list[Any] = []
    value: Any = None
    for operand in operands:
        value = operand()
        if isinstance(value, Integer | Truth) or unknown:
            unknown.append(value)
        elif bool(value) is stops:
            return value
    if not unknown:
        return value
    if len(unknown) == len(operands) == 2 and not any(isinstance(each, bool | Truth) for each in unknown):
        first, second = unknown
        return choose(first != 0, first, second) if stops else choose(first != 0, second, first)
    assert all(isinstance(each, Integer | Truth | int) for each in unknown)
    truths = (_truth(each) for each in unknown)
    return Truth(connect(*[each.expr if isinstance(each, Truth) else z3.BoolVal(each) for each in truths]))


def _merge(condition: Truth, first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_chosen(condition, a, b) for a, b in zip(first, second, strict=True))


def _chosen(condition: Truth, a: Any, b: Any) -> Any:
    if a is b or b is _UNBOUND:
        return a
    if a is _UNBOUND:
        return b
    if _is_number(a) and _is_number(b):
        return choose(condition, a, b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return _merge(condition, a, b)
    return a if condition else b


def _is_number(value: Any) -> bool:
    return isinstance(value, Integer | int) and not isinstance(value, bool)


def _choice(condition: Any, first: Callable[[], Any], second: Callable[[], Any]) -> Any:
    """`first if condition else second`, of numbers."""
    if not isinstance(condition, Truth):
        return first() if condition else second()
    # Each way is computed as if it were taken: what it asks must not limit the other.
    return _chosen(condition, first(), second())


# The conversion.


class _Converted(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        parameters = {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
        merged = {
            name
            for each in ast.walk(node)
            if isinstance(each, ast.If) and _only_assigns(each)
            for name in _assigned(each)
        }
        unbound = sorted(merged - parameters)
        start = [ast.parse(f"{name} = sym_unbound").body[0] for name in unbound]
        at = 1 if ast.get_docstring(node) is not None else 0
        node.body[at:at] = start
        node.body = [each for statement in node.body for each in _converted_statement(statement)]
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        if any(isinstance(each, ast.NamedExpr) for each in ast.walk(node)):
            # It binds a name where the operands are, which a lambda would keep to itself.
            return node
        name = "sym_both" if isinstance(node.op, ast.And) else "sym_either"
        return _call(name, *(_thunk(each) for each in node.values))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return _call("sym_not", node.operand) if isinstance(node.op, ast.Not) else node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) == 1:
            return node
        operands = [node.left, *node.comparators]
        links = [
            ast.Compare(left=left, ops=[op], comparators=[right])
            for left, op, right in zip(operands[:-1], node.ops, operands[1:], strict=True)
        ]
        return _call("sym_both", *(_thunk(each) for each in links))

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        numbers = _pure(node.body) and _pure(node.orelse)
        self.generic_visit(node)
        if not numbers:
            return node
        return _call("sym_choice", _call("sym_truth", node.test), _thunk(node.body), _thunk(node.orelse))

    def visit_For(self, node: ast.For) -> ast.AST | list[ast.stmt]:
        if ast.unparse(node.iter) != "range(_ROUNDS)":
            self.generic_visit(node)
            return node
        last = node.body[-1]
        assert isinstance(last, ast.If)
        assert isinstance(last.body[0], ast.Break)
        node.body.pop()
        self.generic_visit(node)
        return [each for statement in node.body for each in (statement, *ast.parse(_CUT).body)]


def _converted_statement(node: ast.stmt) -> list[ast.stmt]:
    """The statement with the conditionals in it converted, innermost first."""
    for field in ("body", "orelse"):
        inner = getattr(node, field, None)
        if isinstance(inner, list):
            setattr(node, field, [each for statement in inner for each in _converted_statement(statement)])
    if not (isinstance(node, ast.If) and _only_assigns(node)):
        return [node]
    line, names = node.lineno, ", ".join(sorted(_assigned(node))) + ","
    template = ast.parse(
        f"_test{line} = sym_truth(0)\n"
        f"if sym_unknown(_test{line}):\n"
        f"    _before{line} = ({names})\n"
        f"    _first{line} = ({names})\n"
        f"    ({names}) = _before{line}\n"
        f"    ({names}) = sym_merge(_test{line}, _first{line}, ({names}))\n"
        f"elif _test{line}: pass\n"
        "else: pass"
    ).body
    test, chosen = template
    assert isinstance(test, ast.Assign)
    assert isinstance(chosen, ast.If)
    test.value = _call("sym_truth", node.test)
    before, first, back, merge = chosen.body
    chosen.body = [before, *node.body, first, back, *node.orelse, merge]
    known = chosen.orelse[0]
    assert isinstance(known, ast.If)
    known.body, known.orelse = node.body, node.orelse or known.orelse
    return template


def _only_assigns(node: ast.stmt) -> bool:
    """Whether it is made of assignments of numbers to names, and conditionals of such."""
    match node:
        case ast.Assign(targets=[target], value=value):
            elements = target.elts if isinstance(target, ast.Tuple) else [target]
            return all(isinstance(each, ast.Name) for each in elements) and _pure(value)
        case ast.AugAssign(target=ast.Name(), value=value):
            return _pure(value)
        case ast.If(test=test, body=body, orelse=orelse):
            # Converted inner conditionals test for what is unknown: they are made of assignments as well.
            return _pure(test) and all(map(_only_assigns, (*body, *orelse)))
        case ast.Pass():
            return True
    return False


def _pure(node: ast.expr) -> bool:
    calls = (each for each in ast.walk(node) if isinstance(each, ast.Call))
    return all(isinstance(each.func, ast.Name) and each.func.id in _PURE | _HELPERS for each in calls)


def _assigned(node: ast.AST) -> set[str]:
    """The names assigned to, but for those that the conversion has made."""
    return {
        each.id
        for each in ast.walk(node)
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store) and not each.id.startswith("_")
    }


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(func=ast.Name(id=name, ctx=ast.Load()), args=list(arguments), keywords=[])


def _thunk(value: ast.expr) -> ast.Lambda:
    nothing = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    return ast.Lambda(args=nothing, body=value)
