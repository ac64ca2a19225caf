"""Side-by-side measurements of the engine; ``make bench`` runs them all."""
