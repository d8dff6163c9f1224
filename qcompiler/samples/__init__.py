"""Calibration samples in files: numpy arrays that are read a batch at a time, and folders of images."""
