"""Sensitivity analysis: how much the network suffers when one weight tensor, or one activation class, gets fewer bits.

``analyze.py`` has the entry and lists the metrics; ``pairs.py`` what two tensors do together. All work on the calibrated graph,
fused and folded: what ships, rounded by the quantizers that ship. ``table.py`` is the result.
"""
