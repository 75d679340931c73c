"""Predictions on labelled data: accuracy, classes, confusion matrix, worst samples."""
