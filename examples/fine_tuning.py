"""Fine-tuning: a network that was trained on other images learns two new classes from a hundred pictures of each.

ResNet-8 first learns the ten classes of the built-in images, none of which is a heart or a crescent. Then its classifier
is replaced by a new one for these two, which learns at ten times the rate of the rest; the first layers, whose features are
the most general, are frozen: no gradients are computed for them, and their batch norms keep the statistics that they have
(Yosinski et al. 2014, "How transferable are features in deep neural networks?"). A network with new weights gets the same
steps on the same pictures.

    python examples/fine_tuning.py

On the command line it would be, with a folder of pictures for each class:

    minires train --out first
    minires train --weights first --dataset folder --data-dir pictures --val 0.2 --num-classes 2 --freeze stem,layer1
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import minires as mr
from minires.training import Recipe, Trainer, build_trainer, freeze

SIDE = 32


class Pictures:
    """Hearts (0) and crescents (1) of any colour, size and orientation: pictures[i] is (uint8 (H, W, 3), label)."""

    classes = ("heart", "crescent")

    def __init__(self, seed, count):
        self.seed, self.count = seed, count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        rng, label = np.random.default_rng([self.seed, i]), i % 2
        x, y = (np.mgrid[:SIDE, :SIDE][::-1] + 0.5) / SIDE - rng.uniform(0.35, 0.65, (2, 1, 1))
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.32)
        x, y = (
            (np.cos(angle) * x + np.sin(angle) * y) / radius,
            (np.cos(angle) * y - np.sin(angle) * x) / radius,
        )
        heart = (1.3 * (x * x + y * y) - 1) ** 3 < 3 * x * x * y**3
        crescent = (x * x + y * y < 1) & ((x - 0.6) ** 2 + y * y > 0.8)
        colours = rng.uniform(0, 255, (2, 3))
        image = np.where((heart, crescent)[label][..., None], *colours) + rng.normal(0, 20, (SIDE, SIDE, 3))
        return image.clip(0, 255).astype(np.uint8), label


def train(model, train_images, test_images, epochs, lr, head=1.0):
    """The test accuracy after epochs of SGD, with the learning rate ``head * lr`` for the classifier."""
    trained = [p for p in model.parameters() if p.requires_grad]
    classifier = set(model.fc.parameters())
    groups = [
        {"params": [p for p in trained if p not in classifier], "lr": lr},
        {"params": [p for p in trained if p in classifier], "lr": head * lr},
    ]
    optimizer = mr.optim.SGD(groups, lr=lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    train_loader = mr.data.Loader(train_images, 32, augment=mr.data.Augmentation(pad=2))
    test_loader = mr.data.Loader(test_images, 100, shuffle=False)
    schedule = mr.optim.OneCycleLR(optimizer, [group["lr"] for group in groups], epochs * len(train_loader))
    trainer = Trainer(model, train_loader, test_loader, optimizer, schedule, epochs=epochs, eval_every=epochs)
    return trainer.fit(progress=False)[-1]["test_acc"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--steps", type=int, default=450, help="of 64 built-in images each, which are learnt from first"
    )
    parser.add_argument("--epochs", type=int, default=10, help="passes over the 200 pictures")
    options = parser.parse_args()

    trainer = build_trainer(Recipe.for_dataset("shapes", steps=options.steps))  # as `minires train` does
    first, accuracy = trainer.model, trainer.fit(progress=False)[-1]["test_acc"]
    print(f"first    {accuracy:.1%} of the built-in test images, of ten classes")

    train_images = mr.data.MapDataset(Pictures(seed=0, count=200))
    test_images = mr.data.MapDataset(Pictures(seed=1, count=1000), mean=train_images.mean, std=train_images.std)

    tuned = mr.models.resnet8(num_classes=2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "first.safetensors")
        mr.interop.save_safetensors(first, path)
        report = mr.interop.load_weights(tuned, path, replace_head=True)
    print(f"tuned    {len(report.matched)} arrays are those of the first network, {', '.join(report.kept)} are new")
    freeze(tuned, ["stem", "layer1"])
    accuracy = train(tuned, train_images, test_images, options.epochs, lr=0.02, head=10)
    print(f"tuned    {accuracy:.1%} of 1,000 hearts and crescents that it has not seen")

    scratch = mr.models.resnet8(num_classes=2)
    accuracy = train(scratch, train_images, test_images, options.epochs, lr=0.02)
    print(f"scratch  {accuracy:.1%} of them after the same steps with new weights")


if __name__ == "__main__":
    main()
