"""The plan: any cell is a target, what jobs ask for, and what is said about targets and input that are faulty."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from checkout import ROOT, Checkout
from planner import plan

from revela.plan.costs import _SECTION, Costs
from revela.study.study import load

TINY = ("--configfile", "config/tiny.yaml")
SLURM = ("--profile", "slurm")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A checkout that no test changes."""
    return Checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture
def checkout(tmp_path):
    """A checkout of the test's own."""
    return Checkout(tmp_path / "checkout")


# --- what is planned


def test_the_command_of_the_readme(shared):
    """As it is typed; tests/workflow/test_dag.py counts the jobs of every table."""
    planned = shared.plan(*SLURM, "results/tables/table1.tex")
    assert planned["train"] == 6 and planned["run"] == 100 and planned["table"] == 1


def test_tiny(shared, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = load("config/tiny.yaml")
    planned = plan(shared.folder, "all", options=TINY)
    counts = planned.counts("all")
    default = [name for name, table in study.config.tables.items() if not table.on_request]
    assert counts["train"] == len(study.shown_cells()) == 7  # of table 1, and batches of 4 and 8 for figure 4
    assert counts["table"] == len(default)
    assert counts["pairs"] == counts["replug_scores"] == counts["corpus_report"] == 1
    assert all(str(file).startswith("results/tiny/") for job in planned.jobs for file in job.output)


CELLS = {
    "models/revela/wiki/qwen2.5-0.5b/smollm2-135m/bs4-tau1e-2": {"dataset": 1, "model": 2, "train": 1},
    "models/contriever/code/qwen2.5-0.5b/none/bs32": {"dataset": 3, "model": 1, "pairs": 1, "train": 1},
    "models/revela/mixed/qwen2.5-0.5b/smollm2-135m/bs16": {"dataset": 4, "model": 2, "train": 1},
    "models/revela/code-released/qwen2.5-0.5b/smollm2-135m/bs16": {"dataset": 1, "model": 2, "train": 1},
    "scores/bm25/bright.json": {"dataset": 1, "run_bm25": 12, "score": 1},
    "scores/untrained/llama-3.2-1b/beir.json": {"dataset": 13, "model": 1, "run": 13, "score": 1},
    # of BM25 8 sets of BEIR and 10 of CoIR, which three encoders share: 5, 5 and 3
    "anchors.md": {"dataset": 18, "model": 3, "run": 13, "run_bm25": 18, "anchors_page": 1},
}


def test_cells_and_systems_are_targets_by_their_paths(shared):
    planned = plan(shared.folder, *(f"results/{target}" for target in CELLS))
    for target, expected in CELLS.items():
        counts = planned.counts(f"results/{target}")
        assert {rule: n for rule, n in counts.items() if rule not in ("punkt", "chunks", "batches")} == expected


def test_a_corpus_is_rebuilt_or_released_by_one_word(checkout):
    target = "results/corpora/mixed/bs8/batches.parquet"
    released = {"dataset": 2, "batches": 3}
    assert plan(checkout.folder, target).counts(target) == {"dataset": 4, "punkt": 1, "chunks": 2, "batches": 3}
    text = (checkout.folder / "config/config.yaml").read_text()
    assert text.count("source: rebuild  #") == 2  # groups of other sizes stay as they are
    (checkout.folder / "config/config.yaml").write_text(text.replace("source: rebuild  #", "source: released  #"))
    assert plan(checkout.folder, target).counts(target) == released


def test_planning_imports_nothing_heavy(shared):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *shared.command("-n", "results/scores/bm25/bright.json")[1:]],
        cwd=shared.folder,
        env=shared.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(re.findall(r"\| +(\w+)", done.stderr))
    assert "pydantic" in imported
    assert not imported & {"torch", "transformers", "datasets", "matplotlib", "deepspeed", "sklearn"}


# --- what jobs ask for


def test_slurm_asks_for_four_gpus_on_one_node(shared):
    planned = plan(shared.folder, "results/tables/table1.tex", options=SLURM)
    asked = {job.rule.name: dict(job.resources.items()) for job in planned.jobs}
    assert {key: asked["train"][key] for key in ("gpu", "nodes", "gpu_model")} == {
        "gpu": 4,
        "nodes": 1,
        "gpu_model": "a100",
    }
    assert (asked["run"]["gpu"], asked["run"]["nodes"]) == (1, 1)
    assert not {"gpu", "gpu_model"} & (asked["run_bm25"].keys() | asked["chunks"].keys() | asked["score"].keys())
    for name, resources in asked.items():
        assert "tasks" not in resources and "gres" not in resources, name
        assert resources["mem_mb"] > 0 and resources["runtime"] > 0, name


def test_slurm_asks_for_a_task_on_each_of_several_nodes(checkout):
    """As many GPUs as a node has on each; on fewer nodes they are refused in one line."""
    target = "results/models/revela/wiki-bs256/qwen2.5-0.5b/llama-3.2-1b/bs256"
    checkout.edit("config/config.yaml", "training_gpus: 4", "training_nodes: 2\n  training_gpus: 8")
    (train,) = (job for job in plan(checkout.folder, target, options=SLURM).jobs if job.rule.name == "train")
    asked = dict(train.resources.items())
    assert {name: asked[name] for name in ("gpu", "nodes", "mpi", "tasks", "tasks_per_gpu", "slurm_extra")} == {
        "gpu": 8,
        "nodes": 2,
        "mpi": "srun",
        "tasks": 2,
        "tasks_per_gpu": 0,
        "slurm_extra": "--ntasks-per-node=1 --gpus-per-node=4",
    }
    checkout.edit("config/config.yaml", "training_nodes: 2", "training_nodes: 1")
    printed, status = checkout.snakemake("-n", target, *SLURM)
    assert status != 0 and "compute.training_gpus: 8 GPUs on 1 nodes, and a node of this site has 4" in printed


def test_all_that_is_said_of_a_rule_names_one_that_exists(shared):
    """Profiles, which Snakemake would not check, and what rules and the plan call each other by."""
    rules = {
        rule.name for options in ((), TINY) for rule in plan(shared.folder, "plan", options=options).workflow.rules
    }
    costs = {name[1:] for name, method in vars(Costs).items() if name.startswith("_") and callable(method)}
    named = set(_SECTION) | costs - {"_init__", "encoding", "width"}
    for path in (shared.folder / "workflow/profiles").glob("*/config.yaml"):
        profile = yaml.safe_load(path.read_text())
        named |= {*profile.get("set-resources", {}), *profile.get("set-threads", {})}
    for path in (shared.folder / "workflow/rules").glob("*.smk"):
        named |= set(re.findall(r'(?:memory|runtime)\("(\w+)"\)', path.read_text()))
        named |= set(re.findall(r'r\.name == "(\w+)"', path.read_text()))
    assert "train" in named and named <= rules


@pytest.mark.parametrize("option, value", [("--set-resources", "trian:mem_mb=4000"), ("--set-threads", "trian=4")])
def test_a_misspelt_rule_under_set_resources(shared, option, value):
    said = failure(shared, "results/scores/bm25/coir.json", options=(option, value))
    assert said.startswith(f"{option} trian: no such rule; valid: ") and " train," in said


def test_a_dry_run_without_slurm(shared, tmp_path, monkeypatch):
    """On a machine that has none of SLURM's commands; without -n it says so."""
    for program in ("which", "sh", "bash", "env"):
        (tmp_path / program).symlink_to(shutil.which(program))
    monkeypatch.setenv("PATH", str(tmp_path))
    target = "results/scores/bm25/coir.json"
    assert shared.plan(target, *SLURM)["run_bm25"] == 10
    printed, status = shared.snakemake(target, *SLURM)
    assert status != 0
    assert printed.strip().splitlines()[-1].startswith("--profile slurm: SLURM's commands are not on this machine")


def test_the_root_knows_the_slurm_profile(shared):
    assert os.readlink(shared.folder / "slurm") == "workflow/profiles/slurm"


# --- one clear line


def failure(checkout, *targets, options=()):
    """What is said before the first job, and all that is said."""
    with pytest.raises(SystemExit) as error:
        plan(checkout.folder, *targets, options=options)
    assert "\n" not in error.value.code
    return error.value.code


def test_a_fault_is_the_last_line_of_the_command(shared):
    printed, status = shared.snakemake("-n", "tabels")
    assert status != 0 and "Traceback" not in printed
    assert printed.strip().splitlines()[-1].startswith("tabels: not a target: ")


@pytest.mark.parametrize(
    "target, expected",
    [
        ("results/models/revela/code/nosuch/llama-3.2-1b/bs8", "retriever: unknown 'nosuch'. Valid: smollm2-135m,"),
        ("results/models/revela/cod/llama-3.2-1b/llama-3.2-1b/bs8", "did you mean 'code'?"),
        ("results/models/simcse/code/llama-3.2-1b/none/bs8", "Valid: revela, replug, contriever"),
        ("results/models/revela/code/llama-3.2-1b/llama-3.2-1b/bs8-tau9", "variant: unknown 'tau9'"),
        ("results/models/revela/code/llama-3.2-1b/llama-3.2-1b/bs1", "batch size 1; valid: 3 or more"),
        ("results/models/revela/code/llama-3.2-1b/llama-3.2-1b/bs2", "batch size 2; valid: 3 or more"),
        ("results/models/revela/code/llama-3.2-1b", "write method/corpus/retriever/lm/bsN"),
        ("results/scores/bm26/coir.json", "unknown system 'bm26'; did you mean 'bm25'? Valid: a cell's path, "),
        ("results/scores/bm25/cior.json", "did you mean 'coir'?"),
        ("results/runs/bm25/coir/cosqua.run.gz", "did you mean 'cosqa'?"),
        ("results/runs/bm26/coir/cosqa.run.gz", "unknown system 'bm26'; did you mean 'bm25'?"),
        ("results/tables/table99.tex", "valid: results/tables/table1.tex,"),
        ("results/tiny/tables/table1.tex", "add its --configfile"),
        ("tabels", "its rules are"),
    ],
)
def test_unknown_target(shared, target, expected):
    said = failure(shared, target)
    assert said.startswith(f"{target}: not a target: ") and expected in said


def test_unknown_key(checkout):
    checkout.edit("config/tiny.yaml", "learning_rate:", "lerning_rate:")
    said = failure(checkout, options=TINY)
    assert said.startswith("config/tiny.yaml: ") and "did you mean 'learning_rate'?" in said


def test_unknown_model_in_a_row(checkout):
    checkout.edit("config/runs.tsv", "tiny\trevela\tcode\ttiny-4m", "tiny\trevela\tcode\ttiny-5m")
    said = failure(checkout, options=TINY)
    assert said.startswith("config/runs.tsv: ") and "unknown 'tiny-5m'" in said and "tiny-4m" in said


def test_two_configurations(shared):
    assert "one complete file" in failure(shared, options=(*TINY, "config/config.yaml"))


def test_settings_on_the_command_line_are_refused(shared):
    assert "--config is not used" in failure(shared, options=("--config", "seed=1"))


def test_results_in_a_place_that_is_no_folder(checkout):
    checkout.edit("config/tiny.yaml", "results: results/tiny", "results: Snakefile/tiny")
    assert "Snakefile/tiny cannot be written" in failure(checkout, options=TINY)


@pytest.mark.parametrize("folder, said", [("results", "results/tiny"), (".snakemake", ".snakemake")])
def test_no_permission_to_write(checkout, folder, said):
    folder = checkout.folder / folder
    folder.mkdir(mode=0o555)
    command = checkout.command("--cores", "1", *TINY)
    if os.getuid() == 0:  # root may write anywhere, but for what it gives up
        if not shutil.which("setpriv"):
            pytest.skip("as root, and without setpriv (util-linux) to give up root's permission to write anywhere")
        rights = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}", *command]
    done = subprocess.run(
        command, cwd=checkout.folder, env=checkout.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1] == (
        f"results: {said} cannot be written: no permission in {folder}, or it is not a folder"
    )
