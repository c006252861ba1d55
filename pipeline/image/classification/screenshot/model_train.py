# /// script
# [tool.amlctl]
# datasets = ["working/image/classification/screenshot/64x64"]
# ///
"""Trains a small CNN that tells photographs of screens from photographs of the world.

    model_train.py --config baseline.json

Writes to the outputs folder after every epoch, so that a canceled run keeps its last whole one: model.pt (weights
and config), metrics.json, loss_curve.png, confusion_matrix.png. The score that counts is the accuracy on
photographs that training never saw, after the last epoch: picking the best epoch by it would flatter it.
"""

import argparse
import csv
import difflib
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

# Set before torch starts its threads: ones that spin while they wait starve each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

sys.path.append(str(Path(__file__).absolute().parents[3]))  # pipeline/, for a plain `python model_train.py`
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
    images: Tensor  # patch × RGB × height × width, uint8
    labels: Tensor  # patch, int64: index in LABELS
    photographs: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description="train the screen or world classifier")
    parser.add_argument("--config", required=True, metavar="FILE", help="as given, or in configs/ beside this script")
    config = read_config(find_config(parser.parse_args().config))
    outputs = outputs_dir()
    outputs.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, test = read_patches("train"), read_patches("test")
    print(f"{len(train.labels)} patches to train with, {len(test.labels)} held out", flush=True)

    model = build_model(config.channels).to(device)
    steps = config.epochs * -(-len(train.labels) // config.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=steps)
    print(f"{sum(p.numel() for p in model.parameters())} weights, on {device}", flush=True)

    history: list[dict[str, float]] = []
    for epoch in range(1, config.epochs + 1):
        started = time.monotonic()
        name = f"epoch {epoch:2}/{config.epochs}"
        train_loss, train_accuracy = train_epoch(model, optimizer, schedule, train, config, name)
        test_loss, predicted = evaluate(model, test)
        test_accuracy = (predicted == test.labels).float().mean().item()
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
            f"\r{name}  loss {train_loss:.3f}  accuracy {train_accuracy:.3f}  "
            f"held-out loss {test_loss:.3f}  accuracy {test_accuracy:.3f}  {history[-1]['seconds']:4.1f} s",
            flush=True,
        )
        save(outputs, model, config, history, test, predicted)

    print(f"held-out accuracy {test_accuracy:.3f} on {', '.join(sorted(set(test.photographs)))}\n{outputs}")


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
    images = np.stack([np.asarray(Image.open(folder / row["path"])) for row in rows])
    return Patches(
        images=torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        labels=torch.tensor([LABELS.index(row["label"]) for row in rows]),
        photographs=[row["photograph"] for row in rows],
    )


class LocalResidual(nn.Module):
    """What is left of an image without the mean of each pixel's surroundings.

    The grid of a display and its moiré lie in the finest detail; what the photograph shows mostly does not, and
    colors and brightness carry no information. Without them the model has less to learn by heart.
    """

    def forward(self, images: Tensor) -> Tensor:
        return images - nn.functional.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)


def build_model(channels: list[int]) -> nn.Sequential:
    """Fine detail, convolution blocks, the mean over the patch, one linear layer: logits of LABELS."""
    layers: list[nn.Module] = [LocalResidual(), nn.InstanceNorm2d(3)]
    for before, after in zip([3, *channels[:-1]], channels, strict=True):
        layers += [
            nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], len(LABELS)))


def batches(patches: Patches, order: Tensor, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Images as float32 in -1…1, and labels."""
    for chosen in order.split(size):
        images = patches.images[chosen].to(device, torch.float32) / 127.5 - 1
        yield images, patches.labels[chosen].to(device)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    patches: Patches,
    config: Config,
    name: str,
) -> tuple[float, float]:
    """Mean loss and accuracy over the epoch; shows a progress bar."""
    model.train()
    total, seen, loss_sum, right = len(patches.labels), 0, 0.0, 0
    device = next(model.parameters()).device
    for images, labels in batches(patches, torch.randperm(total), config.batch_size, device):
        top, left = torch.randint(PATCH - config.crop + 1, (2,)).tolist()
        images = images[:, :, top : top + config.crop, left : left + config.crop]
        for axis in (2, 3):  # a patch may stand on its head or be mirrored: it stays what it is
            if torch.rand(()) < 0.5:
                images = images.flip(axis)
        logits = model(images)
        loss = nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        seen += len(labels)
        loss_sum += loss.item() * len(labels)
        right += int((logits.argmax(dim=1) == labels).sum())
        bar = ("#" * (30 * seen // total)).ljust(30, "-")
        print(f"\r{name}  [{bar}] {100 * seen // total:3}%  loss {loss_sum / seen:.3f}", end="", flush=True)
    return loss_sum / total, right / total


@torch.no_grad()
def evaluate(model: nn.Module, patches: Patches) -> tuple[float, Tensor]:
    """Mean loss, and the predicted label of each patch."""
    model.eval()
    device = next(model.parameters()).device
    loss_sum, predicted = 0.0, []
    for images, labels in batches(patches, torch.arange(len(patches.labels)), 64, device):
        logits = model(images)
        loss_sum += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        predicted.append(logits.argmax(dim=1).cpu())
    return loss_sum / len(patches.labels), torch.cat(predicted)


def save(
    outputs: Path,
    model: nn.Module,
    config: Config,
    history: list[dict[str, float]],
    test: Patches,
    predicted: Tensor,
) -> None:
    pairs = torch.bincount(test.labels * len(LABELS) + predicted, minlength=len(LABELS) ** 2)
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
    weights = io.BytesIO()
    torch.save({"weights": model.state_dict(), "labels": LABELS, "config": asdict(config)}, weights)
    write_whole(outputs / "model.pt", weights.getvalue())
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
