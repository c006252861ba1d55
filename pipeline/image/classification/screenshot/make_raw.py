# /// script
# [tool.amlctl]
# produces = ["raw/image/classification/screenshot"]
# ///
"""Makes the example's raw images: the same photographs taken from the world, and taken again from a screen.

The photographs are those that scikit-image and scikit-learn ship inside their packages; nothing is downloaded.
Every picture goes through one simulated camera (lens, color filter array, noise, exposure, JPEG), whichever
class it is of, with all settings drawn from the same distributions. What differs is only what the camera looks at:

  world/   the photograph itself
  screen/  a display that shows the photograph: pixels of three colored stripes with dark gaps between them, a
           raised black level, a tinted white, light that falls off to the side. Where the grid of the display
           meets the color filter array of the camera, moiré appears by itself, as it does in life.

File names are <photograph>-<shot>.jpg, so that the images can be split by photograph.
The same versions of the packages give the same images on every run.
"""

import math
import os
import sys
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

sys.path.append(str(Path(__file__).absolute().parents[3]))  # pipeline/, for a plain `python make_raw.py`
from file_paths import data_blobs_dir

# Where each photograph lies: package, path inside it.
PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "brick": ("skimage", "data/brick.png"),
    "camera": ("skimage", "data/camera.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "coins": ("skimage", "data/coins.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
}
CLASSES = ("world", "screen")
SHOTS = 3  # of each photograph and class
SIZE = 768  # pixels on each side of an image
OVERSAMPLING = 2  # rays per sensor pixel and axis
GAMMA = 2.2

Plane = Callable[[np.ndarray, np.ndarray], np.ndarray]


def main() -> None:
    started = time.monotonic()
    dataset = "raw/image/classification/screenshot"
    folder = data_blobs_dir() / dataset
    for label in CLASSES:
        (folder / label).mkdir(parents=True, exist_ok=True)
    shots = [(folder, label, name, shot) for label in CLASSES for name in PHOTOGRAPHS for shot in range(SHOTS)]
    size_bytes = 0
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for done, image_bytes in enumerate(pool.map(take, *zip(*shots, strict=True)), start=1):
            size_bytes += image_bytes
            print(f"\r{done}/{len(shots)} images", end="", flush=True)
    print(
        f"\r{len(shots)} images of {len(PHOTOGRAPHS)} photographs, {size_bytes / 1e6:.1f} MB, "
        f"in {time.monotonic() - started:.1f} s\ndata_blobs/{dataset}/"
    )


def take(folder: Path, label: str, name: str, shot: int) -> int:
    """Take one picture and write it; its size in bytes."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), CLASSES.index(label), shot])
    photograph = choose_crop(load_photograph(name), rng)
    zoom = rng.uniform(0.6, 0.72)  # the part of the crop's side that the camera sees; at 0.72 it sees no border
    x, y = aim(zoom, rng)
    plane = screen_plane(photograph, zoom, rng) if label == "screen" else world_plane(photograph, zoom)
    path = folder / label / f"{name}-{shot + 1}.jpg"
    Image.fromarray(develop(plane(x, y), rng)).save(path, quality=int(rng.integers(86, 96)))
    return path.stat().st_size


def load_photograph(name: str) -> Image.Image:
    package, path = PHOTOGRAPHS[name]
    with (files(package) / path).open("rb") as file:
        return Image.open(file).convert("RGB")


def choose_crop(photograph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A square of at least nine tenths of the shorter side, mirrored half of the time."""
    side = int(min(photograph.size) * rng.uniform(0.9, 1.0))
    left, top = (int(rng.integers(0, length - side + 1)) for length in photograph.size)
    crop = photograph.crop((left, top, left + side, top + side))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def linear_light(image: Image.Image) -> np.ndarray:
    """RGB × height × width, float32, proportional to light instead of gamma coded."""
    planes = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1), dtype=np.float32)
    return (planes / 255) ** GAMMA


def aim(zoom: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where each ray of the hand-held camera meets the plane before it; the plane spans -1…1 on both axes."""
    rays = SIZE * OVERSAMPLING
    along = ((np.arange(rays, dtype=np.float32) + 0.5) / rays) * 2 - 1
    x, y = along[None, :], along[:, None]
    angle = math.radians(rng.uniform(-8, 8))
    depth = 1 + rng.uniform(-0.06, 0.06) * x + rng.uniform(-0.06, 0.06) * y
    return (
        zoom * (math.cos(angle) * x - math.sin(angle) * y) / depth,
        zoom * (math.sin(angle) * x + math.cos(angle) * y) / depth,
    )


def world_plane(photograph: Image.Image, zoom: float) -> Plane:
    """The photograph itself, smooth between its pixels."""
    side = round(SIZE / zoom)
    light = linear_light(photograph.resize((side, side), Image.Resampling.LANCZOS))

    def look(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        where = np.stack([(y + 1) * (side / 2) - 0.5, (x + 1) * (side / 2) - 0.5])
        return np.stack([ndimage.map_coordinates(plane, where, order=1, mode="nearest") for plane in light])

    return look


def screen_plane(photograph: Image.Image, zoom: float, rng: np.random.Generator) -> Plane:
    """A display that shows the photograph: every pixel is three stripes of light on a dark matrix."""
    pitch = rng.uniform(1.4, 3.2)  # sensor pixels per pixel of the display
    side = round(SIZE / zoom / pitch)
    shown = linear_light(photograph.resize((side, side), Image.Resampling.LANCZOS)) ** rng.uniform(0.9, 1.15)
    black_level = rng.uniform(0.003, 0.02)
    white = (rng.uniform(0.85, 1.0), 1.0, rng.uniform(1.0, 1.2))
    sixths = (1, 3, 5) if rng.random() < 0.8 else (5, 3, 1)  # middle of the stripes; or mounted upside down
    soft = 1 / (pitch * OVERSAMPLING)  # the edge of a stripe is as wide as a ray: no jagged edges of our own
    fall_off_x, fall_off_y = rng.uniform(0.0, 0.35), rng.uniform(0.0, 0.35)
    viewer_x, viewer_y = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5)

    def look(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        column, row = (x + 1) * (side / 2), (y + 1) * (side / 2)
        whole_column, whole_row = column.astype(np.int32), row.astype(np.int32)
        pixel = np.clip(whole_row, 0, side - 1) * side + np.clip(whole_column, 0, side - 1)
        across, down = column - whole_column, row - whole_row
        lit = np.exp(-fall_off_x * (x - viewer_x) ** 2 - fall_off_y * (y - viewer_y) ** 2)
        lit *= np.clip((0.43 - np.abs(down - 0.5)) / soft + 0.5, 0, 1)
        channels = []
        for plane, brightness, sixth in zip(shown, white, sixths, strict=True):
            lit_across = np.clip((0.14 - np.abs(across - sixth / 6)) / soft + 0.5, 0, 1)
            light = (black_level + (1 - black_level) * plane) * brightness
            channels.append(light.take(pixel) * lit_across * lit)
        return np.stack(channels)

    return look


def develop(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The camera: rays of light (RGB × height × width) become a picture (height × width × RGB, uint8)."""
    blur = rng.uniform(0.45, 1.1) * OVERSAMPLING  # lens and focus
    light = ndimage.gaussian_filter(light, (0, blur, blur), truncate=3)
    light = sum(light[:, i::OVERSAMPLING, j::OVERSAMPLING] for i, j in np.ndindex(OVERSAMPLING, OVERSAMPLING))
    light *= vignette(rng.uniform(0.05, 0.3))
    light *= rng.uniform(0.88, 1.12, size=(3, 1, 1))  # white balance is never quite right
    light *= rng.uniform(0.16, 0.3) / float(light.mean())  # exposure: brightness tells nothing of the class
    electrons = rng.uniform(1500, 6000)  # of a white pixel; fewer are more noise
    deviation = np.sqrt(np.maximum(light, 0) / electrons + rng.uniform(1e-6, 1e-5))
    light += deviation * rng.standard_normal(light.shape, dtype=np.float32)
    picture = np.clip(demosaic(light), 0, 1) ** (1 / GAMMA)
    picture += rng.uniform(0.0, 0.8) * (picture - ndimage.gaussian_filter(picture, (0, 1.2, 1.2)))  # sharpened
    return np.uint8(np.clip(picture, 0, 1) * 255 + 0.5).transpose(1, 2, 0)


def vignette(strength: float) -> np.ndarray:
    along = np.linspace(-1, 1, SIZE, dtype=np.float32) ** 2
    return 1 - strength * (along[:, None] + along[None, :]) / 2


def demosaic(light: np.ndarray) -> np.ndarray:
    """What a sensor behind a Bayer filter (RGGB) measures, with the missing colors put in from the neighbors."""
    seen = np.zeros_like(light)
    for color, row, column in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)):
        seen[color, row::2, column::2] = light[color, row::2, column::2]
    every_fourth = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    every_second = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
    kernels = (every_fourth, every_second, every_fourth)
    return np.stack(
        [ndimage.convolve(plane, kernel, mode="mirror") for plane, kernel in zip(seen, kernels, strict=True)]
    )


if __name__ == "__main__":
    main()
