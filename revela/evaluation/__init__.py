"""Evaluation: a ranker answers the queries of a task, its rankings become a run file, and the run file becomes scores.

`tasks` reads benchmarks. `ranking` writes the run of any ranker; `systems` loads the ranker of a system from the module
of its kind: `bm25`, `retrievers`, `off_the_shelf` or `apis`. `dense` and `search` are what encoders share. `scores` makes
numbers out of run files alone.
"""

from revela.errors import RevelaError


class EvaluationError(RevelaError):
    """An evaluation that cannot be done. The message is one line that names what is at fault."""
