"""Regrouped corpora in the configuration: rounds, what stands behind a table, and what is said about faulty ones."""

from pathlib import Path

import pytest
import yaml

from revela.study.base import ConfigError
from revela.study.cell import Cell
from revela.study.grouping import regroup_spec
from revela.study.specification import replug_score_spec, training_spec
from revela.study.study import load
from revela.study.tables import lineage_spec

ROOT = Path(__file__).parents[2]
CELL = "revela/code/tiny-4m/tiny-4m/bs16"


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def load_with(tmp_path):
    """Tiny's study with other regrouped corpora."""

    def _load(**corpora):
        values = yaml.safe_load(Path("config/tiny.yaml").read_text())
        values["corpora"] |= {name.replace("_", "+"): values for name, values in corpora.items()}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
        return load(tmp_path / "config.yaml")

    return _load


def test_the_rounds_behind_a_corpus():
    study = load("config/tiny.yaml")
    assert list(study.rounds("code+r2")) == ["revela/code+r1/tiny-4m/tiny-4m/bs16", CELL]
    assert [list(study.rounds(name)) for name in ("code", "code+random", "code+bm25")] == [[], [], ["bm25"]]
    assert study.corpus_datasets("code+r2") == ["packages"]
    assert Cell.parse("revela/code+r2/tiny-4m/tiny-4m/bs16-seed1").corpus == "code+r2"


def test_the_lineage_names_what_grouped_the_batches():
    spec = lineage_spec(load("config/tiny.yaml"), "grouping1")
    found = {corpus: [system.name for system in systems] for corpus, systems in spec.rounds.items()}
    assert found == {
        "code+bm25": ["bm25"],
        "code+r1": [CELL],
        "code+r2": ["revela/code+r1/tiny-4m/tiny-4m/bs16", CELL],
    }
    assert list(spec.corpora) == ["code", "code+bm25", "code+r1", "code+r2", "code+random"]
    assert all(datasets == ["packages"] for datasets in spec.corpora.values())


def test_there_are_as_many_batches_as_before(load_with):
    """So REPLUG scores as many, and by the same part of them."""
    study = load_with(code_r1={"regroup": {"corpus": "code", "by": CELL}, "training": {"max_steps": 50}})
    assert replug_score_spec(study, Cell.parse("replug/code+r1/tiny-4m/tiny-1m/bs16")).positions == 50
    study = load_with(code_r1={"regroup": {"corpus": "code", "by": CELL}, "training": {"max_steps": 200}})
    assert replug_score_spec(study, Cell.parse("replug/code+r1/tiny-4m/tiny-1m/bs16")).positions is None


def test_any_system_that_runs_here_may_group(load_with):
    for by, how in (("untrained/tiny-1m", "mutual"), ("bm25", "mutual"), ("random", "random"), (CELL, "mutual")):
        study = load_with(new={"regroup": {"corpus": "code", "by": by}})
        assert regroup_spec(study, "new", "16").how == how


@pytest.mark.parametrize(
    "new, said",
    [
        ({"regroup": {"corpus": "code", "by": "random"}, "mix": {"code": 1}}, "give exactly one of files, sources, mix, regroup"),
        ({"regroup": {"corpus": "code", "by": "random"}, "batches": 5}, "batches: is for text; a regrouped corpus has the chunks of 'code'"),
        ({"regroup": {"corpus": "code", "by": "random", "neighbours": 5}}, "neighbours: is for batches of neighbours, and by: random"),
        ({"regroup": {"corpus": "nocode", "by": "random"}}, "corpora.new.regroup.corpus: unknown 'nocode'"),
        ({"regroup": {"corpus": "code+r1", "by": "random"}}, "corpora.new.regroup.corpus: 'code+r1' is regrouped itself; valid: code"),
        ({"regroup": {"corpus": "code", "by": "tiny-4m"}}, "corpora.new.regroup.by: unknown system 'tiny-4m'"),
        ({"regroup": {"corpus": "code", "by": "revela/nocode/tiny-4m/tiny-4m/bs16"}}, "revela/nocode/tiny-4m/tiny-4m/bs16: corpus: unknown 'nocode'"),
        ({"regroup": {"corpus": "code", "by": "revela/new/tiny-4m/tiny-4m/bs16"}}, "corpora.new.regroup.by: new <- new: a corpus is grouped by a cell"),
        ({"regroup": {"corpus": "code", "by": CELL, "batch": "greedy"}}, "corpora.new.regroup.batch"),
        ({"regroup": {"corpus": "code", "by": CELL, "keep_document": 2}}, "corpora.new.regroup.keep_document"),
    ],
)  # fmt: skip
def test_faulty_ones_are_explained(load_with, new, said):
    with pytest.raises(ConfigError) as error:
        load_with(new=new)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_rounds_in_a_circle_are_explained(load_with):
    one, other = (f"revela/{name}/tiny-4m/tiny-4m/bs16" for name in ("one", "other"))
    with pytest.raises(ConfigError, match="one <- other <- one: a corpus is grouped by a cell that is trained on it"):
        load_with(one={"regroup": {"corpus": "code", "by": other}}, other={"regroup": {"corpus": "code", "by": one}})


def test_documents_of_ready_batches_are_unknown(load_with):
    ready = {"released": "packages"}
    keep = {"regroup": {"corpus": "ready", "by": CELL, "keep_document": 0.2}}
    with pytest.raises(ConfigError, match="the batches of 'ready' are ready ones, which do not name their documents"):
        load_with(ready=ready, new=keep)
    study = load_with(ready=ready, new={"regroup": {"corpus": "ready", "by": CELL}})
    assert not regroup_spec(study, "new", 16).documents


# --- where a round starts


@pytest.fixture
def begun(load_with):
    """Tiny's study with a round whose cells begin with the weights of the cell that grouped its text."""

    def _begun(by=CELL, **training):
        return load_with(on={"regroup": {"corpus": "code", "by": by}, "training": {"start": "by", **training}})

    return _begun


def test_a_round_starts_from_the_backbones_unless_it_is_told(begun):
    study = begun()
    assert study.start_of(Cell.parse(CELL.replace("code", "code+r2"))) is None
    assert study.start_of(Cell.parse(CELL.replace("code", "on"))) == Cell.parse(CELL)
    assert study.start_of(Cell.parse(CELL.replace("code", "on") + "-seed1")) == Cell.parse(CELL)
    assert begun(by=f"{CELL}-seed1").start_of(Cell.parse(CELL.replace("code", "on"))).variant == "seed1"


def test_a_cell_that_starts_from_the_backbones_is_specified_as_ever(begun):
    """The setting came later: what was trained before it stays valid."""
    specs = [training_spec(begun(), CELL.replace("code", corpus)).model_dump(mode="json") for corpus in ("code", "on")]
    assert "start" not in specs[0]["settings"] and specs[1]["settings"]["start"] == "by"
    assert specs[1]["settings"].keys() - specs[0]["settings"].keys() == {"start"}


@pytest.mark.parametrize(
    "by, training, cell, said",
    [
        ("bm25", {}, "revela/on/tiny-4m/tiny-4m/bs16", "the corpus 'on' is grouped by bm25, which is no cell; valid: backbone"),
        ("random", {}, "revela/on/tiny-4m/tiny-4m/bs16", "the corpus 'on' is grouped by random, which is no cell"),
        ("untrained/tiny-4m", {}, "revela/on/tiny-4m/tiny-4m/bs16", "grouped by untrained/tiny-4m, which is no cell"),
        (CELL, {}, "revela/on/tiny-1m/tiny-4m/bs16", f"retriever is tiny-1m, and tiny-4m of {CELL}, by which the corpus is grouped; valid: backbone, or the same retriever"),
        (CELL, {}, "revela/on/tiny-4m/tiny-1m/bs16", "lm is tiny-1m, and tiny-4m of"),
        (CELL, {}, "contriever/on/tiny-4m/none/bs16", "method is contriever, and revela of"),
        (CELL, {"freeze_lm": True}, "revela/on/tiny-4m/tiny-4m/bs16", "freeze_lm is True, and False of"),
        (CELL, {"lora": {"rank": 8}}, "revela/on/tiny-4m/tiny-4m/bs16", "lora.rank is 8, and None of"),
        (CELL, {"cross_attention": {"learned": "head"}}, "revela/on/tiny-4m/tiny-4m/bs16", "cross_attention.learned is head, and None of"),
    ],
)  # fmt: skip
def test_what_cannot_start_from_a_cell_is_refused(begun, by, training, cell, said):
    study = begun(by=by, **training)
    with pytest.raises(ConfigError) as error:
        study.start_of(Cell.parse(cell))
    assert (
        said in str(error.value)
        and "\n" not in str(error.value)
        and str(error.value).startswith(f"{cell}: training.start")
    )


def test_it_is_refused_as_the_study_is_read(load_with):
    """Of cells that group a corpus, and of those of the sheet; targets are looked at as they are typed."""
    with pytest.raises(
        ConfigError, match="corpora.code.r1.regroup.by: revela.* by: the corpus 'code' is not regrouped"
    ):
        load_with(code={"sources": [{"dataset": "packages"}], "training": {"start": "by"}})
    with pytest.raises(ConfigError, match="runs.tsv: revela/code.random/.*: training.start: by: .* grouped by random"):
        load_with(code_random={"regroup": {"corpus": "code", "by": "random"}, "training": {"start": "by"}})
