"""Trains many categories in parallel, each a task of Ray. Needs the extra `ray`."""

from collections.abc import Iterable, Iterator

import ray
from ray.exceptions import RayError

from model.lifecycle.many import Made, Order, make
from service.on_ray.cluster import join


def make_on_ray(orders: Iterable[Order], address: str | None, cpus: float, gpus: float) -> Iterator[Made]:
    """Makes as many at once as the cluster has room for; the first done comes first.

    A task whose machine is lost runs again elsewhere, and goes on from its checkpoint in the shared folder.

    Args:
        orders: their folders are the same ones on every machine.
        address: of the cluster, see `service.on_ray.cluster.join`.
        cpus: cores for each.
        gpus: GPUs for each.
    """
    join(address)
    try:
        task = ray.remote(make)
        running = {
            task.options(num_cpus=cpus, num_gpus=gpus, max_retries=order.retries).remote(order): order
            for order in orders
        }
        while running:
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            order = running.pop(done)
            try:
                yield ray.get(done)
            except RayError as error:
                reason = str(error).strip().splitlines()[-1]
                yield Made(order.category, "failed", 0.0, reason=f"{type(error).__name__}: {reason}")
    finally:
        ray.shutdown()
