"""Text and benchmarks made of Python packages that are installed on this machine.

The demo needs real text on a machine without access to a hub. The project's constraints pin the distributions, so the
corpus is the same everywhere; its hash is checked. Functions and their docstrings give the benchmarks, which are written
in the layouts of CoIR, BEIR and BRIGHT.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
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
        raise EmbeddedError(f"{distribution} is not installed; run `make setup`") from None
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
        result.extend(_functions_in(tree, text.splitlines(), distribution, module))
    return result


def _functions_in(node: ast.AST, lines: list[str], package: str, prefix: str) -> list[Function]:
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
            result.extend(_functions_in(child, lines, package, name))
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
    rows.sort(key=lambda row: _hash(row["document"]))
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
    total, counts = hashlib.sha256(), {}
    for name, task in tasks.items():
        task = task.sample(queries, documents)
        if not task.queries:
            raise EmbeddedError(f"{layout} {name}: no documented functions in {', '.join(distributions)}")
        _WRITERS[layout](task, name, folder)
        total.update(json.dumps([name, task.documents, task.queries, task.relevant, task.excluded]).encode())
        counts[name] = {"documents": len(task.documents), "queries": len(task.queries)}
    return {"sha256": total.hexdigest(), "tasks": counts}


@dataclass(frozen=True)
class _Task:
    documents: dict[str, str]  # id -> text
    queries: dict[str, str]
    relevant: dict[str, list[str]]
    excluded: dict[str, list[str]]

    def sample(self, queries: int, documents: int) -> _Task:
        chosen = sorted(sorted(self.queries, key=_hash)[:queries])
        kept = {document for query in chosen for document in self.relevant[query] + self.excluded[query]}
        others = sorted((document for document in self.documents if document not in kept), key=_hash)
        kept.update(others[: max(0, documents - len(kept))])
        return _Task(
            {name: self.documents[name] for name in sorted(kept)},
            {name: self.queries[name] for name in chosen},
            {name: self.relevant[name] for name in chosen},
            {name: self.excluded[name] for name in chosen},
        )


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _pairs(pairs: list[tuple[str, str, str]]) -> _Task:
    """A task of (name, query, document) in which no two queries and no two documents are the same."""
    queries, documents = {}, {}
    for name, query, document in pairs:
        if query not in queries and document not in documents:
            queries[query], documents[document] = name, name
    by_name = {name: query for query, name in queries.items()}
    return _Task(
        {name: document for document, name in documents.items()},
        by_name,
        {name: [name] for name in by_name},
        {name: [] for name in by_name},
    )


def _usable(function: Function) -> bool:
    """A summary that says something: a sentence of 4 to 30 words, not a template."""
    return 4 <= len(function.summary.split()) <= 30 and "%(" not in function.docstring


def _summary_to_code(found: list[Function]) -> _Task:
    return _pairs([(f.name, f.summary, f.code) for f in found if _usable(f) and 5 <= len(f.code.split("\n")) <= 60])


def _code_to_docstring(found: list[Function]) -> _Task:
    return _pairs([(f.name, f.code, f.docstring) for f in found if _usable(f) and 5 <= len(f.code.split("\n")) <= 60])


def _summary_to_description(found: list[Function]) -> _Task:
    described = [f for f in found if _usable(f) and len(f.description.split()) >= 20]
    return _pairs([(f.name, f.summary, f.description) for f in described])


def _see_also(found: list[Function]) -> _Task:
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
    return _Task(documents, queries, relevant, excluded)


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


def _write_coir(task: _Task, name: str, folder: Path) -> None:
    document_ids = {key: f"d{i}" for i, key in enumerate(task.documents)}
    query_ids = {key: f"q{i}" for i, key in enumerate(task.queries)}
    qrels = [
        {"query_id": query_ids[query], "corpus_id": document_ids[document], "score": 1}
        for query in task.queries
        for document in task.relevant[query]
    ]
    for relative, rows in {
        f"{name}-queries-corpus/data/corpus-00000-of-00001.parquet": _coir_rows(document_ids, task.documents),
        f"{name}-queries-corpus/data/queries-00000-of-00001.parquet": _coir_rows(query_ids, task.queries),
        f"{name}-qrels/data/test-00000-of-00001.parquet": qrels,
    }.items():
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / relative)


def _coir_rows(ids: dict[str, str], texts: dict[str, str]) -> list[dict[str, str]]:
    return [{"_id": ids[key], "partition": "test", "text": text, "title": ""} for key, text in texts.items()]


def _write_beir(task: _Task, name: str, folder: Path) -> None:
    (folder / name / "qrels").mkdir(parents=True)
    corpus = [{"_id": key, "title": "", "text": text} for key, text in task.documents.items()]
    queries = [{"_id": f"query/{key}", "text": text} for key, text in task.queries.items()]
    for file, rows in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        (folder / name / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    qrels = [f"query/{query}\t{document}\t1\n" for query in task.queries for document in task.relevant[query]]
    (folder / name / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(qrels))


def _write_bright(task: _Task, name: str, folder: Path) -> None:
    documents = [{"id": key, "content": text} for key, text in task.documents.items()]
    examples = [
        {
            "id": key,
            "query": text,
            "excluded_ids": task.excluded[key] or ["N/A"],
            "gold_ids": task.relevant[key],
        }
        for key, text in task.queries.items()
    ]
    for config, rows in (("documents", documents), ("examples", examples)):
        (folder / config).mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / config / f"{name}-00000-of-00001.parquet")


_WRITERS = {"coir": _write_coir, "beir": _write_beir, "bright": _write_bright}
