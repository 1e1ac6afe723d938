# Snakemake looks here first; catalogues of workflows and snakedeploy look for the other.
include: "workflow/Snakefile"
