"""Text and benchmarks made of Python packages that are installed on this machine.

The demo needs real text on a machine without access to a hub. The project's constraints pin the distributions, so the
corpus is the same everywhere; its hash is checked. Functions and their docstrings give the benchmarks, which are written
in the layouts of CoIR, BEIR and BRIGHT.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import textwrap
from collections import defaultdict
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from revela.errors import RevelaError
from revela.text.layouts import RetrievalTask, name_hash, pairs, write_tasks

# Files that differ between builds of one version, or that hold no text of interest.
_SKIPPED = re.compile(
    r"(^|/)(tests?|testing|_?vendor|_vendored|externals?|third_party)/"
    r"|(^|/)(_?_?version(_?_?|_info)|__config__|test_\w+|conftest)\.py$"
)
_LICENCE = re.compile(r"\A(\s*#[^\n]*\n)+\s*")  # the opening comment of a file, the same in hundreds of them
_DECORATOR = re.compile(r"(?: {4})?@\w")  # lines that begin a function, class or method
_DEFINITION = re.compile(r"(?: {4})?(?:async def|def|class) ")
_SECTION = re.compile(r"\n\s*(\S[^\n]*)\n\s*[-=~]{3,}[^\n]*\n")  # a numpydoc heading


class EmbeddedError(RevelaError):
    """A package is missing or holds no text. The message is one line."""


@dataclass(frozen=True)
class Function:
    """A documented function or method: where it stands, what it says, and its source without the docstring."""

    package: str
    name: str  # dotted name within the package, for example sklearn.cluster._dbscan.DBSCAN.fit
    docstring: str
    code: str

    @property
    def summary(self) -> str:
        """The docstring's first paragraph, on one line."""
        return " ".join(self.docstring.split("\n\n")[0].split())

    @property
    def description(self) -> str:
        """The docstring without its first paragraph and its See Also section."""
        return _without_see_also(self.docstring).partition("\n\n")[2].strip()


def python_files(distribution: str) -> list[tuple[str, str]]:
    """(path, text) of an installed distribution's own Python files, sorted by path.

    Tests, vendored packages and files that are generated while a wheel is built are left out, so the result depends on
    the version alone. Raises EmbeddedError if there is no such distribution, or no text.
    """
    try:
        files = metadata.distribution(distribution).files or []
    except metadata.PackageNotFoundError:
        raise EmbeddedError(
            f"{distribution} is not installed; run `make setup`, or `pip install 'revela[paper]'`"
        ) from None
    found = {}
    for file in files:
        path = file.as_posix()
        if path.endswith(".py") and not path.startswith("..") and not _SKIPPED.search(path):
            try:
                found[path] = Path(file.locate()).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # a fixture in another encoding, never prose
    if not any(text.strip() for text in found.values()):
        raise EmbeddedError(f"{distribution}: no Python files with text")
    return sorted(found.items())


def functions(distribution: str) -> list[Function]:
    """Documented functions and methods of a distribution, in the order of its files."""
    result = []
    for path, text in python_files(distribution):
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue  # a template, not a module
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        result.extend(functions_in(tree, text.splitlines(), distribution, module))
    return result


def functions_in(node: ast.AST, lines: list[str], package: str, prefix: str) -> list[Function]:
    """Documented functions, methods and classes below a node of a file's syntax tree, in their order."""
    result = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{prefix}.{child.name}"
            docstring = ast.get_docstring(child)
            if docstring and not isinstance(child, ast.ClassDef):
                first, last = child.body[0].lineno, child.body[0].end_lineno
                code = lines[child.lineno - 1 : first - 1] + lines[last : child.end_lineno]
                result.append(Function(package, name, docstring, textwrap.dedent("\n".join(code))))
            elif docstring:  # a class stands for its constructor's documentation, without its methods' code
                result.append(Function(package, name, docstring, ""))
            result.extend(functions_in(child, lines, package, name))
    return result


def write_dataset(distributions: list[str], content: str, folder: Path) -> dict:
    """Write `train.parquet` (document, package, text) and return its facts.

    Args:
        distributions: Names of installed distributions.
        content: ``source``: a file after its opening comment is cut into documents, one for each function, method and
            class head, and one for the lines before them. ``docstrings``: the docstrings of a file, each with its name,
            form one document.
        folder: An existing folder.

    Returns:
        ``sha256`` over all rows, and the version, number of documents and hash of each package. Rows are ordered by the
        hashes of their names, so that neighbours are as unrelated as neighbouring articles of Wikipedia.
    """
    rows, packages = [], {}
    total = hashlib.sha256()
    for distribution in distributions:
        digest, documents = hashlib.sha256(), 0
        for path, text in python_files(distribution):
            parts = _definitions(_LICENCE.sub("", text)) if content == "source" else [_docstrings(text)]
            for number, part in enumerate(parts):
                if part.strip():
                    rows.append(
                        {"document": f"{distribution}/{path}:{number:04d}", "package": distribution, "text": part}
                    )
                    digest.update(f"{path}\0{part}\0".encode())
                    documents += 1
        packages[distribution] = {
            "version": metadata.version(distribution),
            "documents": documents,
            "sha256": digest.hexdigest(),
        }
        total.update(digest.digest())
    rows.sort(key=lambda row: name_hash(row["document"]))
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    return {"sha256": total.hexdigest(), "packages": packages}


def _definitions(text: str) -> list[str]:
    """A file, cut before each of its functions, classes and methods (before their decorators)."""
    parts, part, decorated = [], [], False
    for line in text.splitlines(keepends=True):
        begins = _DEFINITION.match(line) is not None
        if (begins or _DECORATOR.match(line)) and not decorated:
            parts.append("".join(part))
            part = []
            decorated = True
        decorated = decorated and not begins
        part.append(line)
    return [*parts, "".join(part)]


def _docstrings(text: str) -> str:
    """A module's docstrings, each after the name it documents."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return ""
    found = [ast.get_docstring(tree) or ""]
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            docstring = ast.get_docstring(node)
            if docstring:
                found.append(f"{node.name}. {docstring}")
    return "\n\n".join(filter(None, found))


def write_benchmark(layout: str, distributions: list[str], folder: Path, *, queries: int, documents: int) -> dict:
    """Write a benchmark of installed functions in the layout of CoIR, BEIR or BRIGHT, and return its facts.

    coir
        Two tasks over all distributions. ``docstring-code``: a docstring's summary finds the function's source without
        docstring. ``code-docstring``: the source finds the docstring.
    beir
        A task for each distribution: a docstring's summary finds the rest of the docstring.
    bright
        A task for each distribution: a docstring's summary finds the functions that its authors name in the See Also
        section. The documentation of the function itself is excluded.

    Args:
        layout: ``coir``, ``beir`` or ``bright``.
        distributions: Names of installed distributions.
        folder: An existing folder.
        queries: Queries of a task at most, chosen by the hash of their names.
        documents: Documents of a task at most. Relevant ones always stay.

    Returns:
        ``sha256`` over all tasks, and the counts of each task.

    Raises:
        EmbeddedError: The layout is unknown, or the distributions have no documented functions.
    """
    found = {name: functions(name) for name in distributions}
    everything = [function for name in distributions for function in found[name]]
    if layout == "coir":
        tasks = {"docstring-code": _summary_to_code(everything), "code-docstring": _code_to_docstring(everything)}
    elif layout == "beir":
        tasks = {name: _summary_to_description(found[name]) for name in distributions}
    elif layout == "bright":
        tasks = {name: _see_also(found[name]) for name in distributions}
    else:
        raise EmbeddedError(f"{layout!r} is not a benchmark layout; valid: coir, beir, bright")
    for name, task in tasks.items():
        if not task.queries:
            raise EmbeddedError(f"{layout} {name}: no documented functions in {', '.join(distributions)}")
    return write_tasks(layout, tasks, folder, queries=queries, documents=documents)


def _usable(function: Function) -> bool:
    """A summary that says something: a sentence of 4 to 30 words, not a template."""
    return 4 <= len(function.summary.split()) <= 30 and "%(" not in function.docstring


def _summary_to_code(found: list[Function]) -> RetrievalTask:
    return pairs([(f.name, f.summary, f.code) for f in found if _usable(f) and 5 <= len(f.code.split("\n")) <= 60])


def _code_to_docstring(found: list[Function]) -> RetrievalTask:
    return pairs([(f.name, f.code, f.docstring) for f in found if _usable(f) and 5 <= len(f.code.split("\n")) <= 60])


def _summary_to_description(found: list[Function]) -> RetrievalTask:
    described = [f for f in found if _usable(f) and len(f.description.split()) >= 20]
    return pairs([(f.name, f.summary, f.description) for f in described])


def _see_also(found: list[Function]) -> RetrievalTask:
    usable = [f for f in found if _usable(f)]
    by_last_name = defaultdict(set)
    for function in usable:
        by_last_name[function.name.rsplit(".", 1)[-1]].add(function.name)
    documents, queries, relevant, excluded = {}, {}, {}, {}
    for function in usable:
        text = _without_see_also(function.docstring)
        documents[function.name] = text
        named = {
            target
            for mention in _see_also_names(function.docstring)
            for target in by_last_name.get(mention.rsplit(".", 1)[-1], ())
            if len(by_last_name[mention.rsplit(".", 1)[-1]]) == 1 and target != function.name
        }
        if named:
            queries[function.name] = function.summary
            relevant[function.name] = sorted(named)
            excluded[function.name] = [function.name]
    return RetrievalTask(documents, queries, relevant, excluded)


def _see_also_section(docstring: str) -> tuple[int, int, int] | None:
    """(start of the heading, start of the body, end of the body) of a numpydoc See Also section."""
    headings = list(_SECTION.finditer(docstring))
    for heading, following in pairwise([*headings, None]):
        if heading[1].strip().lower() == "see also":
            return heading.start(), heading.end(), following.start() if following else len(docstring)
    return None


def _see_also_names(docstring: str) -> list[str]:
    section = _see_also_section(docstring)
    if not section:
        return []
    body = inspect.cleandoc(docstring[section[1] : section[2]])
    names = []
    for line in body.splitlines():
        if line and not line[0].isspace():
            names.extend(re.findall(r"[A-Za-z_][\w.]*", re.sub(r":\w+:", "", line.split(" : ")[0])))
    return names


def _without_see_also(docstring: str) -> str:
    section = _see_also_section(docstring)
    return docstring if not section else docstring[: section[0]] + "\n" + docstring[section[2] :]
