"""How own text is cut: by words, or by tokens where no space stands between words. The text itself decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from revela.command import passages
from revela.plan.costs import TOKENS_PER_WORD
from revela.study.settings import Training
from revela.study.study import Study
from revela.text.by_tokens import room
from revela.text.resources import Matched, ResourceError


def is_unspaced(found: Callable[[], Matched], column: str) -> bool:
    """Whether a text, whose files `found` lists, is cut by tokens. That there are none is told later.

    Raises CorpusError for a file that cannot be read.
    """
    try:
        return passages.is_unspaced(found(), column)
    except ResourceError:
        return False


def max_tokens(training: Any, max_words: int) -> int:
    """Tokens of a chunk at most: as many as so many English words have, if the models read them all.

    training: the section of the configuration.
    """
    try:
        settings = Training.model_validate(training)
    except ValidationError:  # of which the configuration's own fault is told
        settings = Training()
    read = room(settings.retriever_max_length, settings.query_prefix, settings.passage_prefix)
    return max(8, min(round(TOKENS_PER_WORD * max_words), read, settings.lm_max_length - 2))


def said(study: Study) -> str:
    """How the text is cut, in a line."""
    chunking = study.config.chunking
    if chunking.max_tokens:
        return (
            f"chunks: complete sentences, {chunking.max_tokens} tokens at most, for no spaces stand between words "
            "(chunking.max_tokens)"
        )
    return f"chunks: complete sentences, {chunking.max_words} words at most (chunking.max_words)"
