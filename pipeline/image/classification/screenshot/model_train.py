# /// script
# [tool.amlctl]
# datasets = ["working/image/classification/screenshot/64x64"]
# ///
"""Trains a small CNN that tells photographs of screens from photographs of the world.

    model_train.py --config baseline.json

Writes to the outputs folder after every epoch, so that a canceled run keeps its last whole one: model.npz (weights
and config), metrics.json, loss_curve.png, confusion_matrix.png. The score that counts is the accuracy on
photographs that training never saw, after the last epoch: picking the best epoch by it would flatter it.
"""

import argparse
import csv
import difflib
import io
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import jax
import numpy as np
import optax
from PIL import Image

sys.path.append(str(Path(__file__).absolute().parents[3]))  # pipeline/, for a plain `python model_train.py`
import cnn
from file_paths import outputs_dir, working_dir
from training_plots import confusion_matrix_png, loss_curve_png

LABELS = ("world", "screen")
PATCH = 64  # pixels on each side


@dataclass(frozen=True)
class Config:
    epochs: int
    batch_size: int
    learning_rate: float  # the highest of the one-cycle schedule
    weight_decay: float
    crop: int  # pixels on each side of the part of a patch that one training step sees; 64 is the whole patch
    channels: list[int]  # of each convolution block; every block halves the sides
    seed: int


@dataclass(frozen=True)
class Patches:
    images: np.ndarray  # patch × height × width × RGB, uint8
    labels: np.ndarray  # patch: index in LABELS
    photographs: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description="train the screen or world classifier")
    parser.add_argument("--config", required=True, metavar="FILE", help="as given, or in configs/ beside this script")
    config = read_config(find_config(parser.parse_args().config))
    outputs = outputs_dir()
    outputs.mkdir(parents=True, exist_ok=True)

    rng = np.random.default_rng(config.seed)
    train, test = read_patches("train"), read_patches("test")
    print(f"{len(train.labels)} patches to train with, {len(test.labels)} held out", flush=True)

    model = cnn.build(config.channels, len(LABELS), rng)
    steps = config.epochs * -(-len(train.labels) // config.batch_size)
    rate = optax.cosine_onecycle_schedule(steps, config.learning_rate)
    optimizer = optax.adamw(rate, weight_decay=config.weight_decay)
    progress = optimizer.init(model.weights)
    print(f"{cnn.size(model)} weights, on {jax.default_backend()}", flush=True)

    history: list[dict[str, float]] = []
    for epoch in range(1, config.epochs + 1):
        started = time.monotonic()
        name = f"epoch {epoch:2}/{config.epochs}"
        model, progress, train_loss, train_accuracy = train_epoch(model, optimizer, progress, train, config, rng, name)
        test_loss, predicted = evaluate(model, test)
        test_accuracy = float(np.mean(predicted == test.labels))
        history.append(
            {
                "epoch": epoch,
                "train_loss": train_loss,
                "train_accuracy": train_accuracy,
                "test_loss": test_loss,
                "test_accuracy": test_accuracy,
                "seconds": time.monotonic() - started,
            }
        )
        print(
            f"\r{name}  loss {train_loss:.3f}, held out {test_loss:.3f}  "
            f"accuracy {train_accuracy:.3f}, held out {test_accuracy:.3f}  {history[-1]['seconds']:.1f} s",
            flush=True,
        )
        save(outputs, model, config, history, test, predicted)

    print(
        f"held-out accuracy {test_accuracy:.3f} on {', '.join(sorted(set(test.photographs)))}, saved in {outputs.name}/"
    )


def find_config(name: str) -> Path:
    beside = Path(__file__).absolute().parent / "configs" / name
    for path in (Path(name), beside):
        if path.is_file():
            return path
    raise SystemExit(f"no config {name}, and none at {beside}")


def read_config(path: Path) -> Config:
    """Exits with one clear sentence when the file is not what Config says."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SystemExit(f"{path} is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise SystemExit(f"{path}: a config is one JSON object")
    names = [field.name for field in fields(Config)]
    for key in given:
        if key not in names:
            nearest = difflib.get_close_matches(key, names, n=1) or names
            raise SystemExit(f"{path}: unknown key {key!r}; did you mean {' or '.join(nearest)}?")
    if missing := [name for name in names if name not in given]:
        raise SystemExit(f"{path}: missing {', '.join(missing)}")

    def is_count(value: object) -> bool:
        return type(value) is int and value > 0

    def is_rate(value: object) -> bool:
        return type(value) in (int, float) and value >= 0

    checks = {
        "epochs": (is_count(given["epochs"]), "a whole number above 0"),
        "batch_size": (is_count(given["batch_size"]), "a whole number above 0"),
        "learning_rate": (is_rate(given["learning_rate"]) and given["learning_rate"] > 0, "a number above 0"),
        "weight_decay": (is_rate(given["weight_decay"]), "a number from 0 up"),
        "crop": (is_count(given["crop"]) and given["crop"] <= PATCH, f"a whole number from 1 to {PATCH}"),
        "channels": (
            isinstance(given["channels"], list)
            and 1 <= len(given["channels"]) <= 6
            and all(map(is_count, given["channels"])),
            "a list of one to six whole numbers above 0",
        ),
        "seed": (type(given["seed"]) is int, "a whole number"),
    }
    for key, (is_good, wanted) in checks.items():
        if not is_good:
            raise SystemExit(f"{path}: {key} is {json.dumps(given[key])}, but has to be {wanted}")
    if given["crop"] < 2 ** len(given["channels"]):
        raise SystemExit(f"{path}: a crop of {given['crop']} pixels can't be halved {len(given['channels'])} times")
    return Config(**given)


def read_patches(split: str) -> Patches:
    folder = working_dir() / "image" / "classification" / "screenshot" / "64x64"
    if not (folder / "index.csv").is_file():
        raise SystemExit(f"no index.csv in {folder}: run preprocess.py first")
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    if not rows:
        raise SystemExit(f"{folder}/index.csv lists no patch of the split {split}")
    return Patches(
        images=np.stack([np.asarray(Image.open(folder / row["path"])) for row in rows]),
        labels=np.array([LABELS.index(row["label"]) for row in rows]),
        photographs=[row["photograph"] for row in rows],
    )


def batches(patches: Patches, order: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images as float32 in -1…1, and labels."""
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield patches.images[chosen].astype(np.float32) / 127.5 - 1, patches.labels[chosen]


def train_epoch(
    model: cnn.Model,
    optimizer: optax.GradientTransformation,
    progress: optax.OptState,
    patches: Patches,
    config: Config,
    rng: np.random.Generator,
    name: str,
) -> tuple[cnn.Model, optax.OptState, float, float]:
    """The model after an epoch, with its mean loss and accuracy; shows a progress bar."""
    total, seen, loss_sum, right = len(patches.labels), 0, 0.0, 0
    for images, labels in batches(patches, rng.permutation(total), config.batch_size):
        top, left = rng.integers(PATCH - config.crop + 1, size=2)
        images = images[:, top : top + config.crop, left : left + config.crop]
        for axis in (1, 2):  # a patch may stand on its head or be mirrored: it stays what it is
            if rng.random() < 0.5:
                images = np.flip(images, axis)
        model, progress, loss, logits = cnn.train_step(model, optimizer, progress, images, labels)
        seen += len(labels)
        loss_sum += float(loss) * len(labels)
        right += int(np.sum(np.argmax(logits, axis=1) == labels))
        bar = ("#" * (30 * seen // total)).ljust(30, "-")
        print(f"\r{name}  [{bar}] {100 * seen // total:3}%  loss {loss_sum / seen:.3f}", end="", flush=True)
    return model, progress, loss_sum / total, right / total


def evaluate(model: cnn.Model, patches: Patches) -> tuple[float, np.ndarray]:
    """Mean loss, and the predicted label of each patch."""
    loss_sum, predicted = 0.0, []
    for images, labels in batches(patches, np.arange(len(patches.labels)), 60):
        logits, loss = cnn.score(model, images, labels)
        loss_sum += float(loss) * len(labels)
        predicted.append(np.argmax(logits, axis=1))
    return loss_sum / len(patches.labels), np.concatenate(predicted)


def save(
    outputs: Path,
    model: cnn.Model,
    config: Config,
    history: list[dict[str, float]],
    test: Patches,
    predicted: np.ndarray,
) -> None:
    pairs = np.bincount(test.labels * len(LABELS) + predicted, minlength=len(LABELS) ** 2)
    confusion = pairs.reshape(len(LABELS), len(LABELS)).tolist()
    is_right = (predicted == test.labels).tolist()
    by_photograph = {
        name: float(np.mean([right for right, of in zip(is_right, test.photographs, strict=True) if of == name]))
        for name in sorted(set(test.photographs))
    }
    metrics = {
        "test_accuracy": history[-1]["test_accuracy"],
        "test_accuracy_by_photograph": by_photograph,
        "labels": LABELS,
        "confusion": confusion,  # row: what it is; column: what the model says
        "config": asdict(config),
        "history": history,
    }
    file = io.BytesIO()
    about = json.dumps({"labels": LABELS, "config": asdict(config)})
    np.savez(file, about=about, **cnn.named_arrays(model))
    write_whole(outputs / "model.npz", file.getvalue())
    write_whole(outputs / "metrics.json", json.dumps(metrics, indent=2).encode())
    write_whole(outputs / "loss_curve.png", loss_curve_png(history, config.epochs))
    write_whole(outputs / "confusion_matrix.png", confusion_matrix_png(confusion, LABELS))


def write_whole(path: Path, content: bytes) -> None:
    """The file is there with its old or its new content, whenever the run is canceled or its outputs are saved."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)


if __name__ == "__main__":
    main()
