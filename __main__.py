"""`python -m edgesmith`, and the installed command: both end in the same place."""

from .cli import main

if __name__ == "__main__":
    main()
