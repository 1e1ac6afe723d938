# Evaluation: a system ranks a task's documents (a run); scores are made of runs alone.
localrules:
    run_api,


def system_folders(wildcards):
    """The models behind a system."""
    return STUDY.system(wildcards.system).folders(LAYOUT)


def task_dataset(wildcards):
    return LAYOUT.dataset(STUDY.task(wildcards.benchmark, wildcards.task).dataset)


rule run:
    input:
        model=system_folders,
        dataset=task_dataset,
    output:
        LAYOUT.run("{system}", "{benchmark}", "{task}"),
    log:
        LAYOUT.log("run", "{system}", "{benchmark}", "{task}"),
    benchmark:
        LAYOUT.benchmark("run", "{system}", "{benchmark}", "{task}")
    wildcard_constraints:
        system=DENSE,
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.evaluation_threads
    resources:
        nodes=1,
        gpu=gpus("run"),
        mem_mb=memory("run"),
        runtime=runtime("run"),
    params:
        spec=specified(specification.run_spec),
        compute=compute,
        results=results,
        code=lambda w: code(STUDY.system(w.system).module, "revela.evaluation.ranking"),
    message:
        "Ranking {wildcards.benchmark}/{wildcards.task} with {wildcards.system}"
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


# An API needs the network, which compute nodes may lack, and a key in the environment.
use rule run as run_api with:
    input:
        dataset=task_dataset,
    wildcard_constraints:
        system=either(APIS),
    resources:
        mem_mb=memory("run_bm25"),
        runtime=runtime("run_bm25"),


def system_runs(wildcards):
    """A system's runs of all tasks of a benchmark."""
    tasks = STUDY.benchmark_tasks(wildcards.benchmark)
    return [LAYOUT.run(wildcards.system, wildcards.benchmark, task.task) for task in tasks]


def benchmark_datasets(wildcards):
    return sorted(map(LAYOUT.dataset, STUDY.benchmark_datasets(wildcards.benchmark)))


rule score:
    input:
        runs=system_runs,
        datasets=benchmark_datasets,
    output:
        LAYOUT.scores("{system}", "{benchmark}"),
    log:
        LAYOUT.log("score", "{system}", "{benchmark}"),
    benchmark:
        LAYOUT.benchmark("score", "{system}", "{benchmark}")
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("score"),
        runtime=runtime("score"),
    params:
        spec=specified(specification.score_spec),
        code=code("revela.evaluation.scores"),
    message:
        "Scoring {wildcards.system} on {wildcards.benchmark}"
    script:
        "../scripts/score.py"


# Is a difference more than chance? results/significance/{system}/vs/{other}/{benchmark}.json
rule significance:
    input:
        a=LAYOUT.scores("{system}", "{benchmark}"),
        b=LAYOUT.scores("{other}", "{benchmark}"),
    output:
        LAYOUT.significance("{system}", "{other}", "{benchmark}"),
    log:
        LAYOUT.log("significance", "{system}", "vs", "{other}", "{benchmark}"),
    benchmark:
        LAYOUT.benchmark("significance", "{system}", "vs", "{other}", "{benchmark}")
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
    message:
        "Testing whether {wildcards.system} and {wildcards.other} differ on {wildcards.benchmark}"
    script:
        "../scripts/significance.py"


if STUDY.anchors:

    # Does the evaluation reach what others published?
    rule anchors_page:
        input:
            runs=[LAYOUT.run(anchor.system, anchor.benchmark, anchor.task) for anchor in STUDY.anchors],
            datasets=sorted(
                {LAYOUT.dataset(STUDY.task(anchor.benchmark, anchor.task).dataset) for anchor in STUDY.anchors}
            ),
        output:
            csv=LAYOUT.anchors("csv"),
            md=LAYOUT.anchors("md"),
        log:
            LAYOUT.log("anchors_page"),
        benchmark:
            LAYOUT.benchmark("anchors_page")
        conda:
            "../envs/revela.yaml"
        threads: 1
        resources:
            mem_mb=8000,
            runtime=120,
        params:
            spec=specified(specification.anchor_spec),
            code=code("revela.evaluation.anchors"),
        message:
            "Comparing the evaluation with scores that others published"
        script:
            "../scripts/anchors.py"
