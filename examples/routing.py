"""Which patches go to which expert: train a small M³ViT and keep its routing sheet.

    python examples/routing.py runs/routing_example docs/images/routing.png

Some minutes on two cores. The sheet of one validation image goes to the second path in 256 colours.
"""

import sys
from pathlib import Path

from PIL import Image

from mtl_vision.__main__ import main

CONFIG = Path(__file__).parents[1] / "configs" / "vision" / "m3vit_rooms.yaml"


def draw(folder: Path, out: Path, *, epochs: int = 8, samples: int = 96) -> None:
    """Train into a folder, and copy the last routing sheet as a small picture."""
    callbacks = [
        "{class_path: RoutingMonitor, init_args: {every_n_steps: 4}}",
        f"{{class_path: RoutingSheet, init_args: {{samples: 1, every_n_epochs: {epochs}}}}}",
    ]
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": str(folder), "name": "run"}}
    main(
        [
            "fit",
            f"-c={CONFIG}",
            f"--trainer.max_epochs={epochs}",
            f"--trainer.callbacks=[{', '.join(callbacks)}]",
            f"--trainer.logger={logger}",
            f"--trainer.default_root_dir={folder}",
            "--trainer.enable_progress_bar=false",
            f"--data.train_size={samples}",
        ]
    )
    sheet = max(folder.rglob("routing_last.png"), key=lambda path: path.stat().st_mtime)
    out.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(sheet) as picture:
        few = picture.convert("RGB").quantize(
            256, method=Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE
        )
        few.save(out, optimize=True)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
