"""Draw the README's picture from a finished demo: originals above, what the 4-bit bundle draws below.

python tests/bench/readme_picture.py out/report/ort-mobile docs/pictures/demo.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw

COLUMNS, SCALE, GAP_PIXELS, LABEL_PIXELS = 8, 2, 6, 18


def main(report: Path, out: Path) -> int:
    """Put the first pictures of ``report`` side by side into ``out``."""
    rows = sorted(json.loads((report / "report.json").read_text())["pictures"], key=lambda row: row["index"])
    pairs = [
        tuple(Image.open(report / row[key]).convert("RGB") for key in ("original", "result"))
        for row in rows[:COLUMNS]
    ]
    side = pairs[0][0].width * SCALE
    width = COLUMNS * (side + GAP_PIXELS) - GAP_PIXELS
    sheet = Image.new("RGB", (width, 2 * (side + LABEL_PIXELS) + GAP_PIXELS), "white")
    pen = ImageDraw.Draw(sheet)
    for line, label in enumerate(("fp16 original", "4-bit bundle (ort-mobile)")):
        top = line * (side + LABEL_PIXELS + GAP_PIXELS)
        pen.text((0, top + 2), label, fill=(70, 70, 70))
        for column, pair in enumerate(pairs):
            picture = pair[line].resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(picture, (column * (side + GAP_PIXELS), top + LABEL_PIXELS))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
