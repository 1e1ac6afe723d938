# Export: a trained cell as a folder that sentence-transformers loads.
rule export:
    input:
        unpack(exported_files),
    output:
        directory(f"{R}/exports/{{cell}}"),
    log:
        f"{R}/logs/export/{{cell}}.log",
    benchmark:
        f"{R}/benchmarks/export/{{cell}}.tsv"
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("export"),
        runtime=60,
    params:
        code=code("revela.export.export"),
    script:
        "../scripts/export.py"
