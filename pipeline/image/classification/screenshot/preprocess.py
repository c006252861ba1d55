# /// script
# [tool.amlctl]
# datasets = ["raw/image/classification/screenshot"]
# produces = ["working/image/classification/screenshot/64x64"]
# ///
"""Cuts the raw images into 64×64 patches, in train/ and test/ by source photograph.

    raw/…/screenshot/{world,screen}/<photograph>-<shot>.jpg
    working/…/screenshot/64x64/{train,test}/{world,screen}/<photograph>-<shot>-<row>-<column>.png
    working/…/screenshot/64x64/index.csv        path, split, label, photograph of every patch

A photograph is in one split only, with all its shots of both classes: what a model has learned from a
photograph in training cannot help it with those of the test.
"""

import csv
import os
import random
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image

sys.path.append(str(Path(__file__).absolute().parents[3]))  # pipeline/, for a plain `python preprocess.py`
from file_paths import data_blobs_dir

LABELS = ("world", "screen")
# An animal, a building, a texture without color: three unlike things that training never sees.
TEST_PHOTOGRAPHS = frozenset({"chelsea", "china", "gravel"})
PATCH = 64  # pixels on each side
PATCHES_PER_IMAGE = 100  # of the 144 in an image of 768 pixels, drawn at random

SOURCE = "raw/image/classification/screenshot"
TARGET = f"working/image/classification/screenshot/{PATCH}x{PATCH}"

Row = tuple[str, str, str, str]


def main() -> None:
    started = time.monotonic()
    source, target = data_blobs_dir() / SOURCE, data_blobs_dir() / TARGET
    images = sorted(path for label in LABELS for path in (source / label).glob("*.jpg"))
    if not images:
        sys.exit(f"no images in data_blobs/{SOURCE}/{{{','.join(LABELS)}}}: run make_raw.py first")

    shutil.rmtree(target, ignore_errors=True)  # no patch of an earlier run may stay among the new ones
    for split in ("train", "test"):
        for label in LABELS:
            (target / split / label).mkdir(parents=True)

    rows: list[Row] = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for done, cut in enumerate(pool.map(cut_patches, images, [target] * len(images)), start=1):
            rows += cut
            print(f"\r{done}/{len(images)} images, {len(rows)} patches", end="", flush=True)
    with (target / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "split", "label", "photograph"))
        writer.writerows(rows)

    tested = sum(split == "test" for _, split, _, _ in rows)
    print(
        f"\r{len(images)} images cut into {len(rows)} patches of {PATCH}×{PATCH}: {len(rows) - tested} to train, "
        f"{tested} to test, in {time.monotonic() - started:.1f} s\ndata_blobs/{TARGET}/"
    )


def cut_patches(image_path: Path, target: Path) -> list[Row]:
    """Write the patches of one image and return their rows of the index."""
    label = image_path.parent.name
    photograph = image_path.stem.rpartition("-")[0]
    split = "test" if photograph in TEST_PHOTOGRAPHS else "train"
    image = Image.open(image_path).convert("RGB")
    corners = [
        (row, column)
        for row in range(0, image.height - PATCH + 1, PATCH)
        for column in range(0, image.width - PATCH + 1, PATCH)
    ]
    draw = random.Random(f"{label}/{image_path.name}")
    rows = []
    for row, column in sorted(draw.sample(corners, min(PATCHES_PER_IMAGE, len(corners)))):
        path = f"{split}/{label}/{image_path.stem}-{row:03}-{column:03}.png"
        image.crop((column, row, column + PATCH, row + PATCH)).save(target / path)
        rows.append((path, split, label, photograph))
    return rows


if __name__ == "__main__":
    main()
