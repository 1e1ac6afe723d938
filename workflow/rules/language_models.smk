# Language models before and after their training with a retriever, by lm-evaluation-harness (Table 18).
def language_model_folders(wildcards):
    """An untrained language model, or a trained one in its cell and the model below its adapters."""
    system = STUDY.system(wildcards.system)
    if system.kind == "untrained":
        [folder] = system.folders(LAYOUT)
        return {"model": folder}
    return {"model": LAYOUT.cell(system.cell), "base": LAYOUT.model(system.cell.lm)}


rule language_model:
    input:
        unpack(language_model_folders),
        datasets=[LAYOUT.dataset(dataset) for dataset in STUDY.benchmark_datasets(LM_EVAL)],
    output:
        LAYOUT.scores("{system}", LM_EVAL),
    log:
        LAYOUT.log("language_model", "{system}"),
    benchmark:
        LAYOUT.benchmark("language_model", "{system}")
    wildcard_constraints:
        system=f"{cell_pattern(*(name for name, method in METHODS.items() if method.lm == 'beside'))}|{UNTRAINED_SYSTEM}",
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.evaluation_threads
    resources:
        nodes=1,
        gpu=gpus("language_model"),
        mem_mb=memory("language_model"),
        runtime=runtime("language_model"),
    params:
        spec=specified(specification.lm_evaluation_spec),
        results=results,
        code=code("revela.evaluation.language_models"),
    message:
        "Testing the language model of {wildcards.system}"
    script:
        "../scripts/language_model.py"
