"""What ``--help`` says of each command. The texts are no docstrings, which Python removes under ``-OO``."""

TRAIN = """\
Train a network, evaluate it after every epoch, and save curves and weights in a folder.

Settings that are not given come from the recipe of the dataset. All settings are saved in the run's `config.toml`.
Ctrl-C ends the step, saves everything and says how to resume. A run that was killed resumes from its last checkpoint
(one after each epoch and every five minutes). Either way it ends with the same bits as a run that never stopped.

`minires train` trains a small ResNet on the built-in images

`minires train --dataset cifar10 --data-dir ~/cifar --epochs 20`

`minires train --dataset folder --data-dir photos --val 0.1` trains on your own photographs: photos/ has a folder for each class

`minires train --model preresnet20 --schedule multi-step --milestones 0.5,0.75`

`minires train --recipe he2015 --dry-run` says how long that would take here, and how much memory

`minires train --val 2000` saves the best epoch too, in `best.safetensors`

`minires train --no-fusion --no-winograd` runs op by op, with direct convolutions

`minires train --dataset folder --data-dir photos --val 0.2 --weights runs/resnet8-shapes-1 --num-classes 2 --freeze
stem,layer1` fine-tunes another run's network: with a new classifier, which learns at ten times the rate of the rest, and all
but the first layers

`minires train --dataset cifar10 --model resnet20 --weights resnet20.th --normalize imagenet` goes on from a file of PyTorch's

`minires train --resume runs/resnet8-shapes-1` resumes after Ctrl-C, a crash or a full disk

`minires train --resume runs/resnet8-shapes-1 --more-epochs 5` trains longer, with the schedule of the longer run

`minires train --recipe he2015 --data-dir ~/cifar --model resnet56` trains as He et al. 2015 did, for hours

`minires train --recipe runs/resnet8-shapes-1/config.toml --seed 1` repeats a run with another seed
"""

SWEEP = """\
Train the combinations of some settings, each with several seeds, one after another; then a table: mean ± standard deviation.

A setting is named as in `config.toml`. When the same is said again, what is complete is left alone and what was stopped goes
on. A run that diverges is reported, and the others are trained. Settings are chosen on held-out images (`--set val=5000`),
never on the test set.

`minires sweep` trains the small network with the seeds 0, 1 and 2

`minires sweep --recipe he2015 --data-dir ~/cifar --set model=resnet20,resnet32 --seeds 0-4`

`minires sweep --dataset cifar10 --set lr=0.1,0.2,0.4 --set batch_size=128,256 --set val=5000 --out runs/lr`

`minires compare runs/lr` draws the curves of all its runs
"""

COMPARE = """\
The curves of several runs in one picture, and a table of them.

`minires compare runs/resnet20-cifar10-1 runs/resnet20-cifar10-2`

`minires compare runs/lr --plot lr.png` takes all the runs in a folder, such as those of `minires sweep`
"""

EVAL = """\
Test accuracy of a trained network, class by class, with the settings of fusion and Winograd that it was trained with.

Weights or a loss that are NaN or infinite are an error (exit code 2), as the accuracy would mean nothing.

`minires eval runs/resnet8-shapes-1`

`minires eval runs/resnet20-cifar10-1/best.safetensors` evaluates the checkpoint that was best on held-out images

`minires eval runs/resnet20-cifar10-1 --tta flip` averages the predictions of each image and its mirror image too

`minires eval runs/resnet20-cifar10-1 --data-dir ~/data` finds files that have moved

`minires eval --model resnet20 --weights resnet20.th --normalize imagenet --dataset cifar10 --json` evaluates weights that
PyTorch has trained, and prints JSON
"""

PREDICT = """\
The classes of photographs: of each image the five most probable, by a network of a run or of weights from elsewhere.

An image is resized, cropped in the middle and normalised as torchvision does it for evaluation; Exif's rotation is applied,
and only the first frame of an animation is seen. Files that are damaged, no images, or larger than 134 million pixels are
named at the end and skipped; the exit code is then 1.

`minires predict cat.jpg --model resnet50 --weights resnet50.pth` has ImageNet's normalisation and class names

`minires predict photos --run runs/resnet20-cifar10-1` looks at all images in a folder and below

`minires predict photos --model resnet20 --weights resnet20.th --normalize imagenet --classes names.txt --top 3`

`minires predict photos --run runs/resnet20-cifar10-1 --csv > classes.csv` writes a table; `--json` a line for each image
"""

EXPORT = """\
Write a trained network for other programs: an ONNX file, or its weights for PyTorch.

The end of the file's name tells the format. Weights, `.safetensors` or `.pth`, have the names of the `state_dict`, so that
PyTorch loads them with `strict=True`. An ONNX file takes any number of images; it is compared with ONNX Runtime before it is
written, and needs `pip install "minires[onnx]"`. A file that is there already is written over with `--force` only, and a
run's own checkpoints never are.

`minires export runs/resnet8-shapes-1 model.onnx`

`minires export runs/resnet8-shapes-1 model.onnx --with-normalization --softmax` takes pixels, and returns probabilities

`minires export runs/resnet8-shapes-1 resnet8.pth` for `torch.load("resnet8.pth", weights_only=True)`

`minires export --model resnet50 --weights resnet50.safetensors resnet50.onnx --dynamic-size` takes images of any size

`minires export runs/resnet8-shapes-1/best.safetensors model.onnx --keep-batch-norm` has all weights under their own names,
and `--weights model.onnx` reads them again
"""

REPLAY = """\
Repeat the step that gave a NaN or an Inf, and say where it came from. Exit code 1 when it comes again.

A run that ends so keeps that step's batch, the weights before it and the state of the random generator in
`anomaly.safetensors`. The data set is not needed, and nothing is written. The step is computed op by op, to name the
operation, and with Winograd's convolutions where the run had them.

`minires replay runs/resnet8-shapes-1` shows the operations that led to the first NaN or Inf

`minires replay runs/resnet8-shapes-1 --steps 100` shows more of them

`minires replay runs/resnet8-shapes-1 --backend reference` asks the readable kernels, to tell a mistake in the fast ones;
where they find all of it finite, it says what the fast ones find, and why the two differ

In Python: `minires.training.replay("runs/resnet8-shapes-1")` raises the error, for a debugger to look around.
"""

GRADCHECK = """\
Compare every gradient with finite differences, in float64. Exit code 1 when one is wrong.

`minires gradcheck` checks all operations.

`minires gradcheck conv2d batch_norm` checks two.

`minires gradcheck --model resnet8` checks a whole network, and finds its first wrong module.

`minires gradcheck tanh --plot steps.png` plots the error against the step size: it falls with the curvature's share,
and rises again where rounding takes over. (An operation that is linear in its inputs, such as conv2d, only has rounding.)

`minires gradcheck --model resnet8 --batch-size 8 --image-size 32 --no-winograd` checks the direct convolutions where
Winograd's would be used.

`minires gradcheck --backend reference --json` checks the readable kernels and prints JSON.
"""

DOCTOR = """\
Print what minires runs on, and test its kernels. Exit code 1 when a test fails.

The outputs and gradients of the fast kernels are compared with those of the readable ones, and one thread with several.

`minires doctor` is the first thing to run on a new machine, and its output belongs in a bug report

`NUMBA_NUM_THREADS=1 minires doctor` tells whether threads cause a problem
"""

WARMUP = """\
Compile the kernels that training a ResNet needs, and keep them on disk.

Training compiles kernels itself when it first needs them; after a warm-up it starts at full speed. ResNeXt and DenseNet compile
a few more of their own.

`minires warmup` is needed once, before the first training; it says when there is nothing left to do

`MINIRES_CACHE_DIR=/shared/minires minires warmup` keeps the kernels there; training with the same setting finds them.
Only kernels of root's are used by other users; yours are used by you alone
"""

DOWNLOAD = """\
Download a data set from its authors, about 170 MB, and check its md5 sum.

The archive is not unpacked. An archive that exists already is checked and kept. An interrupted download leaves nothing
that could be mistaken for the data set.

`minires data download cifar10` and then `minires train --dataset cifar10`

`minires data download cifar100 --data-dir ~/data`
"""

INFO = """\
List the data sets and where they are, or describe one: images, colours, classes.

`minires data info`

`minires data info cifar10 --data-dir ~/data`

`minires data info folder --data-dir photos` counts your own images, class by class
"""

VERIFY = """\
Check the files of a data set, one by one. Exit code 1 when something is wrong with them.

Sizes, labels, archives and pickles are always checked. Files with the official names must also have the official md5
sums or, if they are unpacked binary files, for which there are none, the official sizes.

`minires data verify cifar10`

`minires data verify cifar100 --data-dir ~/data/cifar-100-python --own`

`minires data verify folder --data-dir photos` reads all your own images, and names those that cannot be read, and those that
are training images and test images at once
"""

SHOW = """\
Draw images of a data set into a PNG, one row for each class.

`minires data show`

`minires data show cifar10 --test --images 12 --seed 3 --out test-images.png`

`minires data show folder --data-dir photos`
"""

CACHE_INFO = """\
Say where compiled kernels are kept, and whether they are all there, whole, and safe from other users.

Exit code 1 when a file is damaged or a folder is not trusted: minires does not use those, and compiles again.

`minires cache info`

`MINIRES_CACHE_DIR=/shared/minires minires cache info` looks at another folder
"""

CACHE_CLEAR = """\
Delete the compiled kernels of all versions of minires. Data sets and runs are kept.

Training compiles kernels again when it needs them.

`minires cache clear`

`minires cache clear --yes` does not ask
"""

EXPLAIN = """\
What a network is made of: a table by block (output, parameters, multiply-adds, values in memory, gradient) and a drawing with
every shortcut as an arc. Equal blocks in a row are folded.

`minires explain resnet20`

`minires explain preresnet20 --width 8 --plot preresnet20.svg` draws it, lines as wide as the gradient

`minires explain runs/resnet8-shapes-1` explains a trained network

In Python: `minires.lab.explain.explain(model, (images, labels))`.
"""

LAB_TRAIN = """\
Train the networks that several experiments look at, each by the data set's recipe for 10 epochs: about three hours.

Each is an ordinary run in a folder of its own, for `--run`. Networks that are complete are left alone, and those that were
stopped are gone on with: the same command again ends with what is missing.

`minires lab train` all of them, on CIFAR-10

`minires lab train resnet20 plain20 --data-dir ~/cifar` these two: about a quarter of an hour

`minires lab train resnet20 --dataset shapes --epochs 3` on the built-in images

`minires lab lesion --run runs/lab/resnet20 --plain runs/lab/plain20` then looks at them
"""

LAB_ALL = """\
Every experiment with its defaults: verdicts and times.

`minires lab all --quick` takes a first look at everything

`minires lab all --dataset cifar10 --out lab` keeps the results and pictures, each in a folder of its own
"""

LAB_CAM = """\
Where in photographs the evidence for a class is: heat maps, by Grad-CAM (Selvaraju et al. 2017).

The heat map of a class is the last feature map, its channels summed with the mean gradients of the class's score as weights;
what is negative is left out. It is drawn over the photograph as the network sees it, resized and cropped.

`minires lab cam cat.jpg --model resnet50 --weights resnet50.pth` for the three most probable classes

`minires lab cam photos --run runs/resnet20-cifar10-1 --top 1 --out photos.pdf` draws a row for each photograph of a folder

`minires lab cam cat.jpg --run runs/resnet20-cifar10-1 --target dog --target cat` compares two classes

`minires lab cam --run runs/resnet8-shapes-1 --index 0,5,7` looks at test images of the run's data set

`minires lab cam cat.jpg --run runs/resnet20-cifar10-1 --layer layer2` takes an earlier, finer feature map

In Python: `minires.lab.grad_cam`.
"""

LAB_FEATURES = """\
What a network's layers make of a photograph: the strongest channels of the stem and of every stage.

`minires lab features cat.jpg --model resnet50 --weights resnet50.pth`

`minires lab features --run runs/resnet8-shapes-1 --index 3 --channels 16` looks at a test image of the run's data set

`minires lab features cat.jpg --run runs/resnet20-cifar10-1 --layer conv1 --layer layer1.0` draws these two layers

In Python: `minires.lab.feature_maps`.
"""

LAB_FILTERS = """\
The filters of a network's first convolution: in colour if it takes three channels, otherwise a grey tile for each channel.

`minires lab filters --run runs/resnet8-shapes-1`

`minires lab filters --model resnet50 --weights resnet50.pth --out filters.svg`

In Python: `minires.lab.first_filters`.
"""
