"""The imitation of the hub: all repositories are read by the product's own code, and every refusal is one line."""

import json
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from hub import TOKEN, Server, build
from rehearse import HERE, configuration
from repositories import REPOSITORIES

from revela.study.settings import Dataset
from revela.study.source import HubSource
from revela.study.specification import DatasetSpec
from revela.study.study import load
from revela.text import preflight
from revela.text.resources import ResourceError, fetch_dataset, fetch_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    build(folder)
    return folder


@pytest.fixture
def server(miniatures, tmp_path, monkeypatch):
    with Server(miniatures) as server:
        constants = huggingface_hub.constants
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield server


def fetch(folder, hub, revision="main", patterns=()):
    dataset = Dataset(hub=hub, revision=revision, patterns=list(patterns))
    return fetch_dataset(DatasetSpec(dataset=dataset, results="results"), folder)


# --- the miniatures are those of the plan


def test_all_repositories_of_the_plan_are_there():
    study = load(ROOT / "config/config.yaml")
    hubs = [dataset.hub for dataset in study.config.datasets.values()]
    names = {f"datasets/{name}" for hub in hubs for name in ([hub] if isinstance(hub, str) else hub or [])}
    sources = [model.origin for model in study.models.values() if isinstance(getattr(model, "origin", None), HubSource)]
    assert REPOSITORIES.keys() == names | {f"models/{source.repository}" for source in sources}
    assert len(REPOSITORIES) == 90


def test_the_facts_are_those_that_were_collected():
    """Beside the project there is a longer list; where it is absent, nothing is compared."""
    path = ROOT.parent / "shared/hub/repositories.json"
    if not path.is_file():
        pytest.skip("the list is not here")
    for facts in json.loads(path.read_text()):
        repository = REPOSITORIES[f"{facts['type']}s/{facts['id']}"]
        assert repository.gated == facts["gated"]
        assert any(commit.startswith(facts["revision"] or "") for commit in repository.commits.values()), facts["id"]


def test_every_miniature_has_the_published_files(miniatures):
    for key, repository in REPOSITORIES.items():
        for ref, commit in repository.commits.items():
            folder = miniatures / key / commit
            names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
            adds = repository.refs.get(ref, ("", ""))[1].split()
            assert names == {*repository.names, *adds, ".gitattributes"}, key


def test_the_overlay_changes_counts_and_the_machine_alone():
    changes = yaml.safe_load((HERE / "overlay.yaml").read_text())
    counts = {"batches", "pairs", "mix", "batches_per_step", "max_steps", "documents"}

    def leaves(value, path=()):
        if not isinstance(value, dict):
            yield path
        else:
            for key, inner in value.items():
                yield from leaves(inner, (*path, key))

    for path in leaves(changes):
        assert path[0] == "compute" or counts & set(path), path
    paper = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    rehearsed = configuration()
    changed = set(leaves(changes))
    for path in {*leaves(paper), *leaves(rehearsed)} - changed:
        one, other = paper, rehearsed
        for key in path:
            one, other = one[key], other[key]
        assert one == other, path


# --- what a repository can be like


def test_the_rules_are_those_of_the_hub(server, tmp_path, monkeypatch):
    """Read or refused in one line: hashes in names, shards, pickles, scripts, moved, gated, revisions."""
    hashed = fetch(tmp_path / "apps", "CoIR-Retrieval/apps-queries-corpus")
    assert "data/corpus-00000-of-00001-279bc28cd351fa67.parquet" in hashed["files"]
    sharded = fetch_model("8b", HubSource("meta-llama/Llama-3.1-8B"), tmp_path / "8b")
    assert "model-00003-of-00004.safetensors" in sharded["files"] and "original/params.json" not in sharded["files"]
    converted = fetch_model("laprador", HubSource("canwenxu/laprador"), tmp_path / "laprador")
    assert list(converted["converted_from"]) == ["pytorch_model.bin"]
    script = fetch(tmp_path / "wikipedia", "Tevatron/wikipedia-nq-corpus")
    assert "wikipedia-nq-corpus.py" in script["files"]
    pull = fetch_model("bge", HubSource("BAAI/bge-m3", "refs/pr/38"), tmp_path / "bge")
    assert pull["hub"]["BAAI/bge-m3"].startswith("9d559b1") and "converted_from" not in pull
    moved = fetch(tmp_path / "bright", "xlang-ai/BRIGHT", patterns=["examples/*"])
    assert len(moved["files"]) == 12

    monkeypatch.setenv("HF_TOKEN", "hf_of_a_stranger")
    refusals = {
        "gated: accept its licence": lambda: fetch_model("x", HubSource("meta-llama/Llama-3.2-1B"), tmp_path / "x"),
        "not on the hub": lambda: fetch(tmp_path / "x", "mteb/nothing"),
        "no revision '1c644c9'": lambda: fetch_model("x", HubSource("intfloat/e5-base-v2", "1c644c9"), tmp_path / "x"),
    }
    for message, refused in refusals.items():
        with pytest.raises(ResourceError, match=message) as error:
            refused()
        assert "\n" not in str(error.value)
    assert not (tmp_path / "x").exists()


def test_a_broken_transfer_goes_on_where_it_stopped(server, tmp_path):
    server.hub.broken.add("model.safetensors")
    manifest = fetch_model("e5", HubSource("intfloat/e5-base-v2"), tmp_path / "e5")
    content = next((server.hub.folder / "models/intfloat/e5-base-v2").glob("*/model.safetensors")).read_bytes()
    assert (tmp_path / "e5/model.safetensors").read_bytes() == content and manifest
    assert not server.hub.broken and sum("GET /cdn/" in request for request in server.hub.requests) == 2


def test_a_hub_that_is_busy_says_so(server, tmp_path):
    """It is there: a user who is told that there is no network would look in the wrong place."""
    server.hub.busy = 9
    with pytest.raises(ResourceError, match=r"mteb/nq: the hub refuses it for now \(.*429.*run again") as error:
        fetch(tmp_path / "nq", "mteb/nq")
    assert "\n" not in str(error.value)
    server.hub.busy = 0
    assert fetch(tmp_path / "nq", "mteb/nq")["files"]


def test_the_preflight_finds_nothing_wrong_with_the_plan(server, tmp_path, monkeypatch):
    """All 90 at once; and what is wrong, all of it at once."""
    study = load(ROOT / "config/config.yaml")
    fetched = [name for name, model in study.models.items() if model.kind in ("backbone", "encoder")]
    needed = preflight.needed_of(study, study.config.datasets, fetched)
    assert {f"{one.kind}s/{one.name}" for one in needed} == REPOSITORIES.keys()
    seen = preflight.look(needed, tmp_path)
    assert preflight.faults(seen) == []
    assert sum(one.size for one in seen) > 5e6

    server.hub.gone.add("datasets/mteb/nq")
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_stranger")
    found = preflight.faults(preflight.look(needed, tmp_path))
    assert sorted("gated" in fault for fault in found) == [False, True, True, True], found
