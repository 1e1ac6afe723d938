# Tables and figures: light jobs that read score files and training logs. Only the cost of the methods is measured.
localrules:
    table,
    lineage,
    figure,


rule table:
    input:
        scores=table_scores,
        printed=lambda w: printed_files(w.table),
    output:
        tex=report(
            f"{R}/tables/{{table}}.tex",
            caption="../report/table.rst",
            category="Tables",
            labels=lambda w: {"table": table_label(w.table), "format": "LaTeX"},
        ),
        csv=report(
            f"{R}/tables/{{table}}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels=lambda w: {"table": table_label(w.table), "format": "CSV"},
        ),
        html=report(
            f"{R}/tables/{{table}}.html",
            caption="../report/table.rst",
            category="Tables",
            labels=lambda w: {"table": table_label(w.table), "format": "HTML"},
        ),
        md=f"{R}/tables/{{table}}.md",
    log:
        f"{R}/logs/table/{{table}}.log",
    benchmark:
        f"{R}/benchmarks/table/{{table}}.tsv"
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
        code=code("revela.paper.tables"),
    script:
        "../scripts/table.py"


rule lineage:
    input:
        unpack(lineage_files),
    output:
        report(
            f"{R}/tables/{{table}}.lineage.json",
            caption="../report/lineage.rst",
            category="Lineage",
            labels=lambda w: {"table": table_label(w.table)},
        ),
    log:
        f"{R}/logs/lineage/{{table}}.log",
    benchmark:
        f"{R}/benchmarks/lineage/{{table}}.tsv"
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        tables=table_settings,
        systems=lambda w: STUDY.table_systems(w.table),
        code=code("revela.paper.lineage"),
    script:
        "../scripts/lineage.py"


rule figure:
    input:
        figure_files,
    output:
        pdf=f"{R}/figures/{{figure}}.pdf",
        png=report(
            f"{R}/figures/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels=lambda w: {"figure": f"{w.figure}: {SHOWN[CONFIG.figures[w.figure].kind]}"},
        ),
        data=directory(f"{R}/figures/{{figure}}"),
    log:
        f"{R}/logs/figure/{{figure}}.log",
    benchmark:
        f"{R}/benchmarks/figure/{{figure}}.tsv"
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        figure=lambda w: CONFIG.figures[w.figure].model_dump(mode="json"),
        tables=lambda w: {
            table: CONFIG.tables[table].model_dump(mode="json") for table in CONFIG.figures[w.figure].panels.values()
        },
        systems=lambda w: {table: STUDY.table_systems(table) for table in CONFIG.figures[w.figure].panels.values()},
        cells=lambda w: CELLS if CONFIG.figures[w.figure].kind == "training" else [],
        code=code("revela.paper.figures"),
    script:
        "../scripts/figure.py"


# What relating the documents of a batch costs REPLUG's and Revela's language model (App. C.7).
rule cost:
    input:
        retriever=lambda w: f"{R}/resources/models/{Cell.parse(w.cell).retriever}",
        lm=lambda w: f"{R}/resources/models/{Cell.parse(w.cell).lm}",
        data=lambda w: cell_files(w)["data"],
    output:
        f"{R}/cost/{{cell}}.json",
    log:
        f"{R}/logs/cost/{{cell}}.log",
    benchmark:
        f"{R}/benchmarks/cost/{{cell}}.tsv"
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.evaluation_threads
    resources:
        nodes=1,
        gpu=CONFIG.compute.evaluation_gpus,
        mem_mb=memory("cost"),
        runtime=runtime("cost"),
    params:
        settings=lambda w: cell_settings(w.cell),
        code=code("revela.evaluation.timing"),
    script:
        "../scripts/cost.py"
