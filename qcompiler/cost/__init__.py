"""Costs that are measured: what each layer's kernel takes on the target, at every choice of bits."""
