"""Your own text as a study of one cell: the configuration and the sheets that one would write by hand."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from revela.command.comparison import Compared, on_benchmark, on_held_out_text
from revela.command.cutting import is_unspaced, max_tokens
from revela.errors import RevelaError
from revela.files import atomic_write
from revela.hardware import fast_precision
from revela.plan.available import room
from revela.plan.costs import Costs
from revela.plan.fit import fit
from revela.root import own_backbone, root
from revela.study.base import FOLDER, NAME, STUDY_MARK, ConfigError, read_yaml
from revela.study.cell import Cell
from revela.study.layout import Layout
from revela.study.settings import Chunking, Training
from revela.study.sheets import Task
from revela.study.sizes import load_sizes
from revela.study.study import PAPER, Study, load

if TYPE_CHECKING:
    from revela.text.resources import Matched

TINY, DEMO = "config/tiny.yaml", "config/demo.yaml"  # by which narrow and wide backbones are trained
CORPUS = "mine"  # the name of the corpus in paths
BY_OUT = ("scale", "results", "runs", "models", "benchmarks")  # keys of the configuration that follow from --out
EXPORTED = {  # key of evaluation -> that of training
    "query_prefix": "query_prefix",
    "passage_prefix": "passage_prefix",
    "max_length": "retriever_max_length",
    "precision": "precision",
}
TOKENIZERS = ("tokenizer.json", "*.model", "vocab.*")  # a model's folder has one of these files
NARROW = 512  # hidden size below which all weights are trained: an adapter would be no smaller
# Of the configuration that a backbone is trained by, except for these settings: its chunks and passages are short.
AS_THE_PAPER = ("retriever_max_length", "lm_max_length")


class OwnStudyError(RevelaError):
    """A text, a model, a benchmark or a folder that no study can be made of. The message is one line."""


def write_study(
    text: str,
    backbone: str,
    out: str | Path,
    *,
    found: Callable[[], Matched] | None = None,
    column: str = "text",
    lm: str | None = None,
    benchmark: str | Path | None = None,
    unretrievable: int = 0,
    hold_out: int | None = None,
    batch_size: int = 16,
    steps: int | None = None,
    settings: Sequence[str] = (),
    gpus: int = 0,
    cores: int = 1,
    overwrite: bool = False,
) -> tuple[Study, Cell]:
    """Writes `config.yaml` and the sheets of a study of one cell into `out`, whole or not at all, and loads them.

    Args:
        text: A folder with text files and tables, a file, or a pattern such as ``notes/**/*.{md,txt}``.
        backbone: The model that becomes the retriever: a local Hugging Face folder, owner/name[@revision], or tiny-1m,
            which comes with the project.
        out: The folder of the study and its results.
        found: Lists the files of the text; none: `matching` does.
        column: The column of tables that holds the text.
        lm: The language model beside it; none: a second copy of the backbone.
        benchmark: A folder in the BEIR layout, on which a table compares the cell, its start and BM25.
        unretrievable: Judgements of documents that the benchmark's corpus is known to lack.
        hold_out: Every how many-th document of the text is held out of training, for such a table without a benchmark.
        batch_size: Chunks in a batch (B).
        steps: Steps of the optimiser; none: one epoch.
        settings: ``key=value`` pairs such as ``training.temperature=0.01``, which overrule everything else.
        gpus: GPUs that training may use; none: the CPU, in float32, or in bfloat16 where it is fast in that and the
            backbone is wide.
        cores: CPU threads.
        overwrite: Replace a configuration in `out` that says otherwise. One written for a machine with other cores or
            GPUs does not differ by that.

    Raises:
        OwnStudyError, ConfigError, ResourceError, BenchmarkError, DoesNotFit: One line on what cannot be used, and what would be valid.
    """
    from revela.text.resources import matching
    from revela.training.examination import examine_cell

    out, backbone, lm = Path(out), own_backbone(backbone), own_backbone(lm) if lm else None
    found = found or cache(partial(matching, text, out))
    if not re.fullmatch(FOLDER, str(out)):
        raise OwnStudyError(f"--out {out}: valid in a path of results: letters, digits, '.', '_', '-' and '/'")
    if benchmark:
        _check_benchmark(Path(benchmark), unretrievable)
    names = {source: _model_name(source) for source in dict.fromkeys([backbone, lm or backbone])}
    cell = Cell("revela", CORPUS, names[backbone], names[lm or backbone], batch_size)
    corpus: dict[str, Any] = {"files": _place(text)} | ({"text": column} if column != "text" else {})
    compared = None
    if benchmark:
        compared = on_benchmark(Path(benchmark), text, unretrievable)
    elif hold_out:
        compared = on_held_out_text(CORPUS, text)
        corpus["hold_out"] = hold_out
    config: dict[str, Any] = {
        "scale": "own",
        "results": str(out),
        **{sheet: str(out / f"{sheet}.tsv") for sheet in ("runs", "models", "benchmarks")},
        "datasets": {compared.dataset: compared.origin} if compared else {},
        "corpora": {CORPUS: corpus},
        "chunking": {"max_words": _max_words(backbone, gpus), "punkt": CORPUS, "tokenizer": names[backbone]},
        "training": _training(backbone, gpus) | {"max_steps": steps},
        "evaluation": {},
        "compute": _compute(gpus, cores),
    }
    if compared:
        table = {"benchmark": compared.name, "caption": compared.caption, "columns": ["BM25", "Untrained", "Revela"]}
        config["export_scores"] = [compared.name]
        config["tables"] = {"table1": table if benchmark else table | {"intervals": True}}
    for assignment in settings:
        _assign(config, assignment)
    training, evaluation, chunking = config["training"], config["evaluation"], config["chunking"]
    if isinstance(chunking, dict) and chunking.get("tokenizer") and is_unspaced(found, column):
        chunking.setdefault("max_tokens", max_tokens(training, _max_words(backbone, gpus)))
    if isinstance(training, dict) and isinstance(evaluation, dict):  # what is measured is what is exported
        for key, trained in EXPORTED.items():
            evaluation.setdefault(key, training.get(trained, getattr(Training(), trained)))
    files = _sheets(cell, names, backbone, compared)
    rules = f"--snakefile {root() / 'Snakefile'} " if root() != Path.cwd() else ""
    files["config.yaml"] = (
        f"{STUDY_MARK}; go on with it by hand: snakemake {rules}--configfile {out}/config.yaml ...\n"
        + yaml.safe_dump(config, sort_keys=False)
    )
    _refuse_other(out, files, overwrite)
    study = _validate(files, out)
    if (wanted := study.config.compute.training_gpus) > gpus:
        raise OwnStudyError(
            f"compute.training_gpus: {wanted} are asked for, and this machine has {gpus}; valid: 0 to {gpus}"
        )
    examine_cell(study, cell)
    _check_memory(study, cell)
    found()
    _write(out, files)
    study = load(out / "config.yaml")
    study.training_settings(cell)
    return study, cell


def counted(found: Matched) -> str:
    """How many files are read, and how many are passed over, in a line."""
    suffixes = list(found.passed_over.items())[:5]
    shown = f" ({', '.join(f'{suffix} {number}' for suffix, number in suffixes)})" if suffixes else ""
    return f"files read: {len(found.names)}, passed over: {len(found.others)}{shown}"


def link_export(layout: Layout, cell: Cell) -> Path:
    """Gives a cell's export a short name, `retriever` in the folder of results, and returns it.

    Raises OwnStudyError if something else has that name.
    """
    link = Path(layout.root, "retriever")
    if link.is_symlink():
        link.unlink()
    if link.exists():
        raise OwnStudyError(f"{link} is in the way; remove it")
    link.symlink_to(os.path.relpath(layout.export(cell), layout.root), target_is_directory=True)
    return link


# --- what is written


def _training(backbone: str, gpus: int) -> dict[str, Any]:
    """The section `training`."""
    narrow = _width(backbone) < NARROW
    found, paper = (read_yaml(root() / path)["training"] for path in (TINY if narrow else DEMO, PAPER))
    return found | {
        **{key: paper[key] for key in AS_THE_PAPER},
        "batches_per_step": max(1, gpus),
        "precision": "fp32" if narrow and not gpus else fast_precision("cuda" if gpus else "cpu"),
        "zero_stage": 1 if gpus > 1 else 0,
    }


def _max_words(backbone: str, gpus: int) -> int:
    """Words of a chunk. On a CPU a wide backbone gets the demo's short chunks, for it has to take many steps."""
    short = not gpus and _width(backbone) >= NARROW
    return read_yaml(root() / DEMO)["chunking"]["max_words"] if short else Chunking().max_words


def _compute(gpus: int, cores: int) -> dict[str, int]:
    """The section `compute`."""
    return {
        "training_gpus": gpus,
        "training_processes": max(1, gpus),
        "training_threads": cores,
        "checkpoint_every": 100,
        "evaluation_gpus": min(1, gpus),
        "evaluation_threads": cores,
        "evaluation_mem_mb": 8000,
        "data_threads": cores,
        "data_mem_mb": 4000,
    }


def _sheets(cell: Cell, names: Mapping[str, str], backbone: str, compared: Compared | None) -> dict[str, str]:
    """File -> content of the sheets; `names` holds the name of each model by its place."""
    sheets = {
        "models": [
            ("scale", "name", "kind", "source", "tables"),
            *(
                ("own", name, "backbone", _source(place), "table1=Untrained" if place == backbone else "")
                for place, name in names.items()
            ),
            ("own", "bm25", "bm25", "", "table1=BM25"),
        ],
        "runs": [
            ("scale", "method", "corpus", "retriever", "lm", "batch_size", "tables"),
            ("own", cell.method, cell.corpus, cell.retriever, cell.lm, cell.batch_size, "table1=Revela"),
        ],
        "benchmarks": compared.rows if compared else [("scale", "benchmark", "task", "label", "layout", "dataset")],
    }
    return {f"{name}.tsv": "".join("\t".join(map(str, row)) + "\n" for row in rows) for name, rows in sheets.items()}


def _place(text: str) -> str:
    """The text as the configuration names it."""
    if Path(text).exists():
        return str(Path(text))
    if not set(text) & set("*?[{"):
        raise OwnStudyError(
            f"--text {text}: no such folder or file; valid: a folder, a file, or a pattern with * or **"
        )
    return text


def _source(model: str) -> str:
    return f"path:{model}" if Path(model).is_dir() else f"hub:{model}"


def _model_name(model: str) -> str:
    """The last part of a model's place, as a name of the configuration."""
    beside = sorted(path.parent.name for path in Path(model).parent.glob("*/config.json"))
    if not Path(model).is_dir() and "/" in model and beside:
        raise OwnStudyError(f"model {model!r}: no such folder; {Path(model).parent} has {', '.join(beside[:5])}")
    if not Path(model).is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", model):
        raise OwnStudyError(f"model {model!r}: no such folder, and not owner/name[@revision] on the hub")
    if Path(model).is_dir() and not Path(model, "config.json").is_file():
        raise OwnStudyError(f"{model}: no config.json, so this is not the folder of a Hugging Face model")
    if Path(model).is_dir() and not any(next(Path(model).glob(name), None) for name in TOKENIZERS):
        raise OwnStudyError(f"{model}: no tokenizer in this folder, such as tokenizer.json")
    last = Path(model).resolve().name if Path(model).is_dir() else model.partition("@")[0].rpartition("/")[2]
    name = re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("._-")
    if not re.match(NAME, name):
        raise OwnStudyError(f"{model}: its last part makes no name; rename the folder, for example to my-model")
    return name


def _width(model: str) -> float:
    """The hidden size of a local model; those on the hub count as wide."""
    config = Path(model, "config.json")
    if not config.is_file():
        return NARROW
    try:
        return float(json.loads(config.read_text(encoding="utf-8")).get("hidden_size", NARROW))
    except (ValueError, TypeError, AttributeError) as error:
        raise OwnStudyError(f"{config}: not the configuration of a model ({error})") from None


def _assign(config: dict[str, Any], assignment: str) -> None:
    """Sets one `key.key=value` of the configuration; the value is read as YAML."""
    keys, equals, value = assignment.partition("=")
    *parents, last = keys.split(".")
    if keys.split(".")[0] in BY_OUT:
        raise OwnStudyError(f"--set {assignment}: {keys.split('.')[0]} follows from --out; name that folder instead")
    place = config
    for key in parents:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise OwnStudyError(f"--set {assignment}: {key!r} holds a value, no keys")
    if not equals or not last:
        raise OwnStudyError(f"--set {assignment}: write key=value, for example training.temperature=0.01")
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise OwnStudyError(f"--set {assignment}: {value!r} cannot be read as YAML") from None


def _write(out: Path, files: Mapping[str, str]) -> None:
    """Writes the files of a study; where one cannot be written, those before it that are new go again."""
    new = [out / name for name in files if not (out / name).exists()]
    there = out.exists()
    try:
        for name, content in files.items():
            with atomic_write(out / name) as partial:
                partial.write_text(content, encoding="utf-8")
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        if out.is_dir() and not there:
            out.rmdir()
        raise


# --- what is refused before anything is written


def _check_benchmark(folder: Path, unretrievable: int) -> None:
    """Reads a benchmark as it will be read after training. BenchmarkError for what is wrong in it."""
    from revela.evaluation.tasks import load_task

    if not any(found for pattern in ("corpus*", "data/corpus*") for found in folder.glob(pattern)):
        raise OwnStudyError(f"--benchmark {folder}: no folder with corpus.jsonl, queries.jsonl and qrels/test.tsv")
    task = Task(
        scale="own", benchmark="own", task="own", label="own", layout="beir", dataset="own", unretrievable=unretrievable
    )
    load_task(task, folder)


def _refuse_other(out: Path, files: Mapping[str, str], overwrite: bool) -> None:
    """Raises OwnStudyError where `out` holds something else than this study."""
    if out.exists() and not out.is_dir():
        raise OwnStudyError(f"--out {out}: is a file; name a folder")
    if overwrite:
        return
    for name, content in files.items():
        if not (out / name).is_file():
            continue
        there = _values(read_yaml(out / name) if name == "config.yaml" else _lines((out / name).read_text("utf-8")))
        here = _values(yaml.safe_load(content) if name == "config.yaml" else _lines(content))
        for key in [*here, *there]:
            if (old := there.get(key, "absent")) != (new := here.get(key, "absent")):
                same = f"give --set {key}={old}, " if key.startswith("training.") and key in there else ""
                raise OwnStudyError(
                    f"{out / name}: {key} is {old} there, and {new} by this command; {same}name another --out, or give "
                    "--overwrite"
                )
    if out.is_dir() and any(out.iterdir()) and not (out / "config.yaml").is_file():
        raise OwnStudyError(f"--out {out}: holds other files; name a new folder, or give --overwrite")


def _values(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """key.key -> its value as JSON, without `compute`, which belongs to the machine and changes no result."""
    found = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            found |= {} if prefix + key == "compute" else _values(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = json.dumps(value)
    return found


def _lines(sheet: str) -> dict[str, str]:
    return {f"line {number}": " ".join(line.split()) for number, line in enumerate(sheet.splitlines(), start=1)}


def _check_memory(study: Study, cell: Cell) -> None:
    """Raises DoesNotFit for a cell that is yet to be trained and that this machine has too little memory for.

    Chunks are taken to be as long as they are planned, and the training, which counts their tokens, may still refuse. On
    a GPU, and for a model that is yet to be downloaded, it alone decides.
    """
    costs = Costs(study, load_sizes())
    lengths = costs.lengths(cell, first_half=False)
    load = replace(costs.load(str(cell)), tokens=(sum(lengths["query"] + lengths["passage"]), sum(lengths["lm"])))
    if not (load.gpu or costs.notes or Path(study.layout.cell(cell)).exists()):
        fit(load, room(load.processes), study.config.compute.gradient_checkpointing, str(cell))


def _validate(files: Mapping[str, str], out: Path) -> Study:
    """The study of files that are yet to be written. Raises ConfigError in their terms."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in files.items():
            Path(scratch, name).write_text(content.replace(f"{out}/", f"{scratch}/"), encoding="utf-8")
        try:
            return load(Path(scratch, "config.yaml"))
        except ConfigError as error:
            raise ConfigError(str(error).replace(scratch, str(out))) from None
