"""Every command in README and docs works: each is run on a small scale, or dry-run, and none is left out."""

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from benchmark_folders import write_beir
from checkout import Checkout
from conftest import TEXTS, make_backbone
from retrievers import cell_folder, trained
from snakemake.cli import parse_args

from revela import workflow
from revela.command import doctor, report, reproduce, running
from revela.command.cli import app, main
from revela.command.reproduce import default_tables
from revela.export import adapters, hub
from revela.export.formats import export_sentence_transformer
from revela.plan import jobs as planning
from revela.study.cell import Cell
from revela.study.settings import Chunking, Compute, Corpus, Evaluation, Training
from revela.study.site import load_site
from revela.study.study import load
from revela.text.documents import CODE as SOURCE_CODE
from revela.text.documents import KINDS, PROSE

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "config/README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SLURM = ("squeue", "sinfo", "sbatch", "scancel")  # its own commands; what is submitted by them is tested elsewhere
CONTAINERS = ("podman", "apptainer")
PROGRAMS = (
    "make",
    "snakemake",
    "revela",
    "source",
    "python",
    "pytest",
    "pip",
    "hf",
    "apt-get",
    "export",
    *CONTAINERS,
    *SLURM,
)


def commands():
    """(page, command) of every command in a block of shell, and of every example in the command line's help."""
    for page in PAGES:
        text = page.read_text()
        for language, content in CODE.findall(text):
            if language in ("bash", "sh", "shell", "console"):
                yield from ((page.name, command(line)) for line in content.replace("\\\n", " ").splitlines())
        for line in re.findall(r"^ {4,}(\S.*)", CODE.sub("", text), re.MULTILINE):
            if Path(line.split()[0]).name in PROGRAMS:
                yield page.name, command(line)
    for one in app.registered_commands:
        yield "--help", command(one.epilog.removeprefix("Example: "))


def command(line):
    """A line of shell without comment, and without the folder of the environment's programs."""
    return shlex.join(shlex.split(line.strip().removeprefix(".venv/bin/"), comments=True))


COMMANDS = [pair for pair in dict.fromkeys(commands()) if pair[1]]


def of(program):
    """The commands of one program."""
    return [pair for pair in COMMANDS if Path(pair[1].split()[0]).name == program]


def test_there_are_commands_and_all_are_checked():
    checked = {*of("make"), *of("snakemake"), *of("revela"), *of("source"), *of("python"), *of("pip")}
    checked |= {pair for program in (*SLURM, *CONTAINERS) for pair in of(program)}
    assert len(of("revela")) > 12 and len(of("snakemake")) > 6
    assert [pair for pair in COMMANDS if pair not in checked] == []


@pytest.mark.parametrize("page, command", of("make"))
def test_make(page, command):
    """Targets of the Makefile, each in its help."""
    known = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in command.split()[1:]:
        assert "=" in target or f"make {target} " in known, (page, command)


@pytest.mark.parametrize("page, command", of("source"))
def test_source(page, command):
    assert command == "source .venv/bin/activate" and "-m venv .venv" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("page, command", of("python"))
def test_python(page, command):
    """A script of the project and options that it has; what it measures is its own affair."""
    _, *arguments = shlex.split(command)
    script = (
        Path("revela", *arguments[1].split(".")[1:]).with_suffix(".py") if arguments[0] == "-m" else Path(arguments[0])
    )
    source = (ROOT / script).read_text()
    for option in arguments:
        assert not option.startswith("--") or f'"{option.partition("=")[0]}"' in source, (page, command, option)


@pytest.mark.parametrize("page, command", of("pip"))
def test_pip(page, command):
    """The wheel has the name that the project's version gives it; tests/test_wheel.py builds and uses it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wheel = f"{project['name']}-{project['version']}-py3-none-any.whl"
    assert shlex.split(command)[1] in ("wheel", "install")
    assert not command.endswith(".whl") or Path(command.split()[-1]).name == wheel, (page, command)


@pytest.mark.parametrize("page, command", [pair for program in CONTAINERS for pair in of(program)])
def test_containers(page, command):
    """A recipe that is there, or a command of the project in its image."""
    _, verb, *arguments = shlex.split(command)
    if verb == "build":
        assert any((ROOT / "containers" / Path(argument).name).is_file() for argument in arguments), (page, command)
    else:
        inside = next(
            arguments[number + 1 :] for number, one in enumerate(arguments) if one in ("revela", "revela.sif")
        )
        assert inside[0] in {known.name or known.callback.__name__ for known in app.registered_commands}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return Checkout(tmp_path_factory.mktemp("checkout"))


@pytest.mark.parametrize("configfile", [None, "config/tiny.yaml"])
def test_snakemake(checkout, configfile):
    """The targets of all commands, planned in one dry run for each configuration."""
    targets = []
    for page, command in of("snakemake"):
        _, options = parse_args(shlex.split(command)[1:])
        if (options.configfile[0].as_posix() if options.configfile else None) == configfile:
            safe = options.dryrun or options.profile or options.report or configfile
            assert safe, f"{page}: {command}: not a dry run, on no cluster"
            targets += options.targets
    targets += planned_targets() if configfile is None else []
    assert targets
    command = ["-n", *dict.fromkeys(targets), "--quiet", "rules"]
    command += ["--configfile", configfile] if configfile else []
    printed, status = checkout.snakemake(*command)
    assert status == 0, printed


def planned_targets():
    """What `revela plan` is asked for in the pages."""
    return [
        target
        for _, command in of("revela")
        for target in shlex.split(command)[2:]
        if command.startswith("revela plan")
    ]


# --- the command revela, in a folder where what the pages speak of exists


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the backbone, the text and the benchmarks that the pages name, and one finished cell of tiny."""
    folder = tmp_path_factory.mktemp("place")
    base = make_backbone(folder / "resources/backbones/tiny-4m")
    for name, suffix in (("notes", "md"), ("revela", "py")):
        (folder / name).mkdir()
        for number in range(3):
            (folder / name / f"{number}.{suffix}").write_text("\n\n".join(TEXTS))
    (folder / "config").symlink_to(ROOT / "config")
    documents = {f"d{n}": ("", text) for n, text in enumerate(TEXTS)}
    qrels = {"q1": {"d0": 1}}
    write_beir(folder, "my-benchmark", documents=documents, queries={"q1": "passage"}, qrels=qrels)
    tiny = folder / "results/tiny"
    write_beir(tiny / "resources/datasets/beir-tiny", "networkx", documents=documents, queries={"q1": "x"}, qrels=qrels)
    cell_folder(base, tiny, "revela/code/tiny-4m/tiny-4m/bs16", lora=True)
    return folder


@pytest.fixture
def stand_ins(place, monkeypatch):
    """Snakemake's run leaves a cell that was made beforehand; the hub takes and gives nothing."""
    monkeypatch.chdir(place)

    def run(config, layout, targets, *, cores, **_):
        study = load(config)
        for target in default_tables(study) if targets == ["all"] else targets:
            path = Path(target)
            if "exports" in path.parts:
                cell = Cell.parse("/".join(path.parts[-5:]))
                base = study.models[cell.retriever].origin.path
                if not path.exists():
                    export_sentence_transformer(cell_folder(base, study.config.results, cell.path), path)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("| Task | A |\n|---|---|\n| t | **1.0** |\n")
        chunks(study.config.results)

    def chunks(results):
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(results, "corpora/mine/chunks.parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"document": ["mine/a"], "src": ["mine"], "chunks": [TEXTS]}), path)

    def fetched(name, folder):
        """The authors' adapter and the model below it, made on the spot."""
        if "llama" in name.lower():
            return place / "resources/backbones/tiny-4m"
        cell = place / "results/tiny/models/revela/code/tiny-4m/tiny-4m/bs16"
        return cell / "retriever"

    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)  # SLURM may be here, and its controller stopped
    monkeypatch.setattr(running, "run", run)
    monkeypatch.setattr(running, "report", lambda config, output, *, log: None)
    monkeypatch.setattr(reproduce, "searches", lambda study: [])  # test_endtoend.py runs it
    monkeypatch.setattr(report, "write_report", lambda out: Path(out, "report.html"))  # test_own_corpus.py opens it
    monkeypatch.setattr(
        adapters, "local_folder", lambda name, folder: Path(name) if Path(name).is_dir() else fetched(name, folder)
    )
    monkeypatch.setattr(hub, "push", lambda folder, repository, **_: f"https://huggingface.co/{repository}")
    plan = planning.Plan([], load_site(), [], 0)
    monkeypatch.setattr(planning, "make_plan", lambda *_, **__: plan)
    monkeypatch.setattr(workflow, "dry_run", lambda *_, **__: [])


@pytest.mark.parametrize("page, command", of("revela"))
def test_revela(page, command, stand_ins, capsys, monkeypatch):
    """In the order of the pages, so that a command finds what those before it made."""
    if command.startswith("revela train"):  # pages train different texts into a folder of the same name
        shutil.rmtree("my-retriever", ignore_errors=True)
    if command.startswith("revela export"):  # takes a new folder
        shutil.rmtree("exported", ignore_errors=True)
    elif "exported" in command and not Path("exported").exists():
        trained("resources/backbones/tiny-4m", "exported")  # what `revela push exported` of the help begins with
    assert main(shlex.split(command)[1:]) == 0, capsys.readouterr().err


# --- what else the pages hold


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, stand_ins, place, capsys):
    for language, content in CODE.findall(page.read_text()):
        if language == "python":
            if not Path("my-retriever/retriever").exists():
                export_sentence_transformer(
                    "results/tiny/models/revela/code/tiny-4m/tiny-4m/bs16", "my-retriever/retriever"
                )
            exec(compile(content, str(page), "exec"), {})  # noqa: S102
            assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_blocks_are_configuration(page, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for language, content in CODE.findall(page.read_text()):
        if language == "yaml":
            values = yaml.safe_load((ROOT / "config/config.yaml").read_text())
            for section, entries in yaml.safe_load(content).items():
                values[section] = {**(values.get(section) or {}), **entries}
            (tmp_path / "config.yaml").write_text(json.dumps(values))
            load(tmp_path / "config.yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith(("http://", "https://")) or (page.parent / target).exists(), target


def test_every_page_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert all(f"docs/{page.name}" in readme for page in PAGES if page.parent.name == "docs")


def test_every_suffix_that_is_read_is_listed():
    page = " ".join((ROOT / "docs/own-data.md").read_text().split())
    tables = [suffix for kind, suffixes in KINDS.items() for suffix in suffixes if kind != "text"]
    for suffixes in (PROSE, SOURCE_CODE, tables):
        assert f"`{' '.join(suffixes)}`" in page


def test_every_switch_of_the_protocol_exists():
    """The settings that docs/protocol.md names, written as in the configuration."""
    models = {
        "training": Training,
        "evaluation": Evaluation,
        "compute": Compute,
        "chunking": Chunking,
        "corpora": Corpus,
    }
    page = (ROOT / "docs/protocol.md").read_text()
    named = re.findall(r"`((?:training|evaluation|compute|chunking|corpora|methods)\.[\w.*]+)`", page)
    assert len(named) > 12
    for setting in named:
        section, *keys = setting.split(".")
        model = models.get(section, Training)
        keys = keys[1:] if section in ("corpora", "methods") else keys  # a corpus's or a method's name
        if keys[0] == "training":
            model, keys = Training, keys[1:]
        assert not keys or keys[0] in model.model_fields, setting
