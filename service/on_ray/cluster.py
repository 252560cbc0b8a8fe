"""Joins a Ray cluster, or starts one of this machine alone. Needs the extra `ray`."""

import os
import secrets

import ray

OBJECT_STORE_BYTES = 256 << 20
"""Of a cluster that is started here. Requests do not go through it."""
LOCAL = "local"


def join(address: str | None) -> None:
    """Connects this process to a cluster.

    Args:
        address: as Ray takes it, such as ``auto`` for the one of this machine; None starts one, reached from this
            machine only, that ends with this process.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is not None:
        ray.init(address, log_to_driver=False)
        return
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    # For Ray Serve's proxy, which is started from here.
    os.environ.setdefault("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "service.on_ray.proxy.middlewares")
    ray.init(LOCAL, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, _node_ip_address="127.0.0.1")
