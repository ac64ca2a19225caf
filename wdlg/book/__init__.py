"""The book: executing its notebooks, and what their pages, slides and PDF are made with."""
