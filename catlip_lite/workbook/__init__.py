"""Notebooks as a rendered report: executed headless, one after the other, into the pages of `outputs/<run>/`."""
