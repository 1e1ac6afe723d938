"""Whether one system is better than another on a benchmark."""

import json
from pathlib import Path

from job import job

with job(snakemake):
    from revela.evaluation.scores import METRICS
    from revela.evaluation.significance import as_text, compare
    from revela.files import atomic_write

    a, b = (json.loads(Path(path).read_text()) for path in (snakemake.input.a, snakemake.input.b))
    metrics = [metric for metric in METRICS if metric in next(iter(a["tasks"].values()))["metrics"]]
    found = {metric: compare(a, b, metric=metric, seed=snakemake.params.seed) for metric in metrics}
    print(as_text(a["system"], b["system"], "nDCG@10", found["nDCG@10"]))
    with atomic_write(snakemake.output[0]) as partial:
        partial.write_text(json.dumps({"a": a["system"], "b": b["system"], "metrics": found}, indent=1) + "\n")
