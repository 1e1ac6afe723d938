"""APIs through their official clients, against a server on this machine that answers as the providers do."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from benchmark_folders import task, write_coir

from revela.evaluation import EvaluationError, apis
from revela.evaluation.apis import ApiEncoder
from revela.evaluation.tasks import load_task
from revela.study.source import API_PROVIDERS
from revela.study.system import Api

KEY = "sk-secret-of-the-test"
VARIABLES = {"openai": "OPENAI_API_KEY", "cohere": "CO_API_KEY", "voyage": "VOYAGE_API_KEY"}


def vector(text):
    return [float(len(text)), 1.0]


class Server(ThreadingHTTPServer):
    """Remembers what it was asked, and refuses as often as it is told to."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.refusals, self.status = [], 0, 429

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if server.refusals:
            server.refusals -= 1
            return self.answer({"error": {"message": f"refused {KEY}"}, "detail": KEY}, server.status)
        assert KEY in self.headers["Authorization"]
        texts = body.get("texts") or body["input"]
        server.asked.append((body["model"], body.get("input_type"), texts))
        data = [{"object": "embedding", "index": i, "embedding": vector(text)} for i, text in enumerate(texts)]
        usage = {"total_tokens": 10 * len(texts), "prompt_tokens": 10 * len(texts)}
        if "embedding_types" in body:
            meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 10 * len(texts)}}
            floats = {"float": [vector(text) for text in texts]}
            return self.answer({"id": "1", "response_type": "embeddings_by_type", "embeddings": floats, "meta": meta})
        return self.answer(
            {
                "object": "list",
                "data": data if "input_type" in body else data[::-1],
                "model": body["model"],
                "usage": usage,
            }
        )

    def answer(self, body, status=200):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    for variable in VARIABLES.values():
        monkeypatch.setenv(variable, KEY)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def encoder(server, folder, provider="openai", *, budget=1.0, price=1.0, max_length=100):
    system = Api(name="api", provider=provider, model="some-model", price=price, max_length=max_length)
    return ApiEncoder(system, folder / "cache.sqlite", budget=budget, base_url=server.url)


def embed(encoder, texts, kind="passage"):
    return encoder.embed(encoder.prepare(texts, kind)).tolist()


@pytest.mark.parametrize(
    ("provider", "query", "passage"),
    [("openai", None, None), ("cohere", "search_query", "search_document"), ("voyage", "query", "document")],
)
def test_official_clients(server, tmp_path, provider, query, passage):
    pytest.importorskip("voyageai" if provider == "voyage" else provider)
    api = encoder(server, tmp_path, provider)
    server.refusals = 1  # which the client waits out
    texts = ["three", "a", "three", ""]
    assert embed(api, texts) == [vector("three"), vector("a"), vector("three"), vector(" ")]
    assert embed(api, ["a"], "query") == [vector("a")]
    model = "some-model"
    assert server.asked == [(model, passage, ["three", "a", " "]), (model, query, ["a"])]
    assert api.spent == pytest.approx(40 / 1e6)
    # another job asks for nothing that was answered
    assert embed(encoder(server, tmp_path, provider), texts) == embed(api, texts)
    assert len(server.asked) == 2
    assert KEY.encode() not in (tmp_path / "cache.sqlite").read_bytes()


def test_stopped_between_requests(server, tmp_path, monkeypatch):
    monkeypatch.setattr(apis, "TEXTS_AT_A_TIME", 2)
    monkeypatch.setattr(apis, "RETRIES", 0)
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    api = encoder(server, tmp_path)
    answer = api._request

    def stop_at_third(texts, kind):
        if texts == ["eeeee"]:
            raise KeyboardInterrupt
        return answer(texts, kind)

    monkeypatch.setattr(api, "_request", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        embed(api, texts)
    assert embed(encoder(server, tmp_path), texts) == [vector(text) for text in texts]
    assert [asked for _, _, asked in server.asked] == [["a", "bb"], ["ccc", "dddd"], ["eeeee"]]


def test_two_jobs_pay_once(server, tmp_path, monkeypatch):
    """What another job has asked for in the meantime is not asked for again, and counts against the budget."""
    monkeypatch.setattr(apis, "TEXTS_AT_A_TIME", 1)
    one, other = encoder(server, tmp_path), encoder(server, tmp_path)
    monkeypatch.setattr(apis, "_batches", lambda missing: _interrupted(missing, lambda: embed(other, ["bb"])))
    assert embed(one, ["a", "bb"]) == [vector("a"), vector("bb")]
    assert [asked for _, _, asked in server.asked] == [["a"], ["bb"]]


def _interrupted(missing, meanwhile):
    (first, *others) = missing.items()
    yield dict([first])
    if others:
        meanwhile()
        yield dict(others)


def test_long_texts_are_cut_and_large_requests_divided(server, tmp_path, monkeypatch):
    monkeypatch.setattr(apis, "CHARACTERS_AT_A_TIME", 10)
    embed(encoder(server, tmp_path, max_length=2), ["x" * 50, "yy", "zzz"])
    assert [asked for _, _, asked in server.asked] == [["x" * 8, "yy"], ["zzz"]]


def test_budget(server, tmp_path):
    """A request is sent only if it cannot pass the budget, with a token a byte; what was spent is remembered."""
    assert embed(encoder(server, tmp_path, price=1e5, budget=1.0), ["0123456789"])  # 10 bytes: $1 at most
    with pytest.raises(EvaluationError, match=r"^api: \$1\.00 is spent.* up to \$0\.10; compute\.api_budget is \$1"):
        embed(encoder(server, tmp_path, price=1e5, budget=1.0), ["b"])
    with pytest.raises(EvaluationError, match=r"api_budget is \$0\.00"):
        embed(encoder(server, tmp_path, budget=0.0), ["c"])
    assert len(server.asked) == 1


def test_refusals_do_not_show_the_key(server, tmp_path):
    server.refusals, server.status = 99, 401
    with pytest.raises(EvaluationError, match=r"^api: the request failed: \w*Auth\w* \(HTTP 401\)$") as caught:
        embed(encoder(server, tmp_path), ["a"])
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_each_provider_of_a_source_has_a_client():
    assert apis.PROVIDERS.keys() == set(API_PROVIDERS)


def test_missing_key_and_price(server, tmp_path, monkeypatch):
    with pytest.raises(EvaluationError, match="api: models.tsv has no price"):
        encoder(server, tmp_path, price=None)
    monkeypatch.delenv("VOYAGE_API_KEY")
    with pytest.raises(EvaluationError, match="api: the environment has no VOYAGE_API_KEY, the key of voyage's API"):
        encoder(server, tmp_path, "voyage")
    assert not list(tmp_path.iterdir())


def test_cache_that_is_no_cache(server, tmp_path):
    (tmp_path / "cache.sqlite").write_text("no database" * 100)
    with pytest.raises(EvaluationError, match="cache.sqlite: not usable as a cache of answers"):
        encoder(server, tmp_path)


def test_as_a_system(server, tmp_path):
    from revela.evaluation.dense import Dense

    write_coir(tmp_path / "data")
    part = load_task(task("coir"), tmp_path / "data")[0]
    ranker = Dense("api", encoder(server, tmp_path), shard_documents=3, similarity="cosine")
    found = dict(ranker.search(part, 4))
    query, documents = np.array(vector("cats")), {id: np.array(vector(text)) for id, text in part.corpus}
    cosines = {id: query @ v / np.linalg.norm(query) / np.linalg.norm(v) for id, v in documents.items()}
    order = sorted(cosines, key=lambda id: (round(cosines[id], 6), id), reverse=True)  # d1 and d2 are as long and tie
    assert [id for id, _ in found["q1"]] == order
