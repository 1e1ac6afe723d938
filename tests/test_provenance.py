import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile

import pytest
import torch
from safetensors.torch import save_file

from revela import files, provenance
from revela.files import atomic_folder, atomic_write
from revela.provenance import ProvenanceError

# --- atomic writes


def test_atomic_write_shows_the_file_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "scores.json"
    with atomic_write(path) as partial:
        assert partial.suffix == ".json"
        partial.write_text("half")
        assert not path.exists()
        partial.write_text("whole")
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["scores.json"]


def test_atomic_write_that_fails_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["scores.json"]


def test_atomic_folder_replaces_an_older_folder_and_sweeps_leftovers(tmp_path):
    path = tmp_path / "model"
    (path / "sub").mkdir(parents=True)
    (path / "sub" / "old").write_text("old")
    leftover = tmp_path / ".partial-model"
    leftover.mkdir()
    (leftover / "junk").write_text("of a killed run")
    with atomic_folder(path) as partial:
        assert os.listdir(partial) == []
        (partial / "new").write_text("new")
        assert (path / "sub" / "old").exists()
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["model"]


def test_atomic_folder_that_fails_keeps_the_old_folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(path) as partial:
        (partial / "new").write_text("half")
        raise RuntimeError
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("umask, of_files, of_folders", [(0o022, 0o644, 0o755), (0o007, 0o660, 0o770)])
def test_permissions_are_those_of_the_umask(tmp_path, umask, of_files, of_folders):
    """Also of files that are written as their user's alone; a linked file is its owner's affair."""
    linked = tmp_path / "linked"
    linked.touch()
    linked.chmod(0o600)
    before = os.umask(umask)
    try:
        with atomic_folder(tmp_path / "folder") as partial:
            shutil.move(tempfile.mkdtemp(), partial / "sub")
            save_file({"weight": torch.zeros(2)}, partial / "sub/model.safetensors")
            os.link(linked, partial / "linked")
        with atomic_write(tmp_path / "model.safetensors") as partial:
            save_file({"weight": torch.zeros(2)}, partial)
    finally:
        os.umask(before)
    for name, mode in {"folder": of_folders, "folder/sub": of_folders, "folder/linked": 0o600}.items():
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode, name
    for name in ("folder/sub/model.safetensors", "model.safetensors"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == of_files, name


# --- hashes and manifests


def test_hashes_are_those_of_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert files.sha256_file(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()
    assert files.sha256_json({"b": 1, "a": [2]}) == hashlib.sha256(b'{"a":[2],"b":1}').hexdigest()


def test_manifest_records_facts_and_files_and_equal_content_gives_equal_manifests(tmp_path):
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "rows.txt").write_text("text")
        (folder / ".partial-x").write_text("leftover")
        provenance.write_manifest(folder, source="hub:owner/name", revision="abc")
    manifest = provenance.read_manifest(tmp_path / "one", verify=True)
    assert manifest["source"] == "hub:owner/name" and manifest["revision"] == "abc"
    assert manifest["files"] == {"sub/rows.txt": hashlib.sha256(b"text").hexdigest()}
    assert (tmp_path / "one/manifest.json").read_bytes() == (tmp_path / "two/manifest.json").read_bytes()


@pytest.mark.parametrize("damage", ["change", "remove", "add"])
def test_verification_names_the_file_that_differs(tmp_path, damage):
    (tmp_path / "rows.txt").write_text("text")
    (tmp_path / "other.txt").write_text("text")
    provenance.write_manifest(tmp_path)
    if damage == "remove":
        (tmp_path / "rows.txt").unlink()
    else:
        (tmp_path / {"change": "rows.txt", "add": "more.txt"}[damage]).write_text("changed")
    named = "more.txt" if damage == "add" else "rows.txt"
    provenance.read_manifest(tmp_path)
    with pytest.raises(ProvenanceError, match=rf"differs from its manifest.json in {named};"):
        provenance.read_manifest(tmp_path, verify=True)


@pytest.mark.parametrize("content", [None, "", "[]", "{}"])
def test_a_folder_without_a_usable_manifest_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ProvenanceError, match="manifest"):
        provenance.read_manifest(tmp_path)


# --- git


def test_git_commit_says_when_tracked_files_differ(tmp_path, monkeypatch):
    root = tmp_path / "checkout" / "revela"
    root.mkdir(parents=True)
    monkeypatch.setattr(provenance, "CHECKOUT", root.parent)
    assert provenance.git_commit() is None
    (root / "code.py").write_text("x = 1\n")

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=root.parent, check=True, capture_output=True, text=True
        )

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "HEAD").stdout.strip()
    assert provenance.git_commit() == commit
    (root / "code.py").write_text("x = 2\n")
    assert provenance.git_commit() == f"{commit}-dirty"
    monkeypatch.setattr(provenance, "CHECKOUT", root)  # a package within another project's checkout
    assert provenance.git_commit() is None


def test_versions_are_json_and_name_the_libraries():
    assert json.loads(json.dumps(provenance.versions()))["torch"].startswith("2.")
