"""What decides a trained cell's weights is a module boundary: an edit beyond it leaves the cell's code hash as it was."""

import shutil

import pytest

from revela.study import code
from revela.study.code import code_hash, import_closure
from revela.study.methods import METHODS

LOOP = "revela.training.loop"
SCORES = "revela.objectives.replug_scores"
START = "revela.training.start"
DECIDING = [LOOP, SCORES, START, *(method.module for method in METHODS.values())]
REVELA, REPLUG, CONTRIEVER = (METHODS[name].module for name in ("revela", "replug", "contriever"))


def closure(module):
    return set(import_closure(module))


def test_the_loop_is_the_steps_and_nothing_around_them():
    found = closure(LOOP)
    assert {name for name in found if name.startswith("revela.training")} == {
        "revela.training",
        "revela.training.compilation",
        "revela.training.engine",
        "revela.training.loop",
        "revela.training.rows",
    }
    assert not [name for name in found if name.startswith(("revela.objectives", "revela.plan", "revela.evaluation"))]


@pytest.mark.parametrize("module", DECIDING)
def test_what_decides_a_number_reads_no_settings_and_gives_no_advice(module):
    outside = ("revela.study", "revela.plan", "revela.paper", "revela.command", "revela.text")
    assert not [name for name in import_closure(module) if name.startswith(outside)]


def test_each_objective_depends_on_its_own_part_of_the_method():
    own = {"revela.method.similarity", "revela.method.inbatch"}
    shared = {"revela.method.cosine", "revela.method.packing"}
    assert own | shared <= closure(REVELA)
    for module in (REPLUG, CONTRIEVER):
        assert shared <= closure(module) and not (own | {SCORES}) & closure(module)
    for method in METHODS.values():
        others = {other.module for other in METHODS.values()} - {method.module}
        assert not others & closure(method.module)


def test_replugs_scores_depend_on_the_language_model_alone():
    found = closure(SCORES)
    assert not [name for name in found if name.startswith("revela.method")]
    assert {name for name in found if name.startswith("revela.objectives.")} == {SCORES, "revela.objectives.tokens"}


# --- edits


@pytest.fixture
def changed_by(tmp_path, monkeypatch):
    """The deciding modules whose hash is another after an edit of a file of the package."""
    shutil.copytree(code.PACKAGE, tmp_path / "revela", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "revela")

    def hashes():
        code_hash.cache_clear()
        code._module.cache_clear()
        return {module: code_hash(module) for module in DECIDING}

    before = hashes()

    def edit(file, old, new):
        path = tmp_path / "revela" / file
        text = path.read_text()
        assert old in text, f"{file} does not hold {old!r}"
        path.write_text(text.replace(old, new))
        after = hashes()
        path.write_text(text)
        return {module for module in DECIDING if after[module] != before[module]}

    yield edit
    code_hash.cache_clear()
    code._module.cache_clear()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("training/advice.py", "by estimate these would fit", "these would fit"),
        ("plan/memory.py", "RUNTIME = 0.75", "RUNTIME = 0.85"),
        ("plan/flops.py", "return 2 * lm.hidden", "return 3 * lm.hidden"),
        ("training/log.py", "loss {record['loss']:.4f}", "{record['loss']:.3f}"),
        ("training/watch.py", "STEPS = (0, 100, 200)", "STEPS = (0, 50)"),
        ("training/speed.py", "rate / 1e12", "rate / 1e9"),
        ("plan/usage.py", "INTERVAL = 10.0", "INTERVAL = 20.0"),
        ("training/entry.py", "start it again to go on", "start it again"),
        ("training/checkpoint.py", "KEPT = 2", "KEPT = 3"),
        ("training/trained.py", "processes=dist.get_world_size()", "processes=1"),
        ("training/launch.py", "RESUBMIT = 75", "RESUBMIT = 76"),
        ("training/loop.py", "the loss is {loss}; lower", "the loss is {loss}: lower"),
        ("provenance.py", "this folder is not a finished output of the workflow", "not finished"),
        ("retriever.py", "the adapter is not of its base", "it is of another model"),
        ("study/settings.py", "Stop after so many steps; null: one epoch.", "Steps."),
    ],
)
def test_an_edit_that_decides_no_number_changes_no_hash(changed_by, file, old, new):
    assert changed_by(file, old, new) == set()


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("method/similarity.py", 'float("-inf")', "-1e9", {REVELA}),
        ("method/inbatch.py", "EPSILON = 1e-6", "EPSILON = 1e-5", {REVELA}),
        ("objectives/revela.py", "IGNORED = -100", "IGNORED = -1", {REVELA}),
        ("objectives/replug.py", "log_softmax(1)", "log_softmax(0)", {REPLUG}),
        ("objectives/contriever.py", 'reduction="sum"', 'reduction="mean"', {CONTRIEVER}),
        ("objectives/replug_scores.py", "nll.sum(1)", "nll.mean(1)", {SCORES}),
        ("objectives/base.py", "packed=True", "packed=False", {REVELA, REPLUG, CONTRIEVER}),
        ("method/cosine.py", "cosines / temperature", "cosines * temperature", {REVELA, REPLUG, CONTRIEVER}),
        ("method/packing.py", "is_causal=mask is None", "is_causal=True", {LOOP, REVELA, REPLUG, CONTRIEVER}),
        ("training/rows.py", "position, 3,", "position, 4,", {LOOP}),
        ("training/engine.py", "warmup_type=settings.warmup", 'warmup_type="log"', {LOOP}),
        ("training/start.py", "torch.float32", "torch.bfloat16", {START}),
        ("lookahead.py", "depth: int = 1", "depth: int = 2", {LOOP}),
    ],
)
def test_an_edit_that_decides_a_number_changes_the_hashes_of_what_follows(changed_by, file, old, new, changed):
    assert changed_by(file, old, new) == changed
