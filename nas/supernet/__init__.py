"""One-shot architecture search in PyTorch (extra `train`): all networks of a space trained at once, on shared weights.

The networks are the graphs of `nas/families`: PyTorch runs and differentiates these very graphs, so that what was
trained is what is compiled, and a family needs no second definition. The files here import torch at their top; nothing
outside of them imports these before it needs them.
"""
