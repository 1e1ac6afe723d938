"""The plan: which jobs a target needs, what they ask for, and what is said about targets and input that are faulty."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from checkout import ROOT, Checkout

from revela.config import load

DEMO = ("--configfile", "config/demo.yaml")
SMALL = ("--configfile", "tests/small/config.yaml")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A checkout that no test changes."""
    return Checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture
def checkout(tmp_path):
    """A checkout of the test's own."""
    return Checkout(tmp_path / "checkout")


# --- what is planned


@pytest.mark.parametrize("profile", [(), ("--profile", "slurm")], ids=["local", "slurm"])
def test_table_1_of_the_paper(shared, profile):
    assert shared.plan(*profile, "results/tables/table1.tex") == {
        "dataset": 13,  # 10 of CoIR, 3 of training text
        "model": 8,  # 4 backbones, 4 encoders
        "punkt": 1,
        "chunks": 1,
        "batches": 2,  # of 16, and of 8 for the 3B retriever
        "replug_scores": 2,
        "train": 6,  # 4 Revela, 2 REPLUG
        "run": 100,  # 6 cells and 4 encoders on 10 tasks
        "run_bm25": 10,
        "score": 11,
        "table": 1,
    }


def test_the_cells_and_systems_of_table_1(shared):
    printed, _ = shared.snakemake("-n", "results/tables/table1.tex")
    cells = set(re.findall(r"output: results/models/(\S+)", printed))
    assert cells == {
        "revela/code/smollm2-135m/llama-3.2-1b/bs16",
        "revela/code/qwen2.5-0.5b/llama-3.2-1b/bs16",
        "revela/code/llama-3.2-1b/llama-3.2-1b/bs16",
        "revela/code/llama-3.2-3b/llama-3.2-1b/bs8",
        "replug/code/llama-3.2-1b/llama-3.2-1b/bs16",
        "replug/code/llama-3.2-3b/llama-3.2-1b/bs8",
    }
    scored = set(re.findall(r"output: results/scores/(\S+)/coir.json", printed))
    assert scored == cells | {"bm25", "unixcoder", "e5-pt-large", "bge-m3", "e5-mistral"}
    assert "ada-2" not in printed and "voyage" not in printed


def test_all_cells_of_the_paper(shared):
    plan = shared.plan("models")
    assert plan["train"] == 46
    assert plan["pairs"] == 2
    assert plan["replug_scores"] == 4  # wiki and code, of 16 and of 8
    assert plan["batches"] == 2 * 3 + 1 + 1  # wiki and code of 4, 8 and 16; mixed; fineweb
    assert plan["model"] == 5


def test_tables_and_figures_of_the_paper(shared):
    plan = shared.plan("all")
    assert plan["table"] == 3 and plan["figure"] == 1 and plan["training_curves"] == 1
    # tables 1, 6 and 7: 8 + 1 of Revela, 5 of REPLUG; figure 4: 3 sizes x 2 corpora x batches of 4 and 8
    assert plan["train"] == 9 + 5 + 12


def test_demo(shared, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = shared.plan(*DEMO)
    study = load("config/demo.yaml")
    shown = {
        system
        for name, table in study.config.tables.items()
        if not table.on_request
        for system in study.table_systems(name).values()
    }
    shown |= {system for figure in study.config.figures.values() for system in figure.systems}
    assert plan["train"] == sum(run.system in shown for run in study.runs)
    assert plan["table"] == 3 and plan["figure"] == 1 and plan["training_curves"] == 1
    assert plan["pairs"] == plan["replug_scores"] == 1


@pytest.mark.parametrize(
    "target, plan",
    [
        ("models/revela/wiki/qwen2.5-0.5b/smollm2-135m/bs4-tau1e-2", {"dataset": 1, "model": 2, "train": 1}),
        ("models/contriever/code/qwen2.5-0.5b/none/bs32", {"dataset": 3, "model": 1, "pairs": 1, "train": 1}),
        ("models/revela/mixed/qwen2.5-0.5b/smollm2-135m/bs16", {"dataset": 4, "model": 2, "train": 1}),
        ("models/revela/code-released/qwen2.5-0.5b/smollm2-135m/bs16", {"dataset": 1, "model": 2, "train": 1}),
        ("scores/bm25/bright.json", {"dataset": 1, "run_bm25": 12, "score": 1}),
        ("scores/untrained/llama-3.2-1b/beir.json", {"dataset": 13, "model": 1, "run": 13, "score": 1}),
    ],
)
def test_any_cell_is_a_target_by_its_path(shared, target, plan):
    planned = shared.plan(f"results/{target}")
    assert {rule: n for rule, n in planned.items() if rule not in ("punkt", "chunks", "batches")} == plan


def test_a_configfile_replaces_the_default(shared):
    printed, _ = shared.snakemake("-n", *DEMO)
    assert "results/demo/" in printed
    assert "llama-3.2-1b" not in printed


def test_planning_imports_nothing_heavy(shared):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *shared.command("-n", "results/tables/table1.tex")[1:]],
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
    printed, _ = shared.snakemake("-n", "--profile", "slurm", "results/tables/table1.tex")
    jobs = re.findall(r"rule (\w+):.*?resources: ([^\n]*)", printed, re.DOTALL)
    asked = {name: dict(re.findall(r"(\w+)=([^,]+)", resources)) for name, resources in jobs}
    assert {key: asked["train"][key] for key in ("gpu", "nodes", "gpu_model")} == {
        "gpu": "4",
        "nodes": "1",
        "gpu_model": "a100",
    }
    assert (asked["run"]["gpu"], asked["run"]["nodes"]) == ("1", "1")
    assert not {"gpu", "gpu_model"} & (asked["run_bm25"].keys() | asked["chunks"].keys() | asked["score"].keys())
    for name, resources in asked.items():
        assert "tasks" not in resources and "gres" not in resources, name
        assert int(resources["mem_mb"]) > 0 and int(resources["runtime"]) > 0, name


def test_profiles_name_rules_that_exist(shared):
    printed, status = shared.snakemake("--list-rules")
    assert status == 0
    rules = set(printed.split())
    for path in (shared.folder / "workflow/profiles").glob("*/config.yaml"):
        profile = yaml.safe_load(path.read_text())
        for key in ("set-resources", "set-threads"):
            assert set(profile.get(key, {})) <= rules, path


def test_the_root_knows_the_slurm_profile(shared):
    assert os.readlink(shared.folder / "slurm") == "workflow/profiles/slurm"


# --- one clear line


def failure(checkout, *arguments):
    """The last line of what a failing command printed."""
    printed, status = checkout.snakemake(*arguments)
    assert status != 0, printed
    assert "Traceback" not in printed
    return printed.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "target, expected",
    [
        ("results/models/revela/code/nosuch/llama-3.2-1b/bs8", "retriever: unknown 'nosuch'. Valid: smollm2-135m,"),
        ("results/models/revela/cod/llama-3.2-1b/llama-3.2-1b/bs8", "did you mean 'code'?"),
        ("results/models/simcse/code/llama-3.2-1b/none/bs8", "Valid: revela, replug, contriever"),
        ("results/models/revela/code/llama-3.2-1b/llama-3.2-1b/bs8-tau9", "variant: unknown 'tau9'"),
        ("results/models/revela/code/llama-3.2-1b", "write method/corpus/retriever/lm/bsN"),
        ("results/scores/bm26/coir.json", "unknown system 'bm26'; valid: a cell's path, bm25,"),
        ("results/scores/bm25/cior.json", "did you mean 'coir'?"),
        ("results/scores/ada-2/coir.json", "unknown system 'ada-2'"),
        ("results/runs/bm25/coir/cosqua.run.gz", "did you mean 'cosqa'?"),
        ("results/tables/table99.tex", "valid: results/tables/table1.tex,"),
        ("results/demo/tables/table1.tex", "add its --configfile"),
        ("tabels", "its rules are"),
    ],
)
def test_unknown_target(shared, target, expected):
    said = failure(shared, "-n", target)
    assert said.startswith(f"{target}: not a target: ") and expected in said


def test_unknown_key(checkout):
    checkout.edit("config/demo.yaml", "learning_rate:", "lerning_rate:")
    said = failure(checkout, "-n", *DEMO)
    assert said.startswith("config/demo.yaml: ") and "did you mean 'learning_rate'?" in said


def test_unknown_model_in_a_row(checkout):
    checkout.edit("config/runs.tsv", "demo\trevela\tcode\ttiny-4m", "demo\trevela\tcode\ttiny-5m")
    said = failure(checkout, "-n", *DEMO)
    assert said.startswith("config/runs.tsv: ") and "unknown 'tiny-5m'" in said and "tiny-4m" in said


def test_two_configurations(shared):
    assert "one complete file" in failure(shared, "-n", "--configfile", "config/demo.yaml", "config/config.yaml")


def test_settings_on_the_command_line_are_refused(shared):
    assert "--config is not used" in failure(shared, "-n", "--config", "seed=1")


def test_results_in_a_place_that_is_no_folder(checkout):
    checkout.edit("config/demo.yaml", "results: results/demo", "results: Snakefile/demo")
    assert "Snakefile/demo cannot be written" in failure(checkout, "--cores", "1", *DEMO)


def test_no_permission_to_write(checkout):
    results = checkout.folder / "results"
    results.mkdir(mode=0o555)
    command = checkout.command("--cores", "1", *DEMO)
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
        f"results: results/demo cannot be written: no permission in {results}, or it is not a folder"
    )
