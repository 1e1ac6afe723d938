"""The learning curve of the documentation, from a CSV of measurements."""

import importlib.util
from pathlib import Path

import pytest
from matplotlib.colors import to_hex

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("learning_curve", ROOT / "benchmarks/learning_curve.py")
curve = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(curve)

ROWS = """run,batches,seed,task,ndcg
gate,20,1,BFCL,10
gate,20,2,BFCL,20
gate,20,3,BFCL,60
gate,0,1,BFCL,1
no gate,0,1,BFCL,1
no gate,20,1,BFCL,5
gate,0,1,HumanEval,2
gate,20,1,HumanEval,4
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        (tmp_path / "curve.csv").write_text(text)
        return tmp_path / "curve.csv"

    return write


def test_mean_and_range_over_seeds(write):
    canvas = curve.learning_curve(curve.read_measurements(write(ROWS)))
    bfcl, other = [ax for ax in canvas.axes if ax.get_title()]
    assert (bfcl.get_title(), other.get_title()) == ("BFCL", "HumanEval")
    gate, without = bfcl.lines
    assert gate.get_xydata().tolist() == [[0, 1], [20, 30]] and without.get_xydata().tolist() == [[0, 1], [20, 5]]
    band = bfcl.collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in band.tolist()} == {(0, 1), (20, 10), (20, 60)}
    assert other.lines[0].get_color() == gate.get_color() == to_hex(gate.get_color()).upper()
    assert bfcl.get_xscale() == "symlog" and [tick.get_text() for tick in bfcl.get_xticklabels()] == ["0", "20"]


@pytest.mark.parametrize(
    "text, said",
    [
        ("run,batches,seed,task,score\n", "valid: run, batches, seed, task, ndcg"),
        ("run,batches,seed,task,ndcg\n", "no measurements"),
        (ROWS + "gate,20,1,BFCL,11\n", "measured twice: gate, 20, 1, BFCL"),
        (ROWS + "gate,40,1,BFCL,\n", "an empty cell"),
        (ROWS + "gate,40,1,BFCL,276\n", "ndcg is a percentage"),
    ],
)
def test_faulty_measurements(write, text, said):
    with pytest.raises(ValueError, match=said):
        curve.read_measurements(write(text))
