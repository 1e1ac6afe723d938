# Evaluation: a system ranks a task's documents (a run); scores are made of runs alone.
rule run:
    input:
        model=system_folder,
        dataset=task_dataset,
    output:
        f"{R}/runs/{{system}}/{{benchmark}}/{{task}}.run.gz",
    log:
        f"{R}/logs/run/{{system}}/{{benchmark}}/{{task}}.log",
    benchmark:
        f"{R}/benchmarks/run/{{system}}/{{benchmark}}/{{task}}.tsv"
    wildcard_constraints:
        system=rf"(?!({either(BM25)})/).+",
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.evaluation_threads
    resources:
        nodes=1,
        gpu=CONFIG.compute.evaluation_gpus,
        mem_mb=memory("run"),
        runtime=runtime("run"),
    params:
        system=system_settings,
        task=task_settings,
        evaluation=CONFIG.evaluation.model_dump(mode="json"),
        code=code("revela.evaluation.systems"),
    script:
        "../scripts/run.py"


# BM25 has no model and needs no GPU.
use rule run as run_bm25 with:
    input:
        dataset=task_dataset,
    wildcard_constraints:
        system=either(BM25),
    resources:
        mem_mb=memory("run_bm25"),
        runtime=runtime("run_bm25"),
    params:
        task=task_settings,
        evaluation=CONFIG.evaluation.model_dump(mode="json"),
        code=code("revela.evaluation.systems", ("revela.retriever",)),


rule score:
    input:
        runs=lambda w: [
            f"{R}/runs/{w.system}/{w.benchmark}/{task.task}.run.gz" for task in STUDY.benchmark_tasks(w.benchmark)
        ],
        datasets=lambda w: task_datasets(w.benchmark),
    output:
        f"{R}/scores/{{system}}/{{benchmark}}.json",
    log:
        f"{R}/logs/score/{{system}}/{{benchmark}}.log",
    benchmark:
        f"{R}/benchmarks/score/{{system}}/{{benchmark}}.tsv"
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("score"),
        runtime=runtime("score"),
    params:
        tasks=lambda w: [task.model_dump(mode="json") for task in STUDY.benchmark_tasks(w.benchmark)],
        evaluation=CONFIG.evaluation.model_dump(mode="json"),
        code=code("revela.evaluation.scores"),
    script:
        "../scripts/score.py"
