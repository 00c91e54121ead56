"""The mistakes that people make in a normalization, made in any source: what `mutate` plants in a reader's own layer.

Each is a change of the syntax tree in one place inside a function: another axis, m − 1 for m, ε out of the root, a
sign, a factor or a term less, momentum the wrong way round, an array that is not copied, a mode that is ignored. Not
every change is a mistake: adding zero may be dropped without harm.
"""

from __future__ import annotations

import ast
import copy
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

SKIPPED = re.compile(r"#\s*pragma:\s*no mutate\b")  # the comment of mutmut, a mutation tester for any Python
REDUCTIONS = ("mean", "sum", "var", "std")
EXCHANGED = {"sum": "mean", "mean": "sum"}
COPIES = ("copy", "clone", "deepcopy", "array")
SIGNS = {ast.Add: ast.Sub, ast.Sub: ast.Add}
BORDERS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
SHAPES = ("range", "reshape", "arange", "zeros", "ones", "empty", "full", "swapaxes", "transpose", "view", "permute")
MODULES = ("np", "numpy", "torch", "math", "jnp", "copy")
GRADIENT = re.compile(r"^(grad|d_?(gamma|beta|w|b|x|y|weight|bias|out))", re.I)
EPS, MOMENTUM = re.compile(r"eps", re.I), re.compile(r"momentum|^alpha$|^decay$", re.I)
COUNT = re.compile(r"^(m|n|N|M|B|count|n_?values|batch_size|num_values)$")
ARRAY = re.compile(r"^(x|g|dy|d_?out|y|inputs?|grad\w*|upstream|batch|images)$")
X_HAT = re.compile(r"^(x_?hat|x_?norm\w*|normalized)$", re.I)

Found = tuple[str, "ast.AST | list[ast.stmt]", str]
"""What is wrong, what stands in the node's place, and which check would see it."""


class Mistake(NamedTuple):
    """One mistake: `was` became `became` in this line; `hint` says which check sees such a one."""

    line: int
    words: str
    was: str
    became: str
    hint: str
    tree: ast.Module
    """The whole file with the mistake in it."""


# --- which check sees it ---------------------------------------------------------------------------------------------

REFERENCE = "compare every result with an independent reference, on random arrays, parameters and upstream gradient"
AXES = "use axes of different lengths, and images as well as tables"
FEW = "use few values for each channel, where m and m − 1 are far apart"
QUIET = "use values whose variance is near ε, a spread of 0.003 where ε is 1e-5"
MODE = "call it in both modes, each with another batch"
OPERANDS = (
    (re.compile(r"gamma|weight|scale", re.I), "use a γ that is not 1"),
    (re.compile(r"beta|bias|shift", re.I), "use a β that is not 0"),
    (re.compile(r"running|moving|ema", re.I), "start from running statistics that are not 0 and 1"),
    (MOMENTUM, "use a momentum far from a half"),
    (EPS, QUIET),
)


def _sees(node: ast.AST) -> str:
    """The check that sees that this operand is missing or wrong."""
    names = [name for part in ast.walk(node) if (name := _name(part)) and not GRADIENT.match(name)]
    found = [hint for pattern, hint in OPERANDS if any(pattern.search(name) for name in names)]
    return found[0] if found else REFERENCE


# --- reading the tree ------------------------------------------------------------------------------------------------


def _name(node: ast.AST | None) -> str:
    """The name of a variable or attribute, without what it is of."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _is(value: object) -> Callable[[ast.AST], bool]:
    return lambda node: isinstance(node, ast.Constant) and node.value == value and type(node.value) is type(value)


def _called(node: ast.AST) -> str:
    return _name(node.func) if isinstance(node, ast.Call) else ""


def _of_module(call: ast.Call) -> bool:
    """np.mean(x), not x.mean()."""
    return isinstance(call.func, ast.Attribute) and _name(call.func.value) in MODULES


def _text(node: ast.AST) -> str:
    """One line of source: of a compound statement its first."""
    return ast.unparse(ast.fix_missing_locations(node)).partition("\n")[0]


class _Reader(ast.NodeVisitor):
    """Walks the functions that are no tests, and collects (node, its statement, words, replacement, hint)."""

    def __init__(self) -> None:
        self.found: list[tuple[ast.AST, ast.stmt, str, object, str]] = []
        self.way: list[ast.AST] = []
        self.functions: list[ast.FunctionDef] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name.startswith("test_"):
            return
        self.functions.append(node)
        for statement in node.body:
            self.visit(statement)
        self.functions.pop()

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assert | ast.JoinedStr | ast.AnnAssign):
            return
        self.way.append(node)
        if self.functions and not isinstance(node, ast.FunctionDef):
            for operator in OPERATORS:
                for found in operator(node, self):
                    statement = next(part for part in reversed(self.way) if isinstance(part, ast.stmt))
                    self.found.append((node, statement, *found))
        if not isinstance(node, ast.Raise):
            super().visit(node)
        self.way.pop()

    def in_shape(self) -> bool:
        """Whether this is arithmetic with axes, indices or shapes."""
        for outer, inner in zip(self.way, self.way[1:], strict=False):
            if isinstance(outer, ast.Subscript) and inner is outer.slice:
                return True
            if isinstance(outer, ast.BinOp) and any(
                isinstance(s, ast.Tuple | ast.List) for s in (outer.left, outer.right)
            ):
                return True
            if isinstance(outer, ast.Call) and _called(outer) in (*SHAPES, *REDUCTIONS) and inner is not outer.func:
                first = outer.args[0] if outer.args and _of_module(outer) else None
                if _called(outer) in SHAPES or inner is not first:
                    return True
        return False

    def parent(self) -> ast.AST:
        return self.way[-2]

    def names(self) -> list[str]:
        return [part.id for part in ast.walk(self.functions[-1]) if isinstance(part, ast.Name)]

    def parameters(self) -> list[str]:
        arguments = self.functions[-1].args
        return [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]


# --- the mistakes ----------------------------------------------------------------------------------------------------


def _reductions(node: ast.AST, reader: _Reader) -> Iterator[Found]:
    if _called(node) not in REDUCTIONS or not isinstance(node.func, ast.Attribute):
        return
    kind, at = node.func.attr, int(_of_module(node))
    keyword = next((k for k in node.keywords if k.arg in ("axis", "dim")), None)
    axis = keyword.value if keyword else node.args[at] if len(node.args) > at else None

    def with_axis(value: ast.expr | None) -> ast.Call:
        changed = copy.deepcopy(node)
        if keyword:
            changed.keywords[node.keywords.index(keyword)].value = value or ast.Constant(None)
        else:
            changed.args[at] = value or ast.Constant(None)
        return changed

    if axis is not None and not _is(None)(axis):
        other = 1 if _is(0)(axis) else 0
        words = "over the other axis" if other else "over the first axis alone"
        yield f"{kind} {words}", with_axis(ast.Constant(other)), AXES
        yield f"{kind} over everything", with_axis(None), AXES
    if kind in ("var", "std"):
        yield from _unbiased(node, kind)
    if kind == "mean" and (centred := _squared(node.args[0] if at else node.func.value)):
        given = [k for k in node.keywords if k.arg in ("axis", "dim", "keepdims", "keepdim")]
        unbiased = [
            *given,
            ast.keyword("correction" if any(k.arg == "dim" for k in given) else "ddof", ast.Constant(1)),
        ]
        call = ast.Call(ast.Attribute(centred, "var", ast.Load()), node.args[at:], unbiased)
        yield "mean square over m − 1", call, FEW
    if kind in EXCHANGED:
        changed = copy.deepcopy(node)
        changed.func.attr = EXCHANGED[kind]
        yield f"{changed.func.attr} for {kind}", changed, REFERENCE


def _squared(node: ast.AST) -> ast.AST | None:
    """What is squared here, c of c**2 or c * c."""
    if not isinstance(node, ast.BinOp):
        return None
    square = isinstance(node.op, ast.Pow) and _is(2)(node.right)
    return node.left if square or (isinstance(node.op, ast.Mult) and _same(node.left, node.right)) else None


def _same(a: ast.AST, b: ast.AST) -> bool:
    return ast.dump(a) == ast.dump(b)


def _unbiased(node: ast.Call, kind: str) -> Iterator[Found]:
    """m − 1 for m, or the other way round; PyTorch divides by m − 1 unless it is told."""
    changed = copy.deepcopy(node)
    given = next((k for k in changed.keywords if k.arg in ("ddof", "correction", "unbiased")), None)
    if given is None:
        torch = any(k.arg == "dim" for k in node.keywords)
        changed.keywords.append(ast.keyword("correction" if torch else "ddof", ast.Constant(0 if torch else 1)))
        yield f"{kind} over {'m' if torch else 'm − 1'}", changed, FEW
    elif isinstance(given.value, ast.Constant):
        before = bool(given.value.value)
        given.value = ast.Constant(not before if given.arg == "unbiased" else int(not before))
        yield f"{kind} over {'m' if before else 'm − 1'}", changed, FEW


def _epsilon(node: ast.AST, reader: _Reader) -> Iterator[Found]:
    """ε missing, and ε outside the root."""
    if _is_eps_sum(node):
        rest, eps = (node.left, node.right) if EPS.search(_name(node.right)) else (node.right, node.left)
        yield "ε is missing", rest, QUIET
        outer = reader.parent()
        if _called(outer) == "sqrt" and outer.args == [node]:
            return  # the root itself is asked below
    if _called(node) == "sqrt" and len(node.args) == 1 and _is_eps_sum(node.args[0]):
        inner = node.args[0]
        rest, eps = (inner.left, inner.right) if EPS.search(_name(inner.right)) else (inner.right, inner.left)
        yield "ε outside the root", ast.BinOp(ast.Call(node.func, [rest], []), ast.Add(), eps), QUIET
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and _is_eps_sum(node.left):
        if ast.unparse(node.right) in ("0.5", "-0.5", "1 / 2", "-1 / 2"):
            inner = node.left
            rest, eps = (inner.left, inner.right) if EPS.search(_name(inner.right)) else (inner.right, inner.left)
            root = ast.BinOp(ast.BinOp(rest, ast.Pow(), ast.Constant(0.5)), ast.Add(), eps)
            negative = isinstance(node.right, ast.UnaryOp) or ast.unparse(node.right).startswith("-")
            power = ast.UnaryOp(ast.USub(), ast.Constant(1)) if negative else ast.Constant(1)
            yield "ε outside the root", ast.BinOp(root, ast.Pow(), power), QUIET


def _is_eps_sum(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Add)
        and any(EPS.search(_name(side)) for side in (node.left, node.right))
    )


def _arithmetic(node: ast.AST, reader: _Reader) -> Iterator[Found]:
    """A sign, a term, a factor, a divisor, a square."""
    if not isinstance(node, ast.BinOp) or reader.in_shape() or _is_eps_sum(node):
        return
    left, right, op = node.left, node.right, type(node.op)
    if _is_sequence(node):
        return
    if op is ast.Sub and _is(1)(right):
        hint = FEW if COUNT.match(_name(left)) else _sees(left)
        yield f"{_short(left)} for {_short(node)}", left, hint
    elif op in SIGNS:
        sign = "− for +" if op is ast.Add else "+ for −"
        yield f"{sign} before {_short(right)}", ast.BinOp(left, SIGNS[op](), right), _sees(right)
        yield f"{_short(right)} is not {'added' if op is ast.Add else 'subtracted'}", left, _sees(right)
        if op is ast.Add:
            yield f"{_short(left)} is not added", right, _sees(left)
    elif op is ast.Mult:
        yield f"the factor {_short(right)} is missing", left, _sees(right)
        yield f"the factor {_short(left)} is missing", right, _sees(left)
    elif op is ast.Div:
        yield f"not divided by {_short(right)}", left, _sees(right)
        if COUNT.match(_name(right)) or _called(right) == "len" or ".shape[" in ast.unparse(right):
            yield "m − 1 for m", ast.BinOp(left, ast.Div(), ast.BinOp(right, ast.Sub(), ast.Constant(1))), FEW
    elif op is ast.Pow and _is(2)(right):
        yield "not squared", left, REFERENCE


def _is_sequence(node: ast.BinOp) -> bool:
    """Whether tuples, lists or words are put together, which is no arithmetic."""
    return any(
        isinstance(side, ast.Tuple | ast.List) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )


def _short(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 24 else f"{text[:22].rstrip()}…"


def _roots_and_signs(node: ast.AST, reader: _Reader) -> Iterator[Found]:
    if _called(node) == "sqrt" and len(node.args) == 1:
        yield "the root is missing", node.args[0], REFERENCE
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not reader.in_shape():
        if not isinstance(node.operand, ast.Constant):
            yield "the sign is missing", node.operand, REFERENCE


def _momentum(node: ast.AST, reader: _Reader) -> Iterator[Found]:
    """The other way round: in a whole statement at once."""
    if not isinstance(node, ast.Assign | ast.AugAssign | ast.Return | ast.Expr):
        return
    weighs = [
        part
        for part in ast.walk(node)
        if isinstance(part, ast.BinOp) and any(MOMENTUM.search(_name(side)) for side in (part.left, part.right))
    ]
    if weighs:
        yield "momentum the other way round", _Reversed().visit(copy.deepcopy(node)), "use a momentum far from a half"


class _Reversed(ast.NodeTransformer):
    def generic_visit(self, node: ast.AST) -> ast.AST:
        if MOMENTUM.search(_name(node)) and isinstance(getattr(node, "ctx", None), ast.Load):
            return ast.BinOp(ast.Constant(1), ast.Sub(), node)
        return super().generic_visit(node)


def _names(node: ast.AST, reader: _Reader) -> Iterator[Found]:
    """x or y where x̂ is meant."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and X_HAT.match(node.id):
        known = reader.names() + reader.parameters()
        other = next((name for name in ("y", "out", "xc", "x") if name in known), None)
        if other and not isinstance(reader.parent(), ast.Return | ast.Tuple):
            yield f"{other} for {node.id}", ast.Name(other, ast.Load()), "use a γ that is not 1 and a β that is not 0"


def _memory(node: ast.AST, reader: _Reader) -> Iterator[Found]:
    """Not copied; copied where the array itself is meant; written into what was given."""
    if _called(node) in COPIES and isinstance(node.func, ast.Attribute):
        inner = node.args[0] if _of_module(node) and node.args else node.func.value
        if _called(node) != "array" or isinstance(inner, ast.Name | ast.Attribute):
            hint = "change the array, or go on training, and look whether the copy moved"
            yield "not copied", inner, hint
    if not isinstance(node, ast.Assign) or len(node.targets) != 1:
        return
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Subscript) and (_is(...)(target.slice) or ast.unparse(target.slice) == ":"):
        owner = copy.deepcopy(target.value)
        if isinstance(owner, ast.Name | ast.Attribute):
            owner.ctx = ast.Store()
            hint = "keep a reference to the array and look whether it changes with the layer"
            yield "a new array instead of the old one", ast.Assign([owner], value), hint
    if isinstance(value, ast.BinOp) and type(value.op) in (ast.Add, ast.Sub, ast.Mult, ast.Div):
        left = value.left
        if isinstance(left, ast.Name) and left.id in reader.parameters() and ARRAY.match(left.id):
            into = ast.AugAssign(ast.Name(left.id, ast.Store()), value.op, value.right)
            changed = [into, ast.Assign(node.targets, ast.Name(left.id, ast.Load()))]
            yield f"{left.id} is changed in place", changed, "keep a copy of the input and compare after the call"


def _conditions(node: ast.AST, reader: _Reader) -> Iterator[Found]:
    """A mode that is ignored, an error that is not raised, a border that is off by one."""
    if isinstance(node, ast.If | ast.IfExp):
        raises = isinstance(node, ast.If) and len(node.body) == 1 and isinstance(node.body[0], ast.Raise)
        for value in (False,) if raises else (True, False):
            changed = copy.copy(node)
            changed.test = ast.Constant(value)
            words = "nothing is refused" if raises else f"{'always' if value else 'never'} as if {_short(node.test)}"
            yield words, changed, "call it with what it should refuse" if raises else MODE
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in BORDERS:
        changed = copy.copy(node)
        changed.ops = [BORDERS[type(node.ops[0])]()]
        yield "the border is off by one", changed, "try the value on the border itself"


def _statements(node: ast.AST, reader: _Reader) -> Iterator[Found]:
    """Something is never done; two results are exchanged."""
    hint = "look at the whole state, after two steps rather than one"
    if reader.functions[-1].name != "__init__":
        place = node.targets[0] if isinstance(node, ast.Assign) else None
        call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        if isinstance(node, ast.AugAssign) or isinstance(place, ast.Attribute | ast.Subscript) or call:
            yield "never done", ast.Pass(), hint
    if isinstance(node, ast.AugAssign) and type(node.op) in SIGNS:
        other = ast.AugAssign(node.target, SIGNS[type(node.op)](), node.value)
        yield "−= for +=" if isinstance(node.op, ast.Add) else "+= for −=", other, hint
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) > 1:
        *first, a, b = node.value.elts
        if not any(isinstance(part, ast.Starred | ast.Tuple) for part in (a, b)):
            yield "the last two results exchanged", ast.Return(ast.Tuple([*first, b, a], ast.Load())), REFERENCE


OPERATORS = (
    _reductions,
    _epsilon,
    _arithmetic,
    _roots_and_signs,
    _momentum,
    _names,
    _memory,
    _conditions,
    _statements,
)


# --- all of a file ---------------------------------------------------------------------------------------------------


class _Replaced(ast.NodeTransformer):
    def __init__(self, node: ast.AST, by: object) -> None:
        self.node, self.by = node, by

    def visit(self, node: ast.AST) -> object:
        return self.by if node is self.node else super().generic_visit(node)


def source(path: Path) -> str:
    """The text of a file of Python, in the encoding that it names."""
    with tokenize.open(path) as file:
        return file.read()


def mistakes(source: str) -> list[Mistake]:
    """All mistakes in a source, in the order of its lines. A line that ends in `# pragma: no mutate` has none.

    Raises:
        SyntaxError: it is not Python.
    """
    tree, lines = ast.parse(source), source.splitlines()
    reader = _Reader()
    reader.visit(tree)
    found: dict[tuple[int, str], Mistake] = {}
    for node, statement, words, by, hint in reader.found:
        line = getattr(node, "lineno", statement.lineno)
        if any(SKIPPED.search(lines[n - 1]) for n in range(statement.lineno, _last_line(statement) + 1)):
            continue
        changed = _with(tree, node, by)
        was, became = _text(statement), _text_with(statement, node, by)
        if was != became:
            found.setdefault((statement.lineno, became), Mistake(line, words, was, became, hint, changed))
    return sorted(found.values(), key=lambda mistake: mistake.line)


def _last_line(statement: ast.stmt) -> int:
    """Of a compound statement, the last line of its head."""
    body = getattr(statement, "body", None)
    return max(statement.lineno, body[0].lineno - 1) if body else statement.end_lineno


def _with(tree: ast.AST, node: ast.AST, by: object) -> ast.AST:
    """A copy of the tree in which `by` stands for `node`."""
    memo: dict = {}
    copied = copy.deepcopy(tree, memo)
    place = memo[id(node)]
    new = copy.deepcopy(by)
    for part in new if isinstance(new, list) else [new]:
        ast.copy_location(part, node)
    return ast.fix_missing_locations(_Replaced(place, new).visit(copied))


def _text_with(statement: ast.stmt, node: ast.AST, by: object) -> str:
    if node is statement:
        return "; ".join(_text(ast.copy_location(part, node)) for part in (by if isinstance(by, list) else [by]))
    return _text(_with(statement, node, by))
