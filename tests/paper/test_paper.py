"""Tables, their lineage and the comparison with the paper: small ones by hand, and all of the paper's read back."""

import csv
import dataclasses
import json
import math
import shutil
import statistics
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from paper_results import printed_study, with_results, write_cell, write_resource, write_scores

from revela.paper import PaperError, tables
from revela.paper.check import compare_all, failures, to_page, verdict_line, write_check
from revela.paper.compare import compare, compare_table, split, to_markdown, verdict, write_comparison
from revela.paper.lineage import lineage, model_lineage, write_lineage
from revela.paper.tables import best, to_csv, to_latex, write_table
from revela.paper.tables import to_markdown as table_to_markdown
from revela.paper.values import (
    Column,
    Erratum,
    columns,
    measured,
    read_errata,
    read_printed,
    rows,
    seed_margins,
    standard_error,
    tasks_of_rows,
)
from revela.study.base import ConfigError
from revela.study.layout import Layout
from revela.study.sheets import Deviation
from revela.study.shown import Figure, Table
from revela.study.study import load
from revela.study.tables import CheckSpec, check_spec, lineage_spec, table_spec

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "config/paper"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with printed_study(tmp_path_factory.mktemp("results")) as study:
        yield study


# --- a small table by hand: two measured and tied, a supervised one that is better, a copied one that is best


@pytest.fixture
def small():
    table = Table(
        benchmark="b",
        caption="A caption (100 %).",
        columns=["BM25", "Revela-0.5B", "E5-7B", "Ada-2"],
        size_row=True,
        grey=["E5-7B"],
        dagger=["E5-7B"],
    )
    wrong = Erratum("table9", "Ada-2", "Mean", 97, 98.5, "the mean of the column's rows")
    values = [
        Column("BM25", [20.449, 50.0, 35.2245], [1.0, 2.0, 3.0]),
        Column("Revela-0.5B", [20.451, 30.0, 25.2255], [1.0, 2.0, 3.0]),
        Column("E5-7B", [10.0, 50.049, 30.0245], [1.0, 2.0, 3.0]),
        Column("Ada-2", [98, 99, 97], [], (wrong,)),
    ]
    return table, values, ["First", "Second_2", "Mean"]


def test_bold_is_the_best_that_was_measured_to_one_decimal(small):
    table, values, _ = small
    assert best(table, values) == [{"Revela-0.5B"}, {"BM25", "E5-7B"}, {"BM25"}]


def test_bold_can_be_copied_or_nothing(small):
    table, values, _ = small
    assert best(table.model_copy(update={"bold_copied": True}), values) == [{"Ada-2"}] * 3
    assert best(table.model_copy(update={"bold": "none"}), values) == [set()] * 3


def test_bold_by_group():
    table = Table(
        benchmark="b", caption="", groups={"X": {"a": "X-a", "b": "X-b"}, "Y": {"a": "Y-a", "b": "Y-b"}}, bold="group"
    )
    values = [Column(label, [v], [0.0]) for label, v in zip(table.columns, (1.0, 2.0, 9.0, 3.0))]
    assert table.columns == ["X-a", "X-b", "Y-a", "Y-b"]
    assert best(table, values) == [{"X-b", "Y-a"}]


def test_latex(small):
    lines = to_latex(*small, "table9").splitlines()
    assert r"Dataset & BM25 & Revela & E5\textsuperscript{\dag} & Ada-2 \\" in lines
    assert r"Model Size & - & 0.5B & 7B & - \\" in lines
    assert r"First & 20.4 & \textbf{20.5} & \textcolor{gray}{10.0} & 98.0\textsuperscript{p} \\" in lines
    assert r"Second\_2 & \textbf{50.0} & 30.0 & \textcolor{gray}{\textbf{50.0}} & 99.0\textsuperscript{p} \\" in lines
    mean = r"Mean & \textbf{35.2} & 25.2 & \textcolor{gray}{30.0} & 97.0\textsuperscript{p}\textsuperscript{*} \\"
    assert lines[lines.index(mean) - 1] == r"\midrule" and lines[lines.index(mean) + 1] == r"\bottomrule"
    text = "\n".join(lines)
    assert r"\caption{A caption (100 \%).}" in text
    assert "Bold: the best measured value in each row. Grey: supervised." in text
    assert "copied from the paper, not measured" in text
    assert "Ada-2 as printed is in error; right is Mean 98.5 (the mean of the column's rows)" in text


def test_markdown(small):
    text = table_to_markdown(*small)
    assert "98.0ᵖ |" in text and r"97.0ᵖ\*" in text and "**_50.0_**" in text and "E5-7B†" in text
    assert "ᵖ: copied from the paper, not measured." in text and "right is Mean 98.5" in text


def test_intervals_stand_beside_measured_values_where_they_are_wanted(small):
    table, values, names = small
    values[0].margins[2] = float("nan")  # of one query
    table = table.model_copy(update={"intervals": True})
    text = table_to_markdown(table, values, names)
    assert "| 20.4 ± 1.0 | **20.5 ± 1.0** | _10.0 ± 1.0_ | 98.0ᵖ |" in " ".join(text.split())
    assert "**35.2** |" in text and "±: the 95 % interval over the queries." in text
    assert r"& \textbf{20.5}\,$\pm$\,1.0 &" in to_latex(table, values, names, "x")
    assert "±" not in table_to_markdown(*small)


def test_seeds_are_shown_by_their_mean_with_the_lowest_and_the_highest(tmp_path, monkeypatch):
    groups = {"X": {"1": "X seed 1", "2": "X seed 2"}, "Y": {"1": "Y seed 1", "2": "Y seed 2"}}
    table = Table(benchmark="b", caption="", groups=groups, over_seeds=True)
    values = [Column(label, [v, 50.0], [9.0, 9.0]) for label, v in zip(table.columns, (1.0, 2.1, 3.0, 6.0))]
    monkeypatch.setattr(tables, "columns", lambda *_: values)
    monkeypatch.setattr(tables, "rows", lambda *_: ["First", "Mean"])
    output = {kind: tmp_path / f"t.{kind}" for kind in ("tex", "md", "csv", "html")}
    write_table(SimpleNamespace(table=table, name="t"), None, output)
    markdown = " ".join(output["md"].read_text().split())
    assert "| First | 1.6 (1.0-2.1) | **4.5 (3.0-6.0)** |" in markdown
    assert "Means over seeds; in brackets the lowest and the highest." in markdown
    assert r"First & 1.6 (1.0--2.1) & \textbf{4.5} (3.0--6.0) \\" in output["tex"].read_text()
    assert r"Dataset & X & Y \\" in output["tex"].read_text()
    lines = list(csv.DictReader(output["csv"].read_text().splitlines()))
    assert lines[0] == {"Task": "First", "X seed 1": "1.00", "X seed 2": "2.10", "Y seed 1": "3.00", "Y seed 2": "6.00"}


@pytest.mark.parametrize("wrong", [{"intervals": True}, {"bold": "group"}, {"printed": "x.csv"}, {"groups": {}}])
def test_means_over_seeds_need_groups_and_have_no_intervals(wrong):
    given = {"benchmark": "b", "caption": "", "groups": {"X": {"1": "a"}}, "columns": ["a"], "over_seeds": True}
    with pytest.raises(ValueError, match="over_seeds needs groups"):
        Table(**given | wrong)


def test_csv(small):
    _, values, names = small
    lines = list(csv.DictReader(to_csv(values, names).splitlines()))
    assert list(lines[0]) == ["Task", "BM25", "Revela-0.5B", "E5-7B", "Ada-2 (printed)"]
    assert [line["BM25"] for line in lines] == ["20.45", "50.00", "35.22"]


def test_a_table_without_copies_says_nothing_of_them(small):
    table, values, names = small
    table = table.model_copy(update={"columns": ["BM25"], "grey": [], "dagger": []})
    text = to_latex(table, values[:1], names, "x") + table_to_markdown(table, values[:1], names)
    assert "copied" not in text and "measured" not in text


# --- measured values and their intervals


def test_measured_values_means_and_margins(tmp_path):
    path = tmp_path / "scores.json"
    parts = {
        "x": {"per_query": {"nDCG@10": [0.0, 1.0, 0.5, 0.5]}},
        "y": {"per_query": {"nDCG@10": [0.2, 0.4]}},
    }
    tasks = {
        "first": {"metrics": {"nDCG@10": 0.4}, "parts": parts},
        "second": {"metrics": {"nDCG@10": 0.3}, "parts": {"z": parts["y"]}},
    }
    path.write_text(json.dumps({"tasks": tasks}))
    values, margins = measured(path, ["first", "second"], "nDCG@10")
    assert values == pytest.approx([40, 30, 35])
    x, y = (statistics.variance(part["per_query"]["nDCG@10"]) for part in parts.values())
    errors = [100 * (x / 4 + y / 2) ** 0.5 / 2, 100 * (y / 2) ** 0.5]
    assert margins == pytest.approx([1.959964 * e for e in (*errors, (errors[0] ** 2 + errors[1] ** 2) ** 0.5 / 2)])


def test_the_interval_is_that_of_the_bootstrap():
    generator = np.random.default_rng(0)
    sample = generator.beta(0.5, 0.7, 200)
    means = generator.choice(sample, (4000, 200)).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    assert 2 * 1.96 * standard_error(list(sample)) == pytest.approx(high - low, rel=0.05)


def test_of_one_query_there_is_no_interval(tmp_path):
    path = write_scores(tmp_path / "one.json", {"first": 0.5}, queries=1)
    assert np.isnan(measured(path, ["first"], "nDCG@10")[1]).all()
    text = to_markdown(compare([Column("X", [50.0], [float("nan")])], {"X": {"First": 50.0}}))
    assert "50.0 (50.0) +0.0 OK" in text


def test_a_missing_task_or_measure_is_an_error(tmp_path):
    path = write_scores(tmp_path / "some.json", {"first": 0.5})
    with pytest.raises(PaperError, match=r"some.json: no nDCG@10 of task 'second'"):
        measured(path, ["first", "second"], "nDCG@10")
    with pytest.raises(PaperError, match=r"some.json: no MAP of task"):
        measured(path, ["first"], "MAP")
    with pytest.raises(PaperError, match=r"none.json: not a score file"):
        measured(tmp_path / "none.json", ["first"], "nDCG@10")


@pytest.mark.parametrize("text", ["", "Task,A\nx,1,2\n", "Row,A\nx,1\n", "Task,A\nx,one\n"])
def test_printed_values_that_are_no_table(tmp_path, text):
    (tmp_path / "printed.csv").write_text(text)
    with pytest.raises(PaperError, match="printed.csv"):
        read_printed(tmp_path / "printed.csv")


# --- the paper's own numbers


def test_the_papers_means_follow_from_its_rows_but_for_the_known_ones():
    """A mean of values of one decimal may differ by 0.05 from that of the true values, and is rounded itself."""
    wrong, seen = set(), 0
    for path in PAPER.glob("table*.csv"):
        for label, values in read_printed(path).items():
            *parts, mean = values.values()
            assert list(values)[-1] in ("Mean", "AVG", "Avg")
            seen += 1
            if abs(sum(parts) / len(parts) - mean) > 0.06:
                wrong.add((f"table{int(path.stem[5:7])}", label))
    assert seen == 13 + 4 + 12 + 11 + 4 + 4 + 4 * 9 + 4 * 3 + 2
    assert wrong == {("table1", "REPLUG-3B"), ("table1", "Ada-2"), ("table1", "Voyage-2"), ("table6", "REPLUG-0.5B")}
    assert wrong == {(e.table, e.column) for e in read_errata(PAPER / "errata.csv")}


def test_the_errata_mend_the_means():
    printed = {f"table{int(path.stem[5:7])}": read_printed(path) for path in PAPER.glob("table*.csv")}
    errata = read_errata(PAPER / "errata.csv")
    for erratum in errata:
        column = printed[erratum.table][erratum.column]
        assert column[erratum.row] == erratum.printed
        column[erratum.row] = erratum.corrected
    for table, label in {(erratum.table, erratum.column) for erratum in errata}:
        *parts, mean = printed[table][label].values()
        assert sum(parts) / len(parts) == pytest.approx(mean, abs=0.05)


def test_tables_of_the_same_cells_agree():
    """Columns bs16 of tables 10 and 11, lm1B of 12 and 13, and tables 1 and 6 are the same runs; 2 has means of 8, 9."""

    def column(table, label):
        return list(read_printed(next(PAPER.glob(f"{table}_*.csv")))[label].values())

    for size in ("0.1B", "0.5B", "1B"):
        assert column("table10", f"Revela-{size}-bs16") == column("table01", f"Revela-{size}")
        assert column("table13", f"Revela-{size}-lm1B") == column("table01", f"Revela-{size}")
        assert column("table11", f"Revela-{size}-bs16") == column("table06", f"Revela-{size}")
        assert column("table12", f"Revela-{size}-lm1B") == column("table06", f"Revela-{size}")
    for label in read_printed(PAPER / "table02_contriever.csv"):
        assert column("table02", label)[:2] == [column("table09", label)[-1], column("table08", label)[-1]]


LONG = {
    "AppsRetrieval": "Apps",
    "SyntheticText2SQL": "ST2SQL",
    "COIRCodeSearchNetRetrieval": "SN",
    "CodeSearchNetCCRetrieval": "SNCC",
    "CodeTransOceanContest": "TransC",
    "CodeTransOceanDL": "TransDL",
    "StackOverflowQA": "SOQA",
    "CodeFeedbackST": "F-ST",
    "CodeFeedbackMT": "F-MT",
    "C-FEVER": "ClimateFEVER",
    "TREC-COVID": "TRECCOVID",
}


def test_rows_and_columns_are_the_papers(study):
    for name, table in paper_tables(study).items():
        printed = read_printed(table.printed)
        assert list(printed) == table.columns, name
        names = rows(table_spec(study, name))
        if table.benchmark not in (None, "lm-eval"):
            labels = [task.label for task in study.benchmark_tasks(table.benchmark)]
            assert [LONG.get(row, row) for row in names] == [*labels, "Mean"], name
    assert rows(table_spec(study, "table2")) == ["BEIR", "CoIR", "AVG"]
    assert rows(table_spec(study, "table18")) == [*study.config.lm_evaluation.tasks, "Avg"]


def paper_tables(study):
    return {name: table for name, table in study.config.tables.items() if name.startswith("table")}


def test_there_are_all_tables_of_results(study):
    assert list(paper_tables(study)) == [f"table{n}" for n in (1, 2, *range(6, 19))]
    assert set(study.config.figures) >= {"figure3", "figure4", "figure5", "figure6"}


def test_where_values_are_the_printed_ones_all_agree(study):
    """Also the means, but for roundings: they are taken from the rows."""
    for name in paper_tables(study):
        verdicts = compare_table(table_spec(study, name), study.layout)["verdict"].value_counts()
        assert not verdicts.get("FAIL") and not verdicts.get("close"), name
    # the services: two columns of 11 rows, three of 13
    assert (compare_table(table_spec(study, "table1"), study.layout)["verdict"] == "not run").sum() == 22
    assert (compare_table(table_spec(study, "table7"), study.layout)["verdict"] == "not run").sum() == 39


def test_means_are_those_of_the_rows_that_are_written(study, tmp_path):
    for name in paper_tables(study):
        write_table(table_spec(study, name), study.layout, {"csv": tmp_path / "table.csv"})
        frame = pd.read_csv(tmp_path / "table.csv", index_col="Task")
        own = frame[[label for label in frame if "(printed)" not in label]]
        assert np.allclose(own.iloc[:-1].mean(), own.iloc[-1], atol=0.01), name


# What is bold in the paper, by reading its captions on its numbers: row -> labels.
BOLD = {
    ("table1", "TransDL"): {"Revela-0.5B"},
    ("table1", "SN"): {"E5-Mistral-7B"},  # the APIs have more
    ("table1", "Mean"): {"Revela-3B"},
    ("table6", "Mean"): {"E5-PT-0.3B", "Revela-code-3B"},
    ("table7", "Pony"): {"BM25"},
    ("table7", "AoPS"): {"OpenAI"},
    ("table8", "SOQA"): {"Contriever-code-1B"},
    ("table10", "Mean"): set(),
    ("table12", "C-FEVER"): {"Revela-0.1B-lm0.5B", "Revela-0.5B-lm0.5B", "Revela-1B-lm1B"},
    ("table13", "CosQA"): {"Revela-0.1B-lm1B", "Revela-0.5B-lm0.5B", "Revela-1B-lm0.5B", "Revela-1B-lm1B"},
    ("table17", "NFCorpus"): {"Revela-0.5B"},
    ("table18", "Avg"): set(),
}


@pytest.mark.parametrize("table, row", BOLD)
def test_bold_as_in_the_paper(study, table, row):
    spec = table_spec(study, table)
    bold = best(spec.table, columns(spec, study.layout))
    assert bold[rows(spec).index(row)] == BOLD[table, row]


def test_every_table_compiles(study, tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex (Debian: texlive-latex-base, texlive-latex-recommended)")
    body = []
    for name in study.config.tables:
        spec = table_spec(study, name)
        write_table(spec, study.layout, {"tex": tmp_path / f"{name}.tex"})
        body.append(rf"\input{{{name}.tex}}\clearpage")
        if spec.table.printed:
            write_comparison(spec, study.layout, {"tex": tmp_path / f"{name}.compare.tex"})
            body.append(rf"\input{{{name}.compare.tex}}\clearpage")
    (tmp_path / "page.tex").write_text(
        r"\documentclass{article}\usepackage[textwidth=5.5in,textheight=9in]{geometry}"
        r"\usepackage{booktabs,graphicx,xcolor}\begin{document}" + "\n".join(body) + r"\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout and "too large" not in done.stdout


def test_groups_stand_above_their_columns(study, tmp_path):
    write_table(table_spec(study, "table12"), study.layout, {"tex": tmp_path / "t.tex", "md": tmp_path / "t.md"})
    tex = (tmp_path / "t.tex").read_text()
    assert r"\multicolumn{3}{c}{Revela\textsubscript{0.5B}}" in tex
    assert r"\cmidrule(lr){2-4} \cmidrule(lr){5-7} \cmidrule(lr){8-10}" in tex
    assert r"Dataset & 0.1B & 0.5B & 1B & 0.1B & 0.5B & 1B & 0.1B & 0.5B & 1B \\" in tex
    assert "Revela-1B 0.5B" in (tmp_path / "t.md").read_text()


def test_systems_can_be_rows(study, tmp_path):
    write_table(table_spec(study, "table2"), study.layout, {"tex": tmp_path / "t.tex", "md": tmp_path / "t.md"})
    tex = (tmp_path / "t.tex").read_text()
    assert r"Model & BEIR & CoIR & AVG \\" in tex
    assert "\\midrule\nRevela-code\\textsubscript{1B} & 39.6 & 58.6 & 49.1 \\\\" in tex
    assert "| Contriever-wiki-1B |" in (tmp_path / "t.md").read_text()


def test_a_missing_system_is_an_error_and_not_run_where_asked(study, tmp_path):
    spec, gone = table_spec(study, "table8"), with_results(study, tmp_path).layout
    with pytest.raises(PaperError, match="not a score file"):
        columns(spec, gone)
    assert columns(spec, gone, partly=True) == []
    label, system = next(iter(study.table_systems("table8").items()))
    target = Path(gone.scores(system, "coir"))
    target.parent.mkdir(parents=True)
    shutil.copy(study.layout.scores(system, "coir"), target)
    found = compare_table(spec, gone, partly=True)
    assert set(found[found["verdict"] != "not run"]["column"]) == {label}


# --- comparison


@pytest.mark.parametrize(
    "ours, margin, expected",
    [
        (50.0, 0.2, "OK"),
        (51.05, 1.0, "OK"),  # the printed value is rounded by 0.05 at most
        (51.1, 1.0, "close"),
        (47.95, 1.0, "close"),
        (47.9, 1.0, "FAIL"),
        (47.9, 2.5, "OK"),  # of fewer queries
        (50.06, 0.0, "FAIL"),
        (50.05, math.nan, "OK"),
        (51.0, math.nan, "FAIL"),  # of one query nothing is known
        (None, math.nan, "not run"),
    ],
)
def test_a_verdict_is_by_the_interval(ours, margin, expected):
    assert verdict(ours, 50.0, margin) == expected


def test_comparison_uses_the_corrected_value():
    printed = {"A-1B": {"F": 98.0, "Mean": 97.0}, "B": {"F": 1.0, "Mean": 1.0}, "Ada-2": {"F": 5.0, "Mean": 5.0}}
    wrong = [Erratum("table9", "A-1B", "Mean", 97, 98.5, "")]
    ours = [Column("A-1B", [98, 98.4], [2, 1]), Column("Ada-2", [5, 5], [])]
    lines = compare(ours, printed, wrong)
    found = {(line.column, line.row): line for line in lines.itertuples()}
    mean = found["A-1B", "Mean"]
    assert (mean.low, mean.high, mean.corrected, mean.verdict) == (97.4, 99.4, 98.5, "OK")
    assert mean.difference == pytest.approx(-0.1)
    assert found["B", "F"].verdict == found["Ada-2", "F"].verdict == "not run"  # a copied value is no measurement
    page = to_markdown(lines)
    assert "OK 2, close 0, FAIL 0, not run 4." in page
    assert "98.4±1.0 (97.0 → 98.5) -0.1 OK" in page and "Printed in error: A-1B, Mean 97.0 (right: 98.5)." in page


def test_comparison_of_another_number_of_rows_is_an_error():
    with pytest.raises(PaperError, match="2 printed values, expected 1"):
        compare([Column("A", [1.0], [1.0])], {"A": {"F": 1.0, "Mean": 1.0}})


def test_wide_comparisons_are_cut_between_groups(study):
    pieces = split(study.config.tables["table12"])
    assert [list(piece.groups) for piece in pieces] == [["Revela-0.1B", "Revela-0.5B"], ["Revela-1B"]]
    pieces = split(study.config.tables["table1"])
    assert [label for piece in pieces for label in piece.columns] == study.config.tables["table1"].columns
    assert max(len(piece.columns) for piece in pieces) <= 7


# --- the check


def test_the_check_fails_where_a_measured_value_does(study, tmp_path):
    spec, changed = check_spec(study), with_results(study, tmp_path / "r").layout
    shutil.copytree(Path(study.config.results, "scores"), tmp_path / "r/scores")
    output = {suffix: tmp_path / f"check.{suffix}" for suffix in ("html", "md", "csv")}
    write_check(spec, changed, output)
    line, failing = verdict_line(output["csv"])
    assert not failing and "FAIL 0, not run 61" in line

    path = Path(changed.scores(study.table_systems("table14")["Revela-1B"], "coir"))
    write_scores(path, {task: 0.9 for task in json.loads(path.read_text())["tasks"]}, queries=4000)
    write_check(spec, changed, output)
    line, failing = verdict_line(output["csv"])
    assert failing and "FAIL 11" in line
    page, html = output["md"].read_text(), output["html"].read_text()
    assert "## What fails: 11" in page and page.count("| table14 | Revela-1B |") == 11
    assert html.count('class="fail"') >= 11 and "<table>" in html and "http" not in html
    assert "config/paper" not in page


def test_the_check_of_nothing_measured(study, tmp_path):
    spec, gone = check_spec(study), with_results(study, tmp_path).layout
    comparisons = compare_all(spec, gone)
    assert set(pd.concat(comparisons.values())["verdict"]) == {"not run"}
    assert failures(comparisons).empty
    assert "## What fails: 0" in to_page(spec, comparisons)
    output = {suffix: tmp_path / f"check.{suffix}" for suffix in ("html", "md", "csv")}
    write_check(CheckSpec(tables=[]), gone, output)
    assert "No table of this configuration" in output["md"].read_text()
    line, failing = verdict_line(output["csv"])
    assert failing and line.endswith("check.html: nothing measured")
    write_check(spec, gone, output)
    assert verdict_line(output["csv"]) == (line, True)


def test_the_order_of_tasks_decides_nothing(study, tmp_path):
    """A row of benchmarks.tsv may stand anywhere: what is compared, and what a table shows, stays the same."""
    order = list(study.tasks)
    numbers = {task.key: number for number, task in enumerate(order)}
    for one, other in (("coir/cosqa", "coir/apps"), ("beir/nq", "beir/arguana"), ("bright/aops", "bright/pony")):
        order[numbers[one]], order[numbers[other]] = order[numbers[other]], order[numbers[one]]
    swapped = dataclasses.replace(study, tasks=order)
    for name in ("table1", "table2", "table7", "table11", "table12", "released1"):
        before, after = table_spec(study, name), table_spec(swapped, name)
        pd.testing.assert_frame_equal(compare_table(before, study.layout), compare_table(after, study.layout))
        assert rows(before) == rows(after) and columns(before, study.layout) == columns(after, study.layout), name
    before, after = (lineage(lineage_spec(s, "table1"), study.layout)["columns"]["Revela-1B"] for s in (study, swapped))
    assert before["cells"] == after["cells"]


def test_rows_are_matched_by_label_or_alias(study, tmp_path):
    spec = table_spec(study, "table1")
    text = (PAPER / "table01_coir.csv").read_text()

    def named(old, new):
        (tmp_path / "printed.csv").write_text(text.replace(f"\n{old},", f"\n{new},"))
        table = spec.table.model_copy(update={"printed": str(tmp_path / "printed.csv")})
        return tasks_of_rows(spec.model_copy(update={"table": table}))

    assert list(named("SN", "SN").items())[3] == ("SN", "codesearchnet")
    assert named("SN", "COIRCodeSearchNetRetrieval")["COIRCodeSearchNetRetrieval"] == "codesearchnet"
    with pytest.raises(PaperError, match="row 'Snippets' is no task's alone; labels and aliases: .*SNCC"):
        named("SN", "Snippets")
    with pytest.raises(PaperError, match="row 'COIRCodeSearchNetRetrieval' is no task's alone"):
        named("SNCC", "COIRCodeSearchNetRetrieval")  # which SN has already
    with pytest.raises(PaperError, match="'CosQA' stands twice"):
        named("SN", "CosQA")
    with pytest.raises(PaperError, match="the last row is 'Total'"):
        named("Mean", "Total")


def test_one_row_has_no_mean(tmp_path):
    study = load(ROOT / "config/demo.yaml")
    spec = table_spec(study, "table6")
    assert rows(spec) == ["Wikipedia"] and rows(table_spec(study, "table1"))[-1] == "Mean"
    layout = Layout(str(tmp_path))
    metrics = {"nDCG@10": 0.25}
    part = {"per_query": {"nDCG@10": [0.0, 0.5]}}
    for column in spec.columns:
        path = Path(layout.scores(column.system.name, "beir-demo"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"tasks": {"wikipedia": {"metrics": metrics, "parts": {"wikipedia": part}}}}))
    found = columns(spec, layout)
    assert [column.values for column in found] == [[25.0]] * len(spec.columns)
    assert all(len(column.margins) == 1 for column in found)


def test_what_is_expected_is_said_with_its_reason():
    printed = {"A": {"F": 50.0, "G": 50.0, "Mean": 50.0}, "B": {"F": 50.0, "G": 50.0, "Mean": 50.0}}
    ours = [Column(label, [60.0, 50.0, 55.0], [1.0, 1.0, 0.5]) for label in "AB"]
    where = {"scale": "paper", "table": "t"}
    known = [Deviation(**where, row="F", reason="other queries"), Deviation(**where, column="A", reason="why")]
    lines = compare(ours, printed, deviations=known).set_index(["column", "row"])
    assert lines["verdict"].to_dict() == {
        ("A", "F"): "expected",
        ("A", "G"): "OK",  # what agrees needs no reason
        ("A", "Mean"): "expected",
        ("B", "F"): "expected",
        ("B", "G"): "OK",
        ("B", "Mean"): "FAIL",
    }
    assert lines["reason"].to_dict()["A", "F"] == "other queries; why"
    page = to_markdown(lines.reset_index())
    assert "OK 2, close 0, FAIL 1, not run 0, expected 3." in page
    assert "Expected: B (F): other queries." in page and "Expected: A (Mean): why." in page


def test_the_papers_deviations_are_of_its_tables(study):
    """Each stands at a printed value, and none is of a cell: for those nothing is known beforehand but BRIGHT's data."""
    for deviation in study.deviations:
        printed = read_printed(study.config.tables[deviation.table].printed)
        labels = list(printed) if deviation.column == "*" else [deviation.column]
        assert all(deviation.row in ("*", *printed[label]) for label in labels)
        assert deviation.table == "table7" or not any(label.startswith("Revela") for label in labels)


def test_other_seeds_widen_the_interval(study, tmp_path):
    """Three seeds of 50, 52 and 54: sd 2, Student's t of two degrees 4.303, a fourth within 4.303 * 2 * sqrt(4 / 3)."""
    study = with_results(study, tmp_path)
    spec = table_spec(study, "table14")
    [column] = [column for column in spec.columns if column.label == "Revela-1B"]
    assert column.seeds == [f"revela/mixed/llama-3.2-1b/llama-3.2-1b/bs16-seed{n}" for n in (1, 2)]
    tasks = list(spec.benchmarks["coir"].tasks)
    alone = write_scores(study.layout.scores(column.system.name, "coir"), dict.fromkeys(tasks, 0.50), queries=10_000)
    assert seed_margins(spec, column, study.layout) == ([0.0] * 11, 1)
    found = compare_table(spec, study.layout, partly=True).set_index(["column", "row"]).loc["Revela-1B"]
    assert found.loc["CosQA", "high"] - 50 == pytest.approx(0.98, abs=0.001)
    for seed, mean in zip(column.seeds, (0.52, 0.54), strict=True):
        write_scores(study.layout.scores(seed, "coir"), dict.fromkeys(tasks, mean), queries=10_000)
    margins, number = seed_margins(spec, column, study.layout)
    assert number == 3 and margins == pytest.approx([4.302653 * 2 * (4 / 3) ** 0.5] * 11)
    wider = compare_table(spec, study.layout, partly=True).set_index(["column", "row"]).loc["Revela-1B"]
    assert wider.loc["CosQA", "high"] - 50 == pytest.approx(math.hypot(margins[0], 0.98), abs=0.001)
    assert alone.exists() and wider.loc["CosQA", "ours"] == 50  # the table's own value stays


# --- services


def test_services_are_shown_as_measured_where_they_were_scored(study, tmp_path):
    """With a score file the values are ours and say so; no printed number reaches them, nor any other measured column."""
    spec, scored = table_spec(study, "table1"), with_results(study, tmp_path / "r").layout
    shutil.copytree(study.config.results, tmp_path / "r")
    tasks = list(spec.benchmarks["coir"].tasks)
    write_scores(
        scored.scores("ada-2", "coir"), {task: (place + 1) / 100 for place, task in enumerate(tasks)}, queries=100
    )
    found = {column.label: column for column in columns(spec, scored)}
    assert found["Ada-2"].values == pytest.approx([*range(1, 11), 5.5])
    assert found["Ada-2"].service and not found["Ada-2"].copied and not found["Ada-2"].errata
    assert found["Voyage-2"].copied and not found["Voyage-2"].service

    lines = compare_table(spec, scored).set_index("column")
    assert "not run" not in set(lines.loc["Ada-2", "verdict"]) and set(lines.loc["Voyage-2", "verdict"]) == {"not run"}
    output = {suffix: tmp_path / f"t.{suffix}" for suffix in ("md", "csv", "tex")}
    write_table(spec, scored, output)
    md, csv, tex = (output[suffix].read_text() for suffix in ("md", "csv", "tex"))
    assert "1.0ᵐ" in md and "ᵐ: measured here, by the service's API." in md and "ᵖ" in md
    assert "Ada-2 (measured)" in csv and "Voyage-2 (printed)" in csv and r"1.0\textsuperscript{m}" in tex
    assert lineage(lineage_spec(study, "table1"), scored)["columns"]["Ada-2"]["cells"]["SN"]["value"] == pytest.approx(
        4
    )

    # Every printed number is another one now; what was measured stays, to the last digit.
    printed = pd.read_csv(PAPER / "table01_coir.csv", index_col="Task")
    (printed * 0 + 77.7).to_csv(tmp_path / "table01_coir.csv")
    table = spec.table.model_copy(update={"printed": str(tmp_path / "table01_coir.csv")})
    other = {column.label: column for column in columns(spec.model_copy(update={"table": table}), scored)}
    for label, column in found.items():
        assert other[label] == column if not column.copied else other[label].values == [77.7] * 11, label


# --- lineage


def test_lineage_names_what_stands_behind_each_value(study, tmp_path):
    write_lineage(lineage_spec(study, "table1"), study.layout, tmp_path / "lineage.json")
    found = json.loads((tmp_path / "lineage.json").read_text())["columns"]
    assert list(found) == study.config.tables["table1"].columns

    cell = found["Revela-3B"]
    assert cell["system"] == "revela/code/llama-3.2-3b/llama-3.2-1b/bs8"
    model = cell["model"]
    assert (model["adapter_sha256"], model["config_sha256"], model["seed"]) == ("e" * 64, "c" * 64, 42)
    assert model["commits"] == ["a1b2c3"] and model["gpu_hours"] > 0 and model["data_sha256"] == "d" * 64
    assert model["usage"] is None  # of a cell whose attempts nobody counted
    assert set(model["data_revisions"]) == {"stackoverflow", "tutorials", "library-documentation"}
    value = cell["cells"]["CosQA"]
    assert (
        value["value"] == pytest.approx(29.0) and value["run_id"] == "run-of-cosqa" and value["scored_at"] == "a1b2c3"
    )
    assert value["score_file"].endswith("scores/revela/code/llama-3.2-3b/llama-3.2-1b/bs8/coir.json")
    assert value["data_revision"] == {"owner/coir-cosqa": "f" * 40}
    assert cell["cells"]["Mean"]["mean_of"] == list(cell["cells"])[:-1]

    assert found["BM25"]["model"] is None
    assert found["BGE-M3-0.6B"]["model"]["model_revision"] == {"owner/bge-m3": "f" * 40}
    assert found["Ada-2"]["cells"]["SN"] == {"value": 74.2, "copied_from": "config/paper/table01_coir.csv"}


def test_lineage_of_means_and_of_language_models(study):
    found = lineage(lineage_spec(study, "table2"), study.layout)["columns"]["Revela-wiki-1B"]["cells"]
    assert found["BEIR"]["mean_of"] == "table9" and found["AVG"]["mean_of"] == ["BEIR", "CoIR"]
    before, after = lineage(lineage_spec(study, "table18"), study.layout)["columns"].values()
    assert before["system"] == "untrained/llama-3.2-1b" and "model_revision" in before["model"]
    assert after["cells"]["WiC"]["dataset"] == "lm-super-glue" and after["cells"]["WiC"]["metric"] == "accuracy"


def test_lineage_names_the_cell_with_whose_weights_training_began(study, tmp_path):
    system, layout = study.system("revela/code+r1/llama-3.2-1b/llama-3.2-1b/bs16"), Layout(str(tmp_path))
    write_cell(layout, system.cell)
    write_resource(layout.model("llama-3.2-1b"))
    assert "start" not in model_lineage(system, {"code+r1": []}, layout)
    manifest, start = Path(layout.cell(system.cell), "manifest.json"), "revela/code/llama-3.2-1b/llama-3.2-1b/bs16"
    found = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(found | {"start": start, "inputs": found["inputs"] | {"start": "b" * 64}}))
    assert model_lineage(system, {"code+r1": []}, layout)["start"] == {"cell": start, "sha256": "b" * 64}


# --- what the configuration may say of tables and figures


@pytest.mark.parametrize(
    "values, message",
    [
        ({"columns": ["A"]}, "exactly one of benchmark, means_of"),
        ({"benchmark": "b", "means_of": {"X": "t"}, "columns": ["A"]}, "exactly one of benchmark, means_of"),
        ({"benchmark": "b"}, "exactly one of columns, groups"),
        ({"benchmark": "b", "groups": {"X": ["a"]}}, "groups: a mapping"),
    ],
)
def test_tables_that_say_too_little_or_too_much(values, message):
    with pytest.raises(ValueError, match=message):
        Table(caption="", **values)


def test_grey_columns_are_columns():
    with pytest.raises(ConfigError, match="did you mean 'BM25'"):
        Table(caption="", benchmark="b", columns=["BM25"], grey=["BM2"])


@pytest.mark.parametrize(
    "values, message",
    [
        ({"kind": "dynamics", "panels": {"X": "t"}}, "given cell"),
        ({"kind": "bars"}, "given panels"),
        ({"kind": "training", "cell": "c"}, "neither panels nor cell"),
    ],
)
def test_figures_of_another_kind(values, message):
    with pytest.raises(ValueError, match=message):
        Figure(caption="", **values)
