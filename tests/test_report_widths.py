"""The report in windows of several widths, as Chromium lays it out."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tdsl.runtime import metrics, report
from tdsl.runtime.results import Results
from tests.test_metric_cases import drawn
from tests.test_report import completed

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CLASSES = ["circle", "cross", "hexagon", "ring", "square", "triangle"]
MEASURE = """<script>
const cut = [...document.querySelectorAll(".wide")].filter(each => each.scrollWidth > each.clientWidth)
document.title = `${document.querySelectorAll(".wide").length} tables, ${cut.length} cut, ${innerWidth} wide`
</script></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of an evaluation with a table of six classes beside their matrix."""
    results = Results([metrics.ConfusionMatrix("multiclass", num_classes=6)])
    results.add(*drawn(3000, 6))
    return report.page(tmp_path_factory.mktemp("run"), completed(results, class_names=CLASSES))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [1280, 1000, 960, 920, 700, 500])
def test_the_table_of_classes_is_never_cut(width: int, page: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page.replace("</body>", MEASURE))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},900"]
    command = [str(BROWSER), *options, f"--user-data-dir={tmp_path}/profile", "--dump-dom", f"{tmp_path}/page.html"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    title = re.search("<title>(.*?)</title>", shown)
    assert title is not None
    assert title[1] == f"1 tables, 0 cut, {width} wide"
