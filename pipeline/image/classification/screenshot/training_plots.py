"""The pictures of a training: PNG bytes."""

import io
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

TRAIN, TEST, GREY = "#5b8db8", "#d1603d", "#6b6b6b"


def loss_curve_png(history: Sequence[dict[str, float]], epochs: int) -> bytes:
    """Loss and accuracy over the epochs; the axis is as long as the whole training from the start."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    numbers = [entry["epoch"] for entry in history]
    for axes, what in ((left, "loss"), (right, "accuracy")):
        for part, name, color in (("train", "training", TRAIN), ("test", "held-out photographs", TEST)):
            values = [entry[f"{part}_{what}"] for entry in history]
            axes.plot(numbers, values, color=color, marker="o", markersize=3.5, linewidth=1.8, label=name)
        axes.set_title(what.capitalize(), loc="left", fontsize=11, fontweight="bold")
        axes.set_xlabel("epoch", color=GREY)
        axes.set_xlim(0.5, epochs + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(colors=GREY)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#b0b0b0")
    left.set_ylim(bottom=0)
    right.set_ylim(top=1.005)
    right.annotate(
        f"{history[-1]['test_accuracy']:.1%}",
        (numbers[-1], history[-1]["test_accuracy"]),
        xytext=(0, 8),
        textcoords="offset points",
        ha="center",
        color=TEST,
        fontweight="bold",
    )
    left.legend(frameon=False)
    return png(figure)


def confusion_matrix_png(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> bytes:
    """One row for what a patch is, one column for what the model says: count and share of the row."""
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    shares = [[count / max(sum(row), 1) for count in row] for row in confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, counts in enumerate(confusion):
        for column, count in enumerate(counts):
            share = shares[row][column]
            color = "white" if share > 0.5 else "#222222"
            axes.text(column, row - 0.06, f"{share:.1%}", ha="center", color=color, fontsize=17)
            axes.text(column, row + 0.14, f"{count} patches", ha="center", color=color, fontsize=9)
    accuracy = sum(confusion[i][i] for i in range(len(labels))) / max(sum(map(sum, confusion)), 1)
    axes.set_title(f"Held-out photographs: {accuracy:.1%} right", fontsize=11, fontweight="bold")
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels, rotation=90, va="center")
    axes.set_xlabel("the model says", color=GREY)
    axes.set_ylabel("it is", color=GREY)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return png(figure)


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
