"""Programs and boards as a user meets them."""
