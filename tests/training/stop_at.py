"""A callback that stops a training."""

from minires.training import Callback


class StopAt(Callback):
    """Stops after some step, counted from the beginning of the run, or in the evaluation of an epoch."""

    def __init__(self, step=None, epoch=None):
        self.at_step, self.in_epoch = step, epoch

    def on_step(self, trainer, mean):
        if trainer.step == self.at_step:
            trainer.stop()

    def on_evaluation(self, trainer, split, mean):
        if trainer.epoch + 1 == self.in_epoch:
            trainer.stop()
