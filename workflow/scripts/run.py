"""A run: a system ranks the documents of a task for each of its queries."""

from job import job

with job(snakemake):
    from revela.evaluation.ranking import run_task
    from revela.evaluation.systems import load_ranker
    from revela.study.layout import Layout
    from revela.study.settings import Compute
    from revela.study.specification import RunSpec

    spec = RunSpec.model_validate(snakemake.params.spec)
    layout = Layout(snakemake.params.results)
    ranker = load_ranker(spec.system, layout, Compute.model_validate(snakemake.params.compute))
    # not declared as an output, so that it is still there after the job was killed
    state = layout.run_state(spec.system.name, spec.task.benchmark, spec.task.task)
    run_task(ranker, spec, snakemake.input.dataset, snakemake.output[0], state=state)
