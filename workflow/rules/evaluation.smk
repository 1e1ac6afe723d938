# Evaluation: a system ranks a task's documents (a run); scores are made of runs alone.
RANKED = CONFIG.evaluation.model_dump(mode="json", include={"document_text", "exclude", "top_k"})
SCORED = CONFIG.evaluation.model_dump(mode="json", include={"document_text", "top_k"})
API, MODEL = "revela.evaluation.apis", "revela.retriever"  # code that not every system has


localrules:
    run_api,


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
        system=DENSE,
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
        evaluation=evaluation_settings,
        code=code("revela.evaluation.systems", (API,)),
    script:
        "../scripts/run.py"


# BM25 has no model and needs no GPU.
use rule run as run_bm25 with:
    input:
        dataset=task_dataset,
    wildcard_constraints:
        system=either(BM25),
    threads: 1
    resources:
        mem_mb=memory("run_bm25"),
        runtime=runtime("run_bm25"),
    params:
        system=system_settings,
        task=task_settings,
        evaluation=RANKED,
        code=code("revela.evaluation.systems", (API, MODEL)),


# An API needs the network, which compute nodes may lack, and a key in the environment.
use rule run as run_api with:
    input:
        dataset=task_dataset,
    wildcard_constraints:
        system=either(APIS),
    resources:
        mem_mb=memory("run_bm25"),
        runtime=runtime("run_bm25"),
    params:
        system=system_settings,
        task=task_settings,
        evaluation=RANKED | {"max_length": CONFIG.evaluation.max_length},
        code=code("revela.evaluation.systems", (MODEL,)),


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
        evaluation=SCORED,
        code=code("revela.evaluation.scores", (MODEL,)),
    script:
        "../scripts/score.py"


# Is a difference more than chance? results/significance/{system}/vs/{other}/{benchmark}.json
rule significance:
    input:
        a=f"{R}/scores/{{system}}/{{benchmark}}.json",
        b=f"{R}/scores/{{other}}/{{benchmark}}.json",
    output:
        f"{R}/significance/{{system}}/vs/{{other}}/{{benchmark}}.json",
    log:
        f"{R}/logs/significance/{{system}}/vs/{{other}}/{{benchmark}}.log",
    benchmark:
        f"{R}/benchmarks/significance/{{system}}/vs/{{other}}/{{benchmark}}.tsv"
    wildcard_constraints:
        other=SYSTEM,
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        seed=CONFIG.seed,
        code=code("revela.evaluation.significance"),
    script:
        "../scripts/significance.py"


if STUDY.anchors:

    # Does the evaluation reach what others published?
    rule anchors:
        input:
            runs=[f"{R}/runs/{anchor.key}.run.gz" for anchor in STUDY.anchors],
            datasets=sorted(
                {
                    f"{R}/resources/datasets/{STUDY.task(anchor.benchmark, anchor.task).dataset}"
                    for anchor in STUDY.anchors
                }
            ),
        output:
            csv=f"{R}/anchors.csv",
            md=f"{R}/anchors.md",
        log:
            f"{R}/logs/anchors.log",
        benchmark:
            f"{R}/benchmarks/anchors.tsv"
        conda:
            "../envs/revela.yaml"
        threads: 1
        resources:
            mem_mb=8000,
            runtime=120,
        params:
            anchors=[anchor.model_dump(mode="json") for anchor in STUDY.anchors],
            evaluation=SCORED,
            code=code("revela.evaluation.anchors", (MODEL,)),
        script:
            "../scripts/anchors.py"
