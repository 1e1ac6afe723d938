"""Embeddings from the APIs of OpenAI, Cohere and Voyage, through their own clients.

The client reads the key from the environment and from nowhere else. The key is written nowhere, and neither is a
provider's answer to a refused request. Every embedding that was paid for is kept, so a job that was stopped requests
only the rest. A client waits and tries again when the provider reports too many requests.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from revela.evaluation import EvaluationError
from revela.evaluation.dense import Dense

if TYPE_CHECKING:
    from revela.evaluation.encoders import Kind
    from revela.study.layout import Layout
    from revela.study.settings import Compute
    from revela.study.system import Api

RETRIES = 8
PATIENCE = 3600  # seconds that a job waits for another one's request, with its retries
TEXTS_AT_A_TIME = 96  # Cohere's limit; OpenAI allows 2048, Voyage 128
CHARACTERS_AT_A_TIME = 200_000  # about 50,000 tokens; Voyage allows 120,000
CHARACTERS_PER_TOKEN = 4  # a text is cut at `max_length` times this many characters

Vectors = tuple[list[list[float]], int]  # embeddings of the texts, and tokens that were paid for
Request = Callable[[list[str], "Kind"], Vectors]


def load(system: Api, layout: Layout, compute: Compute) -> Dense:
    """The ranker of an encoder behind an API. EvaluationError where its key, price or client is missing."""
    encoder = ApiEncoder(system, layout.api_answers(system.name), budget=compute.api_budget)
    return Dense(system.name, encoder, shard_documents=compute.shard_documents, similarity="cosine")


class ApiEncoder:
    """An encoder behind an API. Its answers are kept in a file."""

    def __init__(self, system: Api, cache: str | Path, *, budget: float, base_url: str | None = None):
        """Open the cache and the provider's client.

        cache: an SQLite file. budget: US dollars for all requests that the cache knows of. base_url: overrides the
        provider's.

        Raises EvaluationError where the key, the price or the client is missing.
        """
        connect, variable, package = PROVIDERS[system.provider]
        if not os.environ.get(variable):
            raise EvaluationError(
                f"{system.name}: the environment has no {variable}, the key of {system.provider}'s API"
            )
        if system.price is None:
            raise EvaluationError(f"{system.name}: models.tsv has no price for a million tokens, so costs are unknown")
        try:
            self._request: Request = connect(system.model, base_url)
        except ImportError:
            raise EvaluationError(f"{system.name}: needs the package {package}: pip install 'revela[api]'") from None
        self.system, self.cache = system, Path(cache)
        self.budget, self.characters = budget, system.max_length * CHARACTERS_PER_TOKEN
        self.cache.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(self.cache, timeout=PATIENCE)
            with self._database as database:
                database.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
                database.execute("CREATE TABLE IF NOT EXISTS requests (texts INTEGER, tokens INTEGER)")
        except sqlite3.Error as error:
            raise EvaluationError(f"{self.cache}: not usable as a cache of answers ({error})") from None

    @property
    def spent(self) -> float:
        """US dollars for all requests that the cache knows of."""
        return self._cost(self._database.execute("SELECT TOTAL(tokens) FROM requests").fetchone()[0])

    def prepare(self, texts: list[str], kind: Kind) -> tuple[list[str], Kind]:
        return [text[: self.characters] or " " for text in texts], kind  # the providers refuse an empty text

    def embed(self, prepared: tuple[list[str], Kind]) -> np.ndarray:
        """Embeddings float32 [n, d]. Raises EvaluationError if the provider refuses or the budget is spent."""
        texts, kind = prepared
        keys = [self._key(text, kind) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if self._known(key) is None}
        for batch in _batches(missing):
            with self._database as database:
                database.execute("BEGIN IMMEDIATE")  # one job asks at a time, and has seen what others have paid for
                if wanted := {key: text for key, text in batch.items() if self._known(key) is None}:
                    self._ask(wanted, kind)
        return np.stack([np.frombuffer(self._known(key), np.float32) for key in keys])

    def _ask(self, batch: dict[bytes, str], kind: Kind) -> None:
        """Make one request and keep its answer."""
        bound = self._cost(sum(len(text.encode("utf-8", "surrogatepass")) for text in batch.values()))  # token >= byte
        if (spent := self.spent) + bound > self.budget:
            raise EvaluationError(
                f"{self.system.name}: ${spent:.2f} is spent, and the next request may cost up to ${bound:.2f}; "
                f"compute.api_budget is ${self.budget:.2f}. Answers so far are kept in {self.cache}"
            )
        try:
            vectors, tokens = self._request(list(batch.values()), kind)
        except Exception as error:  # noqa: BLE001 - each client has its own; their texts may quote the key
            status = getattr(error, "status_code", None) or getattr(error, "http_status", None)
            status = f" (HTTP {status})" if status else ""
            raise EvaluationError(f"{self.system.name}: the request failed: {type(error).__name__}{status}") from None
        if len(vectors) != len(batch):
            raise EvaluationError(f"{self.system.name}: {len(vectors)} embeddings came back for {len(batch)} texts")
        rows = [(key, np.float32(vector).tobytes()) for key, vector in zip(batch, vectors, strict=True)]
        with self._database as database:  # both or none
            database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
            database.execute("INSERT INTO requests VALUES (?, ?)", (len(batch), tokens))

    def _cost(self, tokens: float) -> float:
        return tokens * self.system.price / 1e6

    def _key(self, text: str, kind: Kind) -> bytes:
        content = f"{self.system.provider}:{self.system.model}\0{kind}\0{text}"
        return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def _known(self, key: bytes) -> bytes | None:
        found = self._database.execute("SELECT vector FROM vectors WHERE key = ?", (key,)).fetchone()
        return found and found[0]


def _batches(texts: dict[bytes, str]) -> Iterator[dict[bytes, str]]:
    """The texts, divided into requests that every provider accepts."""
    batch: dict[bytes, str] = {}
    characters = 0
    for key, text in texts.items():
        if batch and (len(batch) == TEXTS_AT_A_TIME or characters + len(text) > CHARACTERS_AT_A_TIME):
            yield batch
            batch, characters = {}, 0
        batch[key] = text
        characters += len(text)
    if batch:
        yield batch


# --- the providers: name of a model -> a function that requests embeddings


def _openai(name: str, base_url: str | None) -> Request:
    from openai import OpenAI

    client = OpenAI(base_url=base_url, max_retries=RETRIES)

    def request(texts: list[str], kind: Kind) -> Vectors:
        answer = client.embeddings.create(model=name, input=texts, encoding_format="float")
        return [item.embedding for item in sorted(answer.data, key=lambda item: item.index)], answer.usage.total_tokens

    return request


def _cohere(name: str, base_url: str | None) -> Request:
    from cohere import ClientV2

    client = ClientV2(base_url=base_url)
    types = {"query": "search_query", "passage": "search_document"}

    def request(texts: list[str], kind: Kind) -> Vectors:
        answer = client.embed(
            model=name,
            texts=texts,
            input_type=types[kind],
            embedding_types=["float"],
            request_options={"max_retries": RETRIES},
        )
        return answer.embeddings.float_, int(answer.meta.billed_units.input_tokens)

    return request


def _voyage(name: str, base_url: str | None) -> Request:
    from voyageai import Client

    client = Client(max_retries=RETRIES, base_url=base_url)
    types = {"query": "query", "passage": "document"}

    def request(texts: list[str], kind: Kind) -> Vectors:
        answer = client.embed(texts, model=name, input_type=types[kind])
        return answer.embeddings, answer.total_tokens

    return request


PROVIDERS = {  # provider -> (connect, environment variable with the key, package)
    "openai": (_openai, "OPENAI_API_KEY", "openai"),
    "cohere": (_cohere, "CO_API_KEY", "cohere"),
    "voyage": (_voyage, "VOYAGE_API_KEY", "voyageai"),
}
