"""Quantization-aware training of an allocated graph in torch."""
