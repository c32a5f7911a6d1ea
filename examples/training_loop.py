"""A whole training: ResNet-8 on 5000 built-in images, 3 epochs. `python examples/training_loop.py [EPOCHS [IMAGES]]`"""

import sys

import minires as mr
from minires import functional as F


def accuracy(model, loader):
    model.eval()  # batch norm: the running statistics, not the batch's
    with mr.no_grad():
        right = sum((model(mr.tensor(x)).numpy().argmax(1) == y).sum() for x, y in loader)
    model.train()
    return right / len(loader.dataset)


def main(epochs=3, images=5000):
    mr.manual_seed(0)
    train, test = mr.data.shapes(train=images, test=images // 5)  # drawn by minires; the whole set has 20,000
    train_loader = mr.data.Loader(train, batch_size=32, augment=mr.data.Augmentation(pad=0, flip=True), drop_last=True)
    test_loader = mr.data.Loader(test, batch_size=250, shuffle=False)

    model = mr.models.resnet8(num_classes=train.num_classes)
    optimizer = mr.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = mr.optim.OneCycleLR(optimizer, max_lr=0.2, total_steps=epochs * len(train_loader))

    for epoch in range(epochs):
        losses = []
        for x, y in train_loader:  # x: float32 (32, 3, 32, 32), normalised; y: int64 (32,)
            loss = F.cross_entropy(model(mr.tensor(x)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        loss, right = sum(losses) / len(losses), accuracy(model, test_loader)
        print(f"epoch {epoch + 1}: training loss {loss:.3f}, test accuracy {right:.1%}")


main(*map(int, sys.argv[1:]))
