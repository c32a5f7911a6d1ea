"""What is measured: networks with their batches, and convolutions."""

from dataclasses import dataclass

MINIRES, NUMPY, JAX = "minires", "NumPy im2col", "JAX"
ONNX, OPENVINO, NCNN = "ONNX Runtime", "OpenVINO", "ncnn"
NCHW, LAST, COMPILE = "PyTorch NCHW", "PyTorch channels_last", "PyTorch compile"
COMPILE_LAST, FROZEN = "PyTorch compile channels_last", "PyTorch compile frozen"
NEW, OLD = "new", "old"  # this checkout of minires and the one it is compared with
ONE_THREAD = f"{MINIRES}, 1 thread"
ALONE, ALL_THREADS, FIRST, SECOND = "one alone", "one alone, all threads", "first of two", "second of two"  # trainings
TORCH = (NCHW, LAST, COMPILE)
SLOW = (NUMPY,)  # one step a turn is enough of these
TRAIN_PEERS = (MINIRES, *TORCH, COMPILE_LAST, NUMPY, JAX)
INFERENCE_PEERS = (MINIRES, *TORCH, FROZEN, ONNX, OPENVINO, NCNN)


@dataclass(frozen=True)
class Case:
    """A network and its batch."""

    model: str
    batch: int
    peers: tuple = TORCH

    @property
    def imagenet(self):
        return self.model in ("resnet18", "resnet34", "resnet50")

    @property
    def size(self):
        return 224 if self.imagenet else 32

    @property
    def classes(self):
        return 1000 if self.imagenet else 10

    def __str__(self):
        return f"{self.model}, batch {self.batch}"

    @classmethod
    def parse(cls, text, peers):
        """``resnet20:128`` → Case. Raises ValueError."""
        model, _, batch = text.partition(":")
        if batch and (not batch.isdecimal() or int(batch) < 1):
            raise ValueError(f"a batch has at least one image, not {batch}")
        return cls(model, int(batch or 128), tuple(peers))


_modes = (*TORCH, COMPILE_LAST)
TRAIN = (
    Case("resnet20", 128, (*_modes, NUMPY, JAX)),
    Case("resnet56", 128, (*TORCH, NUMPY)),
    Case("preresnet110", 128, (*TORCH, NUMPY)),
    Case("resnet20", 32, (*_modes, NUMPY)),
    Case("resnet20", 512, (*TORCH, NUMPY)),
    Case("resnet18", 8, (*_modes, NUMPY)),
    Case("resnet50", 4, (*_modes, NUMPY)),
    Case("resnext29_8x64d", 64, _modes),
    Case("densenet_bc100_12", 64, _modes),
)
_engines = (*TORCH, FROZEN, ONNX, OPENVINO)
INFERENCE = tuple(Case(case.model, case.batch, _engines) for case in TRAIN)
LATENCY = tuple(Case(model, 1, (*_engines, NCNN)) for model in ("resnet20", "resnet18"))
RESNET20 = (Case("resnet20", 128, _modes),)
SCALING = (Case("resnet20", 128, TORCH),)
AGAINST = tuple(
    Case(model, batch, ())
    for model, batch in (("resnet20", 128), ("resnet20", 32), ("resnet56", 128), ("preresnet110", 128), ("resnet18", 8))
)


@dataclass(frozen=True)
class Conv:
    """A convolution of square images: padding keeps the size but for the stride."""

    batch: int
    size: int
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    stem: bool = False  # nobody asks for the gradient of the images

    @property
    def padding(self):
        return self.kernel // 2

    @property
    def out_size(self):
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def flops(self):
        """Nominal: a multiplication and an addition a tap, those on padding included. The same for all three uses."""
        return 2 * self.batch * self.out_size**2 * self.outputs * self.inputs * self.kernel**2

    @property
    def bytes(self):
        """float32, each of the three arrays moved once: what memory has to carry at the least.

        A 1×1 kernel with stride 2 touches every fourth pixel alone.
        """
        touched = min(self.size, self.out_size * self.kernel) ** 2
        images = touched * self.inputs + self.out_size**2 * self.outputs
        return 4 * (self.batch * images + self.kernel**2 * self.inputs * self.outputs)

    @property
    def uses(self):
        return tuple(use for use in USES if not (self.stem and use == "input gradient"))

    def __str__(self):
        text = f"{self.kernel}×{self.kernel}, {self.inputs} → {self.outputs}, {self.size}×{self.size}"
        return text + (f", stride {self.stride}" if self.stride > 1 else "") + f", batch {self.batch}"


USES = ("forward", "input gradient", "weight gradient")
CONVS = (
    Conv(128, 32, 3, 16, stem=True),
    Conv(128, 32, 16, 16),
    Conv(128, 32, 16, 32, stride=2),
    Conv(128, 16, 32, 32),
    Conv(128, 16, 32, 64, stride=2),
    Conv(128, 8, 64, 64),
    Conv(128, 32, 16, 32, 1, 2),
    Conv(128, 16, 32, 64, 1, 2),
    Conv(8, 224, 3, 64, 7, 2, stem=True),
    Conv(8, 56, 64, 64),
    Conv(8, 28, 128, 128),
    Conv(8, 14, 256, 256),
    Conv(8, 7, 512, 512),
    Conv(8, 56, 64, 128, 1, 2),
    Conv(8, 56, 256, 64, 1),
    Conv(8, 56, 64, 256, 1),
)
