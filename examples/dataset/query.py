"""Ask the catalog of a dataset: `python query.py CATALOG MANIFEST`; both are Parquet tables.

Where DuckDB is installed, SQL does the same: `duckdb -c "SELECT stage, median(seconds) FROM 'catalog.parquet' GROUP
BY stage"`.
"""

import sys

from pyarrow import compute, parquet


def main(catalog: str, manifest: str) -> None:
    """Prints what each stage takes, and how large the assets of each kind of object are."""
    entries = parquet.read_table(catalog)
    done = entries.filter(compute.equal(entries["state"], "done"))

    print("stage             done  seconds each  peak memory, MiB")
    costs = done.group_by("stage").aggregate([("seconds", "count"), ("seconds", "mean"), ("peak_memory", "max")])
    for row in costs.to_pylist():
        memory = row["peak_memory_max"] / 2**20
        print(f"{row['stage']:<16} {row['seconds_count']:>5} {row['seconds_mean']:>13.2f} {memory:>17.0f}")

    print("\nkind of object    clips  Gaussians each")
    kinds = parquet.read_table(manifest, columns=["id", "tags"])
    assets = done.filter(compute.equal(done["stage"], "decoding")).select(["id", "gaussians"]).join(kinds, "id")
    sizes = assets.group_by("tags").aggregate([("gaussians", "count"), ("gaussians", "mean")])
    for row in sizes.sort_by([("gaussians_mean", "descending")]).to_pylist():
        print(f"{row['tags']:<16} {row['gaussians_count']:>6} {row['gaussians_mean']:>15.0f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
