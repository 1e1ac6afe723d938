"""The plan: what jobs cost before they run, how that follows from sizes, and how finished jobs correct it."""

import csv
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from checkout import ROOT

from revela import workflow
from revela.plan import encoding, flops
from revela.plan import jobs as planning
from revela.plan.cost import LIGHT, Cost
from revela.plan.costs import Costs
from revela.plan.flops import Shape
from revela.plan.jobs import Finished, Measured, Plan, schedule
from revela.study.base import ConfigError
from revela.study.cell import Cell
from revela.study.layout import Layout
from revela.study.site import Site, load_site
from revela.study.sizes import Sizes, load_sizes
from revela.study.study import load
from revela.workflow import Job, parse_jobs

PAPER = "revela/{}/llama-3.2-1b/llama-3.2-1b/bs16"
UNTIED = {"llama-3.1-8b"}  # models with a head of its own


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def costs(tmp_path):
    """Of the paper, where nothing has been fetched."""
    study = load("config/config.yaml")
    config = study.config.model_copy(update={"results": str(tmp_path)})
    return Costs(replace(study, config=config), load_sizes())


# --- sizes


@pytest.mark.parametrize("name", load_sizes().models)
def test_shapes_agree_with_parameters(name):
    size = load_sizes().models[name]
    shape = Shape(**size.model_dump(exclude={"parameters"}))
    embeddings = shape.hidden * shape.vocabulary * (2 if name in UNTIED else 1)
    assert shape.weights + embeddings == pytest.approx(1e9 * size.parameters, rel=0.01)


def test_sizes_name_what_the_paper_uses():
    study, sizes = load("config/config.yaml"), load_sizes()
    assert set(study.backbones) == set(sizes.models)
    assert {task.key for task in study.tasks} >= set(sizes.tasks)
    assert {task.key for task in study.tasks if task.benchmark in ("coir", "beir", "bright")} <= set(sizes.tasks)
    assert set(sizes.datasets) <= set(study.config.datasets)


def test_a_site_that_edits_nothing_is_valid():
    assert load_site() == Site()


def test_an_unknown_key_of_a_site(tmp_path):
    (tmp_path / "site.yaml").write_text("acount: nlp\n")
    with pytest.raises(ConfigError, match="site.yaml: acount: unknown key; did you mean 'account'?"):
        load_site(tmp_path / "site.yaml")


def test_what_jobs_ask_of_a_site():
    site = Site(account="nlp", partition="cpu", gpu_partition="gpu", constraint="a100_80gb")
    assert site.resources(gpu=False) == {"slurm_account": "nlp", "slurm_partition": "cpu"}
    gpu = {"slurm_account": "nlp", "slurm_partition": "gpu", "gpu_model": "a100", "constraint": "a100_80gb"}
    assert site.resources(gpu=True) == gpu
    assert Site(partition="all", gpu_model=None).resources(gpu=True) == {"slurm_partition": "all"}


# --- costs


def test_the_papers_own_hours(costs):
    """44 hours on four A100s for Wikipedia and 48 for code (section 4.1), of which the assumed MFU was made."""
    wiki, code = (costs.of("train", {"cell": PAPER.format(corpus)}) for corpus in ("wiki", "code"))
    assert wiki.gpus == code.gpus == 4
    assert wiki.seconds / 3600 == pytest.approx(44, rel=0.15)
    assert code.seconds / 3600 == pytest.approx(48, rel=0.15)


def test_larger_models_and_corpora_ask_for_more(costs):
    def train(retriever, batch_size=8):
        return costs.of("train", {"cell": f"revela/wiki/{retriever}/llama-3.2-1b/bs{batch_size}"})

    def run(system, task):
        return costs.of("run", {"system": f"untrained/{system}", "benchmark": "beir", "task": task})

    small, large, huge = (train(f"llama-3.{version}") for version in ("2-1b", "2-3b", "1-8b"))
    assert small.seconds < large.seconds < huge.seconds
    assert small.memory < large.memory < huge.memory
    assert 1.9 < train("llama-3.2-1b", 16).seconds / small.seconds < 2.1
    assert run("llama-3.2-1b", "nfcorpus").seconds < 60
    assert run("llama-3.2-1b", "hotpotqa").gpu_hours > 1
    assert run("llama-3.2-1b", "hotpotqa").seconds < run("llama-3.1-8b", "hotpotqa").seconds
    assert costs.of("run_bm25", {"system": "bm25", "benchmark": "beir", "task": "fever"}).memory > 30


def test_two_nodes_take_half_the_time_and_on_each_as_much_memory(costs):
    cell = {"cell": PAPER.format("wiki")}
    one = costs.of("train", cell)
    costs.compute = costs.compute.model_copy(update={"training_nodes": 2, "training_gpus": 8})
    two = costs.of("train", cell)
    assert (two.gpus, two.cores, two.memory) == (8, 2 * one.cores, pytest.approx(one.memory))
    assert two.seconds == pytest.approx(one.seconds / 2, rel=1e-3)


def test_what_processes_exchange_takes_time(costs):
    """Little within a node; over nodes, ten times that."""
    cell = {"cell": "revela/wiki-bs256/qwen2.5-0.5b/llama-3.2-1b/bs256"}
    one = costs.of("train", cell)
    operations = one.operations / costs.peak(4, costs.compute.training_mfu)
    assert 0 < (within := one.seconds - operations - 20) < 0.01 * operations
    costs.compute = costs.compute.model_copy(update={"training_nodes": 2})
    assert costs.of("train", cell).seconds - operations - 20 == pytest.approx(10 * within)


def test_memory_and_time_grow_with_the_attempt(costs):
    cell = {"cell": PAPER.format("wiki")}
    memory = [costs.memory_mb("train", cell, attempt) for attempt in (1, 2, 3, 9)]
    assert memory == [memory[0], 1.5 * memory[0], 2 * memory[0], 2 * memory[0]]
    task = {"system": "bm25", "benchmark": "beir", "task": "hotpotqa"}
    assert costs.minutes("run_bm25", task, 3) == 3 * costs.minutes("run_bm25", task, 1)
    assert costs.minutes("run_bm25", task, 3, longest=60) == 60
    assert costs.minutes("train", cell, 1, longest=1440) == 1440


def test_what_is_given_is_asked_for():
    costs = Costs(load("config/tiny.yaml"), load_sizes())
    cell = {"cell": "revela/code/tiny-4m/tiny-4m/bs16"}
    assert (costs.memory_mb("train", cell, 1), costs.minutes("train", cell, 1)) == (4000, 120)
    assert costs.of("train", cell).gpus == 0
    assert costs.notes == set()  # tiny's models are here, and its tasks as large as it says


def test_what_is_not_known_is_assumed_and_said(costs):
    model = costs.study.models["llama-3.2-1b"].model_copy(update={"name": "new-2b", "size": "2B", "source": "hub:a/b"})
    costs.study.models["new-2b"] = model
    shape = costs.shape("new-2b")
    assert shape in (costs.shape("llama-3.2-1b"), costs.shape("llama-3.2-3b"))
    assert costs.parameters(model) == 2e9
    assert any(note.startswith("model new-2b: a shape like that of") for note in costs.notes)
    assert Costs(costs.study, Sizes()).task("beir", "nq").documents == 100_000


def test_every_job_of_a_cell_has_a_cost(costs):
    cell = Cell.parse("replug/mixed/qwen2.5-0.5b/llama-3.2-1b/bs16")
    assert costs.of("train", {"cell": cell.path}).operations > 0
    scores = costs.of(
        "replug_scores", {"corpus": "mixed", "batch_size": "16", "lm": "llama-3.2-1b", "scoring": "mean156-bf16"}
    )
    assert scores.gpus == costs.compute.scoring_gpus == 4 and scores.disk == pytest.approx(320_000 * 256 * 4 / 1e9)
    for rule, wildcards in {
        "dataset": {"dataset": "wikipedia"},
        "model": {"model": "llama-3.2-1b"},
        "chunks": {"corpus": "code"},
        "batches": {"corpus": "mixed", "batch_size": "16"},
        "pairs": {"corpus": "wiki", "batch_size": "16"},
        "score": {"system": "bm25", "benchmark": "coir"},
    }.items():
        assert costs.of(rule, wildcards).seconds > LIGHT, rule
    assert costs.of("table", {"table": "table1"}) == Cost()


def test_jobs_ask_for_what_they_hold(costs):
    """Runs are streamed; an export holds its weights in float32 twice; BM25 is one thread."""
    score = [costs.of("score", {"system": "bm25", "benchmark": benchmark}).memory for benchmark in ("coir", "beir")]
    assert all(4 < memory < 8 for memory in score)
    export = costs.of("export", {"cell": "revela/wiki/llama-3.1-8b/llama-3.2-1b/bs8"})
    assert export.memory == pytest.approx(4 + 8 * 8.03, rel=0.01)
    assert costs.of("run_bm25", {"system": "bm25", "benchmark": "coir", "task": "cosqa"}).cores == 1


# --- which jobs

PRINTED = """
Building DAG of jobs...
Job stats:
total              3

[Sat Nov 21 17:08:44 2026]
rule model:
    output: results/resources/models/a
    log: results/logs/model/a.log
    jobid: 3
    benchmark: results/benchmarks/model/a.tsv
    reason: Missing output files: results/resources/models/a
    wildcards: model=a
    resources: tmpdir=/tmp, mem_mb=2000, mem=2 GB, runtime=30
[Sat Nov 21 17:08:44 2026]
rule train:
    input: results/resources/models/a, results/corpora/code/bs4/batches.parquet
    output: results/models/revela/code/a/a/bs4
    jobid: 1
    benchmark: results/benchmarks/train/revela/code/a/a/bs4.tsv
    wildcards: cell=revela/code/a/a/bs4
    threads: 16
    resources: tmpdir=/tmp, gpu=4
[Sat Nov 21 17:08:44 2026]
localrule all:
    input: results/models/revela/code/a/a/bs4
    jobid: 0
    reason: Rules with neither input nor output files are always executed.
    resources: tmpdir=/tmp
"""


def test_jobs_of_a_dry_run():
    model, train = parse_jobs(PRINTED)
    assert (model.rule, model.inputs, model.outputs) == ("model", (), ("results/resources/models/a",))
    assert train.wildcards == {"cell": "revela/code/a/a/bs4"}
    assert train.inputs == ("results/resources/models/a", "results/corpora/code/bs4/batches.parquet")
    assert train.benchmark == "results/benchmarks/train/revela/code/a/a/bs4.tsv"
    assert (train.kind, model.kind) == (("train", "revela"), ("model", ""))


def test_the_paper_is_planned_from_any_folder(tmp_path, monkeypatch):
    """In the checkout; another study where it is named from. Both by the checkout's rules."""
    asked = []

    def run(command, **_):
        asked.append(
            (Path.cwd(), command[command.index("--snakefile") + 1], command[command.index("--configfile") + 1])
        )
        return subprocess.CompletedProcess(command, 0, PRINTED, "")

    monkeypatch.setattr(workflow.subprocess, "run", run)
    monkeypatch.setattr(planning.Costs, "of", lambda *_: Cost())
    (tmp_path / "own.yaml").symlink_to(ROOT / "config/tiny.yaml")
    (tmp_path / "config").symlink_to(ROOT / "config")
    monkeypatch.chdir(tmp_path)
    planning.make_plan([])
    planning.make_plan([], "own.yaml")
    rules = str(ROOT / "Snakefile")
    assert asked == [(ROOT, rules, "config/config.yaml")] * 2 + [(tmp_path, rules, "own.yaml")] * 2


# --- how long it takes


def job(name, *inputs, rule="run"):
    return Job(rule, {"name": name}, inputs, (name,))


def test_schedule_by_hand():
    a, b = (job("a"), Cost(seconds=10, gpus=1)), (job("b", "a"), Cost(seconds=5, gpus=1))
    c, d = (job("c"), Cost(seconds=8, gpus=1)), (job("d", "b", "c"), Cost(seconds=1))
    assert schedule([], 1) == 0
    assert schedule([a, b, c, d], gpus=2) == 16  # a, b and d in a row; c beside
    assert schedule([a, b, c, d], gpus=1) == 24  # one after the other
    wide = (job("e"), Cost(seconds=3, gpus=4))
    assert schedule([wide, c], gpus=2) == 11  # what wants more than there is gets all there is
    assert schedule([(job(str(n)), Cost(seconds=1)) for n in range(50)], gpus=1) == 1  # cores are not counted


def test_sums_and_the_part_of_a_target():
    jobs = [
        (job("data", rule="dataset"), Cost(seconds=3600, download=2.0, disk=2.0)),
        (job("model", "data", rule="train"), Cost(seconds=7200, gpus=4, cores=32)),
        (job("other", "data", rule="train"), Cost(seconds=3600, gpus=4)),
    ]
    plan = Plan(jobs, Site(gpus=4, price=2.5), [], 0)
    assert (plan.total("gpu_hours"), plan.node_hours, plan.total("core_hours")) == (12, 3, 1)
    assert plan.wall_seconds == 3600 + 7200 + 3600
    assert plan.price == 30
    assert plan.rows()[-1] == ["all", 3, "12.0", "1.0", "2 h 0 min", "2.0", "2.0"]
    part = plan.only("model")
    assert {one.name for one, _ in part.jobs} == {"data", "model"}
    assert part.line()[:3] == [2, 1, "8"]
    assert "30 EUR" in planning.show(plan) and "price" not in planning.show(Plan(jobs, Site(), [], 0))


def test_pages(tmp_path):
    plan = Plan([(job("<a>"), Cost(seconds=60, gpus=1, operations=1e15))], Site(), ["a < b"], 2)
    planning.write({"table1": plan}, Layout(str(tmp_path)))
    rows = list(csv.DictReader((tmp_path / "plan.csv").open()))
    assert (rows[0]["target"], rows[0]["job"], float(rows[0]["gpu_hours"])) == (
        "table1",
        "<a>",
        pytest.approx(1 / 60, rel=1e-4),
    )
    page = (tmp_path / "plan.html").read_text()
    assert "<h2>table1</h2>" in page and "a &lt; b" in page and "refined by: 2 finished jobs" in page


# --- what has been measured


def test_finished_jobs_correct_those_of_their_kind(costs):
    cells = [PAPER.format("wiki"), PAPER.format("code"), PAPER.format("code").replace("revela", "replug", 1)]
    wiki, code, replug = (Job("train", {"cell": cell}, (), (cell,)) for cell in cells)
    planned = costs.of("train", wiki.wildcards).seconds
    measured = Measured(costs, [Finished(wiki, planned / 3, 1.0)])
    assert measured.factor(code) == pytest.approx(1 / 3)
    assert measured.factor(replug) == pytest.approx(1 / 3)  # of the same rule, for want of its own method
    assert measured.factor(Job("run", {}, (), ("x",))) == 1


def test_times_of_benchmark_files(tmp_path):
    def made(rule, cell, line):
        path = tmp_path / "benchmarks" / f"{cell}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\tcpu_time\n{line}\n")
        return Job(rule, {"cell": cell}, (), (cell,), str(path))

    jobs = [made("run", "a", "10.0\t0:0:10\t1\t7.5"), made("run", "b", "10.0\t0:0:10\t1\tNA")]
    jobs += [made("train", "c", "10.0\t0:0:10\t1\t5.0"), Job("run", {"cell": "d"}, (), ("d",), str(tmp_path / "d"))]
    (tmp_path / "usage/c").mkdir(parents=True)
    for number, (seconds, cpu_seconds) in enumerate([(90.0, None), (10.0, 5.0)]):  # the first was killed
        record = {"seconds": seconds, "cpu_seconds": cpu_seconds, "gpus": 4, "utilisation": None}
        (tmp_path / f"usage/c/{number:03d}.json").write_text(json.dumps(record))
    found = planning.finished_jobs(Layout(str(tmp_path)), jobs)
    assert [(one.seconds, one.core_seconds) for one in found] == [(10, 7.5), (10, 10), (100, 50)]


def times():
    """What tiny's jobs took on two loaded cores: (job, seconds by the clock, seconds of the cores)."""
    rows = csv.DictReader((Path(__file__).parents[1] / "tiny_times.tsv").open(), delimiter="\t")
    for row in rows:
        wildcards = dict(pair.split("=") for pair in row["job"].split(","))
        yield Finished(Job(row["rule"], wildcards, (), (row["job"],)), float(row["s"]), float(row["cpu_time"]))


def test_plan_of_tiny_within_a_factor_of_two():
    """Each of tiny's jobs, planned after all others of tiny have been measured."""
    costs, finished = Costs(load("config/tiny.yaml"), load_sizes()), list(times())
    predicted = 0.0
    for one in finished:
        others = [other for other in finished if other is not one]
        if not any(other.job.rule == one.job.rule for other in others):
            continue  # the only one of its rule: nothing to learn from
        cost = costs.of(one.job.rule, one.job.wildcards)
        seconds = cost.cores * cost.seconds * Measured(costs, others).factor(one.job)
        assert 0.5 < seconds / one.core_seconds < 2, one
        predicted += seconds
    assert predicted == pytest.approx(sum(one.core_seconds for one in finished), rel=0.2)


# --- encoding


def test_the_largest_tasks_take_less_than_four_hours(costs):
    """By a model of 8B parameters, on four GPUs; and small tasks ask for one."""
    assert costs.compute.evaluation_gpus == 4 and costs.compute.device == "A100"
    found = {
        task.key: costs.of("run", {"system": "untrained/llama-3.1-8b", "benchmark": task.benchmark, "task": task.task})
        for task in costs.study.tasks
    }
    largest = max(found, key=lambda task: found[task].seconds)
    assert (largest, found[largest].gpus) == ("beir/fever", 4)
    assert 3 * 3600 < found[largest].seconds < 4 * 3600
    assert {task for task, cost in found.items() if cost.gpus == 1} >= {"coir/cosqa", "beir/scifact", "bright/biology"}
    assert found["beir/fever"].memory > 4 * 2 * 8.03 > found["beir/scifact"].memory


def test_gpus_and_shares_by_hand(costs):
    def shared(alone, documents, **changes):
        return encoding.gpus_and_share(costs.compute.model_copy(update=changes), documents, alone)

    assert shared(3599, 10**6) == (1, 1)
    assert shared(3601, 10**6) == (2, 1 / 2)
    assert shared(99999, 10**6) == (4, 1 / 4)
    assert shared(99999, 10**6, evaluation_gpus=3) == (3, 7 / 20)  # 20 shards: 7, 7 and 6
    assert shared(99999, 99_999) == (2, 1 / 2)  # two shards
    assert shared(99999, 10**6, evaluation_gpus=0) == (0, 1)


def test_encoding_takes_what_was_measured(costs):
    """On an H100: tokens a second of Llama's shapes of 8B and 1B in bfloat16, and of BERT's base in both precisions."""
    compute = costs.compute.model_copy(update={"device": "NVIDIA H100 80GB HBM3"})
    for name, measured in (("llama-3.1-8b", 33890), ("llama-3.2-1b", 181146)):
        shape = costs.shape(name)
        seconds = encoding.seconds(compute, 1, flops.forward(shape, [131]) / 131, shape.layers * shape.hidden)
        assert 1 / seconds == pytest.approx(measured, rel=0.1)
    for precision, measured in (("bf16", 893622), ("fp32", 229729)):
        seconds = encoding.seconds(compute, 1, 2 * 12 * 12 * 768**2, 12 * 768, precision)
        assert 1 / seconds == pytest.approx(measured, rel=0.25)


def test_plans_know_the_precision(costs, tmp_path):
    """float32 takes as much longer as the GPU is slower in it; as stored, by config.json, or by kind and size."""

    def of(system, precision):
        config = costs.study.config
        evaluation = config.evaluation.model_copy(update={"encoder_precision": precision})
        study = replace(costs.study, config=config.model_copy(update={"evaluation": evaluation}))
        return Costs(study, costs.sizes).of("run", {"system": system, "benchmark": "beir", "task": "nfcorpus"})

    for system in ("contriever", "e5-mistral"):
        assert 5 < (of(system, "fp32").seconds - 20) / (of(system, "bf16").seconds - 20) < 20
    assert of("contriever", "stored") == of("contriever", "fp32")
    assert of("e5-mistral", "stored") == of("e5-mistral", "bf16")
    folder = costs.folder("contriever")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"dtype": "float16"}))
    assert of("contriever", "stored") == of("contriever", "bf16")


def test_every_chip_has_all_figures():
    assert flops.PEAK.keys() == encoding.PEAK_FP32.keys() == encoding.BANDWIDTH.keys()
