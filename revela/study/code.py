"""The code behind a result: a hash of all modules that run when one is imported and used.

Only the standard library is imported, because the Snakefile asks for hashes while the DAG is parsed.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

from revela.errors import RevelaError
from revela.files import sha256_json

PACKAGE = Path(__file__).resolve().parents[1]


class CodeError(RevelaError):
    """A module that does not exist."""


@functools.cache
def code_hash(module: str) -> str:
    """SHA-256 over the code of a module, for example `revela.training.loop`, and of all that it imports from its package.

    Imports inside functions count. What changes no result does not: comments, layout, docstrings, what an error says
    (the arguments of a `raise`), and imports for type checkers alone (below `if TYPE_CHECKING:`). Raises CodeError if
    there is no such module.
    """
    return sha256_json({name: _module(name)[0] for name in import_closure(module)})


def import_closure(module: str) -> list[str]:
    """The modules of the package that run when `module` is imported and used, itself included, sorted.

    Raises CodeError if there is no such module.
    """
    closure, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in closure:
            closure.add(name)
            waiting += _module(name)[1]
    return sorted(closure)


class _WithoutWords(ast.NodeTransformer):
    """A syntax tree without docstrings, without the words of errors, and without what type checkers alone see."""

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(exc=error, cause=None)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        return super().generic_visit(node)


@functools.cache
def _module(name: str) -> tuple[str, list[str]]:
    """(dump of the syntax tree that counts, modules of the package that it imports) of one module."""
    path = _path(name)
    if path is None:
        raise CodeError(f"{name}: no such module in {PACKAGE}")
    tree = _WithoutWords().visit(ast.parse(path.read_text(encoding="utf-8"), str(path)))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    imported = [package] if package != name else []
    if "." in package:
        imported.append(package.rpartition(".")[0])  # importing a.b.c runs a, a.b and a.b.c
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*parents, *([node.module] if node.module else [])])
            imported += [source, *(f"{source}.{alias.name}" for alias in node.names)]
    return ast.dump(tree), [found for found in imported if _path(found) is not None]


def _path(name: str) -> Path | None:
    """The file of a module of this package; None for any other name."""
    first, *rest = name.split(".")
    if first != PACKAGE.name:
        return None
    base = PACKAGE.joinpath(*rest)
    if (base / "__init__.py").is_file():
        return base / "__init__.py"
    return base.with_suffix(".py") if rest and base.with_suffix(".py").is_file() else None
