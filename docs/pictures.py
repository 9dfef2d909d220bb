"""Takes the pictures of a report and of the terminal that the documents show.

    python -m docs.pictures [report|terminal]...

A run of a small classifier is trained and evaluated; Chromium takes the pictures of its report, and tmux shows the run
in a terminal. Both have to be installed.
"""

from __future__ import annotations

import io
import math
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageDraw, ImageFilter
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).resolve().parent
IMAGES = HERE / "images"
TDSL = [sys.executable, "-c", "import sys; from tdsl.compiler.cli import main; sys.exit(main())"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CLASSES = ("circle", "cross", "hexagon", "ring", "square", "triangle")
EACH, EDGE = 240, 32
# Of a terminal, in characters.
COLUMNS, ROWS = 80, 7
PROGRAM = """
data Shapes {
    source = image_folder("shapes", mode="L")
    split  = stratified(train=0.6, val=0.15, test=0.25, seed=0, by="label")
    field image: float[1, 32, 32] = column("image") / 255
    field label: int[]            = column("label")
    transform train image = [RandomCrop(32, padding=3)]
}

module Block(inputs: int, outputs: int) {
    conv = Conv2d(inputs, outputs, 3, padding=1, bias=false)
    norm = BatchNorm2d(outputs)
    forward(x: float[B, inputs, H, W]) -> float[B, outputs, H // 2, W // 2] {
        return x |> conv |> norm |> relu |> max_pool2d(2)
    }
}

module Classifier(classes: int, width: int = 12) {
    blocks = [Block(1, width), Block(width, 2 * width), Block(2 * width, 4 * width)]
    head   = Linear(4 * width, classes)
    forward(image: float[B, 1, H, W]) -> float[B, classes] {
        return image |> blocks |> adaptive_avg_pool2d(1) |> flatten(1) |> head
    }
}

train shapes {
    model = Classifier(classes=Shapes.num_classes)
    data  = Shapes
    loss(batch) { return cross_entropy(model(batch.image), batch.label) }
    optimizer  = AdamW(lr=8e-3, weight_decay=0.02)
    group "head" { lr = 1.6e-2 }
    scheduler  = LinearLR(total_iters=2) |> CosineAnnealingLR(T_max=10)
    epochs     = 12
    batch_size = 32
    logging { every = 3 }
    checkpoint { best = "val/accuracy" }
}

evaluate shapes {
    compare(batch) { return model(batch.image), batch.label }
    metrics = [
        Accuracy(), F1Score(average="macro"), AUROC(), ROC(), PrecisionRecallCurve(), ConfusionMatrix(),
        CalibrationError(),
    ]
}
"""


def draw_shapes(folder: Path) -> None:
    """A folder of noisy pictures for each class."""
    draws = random.Random(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(EACH):
            _shape(name, draws).save(folder / name / f"{number:03}.png")


def _shape(name: str, draws: random.Random) -> Image.Image:
    scale = 4
    picture = Image.new("L", (EDGE * scale, EDGE * scale), draws.randint(20, 90))
    radius, turn = draws.uniform(6, 11) * scale, draws.uniform(0, math.tau)
    x, y = (draws.uniform(11, EDGE - 11) * scale for _ in range(2))
    ink, pen = draws.randint(120, 210), ImageDraw.Draw(picture)
    if name in ("circle", "ring"):
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(box, ink) if name == "circle" else pen.ellipse(box, None, ink, int(3.2 * scale))
    elif name == "cross":
        for angle in (turn, turn + math.pi / 2):
            across, up = radius * math.cos(angle), radius * math.sin(angle)
            pen.line((x - across, y - up, x + across, y + up), ink, int(3.4 * scale))
    else:
        corners = {"triangle": 3, "square": 4, "hexagon": 6}[name]
        angles = [turn + math.tau * corner / corners for corner in range(corners)]
        pen.polygon([(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles], ink)
    small = picture.filter(ImageFilter.GaussianBlur(draws.uniform(1, 5))).resize((EDGE, EDGE))
    pixels = bytes(min(255, max(0, round(value + draws.gauss(0, 17)))) for value in small.tobytes())
    return Image.frombytes("L", (EDGE, EDGE), pixels)


# The report -----------------------------------------------------------------------------------------------------------


def report(folder: Path) -> None:
    """`report-light.png`, `report-dark.png`, `report-phone.png`."""
    subprocess.run(
        [*TDSL, "train", "shapes.model", "--set", "batch_size=24"], cwd=folder, env=_environment(), check=True
    )
    subprocess.run([*TDSL, "evaluate", "shapes.model"], cwd=folder, env=_environment(), check=True)
    page = folder / "runs" / "shapes" / "report.html"
    photograph(page, IMAGES / "report-light.png", 1120, 1500)
    photograph(page, IMAGES / "report-dark.png", 1120, 1500, dark=True)
    photograph(page, IMAGES / "report-phone.png", 390, 1500)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def photograph(page: Path, picture: Path, width: int, height: int, *, dark: bool = False) -> None:
    """The top of a page in a window of that size, with few enough colours for a small file."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    assert browser is not None, "no Chromium is installed"
    with TemporaryDirectory() as scratch:
        # A window can't be as narrow as a phone: a frame in it can.
        host = Path(scratch) / "host.html"
        frame = f'<iframe src="{page.as_uri()}" style="border:0;width:{width}px;height:{height}px"></iframe>'
        host.write_text(f'<!DOCTYPE html><body style="margin:0">{frame}', encoding="utf-8")
        shot = Path(scratch) / "shot.png"
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--user-data-dir={scratch}/profile"]
        options += [f"--window-size={max(width, 500)},{height}", f"--screenshot={shot}", host.as_uri()]
        subprocess.run([browser, *options], check=True, capture_output=True, timeout=120)
        with Image.open(shot) as image:
            kept = image.convert("RGB").crop((0, 0, width, height)).quantize(160, dither=Image.Dither.NONE)
            kept.save(picture, optimize=True)


# The terminal ---------------------------------------------------------------------------------------------------------


def terminal(folder: Path) -> None:
    """`terminal.svg`: what a terminal shows as a run is at two thirds of its way."""
    session = f"tdsl-pictures-{os.getpid()}"
    tmux = ["tmux", "-L", session]
    run = [*TDSL, "train", "shapes.model", "--set", "batch_size=24", "--out", "runs/terminal"]
    size = ["-x", str(COLUMNS), "-y", str(ROWS + 1)]
    environment = [f"-e{name}={_environment()[name]}" for name in ("PYTHONPATH", "OMP_NUM_THREADS", "PYTHONWARNINGS")]
    told = ["-P", "-F", "#{pane_pid}"]
    started = [*tmux, "new-session", "-d", *told, *size, *environment, *run]
    process = int(subprocess.run(started, cwd=folder, check=True, capture_output=True, text=True).stdout)
    try:
        shown = next(screen for screen in _screens(tmux) if _done(screen) >= 0.66)
    finally:
        subprocess.run([*tmux, "kill-server"], check=False, capture_output=True)
        _wait(process)
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    lines = [line for line in shown.splitlines() if line.strip()]
    first = next(at for at, line in enumerate(lines) if Text.from_ansi(line).plain.startswith("shapes "))
    console.print(Text.from_ansi("\n".join(lines[first:])))
    # Without the fonts that a picture of rich would fetch.
    format = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.S)
    console.save_svg(str(IMAGES / "terminal.svg"), title="tdsl train shapes.model", code_format=format)


def _wait(process: int) -> None:
    """Until a run has ended, which writes a checkpoint first when its terminal is closed."""
    with suppress(ProcessLookupError):
        for _ in range(600):
            os.kill(process, 0)
            time.sleep(0.1)


def _screens(tmux: Sequence[str]) -> Iterator[str]:
    for _ in range(2400):
        time.sleep(0.1)
        yield subprocess.run([*tmux, "capture-pane", "-e", "-p"], check=True, capture_output=True, text=True).stdout
    raise TimeoutError("the run has not come so far")


def _done(screen: str) -> float:
    """The share of the run that is done, as the screen says it."""
    words = [word for word in Text.from_ansi(screen).plain.split() if word.endswith("%") and word[:-1].isdigit()]
    return int(words[0][:-1]) / 100 if words else 0.0


def main(names: Sequence[str]) -> None:
    makers: dict[str, Callable[[Path], None]] = {"report": report, "terminal": terminal}
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "shapes.model").write_text(PROGRAM, encoding="utf-8")
        draw_shapes(folder / "shapes")
        for name in names or makers:
            makers[name](folder)


if __name__ == "__main__":
    main(sys.argv[1:])
