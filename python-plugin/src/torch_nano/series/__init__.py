"""Time series of sensors: CSV files with a row per time stamp, and windows of them."""
