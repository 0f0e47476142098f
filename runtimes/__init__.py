"""Where artifacts run."""
