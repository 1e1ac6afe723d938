"""The model card of an export: data, hyperparameters, scores, licence of the base model, lineage.

Everything is read from what the workflow left beside the model: manifests, counts of the corpus, score files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from revela.export import ExportError
from revela.provenance import MANIFEST, ProvenanceError, read_manifest
from revela.study.cell import Cell
from revela.study.layout import Layout, locate_cell

if TYPE_CHECKING:
    from revela.retriever import Retriever

CITATION = """@inproceedings{cai2026revela,
  title = {Revela: Dense Retriever Learning via Language Modeling},
  author = {Cai, Fengyu and Chen, Tong and Zhao, Xinran and Chen, Sihao and Zhang, Hongming and Wu, Sherry Tongshuang
            and Gurevych, Iryna and Koeppl, Heinz},
  booktitle = {International Conference on Learning Representations},
  year = {2026}
}"""


def write_card(
    folder: Path, model: str | Path, retriever: Retriever, results: Sequence[Mapping[str, Any]], library: str
) -> None:
    """Writes `README.md` into an export, and beside it the licence files of the base model (and of others' adapter).

    Args:
        folder: The export.
        model: What is exported: a trained cell, or the folder of a retriever.
        retriever: The retriever in it.
        results: Scores, as `read_scores` returns them.
        library: "sentence-transformers", "transformers" or "peft".
    """
    facts = _facts(Path(model), retriever)
    for origin, prefix in ((facts["base"], ""), (facts["adapter"], "adapter-")):
        for path in _licence_files(origin.folder) if origin else []:
            shutil.copy(path, folder / (prefix + path.name))
    head = _head(facts, results, library)
    (folder / "README.md").write_text(
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n{_card(facts, retriever, results, library)}",
        encoding="utf-8",
    )


def read_scores(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """The contents of score files, each with `benchmark` and `tasks` (label and metrics by name).

    Raises ExportError for a file that holds no scores.
    """
    results = []
    for path in paths:
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            if "metrics" in found:  # from `revela evaluate`: a benchmark of one task
                found = {**found, "tasks": {found["benchmark"]: {"label": found["benchmark"], **found}}}
            if not all(task["label"] and task["metrics"]["nDCG@10"] >= 0 for task in found["tasks"].values()):
                raise ValueError
            if "protocol" in found and not {"query_prefix", "passage_prefix", "max_length"} <= found["protocol"].keys():
                raise ValueError
        except OSError as error:
            raise ExportError(f"--scores {path}: cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ExportError(
                f"--scores {path}: no scores; valid: a file of results/scores, or what `revela evaluate --json` prints"
            ) from None
        results.append(found)
    return results


@dataclass(frozen=True)
class Origin:
    """A model that an export derives from.

    name: owner/name on the hub, or the folder's name. revision: its commit there; None for a folder from elsewhere.
    licence: the keys at the head of a card: `license`, and `license_name` and `license_link` for one that the hub has no
        name for. Empty where its files state none.
    package: the distribution of the package index that it was in, and whom to name for it; None for others.
    """

    folder: Path
    name: str
    revision: str | None
    licence: Mapping[str, Any]
    package: str | None = None

    @classmethod
    def of(cls, folder: Path) -> Origin:
        """The origin that the folder's manifest and card describe."""
        manifest, head = _manifest(folder), front_matter(folder / "README.md")
        name, revision = hub_name(folder)
        licence = {key: head[key] for key in ("license", "license_name", "license_link") if head.get(key)}
        if not licence and manifest.get("licence"):
            licence = {"license": manifest["licence"]}
        if not licence and _licence_files(folder):
            licence = {"license": "other"}
        package = manifest.get("package") and f"{manifest['package']}. {manifest['attribution']}"
        return cls(folder, name or folder.name, revision, licence, package)

    @property
    def link(self) -> str:
        """Its name as Markdown."""
        return f"[{self.name}](https://huggingface.co/{self.name})" if self.revision else f"`{self.name}`"

    @property
    def licence_name(self) -> str:
        """Its licence in a sentence."""
        licence = self.licence.get("license_name") or self.licence.get("license") or "not stated by its files"
        return ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence)


def _licence_files(folder: Path) -> list[Path]:
    return [path for pattern in ("LICENSE*", "NOTICE*") for path in sorted(folder.glob(pattern))]


def _facts(model: Path, retriever: Retriever) -> dict[str, Any]:
    """What is known of a model: cell, manifest and settings of its training, training text, base, adapter by others."""
    located = locate_cell(model) or locate_cell(model.parent)  # a cell, or the retriever in it
    if located is None or not Path(located[0].cell(located[1]), MANIFEST).is_file():
        adapter = _manifest(model).get("adapter")
        return {
            "cell": None,
            "base": Origin.of(retriever.base),
            "adapter": Origin.of(Path(adapter)) if adapter else None,
        }
    layout, cell = located
    start = Path(layout.model(cell.retriever))  # the model that training began with
    return {
        "cell": cell,
        "manifest": read_manifest(layout.cell(cell)),
        "settings": json.loads(Path(layout.cell_settings(cell)).read_text(encoding="utf-8")),
        "text": _training_text(layout, cell),
        "base": Origin.of(start if start.is_dir() else retriever.base),
        "adapter": None,
    }


def hub_name(folder: Path) -> tuple[str | None, str | None]:
    """(name on the hub, commit) of a fetched model; None for one from elsewhere."""
    return next(iter((_manifest(folder).get("hub") or {}).items()), (None, None))


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a resource with the facts of its origin's; empty where there is none."""
    try:
        manifest = read_manifest(folder)
    except ProvenanceError:
        return {}
    return {**(manifest.get("origin") or {}), **manifest}


def front_matter(card: Path) -> dict[str, Any]:
    """The YAML at the head of a model card, empty where there is none."""
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    parts = text.split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return {}
    try:
        head = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return {}
    return head if isinstance(head, dict) else {}


def _training_text(layout: Layout, cell: Cell) -> list[str]:
    """A line for each part of the training text that can still be read beside the cell."""
    lines = []
    if found := _counts(layout, cell.corpus, cell.batch_size):
        lines.append(f"{found['batches']:,} batches of {cell.batch_size} chunks, {found['words']:,} words")
        for name in _datasets(layout, cell.corpus, cell.batch_size):
            manifest = _manifest(Path(layout.dataset(name)))
            if package := manifest.get("package"):
                made = f"{package} from the package index, {manifest['licence']}. {manifest['attribution']}"
                lines.append(f"`{name}`: {made} (sha256 {manifest['sha256'][:12]})")
                continue
            place = manifest.get("hub") or manifest.get("path") or manifest.get("pattern") or manifest.get("installed")
            where = f"{_place(place)} (sha256 {manifest['sha256'][:12]})" if place else "no longer beside the cell"
            lines.append(f"`{name}`: {where}")
    return lines


def _counts(layout: Layout, corpus: str, batch_size: int) -> dict[str, Any] | None:
    path = Path(layout.batches(corpus, batch_size, "json"))
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _datasets(layout: Layout, corpus: str, batch_size: int) -> list[str]:
    """The datasets of a corpus; for a mix, those of the corpora in it."""
    names: dict[str, None] = {}
    for part in _counts(layout, corpus, batch_size)["parts"]:
        dataset = part == corpus or Path(layout.dataset(part)).is_dir()
        mixed = not dataset and _counts(layout, part, batch_size)
        names |= dict.fromkeys(_datasets(layout, part, batch_size) if mixed else [part])
    return list(names)


def _place(place: Any) -> str:
    if isinstance(place, Mapping):
        return ", ".join(
            f"[{name}](https://huggingface.co/datasets/{name}) at {commit}" for name, commit in place.items()
        )
    return f"installed packages {', '.join(place)}" if isinstance(place, list) else f"local files `{place}`"


def _head(facts: Mapping[str, Any], results: Sequence[Mapping[str, Any]], library: str) -> dict[str, Any]:
    head: dict[str, Any] = {"library_name": library, "pipeline_tag": "sentence-similarity"}
    tags = ["feature-extraction", "dense-retrieval", "revela"]
    head["tags"] = ["sentence-transformers", *tags] if library == "sentence-transformers" else tags
    if facts["base"].revision:
        head["base_model"] = facts["base"].name
    head |= facts["base"].licence
    if results:
        measured = [
            {
                "task": {"type": "retrieval"},
                "dataset": {"name": f"{result['benchmark']}/{name}", "type": name},
                "metrics": [{"type": "ndcg_at_10", "value": round(100 * task["metrics"]["nDCG@10"], 2)}],
            }
            for result in results
            for name, task in result["tasks"].items()
        ]
        head["model-index"] = [{"name": _title(facts), "results": measured}]
    return head


def _title(facts: Mapping[str, Any]) -> str:
    return facts["cell"].path if facts["cell"] else (facts["adapter"] or facts["base"]).name


def _card(facts: Mapping[str, Any], retriever: Retriever, results: Sequence[Mapping[str, Any]], library: str) -> str:
    cell, base, adapter = facts["cell"], facts["base"], facts["adapter"]
    if cell:
        what = f"{base.link} trained by {cell.needs.label} on raw text"
    else:
        what = f"the adapter {adapter.link} on {base.link}" if adapter else base.link
    lines = [f"# {_title(facts)}", "", f"A dense retriever: {what}.", ""]
    lines += ["## Use", "", "```python", _usage(library, base, retriever), "```", ""]
    lines += [
        f"Queries are preceded by `{retriever.query_prefix!r}`, documents by `{retriever.passage_prefix!r}`; both are cut "
        f"after {retriever.max_length} tokens, and the embedding is the last hidden state at EOS"
        + (", scaled to unit length." if retriever.normalize else "."),
        "",
    ]
    if cell:
        lines += ["## Training text", "", *(f"- {line}" for line in facts["text"] or ["not recorded"]), ""]
        lines += ["## Hyperparameters", "", "| setting | value |", "|---|---|"]
        lines += [f"| {name} | `{json.dumps(value)}` |" for name, value in facts["settings"].items()]
        lines.append("")
    if results:
        lines += ["## Scores", "", "| benchmark | task | nDCG@10 (%) |", "|---|---|---|"]
        lines += [
            f"| {result['benchmark']} | {task['label']} | {100 * task['metrics']['nDCG@10']:.1f} |"
            for result in results
            for task in result["tasks"].values()
        ]
        lines += ["", *filter(None, map(_measured, results)), ""]
    if cell:
        manifest = facts["manifest"]
        lines += ["## Lineage", ""]
        lines += [
            f"- cell `{cell.path}`",
            *([f"- trained from the weights of `{manifest['start']}`"] if "start" in manifest else []),
            f"- {manifest['steps']} steps, {manifest['wall_seconds']:.0f} s, {manifest['processes']} x {manifest['device']}",
            f"- code: {', '.join(filter(None, manifest['commits'])) or 'revela ' + version('revela')}",
            *(f"- input {name}: sha256 `{sha256}`" for name, sha256 in manifest["inputs"].items()),
            f"- trained retriever: sha256 `{manifest['retriever_sha256']}`",
            f"- {', '.join(f'{name} {version}' for name, version in manifest['versions'].items())}",
            "",
        ]
    lines += ["## Licence", ""]
    for origin in filter(None, (base, adapter)):
        lines.append(
            f"The weights derive from {origin.link}, whose licence is {origin.licence_name}; it binds these as well."
        )
        if origin.revision:
            lines.append(f"Its commit is `{origin.revision}`.")
        if origin.package:
            lines.append(f"It was taken from the package {origin.package}")
    return "\n".join([*lines, "", "## Citation", "", "```bibtex", CITATION, "```", ""])


def _measured(result: Mapping[str, Any]) -> str | None:
    """How the workflow read texts of a benchmark, which may differ from training; None: with the settings saved here."""
    protocol = result.get("protocol")
    return protocol and (
        f"On {result['benchmark']} queries were preceded by `{protocol['query_prefix']!r}`, documents by "
        f"`{protocol['passage_prefix']!r}`, and both cut after {protocol['max_length']} tokens."
    )


def _usage(library: str, base: Origin, retriever: Retriever) -> str:
    """Python that makes embeddings with the export and compares them."""
    texts = {
        "query": '"sum of two numbers"',
        "documents": '["def add(a, b): return a + b", "def read(path): return open(path).read()"]',
    }
    if library == "sentence-transformers":
        return f"""\
from sentence_transformers import SentenceTransformer  # 6.0 or newer

model = SentenceTransformer("path/or/name/of/this/model")
documents = {texts["documents"]}
scores = model.similarity(model.encode_query([{texts["query"]}]), model.encode_document(documents))"""
    place, loaded = "path/or/name/of/this/model", 'AutoModel.from_pretrained("path/or/name/of/this/model")'
    if library == "peft":
        place = base.name if base.revision else str(base.folder.resolve())
        loaded = f'PeftModel.from_pretrained(AutoModel.from_pretrained("{place}"), "path/or/name/of/this/model").eval()'
    scaled = "torch.nn.functional.normalize(hidden[0, -1], dim=0)" if retriever.normalize else "hidden[0, -1]"
    peft = "from peft import PeftModel\n" if library == "peft" else ""
    return f"""\
import torch
{peft}from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{place}")
model = {loaded}

def encode(prefix, text):
    ids = tokenizer(prefix + text, truncation=True, max_length={retriever.max_length})["input_ids"]
    if ids[-1:] == [tokenizer.eos_token_id]:  # appended by some tokenizers
        ids.pop()
    ids = [*ids[:{retriever.max_length - 1}], tokenizer.eos_token_id]
    with torch.no_grad():
        hidden = model(torch.tensor([ids])).last_hidden_state
    return {scaled}

query = encode({retriever.query_prefix!r}, {texts["query"]})
documents = {texts["documents"]}
scores = [query @ encode({retriever.passage_prefix!r}, document) for document in documents]"""
