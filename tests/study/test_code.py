"""The hash of the code behind a result: what changes it, and what does not."""

import subprocess
import sys

import pytest

from revela.study import code
from revela.study.code import CodeError, code_hash, import_closure


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of its own in place of the real one: loop -> retriever, in functions and relatively, too."""
    root = tmp_path / "revela"
    files = {
        "__init__.py": "",
        "settings.py": "SETTINGS = 1\n",
        "loop.py": "from typing import TYPE_CHECKING\nimport torch\nfrom .objectives import loss\n"
        "if TYPE_CHECKING:\n    from revela.settings import SETTINGS\n",
        "retriever.py": "def encode():\n    return 1\n",
        "tables.py": "from revela.retriever import encode\n",
        "objectives/__init__.py": "",
        "objectives/loss.py": "def loss():\n    from ..retriever import encode\n    return encode()\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(code, "PACKAGE", root)
    forget()
    yield root
    forget()


def forget():
    code._module.cache_clear()
    code_hash.cache_clear()


def edited(package, name, text):
    (package / name).write_text(text)
    forget()
    return code_hash("revela.loop")


def test_import_closure_follows_lazy_and_relative_imports(package):
    expected = ["revela", "revela.loop", "revela.objectives", "revela.objectives.loss", "revela.retriever"]
    assert import_closure("revela.loop") == expected
    assert import_closure("revela.tables") == ["revela", "revela.retriever", "revela.tables"]


def test_code_hash_changes_with_the_closure_and_with_nothing_else(package):
    before = code_hash("revela.loop")
    assert edited(package, "tables.py", "x = 1\n") == before
    assert edited(package, "settings.py", "SETTINGS = 2\n") == before  # seen by type checkers alone
    assert edited(package, "retriever.py", '# why\ndef encode():\n    """What."""\n\n    return (1)\n') == before
    assert edited(package, "retriever.py", "def encode():\n    return 2\n") != before


def test_the_words_of_an_error_do_not_count_and_its_condition_does(package):
    """Also where the message is put together, and where the error has a cause."""
    text = (
        "def encode(x):\n    if x < {bound}:\n        raise ValueError(f'{{x}} is {word}') from {cause}\n    return x\n"
    )
    first = edited(package, "retriever.py", text.format(bound=0, word="small", cause="None"))
    assert edited(package, "retriever.py", text.format(bound=0, word="negative", cause="OSError()")) == first
    assert edited(package, "retriever.py", text.format(bound=1, word="small", cause="None")) != first
    assert (
        edited(package, "retriever.py", text.format(bound=0, word="small", cause="None").replace("Value", "Key"))
        != first
    )


def test_code_hash_refuses_a_module_that_does_not_exist(package):
    with pytest.raises(CodeError, match="revela.lop: no such module"):
        code_hash("revela.lop")


def test_importing_what_plans_imports_nothing_heavy():
    modules = (
        "revela, revela.study.specification, revela.study.code, revela.provenance, revela.workflow, revela.plan.jobs"
    )
    command = f"import sys, {modules}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "deepspeed", "peft", "numpy", "pandas"} & set(loaded)
