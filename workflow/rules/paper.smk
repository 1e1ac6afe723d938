# Tables and figures: light jobs that read score files and training logs.
localrules:
    table,
    figure,
    training_curves,


rule table:
    input:
        scores=table_scores,
        printed=lambda w: CONFIG.tables[w.table].printed or [],
    output:
        tex=report(
            f"{R}/tables/{{table}}.tex",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}", "format": "LaTeX"},
        ),
        csv=report(
            f"{R}/tables/{{table}}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}", "format": "numbers"},
        ),
        md=report(
            f"{R}/tables/{{table}}.md",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}", "format": "Markdown"},
        ),
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
        table=lambda w: CONFIG.tables[w.table].model_dump(mode="json"),
        systems=lambda w: STUDY.table_systems(w.table),
        tasks=lambda w: {t.task: t.label for t in STUDY.benchmark_tasks(CONFIG.tables[w.table].benchmark)},
        code=code("revela.paper.tables"),
    script:
        "../scripts/table.py"


rule figure:
    input:
        figure_scores,
    output:
        pdf=f"{R}/figures/{{figure}}.pdf",
        png=report(
            f"{R}/figures/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
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
        code=code("revela.paper.figures"),
    script:
        "../scripts/figure.py"


rule training_curves:
    input:
        [f"{R}/models/{cell}" for cell in CELLS],
    output:
        pdf=f"{R}/figures/training.pdf",
        png=report(
            f"{R}/figures/training.png",
            caption="../report/training.rst",
            category="Figures",
            labels={"figure": "training curves"},
        ),
    log:
        f"{R}/logs/training_curves.log",
    benchmark:
        f"{R}/benchmarks/training_curves.tsv"
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        cells=CELLS,
        code=code("revela.paper.figures"),
    script:
        "../scripts/training_curves.py"
