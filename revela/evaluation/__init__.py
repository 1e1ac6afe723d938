"""Evaluation: a benchmark's task, a system that ranks its documents, a run file, scores.

`benchmarks` reads tasks, `systems` ranks, `search` is the exact search behind dense systems, and
`scores` writes run files and turns them into numbers. Numbers are made from run files alone.
"""

from revela.errors import RevelaError


class EvaluationError(RevelaError):
    """An evaluation that cannot be done. The message is one line that names what is at fault."""
