"""The typed configuration: what a YAML file and the sheets may say, and what a cell's settings come to.

Everything here is light (pydantic and the standard library), because the Snakefile imports it
while the DAG is parsed. `python -m revela.study.study` writes the JSON schemas in `workflow/schemas/`.
"""

from __future__ import annotations

import csv
import difflib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from revela.provenance import CHECKOUT

NAME = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"
FOLDER = r"^[\w./][\w./-]*$"
STUDY_MARK = "# Written by `revela train`"  # the head of a configuration that was
PAPER = "config/config.yaml"  # the study where none is named; it and its sheets stand in the checkout
SITE = CHECKOUT / "workflow/profiles/slurm/site.yaml"
SIZES = CHECKOUT / "config/sizes.yaml"
METHODS = ("revela", "replug", "contriever")
WITHOUT_LM = ("contriever",)  # those whose cells have "none" in the place of the language model
# Names become folders and parts of commands, so they hold nothing that could leave a folder or mean something to a shell.
Name = Annotated[str, StringConstraints(pattern=NAME)]
LM_EVAL = "lm-eval"  # the benchmark of language models


class ConfigError(Exception):
    """A configuration that cannot be used. The message is one line: file, key, value and what would be valid."""


class Strict(BaseModel):
    """A model on which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Lora(Strict):
    """Low-rank adaptation by peft."""

    rank: int = Field(256, ge=1, description="Rank r of each adapter (section 4.1).")
    alpha: int = Field(64, ge=1, description="Scaling numerator: the adapter is scaled by alpha / rank.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout on the adapter's input.")
    targets: list[str] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        description="Linear layers that carry an adapter.",
    )


class Training(Strict):
    """Every setting of one training run. `Config.training_settings` resolves it for a cell."""

    # the retriever's view of a chunk
    query_prefix: str = Field("query: ", description="Put before a chunk that is embedded as a query.")
    passage_prefix: str = Field("passage: ", description="Put before a chunk that is embedded as a passage.")
    retriever_max_length: int = Field(157, ge=4, description="Tokens of prefix + chunk + EOS at most.")
    lm_max_length: int = Field(156, ge=4, description="Tokens of a chunk in the language model at most.")
    first_half: bool = Field(False, description="Queries see only the first half of their tokens (App. B.5).")
    first_half_except: list[str] = Field([], description="Batch sources for which first_half is off.")
    # similarity and in-batch attention
    similarity: Literal["learned", "uniform", "shuffled"] = Field(
        "learned", description="learned: the method; uniform, shuffled: controls without the retriever's signal."
    )
    temperature: float = Field(1e-4, gt=0, description="tau of Sim (section 3.3); tau_r of REPLUG; T of Contriever.")
    similarity_dtype: Literal["bfloat16", "float32"] = Field(
        "float32", description="Precision in which cosines and their softmax are taken."
    )
    value_norm: bool = Field(False, description="V-normalisation, eq. 8.")
    attention: Literal["pairs", "dense"] = Field("pairs", description="Cross attention: gathered pairs, or the oracle.")
    dual_loss: bool = Field(False, description="Add the e-stream's loss with weight 1.")
    freeze_lm: bool = Field(False, description="Train the retriever alone.")
    # REPLUG (App. B.3)
    lm_temperature: float = Field(1e-3, gt=0, description="eta_m of REPLUG.")
    length_normalised: bool = Field(True, description="REPLUG's l_ij is the mean, not the sum, over the tokens of D_i.")
    # optimisation
    lora: Lora | None = Field(None, description="Adapters on both models; null: full fine-tuning.")
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(100, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    batches_per_step: int = Field(32, ge=1, description="Batches in one optimiser step, over all processes.")
    max_steps: int | None = Field(None, ge=1, description="Stop after so many steps; null: one epoch.")
    seed: int = Field(42, ge=0)
    # machine
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Precision of frozen weights and activations.")
    zero_stage: int = Field(1, ge=0, le=3, description="DeepSpeed ZeRO stage.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations in the backward pass.")
    compile: bool = Field(False, description="torch.compile of norms and MLPs; not with ZeRO stage 3. For GPUs.")
    checkpoint_every: int = Field(500, ge=1, description="Steps between checkpoints.")
    time_budget_minutes: float | None = Field(
        None, gt=0, description="Save and exit with status 75 after so long; the profile submits again."
    )

    @model_validator(mode="after")
    def _whole_weights(self):
        if self.compile and self.zero_stage == 3:
            raise ValueError("compile: true needs zero_stage 0, 1 or 2; stage 3 gathers weights as it goes")
        return self


class Source(Strict):
    """One dataset that a corpus is made of, and how its rows become documents."""

    dataset: str = Field(description="A key of `datasets`.")
    text: str = Field("text", description="The column with the text.")
    join_by: str | None = Field(None, description="Neighbouring rows with the same value here form one document.")
    batches: Annotated[int, Field(ge=1)] | Literal["rest"] | None = Field(
        None, description="Batches of this source; rest: what the others leave of the corpus's number; null: all."
    )
    mixed: bool = Field(
        False, description="Read all files, text beside tables; otherwise tables alone if there are any."
    )


class Corpus(Strict):
    """Raw text that becomes batches: exactly one of `files`, `sources` and `mix`; or `released` batches; or both."""

    files: str | None = Field(
        None,
        description="Your own text: a folder, a file, or a pattern such as notes/**/*.{md,txt,jsonl,parquet}; "
        "short for a dataset and a source.",
    )
    text: str = Field("text", description="The column with the text, where `files` are tables.")

    sources: list[Source] = Field([], description="Datasets whose documents are chunked and interleaved.")
    mix: dict[str, Annotated[int, Field(ge=1)]] = Field({}, description="Corpus -> number of its batches.")
    released: str | None = Field(None, description="A key of `datasets`: ready batches as JSON lines.")
    source: Literal["rebuild", "released"] = Field(
        "rebuild", description="Of a corpus that has both: batches built from the text, or the released ones."
    )
    documents: int | None = Field(
        None, ge=1, description="Documents that the paper counts, beside which the corpus's report puts ours."
    )
    group_size: int = Field(2, ge=1, description="Documents whose chunks are interleaved (section 4.1).")
    batches: int | None = Field(None, ge=1, description="Batches in all; null: all there are.")
    take: Literal["random", "first"] = Field(
        "random",
        description="Where fewer batches are wanted than exist: drawn by the seed, or the first of the corpus.",
    )
    pairs: int | None = Field(None, ge=1, description="Contriever's pairs (App. C.1); null: one for each batch.")
    crop_ratio: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = Field(
        (0.05, 0.5), description="Length of a crop as a share of its text: least and greatest. Of Contriever's pairs."
    )
    min_chunks: int = Field(1, ge=1, description="Documents with fewer chunks are left out.")
    training: dict[str, Any] = Field({}, description="Overrides of `training` for cells on this corpus.")

    @model_validator(mode="after")
    def _one_origin(self):
        text = sum(map(bool, (self.files, self.sources, self.mix)))
        if text > 1 or not (text or self.released):
            raise ValueError("give exactly one of files, sources, mix, released (released may stand beside another)")
        if self.source == "released" and not self.released:
            raise ValueError("source: released needs the key released, which names a dataset of ready batches")
        if self.ready and self.group_size != Corpus.model_fields["group_size"].default:
            raise ValueError("group_size: ready batches have their groups; for others, source: rebuild from the text")
        if len({source.dataset for source in self.sources}) < len(self.sources):
            raise ValueError("each source needs a dataset of its own")
        if sum(source.batches == "rest" for source in self.sources) > (self.batches is not None):
            raise ValueError("batches: rest is for one source of a corpus whose number of batches is given")
        if self.crop_ratio[0] > self.crop_ratio[1]:
            raise ValueError(f"crop_ratio: the least comes first, then the greatest; not {list(self.crop_ratio)}")
        return self

    @property
    def ready(self) -> str | None:
        """The dataset of ready batches that the corpus is made of; None: it is built from text."""
        has_text = self.files or self.sources or self.mix
        return self.released if self.source == "released" or not has_text else None


class Dataset(Strict):
    """A raw dataset: a hub snapshot, local files, or text of installed packages. Exactly one of them is given."""

    hub: str | list[str] | None = Field(
        None,
        description="owner/name of a dataset on the Hugging Face hub, whose files become the folder; "
        "or several of them, each a subfolder by its name.",
    )
    revision: str = Field("main", description="Commit, tag or branch; the commit it resolves to is recorded.")
    patterns: list[str] = Field([], description="File patterns of the snapshot to fetch; none: all.")
    path: str | None = Field(None, description="A local folder.")
    files: str | None = Field(
        None, description="Local files: a folder, all whose text counts, or a glob pattern with *, ** and {a,b}."
    )
    installed: list[str] = Field([], description="Installed distributions whose Python files are the text.")
    content: Literal["source", "docstrings", "coir", "beir", "bright"] = Field(
        "source", description="What is made of installed files: text for training, or a benchmark in that layout."
    )
    queries: int = Field(300, ge=1, description="Queries of a benchmark task made of installed files, at most.")
    documents: int = Field(600, ge=1, description="Documents of such a task, at most.")
    sha256: str | None = Field(None, description="Expected hash of text built here; a mismatch is an error.")

    @model_validator(mode="after")
    def _one_origin(self):
        if sum(map(bool, (self.hub, self.path, self.files, self.installed))) != 1:
            raise ValueError("give exactly one of hub, path, files, installed")
        return self


class Chunking(Strict):
    """Sentences packed into chunks of complete sentences (section 4.1)."""

    max_words: int = Field(120, ge=1, description="Words in a chunk at most; a longer single sentence is split.")
    punkt: str = Field("nltk", description="'nltk': punkt_tab by nltk.download; else a dataset to train it on.")


class Evaluation(Strict):
    """Protocol switches of the evaluation."""

    query_prefix: str = Field("query:  ", description="Prefix of queries for systems trained here.")
    passage_prefix: str = Field("passage:  ", description="Prefix of documents for systems trained here.")
    max_length: int = Field(2048, ge=4, description="Tokens of a query or document at most.")
    document_text: Literal["title+text", "text"] = Field("title+text")
    exclude: bool = Field(True, description="Remove excluded ids before the cut (BRIGHT).")
    top_k: int = Field(1000, ge=10, description="Documents kept for a query.")
    batch_tokens: int = Field(16384, ge=64, description="Tokens in an encoding batch at most.")
    shard_documents: int = Field(50_000, ge=1, description="Documents encoded and scored at a time.")
    store_embeddings: bool = Field(
        False,
        description="Keep documents' embeddings, so that tasks that share texts encode them once. 4 bytes a number.",
    )
    api_budget: float = Field(0.0, ge=0, description="US dollars that requests to one API model may cost in all.")


class LmTask(Strict):
    """A task of lm-evaluation-harness, on a dataset of this configuration."""

    task: str = Field(description="Its name there.")
    dataset: str = Field(description="A key of `datasets`.")


class LmEvaluation(Strict):
    """How a language model is tested before and after its training (App. C.6): benchmark `lm-eval` of a table."""

    tasks: dict[str, LmTask] = Field({}, description="The task's name in the paper's table -> the task.")
    limit: int | None = Field(None, ge=1, description="Examples of a task at most, the first ones; null: all.")


class Table(Strict):
    """A table of scores: labelled systems x tasks of one benchmark, or x means of other tables."""

    benchmark: str | None = Field(None, description="A benchmark of the sheet, or lm-eval.")
    means_of: dict[str, str] = Field({}, description="Heading -> table of the same systems whose means stand there.")
    caption: str
    columns: list[str] = Field(
        [], description="Labels in order; each stands in runs.tsv or models.tsv under this table. Or `groups`."
    )
    groups: dict[str, dict[str, str]] = Field({}, description="Heading -> heading below it -> label.")
    transposed: bool = Field(False, description="Systems are the rows.")
    size_row: bool = Field(False, description="Sizes stand in a row of their own; else as a subscript of the label.")
    bold: Literal["row", "group", "none"] = Field("row", description="Where the best value is sought.")
    bold_copied: bool = Field(False, description="A copied value can be the best.")
    grey: list[str] = Field([], description="Columns set in grey: supervised models.")
    dagger: list[str] = Field([], description="Columns marked with a dagger: code-related pairs in pre-training.")
    notes: list[str] = Field([], description="Remarks on the printed values, below the comparison with them.")
    printed: str | None = Field(None, description="CSV with the paper's printed values.")
    on_request: bool = Field(False, description="Made when it is asked for, not by default.")

    @model_validator(mode="before")
    @classmethod
    def _columns_of_groups(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("groups") and not values.get("columns"):
            try:
                labels = [label for heads in values["groups"].values() for label in heads.values()]
            except AttributeError:
                raise ValueError("groups: a mapping of heading -> heading below it -> label is expected") from None
            return {**values, "columns": labels}
        return values

    @model_validator(mode="after")
    def _is_consistent(self):
        if (self.benchmark is None) != bool(self.means_of):
            raise ValueError("give exactly one of benchmark, means_of")
        if not self.columns:
            raise ValueError("give exactly one of columns, groups")
        for key in ("grey", "dagger"):
            for label in getattr(self, key):
                _known(key, label, self.columns)
        return self


class Figure(Strict):
    """A figure. It shows the values of tables, the logs of cells, or what a measurement gave; `kind` says which.

    bars: the mean of each column (figure 3). lines: the means of a table's groups (figures 4 and 5).
    hours: means against the GPU-hours of training. dynamics: Sim and loss of one batch while a cell is trained
    (figure 6). cost: seconds of REPLUG and of Revela against the batch size (App. C.7). training: losses of all cells.
    """

    kind: Literal["bars", "lines", "hours", "dynamics", "cost", "training"]
    caption: str
    panels: dict[str, str] = Field({}, description="bars, lines, hours: title -> table.")
    axis: str = Field("", description="lines: in what the columns of a group differ.")
    cell: str = Field("", description="dynamics, cost: the cell that is shown, or measured.")
    on_request: bool = Field(False, description="Made when it is asked for, not by default.")

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self):
        needs = {"dynamics": "cell", "cost": "cell", "training": None}.get(self.kind, "panels")
        given = [key for key in ("panels", "cell") if getattr(self, key)]
        if given != ([needs] if needs else []):
            raise ValueError(f"a figure of kind {self.kind} is given {needs or 'neither panels nor cell'}")
        return self


class Compute(Strict):
    """What a job asks for. Memory and time are planned (`revela.plan.costs`) where they are null.

    Site facts (partition, account, GPU model) stand in `workflow/profiles/slurm/site.yaml`.
    """

    training_gpus: int = Field(4, ge=0)
    training_processes: int = Field(4, ge=1, description="Processes of a training run that has no GPU.")
    training_threads: int = Field(16, ge=1)
    training_mem_mb: int | None = Field(None, ge=500)
    training_runtime: int | None = Field(None, ge=1, description="Minutes.")
    evaluation_gpus: int = Field(1, ge=0)
    evaluation_threads: int = Field(8, ge=1)
    evaluation_mem_mb: int | None = Field(None, ge=500)
    evaluation_runtime: int | None = Field(None, ge=1, description="Minutes.")
    data_threads: int = Field(16, ge=1)
    data_mem_mb: int | None = Field(None, ge=500)
    data_runtime: int | None = Field(None, ge=1, description="Minutes.")
    # what plans assume until a job has been measured
    device: str = Field("A100", description="GPU, by its name in revela.plan.flops.PEAK.")
    training_mfu: float = Field(0.08, gt=0, le=1, description="Share of the device's peak that training reaches.")
    encoding_mfu: float = Field(0.3, gt=0, le=1, description="Share of the device's peak that encoding reaches.")
    core_flops: float = Field(2e10, gt=0, description="Operations a second of one CPU core, where there is no GPU.")


class Site(Strict):
    """What is particular to a cluster (`workflow/profiles/slurm/site.yaml`)."""

    account: str | None = Field(None, description="sbatch --account; null: SLURM's default.")
    partition: str | None = Field(None, description="Partition of jobs without GPU; null: SLURM's default.")
    gpu_partition: str | None = Field(None, description="Partition of GPU jobs; null: as the others.")
    constraint: str | None = Field(None, description="sbatch --constraint of GPU jobs.")
    qos: str | None = Field(None, description="sbatch --qos of GPU jobs.")
    gpu_model: str | None = Field("a100", description="As in `sinfo -o %G`: gpu:a100:4; null: any.")
    gpus: int = Field(16, ge=1, description="GPUs in use at a time, at most.")
    gpus_per_node: int = Field(4, ge=1, description="For node-hours.")
    max_runtime: int = Field(2880, ge=5, description="Longest time limit of a job, in minutes.")
    modules: list[str] = Field([], description="`module load` of these before each job's work.")
    price: float | None = Field(None, ge=0, description="Of a GPU-hour; null: the plan names no price.")
    currency: str = "EUR"


class ModelSize(Strict):
    """What a model's cost follows from."""

    parameters: float = Field(gt=0, description="Billions.")
    layers: int = Field(ge=1)
    hidden: int = Field(ge=1)
    intermediate: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    vocabulary: int = Field(ge=1)


class TaskSize(Strict):
    """What the cost of answering a task follows from."""

    documents: int = Field(ge=1)
    queries: int = Field(ge=1)
    document_chars: int = Field(ge=1, description="On average.")
    query_chars: int = Field(ge=1, description="On average.")


class Sizes(Strict):
    """How large things are that have not been fetched (`config/sizes.yaml`)."""

    models: dict[str, ModelSize] = {}
    datasets: dict[str, float] = Field({}, description="Name -> GB to fetch.")
    tasks: dict[str, TaskSize] = Field({}, description="benchmark/task -> size.")


class Model(Strict):
    """A row of models.tsv: a backbone or an off-the-shelf retriever."""

    scale: str
    name: str = Field(pattern=NAME)
    kind: Literal["backbone", "encoder", "bm25", "api"]
    source: str = Field(
        "",
        description="hub:owner/name[@revision], path:folder, provider:name of an API, or settings of BM25, which is "
        "k1=1.5;b=0.75 where empty.",
    )
    base: str = Field("", description="The backbone that an encoder's weights are an adapter of.")
    size: str = Field("", description="As printed in the tables, for example 0.5B.")
    pooling: Literal["", "eos", "mean", "cls"] = ""
    query_prefix: str = ""
    passage_prefix: str = ""
    passage_prefixes: str = Field(
        "", description="task=prefix pairs, separated by ';', for tasks whose passages have another prefix."
    )
    similarity: Literal["", "cosine", "dot"] = ""
    max_length: int | None = None
    price: float | None = Field(None, ge=0, description="US dollars for a million tokens of an API.")
    tables: str = Field("", description="table=label pairs, separated by ';'.")

    @property
    def key(self) -> str:
        return self.name

    @property
    def system(self) -> str:
        return f"untrained/{self.name}" if self.kind == "backbone" else self.name


class Run(Strict):
    """A row of runs.tsv: a trained cell and the table columns that it fills."""

    scale: str
    method: Literal[METHODS]
    corpus: str = Field(pattern=NAME)
    retriever: str = Field(pattern=NAME)
    lm: str = Field(pattern=NAME, description="'none' for a method without a language model.")
    batch_size: int = Field(ge=2)
    variant: str = Field("", pattern=NAME + "|^$")
    tables: str = Field("", description="table=label pairs, separated by ';'.")

    @property
    def key(self) -> str:
        return self.cell.path

    @property
    def system(self) -> str:
        return self.cell.path

    @property
    def cell(self) -> Cell:
        return Cell(self.method, self.corpus, self.retriever, self.lm, self.batch_size, self.variant)


class Task(Strict):
    """A row of benchmarks.tsv: one retrieval task."""

    scale: str
    benchmark: str = Field(pattern=NAME)
    task: str = Field(pattern=NAME)
    label: str = Field(description="The task's name in the paper's tables.")
    layout: Literal["coir", "beir", "bright"]
    dataset: str = Field(description="A key of `datasets`.")
    parts: str = Field(
        "",
        description="Names within the dataset, separated by ';'; scores are averaged over them.",
    )
    split: str = "test"
    unretrievable: int = Field(
        0,
        ge=0,
        description="Relevant judgements that no system can meet, as published: of documents that the corpus "
        "lacks (ArguAna: 5). More of them are an error.",
    )
    instruction: str = Field("", description="What is asked for; takes the place of {task} in a query prefix.")

    @property
    def key(self) -> str:
        return f"{self.benchmark}/{self.task}"


class Anchor(Strict):
    """A row of anchors.tsv: a score that others published."""

    scale: str
    system: str = Field(description="A row of models.tsv.")
    benchmark: str
    task: str
    ndcg10: float = Field(ge=0, le=100, description="nDCG@10 in percent.")

    @property
    def key(self) -> str:
        return f"{self.system}/{self.benchmark}/{self.task}"


class Cell:
    """method x corpus x retriever x LM x batch size, and a named variant. Its path spells it out."""

    def __init__(self, method: str, corpus: str, retriever: str, lm: str, batch_size: int, variant: str = ""):
        self.method, self.corpus, self.retriever = method, corpus, retriever
        self.lm, self.batch_size, self.variant = lm, int(batch_size), variant

    @property
    def path(self) -> str:
        """What the cell is called.

        >>> Cell("revela", "code", "llama-3.2-1b", "qwen2.5-0.5b", 8, "tau1e-3").path
        'revela/code/llama-3.2-1b/qwen2.5-0.5b/bs8-tau1e-3'
        """
        variant = f"-{self.variant}" if self.variant else ""
        return f"{self.method}/{self.corpus}/{self.retriever}/{self.lm}/bs{self.batch_size}{variant}"

    @classmethod
    def parse(cls, path: str) -> Cell:
        """The cell that a path names; ConfigError where it names none.

        >>> Cell.parse("contriever/wiki/llama-3.2-1b/none/bs16").method
        'contriever'
        """
        match = re.fullmatch(r"([^/]+)/([^/]+)/([^/]+)/([^/]+)/bs(\d+)(?:-([^/]+))?", path)
        if not match:
            raise ConfigError(f"{path!r} is not a cell; write method/corpus/retriever/lm/bsN or .../bsN-variant")
        return cls(*match.groups(default=""))

    def __eq__(self, other) -> bool:
        return isinstance(other, Cell) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        return f"Cell({self.path})"


class Config(Strict):
    """One scale of the study: the paper's, or the embedded demo's."""

    scale: str = Field(pattern=NAME, description="Rows of the sheets with this scale are used.")
    results: str = Field(pattern=FOLDER, description="Folder that everything is written to.")
    seed: int = Field(42, ge=0, description="Seed of corpus sampling and training.")
    runs: str = "config/runs.tsv"
    models: str = "config/models.tsv"
    benchmarks: str = "config/benchmarks.tsv"
    anchors: str | None = Field(None, description="Sheet of published scores that the evaluation must reach.")
    datasets: dict[Name, Dataset]
    corpora: dict[Name, Corpus]
    chunking: Chunking = Chunking()
    training: Training = Training()
    methods: dict[Literal[METHODS], dict[str, Any]] = Field({}, description="Overrides of `training` for each method.")
    variants: dict[Name, dict[str, Any]] = Field({}, description="Named overrides of `training`, the last word.")
    evaluation: Evaluation = Evaluation()
    lm_evaluation: LmEvaluation = LmEvaluation()
    export_scores: list[str] = Field([], description="Benchmarks whose scores a cell's model card has.")
    tables: dict[Name, Table] = {}
    figures: dict[Name, Figure] = {}
    compute: Compute = Compute()

    @model_validator(mode="before")
    @classmethod
    def _own_files_are_a_dataset(cls, values: Any) -> Any:
        """`corpora: notes: {files: PATTERN}` is short for a dataset of these files and a corpus with this one source."""
        if not isinstance(values, dict) or not isinstance(values.get("corpora"), dict):
            return values
        corpora, datasets = dict(values["corpora"]), values.get("datasets") or {}
        for name, corpus in values["corpora"].items():
            if not isinstance(corpus, dict) or "files" not in corpus or corpus.keys() & {"sources", "mix"}:
                continue
            if not isinstance(datasets, dict) or name in datasets:
                raise ConfigError(f"corpora.{name}.files: makes a dataset {name!r}, and datasets has one of that name")
            rest = {key: value for key, value in corpus.items() if key not in ("files", "text")}
            source = {"dataset": name, "text": corpus.get("text", "text"), "mixed": True}
            corpora[name] = {**rest, "sources": [source]}
            datasets = {**datasets, name: {"files": corpus["files"]}}
        return {**values, "corpora": corpora, "datasets": datasets}

    @model_validator(mode="after")
    def _overrides_are_known(self):
        """Partial overrides are checked where they are written, not when a cell first uses them."""
        overrides = {f"methods.{name}": values for name, values in self.methods.items()}
        overrides |= {f"variants.{name}": values for name, values in self.variants.items()}
        overrides |= {f"corpora.{name}.training": corpus.training for name, corpus in self.corpora.items()}
        for where, values in overrides.items():
            try:
                Training.model_validate({**self.training.model_dump(exclude_unset=True), **values})
            except ValidationError as error:
                raise ConfigError(_first_line(error, Training, where)) from None
        return self

    @model_validator(mode="after")
    def _names_resolve(self):
        for corpus, spec in self.corpora.items():
            for source in spec.sources:
                _known(f"corpora.{corpus}.sources.dataset", source.dataset, self.datasets)
            for part in spec.mix:
                _known(f"corpora.{corpus}.mix", part, self.corpora)
                if self.corpora[part].mix:
                    raise ConfigError(f"corpora.{corpus}.mix: {part!r} is a mix itself; name corpora that have text")
            if spec.released:
                _known(f"corpora.{corpus}.released", spec.released, self.datasets)
        if self.chunking.punkt != "nltk":
            _known("chunking.punkt", self.chunking.punkt, self.datasets)
        for label, task in self.lm_evaluation.tasks.items():
            _known(f"lm_evaluation.tasks.{label}.dataset", task.dataset, self.datasets)
        for name, table in self.tables.items():
            for part in table.means_of.values():
                _known(f"tables.{name}.means_of", part, [key for key, other in self.tables.items() if other.benchmark])
                if self.tables[part].columns != table.columns:
                    raise ValueError(f"tables.{name}: its columns are not those of {part}, whose means it shows")
        for name, figure in self.figures.items():
            for part in figure.panels.values():
                _known(f"figures.{name}.panels", part, self.tables)
                if figure.kind == "lines" and not self.tables[part].groups:
                    raise ValueError(f"figures.{name}: a figure of lines needs a table with groups, {part} has none")
        return self


class BackboneShape(Strict):
    """One small Llama of the demo, and on how many tokens it is pretrained."""

    hidden_size: int = Field(ge=16)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    intermediate_size: int = Field(ge=16)
    tokens: int = Field(ge=1)
    gate: bool = Field(True, description="Whether it plays the language model's part, and so must pass the gate.")


class Pretraining(Strict):
    """How the demo's backbones are made (`config/backbone.yaml`)."""

    models: dict[str, BackboneShape]
    vocabulary: int = Field(4096, ge=300, description="Entries of the byte-level BPE tokenizer.")
    context: int = Field(320, ge=32, description="Tokens in a pretraining row.")
    chunk_tokens: int = Field(62, ge=8, description="Tokens of a chunk at most.")
    repetitions: float = Field(0.3, ge=0, lt=1, description="Share of rows that repeat tokens in random order.")
    rows_per_step: int = Field(32, ge=1, description="Rows in one step, over all processes.")
    muon_learning_rate: float = Field(0.02, gt=0, description="Of the linear layers' matrices.")
    embedding_learning_rate: float = Field(1e-2, gt=0, description="AdamW's, of the embeddings.")
    vector_learning_rate: float = Field(3e-3, gt=0, description="AdamW's, of norms and biases.")
    warmup_steps: int = Field(30, ge=1)
    two_stream_steps: int = Field(250, ge=1, description="Steps of the last stage, with random similarities.")
    two_stream_learning_rate: float = Field(3e-4, gt=0)
    gate_batches: int = Field(64, ge=2, description="Held-out batches of 4 documents x 4 chunks in the gate.")
    gate_gain: float = Field(0.05, ge=0, description="Nats by which the oracle Sim must beat the uniform one.")
    seed: int = Field(0, ge=0)


class Study(BaseModel):
    """A configuration with the rows of its sheets: all that the workflow plans from."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    config: Config
    models: dict[str, Model]
    runs: list[Run]
    tasks: list[Task]
    anchors: list[Anchor] = []

    @property
    def backbones(self) -> list[str]:
        """Names of models that can be a retriever's or a language model's start."""
        return [name for name, model in self.models.items() if model.kind == "backbone"]

    @property
    def benchmarks(self) -> list[str]:
        """Names of benchmarks, in the order of the sheet."""
        return list(dict.fromkeys(task.benchmark for task in self.tasks))

    def benchmark_tasks(self, benchmark: str) -> list[Task]:
        """The tasks of one benchmark, in the order of the sheet; ConfigError if there is no such benchmark."""
        _known("benchmark", benchmark, self.benchmarks)
        return [task for task in self.tasks if task.benchmark == benchmark]

    def task(self, benchmark: str, task: str) -> Task:
        """One task by name; ConfigError if there is none."""
        tasks = {row.task: row for row in self.benchmark_tasks(benchmark)}
        _known(f"task of {benchmark}", task, tasks)
        return tasks[task]

    def check_cell(self, cell: Cell) -> Cell:
        """The cell itself if each of its parts is known; ConfigError naming the valid parts otherwise."""
        _known(f"{cell.path}: method", cell.method, METHODS)
        _known(f"{cell.path}: corpus", cell.corpus, self.config.corpora)
        _known(f"{cell.path}: retriever", cell.retriever, self.backbones)
        _known(f"{cell.path}: lm", cell.lm, ["none"] if cell.method in WITHOUT_LM else self.backbones)
        if cell.variant:
            _known(f"{cell.path}: variant", cell.variant, self.config.variants)
        if cell.batch_size < 2:
            raise ConfigError(f"{cell.path}: batch size {cell.batch_size}; valid: 2 or more, for chunks tell of others")
        return cell

    def training_settings(self, cell: Cell) -> Training:
        """Settings of a cell: `training`, overridden by its method, its corpus and its variant, in that order."""
        self.check_cell(cell)
        config = self.config
        return Training.model_validate(
            {
                "seed": config.seed,
                **config.training.model_dump(exclude_unset=True),
                **config.methods.get(cell.method, {}),
                **config.corpora[cell.corpus].training,
                **config.variants.get(cell.variant, {}),
            }
        )

    def evaluation_settings(self, system: str) -> Evaluation:
        """`evaluation`; of a cell whose variant has prefixes of its own, with those."""
        variant = Cell.parse(system).variant if system.count("/") == 4 else ""
        own = self.config.variants.get(variant, {})
        prefixes = {key: own[key] for key in ("query_prefix", "passage_prefix") if key in own}
        return self.config.evaluation.model_copy(update=prefixes)

    def on_request(self, run: Run) -> bool:
        """Whether a cell stands in tables that are made on request, and in no other."""
        tables = [entry.partition("=")[0].strip() for entry in run.tables.split(";") if entry.strip()]
        known = self.config.tables
        return bool(tables) and all(table in known and known[table].on_request for table in tables)

    def shown_cells(self) -> list[str]:
        """The trained cells that tables and figures stand on, but for those made on request; in the sheet's order."""
        figures = [figure for figure in self.config.figures.values() if not figure.on_request]
        tables = {name for name, table in self.config.tables.items() if not table.on_request}
        tables |= {table for figure in figures for table in figure.panels.values()}
        shown = {system for table in tables for system in self.table_systems(table).values()}
        shown |= {figure.cell for figure in figures if figure.kind == "dynamics"}
        return [run.system for run in self.runs if run.system in shown]

    def table_systems(self, table: str) -> dict[str, str]:
        """label -> system of a table's columns, in the table's order.

        A system is a cell's path, ``untrained/{model}`` for a backbone, or a model's name.
        Raises ConfigError where a column has no row, or the table is unknown.
        """
        _known("table", table, self.config.tables)
        spec = self.config.tables[table]
        if spec.means_of:
            return self.table_systems(next(iter(spec.means_of.values())))
        systems = {}
        for row in [*self.models.values(), *self.runs]:
            for entry in filter(None, row.tables.split(";")):
                name, _, label = entry.strip().partition("=")
                if name == table:
                    systems[label] = row.system
        missing = [label for label in spec.columns if label not in systems]
        if missing:
            raise ConfigError(
                f"tables.{table}.columns: no row of the sheets fills {missing}; rows fill {list(systems)}"
            )
        return {label: systems[label] for label in spec.columns}

    def table_benchmarks(self, table: str) -> list[str]:
        """The benchmarks of whose scores a table is made: one, or those of the tables whose means it shows."""
        spec = self.config.tables[table]
        parts = [self.config.tables[part].benchmark for part in spec.means_of.values()]
        return [spec.benchmark] if spec.benchmark else list(dict.fromkeys(parts))

    def benchmark_datasets(self, benchmark: str) -> list[str]:
        """The datasets of a benchmark's tasks."""
        lm_eval = benchmark == LM_EVAL
        tasks = self.config.lm_evaluation.tasks.values() if lm_eval else self.benchmark_tasks(benchmark)
        return list(dict.fromkeys(task.dataset for task in tasks))

    def corpus_datasets(self, corpus: str) -> list[str]:
        """The datasets that a corpus is made of."""
        spec = self.config.corpora[corpus]
        if spec.ready:
            return [spec.ready]
        own = [source.dataset for source in spec.sources]
        return own + [dataset for part in spec.mix for dataset in self.corpus_datasets(part)]

    def is_copied(self, system: str) -> bool:
        """Whether a system's values are the paper's printed ones: those of a service, which is not run here."""
        return system in self.models and self.models[system].kind == "api"

    def table_scores(self, table: str) -> list[tuple[str, str]]:
        """(system, benchmark) of each score file that a table is made of."""
        systems = [system for system in self.table_systems(table).values() if not self.is_copied(system)]
        return [(system, benchmark) for benchmark in self.table_benchmarks(table) for system in systems]


def load(path: str | Path) -> Study:
    """Read a YAML configuration and its sheets.

    Sheet paths are relative to the working directory, as all paths of the workflow are.
    Raises ConfigError with one line that names the file, the key, the value and what would be valid.
    """
    config = _validate(Config, read_yaml(path), str(path))
    models = {row.name: row for row in _sheet(config.models, Model, config.scale)}
    tasks = _sheet(config.benchmarks, Task, config.scale)
    runs = _sheet(config.runs, Run, config.scale)
    anchors = _sheet(config.anchors, Anchor, config.scale) if config.anchors else []
    study = Study(config=config, models=models, runs=runs, tasks=tasks, anchors=anchors)
    for model in models.values():
        if model.base:
            _known(f"{config.models}: base of {model.name}", model.base, study.backbones)
    for task in tasks:
        _known(f"{config.benchmarks}: dataset of {task.task}", task.dataset, config.datasets)
    for anchor in anchors:
        _known(f"{config.anchors}: system of {anchor.key}", anchor.system, models)
        try:
            study.task(anchor.benchmark, anchor.task)
        except ConfigError as error:
            raise ConfigError(f"{config.anchors}: {error}") from None
    for name, table in config.tables.items():
        if table.benchmark:
            lm_eval = [LM_EVAL] if config.lm_evaluation.tasks else []
            _known(f"{path}: tables.{name}.benchmark", table.benchmark, [*study.benchmarks, *lm_eval])
    for name, figure in config.figures.items():
        if figure.cell:
            try:
                study.check_cell(Cell.parse(figure.cell))
            except ConfigError as error:
                raise ConfigError(f"{path}: figures.{name}.cell: {error}") from None
    for run in runs:
        try:
            study.check_cell(run.cell)
        except ConfigError as error:
            raise ConfigError(f"{config.runs}: {error}") from None
    return study


def load_site(path: str | Path = SITE) -> Site:
    """What is particular to a cluster. Raises ConfigError with one line."""
    return _validate(Site, read_yaml(path), str(path))


def load_sizes(path: str | Path = SIZES) -> Sizes:
    """How large things are that have not been fetched. Raises ConfigError with one line."""
    return _validate(Sizes, read_yaml(path), str(path))


class _Yaml(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error; by itself the last one would count."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError with one line."""
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Yaml)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a mapping of settings is expected")
    return values


def _sheet(path: str, row_type: type[Strict], scale: str) -> list:
    """Rows of a tab-separated sheet that belong to a scale."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets put a mark in front
            reader = csv.DictReader(file, delimiter="\t", restkey="(too many columns)")
            rows, columns = list(reader), reader.fieldnames or []
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; it is named as a sheet of the configuration") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: not a sheet of tab-separated UTF-8 text ({error})") from None
    valid = list(row_type.model_fields)
    for position, column in enumerate(columns or [""]):
        if column not in valid or column in columns[:position]:
            fault = "stands twice" if column in valid else f"is no column, between tabs; valid: {', '.join(valid)}"
            raise ConfigError(f"{path}, line 1: {column!r} {fault}")
    seen, result = set(), []
    for number, row in enumerate(rows, start=2):
        values = {key: value for key, value in row.items() if value not in (None, "")}
        item = _validate(row_type, values, f"{path}, line {number}")
        if item.scale != scale:
            continue
        if item.key in seen:
            raise ConfigError(f"{path}, line {number}: {item.key} stands twice")
        seen.add(item.key)
        result.append(item)
    return result


def _validate(model: type[BaseModel], values: dict, where: str):
    try:
        return model.model_validate(values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except ValidationError as error:
        raise ConfigError(_first_line(error, model, where)) from None


def _first_line(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """One line for the first fault: key, value, and what would be valid."""
    fault = error.errors()[0]
    keys = [str(key) if str(key).isprintable() else repr(key) for key in fault["loc"]]
    place = ".".join(keys) or model.__name__
    if fault["type"] == "extra_forbidden":
        valid = list(_fields_at(model, keys[:-1]))
        hint = difflib.get_close_matches(keys[-1], valid, n=1)
        meant = f"; did you mean {hint[0]!r}?" if hint else "."
        return f"{where}: {place}: unknown key{meant} Valid keys: {', '.join(valid)}"
    if fault["type"] == "missing":
        return f"{where}: {place}: required, but not given"
    if fault["type"] == "string_pattern_mismatch" and NAME in fault["msg"]:
        place = place.removesuffix(".[key]")
        fault["msg"] = (
            "a name is of lower-case letters, digits, '.', '_' and '-', and neither begins nor ends with a sign"
        )
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {place}: {message[0].lower() + message[1:]}, got {fault['input']!r:.80}"


def _fields_at(model: type[BaseModel], keys: list[str]) -> list[str]:
    """Field names of the model that a path of keys leads to."""
    for key in keys:
        field = model.model_fields.get(key)
        if field is None:  # a key of a dict or a place in a list: the model stays the element's
            continue
        inner = [field.annotation]
        while inner:
            annotation = inner.pop()
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
                break
            inner.extend(getattr(annotation, "__args__", ()))
    return list(model.model_fields)


def _known(where: str, name: str, valid) -> None:
    if name not in valid:
        hint = difflib.get_close_matches(name, list(valid), n=1)
        meant = f"; did you mean {hint[0]!r}?" if hint else "."
        raise ConfigError(f"{where}: unknown {name!r}{meant} Valid: {', '.join(valid)}")


def schemas() -> dict[str, str]:
    """File name -> JSON schema of the configuration and of each sheet's rows."""
    types = {
        "config": Config,
        "runs": Run,
        "models": Model,
        "benchmarks": Task,
        "anchors": Anchor,
        "site": Site,
        "sizes": Sizes,
    }
    return {f"{name}.schema.json": json.dumps(t.model_json_schema(), indent=2) + "\n" for name, t in types.items()}


if __name__ == "__main__":
    for name, schema in schemas().items():
        Path("workflow/schemas", name).write_text(schema)
