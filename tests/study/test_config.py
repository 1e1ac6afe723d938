"""The configuration: what the two files come to, and what is said about faulty ones."""

import csv
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from revela.plan import flops, memory
from revela.study.base import ConfigError, validate
from revela.study.cell import Cell
from revela.study.corpora import TextSource
from revela.study.cross_attention import CrossAttention
from revela.study.methods import METHODS
from revela.study.schemas import schemas
from revela.study.settings import Training
from revela.study.sizes import load_sizes
from revela.study.specification import chunk_spec, dataset_spec
from revela.study.study import load

ROOT = Path(__file__).parents[2]
SCALES = ("config/config.yaml", "config/tiny.yaml", "tests/small/config.yaml")
TABLES = sorted(path for path in (ROOT / "config/paper").glob("table*.csv") if path.read_text().startswith("Task,"))


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def write(tmp_path):
    """Write a changed copy of tiny's configuration and return its path."""

    def _write(change, sheets=()):
        values = yaml.safe_load((ROOT / "config/tiny.yaml").read_text())
        change(values)
        for name, change_sheet in dict(sheets).items():
            lines = (ROOT / f"config/{name}.tsv").read_text().splitlines()
            (tmp_path / f"{name}.tsv").write_text("\n".join(change_sheet(lines)) + "\n")
            values[name] = str(tmp_path / f"{name}.tsv")
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
        return str(tmp_path / "config.yaml")

    return _write


def message(path):
    with pytest.raises(ConfigError) as error:
        load(path)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_schemas_are_those_of_the_types():
    written = {path.name: path.read_text() for path in (ROOT / "workflow/schemas").glob("*.json")}
    assert written == schemas(), "run `python -m revela.study.schemas`"


@pytest.mark.parametrize("path", SCALES)
def test_every_table_and_figure_resolves(path):
    study = load(path)
    for name, table in study.config.tables.items():
        assert list(study.table_systems(name)) == table.columns
        assert study.table_scores(name)
    for figure in study.config.figures.values():
        assert set(figure.panels.values()) <= set(study.config.tables)
        assert not figure.cell or study.check_cell(Cell.parse(figure.cell))


@pytest.mark.parametrize("path", SCALES)
def test_every_cell_has_settings(path):
    study = load(path)
    assert all(study.training_settings(run.cell) for run in study.runs)


def test_the_paper_has_46_cells():
    study = load("config/config.yaml")
    runs = [run for run in study.runs if not study.is_on_request(run)]
    assert {method: sum(run.method == method for run in runs) for method in METHODS} == {
        "revela": 39,
        "replug": 5,
        "contriever": 2,
    }
    assert {run.batch_size for run in runs if run.retriever in ("llama-3.2-3b", "llama-3.1-8b")} == {8}


def test_groups_of_other_sizes_are_built_from_text_where_the_rest_is_released(tmp_path):
    text = Path("config/config.yaml").read_text(encoding="utf-8")
    (tmp_path / "config.yaml").write_text(text.replace("source: rebuild  #", "source: released  #"))
    corpora = load(tmp_path / "config.yaml").config.corpora
    ready = {name: corpus.ready for name, corpus in corpora.items() if "wiki" in name or "code" in name}
    assert ready["wiki"] == "wiki-batches" and ready["code"] == "code-batches"
    assert not any(dataset for name, dataset in ready.items() if "group" in name)


def test_the_ablations_of_ours():
    """One setting at a time, in no table of the paper."""
    study = load("config/config.yaml")
    ablations = [run for run in study.runs if study.is_on_request(run) and run.batch_size <= 16]
    assert {(run.method, run.retriever, run.lm, run.batch_size) for run in ablations} == {
        ("revela", "qwen2.5-0.5b", "llama-3.2-1b", 16)
    }
    changed = [(run.corpus, run.variant) for run in ablations]
    both = ["float32-similarity", "tau1e-3", "tau1e-2", "frozen-lm", "gate-ramp", "gate-learned", "paper-prefix"]
    assert sorted(changed) == sorted(
        [(corpus, variant) for corpus in ("wiki", "code") for variant in both]
        + [("wiki", "no-value-norm"), ("wiki", "whole-query"), ("code", "value-norm"), ("code", "first-half")]
        + [(f"{corpus}-group{size}", "") for corpus in ("wiki", "code") for size in (1, 4)]
    )
    base = study.training_settings(Cell.parse("revela/wiki/qwen2.5-0.5b/llama-3.2-1b/bs16"))
    assert all(study.training_settings(run.cell) != base for run in ablations if run.variant)
    assert study.training_settings(Cell.parse("revela/wiki-group4/qwen2.5-0.5b/llama-3.2-1b/bs16")) == base


@pytest.mark.parametrize("corpus", ["wiki", "code"])
def test_larger_batches_are_of_the_same_text(corpus):
    """As many chunks in all and in a step as batches of 16 have, and what four A100s hold."""
    study = load("config/config.yaml")
    larger = [run for run in study.runs if run.batch_size > 16 and run.corpus.startswith(corpus)]
    assert [run.batch_size for run in larger] == [32, 64, 128, 256]
    base = study.training_settings(Cell.parse(f"revela/{corpus}/qwen2.5-0.5b/llama-3.2-1b/bs16"))
    shapes = [
        flops.Shape(**load_sizes().models[name].model_dump(exclude={"parameters"})) for name in larger[0].cell.models
    ]
    for run in larger:
        size, settings = run.batch_size, study.training_settings(run.cell)
        assert size * settings.batches_per_step == 16 * base.batches_per_step
        chunks = [size * study.config.corpora[run.corpus].batches, 16 * study.config.corpora[corpus].batches]
        assert chunks[1] - size < chunks[0] <= chunks[1]
        changed = {name for name, value in settings if value != getattr(base, name)}
        assert changed == {"batches_per_step", "processes_per_batch"}
        assert memory.peak(settings, shapes, size, 4, checkpointing=True) < 0.9 * 80e9


def test_processes_that_cannot_share_a_batch_are_refused_when_planning(tmp_path):
    text = Path("config/config.yaml").read_text()
    for batch_size, shared, message in [
        (8, 16, "bs8: processes_per_batch: 16 processes do not share 8 chunks evenly; valid: a divisor of 8"),
        (16, 8, "8 processes share a batch, and a training run has 4, no multiple of that"),
    ]:
        changed = text.replace(
            "  batches_per_step: 32  # P", f"  processes_per_batch: {shared}\n  batches_per_step: 32  # P"
        )
        (tmp_path / "config.yaml").write_text(changed)
        with pytest.raises(ConfigError, match=message):
            load(tmp_path / "config.yaml").training_settings(
                Cell.parse(f"revela/wiki/llama-3.2-1b/llama-3.2-1b/bs{batch_size}")
            )
    (tmp_path / "config.yaml").write_text(text.replace("training_gpus: 4", "training_nodes: 3\n  training_gpus: 4"))
    with pytest.raises(ConfigError, match="training_gpus: 4 is not a multiple of training_nodes, 3"):
        load(tmp_path / "config.yaml")


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_column_of_the_papers_tables_has_a_row(path):
    """Each label of a table of scores is filled by exactly one row of the sheets."""
    study = load("config/config.yaml")
    table = f"table{int(path.stem[5:7])}"
    rows = [
        entry.partition("=")[2]
        for row in [*study.runs, *study.models.values()]
        for entry in row.tables.split(";")
        if entry.partition("=")[0] == table
    ]
    with open(path) as file:
        assert sorted(rows) == sorted(next(csv.reader(file))[1:])


def test_settings_of_the_papers_cells():
    study = load("config/config.yaml")

    def settings(path):
        return study.training_settings(Cell.parse(path))

    wiki = settings("revela/wiki/llama-3.2-1b/llama-3.2-1b/bs16")
    code = settings("revela/code/llama-3.2-1b/llama-3.2-1b/bs16")
    replug = settings("replug/wiki/llama-3.2-1b/llama-3.2-1b/bs16")
    contriever = settings("contriever/code/llama-3.2-1b/none/bs16")
    for cell in (wiki, code):
        assert (cell.temperature, cell.learning_rate, cell.warmup_steps) == (1e-4, 1e-4, 100)
        assert (cell.batches_per_step, cell.max_steps, cell.similarity_dtype) == (32, None, "bfloat16")
        assert (cell.lora.rank, cell.lora.alpha, cell.lora.dropout) == (256, 64, 0.1)
        assert (cell.retriever_max_length, cell.lm_max_length) == (157, 156)
        assert (cell.query_prefix, cell.passage_prefix) == ("query: ", "passage: ")
    assert (wiki.value_norm, wiki.first_half) == (True, True)
    assert (code.value_norm, code.first_half) == (False, False)
    assert (replug.temperature, replug.lm_temperature) == (1e-3, 1e-3)
    assert (replug.learning_rate, replug.max_steps, replug.first_half) == (5e-4, 4500, True)
    assert (contriever.temperature, contriever.batches_per_step) == (0.01, 256)


def test_a_variant_has_the_last_word():
    study = load("config/config.yaml")
    wiki = study.training_settings(Cell.parse("revela/wiki/llama-3.2-1b/llama-3.2-1b/bs16-no-value-norm"))
    replug = study.training_settings(Cell.parse("replug/code/llama-3.2-1b/llama-3.2-1b/bs16-tau1e-2"))
    assert (wiki.value_norm, wiki.first_half) == (False, True)
    assert (replug.temperature, replug.learning_rate) == (1e-2, 5e-4)


def test_held_out_packages_are_not_in_tinys_training_text():
    datasets = load("config/tiny.yaml").config.datasets
    benchmarks = {name for d in datasets.values() if d.content in ("coir", "beir", "bright") for name in d.installed}
    training = {name for d in (datasets["packages"],) for name in d.installed}
    assert {"scikit-learn", "networkx", "matplotlib", "scipy"} == benchmarks
    assert not benchmarks & training


names = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,8}[a-z0-9])?", fullmatch=True)


@given(st.sampled_from(sorted(METHODS)), names, names, names, st.integers(2, 512), st.just("") | names)
def test_a_cells_path_names_it(method, corpus, retriever, lm, batch_size, variant):
    cell = Cell(method, corpus, retriever, lm, batch_size, variant)
    assert Cell.parse(cell.path) == cell
    parsed = Cell.parse(cell.path)
    assert (parsed.retriever, parsed.lm, parsed.batch_size, parsed.variant) == (retriever, lm, batch_size, variant)


# --- one line for each fault: the file, the key, the value, what would be valid


def test_unknown_key(write):
    said = message(write(lambda v: v["training"].update(temprature=0.1)))
    assert "config.yaml" in said and "temprature" in said and "did you mean 'temperature'" in said


def test_unknown_key_at_the_top(write):
    said = message(write(lambda v: v.update(trainig={})))
    assert "did you mean 'training'" in said


@pytest.mark.parametrize(
    "section, value",
    [("methods", {"revela": {"tau": 1}}), ("variants", {"x": {"tau": 1}})],
    ids=["methods", "variants"],
)
def test_unknown_key_in_an_override(write, section, value):
    said = message(write(lambda v: v.update({section: value})))
    assert section in said and "tau" in said


def test_wrong_value(write):
    said = message(write(lambda v: v["training"].update(zero_stage=7)))
    assert "training.zero_stage" in said and "got 7" in said


def test_unknown_method(write):
    assert "simcse" in message(write(lambda v: v.update(methods={"simcse": {}})))


def test_unknown_dataset_of_a_corpus(write):
    said = message(write(lambda v: v["corpora"]["code"]["sources"][0].update(dataset="pakages")))
    assert "corpora.code" in said and "did you mean 'packages'" in said


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"mix": {"code": -5}}, "corpora.new.mix.code: input should be greater than or equal to 1, got -5"),
        ({"crop_ratio": [5.0, 0.1]}, "crop_ratio.0: input should be less than or equal to 1, got 5.0"),
        ({"crop_ratio": [0.5, 0.1]}, "the least comes first"),
        ({"hold_out": 5}, "hold_out: is for files"),
    ],
)
def test_numbers_of_a_corpus_that_cannot_be(write, settings, expected):
    new = {**({} if "mix" in settings else {"sources": [{"dataset": "packages"}]}), **settings}
    assert expected in message(write(lambda v: v["corpora"].update(new=new)))


def test_files_may_stand_beside_released_batches(write):
    both = {"files": "notes/*.md", "released": "packages"}
    path = write(lambda v: v["corpora"].update(built=both, ready={**both, "source": "released"}))
    config = load(path).config
    assert [source.dataset for source in config.corpora["built"].sources] == ["built"]
    assert (config.corpora["built"].ready, config.corpora["ready"].ready) == (None, "packages")
    assert config.datasets["built"].files == "notes/*.md"


def test_held_out_documents_are_a_dataset_of_their_own(write):
    """It is made of a dataset of which a source holds documents out, and is specified by that source."""

    def benchmark(of):
        return lambda v: (
            v["corpora"].update(mine={"files": "notes/*.md", "hold_out": 5}),
            v["datasets"].update(asked={"held_out_of": of, "queries": 7}),
        )

    study = load(write(benchmark("mine")))
    assert study.config.corpora["mine"].sources == [TextSource(dataset="mine", mixed=True, hold_out=5)]
    assert chunk_spec(study, "mine").sources == [dataset_spec(study, "asked").source]
    assert dataset_spec(study, "mine").source is None
    said = message(write(benchmark("packages")))
    assert "datasets.asked.held_out_of: unknown 'packages'" in said and "mine" in said


@pytest.mark.parametrize(
    ("method", "lm", "least"), [("revela", "tiny-4m", 3), ("replug", "tiny-4m", 2), ("contriever", "none", 2)]
)
def test_a_batch_has_chunks_that_tell_of_others(method, lm, least):
    """Of two chunks each has one other, so Revela's Sim is 1 and the retriever has no part in the loss."""
    study = load("config/tiny.yaml")
    for size in range(least):
        with pytest.raises(ConfigError, match=f"batch size {size}; valid: {least} or more"):
            study.check_cell(Cell.parse(f"{method}/code/tiny-4m/{lm}/bs{size}"))
    assert study.check_cell(Cell.parse(f"{method}/code/tiny-4m/{lm}/bs{least}")).batch_size == least


def test_not_yaml(tmp_path):
    (tmp_path / "broken.yaml").write_text("training: {temperature: [")
    assert "broken.yaml" in message(tmp_path / "broken.yaml")


def test_no_such_file(tmp_path):
    assert "nowhere.yaml" in message(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "row, expected",
    [
        ("tiny\trevela\tcode\ttiny-9m\ttiny-4m\t16\t\t", "retriever: unknown 'tiny-9m'"),
        ("tiny\trevela\tcode\ttiny-4m\tnone\t16\t\t", "lm: unknown 'none'"),
        ("tiny\trevela\twiki\ttiny-4m\ttiny-4m\t16\t\t", "corpus: unknown 'wiki'"),
        ("tiny\trevela\tcode\ttiny-4m\ttiny-4m\t16\tnosuch\t", "variant: unknown 'nosuch'"),
        ("tiny\trevela\tcode\ttiny-4m\ttiny-4m\tmany\t\t", "batch_size"),
        ("tiny\trevela\tcode\t../../etc\ttiny-4m\t16\t\t", "retriever"),
        ("tiny\tsimcse\tcode\ttiny-4m\ttiny-4m\t16\t\t", "method"),
        ("tiny\trevela\tcode\ttiny-4m\ttiny-4m\t16\t\t\textra", "too many columns"),
    ],
)
def test_faulty_row_of_runs(write, row, expected):
    said = message(write(lambda v: None, {"runs": lambda lines: [*lines, row]}))
    assert "runs.tsv" in said and expected in said


def test_a_row_that_stands_twice(write):
    def twice(lines):
        return [*lines, next(line for line in lines if line.startswith("tiny\t"))]

    said = message(write(lambda v: None, {"runs": twice}))
    assert "runs.tsv" in said and "stands twice" in said


def test_unknown_column_of_a_sheet(write):
    said = message(write(lambda v: None, {"models": lambda lines: [lines[0].replace("pooling", "poling"), *lines[1:]]}))
    assert "models.tsv" in said and "poling" in said


def test_a_column_that_no_row_fills(write):
    said = message(write(lambda v: v["tables"]["table1"]["columns"].append("Revela-9M")))
    assert "config.yaml: tables.table1.columns: no row of the sheets fills ['Revela-9M']" in said


def test_a_column_that_two_rows_fill(write):
    def another(lines):
        row = next(line for line in lines if line.startswith("tiny\trevela\tcode\ttiny-4m\ttiny-4m\t16\t\t"))
        return [*lines, row.replace("\t16\t", "\t12\t")]

    said = message(write(lambda v: None, {"runs": another}))
    assert "filled by two rows, revela/code/tiny-4m/tiny-4m/bs16 and revela/code/tiny-4m/tiny-4m/bs12" in said


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda v: v["figures"]["same_document"].update(variants=["shufled"]), "figures.same_document.variants: "),
        (lambda v: v.update(export_scores=["coir-tin"]), "export_scores: "),
    ],
)
def test_names_of_variants_and_benchmarks_are_known(write, change, expected):
    said = message(write(change))
    assert expected in said and "Valid: " in said


def test_grey_must_be_a_column(write):
    assert "Nobody" in message(write(lambda v: v["tables"]["table1"].update(grey=["Nobody"])))


def test_a_gate_has_one_way_to_change():
    """The paper's is the constant 1; a ramp and learning exclude each other, and faults name the key."""
    assert Training().cross_attention == CrossAttention(gate=1.0, ramp=None, learned=None)
    ramp = {"start": 0.1, "steps": 10}
    for values, expected in [
        ({"gate": 0}, "cross_attention.gate: input should be greater than 0, got 0"),
        ({"gates": 0.1}, "cross_attention.gates: unknown key; did you mean 'gate'? Valid keys: gate, ramp, learned"),
        ({"ramp": {"steps": 10}}, "cross_attention.ramp.start: required, but not given"),
        ({"ramp": ramp | {"stepz": 1}}, "did you mean 'steps'? Valid keys: start, steps, shape"),
        ({"learned": "token"}, "cross_attention.learned: input should be 'layer' or 'head', got 'token'"),
        ({"ramp": ramp, "learned": "head"}, "cross_attention: give at most one of ramp, learned"),
    ]:
        with pytest.raises(ConfigError) as error:
            validate(Training, {"cross_attention": values}, "x.yaml")
        assert expected in str(error.value)
    # What a job's file says is what was set.
    chosen = Training(cross_attention=CrossAttention(gate=0.5, ramp=ramp))
    assert Training.model_validate_json(chosen.model_dump_json()) == chosen


def test_variants_of_the_gate_reach_their_cells():
    study = load("config/config.yaml")
    cell = "revela/wiki/qwen2.5-0.5b/llama-3.2-1b/bs16"
    gates = {
        v: study.training_settings(Cell.parse(f"{cell}{v}")).cross_attention
        for v in ("", "-gate-ramp", "-gate-learned")
    }
    assert gates[""] == CrossAttention()
    assert gates["-gate-ramp"].ramp.start < gates["-gate-ramp"].gate == 1 and gates["-gate-learned"].learned == "layer"
