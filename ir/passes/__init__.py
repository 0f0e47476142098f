"""Graph to graph: a pass says what it keeps exact and what it needs; `pipelines` says the order and why."""
