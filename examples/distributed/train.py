"""Trains the screen or world classifier with several processes, each on its share of the patches.

Azure ML and amlctl set RANK, WORLD_SIZE and MASTER_ADDR, which `init_process_group` reads. After every step the
processes have the same weights; rank 0 measures them on the held-out photographs, and writes model.pt and metrics.json.
"""

import argparse
import csv
import json
import os
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

LABELS = ("world", "screen")
BATCH_SIZE = 32  # of each process


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--outputs", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()

    has_gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if has_gpu else "gloo")
    rank, processes = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count()) if has_gpu else "cpu"
    print(f"rank {rank} of {processes} on {device}", flush=True)

    torch.manual_seed(7)
    images, labels = read_patches(given.data, "train")
    share = images[rank::processes], labels[rank::processes]
    model = DistributedDataParallel(build_model().to(device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.004)
    for epoch in range(1, given.epochs + 1):
        loss = train_epoch(model, optimizer, *share, device)
        if rank == 0:
            print(f"epoch {epoch}/{given.epochs}  loss {loss:.3f}", flush=True)
    if rank == 0:
        save(model.module, given, device)
    dist.barrier()
    dist.destroy_process_group()


def read_patches(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    images = np.stack([np.asarray(Image.open(folder / row["path"])) for row in rows])
    labels = torch.tensor([LABELS.index(row["label"]) for row in rows])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels


def build_model() -> nn.Sequential:
    layers: list[nn.Module] = [nn.InstanceNorm2d(3)]
    for before, after in ((3, 12), (12, 24), (24, 48)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, len(LABELS)))


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, device: torch.device | str
) -> float:
    """Mean loss of this process; all have the same number of steps, or the last ones would wait for ever."""
    model.train()
    losses = []
    steps = len(labels) // BATCH_SIZE
    for chosen in torch.randperm(len(labels))[: steps * BATCH_SIZE].split(BATCH_SIZE):
        logits = model(images[chosen].to(device, torch.float32) / 127.5 - 1)
        loss = nn.functional.cross_entropy(logits, labels[chosen].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses))


@torch.no_grad()
def save(model: nn.Module, given: argparse.Namespace, device: torch.device | str) -> None:
    model.eval()
    images, labels = read_patches(given.data, "test")
    batches = zip(images.split(64), labels.split(64), strict=True)
    right = sum(
        int((model(part.to(device, torch.float32) / 127.5 - 1).argmax(dim=1).cpu() == of).sum()) for part, of in batches
    )
    print(f"held-out accuracy {right / len(labels):.3f}", flush=True)
    given.outputs.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), given.outputs / "model.pt")
    (given.outputs / "metrics.json").write_text(json.dumps({"test_accuracy": right / len(labels)}, indent=2))


if __name__ == "__main__":
    main()
