"""Emoji in nine categories: networks searched, drawn and made by hand for 64 KiB of RAM; see `oneshot.py`."""

import datasets
import oneshot

if __name__ == "__main__":
    oneshot.run(oneshot.Case("emoji", datasets.emoji, 300, 600, shift=2))
