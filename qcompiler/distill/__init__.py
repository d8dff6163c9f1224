"""Samples for calibration where there are none: made from what a model's batch norms know about the data they were trained on."""
