"""Revela: dense retrievers learned by language modelling.

`from revela import Retriever` loads and runs a trained retriever. It is imported on first use, so that
`import revela.config` stays light.
"""

import importlib
import logging

__all__ = ["Retriever"]

# DeepSpeed, which transformers imports where it is installed, warns that there is no GPU; that is no news.
logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())


def __getattr__(name: str):
    if name == "Retriever":
        return importlib.import_module("revela.retriever").Retriever
    raise AttributeError(f"module 'revela' has no attribute {name!r}")
