"""Tables, figures and the comparison with the paper, on scores made by hand."""

import csv
import hashlib
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from revela.config import Figure, Table, load
from revela.paper import PaperError
from revela.paper.compare import compare, to_markdown, verdict, write_comparison
from revela.paper.figures import batch_size_figure, training_curves
from revela.paper.tables import best, make_columns, measured, read_errata, read_printed, write_table

ROOT = Path(__file__).parents[1]
PAPER = ROOT / "config/paper"
TASKS = {"first": "First", "second": "Second_2"}


def write_scores(path, values, metric="nDCG@10"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"tasks": {task: {"metrics": {metric: v}} for task, v in values.items()}}))
    return path


@pytest.fixture
def table(tmp_path):
    """A table of four columns: two measured and tied, a supervised one that is better, an API that is best."""
    scores = {
        "bm25": write_scores(tmp_path / "bm25.json", {"first": 0.20449, "second": 0.5}),
        "cell": write_scores(tmp_path / "cell.json", {"first": 0.20451, "second": 0.3}),
        "e5": write_scores(tmp_path / "e5.json", {"first": 0.1, "second": 0.50049}),
    }
    (tmp_path / "printed.csv").write_text(
        "Task,BM25,Revela-0.5B,E5-7B,Ada-2\nFirst,1,2,3,98\nSecond,1,2,3,99\nMean,1,2,3,97\n"
    )
    (tmp_path / "errata.csv").write_text(
        "table,column,row,printed,corrected,reason\ntable9,Ada-2,Mean,97,98.5,the mean of the column's rows\n"
    )
    spec = Table(
        benchmark="b",
        caption="A caption (100 %).",
        columns=["BM25", "Revela-0.5B", "E5-7B", "Ada-2"],
        grey=["E5-7B"],
        dagger=["E5-7B"],
        printed=str(tmp_path / "printed.csv"),
    )
    systems = {"BM25": "bm25", "Revela-0.5B": "cell", "E5-7B": "e5", "Ada-2": "ada"}
    return spec, systems, scores


@pytest.fixture
def written(table, tmp_path):
    spec, systems, scores = table
    output = {suffix: tmp_path / f"table9.{suffix}" for suffix in ("tex", "csv", "md")}
    write_table(spec, "table9", systems, ["ada"], scores, TASKS, output)
    return {suffix: path.read_text() for suffix, path in output.items()}


def test_values_and_means(table):
    spec, systems, scores = table
    columns = make_columns(spec, "table9", systems, ["ada"], scores, list(TASKS))
    assert [column.values for column in columns] == [
        pytest.approx([20.449, 50.0, 35.2245]),
        pytest.approx([20.451, 30.0, 25.2255]),
        pytest.approx([10.0, 50.049, 30.0245]),
        [98, 99, 97],  # the printed mean, though the rows give another
    ]
    assert [(column.name, column.size) for column in columns] == [
        ("BM25", "-"),
        ("Revela", "0.5B"),
        ("E5", "7B"),
        ("Ada-2", "-"),
    ]


def test_bold_is_the_best_that_was_measured_to_one_decimal(table):
    spec, systems, scores = table
    columns = make_columns(spec, "table9", systems, ["ada"], scores, list(TASKS))
    assert best(columns) == [{"Revela-0.5B"}, {"BM25", "E5-7B"}, {"BM25"}]


def test_latex(written):
    lines = [line.strip() for line in written["tex"].splitlines()]
    assert r"Dataset & BM25 & Revela & E5\textsuperscript{\dag} & Ada-2 \\" in lines
    assert r"Model Size & - & 0.5B & 7B & - \\" in lines
    assert r"First & 20.4 & \textbf{20.5} & \textcolor{gray}{10.0} & 98.0\textsuperscript{p} \\" in lines
    assert r"Second\_2 & \textbf{50.0} & 30.0 & \textcolor{gray}{\textbf{50.0}} & 99.0\textsuperscript{p} \\" in lines
    mean = r"Mean & \textbf{35.2} & 25.2 & \textcolor{gray}{30.0} & 97.0\textsuperscript{p} \\"
    assert lines[lines.index(mean) - 1] == r"\midrule" and lines[lines.index(mean) + 1] == r"\bottomrule"
    assert r"\caption{A caption (100 \%).}" in lines
    assert "copied from the paper, not measured" in written["tex"]
    assert "Ada-2 as printed is in error: Mean 97.0 should be 98.5" in written["tex"]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex (Debian: texlive-latex-base)")
def test_latex_compiles(written, tmp_path):
    packages = r"\usepackage{booktabs,graphicx,xcolor}"
    body = rf"\begin{{document}}{written['tex']}\end{{document}}"
    (tmp_path / "page.tex").write_text(rf"\documentclass{{article}}{packages}{body}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "Overfull" not in done.stdout


def test_markdown(written):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in written["md"].splitlines() if "|" in line]
    assert rows[0] == ["Task", "BM25", "Revela-0.5B", "E5-7B†", "Ada-2"]
    assert rows[2] == ["First", "20.4", "**20.5**", "_10.0_", "98.0ᵖ"]
    assert rows[4] == ["Mean", "**35.2**", "25.2", "_30.0_", "97.0ᵖ"]
    assert "ᵖ: copied from the paper, not measured." in written["md"]


def test_csv_reads_back(written):
    rows = list(csv.DictReader(io.StringIO(written["csv"])))
    assert list(rows[0]) == ["Task", "BM25", "Revela-0.5B", "E5-7B", "Ada-2 (printed)"]
    assert [row["BM25"] for row in rows] == ["20.45", "50.00", "35.22"]


def test_a_table_without_copies_says_nothing_of_them(table, tmp_path):
    spec, _systems, scores = table
    spec = spec.model_copy(update={"columns": ["BM25"], "grey": [], "dagger": []})
    write_table(spec, "table9", {"BM25": "bm25"}, [], scores, TASKS, {"md": tmp_path / "own.md"})
    assert "copied" not in (tmp_path / "own.md").read_text()


def test_a_missing_task_is_an_error(tmp_path):
    path = write_scores(tmp_path / "some.json", {"first": 0.5})
    with pytest.raises(PaperError, match=r"some.json: no nDCG@10 of task 'second'"):
        measured(path, list(TASKS))


def test_a_missing_metric_is_an_error(tmp_path):
    path = write_scores(tmp_path / "some.json", {"first": 0.5, "second": 0.5}, metric="MAP")
    with pytest.raises(PaperError, match="some.json"):
        measured(path, list(TASKS))


def test_a_missing_system_is_an_error(table):
    spec, systems, scores = table
    scores.pop("cell")
    with pytest.raises(PaperError, match=r"no score file of Revela-0.5B \(cell\)"):
        make_columns(spec, "table9", systems, ["ada"], scores, list(TASKS))


def test_an_api_without_printed_values_is_an_error(table):
    spec, _systems, scores = table
    with pytest.raises(PaperError, match="no printed values of Voyage"):
        make_columns(spec, "table9", {"Voyage": "ada"}, ["ada"], scores, list(TASKS))


def test_printed_values_must_be_of_the_same_tasks(table):
    spec, _systems, scores = table
    with pytest.raises(PaperError, match="3 rows, expected 1 tasks"):
        make_columns(spec, "table9", {"Ada-2": "ada"}, ["ada"], scores, ["first"])


# --- the paper's own numbers


def test_the_papers_means_follow_from_its_rows_but_for_the_known_ones():
    """A mean of values of one decimal may differ by 0.05 from that of the true values, and is rounded itself."""
    wrong = set()
    for path in PAPER.glob("table*.csv"):
        if path.read_text().startswith("Task,"):
            for label, values in read_printed(path).items():
                *rows, mean = values.values()
                assert list(values)[-1] == "Mean"
                if abs(sum(rows) / len(rows) - mean) > 0.1 + 1e-9:
                    wrong.add((f"table{int(path.stem[5:7])}", label))
    assert wrong == {("table1", "REPLUG-3B"), ("table1", "Ada-2"), ("table1", "Voyage-2")}
    assert wrong == {(e.table, e.column) for e in read_errata(PAPER / "errata.csv")}


def test_the_errata_mend_the_means():
    printed = read_printed(PAPER / "table01_coir.csv")
    for erratum in read_errata(PAPER / "errata.csv"):
        assert printed[erratum.column][erratum.row] == erratum.printed
        printed[erratum.column][erratum.row] = erratum.corrected
    for label in ("REPLUG-3B", "Ada-2", "Voyage-2"):
        *rows, mean = printed[label].values()
        assert sum(rows) / len(rows) == pytest.approx(mean, abs=0.05)


def test_tables_of_the_same_cells_agree():
    """Columns bs16 of tables 10 and 11, lm1B of 12 and 13, and tables 1 and 6 are the same runs."""

    def column(table, label):
        return list(read_printed(next(PAPER.glob(f"{table}_*.csv")))[label].values())

    for size in ("0.1B", "0.5B", "1B"):
        assert column("table10", f"Revela-{size}-bs16") == column("table01", f"Revela-{size}")
        assert column("table13", f"Revela-{size}-lm1B") == column("table01", f"Revela-{size}")
        assert column("table11", f"Revela-{size}-bs16") == column("table06", f"Revela-{size}")
        assert column("table12", f"Revela-{size}-lm1B") == column("table06", f"Revela-{size}")


def test_rows_stand_in_the_order_of_the_benchmarks(monkeypatch):
    monkeypatch.chdir(ROOT)
    study = load("config/config.yaml")
    for table in study.config.tables.values():
        labels = [task.label for task in study.benchmark_tasks(table.benchmark)]
        for values in read_printed(table.printed).values():
            assert list(values) == [*labels, "Mean"]


# --- comparison


@pytest.mark.parametrize(
    "ours, expected", [(50.0, "OK"), (51.0, "OK"), (51.1, "close"), (47.0, "close"), (46.9, "FAIL"), (None, "not run")]
)
def test_verdict(ours, expected):
    assert verdict(ours, 50.0) == expected


def test_comparison_uses_the_corrected_value(table, tmp_path):
    printed = read_printed(tmp_path / "printed.csv")
    lines = compare(
        {"Ada-2": [98, 99, 98.4], "BM25": [1.5, 3, 9]},
        printed,
        ["F", "S", "Mean"],
        read_errata(tmp_path / "errata.csv"),
    )
    verdicts = {(line.column, line.row): line.verdict for line in lines.itertuples()}
    assert verdicts[("Ada-2", "Mean")] == "OK"
    assert [verdicts[("BM25", row)] for row in ("F", "S", "Mean")] == ["OK", "close", "FAIL"]
    assert verdicts[("E5-7B", "F")] == "not run"
    page = to_markdown(lines)
    assert "OK 4, close 1, FAIL 1, not run 6." in page
    assert "98.4 (97.0 → 98.5) OK" in page


def test_comparison_of_a_table_leaves_copied_columns_out(table, written, tmp_path):
    output = {"csv": tmp_path / "c.csv", "md": tmp_path / "c.md"}
    write_comparison("table9", tmp_path / "table9.csv", tmp_path / "printed.csv", output)
    lines = list(csv.DictReader(output["csv"].open()))
    assert {line["verdict"] for line in lines if line["column"] == "Ada-2"} == {"not run"}
    assert next(line for line in lines if line["column"] == "BM25")["difference"] == "19.45"


# --- figures


@pytest.fixture
def figure(tmp_path):
    cell = "revela/code/a/b/bs{}"
    for batch_size, value in ((4, 0.2), (8, 0.3), (16, 0.5)):
        write_scores(tmp_path / cell.format(batch_size) / "b.json", {"first": value, "second": value})
    points = {size: cell.format(size) for size in (4, 8, 16)}
    return Figure(caption="", panels={"b": {"Revela": points}})


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_figure_of_batch_sizes_is_reproducible(figure, tmp_path):
    made = [[tmp_path / f"{n}.pdf", tmp_path / f"{n}.png"] for n in (1, 2)]
    for output in made:
        batch_size_figure(figure, tmp_path, {"b": list(TASKS)}, output)
    assert [sha256(path) for path in made[0]] == [sha256(path) for path in made[1]]


def test_figure_shows_the_means(figure, tmp_path, monkeypatch):
    drawn = {}
    plot = Axes.plot

    def record(self, x, y, **style):
        drawn[style["label"]] = (list(x), list(y))
        return plot(self, x, y, **style)

    monkeypatch.setattr(Axes, "plot", record)
    batch_size_figure(figure, tmp_path, {"b": list(TASKS)}, [tmp_path / "f.png"])
    assert drawn == {"Revela": ([4, 8, 16], pytest.approx([20, 30, 50]))}


def test_training_curves(tmp_path):
    cells = {}
    for path in ("revela/code/a/b/bs4", "revela/code/a/b/bs4-seed1", "contriever/code/a/none/bs4"):
        folder = tmp_path / path
        folder.mkdir(parents=True)
        (folder / "log.jsonl").write_text("".join(json.dumps({"step": s, "loss": 1 / s}) + "\n" for s in range(1, 50)))
        cells[path] = folder
    output = [tmp_path / "training.pdf", tmp_path / "training.png"]
    training_curves(cells, output)
    first = [sha256(path) for path in output]
    training_curves(cells, output)
    assert [sha256(path) for path in output] == first


def test_a_cell_without_a_log_is_an_error(tmp_path):
    with pytest.raises(PaperError, match=r"log.jsonl: not a training log"):
        training_curves({"revela/code/a/b/bs4": tmp_path}, [tmp_path / "training.png"])
