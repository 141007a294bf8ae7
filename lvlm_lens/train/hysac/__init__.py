"""HySAC (arXiv 2503.12127): CLIP in Lorentz space, and what its parts are worth on a small world."""
