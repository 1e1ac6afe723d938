"""Punkt's parameters, by which texts are split into sentences: NLTK's own, or trained on a dataset."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nltk
from nltk.tabdata import PunktDecoder
from nltk.tokenize.punkt import PunktParameters, PunktTrainer, load_punkt_params

from revela.errors import RevelaError, first_line
from revela.text.chunking import PUNKT_FILE
from revela.text.documents import documents

if TYPE_CHECKING:
    from revela.study.corpora import TextSource

TRAINING_CHARACTERS = 4_000_000
PUNKT_TAB = {"abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt"}  # files of a language


class PunktError(RevelaError):
    """Punkt's parameters cannot be had. The message is one line."""


def texts_of(source: TextSource, folder: str | Path) -> Iterator[str] | Path:
    """The texts of a dataset's folder to train on, read as a corpus reads them; or a folder in it with `punkt_tab`.

    Raises CorpusError.
    """
    for place in sorted(path.parent for path in Path(folder).rglob("abbrev_types.txt")):
        if PUNKT_TAB <= {path.name for path in place.iterdir()}:
            return place
    return (text for _, text in documents(source, folder) if text)


def write_parameters(texts: Iterable[str] | Path | None, folder: Path) -> dict:
    """Write Punkt's parameters as JSON that `chunking.sentence_splitter` reads, and return their facts.

    Args:
        texts: Documents to train Punkt on (Kiss and Strunk, 2006). Every n-th of them is used, where n is the power of
            two that keeps them below four million characters. Or the folder of a language of `punkt_tab`, whose
            parameters are taken as they are. None: NLTK's own English parameters, `punkt_tab`, from NLTK's data folders
            or by `nltk.download`.
        folder: An existing folder.

    Raises:
        PunktError: The texts have no characters, or `punkt_tab` cannot be had.
    """
    if texts is None:
        parameters, facts = _punkt_tab(), {"source": "punkt_tab/english"}
    elif isinstance(texts, Path):
        parameters, facts = _read(texts), {"source": f"{texts.parent.name}/{texts.name}"}
    else:
        parameters, facts = _train(texts)
    content = {
        "abbreviations": sorted(parameters.abbrev_types),
        "collocations": sorted(parameters.collocations),
        "sentence_starters": sorted(parameters.sent_starters),
        "orthographic_context": dict(sorted(parameters.ortho_context.items())),
    }
    (folder / PUNKT_FILE).write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")
    return facts


def _train(texts: Iterable[str]) -> tuple[PunktParameters, dict]:
    kept, characters, step = [], 0, 1
    for index, text in enumerate(texts):
        if index % step == 0:
            kept.append(text)
            characters += len(text)
        while characters > TRAINING_CHARACTERS and len(kept) > 1:
            kept, step = kept[::2], 2 * step
            characters = sum(map(len, kept))
    if not characters:
        raise PunktError("no text to train Punkt on")
    trainer = PunktTrainer()
    trainer.train("\n\n".join(kept))
    return trainer.get_params(), {"source": "trained", "documents": len(kept), "characters": characters}


def _read(folder: Path) -> PunktParameters:
    """As `load_punkt_params`, which opens files in NLTK's own data folders alone."""
    parameters, decoder = PunktParameters(), PunktDecoder()
    with (folder / "collocations.tab").open(encoding="utf-8") as file:
        parameters.collocations = set(decoder.tab2tups(file))
    with (folder / "sent_starters.txt").open(encoding="utf-8") as file:
        parameters.sent_starters = decoder.txt2set(file)
    with (folder / "abbrev_types.txt").open(encoding="utf-8") as file:
        parameters.abbrev_types = decoder.txt2set(file)
    with (folder / "ortho_context.tab").open(encoding="utf-8") as file:
        parameters.ortho_context = decoder.tab2intdict(file)
    return parameters


def _punkt_tab() -> PunktParameters:
    name = "tokenizers/punkt_tab/english/"
    try:
        return load_punkt_params(nltk.data.find(name))
    except LookupError:
        pass
    with tempfile.TemporaryDirectory() as downloads:
        try:
            nltk.download(
                "punkt_tab", download_dir=downloads, quiet=True, raise_on_error=True, print_error_to=io.StringIO()
            )
            return _read(Path(nltk.data.find(name, paths=[downloads]).path))
        except (ValueError, LookupError, OSError) as error:
            raise PunktError(
                f"punkt_tab cannot be downloaded ({first_line(error)}); run `python -m nltk.downloader "
                "punkt_tab` where there is a network, or set chunking.punkt to the dataset punkt-tab, which takes the "
                "same files from a package (config/README.md)"
            ) from None
