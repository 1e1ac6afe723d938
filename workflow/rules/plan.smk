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
        python=sys.executable,
        study=config["study"],
        results=LAYOUT.root,
    message:
        "Planning every table"
    shell:
        "{params.python} -m revela.plan.jobs --tables --configfile {params.study} --output {params.results} 2>&1 | tee {log}"
