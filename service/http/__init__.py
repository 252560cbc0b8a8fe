"""HTTP: routes, keys, bodies, errors, and the protocol."""
