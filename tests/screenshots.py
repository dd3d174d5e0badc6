"""`make screenshots`: the pictures of docs/REPORT.md, of the page that the reference runs give."""

import base64
import sys
import tempfile
from pathlib import Path
from typing import Any

from chromium import opened, why_no_browser
from commbench.page import write
from commbench.report import read_report

RESULTS = Path(__file__).parents[1] / "results"


def main(folder: Path) -> None:
    """Take them all."""
    reason = why_no_browser()
    if reason:
        sys.exit(f"no screenshots: {reason}")
    folder.mkdir(parents=True, exist_ok=True)
    runs = sorted((RESULTS / "reference").glob("*.h5"))
    collected = [RESULTS / "reproduce" / "legw-lstm.h5"]
    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / "report.html"
        write(read_report([*runs, *collected]), page, None, None)
        with opened(page, 1200, 900) as driver:
            take(driver, folder / "report-desktop.png", 0, 1500)
            driver.execute_script("document.getElementById('theme').click()")
            top = driver.execute_script("return document.getElementById('exchanges').offsetTop")
            take(driver, folder / "report-dark.png", top - 20, 1250)
        with opened(page, 390, 844, phone=True) as driver:
            take(driver, folder / "report-phone.png", 0, 1700)


def take(driver: Any, path: Path, top: int, height: int) -> None:
    """Save so many pixels from the top on, with few colours: a quarter of the bytes."""
    import io

    from PIL import Image

    width = driver.execute_script("return document.documentElement.clientWidth")
    # What sticks to the top of the window would lie in the middle of the picture.
    driver.execute_script(
        """const style = document.createElement("style");
        style.textContent = ".bar, .chips { position: static !important }";
        document.head.append(style)"""
    )
    area = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
    told = driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"clip": area, "captureBeyondViewport": True}
    )
    picture = Image.open(io.BytesIO(base64.b64decode(told["data"]))).convert("RGB")
    # Maximum coverage keeps the colours of a few pixels, such as a thin line's.
    few = picture.quantize(200, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
