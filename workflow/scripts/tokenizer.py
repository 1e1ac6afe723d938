"""The tokenizer of the demo's backbones, trained on the demo's corpus."""

from pathlib import Path

import yaml
from job import job

with job(snakemake):
    from revela.demo.data import read_chunks, train_tokenizer
    from revela.demo.settings import Pretraining

    settings = Pretraining.model_validate(yaml.safe_load(Path(snakemake.input.config).read_text()))
    documents = read_chunks(Path(snakemake.input.chunks))
    tokenizer = train_tokenizer((chunk for chunks in documents for chunk in chunks), settings.vocabulary)
    tokenizer.save_pretrained(snakemake.output[0])
