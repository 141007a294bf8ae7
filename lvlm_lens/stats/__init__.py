"""Statistics that every room uses; nothing here imports another room."""
