"""The section `chunking` of the configuration."""

from __future__ import annotations

from pydantic import Field, model_validator

from revela.study.base import Strict


class Chunking(Strict):
    """Sentences packed into chunks of complete sentences (section 4.1)."""

    max_words: int = Field(120, ge=1, description="Words in a chunk at most; a longer single sentence is split.")
    max_tokens: int | None = Field(
        None, ge=8, description="Tokens in its place, at sentences as Unicode ends them; null: words, at Punkt's."
    )
    tokenizer: str | None = Field(
        None, description="The backbone whose tokens count; chunks without a token of it are left out."
    )
    punkt: str = Field(
        "nltk",
        description="'nltk': punkt_tab by nltk.download; else a dataset: one "
        "that holds the files of punkt_tab, or text to train Punkt on.",
    )

    @model_validator(mode="after")
    def _tokens_of_a_backbone(self):
        if self.max_tokens and not self.tokenizer:
            raise ValueError("max_tokens: needs tokenizer, the name of the backbone whose tokens count")
        return self
