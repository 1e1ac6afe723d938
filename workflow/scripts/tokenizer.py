"""The tokenizer of tiny's backbones, trained on tiny's corpus."""

from pathlib import Path

import yaml
from job import job

with job(snakemake):
    from revela.tiny.data import read_chunks, train_tokenizer
    from revela.tiny.settings import Pretraining

    settings = Pretraining.model_validate(yaml.safe_load(Path(snakemake.input.config).read_text()))
    documents = read_chunks(Path(snakemake.input.chunks))
    tokenizer = train_tokenizer((chunk for chunks in documents for chunk in chunks), settings.vocabulary)
    tokenizer.save_pretrained(snakemake.output[0])
