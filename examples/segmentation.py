"""Semantic segmentation: a ResNet as the backbone of a fully convolutional network, trained end to end on drawn shapes.

    python examples/segmentation.py [--epochs N] [--images N] [--output-stride 4|2|1] [--plot FILE]

"Fully Convolutional Networks for Semantic Segmentation", Long et al. 2015: a 1×1 convolution on each of the backbone's maps
scores the classes, and the coarse scores are made larger and added to the finer ones. Every pixel is classified.
"""

import argparse

import numpy as np

import minires as mr
from minires import functional as F
from minires import nn

CLASSES, SIZE = ("background", "disc", "square", "triangle"), 48


def draw(count, seed):
    """(images (N, 3, SIZE, SIZE) float32, masks (N, SIZE, SIZE) int64): two to four shapes, in colours that say nothing."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    images = rng.uniform(-1, 1, (count, 3, 1, 1)) + rng.normal(0, 0.15, (count, 3, SIZE, SIZE))
    masks = np.zeros((count, SIZE, SIZE), np.int64)
    for image, mask in zip(images, masks):
        for _ in range(rng.integers(2, 5)):
            kind, radius = rng.integers(1, 4), rng.uniform(6, 12)
            turn, (y, x) = rng.uniform(0, 2 * np.pi), rng.uniform(6, SIZE - 6, 2)
            u = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
            v = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
            inside = {
                "disc": u * u + v * v < radius**2,
                "square": np.maximum(abs(u), abs(v)) < 0.85 * radius,
                "triangle": np.maximum(abs(u) * np.sqrt(3) + v, -2 * v) < radius,
            }[CLASSES[kind]]
            mask[inside] = kind
            image[:, inside] = rng.uniform(-1.5, 1.5, (3, 1)) + rng.normal(0, 0.15, (3, inside.sum()))
    return images.astype(np.float32), masks


class FCN(nn.Module):
    """(N, 3, H, W) → scores of the classes for each pixel (N, K, H, W)."""

    def __init__(self, backbone, classes):
        self.backbone = backbone
        self.scores = nn.ModuleList(nn.Conv2d(feature.channels, classes, 1) for feature in backbone.feature_info)

    def forward(self, x):
        *finer, y = [score(features) for score, features in zip(self.scores, self.backbone(x))]
        for scores in reversed(finer):
            y = F.interpolate(y, scores.shape[2:], mode="bilinear") + scores
        return F.interpolate(y, x.shape[2:], mode="bilinear")


def predicted(model, images, batch=50):
    """The class of every pixel, (N, H, W)."""
    model.eval()
    with mr.no_grad():
        parts = [model(mr.tensor(images[i : i + batch])).numpy().argmax(1) for i in range(0, len(images), batch)]
    model.train()
    return np.concatenate(parts)


def mean_iou(found, masks):
    """The mean over the classes of (pixels in both) / (pixels in either)."""
    both = [((found == k) & (masks == k)).sum() for k in range(len(CLASSES))]
    either = [((found == k) | (masks == k)).sum() for k in range(len(CLASSES))]
    return np.divide(both, either).mean()


def plot(path, images, masks, found):
    """Images, masks and predictions of six test images."""
    from minires.figures import new_figure, save_figure

    figure = new_figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots(3, 6)
    for column in range(6):
        picture = (images[column].transpose(1, 2, 0) + 2.5) / 5
        for row, pixels in zip(axes, (picture.clip(0, 1), masks[column], found[column])):
            row[column].imshow(pixels, vmin=0, vmax=len(CLASSES) - 1, interpolation="nearest")
            row[column].set_axis_off()
    for row, title in zip(axes, ("images", "masks", "predicted")):
        row[0].set_title(title, loc="left")
    save_figure(figure, path)


def main(epochs, images, output_stride, plot_to):
    mr.manual_seed(0)
    (x, masks), (test_x, test_masks) = draw(images, seed=0), draw(150, seed=1)
    backbone = mr.models.create("resnet14", features_only=True, output_stride=output_stride)
    model, batch = FCN(backbone, len(CLASSES)), 16
    print("maps:", ", ".join(f"{f.name} {f.channels} channels at stride {f.stride}" for f in backbone.feature_info))
    print(f"mean IoU before: {mean_iou(predicted(model, test_x), test_masks):.3f}")

    optimizer = mr.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
    schedule = mr.optim.OneCycleLR(optimizer, max_lr=0.01, total_steps=epochs * (len(x) // batch))
    rng = np.random.default_rng(0)
    for epoch in range(epochs):
        losses, order = [], rng.permutation(len(x))
        for i in range(len(x) // batch):
            chosen = order[i * batch : (i + 1) * batch]
            scores = model(mr.tensor(x[chosen])).permute(0, 2, 3, 1)  # (N, H, W, K): a row of scores for each pixel
            loss = F.cross_entropy(scores.reshape(-1, len(CLASSES)), masks[chosen].reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}")
    found = predicted(model, test_x)
    print(f"mean IoU after: {mean_iou(found, test_masks):.3f}, {(found == test_masks).mean():.1%} of the pixels right")
    if plot_to:
        plot(plot_to, test_x, test_masks, found)


parser = argparse.ArgumentParser(description="Segmentation of drawn shapes by a fully convolutional network.")
parser.add_argument("--epochs", type=int, default=12)
parser.add_argument("--images", type=int, default=800, help="for training")
parser.add_argument("--output-stride", type=int, default=4, help="of the last map: 4, or 2 or 1 by dilation")
parser.add_argument("--plot", metavar="FILE", help="where to draw images, masks and predictions")
arguments = parser.parse_args()
main(arguments.epochs, arguments.images, arguments.output_stride, arguments.plot)
