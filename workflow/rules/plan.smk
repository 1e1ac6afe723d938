# What it costs before it is spent; printed anew each time it is asked for.
localrules:
    plan,


rule plan:
    log:
        f"{R}/logs/plan.log",
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    script:
        "../scripts/plan.py"
