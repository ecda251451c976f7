"""One-class detection on Fashion-MNIST: trained on one class, the other nine are what should score higher."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.quality.results import Gate, Outcome, Table, number
from benchmarks.quality.workers import Workers
from detector.arrays import F32, F64, U8
from detector.config.load import TrainingConfig
from detector.detection.framesignal import score_frames
from detector.errors import UserError
from detector.models.bundle.spec import TEXTBOOK_FRAMES, FrameSpec
from detector.models.training.building import fit
from detector.models.training.cameras import Cameras
from detector.models.training.idx import read_idx

DIRECTORY = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
QUICK = (0, 3, 6)
COMPONENTS = 32
SMALLEST_VARIANCE = 1e-6
TO_PASS, AIM = 92.0, 93.5
CPU_SECONDS = 240.0
"""Two minutes on two cores."""


@dataclass(frozen=True, slots=True)
class Judged:
    """AUROC in % for one class: the product, the mean squared error of its autoencoder, and two linear baselines."""

    product: float
    plain: float
    pca: float
    pca_calibrated: float
    cpu_seconds: float


def auroc(normal: F64, anomalous: F64) -> float:
    """How often, in %, an anomalous score is above a normal one; a tie counts half."""
    below = np.searchsorted(np.sort(normal), anomalous, side="left").sum()
    up_to = np.searchsorted(np.sort(normal), anomalous, side="right").sum()
    return 100.0 * float(below + up_to) / 2 / (len(normal) * len(anomalous))


def require(directory: Path = DIRECTORY) -> None:
    """Raise UserError where the images are not installed."""
    if not _images(directory, "t10k").is_file():
        todo = "apt-get install dataset-fashion-mnist, or name the benchmarks to run without `images`"
        raise UserError("Fashion-MNIST is not here", where=str(directory), todo=todo)


def load(directory: Path, part: str) -> tuple[F32, U8]:
    """Images (n, 28, 28) in [0, 1] and labels (n,) of `train` or `t10k`. Raises UserError."""
    images = read_idx(_images(directory, part)).astype(np.float32) / np.float32(255)
    return images, read_idx(directory / f"{part}-labels-idx1-ubyte.gz", dimensions=1)


def _images(directory: Path, part: str) -> Path:
    return directory / f"{part}-images-idx3-ubyte.gz"


def judge(directory: Path, label: int, seed: int, textbook: bool = False) -> Judged:
    """Train on one class of the 60 000 and score all 10 000 test images; `textbook`: the autoencoder of that preset."""
    images, labels = load(directory, "train")
    normal = images[labels == label]
    test, test_labels = load(directory, "t10k")
    is_normal = test_labels == label
    began = time.process_time()
    settings = TrainingConfig(seed=seed)
    ours = FrameSpec(settings.image, settings.filters, settings.units, settings.activation, settings.scaler)
    spec = TEXTBOOK_FRAMES if textbook else ours
    material = Cameras({None: (np.zeros(len(normal), np.int64), normal)}, spec, open_after=(1, 1))
    scorer = material.scorer(fit(material, settings).runtime)
    cpu_seconds = time.process_time() - began
    squares = np.square(test - scorer.reconstruct(test[..., None])[..., 0]).reshape(len(test), -1).mean(axis=1)
    squared, calibrated = pca_scores(normal, test)

    def ranked(score: F64) -> float:
        return auroc(score[is_normal], score[~is_normal])

    return Judged(
        product=ranked(score_frames(scorer, test)),
        plain=ranked(squares.astype(np.float64)),
        pca=ranked(squared),
        pca_calibrated=ranked(calibrated),
        cpu_seconds=cpu_seconds,
    )


def pca_scores(normal: F32, test: F32) -> tuple[F64, F64]:
    """Reconstruction from 32 principal components: squared error, and each pixel's in units of its variance.

    The variance is that of the pixel's error on the training images.
    """
    x = normal.reshape(len(normal), -1).astype(np.float64)
    middle = x.mean(axis=0)
    _, vectors = np.linalg.eigh((x - middle).T @ (x - middle))
    provenance = vectors[:, ::-1][:, :COMPONENTS]

    def errors(images: F32) -> F64:
        centred = images.reshape(len(images), -1) - middle
        rest: F64 = (centred - centred @ provenance @ provenance.T) ** 2
        return rest

    tested = errors(test)
    usual = np.maximum(errors(normal).mean(axis=0), SMALLEST_VARIANCE)
    return tested.sum(axis=1), (tested / usual).sum(axis=1)


def outcome(
    workers: Workers,
    *,
    seed: int,
    limit: int | None,
    quick: bool,
    textbook: bool = False,
    directory: Path = DIRECTORY,
) -> Outcome:
    """AUROC by class and its mean, beside the baselines. The preset `textbook` is there to compare with: no gates."""
    chosen = list(QUICK if quick else range(len(CLASSES)))[:limit]
    results = workers.run("images", judge, [(directory, label, seed, textbook) for label in chosen])
    columns = ("product", "plain", "pca", "pca_calibrated", "cpu_seconds")
    means = {name: statistics.mean(getattr(r, name) for r in results) for name in columns}
    rows = [
        (CLASSES[label], *(number(getattr(result, name), 1) for name in columns))
        for label, result in zip(chosen, results, strict=True)
    ]
    out = Outcome("images")
    head = ("trained on", "detector", "squared error", "PCA 32", "PCA 32 / variance", "CPU s of training")
    title = "Images: one-class AUROC in % on the 10 000 test images of Fashion-MNIST" + ", preset textbook" * textbook
    out.tables.append(Table(title, head, [*rows, ("mean", *(number(means[name], 1) for name in columns))]))
    out.numbers = {
        "mean": means,
        "classes": {
            CLASSES[label]: {name: getattr(result, name) for name in columns}
            for label, result in zip(chosen, results, strict=True)
        },
    }
    if textbook:
        return out
    complete = len(chosen) == len(CLASSES)
    out.gates = [
        Gate.at_least("images: mean AUROC of ten classes", means["product"] if complete else None, TO_PASS, AIM),
        Gate.at_least("images: ahead of PCA 32 / variance", means["product"] - means["pca_calibrated"], 0.0, 1.5),
        Gate.at_most(
            "images: CPU seconds of training a class", max(r.cpu_seconds for r in results), CPU_SECONDS, CPU_SECONDS / 2
        ),
    ]
    return out
