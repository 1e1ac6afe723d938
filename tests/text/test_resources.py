"""Resources: manifests, local folders, a hub (a small one that runs here), installed text, Punkt."""

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pickles import tiny_bert

from revela.files import sha256_file
from revela.provenance import ProvenanceError, read_manifest, write_manifest
from revela.study.base import ConfigError
from revela.study.settings import Dataset
from revela.study.source import HubSource, PathSource, parse_source
from revela.study.specification import DatasetSpec
from revela.study.study import load
from revela.text import punkt, resources
from revela.text.chunking import PUNKT_FILE, sentence_splitter
from revela.text.documents import texts
from revela.text.hub import refusal
from revela.text.punkt import PunktError
from revela.text.resources import ResourceError, build_punkt, fetch_model

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXTS = [
    "The matrix is dense (approx. 3 rows). It was made by Dr. Ada. See eq. 4 below.",
    "Dr. Bell wrote approx. ten pages. They are short. See eq. 5, approx. in the middle.",
] * 20


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def fetch_dataset(dataset, folder):
    """As the workflow does it, with results elsewhere."""
    return resources.fetch_dataset(DatasetSpec(dataset=dataset, results="results"), folder)


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


# --- a hub that serves a few repositories as huggingface.co does


class Hub(BaseHTTPRequestHandler):
    repositories: dict[str, dict[str, bytes]]
    broken: set[str]  # files whose transfer stops half way
    requested: list[str]

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0].strip("/")
        self.requested.append(path)
        for name, files in self.repositories.items():
            if path == f"api/{name}/revision/main":
                siblings = [{"rfilename": file} for file in files]
                return self.answer(json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode())
            if path.startswith(f"api/{name}/revision/"):
                return self.refuse(404, "RevisionNotFound")
            if path == f"api/{name}/tree/{COMMIT}":
                tree = [{"type": "file", "path": f, "size": len(b), "oid": sha1(b)} for f, b in files.items()]
                return self.answer(json.dumps(tree).encode())
            if path.startswith(f"api/{name}/tree/"):
                return self.refuse(404, "RevisionNotFound")
            for file, content in files.items():
                if path == f"{name.removeprefix('models/')}/resolve/{COMMIT}/{file}":
                    if name.endswith("/gated"):
                        return self.refuse(403, "GatedRepo")
                    return self.answer(content, broken=file in self.broken, ETag=f'"{sha1(content)}"')
        self.refuse(401, "RepoNotFound")

    def answer(self, content, *, broken=False, **headers):
        self.send_response(200)
        for key, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: len(content) // 2] if broken else content)
            self.close_connection = True

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def sha1(content):
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    handler = type("ThisHub", (Hub,), {"repositories": {}, "broken": set(), "requested": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield handler
    server.shutdown()
    server.server_close()


def test_a_hub_dataset_with_the_commit_it_resolves_to(hub, tmp_path):
    hub.repositories["datasets/Tevatron/wikipedia-nq-corpus"] = {
        ".gitattributes": b"*.gz lfs",
        "corpus.jsonl.gz": b"rows",
        "wikipedia-nq-corpus.py": b"import os",
    }
    dataset = Dataset(hub="Tevatron/wikipedia-nq-corpus", patterns=["*.jsonl.gz"])
    manifest = fetch_dataset(dataset, tmp_path / "wikipedia")
    assert files_of(tmp_path / "wikipedia") == ["corpus.jsonl.gz", "manifest.json"]
    assert manifest["hub"] == {"Tevatron/wikipedia-nq-corpus": COMMIT}
    assert manifest["revision"] == "main"
    assert manifest["files"] == {"corpus.jsonl.gz": hashlib.sha256(b"rows").hexdigest()}
    assert read_manifest(tmp_path / "wikipedia", verify=True) == manifest
    assert not any(path.endswith(".py") for path in hub.requested)
    # the file is the cache's own, stored once
    assert (tmp_path / "wikipedia" / "corpus.jsonl.gz").stat().st_nlink == 2


def test_several_repositories_are_subfolders(hub, tmp_path):
    hub.repositories["datasets/CoIR-Retrieval/cosqa-queries-corpus"] = {"data/corpus-0.parquet": b"c"}
    hub.repositories["datasets/CoIR-Retrieval/cosqa-qrels"] = {"data/test-0.parquet": b"q"}
    dataset = Dataset(hub=["CoIR-Retrieval/cosqa-queries-corpus", "CoIR-Retrieval/cosqa-qrels"])
    fetch_dataset(dataset, tmp_path / "cosqa")
    assert files_of(tmp_path / "cosqa") == [
        "cosqa-qrels/data/test-0.parquet",
        "cosqa-queries-corpus/data/corpus-0.parquet",
        "manifest.json",
    ]


def test_what_was_fetched_before_is_there_without_a_network(hub, tmp_path, monkeypatch):
    hub.repositories["datasets/o/d"] = {"a.jsonl": b"{}", "b.jsonl": b"{}"}
    fetch_dataset(Dataset(hub="o/d"), tmp_path / "first")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    manifest = fetch_dataset(Dataset(hub="o/d", patterns=["b*"]), tmp_path / "second")
    assert list(manifest["files"]) == ["b.jsonl"] and manifest["hub"] == {"o/d": COMMIT}


def parquet(**row):
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row]), table)
    return table.getvalue()


def repository_of(configs):
    """A card and files as in nyu-mll/glue: a folder for each config, with three splits."""
    card = ["---", "configs:"]
    files = {}
    for name in configs:
        card += [f"- config_name: {name}", "  data_files:"]
        for split in ("train", "validation", "test"):
            card += [f"  - split: {split}", f"    path: {name}/{split}-*"]
            files[f"{name}/{split}-00000-of-00001.parquet"] = parquet(label=len(files), config=name)
    return {"README.md": "\n".join([*card, "---", ""]).encode(), **files}


@pytest.mark.parametrize(
    ("name", "configs", "used"),
    [
        ("lm-glue", ["ax", "cola", "mnli", "qqp", "rte"], ["rte"]),
        ("lm-super-glue", ["axb", "axg", "boolq", "cb", "copa", "record", "wic"], ["copa", "wic"]),
        ("lm-super-glue", ["boolq", "cb", "copa", "record", "wic", "axb"], ["copa", "wic"]),
    ],
)
def test_of_table_18_s_datasets_enough_is_fetched(hub, tmp_path, monkeypatch, name, configs, used):
    """By the patterns of the paper's configuration `datasets` reads the configs that are used, and few are fetched."""
    datasets = pytest.importorskip("datasets")
    dataset = load(ROOT / "config/config.yaml").config.datasets[name]
    hub.repositories[f"datasets/{dataset.hub}"] = repository_of(configs)
    fetch_dataset(dataset, tmp_path / name)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for config in used:
        found = datasets.load_dataset(str(tmp_path / name), config, cache_dir=str(tmp_path / "cache"))
        read = {split: table["config"][:] for split, table in found.items()}
        assert read == {split: [config] for split in ("train", "validation", "test")}
    assert not {path.name for path in (tmp_path / name).iterdir()} & {"qqp", "record", "mnli"}


def test_a_folder_is_made_again_of_the_same_commit(hub, tmp_path, monkeypatch):
    """Also when its branch has moved on and a pattern was added; another folder, or revision, is of the new commit."""
    hub.repositories["datasets/o/d"] = hub.repositories["models/o/m"] = {"a.jsonl": b"1", "b.jsonl": b"1"}
    fetch_dataset(Dataset(hub="o/d"), tmp_path / "cached")
    fetch_dataset(Dataset(hub="o/d", patterns=["a*"]), tmp_path / "d")
    moved = "f" * 40
    monkeypatch.setitem(globals(), "COMMIT", moved)
    hub.repositories["datasets/o/d"] = {"a.jsonl": b"2", "b.jsonl": b"2"}
    shutil.rmtree(tmp_path / "d")
    again = fetch_dataset(Dataset(hub="o/d", patterns=["a*", "b*"]), tmp_path / "d")
    assert again["hub"] != {"o/d": moved} and again["revision"] == "main"
    assert {path.read_bytes() for path in (tmp_path / "d").glob("*.jsonl")} == {b"1"}
    assert fetch_dataset(Dataset(hub="o/d"), tmp_path / "other")["hub"] == {"o/d": moved}
    (tmp_path / "d.commits.json").unlink()
    shutil.rmtree(tmp_path / "d")
    assert fetch_dataset(Dataset(hub="o/d"), tmp_path / "d")["hub"] == {"o/d": moved}
    fetch_dataset(Dataset(hub="o/d", revision=moved), tmp_path / "exact")
    assert not (tmp_path / "exact.commits.json").exists()


def test_a_commit_that_is_gone(hub, tmp_path):
    hub.repositories["datasets/o/d"] = {"a.jsonl": b"1"}
    (tmp_path / "d.commits.json").write_text(json.dumps({"o/d@main": "e" * 40}))
    with pytest.raises(ResourceError, match=r"no revision 'e+'.* made before, by .*d\.commits\.json: delete") as error:
        fetch_dataset(Dataset(hub="o/d"), tmp_path / "d")
    one_line(error)


def test_an_interrupted_download_leaves_nothing_and_can_be_repeated(hub, tmp_path):
    hub.repositories["datasets/o/d"] = {"a.jsonl": b'{"text": "one"}', "b.jsonl": b'{"text": "two"}' * 100}
    hub.broken.add("b.jsonl")
    with pytest.raises(ResourceError, match="dataset o/d: download failed .*run again to resume it") as error:
        fetch_dataset(Dataset(hub="o/d"), tmp_path / "d")
    one_line(error)
    assert not [path for path in tmp_path.iterdir() if path.name != "hub-cache"]
    hub.broken.clear()
    fetch_dataset(Dataset(hub="o/d"), tmp_path / "d")
    assert (tmp_path / "d" / "b.jsonl").read_bytes() == b'{"text": "two"}' * 100


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            Dataset(hub="o/gated"),
            r"o/gated is gated: accept its licence at https://huggingface.co/datasets/o/gated, then",
        ),
        (
            Dataset(hub="o/nothing"),
            r"o/nothing: not on the hub, or private; see https://huggingface.co/datasets/o/noth",
        ),
        (Dataset(hub="o/d", revision="v9"), r"o/d has no revision 'v9'"),
        (Dataset(hub="o/d", patterns=["*.csv"]), r"o/d at 0123456789\w+ has no file that matches \['\*\.csv'\]"),
        (Dataset(hub="not a name"), r"'not a name' is not the name of a dataset on the hub; valid: owner/name"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub, tmp_path, dataset, message):
    hub.repositories["datasets/o/gated"] = {"a.jsonl": b"{}"}
    hub.repositories["datasets/o/d"] = {"a.jsonl": b"{}"}
    with pytest.raises(ResourceError, match=message) as error:
        fetch_dataset(dataset, tmp_path / "d")
    one_line(error)
    assert not (tmp_path / "d").exists()


def test_a_cache_that_cannot_be_written_and_a_token_that_is_wrong(hub, tmp_path, monkeypatch):
    said = refusal("model", "o/m", "main", OSError(errno.EROFS, "Read-only file system", "/ro/hf"))
    assert "cannot be written (Read-only file system: /ro/hf); set HF_HOME to a folder" in said
    hub.repositories["datasets/o/gated"] = {"a.jsonl": b"{}"}
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ResourceError, match="the token that is set now is wrong, or of another account"):
        fetch_dataset(Dataset(hub="o/gated"), tmp_path / "d")


def test_no_network_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    for offline in (True, False):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
        with pytest.raises(ResourceError, match="the hub cannot be reached") as error:
            fetch_dataset(Dataset(hub="o/d"), tmp_path / "d")
        one_line(error)


def test_a_hub_model_without_pickles_and_code(hub, tmp_path):
    hub.repositories["models/o/m"] = {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "pytorch_model.bin": b"pickle",
        "modeling_m.py": b"import os",
        "tokenizer.json": b"{}",
        "1_Pooling/config.json": b"{}",
        "original/params.json": b"{}",
        "onnx/config.json": b"{}",
    }
    manifest = fetch_model("tiny", HubSource("o/m"), tmp_path / "m")
    assert list(manifest["files"]) == ["1_Pooling/config.json", "config.json", "model.safetensors", "tokenizer.json"]
    assert manifest["hub"] == {"o/m": COMMIT}
    fetch_model("tiny", HubSource("o/m", COMMIT), tmp_path / "pinned")
    assert read_manifest(tmp_path / "pinned")["revision"] == COMMIT
    assert not any(path.endswith((".bin", ".py")) for path in hub.requested)


def test_a_hub_model_with_pickles_alone(hub, tmp_path):
    hub.repositories["models/facebook/contriever"] = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    with pytest.raises(
        ResourceError, match="no weights as safetensors, and pickles are not loaded; .*refs/pr/1"
    ) as error:
        fetch_model("tiny", HubSource("facebook/contriever"), tmp_path / "m")
    one_line(error)
    assert not (tmp_path / "m").exists()


def test_a_hub_model_with_pickles_alone_is_converted(hub, tmp_path):
    tiny_bert(tmp_path / "published")
    files = {path.name: path.read_bytes() for path in (tmp_path / "published").iterdir()}
    hub.repositories["models/o/m"] = files | {"colbert_linear.pt": b"head", "m.py": b"import os", "rust_model.ot": b"x"}
    manifest = fetch_model("tiny", HubSource("o/m"), tmp_path / "m")
    assert files_of(tmp_path / "m") == ["config.json", "manifest.json", "model.safetensors"]
    assert manifest["converted_from"] == {"pytorch_model.bin": hashlib.sha256(files["pytorch_model.bin"]).hexdigest()}
    assert manifest["hub"] == {"o/m": COMMIT}
    assert read_manifest(tmp_path / "m", verify=True) == manifest
    assert not any(path.endswith((".pt", ".py", ".ot")) for path in hub.requested)
    (tmp_path / "published" / "notes.log").write_text("of the training")
    assert (
        fetch_model("tiny", PathSource(str(tmp_path / "published")), tmp_path / "local")["files"] == manifest["files"]
    )


def test_safetensors_of_a_part_do_not_stand_for_the_model_s(hub, tmp_path):
    """As in sentence-transformers' folders, whose dense layer may be newer than the model."""
    tiny_bert(tmp_path / "published")
    files = {path.name: path.read_bytes() for path in (tmp_path / "published").iterdir()}
    hub.repositories["models/o/m"] = files | {"2_Dense/model.safetensors": b"layer"}
    fetch_model("tiny", HubSource("o/m"), tmp_path / "m")
    assert (tmp_path / "m" / "model.safetensors").is_file()


def test_a_hub_model_without_weights(hub, tmp_path):
    hub.repositories["models/o/m"] = {"config.json": b"{}", "tf_model.h5": b"weights"}
    with pytest.raises(ResourceError, match=r"could not be converted \(there is no pytorch_model\.bin") as error:
        fetch_model("tiny", HubSource("o/m"), tmp_path / "m")
    one_line(error)
    assert not (tmp_path / "m.commits.json").exists()


# --- local folders


def test_a_local_folder(tmp_path):
    source = tmp_path / "notes"
    (source / "sub").mkdir(parents=True)
    (source / ".git").mkdir()
    (source / ".git" / "HEAD").write_text("ref")
    (source / "a.txt").write_text("one")
    (source / "sub" / "b.md").write_text("two")
    manifest = fetch_dataset(Dataset(path=str(source)), tmp_path / "out" / "notes")
    assert files_of(tmp_path / "out" / "notes") == ["a.txt", "manifest.json", "sub/b.md"]
    assert manifest["path"] == str(source) and manifest["origin"] is None
    assert manifest["files"]["a.txt"] == sha256_file(source / "a.txt")


def test_a_local_folder_is_copied_where_it_cannot_be_linked(tmp_path, monkeypatch):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("one")

    def other_file_system(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(resources.os, "link", other_file_system)
    fetch_dataset(Dataset(path=str(tmp_path / "notes")), tmp_path / "out")
    assert (tmp_path / "out" / "a.txt").read_text() == "one"
    assert (tmp_path / "out" / "a.txt").stat().st_nlink == 1


def test_a_local_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in [
        ("nowhere", r"nowhere: no such folder"),
        ("empty", r"empty: no files that can be used \(it is empty\)"),
        (".", r"holds the results folder .* itself"),
    ]:
        with pytest.raises(ResourceError, match=message) as error:
            fetch_dataset(Dataset(path=str(tmp_path / path)), tmp_path / "results" / "d")
        one_line(error)


def test_a_local_model_is_verified_against_its_manifest(tmp_path):
    source = tmp_path / "tiny"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "model.safetensors").write_bytes(b"weights")
    (source / "training.log").write_text("loss 3.5")
    write_manifest(source, tokens=1000)
    manifest = fetch_model("tiny", PathSource(str(source)), tmp_path / "out")
    assert manifest["origin"]["tokens"] == 1000
    assert list(manifest["files"]) == ["config.json", "model.safetensors"]
    assert read_manifest(tmp_path / "out", verify=True) == manifest
    (source / "model.safetensors").unlink()
    (source / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ProvenanceError, match="differs from its manifest.json in model.safetensors"):
        fetch_model("tiny", PathSource(str(source)), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_changed_file_is_noticed(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("one")
    fetch_dataset(Dataset(path=str(tmp_path / "notes")), tmp_path / "out")
    read_manifest(tmp_path / "out", verify=True)
    (tmp_path / "out" / "a.txt").write_text("One")
    with pytest.raises(ProvenanceError, match="differs from its manifest.json in a.txt"):
        read_manifest(tmp_path / "out", verify=True)


@pytest.mark.parametrize("source", ["", "gpt2", "hub:", "https://example.org/m"])
def test_a_model_s_source_is_a_hub_name_or_a_path(source):
    with pytest.raises(ConfigError, match=r"valid: hub:owner/name\[@revision\], path:folder") as error:
        parse_source("backbone", source)
    one_line(error)


# --- installed packages


def test_installed_text_is_the_same_each_time_and_its_hash_checked(tmp_path):
    first = fetch_dataset(Dataset(installed=["tqdm"]), tmp_path / "a")
    second = fetch_dataset(Dataset(installed=["tqdm"], sha256=first["text_sha256"]), tmp_path / "b")
    assert first == second
    assert list(first["packages"]) == ["tqdm"]
    assert pq.read_metadata(tmp_path / "a" / "train.parquet").num_rows > 10
    with pytest.raises(ResourceError, match=f"sha256 is {first['text_sha256']}, expected 00; .*make setup") as error:
        fetch_dataset(Dataset(installed=["tqdm"], sha256="00"), tmp_path / "c")
    one_line(error)
    assert not (tmp_path / "c").exists()


def test_installed_benchmark(tmp_path):
    manifest = fetch_dataset(Dataset(installed=["networkx"], content="beir", queries=5, documents=20), tmp_path / "b")
    assert manifest["tasks"] == {"networkx": {"documents": 20, "queries": 5}}
    assert "networkx/corpus.jsonl" in manifest["files"]


# --- Punkt


def test_punkt_learns_abbreviations_from_text(tmp_path):
    manifest = build_punkt(tmp_path / "punkt", TEXTS)
    assert manifest["documents"] == len(TEXTS)
    content = json.loads((tmp_path / "punkt" / PUNKT_FILE).read_text())
    assert {"approx", "dr", "eq"} <= set(content["abbreviations"])
    split_sentences = sentence_splitter(tmp_path / "punkt")
    assert split_sentences("Dr. Ada has approx. six. They see eq. 3.") == [
        "Dr. Ada has approx. six.",
        "They see eq. 3.",
    ]


def test_punkt_is_the_same_whatever_the_hash_seed(tmp_path):
    fetch_dataset(Dataset(installed=["tqdm"]), tmp_path / "text")
    code = (
        "import sys; from revela.text.resources import build_punkt; from revela.text.documents import texts;"
        "build_punkt(sys.argv[2], texts(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "text", tmp_path / "other"],
        env=os.environ | {"PYTHONHASHSEED": "1"},  # this process has another one
        cwd=Path(__file__).parents[2],
        check=True,
    )
    build_punkt(tmp_path / "this", texts(tmp_path / "text"))
    assert (tmp_path / "this" / PUNKT_FILE).read_bytes() == (tmp_path / "other" / PUNKT_FILE).read_bytes()
    assert (tmp_path / "this" / PUNKT_FILE).stat().st_size > 1000


def test_punkt_is_trained_on_a_bounded_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(punkt, "TRAINING_CHARACTERS", 1000)
    manifest = build_punkt(tmp_path / "punkt", (text for text in TEXTS))
    assert 500 < manifest["characters"] <= 1000
    assert manifest["documents"] == 10  # every fourth of 40


def test_no_text_to_train_punkt_on(tmp_path):
    with pytest.raises(PunktError, match="no text to train Punkt on"):
        build_punkt(tmp_path / "punkt", [])
    assert not (tmp_path / "punkt").exists()


def test_nltk_s_own_parameters(tmp_path, monkeypatch):
    import nltk

    folder = tmp_path / "nltk_data" / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    (folder / "abbrev_types.txt").write_text("dr\ne.g\n")
    (folder / "sent_starters.txt").write_text("however\n")
    (folder / "collocations.tab").write_text("a\tlevel\n")
    (folder / "ortho_context.tab").write_text("ada\t14\n")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk_data")])
    manifest = build_punkt(tmp_path / "punkt")
    assert manifest["source"] == "punkt_tab/english"
    assert json.loads((tmp_path / "punkt" / PUNKT_FILE).read_text()) == {
        "abbreviations": ["dr", "e.g"],
        "collocations": [["a", "level"]],
        "sentence_starters": ["however"],
        "orthographic_context": {"ada": 14},
    }


def test_nltk_s_own_parameters_are_downloaded(tmp_path, monkeypatch):
    """Into a folder that is none of NLTK's, whose loader refuses to read there."""
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nowhere")])

    def download(name, download_dir, **options):
        folder = Path(download_dir) / "tokenizers" / name / "english"
        folder.mkdir(parents=True)
        files = {"abbrev_types.txt": "dr\n", "collocations.tab": "1\tmay\n", "sent_starters.txt": "however\n"}
        for file, content in {**files, "ortho_context.tab": "tree\t36\n"}.items():
            (folder / file).write_text(content)

    monkeypatch.setattr(nltk, "download", download)
    assert build_punkt(tmp_path / "punkt")["source"] == "punkt_tab/english"
    content = json.loads((tmp_path / "punkt" / PUNKT_FILE).read_text())
    assert (content["abbreviations"], content["sentence_starters"]) == (["dr"], ["however"])
    assert (content["collocations"], content["orthographic_context"]) == ([["1", "may"]], {"tree": 36})


def test_punkt_tab_without_a_network_is_one_line(tmp_path, monkeypatch, capsys):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])

    def no_network(*_, **__):
        raise ValueError("Error loading punkt_tab: <urlopen error>\n")

    monkeypatch.setattr(nltk, "download", no_network)
    with pytest.raises(PunktError, match="punkt_tab cannot be downloaded .*chunking.punkt") as error:
        build_punkt(tmp_path / "punkt")
    one_line(error)
    assert not (tmp_path / "punkt").exists()
