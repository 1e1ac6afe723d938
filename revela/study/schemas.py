"""The JSON schemas in `workflow/schemas/`, which editors check configurations by: `python -m revela.study.schemas`."""

from __future__ import annotations

import json
from pathlib import Path

from revela.study.settings import Config
from revela.study.sheets import Anchor, Deviation, Model, Run, Task
from revela.study.site import Site
from revela.study.sizes import Sizes


def schemas() -> dict[str, str]:
    """File name -> JSON schema of the configuration and of each sheet's rows."""
    types = {
        "config": Config,
        "runs": Run,
        "models": Model,
        "benchmarks": Task,
        "anchors": Anchor,
        "deviations": Deviation,
        "site": Site,
        "sizes": Sizes,
    }
    return {f"{name}.schema.json": json.dumps(t.model_json_schema(), indent=2) + "\n" for name, t in types.items()}


if __name__ == "__main__":
    for name, schema in schemas().items():
        Path("workflow/schemas", name).write_text(schema)
