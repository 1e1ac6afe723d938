"""Whether one system is better than another, query by query.

    python -m revela.evaluation.significance results/scores/bm25/coir.json results/scores/contriever/coir.json

Both systems answered the same queries, so the differences are paired. The paired randomisation test (Smucker, Allan
and Carterette, CIKM 2007) asks how often a difference as large occurs when the two answers to each query are swapped at
random. The bootstrap (Sakai, SIGIR 2006) asks where the mean difference lies when the queries are drawn again. Over
several parts or tasks, queries are drawn within each, and their means are averaged as the scores are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from revela.evaluation import EvaluationError
from revela.files import write_json

BLOCK = 2**24  # numbers drawn at a time


def write_significance(a: Path, b: Path, output: str | Path, seed: int) -> dict[str, Any]:
    """Compare two systems by all metrics, given their score files, and write the result as JSON.

    Returns what was written: the names of the systems under ``a`` and ``b``, and under ``metrics`` metric -> what
    `compare` returns. Raises EvaluationError as `compare` does, and for a file that holds no scores.
    """
    a, b = _read(a), _read(b)
    metrics = next(iter(a["tasks"].values()))["metrics"]
    compared = {metric: compare(a, b, metric=metric, seed=seed) for metric in metrics}
    found = {"a": a["system"], "b": b["system"], "metrics": compared}
    write_json(output, found)
    return found


def compare(a: dict[str, Any], b: dict[str, Any], *, metric: str = "nDCG@10", samples: int = 10_000, seed: int = 0):
    """Compare two systems on a benchmark, given their score files as `score_benchmark` writes them.

    Returns:
        Task -> what `paired_test` returns with `a` and `b`, the two means; and the same of all tasks under "mean".

    Raises:
        EvaluationError: The files are not of the same benchmark, tasks and queries, or lack the metric.
    """
    if a["benchmark"] != b["benchmark"] or a["tasks"].keys() != b["tasks"].keys():
        raise EvaluationError(f"{a['system']} was scored on {_tasks(a)}, {b['system']} on {_tasks(b)}")
    result, everything = {}, []
    for task in a["tasks"]:
        parts = []
        for part, ours in a["tasks"][task]["parts"].items():
            theirs = b["tasks"][task]["parts"].get(part)
            if theirs is None or ours["queries"] != theirs["queries"]:
                raise EvaluationError(f"{task}: {a['system']} and {b['system']} were scored on other queries of {part}")
            for scores in (ours, theirs):
                if metric not in scores["per_query"]:
                    raise EvaluationError(f"unknown metric {metric!r}; valid: {', '.join(scores['per_query'])}")
            parts.append(np.array(ours["per_query"][metric]) - np.array(theirs["per_query"][metric]))
        means = {name: scores["tasks"][task]["metrics"][metric] for name, scores in (("a", a), ("b", b))}
        result[task] = means | paired_test(parts, [1 / len(parts)] * len(parts), samples, seed)
        everything += [(part, 1 / len(parts) / len(a["tasks"])) for part in parts]
    means = {name: float(np.mean([found[name] for found in result.values()])) for name in ("a", "b")}
    result["mean"] = means | paired_test(*zip(*everything, strict=True), samples, seed)
    return result


def paired_test(strata: Sequence[np.ndarray], weights: Sequence[float], samples: int, seed: int) -> dict[str, float]:
    """Test of the weighted sum of the means of several strata, each of paired differences [n].

    Returns:
        difference: The sum.
        low, high: Its 95 % bootstrap confidence interval (percentiles).
        p: Two-sided, of the paired randomisation test; never below 1 / (samples + 1).
        queries: How many differences there are.
    """
    rng = np.random.default_rng(seed)
    observed = sum(weight * values.mean() for values, weight in zip(strata, weights, strict=True))
    flipped, drawn = np.zeros(samples), np.zeros(samples)
    for values, weight in zip(strata, weights, strict=True):
        step = max(1, BLOCK // len(values))
        for first in range(0, samples, step):
            block = slice(first, min(first + step, samples))
            shape = (block.stop - first, len(values))
            flipped[block] += weight * (rng.choice(np.array([-1.0, 1.0]), shape) @ values) / len(values)
            drawn[block] += weight * values[rng.integers(0, len(values), shape)].mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    as_large = np.count_nonzero(np.abs(flipped) >= abs(observed) - 1e-12)
    return {
        "difference": float(observed),
        "low": float(low),
        "high": float(high),
        "p": float((1 + as_large) / (1 + samples)),
        "queries": sum(map(len, strata)),
    }


def as_text(a: str, b: str, metric: str, found: dict[str, dict[str, float]]) -> str:
    """The comparison as a table, in percent."""
    lines = [
        f"{metric} (%) of {a} (a) and {b} (b), with the 95 % interval of a - b and the p of a randomisation test",
        f"{'task':<28}{'queries':>8}{'a':>8}{'b':>8}{'a - b':>8}   {'interval':<18}{'p':>8}",
    ]
    for task, row in found.items():
        first, second, difference, low, high = (100 * row[key] for key in ("a", "b", "difference", "low", "high"))
        lines.append(
            f"{task:<28}{row['queries']:>8}{first:>8.2f}{second:>8.2f}{difference:>+8.2f}   "
            f"{f'[{low:+.2f}, {high:+.2f}]':<18}{row['p']:>8.4f}"
        )
    return "\n".join(lines)


def _tasks(scores: dict[str, Any]) -> str:
    return f"{scores['benchmark']} ({', '.join(scores['tasks'])})"


def _read(path: Path) -> dict[str, Any]:
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        scores["system"], scores["benchmark"], scores["tasks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{path}: not a file of scores ({error})") from None
    return scores


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the comparison of two score files, or an EvaluationError as one line."""
    parser = argparse.ArgumentParser(prog="python -m revela.evaluation.significance", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("a", type=Path, help="scores of a system")
    parser.add_argument("b", type=Path, help="scores of another system on the same benchmark")
    parser.add_argument("--metric", default="nDCG@10")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        a, b = _read(options.a), _read(options.b)
        found = compare(a, b, metric=options.metric, samples=options.samples, seed=options.seed)
    except EvaluationError as error:
        sys.exit(f"error: {error}")
    print(as_text(a["system"], b["system"], options.metric, found))


if __name__ == "__main__":
    main()
