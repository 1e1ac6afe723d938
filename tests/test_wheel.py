"""The wheel holds the workflow, asks for what its code imports, and works where there is no checkout."""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import TEXTS
from packaging.requirements import Requirement

from revela.study.code import PACKAGE, _path, _WithoutWords, import_closure

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHIPPED = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["shipped"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", ROOT]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return next(folder.glob("revela-*.whl"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """The wheel, unpacked as pip would."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def files(folder):
    """path -> content of all files of a folder, or of a single file."""
    found = [folder] if folder.is_file() else (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if "__pycache__" not in path.parts}


def test_the_workflow_is_in_it_byte_for_byte(site, wheel):
    for name in SHIPPED:
        assert files(site / "revela/shipped" / name) == files(ROOT / name)
    held = {path.relative_to(site).parts[:2] for path in site.rglob("*")}
    assert {first for first, *_ in held} == {"revela", f"revela-{PROJECT['project']['version']}.dist-info"}
    assert {path.name for path in (site / "revela/shipped").iterdir()} == {Path(name).parts[0] for name in SHIPPED}
    modules = {name: content for name, content in files(site / "revela").items() if not name.startswith("shipped/")}
    assert modules == files(ROOT / "revela")
    assert wheel.stat().st_size < 20e6


def names(requirements):
    return {Requirement(line).name.lower().replace("_", "-") for line in requirements}


def foreign(modules):
    """(module of ours, module of another distribution that it imports), without what type checkers alone see."""
    found = set()
    for module in modules:
        for node in ast.walk(_WithoutWords().visit(ast.parse(_path(module).read_text()))):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            found |= {(module, name.split(".")[0]) for name in imported}
    return {pair for pair in found if pair[1] not in sys.stdlib_module_names | {"revela", "pynvml"}}  # taken if there


# What only some targets need: figures of a configuration, SLURM, other harnesses. Each says so where it is missing.
OF_EXTRAS = {
    "paper": {"datasketch", "faiss", "matplotlib", "snakemake_executor_plugin_slurm"},
    "lm": {"lm_eval"},
    "api": {"cohere", "openai", "voyageai"},
    "dev": {"mteb"},
}


def test_what_the_code_imports_is_asked_for():
    distributions = importlib.metadata.packages_distributions()
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in PACKAGE.rglob("*.py")]
    core, extras = names(PROJECT["project"]["dependencies"]), PROJECT["project"]["optional-dependencies"]
    extra = {module: name for name, imported in OF_EXTRAS.items() for module in imported}
    for module, first in foreign(name for name in modules if _path(name)):
        asked = core if first not in extra else names(extras[extra[first]])
        provided = {name.lower().replace("_", "-") for name in distributions[first]}
        assert provided & asked, f"{module} imports {first}, which pyproject.toml does not ask for"


def test_everyday_commands_need_no_extra():
    commands = ("cli_train", "cli_use", "cli_study", "own_study", "running", "passages", "report", "doctor")
    modules = {name for command in commands for name in import_closure(f"revela.command.{command}")}
    modules |= {
        name for job in ("chunks", "batches", "own_files", "punkt") for name in import_closure(f"revela.text.{job}")
    }
    for entry in ("training.entry", "evaluation.folder", "export.formats", "paper.tables", "plan.jobs"):
        modules |= set(import_closure(f"revela.{entry}"))
    unwanted = set().union(*OF_EXTRAS.values()) - {"snakemake_executor_plugin_slurm"}
    modules -= {"revela.evaluation.apis"}  # a system of its own, by configuration
    assert {pair for pair in foreign(modules) if pair[1] in unwanted} == set()


def test_no_version_is_pinned_but_by_constraints():
    assert not any("==" in line for line in PROJECT["project"]["dependencies"])
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    torch = next(line for line in pins if line.startswith("torch=="))
    for place in ("Makefile", "containers/Containerfile", "containers/revela.def"):
        assert torch in (ROOT / place).read_text(), place


@pytest.fixture
def revela(site, tmp_path):
    """Runs a command of the unpacked package in a folder of its own; what it printed."""

    def run(*arguments):
        environment = os.environ | {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "revela", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_it_plans_away_from_the_checkout_and_writes_nothing_into_itself(revela, site, tmp_path):
    """As an installation that may not be written does; the paper's plan, and the user's own."""
    before = {path: path.stat().st_mtime_ns for path in site.rglob("*")}
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("\n\n".join(TEXTS))
    train = ("train", "--text", "notes", "--backbone", "tiny-1m", "--out", "mine", "--dry-run", "--json")
    jobs = json.loads(revela(*train))["jobs"]
    assert jobs["train"] == jobs["export"] == 1
    assert str(site / "revela/shipped/resources/backbones/tiny-1m") in (tmp_path / "mine/models.tsv").read_text()
    planned = json.loads(revela("plan", "results/corpora/wiki/chunks.parquet", "--json"))
    assert {"dataset", "chunks"} <= {job["rule"] for job in planned["jobs"]}
    assert {path.name for path in tmp_path.iterdir()} <= {"notes", "mine", ".snakemake"}
    assert {path: path.stat().st_mtime_ns for path in site.rglob("*")} == before


# --- containers


def test_recipes_name_files_that_are_there():
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "containers/Containerfile").read_text(), re.MULTILINE)
    recipe = (ROOT / "containers/revela.def").read_text()
    section = re.search(r"^%files\n((?: .*\n)+)", recipe, re.MULTILINE)[1]
    named = {name for line in copied for name in line.split()}
    assert named == {line.split()[0] for line in section.splitlines()} and all((ROOT / name).exists() for name in named)
    assert {*SHIPPED, "revela", "pyproject.toml", "hatch_build.py", "constraints.txt"} <= named
