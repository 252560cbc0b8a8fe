"""Writes benchmarks/speed.md and soak.md from what lies in benchmarks/results, so that no figure is copied by hand.

python -m benchmarks.tables
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def load(name: str) -> dict[str, Any] | None:
    """A file of results, or None where nobody has measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown; None is an empty cell."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join('' if cell is None else str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def origin(found: dict[str, Any]) -> str:
    """Where and when a result was measured."""
    machine = found["gpu"] or f"{found['cpu']}, {found['torch_threads']} cores"
    return f"`{found['command']}`, {found['date']}, commit {found['commit']}, {machine}, torch {found['torch']}."


def percent(share: float) -> str:
    """A share as whole per cent."""
    return f"{100 * share:.0f} %"


def ceiling() -> str:
    """The in-process ceiling on every device and in every precision."""
    parts = ["## Ceiling: the arithmetic alone", ""]
    head = ["batch", "score, images/s", "of the matrix rate", "with map, images/s", "of the matrix rate", "map costs"]
    for device, precision in (
        ("cpu", "float32"), ("cpu", "bfloat16"), ("cuda", "float32"), ("cuda", "float16"), ("cuda", "bfloat16"),
    ):  # fmt: skip
        found = load(f"ceiling_{device}_{precision}")
        parts += [f"**{device}, {precision}.**"]
        if found is None:
            parts += [f"Not measured. `python -m benchmarks.ceiling --device {device} --precision {precision}`", ""]
            continue
        rates = found["gflops"]
        parts += [
            f"{origin(found)} Matrix rate: {rates['convolution']} GFLOP/s as a 1x1 convolution, to which the shares "
            f"refer; {rates['matrix_product']} as a matrix product.",
            "",
            table(
                head,
                (
                    (
                        row["batch"], row["score_images_per_second"], percent(row["score_share_of_convolution_rate"]),
                        row["score_and_map_images_per_second"],
                        percent(row["score_and_map_share_of_convolution_rate"]), f"{row['map_cost_in_scores']} scores",
                    )
                    for row in found["rows"]
                ),
            ),
            "",
        ]  # fmt: skip
    return "\n".join(parts)


def service() -> str:
    """Closed and open loops."""
    found = load("service")
    if found is None:
        return "## Service\n\nNot measured.\n"
    head = ["JPEG", "load", "images/s", "of the ceiling", "p50 ms", "p95 ms", "p99 ms", "mean batch", "refused"]
    rows = []
    for row in found["rows"]:
        if row["loop"] == "closed":
            load_text = f"{row['clients']} clients"
        elif row["loop"] == "open":
            load_text = f"{row['percent_of_capacity']} % of capacity"
        else:
            load_text = "in-process ceiling"
        refused = None
        if "refused" in row:
            refused = f"{row['refused']}, p50 {row['refused_p50_ms']} ms, p99 {row['refused_p99_ms']} ms"
        share = percent(row["share_of_ceiling"]) if "share_of_ceiling" in row else None
        rows.append(
            (
                f"{row['side']}²", load_text, row["images_per_second"], share, row.get("p50_ms"), row.get("p95_ms"),
                row.get("p99_ms"), row.get("mean_batch"), refused,
            )
        )  # fmt: skip
    overload = [row for row in found["rows"] if "goodput_share_of_peak" in row]
    notes = [
        f"At {row['percent_of_capacity']} % of capacity the goodput is {percent(row['goodput_share_of_peak'])} of the "
        f"peak; a full queue of 256 images lasts {row['queue_bound_ms'] / 1000:.1f} s, the p99 of accepted images is "
        f"{row['p99_ms'] / 1000:.1f} s."
        for row in overload
    ]
    return "\n".join(["## Service", "", origin(found), "", table(head, rows), "", *notes, ""])


def rivals() -> str:
    """The same pair behind other servers."""
    found = load("rivals")
    if found is None:
        return "## Rivals\n\nNot measured.\n"
    clients = sorted({row["clients"] for row in found["rows"]})
    servers = list(dict.fromkeys(row["server"] for row in found["rows"]))
    cells = {(row["server"], row["clients"]): row for row in found["rows"]}
    head = ["server", *(f"{count} clients: images/s, p99 ms" for count in clients)]
    rows = [
        [server, *(f"{cells[server, n]['images_per_second']}, {cells[server, n]['p99_ms']:.0f}" for n in clients)]
        for server in servers
    ]
    return "\n".join(["## Rivals", "", origin(found), found["note"], "", table(head, rows), ""])


def growth() -> str:
    """Categories and image sizes."""
    found = load("growth")
    if found is None:
        return "## Growth\n\nNot measured.\n"
    by_categories = table(
        ["categories", "traffic", "memory for students, MiB", "images/s", "p99 ms", "resident, MiB", "start, s"],
        (
            (
                row["categories"], row["traffic"], row["student_memory_mib"], row["images_per_second"], row["p99_ms"],
                row["resident_mib"], row["start_seconds"],
            )
            for row in found["by_categories"]
        ),
    )  # fmt: skip
    by_size = table(
        ["image size of the networks", "images/s", "p99 ms", "resident, MiB"],
        (
            (f"{row['image_size']}²", row["images_per_second"], row["p99_ms"], row["resident_mib"])
            for row in found["by_image_size"]
        ),
    )
    uniform = {
        row["categories"]: row
        for row in found["by_categories"]
        if row["traffic"] == "uniform" and row["student_memory_mib"] >= 2048
    }
    notes = []
    if {1, 100} <= set(uniform):
        share = uniform[100]["images_per_second"] / uniform[1]["images_per_second"]
        notes.append(f"A hundred categories in uniform traffic: {percent(share)} of one category's throughput.")
    if {10, 1000} <= set(uniform):
        each = (uniform[1000]["resident_mib"] - uniform[10]["resident_mib"]) / 990
        notes.append(f"Each further category costs {each:.2f} MiB while its student is in memory.")
    parts = ["## Growth", "", origin(found), found.get("note", ""), "", by_categories, "", *notes, "", by_size, ""]
    return "\n".join(parts)


def training() -> str:
    """Epochs with and without kept features."""
    parts = ["## Training", ""]
    for device in ("cpu", "cuda"):
        found = load(f"training_{device}")
        if found is None:
            parts += [f"**{device}**: not measured.", ""]
            continue
        parts += [
            origin(found),
            "",
            table(
                ["features in", "epoch without cache, s", "cached epoch, s", "share", "images/s", "peak memory, MiB"],
                (
                    (
                        row["features_in"], row["seconds_of_an_epoch_without_cache"], row["seconds_of_a_cached_epoch"],
                        percent(row["cached_share"]), row["images_per_second_cached"], row["peak_resident_mib"],
                    )
                    for row in found["rows"]
                ),
            ),
            "",
        ]  # fmt: skip
    return "\n".join(parts)


def precision() -> str:
    """Reduced precision against float32."""
    rows = []
    for device, kind in (("cpu", "float16"), ("cpu", "bfloat16"), ("cuda", "float16"), ("cuda", "bfloat16")):
        found = load(f"precision_{device}_{kind}")
        if found is None:
            rows.append((f"{device}, {kind}", "not measured", None, None, None))
            continue
        rows.append(
            (
                f"{device}, {kind}",
                f"{100 * found['relative_score_error_median']:.2f} %",
                f"{100 * found['relative_score_error_largest']:.2f} %",
                f"{found['decisions_changed']} of {found['images']}",
                f"{found['correlation_of_maps_smallest']:.4f}",
            )
        )
    head = ["networks in", "score error, median", "largest", "decisions changed", "least alike map (correlation)"]
    return "\n".join(
        [
            "## Reduced precision", "",
            "The built-in category's 225 test images against float32 on the CPU, "
            "`python -m benchmarks.precision --device DEVICE --precision PRECISION`:", "", table(head, rows), "",
        ]
    )  # fmt: skip


def choices() -> str:
    """What the engine's choices rest on."""
    found = load("choices")
    if found is None:
        return "## Choices\n\nNot measured.\n"
    parts = ["## Choices", "", origin(found), ""]
    for name, group in found.items():
        if not isinstance(group, dict):
            continue
        values = {key: value for key, value in group.items() if key != "what"}
        parts += [f"**{name}.** {group['what']}", ""]
        first = next(iter(values.values()))
        if isinstance(first, dict):
            parts += [table(["", *first], ([key, *row.values()] for key, row in values.items())), ""]
        else:
            parts += [table(list(values), [list(values.values())]), ""]
    return "\n".join(parts)


def tiles() -> str:
    """Pictures in tiles beside single images."""
    parts = ["## Pictures in tiles", ""]
    head = [
        "picture", "images", "images/s", "of single ones", "on the device, images/s", "of single ones",
        "server's processor ms an image", "of single ones", "decoding, processor ms a picture",
        "peak memory: server, MiB", "decoders, MiB",
    ]  # fmt: skip
    for networks in ("compact", "full"):
        found = load(f"views_cost_{networks}")
        parts += [f"**{networks} networks.**"]
        if found is None:
            parts += [f"Not measured. `python -m benchmarks.views cost --networks {networks}`", ""]
            continue
        rows = [
            [
                row["picture"], row["views"], round(row["images_per_second"], 1),
                percent(row["images_per_second_ratio"]), round(row["device_images_per_second"], 1),
                percent(row["device_images_per_second_ratio"]), round(row["server_processor_ms_per_image"], 1),
                percent(row["server_processor_ms_per_image_ratio"]),
                round(row["decoders_processor_ms_per_image"] * row["views"], 1), row["server_peak_mib"],
                row["decoders_peak_mib"],
            ]
            for row in found["rows"]
        ]  # fmt: skip
        parts += [origin(found), "", table(head, rows), ""]
    return "\n".join(parts)


def soak() -> str:
    """Everything at once for a long time."""
    intro = (HERE / "soak_intro.md").read_text()
    found = load("soak")
    if found is None:
        return f"{intro}\nNot measured. `python -m benchmarks.soak`\n"
    memory, opened, threads = found["memory_mib"], found["descriptors"], found["threads"]
    numbers = [
        ("requests, and images of batches", f"{found['sent']} sent, {found['came']} answered or ended as they were to"),
        ("faults of the device", ", ".join(f"{count} of `{order}`" for order, count in found["faults"].items())),
        (
            "resident memory after the warm-up, MiB",
            f"{memory['slope_per_hour']} an hour; medians of each tenth {', '.join(map(str, memory['tenths']))}",
        ),
        (
            "open descriptors",
            f"{opened['at_rest_before']} at rest before, {opened['at_rest_after']} after; under load "
            f"{opened['slope_per_hour']} an hour, median of the first tenth {opened['tenths'][0]:g}, of the last "
            f"{opened['tenths'][-1]:g}",
        ),
        (
            "threads",
            f"{threads['at_rest_before']} at rest before, {threads['at_rest_after']} after, {threads['most']} at most",
        ),
    ]
    checks = [(name, f"failed: {wrong}" if wrong else "holds") for name, wrong in found["checks"].items()]
    rows = [(row["what"], row["kind"], row["count"], row["p50_ms"], row["p99_ms"]) for row in found["ledger"]]
    return "\n".join(
        [
            intro, origin(found), "", table(["what", "measured"], numbers), "", table(["check", ""], checks), "",
            "## Ledger", "", table(["sent", "came", "how often", "p50 ms", "p99 ms"], rows), "",
        ]
    )  # fmt: skip


def main() -> None:
    """Writes the pages."""
    (HERE / "soak.md").write_text(soak())
    intro = (HERE / "speed_intro.md").read_text()
    parts = [intro, ceiling(), service(), rivals(), growth(), tiles(), training(), precision(), choices()]
    (HERE / "speed.md").write_text("\n".join(part.rstrip("\n") + "\n" for part in parts))


if __name__ == "__main__":
    main()
