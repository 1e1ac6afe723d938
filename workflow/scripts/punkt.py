"""Make Punkt's parameters: NLTK's own, or trained on a dataset."""

from job import job

with job(snakemake, network=True):
    from revela.study.specification import PunktSpec
    from revela.text.punkt import texts_of
    from revela.text.resources import build_punkt

    source = PunktSpec.model_validate(snakemake.params.spec).source
    build_punkt(snakemake.output[0], source and texts_of(source, snakemake.input[0]))
