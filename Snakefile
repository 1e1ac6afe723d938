# Snakemake looks here first; catalogues of workflows and snakedeploy look for the other.
include: "workflow/Snakefile"


workflow.default_target = "all"  # what an included file says of it does not count
