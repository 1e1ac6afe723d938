# A smoke test for a new machine or cluster; made anew each time it is asked for.
localrules:
    smoke,


rule smoke_test:
    output:
        temp(LAYOUT.smoke("json")),
    log:
        LAYOUT.log("smoke_test"),
    benchmark:
        LAYOUT.benchmark("smoke_test")
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.training_threads
    resources:
        nodes=1,
        gpu=CONFIG.compute.training_gpus // CONFIG.compute.training_nodes,
        mem_mb=32000 if CONFIG.compute.training_gpus else 8000,
        runtime=15,
    params:
        spec=specified(specification.smoke_spec),
    message:
        "Ten steps of each method, and one task encoded"
    script:
        "../scripts/smoke_test.py"


# Prints the page, and fails where something is wrong.
rule smoke:
    input:
        LAYOUT.smoke("json"),
    log:
        LAYOUT.log("smoke"),
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=specified(specification.smoke_spec),
        page=lambda w: LAYOUT.smoke("md"),
    message:
        "Judging the smoke test"
    script:
        "../scripts/smoke.py"
