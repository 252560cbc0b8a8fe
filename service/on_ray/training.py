"""Trains many categories in parallel, each a task of Ray. Needs the extra `ray`."""

from collections.abc import Iterable, Iterator

import ray
from ray.exceptions import RayError

from model.lifecycle.many import CategoryTraining, TrainingResult, train_one
from service.on_ray.cluster import join


def train_on_ray(
    trainings: Iterable[CategoryTraining], address: str | None, cpus: float, gpus: float
) -> Iterator[TrainingResult]:
    """Makes as many at once as the cluster has room for; the first done comes first.

    A task whose machine is lost runs again elsewhere, and goes on from its checkpoint in the shared folder.

    Args:
        trainings: their folders are the same ones on every machine.
        address: of the cluster, see `service.on_ray.cluster.join`.
        cpus: cores for each.
        gpus: GPUs for each.
    """
    join(address)
    try:
        task = ray.remote(train_one)
        running = {
            task.options(num_cpus=cpus, num_gpus=gpus, max_retries=training.retries).remote(training): training
            for training in trainings
        }
        while running:
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            training = running.pop(done)
            try:
                yield ray.get(done)
            except RayError as error:
                reason = str(error).strip().splitlines()[-1]
                yield TrainingResult(training.category, "failed", 0.0, reason=f"{type(error).__name__}: {reason}")
    finally:
        ray.shutdown()
