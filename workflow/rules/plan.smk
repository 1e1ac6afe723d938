# What it costs before it is spent; printed anew each time it is asked for.
localrules:
    plan,


rule plan:
    log:
        LAYOUT.log("plan"),
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        study=config["study"],
        results=results,
    script:
        "../scripts/plan.py"
