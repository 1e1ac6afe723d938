# Export: a trained cell as a folder that sentence-transformers loads.
def exported_files(wildcards):
    """A cell, the backbone that its adapters belong to, and the scores for its model card."""
    return {
        "model": LAYOUT.cell(wildcards.cell),
        "base": LAYOUT.model(Cell.parse(wildcards.cell).retriever),
        "scores": [LAYOUT.scores(wildcards.cell, benchmark) for benchmark in CONFIG.export_scores],
    }


rule export:
    input:
        unpack(exported_files),
    output:
        directory(LAYOUT.export("{cell}")),
    log:
        LAYOUT.log("export", "{cell}"),
    benchmark:
        LAYOUT.benchmark("export", "{cell}")
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("export"),
        runtime=60,
    params:
        code=code("revela.export.formats"),
    message:
        "Exporting {wildcards.cell} for sentence-transformers"
    script:
        "../scripts/export.py"
