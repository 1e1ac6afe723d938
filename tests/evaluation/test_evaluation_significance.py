"""Paired tests by hand, and against scipy."""

import json
from itertools import product

import numpy as np
import pytest

from revela.evaluation import EvaluationError
from revela.evaluation.significance import compare, main, paired_test


def scores(system, **tasks):
    """A score file of tasks: name -> part -> values of the queries."""
    return {
        "system": system,
        "benchmark": "b",
        "tasks": {
            task: {
                "metrics": {"nDCG@10": float(np.mean([np.mean(values) for values in parts.values()]))},
                "parts": {
                    part: {"queries": [f"q{n}" for n in range(len(values))], "per_query": {"nDCG@10": values}}
                    for part, values in parts.items()
                },
            }
            for task, parts in tasks.items()
        },
    }


def test_randomisation_against_all_assignments():
    """With six queries there are 64 ways to deal the answers out; the share of those as extreme is the exact p."""
    differences = np.array([0.5, 0.3, 0.2, -0.1, 0.4, 0.0])
    means = [abs(np.mean(differences * signs)) for signs in product((-1, 1), repeat=6)]
    exact = np.mean([mean >= abs(differences.mean()) - 1e-12 for mean in means])
    found = paired_test([differences], [1.0], 20_000, 0)
    assert found["p"] == pytest.approx(exact, abs=0.01)
    assert found["difference"] == pytest.approx(differences.mean())


def test_interval_against_scipy():
    from scipy.stats import bootstrap

    differences = np.random.default_rng(1).normal(0.05, 0.3, 200)
    theirs = bootstrap([differences], np.mean, method="percentile", n_resamples=10_000, rng=2).confidence_interval
    found = paired_test([differences], [1.0], 10_000, 0)
    assert (found["low"], found["high"]) == pytest.approx(tuple(theirs), abs=0.004)


def test_no_difference_and_a_sure_one():
    same = paired_test([np.zeros(50)], [1.0], 1000, 0)
    assert (same["p"], same["low"], same["high"]) == (1.0, 0.0, 0.0)
    sure = paired_test([np.full(50, 0.1)], [1.0], 1000, 0)
    assert sure["p"] == pytest.approx(1 / 1001)
    assert (sure["low"], sure["high"]) == pytest.approx((0.1, 0.1))


def test_one_query_proves_nothing():
    assert paired_test([np.array([1.0])], [1.0], 1000, 0)["p"] == 1.0


def test_parts_and_tasks_are_averaged_as_scores_are():
    a = scores("a", one={"go": [1.0, 0.0], "php": [0.5]}, two={"two": [0.2, 0.4, 0.6, 0.8]})
    b = scores("b", one={"go": [0.0, 0.0], "php": [0.5]}, two={"two": [0.2, 0.4, 0.6, 0.4]})
    found = compare(a, b, samples=500)
    assert found["one"]["difference"] == pytest.approx((0.5 + 0.0) / 2)
    assert found["two"]["difference"] == pytest.approx(0.1)
    assert found["mean"]["difference"] == pytest.approx((0.25 + 0.1) / 2)
    assert found["mean"]["a"] - found["mean"]["b"] == pytest.approx(found["mean"]["difference"])
    assert found["mean"]["queries"] == 7
    assert compare(a, b, samples=500) == found
    swapped = compare(b, a, samples=500)["two"]
    assert swapped["difference"] == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("b", "metric", "message"),
    [
        (scores("b", two={"two": [0.1]}), "nDCG@10", r"a was scored on b \(one\), b on b \(two\)"),
        (scores("b", one={"one": [0.1, 0.2]}), "nDCG@10", "one: a and b were scored on other queries of one"),
        (scores("b", one={"one": [0.1]}), "ndcg", r"unknown metric 'ndcg'; valid: nDCG@10"),
    ],
)
def test_faults(b, metric, message):
    with pytest.raises(EvaluationError, match=message):
        compare(scores("a", one={"one": [0.3]}), b, metric=metric)


def test_command(tmp_path, capsys):
    for name, value in (("a", 0.4), ("b", 0.3)):
        (tmp_path / name).write_text(json.dumps(scores(name, one={"one": [value] * 40})))
    main([str(tmp_path / "a"), str(tmp_path / "b"), "--samples", "999"])
    row = capsys.readouterr().out.splitlines()[2].split()
    assert row == ["one", "40", "40.00", "30.00", "+10.00", "[+10.00,", "+10.00]", "0.0010"]
    (tmp_path / "b").write_text("{}")
    with pytest.raises(SystemExit, match=r"error: .*b: not a file of scores \('system'\)"):
        main([str(tmp_path / "a"), str(tmp_path / "b")])
