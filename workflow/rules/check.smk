# Our numbers beside the paper's.
localrules:
    compare,
    check,


rule compare:
    input:
        table=f"{R}/tables/{{table}}.csv",
        printed=lambda w: CONFIG.tables[w.table].printed,
    output:
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
        code=code("revela.paper.compare"),
    script:
        "../scripts/compare.py"


rule check:
    input:
        [
            f"{R}/tables/{name}.compare.md"
            for name, table in CONFIG.tables.items()
            if table.printed and name in DEFAULT_TABLES
        ],
