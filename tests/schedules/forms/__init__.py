"""Every form of every schedule: the families of kernels that tests enumerate."""
