"""Draw the README's picture of an experiment: where the KV memory goes, as the catalogue draws it.

Run from the repository's root with ``python -m docs.images.draw_experiment``.
"""

from __future__ import annotations

from pathlib import Path

from toolkit.experiments.catalogue import where_the_memory_goes

TARGET = Path(__file__).with_name("where_the_memory_goes.png")


def main() -> None:
    """Run the experiment in its quick size and keep its figure."""
    result = where_the_memory_goes.run("quick")
    TARGET.write_bytes(where_the_memory_goes.plot(result).to_png(dpi=130))


if __name__ == "__main__":
    main()
