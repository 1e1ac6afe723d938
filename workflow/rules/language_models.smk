# Language models before and after their training with a retriever, by lm-evaluation-harness (Table 18).
rule language_model:
    input:
        model=language_model_folder,
        datasets=[
            f"{R}/resources/datasets/{dataset}"
            for dataset in dict.fromkeys(task.dataset for task in CONFIG.lm_evaluation.tasks.values())
        ],
    output:
        f"{R}/scores/{{system}}/{LM_EVAL}.json",
    log:
        f"{R}/logs/language_model/{{system}}.log",
    benchmark:
        f"{R}/benchmarks/language_model/{{system}}.tsv"
    wildcard_constraints:
        system=rf"(?=revela/)({_CELL})|untrained/({_BACKBONE})",
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.evaluation_threads
    resources:
        nodes=1,
        gpu=CONFIG.compute.evaluation_gpus,
        mem_mb=memory("language_model"),
        runtime=runtime("language_model"),
    params:
        settings=CONFIG.lm_evaluation.model_dump(mode="json"),
        code=code("revela.evaluation.language_models"),
    script:
        "../scripts/language_model.py"
