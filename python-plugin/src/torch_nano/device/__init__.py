"""Devices: the client, transports, and records."""
