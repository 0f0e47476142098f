"""What searches find, part by part: `python benchmarks/search.py kill`. Each part is a file of its own beside this one.

`python benchmarks/search.py PART --help` tells what a part can be given.
"""

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent
PARTS = sorted(path.stem.removeprefix("search_") for path in HERE.glob("search_*.py"))


def main() -> None:
    """Run one part."""
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        sys.exit(f"usage: python benchmarks/search.py PART ...\nparts: {', '.join(PARTS)}")
    part = sys.argv.pop(1)
    sys.path.insert(0, str(HERE))
    runpy.run_path(str(HERE / f"search_{part}.py"), run_name="__main__")


if __name__ == "__main__":
    main()
