"""Revela: dense retrievers learned by language modelling.

>>> from revela import Retriever
>>> retriever = Retriever.load("my-retriever/retriever")
>>> documents = ["def add(a, b): return a + b", "def read(path): return open(path).read()"]
>>> scores = retriever.encode(["sum of two numbers"], kind="query") @ retriever.encode(documents, kind="passage").T
>>> documents[scores.argmax()]
'def ...

`Retriever` is imported on first use, so that `import revela.study.study` stays light.
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
