"""The code behind each file of a corpus: what an edit runs again, and what it does not."""

import pytest

from revela.study.code import import_closure

READING = {"revela.text.documents", "revela.text.rows"}
WRITING = {"revela.files", "revela.text.parquet", "revela.text.progress"}
TOKENS = {"revela.text.by_tokens", "revela.pretrained"}
CLOSURES = {
    "chunks": {"revela.lookahead", "revela.text.chunking", *TOKENS, *READING, *WRITING},
    "batches": {"revela.text.batching", *READING, *WRITING},
    "pairs": {"revela.text.chunking", *WRITING},
    "report": {"revela.text.batches", "revela.text.batching", *READING, *WRITING},
    "embedded": {"revela.text.layouts"},
    "punkt": {"revela.text.chunking", *READING},
}


@pytest.mark.parametrize("module", CLOSURES)
def test_code_behind_a_result(module):
    """No settings of a study, no manifests, no progress bars that move, nothing of later steps."""
    common = {"revela", "revela.errors", "revela.text", f"revela.text.{module}"}
    assert set(import_closure(f"revela.text.{module}")) == CLOSURES[module] | common
