"""Your own text: a folder of files becomes a study of one cell, which the workflow trains like any other.

`write_study` writes what one would write by hand, a configuration and three sheets; `run` starts Snakemake on it and
shows how far it is. `passages` reads text that is to be encoded or searched.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from revela.errors import RevelaError
from revela.files import atomic_write
from revela.plan.jobs import snakemake
from revela.provenance import CHECKOUT
from revela.study.study import FOLDER, NAME, STUDY_MARK, Cell, Chunking, ConfigError, Study, Training, load, read_yaml

if TYPE_CHECKING:
    from revela.text.resources import Matched

CORPUS = "mine"  # the name of the corpus in paths
WORDS = Chunking().max_words  # in a chunk at most
BY_OUT = ("scale", "results", "runs", "models", "benchmarks")  # keys of the configuration that follow from --out
EXPORTED = {  # key of evaluation -> that of training
    "query_prefix": "query_prefix",
    "passage_prefix": "passage_prefix",
    "max_length": "retriever_max_length",
}
TOKENIZERS = ("tokenizer.json", "*.model", "vocab.*")  # one of these files
NARROW = 512  # hidden size below which all weights are trained: an adapter of rank 256 would be no smaller

# The paper's settings (section 4.1), with fewer batches in a step, because own text is seldom 320,000 batches of it.
PAPER = {
    "temperature": 1.0e-4,
    "similarity_dtype": "float32",
    "lora": {"rank": 256, "alpha": 64, "dropout": 0.1},
    "learning_rate": 1.0e-4,
    "warmup_steps": 20,
    "batches_per_step": 8,
}
# Those of the demo, for language models of a few million parameters.
SMALL = {
    "temperature": 0.05,
    "similarity_dtype": "float32",
    "lora": None,
    "learning_rate": 3.0e-4,
    "warmup_steps": 20,
    "batches_per_step": 1,
}


class OwnTextError(RevelaError):
    """Own text, a model or a folder that cannot be used, or a run that failed. The message is one line."""


def write_study(
    text: str,
    backbone: str,
    out: str | Path,
    *,
    column: str = "text",
    lm: str | None = None,
    benchmark: str | Path | None = None,
    batch_size: int = 16,
    steps: int | None = None,
    settings: Sequence[str] = (),
    gpus: int = 0,
    cores: int = 1,
    overwrite: bool = False,
) -> tuple[Study, Cell]:
    """Writes `config.yaml` and the sheets of a study of one cell into `out`, whole or not at all, and loads them.

    Args:
        text: A folder, of which all text files and tables count, a file, or a pattern such as ``notes/**/*.{md,txt}``.
        backbone: The model that becomes the retriever: a local Hugging Face folder, or owner/name[@revision].
        out: The folder of the study and its results.
        column: The column of tables that holds the text.
        lm: The language model beside it; none: a second copy of the backbone.
        benchmark: A folder in the BEIR layout, on which the cell, its start and BM25 are compared in a table.
        batch_size: Chunks in a batch (B).
        steps: Steps of the optimiser; none: one epoch.
        settings: ``key=value`` pairs such as ``training.temperature=0.01``, the last word.
        gpus: GPUs that training may use; none: the CPU, in float32.
        cores: CPU threads.
        overwrite: Replace a configuration in `out` that says otherwise; that it was written for a machine with other
            cores or GPUs is no difference.

    Raises:
        OwnTextError, ConfigError: One line on what cannot be used, and what would be valid.
    """
    out = Path(out)
    if not re.fullmatch(FOLDER, str(out)):
        raise OwnTextError(f"--out {out}: valid in a path of results: letters, digits, '.', '_', '-' and '/'")
    if benchmark and not Path(benchmark, "corpus.jsonl").is_file():
        raise OwnTextError(f"--benchmark {benchmark}: no folder with corpus.jsonl, queries.jsonl and qrels/test.tsv")
    names = {source: _model_name(source) for source in dict.fromkeys([backbone, lm or backbone])}
    cell = Cell("revela", CORPUS, names[backbone], names[lm or backbone], batch_size)
    config: dict[str, Any] = {
        "scale": "own",
        "results": str(out),
        **{sheet: str(out / f"{sheet}.tsv") for sheet in ("runs", "models", "benchmarks")},
        "datasets": {"benchmark": {"path": str(benchmark)}} if benchmark else {},
        "corpora": {CORPUS: {"files": _place(text), **({"text": column} if column != "text" else {})}},
        "chunking": {"max_words": WORDS, "punkt": CORPUS},
        "training": {
            **(SMALL if _width(backbone) < NARROW else PAPER),
            "max_steps": steps,
            "precision": "bf16" if gpus else "fp32",
            "zero_stage": 1 if gpus > 1 else 0,
            "checkpoint_every": 100,
        },
        "evaluation": {},
        "compute": {
            "training_gpus": gpus,
            "training_processes": max(1, gpus),
            "training_threads": cores,
            "training_mem_mb": 8000,
            "evaluation_gpus": min(1, gpus),
            "evaluation_threads": cores,
            "evaluation_mem_mb": 8000,
            "data_threads": cores,
            "data_mem_mb": 4000,
        },
    }
    if benchmark:
        columns = {"BM25": "bm25", "Untrained": f"untrained/{cell.retriever}", "Revela": cell.path}
        caption = f"nDCG@10 (%) on {Path(benchmark).name}, before and after training on {text}."
        config["export_scores"] = ["own"]
        config["tables"] = {"table1": {"benchmark": "own", "caption": caption, "columns": list(columns)}}
    for assignment in settings:
        _assign(config, assignment)
    training, evaluation = config["training"], config["evaluation"]
    if isinstance(training, dict) and isinstance(evaluation, dict):  # measured is what is exported
        for key, trained in EXPORTED.items():
            evaluation.setdefault(key, training.get(trained, getattr(Training(), trained)))
    sheets = {
        "models": [
            ("scale", "name", "kind", "source", "tables"),
            *(
                ("own", name, "backbone", _source(source), "table1=Untrained" if source == backbone else "")
                for source, name in names.items()
            ),
            ("own", "bm25", "bm25", "", "table1=BM25"),
        ],
        "runs": [
            ("scale", "method", "corpus", "retriever", "lm", "batch_size", "tables"),
            ("own", cell.method, cell.corpus, cell.retriever, cell.lm, cell.batch_size, "table1=Revela"),
        ],
        "benchmarks": [
            ("scale", "benchmark", "task", "label", "layout", "dataset"),
            *([("own", "own", "own", Path(benchmark).name, "beir", "benchmark")] if benchmark else []),
        ],
    }
    files = {f"{name}.tsv": "".join("\t".join(map(str, row)) + "\n" for row in rows) for name, rows in sheets.items()}
    files["config.yaml"] = (
        f"{STUDY_MARK}; go on with it by hand: snakemake --configfile {out}/config.yaml ...\n"
        + yaml.safe_dump(config, sort_keys=False)
    )
    _refuse_other(out, files, overwrite)
    _validate(files, out)
    text_files(text, out)
    for name, content in files.items():
        with atomic_write(out / name) as partial:
            partial.write_text(content, encoding="utf-8")
    study = load(out / "config.yaml")
    study.training_settings(cell)
    return study, cell


def text_files(text: str | Path, out: str | Path | None = None) -> Matched:
    """The files that own text consists of, for results in `out`. Raises OwnTextError where there are none."""
    from revela.text.resources import ResourceError, matching

    try:
        return matching(str(text), out)
    except ResourceError as error:
        raise OwnTextError(str(error)) from None


def counted(found: Matched) -> str:
    """How many files are read, and how many are passed over, in a line."""
    suffixes = Counter(Path(name).suffix.lower() or "without suffix" for name in found.others).most_common(5)
    shown = f" ({', '.join(f'{suffix} {number}' for suffix, number in suffixes)})" if suffixes else ""
    return f"files read: {len(found.names)}, passed over: {len(found.others)}{shown}"


def _place(text: str) -> str:
    """Own text as the configuration names it."""
    if Path(text).exists():
        return str(Path(text))
    if not set(text) & set("*?[{"):
        raise OwnTextError(f"--text {text}: no such folder or file; valid: a folder, a file, or a pattern with * or **")
    return text


def _source(model: str) -> str:
    return f"path:{model}" if Path(model).is_dir() else f"hub:{model}"


def _model_name(model: str) -> str:
    """The last part of a model's place as a name of the configuration."""
    if not Path(model).is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", model):
        raise OwnTextError(f"model {model!r}: no such folder, and not owner/name[@revision] on the hub")
    if Path(model).is_dir() and not Path(model, "config.json").is_file():
        raise OwnTextError(f"{model}: no config.json, so this is not the folder of a Hugging Face model")
    if Path(model).is_dir() and not any(next(Path(model).glob(name), None) for name in TOKENIZERS):
        raise OwnTextError(f"{model}: no tokenizer in this folder, such as tokenizer.json")
    last = Path(model).resolve().name if Path(model).is_dir() else model.partition("@")[0].rpartition("/")[2]
    name = re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("._-")
    if not re.match(NAME, name):
        raise OwnTextError(f"{model}: its last part makes no name; rename the folder, for example to my-model")
    return name


def _width(model: str) -> float:
    """The hidden size of a local model; that of the hub's are wide."""
    config = Path(model, "config.json")
    if not config.is_file():
        return NARROW
    try:
        return float(json.loads(config.read_text(encoding="utf-8")).get("hidden_size", NARROW))
    except (ValueError, TypeError, AttributeError) as error:
        raise OwnTextError(f"{config}: not the configuration of a model ({error})") from None


def _assign(config: dict[str, Any], assignment: str) -> None:
    """Sets one `key.key=value` of the configuration; the value is read as YAML reads it."""
    keys, equals, value = assignment.partition("=")
    *parents, last = keys.split(".")
    if keys.split(".")[0] in BY_OUT:
        raise OwnTextError(f"--set {assignment}: {keys.split('.')[0]} follows from --out; name that folder instead")
    place = config
    for key in parents:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise OwnTextError(f"--set {assignment}: {key!r} holds a value, no keys")
    if not equals or not last:
        raise OwnTextError(f"--set {assignment}: write key=value, for example training.temperature=0.01")
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise OwnTextError(f"--set {assignment}: {value!r} cannot be read as YAML") from None


def _refuse_other(out: Path, files: Mapping[str, str], overwrite: bool) -> None:
    """OwnTextError where `out` is no folder for this study."""
    if out.exists() and not out.is_dir():
        raise OwnTextError(f"--out {out}: is a file; name a folder")
    if overwrite:
        return
    for name, content in files.items():
        if not (out / name).is_file():
            continue
        there = _values(read_yaml(out / name) if name == "config.yaml" else _lines((out / name).read_text("utf-8")))
        here = _values(yaml.safe_load(content) if name == "config.yaml" else _lines(content))
        for key in [*here, *there]:
            if (old := there.get(key, "nothing")) != (new := here.get(key, "nothing")):
                same = f"give --set {key}={old}, " if key.startswith("training.") and key in there else ""
                raise OwnTextError(
                    f"{out / name}: {key} is {old} there, and {new} by this command; {same}name another --out, or give "
                    "--overwrite"
                )
    if out.is_dir() and any(out.iterdir()) and not (out / "config.yaml").is_file():
        raise OwnTextError(f"--out {out}: holds other files; name a new folder, or give --overwrite")


def _values(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """key.key -> its value as JSON; without `compute`, which is the machine's and changes no result."""
    found = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            found |= {} if prefix + key == "compute" else _values(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = json.dumps(value)
    return found


def _lines(sheet: str) -> dict[str, str]:
    return {f"line {number}": " ".join(line.split()) for number, line in enumerate(sheet.splitlines(), start=1)}


def _validate(files: Mapping[str, str], out: Path) -> None:
    """ConfigError, in terms of the files to be, before any of them is written."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in files.items():
            Path(scratch, name).write_text(content.replace(f"{out}/", f"{scratch}/"), encoding="utf-8")
        try:
            load(Path(scratch, "config.yaml"))
        except ConfigError as error:
            raise ConfigError(str(error).replace(scratch, str(out))) from None


# --- running it


def run(config: str | Path, targets: Sequence[str], *, cores: int) -> None:
    """Lets Snakemake make targets of a study; its own output goes to `snakemake.log` in the study's folder.

    On a terminal a bar shows the jobs and the steps of training; elsewhere each job is a line. Raises OwnTextError with
    the error of the job that failed.
    """
    command = snakemake("--profile", str(CHECKOUT / "workflow/profiles/local"), "--cores", str(cores))
    command += ["--configfile", str(config), "--nolock", "--", *targets]
    log = Path(config).with_name("snakemake.log")
    with log.open("ab") as written:
        try:
            fcntl.flock(written, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with Snakemake, which holds it, too
        except BlockingIOError:
            raise OwnTextError(f"{log.parent}: another run is at work here") from None
        written.truncate(0)
        os.utime(written.fileno())
        started = os.fstat(written.fileno()).st_mtime  # by the clock of files, which lags behind that of `time`
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "pass_fds": [written.fileno()]}
        process = subprocess.Popen(command, **pipes, start_new_session=True)
        try:
            for line in _watch(process, log.parent):
                written.write(line + b"\n")
                written.flush()
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)  # on which training saves a checkpoint
            process.wait()
            raise
    if process.wait() == 0:
        return
    logs = [path for path in log.parent.glob("logs/**/*.log") if path.stat().st_mtime >= started]
    for path in sorted(logs, key=os.path.getmtime, reverse=True):
        for line in reversed(path.read_text(encoding="utf-8", errors="replace").splitlines()):
            if found := re.match(r"error: (.*)|(?:\[rank\d+\]: )?((?:\w+\.)*\w*(?:Error|Exception): .*)", line):
                raise OwnTextError(f"{found[1] or found[2]} (log: {path})")
    raise OwnTextError(f"{_last_line(log)} (log: {log})")


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines[-1] if lines else "Snakemake said nothing"


def _watch(process: subprocess.Popen, out: Path) -> Iterator[bytes]:
    """Snakemake's lines, while bars follow the jobs and the training."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console, training, rest = Console(stderr=True), None, b""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        jobs = progress.add_task("jobs", total=None)
        while True:
            if select.select([process.stdout], [], [], 0.2)[0]:
                read = os.read(process.stdout.fileno(), 1 << 16)
                if not read:
                    return
                *lines, rest = (rest + read).split(b"\n")
                for line in lines:
                    yield line
                    if found := re.match(rb"(?:local)?rule (\w+):", line):
                        progress.update(jobs, description=found[1].decode())
                        if not console.is_terminal:
                            console.print(found[1].decode())
                    if found := re.match(rb"(\d+) of (\d+) steps", line):
                        progress.update(jobs, completed=int(found[1]), total=int(found[2]))
            if steps := _training_steps(out):
                training = progress.add_task("steps of training", total=None) if training is None else training
                progress.update(training, completed=steps)


def _training_steps(out: Path) -> int:
    """Steps in the log of the training that is running; 0 if none is."""
    try:
        return sum(path.read_bytes().count(b"\n") for path in out.glob("checkpoints/**/log.jsonl"))
    except FileNotFoundError:  # it has just ended
        return 0


def link_export(out: str | Path, cell: Cell) -> Path:
    """The export under a short name, `out`/retriever; OwnTextError if something else has that name."""
    link, target = Path(out, "retriever"), Path("exports", cell.path)
    if link.is_symlink():
        link.unlink()
    if link.exists():
        raise OwnTextError(f"{link} is in the way; remove it")
    link.symlink_to(target, target_is_directory=True)
    return link


# --- text to encode or to search


def passages(place: str | Path, column: str = "text") -> list[tuple[str, str]]:
    """(id, text) of what stands in a file or a folder.

    Of a folder, the files that training would read are cut into chunks of at most 120 words, as for training, at
    sentences that Punkt learns from them. Of a single file each piece is a text as it is: a chunk of a corpus's
    `chunks.parquet`, the `column` of a row of another table, or a line of any other file; blank ones are left out.
    Raises OwnTextError for what is not there or no text.
    """
    from revela.text.corpora import read_table
    from revela.text.documents import is_table

    place = Path(place)
    if place.is_dir():
        found = _chunks(place, column)
    elif not place.is_file():
        raise OwnTextError(f"{place}: no such file or folder")
    elif place.suffix == ".parquet" and _has_chunks(place):
        found = [(f"{row['document']}#{n}", text) for row in read_table(place) for n, text in enumerate(row["chunks"])]
    elif is_table(place):
        found = [(name.partition("/")[2], text) for name, text in _documents(place.parent, [place.name], column)]
    else:
        try:
            lines = place.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise OwnTextError(f"{place}: not UTF-8 text ({error.reason} at byte {error.start})") from None
        found = [(f"{place.name}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise OwnTextError(f"{place}: holds no text")
    return found


def _has_chunks(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return "chunks" in pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise OwnTextError(f"{path}: not a parquet file that can be read ({str(error).splitlines()[0]})") from None


def _chunks(folder: Path, column: str) -> list[tuple[str, str]]:
    from revela.text.chunking import chunk, sentence_splitter
    from revela.text.resources import build_punkt

    found = _documents(folder, text_files(folder).names, column)
    if not found:
        return []
    with tempfile.TemporaryDirectory() as scratch:
        build_punkt(Path(scratch, "punkt"), (text for _, text in found))
        split = sentence_splitter(Path(scratch, "punkt"))
    return [(f"{name}#{n}", piece) for name, text in found for n, piece in enumerate(chunk(text, split, WORDS))]


def _documents(folder: Path, names: Iterable[str], column: str) -> list[tuple[str, str]]:
    """(id, text) of the documents in some files of a folder, which are read where they are."""
    from revela.study.study import Source
    from revela.text.documents import CorpusError, documents

    with tempfile.TemporaryDirectory() as scratch:  # as `documents` takes a dataset: a folder of these files alone
        for name in names:
            link = Path(scratch, name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((folder / name).resolve())
        source = Source(dataset=folder.resolve().name, text=column, mixed=True)
        try:
            return [(name, text) for name, text in documents(source, scratch) if text]
        except CorpusError as error:
            raise OwnTextError(str(error).replace(scratch, str(folder))) from None
