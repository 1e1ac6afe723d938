"""The model card of an export: data, hyperparameters, scores, licence of the base model, lineage.

All of it is read from what the workflow left beside the model: manifests, counts of the corpus, score files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from revela.config import Cell, ConfigError
from revela.provenance import MANIFEST, ProvenanceError, read_manifest

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
    """Writes `README.md` into an export, and beside it the licence files of the base model.

    Args:
        folder: The export.
        model: What is exported: a trained cell, or the folder of a retriever.
        retriever: The retriever in it.
        results: Scores of the evaluation, each with benchmark and tasks.
        library: "sentence-transformers", "transformers" or "peft".
    """
    facts = _facts(Path(model), retriever)
    for pattern in ("LICENSE*", "NOTICE*"):
        for path in facts["base_folder"].glob(pattern):
            shutil.copy(path, folder)
    head = _head(facts, results, library)
    (folder / "README.md").write_text(
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n{_card(facts, retriever, results, library)}",
        encoding="utf-8",
    )


def _facts(model: Path, retriever: Retriever) -> dict[str, Any]:
    """What is known of a model: its cell, settings, training text, base, and the manifest of its training."""
    cell_folder = model if (model / MANIFEST).is_file() else model.parent
    try:
        manifest = read_manifest(cell_folder)
        cell = Cell.parse(manifest["cell"])
        settings = json.loads((cell_folder / "settings.json").read_text(encoding="utf-8"))
    except (ProvenanceError, ConfigError, KeyError, OSError):  # a retriever that was not trained by the workflow
        return {"cell": None, **_base_facts(retriever.base)}
    results = cell_folder.resolve().parents[len(Path(cell.path).parts)]
    return {
        "cell": cell,
        "manifest": manifest,
        "settings": settings,
        "text": _training_text(results, cell),
        **_base_facts(_start(results, cell, retriever)),
    }


def _start(results: Path, cell: Cell, retriever: Retriever) -> Path:
    """The folder of the model that training began with."""
    folder = results / "resources" / "models" / cell.retriever
    return folder if folder.is_dir() else retriever.base


def _base_facts(base: Path) -> dict[str, Any]:
    name, revision = origin(base)
    head = front_matter(base / "README.md")
    licence = head.get("license")
    if licence == "other":
        licence = head.get("license_name", licence)
    if licence is None:
        licence = _manifest(base).get("licence")
    if licence is None and next(base.glob("LICENSE*"), None):
        licence = "other"
    return {
        "base_folder": base,
        "base": name or base.name,
        "base_on_hub": name is not None,
        "revision": revision,
        "licence": licence,
    }


def origin(base: Path) -> tuple[str | None, str | None]:
    """(name on the hub, commit) of a fetched model; None for one from elsewhere."""
    return next(iter((_manifest(base).get("hub") or {}).items()), (None, None))


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a resource, and what that of its origin says; empty where there is none."""
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


def _training_text(results: Path, cell: Cell) -> list[str]:
    """A line for each part of the training text that can still be read beside the cell."""
    corpus, lines = results / "corpora" / cell.corpus, []
    counts = corpus / f"bs{cell.batch_size}" / "batches.json"
    if counts.is_file():
        found = json.loads(counts.read_text(encoding="utf-8"))
        lines.append(f"{found['batches']:,} batches of {cell.batch_size} chunks, {found['words']:,} words")
        for name in found["sources"]:
            manifest = _manifest(results / "resources" / "datasets" / name)
            place = manifest.get("hub") or manifest.get("path") or manifest.get("pattern") or manifest.get("installed")
            where = f"{_place(place)} (sha256 {manifest['sha256'][:12]})" if place else "no longer beside the cell"
            lines.append(f"`{name}`: {where}")
    return lines


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
    if facts["base_on_hub"]:
        head["base_model"] = facts["base"]
    if facts["licence"]:
        head["license"] = facts["licence"]
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
        head["model-index"] = [{"name": facts["cell"].path if facts["cell"] else facts["base"], "results": measured}]
    return head


def _card(facts: Mapping[str, Any], retriever: Retriever, results: Sequence[Mapping[str, Any]], library: str) -> str:
    cell, base = facts["cell"], facts["base"]
    named = f"[{base}](https://huggingface.co/{base})" if facts["base_on_hub"] else f"`{base}`"
    lines = [f"# {cell.path if cell else base}", ""]
    lines += [f"A dense retriever, {named} trained by {cell.method.capitalize()} on raw text." if cell else named, ""]
    lines += ["## Use", "", "```python", *_USAGE[library], "```", ""]
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
        lines.append("")
    if cell:
        manifest = facts["manifest"]
        lines += ["## Lineage", ""]
        lines += [
            f"- cell `{cell.path}`",
            f"- {manifest['steps']} steps, {manifest['wall_seconds']:.0f} s, {manifest['processes']} x {manifest['device']}",
            f"- code: {', '.join(filter(None, manifest['commits'])) or 'not a git checkout'}",
            *(f"- {name}: sha256 `{sha256}`" for name, sha256 in manifest["inputs"].items()),
            f"- retriever: sha256 `{manifest['retriever_sha256']}`",
            f"- {', '.join(f'{name} {version}' for name, version in manifest['versions'].items())}",
            "",
        ]
    licence = facts["licence"] or "not stated by its files"
    lines += ["## Licence", "", f"The weights derive from {named}, whose licence is {licence}; it binds these as well."]
    if facts["revision"]:
        lines.append(f"Revision of the base model: `{facts['revision']}`.")
    return "\n".join([*lines, "", "## Citation", "", "```bibtex", CITATION, "```", ""])


_USAGE = {
    "sentence-transformers": [
        "from sentence_transformers import SentenceTransformer  # 6.0 or newer",
        "",
        'model = SentenceTransformer("path/or/name/of/this/model")',
        'documents = ["def add(a, b): return a + b", "def read(path): return open(path).read()"]',
        'scores = model.similarity(model.encode_query(["sum of two numbers"]), model.encode_document(documents))',
    ],
    "transformers": [
        "from transformers import AutoModel, AutoTokenizer",
        "",
        'tokenizer = AutoTokenizer.from_pretrained("path/or/name/of/this/model")',
        'model = AutoModel.from_pretrained("path/or/name/of/this/model")',
    ],
    "peft": [
        "from peft import PeftModel",
        "from transformers import AutoModel",
        "",
        'model = PeftModel.from_pretrained(AutoModel.from_pretrained("the/base/model"), "path/or/name/of/this/adapter")',
    ],
}
