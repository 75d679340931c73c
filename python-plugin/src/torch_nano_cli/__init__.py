"""The command `torch-nano`.

A package of its own, which imports torch_nano, and with it torch, only where a command needs them: help and
completion of the shell answer at once.
"""
