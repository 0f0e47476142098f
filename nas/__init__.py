"""Search spaces for architectures, and what a candidate costs."""
