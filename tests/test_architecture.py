"""The house keeps its shape: imports point down the chain, jobs get what their hash covers, and each thing has one owner."""

import ast
import re
from pathlib import Path

import pytest

from revela.study.code import _module, _WithoutWords, import_closure
from revela.study.methods import METHODS
from revela.study.system import Api, Bm25, Encoder, Trained, Untrained

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "revela").rglob("*.py"))
RULES = sorted((ROOT / "workflow/rules").glob("*.smk"))
SCRIPTS = sorted((ROOT / "workflow/scripts").glob("*.py"))

# From the ground up: a module imports from its own layer and from those below. docs/architecture.md draws it.
FLOORS = (
    ("errors", "files", "hardware", "lookahead", "order", "provenance", "root"),
    ("study",),
    ("workflow", "plan"),
    ("text", "pretrained"),
    ("method",),
    ("retriever",),
    ("objectives",),
    ("training",),
    ("evaluation",),
    ("grouping",),
    ("paper",),
    ("export", "tiny"),
    ("command",),
)
FLOOR = {wing: number for number, wings in enumerate(FLOORS) for wing in wings}


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def wing_of(module):
    return module.split(".")[1]


IMPORTS = {name_of(path): set(_module(name_of(path))[1]) for path in MODULES}


def test_every_part_has_a_layer():
    assert {wing_of(name) for name in IMPORTS if "." in name} - {"__main__"} == FLOOR.keys()


def test_imports_point_down():
    wrong = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if "." in name and "." in other and name != "revela.__main__" and FLOOR[wing_of(other)] > FLOOR[wing_of(name)]
    ]
    assert wrong == []


def test_no_circles():
    """A package stands in the closure of its modules, and imports none of them."""
    for name, others in IMPORTS.items():
        for other in others - {name}:
            assert name not in import_closure(other) or other in name, f"{name} and {other} import each other"


@pytest.mark.parametrize("path", [path for path in MODULES if path.name == "__init__.py"], ids=name_of)
def test_a_package_imports_none_of_its_modules(path):
    assert not {other for other in IMPORTS[name_of(path)] if other.startswith(f"{name_of(path)}.")}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_long(path):
    assert len(path.read_text().splitlines()) <= 400


# --- jobs


def test_no_script_loads_the_study():
    """A script is given its specification; it could use nothing that Snakemake does not know of."""
    for path in SCRIPTS:
        text = path.read_text()
        assert "revela.study.study" not in text and "snakemake.config" not in text, path


def rules():
    """(rule, its script, the modules that it hashes)."""
    systems = {system.module for system in (Bm25, Trained, Untrained, Encoder, Api)}
    for path in RULES:
        for block in re.split(r"^ *(?=rule )", path.read_text(), flags=re.MULTILINE)[1:]:
            script = re.search(r'"\.\./scripts/(\w+)\.py"', block)
            if not script:
                continue
            hashed = set(re.findall(r'"(revela(?:\.\w+)+)"', block))
            hashed |= systems if ".module, " in block else set()
            hashed |= {method.module for method in METHODS.values()} if "needs.module" in block else set()
            yield block.split()[1].rstrip(":"), script[1], hashed


def test_a_script_is_given_what_it_reads():
    """Every `snakemake.params.NAME` of a script is a param of the rules that run it."""
    for path in RULES:
        for block in re.split(r"^ *(?=rule )", path.read_text(), flags=re.MULTILINE)[1:]:
            if script := re.search(r'"\.\./scripts/(\w+)\.py"', block):
                text = (ROOT / f"workflow/scripts/{script[1]}.py").read_text()
                read = set(re.findall(r"snakemake\.params\.(\w+)", text))
                params = re.search(
                    r"^    params:\n((?:^ {8}.*\n)*)|^        params:\n((?:^ {12}.*\n)*)", block, re.MULTILINE
                )
                given = set(re.findall(r"^ +(\w+)=", params[0], re.MULTILINE)) if params else set()
                assert read <= given, f"{path.name}: {block.split()[1]} lacks {read - given}"


# What a script may use without a hash: it carries a job out, or says how it went.
CARRIES_OUT = (
    "revela.study",
    "revela.errors",
    "revela.files",
    "revela.provenance",
    "revela.plan.usage",
    "revela.plan.available",
)
CARRIES_OUT += ("revela.text.bars", "revela.text.resources")  # shows progress; puts what was made into a folder
# What is fetched is verified by its manifest, which names the commit; a plan and a verdict are made anew each time.
WITHOUT_HASH = {"smoke", "smoke_test", "package", "dataset", "model", "check", "anchors", "plan"}
# How tiny's own language models were made; the result is in resources/backbones.
WITHOUT_HASH |= {"tokenizer", "backbone"}


@pytest.mark.parametrize(
    "rule, script, hashed", list(rules()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_rule_hashes_what_its_script_runs(rule, script, hashed):
    tree = ast.parse((ROOT / f"workflow/scripts/{script}.py").read_text())
    imported = {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module.startswith("revela")
    }
    covered = {module for one in hashed for module in import_closure(one)}
    if rule in WITHOUT_HASH:
        return
    assert hashed, f"rule {rule} hashes no code"
    free = {name for name in imported if name.startswith(CARRIES_OUT)}
    # systems.py chooses by the type of system, and the type's module is hashed
    assert imported - covered - free <= {"revela.evaluation.systems"}, (
        f"rule {rule}: {script}.py uses code without a hash"
    )


def test_paths_of_results_have_one_owner():
    """Rules ask the layout, and so does the package."""
    for path in [*RULES, ROOT / "Snakefile", ROOT / "workflow/Snakefile"]:
        if path.name != "targets.smk":  # which explains what was typed
            assert "LAYOUT.root}" not in path.read_text(), path
    spelled = re.compile(r"[\"'/](?:resources/(?:datasets|models)|corpora|scores|runs|exports|checkpoints|usage)/")
    for path in MODULES:
        if path.name != "layout.py":
            code = ast.unparse(_WithoutWords().visit(ast.parse(path.read_text())))
            found = [line for line in code.splitlines() if spelled.search(line)]
            assert not found, f"{path}: {found[0].strip()}"


def test_every_rule_says_what_it_does():
    for path in RULES:
        for block in re.split(r"^ *(?=rule )", path.read_text(), flags=re.MULTILINE)[1:]:
            if "output:" in block and " with:" not in block:
                assert "message:" in block, f"{path.name}: {block.split()[1]}"
