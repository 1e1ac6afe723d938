"""The report in a real browser, and what a finished run must not hold: a secret."""

import shutil
import zipfile
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from checkout import SECRETS, Checkout

CONFIG = ("--configfile", "tests/small/config.yaml", "--profile", "workflow/profiles/local", "--cores", "1")
R = "results/small"


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory):
    """Folder of the unpacked report of a finished run."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(finished.folder, folder / "copy", symlinks=True)
    checkout = Checkout.at(folder / "copy")
    printed, status = checkout.snakemake("all", *CONFIG, "--report", f"{R}/report.zip")
    assert status == 0, printed
    with zipfile.ZipFile(checkout.folder / f"{R}/report.zip") as packed:
        packed.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_report_holds_tables_and_figures(report):
    names = {path.name for path in report.rglob("*")}
    assert {
        "report.html",
        "table1.tex",
        "table1.csv",
        "table1.html",
        "figure4.png",
        "training.png",
        "coir-small.html",
    } <= names


def test_the_report_shows_tables_and_figures(report, finished, tmp_path):
    """Categories, rows and captions as a reader clicks through them; the links lead to the files themselves."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here; Debian's package is chromium")
    page_file = next(report.rglob("report.html"))
    with Browser(tmp_path / "profile") as page:
        page.open(page_file.as_uri())
        for category in ("Figures", "Tables"):
            page.wait_for(category)
        page.click("Tables")
        page.wait_for("table1")
        links = page.run("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
        page.screenshot(tmp_path / "tables.png")
        shown = {Path(link).name: page_file.parent / link for link in links if link and link.startswith("data/")}
        assert {"table1.csv", "table1.tex"} <= shown.keys()  # pages open within the report's own
        page.open(next(report.rglob("table1.html")).as_uri())
        for row in (finished.folder / f"{R}/tables/table1.csv").read_text().splitlines():
            page.wait_for(row.partition(",")[0])
        page.screenshot(tmp_path / "table.png")
        page.open(page_file.as_uri())
        page.click("Figures")
        page.wait_for("figure4")
        page.screenshot(tmp_path / "figures.png")
        assert all(len((tmp_path / f"{name}.png").read_bytes()) > 10_000 for name in ("tables", "table", "figures"))


def test_a_secret_shows_nowhere(finished, report):
    """Tokens and keys stand in the environment of the whole run; no file that it wrote holds one."""
    places = [finished.folder / "results", finished.folder / ".snakemake", report]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert len(files) > 50
    for path in files:
        content = path.read_bytes()
        for name, secret in SECRETS.items():
            assert secret.encode() not in content, f"{path} holds {name}"
