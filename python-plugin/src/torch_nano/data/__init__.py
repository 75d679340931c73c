"""Data as users have them: every entry of the package reads them here, alike."""
