"""`fit`: train a network live, on a GPU or on two cores, and get back everything that happened.

    >>> run = fit(network, train, test, epochs=3)
    >>> run.accuracy
    >>> run.history             # a DataFrame: step, epoch, seconds, loss, accuracy, test_loss, test_accuracy, lr

`loop` holds `fit` and `evaluate`; `steps` what one step is made of; `session` what surrounds a training; `run` what it
gives back; `checks` what it refuses.
"""

from attnlib.train.loop import evaluate, fit
from attnlib.train.run import DivergedError, Run, Scores
from attnlib.train.steps import flip, shift

__all__ = ["DivergedError", "Run", "Scores", "evaluate", "fit", "flip", "shift"]
