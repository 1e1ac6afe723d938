"""Revela: dense retrievers learned by language modelling.

`from revela import Retriever` loads and runs a trained retriever. It is imported on first use, so that
`import revela.config` stays light.
"""

import importlib

__all__ = ["Retriever"]


def __getattr__(name: str):
    if name == "Retriever":
        return importlib.import_module("revela.retriever").Retriever
    raise AttributeError(f"module 'revela' has no attribute {name!r}")
