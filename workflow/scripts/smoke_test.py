"""What a smoke test measures on the node where the work will be done."""

from job import job

with job(snakemake, check_gpus=False):
    from revela.command.smoke import run
    from revela.files import write_json
    from revela.study.specification import SmokeSpec

    spec = SmokeSpec.model_validate(snakemake.params.spec)
    write_json(snakemake.output[0], run(spec, snakemake.resources.gpu, snakemake.threads))
