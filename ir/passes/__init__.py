"""Graph to graph: what a model means (recognise), the same in fewer steps (exact), and in integers (quantise)."""
