"""How tiny's backbones are made (`config/backbone.yaml`)."""

from __future__ import annotations

from pydantic import Field

from revela.study.base import Strict


class BackboneShape(Strict):
    """One small Llama, and on how many tokens it is pretrained."""

    hidden_size: int = Field(ge=16)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    intermediate_size: int = Field(ge=16)
    tokens: int = Field(ge=1)
    gate: bool = Field(True, description="Whether it plays the language model's part, and so must pass the gate.")


class Pretraining(Strict):
    """All that the backbones of `config/backbone.yaml` follow from."""

    models: dict[str, BackboneShape]
    vocabulary: int = Field(4096, ge=300, description="Entries of the byte-level BPE tokenizer.")
    context: int = Field(320, ge=32, description="Tokens in a pretraining row.")
    chunk_tokens: int = Field(62, ge=8, description="Tokens of a chunk at most.")
    repetitions: float = Field(0.3, ge=0, lt=1, description="Share of rows that repeat tokens in random order.")
    rows_per_step: int = Field(32, ge=1, description="Rows in one step, over all processes.")
    muon_learning_rate: float = Field(0.02, gt=0, description="Of the linear layers' matrices.")
    embedding_learning_rate: float = Field(1e-2, gt=0, description="AdamW's, of the embeddings.")
    vector_learning_rate: float = Field(3e-3, gt=0, description="AdamW's, of norms and biases.")
    warmup_steps: int = Field(30, ge=1)
    two_stream_steps: int = Field(250, ge=1, description="Steps of the last stage, with random similarities.")
    two_stream_learning_rate: float = Field(3e-4, gt=0)
    gate_batches: int = Field(64, ge=2, description="Held-out batches of 4 documents x 4 chunks in the gate.")
    gate_gain: float = Field(0.05, ge=0, description="Nats by which the oracle Sim must beat the uniform one.")
    seed: int = Field(0, ge=0)
