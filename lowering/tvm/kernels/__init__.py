"""Kernels as TIR: blocked products, row-wise and windowed ops, element-wise formulas; each file one family."""
