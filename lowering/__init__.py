"""From a planned integer graph to what a device runs: one folder per back end."""
