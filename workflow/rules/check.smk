# Our numbers beside the paper's.
localrules:
    compare,
    check_page,
    check,


rule compare:
    input:
        scores=table_scores,
        printed=lambda w: printed_files(w.table) or f"no printed values of {w.table}",
    output:
        tex=f"{R}/tables/{{table}}.compare.tex",
        csv=f"{R}/tables/{{table}}.compare.csv",
        md=report(
            f"{R}/tables/{{table}}.compare.md",
            caption="../report/compare.rst",
            category="Comparison with the paper",
            labels={"table": "{table}"},
        ),
    log:
        f"{R}/logs/compare/{{table}}.log",
    benchmark:
        f"{R}/benchmarks/compare/{{table}}.tsv"
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        tables=table_settings,
        systems=lambda w: STUDY.table_systems(w.table),
        tasks=table_tasks,
        code=code("revela.paper.compare"),
    script:
        "../scripts/compare.py"


# All comparisons on one page, of what has been scored: nothing is trained or evaluated for it.
rule check_page:
    input:
        scores=existing_scores,
        printed=printed_files(*CONFIG.tables),
    output:
        html=report(f"{R}/check.html", caption="../report/check.rst", category="Comparison with the paper"),
        md=f"{R}/check.md",
        csv=f"{R}/check.csv",
    log:
        f"{R}/logs/check.log",
    benchmark:
        f"{R}/benchmarks/check.tsv"
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        tables={name: table.model_dump(mode="json") for name, table in CONFIG.tables.items() if table.printed},
        systems={name: STUDY.table_systems(name) for name, table in CONFIG.tables.items() if table.printed},
        code=code("revela.paper.check"),
    script:
        "../scripts/check_page.py"


# Fails where a measured value does. The page stays.
rule check:
    input:
        f"{R}/check.csv",
    log:
        f"{R}/logs/check_verdict.log",
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    script:
        "../scripts/check.py"
