"""One of several processes that share the scoring of a corpus for REPLUG (App. B.3); `replug_scores.write_scores` starts them.

    python -m revela.objectives.replug_worker JSON

It ends when the process that started it has ended. Why it failed is its output.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator

import pyarrow.parquet as pq
from tqdm import tqdm

from revela.errors import RevelaError
from revela.objectives.replug_scores import score_rows
from revela.order import seen
from revela.study.specification import ReplugScoreSpec


def work(job: dict) -> None:
    """Score every n-th of the rows that training sees. `job`: as `replug_scores` gives it."""
    parent, spec = os.getppid(), ReplugScoreSpec.model_validate(job["spec"])
    with pq.ParquetFile(job["batches"]) as file:
        rows = seen(spec.seed, file.metadata.num_rows, spec.positions)[job["number"] :: job["of"]]

    def watched(pairs: Iterable, total: int) -> Iterator:
        for pair in tqdm(pairs, desc="REPLUG scores", total=total, disable=job["number"] > 0 or None):
            if os.getppid() != parent:
                sys.exit("the process that shares out the batches has ended")
            yield pair

    score_rows(job["lm"], job["batches"], job["begun"], spec, rows, watched)


if __name__ == "__main__":
    try:
        work(json.loads(sys.argv[1]))
    except (RevelaError, OSError) as error:
        print(error)
        sys.exit(1)
