"""Devices that sense and learn by themselves: recorded sensors, reports, and their replay."""
