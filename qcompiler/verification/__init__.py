"""Does the finished library compute what the integer graph says?

``samples`` makes input codes and what the reference gives for them, ``runner`` runs a library here or under an emulator,
``verify`` compares the two, and ``isolate`` finds the first layer that differs where they do.
"""
