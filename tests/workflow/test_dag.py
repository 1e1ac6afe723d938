"""Every table and figure of the paper is planned as counted by hand; edits plan again what they touch, and no more."""

import pytest
from checkout import ROOT, Checkout
from planner import plan

from revela.plan import jobs as planning
from revela.plan.costs import Costs
from revela.study import code
from revela.study.site import Site
from revela.study.sizes import load_sizes
from revela.study.study import load
from revela.workflow import Job

SLURM = ("--profile", "slurm")


def jobs(**counts):
    return counts


# What each target needs, counted by hand: sources of text (wikipedia 1, code 3, fineweb-edu 1) beside the benchmark's
# datasets (CoIR 10, BEIR 13, BRIGHT 1 of 12 tasks); backbones and encoders; a run for each system and task. BM25 has
# runs of its own, APIs have none.
ONE = jobs(punkt=1, table=1)
TABLES = {
    # 4 backbones and 4 encoders; batches of 16, and of 8 for 3B; 4 cells of Revela and 2 of REPLUG
    "table1": ONE | jobs(dataset=13, model=8, chunks=1, batches=2, replug_scores=2, train=6, run=100, run_bm25=10, score=11),
    # the means of tables 8 and 9: their four cells on both benchmarks
    "table2": ONE | jobs(dataset=27, model=1, chunks=2, batches=2, pairs=2, train=4, run=92, score=8),
    # 4 backbones and 3 encoders; wiki of 16 and 8, code of 8; Revela 4 + 1, REPLUG 3
    "table6": ONE | jobs(dataset=17, model=7, chunks=2, batches=3, replug_scores=2, train=8, run=143, run_bm25=13, score=12),
    # 4 backbones and 2 encoders; wiki of 16 and 8; Revela 4, REPLUG 1
    "table7": ONE | jobs(dataset=2, model=6, chunks=1, batches=2, replug_scores=1, train=5, run=84, run_bm25=12, score=8),
    # Revela and Contriever of 1B on both corpora
    "table8": ONE | jobs(dataset=14, model=1, chunks=2, batches=2, pairs=2, train=4, run=40, score=4),
    "table9": ONE | jobs(dataset=17, model=1, chunks=2, batches=2, pairs=2, train=4, run=52, score=4),
    # 3 retrievers x batches of 4, 8 and 16
    "table10": ONE | jobs(dataset=13, model=3, chunks=1, batches=3, train=9, run=90, score=9),
    "table11": ONE | jobs(dataset=14, model=3, chunks=1, batches=3, train=9, run=117, score=9),
    # 3 retrievers x 3 LMs, which are the same models
    "table12": ONE | jobs(dataset=14, model=3, chunks=1, batches=1, train=9, run=117, score=9),
    "table13": ONE | jobs(dataset=13, model=3, chunks=1, batches=1, train=9, run=90, score=9),
    # 3 retrievers; the batches of the mix and of its two parts
    "table14": ONE | jobs(dataset=14, model=3, chunks=2, batches=3, train=3, run=30, score=3),
    "table15": ONE | jobs(dataset=17, model=3, chunks=2, batches=3, train=3, run=39, score=3),
    "table16": ONE | jobs(dataset=11, model=3, chunks=1, batches=1, train=3, run=30, score=3),
    "table17": ONE | jobs(dataset=14, model=3, chunks=1, batches=1, train=3, run=39, score=3),
    # one language model before and after its training; seven tasks from six datasets, and Wikipedia
    "table18": ONE | jobs(dataset=7, model=1, chunks=1, batches=1, train=1, language_model=2),
    # published adapters on 3 backbones: no text, no training
    "released1": jobs(table=1, dataset=10, model=12, run=80, run_bm25=10, score=9),  # 4 encoders, 4 adapters
    "released6": jobs(table=1, dataset=13, model=12, run=104, run_bm25=13, score=9),  # 3 encoders, 5 adapters
    "released7": jobs(table=1, dataset=1, model=8, run=60, run_bm25=12, score=6),  # 2 encoders, 3 adapters
    "released8": jobs(table=1, dataset=10, model=3, run=20, score=2),  # 2 adapters on one backbone
    "released9": jobs(table=1, dataset=13, model=3, run=26, score=2),
    # one cell as in the paper and eleven variants, two of which have batches of their own from the same chunks
    "ablations-coir": ONE | jobs(dataset=13, model=2, chunks=1, batches=3, train=12, run=120, score=12),
    "ablations-beir": ONE | jobs(dataset=14, model=2, chunks=1, batches=3, train=12, run=156, score=12),
    # one retriever, batches of 4 to 256 made of the same chunks
    "batch-size-coir": ONE | jobs(dataset=13, model=2, chunks=1, batches=7, train=7, run=70, score=7),
    "batch-size-beir": ONE | jobs(dataset=14, model=2, chunks=1, batches=7, train=7, run=91, score=7),
}  # fmt: skip
ONE = jobs(punkt=1, figure=1)
CORPUS = jobs(punkt=1, corpus_report=1, corpus_figure=1)
FIGURES = {
    # tables 6 and 7: 5 backbones and 4 encoders; of their cells table 7 adds that of 8B
    "figure3": ONE
    | jobs(dataset=18, model=9, chunks=2, batches=3, replug_scores=2, train=9, run=227, run_bm25=25, score=20),
    # tables 10 and 11: 3 retrievers x batches of 4, 8 and 16 on two corpora
    "figure4": ONE | jobs(dataset=27, model=3, chunks=2, batches=6, train=18, run=207, score=18),
    # one retriever, batches of 4 to 256 on two corpora
    "batch-size": ONE | jobs(dataset=27, model=2, chunks=2, batches=14, train=14, run=161, score=14),
    # tables 12 and 13: 3 retrievers x 3 LMs on two corpora
    "figure5": ONE | jobs(dataset=27, model=3, chunks=2, batches=2, train=18, run=207, score=18),
    # one cell, which has logged what is drawn
    "figure6": ONE | jobs(dataset=1, model=1, chunks=1, batches=1, train=1),
    # the 46 cells: wiki and code of 4, 8 and 16, mixed, fineweb; REPLUG on wiki and code of 8 and 16
    "training": ONE | jobs(dataset=5, model=5, chunks=3, batches=8, pairs=2, replug_scores=4, train=46),
    # tables 1, 6 and 7: 6 + 7 + 1 cells, 5 backbones and 6 encoders
    "hours": ONE
    | jobs(dataset=28, model=11, chunks=2, batches=4, replug_scores=4, train=14, run=327, run_bm25=35, score=31),
    # the log of one cell
    "same_document": ONE | jobs(dataset=1, model=1, chunks=1, batches=1, train=1),
    "timing": ONE | jobs(dataset=1, model=1, chunks=1, batches=1, timing=1),
    "corpus-wiki": CORPUS | jobs(dataset=1, chunks=1, batches=3, group_sizes=1),
    "corpus-code": CORPUS | jobs(dataset=3, chunks=1, batches=3),
    "corpus-mixed": CORPUS | jobs(dataset=4, chunks=2, batches=3),
    "corpus-fineweb": CORPUS | jobs(dataset=1, chunks=1, batches=1),
}  # fmt: skip
# The cell of round 2: batches of code, grouped by the cell of round 0 and then by that of round 1.
ROUND = "results/models/revela/code+r2/llama-3.2-1b/llama-3.2-1b/bs16"
ROUNDS = """\
  code+r1: {regroup: {corpus: code, by: revela/code/random/random/bs4}}
  code+r2: {regroup: {corpus: code, by: revela/code+r1/random/random/bs4}}
"""
TARGETS = [f"results/tables/{table}.tex" for table in TABLES] + [f"results/figures/{figure}.pdf" for figure in FIGURES]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A checkout without results."""
    return Checkout(tmp_path_factory.mktemp("clean")).folder


@pytest.fixture(scope="module", params=[(), SLURM], ids=["local", "slurm"])
def planned(request, clean):
    """All tables, figures and cells under one profile."""
    return plan(clean, "all", "models", "ablations", "released", "check", ROUND, *TARGETS, options=request.param)


def test_every_table_as_counted_by_hand(planned):
    """A new table adds a line to TABLES."""
    tables = load("config/config.yaml").config.tables
    assert {table: planned.counts(f"results/tables/{table}.tex") for table in tables} == TABLES
    for table in planned.needed("all"):  # what stands beside a table needs what the table needs
        if table.rule.name in ("compare", "lineage"):
            beside = dict(TABLES[table.wildcards.table])
            beside[table.rule.name] = beside.pop("table")
            assert planned.counts(str(table.output[0])) == beside


def test_what_a_script_reads_as_one_folder_is_one(planned):
    """Snakemake hands on a list of one as a list."""
    models = {job.wildcards.system: job.input.model for job in planned.jobs if job.rule.name == "language_model"}
    assert len(models) == 2 and all(isinstance(folder, str) for folder in models.values()), models


def test_every_figure_as_counted_by_hand(planned):
    """A new figure adds a line to FIGURES."""
    assert load("config/config.yaml").config.figures.keys() <= FIGURES.keys()
    assert {figure: planned.counts(f"results/figures/{figure}.pdf") for figure in FIGURES} == FIGURES


def test_the_cells_of_the_paper(planned):
    """39 of Revela, 5 of REPLUG, 2 of Contriever; the ablations of ours are trained for their own tables."""
    cells = [
        str(job.output[0]).removeprefix("results/models/")
        for job in planned.needed("models")
        if job.rule.name == "train"
    ]
    methods = [cell.split("/")[0] for cell in cells]
    assert (len(cells), methods.count("revela"), methods.count("replug"), methods.count("contriever")) == (46, 39, 5, 2)
    assert not any("-tau" in cell or "group" in cell for cell in cells)
    counts = planned.counts("models")
    # wiki and code of 4, 8 and 16; mixed; fineweb
    assert (counts["batches"], counts["replug_scores"], counts["pairs"], counts["model"]) == (8, 4, 2, 5)
    ablations = {job for job in planned.needed("ablations") if job.rule.name == "train"}
    assert len(ablations) == 24 and len(ablations - planned.needed("models")) == 22


def test_a_round_needs_the_rounds_before(planned):
    """Which chunks are nearly the same is found once."""
    assert planned.counts(ROUND) == jobs(
        dataset=3, model=1, punkt=1, chunks=1, batches=1, near_duplicates=1, chunk_embeddings=2, neighbours=2, regroup=2,
        train=3,
    )  # fmt: skip


def test_a_round_may_begin_with_the_weights_of_the_one_before(tmp_path):
    """Its training needs them itself. With the backbones' it needs that cell through its text alone."""
    checkout, small = Checkout(tmp_path), ("--configfile", "tests/small/config.yaml")
    checkout.edit("tests/small/config.yaml", "corpora:\n", f"corpora:\n{ROUNDS}")
    checkout.edit("tests/small/config.yaml", "variants:\n", "variants:\n  further: {start: by}\n")
    first, before, plain = (f"revela/{corpus}/random/random/bs4" for corpus in ("code", "code+r1", "code+r2"))
    from_backbone, from_cell = (f"results/small/models/{cell}" for cell in (plain, f"{plain}-further"))
    report = f"results/small/corpora/code+r2/bs4/grouping/{first}.md"
    planned = plan(tmp_path, from_backbone, from_cell, report, options=small)
    assert planned.counts(from_backbone)["train"] == planned.counts(from_cell)["train"] == 3
    jobs = {str(job.output[0]): job for job in planned.jobs if job.rule.name == "train"}
    assert jobs[from_cell].input.start == f"results/small/models/{before}"
    assert jobs[from_backbone].input.get("start") is None
    own, other = (jobs[target].params.code for target in (from_cell, from_backbone))
    assert len(own) == 3 and own[:2] == other  # the code of those that begin with the backbones is as ever
    counts = planned.counts(report)
    assert (counts["grouping_gain"], counts["train"], counts["regroup"]) == (2, 2, 2)
    with pytest.raises(SystemExit) as error:
        plan(tmp_path, f"results/small/scores/{first}-further/coir-small.json", options=small)
    assert error.value.code == (
        f"{first}-further: training.start: by: the corpus 'code' is not regrouped; valid: backbone"
    )


def test_every_table_comes_with_its_lineage_and_its_comparison(planned):
    counts = planned.counts("all")
    assert counts["table"] == counts["compare"] == counts["lineage"] == 15
    assert (counts["figure"], counts["corpus_report"], counts["corpus_figure"], counts["train"]) == (8, 4, 4, 46)


def test_the_plan_in_the_docs(planned, clean, monkeypatch):
    """docs/cluster.md says what each table costs; written by `python -m revela.plan.jobs --tables --whole --format github`."""
    monkeypatch.chdir(clean)
    study = load("config/config.yaml")
    costs = Costs(study, load_sizes())
    jobs = [
        Job(job.rule.name, dict(job.wildcards_dict), tuple(map(str, job.input)), tuple(map(str, job.output)))
        for job in planned.jobs
        if job.output
    ]
    plan = planning.Plan([(job, costs.of(job.rule, job.wildcards)) for job in jobs], Site(), [], 0)
    lines = planning.show_lines(planning.by_table(plan, planning.table_files(study)), "github")
    assert lines in (ROOT / "docs/cluster.md").read_text()


def test_what_shows_a_label_depends_on_what_it_stands_for(planned):
    for rule in ("table", "compare", "lineage", "comparison_page"):
        shown = [repr(job.params.spec) for job in planned.jobs if job.rule.name == rule]
        assert any("'label': 'Revela-1B', 'system': {'name': 'revela/" in spec for spec in shown), rule


def test_the_check_runs_nothing_else(planned):
    assert planned.counts("check") == {"check": 1, "comparison_page": 1}


def test_the_published_retrievers_are_only_evaluated(planned):
    counts = planned.counts("released")
    assert not counts.keys() & {"train", "batches", "chunks", "punkt", "replug_scores", "pairs"}
    assert counts["table"] == counts["compare"] == 5


# --- what is planned again


STUDY = (
    "results/tables/table1.tex",
    "results/scores/contriever/code/llama-3.2-1b/none/bs16/coir.json",
)
ALL = {"revela": 4, "replug": 2, "contriever": 1}  # cells behind these targets, by method


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A checkout in which Table 1 and a cell of Contriever are there, or so Snakemake believes."""
    folder = Checkout(tmp_path_factory.mktemp("finished")).folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "PACKAGE", folder / "revela")
        forget()
        plan(folder, *STUDY).finish(folder)
        yield folder
    forget()


def forget():
    """Modules are parsed once a process, and here they are edited in between."""
    code._module.cache_clear()
    code.code_hash.cache_clear()


@pytest.fixture
def edit(finished):
    """Replaces a piece of a file of the checkout until the test is over."""
    changed = {}

    def replace(file, old, new):
        path = finished / file
        changed[path] = path.read_text()
        assert old in changed[path], f"{file} has no {old!r}"
        path.write_text(changed[path].replace(old, new, 1))
        forget()

    yield replace
    for path, text in changed.items():
        path.write_text(text)
    forget()


def again(folder):
    """(rule -> jobs, method -> cells to train) of what is planned for a finished study."""
    planned = plan(folder, *STUDY)
    methods = [job.wildcards.cell.split("/")[0] for job in planned.dag.needrun_jobs() if job.rule.name == "train"]
    return planned.to_run(), {method: methods.count(method) for method in set(methods)}


def test_nothing_is_planned_twice(finished):
    assert plan(finished, *STUDY).to_run() == {}


def test_one_ablation_plans_that_cell_alone(finished):
    target = "results/scores/revela/code/qwen2.5-0.5b/llama-3.2-1b/bs16-tau1e-3/coir.json"
    assert plan(finished, target, *STUDY).to_run() == {"train": 1, "run": 10, "score": 1}


EDIT = ("from __future__ import annotations\n", "from __future__ import annotations\n\n_EDIT = 1\n")
REVELA = {"train": 4, "run": 40, "score": 4, "table": 1}
NOTHING_DEPENDS_ON = (
    "revela/training/entry.py",  # how a job is read, and how its end is told
    "revela/training/log.py",
    "revela/training/watch.py",
    "revela/plan/usage.py",
    "revela/training/launch.py",
    "revela/plan/memory.py",  # advice for a run that did not fit
    "revela/plan/flops.py",
    "revela/plan/costs.py",
    "revela/study/settings.py",  # what a job uses of the configuration is in its specification
    "revela/study/specification.py",
    "revela/command/cli.py",
    "revela/workflow.py",
)


@pytest.mark.parametrize("file", NOTHING_DEPENDS_ON)
def test_an_edit_of_what_decides_no_number_reruns_nothing(finished, edit, file):
    edit(file, *EDIT)
    assert again(finished) == ({}, {})


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("revela/method/inbatch.py", "import torch\n", "import torch  # a comment\n"),
        ("revela/provenance.py", "delete it and rerun", "remove it and run again"),  # the words of errors
        ("revela/pretrained.py", "the tokenizer has no EOS token", "the tokenizer lacks an EOS token"),
        ("config/config.yaml", "shard_documents: 50000", "shard_documents: 40000"),  # settings of the machine
        ("config/config.yaml", "checkpoint_every: 100", "checkpoint_every: 50"),
        ("config/config.yaml", "training_threads: 32", "training_threads: 8"),
    ],
)
def test_words_and_settings_of_the_machine_rerun_nothing(finished, edit, file, old, new):
    edit(file, old, new)
    assert again(finished) == ({}, {})


@pytest.mark.parametrize(
    "file", ["revela/method/similarity.py", "revela/method/inbatch.py", "revela/objectives/revela.py"]
)
def test_an_edit_of_the_method_trains_revela_and_what_follows(finished, edit, file):
    edit(file, *EDIT)
    assert again(finished) == (REVELA, {"revela": 4})


def test_an_edit_of_replugs_scores_makes_replug_again(finished, edit):
    edit("revela/objectives/replug_scores.py", *EDIT)
    assert again(finished) == (
        {"replug_scores": 2, "train": 2, "run": 20, "score": 2, "table": 1}, {"replug": 2}
    )  # fmt: skip


def test_an_edit_of_packing_makes_all_that_reads_texts_again(finished, edit):
    """Each cell, and each encoder that runs as a retriever does."""
    edit("revela/method/packing.py", *EDIT)
    rules, methods = again(finished)
    assert methods == ALL and rules["run"] == 110 and "run_bm25" not in rules


def test_an_edit_of_the_tables_makes_tables_again(finished, edit):
    edit("revela/paper/tables.py", *EDIT)
    assert again(finished) == ({"table": 1}, {})


def test_an_edit_of_bm25_ranks_with_bm25_again(finished, edit):
    edit("revela/evaluation/bm25.py", *EDIT)
    assert again(finished) == ({"run_bm25": 10, "score": 1, "table": 1}, {})


def test_a_prefix_plans_no_run_of_bm25(finished, edit):
    edit("config/config.yaml", 'query_prefix: "query:  "', 'query_prefix: "question: "')
    rules, _ = again(finished)
    # the cells, which are read with the study's prefix; off-the-shelf encoders have their own
    assert rules["run"] == 70 and rules["score"] == 7 and "run_bm25" not in rules
