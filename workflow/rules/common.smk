# What all rules share: the study, the wildcards, and what each job asks for and depends on. No rules here.
# Only light modules are imported, so that planning thousands of jobs takes seconds.
import functools
import inspect
import os
import re
import sys
from pathlib import Path

from revela.errors import RevelaError
from revela.plan.costs import Costs
from revela.study import grouping, specification, tables
from revela.study.cell import Cell
from revela.study.code import code_hash
from revela.study.methods import METHODS
from revela.study.settings import LM_EVAL
from revela.study.site import load_site
from revela.study.sizes import load_sizes
from revela.study.study import PAPER, load
from revela.study.system import UNTRAINED
from revela.workflow import command_line

# Scripts import it. Where the rules are read from a repository, this puts it beside them into the cache of sources.
workflow.source_path("../scripts/job.py")


def load_or_exit(read, *path):
    """What a file says, or its fault in one line."""
    try:
        return read(*path)
    except RevelaError as error:
        sys.exit(str(error))


def load_study():
    """The study of `--configfile`, or of the paper: one complete file, never a mixture of two."""
    files = workflow.overwrite_configfiles or [PAPER]
    if len(files) > 1 or workflow.config_settings.config:
        sys.exit("configuration: --configfile takes one complete file, after the targets; --config is not used")
    config["study"] = os.path.relpath(files[0])
    return load_or_exit(load, config["study"])


def check_folders():
    """A folder that cannot be written stops the run before the first job."""
    for name in (LAYOUT.root, ".snakemake"):
        folder = Path(name).absolute()
        existing = next(parent for parent in [folder, *folder.parents] if parent.exists())
        if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
            continue
        others = existing.stat().st_uid != os.getuid()
        advice = f"; it is {existing.owner()}'s: work in a checkout of your own" if others else ""
        sys.exit(f"results: {name} cannot be written: no permission in {existing}, or it is not a folder{advice}")


ARGS = command_line()
STUDY = load_study()
CONFIG, LAYOUT = STUDY.config, STUDY.layout
check_folders()


# --- wildcards


def either(names):
    """A pattern that matches each of the names and nothing else."""
    return "|".join(map(re.escape, sorted(names))) or "(?!)"


def cell_pattern(*methods):
    """A pattern that matches the paths of all cells of some methods."""
    corpus, backbone = either(CONFIG.corpora), either(STUDY.backbones)
    patterns = []
    for method in (METHODS[name] for name in methods):
        lm = "none" if method.lm == "none" else backbone
        end = rf"bs{batch_sizes(method.least_batch)}(-({either(CONFIG.variants)}))?"
        patterns.append(f"{method.name}/({corpus})/({backbone})/({lm})/{end}")
    return "|".join(patterns)


def batch_sizes(least):
    """A pattern that matches the numbers from `least` on, which has one digit."""
    return rf"([{least}-9]|[1-9]\d+)"


BM25, ENCODERS, APIS = (STUDY.models_of(kind) for kind in ("bm25", "encoder", "api"))
UNTRAINED_SYSTEM = f"{UNTRAINED}({either(STUDY.backbones)})"
DENSE = f"{cell_pattern(*METHODS)}|{UNTRAINED_SYSTEM}|{either(ENCODERS)}"
SYSTEM = f"{DENSE}|{either([*BM25, *APIS])}"
REGROUPED = {name for name, corpus in CONFIG.corpora.items() if corpus.regroup}


wildcard_constraints:
    cell=cell_pattern(*METHODS),
    system=SYSTEM,
    package=either(CONFIG.packages),
    dataset=either(CONFIG.datasets),
    model=either([*STUDY.backbones, *ENCODERS]),
    corpus=either(CONFIG.corpora),
    lm=either(STUDY.backbones),
    scoring=r"(mean|sum)\d+-(bf16|fp32)(-seed\d+-\d+)?",
    batch_size=batch_sizes(min(method.least_batch for method in METHODS.values())),
    benchmark=either(STUDY.benchmarks),
    task=either({task.task for task in STUDY.tasks}),
    table=either(CONFIG.tables),
    figure=either(CONFIG.figures),


# --- what a job asks for: as much as model and corpus need, and more with each attempt

COSTS = Costs(STUDY, load_or_exit(load_sizes))
SITE = load_or_exit(load_site) if ARGS and ARGS.executor == "slurm" else None


def memory(name):
    return lambda wildcards, attempt: COSTS.memory_mb(name, dict(wildcards.items()), attempt)


def gpus(name):
    """As many as a job's evaluation is worth; a plain 0, by which a site knows its rule, where there are none."""
    return CONFIG.compute.evaluation_gpus and (lambda wildcards: COSTS.of(name, dict(wildcards.items())).gpus)


def runtime(name):
    longest = SITE.max_runtime if SITE else None
    return lambda wildcards, attempt: COSTS.minutes(name, dict(wildcards.items()), attempt, longest)


# --- what a job depends on, besides its inputs


def specified(make):
    """A job's specification by its wildcards, as JSON: all that its result depends on, and all that its script is given."""
    _, *names = inspect.signature(make).parameters
    return lambda wildcards: _specification(make, *(wildcards[name] for name in names))


@functools.cache
def _specification(make, *names):
    return make(STUDY, *names).model_dump(mode="json")


def compute(wildcards, threads):
    """How jobs are carried out. Snakemake notes no param that asks for `threads`, so a change runs no job again."""
    return CONFIG.compute.model_dump(mode="json")


def results(wildcards):
    """The folder of results, for scripts that read more than their inputs name one by one."""
    return LAYOUT.root


def code(*modules):
    """The hashes of the code that decides a result. An edit elsewhere does not run the job again."""
    return [code_hash(module) for module in modules]
