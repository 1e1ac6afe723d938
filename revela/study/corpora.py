"""The sections `corpora` and `datasets` of the configuration: raw text, and where it comes from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from revela.study.base import Strict


class TextSource(Strict):
    """One dataset that a corpus is made of, and how its rows become documents."""

    dataset: str = Field(description="A key of `datasets`.")
    text: str = Field("text", description="The column with the text.")
    title: str | None = Field(None, description="The column with a title, put in front of the text; null: none.")
    join_by: str | None = Field(None, description="Neighbouring rows with the same value here form one document.")
    batches: Annotated[int, Field(ge=1)] | Literal["rest"] | None = Field(
        None,
        description="Batches of this source; rest: what the others leave of the corpus's number, see `rest_at`; null: all.",
    )
    mixed: bool = Field(
        False, description="Read all files, text beside tables; otherwise tables alone if there are any."
    )
    hold_out: int | None = Field(
        None, ge=2, description="Every so many-th document, by the hash of its name, is left out; see `held_out_of`."
    )


RANDOM = "random"  # of `Regroup.by`


class Regroup(Strict):
    """The chunks of another corpus's batches in other batches, each of chunks that a retriever finds alike."""

    corpus: str = Field(description="The corpus whose batches are regrouped; the number of batches stays as it is.")
    by: str = Field(
        description="Whose neighbours: a system's name, which is a cell's path, untrained/MODEL, an encoder or BM25 of "
        "models.tsv; or random, a control without neighbours."
    )
    neighbours: int = Field(32, ge=1, description="Nearest neighbours of a chunk that a batch is chosen from.")
    batch: Literal["mutual", "path", "cluster"] = Field(
        "mutual",
        description="mutual: greedily by mutual neighbours; path: a walk from neighbour to neighbour, cut into batches; "
        "cluster: balanced clusters.",
    )
    keep_document: float = Field(
        0.0, ge=0, le=1, description="Share of a batch for chunks that share a document with another of the batch."
    )
    exclude_near_duplicates: float | None = Field(
        0.8,
        gt=0,
        le=1,
        description="Jaccard similarity of their runs of five words from which two chunks share no batch; null: they may.",
    )

    @model_validator(mode="after")
    def _random_has_no_neighbours(self):
        unused = sorted(self.model_fields_set - {"corpus", "by"})
        if self.by == RANDOM and unused:
            raise ValueError(f"{unused[0]}: is for batches of neighbours, and by: {RANDOM} asks for none")
        return self


class Corpus(Strict):
    """Text that becomes batches: exactly one of `files`, `sources`, `mix`, `regroup`; or `released` batches; or both."""

    files: str | None = Field(
        None,
        description="Your own text: a folder, a file, or a pattern such as notes/**/*.{md,txt,jsonl,parquet}; "
        "short for a dataset and a source.",
    )
    text: str = Field("text", description="The column with the text, where `files` are tables.")
    hold_out: int | None = Field(None, ge=2, description="As of a source, for `files`.")
    sources: list[TextSource] = Field([], description="Datasets whose documents are chunked and interleaved.")
    mix: dict[str, Annotated[int, Field(ge=1)]] = Field({}, description="Corpus -> number of its batches.")
    regroup: Regroup | None = Field(None, description="Chunks of another corpus, grouped by a retriever.")
    released: str | None = Field(None, description="A key of `datasets`: ready batches as JSON lines.")
    source: Literal["rebuild", "released"] = Field(
        "rebuild", description="Of a corpus that has both: batches built from the text, or the released ones."
    )
    documents: int | None = Field(
        None, ge=1, description="Documents that the paper counts, beside which the corpus's report puts ours."
    )
    group_size: int = Field(2, ge=1, description="Documents whose chunks are interleaved (section 4.1).")
    batches: int | None = Field(None, ge=1, description="Batches in all; null: all there are.")
    rest_at: int = Field(
        16,
        ge=2,
        description="Batch size at which a source with `batches: rest` gives what the others leave; at another size, "
        "each source gives as many batches as at this one.",
    )
    take: Literal["random", "first"] = Field(
        "random",
        description="Where fewer batches are wanted than exist: drawn by the seed, or the first of the corpus.",
    )
    pairs: int | None = Field(None, ge=1, description="Contriever's pairs (App. C.1); null: one for each batch.")
    crop_ratio: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = Field(
        (0.05, 0.5), description="Length of a crop as a share of its text: least and greatest. Of Contriever's pairs."
    )
    min_chunks: int = Field(1, ge=1, description="Documents with fewer chunks are left out.")
    max_chunks: int | None = Field(None, ge=1, description="Chunks of a document at most, its first; null: all.")
    apart_from: list[str] = Field(
        [], description="Benchmarks: a document that shares 13 words in a row with one of their texts is left out."
    )
    training: dict[str, Any] = Field({}, description="Overrides of `training` for cells on this corpus.")

    @model_validator(mode="after")
    def _one_origin(self):
        text = sum(map(bool, (self.files, self.sources, self.mix, self.regroup)))
        if text > 1 or not (text or self.released):
            raise ValueError(
                "give exactly one of files, sources, mix, regroup, released (released may stand beside another)"
            )
        unused = sorted(self.model_fields_set - {"regroup", "pairs", "crop_ratio", "training"})
        if self.regroup and unused:
            raise ValueError(f"{unused[0]}: is for text; a regrouped corpus has the chunks of {self.regroup.corpus!r}")
        if self.source == "released" and not self.released:
            raise ValueError("source: released needs the key released, which names a dataset of ready batches")
        if self.ready and self.group_size != Corpus.model_fields["group_size"].default:
            raise ValueError("group_size: ready batches have their groups; for others, source: rebuild from the text")
        if len({source.dataset for source in self.sources}) < len(self.sources):
            raise ValueError("each source needs a dataset of its own")
        if sum(source.batches == "rest" for source in self.sources) > (self.batches is not None):
            raise ValueError("batches: rest is for one source of a corpus whose number of batches is given")
        if self.hold_out:
            raise ValueError("hold_out: is for files; where there are sources, one of them has it")
        if self.crop_ratio[0] > self.crop_ratio[1]:
            raise ValueError(f"crop_ratio: the least comes first, then the greatest; not {list(self.crop_ratio)}")
        return self

    @property
    def ready(self) -> str | None:
        """The dataset of ready batches that the corpus is made of; None: it is built from text."""
        has_text = self.files or self.sources or self.mix
        return self.released if self.source == "released" or not has_text else None


class Dataset(Strict):
    """A raw dataset: of the hub, local, of a package on the index, or text of installed packages: exactly one of them."""

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
    held_out_of: str | None = Field(
        None,
        description="A dataset that a source reads with `hold_out`: headings, first sentences and docstrings of the "
        "documents held out find the text below them, in BEIR's layout.",
    )
    installed: list[str] = Field([], description="Installed distributions whose Python files are the text.")
    content: Literal["source", "docstrings", "coir", "beir", "bright"] = Field(
        "source", description="What is made of installed files: text for training, or a benchmark in that layout."
    )
    queries: int = Field(300, ge=1, description="Queries of a benchmark task that is made here, at most.")
    documents: int = Field(600, ge=1, description="Documents of such a task, at most.")
    package: str | None = Field(None, description="A key of `packages`, whose files are the data.")
    recipe: Literal["copy", "wikipedia-text", "wikipedia-search", "bfcl", "human-eval"] = Field(
        "copy", description="What is made of a package's files: a copy, text for training, or a benchmark."
    )
    sha256: str | None = Field(None, description="Expected hash of text built here; a mismatch is an error.")

    @model_validator(mode="after")
    def _one_origin(self):
        if sum(map(bool, (self.hub, self.path, self.files, self.held_out_of, self.installed, self.package))) != 1:
            raise ValueError("give exactly one of hub, path, files, held_out_of, installed, package")
        if self.recipe != "copy" and not self.package:
            raise ValueError("recipe: is for a dataset of a package; for installed ones, content says what is made")
        return self
