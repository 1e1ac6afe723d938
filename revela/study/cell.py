"""A cell of the study: one trained retriever."""

from __future__ import annotations

import re
from dataclasses import dataclass

from revela.study.base import ConfigError
from revela.study.methods import METHODS, Method


@dataclass(frozen=True)
class Cell:
    """method x corpus x retriever x LM x batch size, and a named variant. Its path spells it out."""

    method: str
    corpus: str
    retriever: str
    lm: str  # "none" for a method without a language model
    batch_size: int
    variant: str = ""

    @property
    def path(self) -> str:
        """What the cell is called.

        >>> Cell("revela", "code", "llama-3.2-1b", "qwen2.5-0.5b", 8, "tau1e-3").path
        'revela/code/llama-3.2-1b/qwen2.5-0.5b/bs8-tau1e-3'
        """
        variant = f"-{self.variant}" if self.variant else ""
        return f"{self.method}/{self.corpus}/{self.retriever}/{self.lm}/bs{self.batch_size}{variant}"

    @classmethod
    def parse(cls, path: str) -> Cell:
        """The cell that a path names; ConfigError where it names none.

        >>> Cell.parse("contriever/wiki/llama-3.2-1b/none/bs16").method
        'contriever'
        """
        match = re.fullmatch(r"([^/]+)/([^/]+)/([^/]+)/([^/]+)/bs(\d+)(?:-([^/]+))?", path)
        if not match:
            raise ConfigError(f"{path!r} is not a cell; write method/corpus/retriever/lm/bsN or .../bsN-variant")
        method, corpus, retriever, lm, batch_size, variant = match.groups(default="")
        return cls(method, corpus, retriever, lm, int(batch_size), variant)

    @property
    def needs(self) -> Method:
        """What its method needs; KeyError for a cell that no study has checked."""
        return METHODS[self.method]

    @property
    def models(self) -> list[str]:
        """The backbones that it is made of: retriever and language model, each once."""
        return list(dict.fromkeys([self.retriever, *([self.lm] if self.needs.lm != "none" else [])]))

    def __str__(self) -> str:
        return self.path
