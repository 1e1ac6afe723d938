"""From a system, which is a description, to a ranker, which holds its models in memory."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from revela.evaluation.ranking import Ranker
    from revela.study.layout import Layout
    from revela.study.settings import Compute
    from revela.study.system import System


def load_ranker(system: System, layout: Layout, compute: Compute) -> Ranker:
    """The ranker of a system, loaded by the module that the system's type names.

    Its models are read from the folders of results. Raises EvaluationError for a system that cannot be run here, and
    RetrieverError for a model that cannot be loaded.
    """
    return importlib.import_module(system.module).load(system, layout, compute)
