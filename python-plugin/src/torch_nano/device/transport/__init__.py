"""Byte streams to devices: serial ports, sockets, the emulated and the simulated board."""
