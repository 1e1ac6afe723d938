# Our numbers beside the paper's.
localrules:
    compare,
    comparison_page,
    check,


rule compare:
    input:
        scores=table_scores,
        seeds=lambda w: existing(STUDY.table_seeds(w.table)),
        printed=lambda w: tables.printed_files(CONFIG.tables[w.table]) or f"no printed values of {w.table}",
    output:
        tex=LAYOUT.comparison("{table}", "tex"),
        csv=LAYOUT.comparison("{table}", "csv"),
        md=report(
            LAYOUT.comparison("{table}", "md"),
            caption="../report/compare.rst",
            category="Comparison with the paper",
            labels={"table": "{table}"},
        ),
    log:
        LAYOUT.log("compare", "{table}"),
    benchmark:
        LAYOUT.benchmark("compare", "{table}")
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        spec=specified(tables.table_spec),
        results=results,
        code=code("revela.paper.compare"),
    message:
        "Comparing {wildcards.table} with the paper's printed values"
    script:
        "../scripts/compare.py"


PRINTED = {name: table for name, table in CONFIG.tables.items() if table.printed}


def existing_scores(wildcards):
    """The score files that are there, of all that tables with printed values want."""
    wanted = (STUDY.table_scores, STUDY.table_services, STUDY.table_seeds)
    return existing(pair for name in PRINTED for of_table in wanted for pair in of_table(name))


# All comparisons on one page, of what has been scored. What has not been is left out; scores that are out of date are made
# again first, as for any other target.
rule comparison_page:
    input:
        scores=existing_scores,
        printed=tables.printed_files(*PRINTED.values()),
    output:
        html=report(LAYOUT.check("html"), caption="../report/check.rst", category="Comparison with the paper"),
        md=LAYOUT.check("md"),
        csv=LAYOUT.check("csv"),
    log:
        LAYOUT.log("comparison_page"),
    benchmark:
        LAYOUT.benchmark("comparison_page")
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        spec=specified(tables.check_spec),
        results=results,
        code=code("revela.paper.check"),
    message:
        "Comparing all that has been scored with the paper"
    script:
        "../scripts/comparison_page.py"


# Fails where a measured value does, or where there is none. The page stays.
rule check:
    input:
        LAYOUT.check("csv"),
    log:
        LAYOUT.log("check"),
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Looking for measured values that differ from the paper's"
    script:
        "../scripts/check.py"


if STUDY.anchors:

    localrules:
        anchors,

    # Fails where the evaluation is not close to what others published. The table stays.
    rule anchors:
        input:
            LAYOUT.anchors("csv"),
        log:
            LAYOUT.log("anchors"),
        conda:
            "../envs/revela.yaml"
        threads: 1
        resources:
            mem_mb=1000,
            runtime=10,
        message:
            "Looking for scores that differ from those that others published"
        script:
            "../scripts/check.py"
