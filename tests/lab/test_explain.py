"""``explain``: parts, sizes and shortcuts against numbers that are known, the folded drawing, and its pictures."""

import math

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn
from minires.errors import ConfigError
from minires.lab import diagram, explain


def batch(side=32, images=2, dtype=np.float32):
    rng = np.random.default_rng(0)
    return rng.standard_normal((images, 3, side, side)).astype(dtype), rng.integers(0, 10, images)


@pytest.mark.parametrize("name", ["resnet20", "preresnet20", "plain20", "preresnet164"])
def test_sizes(name):
    model = mr.models.create(name)
    found = explain.explain(model, batch(), gradients=False)
    assert found.parameters == sum(p.size for p in model.parameters())
    macs = 0

    def count(module, inputs, y):
        nonlocal macs
        if isinstance(module, nn.Conv2d | nn.Linear):
            macs += y.size // 2 * math.prod(module.weight.shape[1:])

    handles = [m.register_forward_hook(count) for m in model.modules()]
    with mr.no_grad():
        model(mr.tensor(batch()[0]))
    for handle in handles:
        handle.remove()
    assert found.macs == macs
    blocks = [p for p in found.parts if "Block" in p.kind or "Bottleneck" in p.kind]
    assert len(found.shortcuts) == (0 if name == "plain20" else len(blocks))
    assert all(part.gradient is None for part in found.parts)
    assert {row[-1] for row in diagram.rows(found)[1]} == {"no gradient yet"}


def test_resnet20_has_the_figures_of_the_paper():
    found = explain.explain(mr.models.resnet20(), batch())
    assert found.parameters == 269_722
    assert found.macs == 40_551_040
    assert [part.name for part in found.parts][:3] == ["conv1", "bn1", "layer1.0"]
    assert [part.shape for part in found.parts if part.name.endswith("2")] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    kinds = [s.kind for s in found.shortcuts]
    assert kinds == [*["identity"] * 3, "zero padding", *["identity"] * 2, "zero padding", *["identity"] * 2]
    assert [(s.first, s.last) for s in found.shortcuts] == [(i, i + 1) for i in range(1, 10)]
    assert [count for _, count in found.folded()] == [1, 1, 3, 1, 2, 1, 2, 1, 1]
    text = diagram.text(found).splitlines()
    assert text[0].strip() == "images"
    assert text[2].startswith("╭ bn1")
    assert text[3].startswith("├ layer1.0 ×3")
    assert text[7].startswith("├ layer3.1 ×2")


def test_gradients_are_those_of_the_tape():
    model, (images, labels) = mr.models.resnet8(option="B").double(), batch(8, 3, np.float64)
    found = explain.explain(model, (images, labels))
    outputs = {}
    modules = dict(model.named_modules())
    handles = [
        modules[name].register_forward_hook(lambda m, x, y, name=name: outputs.update({name: y}))
        for name in ("conv1", "layer1.0", "layer2.0", "fc")
    ]
    with mr.fusion(False):
        loss = F.cross_entropy(model(mr.tensor(images)), labels)
        for y in outputs.values():
            y.retain_grad()
        loss.backward()
    for handle in handles:
        handle.remove()
    for name, y in outputs.items():
        part = next(p for p in found.parts if p.name == name)
        assert math.isclose(part.gradient, np.linalg.norm(y.grad), rel_tol=1e-9)
    assert [s.kind for s in found.shortcuts] == ["identity", "projection", "projection"]
    assert all(s.gradient > 0 for s in found.shortcuts)


def test_shortcuts_that_cross():
    found = explain.explain(mr.models.crossing(num_classes=10), batch(35))
    names = [part.name for part in found.parts]
    assert [(names[s.first], names[s.last], s.kind) for s in found.shortcuts] == [
        ("bn1", "bn2", "projection"),
        ("maxpool", "bn3", "projection"),
    ]
    lines = diagram.text(found).splitlines()
    assert all(len(line.split(" ")[0]) <= 2 for line in lines)
    assert sum(line.count("╭") for line in lines) == sum(line.count("╰") for line in lines) == 2


class Own(nn.Module):
    def __init__(self):
        self.stem, self.body, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 10)

    def forward(self, x):
        x = self.stem(x)
        x = F.residual_add(self.body(x), x)
        return self.fc(F.flatten(F.global_avg_pool2d(x), 1))


class Bare(nn.Module):
    def __init__(self):
        self.weight = nn.Parameter(np.ones((3, 10), np.float32))

    def forward(self, x):
        return F.flatten(F.global_avg_pool2d(x), 1) @ self.weight


def test_a_module_that_is_called_twice():
    """Each call has a box of its own, and the parameters are counted once."""
    model = mr.models.crossing(num_classes=10)
    found = explain.explain(model, batch(35))
    shapes = [(part.title, part.shape) for part in found.parts if part.name == "maxpool"]
    _, v2, _, v4, _ = model.feature_maps(mr.tensor(batch(35)[0]))
    assert shapes == [("maxpool, call 1", v2.shape[1:]), ("maxpool, call 2", v4.shape[1:])]
    assert [part.title for part in found.parts if part.on_shortcut] == ["shortcut_a", "shortcut_b"]
    assert found.parameters == sum(p.size for p in model.parameters())
    titles = [part.title for part in found.parts]
    assert titles.index("bn2") < titles.index("maxpool, call 2") < titles.index("conv3")
    assert [(titles[s.first], titles[s.last]) for s in found.shortcuts] == [("bn1", "bn2"), ("maxpool, call 1", "bn3")]
    lines = diagram.text(found).splitlines()
    assert "╭│ maxpool, call 1  MaxPool2d 96×3×3" in lines
    assert any(line.endswith("shortcut: projection") for line in lines)
    assert any("call 1, call 2" in note for note in diagram.notes(found))


class Twice(nn.Module):
    """A convolution that is called twice in a row, and additions that are not marked."""

    def __init__(self):
        self.conv, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 10)

    def forward(self, x):
        y = self.conv(self.conv(x)) + x
        y = y + 1.0
        return self.fc(F.flatten(F.global_avg_pool2d(y), 1))


def test_calls_in_a_row_and_unmarked_additions():
    found = explain.explain(Twice(), batch(8))
    assert [(p.title, p.parameters, p.macs) for p in found.parts] == [
        ("conv, call 1", 84, 27 * 3 * 64),
        ("conv, call 2", 0, 27 * 3 * 64),
        ("fc", 40, 30),
    ]
    assert found.unmarked == 1
    assert found.shortcuts == []
    assert diagram.notes(found)[-1].startswith("1 addition of two tensors: not known as residual")
    assert explain.explain(Own(), batch(8)).unmarked == 0


def test_memory():
    """Of a convolution of 4 channels and so on, in float32, by the number of images."""
    for images in (1, 3):
        found = explain.explain(Own(), batch(8, images), gradients=False)
        assert [p.bytes for p in found.parts] == [4 * 4 * 64, 4 * 4 * 64, 4 * 10]
        assert found.bytes == images * (2 * 1024 + 40)
        column = [row[5] for row in diagram.rows(found)[1]]
        assert column == (["1.0 KiB", "1.0 KiB", "40 B"] if images == 1 else ["3.0 KiB", "3.0 KiB", "120 B"])
    assert diagram.memory_text(36 * 2**30) == "36 GiB"
    assert f"a step with {images} images" in diagram.notes(found)[1]


def test_names_of_a_range():
    names = [row[0] for row in diagram.rows(explain.explain(mr.models.preresnet20(), batch()))[1]]
    assert "stages.0.blocks.0 … 2" in names


def test_a_network_of_ones_own():
    found = explain.explain(Own(), batch(8))
    assert [part.name for part in found.parts] == ["stem", "body", "fc"]
    assert [(s.first, s.last, s.kind) for s in found.shortcuts] == [(0, 1, "identity")]
    with pytest.raises(ConfigError, match="Bare calls no module: there is nothing to draw"):
        explain.explain(Bare(), batch(8))


@pytest.mark.parametrize("name", ["picture.png", "picture.svg"])
def test_pictures(tmp_path, name):
    for gradients in (True, False):
        found = explain.explain(mr.models.preresnet8(), batch(8), gradients)
        diagram.draw(found).savefig(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5000
