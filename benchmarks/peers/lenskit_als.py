"""LensKit's BiasedMFScorer: explicit ALS on ratings whose biases were subtracted beforehand."""

from __future__ import annotations

import pandas as pd
from common import THREADS, arguments, load, measured, report
from lenskit.als import BiasedMFConfig, BiasedMFScorer
from lenskit.data import from_interactions_df
from lenskit.parallel.config import initialize
from lenskit.training import TrainingOptions

asked = arguments()
initialize(processes=1, threads=THREADS, backend_threads=1)
users, items, values = load(asked.folder)
dataset = from_interactions_df(pd.DataFrame({"user_id": users, "item_id": items, "rating": values}))
del users, items, values
scorer = BiasedMFScorer(BiasedMFConfig(embedding_size=asked.factors))
trainer = scorer.create_trainer(dataset, TrainingOptions(rng=0))


def iterate() -> None:
    """Both sides once."""
    trainer.train_epoch()


report("lenskit", measured(iterate))
