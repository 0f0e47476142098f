"""The C back end: a generated library of kernels, weights and one entry function."""
