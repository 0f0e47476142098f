"""Fashion-MNIST, padded to 32 x 32: networks searched, drawn and made by hand for 64 KiB of RAM; see `oneshot.py`."""

import datasets
import oneshot

if __name__ == "__main__":
    oneshot.run(oneshot.Case("fashion", lambda _: datasets.fashion(), 500, 1100))
