"""Public functions say what they take and give; examples in docstrings run."""

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest
from retrievers import trained

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "revela").rglob("*.py"))
ARRAYS = ("Tensor", "ndarray")
# A letter, a name, 1 or .. for a dimension, or a product of them: [B, L], [1, streams * T, hidden], [.., d]
SHAPE = re.compile(r"\[(?:(?:[\w' *-]*[A-Za-z1][\w' *-]*|\.{2,3})(?:, |(?=\])))+\]")
METHOD = [*(ROOT / "revela" / f"{name}.py" for name in ("method/similarity", "method/inbatch", "text/batching", "text/pairs")),
          *(path for path in sorted((ROOT / "revela/objectives").glob("*.py")) if path.name != "tokens.py")]  # fmt: skip
SOURCE = re.compile(r"(?:sections? \d(?:\.\d)?|App\. [A-C](?:\.\d)?|eq\. \d)(?!\d)")


def classes():
    """All classes of the package."""
    for path in MODULES:
        yield from (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef))


def of_interface():
    """method -> what interfaces say of it: a class of `Protocol`, or `Objective`, documents it for all."""
    said = {}
    for node in classes():
        if node.name == "Objective" or any(ast.unparse(base) == "Protocol" for base in node.bases):
            for method in (one for one in node.body if isinstance(one, ast.FunctionDef)):
                said[method.name] = f"{ast.get_docstring(method) or ''} {ast.get_docstring(node)}"
    return said


def public(path):
    """(qualified name, node, docstring of its class or interface) of public classes, functions and methods."""
    tree, interface = ast.parse(path.read_text()), INTERFACE
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name, node, ""
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    said = interface.get(method.name, "")
                    yield f"{node.name}.{method.name}", method, f"{ast.get_docstring(node) or ''} {said}"


INTERFACE = of_interface()


def is_property_or_short(node):
    """What its name and types say completely: a body of one statement, such as a property that returns a field."""
    body = [statement for statement in node.body if not isinstance(statement, ast.Expr)]
    return len(body) <= 1 and node.end_lineno - node.lineno <= 6


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_public_methods_have_docstrings(path):
    """Or their interface has them. The linter asks for those of modules, classes and functions."""
    bare = [
        name
        for name, node, _ in public(path)
        if "." in name
        and not ast.get_docstring(node)
        and name.rpartition(".")[2] not in INTERFACE
        and not (isinstance(node, ast.FunctionDef) and is_property_or_short(node))
    ]
    assert not bare, f"{path}: no docstring: {', '.join(bare)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_functions_of_arrays_give_shapes(path):
    """A shape is written [B, L], a scalar is called one, and each array that is taken is named, here or "as for" there."""
    silent = []
    for name, node, of_class in public(path):
        if not isinstance(node, ast.FunctionDef):
            continue
        arguments = [a for a in node.args.args + node.args.kwonlyargs if a.annotation and is_array(a.annotation)]
        said = (ast.get_docstring(node) or "") + of_class
        if (arguments or node.returns and is_array(node.returns)) and not (SHAPE.search(said) or "scalar" in said):
            silent.append(name)
        if "as for `" in said or "are those of `" in said:
            continue
        silent += [f"{name}({one.arg})" for one in arguments if not re.search(rf"\b{one.arg}\b", said, re.IGNORECASE)]
    assert not silent, f"{path}: no shapes: {', '.join(silent)}"


def is_array(annotation):
    return any(array in ast.unparse(annotation) for array in ARRAYS)


ERRORS = {node.name for node in classes() if node.name.endswith("Error")}


def raised(node, helpers):
    """Names of the project's errors that a function raises, itself or by functions of its module that are not public."""
    found, waiting, seen = set(), [node], set()
    while waiting:
        for one in ast.walk(waiting.pop()):
            if isinstance(one, ast.Raise) and one.exc is not None:
                error = one.exc.func if isinstance(one.exc, ast.Call) else one.exc
                found |= {ast.unparse(error)} & ERRORS
            if isinstance(one, ast.Call) and (name := ast.unparse(one.func)) in helpers and name not in seen:
                seen.add(name)
                waiting.append(helpers[name])
    return found


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if not path.name.startswith("cli")],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_errors_are_documented(path):
    """By the name of the error, in the docstring of the function, or of the class or interface that it belongs to.

    A command's docstring is its help, and its errors end in a line on the terminal.
    """
    body = ast.parse(path.read_text()).body
    helpers = {node.name: node for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("_")}
    silent = []
    for name, node, of_class in public(path):
        if isinstance(node, ast.FunctionDef):
            said = (ast.get_docstring(node) or "") + of_class
            silent += [f"{name}: {error}" for error in raised(node, helpers) if error not in said]
    assert not silent, f"{path}: not documented: {', '.join(silent)}"


@pytest.mark.parametrize("path", METHOD, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_method_says_where_the_paper_has_it(path):
    """The module gives a section or an equation; so does the interface of objectives by what implements it."""
    assert SOURCE.search(ast.get_docstring(ast.parse(path.read_text()))), f"{path}: no section or equation of the paper"


EXAMPLES = [path for path in MODULES if re.search(r"^ *>>> ", path.read_text(), re.MULTILINE)]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples_run(path, request, tmp_path, monkeypatch):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    if path.name == "__init__.py" and path.parent.name == "revela":  # its example loads a retriever
        trained(request.getfixturevalue("backbone"), tmp_path / "my-retriever/retriever")
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert tried and not failed
