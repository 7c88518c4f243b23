"""Reference of the kernels in numpy integers, bit by bit what the C simulation computes."""
