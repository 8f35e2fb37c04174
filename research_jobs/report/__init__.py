"""Cells and their outputs as an executed notebook, a page and a gallery."""
