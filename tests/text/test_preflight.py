"""Preflight: what the hub says of each repository, before anything is fetched. The hub is a small one that runs here."""

import json
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
from checkout import Checkout

from revela import workflow
from revela.command import doctor
from revela.study.study import load
from revela.text import preflight
from revela.text.preflight import Needed, faults, look, needed_of
from revela.workflow import Job

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKENIZED = {"config.json": 600, "tokenizer.json": 2_000}


class Hub(BaseHTTPRequestHandler):
    """The two addresses of metadata: api/{kind}s/{name}/revision/{revision}, with sizes, and .../auth-check."""

    repositories: dict[str, dict]  # path -> files (name: size), and gated, renamed, model_type, revisions
    requested: list[str]

    def do_GET(self):
        path, _, query = self.path.strip("/").partition("?")
        self.requested.append(path)
        kind, _, rest = path.removeprefix("api/").partition("/")
        name, question = "/".join(rest.split("/")[:2]), rest.split("/")[2:]
        found = self.repositories.get(f"{kind}/{name}")
        if found is None:
            return self.answer(401, {}, code="RepoNotFound")
        if "renamed" in found:
            return self.answer(307, {}, to=self.path.replace(name, found["renamed"]))
        if question == ["auth-check"]:
            token = self.headers.get("Authorization", "")
            return self.answer(200, {}) if token.endswith("opened") else self.answer(403, {}, code="GatedRepo")
        if "/".join(question[1:]) not in found.get("revisions", ["main", COMMIT]):
            return self.answer(404, {}, code="RevisionNotFound")
        assert "blobs=true" in query.lower()  # sizes are asked for
        siblings = [{"rfilename": file, "size": size} for file, size in found["files"].items()]
        facts = {"id": name, "sha": COMMIT, "siblings": siblings, "gated": found.get("gated", False)}
        self.answer(200, facts | {"config": {"model_type": found.get("model_type", "bert")}})

    def answer(self, status, content, code=None, to=None):
        body = json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Length": str(len(body)), "X-Error-Code": code, "Location": to}
        for key, value in headers.items():
            if value:
                self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    handler = type("ThisHub", (Hub,), {"repositories": {}, "requested": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    handler.endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", handler.endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield handler
    server.shutdown()
    server.server_close()


def model(name, revision="main"):
    return Needed("model", name, revision, None, tuple(preflight.hub.MODEL_FILES))


def dataset(name, *patterns, revision="main", commit=None):
    return Needed("dataset", name, revision, commit, patterns or None)


def fault_of(hub, tmp_path, files, needed=None, **facts):
    """The one fault of a repository with these files, or None."""
    needed = needed or model("o/m")
    hub.repositories[f"{needed.kind}s/{needed.name}"] = {"files": files, **facts}
    (found,) = look([needed], tmp_path)
    assert "\n" not in (found.fault or "")
    return found.fault


SAFE = TOKENIZED | {"model.safetensors": 10**6}


@pytest.mark.parametrize(
    "files, said",
    [
        (SAFE, None),
        ({"config.json": 1, "vocab.json": 1, "merges.txt": 1, "pytorch_model.bin": 10}, None),  # UniXcoder
        ({"config.json": 1, "vocab.txt": 1, "pytorch_model.bin": 10, "tf_model.h5": 10}, None),
        ({"adapter_config.json": 1, "adapter_model.safetensors": 5}, None),  # the authors' retrievers
        ({"adapter_config.json": 1, "adapter_model.bin": 5}, "no safetensors and no pytorch_model.bin"),
        (TOKENIZED | {"original/consolidated.00.pth": 9}, "its weights are original/consolidated.00.pth"),
        (TOKENIZED | {"onnx/model.safetensors": 9}, "it has no weights"),  # of another runtime
        (TOKENIZED | {"tf_model.h5": 9, "flax_model.msgpack": 9}, "its weights are flax_model.msgpack, tf_model.h5"),
        ({"model.safetensors": 9, "tokenizer.json": 1}, "no config.json"),
        ({"config.json": 1, "model.safetensors": 9}, "no tokenizer"),
        (
            TOKENIZED | {"pytorch_model.bin.index.json": 1, "pytorch_model-00001-of-00002.bin": 9},
            "1 of 2 pickled shards",
        ),
        (
            TOKENIZED
            | {"pytorch_model.bin.index.json": 1}
            | {f"pytorch_model-0000{n}-of-00002.bin": 9 for n in (1, 2)},
            None,
        ),
    ],
)
def test_the_files_of_a_model(hub, tmp_path, files, said):
    fault = fault_of(hub, tmp_path, files)
    assert fault is None if said is None else said in fault and "https://huggingface.co/o/m" in fault


def test_pickles_of_a_model_that_transformers_does_not_know(hub, tmp_path):
    files = TOKENIZED | {"pytorch_model.bin": 9}
    assert "model_type 'nomic_bert_2'" in fault_of(hub, tmp_path, files, model_type="nomic_bert_2")
    assert fault_of(hub, tmp_path, files | {"model.safetensors": 9}, model_type="nomic_bert_2") is None


@pytest.mark.parametrize(
    "files, patterns, said",
    [
        ({"README.md": 1, "data/corpus-00000-of-00001-279bc28cd351fa67.parquet": 9}, (), None),
        ({"wikipedia.py": 1, "corpus.jsonl.gz": 9}, (), None),  # a script beside the data
        ({"README.md": 1, "script.py": 1, "dataset_infos.json": 1}, (), "no file in a format that is read here"),
        ({"README.md": 1, "x.arrow": 1}, (), "but x.arrow"),
        ({"README.md": 1, "other/a.parquet": 1}, ("rte/*",), "no file matches ['rte/*']"),
        ({"README.md": 1}, (), "but its card alone"),
    ],
)
def test_the_files_of_a_dataset(hub, tmp_path, files, patterns, said):
    fault = fault_of(hub, tmp_path, files, dataset("o/d", *patterns))
    assert fault is None if said is None else said in fault


def test_a_gate_is_open_or_closed_by_the_token(hub, tmp_path, monkeypatch):
    closed = fault_of(hub, tmp_path, SAFE, model("meta-llama/Llama-3.2-1B"), gated="manual")
    assert "accept its licence at https://huggingface.co/meta-llama/Llama-3.2-1B" in closed
    monkeypatch.setenv("HF_TOKEN", "hf_opened")
    assert fault_of(hub, tmp_path, SAFE, model("meta-llama/Llama-3.2-1B"), gated="manual") is None


def test_names_and_revisions(hub, tmp_path):
    hub.repositories["datasets/xlangai/BRIGHT"] = {"files": {"documents/a.parquet": 1}}
    hub.repositories["datasets/xlang-ai/BRIGHT"] = {"renamed": "xlangai/BRIGHT"}
    hub.repositories["datasets/xlangai/bright"] = {"renamed": "xlangai/BRIGHT"}
    names = ["xlangai/BRIGHT", "xlangai/bright", "xlang-ai/BRIGHT", "nobody/nothing", "no name"]
    seen = look([*map(dataset, names), dataset("xlangai/BRIGHT", revision="f" * 40)], tmp_path)
    assert [one.fault and one.fault.partition(";")[0] for one in seen] == [
        None,
        None,  # the hub does not mind
        "dataset xlang-ai/BRIGHT is xlangai/BRIGHT by now: write that in the configuration",
        "dataset nobody/nothing: not on the hub, or private",
        "'no name' is not the name of a dataset on the hub",
        f"dataset xlangai/BRIGHT has no revision {'f' * 40!r}",
    ]


def test_the_commit_of_before_is_asked_for(hub, tmp_path):
    """A branch that was fetched once stays at its commit, so that commit must be there."""
    hub.repositories["datasets/o/d"] = {"files": {"a.jsonl": 1}, "revisions": ["main"]}
    assert faults(look([dataset("o/d")], tmp_path)) == []
    assert "no revision 'eeee" in faults(look([dataset("o/d", commit="e" * 40)], tmp_path))[0]


def test_sizes_are_of_what_is_taken_and_not_here(hub, tmp_path):
    files = SAFE | {"onnx/model.onnx": 10**9, "pytorch_model.bin": 10**9}
    hub.repositories["models/o/m"] = {"files": files}
    hub.repositories["models/o/p"] = {"files": TOKENIZED | {"pytorch_model.bin": 7 * 10**6}}
    assert [one.size for one in look([model("o/m"), model("o/p")], tmp_path)] == [1_002_600, 7_002_600]
    cached = tmp_path / "hub-cache/models--o--m/snapshots" / COMMIT
    cached.mkdir(parents=True)
    (cached / "model.safetensors").touch()
    assert look([model("o/m")], tmp_path)[0].size == 2_600


def test_a_disk_that_is_too_small(hub, tmp_path, monkeypatch):
    hub.repositories["datasets/o/d"] = {"files": {"a.jsonl": 30 * 10**9}}
    usage = namedtuple("usage", "total used free")(0, 0, 20 * 10**9)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place: usage)
    (said,) = faults(look([dataset("o/d")], tmp_path))
    assert "30.0 GB are still to be downloaded, 20.0 GB are free" in said


def test_a_hub_that_does_not_answer(hub, tmp_path, monkeypatch):
    """It is said once, with all that is not in the cache; what is there needs no hub."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    snapshot = tmp_path / "hub-cache/datasets--o--here/snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "a.jsonl").write_text("{}\n")
    here = dataset("o/here", revision=COMMIT)
    assert faults(look([here], tmp_path)) == []
    (said,) = faults(look([here, dataset("o/d"), model("o/m")], tmp_path))
    assert "http://127.0.0.1:9 cannot be reached" in said
    assert "dataset o/d" in said and "model o/m" in said and "o/here" not in said


def test_all_repositories_of_the_paper_are_known(monkeypatch):
    """Every row of hub: each once, whatever resource it is part of."""
    monkeypatch.chdir(ROOT)
    study = load("config/config.yaml")
    needed = needed_of(study, study.config.datasets, study.models_of("backbone") + study.models_of("encoder"))
    names = [(one.kind, one.name) for one in needed]
    assert len(set(names)) == len(names)
    assert ("dataset", "CoIR-Retrieval/CodeSearchNet-go-qrels") in names and ("model", "BAAI/bge-m3") in names


# --- a run


@pytest.fixture
def checkout(tmp_path, hub, monkeypatch):
    """A checkout that asks this hub."""
    found = Checkout(tmp_path / "checkout")
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return found


TARGETS = (
    "results/resources/datasets/bright",
    "results/resources/datasets/lm-piqa",
    "results/resources/models/llama-3.2-1b",
)


def test_a_run_ends_before_its_first_job_with_all_faults(checkout, hub):
    hub.repositories["datasets/xlangai/BRIGHT"] = {"renamed": "xlangai/BRIGHT2"}
    hub.repositories["datasets/xlangai/BRIGHT2"] = {"files": {"documents/a.parquet": 1}, "revisions": [None]}
    hub.repositories["models/meta-llama/Llama-3.2-1B"] = {"files": SAFE, "gated": "manual"}
    printed, status = checkout.snakemake("--cores", "2", "--keep-going", *TARGETS)
    assert status != 0 and "3 faults of 3 repositories of the hub" in printed, printed
    assert "baber/piqa: not on the hub" in printed and "accept its licence" in printed and "no revision" in printed
    assert not (checkout.folder / "results/resources").exists()
    assert not (checkout.folder / "results/logs").exists()  # no job began
    assert not list((checkout.folder / ".snakemake/locks").glob("*"))
    asked = [path for path in hub.requested if path.startswith(("api/models", "api/datasets"))]
    assert len(asked) == len(set(asked)) == 5  # BRIGHT by both names, and whether the gate is open

    hub.repositories["datasets/baber/piqa"] = {"files": {"piqa_test.parquet": 5}}
    printed, status = checkout.snakemake("--cores", "1", TARGETS[1])
    assert "faults" not in printed and "Fetching the dataset lm-piqa" in printed, printed


def test_what_is_there_needs_no_hub_and_is_not_made_again(checkout, hub, monkeypatch):
    folder = checkout.folder / "data"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": "x"}\n')
    checkout.edit("config/config.yaml", "lm-piqa: {hub: baber/piqa}", "lm-piqa: {path: data}")
    printed, status = checkout.snakemake("--cores", "1", TARGETS[1])
    assert status == 0, printed
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "Nothing to be done" in checkout.snakemake("--cores", "1", TARGETS[1])[0]
    assert hub.requested == []  # a local folder is none of the hub's business either


def test_the_doctor_of_a_target(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    study, config = load("config/config.yaml"), "config/config.yaml"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (found,) = doctor.downloads(study, config, ["results/nothing"])
    assert found.status == "error" and "not a target" in found.found

    job = Job("dataset", {"dataset": "lm-piqa"}, (), ("results/resources/datasets/lm-piqa",))
    monkeypatch.setattr(workflow, "dry_run", lambda targets, config: [job, Job("table", {"table": "table18"}, (), ())])
    (found,) = doctor.downloads(study, config, ["table18"])
    assert (found.status, found.name) == ("error", "download") and "baber/piqa: not on the hub" in found.found
    hub.repositories["datasets/baber/piqa"] = {"files": {"piqa_test.parquet": 5 * 10**9}}
    (found,) = doctor.downloads(study, config, ["table18"])
    assert (found.status, found.found) == ("ok", "1 repositories of the hub, 5.0 GB to come")
